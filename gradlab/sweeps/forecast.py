"""What a sweep will take, said before it is begun: runs, programs, arithmetic, bytes, time."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from gradlab import _files
from gradlab._files import Folder
from gradlab.sweeps import cost, plan
from gradlab.sweeps import spec as specs
from gradlab.sweeps.plan import Plan
from gradlab.sweeps.progress import stored_runs
from gradlab.sweeps.work import Chunk, Part, sweep_of

# Seconds that XLA takes to compile one program, and the share of this machine's matrix products
# that a sweep reaches where nothing was measured yet: batch 1, width 128.
COMPILATION, SHARE = 0.5, 0.05
SPEEDS = "speeds.json"
# Arithmetic below which the time of a chunk is that of everything else.
ENOUGH = 1e9


class Estimate(NamedTuple):
    """What a sweep will take.

    Attributes:
        runs: points of the grid, each with one seed.
        stored: those that the folder holds already, measured or failed.
        programs: programs to compile that trace; runs that differ in numbers alone share them.
        flops: arithmetic of the matrix products of all runs, there and back.
        bytes: what the folder will hold.
        seconds: the time for the missing runs on this device, compilation included.
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
    memory: int | str | None = None,
    workers: int = 0,
) -> Estimate:
    """What a sweep of a spec will take, without running any of it.

    Args:
        spec: as in `gradlab.sweeps.sweep`.
        out: the folder, where one may hold a part of the runs already.
        memory: as in `gradlab.sweeps.sweep`; every program is traced to compare with it, in
            seconds for a hundred of them.
        workers: likewise; they share the memory.

    Returns:
        An `Estimate`. The time rests on sweeps that this device ran before, on the same cell and
        width where there was one; else on a matrix product that is timed now.
    """
    spec = specs.made(spec)
    how = sweep_of(spec)
    made = Plan(spec, how.run)
    how.check(made)
    known = speeds()
    limit = None if memory is None else cost.parse_memory(memory) // max(workers, 1)
    too_large = 0
    flops, written, seconds, programs, sources = 0.0, 0, 0.0, set(), {}
    for grids in made.programs().values():
        count = plan.count(grids)
        run = next(made.runs(grids[0]))
        each = _flops(run)
        speed, source = _speed(run, known)
        programs.add(compiled(run))
        if limit is not None and cost.peak(run, 1) > limit:
            too_large += count
        flops += count * each
        written += cost.written(run.length or 1, count, -(-count // 64))
        seconds += count * each / speed
        sources[source] = sources.get(source, 0.0) + count * each
    stored = _stored(out, made)
    share = 1 - min(stored / max(len(made), 1), 1)
    return Estimate(
        runs=len(made),
        stored=stored,
        programs=len(programs),
        flops=flops,
        bytes=written,
        seconds=seconds * share + (COMPILATION * len(programs) if share else 0),
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
    found, _ = stored_runs(Folder(out), [])
    ids = set(found["run_id"])
    known = sum(run.run_id in ids for run in made) if ids else 0
    if known < len(ids):
        raise ValueError(f"{out} holds results of another spec; give another folder with --out")
    return known


# Speeds that sweeps reached, by device, cell, width and batch.


def _device() -> str:
    devices = jax.devices()
    return f"{devices[0].platform} {devices[0].device_kind} x{len(devices)}"


def _key(run: Any) -> str:
    return f"{run.cell} {run.hidden} {run.batch}"


def speeds() -> dict[str, float]:
    """What sweeps reached on this device, in floating-point operations per second."""
    return _files.remembered(SPEEDS).get(_device(), {})


def note(reached: dict[str, float], seen: set[Any], chunk: Chunk, parts: list[Part]) -> None:
    """Note the speed of a chunk, where it is the best of its shape.

    Left out are the first chunk of a program, which compiles it, and what is too little to tell.
    """
    run = chunk.runs[0]
    if not isinstance(run, plan.Run) or sum(len(part.run_ids) for part in parts if part.failed):
        return
    program, seconds = compiled(run), sum(part.seconds for part in parts)
    flops = sum(map(cost.flops, chunk.runs))
    if program in seen and seconds > 0 and flops > ENOUGH:
        reached[_key(run)] = max(flops / seconds, reached.get(_key(run), 0.0))
    seen.add(program)


def remember(reached: dict[str, float]) -> None:
    """Keep what a sweep reached, for the estimates of others."""
    known = speeds()
    best = {name: max(speed, known.get(name, 0.0)) for name, speed in reached.items()}
    if best:
        _files.remember(SPEEDS, {_device(): known | best})


def _speed(run: Any, known: dict[str, float]) -> tuple[float, str]:
    if _key(run) in known:
        return known[_key(run)], "as sweeps of the same shapes ran here"
    alike = {}
    for name, speed in known.items():
        cell, hidden, batch = name.split()
        if (cell, batch) == (run.cell, str(run.batch)):
            alike[int(hidden)] = speed
    if alike:
        nearest = min(alike, key=lambda hidden: abs(math.log(hidden / run.hidden)))
        return alike[nearest], "as sweeps of the nearest width ran here"
    return SHARE * _products(), f"{SHARE:.0%} of this machine's matrix products"


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
