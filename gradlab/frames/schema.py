"""What a frame holds: columns, axes and schemas, and how records become frames.

Each kind of sweep declares its `Schema` once (`frames.gradients`, `frames.training`, or a user's
measurement by its arguments). All that writes or reads a frame passes through `coerce` and `fit`,
so a column has one dtype everywhere. All norms are natural logarithms: `-inf` is an exact zero,
`NaN` a norm that is not finite.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from gradlab import _names, _show
from gradlab.frames import tolerances
from gradlab.frames.axes import Axis


class Column(NamedTuple):
    """What one column holds.

    `dtype` is a pandas dtype, `unit` is "" for a label and "1" for a plain number; a column that is
    not `required` is filled with missing values where the records lack it.
    """

    dtype: str
    unit: str
    meaning: str
    required: bool = False


Columns = dict[str, Column]

RUN_ID = Column("str", "", "the run's name, the key into the other frames", True)
PRECISION = Column("str", "", "dtype and matrix-product precision of the run")
REASON = Column("str", "", "why a run failed; missing where it did not")
CODE = Column("str", "", "digest of the user's code that the run used; missing without any")
HALVED = Column("Int64", "1", "times that its chunk was halved because memory ran out")
DEVICE = Column("str", "", "the device that ran it")
NUMBER = Column("float64", "1", "what the measurement returned under that name")

# Texts that a run may have, whether one of a folder has them or not.
LABELS: dict[str, tuple[str, ...]] = {
    "status": ("ok", "zero", "solved", "unsolved", "nonfinite", "failed"),
    "verdict": ("vanishing", "stable", "exploding", "nonfinite", "failed"),
}


class Schema(NamedTuple):
    """What the frames of one kind of sweep hold.

    Attributes:
        kind: the measurement, as a manifest names it.
        axes: the coordinates of a run in the order of the columns, the seed last.
        measured: the other columns of runs.
        others: the other frames by their names, with their columns but for `run_id`.
        summarize: (runs, schema) -> a row per point, with statistics over the seeds.
        is_open: whether rows may bring columns of numbers that are not declared.
        version: a number that goes up when a run measures something else under the same names.
        optional: frames that are younger than others: a folder may lack them, and their columns are
            no part of a run's name. The runs that fill them differ by an axis.
    """

    kind: str
    axes: tuple[Axis, ...]
    measured: Columns
    others: dict[str, Columns]
    summarize: Callable[[pd.DataFrame, Schema], pd.DataFrame]
    is_open: bool = False
    version: int = 0
    optional: Mapping[str, Columns] = {}

    def including(self, runs: pd.DataFrame) -> Schema:
        """The schema with an axis for each column of runs that it does not know, before the seed.

        A sweep over the options of a cell or a task, or over a remedy of the user's own, has more
        axes than gradlab's: their points must not be taken together.
        """
        more = tuple(
            Axis(str(name), str(runs[name].dtype), "", "", Any, optional=True)
            for name in runs
            if name not in self.runs
        )
        return self.extend(more)

    def extend(self, axes: tuple[Axis, ...]) -> Schema:
        """The schema with more axes, before the seed."""
        return self._replace(axes=(*self.axes[:-1], *axes, self.axes[-1])) if axes else self

    def widen(self, rows: Iterable[Mapping[str, Any]]) -> Schema:
        """The schema with the columns that rows bring, where it is open; else as it is."""
        if not self.is_open:
            return self
        own = {*self.runs}
        columns, others = dict(self.measured), {k: dict(v) for k, v in self.others.items()}
        for row in rows:
            for name, value in row.items():
                if isinstance(value, Mapping):
                    fields = others.setdefault(name, {})
                    fields |= {column: NUMBER for column in value if column not in fields}
                elif name not in own:
                    columns.setdefault(name, NUMBER)
        return self._replace(measured=columns, others=others)

    @property
    def runs(self) -> Columns:
        """The columns of runs."""
        axes = {a.name: Column(a.dtype, a.unit, a.meaning, not a.optional) for a in self.axes}
        ends = {"code": CODE, "halved": HALVED, "device": DEVICE}
        return {"run_id": RUN_ID, **axes, **self.measured, **ends}

    @property
    def frames(self) -> dict[str, Columns]:
        """The columns of every frame; runs comes first."""
        tables = {name: {"run_id": RUN_ID, **fields} for name, fields in self.tables.items()}
        return {"runs": self.runs, **tables}

    @property
    def tables(self) -> dict[str, Columns]:
        """The columns of the frames other than runs, but for `run_id`."""
        return {**self.others, **self.optional}

    @property
    def point(self) -> tuple[str, ...]:
        """The columns that say what was run: runs that agree on them differ by their seed."""
        names = [axis.name for axis in self.axes if axis.name != "seed"]
        return (*names, "precision") if "precision" in self.measured else tuple(names)

    @property
    def order(self) -> tuple[str, ...]:
        """The order of the runs: by these columns, missing values last, and then by seed.

        What decides a program comes first: the runs of a chunk share a program, so chunks are
        nearly contiguous in this order. The rows of the other frames follow the runs.
        """
        program = {axis.name: axis.program for axis in self.axes}
        return tuple(sorted(self.point, key=lambda name: not program.get(name, False)))


class Statistic(NamedTuple):
    """One column of a summary, over the seeds of a point.

    Attributes:
        unit: as that of a `Column`.
        meaning: likewise.
        tolerance: for each point, how far the column may lie from that of the same spec measured
            elsewhere.
        values: the frame of runs -> the values that go in.
        over: the name of pandas' aggregation over the seeds; "" where `values` takes the points
            with the columns before this one.
        dtype: the pandas dtype.
        complete: whether it is NaN where a run that was measured has no value: without that run
            the statistic would be one of survivors.
    """

    unit: str
    meaning: str
    tolerance: tolerances.Rule
    values: Callable[[pd.DataFrame], pd.Series]
    over: str = "median"
    dtype: str = "float64"
    complete: bool = False


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

CHECK: dict[str, Column] = {
    "quantity": Column("str", "", "value, gradient, state or adjoint", True),
    "scan": Column("str", "", "the plain form's scan or tap; empty for value and gradient", True),
    "partner": Column("str", "", "the fast form's scan or tap; empty for value and gradient", True),
    "leaf": Column("str", "", "of the state, or the gradient's path in the arguments", True),
    "sample": Column("Int64", "1", "index along batch_axis; present for batched checks only"),
    "step": Column("Int64", "steps", "t = 1..T; missing for value and gradient"),
    "log_plain": Column("float64", "nats", "ln of the norm in the plain form", True),
    "log_fast": Column("float64", "nats", "ln of the norm in the fast form", True),
    "difference": Column(
        "float64", "1", "norm of the difference over the plain form's; NaN where not compared", True
    ),
    "allowed": Column("float64", "1", "the largest difference that rounding explains", True),
    "agrees": Column("boolean", "", "whether it is not larger; missing where not compared"),
}
"""What `gradlab.check` compares: a row per quantity and step."""

METRICS: dict[str, Column] = {
    "training_step": Column("int64", "updates", "the updates made, this one included", True),
    "loss": Column("float64", "task", "the batch's loss before the update", True),
    "log_grad_norm": Column("float64", "nats", "ln of the 2-norm of the gradient", True),
}
"""What every training reports; a column of float64 more for each metric of the user's loss."""

