"""The frames of a sweep over networks as they learn, declared once."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import pandas as pd
import pydantic

from gradlab._names import choose
from gradlab.frames import gradients, tolerances
from gradlab.frames.axes import Axis, Count, Number, Scale, Size
from gradlab.frames.schema import (
    PRECISION,
    REASON,
    RECORDS,
    Column,
    Columns,
    Records,
    Schema,
    Statistic,
    coerce,
)
from gradlab.frames.statistics import summarize, unless


def _horizon(value: float) -> float:
    if 0 < value < 2:
        raise ValueError(f"T_max must be at least 2, or 0 for none, got {value}")
    return value


RECORDERS = (
    "eigenvalues",
    "fixed_point_eigenvalues",
    "hessian_eigenvalues",
    "jacobian_eigenvalues",
    "log_gradient_norms",
    "log_norms",
    "lyapunov",
    "participation_ratio",
    "singular_values",
    "spectral_radius",
    "time_constants",
)
"""The functions of `gradlab.training.recorders` that the axis `record` can name."""


def _recorder_names(value: str | None) -> str | None:
    """The names in their order, each once, so that equal requests are one run; None for none."""
    names = sorted({*(value or "").split()})
    for name in names:
        choose("recorder", name, RECORDERS)
    return " ".join(names) or None


def _task_option(
    name: str, dtype: str, unit: str, meaning: str, type: Any, *default: Any, also: str = ""
) -> Axis:
    options = (name, also) if also else (name,)
    return Axis(name, dtype, unit, meaning, type, *default, needs={"task": options}, optional=True)


def _remedy(name: str, meaning: str, type: Any = Scale, off: float = 0.0, unit: str = "1") -> Axis:
    """An axis of a remedy's strength: the program has it or not, and takes it as an argument."""
    return Axis(name, "float64", unit, meaning, type, off, switch=True, optional=True)


AXES = (
    Axis("task", "str", "", "what is learnt", str, choices="task", by=True),
    # A task may call its length otherwise: it is what its baseline is a function of.
    _task_option(
        "length",
        "Int64",
        "steps",
        "the task's length T; missing where it has no choice",
        Size,
        also="delay",
    ),
    _task_option(
        "symbols", "Int64", "1", "symbols to order; missing for a task without them", Size, 2
    ),
    _task_option(
        "size", "Int64", "pixels", "edge of the images; missing for a task without any", Size, 8
    ),
    _task_option(
        "permuted",
        "boolean",
        "",
        "whether their pixels come in a random order",
        pydantic.StrictBool,
        False,
    ),
    _task_option(
        "every_step",
        "boolean",
        "",
        "whether every step is judged; missing if fixed",
        pydantic.StrictBool,
        False,
    ),
    gradients.CELL,
    gradients.ACTIVATION,
    gradients.INIT._replace(default="orthogonal", by=False),
    gradients.GAIN._replace(default=1.0),
    gradients.FORGET_BIAS,
    gradients.HIDDEN._replace(default=64),
    Axis(
        "optimizer",
        "str",
        "",
        "optax's optimizer",
        str,
        "adam",
        choices=("adam", "rmsprop", "sgd"),
    ),
    Axis("learning_rate", "float64", "1", "its learning rate", Scale, program=False),
    _remedy("clip_value", "largest size of the gradient's entries; 0 for no clipping"),
    _remedy("clip_norm", "largest norm of the gradient; 0 for no clipping"),
    _remedy("omega", "weight of Pascanu's regularizer; 0 without it"),
    _remedy("omega_squared", "the same of its form with squared norms"),
    _remedy("orthogonality", "weight of the orthogonality penalty; 0 without it"),
    _remedy("flossing", "weight of gradient flossing; 0 without it"),
    Axis(
        "preflossing",
        "Int64",
        "updates",
        "updates of flossing alone, with Adam at 1e-3, before the training",
        Count,
        0,
        optional=True,
    ),
    _remedy(
        "chrono",
        "T_max of chrono initialization; 0 without it",
        Annotated[Scale, pydantic.AfterValidator(_horizon)],
        unit="steps",
    ),
    Axis(
        "window",
        "Int64",
        "steps",
        "window of truncated back-propagation; 0 for none",
        Count,
        0,
        optional=True,
    ),
    _remedy(
        "leak",
        "share of the state that a step replaces; 1 for all of it",
        Annotated[Number, pydantic.Field(gt=0, le=1)],
        off=1.0,
    ),
    Axis("batch", "int64", "1", "sequences of one update", Size, 32),
    Axis("updates", "int64", "updates", "the most updates that a run may make", Size),
    Axis(
        "evaluate_every",
        "Int64",
        "updates",
        "updates between two evaluations",
        Size,
        100,
        optional=True,
    ),
    Axis(
        "evaluation",
        "Int64",
        "1",
        "fresh sequences of an evaluation, where the task holds out none",
        Size,
        500,
        optional=True,
    ),
    Axis(
        "flossing_exponents",
        "Int64",
        "1",
        "Lyapunov exponents that flossing drives to 0",
        Size,
        8,
        optional=True,
    ),
    Axis(
        "record",
        "str",
        "",
        "recorders, split by spaces, that each evaluation calls; missing without any",
        Annotated[str | None, pydantic.AfterValidator(_recorder_names)],
        None,
        optional=True,
    ),
    gradients.SEED,
)

