"""The tables of a report: frame -> heads and cells, each with the text to show and to sort by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from gradlab import frames

# Rows per table: more would be too much for a browser and a reader.
MOST = 1000


class Head(NamedTuple):
    """The head of a column: its name, its unit, whether it holds numbers, and what it is under."""

    text: str
    unit: str = ""
    number: bool = False
    group: str = ""


class Cell(NamedTuple):
    """What is shown, what it is sorted by ("" comes last), and a share with its tone, if it is one.

    The tone is the name of a verdict.
    """

    text: str
    value: str
    share: float | None = None
    tone: str = ""


class Table(NamedTuple):
    """A table, and how many rows it leaves out."""

    heads: list[Head]
    rows: list[list[Cell]]
    left_out: int = 0

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The upper row of heads: each name with the columns below it; none where none has one."""
        spans: list[tuple[str, int]] = []
        for head in self.heads:
            if spans and spans[-1][0] == head.group:
                spans[-1] = (head.group, spans[-1][1] + 1)
            else:
                spans.append((head.group, 1))
        return spans if any(name for name, _ in spans) else []


class Axis(NamedTuple):
    """An axis of the sweep: its values in words, and how many there are."""

    name: str
    meaning: str
    values: str
    unit: str
    size: int


def axes(
    runs: pd.DataFrame, names: Sequence[str], schema: Mapping[str, frames.Column]
) -> dict[str, list[Axis]]:
    """The axes that the runs differ in, and those that all runs which have them share."""
    groups: dict[str, list[Axis]] = {"swept": [], "fixed": []}
    for name in (*names, "seed"):
        values = runs[name].dropna().unique().tolist()
        if not values:
            continue
        # Drop the schema's notes on missing values.
        meaning = schema[name].meaning.partition("; missing")[0].partition("; NaN")[0]
        unit = "" if schema[name].unit == "1" else schema[name].unit
        axis = Axis(name.replace("_", " "), meaning, _values(values), unit, len(values))
        groups["swept" if len(values) > 1 else "fixed"].append(axis)
    return groups


def _values(values: list[Any]) -> str:
    if not isinstance(values[0], str):
        values = sorted(values)
        whole = all(isinstance(value, int) for value in values)
        if whole and len(values) > 3 and values[-1] - values[0] == len(values) - 1:
            return f"{values[0]} to {values[-1]}"
    texts = [_plain(value) for value in values]
    if len(texts) > 16:
        texts = [*texts[:8], "…", texts[-1]]
    return ", ".join(texts)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def verdicts(runs: pd.DataFrame, schema: frames.Schema) -> Table | None:
    """`frames.verdict_table` for the page; None where no run was measured."""
    if runs.empty:
        return None
    # verdict_table wants every column; fill in those that the page does not show.
    rest = {name: "" if name == "run_id" else np.nan for name in frames.RUNS if name not in runs}
    plain = {name: runs[name].astype("str") for name in ("cell", "init", "verdict")}
    plain["init"] = plain["init"].where(runs["init"].notna())
    table = frames.verdict_table(runs.assign(**plain, **rest))
    heads = [
        Head("cell"),
        Head("init"),
        Head("lowest", "nats/step", True, "rate"),
        Head("highest", "nats/step", True, "rate"),
    ]
    names = [str(name) for name in table]
    shares = [name for name in names if name.startswith(("vanishing_", "exploding_"))]
    # Leave out columns of zeros only, which would push the others out of sight.
    shares = [
        name
        for name in names
        if name in shares or (name.startswith("nonfinite_") and (table[name] > 0).any())
    ]
    for name in shares:
        verdict, _, length = name.rpartition("_")
        heads.append(Head(verdict, "", True, f"T = {length}"))
    rows = []
    for row in table.to_dict("records"):
        cells = [_label(row["cell"]), _label(row["init"])]
        cells += [_number(row[name], "+.3f") for name in ("rate_min", "rate_max")]
        cells += [_share(row[name], name.rpartition("_")[0]) for name in shares]
        rows.append(cells)
    return Table(heads, rows)


