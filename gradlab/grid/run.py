"""Run what is missing of a plan and leave frames, figures and a summary behind."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import itertools
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gradlab import _manifest, _show, frames
from gradlab._files import upload_dir
from gradlab._memory import parse_bytes
from gradlab._names import show
from gradlab.grid import _compiled, forecast, sizes, unused
from gradlab.grid.measurement import Measurement, Run
from gradlab.grid.plan import Plan, count
from gradlab.grid.sizes import Fit
from gradlab.grid.spec import Grid
from gradlab.grid.store import Store, open_store, writing
from gradlab.grid.work import Chunk, Part, compute, try_fit

Progress = Callable[[int, int, str], None]
Results = Generator[tuple[Chunk, list[Part]], None, None]
Measure = Callable[[Iterator[Chunk]], Results]
FitOf = Callable[[Run, int], Fit]


class Group(NamedTuple):
    """The missing runs of one program; `example` is the first of them, and how many there are."""

    missing: Iterator[tuple[Any, ...]]
    example: tuple[Run, int]


Fits = Callable[[Iterator[Group]], Generator[tuple[Group, Fit]]]

# Processes of one machine: more is a slip of the fingers.
MOST_WORKERS = 1000
# Programs that may be compiled before it is their turn: enough for long measuring to pay for what
# short measuring did not leave the time for.
AHEAD = 8


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

    def __repr__(self) -> str:
        return _show.text("Report", self._facts())

    def _repr_html_(self) -> str:
        return _show.table("Report", self._facts())

    def _facts(self) -> list[tuple[str, str]]:
        rows = [("runs", f"{self.computed:,} of {self.total:,} measured now")]
        rows.append(("time", f"{self.seconds:.1f} s"))
        if self.failed:
            reason = next(iter(self.failed.values()))
            rows.append(("failed", f"{_show.count(len(self.failed), 'run')}, such as: {reason}"))
        if self.damaged:
            rows.append(("damaged", f"{_show.count(len(self.damaged), 'chunk')}, measured again"))
        return [*rows, ("folder", self.folder), ("paths", f"{len(self.paths)} written")]

    @property
    def results(self) -> frames.Results | frames.TrainingResults:
        """The frames, read from the folder."""
        return frames.read(self.folder)


def sweep(
    spec: Grid,
    out: str | Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    memory: int | str | None = None,
    workers: int = 0,
    scheduler: str | None = None,
    retry: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Measure every run of a spec that the folder does not hold yet: see `gradlab.sweeps.sweep`.

    Args:
        spec: the grid, whose type says what is measured.
        out: the folder.
        overrides: the axes of the spec that were set, for warnings about those without effect.
        memory: see `gradlab.sweeps.sweep`, as the others.
        workers: likewise.
        scheduler: likewise.
        retry: likewise.
        progress: likewise.
    """
    start = time.perf_counter()
    _check(out, workers, scheduler)
    limit = None if memory is None else parse_bytes(memory)
    plan = Plan(spec)
    plan.measurement.check(plan)
    unused.warn(spec, plan, overrides, stacklevel=4)
    with open_store(out, plan) as store:
        if retry:
            store.forget_failures()
        total = len(plan)
        present = sum(run.run_id in store.run_ids for run in plan) if store.run_ids else 0
        missing = total - present
        complete = not missing and store.is_complete(spec.model_dump(mode="json"))
        if not complete:
            store.write_manifest(spec.model_dump(), status="running", runs=total)
        teller = _Teller(progress, present, total)
        if missing:
            watch = forecast.Watch()
            pace = sizes.Pace()
            place = _place(plan.measurement, scheduler, workers, limit, teller, watch)
            try:
                with (
                    _compiled.use_cache(),
                    place as (measure, fits),
                    contextlib.closing(_chunks(plan, store.run_ids, fits, pace)) as chunks,
                ):
                    _run(measure, chunks, plan.measurement.label, store, teller, pace)
                before = time.perf_counter()
                _finish(store, spec, start, teller)
                watch.finish = time.perf_counter() - before
            finally:
                watch.remember()
        elif not complete:
            _finish(store, spec, start, teller)
    pictures = [name for name in store.folder.names("figures") if name.endswith(".png")]
    return Report(
        computed=missing,
        total=total,
        failed=store.failed,
        seconds=time.perf_counter() - start,
        damaged=tuple(name.removeprefix("chunks/") for name in store.damaged),
        folder=str(out),
        paths=tuple(f"{out}/{name}" for name in (*store.outputs, "manifest.json", *pictures)),
    )