MEASURED: Columns = {
    "precision": PRECISION,
    "status": Column("str", "", "solved, unsolved, nonfinite or failed (not trained)", True),
    "reason": REASON,
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
}

CURVES: Columns = {
    "training_step": Column("int64", "updates", "the updates made", True),
    "loss": Column("float64", "task", "loss of fresh sequences", True),
    "error": Column("float64", "task", "their error", True),
}

STEPS: Columns = {"training_step": CURVES["training_step"], **gradients.STEPS}


def _share(of: str, value: str) -> Statistic:
    def values(runs: pd.DataFrame) -> pd.Series:
        return (runs["status"] == value).astype("float64")

    return Statistic("1", f"share of the runs {of}", tolerances.exact, values, "mean")


def _median(name: str) -> Statistic:
    column = MEASURED[name]
    return Statistic(
        column.unit,
        f"median of: {column.meaning}",
        tolerances.unknown,
        lambda runs: runs[name].astype("float64"),
        complete=True,
    )


def _solved_step(runs: pd.DataFrame) -> pd.Series:
    steps = unless(runs["solved_step"], runs["status"] != "solved", np.inf)
    return steps.mask(runs["status"] == "failed")


SUMMARY: dict[str, Statistic] = {
    "runs": gradients.SUMMARY["runs"],
    "solved": _share("that solved the task", "solved"),
    "nonfinite": _share("that are not finite", "nonfinite"),
    "failed": _share("that could not be trained", "failed"),
    "solved_step_median": Statistic(
        "updates",
        "median of solved_step, inf for a run that did not solve its task",
        tolerances.unknown,
        _solved_step,
        complete=True,
    ),
    "loss_median": _median("loss"),
    "error_median": _median("error"),
    "best_loss_median": _median("best_loss"),
    "baseline": _median("baseline"),
    "rate_before_median": _median("rate_before"),
    "rate_after_median": _median("rate_after"),
}
"""The columns of a summary of a training sweep, after the axes."""


def trained_summary(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per point of a training sweep (its axes but the seed), with statistics over its seeds.

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
    return summarize(runs, SUMMARY, TRAINING.including(runs))


TRAINING = Schema(
    "training",
    AXES,
    MEASURED,
    {"curves": CURVES, "steps": STEPS},
    lambda runs, _: trained_summary(runs),
    version=4,
    optional={"records": RECORDS},
)


def trained_frame(records: Records) -> pd.DataFrame:
    """A row per run of a training sweep, with the columns of `TRAINING.runs`."""
    return coerce(records, TRAINING.runs, "runs")


def curves_frame(records: Records) -> pd.DataFrame:
    """A row per run and evaluation, with the columns, the order and the dtypes of `TRAINING`."""
    return coerce(records, TRAINING.frames["curves"], "curves")


def training_steps_frame(records: Records) -> pd.DataFrame:
    """A row per run, evaluation and lag, with the columns of `TRAINING`."""
    return coerce(records, TRAINING.frames["steps"], "steps")
