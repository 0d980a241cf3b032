"""The schema of gradlab's dataframes, in one place.

`RUNS`, `STEPS` and `TRACE` map each column to its dtype, unit and meaning. All that writes or
reads a frame passes through `runs_frame`, `steps_frame` and `fit`, so a column has one dtype
everywhere.
All norms are natural logarithms: `-inf` is an exact zero, `NaN` a norm that is not finite.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from gradlab import _names
from gradlab.frames import tolerances


class Column(NamedTuple):
    """What one column holds.

    `dtype` is a pandas dtype, `unit` is "" for a label and "1" for a plain number; a column that is
    not `required` is filled with missing values where the records lack it.
    """

    dtype: str
    unit: str
    meaning: str
    required: bool = False


RUNS: dict[str, Column] = {
    "run_id": Column("str", "", "the run's name, the key into steps", True),
    "cell": Column("str", "", "the recurrent cell", True),
    "activation": Column("str", "", "the cell's activation; missing where it has no choice"),
    "init": Column("str", "", "initializer of the recurrent weights; missing without any", True),
    "gain": Column("float64", "1", "gain of that initializer; NaN where there is none", True),
    "weights": Column("str", "", "tied: one draw of the parameters; untied: a draw for each step"),
    "forget_bias": Column("float64", "1", "bias added to the forget gate; NaN where there is none"),
    "input": Column("str", "", "where the input sequence comes from", True),
    "input_scale": Column("float64", "1", "factor on the input weights"),
    "bias_scale": Column("float64", "1", "standard deviation of the biases"),
    "length": Column("int64", "steps", "sequence length T", True),
    "hidden": Column("int64", "1", "width of the hidden state", True),
    "inputs": Column("int64", "1", "features of the input at one step", True),
    "batch": Column("Int64", "1", "sequences that log_norm is the mean over"),
    "seed": Column("int64", "1", "the seed", True),
    "precision": Column("str", "", "dtype and matrix-product precision of the run"),
    "status": Column(
        "str", "", "ok, zero (the gradient is exactly 0), nonfinite or failed (not measured)", True
    ),
    "reason": Column("str", "", "why a run failed; missing where it did not"),
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
    "halved": Column("Int64", "1", "times that its chunk was halved because memory ran out"),
    "device": Column("str", "", "the device that ran it"),
}

STEPS: dict[str, Column] = {
    "run_id": Column("str", "", "the run's name, the key into runs", True),
    "step": Column("int64", "steps", "t = 1..T, the state after input t", True),
    "lag": Column("int64", "steps", "T - t, steps that the gradient has travelled back", True),
    "log_norm": Column("float64", "nats", "ln of the 2-norm of dL/dh_t", True),
}

TRACE: dict[str, Column] = {
    "training_step": Column(
        "Int64", "updates", "updates made before the trace; present for a training only"
    ),
    "scan": Column("str", "", "where the scan stands in the source, or the name of a tap", True),
    "leaf": Column("str", "", "a leaf of several; empty for the whole state", True),
    "outer": Column("str", "", "index in the enclosing scans; present for nested scans only"),
    "sample": Column("Int64", "1", "index along batch_axis; present for batched traces only"),
    "step": Column("int64", "steps", "t = 1..T", True),
    "lag": Column("int64", "steps", "steps that the gradient has travelled back", True),
    "log_norm": Column("float64", "nats", "ln of the norm of the total gradient", True),
    "log_direct": Column("float64", "nats", "ln of the norm of the direct part; NaN for a tap"),
    "log_transported": Column(
        "float64", "nats", "ln of the norm of the transported part; NaN for a tap"
    ),
    "log_param": Column(
        "float64",
        "nats",
        "ln of the norm of the step's own contribution to the gradient of the "
        "weights; present where it was asked for, NaN for a leaf",
    ),
}

TRAINED: dict[str, Column] = {
    "run_id": Column("str", "", "the run's name, the key into curves and steps", True),
    "task": Column("str", "", "what is learnt", True),
    "length": Column("Int64", "steps", "the task's length T; missing where it has no choice"),
    "symbols": Column("Int64", "1", "symbols to order; missing for a task without them"),
    "size": Column("Int64", "pixels", "edge of the images; missing for a task without any"),
    "permuted": Column("boolean", "", "whether their pixels come in a random order"),
    "every_step": Column("boolean", "", "whether every step is judged; missing if fixed"),
    **{name: RUNS[name] for name in ("cell", "activation", "init", "gain", "forget_bias")},
    "hidden": RUNS["hidden"],
    "optimizer": Column("str", "", "optax's optimizer", True),
    "learning_rate": Column("float64", "1", "its learning rate", True),
    "clip_norm": Column("float64", "1", "largest norm of the gradient; 0 for no clipping"),
    "clip_value": Column("float64", "1", "largest size of its entries; 0 for no clipping"),
    "omega": Column("float64", "1", "weight of Pascanu's regularizer; 0 without it"),
    "omega_squared": Column("float64", "1", "the same of its form with squared norms"),
    "orthogonality": Column("float64", "1", "weight of the orthogonality penalty; 0 without it"),
    "flossing": Column("float64", "1", "weight of gradient flossing; 0 without it"),
    "preflossing": Column("Int64", "updates", "updates of flossing alone before the training"),
    "chrono": Column("float64", "steps", "T_max of chrono initialization; 0 without it"),
    "window": Column("Int64", "steps", "window of truncated back-propagation; 0 for none"),
    "leak": Column("float64", "1", "share of the state that a step replaces; 1 for all of it"),
    "batch": Column("int64", "1", "sequences of one update", True),
    "updates": Column("int64", "updates", "the most updates that a run may make", True),
    "seed": Column("int64", "1", "the seed", True),
    "precision": Column("str", "", "dtype and matrix-product precision of the run"),
    "status": Column("str", "", "solved, unsolved, nonfinite or failed (not trained)", True),
    "reason": RUNS["reason"],
    "solved_step": Column("Int64", "updates", "updates made where the task was first solved"),
    "first_nonfinite_step": Column(
        "Int64", "updates", "the first update whose loss or result is not finite, if any"
    ),
    "trained": Column("int64", "updates", "the updates made: a run ends where it is solved", True),
    "loss": Column("float64", "task", "loss of fresh sequences at the end", True),
    "error": Column("float64", "task", "error of fresh sequences at the end", True),
    "best_loss": Column("float64", "task", "the least loss of fresh sequences"),
    "baseline": Column("float64", "task", "the loss that remembering nothing gives"),
    "rate_before": Column("float64", "nats/step", "slope of log_norm against lag, untrained"),
    "rate_after": Column("float64", "nats/step", "the same at the end"),
    "halved": RUNS["halved"],
    "device": Column("str", "", "the device that ran it"),
}

CURVES: dict[str, Column] = {
    "run_id": Column("str", "", "the run's name, the key into runs", True),
    "training_step": Column("int64", "updates", "the updates made", True),
    "loss": Column("float64", "task", "loss of fresh sequences", True),
    "error": Column("float64", "task", "their error", True),
}

TRAINING_STEPS: dict[str, Column] = {
    "run_id": STEPS["run_id"],
    "training_step": CURVES["training_step"],
    **{name: STEPS[name] for name in ("step", "lag", "log_norm")},
}

METRICS: dict[str, Column] = {
    "training_step": Column("int64", "updates", "the updates made, this one included", True),
    "loss": Column("float64", "task", "the batch's loss before the update", True),
    "log_grad_norm": Column("float64", "nats", "ln of the 2-norm of the gradient", True),
}
"""What every training reports; a column of float64 more for each metric of the user's loss."""

