"""Run what is missing of a plan and leave frames, figures and a summary behind."""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gradlab import frames
from gradlab._files import filled
from gradlab.sweeps import _compiled, cost, forecast, unused
from gradlab.sweeps import spec as specs
from gradlab.sweeps.plan import Plan, count
from gradlab.sweeps.spec import Spec, TrainingSpec
from gradlab.sweeps.store import Store, open_store, read_manifest, writing
from gradlab.sweeps.work import Chunk, Fit, Part, Sweep, check_workers, compute, fitted, sweep_of

Progress = Callable[[int, int, str], None]
Measured = Generator[tuple[Chunk, list[Part]], None, None]
Measure = Callable[[Iterator[Chunk]], Measured]
Fitted = Callable[[Any, int], Fit]


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
    memory: int | str | None = None,
    workers: int = 0,
    scheduler: str | None = None,
    retry: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Measure every run of a spec that the folder does not hold yet.

    Args:
        spec: the grid: a TOML file, the same content as a mapping (or its axes alone), or what
            `gradlab.sweeps.load` made of it.
        out: the folder to write, a path or an fsspec address: runs.parquet, steps.parquet,
            manifest.json, summary.csv, figures/.
        set: values of axes in place of those of the spec. An axis that the spec or `set` names and
            that changes no run is warned of, with the condition that turns it off.
        memory: what a chunk may use: bytes, or text such as "2GB". A run that needs more has
            failed, with that as its reason. If None, a quarter of what the device has to give,
            and a single run may take more.
        workers: processes of this machine that measure side by side; 0 for this one alone.
        scheduler: the address of a dask scheduler whose workers measure, tcp://HOST:PORT.
        retry: whether runs that failed before are tried again.
        progress: called with (runs done, runs in all, what runs now).

    Returns:
        A `Report`.

    Raises:
        ValueError: where the spec or an argument has a mistake, or the folder cannot be written, is
            in use, was written by a newer gradlab or holds another spec's results.
        OSError: where writing fails on the way; what was finished is kept.

    A sweep that is stopped keeps every chunk that was finished; the same call goes on from there.
    On a CPU the runs are shared among its cores where `gradlab.sweeps.use_cores()` is called before
    anything of JAX runs, as the command line does.

    >>> import tempfile, gradlab as gl
    >>> axes = {"cell": "elman", "init": "orthogonal", "gain": [0.5, 2.0], "length": 20}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = gl.sweep(axes, folder, set={"hidden": 8, "activation": "linear"})
    ...     report.results.runs[["gain", "rate"]].round(3).values.tolist()
    [[0.5, -0.693], [2.0, 0.693]]
    """
    start = time.perf_counter()
    _check(out, workers, scheduler)
    limit = None if memory is None else cost.parse_memory(memory)
    spec = specs.made(spec, set)
    how = sweep_of(spec)
    plan = Plan(spec, how.run)
    how.check(plan)
    unused.warn(spec, plan, set)
    with open_store(out, how.kind, plan, how.plan_of) as store:
        if retry:
            store.forget_failures()
        total = len(plan)
        finished = sum(run.run_id in store.done for run in plan) if store.done else 0
        computed = total - finished
        complete = not computed and store.is_complete(spec.model_dump(mode="json"))
        if not complete:
            store.write_manifest(spec.model_dump(), status="running", runs=total)
        if computed:
            told = _Told(progress, finished, total)
            watch = forecast.Watch()
            made = _measuring(how.kind.name, scheduler, workers, limit, told, watch)
            try:
                with _compiled.kept(), made as (measured, fit):
                    _run(measured, _chunks(how, plan, store.done, fit), how.label, store, told)
                before = time.perf_counter()
                _finish(how, store, spec, start)
                watch.finish = time.perf_counter() - before
            finally:
                watch.remember()
        elif not complete:
            _finish(how, store, spec, start)
    drawn = [name for name in store.folder.names() if name.endswith(".png")]
    return Report(
        computed=computed,
        total=total,
        failed=store.failed,
        seconds=time.perf_counter() - start,
        damaged=tuple(name.removeprefix("chunks/") for name in store.damaged),
        folder=str(out),
        paths=tuple(f"{out}/{name}" for name in (*how.kind.derived, "manifest.json", *drawn)),
    )


def _check(out: str | Path, workers: int, scheduler: str | None) -> None:
    if not str(out):
        raise ValueError("out must name a folder or an fsspec address, got an empty text")
    check_workers(workers)
    if scheduler is not None and not isinstance(scheduler, str):
        raise ValueError(f"scheduler must be an address, tcp://HOST:PORT; got {scheduler!r}")
    if scheduler is not None and workers:
        raise ValueError(
            f"workers are started on this machine, and those of {scheduler} are its own; give "
            "one of both"
        )


def _chunks(how: Sweep, plan: Plan, done: set[str], fit: Fitted) -> Iterator[Chunk]:
    """The missing runs, those that share a program together."""
    for grids in plan.programs().values():
        runs = (run for axes in grids for run in plan.runs(axes))
        missing = (run for run in runs if run.run_id not in done)
        first = next(missing, None)
        if first is None:
            continue
        size, filled, refusal = fit(first, count(grids))
        missing = itertools.chain([first], missing)
        while batch := tuple(itertools.islice(missing, filled)):
            yield Chunk(how.kind.name, batch, size, refusal=refusal)


class _Told:
    """Tells the progress, and takes a KeyboardInterrupt there as the wish to stop after a chunk."""

    def __init__(self, progress: Progress | None, finished: int, total: int) -> None:
        self.progress = progress
        self.finished = finished
        self.total = total
        self.stopping = False
        self.label = ""

    def again(self) -> bool:
        """Tell the same once more; whether to stop."""
        self(self.label)
        return self.stopping

    def __call__(self, label: str) -> None:
        self.label = label
        if self.progress is not None and not self.stopping:
            try:
                self.progress(self.finished, self.total, label)
            except KeyboardInterrupt:
                self.stopping = True


@contextlib.contextmanager
def _measuring(
    kind: str,
    scheduler: str | None,
    workers: int,
    memory: int | None,
    told: _Told,
    watch: forecast.Watch,
) -> Iterator[tuple[Measure, Fitted]]:
    """What measures chunks, and says what fits one: this process, or workers of a scheduler."""
    if scheduler is None and not workers:
        yield (
            functools.partial(_here, told, watch),
            lambda run, wanted: fitted(kind, run, wanted, memory, 1),
        )
        return
    from gradlab.sweeps import cluster

    with cluster.connected(scheduler, workers) as client:

        def asked(run: Any, wanted: int) -> Fit:
            # Something for every worker there is by now.
            each = -(-wanted // max(1, len(client.nthreads())))
            fit = cluster.asked(client, told.again, kind, run, each, memory, max(workers, 1))
            return fit._replace(filled=min(fit.filled, each))

        yield functools.partial(cluster.measured, client, told.again), asked


def _here(told: _Told, watch: forecast.Watch, chunks: Iterator[Chunk]) -> Measured:
    start = time.perf_counter()
    for chunk in chunks:
        parts = compute(chunk, told)
        now = time.perf_counter()
        watch.note(chunk, now - start)
        start = now
        yield chunk, parts


def _run(
    measured: Measure,
    chunks: Iterator[Chunk],
    label: Callable[[Any], str],
    store: Store,
    told: _Told,
) -> None:
    """Store every chunk as it ends; where it is to stop, those that run now end first."""

    def wanted() -> Iterator[Chunk]:
        for chunk in chunks:
            told(label(chunk.runs[0]))
            if told.stopping:
                return
            yield chunk

    with contextlib.closing(measured(wanted())) as ended:
        for chunk, parts in ended:
            for part in parts:
                store.add(part.run_ids, part.content)
            told.finished += len(chunk.runs)
            told(label(chunk.runs[0]))
    if told.stopping and told.finished < told.total:
        raise KeyboardInterrupt


def _finish(how: Sweep, store: Store, spec: Any, start: float) -> None:
    """Make everything that follows from the chunks; the manifest comes last and says so."""
    from gradlab import figures

    with writing(store.folder):
        counts = store.consolidate()
    _check_spec(store, spec)
    # The sums of the frames, before anything reads them.
    store.write_manifest(spec.model_dump(), status="running", runs=sum(counts["status"].values()))
    with writing(store.folder), filled(store.folder, "figures") as folder:
        figures.draw(store.folder, folder)
    _check_spec(store, spec)
    store.write_manifest(
        spec.model_dump(),
        status="complete",
        runs=sum(counts["status"].values()),
        failed=len(store.failed),
        device=sorted(counts["device"]),
        precision=sorted(counts["precision"]),
        hosts=sorted({chunk.get("host", "") for chunk in store.chunks.values()}),
        files=store.checksums(),
        seconds=round(time.perf_counter() - start, 3),
        chunks=[{"name": name, **said} for name, said in sorted(store.chunks.items())],
    )


def _check_spec(store: Store, spec: Any) -> None:
    """Refuse to write over a manifest that has another spec than the one that was measured."""
    now = read_manifest(store.folder).get("spec")
    if now is not None and now != spec.model_dump(mode="json"):
        raise ValueError(
            f"the spec in {store.folder}/manifest.json changed under a running sweep; what was "
            "measured is kept: run again with the spec that is meant"
        )
