"""Figures from the frames alone: DataFrame -> Figure. Palette, sizes and labels live here only.

Every figure fits a paper's double column (7 in) or single column (3.4 in) with text of 7 pt or
more. Statistics over seeds are of all seeds, in the extended reals: an exact zero is -inf, and
where a seed is NaN the statistic is NaN, which ends the line and is noted. Runs without a finite
gradient are marked ×, runs whose gradient is exactly zero ▽ and runs that failed ◇, each with their
number: no figure drops a run silently.
"""

import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gradlab import frames
from gradlab._files import Folder, expand
from gradlab._memory import cores
from gradlab.figures import _beside
from gradlab.figures._dynamics import chaos, exponents, fixed_points, newton
from gradlab.figures._encoder_decoder import encoder_decoder
from gradlab.figures._lags import conditioning, entries, lags, memory, reach, sensitivity
from gradlab.figures._neuron import neuron
from gradlab.figures._numbers import axis_of, numbers
from gradlab.figures._reading import reading
from gradlab.figures._records import record_table, records
from gradlab.figures._scaling import curvature, depth, size_table, width
from gradlab.figures._sentiment import sentiment
from gradlab.figures._style import DECADES, FLOAT32, LABELS, MARKS, STYLE, headline, order, save
from gradlab.figures._sweep import decay, inputs, length, phase, select
from gradlab.figures._theory import QUANTITIES, deviations, theory
from gradlab.figures._training import flossing, gradients, learning, pick, success, training
from gradlab.figures._weather import weather
from gradlab.figures._word_order import word_order

__all__ = [
    "DECADES",
    "FLOAT32",
    "LABELS",
    "MARKS",
    "QUANTITIES",
    "ROWS",
    "RUNS",
    "STYLE",
    "chaos",
    "conditioning",
    "curvature",
    "decay",
    "depth",
    "deviations",
    "draw",
    "encoder_decoder",
    "entries",
    "exponents",
    "fixed_points",
    "flossing",
    "gradients",
    "inputs",
    "lags",
    "learning",
    "length",
    "memory",
    "neuron",
    "newton",
    "phase",
    "reach",
    "reading",
    "records",
    "save",
    "sensitivity",
    "sentiment",
    "success",
    "theory",
    "training",
    "weather",
    "width",
    "word_order",
]

_log = logging.getLogger(__name__)


# Figures of more runs than these, or of more rows of steps or curves, show the first seeds only:
# no eye sees more, and memory stays bounded.
RUNS, ROWS = 2**15, 2**22
# Rows of panels in a figure, one for each network: further ones get another figure.
NETWORKS = 6
# Runs from which on figures take longer than another process takes to start, and how many draw
# then: each takes some 300 MB.
PAYS, PROCESSES = 2000, 4


