"""The schema of gradlab's dataframes, in one place, and the statistics over them (frame -> frame).

`RUNS`, `STEPS` and `TRACE` map each column to its dtype, unit and meaning. All that writes or
reads a frame passes through `runs_frame` and `steps_frame`, so a column has one dtype everywhere.
All norms are natural logarithms: `-inf` is an exact zero, `NaN` a norm that is not finite.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from gradlab import _names


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
    "rate_stderr": Column("float64", "nats/step", "standard error of rate"),
    "theory": Column("str", "", "mean field, disc law, or none: / does not hold: and the reason"),
    "predicted_rate": Column("float64", "nats/step", "the theory's rate; NaN where it has none"),
    "predicted_bias": Column(
        "float64", "nats/step", "what theory adds to it at this width; NaN where that is not known"
    ),
    "disagreement": Column(
        "float64", "1", "(rate - predicted_rate - predicted_bias) / rate_stderr; unknown bias as 0"
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
    "leaf": Column("str", "", "the carry's leaf; empty for the whole state", True),
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
        "float64", "nats", "ln of the norm of the step's own contribution to the gradient of the "
        "weights; present where it was asked for, NaN for a leaf"
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

FORMAT = 1
"""The version of what is written into a sweep's folder; a reader refuses a newer one."""

KINDS = {"gradients": ("runs", "steps"), "training": ("runs", "curves", "steps")}
"""The frames of a sweep, by what it measures."""

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

VERDICTS = ("vanishing", "stable", "exploding", "nonfinite")


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


def _coerce(records: Records, schema: dict[str, Column], what: str) -> pd.DataFrame:
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
                columns[name] = values.astype(column.dtype)
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
    return _coerce(records, RUNS, "runs")


def steps_frame(records: Records) -> pd.DataFrame:
    """A row per run and recorded lag, with the columns, the order and the dtypes of `STEPS`.

    >>> steps_frame({"run_id": ["a"], "step": [1], "lag": [9], "log_norm": [-3]}).log_norm.dtype
    dtype('float64')
    """
    return _coerce(records, STEPS, "steps")


def trained_frame(records: Records) -> pd.DataFrame:
    """A row per run of a training sweep, with the columns of `TRAINED`."""
    return _coerce(records, TRAINED, "runs")


def curves_frame(records: Records) -> pd.DataFrame:
    """A row per run and evaluation, with the columns, the order and the dtypes of `CURVES`."""
    return _coerce(records, CURVES, "curves")


def training_steps_frame(records: Records) -> pd.DataFrame:
    """A row per run, evaluation and lag, with the columns of `TRAINING_STEPS`."""
    return _coerce(records, TRAINING_STEPS, "steps")


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


def frame(trace: Any) -> pd.DataFrame:
    """The trace of `gradlab.trace`, or those of `gradlab.train`, as one tidy frame.

    For each scan of `trace.scans`: rows for the whole state (leaf "") and then for each leaf; then
    the rows of each tap; the columns are those of `TRACE`. `lag` is T - step, or step - 1 for a
    reversed scan. A scan inside others adds `outer`, its index in them ("0,3"); a batched trace
    adds `sample`; a training adds `training_step`, the updates made before the trace.

    >>> import jax, gradlab as gl
    >>> def loss(w, xs):
    ...     return jax.lax.scan(lambda h, x: (w * h + x, None), 0.0, xs)[0]
    >>> rows = frame(gl.trace(loss)(0.5, np.ones(3)))
    >>> rows[rows.leaf == ""].log_norm.round(3).tolist(), rows.lag.tolist()
    ([-1.386, -0.693, 0.0], [2, 1, 0, 2, 1, 0])
    """
    if hasattr(trace, "trace_steps"):
        parts = _training_parts(trace)
    else:
        parts = [_scan_frame(record) for record in (*trace.scans, *trace.taps.values())]
    present = {name for part in parts for name in part.columns}
    optional = {"training_step", "outer", "sample", "log_param"} - present
    whole = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    return _coerce(whole, TRACE, "a trace").drop(columns=sorted(optional))


