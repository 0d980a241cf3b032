"""How many runs a device takes at once: measured once per device and shape."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections.abc import Callable
from typing import Any

import jax

from gradlab import _files
from gradlab.sweeps import cost, measure
from gradlab.sweeps.plan import Run

# The length at which sizes are timed; seconds of a call and of a step, by size.
PROBE_STEPS = 64
Timed = dict[int, tuple[float, float]]
FACTOR = 4
CACHE = "chunks.json"
# Of glibc's malloc.h.
MALLOC_TRIM_THRESHOLD, MALLOC_MMAP_MAX, MALLOC_ARENA_MAX = -1, -4, -8


def size(run: Run, wanted: int, budget: int) -> int:
    """The fastest number of runs at once on every device, for programs like this run's.

    Timed are 2, 8, 32, … runs of one sequence, or 1 (a loop), 4, 16, … runs of several, until a
    larger number is not faster per run. What a call takes whatever its length, and what a step
    takes, are told apart, and kept in the user's cache folder for these devices. What the choice
    moves of the numbers is told by `measure.curves`. Of `wanted` runs that are fewer than the
    second number takes, timing would cost more than it saves. Memory bounds all: the peak is below
    the `budget` of bytes, as `cost.peak` has it.
    """
    if measure.is_alone(run):
        return 1
    longest = run._replace(length=max(run.length, PROBE_STEPS))
    most = cost.fits(
        lambda size: cost.peak(longest, size), -(-wanted // jax.local_device_count()), budget
    )
    timed, first = _remembered(run), measure.least(run)
    if not timed and most < FACTOR * first:
        return most if run.batch == 1 else 1
    while True:
        best, largest = _fastest(run, timed), max(timed, default=0)
        following = FACTOR * largest or first
        if best < largest or following > most:
            return min(best or first, most)
        timed[following] = _measure(run, following)
        _remember(run, timed)


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


def _fastest(run: Run, timed: Timed) -> int:
    """The smallest size that is within 5 % of the fastest, 0 where none was timed."""
    each = {
        size: (call + step * run.length) / measure.together(run, size)
        for size, (call, step) in timed.items()
    }
    return min((size for size in each if each[size] <= 1.05 * min(each.values())), default=0)


def _measure(run: Run, size: int) -> tuple[float, float]:
    """Seconds that a call takes, whatever its length, and those that a step adds."""
    count = measure.together(run, size)
    batch = [run._replace(length=PROBE_STEPS, seed=seed) for seed in range(count)]
    whole = _seconds(lambda: measure.curves(batch, recurrent=False, size=size))
    with measure.pinned():
        program, _ = measure.drawn(batch, weights=False)
        steps = _seconds(lambda: jax.block_until_ready(program()))
    return max(whole - steps, 0.0), steps / PROBE_STEPS


def _seconds(function: Callable[[], Any]) -> float:
    """The least of three, once it is compiled."""
    function()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def _name(run: Run) -> str:
    device = jax.devices()[0]
    shape = f"{run.cell} {run.weights} {run.hidden} {run.inputs} {run.batch}"
    devices = f"{device.platform} {device.device_kind} {jax.local_device_count()}"
    return f"{devices} x{os.cpu_count()} jax {jax.__version__} {shape}"


def _remembered(run: Run) -> Timed:
    try:
        known = _files.remembered(CACHE)[_name(run)].items()
        return {int(size): (float(call), float(step)) for size, (call, step) in known}
    except (KeyError, AttributeError, TypeError, ValueError):
        return {}


def _remember(run: Run, timed: Timed) -> None:
    _files.remember(CACHE, {_name(run): timed})
