"""The frames of a sweep of coordinate checks: sizes of states, updates and adjoints over width."""

from __future__ import annotations

from gradlab.frames.gradients import GRADIENTS
from gradlab.frames.schema import PRECISION, REASON, Column, Columns, Schema
from gradlab.frames.statistics import summarize_all
from gradlab.frames.training import TRAINING

STATES: Columns = {
    "log_state": Column("float64", "nats", "ln of the root mean square of the states' coordinates"),
    "log_update": Column(
        "float64", "nats", "the same of how far they moved since before training; -inf for not"
    ),
}
ADJOINT = Column("float64", "nats", "ln of the root mean square of the coordinates of dL/dh_t")
_TRAINING_STEP = TRAINING.others["curves"]["training_step"]
_STEP = GRADIENTS.others["steps"]
# What a training has for its evaluations, and against vanishing gradients.
_ABSENT = {
    "preflossing",
    "window",
    "evaluate_every",
    "evaluation",
    "flossing_exponents",
    "record",
}

AXES = tuple(
    axis._replace(meaning="updates, after each of which it is measured")
    if axis.name == "updates"
    else axis
    for axis in TRAINING.axes
    if not axis.switch and axis.name not in _ABSENT
)

COORDINATES = Schema(
    "coordinates",
    AXES,
    {
        "precision": PRECISION,
        "status": Column("str", "", "ok, nonfinite (an update is) or failed (not measured)", True),
        "reason": REASON,
        **STATES,
        "log_adjoint": ADJOINT._replace(meaning=f"{ADJOINT.meaning}, t = 1"),
    },
    {
        "curves": {"training_step": _TRAINING_STEP, **STATES},
        "steps": {
            "training_step": _TRAINING_STEP,
            "step": _STEP["step"],
            "lag": _STEP["lag"],
            "log_adjoint": ADJOINT,
        },
    },
    summarize_all,
    version=1,
)
"""A row of runs is about the network after the last update; rows of the others, after each one."""