def draw(
    results: str | Path | Folder | frames.Results | frames.TrainingResults,
    out_dir: str | Path,
    formats: Sequence[str] = ("png",),
    progress: Callable[[int, int], object] = lambda i, count: None,
    processes: int | None = None,
) -> list[Path]:
    """Draw every figure of `results` (frames, or a sweep's folder) into `out_dir`.

    For each input decay, phase, length and, where there is a theory, theory, and a comparison of
    each other input with gaussian; for each task of a training sweep learning, success, gradients
    and, where it records something, records; of a sweep of coordinates width. A PNG (200 dots per
    inch) of each, or the `formats` asked for: "png", "pdf". The same frames give the same bytes. A
    figure that the runs cannot fill is skipped and the log says why. Returns the paths written.

    Of a folder only what is drawn is read. One of more than 32,768 runs is drawn from as many of
    the first seeds of each point as stay below, and each figure says so; where one seed is too
    much, nothing is drawn and the log says that.

    Before figure i of `count` is drawn, `progress(i, count)` is called. Figures of a folder are
    shared among `processes`, this one and others that it starts and ends; if None, one for each
    core, four at most, where there are so many runs that their start pays, else this one alone.
    """
    note, folder = None, None
    if isinstance(results, str | Path | Folder):
        folder = results if isinstance(results, Folder) else Folder(results)
        source, note = _of_folder(folder)
        if source is None:
            return []
    else:
        trained = results if isinstance(results, frames.TrainingResults) else None
        usual = "gradients" if trained is None else "training"
        schema = frames.schema_of({"kind": usual, **results.manifest})
        source = _Source(
            schema,
            results.runs,
            trained and trained.curves,
            lambda _: results.steps,
            trained and trained.records,
        )
    if source.runs.empty:
        raise ValueError("no runs to draw")
    if set(source.runs["status"]) == {"failed"}:
        _log.warning("no figures: every run failed")
        return []
    out_dir = expand(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    names, one = _drawer(source, note, out_dir, formats)
    usual = min(cores(), PROCESSES) if len(source.runs) >= PAYS else 1
    helpers = 0 if folder is None else min(processes or usual, len(names)) - 1
    order = _beside.Order(str(folder), str(out_dir), tuple(formats))
    return _beside.draw_each(names, one, progress, order, helpers)


def _drawer(
    source: "_Source", note: str | None, out_dir: Path, formats: Sequence[str]
) -> tuple[list[str], Callable[[str], list[Path]]]:
    """The names of the figures, and the function that draws and saves one of them."""
    figures = _KINDS.get(source.schema.kind, _of_measurement)(source)

    def one(name: str) -> list[Path]:
        fig = figures[name]()
        headline(fig, note)
        return save(fig, out_dir / name, formats)

    return list(figures), one


def serve(order: _beside.Order) -> Callable[[str], list[Path]] | None:
    """The function that draws a figure by its name, for a process that `draw` started."""
    source, note = _of_folder(Folder(order.folder))
    if source is None:
        return None
    return _drawer(source, note, Path(order.out_dir), order.formats)[1]


class _Source(NamedTuple):
    """What figures are drawn from; `steps` gives at least the rows of the runs it is asked for."""

    schema: frames.Schema
    runs: pd.DataFrame
    curves: pd.DataFrame | None
    steps: Callable[[pd.Series], pd.DataFrame]
    records: pd.DataFrame | None = None


def _of_folder(folder: Folder) -> tuple[_Source | None, str | None]:
    """What to draw from a folder, and a note where that is not all of it."""
    schema = frames.schema_of(frames.read_manifest(folder))
    parts = [part["seed"].to_numpy() for part in frames.blocks(folder, schema, "runs", ["seed"])]
    seeds, counts = np.unique(np.concatenate([np.zeros(0, np.int64), *parts]), return_counts=True)
    total = int(counts.sum())
    trained = "curves" in schema.others
    tables = ["curves", "records"] if trained else ["steps"] if schema.others else []
    tables = [name for name in tables if folder.exists(f"{name}.parquet")]
    rows = max((frames.count(folder, name) for name in tables), default=0)
    most = min(RUNS, ROWS * total // max(rows, 1))
    where, ids, note = {}, None, None
    if total > most:
        runs = np.cumsum(counts)
        first = int(np.searchsorted(runs, most, side="right"))
        if first == 0:
            _log.warning(
                "no figures: one seed has %s runs, more than %s; gl.read(dir, where=...) gives a "
                "part that figures.draw takes",
                *(f"{number:,}" for number in (runs[0], most)),
            )
            return None, None
        where = {"seed": slice(None, int(seeds[first - 1]))}
        note = f"the first {first:,} of {len(seeds):,} seeds: {runs[first - 1]:,} of {total:,} runs"
        _log.warning("figures: %s", note)
    table = frames.read_frame(folder, schema, "runs", where=where)
    if where:
        ids = table["run_id"]
    curves, records = (
        frames.read_frame(folder, schema, name, ids=ids) if name in schema.tables else None
        for name in ("curves", "records")
    )
    return _Source(schema, table, curves, lambda ids: _steps(folder, schema, ids), records), note


def _steps(folder: Folder, schema: frames.Schema, ids: pd.Series) -> pd.DataFrame:
    columns = [name for name in schema.frames["steps"] if name != "step"]
    return frames.read_frame(folder, schema, "steps", columns, ids=ids.unique())


def _of_gradients(source: _Source) -> dict[str, Callable[[], Figure]]:
    runs = source.runs
    figures: dict[str, Callable[[], Figure]] = {}

    def one_decay(name: str) -> Figure:
        return decay(runs, source.steps(select(runs, name, None)["run_id"]), input=name)

    names = order(runs["input"])
    for name in names:
        figures[f"decay-{name}"] = lambda name=name: one_decay(name)
        figures[f"phase-{name}"] = lambda name=name: phase(runs, input=name)
        figures[f"length-{name}"] = lambda name=name: length(runs, input=name)
        if runs.loc[runs["input"] == name, "predicted_rate"].notna().any():
            figures[f"theory-{name}"] = lambda name=name: theory(runs, input=name)
    others = [name for name in names if name != "gaussian"]
    for name in others:
        if "gaussian" in names:
            figures[f"inputs-{name}"] = lambda name=name: inputs(runs, input=name)
    if not others or "gaussian" not in names:
        _log.warning("no figure inputs-*: the runs have no input beside %s", ", ".join(names))
    return figures


def _of_training(source: _Source) -> dict[str, Callable[[], Figure]]:
    runs, curves = source.runs, source.curves
    assert curves is not None  # a sweep of training has them
    figures: dict[str, Callable[[], Figure]] = {}

    def one_gradients(task: str) -> Figure:
        steps = source.steps(pick(runs, task)["run_id"])
        return gradients(runs, curves, steps, task=task)

    rows = source.records
    table = None if rows is None or rows.empty else record_table(runs, rows)
    for task in order(runs["task"]):
        figures[f"learning-{task}"] = lambda task=task: learning(runs, curves, task=task)
        figures[f"success-{task}"] = lambda task=task: success(runs, task=task)
        figures[f"gradients-{task}"] = lambda task=task: one_gradients(task)
        if table is not None:
            figures |= _by_rows("records", records, table, "variant", task)
    return figures


def _by_rows(
    name: str, one: Callable[[pd.DataFrame], Figure], table: pd.DataFrame, column: str, task: str
) -> dict[str, Callable[[], Figure]]:
    """Figures of a task's table that have a row of panels for each value of a column."""
    rows = table[table["task"] == task]
    values = order(rows[column])
    figures = {}
    for place in range(0, len(values), NETWORKS):
        end = f"-{place // NETWORKS + 1}" if place else ""
        part = rows[rows[column].isin(values[place : place + NETWORKS])]
        figures[f"{name}-{task}{end}"] = functools.partial(one, part)
    return figures


def _of_coordinates(source: _Source) -> dict[str, Callable[[], Figure]]:
    runs, curves = source.runs, source.curves
    assert curves is not None  # a sweep of coordinates has them
    table = size_table(runs, curves, source.steps(runs["run_id"]))
    figures: dict[str, Callable[[], Figure]] = {}
    for task in order(table["task"]):
        figures |= _by_rows("width", width, table, "name", task)
    return figures


def _of_measurement(source: _Source) -> dict[str, Callable[[], Figure]]:
    """A figure for each number that a measurement of the user's own gives."""
    runs, schema = source.runs, source.schema
    names = [name for name, column in schema.measured.items() if column.dtype == "float64"]
    axis = axis_of(runs, schema)
    if axis is None:
        _log.warning("no figures: no axis of numbers has several values")
        return {}
    return {name: functools.partial(numbers, runs, schema, name, axis) for name in names}


# What is drawn of each kind of sweep.
_KINDS = {
    "gradients": _of_gradients,
    "training": _of_training,
    "coordinates": _of_coordinates,
}


def __dir__() -> list[str]:
    return sorted(__all__)
