"""Name the recurrences of a program that are not recorded, so that none is passed over.

A kernel cannot be seen into, a loop whose backward rule somebody wrote has no steps that could be
differentiated, and a cumulative sum is one operation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from gradlab.tracing import _jaxpr
from gradlab.tracing._changes import Changes
from gradlab.tracing._jaxpr import Node, Program

_CUMULATIVE = {
    "cumsum": "jnp.add",
    "cumprod": "jnp.multiply",
    "cumlogsumexp": "jnp.logaddexp",
    "cummax": "jnp.maximum",
    "cummin": "jnp.minimum",
}
_KERNELS = frozenset(
    "ffi_call custom_call pallas_call tpu_custom_call rnn_fwd custom_partitioning call_exported "
    "core_map mosaic_gpu triton_kernel_call".split()
)
# They have no derivative, so nothing goes back through them but by a rule around them.
_CALLBACKS = frozenset(("pure_callback", "io_callback"))
# Reverse mode solves the transposed equations in place of going back through the solver.
_SOLVE = "custom_linear_solve"
_CANDIDATES = frozenset((*_CUMULATIVE, *_KERNELS, *_CALLBACKS, _SOLVE, _jaxpr.PARALLEL))
_WRITES = frozenset(("scatter", "dynamic_update_slice"))
_NOWHERE = "an unknown line"
_WITH_RULE = frozenset(("custom_jvp_call", "custom_vjp_call"))


class Walker(Protocol):
    """What is needed of the walk over a program."""

    def inside(self, node: Node) -> Sequence[Program]: ...
    def is_closed(self, node: Node) -> bool: ...
    def flat(self, node: Node) -> Any: ...


def unseen(walk: Walker, program: Program, changes: Changes) -> list[str]:
    """A sentence for each place where what is perturbed goes through an unrecorded recurrence."""
    return list(dict.fromkeys(_find(walk, program, changes, _NOWHERE)))


def _find(
    walk: Walker, program: Program, changes: Changes, outer: str, ruled: bool = False
) -> Iterator[str]:
    # A parallel scan that was not understood leaves a node without results, which nothing needs.
    markers = [n for n in program.nodes if n.kind == _jaxpr.PARALLEL and n.eqn.parts is None]
    for node in (*markers, *_jaxpr.dependencies(program.nodes, program.outs)):
        closed, inside = walk.is_closed(node), walk.inside(node)
        holds_ref = node.kind in ("scan", "while") and _jaxpr.holds_ref(node)
        if not (closed or inside or holds_ref or node.kind in _CANDIDATES):
            continue  # to find the line of every equation would take longer than all else here
        # A library may leave no line of the user's on what it wraps: then the call's serves.
        place = _jaxpr.where(node) or outer
        place = outer if place.startswith("jax.") and outer != _NOWHERE else place
        if node.kind == _jaxpr.PARALLEL and node.eqn.parts is None:
            if any(changes.of(node)):
                yield _link_message(place)
        elif holds_ref and any(changes.of(node)):
            yield ref_message(place)
        elif any(changes.of(node)) and any(map(_jaxpr.is_float, _results(node))):
            yield from _name(node, place, ruled)
            if closed:
                yield _loop_message(f"while_loop inside the custom derivative at {place}")
            if node.kind == _SOLVE and _jaxpr.holds_loop(node.params):
                yield _loop_message(f"loop of the linear solver at {place}")
            if node.kind == "scan":
                yield from _name_buffers(walk.flat(node), place)
        for inner in inside:
            yield from _find(walk, inner, changes, place, ruled or node.kind in _WITH_RULE)


def _results(node: Node) -> list[object]:
    return [var.aval for var in node.eqn.outvars if hasattr(var.aval, "dtype")]


def _name(node: Node, place: str, ruled: bool) -> Iterator[str]:
    if node.kind in _CUMULATIVE:
        # Whichever of JAX's functions made it, the user's line says more.
        line = place.partition(" in ")[0]
        axis = f", axis={node.params['axis']}" if node.params.get("axis") else ""
        reverse = ", reverse=True" if node.params.get("reverse") else ""
        yield (
            f"the {node.kind} at {line} is a recurrence that is not in the record; "
            f"`jax.lax.associative_scan({_CUMULATIVE[node.kind]}, x{reverse}{axis})` in its place "
            "is recorded"
        )
    if node.kind in _KERNELS or (ruled and node.kind in _CALLBACKS):
        yield (
            f"the {node.kind} at {place} may hold a recurrence that is not recorded, since trace "
            "cannot see into it: use the form without a kernel (use_cudnn=False in keras), hold it "
            "against a plain form with gl.check and trace that, or mark the states that it returns "
            "with gl.tap"
        )


def _name_buffers(scan: _jaxpr.ScanParts, place: str) -> Iterator[str]:
    """Name each leaf of a carry into which the steps write and from which they never read."""
    body = scan.body
    reads = Counter(
        slot
        for slots in (body.outs, *(node.ins for node in body.nodes))
        for slot in slots
        if isinstance(slot, int)
    )
    writers: dict[Any, Node] = {slot: node for node in body.nodes for slot in node.outs}
    ins = body.ins[scan.num_consts :][: scan.num_carry]
    carry = zip(scan.leaf_names, ins, body.outs, strict=False)
    leaves = [leaf for leaf in carry if _jaxpr.is_float(body.avals[leaf[1]])]
    for name, before, after in leaves:
        writer = writers.get(after)
        is_write = writer is not None and writer.kind in _WRITES and writer.ins[0] == before
        if is_write and reads[before] == 1 and len(leaves) > 1:
            yield (
                f"leaf {name!r} of the scan at {place} is a buffer, into which the steps write: "
                "what the loss reads of it counts for the buffer and not for the state that was "
                "written; give the state as an output of lax.scan in place of the buffer"
            )


def _loop_message(loop: str) -> str:
    return (
        f"the {loop} is not recorded: its gradients are those of its own backward rule, and its "
        "steps have no other; mark what goes in and comes out with gl.tap, or write the recurrence "
        "as lax.scan"
    )


def ref_message(place: str) -> str:
    """What to say of a loop whose state is in a mutable array."""
    return (
        f"the loop at {place} keeps a state in a mutable array (jax.new_ref), which is not "
        "recorded: carry the state through lax.scan"
    )


def _link_message(place: str) -> str:
    return (
        f"the associative_scan at {place} is not recorded, since its equations are not linked as "
        "usual, as inside jax.jvp or jax.grad: write it as lax.scan; or, outside of a derivative, "
        "mark its elements with gl.tap (for h_t = a_t h_{t-1} + b_t the adjoint of b_t is that of "
        "h_t)"
    )


def refusal(messages: Sequence[str]) -> str:
    """Why there is nothing to trace, where only unrecorded recurrences are there."""
    return "trace found no recurrence that it can record: " + "; ".join(messages)