KINDS: dict[str, dict[str, dict[str, Column]]] = {
    "gradients": {"runs": RUNS, "steps": STEPS},
    "training": {"runs": TRAINED, "curves": CURVES, "steps": TRAINING_STEPS},
}
"""The frames of a sweep, by what it measures, and the columns of each."""

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

AXES = (
    "cell",
    "activation",
    "init",
    "gain",
    "weights",
    "forget_bias",
    "input",
    "input_scale",
    "bias_scale",
    "length",
    "hidden",
    "inputs",
    "batch",
    "precision",
)
"""The columns of runs that say what was run; the runs that agree on all of them differ by seed."""

TRAINED_AXES = (
    "task",
    "symbols",
    "size",
    "permuted",
    "every_step",
    "cell",
    "activation",
    "init",
    "gain",
    "forget_bias",
    "hidden",
    "optimizer",
    "learning_rate",
    "clip_norm",
    "clip_value",
    "omega",
    "omega_squared",
    "orthogonality",
    "flossing",
    "preflossing",
    "chrono",
    "window",
    "leak",
    "batch",
    "updates",
    "length",
    "precision",
)
"""The same of the runs of a training sweep."""

# What decides a program comes first, then what a program takes as an argument: the runs of a chunk
# share a program, so chunks are nearly contiguous in this order.
ORDER = {
    "gradients": (
        *("cell", "activation", "init", "weights", "input", "hidden", "inputs", "length", "batch"),
        *("gain", "forget_bias", "input_scale", "bias_scale", "precision"),
    ),
    "training": TRAINED_AXES,
}
"""The order of the runs of a sweep: by these columns, missing values last, and then by seed. The
rows of the other frames follow it."""