def check_workers(workers: Any) -> None:
    """Refuse what is no number of processes."""
    is_number = isinstance(workers, int) and not isinstance(workers, bool)
    if not is_number or not 0 <= workers <= MOST_WORKERS:
        raise ValueError(
            f"workers must be a whole number from 0 to {MOST_WORKERS}; got {show(workers)}"
        )


def _check(out: str | Path, workers: int, scheduler: str | None) -> None:
    if not str(out):
        raise ValueError("out must name a folder or an fsspec address, got an empty text")
    check_workers(workers)
    if scheduler is not None and not isinstance(scheduler, str):
        raise ValueError(f"scheduler must be an address, tcp://HOST:PORT; got {show(scheduler)}")
    if scheduler is not None and workers:
        raise ValueError(
            f"workers are started on this machine, and those of {scheduler} are its own; give "
            "one of both"
        )


def _chunks(plan: Plan, stored_ids: set[str], fits: Fits, pace: sizes.Pace) -> Generator[Chunk]:
    """The missing runs, those that share a program together."""
    with contextlib.closing(fits(_groups(plan, stored_ids))) as groups:
        for (missing, _), (size, per_chunk, refusal) in groups:
            while batch := tuple(itertools.islice(missing, per_chunk or pace.next())):
                yield Chunk(plan.measurement, batch, size, refusal=refusal)


def _groups(plan: Plan, stored_ids: set[str]) -> Iterator[Group]:
    """The missing runs of each program."""
    for grids in plan.programs().values():
        runs = (run for axes in grids for run in plan.runs(axes))
        missing = (tuple(run) for run in runs if run.run_id not in stored_ids)
        first = next(missing, None)
        if first is not None:
            example = plan.measurement.run(*first), count(grids)
            yield Group(itertools.chain([first], missing), example)


def _fit_each(fit: FitOf, groups: Iterator[Group]) -> Generator[tuple[Group, Fit]]:
    """Each group with what fits of it."""
    for group in groups:
        yield group, fit(*group.example)


def _fit_ahead(
    fit: FitOf, tell: Callable[[Run], object], groups: Iterator[Group]
) -> Generator[tuple[Group, Fit]]:
    """Each group with what fits of it, found while groups before it are measured.

    To fit a group is to compile its programs, on one thread for the most part, and XLA lets
    Python's lock go meanwhile.
    """
    pool = concurrent.futures.ThreadPoolExecutor(1, "gradlab-compile")
    waiting: deque[tuple[Group, concurrent.futures.Future[Fit]]] = deque()
    try:
        for group in groups:
            waiting.append((group, pool.submit(fit, *group.example)))
            if len(waiting) > AHEAD:
                yield _await(*waiting.popleft(), tell)
        while waiting:
            yield _await(*waiting.popleft(), tell)
    finally:
        pool.shutdown(cancel_futures=True)


def _await(
    group: Group, future: concurrent.futures.Future[Fit], tell: Callable[[Run], object]
) -> tuple[Group, Fit]:
    if not future.done():
        tell(group.example[0])
    return group, future.result()


class _Teller:
    """Tells the progress, and takes a KeyboardInterrupt there as the wish to stop after a chunk."""

    def __init__(self, progress: Progress | None, position: int, total: int) -> None:
        self.progress = progress
        self.position = position
        self.total = total
        self.stopping = False
        self.label = ""

    def repeat(self) -> bool:
        """Tell the same once more; whether to stop."""
        self(self.label)
        return self.stopping

    def __call__(self, label: str) -> None:
        self.label = label
        if self.progress is not None and not self.stopping:
            try:
                self.progress(self.position, self.total, label)
            except KeyboardInterrupt:
                self.stopping = True