def _training_parts(training: Any) -> list[pd.DataFrame]:
    if training.traces is None:
        raise ValueError("this training took no traces; give train a trace_every above 0")
    parts = []
    for i, made in enumerate(training.trace_steps):
        for record in (*training.traces.scans, *training.traces.taps.values()):
            arrays = {
                name: _row(value, i) for name, value in vars(record).items() if name != "outer"
            }
            part = _scan_frame(type(record)(**arrays, outer=record.outer))
            parts.append(part.assign(training_step=made))
    return parts


def _row(value: Any, i: int) -> Any:
    if isinstance(value, dict):
        return {name: leaf[i] for name, leaf in value.items()}
    return value[i] if isinstance(value, np.ndarray) else value


def metrics(training: Any) -> pd.DataFrame:
    """The metrics of a `gradlab.train`: a row per update, with the columns of `METRICS` and more.

    >>> import jax, optax, gradlab as gl
    >>> loss = lambda w, x: (w - x) ** 2
    >>> run = gl.train(loss, 0.0, lambda key, step: 1.0, optax.sgd(0.25), steps=2,
    ...                key=jax.random.key(0))
    >>> metrics(run)[["training_step", "loss"]].values.tolist()
    [[1.0, 1.0], [2.0, 0.25]]
    """
    table = pd.DataFrame({name: np.asarray(v, np.float64) for name, v in training.metrics.items()})
    table.insert(0, "training_step", np.arange(1, len(table) + 1))
    others = [str(name) for name in table.columns if name not in METRICS]
    table = table.reindex(columns=[*METRICS, *others])
    return table.astype({name: column.dtype for name, column in METRICS.items()})