ROUNDING = float(np.finfo(np.float32).eps)
"""The error of a rate from float32, in nats per step. A step back multiplies λ by rounded weights:
the gain and each entry are off by up to eps/2 of their size, and so is each sum, at random. What is
the same at all steps is the gain's error and that of the weights' own draw (a QR for orthogonal
ones), so the rate is off by about eps/2 each, and eps bounds both: at most 1.13 eps in 1,800 linear
orthogonal networks of width 4 to 256, whose rate is known, 0.1 to 0.6 eps as root mean square."""

VERDICTS = ("vanishing", "stable", "exploding", "nonfinite")


class Statistic(NamedTuple):
    """What one column of a summary holds, over the seeds of a point.

    `tolerance` gives for each point how far the column may lie from that of the same spec measured
    elsewhere; the others are those of a `Column`.
    """

    dtype: str
    unit: str
    meaning: str
    tolerance: tolerances.Rule


def _share(of: str, tolerance: tolerances.Rule) -> Statistic:
    return Statistic("float64", "1", f"share of the runs {of}", tolerance)


SUMMARY: dict[str, Statistic] = {
    "runs": Statistic("int64", "1", "runs of the point, one for each seed", tolerances.exact),
    "rate_runs": Statistic("int64", "1", "runs with a finite rate", tolerances.exact),
    "rate_median": Statistic("float64", "nats/step", "their median", tolerances.median_rate),
    "rate_mean": Statistic("float64", "nats/step", "their mean", tolerances.mean_rate),
    "rate_sd": Statistic(
        "float64", "nats/step", "their standard deviation", tolerances.extreme_rate
    ),
    "rate_min": Statistic("float64", "nats/step", "the least", tolerances.extreme_rate),
    "rate_max": Statistic("float64", "nats/step", "the largest", tolerances.extreme_rate),
    "rate_stderr_max": Statistic(
        "float64", "nats/step", "the largest error of a rate within its run", tolerances.stderr
    ),
    "theory": Statistic("str", "", RUNS["theory"].meaning, tolerances.exact),
    "predicted_rate": Statistic(
        "float64", "nats/step", RUNS["predicted_rate"].meaning, tolerances.predicted
    ),
    "predicted_bias": Statistic(
        "float64", "nats/step", RUNS["predicted_bias"].meaning, tolerances.predicted
    ),
    "disagreement": Statistic(
        "float64", "1", "of the mean rate, in its standard errors", tolerances.disagreement
    ),
    "log_gain_median": Statistic("float64", "nats", "median of log_gain", tolerances.log_gain),
    "horizon_median": Statistic(
        "float64", "steps", "median horizon of those that have one", tolerances.horizon
    ),
    **{name: _share(f"whose verdict is {name}", tolerances.share) for name in VERDICTS[:3]},
    "nonfinite": _share("that are not finite", tolerances.exact),
    "zero": _share("whose gradient is exactly 0", tolerances.exact),
    "failed": _share("that could not be measured", tolerances.exact),
    **{
        name: Statistic("float64", RUNS[name].unit, RUNS[name].meaning, tolerance)
        for name, tolerance in {
            "spectral_radius": tolerances.eigenvalue,
            "largest_singular_value": tolerances.matrix,
            "smallest_singular_value": tolerances.matrix,
            "log10_condition": tolerances.log_condition,
            "orthogonality_error": tolerances.relative_matrix,
            "non_normality": tolerances.relative_matrix,
            "time_constant_median": tolerances.time_constants("time_constant_median"),
            "time_constant_min": tolerances.time_constants("time_constant_min"),
            "time_constant_max": tolerances.time_constants("time_constant_max"),
        }.items()
    },
}
"""The columns of a summary of gradients, after `AXES`."""


class Results(NamedTuple):
    """What a sweep left behind: two frames and the manifest."""

    runs: pd.DataFrame
    steps: pd.DataFrame
    manifest: dict[str, Any]


class TrainingResults(NamedTuple):
    """What a training sweep left behind: three frames and the manifest."""

    runs: pd.DataFrame
    curves: pd.DataFrame
    steps: pd.DataFrame
    manifest: dict[str, Any]


Records = pd.DataFrame | Iterable[Mapping[str, Any]] | Mapping[str, Any]