@contextlib.contextmanager
def _place(
    measurement: Measurement,
    scheduler: str | None,
    workers: int,
    memory: int | None,
    teller: _Teller,
    watch: forecast.Watch,
) -> Iterator[tuple[Measure, Fits]]:
    """What measures chunks, and says what fits one: this process, or workers of a scheduler."""
    if scheduler is None and not workers:

        def fit_here(run: Run, number: int) -> Fit:
            return try_fit(measurement, tuple(run), number, memory, 1)

        def tell(run: Run) -> None:
            teller(f"compiling {measurement.label(run)}")

        fits = functools.partial(_fit_ahead, fit_here, tell)
        yield functools.partial(_here, teller, watch), fits
        return
    from gradlab.grid import cluster

    with cluster.connect(scheduler, workers) as client:

        def fit(run: Run, number: int) -> Fit:
            # Something for every worker there is by now.
            share = -(-number // max(1, len(client.nthreads())))
            remote = cluster.fit_remotely(
                client, teller.repeat, measurement, run, share, memory, max(workers, 1)
            )
            return remote._replace(per_chunk=remote.per_chunk and min(remote.per_chunk, share))

        measure = functools.partial(cluster.measure, client, teller.repeat)
        yield measure, functools.partial(_fit_each, fit)


def _here(teller: _Teller, watch: forecast.Watch, chunks: Iterator[Chunk]) -> Results:
    start = time.perf_counter()
    for chunk in chunks:
        parts = compute(chunk, teller)
        now = time.perf_counter()
        watch.note(chunk, now - start)
        start = now
        yield chunk, parts


def _run(
    measure: Measure,
    chunks: Iterator[Chunk],
    label: Callable[[Run], str],
    store: Store,
    teller: _Teller,
    pace: sizes.Pace,
) -> None:
    """Store every chunk as it ends; where it is to stop, those that run now end first."""

    def announce() -> Iterator[Chunk]:
        for chunk in chunks:
            teller(label(chunk.runs[0]))
            if teller.stopping:
                return
            yield chunk

    with contextlib.closing(measure(announce())) as results:
        for chunk, parts in results:
            for part in parts:
                store.add(part.run_ids, part.content)
            pace.note(len(chunk.coordinates), max(part.seconds for part in parts))
            teller.position += len(chunk.coordinates)
            teller(label(chunk.runs[0]))
    if teller.stopping and teller.position < teller.total:
        raise KeyboardInterrupt


def _finish(store: Store, spec: Grid, start: float, teller: _Teller) -> None:
    """Make everything that follows from the chunks; the manifest comes last and says so."""
    from gradlab import figures

    def tell(what: str) -> None:
        teller(what)
        if teller.stopping:
            raise KeyboardInterrupt

    tell("consolidating")
    with writing(store.folder):
        counts = store.consolidate()
    _check_spec(store, spec)
    # The sums of the frames, before anything reads them.
    store.write_manifest(spec.model_dump(), status="running", runs=sum(counts["status"].values()))
    with writing(store.folder), upload_dir(store.folder, "figures") as folder:
        figures.draw(
            store.folder, folder, progress=lambda i, count: tell(f"drawing {i} of {count}")
        )
    _check_spec(store, spec)
    store.write_manifest(
        spec.model_dump(),
        status="complete",
        runs=sum(counts["status"].values()),
        failed=len(store.failed),
        **{name: sorted(counts[name]) for name in ("device", "precision") if name in counts},
        hosts=sorted({chunk.get("host", "") for chunk in store.chunks.values()}),
        files=store.checksums(),
        seconds=round(time.perf_counter() - start, 3),
        chunks=[{"name": name, **facts} for name, facts in sorted(store.chunks.items())],
    )


def _check_spec(store: Store, spec: Grid) -> None:
    """Refuse to write over a manifest that has another spec than the one that was measured."""
    now = _manifest.find(store.folder, verify=False).get("spec")
    if now is not None and now != spec.model_dump(mode="json"):
        raise ValueError(
            f"the spec in {store.folder}/manifest.json changed under a running sweep; what was "
            "measured is kept: run again with the spec that is meant"
        )
