"""What a program costs, read off its jaxpr: nothing is compiled and nothing is run.

Arithmetic is that of the matrix products. Memory is a liveness analysis that knows what a compiler
does with a jaxpr: a chain of elementwise equations is one loop that keeps no intermediate, a result
takes the place of an operand that nobody reads any more, a scan writes its rows into one array and
updates its carry in place, and what nobody reads is not computed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gradlab.tracing import _jaxpr
from gradlab.tracing._jaxpr import Lit, Node, Program


class Cost(NamedTuple):
    """What one call of a compiled program costs.

    `flops` are the multiplications and additions of its matrix products, those of a `while` for
    one round of it. `bytes` are its peak use of memory: arguments, results, and what is alive
    between them.
    """

    flops: int
    bytes: int


def cost(function: Callable[..., Any], *args: Any) -> Cost:
    """Estimate what a call of a function costs, without compiling or running it.

    Args:
        function: any function that JAX can trace, jitted or not.
        args: its arguments, or `jax.ShapeDtypeStruct`s in their places.

    Returns:
        The arithmetic, exact, and the bytes, within a factor of 1.5 for the programs of a sweep.

    Raises:
        What tracing the function raises.

    >>> import jax.numpy as jnp
    >>> x = jax.ShapeDtypeStruct((100, 100), jnp.float32)
    >>> cost(lambda x: jnp.tanh(x @ x) + 1, x)
    Cost(flops=2000000, bytes=80000)
    """
    traced = function if hasattr(function, "trace") else jax.jit(function)
    closed = traced.trace(*args).jaxpr
    flat = _flat(closed)
    use = _Walk(flat).use(flat.outs)
    arguments = sum(_size(flat.avals[slot]) for slot in flat.ins)
    return Cost(use.flops, arguments + use.bytes + _constants(flat))


_INLINED = (
    *("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"),
    *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"),
)
# What gives the bytes of its operand another name or shape.
_RENAMED = (
    *("reshape", "squeeze", "expand_dims", "stop_gradient", "copy", "copy_p", "pvary"),
    *("optimization_barrier", "sharding_constraint", "random_wrap", "random_unwrap"),
)
# What a loop over its result reads straight from the operands.
_READ = (
    *("broadcast_in_dim", "iota", "slice", "dynamic_slice", "split", "transpose", "rev", "pad"),
    *("select_n", "convert_element_type", "bitcast_convert_type", "concatenate", "stack"),
)
_MOVED = ("slice", "dynamic_slice", "split", "transpose", "rev", "pad", "concatenate", "stack")
# What keeps the shape of its operand but is no loop over single elements.
_WHOLE = ("sort", "cum", "random", "eig", "lu", "cholesky", "schur", "qr", "scatter", "dynamic_up")
# What is dearer to compute than to keep, where several read it.
_DEAR = (
    *("exp", "exp2", "expm1", "log", "log1p", "tanh", "logistic", "erf", "erf_inv", "pow", "sin"),
    *("cos", "tan", "sqrt", "rsqrt", "div", "rem", "cbrt", "atan2", "concatenate", "stack"),
)


class _Use(NamedTuple):
    """Arithmetic, and the most bytes alive of what is made inside."""

    flops: int
    bytes: int


def _size(aval: Any) -> int:
    if not hasattr(aval, "shape") or aval.dtype == jax.dtypes.float0:
        return 0
    return math.prod(aval.shape) * aval.dtype.itemsize


def _constants(flat: Program) -> int:
    """Bytes of the arrays that are written in the program, each once."""
    found: dict[int, int] = {}

    def visit(flat: Program) -> None:
        for ref in (*flat.outs, *(ref for node in flat.nodes for ref in node.ins)):
            if isinstance(ref, Lit) and np.ndim(ref.value):
                found[id(ref.value)] = ref.value.nbytes
        for node in flat.nodes:
            for inner in _inner(node):
                visit(inner)

    visit(flat)
    return sum(found.values())


@functools.lru_cache(maxsize=4096)
def _flat(closed: Any) -> Program:
    return _jaxpr.deduplicate(_jaxpr.program(closed, _INLINED))


def _inner(node: Node) -> list[Program]:
    """The programs inside an equation."""
    found = []
    for param in node.params.values():
        for each in param if isinstance(param, tuple | list) else (param,):
            if _jaxpr.is_jaxpr(each):
                found.append(_flat(each))
    return found


class _Walk:
    """One program, walked in its order."""

    def __init__(self, flat: Program) -> None:
        self.flat = flat
        self.sizes = [_size(aval) for aval in flat.avals]
        self.read: set[int] = set()

    def use(self, wanted: Sequence[Any], owned: Sequence[int] = ()) -> _Use:
        """The use where only the `wanted` results are read.

        Inputs are the caller's, but for the `owned` ones: those are counted, and are overwritten
        where nobody reads them any more.
        """
        nodes = _jaxpr.needed(self.flat.nodes, wanted)
        fused = [_is_fused(node, self.flat.avals) for node in nodes]
        self.read = {ref for node in nodes for ref in _slots(node.ins)} | set(_slots(wanted))
        kept = _kept(nodes, fused, wanted, self.flat)
        # What each value is read from: itself where it is kept, else what it is computed from.
        roots = {slot: frozenset([slot]) for slot in self.flat.ins}
        last: dict[int, int] = {}
        moved: set[int] = set()  # what is not at the place of what it is read from
        for i, node in enumerate(nodes):
            read = frozenset().union(*(roots[ref] for ref in _slots(node.ins)))
            roots |= {out: frozenset([out]) if out in kept else read for out in node.outs}
            sources = [ref for ref in _slots(node.ins) if ref not in kept]
            if node.kind in _MOVED or not moved.isdisjoint(sources):
                moved.update(node.outs)
            if not fused[i] or not kept.isdisjoint(node.outs):
                last.update(dict.fromkeys(read, i))
        for ref in _slots(wanted):
            last.update(dict.fromkeys(roots[ref], len(nodes)))
        dying: dict[int, list[int]] = {}
        for slot, i in last.items():
            dying.setdefault(i, []).append(slot)

        # Rows of a stacked array that a product or a loop reads are copied out of it.
        rows = [slot for slot in self.flat.ins if slot in kept]
        alive = {slot for slot in (*owned, *rows) if slot in last}
        made = {out: i for i, node in enumerate(nodes) for out in node.outs if out in kept}
        early = self._early(nodes, made, roots)
        products = {out for node in nodes if node.kind == "dot_general" for out in node.outs}
        now = peak = sum(self.sizes[slot] for slot in alive)
        flops = 0
        for i, node in enumerate(nodes):
            new = [out for out in node.outs if out in kept and out in self.read]
            ending = [slot for slot in dying.get(i, ()) if slot in alive]
            inside = self._inside(node)
            flops += inside.flops
            size = sum(self.sizes[out] for out in new)
            # A loop over elements writes into an operand that ends here, and so does a carry.
            still = fused[i] and moved.isdisjoint(node.outs)
            if still:
                # Seen in XLA's plans: a product's result is not written over.
                over = [slot for slot in ending if slot not in products]
            else:
                over = [slot for slot in ending if slot in _carried(node)]
            reused = min(size, sum(self.sizes[slot] for slot in over))
            peak = max(peak, now + size - reused + inside.bytes + early[i])
            alive.update(new)
            alive.difference_update(ending)
            now += size - sum(self.sizes[slot] for slot in ending)
        return _Use(flops, peak)

    def _early(self, nodes: Any, made: dict[int, int], roots: Any) -> list[int]:
        """What is set aside before a node for the rows of a scan to come.

        Their array is zeroed before the scan's inputs are made, since it depends on nothing.
        """
        early = [0] * len(nodes)
        for i, node in enumerate(nodes):
            if node.kind != "scan":
                continue
            consts, carry, _ = _jaxpr.scan_counts(node)
            inputs = [roots[ref] for ref in _slots(node.ins[consts + carry :])]
            since = min((made.get(slot, i) for each in inputs for slot in each), default=i)
            size = sum(self.sizes[out] for out in node.outs[carry:] if out in self.read)
            for k in range(since, i):
                early[k] += size
        return early

    def flops(self, node: Node) -> int:
        """The arithmetic of an equation of which all results are read."""
        self.read = set(node.outs)
        return self._inside(node).flops

    def _inside(self, node: Node) -> _Use:
        """The arithmetic of an equation, and what it needs beside operands and results."""
        if node.kind == "dot_general":
            (left, _), _ = node.params["dimension_numbers"]
            shape = node.eqn.invars[0].aval.shape
            size = math.prod(node.eqn.outvars[0].aval.shape)
            return _Use(2 * size * math.prod(shape[i] for i in left), 0)
        programs = _inner(node)
        if not programs:
            return _Use(0, 0)
        if node.kind == "scan":
            consts, carry, length = _jaxpr.scan_counts(node)
            (body,) = programs
            ys = zip(body.outs[carry:], node.outs[carry:], strict=True)
            wanted = (*body.outs[:carry], *(ref for ref, out in ys if out in self.read))
            use = _Walk(body).use(wanted, body.ins[consts : consts + carry])
            carried = sum(self.sizes[out] for out in node.outs[:carry])
            return _Use(use.flops * length, max(0, use.bytes - carried))
        uses = [_Walk(flat).use(flat.outs) for flat in programs]
        times = _jaxpr.shards(node) if node.kind == "shard_map" else 1
        flops = (max if node.kind == "cond" else sum)(use.flops for use in uses)
        size = sum(self.sizes[out] for out in node.outs)
        return _Use(times * flops, max(0, times * max(use.bytes for use in uses) - size))


def _slots(refs: Iterable[Any]) -> list[int]:
    return [ref for ref in refs if not isinstance(ref, Lit)]


def _carried(node: Node) -> Sequence[Any]:
    """The operands whose place a loop takes for its carry."""
    if node.kind == "scan":
        consts, carry, _ = _jaxpr.scan_counts(node)
        return node.ins[consts : consts + carry]
    return node.ins if node.kind == "while" else ()


def _is_fused(node: Node, avals: Sequence[Any]) -> bool:
    """Whether the equation is part of a loop over single elements."""
    kind = node.kind
    if kind in _RENAMED or kind in _READ or kind == _jaxpr.TAP:
        return True
    if kind.startswith(_WHOLE) or len(node.outs) != 1 or _inner(node):
        return False
    if kind.startswith("reduce_") or kind.startswith("arg"):
        return True
    shape = avals[node.outs[0]].shape
    return all(isinstance(ref, Lit) or _fits(avals[ref].shape, shape) for ref in node.ins)


def _fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    if not shape:
        return True
    return len(shape) == len(wanted) and all(
        a in (1, b) for a, b in zip(shape, wanted, strict=True)
    )


def _kept(
    nodes: Sequence[Node], fused: Sequence[bool], wanted: Sequence[Any], flat: Program
) -> set[int]:
    """The slots whose values take memory of their own."""
    whole: set[int] = set(_slots(wanted))  # read as a whole, not element by element
    operands: set[int] = set()  # of products alone
    times: dict[int, int] = {}
    for node, flag in zip(nodes, fused, strict=True):
        for ref in _slots(node.ins):
            times[ref] = times.get(ref, 0) + 1
        if node.kind == "dot_general":
            operands.update(_slots(node.ins))
        elif not flag:
            whole.update(_slots(node.ins))
    kept: set[int] = set()
    # Backwards, since what is another name for a value makes the value itself kept.
    for node, flag in zip(reversed(nodes), reversed(fused), strict=True):
        if not flag or node.kind.startswith(("reduce_", "arg")):
            kept.update(node.outs)
            continue
        for out in node.outs:
            if not (out in whole or out in operands):
                if times.get(out, 0) > 1 and node.kind in _DEAR:
                    kept.add(out)
            elif node.kind in _RENAMED or (node.kind == "transpose" and out not in whole):
                # A product reads its operands in either order. Other transposes are copies even
                # where they move an axis of one: layouts differ.
                (whole if out in whole else operands).update(_slots(node.ins))
            else:
                kept.add(out)
    return kept


class StepFlops(NamedTuple):
    """Multiplications and additions in the matrix products of one step of a recurrence.

    `once` needs the parameters alone, `forward` an input or the state, `backward` is what the
    adjoint of the state adds: a product has one transposed product for each operand that depends
    on the state.
    """

    once: int
    forward: int
    backward: int


def step_flops(step: Callable[..., Any], params: Any, state: Any, x: Any) -> StepFlops:
    """The arithmetic of state = step(params, state, x), from types alone.

    It is that of `trace(loss, argnums=())` per step, without tracing the backward pass: products
    inside a scan of the step count as they are, forward.

    >>> import jax.numpy as jnp
    >>> w, h = jax.ShapeDtypeStruct((9, 9), jnp.float32), jax.ShapeDtypeStruct((9,), jnp.float32)
    >>> step_flops(lambda w, h, x: jnp.tanh(w @ h + w @ x), w, h, h)
    StepFlops(once=0, forward=324, backward=162)
    """
    flat = _flat(jax.make_jaxpr(step)(params, state, x))
    count, moving = len(jax.tree.leaves(params)), len(jax.tree.leaves(state))
    later = _jaxpr.dependents(flat.nodes, flat.ins[count:])
    moved = _jaxpr.dependents(flat.nodes, flat.ins[count : count + moving])
    once = forward = backward = 0
    walk = _Walk(flat)
    for node in _jaxpr.needed(flat.nodes, flat.outs):
        flops = walk.flops(node)
        if later.isdisjoint(node.outs):
            once += flops
        else:
            forward += flops
            backward += flops * sum(ref in moved for ref in _slots(node.ins))
    return StepFlops(once, forward, backward)
