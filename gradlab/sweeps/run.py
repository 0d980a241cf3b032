"""Run what is missing of a plan and leave frames, figures and a summary behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gradlab import frames
from gradlab.sweeps import gradients, training
from gradlab.sweeps.spec import Spec, TrainingSpec
from gradlab.sweeps.store import Kind, Store, open_store

Progress = Callable[[int, int, str], None]


class Sweep(NamedTuple):
    """What a sweep of one kind of spec needs.

    Attributes:
        kind: how its results are kept.
        runs: every run of a spec; each has a `run_id`.
        check: (runs) raises where one cannot be built.
        measure: (spec, runs to do, runs in all, store, progress) -> what the manifest says of them.
    """

    kind: Kind
    runs: Callable[[Any], Any]
    check: Callable[[Any], None]
    measure: Callable[[Any, Sequence[Any], int, Store, Progress], dict[str, Any]]


SWEEPS = {
    Spec: Sweep(gradients.KIND, gradients.runs, lambda _: None, gradients.measure_all),
    TrainingSpec: Sweep(
        training.KIND,
        training.runs,
        training.check,
        training.measure_all,
    ),
}


class Report(NamedTuple):
    """What a sweep did: runs computed now and in all, seconds, frames, and the paths written."""

    computed: int
    total: int
    seconds: float
    damaged: tuple[str, ...]
    results: frames.Results | frames.TrainingResults
    paths: tuple[Path, ...]


def sweep(spec: Spec | TrainingSpec, out: str | Path, progress: Progress | None = None) -> Report:
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
    how = SWEEPS[type(spec)]
    by_id = {run.run_id: run for run in how.runs(spec)}
    total = len(by_id)
    how.check(by_id.values())
    with open_store(out, how.kind, set(by_id)) as store:
        todo = [run for name, run in by_id.items() if name not in store.done]
        if todo or not store.is_complete():
            store.write_manifest(spec=spec.model_dump(), status="running", runs=total)
            tell = progress or (lambda *_: None)
            facts = how.measure(spec, todo, total, store, tell) if todo else {}
            _finish(how, store, spec, facts, start)
        results = frames.read(store.folder)
    drawn = sorted((store.folder / "figures").glob("*.png"))
    return Report(
        computed=len(todo),
        total=total,
        seconds=time.perf_counter() - start,
        damaged=tuple(path.name for path in store.damaged),
        results=results,
        paths=(*(store.folder / n for n in (*how.kind.derived, "manifest.json")), *drawn),
    )


def _finish(how: Sweep, store: Store, spec: Any, facts: dict[str, Any], start: float) -> None:
    """Make everything that follows from the chunks; the manifest comes last and says so."""
    from gradlab import figures

    counts = store.consolidate()
    figures.draw(store.folder, store.folder / "figures")
    store.write_manifest(
        spec=spec.model_dump(),
        status="complete",
        runs=sum(counts["status"].values()),
        device=sorted(counts["device"]),
        precision=sorted(counts["precision"]),
        **facts,
        files=store.checksums(),
        seconds=round(time.perf_counter() - start, 3),
    )
