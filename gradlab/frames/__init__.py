"""gradlab's dataframes: their schema in one place, what makes and reads them, statistics over them.

`RUNS`, `STEPS` and `TRACE` map each column to its dtype, unit and meaning. All norms are natural
logarithms: `-inf` is an exact zero, `NaN` a norm that is not finite.
"""

from gradlab.frames.axes import Axis
from gradlab.frames.checks import check_frame
from gradlab.frames.comparison import compare
from gradlab.frames.conditioning import CONDITIONING
from gradlab.frames.coordinates import COORDINATES
from gradlab.frames.gradients import (
    AUDITS,
    GRADIENTS,
    ROUNDING,
    SUMMARY,
    VERDICTS,
    error_of_mean,
    runs_frame,
    steps_frame,
    summary,
    verdict_table,
    verdicts,
)
from gradlab.frames.kinds import KINDS, describe, open_schema, schema_of
from gradlab.frames.reading import FORMAT as FORMAT
from gradlab.frames.reading import blocks as blocks
from gradlab.frames.reading import count as count
from gradlab.frames.reading import open_file as open_file
from gradlab.frames.reading import read, read_summary, to_csv
from gradlab.frames.reading import read_frame as read_frame
from gradlab.frames.reading import read_manifest as read_manifest
from gradlab.frames.reading import warn_unfinished as warn_unfinished
from gradlab.frames.schema import (
    CHECK,
    METRICS,
    RECORDS,
    TRACE,
    Column,
    Columns,
    Results,
    Schema,
    Statistic,
    TrainingResults,
    lags,
)
from gradlab.frames.schema import arrow_schema as arrow_schema
from gradlab.frames.schema import coerce as coerce
from gradlab.frames.schema import fit as fit
from gradlab.frames.statistics import spread
from gradlab.frames.traces import frame, metrics, records
from gradlab.frames.training import (
    TRAINING,
    curves_frame,
    trained_frame,
    trained_summary,
    training_steps_frame,
)

__all__ = [
    "AUDITS",
    "AXES",
    "Axis",
    "CHECK",
    "CONDITIONING",
    "COORDINATES",
    "CURVES",
    "Column",
    "Columns",
    "GRADIENTS",
    "KINDS",
    "METRICS",
    "RECORDS",
    "ROUNDING",
    "RUNS",
    "Results",
    "STEPS",
    "SUMMARY",
    "Schema",
    "Statistic",
    "TRACE",
    "TRAINED",
    "TRAINED_AXES",
    "TRAINING",
    "TRAINING_STEPS",
    "TrainingResults",
    "VERDICTS",
    "check_frame",
    "compare",
    "curves_frame",
    "describe",
    "error_of_mean",
    "frame",
    "lags",
    "metrics",
    "open_schema",
    "read",
    "read_summary",
    "records",
    "runs_frame",
    "schema_of",
    "spread",
    "steps_frame",
    "summary",
    "to_csv",
    "trained_frame",
    "trained_summary",
    "training_steps_frame",
    "verdict_table",
    "verdicts",
]

RUNS, STEPS = GRADIENTS.frames.values()
TRAINED, CURVES, TRAINING_STEPS, _ = TRAINING.frames.values()
AXES, TRAINED_AXES = GRADIENTS.point, TRAINING.point


def __dir__() -> list[str]:
    return sorted(__all__)
