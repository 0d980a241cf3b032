"""What a sweep will take, said before it is begun: runs, programs, arithmetic, bytes, time."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from gradlab import _files, _manifest
from gradlab._files import Folder
from gradlab._format import format_bytes, format_duration, format_si
from gradlab._memory import parse_bytes
from gradlab.grid import _compiled, unused
from gradlab.grid.measurement import Cost, Measurement, Run
from gradlab.grid.plan import Plan, count
from gradlab.grid.progress import stored_runs
from gradlab.grid.spec import Grid
from gradlab.grid.work import Chunk

# Where nothing was measured yet: the share of this machine's matrix products that a sweep reaches
# (batch 1, width 128), seconds for a program to be begun, and for frames and figures in the end.
SHARE, START, FINISH = 0.05, 3.0, 10.0
# Memory is ample where it is so many times what a program needs: drawing orthogonal matrices takes
# four times what they take themselves, and they are a part of it.
AMPLE = 4
# Seconds that runs are asked for their arithmetic: each cell is traced, in a tenth of one.
PATIENCE = 2.0
TIMES = "times.json"


class Estimate(NamedTuple):
    """What a sweep will take.

    Attributes:
        runs: points of the grid, each with one seed.
        stored: those that the folder holds already, measured or failed.
        programs: programs to compile that trace; runs that differ in numbers alone share them.
        flops: arithmetic of the matrix products of all runs, there and back.
        bytes: what the folder will hold.
        seconds: the time for the missing runs on this device, with compilation, frames and figures;
            NaN where runs neither count their arithmetic nor ran here before.
        speed: floating-point operations per second that the time rests on.
        source: where that comes from.
        too_large: those of the runs that need more memory than is given, and would fail.
        guessed: programs whose arithmetic was not counted, and is taken to be in proportion to that
            of others.
    """

    runs: int
    stored: int
    programs: int
    flops: float
    bytes: int
    seconds: float
    speed: float
    source: str
    too_large: int = 0
    guessed: int = 0

    def __str__(self) -> str:
        lines = [
            f"runs                {self.runs:,}",
            *([f"stored already      {self.stored:,}"] if self.stored else []),
            f"compiled programs   {self.programs:,}",
            *(
                [f"arithmetic          {format_si(self.flops, 'FLOP')}{self._guess_note}"]
                if self.flops
                else []
            ),
            f"bytes to be written {format_bytes(self.bytes)}",
            f"estimated time      {self._time}",
            *(
                [f"above --memory      {self.too_large:,} runs, which fail"]
                if self.too_large
                else []
            ),
        ]
        return "\n".join(lines)

    @property
    def _time(self) -> str:
        if math.isnan(self.seconds):
            return f"not known: {self.source}"
        speed = f" at {format_si(self.speed, 'FLOP/s')}" if self.flops and self.seconds else ""
        return f"{format_duration(self.seconds)}{speed}, {self.source}"

    @property
    def _guess_note(self) -> str:
        return f", of {self.guessed:,} programs by their sizes" if self.guessed else ""


def estimate(
    spec: Grid,
    out: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    memory: int | str | None = None,
    workers: int = 0,
) -> Estimate:
    """What a sweep of a spec will take, without running any of it.

    Args:
        spec: as in `gradlab.grid.sweep`.
        out: the folder, where one may hold a part of the runs already.
        overrides: likewise.
        memory: as in `gradlab.sweeps.sweep`. What runs need is what their compiled programs say:
            the longest of each kind is compiled, and kept for the sweep.
        workers: likewise; they share the memory.

    Returns:
        An `Estimate`. The time rests on sweeps that this device ran before, of the same cell where
        there was one; else on a matrix product that is timed now.

    Raises:
        ValueError: as in `gradlab.sweeps.sweep`.
    """
    plan = Plan(spec)
    measurement = plan.measurement
    measurement.check(plan)
    unused.warn(spec, plan, overrides, stacklevel=4)
    history = times()
    limit = None if memory is None else parse_bytes(memory) // max(workers, 1)
    flops, disk_bytes, seconds, sources = 0.0, 0, 0.0, {}
    programs: dict[Any, None] = {}
    groups = plan.programs()
    numbers = [(next(plan.runs(grids[0])), count(grids)) for grids in groups.values()]
    arithmetic, guesses = _arithmetic(measurement.cost, [run for run, _ in numbers])
    for (run, number), each in zip(numbers, arithmetic, strict=True):
        each_seconds, source = _seconds(measurement, run, each, history.runs)
        programs[measurement.cost.compiled(run)] = None
        flops += number * each
        disk_bytes += measurement.cost.written(run, number)
        seconds += number * each_seconds
        sources[source] = sources.get(source, 0.0) + number * each
    present = _count_stored(out, plan)
    share = 1 - min(present / max(len(plan), 1), 1)
    # Of a program there are as many beginnings as initializers.
    rest = history.start * len(groups) + history.finish
    return Estimate(
        runs=len(plan),
        stored=present,
        programs=len(programs),
        flops=flops,
        bytes=disk_bytes,
        seconds=seconds * share + rest if share else 0.0,
        speed=flops / seconds if seconds else math.inf,
        source=max(sources, key=lambda name: sources[name], default="nothing to do"),
        too_large=0 if limit is None else _too_large(measurement, numbers, limit),
        guessed=guesses,
    )


def _arithmetic(cost: Cost, runs: list[Run]) -> tuple[list[float], int]:
    """The operations of runs, and how many were not asked: those are in proportion to the others.

    One of each kind of `Cost.work` is asked first, then the rest of them until `PATIENCE` is over.
    """
    works = [cost.work(run) for run in runs]
    firsts: dict[Any, int] = {}
    for place, (kind, _) in enumerate(works):
        firsts.setdefault(kind, place)
    counts: dict[int, float] = {}
    start = time.monotonic()
    for place in dict.fromkeys([*firsts.values(), *range(len(runs))]):
        if time.monotonic() - start > PATIENCE:
            break
        counts[place] = float(cost.flops(runs[place]))
    ratios = {works[place][0]: flops / works[place][1] for place, flops in counts.items()}
    usual = sum(ratios.values()) / max(len(ratios), 1)
    every = [
        counts[place] if place in counts else work * ratios.get(kind, usual)
        for place, (kind, work) in enumerate(works)
    ]
    return every, len(runs) - len(counts)


def _too_large(measurement: Measurement, numbers: list[tuple[Run, int]], limit: int) -> int:
    """Count the runs that need more than `limit` bytes, from one run of each program.

    Each question compiles a program. So the longest come first: a shorter one needs no more. And
    where one takes a small part of the memory, another initializer or input will not take it all.
    """
    cost, total = measurement.cost, 0
    fitting, ample = set(), set()
    with _compiled.use_cache():
        for run, number in sorted(numbers, key=lambda each: _length(each[0]), reverse=True):
            short = run._replace(length=0) if _length(run) else run
            if short.program in fitting or cost.compiled(short) in ample:
                continue
            # What cannot fit at all must not reach the compiler.
            need = cost.needed(run)
            need = need if need > limit else cost.peak(run, 1)
            if need > limit:
                total += number
                continue
            fitting.add(short.program)
            if need <= limit // AMPLE:
                ample.add(cost.compiled(short))
    return total


def _length(run: Run) -> int:
    # Only where gradlab names the axis is it sure to be a number of steps.
    length = getattr(run, "length", None)
    return length if isinstance(length, int) else 0


def _count_stored(out: str | Path | None, plan: Plan) -> int:
    if out is None:
        return 0
    folder = Folder(out)
    _manifest.find(folder)
    rows, _ = stored_runs(folder, [], plan)
    ids = set(rows["run_id"])
    # The stored runs come first as a rule, so that the search ends early.
    runs = itertools.islice((run for run in plan if run.run_id in ids), len(ids))
    if ids and sum(1 for _ in runs) < len(ids):
        raise ValueError(f"{out} holds results of another spec; give another folder with --out")
    return len(ids)


# What sweeps took on this device.


class Times(NamedTuple):
    """What the last sweeps took on this device.

    Attributes:
        runs: seconds of a run and its floating-point operations, by cell, batch, width and length.
        start: seconds that runs take before the first of them are measured, for each program and
            initializer: they are traced, and compiled or loaded.
        finish: seconds for the frames and figures.
    """

    runs: dict[str, tuple[float, float]] = {}
    start: float = START
    finish: float = FINISH


def _device() -> str:
    devices = jax.devices()
    return f"{devices[0].platform} {devices[0].device_kind} x{len(devices)}"


def times() -> Times:
    """What sweeps took on this device, as far as any did."""
    record = _files.recall(TIMES).get(_device())
    try:
        return Times(**record) if isinstance(record, dict) else Times()
    except TypeError:
        return Times()


class Watch:
    """Sees what a sweep takes, for the estimates of others.

    >>> watch = Watch()
    >>> watch.finish = 3.0
    >>> watch.times(Times({"gru 1 8 50": (0.01, 1e6)}))
    Times(runs={'gru 1 8 50': (0.01, 1000000.0)}, start=3.0, finish=3.0)
    """

    def __init__(self) -> None:
        self.starts: dict[Any, set[Any]] = {}  # compiled program: `Run.program` of its runs
        self.firsts: list[tuple[str, int, float]] = []  # key, runs, seconds
        self.later: dict[str, tuple[float, float]] = {}  # key: as in `Times`, the fastest chunk's
        self.finish: float | None = None

    def note(self, chunk: Chunk, seconds: float) -> None:
        """Note that a chunk took so long, with what came before it."""
        run, count, cost = chunk.runs[0], len(chunk.coordinates), chunk.measurement.cost
        if cost.family is None or chunk.refusal or chunk.halved:
            return
        _, key = cost.family(run)
        programs = self.starts.setdefault(cost.compiled(run), set())
        if run.program not in programs:
            self.firsts.append((key, count, seconds))
        if programs:
            each = seconds / count, float(max(cost.flops(run), 1))
            self.later[key] = min(each, self.later.get(key, each))
        programs.add(run.program)

    def times(self, history: Times) -> Times:
        """The history with what was seen since; first runs of a program show its start-up time."""
        runs = history.runs | self.later
        starts = [
            max(0.0, seconds - count * runs[key][0])
            for key, count, seconds in self.firsts
            if key in runs
        ]
        return Times(
            runs,
            sum(starts) / len(starts) if starts else history.start,
            history.finish if self.finish is None else self.finish,
        )

    def remember(self) -> None:
        """Keep it for the estimates of others."""
        if self.firsts or self.finish is not None:
            _files.remember(TIMES, {_device(): self.times(times())._asdict()})


def _seconds(
    measurement: Measurement, run: Run, flops: float, history: dict[str, tuple[float, float]]
) -> tuple[float, str]:
    """Seconds of a run, from the history of the most similar one, and where that is from."""
    if measurement.cost.family is None:
        return _usual(flops)
    family, key = measurement.cost.family(run)
    if key in history:
        return history[key][0], "as sweeps of the same shapes ran here"
    alike = [record for name, record in history.items() if name.startswith(f"{family} ")]
    if not alike or not flops:
        return _usual(flops)
    seconds, others = min(alike, key=lambda record: abs(math.log(record[1] / max(flops, 1))))
    if flops <= others:
        return seconds * flops / others, _ALIKE
    # Charge the extra FLOPs at the usual speed: a small run takes as long as its overhead.
    return seconds + (flops - others) / max(SHARE * _products(), others / seconds), _ALIKE


def _usual(flops: float) -> tuple[float, str]:
    if not flops:
        return math.nan, "nothing like it ran here"
    return flops / (SHARE * _products()), f"{SHARE:.0%} of this machine's matrix products"


_ALIKE = "as similar sweeps ran here"


def _products() -> float:
    """Floating-point operations per second of a matrix product."""
    if not _SPEEDS:
        a = np.ones((1024, 1024), np.float32)
        times = []
        for _ in range(3):
            start = time.perf_counter()
            np.matmul(a, a)
            times.append(time.perf_counter() - start)
        _SPEEDS.append(2 * 1024**3 / min(times))
    return _SPEEDS[0]


_SPEEDS: list[float] = []
