"""Statistics over the frames: frame -> frame."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from gradlab.frames import tolerances
from gradlab.frames.schema import Schema, Statistic


def spread(values: pd.Series, by: Sequence[Any]) -> pd.DataFrame:
    """The median, the mean and the range of all values of each group, in the extended reals.

    A row per group, with the columns median, mean, low, high, count and missing. An infinite value
    is a value: the median of (x, -inf, -inf) is -inf, and so is its mean. Where a value is NaN, so
    are all four statistics, since it could be anything: the statistics of the others would be
    those of survivors. `missing` says how many of the `count` values are NaN.

    Args:
        values: the values, for instance log_norm (nats) over seeds.
        by: what `groupby` takes; a group of a missing key is a group too.

    >>> lags = pd.Series([0, 0, 0, 1, 1, 1])
    >>> table = spread(pd.Series([1.0, -np.inf, -np.inf, 1.0, 2.0, np.nan]), [lags])
    >>> table[["median", "high", "count", "missing"]].values.tolist()
    [[-inf, 1.0, 3.0, 0.0], [nan, nan, 3.0, 1.0]]
    """
    # pandas' own mean of values with both infinities warns.
    columns = {
        "value": values,
        "finite": values.where(np.isfinite(values)),
        "below": np.isneginf(values),
        "above": np.isposinf(values),
    }
    groups = pd.DataFrame(columns).groupby(list(by), dropna=False, sort=True, observed=True)
    table = groups.agg(
        median=("value", "median"),
        mean=("finite", "mean"),
        low=("value", "min"),
        high=("value", "max"),
        count=("value", "size"),
        missing=("value", "count"),
        below=("below", "any"),
        above=("above", "any"),
    )
    below, above = table.pop("below").astype(bool), table.pop("above").astype(bool)
    mean = table["mean"].mask(below, -np.inf).mask(above, np.inf)
    table["mean"] = mean.mask(below & above)
    table["missing"] = table["count"] - table["missing"]
    statistics = ["median", "mean", "low", "high"]
    table[statistics] = table[statistics].where(table["missing"] == 0)
    return table


def summarize(
    runs: pd.DataFrame, statistics: Mapping[str, Statistic], schema: Schema
) -> pd.DataFrame:
    """A row per point, in the order of the runs: `schema.point`, then the statistics."""
    # Without an axis beside the seed, all runs are of one point.
    keys = [runs[name] for name in schema.order] or [pd.Series(0, runs.index)]
    table = pd.DataFrame({name: s.values(runs) for name, s in statistics.items() if s.over})
    groups = table.groupby(keys, dropna=False, sort=True, observed=True)
    names = [str(name) for name in table]
    points = pd.DataFrame(groups.agg({name: statistics[name].over for name in names}))
    complete = [name for name in names if statistics[name].complete]
    lacks = table[complete].isna().mul((runs["status"] != "failed").to_numpy(bool), axis=0)
    lacks = lacks.groupby(keys, dropna=False, sort=True, observed=True).any().astype(bool)
    points = points.mask(lacks.reindex(columns=points.columns, fill_value=False)).reset_index()
    for name, statistic in statistics.items():
        if not statistic.over:
            points[name] = statistic.values(points)
    return points[[*schema.point, *statistics]]


def unless(values: pd.Series, where: pd.Series, other: float) -> pd.Series:
    """The values as floats, with another one for those that are missing where that holds."""
    values = values.astype("float64")
    return values.mask(values.isna() & where, other)


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