RECORDS: dict[str, Column] = {
    "training_step": Column("int64", "updates", "the updates made before it was recorded", True),
    "name": Column("str", "", "the name in record=; of a pytree's leaf, name.path", True),
    "index": Column("str", "", 'the entry, as in "0,3"; empty for a scalar', True),
    "value": Column("float64", "1", "what the function returned; the real part of a complex", True),
    "imag": Column("float64", "1", "the imaginary part; missing for a real number"),
}
"""What a training recorded of its parameters: a row per update, name and entry."""


class Results(NamedTuple):
    """What a sweep left behind: its frames and the manifest."""

    runs: pd.DataFrame
    steps: pd.DataFrame
    manifest: dict[str, Any]

    def __repr__(self) -> str:
        return _text("Results", self._asdict())

    def _repr_html_(self) -> str:
        return _html("Results", self._asdict())


class TrainingResults(NamedTuple):
    """What a training sweep left behind: its frames and the manifest.

    `records` has what the axis `record` asked for: no rows where it is not used.
    """

    runs: pd.DataFrame
    curves: pd.DataFrame
    steps: pd.DataFrame
    manifest: dict[str, Any]
    records: pd.DataFrame = pd.DataFrame()

    def __repr__(self) -> str:
        return _text("TrainingResults", self._asdict())

    def _repr_html_(self) -> str:
        return _html("TrainingResults", self._asdict())


def _facts(fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    frames = {name: each for name, each in fields.items() if isinstance(each, pd.DataFrame)}
    rows = [
        (name, f"{_show.count(len(each), 'row')}, {_show.count(len(each.columns), 'column')}")
        for name, each in frames.items()
    ]
    return [*rows, ("manifest", ", ".join(fields["manifest"]))]


def _text(title: str, fields: Mapping[str, Any]) -> str:
    return _show.text(title, _facts(fields))


def _html(title: str, fields: Mapping[str, Any]) -> str:
    """The sizes of the frames, and of the runs the first rows in the columns that differ."""
    runs = fields["runs"]
    most = runs.head(_ROWS)
    differ = [name for name in runs if name == "run_id" or most[name].nunique(dropna=False) > 1]
    table = most[differ[:_COLUMNS]].to_html(index=False, border=0)
    return _show.table(title, _facts(fields), f"<p>The first runs, where they differ:</p>{table}")


# What a notebook shows of the runs.
_ROWS, _COLUMNS = 5, 10


Records = pd.DataFrame | Iterable[Mapping[str, Any]] | Mapping[str, Any]


def coerce(records: Records, schema: Columns, what: str) -> pd.DataFrame:
    """The records as a frame with the columns, the order and the dtypes of a schema."""
    if isinstance(records, pd.DataFrame):
        frame = records
    elif isinstance(records, Mapping):
        frame = pd.DataFrame(dict(records))
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
                values = values.astype(pd.api.types.pandas_dtype(column.dtype))
                # Adding 0.0 turns -0.0 into 0.0.
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
            columns[name] = empty.astype(pd.api.types.pandas_dtype(column.dtype))
    return pd.DataFrame(columns).reset_index(drop=True)


def arrow_schema(schema: Columns) -> pa.Schema:
    """The columns as a schema of pyarrow, with the metadata from which pandas restores dtypes."""
    return _arrow_schema(tuple((name, column.dtype) for name, column in schema.items()))


# Cached: sweeps call it twice per chunk, and it takes 0.05 s for seventy columns.
@functools.lru_cache(64)
def _arrow_schema(dtypes: tuple[tuple[str, str], ...]) -> pa.Schema:
    empty = coerce([], {name: Column(dtype, "", "") for name, dtype in dtypes}, "")
    return pa.Schema.from_pandas(empty, preserve_index=False)


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
    sparse = np.rint(64 * 2 ** (np.arange(1, np.floor(16 * octaves) + 1) / 16)).astype(np.int64)
    return np.unique(np.concatenate([np.arange(min(last, 64) + 1), sparse, [last]]))
