"""The frames of a sweep over networks as they are initialized, declared once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from gradlab._student import student_factor
from gradlab.frames import tolerances
from gradlab.frames.axes import Axis, Number, Scale, Seed, Size
from gradlab.frames.schema import (
    PRECISION,
    REASON,
    Column,
    Columns,
    Records,
    Schema,
    Statistic,
    coerce,
)
from gradlab.frames.statistics import spread, summarize, unless

CELL = Axis("cell", "str", "", "the recurrent cell", str, choices="cell", by=True)
ACTIVATION = Axis(
    "activation",
    "str",
    "",
    "the cell's activation; missing where it has no choice",
    str,
    "tanh",
    choices="activation",
    needs={"cell": ("activation",)},
    optional=True,
)
INIT = Axis(
    "init",
    "str",
    "",
    "initializer of the recurrent weights; missing without any",
    str,
    choices="initializer",
    needs={"cell": ("recurrent",)},
    by=True,
)
GAIN = Axis(
    "gain",
    "float64",
    "1",
    "gain of that initializer; NaN where there is none",
    Scale,
    program=False,
    needs={"cell": ("recurrent",), "init": ("gain",)},
)
FORGET_BIAS = Axis(
    "forget_bias",
    "float64",
    "1",
    "bias added to the forget gate; NaN where there is none",
    Number,
    1.0,
    program=False,
    needs={"cell": ("forget_bias",)},
    optional=True,
)
HIDDEN = Axis("hidden", "int64", "1", "width of the hidden state", Size, 128)
SEED = Axis("seed", "int64", "1", "the seed", Seed, 0, program=False)

AXES = (
    CELL,
    ACTIVATION,
    INIT,
    GAIN,
    Axis(
        "weights",
        "str",
        "",
        "tied: one draw of the parameters; untied: a draw for each step",
        str,
        "tied",
        # Untied weights are the network of mean-field theory.
        choices=("tied", "untied"),
        optional=True,
    ),
    FORGET_BIAS,
    Axis(
        "input", "str", "", "where the input sequence comes from", str, "gaussian", choices="input"
    ),
    Axis(
        "input_scale",
        "float64",
        "1",
        "factor on the input weights; NaN where there is none",
        Scale,
        1.0,
        program=False,
        needs={"cell": ("input",)},
        optional=True,
    ),
    Axis(
        "bias_scale",
        "float64",
        "1",
        "standard deviation of the biases; NaN where there are none",
        Scale,
        0.0,
        program=False,
        needs={"cell": ("bias",)},
        optional=True,
    ),
    Axis("length", "int64", "steps", "sequence length T", Size),
    HIDDEN,
    Axis("inputs", "int64", "1", "features of the input at one step", Size, 32),
    Axis("batch", "Int64", "1", "sequences that log_norm is the mean over", Size, 1, optional=True),
    SEED,
)

MEASURED: Columns = {
    "precision": PRECISION,
    "status": Column(
        "str", "", "ok, zero (the gradient is exactly 0), nonfinite or failed (not measured)", True
    ),
    "reason": REASON,
    "verdict": Column("str", "", "vanishing, stable, exploding, nonfinite or failed", True),
    "rate": Column("float64", "nats/step", "slope of log_norm against lag"),
    "rate_stderr": Column(
        "float64", "nats/step", "error of rate within the run; ±2 cover 95 %; no spread of matrices"
    ),
    "theory": Column("str", "", "mean field, disc law, or none: / does not hold: and the reason"),
    "predicted_rate": Column("float64", "nats/step", "the theory's rate; NaN where it has none"),
    "predicted_bias": Column(
        "float64", "nats/step", "what the width and length add to it; NaN where that is not derived"
    ),
    "disagreement": Column(
        "float64",
        "1",
        "(rate - predicted_rate - predicted_bias) / √(rate_stderr² + ROUNDING²): beyond ±2 in 5 % "
        "of the runs; NaN where the bias is, such as where matrices of tied weights differ",
    ),
    "log_gain": Column("float64", "nats", "log_norm at step 1 minus log_norm at step T"),
    "horizon": Column("Int64", "steps", "lag at which the norm leaves [eps, 1/eps] of its start"),
    "first_nonfinite_step": Column("Int64", "steps", "first step that is not finite, if any"),
    "spectral_radius": Column("float64", "1", "measured spectral radius of the recurrent weights"),
    "largest_singular_value": Column("float64", "1", "their largest singular value"),
    "smallest_singular_value": Column("float64", "1", "their smallest singular value"),
    "log10_condition": Column("float64", "1", "log10 of their ratio; inf for a singular W"),
    "orthogonality_error": Column("float64", "1", "measured distance from a scaled orthogonal map"),
    "non_normality": Column("float64", "1", "Henrici's departure from normality over the norm"),
    "time_constant_median": Column(
        "float64", "steps", "steps in which a gate at its bias forgets by e, median over the units"
    ),
    "time_constant_min": Column("float64", "steps", "the same, the shortest; NaN without a gate"),
    "time_constant_max": Column("float64", "steps", "the same, the longest; inf if never"),
}

STEPS: Columns = {
    "step": Column("int64", "steps", "t = 1..T, the state after input t", True),
    "lag": Column("int64", "steps", "T - t, steps that the gradient has travelled back", True),
    "log_norm": Column("float64", "nats", "ln of the 2-norm of dL/dh_t", True),
}

AUDITS = (
    "spectral_radius",
    "largest_singular_value",
    "smallest_singular_value",
    "log10_condition",
    "orthogonality_error",
    "non_normality",
    "time_constant_median",
    "time_constant_min",
    "time_constant_max",
)
"""The columns of runs that say what an initializer really gave: over the matrices of a cell the
largest value, but for `smallest_singular_value`."""

ROUNDING = float(np.finfo(np.float32).eps)
"""The error of a rate from float32, in nats per step. A step back multiplies λ by rounded weights:
the gain and each entry are off by up to eps/2 of their size, and so is each sum, at random. What is
the same at all steps is the gain's error and that of the weights' own draw (a QR for orthogonal
ones), so the rate is off by about eps/2 each, and eps bounds both: at most 1.13 eps in 1,800 linear
orthogonal networks of width 4 to 256, whose rate is known, 0.1 to 0.6 eps as root mean square."""

VERDICTS = ("vanishing", "stable", "exploding", "nonfinite")


VERDICTS = ("vanishing", "stable", "exploding", "nonfinite")


def _share(of: str, tolerance: tolerances.Rule, column: str, value: str) -> Statistic:
    def values(runs: pd.DataFrame) -> pd.Series:
        return (runs[column] == value).astype("float64")

    return Statistic("1", f"share of the runs {of}", tolerance, values, "mean")


def _median(column: str, tolerance: tolerances.Rule, complete: bool = True) -> Statistic:
    unit, meaning = MEASURED[column].unit, MEASURED[column].meaning
    return Statistic(unit, meaning, tolerance, _column(column), complete=complete)


def _column(name: str) -> Callable[[pd.DataFrame], pd.Series]:
    return lambda runs: runs[name].astype("float64")


def _finite_rate(runs: pd.DataFrame) -> pd.Series:
    return runs["rate"].where(np.isfinite(runs["rate"]))


def _extended_rate(runs: pd.DataFrame) -> pd.Series:
    """The rate, -inf for a gradient that is exactly zero."""
    zero = runs["rate"].isna() & (runs["status"] == "zero")
    return runs["rate"].mask(zero, -np.inf)


def _disagreement(points: pd.DataFrame) -> pd.Series:
    prediction = points["predicted_rate"] + points["predicted_bias"]
    return (points["rate_mean"] - prediction) / error_of_mean(points) + 0.0


SUMMARY: dict[str, Statistic] = {
    "runs": Statistic(
        "1",
        "runs of the point, one for each seed",
        tolerances.exact,
        lambda runs: runs["run_id"],
        "count",
        dtype="int64",
    ),
    "rate_runs": Statistic(
        "1", "runs with a finite rate", tolerances.exact, _finite_rate, "count", dtype="int64"
    ),
    "rate_median": Statistic(
        "nats/step", "their median", tolerances.median_rate, _extended_rate, complete=True
    ),
    "rate_mean": Statistic("nats/step", "their mean", tolerances.mean_rate, _finite_rate, "mean"),
    "rate_sd": Statistic(
        "nats/step", "their standard deviation", tolerances.extreme_rate, _finite_rate, "std"
    ),
    "rate_min": Statistic(
        "nats/step", "the least", tolerances.extreme_rate, _extended_rate, "min", complete=True
    ),
    "rate_max": Statistic(
        "nats/step", "the largest", tolerances.extreme_rate, _extended_rate, "max", complete=True
    ),
    "rate_stderr_max": Statistic(
        "nats/step",
        "the largest error of a rate within its run",
        tolerances.stderr,
        lambda runs: runs["rate_stderr"].where(np.isfinite(runs["rate"])),
        "max",
    ),
    "theory": Statistic(
        "",
        MEASURED["theory"].meaning,
        tolerances.exact,
        lambda runs: runs["theory"],
        "first",
        dtype="str",
    ),
    "predicted_rate": _median("predicted_rate", tolerances.predicted, complete=False),
    "predicted_bias": _median("predicted_bias", tolerances.predicted, complete=False),
    "disagreement": Statistic(
        "1", "of the mean rate, in its standard errors", tolerances.disagreement, _disagreement, ""
    ),
    "log_gain_median": _median("log_gain", tolerances.log_gain),
    "horizon_median": Statistic(
        "steps",
        "median horizon, inf for a run that has none",
        tolerances.horizon,
        lambda runs: unless(runs["horizon"], runs["verdict"] == "stable", np.inf),
        complete=True,
    ),
    **{
        name: _share(f"whose verdict is {name}", tolerances.share, "verdict", name)
        for name in VERDICTS[:3]
    },
    "nonfinite": _share("that are not finite", tolerances.exact, "verdict", "nonfinite"),
    "zero": _share("whose gradient is exactly 0", tolerances.exact, "status", "zero"),
    "failed": _share("that could not be measured", tolerances.exact, "status", "failed"),
    "spectral_radius": _median("spectral_radius", tolerances.eigenvalue),
    "largest_singular_value": _median("largest_singular_value", tolerances.matrix),
    "smallest_singular_value": _median("smallest_singular_value", tolerances.matrix),
    "log10_condition": _median("log10_condition", tolerances.log_condition),
    "orthogonality_error": _median("orthogonality_error", tolerances.relative_matrix),
    "non_normality": _median("non_normality", tolerances.relative_matrix),
    **{
        name: _median(name, tolerances.time_constants(name))
        for name in ("time_constant_median", "time_constant_min", "time_constant_max")
    },
}
"""The columns of a summary of gradients, after the axes."""


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per point of the sweep (its axes but the seed), with statistics over its seeds.

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
    return summarize(runs, SUMMARY, GRADIENTS.including(runs))


GRADIENTS = Schema(
    "gradients", AXES, MEASURED, {"steps": STEPS}, lambda runs, _: summary(runs), version=5
)


def error_of_mean(points: pd.DataFrame) -> pd.Series:
    """The error of `rate_mean` in a `summary`, of which ±2 cover 95.45 %: see there."""
    runs = points["rate_runs"]
    between = student_factor(runs - 1) * points["rate_sd"] / np.sqrt(runs.where(runs > 0))
    return pd.Series(np.hypot(between, ROUNDING))


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
        totals = (at["runs"] * (1 - at["failed"])).round().groupby(groups).sum()
        for verdict in ("vanishing", "exploding", "nonfinite"):
            counts = (at[verdict] * at["runs"]).round().groupby(groups).sum()
            columns[f"{verdict}_{length}"] = counts / totals.where(totals > 0)
    return pd.DataFrame(columns).rename_axis(keys).reset_index()


def runs_frame(records: Records) -> pd.DataFrame:
    """A row per run, with the columns, the order and the dtypes of `GRADIENTS.runs`.

    `records` is an iterable of mappings, a mapping of columns, or a frame. Columns that may be
    missing are filled; a required column that is missing, a column that is not known and a
    value that does not fit its dtype raise ValueError.

    >>> record = dict(run_id="a", cell="gru", init="normal", gain=1, input="gaussian", length=10,
    ...               hidden=4, inputs=2, seed=0, status="ok", verdict="stable", rate=-0.01)
    >>> frame = runs_frame([record])
    >>> frame.gain.dtype, frame.horizon.dtype, list(frame.columns) == list(GRADIENTS.runs)
    (dtype('float64'), Int64Dtype(), True)
    """
    return coerce(records, GRADIENTS.runs, "runs")


def steps_frame(records: Records) -> pd.DataFrame:
    """A row per run and recorded lag, with the columns, the order and the dtypes of `GRADIENTS`.

    >>> steps_frame({"run_id": ["a"], "step": [1], "lag": [9], "log_norm": [-3]}).log_norm.dtype
    dtype('float64')
    """
    return coerce(records, GRADIENTS.frames["steps"], "steps")
