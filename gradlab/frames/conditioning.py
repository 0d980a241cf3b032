"""The frames of a sweep over the conditioning of long products of Jacobians."""

from __future__ import annotations

from gradlab.frames.gradients import GRADIENTS
from gradlab.frames.schema import PRECISION, REASON, Column, Columns, Schema
from gradlab.frames.statistics import summarize_all

NUMBERS: Columns = {
    "log_largest": Column("float64", "nats", "ln of the largest singular value of dh_T/dh_(T-l)"),
    "log_smallest": Column("float64", "nats", "ln of the smallest one; -inf where it is exactly 0"),
    "log_condition": Column("float64", "nats", "ln of their ratio, the condition number"),
}

CONDITIONING = Schema(
    "conditioning",
    tuple(axis for axis in GRADIENTS.axes if axis.name not in ("weights", "batch")),
    {
        "precision": PRECISION,
        "status": Column("str", "", "ok, nonfinite (a state is) or failed (not measured)", True),
        "reason": REASON,
        **NUMBERS,
    },
    {"steps": {"lag": Column("int64", "steps", "l: 1, 2, 4, ... and T", True), **NUMBERS}},
    summarize_all,
    version=1,
)
"""A row of runs is about the whole sequence, l = T; rows of steps are about its last l steps."""
