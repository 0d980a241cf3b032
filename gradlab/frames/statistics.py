"""Statistics over the frames: frame -> frame."""

# pandas' own annotations say Series | DataFrame for nearly every selection.
# pyright: reportAttributeAccessIssue=false, reportReturnType=false, reportOperatorIssue=false
# pyright: reportCallIssue=false, reportArgumentType=false

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from gradlab._student import student_factor
from gradlab.frames.schema import AUDITS, AXES, ORDER, ROUNDING, TRAINED_AXES, VERDICTS


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
    groups = pd.DataFrame(columns).groupby(by, dropna=False, sort=True, observed=True)
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


def trained_summary(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per point of a training sweep (all of `TRAINED_AXES`), with statistics over its seeds.

    `solved`, `nonfinite` and `failed` are shares of the `runs`. The medians are over all runs that
    did not fail, in the extended reals: NaN where one of them is NaN. A run that did not solve its
    task counts as inf in `solved_step_median`, which is inf where less than half of them did.

    >>> from gradlab.frames import trained_frame
    >>> record = dict(task="adding", length=10, cell="gru", init="normal", gain=1, hidden=4,
    ...               optimizer="adam", learning_rate=0.1, batch=2, updates=9, trained=9,
    ...               status="unsolved", loss=0.2, error=0.3)
    >>> frame = trained_frame([record | dict(run_id=str(seed), seed=seed) for seed in range(3)])
    >>> trained_summary(frame)[["runs", "solved", "loss_median"]].values.tolist()
    [[3.0, 0.0, 0.2]]
    """
    table = runs.assign(
        solved=(runs["status"] == "solved").astype("float64"),
        nonfinite=(runs["status"] == "nonfinite").astype("float64"),
        failed=(runs["status"] == "failed").astype("float64"),
        solved_step=_unless(runs["solved_step"], runs["status"] != "solved", np.inf),
    )
    table.loc[runs["status"] == "failed", "solved_step"] = np.nan
    grouped = table.groupby(list(TRAINED_AXES), dropna=False, sort=True, observed=True)
    medians = ("solved_step", "loss", "error", "best_loss", "baseline", "rate_before", "rate_after")
    points = grouped.agg(
        runs=("run_id", "count"),
        solved=("solved", "mean"),
        nonfinite=("nonfinite", "mean"),
        failed=("failed", "mean"),
        **{f"{name}_median": (name, "median") for name in medians},
    )
    keys = [table[name] for name in TRAINED_AXES]
    lacking = _lacking(table[list(medians)], table["status"] != "failed", keys)
    points = points.mask(
        lacking.add_suffix("_median").reindex(columns=points.columns, fill_value=False)
    )
    return points.reset_index().rename(columns={"baseline_median": "baseline"})


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per point of the sweep (all of `AXES`), with statistics over its seeds.

    `rate_median`, `rate_min` and `rate_max` (nats/step) and the other medians are over all runs
    that did not fail, in the extended reals: a run without a rate whose gradient is exactly zero
    counts as -inf, a norm that never leaves [eps, 1/eps] of its start has a horizon of inf, and
    where a run is NaN the statistic is. `rate_mean` and `rate_sd`, the sample standard deviation,
    are over the runs with a finite rate, `rate_runs` of `runs`; `rate_sd` is NaN for one seed.
    `rate_stderr_max` is the largest `rate_stderr` of these runs: what the rate of a chaotic network
    moves by where it is measured again. `disagreement` is that of the mean over m = rate_runs
    seeds, and counts how they differ, matrices included::

      error        = √((t/2)² rate_sd²/m + ROUNDING²)
      disagreement = (rate_mean - predicted_rate - predicted_bias) / error

    t is the quantile of Student's law of m - 1 degrees of freedom at 97.72 %, so that where theory
    holds |disagreement| < 2 in 95.45 % of the points, however few the seeds: the errors are those
    of a known sd times 6.98 for 2 seeds, 2.26 for 3, 1.43 for 5. It is NaN for one seed, and where
    `predicted_rate` or `predicted_bias` is. `vanishing`, `stable`, `exploding` and `nonfinite` are
    shares of all runs by verdict, `zero` the share whose gradient is exactly 0, `failed` the share
    that could not be measured. The points come in the order of the runs.

    >>> from gradlab.frames import runs_frame
    >>> record = dict(cell="gru", init="normal", gain=1, input="gaussian", length=10, hidden=4,
    ...               inputs=2, status="ok", verdict="stable")
    >>> frame = runs_frame([record | dict(run_id=str(s), seed=s, rate=s / 10) for s in range(3)])
    >>> summary(frame)[["runs", "rate_median", "rate_max", "stable"]].values.tolist()
    [[3.0, 0.1, 0.2, 1.0]]
    """
    table = runs[list(AXES)].copy()
    finite = runs["rate"].where(np.isfinite(runs["rate"]))
    for name in ("rate_mean", "rate_sd", "rate_runs"):
        table[name] = finite
    table["rate_stderr_max"] = runs["rate_stderr"].where(np.isfinite(runs["rate"]))
    zero = runs["rate"].isna() & (runs["status"] == "zero")
    for name in ("rate_median", "rate_min", "rate_max"):
        table[name] = runs["rate"].mask(zero, -np.inf)
    table["theory"] = runs["theory"]
    for name in ("predicted_rate", "predicted_bias", "log_gain", "horizon", *AUDITS):
        table[name] = runs[name].astype("float64")
    table["horizon"] = _unless(runs["horizon"], runs["verdict"] == "stable", np.inf)
    for name in VERDICTS:
        table[name] = (runs["verdict"] == name).astype("float64")
    for name in ("zero", "failed"):
        table[name] = (runs["status"] == name).astype("float64")
    table["runs"] = runs["run_id"]
    statistics = {
        "runs": "count",
        "rate_runs": "count",
        "rate_median": "median",
        "rate_mean": "mean",
        "rate_sd": "std",
        "rate_min": "min",
        "rate_max": "max",
        "rate_stderr_max": "max",
        "theory": "first",
        "predicted_rate": "median",
        "predicted_bias": "median",
        "log_gain": "median",
        "horizon": "median",
        **dict.fromkeys(VERDICTS, "mean"),
        "zero": "mean",
        "failed": "mean",
        **dict.fromkeys(AUDITS, "median"),
    }
    grouped = table.groupby(list(ORDER["gradients"]), dropna=False, sort=True, observed=True)
    renamed = {name: f"{name}_median" for name in ("log_gain", "horizon")}
    points = pd.DataFrame(grouped.agg(statistics))
    extended = ["rate_median", "rate_min", "rate_max", "log_gain", "horizon", *AUDITS]
    keys = [table[name] for name in ORDER["gradients"]]
    lacking = _lacking(table[extended], runs["status"] != "failed", keys)
    points = points.mask(lacking.reindex(columns=points.columns, fill_value=False))
    points = points.rename(columns=renamed).reset_index()
    points = points[[*AXES, *points.columns[len(AXES) :]]]
    expected = points["predicted_rate"] + points["predicted_bias"]
    disagreement = (points["rate_mean"] - expected) / error_of_mean(points) + 0.0
    place = points.columns.tolist().index("predicted_bias") + 1
    points.insert(place, "disagreement", disagreement)
    return points


def error_of_mean(points: pd.DataFrame) -> pd.Series:
    """The error of `rate_mean` in a `summary`, of which ±2 cover 95.45 %: see there."""
    runs = points["rate_runs"]
    between = student_factor(runs - 1) * points["rate_sd"] / np.sqrt(runs.where(runs > 0))
    return np.hypot(between, ROUNDING)


def _unless(values: pd.Series, where: pd.Series, other: float) -> pd.Series:
    """The values as floats, with another one for those that are missing where that holds."""
    values = values.astype("float64")
    return values.mask(values.isna() & where, other)


def _lacking(values: pd.DataFrame, measured: pd.Series, by: Sequence[Any]) -> pd.DataFrame:
    """For each group and column, whether a run that was measured has no value."""
    lacks = values.isna().mul(measured.to_numpy(bool), axis=0)
    return lacks.groupby(by, dropna=False, sort=True, observed=True).any().astype(bool)


def verdict_table(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per cell and initialization: its rate, and what became of its runs at each length.

    `init` is "none" for a cell that draws no recurrent weights. `rate_min` and `rate_max`
    (nats/step) are the range over gains of the median rate at the longest length, NaN where the
    median at a gain is, and where there is none of that length; then for each
    length T, `vanishing_T`, `exploding_T` and `nonfinite_T` are shares of the runs of that length
    that did not fail, NaN where all did.

    >>> from gradlab.frames import runs_frame
    >>> record = dict(cell="gru", init="normal", gain=1, input="gaussian", hidden=4, inputs=2,
    ...               seed=0, status="ok", verdict="vanishing", rate=-0.5)
    >>> frame = runs_frame([record | dict(run_id=str(n), length=n) for n in (10, 100)])
    >>> verdict_table(frame)[["rate_max", "vanishing_10", "exploding_100"]].values.tolist()
    [[-0.5, 1.0, 0.0]]
    """
    return verdicts(summary(runs))


def verdicts(points: pd.DataFrame) -> pd.DataFrame:
    """`verdict_table` from the points of a `summary`, such as `read_summary` gives."""
    keys = ["cell", "init"]
    points = points.assign(init=points["init"].fillna("none"))
    longest = points[points["length"] == points["length"].max()]
    rates = spread(longest["rate_median"], [longest[key] for key in keys])
    columns = {"rate_min": rates["low"], "rate_max": rates["high"]}
    for length in sorted(points["length"].unique()):
        at = points[points["length"] == length]
        groups = [at[key] for key in keys]
        measured = (at["runs"] * (1 - at["failed"])).round().groupby(groups).sum()
        for verdict in ("vanishing", "exploding", "nonfinite"):
            counts = (at[verdict] * at["runs"]).round().groupby(groups).sum()
            columns[f"{verdict}_{length}"] = counts / measured.where(measured > 0)
    return pd.DataFrame(columns).rename_axis(keys).reset_index()


SUMMARIES = {"gradients": summary, "training": trained_summary}
"""The summary of the runs, by what a sweep measures."""
