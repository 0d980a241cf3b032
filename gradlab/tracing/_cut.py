"""Cut a scan's body at its new state: what makes the state, and what reads it.

An output that is the new state, or is computed from it, has to be computed from the state's copy at
the boundary, so that its cotangent arrives there. Where one equation makes the state and such
outputs at once (a body under remat, a cond between two bodies) it is cut inside, into two.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from gradlab.tracing import _jaxpr, _narrow, _rules
from gradlab.tracing._changes import Changes
from gradlab.tracing._jaxpr import Lit, Node, Program
from gradlab.tracing._linear import Step, split


class Runner(Protocol):
    """What a cut needs of the walk over the program."""

    changes: Changes

    def sites(self, program: Program) -> list[Any]: ...
    def sites_of(self, node: Node) -> list[Any]: ...
    def adopt(self, node: Node, sites: list[Any]) -> None: ...
    def flat(self, node: Node) -> Any: ...
    def run(self, nodes: Sequence[Node], env: dict[int, Any], slots: Any) -> dict[int, Any]: ...
    def read(self, env: dict[int, Any], ref: int | Lit) -> Any: ...
    def share(self, program: Program, slots: Iterator[Any]) -> Any: ...


class _Cut(NamedTuple):
    """The two parts of a program, and what passes between them besides the state."""

    program: Program
    new: tuple[int | Lit, ...]
    advancing: tuple[Node, ...]
    readout: tuple[Node, ...]
    extras: tuple[int, ...]
    state: frozenset[int]
    # The state in another form, by slot: the slot of the state and what makes the form of it.
    twins: dict[int, tuple[int, Callable[[Any], Any]]]

    def boundary(self, state: Sequence[Any]) -> dict[int, Any]:
        """The slots that hold the state, from its values at the boundary."""
        env = {}
        # Where a step returns one value twice as its state, outputs read the first.
        for ref, value in reversed(list(zip(self.new, state, strict=True))):
            if ref in self.state:
                env[ref] = value
        for twin, (ref, form) in self.twins.items():
            env[twin] = form(env[ref])
        return env


def cut_step(walk: Runner, parts: _jaxpr.ScanParts) -> Step:
    """The step of a scan in two parts."""
    body = parts.body
    const_ids, _, x_ids = split(body.ins, parts.num_consts, parts.num_carry)
    outer_ids = (*const_ids, *x_ids)
    results = {slot for node in body.nodes for slot in node.outs}
    cut = _cut(walk, body, range(parts.num_carry), range(parts.num_carry, len(body.outs)), results)
    body = cut.program
    new, ys = body.outs[: parts.num_carry], body.outs[parts.num_carry :]
    extras = [slot for slot in cut.extras if slot not in outer_ids]

    def advance(consts: Any, carry: Any, x: Any, inner: Any) -> Any:
        env = dict(zip(body.ins, (*consts, *carry, *x), strict=True))
        env = walk.run(cut.advancing, env, walk.share(body, iter(inner)))
        return [walk.read(env, ref) for ref in new], [env[ref] for ref in extras]

    def readout(consts: Any, x: Any, carry: Any, others: Any, inner: Any) -> Any:
        env = dict(zip((*outer_ids, *extras), (*consts, *x, *others), strict=True))
        env = walk.run(cut.readout, env | cut.boundary(carry), walk.share(body, iter(inner)))
        return [walk.read(env, ref) for ref in ys]

    linear = _rules.all_linear(parts.body.nodes, walk.changes)
    return Step(advance, readout, parts.length, parts.reverse, parts.unroll, linear)


def _cut(
    walk: Runner,
    program: Program,
    leaves: Sequence[int],
    outputs: Sequence[int],
    candidates: set[int],
) -> _Cut:
    """Cut a program; `leaves` and `outputs` say which of its results are the state and which not.

    Only `candidates` can be the state.
    """
    program = _jaxpr.deduplicate(program, [program.outs[i] for i in leaves])
    new = [program.outs[i] for i in leaves]
    ys = [program.outs[i] for i in outputs]
    state = {
        ref
        for ref in new
        if not isinstance(ref, Lit)
        and ref in candidates
        and jnp.issubdtype(program.avals[ref].dtype, jnp.inexact)
    }
    program = _open_calls(walk, program, new, ys, state)
    # vmap puts the batch axis last and transposes only the carry. So an output that reads the
    # transpose's operand reads the state, and so does one that reads the state before it is
    # reshaped, or cast to the wider float of the carry.
    twins: dict[int, tuple[int, Callable[[Any], Any]]] = {}
    for ref in dict.fromkeys(new):
        if isinstance(ref, Lit) or ref not in state:
            continue
        for twin, form in _jaxpr.views(program, ref):
            if twin in candidates - state:
                twins.setdefault(twin, (ref, form))
    boundary = frozenset(state)
    state |= set(twins)
    after = _jaxpr.dependents(program.nodes, state)
    # A node that makes the state and holds a traced scan runs once, on the state's side; so does
    # one whose backward rule must see its whole cotangent.
    busy = {
        node.outs
        for node in _jaxpr.dependencies(program.nodes, new)
        if walk.sites_of(node) or not _rules.all_linear([node], walk.changes)
    }
    # Walk back from the outputs to the new state, where the readout begins.
    needs = {ref for ref in ys if not isinstance(ref, Lit)} - state
    readout = []
    for node in reversed(program.nodes):
        operands = {ref for ref in node.ins if not isinstance(ref, Lit)}
        if needs.isdisjoint(node.outs) or operands.isdisjoint(after) or node.outs in busy:
            continue
        readout.append(node)
        needs = (needs | operands) - state - set(node.outs)
    extras = tuple(sorted(needs))
    advancing = _jaxpr.dependencies(program.nodes, (*new, *extras))
    readout.reverse()
    return _Cut(program, tuple(new), advancing, tuple(readout), extras, boundary, twins)


def _open_calls(
    walk: Runner,
    program: Program,
    new: Sequence[int | Lit],
    ys: Sequence[int | Lit],
    state: set[int],
) -> Program:
    """Cut the calls that make the state and outputs which read it at once."""
    advancing = _jaxpr.dependencies(program.nodes, new)
    read = {ref for node in advancing for ref in node.ins if not isinstance(ref, Lit)}
    operands = {ref for node in program.nodes for ref in node.ins} | set(ys)
    nodes: list[Node] = []
    avals = list(program.avals)
    for node in program.nodes:
        outputs = [s for s in node.outs if s in operands and s not in read and s not in state]
        parts = None
        if node.kind in _OPENABLE and outputs and not state.isdisjoint(node.outs):
            parts = _open(walk, node, state, outputs, avals)
        nodes.extend(parts or [node])
    return program._replace(nodes=tuple(nodes), avals=tuple(avals))


_OPENABLE = ("cond", "checkpoint", "remat", "remat2")


def _open(
    walk: Runner, node: Node, state: set[int], outputs: list[int], avals: list[Any]
) -> list[Node] | None:
    """Two nodes for one: the first makes all but `outputs`, the second makes them of the state."""
    branching = node.kind == "cond"
    programs = walk.flat(node) if branching else (walk.flat(node),)
    boundary = [slot for slot in node.outs if slot in state]
    first = [slot for slot in node.outs if slot not in outputs]

    def results(cut: _Cut, slots: Sequence[int]) -> list[int | Lit]:
        return [cut.program.outs[node.outs.index(slot)] for slot in slots]

    # A branch may pass the old state on: there what reads it reads the new one.
    leaves, others = ([node.outs.index(slot) for slot in part] for part in (boundary, outputs))
    cuts = [_cut(walk, p, leaves, others, set(range(len(p.avals)))) for p in programs]
    late = [n for cut in cuts for n in cut.readout]
    if node.eqn.effects or any(walk.sites_of(n) for n in late):
        return None
    inner = [[slot for slot in cut.extras if slot not in cut.program.ins] for cut in cuts]
    types = [
        [_narrow.widen(cut.program.avals[slot]) for slot in slots]
        for cut, slots in zip(cuts, inner, strict=True)
    ]
    extras = list(range(len(avals), len(avals) + sum(map(len, types))))
    avals.extend(itertools.chain(*types))
    ends = list(itertools.accumulate(len(walk.sites(p)) for p in programs))

    def advance(number: int, operands: Any, slots: Any) -> list[Any]:
        cut, program = cuts[number], programs[number]
        start = ends[number - 1] if number else 0
        env = dict(zip(program.ins, operands, strict=True))
        shares = walk.share(cut.program, iter(slots[start : ends[number]]))
        targets = (*results(cut, first), *inner[number])
        env = walk.run(_jaxpr.dependencies(cut.program.nodes, targets), env, shares)
        others = [list(map(_jaxpr.zeros, avals)) for avals in types]
        others[number] = [env[slot] for slot in inner[number]]
        return [walk.read(env, ref) for ref in results(cut, first)] + sum(others, [])

    def readout(number: int, operands: Any, state: Any, extras: Any) -> list[Any]:
        cut, program = cuts[number], programs[number]
        env = dict(zip(program.ins, operands, strict=True)) | cut.boundary(state)
        mine = split(extras, *map(len, types))[number]
        env |= dict(zip(inner[number], mine, strict=True))
        env = walk.run(cut.readout, env, {})
        return [walk.read(env, ref) for ref in results(cut, outputs)]

    def call(function: Callable[..., list[Any]], values: Sequence[Any], *more: Any) -> list[Any]:
        if branching:
            index, *operands = values
            functions = [functools.partial(function, i) for i in range(len(programs))]
            return jax.lax.switch(index, functions, operands, *more)
        wrap = jax.checkpoint(
            functools.partial(function, 0),
            policy=node.params["policy"],
            prevent_cse=node.params["prevent_cse"],
        )
        return wrap(list(values), *more)

    def second(values: Sequence[Any], _: Any) -> list[Any]:
        return call(readout, *split(values, len(node.ins), len(boundary)))

    maker = _jaxpr.make_node(
        lambda values, slots: call(advance, values, slots), node.ins, (*first, *extras)
    )
    reader = _jaxpr.make_node(second, (*node.ins, *boundary, *extras), tuple(outputs))
    walk.adopt(maker, walk.sites_of(node))
    walk.adopt(reader, [])
    return [maker, reader]
