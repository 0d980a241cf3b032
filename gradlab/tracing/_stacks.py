"""Find the scan whose stacked states a tap marks.

The adjoint of a stack is the direct part alone: what later steps send back does not go through it.
So a tap on a stack takes the total from the record of the scan (`link`), where each row of the tap
is a row of that scan, arranged in another way. Where it is not, or where that cannot be seen, a
message says that the tap has the direct part (`partial_taps`). So it does for a tap on one row of
a stack, but for the last one, to which later steps send nothing back.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from gradlab.tracing import _jaxpr
from gradlab.tracing._jaxpr import Lit, Node, Program
from gradlab.tracing._record import Options


class Walker(Protocol):
    """What is needed of the walk over a program."""

    @property
    def options(self) -> Options: ...
    def flat(self, node: Node) -> Any: ...
    def inside(self, node: Node) -> Sequence[Program]: ...
    def sites_of(self, node: Node) -> Sequence[Any]: ...


class Link(NamedTuple):
    """Where the total adjoint of the states that a tap marks is recorded."""

    site: int  # of the scan, counted from the first one of the program that the tap stands in
    log: str  # the name that it has there
    rows: range  # the rows of the scan that those of the tap are


# What passes each entry on at its place, and each cotangent back.
_SAME = frozenset("convert_element_type copy name reshard sharding_constraint".split())
_MOVES = frozenset("broadcast_in_dim reshape squeeze transpose".split())
_FOLLOWED = _SAME | _MOVES | {_jaxpr.TAP, "rev", "slice"}
# What only picks, moves and joins entries. The result is no other quantity than the operand, as a
# readout W h_t is, whose own adjoint is all of it.
_STRUCTURAL = _FOLLOWED | frozenset(
    "complex concatenate conj dynamic_slice dynamic_update_slice expand_dims gather imag "
    "optimization_barrier pad pcast pvary real reduce_precision scatter select_n "
    "split".split()
)
# They run one program on their operands, once; a shard_map gives each shard a row of its own.
_PLAIN_CALLS = _jaxpr.CALLS - {"shard_map"}


def link(walk: Walker, program: Program, tap: Node) -> Link | None:
    """Where the total adjoint is that belongs to a tap; None for one that marks no known states."""
    axis = tap.params["axis"]
    if axis is None:
        return None
    aval, batch = tap.eqn.invars[0].aval, walk.options.axis
    axes = [axis]
    if batch is not None:
        if aval.ndim < 2:
            return None
        axes.append(_whole_axis(batch, axis, aval.ndim))
    return _link(walk, program, tap.ins[0], axes, range(aval.shape[axis]))


def _whole_axis(batch: int, time: int, ndim: int) -> int:
    """The axis of a stack that is the axis `batch` of its rows."""
    batch %= ndim - 1
    return batch if batch < time else batch + 1


def _link(
    walk: Walker, program: Program, ref: int | Lit, axes: list[int], rows: range
) -> Link | None:
    """Follow a value back to the states; `axes` are those of the time and of the batch, if any."""
    makers = _makers(program)
    while not isinstance(ref, Lit) and ref in makers:
        node = makers[ref]
        if node.kind == _jaxpr.PARALLEL:
            log = _log(walk, node, node.outs.index(ref), axes)
            return None if log is None else Link(_start(walk, program, node), log, rows)
        if node.kind in _PLAIN_CALLS:
            # What comes from outside of the call would also go through its own derivative rule.
            if not walk.inside(node):
                return None
            callee = walk.flat(node)
            inner = _link(walk, callee, callee.outs[node.outs.index(ref)], axes, rows)
            return inner and inner._replace(site=inner.site + _start(walk, program, node))
        if node.kind not in _FOLLOWED or isinstance(operand := node.ins[0], Lit):
            return None
        types = program.avals[operand], program.avals[ref]
        moved = _follow(node, *types, axes, rows)
        if moved is None:
            return None
        ref, (axes, rows) = operand, moved
    return None


def _makers(program: Program) -> dict[int, Node]:
    return {slot: node for node in program.nodes for slot in node.outs}


def _start(walk: Walker, program: Program, node: Node) -> int:
    """How many sites of a program stand before a node."""
    before = program.nodes[: next(i for i, each in enumerate(program.nodes) if each is node)]
    return sum(len(walk.sites_of(each)) for each in before)


def _log(walk: Walker, scan: Node, i: int, axes: list[int]) -> str | None:
    """The name of the total adjoint of a leaf of a parallel scan; None where axes differ."""
    sites, leaf = walk.sites_of(scan), scan.eqn.parts.leaves[i]
    time = scan.eqn.parts.layouts[i].axis
    batch = walk.options.axis
    own = [time]
    if batch is not None and leaf.ndim > 1:
        own.append(_whole_axis(batch, time, leaf.ndim))
    if not sites or own != axes:
        return None
    names = sites[0].leaf_names
    return f"total:{names.index(str(i))}" if len(names) > 1 else "total"


def _follow(
    node: Node, source: Any, result: Any, axes: list[int], rows: range
) -> tuple[list[int], range] | None:
    """Where the axes and rows were in the operand; None unless each row passes on as a whole."""
    kind = node.kind
    if kind in _SAME or kind == _jaxpr.TAP:
        return (axes, rows) if _have_same_parts(source, result) else None
    if kind in _MOVES:
        before = [_axis_before(node, source, result, axis) for axis in axes]
        known = [axis for axis in before if axis is not None]
        # A broadcast may repeat an axis: then there are more entries.
        whole = math.prod(source.shape) == math.prod(result.shape)
        return (known, rows) if whole and len(known) == len(axes) else None
    time, length = axes[0], source.shape[axes[0]]
    if kind == "rev":
        turned = node.params["dimensions"]
        if not set(turned).isdisjoint(axes[1:]):
            return None
        return axes, _pick(range(length - 1, -1, -1), rows) if time in turned else rows
    start, stop = node.params["start_indices"][time], node.params["limit_indices"][time]
    stride = (node.params["strides"] or (1,) * source.ndim)[time]
    sizes = zip(source.shape, result.shape, strict=True)
    others = [old == new for i, (old, new) in enumerate(sizes) if i != time]
    return (axes, _pick(range(start, stop, stride), rows)) if all(others) else None


def _have_same_parts(source: Any, result: Any) -> bool:
    """Whether both are floats, and both or none of them complex: else a part of h is left out."""
    kinds = [jnp.issubdtype(aval.dtype, jnp.complexfloating) for aval in (source, result)]
    return _jaxpr.is_float(source) and kinds[0] == kinds[1]


def _pick(rows: range, places: range) -> range:
    """The rows at these places."""
    if not places:
        return places
    step = rows.step * places.step
    first = rows[places[0]]
    return range(first, first + step * len(places), step)


def _axis_before(node: Node, source: Any, result: Any, axis: int) -> int | None:
    """Which axis of the operand a structural equation makes this one of; None where it is new."""
    if node.kind == "transpose":
        return node.params["permutation"][axis]
    if node.kind == "squeeze":
        gone = node.params["dimensions"]
        return [i for i in range(source.ndim) if i not in gone][axis]
    if node.kind == "broadcast_in_dim":
        places = node.params["broadcast_dimensions"]
        return places.index(axis) if axis in places else None
    if node.kind == "reshape":
        # It stays an axis where as many entries come before it and it is as long.
        before, size = math.prod(result.shape[:axis]), result.shape[axis]
        for i, old in enumerate(source.shape):
            if old == size and math.prod(source.shape[:i]) == before:
                return i
        return None
    return axis if source.ndim == result.ndim and node.kind != "gather" else None


@dataclasses.dataclass(eq=False)
class _Frame:
    """A program where it is called, so that what comes from outside can be followed."""

    program: Program
    call: Node | None = None
    outer: _Frame | None = None
    inner: dict[tuple[Any, int], _Frame] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def makers(self) -> dict[int, Node]:
        return _makers(self.program)

    def enter(self, node: Node, programs: Sequence[Program]) -> list[_Frame]:
        """The programs that a node of this one runs; always the same frames for a node."""
        for i, program in enumerate(programs):
            if (node.outs, i) not in self.inner:
                self.inner[node.outs, i] = _Frame(program, node, self)
        return [self.inner[node.outs, i] for i in range(len(programs))]


class _Value(NamedTuple):
    """A value in a program, and which of its axes the tap goes along; None where not known.

    `picks` are pairs of an axis along which the tap has one row alone, and the index of the row;
    None where that is not known beforehand.
    """

    frame: _Frame
    ref: int | Lit
    axis: int | None
    picks: frozenset[tuple[int, int | None]] = frozenset()


def partial_taps(walk: Walker, program: Program) -> list[str]:
    """A sentence for each tap on stacked states that has only the direct part of their adjoint."""
    return list(dict.fromkeys(_partial_taps(walk, _Frame(program))))


def _partial_taps(walk: Walker, frame: _Frame) -> Iterator[str]:
    for node in frame.program.nodes:
        if node.kind == _jaxpr.TAP:
            if link(walk, frame.program, node) is None:
                marked = _Value(frame, node.ins[0], node.params["axis"])
                makers = (_scan_of(walk, value) for value in _origins(walk, marked))
                scans = [scan for scan in makers if scan is not None]
                if scans:
                    # A lax.scan over chunks holds parallel scans, whose states are meant.
                    yield _message(walk, node, min(scans, key=lambda s: s.kind != _jaxpr.PARALLEL))
        elif any(site.is_tap for site in walk.sites_of(node)):
            for inner in frame.enter(node, walk.inside(node)):
                yield from _partial_taps(walk, inner)


def _message(walk: Walker, tap: Node, scan: Node) -> str:
    name = tap.params["name"]
    is_parallel = scan.kind == _jaxpr.PARALLEL
    what, advice = (
        ("parallel scan", "tap the very result of jax.lax.associative_scan, where it is made")
        if is_parallel
        else ("scan", f"write `h = gl.tap(h, {name!r})` in its step, and use this h from there on")
    )
    return (
        f"the tap {name!r} at {_jaxpr.where(tap)} records the direct part only: what is read from "
        "these values, not what later steps send back. They are taken from the states of the "
        f"{what} at {walk.sites_of(scan)[0].name or 'an unknown line'}, whose total adjoint is its "
        f"`log_norm` in `out.scans`; or {advice}"
    )


def _origins(walk: Walker, value: _Value) -> Iterator[_Value]:
    """All float values that one is made of by structure alone, itself first."""
    seen, todo = set(), [value]
    while todo:
        value = todo.pop()
        if isinstance(value.ref, Lit) or value in seen:
            continue
        if _jaxpr.is_float(value.frame.program.avals[value.ref]):
            seen.add(value)
            yield value
            todo += _sources(walk, value)


def _sources(walk: Walker, value: _Value) -> Iterator[_Value]:
    frame, ref, axis, picks = value
    if isinstance(ref, Lit):
        return
    node = frame.makers.get(ref)
    if node is None:
        yield from _from_outside(walk, value)
    elif node.kind in _STRUCTURAL:
        result = frame.program.avals[ref]
        for operand in _operands(frame.program, node, node.outs.index(ref)):
            if not isinstance(operand, Lit) and _jaxpr.is_float(frame.program.avals[operand]):
                source = frame.program.avals[operand]
                old = None if axis is None else _axis_before(node, source, result, axis)
                rows = _picks_before(value, node, operand)
                if rows is not None:
                    yield _Value(frame, operand, old, frozenset(rows.items()))
    elif node.kind == "scan":
        parts, i = walk.flat(node), node.outs.index(ref)
        (body,) = frame.enter(node, [parts.body])
        if i < parts.num_carry:
            yield _Value(frame, node.ins[parts.num_consts + i], axis, picks)
            yield _Value(body, parts.body.outs[i], axis, picks)
        elif axis != 0:  # which counts the steps
            # What is last in one of these steps is not where more of them follow.
            is_last = _is_last(value, 0, parts)
            rows = {(pick - 1, row if is_last else None) for pick, row in picks if pick}
            yield _Value(body, parts.body.outs[i], axis and axis - 1, frozenset(rows))
    else:
        # A function with a rule of its own that holds a loop is not recorded: others say so.
        for inner in frame.enter(node, walk.inside(node)):
            yield _Value(inner, inner.program.outs[node.outs.index(ref)], axis, picks)


def _is_last(value: _Value, axis: int, scan: Any) -> bool:
    """Whether what a tap has of stacked states is the last one that their scan computes."""
    return (axis, 0 if scan.reverse else scan.length - 1) in value.picks


def _picks_before(value: _Value, node: Node, operand: int) -> dict[int, int | None] | None:
    """`value.picks` in an operand of a structural equation; None for one that they do not read."""
    program = value.frame.program
    source, result = program.avals[operand], _aval(program, value.ref)
    places = {_axis_before(node, source, result, axis): i for axis, i in value.picks}
    picks = {axis: i for axis, i in places.items() if axis is not None}
    if node.kind in ("slice", "dynamic_slice"):
        if node.kind == "slice":
            starts = list(node.params["start_indices"])
            strides = node.params["strides"] or (1,) * source.ndim
        else:
            starts = [_constant(program, ref) for ref in node.ins[1:]]
            strides = (1,) * source.ndim
        for axis, (start, stride) in enumerate(zip(starts, strides, strict=True)):
            if axis in picks or result.shape[axis] == 1 < source.shape[axis]:
                i = picks.get(axis, 0)
                picks[axis] = None if start is None or i is None else start + stride * i
    elif node.kind == "gather":
        numbers = node.params["dimension_numbers"]
        axes, index = numbers.start_index_map, _constant(program, node.ins[1])
        picks |= {axis: index if axes == (axis,) else None for axis in numbers.collapsed_slice_dims}
    elif node.kind == "rev":
        for axis in set(node.params["dimensions"]) & set(picks):
            i = picks[axis]
            picks[axis] = None if i is None else source.shape[axis] - 1 - i
    elif node.kind == "concatenate":
        axis = node.params["dimension"]
        i, before = picks.get(axis), node.ins[: node.ins.index(operand)]
        if i is not None:
            i -= sum(_aval(program, ref).shape[axis] for ref in before)
            if not 0 <= i < source.shape[axis]:
                return None
            picks[axis] = i
    elif node.kind in ("pad", "dynamic_update_slice", "scatter"):
        picks = dict.fromkeys(picks)
    return picks


def _aval(program: Program, ref: int | Lit) -> Any:
    return jax.typeof(ref.value) if isinstance(ref, Lit) else program.avals[ref]


def _constant(program: Program, ref: int | Lit) -> int | None:
    """A whole number that the program computes from what is written in it; None for others."""
    nodes = _jaxpr.dependencies(program.nodes, [ref], effects=False)
    slots = [slot for node in nodes for slot in (*node.ins, *node.outs)]
    if any(slot in program.ins or _aval(program, slot).size != 1 for slot in (*slots, ref)):
        return None
    with jax.ensure_compile_time_eval():
        return int(_jaxpr.read(_jaxpr.run(nodes, {}), ref).item())


def _operands(program: Program, node: Node, result: int) -> Sequence[int | Lit]:
    """What the entries of a structural equation's result are taken from."""
    if node.kind == "optimization_barrier":
        return [node.ins[result]]
    if node.kind == "select_n":
        # Where a value itself decides, as in a leaky ReLU, the result is a function of it.
        choice, *cases = node.ins
        return [
            case
            for case in cases
            if isinstance(case, Lit) or choice not in _jaxpr.dependents(program.nodes, [case])
        ]
    return node.ins