def training_points(runs: pd.DataFrame, schema: frames.Schema) -> Table | None:
    """`frames.trained_summary` for the page, without the axes that all points share."""
    if runs.empty:
        return None
    points = frames.trained_summary(runs)
    varying = [name for name in schema.point if points[name].nunique() > 1]
    columns = list(dict.fromkeys((*(v for v in varying if v == "task"), "cell", *varying)))
    statistics = {
        "runs": ("runs", "", "d"),
        "solved": ("solved", "", ""),
        "nonfinite": ("nonfinite", "", ""),
        "solved_step_median": ("solved at", "updates", ".0f"),
        "loss_median": ("loss", "", ".4g"),
        "baseline": ("baseline", "", ".4g"),
        "error_median": ("error", "", ".4g"),
        "rate_before_median": ("untrained", "nats/step", "+.3f"),
        "rate_after_median": ("at the end", "nats/step", "+.3f"),
    }
    group = {
        "solved_step_median": "median over seeds",
        "loss_median": "median over seeds",
        "baseline": "median over seeds",
        "error_median": "median over seeds",
        "rate_before_median": "rate, median over seeds",
        "rate_after_median": "rate, median over seeds",
        "solved": "share of runs",
        "nonfinite": "share of runs",
    }
    heads = [_axis_head(points, name, schema.runs) for name in columns]
    for name, (text, unit, _) in statistics.items():
        heads.append(Head(text, unit, True, group.get(name, "")))
    rows = []
    for row in points.head(MOST).to_dict("records"):
        cells = [_axis(row[name]) for name in columns]
        for name, (_, _, form) in statistics.items():
            cells.append(_number(row[name], form) if form else _share(row[name], name))
        rows.append(cells)
    return Table(heads, rows, max(len(points) - MOST, 0))


def points(runs: pd.DataFrame, schema: frames.Schema) -> Table | None:
    """A row per point of a measurement of the user's own: its runs and the medians over seeds."""
    if runs.empty:
        return None
    table = schema.summarize(runs, schema)
    columns = [name for name in schema.point if table[name].nunique(dropna=False) > 1]
    medians = [name for name in map(str, table) if name.endswith("_median")]
    heads = [_axis_head(table, name, schema.runs) for name in columns]
    heads += [Head("runs", "", True)]
    heads += [Head(name.removesuffix("_median"), "", True, "median over seeds") for name in medians]
    rows = [
        [
            *(_axis(row[name]) for name in columns),
            _number(row["runs"], "d"),
            *(_number(row[name], ".4g") for name in medians),
        ]
        for row in table.head(MOST).to_dict("records")
    ]
    return Table(heads, rows, max(len(table) - MOST, 0))


def failures(runs: pd.DataFrame, schema: frames.Schema) -> Table | None:
    """A row per failed run: what sets it apart, and why it failed; None where none did."""
    if runs.empty:
        return None
    present = [name for name in schema.point if name in runs]
    varying = [name for name in present if runs[name].nunique() > 1]
    always = [name for name in ("cell",) if name in present]
    columns = list(dict.fromkeys((*always, *varying, "seed")))
    heads = [_axis_head(runs, name, schema.runs) for name in columns] + [
        Head("reason"),
        Head("run"),
    ]
    reasons = runs["reason"] if "reason" in runs else pd.Series(None, index=runs.index)
    rows = [
        [
            *(_axis(row[name]) for name in columns),
            _label("not recorded" if pd.isna(reason) else reason),
            _label(row["run_id"] if "run_id" in row else ""),
        ]
        for row, reason in zip(runs.head(MOST).to_dict("records"), reasons, strict=False)
    ]
    return Table(heads, rows, max(len(runs) - MOST, 0))


def _axis_head(frame: pd.DataFrame, name: str, schema: Mapping[str, frames.Column]) -> Head:
    number = pd.api.types.is_numeric_dtype(frame[name]) and schema[name].dtype != "boolean"
    unit = schema[name].unit if schema[name].unit != "1" else ""
    return Head(name.replace("_", " "), unit, number)


def _axis(value: Any) -> Cell:
    if pd.isna(value):
        return Cell("–", "")
    return Cell(_plain(value), _plain(value) if isinstance(value, str | bool) else _sortable(value))


def _label(value: Any) -> Cell:
    return Cell(str(value), str(value))


def _number(value: Any, form: str) -> Cell:
    if pd.isna(value):
        return Cell("–", "")
    return Cell(format(value, form).replace("-", "−"), _sortable(value))


def _share(value: float, tone: str) -> Cell:
    if pd.isna(value):
        return Cell("–", "")
    return Cell(f"{value:.0%}", _sortable(value), float(value), tone)


def _sortable(value: float) -> str:
    """A number as JavaScript reads it."""
    return repr(float(value)).replace("inf", "Infinity")
