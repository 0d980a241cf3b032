"""The sweep over networks as they are initialized: how its runs are measured and kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gradlab import initializers
from gradlab.sweeps import cost, measure
from gradlab.sweeps.consolidate import lists
from gradlab.sweeps.plan import Run
from gradlab.sweeps.store import Kind

# Arithmetic of a chunk's runs, some seconds of it, and the most runs whatever little they take.
WORK, MOST = 2e10, 512


def label(run: Run) -> str:
    """What a progress bar says of the runs that share this one's program."""
    return f"{run.cell} {run.init or ''} {run.weights} {run.input} T={run.length}"


def measure_all(
    runs: Sequence[Run], size: int, tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Measure runs that share a program, `size` at once on every device."""
    rows, count = [], measure.together(runs[0], size)
    for place in range(0, len(runs), count):
        batch = runs[place : place + count]
        measured = measure.curves(batch, recurrent=_AUDITS.lacks(batch), size=size)
        rows += measure.records(batch, measured, _AUDITS(batch, measured))
    return rows


def filled(run: Run, size: int) -> int:
    """How many runs make one chunk: whole calls, seconds of work, for a file of its own."""
    count = measure.together(run, size)
    return count * max(1, min(MOST // count, round(WORK / (count * cost.flops(run)))))


def failed(run: Run) -> dict[str, Any]:
    """The row of a run that could not be measured, but for the reason."""
    return {**run._asdict(), "run_id": run.run_id, "verdict": "failed"}


class _Audits:
    """Audits of the recurrent weights and the gates, once for all runs that drew the same ones.

    A cell with several gates has one matrix each; the worst value over them is reported, the
    largest but for the smallest singular value. Untied runs are audited at one draw of their law.
    """

    MOST = 100_000

    def __init__(self) -> None:
        self._known: dict[Any, dict[str, float]] = {}

    def lacks(self, batch: Sequence[Run]) -> bool:
        return any(_drawn(run) not in self._known for run in batch)

    def __call__(self, batch: Sequence[Run], measured: measure.Curves) -> list[dict[str, float]]:
        places = {_drawn(run): i for i, run in enumerate(batch) if _drawn(run) not in self._known}
        if places and measured.recurrent is not None:
            rows = list(places.values())
            audit = {
                name: value.min(axis=1) if name == "smallest_singular_value" else value.max(axis=1)
                for name, value in initializers.audit(measured.recurrent[rows]).items()
            }
            if measured.log_retention is not None:
                audit |= initializers.time_constants(measured.log_retention[rows])
            if len(self._known) > self.MOST:
                lost = self._known.keys() - {_drawn(run) for run in batch}
                self._known = {k: v for k, v in self._known.items() if k not in lost}
            for i, name in enumerate(places):
                self._known[name] = {key: float(value[i]) for key, value in audit.items()}
        return [self._known[_drawn(run)] for run in batch]


def _drawn(run: Run) -> Run:
    """A run without what its parameters do not depend on."""
    return run._replace(weights="", length=0, input="", batch=1)


def _split(rows: pa.Table) -> tuple[pa.Table]:
    lag, counts = lists(rows, "lags")
    norms, _ = lists(rows, "log_norms")
    run = np.repeat(np.arange(len(rows)), counts)
    steps = {
        "run_id": rows["run_id"].combine_chunks().take(pa.array(run)),
        "step": rows["length"].to_numpy()[run] - lag,
        "lag": lag,
        # A norm that is not finite is a missing value.
        "log_norm": pa.array(norms, from_pandas=True),
    }
    return (pa.table(steps),)


# A process audits a draw once, whatever chunks it stands in.
_AUDITS = _Audits()

KIND = Kind(
    name="gradients",
    lists={"lags": pa.int64(), "log_norms": pa.float64()},
    split=_split,
)