def _scan_frame(scan: Any) -> pd.DataFrame:
    total = np.asarray(scan.log_norm, dtype=np.float64)
    outer = tuple(scan.outer)
    batched = bool(scan.batched)
    if total.ndim != len(outer) + 1 + batched:
        raise ValueError(
            f"frame takes one trace, and this one has more axes, {total.shape}, than a scan of "
            f"{scan.length} steps; take one out first: jax.tree.map(lambda x: x[0], out)"
        )
    index = np.indices(total.shape).reshape(total.ndim, -1)
    step = index[len(outer)] + 1
    common: dict[str, Any] = {"scan": scan.name}
    if outer:
        places = [",".join(map(str, place)) for place in np.ndindex(*outer)]
        common["outer"] = np.repeat(np.array(places, dtype=object), total.size // len(places))
    if batched:
        common["sample"] = index[-1]
    common["step"] = step
    common["lag"] = step - 1 if scan.reverse else scan.length - step
    # A tap has neither parts nor leaves.
    rows = {
        name: {
            "log_norm": norms,
            "log_direct": scan.leaves_direct[name],
            "log_transported": scan.leaves_transported[name],
        }
        for name, norms in getattr(scan, "leaves", {}).items()
    }
    whole: dict[str, Any] = {"log_norm": total}
    if hasattr(scan, "log_direct"):
        whole |= {"log_direct": scan.log_direct, "log_transported": scan.log_transported}
    contribution = getattr(scan, "log_param", None)
    if contribution is not None:
        per_step = np.asarray(contribution, dtype=np.float64)
        whole["log_param"] = per_step[..., None] + np.zeros(total.shape) if batched else per_step
    parts = [
        pd.DataFrame(
            common
            | {"leaf": leaf}
            | {name: np.asarray(v, dtype=np.float64).reshape(-1) for name, v in columns.items()}
        )
        for leaf, columns in ({"": whole} | rows).items()
    ]
    return pd.concat(parts, ignore_index=True)


def read(dir: str | Path) -> Any:
    """The frames and the manifest that a sweep wrote into the folder `dir`.

    Returns:
        `Results`, or `TrainingResults` where the sweep trained networks.

    Raises:
        ValueError: where a file is missing, damaged or does not fit the schema.
    """
    folder = Path(dir)
    manifest = _read_file(folder / "manifest.json", _read_json)
    kind = manifest.get("kind", "gradients") if isinstance(manifest, dict) else ""
    _names.choose(f"kind of results in {folder / 'manifest.json'}:", kind, KINDS)
    tables = [_read_file(folder / f"{name}.parquet", pd.read_parquet) for name in KINDS[kind]]
    if kind == "training":
        runs, curves, steps = tables
        curves = curves_frame(curves)
        return TrainingResults(trained_frame(runs), curves, training_steps_frame(steps), manifest)
    return Results(runs_frame(tables[0]), steps_frame(tables[1]), manifest)


def _read_file(path: Path, load: Any) -> Any:
    if not path.is_file():
        raise ValueError(
            f"no results in {str(path.parent)!r}: {path.name} missing; "
            "`gradlab sweep SPEC.toml --out DIR` writes them"
        )
    try:
        return load(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{str(path)!r} is damaged: {str(error).splitlines()[0]}") from None


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def to_csv(dir: str | Path) -> list[Path]:
    """Writes every frame of the results in `dir` as `dir/NAME.csv`; returns their paths.

    Floats are written in full, a zero's log_norm as `-inf`, a missing value as an empty field.
    """
    results = read(dir)
    paths = []
    for name, table in zip(results._fields[:-1], results[:-1], strict=True):
        paths.append(Path(dir) / f"{name}.csv")
        table.to_csv(paths[-1], index=False, lineterminator="\n")
    return paths


def trained_summary(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per point of a training sweep (all of `TRAINED_AXES`), with statistics over its seeds.

    `solved` and `nonfinite` are shares of the `runs`; `solved_step_median` is over the solved ones;
    the others are medians over all runs.

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
        solved_step=runs["solved_step"].astype("float64"),
    )
    grouped = table.groupby(list(TRAINED_AXES), dropna=False, sort=True, observed=True)
    medians = ("solved_step", "loss", "error", "best_loss", "baseline", "rate_before", "rate_after")
    points = grouped.agg(
        runs=("run_id", "count"),
        solved=("solved", "mean"),
        nonfinite=("nonfinite", "mean"),
        **{f"{name}_median": (name, "median") for name in medians},
    )
    return points.reset_index().rename(columns={"baseline_median": "baseline"})


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per point of the sweep (all of `AXES`), with statistics over its seeds.

    `rate` statistics (nats/step) are over the runs with a finite rate, `rate_runs` of `runs`;
    `rate_sd` is the sample standard deviation, NaN for one seed. `disagreement` is that of the
    mean, (rate_mean - predicted_rate - predicted_bias) / (rate_sd / √rate_runs): unlike that of a
    run it counts how seeds differ. `vanishing`, `stable`, `exploding`
    and `nonfinite` are shares of all runs by verdict, `zero` the share whose gradient is exactly 0.

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
    table["theory"] = runs["theory"]
    for name in ("predicted_rate", "predicted_bias", "log_gain", "horizon", *AUDITS):
        table[name] = runs[name].astype("float64")
    for name in VERDICTS:
        table[name] = (runs["verdict"] == name).astype("float64")
    table["zero"] = (runs["status"] == "zero").astype("float64")
    table["runs"] = runs["run_id"]
    statistics = {
        "runs": "count",
        "rate_runs": "count",
        "rate_median": "median",
        "rate_mean": "mean",
        "rate_sd": "std",
        "rate_min": "min",
        "rate_max": "max",
        "theory": "first",
        "predicted_rate": "median",
        "predicted_bias": "median",
        "log_gain": "median",
        "horizon": "median",
        **dict.fromkeys(VERDICTS, "mean"),
        "zero": "mean",
        **dict.fromkeys(AUDITS, "median"),
    }
    grouped = table.groupby(list(AXES), dropna=False, sort=True, observed=True)
    renamed = {name: f"{name}_median" for name in ("log_gain", "horizon")}
    points = pd.DataFrame(grouped.agg(statistics)).rename(columns=renamed).reset_index()
    expected = points["predicted_rate"] + points["predicted_bias"].fillna(0)
    error = points["rate_sd"] / np.sqrt(points["rate_runs"])
    disagreement = (points["rate_mean"] - expected) / error
    place = points.columns.tolist().index("predicted_bias") + 1
    points.insert(place, "disagreement", disagreement)
    return points


def verdict_table(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per cell and initialization: its rate, and what became of its runs at each length.

    `init` is "none" for a cell that draws no recurrent weights. `rate_min` and `rate_max`
    (nats/step) are the range over gains of the median rate at the longest length; then for each
    length T, `vanishing_T`, `exploding_T` and `nonfinite_T` are shares of all runs of that length.

    >>> record = dict(cell="gru", init="normal", gain=1, input="gaussian", hidden=4, inputs=2,
    ...               seed=0, status="ok", verdict="vanishing", rate=-0.5)
    >>> frame = runs_frame([record | dict(run_id=str(n), length=n) for n in (10, 100)])
    >>> verdict_table(frame)[["rate_max", "vanishing_10", "exploding_100"]].values.tolist()
    [[-0.5, 1.0, 0.0]]
    """
    keys = ["cell", "init"]
    runs = runs.assign(init=runs["init"].fillna("none"))
    points = summary(runs.query("length == length.max()"))
    columns = {
        "rate_min": points.groupby(keys)["rate_median"].min(),
        "rate_max": points.groupby(keys)["rate_median"].max(),
    }
    for length in sorted(runs["length"].unique()):
        at = runs[runs["length"] == length]
        for verdict in ("vanishing", "exploding", "nonfinite"):
            share = (at["verdict"] == verdict).groupby([at[key] for key in keys]).mean()
            columns[f"{verdict}_{length}"] = share
    return pd.DataFrame(columns).rename_axis(keys).reset_index()


TOLERANCES: dict[str, float] = {
    "rate_median": 0.005,
    "rate_min": 0.01,
    "rate_max": 0.01,
    "log_gain_median": 0.5,
    **dict.fromkeys((*VERDICTS, "zero"), 0.2),
    "spectral_radius": 1e-3,
    "orthogonality_error": 1e-3,
}
"""How far a summary may lie from another run of the same spec, per column: rates in nats per step,
log_gain in nats, shares as a share (one seed of five), the audit relative to its size. Float32
results of chaotic networks differ between machines; their statistics do not."""


def compare(summary: pd.DataFrame, expected: pd.DataFrame) -> pd.DataFrame:
    """A row per column of `TOLERANCES`: the largest difference between two summaries.

    A difference is relative to max(1, |expected|) for `log_gain_median` and the audits, absolute
    otherwise; what both lack agrees, what one lacks does not.

    Raises:
        ValueError: if the summaries are not about the same points.
    """
    keys = list(AXES)
    left = summary.set_index(keys).sort_index()
    right = expected.astype({key: RUNS[key].dtype for key in keys}).set_index(keys).sort_index()
    if len(left) != len(right) or not left.index.equals(right.index):
        raise ValueError("the summaries are about different points of a sweep")
    rows = []
    for name, tolerance in TOLERANCES.items():
        a, b = left[name].to_numpy(float), right[name].to_numpy(float)
        size = np.maximum(1, np.abs(b)) if name in _RELATIVE else 1.0
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        with np.errstate(invalid="ignore"):
            difference = np.where(same, 0, np.abs(a - b) / size)
        worst = float(np.where(np.isnan(difference), np.inf, difference).max(initial=0))
        rows.append((name, worst, tolerance, worst <= tolerance))
    return pd.DataFrame(rows, columns=["column", "difference", "tolerance", "agrees"])


_RELATIVE = ("log_gain_median", "spectral_radius", "orthogonality_error")
