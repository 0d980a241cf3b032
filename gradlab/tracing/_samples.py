"""Whether the samples of a batch stay apart in a transposed step.

With `batch_axis` each sample's adjoint is carried in a unit of its own. That is right only where
no entry of a sample's adjoint goes into another sample's: recurrent batch normalization or a mean
over the batch adds what is in different units. The transposed program shows it: follow the axis
that counts samples from the cotangent of the new state to that of the old one. An equation that is
not known to keep samples apart counts as one that mixes them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from gradlab.tracing import _jaxpr
from gradlab.tracing._jaxpr import Lit, Node, Program


class Samples(NamedTuple):
    """Which sample an entry depends on: number (index along `axis`) // inner % size."""

    axis: int
    inner: int
    size: int


class _Mixed:
    """An entry may depend on several samples."""


MIXED = _Mixed()
# None stands for a value that depends on no sample.
Layout = Samples | _Mixed | None


def stay_apart(
    program: Program, starts: Sequence[int], axis: int, ends: Sequence[int | Lit]
) -> bool:
    """Whether each end depends, sample by sample, on the same sample of the starts alone."""

    def layout(aval: Any) -> Samples:
        return Samples(axis % aval.ndim, 1, aval.shape[axis])

    if any(layout(program.avals[slot]).size == 1 for slot in starts):
        return True
    ins = [layout(program.avals[s]) if s in set(starts) else None for s in program.ins]
    env = _follow(program, ins)
    pairs = [(env.get(ref), program.avals[ref]) for ref in ends if not isinstance(ref, Lit)]
    return all(have is None or have == layout(aval) for have, aval in pairs)


def _follow(program: Program, ins: Sequence[Layout]) -> dict[int, Layout]:
    """The layout of every slot; a slot that is missing depends on no sample."""
    env: dict[int, Layout] = {}
    env.update((slot, have) for slot, have in zip(program.ins, ins, strict=True) if have)
    for node in program.nodes:
        operands = [None if isinstance(ref, Lit) else env.get(ref) for ref in node.ins]
        if any(operands):
            results = _apply(node, operands)
            pairs = zip(node.eqn.outvars, node.outs, results, strict=True)
            # What is counted or compared passes no derivative on.
            env |= {
                slot: have
                for var, slot, have in pairs
                if have and jnp.issubdtype(var.aval.dtype, jnp.inexact)
            }
    return env


def _results(program: Program, ins: Sequence[Layout]) -> list[Layout]:
    env = _follow(program, ins)
    return [None if isinstance(ref, Lit) else env.get(ref) for ref in program.outs]


def _apply(node: Node, ins: Sequence[Layout]) -> Sequence[Layout]:
    if MIXED in ins:
        return [MIXED] * len(node.outs)
    if node.kind in _ENTRYWISE:
        return [_join(ins)] * len(node.outs)
    if node.kind in _BY_STRUCTURE:
        return _BY_STRUCTURE[node.kind](node, ins)
    if node.kind in _CALLS:
        return _results(_jaxpr.callee(node), ins)
    rule = _RULES.get(node.kind)
    return [rule(node, ins) if rule else MIXED] * len(node.outs)


def _join(layouts: Iterable[Layout]) -> Layout:
    kinds = {have for have in layouts if have}
    return kinds.pop() if len(kinds) == 1 else MIXED if kinds else None


_ENTRYWISE = frozenset(
    "abs acos acosh add add_any asin asinh atan atan2 atanh bessel_i0e bessel_i1e "
    "bitcast_convert_type cbrt ceil clamp complex conj convert_element_type copy copy_p cos cosh "
    "device_put digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt igamma igammac imag "
    "integer_pow is_finite le lgamma log log1p logistic lt max min mul ne neg nextafter "
    "optimization_barrier pbroadcast pcast polygamma pow psum psum_invariant pvary real "
    "reduce_precision regularized_incomplete_beta rem reshard round rsqrt select_n "
    "sharding_constraint sign sin sinh sqrt square stop_gradient sub tan tanh zeta".split()
) | {_jaxpr.TAP}
_CALLS = frozenset(
    "checkpoint closed_call core_call custom_jvp_call custom_vjp_call jit pjit remat remat2".split()
)


def _one(ins: Sequence[Layout], place: int = 0) -> Samples | None:
    """The layout of one operand, where no other depends on a sample."""
    have = ins[place]
    others = [other for i, other in enumerate(ins) if i != place and other]
    return have if isinstance(have, Samples) and not others else None


