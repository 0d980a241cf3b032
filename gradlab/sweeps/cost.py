"""What compiled functions cost: their arithmetic and the peak of their memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax

from gradlab import frames
from gradlab.tracing import Cost, cost

# Bytes on the disk, as parquet with zstd, measured on sweeps of 2 to 128 runs of 20 to 2000 steps:
# a row of steps, in its chunk and in the frame; a run's columns, in its chunk and in the frames;
# the schema and the columns' facts, in each chunk and in the frames.
_ROW, _RUN, _CHUNK, _FRAMES = 12.4, 180, 22_700, 24_500


class Call(NamedTuple):
    """A compiled function that a sweep calls: its abstract arguments, and what else is held."""

    function: Any
    args: tuple[Any, ...]
    held: int = 0
    times: int = 1


def total(calls: Iterable[Call]) -> Cost:
    """The arithmetic of calls one after the other, and the peak of their memory.

    The programs are traced as they will be run, which JAX remembers: the call that follows does
    not trace them again.
    """
    arithmetic = peak = 0
    for call in calls:
        each = cost(call.function, *call.args)
        arithmetic += call.times * each.flops
        peak = max(peak, call.held + each.bytes)
    return Cost(arithmetic, peak)


def bytes_of(tree: Any) -> int:
    """The bytes of the arrays of a pytree, which may be abstract."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def written(length: int | None, count: int, per_chunk: int = 64) -> int:
    """Bytes that runs of T steps leave on the disk: their chunks and the frames made of them.

    Args:
        length: T; `frames.lags` says how many of its steps are kept. None for one step.
        count: runs of this length.
        per_chunk: how many of them stand in one file.

    Returns:
        An estimate, within a factor of 1.5 of what a sweep of gradients writes as parquet.

    >>> written(1000, count=100, per_chunk=50)
    247860
    """
    rows = len(frames.lags(length or 1))
    return int(_FRAMES + -(-count // per_chunk) * _CHUNK + count * (_RUN + _ROW * rows))
