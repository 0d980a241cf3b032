"""Run what is missing of a plan and leave frames, figures and a summary behind."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gradlab import frames
from gradlab._files import filled
from gradlab.sweeps import spec as specs
from gradlab.sweeps.plan import Plan
from gradlab.sweeps.spec import Spec, TrainingSpec
from gradlab.sweeps.store import Store, open_store, read_manifest
from gradlab.sweeps.work import SWEEPS, Chunk, Part, Sweep, compute

Progress = Callable[[int, int, str], None]


class Report(NamedTuple):
    """What a sweep did.

    Attributes:
        computed: runs measured now.
        total: runs in all.
        failed: the reason of each run that could not be measured, by its id.
        seconds: what the call took.
        damaged: chunks that were not what their names say, and were measured again.
        folder: where the results are.
        paths: what was written there.
    """

    computed: int
    total: int
    failed: dict[str, str]
    seconds: float
    damaged: tuple[str, ...]
    folder: str
    paths: tuple[str, ...]

    @property
    def results(self) -> frames.Results | frames.TrainingResults:
        """The frames, read from the folder."""
        return frames.read(self.folder)


def sweep(
    spec: Spec | TrainingSpec | Mapping[str, Any] | str | Path,
    out: str | Path,
    *,
    set: Mapping[str, Any] | None = None,
    memory: int = 2**30,
    retry: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Measure every run of a spec that the folder does not hold yet.

    Args:
        spec: the grid: a TOML file, the same content as a mapping (or its axes alone), or what
            `gradlab.sweeps.load` made of it.
        out: the folder to write, a path or an fsspec address: runs.parquet, steps.parquet,
            manifest.json, summary.csv, figures/.
        set: values of axes in place of those of the spec.
        memory: bytes that a chunk may use.
        retry: whether runs that failed before are tried again.
        progress: called with (runs done, runs in all, what runs now).

    Returns:
        A `Report`.

    Raises:
        ValueError: where the spec has a mistake, or the folder cannot be written, is in use, was
            written by a newer gradlab or holds another spec's results.
        OSError: where writing fails on the way; what was finished is kept.

    A sweep that is stopped keeps every chunk that was finished; the same call goes on from there.

    >>> import tempfile, gradlab as gl
    >>> axes = {"cell": "elman", "init": "orthogonal", "gain": [0.5, 1.0], "length": 20}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = gl.sweep(axes, folder, set={"hidden": 8, "activation": "linear"})
    ...     report.results.runs[["gain", "rate"]].round(3).values.tolist()
    [[0.5, -0.693], [1.0, 0.0]]
    """
    start = time.perf_counter()
    spec = _spec(spec, set)
    how = next(how for how in SWEEPS.values() if isinstance(spec, how.spec))
    plan = Plan(spec, how.run)
    how.check(plan)
    tell = progress or (lambda *_: None)
    of = lambda content: Plan(how.spec(**content), how.run)  # noqa: E731
    with open_store(out, how.kind, plan, of) as store:
        if retry:
            store.forget_failures()
        total = len(plan)
        finished = total if not store.done else sum(run.run_id in store.done for run in plan)
        finished = finished if store.done else 0
        computed = total - finished
        if computed:
            store.write_manifest(spec.model_dump(), status="running", runs=total)
            for chunk, parts in _here(
                _chunks(how, plan, store.done, memory), finished, total, tell
            ):
                for part in parts:
                    store.add(*part)
                finished += len(chunk.runs)
                tell(finished, total, how.label(chunk.runs[0]))
        if computed or not store.is_complete():
            _finish(how, store, spec, start)
    made = [name for name in store.folder.names() if name.endswith(".png")]
    return Report(
        computed=computed,
        total=total,
        failed=store.failed,
        seconds=time.perf_counter() - start,
        damaged=tuple(name.removeprefix("chunks/") for name in store.damaged),
        folder=str(out),
        paths=tuple(f"{out}/{name}" for name in (*how.kind.derived, "manifest.json", *made)),
    )


def _spec(given: Any, overrides: Mapping[str, Any] | None) -> Spec | TrainingSpec:
    if isinstance(given, str | Path):
        return specs.load(given, overrides)
    if isinstance(given, Mapping):
        return specs.parse(given, overrides)
    return specs.parse(given.model_dump(exclude_defaults=True), overrides) if overrides else given


def _chunks(how: Sweep, plan: Plan, done: set[str], memory: int) -> Iterator[Chunk]:
    """The missing runs, those that share a program together."""
    for grids in plan.programs().values():
        runs = (run for axes in grids for run in plan.runs(axes))
        missing = [run for run in runs if run.run_id not in done]
        if missing:
            size = how.size(missing[0], len(missing), memory)
            for place in range(0, len(missing), size):
                yield Chunk(how.kind.name, tuple(missing[place : place + size]), size)


def _here(
    chunks: Iterator[Chunk], finished: int, total: int, tell: Progress
) -> Iterator[tuple[Chunk, list[Part]]]:
    """Measure the chunks one after the other, in this process."""
    for chunk in chunks:
        label = SWEEPS[chunk.kind].label(chunk.runs[0])
        tell(finished, total, label)
        yield chunk, compute(chunk, functools.partial(tell, finished, total))
        finished += len(chunk.runs)


def _finish(how: Sweep, store: Store, spec: Any, start: float) -> None:
    """Make everything that follows from the chunks; the manifest comes last and says so."""
    from gradlab import figures

    made = store.consolidate()
    runs = made[0]
    summary = how.summary(runs).to_csv(index=False, lineterminator="\n")
    store.folder.write("summary.csv", lambda file: file.write(summary.encode()))
    results: Any = frames.TrainingResults if how.kind.name == "training" else frames.Results
    with filled(store.folder, "figures") as folder:
        figures.draw(results(*made, {}), folder)
    now = read_manifest(store.folder).get("spec")
    if now is not None and now != spec.model_dump(mode="json"):
        raise ValueError(
            f"the spec in {store.folder}/manifest.json changed under a running sweep; what was "
            "measured is kept: run again with the spec that is meant"
        )
    store.write_manifest(
        spec.model_dump(),
        status="complete",
        runs=len(runs),
        failed=len(store.failed),
        device=sorted(runs["device"].dropna().unique()),
        precision=sorted(runs["precision"].dropna().unique()),
        hosts=sorted({chunk.get("host", "") for chunk in store.chunks.values()}),
        files=store.checksums(),
        seconds=round(time.perf_counter() - start, 3),
        chunks=[{"name": name, **said} for name, said in sorted(store.chunks.items())],
    )
