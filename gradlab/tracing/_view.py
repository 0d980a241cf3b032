"""What `measure` sees of a step beside its state: inputs, outputs and named values.

They are values of the forward pass. Inputs and outputs are stacked by the scan itself; a named
value is stacked where `measure` reads it, and computed by a program of its own, which XLA merges
with the step's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from gradlab.tracing import _jaxpr, _narrow
from gradlab.tracing._jaxpr import Node, Program

_REMAT = ("checkpoint", "remat", "remat2")


class StepValues(NamedTuple):
    """What a step of a recurrence took, gave and named; the third argument of `measure`.

    Attributes:
        inputs: x_t, the leaves of the scan's `xs` in the order of `jax.tree.leaves`: a lone one as
            it is, several as a tuple.
        outputs: what the step returned beside its state, in the same way.
        names: what `gradlab.tap` and `jax.ad_checkpoint.checkpoint_name` name in the step, by name;
            a tuple where one name stands at several places, in program order. Values inside an
            inner scan, a `cond`, and functions with a derivative of their own are not seen.
    """

    inputs: Any
    outputs: Any
    names: dict[str, Any]


class View(NamedTuple):
    """Which of these values `measure` reads, and how to have them.

    `make(consts, carry, x, ys)` gives the values that are read, `restore(values)` a `StepValues`
    in which the others are zeros.
    """

    types: StepValues
    make: Callable[[Sequence[Any], Sequence[Any], Sequence[Any], Sequence[Any]], list[Any]]
    restore: Callable[[Sequence[Any]], StepValues]


class Runner(Protocol):
    """What is needed of the walk over the program."""

    def flat(self, node: Node) -> Any: ...
    def run(self, nodes: Sequence[Node], env: dict[int, Any], slots: Any) -> dict[int, Any]: ...
    def read(self, env: dict[int, Any], ref: Any) -> Any: ...


def wants_step(measure: Callable[..., Any] | None) -> bool:
    """Whether a `measure` has a third argument, without a default."""
    if measure is None:
        return False
    try:
        parameters = inspect.signature(measure).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [p for p in parameters if p.kind in positional and p.default is p.empty]
    return len(required) > 2


def show(
    walk: Runner,
    call: Callable[..., Any],
    state: list[Any],
    parts: _jaxpr.ScanParts,
) -> View:
    """What the step of a scan shows to `call(state, adjoint, StepValues)`; `state` holds types."""
    body = parts.body
    x_ids = body.ins[parts.num_consts + parts.num_carry :]
    outs = body.outs[parts.num_carry :]
    inputs = [_narrow.widen(body.avals[slot]) for slot in x_ids]
    outputs = [
        jax.typeof(_narrow.widen(ref.value))
        if isinstance(ref, _jaxpr.Lit)
        else _narrow.widen(body.avals[ref])
        for ref in outs
    ]
    pairs = _names(walk, body)
    names = [name for name, _ in pairs]
    leaves = [*inputs, *outputs, *(_narrow.widen(aval) for _, aval in pairs)]
    ends = len(inputs), len(inputs) + len(outputs)

    def restore(leaves: Sequence[Any]) -> StepValues:
        by_name: dict[str, Any] = {}
        for name, leaf in zip(names, leaves[ends[1] :], strict=True):
            by_name.setdefault(name, []).append(leaf)
        return StepValues(
            _few(leaves[: ends[0]]),
            _few(leaves[ends[0] : ends[1]]),
            {name: _few(each) for name, each in by_name.items()},
        )

    reads = _find_reads(call, state, leaves, restore)

    def make(consts: Any, carry: Any, x: Any, ys: Any) -> list[Any]:
        values = [*x, *ys]
        if any(reads[ends[1] :]):
            values += _evaluate(walk, body, (*consts, *carry, *x))
        return [value for value, is_used in zip(values, reads, strict=False) if is_used]

    def fill(values: Sequence[Any]) -> StepValues:
        rest = iter(values)
        return restore(
            [next(rest) if u else _jaxpr.zeros(t) for u, t in zip(reads, leaves, strict=True)]
        )

    return View(restore(leaves), make, fill)


def _few(leaves: Sequence[Any]) -> Any:
    return leaves[0] if len(leaves) == 1 else tuple(leaves)


def _find_reads(
    call: Callable[..., Any], state: list[Any], leaves: list[Any], restore: Any
) -> list[bool]:
    """Which of the leaves `call` reads, by its program."""

    def function(leaves: list[Any], state: list[Any]) -> Any:
        return call(state, state, restore(leaves))

    read = _jaxpr.arguments_read(function, leaves, state)
    # There are no zeros of a type such as a key's to stand for it.
    own = [not jnp.issubdtype(leaf.dtype, np.generic) for leaf in leaves]
    return [a or b for a, b in zip(read, own, strict=False)]


def _marks(walk: Runner, program: Program) -> list[tuple[Node, list[tuple[str, Any]]]]:
    """The nodes that name a value, or hold some under remat, with the names and their types."""
    marks = []
    for node in program.nodes:
        if node.kind in ("name", _jaxpr.TAP):
            marks.append((node, [(node.params["name"], program.avals[node.outs[0]])]))
        elif node.kind in _REMAT:
            inner = _names(walk, walk.flat(node))
            marks += [(node, inner)] if inner else []
    return marks


def _names(walk: Runner, program: Program) -> list[tuple[str, Any]]:
    return [each for _, inner in _marks(walk, program) for each in inner]


def _evaluate(walk: Runner, program: Program, args: Sequence[Any]) -> list[Any]:
    """The named values of a program, in the order of `_names`."""
    marks = _marks(walk, program)
    targets = [ref for node, _ in marks for ref in (node.ins if node.kind in _REMAT else node.outs)]
    # Effects happen once, in the step itself.
    pure = [node for node in program.nodes if not node.eqn.effects]
    effects = {slot for node in program.nodes if node.eqn.effects for slot in node.outs}
    impure = _jaxpr.dependents(program.nodes, effects)
    for node, names in marks:
        refs = node.ins if node.kind in _REMAT else node.outs
        if not impure.isdisjoint(ref for ref in refs if not isinstance(ref, _jaxpr.Lit)):
            name = names[0][0]
            raise ValueError(f"measure cannot see {name!r}: it depends on a callback in the step")
    env = dict(zip(program.ins, args, strict=True))
    env = walk.run(_jaxpr.dependencies(pure, targets), env, {})
    values: list[Any] = []
    for node, _ in marks:
        if node.kind in _REMAT:
            operands = [walk.read(env, ref) for ref in node.ins]
            values += _evaluate(walk, walk.flat(node), operands)
        else:
            values.append(walk.read(env, node.outs[0]))
    return values
