"""What a sweep will take, said before it is begun: runs, programs, arithmetic, bytes, time."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from gradlab import _files
from gradlab._files import Folder
from gradlab.sweeps import cost, plan, unused
from gradlab.sweeps import spec as specs
from gradlab.sweeps.plan import Plan
from gradlab.sweeps.progress import stored_runs
from gradlab.sweeps.store import known_manifest
from gradlab.sweeps.work import Chunk, check_workers, sweep_of

# Where nothing was measured yet: the share of this machine's matrix products that a sweep reaches
# (batch 1, width 128), seconds for a program to be begun, and for frames and figures in the end.
SHARE, START, FINISH = 0.05, 3.0, 10.0
TIMES = "times.json"


class Estimate(NamedTuple):
    """What a sweep will take.

    Attributes:
        runs: points of the grid, each with one seed.
        stored: those that the folder holds already, measured or failed.
        programs: programs to compile that trace; runs that differ in numbers alone share them.
        flops: arithmetic of the matrix products of all runs, there and back.
        bytes: what the folder will hold.
        seconds: the time for the missing runs on this device, with compilation, frames and figures.
        speed: floating-point operations per second that the time rests on.
        source: where that comes from.
        too_large: those of the runs that need more memory than is given, and would fail.
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

    def __str__(self) -> str:
        lines = [
            f"runs                {self.runs:,}",
            *([f"stored already      {self.stored:,}"] if self.stored else []),
            f"compiled programs   {self.programs:,}",
            f"arithmetic          {cost.scaled(self.flops)}FLOP",
            f"bytes to be written {cost.scaled(self.bytes)}B",
            f"estimated time      {_duration(self.seconds)} at {cost.scaled(self.speed)}FLOP/s, "
            f"{self.source}",
            *(
                [f"above --memory      {self.too_large:,} runs, which fail"]
                if self.too_large
                else []
            ),
        ]
        return "\n".join(lines)


