"""Statistics over the frames: frame -> frame."""

# pandas' own annotations say Series | DataFrame for nearly every selection.
# pyright: reportAttributeAccessIssue=false, reportReturnType=false, reportOperatorIssue=false
# pyright: reportCallIssue=false, reportArgumentType=false

import numpy as np
import pandas as pd

from gradlab._student import student_factor
from gradlab.frames.schema import AUDITS, AXES, ORDER, ROUNDING, TRAINED_AXES, VERDICTS


def trained_summary(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per point of a training sweep (all of `TRAINED_AXES`), with statistics over its seeds.

    `solved`, `nonfinite` and `failed` are shares of the `runs`; `solved_step_median` is over the
    solved ones; the others are medians over all runs.

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
        solved_step=runs["solved_step"].astype("float64"),
    )
    grouped = table.groupby(list(TRAINED_AXES), dropna=False, sort=True, observed=True)
    medians = ("solved_step", "loss", "error", "best_loss", "baseline", "rate_before", "rate_after")
    points = grouped.agg(
        runs=("run_id", "count"),
        solved=("solved", "mean"),
        nonfinite=("nonfinite", "mean"),
        failed=("failed", "mean"),
        **{f"{name}_median": (name, "median") for name in medians},
    )
    return points.reset_index().rename(columns={"baseline_median": "baseline"})


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per point of the sweep (all of `AXES`), with statistics over its seeds.

    `rate` statistics (nats/step) are over the runs with a finite rate, `rate_runs` of `runs`;
    `rate_sd` is the sample standard deviation, NaN for one seed, `rate_stderr_max` the largest
    `rate_stderr` of the runs: what the rate of a chaotic network moves by where it is measured
    again. `disagreement` is that of the mean over m = rate_runs seeds, and counts how they differ,
    matrices included::

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
    for name in ("rate_median", "rate_mean", "rate_sd", "rate_min", "rate_max", "rate_runs"):
        table[name] = finite
    table["rate_stderr_max"] = runs["rate_stderr"].where(np.isfinite(runs["rate"]))
    table["theory"] = runs["theory"]
    for name in ("predicted_rate", "predicted_bias", "log_gain", "horizon", *AUDITS):
        table[name] = runs[name].astype("float64")
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
    points = pd.DataFrame(grouped.agg(statistics)).rename(columns=renamed).reset_index()
    points = points[[*AXES, *points.columns[len(AXES) :]]]
    expected = points["predicted_rate"] + points["predicted_bias"]
    disagreement = (points["rate_mean"] - expected) / error_of_mean(points) + 0.0
    place = points.columns.tolist().index("predicted_bias") + 1
    points.insert(place, "disagreement", disagreement)
    return points


def error_of_mean(points: pd.DataFrame) -> pd.Series:
    """The error of `rate_mean` in a `summary`, of which ±2 cover 95.45 %: see there."""
    runs = points["rate_runs"]
    spread = student_factor(runs - 1) * points["rate_sd"] / np.sqrt(runs.where(runs > 0))
    return np.hypot(spread, ROUNDING)


def verdict_table(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per cell and initialization: its rate, and what became of its runs at each length.

    `init` is "none" for a cell that draws no recurrent weights. `rate_min` and `rate_max`
    (nats/step) are the range over gains of the median rate at the longest length; then for each
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
    rates = points[points["length"] == points["length"].max()].groupby(keys)["rate_median"]
    columns = {"rate_min": rates.min(), "rate_max": rates.max()}
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
