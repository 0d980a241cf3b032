"""Find which recurrence of one form stands for which of the other, and how far they are apart."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from gradlab.checking._forms import Leaf, Record, Recurrence, norm


class Gap(NamedTuple):
    """How far two leaves are apart, (T, samples); NaN where it cannot be known."""

    state: np.ndarray  # norm of the difference
    adjoint: np.ndarray  # the same, over the norm of the plain form's adjoint


class Rows(NamedTuple):
    """Which steps of the two recurrences are the same one: slices of each."""

    rank: int  # how far-fetched it is, 0 for equal lengths
    fast: Any
    plain: Any
    at_ends: bool = False  # the fast form has the states at the ends of chunks alone


class Pair(NamedTuple):
    """Two recurrences that stand for one another, at the same steps, leaf by leaf."""

    fast: Recurrence
    plain: Recurrence
    rows: Rows
    leaves: dict[str, tuple[str, Leaf, Leaf, Gap]]  # plain name -> fast name, fast, plain, gap


def pair(fast: Record, plain: Record) -> dict[int, Pair]:
    """The recurrences of two forms side by side, by the index of the plain one.

    The fast recurrence of each plain one has its length, or nearly so (see `_rows`), leaves of its
    sizes, and of several such the states and adjoints that fit best, or the nearest place.
    """
    candidates = []
    for i, one in enumerate(plain.recurrences):
        for j, other in enumerate(fast.recurrences):
            for rows in _rows(len(other.steps), len(one.steps), other):
                misfit, match = _match(other.take(rows.fast), one.take(rows.plain), rows)
                if match.leaves:
                    order = rows.rank, round(misfit, 1), abs(i - j), i, misfit
                    candidates.append((order, i, j, match))
    pairs: dict[int, Pair] = {}
    partners: set[int] = set()
    for _, i, j, match in sorted(candidates, key=lambda item: item[0]):
        one, other = plain.recurrences[i], fast.recurrences[j]
        mine = [plain.recurrences[k] for k in pairs]
        theirs = [fast.recurrences[k] for k in partners]
        if i in pairs or j in partners or _overlaps(one, mine) or _overlaps(other, theirs):
            continue
        pairs[i] = match
        partners.add(j)
    return dict(sorted(pairs.items()))


def _overlaps(one: Recurrence, others: Sequence[Recurrence]) -> bool:
    """Whether a scan inside others is there already, as chunks or one for each."""
    return any(other.source == one.source and other.merged != one.merged for other in others)


def _rows(fast: int, plain: int, recurrence: Recurrence) -> Iterator[Rows]:
    everything = slice(None)
    if fast == plain:
        yield Rows(0, everything, everything)
        return
    longer, shorter = max(fast, plain), min(fast, plain)
    # A parallel scan's first step is its first element, which may be the state before step 1. And
    # chunks, or a power of two, are filled up with steps that change nothing.
    if longer - shorter == 1 or longer <= 2 * shorter:
        rank = 1 if longer - shorter == 1 else 2
        for part in (slice(longer - shorter, None), slice(0, shorter)):
            yield Rows(rank, *((part, everything) if fast > plain else (everything, part)))
    # A scan over chunks, between which the state is handed on. The last may end past the last step.
    size = -(-plain // fast)
    if 1 < size < plain and -(-plain // size) == fast:
        ends = size * np.arange(1, plain // size + 1) - 1
        yield Rows(2, slice(0, len(ends)), ends, True)


def _match(fast: Recurrence, plain: Recurrence, rows: Rows) -> tuple[float, Pair]:
    """Pair the leaves: those of one name, else those that fit best."""
    alike = set(fast.leaves) == set(plain.leaves)
    fits = []
    for (name, one), (other_name, other) in itertools.product(
        plain.leaves.items(), fast.leaves.items()
    ):
        if alike and name != other_name:
            continue
        for form in _layouts(other, one):
            gap = compare(form, one, rows.at_ends)
            fits.append((_misfit(gap, one), name, other_name, form, one, gap))
    leaves, partners, total = {}, set(), 0.0
    for misfit, name, other_name, form, one, gap in sorted(fits, key=lambda fit: fit[0]):
        if name not in leaves and other_name not in partners:
            leaves[name] = other_name, form, one, gap
            partners.add(other_name)
            total += misfit
    total += 2 * (len(plain.leaves) - len(leaves))
    matches = {name: leaves[name] for name in plain.leaves if name in leaves}
    return total / len(plain.leaves), Pair(fast, plain, rows, matches)


def _layouts(fast: Leaf, plain: Leaf) -> Iterator[Leaf]:
    """The fast leaf with its entries in the order of the plain one, as far as shapes can tell."""
    if fast.logs.shape[1] != plain.logs.shape[1]:
        return
    if fast.states is None or plain.states is None:
        yield fast
        return
    same_type = np.iscomplexobj(fast.states) == np.iscomplexobj(plain.states)
    if fast.states.shape != plain.states.shape or not same_type:
        return
    yield fast
    if fast.shape != plain.shape and sorted(fast.shape) == sorted(plain.shape):
        for axes in itertools.permutations(range(len(fast.shape))):
            if tuple(fast.shape[axis] for axis in axes) == plain.shape:
                yield fast._replace(
                    states=_permute(fast.states, fast.shape, axes),
                    units=_permute(fast.units, fast.shape, axes),
                )


def _permute(x: Any, shape: tuple[int, ...], axes: tuple[int, ...]) -> np.ndarray:
    whole = x.reshape(*x.shape[:2], *shape)
    return whole.transpose(0, 1, *(2 + axis for axis in axes)).reshape(x.shape)


def _misfit(gap: Gap, plain: Leaf) -> float:
    """From 0, for equal ones, to 2."""
    apart = 0.0
    for difference, size in ((gap.state, _size(plain)), (gap.adjoint, 1.0)):
        safe = np.where(np.asarray(size) > 0, size, 1)
        relative = np.where(np.isnan(difference), 0, np.minimum(difference / safe, 1))
        apart += float(np.mean(relative)) if relative.size else 0.0
    return apart


def _size(leaf: Leaf) -> np.ndarray:
    if leaf.states is None:
        return np.full_like(leaf.logs, np.nan)
    return norm(np.where(np.isfinite(leaf.states), leaf.states, 0))


def compare(fast: Leaf, plain: Leaf, at_ends: bool = False) -> Gap:
    """How far two leaves are apart at each step.

    Where the fast form has the ends of chunks alone, the loss may read the chunk's own steps
    elsewhere: then its adjoint is what comes back from later chunks, the transported part.
    """
    adjoint = _adjoint_gap(fast, plain)
    if at_ends:
        back = _adjoint_gap(fast._replace(units=None), plain._replace(logs=plain.back))
        if np.nansum(np.minimum(back, 1)) < np.nansum(np.minimum(adjoint, 1)):
            adjoint = back
    if fast.states is None or plain.states is None:
        return Gap(np.full_like(plain.logs, np.nan), adjoint)
    return Gap(distance(fast.states, plain.states), adjoint)


def distance(fast: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """‖fast - plain‖ along the last axis; equal infinities, and two NaNs, are not apart."""
    with np.errstate(invalid="ignore"):
        same = (fast == plain) | (np.isnan(fast) & np.isnan(plain))
        apart = norm(np.where(same, 0, fast - plain))
    return np.where(np.isnan(apart), np.inf, apart)


# Below this, a tap's norm may have left the range of plain floats.
_TAP_FLOOR = -80.0


def _adjoint_gap(fast: Leaf, plain: Leaf) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        shift = np.where(fast.logs == plain.logs, 0, fast.logs - plain.logs)
    ratio = np.exp(np.clip(shift, -700, 700))
    if fast.units is None or plain.units is None:
        gap = np.abs(ratio - 1)
        if fast.states is None or plain.states is None:
            faint = np.maximum(fast.logs, plain.logs) < _TAP_FLOOR
            gap = np.where(faint, np.nan, gap)
    else:
        gap = norm(ratio[..., None] * fast.units - plain.units)
    gap = np.where(np.isposinf(shift), np.inf, gap)
    return np.where(np.isnan(fast.logs) | np.isnan(plain.logs), np.nan, gap)


def is_offset(pair: Pair, name: str, allowance: np.ndarray) -> bool:
    """Whether the fast states lack the part of the first state: h_t = A_t ⊙ c + (fast state).

    A_t is another leaf of the fast recurrence, and c one vector for each chunk.
    """
    other_name, fast, plain, _ = pair.leaves[name]
    if fast.states is None or plain.states is None:
        return False
    missing = plain.states - fast.states
    for product_name, product in pair.fast.leaves.items():
        A = product.states
        if product_name == other_name or A is None or A.shape != missing.shape:
            continue
        part = np.zeros_like(missing)
        for chunk in np.unique(pair.fast.chunks):
            rows = pair.fast.chunks == chunk
            top = np.sum(A[rows].conj() * missing[rows], axis=0)
            bottom = np.sum(np.abs(A[rows]) ** 2, axis=0)
            part[rows] = A[rows] * np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1), 0)
        if np.all(norm(missing - part) <= allowance + 4 * allowance.max(axis=0)):
            return True
    return False