def _shape(node: Node, place: int = 0) -> tuple[int, ...]:
    return node.eqn.invars[place].aval.shape


def _broadcast(node: Node, ins: Sequence[Layout]) -> Layout:
    have = _one(ins)
    return have and have._replace(axis=node.params["broadcast_dimensions"][have.axis])


def _reshape(node: Node, ins: Sequence[Layout]) -> Layout:
    have = _one(ins)
    if have is None or node.params.get("dimensions") is not None:
        return MIXED
    # Count entries from the last axis on: a sample has every so many neighbours in the order.
    stride = have.inner * math.prod(_shape(node)[have.axis + 1 :])
    shape = node.eqn.outvars[0].aval.shape
    if 0 in shape:
        return None  # there is no entry that could depend on a sample
    for axis in reversed(range(len(shape))):
        rest = math.prod(shape[axis + 1 :])
        fits = stride % rest == 0 and shape[axis] % (stride // rest * have.size) == 0
        if fits:
            return Samples(axis, stride // rest, have.size)
    return MIXED


def _transpose(node: Node, ins: Sequence[Layout]) -> Layout:
    have = _one(ins)
    return have and have._replace(axis=node.params["permutation"].index(have.axis))


def _reduce(node: Node, ins: Sequence[Layout]) -> Layout:
    have, axes = _one(ins), node.params["axes"]
    if have is None or have.axis in axes:
        return MIXED
    return have._replace(axis=have.axis - sum(axis < have.axis for axis in axes))


def _product(node: Node, ins: Sequence[Layout]) -> Layout:
    contracting, batch = node.params["dimension_numbers"]
    places = []
    for side, have in enumerate(ins[:2]):
        if have is None:
            continue
        if not isinstance(have, Samples) or have.axis in contracting[side]:
            return MIXED
        if have.axis in batch[side]:
            places.append(have._replace(axis=batch[side].index(have.axis)))
            continue
        bound = {*contracting[side], *batch[side]}
        free = [i for i in range(len(_shape(node, side))) if i not in bound]
        before = len(batch[0])
        if side:
            before += len(_shape(node, 0)) - len(contracting[0]) - len(batch[0])
        places.append(have._replace(axis=before + free.index(have.axis)))
    return _join(places)


def _convolution(node: Node, ins: Sequence[Layout]) -> Layout:
    have, numbers = _one(ins), node.params["dimension_numbers"]
    good = have and have.axis == numbers.lhs_spec[0] and node.params["batch_group_count"] == 1
    return have._replace(axis=numbers.out_spec[0]) if have and good else MIXED


def _concatenate(node: Node, ins: Sequence[Layout]) -> Layout:
    have = _join(ins)
    along = isinstance(have, Samples) and have.axis == node.params["dimension"]
    return MIXED if along else have


def _pad(node: Node, ins: Sequence[Layout]) -> Layout:
    have = _one(ins)
    return have if have and not any(node.params["padding_config"][have.axis]) else MIXED


def _slice(node: Node, ins: Sequence[Layout]) -> Layout:
    have = _one(ins)
    if have is None:
        return MIXED
    whole = have.inner * have.size
    start, limit = (node.params[f"{end}_indices"][have.axis] for end in ("start", "limit"))
    strides = node.params["strides"]
    steps = strides[have.axis] if strides else 1
    return have if start % whole == 0 and limit % whole == 0 and steps == 1 else MIXED


def _dynamic_slice(node: Node, ins: Sequence[Layout]) -> Layout:
    have = _one(ins)
    good = have and node.params["slice_sizes"][have.axis] == _shape(node)[have.axis]
    return have if good else MIXED


def _dynamic_update(node: Node, ins: Sequence[Layout]) -> Layout:
    have = _join(ins[:2])
    good = isinstance(have, Samples) and _shape(node, 0)[have.axis] == _shape(node, 1)[have.axis]
    return have if good else MIXED


def _gather(node: Node, ins: Sequence[Layout]) -> Layout:
    have, numbers = _one(ins), node.params["dimension_numbers"]
    if have is None:
        return MIXED
    batching = list(numbers.operand_batching_dims)
    rank = len(node.eqn.outvars[0].aval.shape)
    rows = [i for i in range(rank) if i not in numbers.offset_dims]
    if have.axis in batching:
        place = numbers.start_indices_batching_dims[batching.index(have.axis)]
        return have._replace(axis=rows[place])
    window = [
        i
        for i in range(len(_shape(node)))
        if i not in numbers.collapsed_slice_dims and i not in batching
    ]
    if have.axis in window and node.params["slice_sizes"][have.axis] == _shape(node)[have.axis]:
        return have._replace(axis=numbers.offset_dims[window.index(have.axis)])
    return MIXED


def _scatter(node: Node, ins: Sequence[Layout]) -> Layout:
    operand, _, updates = ins
    numbers = node.params["dimension_numbers"]
    target_layout = None
    if isinstance(updates, Samples):
        batching = list(numbers.operand_batching_dims)
        window = [
            i
            for i in range(len(_shape(node)))
            if i not in numbers.inserted_window_dims and i not in batching
        ]
        shape = _shape(node, 2)
        rows = [i for i in range(len(shape)) if i not in numbers.update_window_dims]
        if updates.axis in rows:
            place = rows.index(updates.axis)
            if place not in numbers.scatter_indices_batching_dims:
                return MIXED
            target = batching[numbers.scatter_indices_batching_dims.index(place)]
        else:
            target = window[numbers.update_window_dims.index(updates.axis)]
        if shape[updates.axis] != _shape(node)[target]:
            return MIXED
        target_layout = updates._replace(axis=target)
    return _join([operand, target_layout])


def _along(name: str) -> Callable[[Node, Sequence[Layout]], Layout]:
    """Keep the layout, unless the equation works along the axis that counts samples."""

    def rule(node: Node, ins: Sequence[Layout]) -> Layout:
        have, axes = _join(ins), node.params[name]
        axes = axes if isinstance(axes, tuple | list) else (axes,)
        return MIXED if isinstance(have, Samples) and have.axis in axes else have

    return rule


def _window(node: Node, ins: Sequence[Layout]) -> Layout:
    have = _join(ins)
    if not isinstance(have, Samples):
        return MIXED
    sizes = node.params["window_dimensions"][have.axis], *node.params["padding"][have.axis]
    strides = node.params["window_strides"][have.axis]
    return have if (*sizes, strides) == (1, 0, 0, 1) else MIXED


def _solve(node: Node, ins: Sequence[Layout]) -> Layout:
    matrix, have = ins
    if not isinstance(have, Samples) or matrix not in (None, have):
        return MIXED
    rank = len(_shape(node, 1))
    # Each column of b is a system of its own; on the right side, each row.
    apart = rank - (1 if node.params["left_side"] else 2)
    return have if have.axis < rank - 2 or (have.axis == apart and matrix is None) else MIXED


_RULES: dict[str, Callable[[Node, Sequence[Layout]], Layout]] = {
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "transpose": _transpose,
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min", "reduce_prod"), _reduce),
    "dot_general": _product,
    "conv_general_dilated": _convolution,
    "concatenate": _concatenate,
    "pad": _pad,
    "slice": _slice,
    "split": _along("axis"),
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update,
    "gather": _gather,
    **dict.fromkeys(("scatter", "scatter-add", "scatter_add"), _scatter),
    "rev": _along("dimensions"),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"), _along("axis")),
    "sort": _along("dimension"),
    **dict.fromkeys(("reduce_window_sum", "reduce_window_max"), _window),
    "triangular_solve": _solve,
}


def _loop(node: Node, ins: Sequence[Layout]) -> list[Layout]:
    parts = _jaxpr.scan_parts(node)
    ends = list(itertools.accumulate((parts.num_consts, parts.num_carry)))
    consts, carry, xs = ins[: ends[0]], list(ins[ends[0] : ends[1]]), ins[ends[1] :]
    if any(isinstance(have, Samples) and have.axis == 0 for have in xs):
        return [MIXED] * len(node.outs)
    rows = [have._replace(axis=have.axis - 1) if isinstance(have, Samples) else have for have in xs]
    while True:
        outs = _results(parts.body, [*consts, *carry, *rows])
        after = [_join(pair) for pair in zip(carry, outs[: parts.num_carry], strict=True)]
        if after == carry:
            break
        carry = after
    ys = [
        have._replace(axis=have.axis + 1) if isinstance(have, Samples) else have
        for have in outs[parts.num_carry :]
    ]
    return [*carry, *ys]


def _choice(node: Node, ins: Sequence[Layout]) -> list[Layout]:
    results = [_results(branch, ins[1:]) for branch in _jaxpr.branches(node)]
    return [_join(layouts) for layouts in zip(*results, strict=True)]


_BY_STRUCTURE: dict[str, Callable[[Node, Sequence[Layout]], Sequence[Layout]]] = {
    "scan": _loop,
    "cond": _choice,
}
