"""The sweep over networks as they are initialized: how its runs are measured and kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gradlab import frames, initializers
from gradlab.sweeps import chunks, measure, plan
from gradlab.sweeps.consolidate import lists
from gradlab.sweeps.plan import Run
from gradlab.sweeps.spec import Spec
from gradlab.sweeps.store import Kind, Store

runs = plan.runs


def measure_all(
    spec: Spec, todo: Sequence[Run], total: int, store: Store, progress: Callable[..., None]
) -> dict[str, Any]:
    """Measure the runs group by group and store every chunk as it is finished."""
    audits = _Audits()
    finished = total - len(todo)
    sizes: dict[str, int] = {}
    for group in plan.groups(todo):
        first = group[0]
        init = first.init or ""
        label = f"{first.cell} {init} {first.weights} {first.input} T={first.length}"
        progress(finished, total, label)
        count = chunks.size(first, len(group))
        shape = f"{first.cell} {first.weights} hidden={first.hidden} length={first.length}"
        sizes[shape] = count
        for place in range(0, len(group), count):
            batch = group[place : place + count]
            # A short last chunk is filled up, so that the group needs one compiled program.
            padded = batch + [batch[-1]] * (count - len(batch))
            measured = measure.curves(padded, recurrent=audits.lacks(batch))
            store.add(measure.records(batch, measured, audits(batch, measured)))
            finished += len(batch)
            progress(finished, total, label)
    return {"chunk_sizes": sizes}


class _Audits:
    """Audits of the recurrent weights and the gates, once for all runs that drew the same ones.

    A cell with several gates has one matrix each; the worst value over them is reported, the
    largest but for the smallest singular value. Untied runs are audited at one draw of their law.
    """

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
                audit |= _time_constants(measured.log_retention[rows])
            for i, name in enumerate(places):
                self._known[name] = {key: float(value[i]) for key, value in audit.items()}
        return [self._known[_drawn(run)] for run in batch]


def _time_constants(log_retention: np.ndarray) -> dict[str, np.ndarray]:
    """τ = -1 / ln k over the units of each run, in steps; inf for a unit that forgets nothing."""
    with np.errstate(divide="ignore"):
        tau = -1 / log_retention
    # -1 / 0 would be -inf.
    tau = np.where(log_retention == 0, np.inf, tau)
    statistics = {"median": np.median, "min": np.min, "max": np.max}
    return {f"time_constant_{name}": take(tau, axis=1) for name, take in statistics.items()}


def _drawn(run: Run) -> Run:
    """A run without what its parameters do not depend on."""
    return run._replace(weights="", length=0, input="")


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


KIND = Kind(
    name="gradients",
    ids=lambda spec: (run.run_id for run in plan.runs(Spec(**spec))),
    rows=frames.runs_frame,
    lists={"lags": pa.int64(), "log_norms": pa.float64()},
    split=_split,
)