def _from_outside(walk: Walker, value: _Value) -> Iterator[_Value]:
    """What a program's input is outside of it."""
    frame, ref, axis, picks = value
    if frame.outer is None or frame.call is None or ref not in frame.program.ins:
        return
    i, call = frame.program.ins.index(ref), frame.call
    if call.kind == "cond":
        yield _Value(frame.outer, call.ins[i + 1], axis, picks)
        return
    if call.kind == "scan":
        parts = walk.flat(call)
        if i >= parts.num_consts + parts.num_carry:
            axis = None if axis is None else axis + 1
            picks = frozenset({(0, None), *((pick + 1, row) for pick, row in picks)})
        elif i >= parts.num_consts:
            yield _Value(frame, frame.program.outs[i - parts.num_consts], axis, picks)
    yield _Value(frame.outer, call.ins[i], axis, picks)


def _scan_of(walk: Walker, value: _Value) -> Node | None:
    """The recorded scan whose stacked states a value is, if later steps send something back."""
    frame, ref, axis, _ = value
    node = frame.makers.get(ref) if not isinstance(ref, Lit) else None
    if node is None or node.kind not in ("scan", _jaxpr.PARALLEL) or not walk.sites_of(node):
        return None
    i = node.outs.index(ref)
    if node.kind == _jaxpr.PARALLEL:
        time, parts, is_state = node.eqn.parts.layouts[i].axis, node.eqn.parts, True
    else:
        time, parts = 0, walk.flat(node)
        is_state = _stacks_carry(walk, parts, i)
    return node if is_state and axis in (None, time) and not _is_last(value, time, parts) else None


def _stacks_carry(walk: Walker, parts: Any, i: int) -> bool:
    """Whether an output of a scan holds what its carry is made of, or makes, by structure alone."""
    body, count = parts.body, parts.num_consts
    if i < parts.num_carry or parts.length == 0:
        return False
    old, new = body.ins[count : count + parts.num_carry], body.outs[: parts.num_carry]
    frame = _Frame(body)

    def slots(refs: Sequence[int | Lit]) -> set[tuple[_Frame, int | Lit]]:
        origins = (_origins(walk, _Value(frame, ref, None)) for ref in refs)
        return {(value.frame, value.ref) for values in origins for value in values}

    shared = slots([body.outs[i]]) & slots([*old, *new])
    # A constant, as zeros that both are padded with, is no state.
    moving = _jaxpr.dependents(body.nodes, body.ins[count:])
    return any(
        ref in (moving if at is frame else _jaxpr.dependents(at.program.nodes, at.program.ins))
        for at, ref in shared
    )
