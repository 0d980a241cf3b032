"""Run what is missing of a plan and leave frames, figures and a summary behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gradlab import frames, initializers
from gradlab.sweeps import chunks, measure, plan
from gradlab.sweeps.plan import Run
from gradlab.sweeps.spec import Spec
from gradlab.sweeps.store import DERIVED, Store, open_store

Progress = Callable[[int, int, str], None]


class Report(NamedTuple):
    """What a sweep did: runs computed now and in all, seconds, frames, and the paths written."""

    computed: int
    total: int
    seconds: float
    damaged: tuple[str, ...]
    results: frames.Results
    paths: tuple[Path, ...]


def sweep(spec: Spec, out: str | Path, progress: Progress | None = None) -> Report:
    """Measure every run of a spec that the folder does not hold yet.

    Args:
        spec: the grid; see `gradlab.sweeps.load`.
        out: the folder to write: runs.parquet, steps.parquet, manifest.json, summary.csv, figures/.
        progress: called with (runs done, runs in all, what runs now).

    Returns:
        A `Report`.

    Raises:
        ValueError: where the folder cannot be written, is in use or holds another spec's results.

    A sweep that is stopped keeps every chunk that was finished; the same call goes on from there.
    """
    start = time.perf_counter()
    runs = list(plan.runs(spec))
    by_id = {run.run_id: run for run in runs}
    with open_store(out, set(by_id)) as store:
        todo = [run for name, run in by_id.items() if name not in store.done]
        sizes: dict[str, int] = {}
        if todo:
            store.write_manifest(spec=spec.model_dump(), status="running", runs=len(runs))
            sizes = _run(todo, len(runs), store, progress or (lambda *_: None))
        if todo or not store.is_complete():
            _finish(store, spec, sizes, start)
        results = frames.read(store.folder)
    drawn = sorted((store.folder / "figures").glob("*.png"))
    return Report(
        computed=len(todo),
        total=len(runs),
        seconds=time.perf_counter() - start,
        damaged=tuple(path.name for path in store.damaged),
        results=results,
        paths=(*(store.folder / name for name in (*DERIVED, "manifest.json")), *drawn),
    )


def _finish(store: Store, spec: Spec, sizes: dict[str, int], start: float) -> None:
    """Make everything that follows from the chunks; the manifest comes last and says so."""
    from gradlab import figures

    runs, steps = store.consolidate()
    frames.summary(runs).to_csv(store.folder / "summary.csv", index=False, lineterminator="\n")
    figures.draw(frames.Results(runs, steps, {}), store.folder / "figures")
    store.write_manifest(
        spec=spec.model_dump(),
        status="complete",
        runs=len(runs),
        device=sorted(runs["device"].unique()),
        precision=sorted(runs["precision"].unique()),
        chunk_sizes=sizes,
        files=store.checksums(),
        seconds=round(time.perf_counter() - start, 3),
    )


def _run(todo: Sequence[Run], total: int, store: Store, progress: Progress) -> dict[str, int]:
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
    return sizes


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
