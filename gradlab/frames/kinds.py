"""Which schema a folder of results has: gradlab's own kinds, and those that manifests describe."""

# pandas' own annotations say Series | DataFrame for nearly every selection.
# pyright: reportArgumentType=false

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from gradlab import _names
from gradlab.frames import tolerances
from gradlab.frames.axes import Axis, Json
from gradlab.frames.gradients import GRADIENTS
from gradlab.frames.schema import REASON, Column, Columns, Schema, Statistic
from gradlab.frames.statistics import summarize
from gradlab.frames.training import TRAINING

KINDS: dict[str, Schema] = {schema.kind: schema for schema in (GRADIENTS, TRAINING)}
"""The schemas of what gradlab itself measures."""

STATUS = Column("str", "", "ok, or failed (not measured)", True)


def open_schema(kind: str, axes: tuple[Axis, ...]) -> Schema:
    """The schema of a measurement of the user's own, whose columns are known once it has run."""
    measured: Columns = {"status": STATUS, "reason": REASON}
    return Schema(kind, axes, measured, {}, summarize_all, is_open=True)


def summarize_all(runs: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """A row per point: how many runs, how many failed, and the law of each number over the seeds.

    `_median`, `_min` and `_max` are NaN where a run that was measured has no such number; `_mean`
    and `_sd`, the sample standard deviation, are of the finite ones.
    """
    statistics = {
        "runs": Statistic("1", "", tolerances.unknown, lambda runs: runs["run_id"], "count"),
        "failed": Statistic(
            "1", "", tolerances.unknown, lambda runs: (runs["status"] == "failed") * 1.0, "mean"
        ),
    }
    numbers = [name for name, column in schema.measured.items() if column.dtype == "float64"]
    for name in numbers:
        for end, over in (("median", "median"), ("mean", "mean"), ("sd", "std"), *_ENDS):
            statistics[f"{name}_{end}"] = Statistic(
                "1",
                "",
                tolerances.unknown,
                lambda runs, name=name, over=over: _values(runs[name], over),
                over,
                complete=over in ("median", "min", "max"),
            )
    return summarize(runs, statistics, schema)


_ENDS = (("min", "min"), ("max", "max"))


def _values(values: pd.Series, over: str) -> pd.Series:
    finite = values.abs() < float("inf")
    return values.where(finite) if over in ("mean", "std") else values


def describe(schema: Schema) -> dict[str, Any]:
    """What a manifest has to say for `schema_of` to know the schema again."""
    known = KINDS.get(schema.kind)
    own = {axis.name for axis in known.axes} if known else set()
    axes = [
        {
            "name": axis.name,
            "dtype": axis.dtype,
            "unit": axis.unit,
            "meaning": axis.meaning,
            "switch": axis.switch,
        }
        for axis in schema.axes
        if axis.name not in own
    ]
    if known:
        return {"axes": axes} if axes else {}
    columns = {"runs": schema.measured, **schema.others}
    described = {
        frame: {name: column._asdict() for name, column in fields.items()}
        for frame, fields in columns.items()
    }
    return {"axes": axes, "columns": described}


def schema_of(manifest: Mapping[str, Any], place: str = "manifest.json") -> Schema:
    """The schema of the frames that a manifest is about.

    Raises:
        ValueError: where it is of no kind that is known here and does not describe its own.
    """
    try:
        return _schema_of(manifest, place)
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"{place}: its axes or columns are none: {error}") from None


def _schema_of(manifest: Mapping[str, Any], place: str) -> Schema:
    kind = manifest.get("kind", "gradients")
    axes = tuple(Axis(type=Json, optional=True, **axis) for axis in manifest.get("axes", ()))
    described = manifest.get("columns")
    # Only a measurement of the user's own describes its columns.
    if described is None or kind in KINDS:
        _names.choose(f"kind of results in {place}:", kind, KINDS)
        return KINDS[kind].extend(axes)
    columns = {
        frame: {name: Column(**column) for name, column in fields.items()}
        for frame, fields in described.items()
    }
    measured = columns.pop("runs", {})
    if not isinstance(kind, str):
        raise TypeError(f"the kind is {kind!r}")
    return Schema(kind, axes, measured, columns, summarize_all)
