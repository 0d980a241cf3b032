"""gradlab's dataframes: their schema in one place, what makes and reads them, statistics over them.

`RUNS`, `STEPS` and `TRACE` map each column to its dtype, unit and meaning. All norms are natural
logarithms: `-inf` is an exact zero, `NaN` a norm that is not finite.
"""

from gradlab.frames.axes import Axis as Axis
from gradlab.frames.checks import check_frame as check_frame
from gradlab.frames.comparison import compare as compare
from gradlab.frames.gradients import AUDITS as AUDITS
from gradlab.frames.gradients import GRADIENTS as GRADIENTS
from gradlab.frames.gradients import ROUNDING as ROUNDING
from gradlab.frames.gradients import SUMMARY as SUMMARY
from gradlab.frames.gradients import VERDICTS as VERDICTS
from gradlab.frames.gradients import error_of_mean as error_of_mean
from gradlab.frames.gradients import runs_frame as runs_frame
from gradlab.frames.gradients import steps_frame as steps_frame
from gradlab.frames.gradients import summary as summary
from gradlab.frames.gradients import verdict_table as verdict_table
from gradlab.frames.gradients import verdicts as verdicts
from gradlab.frames.kinds import KINDS as KINDS
from gradlab.frames.kinds import describe as describe
from gradlab.frames.kinds import open_schema as open_schema
from gradlab.frames.kinds import schema_of as schema_of
from gradlab.frames.reading import FORMAT as FORMAT
from gradlab.frames.reading import blocks as blocks
from gradlab.frames.reading import count as count
from gradlab.frames.reading import opened as opened
from gradlab.frames.reading import read as read
from gradlab.frames.reading import read_frame as read_frame
from gradlab.frames.reading import read_manifest as read_manifest
from gradlab.frames.reading import read_summary as read_summary
from gradlab.frames.reading import to_csv as to_csv
from gradlab.frames.reading import warn_unfinished as warn_unfinished
from gradlab.frames.schema import CHECK as CHECK
from gradlab.frames.schema import METRICS as METRICS
from gradlab.frames.schema import RECORDS as RECORDS
from gradlab.frames.schema import TRACE as TRACE
from gradlab.frames.schema import Column as Column
from gradlab.frames.schema import Columns as Columns
from gradlab.frames.schema import Results as Results
from gradlab.frames.schema import Schema as Schema
from gradlab.frames.schema import Statistic as Statistic
from gradlab.frames.schema import TrainingResults as TrainingResults
from gradlab.frames.schema import arrow_schema as arrow_schema
from gradlab.frames.schema import coerce as coerce
from gradlab.frames.schema import fit as fit
from gradlab.frames.schema import lags as lags
from gradlab.frames.statistics import spread as spread
from gradlab.frames.traces import frame as frame
from gradlab.frames.traces import metrics as metrics
from gradlab.frames.traces import records as records
from gradlab.frames.training import TRAINING as TRAINING
from gradlab.frames.training import curves_frame as curves_frame
from gradlab.frames.training import trained_frame as trained_frame
from gradlab.frames.training import trained_summary as trained_summary
from gradlab.frames.training import training_steps_frame as training_steps_frame

RUNS, STEPS = GRADIENTS.frames.values()
TRAINED, CURVES, TRAINING_STEPS = TRAINING.frames.values()
AXES, TRAINED_AXES = GRADIENTS.point, TRAINING.point
