"""How many runs share one call of the compiled program: measured once per device and shape."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import jax

from gradlab import _files
from gradlab.sweeps import measure
from gradlab.sweeps.plan import Run

PROBE_STEPS = 64
FIRST, FACTOR = 4, 4
# Bytes of residuals that one chunk may keep; an LSTM keeps about 16 vectors of width n per step.
BUDGET, VECTORS = 2**30, 16
# Blocks of weights of one step, where each step has its own: at most those of an LSTM.
GATES = 4


def size(run: Run, wanted: int, budget: int = BUDGET) -> int:
    """The fastest number of runs per chunk for programs like this run's, at most `wanted`.

    Sizes 4, 16, 64, … are timed on the run's own program at a length of 64 until a larger one is
    slower per run; the answer is kept in the user's cache folder for this device. A group that is
    smaller than the second size is one chunk: timing would cost more than it saves. Memory bounds
    all: a chunk keeps less than 1 GiB of states for its backward pass.
    """
    best = wanted
    if wanted >= FIRST * FACTOR:
        best = _remembered(run) or _measure(run, wanted)
    kept = VECTORS * run.hidden * run.length
    if run.weights == "untied":
        kept += measure.SEGMENT * GATES * run.hidden * (run.hidden + run.inputs)
    fits = budget // (4 * kept)
    return int(max(1, min(best, fits, wanted)))


def _measure(run: Run, wanted: int) -> int:
    best, best_time = FIRST, float("inf")
    count = FIRST
    while count <= wanted:
        batch = [run._replace(length=PROBE_STEPS, seed=seed) for seed in range(count)]
        measure.curves(batch, recurrent=False)
        times = []
        for _ in range(3):
            start = time.perf_counter()
            measure.curves(batch, recurrent=False)
            times.append((time.perf_counter() - start) / count)
        if min(times) > 0.95 * best_time:
            # Only an answer that the group's own size did not cut short holds for others.
            _remember(run, best)
            break
        best, best_time = count, min(times)
        count *= FACTOR
    return best


def _name(run: Run) -> str:
    device = jax.devices()[0]
    shape = f"{run.cell} {run.weights} {run.hidden} {run.inputs}"
    return f"{device.platform} {device.device_kind} x{os.cpu_count()} jax {jax.__version__} {shape}"


def _file() -> Path:
    return _files.cache() / "chunks.json"


def _read() -> dict[str, Any]:
    try:
        content = json.loads(_file().read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _remembered(run: Run) -> int | None:
    count = _read().get(_name(run))
    return count if isinstance(count, int) and count > 0 else None


def _remember(run: Run, count: int) -> None:
    """Keep the answer where that is possible; a read-only home only costs the next measurement."""
    try:
        _file().parent.mkdir(parents=True, exist_ok=True)
        _file().write_text(json.dumps({**_read(), _name(run): count}, indent=2))
    except OSError:
        pass
