"""What compiled functions cost: their arithmetic and the peak of their memory.

Memory is what XLA itself plans for a compiled program, within a factor of 1.5 of what it was
measured to take (results/bench/memory.md). A sweep asks about the programs that it will run, and
JAX runs what it has compiled, so the answer is free. XLA's count of operations (`cost_analysis`)
is not used: it takes the body of a loop once, so it sees one step of T.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax

from gradlab import frames
from gradlab.tracing import flops

# Bytes on the disk, as parquet with zstd, measured on sweeps of 2 to 128 runs of 20 to 2000 steps:
# a row of steps, in its chunk and in the frame; a run's columns, in its chunk and in the frames;
# the schema and the columns' facts, in each chunk and in the frames.
_ROW, _RUN, _CHUNK, _FRAMES = 12.4, 180, 22_700, 24_500


class Call(NamedTuple):
    """A compiled function that a sweep calls, with abstract arguments; called so many `times`.

    `extra_bytes` are those of arrays that live meanwhile, besides the arguments.
    """

    function: Any
    args: tuple[Any, ...]
    extra_bytes: int = 0
    times: int = 1


def arithmetic(calls: Iterable[Call]) -> int:
    """The operations in the matrix products of calls, which are traced and not compiled."""
    return sum(call.times * flops(call.function, *call.args) for call in calls)


def peak(calls: Iterable[Call]) -> int:
    """The most bytes that calls need, one after the other, on all their devices.

    Each function is compiled as it will be run; the call that follows does not compile it again.

    >>> x = jax.ShapeDtypeStruct((1000,), "float32")
    >>> peak([Call(jax.jit(lambda x: x + 1), (x,), extra_bytes=500)])
    8500
    """
    return max(call.extra_bytes + _plan_bytes(call) for call in calls)


def _plan_bytes(call: Call) -> int:
    """Bytes of arguments, results and temporaries, as XLA plans them."""
    program = call.function.lower(*call.args).compile()
    plan = program.memory_analysis()
    if plan is None:
        # Some backends have no memory analysis: count arguments and results alone.
        return bytes_of((call.args, jax.eval_shape(call.function, *call.args)))
    one = plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes
    # The plan is for one device; aliased bytes are counted as argument and as result.
    devices = [len(place.device_set) for place in jax.tree.leaves(program.output_shardings)]
    return max(devices, default=1) * (one - plan.alias_size_in_bytes)


def bytes_of(tree: Any) -> int:
    """The bytes of the arrays of a pytree, which may be abstract."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


@functools.lru_cache(2**17)
def _rows(length: int) -> int:
    return len(frames.lags(length))


def disk_bytes(length: int | None, count: int, per_chunk: int = 64) -> int:
    """Bytes that runs of T steps leave on the disk: their chunks and the frames made of them.

    Args:
        length: T; `frames.lags` says how many of its steps are kept. None for one step.
        count: runs of this length.
        per_chunk: how many of them stand in one file.

    Returns:
        An estimate, within a factor of 1.5 of what a sweep of gradients writes as parquet.

    >>> disk_bytes(1000, count=100, per_chunk=50)
    247860
    """
    rows = _rows(length or 1)
    return int(_FRAMES + -(-count // per_chunk) * _CHUNK + count * (_RUN + _ROW * rows))