def estimate(
    spec: Any,
    out: str | Path | None = None,
    *,
    set: Mapping[str, Any] | None = None,
    memory: int | str | None = None,
    workers: int = 0,
) -> Estimate:
    """What a sweep of a spec will take, without running any of it.

    Args:
        spec: as in `gradlab.sweeps.sweep`.
        out: the folder, where one may hold a part of the runs already.
        set: values of axes in place of those of the spec.
        memory: as in `gradlab.sweeps.sweep`; every program is traced to compare with it, in
            seconds for a hundred of them.
        workers: likewise; they share the memory.

    Returns:
        An `Estimate`. The time rests on sweeps that this device ran before, of the same cell where
        there was one; else on a matrix product that is timed now.

    Raises:
        ValueError: as in `gradlab.sweeps.sweep`.
    """
    check_workers(workers)
    spec = specs.made(spec, set)
    how = sweep_of(spec)
    made = Plan(spec, how.run)
    how.check(made)
    unused.warn(spec, made, set)
    known = times()
    limit = None if memory is None else cost.parse_memory(memory) // max(workers, 1)
    too_large = 0
    flops, written, seconds, sources = 0.0, 0, 0.0, {}
    programs: dict[Any, None] = {}
    groups = made.programs()
    for grids in groups.values():
        count = plan.count(grids)
        run = next(made.runs(grids[0]))
        each = _flops(run)
        taken, source = _seconds(run, each, known.runs)
        programs[compiled(run)] = None
        if limit is not None and cost.peak(run, 1) > limit:
            too_large += count
        flops += count * each
        written += cost.written(run.length or 1, count, -(-count // 64))
        seconds += count * taken
        sources[source] = sources.get(source, 0.0) + count * each
    stored = _stored(out, made)
    share = 1 - min(stored / max(len(made), 1), 1)
    # Of a program there are as many beginnings as initializers.
    rest = known.start * len(groups) + known.finish
    return Estimate(
        runs=len(made),
        stored=stored,
        programs=len(programs),
        flops=flops,
        bytes=written,
        seconds=seconds * share + rest if share else 0.0,
        speed=flops / seconds if seconds else math.inf,
        source=max(sources, key=lambda name: sources[name], default="nothing to do"),
        too_large=too_large,
    )


def compiled(run: Any) -> tuple[Any, ...]:
    """Runs that agree on this share the program that traces them, whatever is drawn for them."""
    if not isinstance(run, plan.Run):
        return tuple(run.program)
    drawn = (run.init,) if run.weights == "untied" else ()
    shape = run.cell, run.activation, run.hidden, run.inputs, run.length, run.batch
    return (run.weights, *shape, *drawn)


def _flops(run: Any) -> float:
    return cost.flops(run) if isinstance(run, plan.Run) else cost.chunk(run, 1).flops


def _stored(out: str | Path | None, made: Plan) -> int:
    if out is None:
        return 0
    folder = Folder(out)
    known_manifest(folder)
    found, _ = stored_runs(folder, [])
    ids = set(found["run_id"])
    known = sum(run.run_id in ids for run in made) if ids else 0
    if known < len(ids):
        raise ValueError(f"{out} holds results of another spec; give another folder with --out")
    return known


# What sweeps took on this device.


class Times(NamedTuple):
    """What the last sweeps took on this device.

    Attributes:
        runs: seconds of a run and its floating-point operations, by cell, batch, width and length.
        start: seconds that runs take before the first of them are measured, for each program and
            initializer: they are traced, compiled or loaded, and the size of chunks is chosen.
        finish: seconds for the frames and figures.
    """

    runs: dict[str, tuple[float, float]] = {}
    start: float = START
    finish: float = FINISH


def _device() -> str:
    devices = jax.devices()
    return f"{devices[0].platform} {devices[0].device_kind} x{len(devices)}"


def _key(run: Any) -> str:
    return f"{run.cell} {run.batch} {run.hidden} {run.length}"


def times() -> Times:
    """What sweeps took on this device, as far as any did."""
    found = _files.remembered(TIMES).get(_device())
    try:
        return Times(**found) if isinstance(found, dict) else Times()
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
        self.begun: dict[Any, set[str | None]] = {}  # program: initializers
        self.firsts: list[tuple[str, int, float]] = []  # key, runs, seconds
        self.later: dict[str, tuple[float, float]] = {}  # key: as in `Times`, the fastest chunk's
        self.finish: float | None = None

    def note(self, chunk: Chunk, seconds: float) -> None:
        """Note that a chunk took so long, with what came before it."""
        run, count = chunk.runs[0], len(chunk.runs)
        if not isinstance(run, plan.Run) or chunk.refusal or chunk.halved:
            return
        begun = self.begun.setdefault(compiled(run), set())
        if run.init not in begun:
            self.firsts.append((_key(run), count, seconds))
        if begun:
            each = seconds / count, float(max(cost.flops(run), 1))
            self.later[_key(run)] = min(each, self.later.get(_key(run), each))
        begun.add(run.init)

    def times(self, known: Times) -> Times:
        """What is known now. The first runs of a program tell what it is to begin one."""
        runs = known.runs | self.later
        starts = [
            max(0.0, seconds - count * runs[key][0])
            for key, count, seconds in self.firsts
            if key in runs
        ]
        return Times(
            runs,
            sum(starts) / len(starts) if starts else known.start,
            known.finish if self.finish is None else self.finish,
        )

    def remember(self) -> None:
        """Keep it for the estimates of others."""
        if self.firsts or self.finish is not None:
            _files.remember(TIMES, {_device(): self.times(times())._asdict()})


def _seconds(run: Any, flops: float, known: dict[str, tuple[float, float]]) -> tuple[float, str]:
    """Seconds of a run, from what is known of the most similar one, and where that is from."""
    usual = SHARE * _products()
    if not isinstance(run, plan.Run):
        return flops / usual, _USUAL
    if _key(run) in known:
        return known[_key(run)][0], "as sweeps of the same shapes ran here"
    alike = [found for key, found in known.items() if key.startswith(f"{run.cell} {run.batch} ")]
    if not alike:
        return flops / usual, _USUAL
    seconds, others = min(alike, key=lambda found: abs(math.log(found[1] / max(flops, 1))))
    if flops <= others:
        return seconds * flops / others, _ALIKE
    # A small run takes as long as its overhead: what is more of arithmetic is at the usual speed.
    return seconds + (flops - others) / max(usual, others / seconds), _ALIKE


_USUAL = f"{SHARE:.0%} of this machine's matrix products"
_ALIKE = "as similar sweeps ran here"


def _products() -> float:
    """Floating-point operations per second of a matrix product."""
    if not _TIMED:
        a = np.ones((1024, 1024), np.float32)
        times = []
        for _ in range(3):
            start = time.perf_counter()
            np.matmul(a, a)
            times.append(time.perf_counter() - start)
        _TIMED.append(2 * 1024**3 / min(times))
    return _TIMED[0]


_TIMED: list[float] = []


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * 86400 else f"{seconds / 86400:.1f} days"