def coerce(records: Records, schema: dict[str, Column], what: str) -> pd.DataFrame:
    """The records as a frame with the columns, the order and the dtypes of a schema."""
    if isinstance(records, pd.DataFrame | Mapping):
        frame = pd.DataFrame(records)
    else:
        frame = pd.DataFrame.from_records(list(records))
    for name in frame.columns:
        _names.choose(f"column of {what}", name, schema)
    columns = {}
    for name, column in schema.items():
        if name in frame:
            try:
                values = frame[name]
                if column.dtype == "int64":  # a plain cast would truncate 1.5 to 1
                    values = values.astype("Int64")
                values = values.astype(column.dtype)
                # A sum with 0 has no sign at 0: no frame says -0.0.
                columns[name] = values + 0.0 if column.dtype == "float64" else values
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"column {name!r} of {what} is not {column.dtype}: {error}"
                ) from None
        elif column.required and len(frame):
            raise ValueError(f"column {name!r} of {what} is missing: {column.meaning}")
        else:
            missing = pd.NA if column.dtype == "Int64" else np.nan
            empty = pd.Series(missing, index=frame.index, dtype=object)
            columns[name] = empty.astype(column.dtype)
    return pd.DataFrame(columns).reset_index(drop=True)


def arrow_schema(schema: dict[str, Column]) -> pa.Schema:
    """The columns as pyarrow has them, with the note by which pandas finds its dtypes again."""
    return pa.Schema.from_pandas(coerce([], schema, ""), preserve_index=False)


def fit(table: pa.Table, schema: pa.Schema, what: str) -> pa.Table:
    """The table with the columns, the order and the types of `schema`: `runs_frame` for pyarrow.

    A column that is not there is filled with missing values, one that is not known is refused.

    >>> short = pa.table({"lag": [2]})
    >>> fit(short, pa.schema({"lag": pa.int64(), "log_norm": pa.float64()}), "steps").to_pylist()
    [{'lag': 2, 'log_norm': None}]
    """
    if table.schema.equals(schema):
        return table.replace_schema_metadata(schema.metadata)
    present = dict(zip(table.column_names, table.columns, strict=True))
    for name in present:
        _names.choose(f"column of {what}", name, schema.names)
    columns = []
    for name, kind in zip(schema.names, schema.types, strict=True):
        column = present.get(name)
        if column is None:
            column = pa.nulls(len(table), kind)
        columns.append(column if column.type == kind else column.cast(kind))
    return pa.table(columns, schema=schema)


def runs_frame(records: Records) -> pd.DataFrame:
    """A row per run, with the columns, the order and the dtypes of `RUNS`.

    `records` is an iterable of mappings, a mapping of columns, or a frame. Columns that may be
    missing are filled; a required column that is missing, a column that `RUNS` does not know and a
    value that does not fit its dtype raise ValueError.

    >>> record = dict(run_id="a", cell="gru", init="normal", gain=1, input="gaussian", length=10,
    ...               hidden=4, inputs=2, seed=0, status="ok", verdict="stable", rate=-0.01)
    >>> frame = runs_frame([record])
    >>> frame.gain.dtype, frame.horizon.dtype, list(frame.columns) == list(RUNS)
    (dtype('float64'), Int64Dtype(), True)
    """
    return coerce(records, RUNS, "runs")


def steps_frame(records: Records) -> pd.DataFrame:
    """A row per run and recorded lag, with the columns, the order and the dtypes of `STEPS`.

    >>> steps_frame({"run_id": ["a"], "step": [1], "lag": [9], "log_norm": [-3]}).log_norm.dtype
    dtype('float64')
    """
    return coerce(records, STEPS, "steps")


def trained_frame(records: Records) -> pd.DataFrame:
    """A row per run of a training sweep, with the columns of `TRAINED`."""
    return coerce(records, TRAINED, "runs")


def curves_frame(records: Records) -> pd.DataFrame:
    """A row per run and evaluation, with the columns, the order and the dtypes of `CURVES`."""
    return coerce(records, CURVES, "curves")


def training_steps_frame(records: Records) -> pd.DataFrame:
    """A row per run, evaluation and lag, with the columns of `TRAINING_STEPS`."""
    return coerce(records, TRAINING_STEPS, "steps")


def lags(length: int) -> np.ndarray:
    """The lags that `steps` keeps of a sequence of `length` steps, in increasing order.

    Every lag from 0 to 64, then 16 to the octave (round(64 · 2^(k/16)), k = 1, 2, …), and always
    the last, length - 1: about 65 + 16 log2(length / 64) rows however long the sequence is.

    >>> lags(5).tolist(), lags(1000).size, int(lags(1000)[-1])
    ([0, 1, 2, 3, 4], 129, 999)
    """
    if length < 1:
        raise ValueError(f"length must be at least 1, got {length}")
    last = length - 1
    octaves = np.log2(max(last, 64) / 64)
    spaced = np.rint(64 * 2 ** (np.arange(1, np.floor(16 * octaves) + 1) / 16)).astype(np.int64)
    return np.unique(np.concatenate([np.arange(min(last, 64) + 1), spaced, [last]]))
