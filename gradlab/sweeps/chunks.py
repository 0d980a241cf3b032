"""How many runs a device takes at once: measured once per device and shape."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time

import jax

from gradlab import _files
from gradlab.sweeps import cost, measure
from gradlab.sweeps.plan import Run

PROBE_STEPS = 64
FACTOR = 4
CACHE = "chunks.json"
# Of glibc's malloc.h.
MALLOC_TRIM_THRESHOLD, MALLOC_MMAP_MAX, MALLOC_ARENA_MAX = -1, -4, -8


def size(run: Run, wanted: int, budget: int) -> int:
    """The fastest number of runs at once on every device, for programs like this run's.

    Sizes are timed on the run's own program at a length of 64: for runs of one sequence 2, 8,
    32, …, for runs of several 1 (a loop), 4, 16, …, until a larger one is slower per run. The
    answer is kept in the user's cache folder for these devices. What it moves of the numbers is
    told by `measure.curves`. Of `wanted` runs that are fewer than the second size takes, timing
    would cost more than it saves. Memory bounds all: the peak is below the `budget` of bytes, as
    `cost.peak` has it.
    """
    if measure.is_alone(run):
        return 1
    longest = run._replace(length=max(run.length, PROBE_STEPS))
    most = cost.fits(
        lambda size: cost.peak(longest, size), -(-wanted // jax.local_device_count()), budget
    )
    if (known := _remembered(run)) is not None:
        best, tried = known
        # Where the largest was the fastest, a larger one might be faster still.
        if best < tried or most < FACTOR * tried:
            return min(best, most)
    if most < FACTOR * measure.least(run):
        return most if run.batch == 1 else 1
    return _measure(run, most)


def use_cores() -> None:
    """Make every core a device of its own, for a sweep to share its runs among them.

    It must come before anything of JAX runs; later, and where the user has chosen a number of
    devices already, nothing happens. Numbers are the same either way.
    """
    chosen = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if chosen or jax.config.jax_num_cpu_devices > 0:  # pyright: ignore[reportAttributeAccessIssue]
        return
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with contextlib.suppress(RuntimeError):  # JAX has started
        jax.config.update("jax_num_cpu_devices", count or 1)


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


def _measure(run: Run, most: int) -> int:
    best, best_time, tried = 0, float("inf"), 0
    size = measure.least(run)
    while size <= most and best == tried:
        count = measure.together(run, size)
        batch = [run._replace(length=PROBE_STEPS, seed=seed) for seed in range(count)]
        measure.curves(batch, recurrent=False, size=size)
        times = []
        for _ in range(3):
            start = time.perf_counter()
            measure.curves(batch, recurrent=False, size=size)
            times.append((time.perf_counter() - start) / count)
        if min(times) < 0.95 * best_time:
            best, best_time = size, min(times)
        tried = size
        size *= FACTOR
    _remember(run, best, tried)
    return best


def _name(run: Run) -> str:
    device = jax.devices()[0]
    shape = f"{run.cell} {run.weights} {run.hidden} {run.inputs} {run.batch}"
    devices = f"{device.platform} {device.device_kind} {jax.local_device_count()}"
    return f"{devices} x{os.cpu_count()} jax {jax.__version__} {shape}"


def _remembered(run: Run) -> tuple[int, int] | None:
    """The fastest size and the largest that was tried."""
    match _files.remembered(CACHE).get(_name(run)):
        case [int(best), int(tried)] if 0 < best <= tried:
            return best, tried
    return None


def _remember(run: Run, best: int, tried: int) -> None:
    _files.remember(CACHE, {_name(run): [best, tried]})
