"""How many runs go at once and make a chunk: every decision about sizes and memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable
from typing import NamedTuple

import jax

from gradlab._format import format_bytes
from gradlab._memory import available_memory, cores, total_memory
from gradlab.grid.measurement import Measurement, Run

# The share of the device's memory that a chunk takes unless it is told otherwise.
SHARE = 4
# Seconds that a chunk of runs takes whose cost is known only once some were measured, and the most
# runs in one chunk, however quick.
SECONDS, MOST = 2.0, 512
# Of glibc's malloc.h.
MALLOC_TRIM_THRESHOLD, MALLOC_MMAP_MAX, MALLOC_ARENA_MAX = -1, -4, -8


class Fit(NamedTuple):
    """How many runs of a program a device takes at once, and how many make one chunk.

    Attributes:
        size: runs at once on every device.
        per_chunk: runs of a chunk; None where measured times decide.
        refusal: the reason why the runs are not to be measured at all.
    """

    size: int
    per_chunk: int | None
    refusal: str | None = None


def fit(measurement: Measurement, run: Run, number: int, memory: int | None, share: int) -> Fit:
    """Decide how many of `number` runs like this one go at once on this machine's devices.

    Args:
        measurement: what is measured.
        run: one of the runs.
        number: how many runs there are.
        memory: bytes, above which a single run is refused; if None, `budget` and no refusal.
        share: how many processes have this memory between them.
    """
    cost = measurement.cost
    capacity = total_memory()
    if (need := cost.needed(run)) > capacity:
        # XLA would end the process at such sizes.
        return Fit(1, MOST, _refusal(need, "this machine has", capacity))
    limit = (budget() if memory is None else memory) // share
    size = size_of(measurement, run, number, limit)
    per_chunk = None if cost.per_chunk is None else cost.per_chunk(run, size)
    refusal = None
    need = cost.peak(run, size)
    if memory is not None and need > limit:
        refusal = _refusal(need, "--memory leaves", limit)
    elif need > capacity:
        # Linux would kill the process once it uses what it was granted.
        refusal = _refusal(need, "this machine has", capacity)
    return Fit(size, per_chunk, refusal)


def _refusal(need: int, who: str, limit: int) -> str:
    return (
        f"MemoryError: needs about {format_bytes(need)} on {jax.local_device_count()} "
        f"devices, and {who} {format_bytes(limit)}; fewer devices need less "
        "(JAX_NUM_CPU_DEVICES=1)"
    )


class Pace:
    """How many runs make the next chunk, where only what was measured tells how long they take.

    >>> pace = Pace()
    >>> pace.next(), pace.note(1, 0.1), pace.next()
    (1, None, 20)
    """

    def __init__(self) -> None:
        self._each: float | None = None

    def next(self) -> int:
        """The number of runs that take about `SECONDS`; 1 where nothing was measured yet."""
        if self._each is None:
            return 1
        return max(1, min(MOST, int(SECONDS / max(self._each, 1e-9))))

    def note(self, count: int, seconds: float) -> None:
        """Note what runs took."""
        self._each = seconds / max(count, 1)


def size_of(measurement: Measurement, run: Run, number: int, limit: int) -> int:
    """How many runs at once on every device, for programs like this run's.

    As many of `number` runs as are of use, as long as peak memory stays below `limit` bytes.
    """
    cost = measurement.cost
    # Each call of `peak` compiles a program; the first one will run, unless it takes too much.
    return fits(lambda size: cost.peak(run, size), cost.most(run, number), limit)


def use_cores() -> None:
    """Make every core a device of its own, for a sweep to share its runs among them.

    It must come before anything of JAX runs; later, and where the user has chosen a number of
    devices already, nothing happens. Numbers are the same either way.
    """
    has_flag = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if has_flag or jax.config.jax_num_cpu_devices > 0:  # pyright: ignore[reportAttributeAccessIssue]
        return
    with contextlib.suppress(RuntimeError):  # JAX has started
        jax.config.update("jax_num_cpu_devices", cores())


def keep_memory() -> None:
    """Let this process keep what it has freed, where its C library is glibc; else do nothing.

    glibc gives large blocks back to the system at once, and each call of a program would have all
    its pages cleared again, which takes as long as its arithmetic. For a process that only sweeps.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018  (musl's mallopt means something else)
        library.mallopt(MALLOC_ARENA_MAX, 1)
        library.mallopt(MALLOC_MMAP_MAX, 0)
        library.mallopt(MALLOC_TRIM_THRESHOLD, 2**31 - 1)


def fits(use: Callable[[int], int], most: int, budget: int) -> int:
    """The largest count of runs, from 1 to `most`, whose use stays within a budget.

    Args:
        use: the bytes that a count needs, such as `lambda n: peak(run, n)`; growing, and nearly
            proportional to it. Each call compiles a program, so few are made.
        most: the most runs that are of use.
        budget: bytes.

    Returns:
        A count that fits, or 1 where none does.

    >>> fits(lambda count: 7 * count, most=64, budget=300)
    42
    """
    count = max(1, most)
    while count > 1 and (need := use(count)) > budget:
        count = max(1, min(count - 1, count * budget // need))
    return count


def budget() -> int:
    """The memory that a chunk may take unless it is told otherwise: a share of what is left."""
    return available_memory() // SHARE
