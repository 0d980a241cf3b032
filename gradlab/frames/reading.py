"""Read the frames in a sweep's folder, whole or in part."""

import contextlib
import functools
import io
import operator
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from gradlab import _manifest, _names, _sums
from gradlab._files import Folder, ReadError
from gradlab._manifest import FORMAT as FORMAT
from gradlab.frames import schema
from gradlab.frames.kinds import schema_of
from gradlab.frames.schema import Column, Schema

Names = Mapping[str, Callable[[], Iterable[str]]]
# Rows per piece of CSV.
_BATCH = 2**16


def read(
    dir: str | Path | Folder,
    columns: Iterable[str] | None = None,
    where: Mapping[str, Any] | None = None,
    *,
    names_of: Names | None = None,
) -> Any:
    """The frames and the manifest that a sweep wrote into the folder `dir`, or a part of them.

    Args:
        dir: a folder on this machine, or an fsspec address such as s3://bucket/sweep.
        columns: the columns to read; each frame has those of them that it knows, in its own order,
            and `run_id`. A frame other than runs that has none of them comes without rows. All
            columns by default.
        where: conditions that must all hold, column -> condition: a value, a list of values,
            or `slice(low, high)` for a range with both ends in it, either of which may be None;
            None as a value, or in a list, stands for a missing one. A condition on a column of runs
            chooses runs, and all frames are about the chosen runs only; one on another column
            (`lag`, `log_norm`, ...) chooses rows of the frames that have it.
        names_of: the names that there are, by `Axis.choices`: where no run is chosen, another text
            than one of these, or of the folder's, is refused. `gradlab.read` knows them.

    Returns:
        `Results`, or `TrainingResults` where the sweep trained networks.

    Raises:
        ValueError: where a file is missing, damaged, does not fit the schema or was written by a
            newer gradlab; where a column is not known or is asked for a value of another type;
            where no run is left since none has the text in a condition on an axis or a label.

    The files are read piece by piece, so a part of a large folder takes the memory of that part.

    Every byte that is read is verified first. manifest.json has a sum of itself, and for each frame
    its size and a CRC-32 of every 256 KiB: reading a part verifies the blocks that hold the part,
    page headers, dictionaries and footer included, and finds a file that is longer, shorter or
    another sweep's. A folder by an older gradlab has a sum of each whole frame, which takes one
    pass over the file, and one without any sums is read as it is.

    >>> import tempfile
    >>> from gradlab.frames import runs_frame, steps_frame
    >>> record = dict(cell="gru", init="normal", gain=1, input="gaussian", length=2, hidden=4,
    ...               inputs=2, status="ok", verdict="stable")
    >>> runs = runs_frame([record | dict(run_id=str(seed), seed=seed) for seed in range(3)])
    >>> steps = steps_frame([dict(run_id=str(seed), step=2 - lag, lag=lag, log_norm=-seed * lag)
    ...                      for seed in range(3) for lag in range(2)])
    >>> with tempfile.TemporaryDirectory() as dir:
    ...     runs.to_parquet(f"{dir}/runs.parquet")
    ...     steps.to_parquet(f"{dir}/steps.parquet")
    ...     _ = Path(dir, "manifest.json").write_text('{"kind": "gradients"}')
    ...     part = read(dir, ["gain", "log_norm"], {"seed": slice(1, None), "lag": 1})
    >>> part.runs.values.tolist(), part.steps.values.tolist()
    ([['1', 1.0], ['2', 1.0]], [['1', -1.0], ['2', -2.0]])
    """
    folder = dir if isinstance(dir, Folder) else Folder(dir)
    manifest = read_manifest(folder)
    warn_unfinished(folder, manifest)
    about = schema_of(manifest)
    frames = about.frames
    # Where two frames have a column of one name, that of runs counts.
    every = {name: field for frame in reversed(frames.values()) for name, field in frame.items()}
    if isinstance(columns, str) or not isinstance(columns, Iterable | None):
        raise ValueError(f"columns is a list of names, got {_names.show(columns)}")
    if where is not None and not isinstance(where, Mapping):
        text = _names.show(where)
        raise ValueError(f"where is a mapping of columns to what is wanted, got {text}")
    selection = None if columns is None else {"run_id", *columns}
    for name in selection or ():
        _names.choose("column", name, every)
    # Make lists of iterators: every frame reads the values again.
    where = {k: list(v) if isinstance(v, Iterator) else v for k, v in (where or {}).items()}
    for name, value in where.items():
        _names.choose("column in where", name, every)
        _condition(name, every[name], value)
    run_conditions = {name: value for name, value in where.items() if name in frames["runs"]}
    others = {name: value for name, value in where.items() if name not in run_conditions}
    tables: dict[str, pd.DataFrame] = {}
    ids = None
    for frame, fields in frames.items():
        names = [name for name in fields if selection is None or name in selection]
        if frame == "runs":
            tables[frame] = read_frame(folder, about, frame, names, run_conditions)
            if tables[frame].empty:
                _refuse_misspelt(folder, about, run_conditions, names_of or {})
            ids = tables[frame]["run_id"] if run_conditions else None
        elif names == ["run_id"]:
            tables[frame] = schema.coerce([], {"run_id": fields["run_id"]}, frame)
        else:
            own = {name: value for name, value in others.items() if name in fields}
            tables[frame] = read_frame(folder, about, frame, names, own, ids)
    results: Any = schema.TrainingResults if "curves" in tables else schema.Results
    # A measurement may have no steps.
    tables.setdefault("steps", schema.coerce([], {"run_id": schema.RUN_ID}, "steps"))
    return results(**tables, manifest=manifest)


def _refuse_misspelt(folder: Folder, about: Schema, where: Mapping[str, Any], names: Names) -> None:
    """Refuse a text that no run could have: a misspelt one would silently choose no run."""
    for name, condition in where.items():
        valid = _valid(about, name, names)
        texts = [each for each in _to_list(condition) if isinstance(each, str)]
        if valid is None or set(texts).issubset(valid):
            continue
        present = read_frame(folder, about, "runs", [name])[name].dropna().unique()
        for text in texts if len(present) else ():
            _names.choose(f"{name} in where", text, {*valid, *present})


def _valid(about: Schema, name: str, names: Names) -> Iterable[str] | None:
    """The texts that a column may hold besides those of a folder; None if they are not known."""
    if name in schema.LABELS:
        return schema.LABELS[name]
    axis = next((axis for axis in about.axes if axis.name == name), None)
    if axis is None or axis.dtype != "str":
        return None
    if not isinstance(axis.choices, str):
        return axis.choices
    return names[axis.choices]() if axis.choices in names else None if axis.choices else ()


def _to_list(condition: Any) -> list[Any]:
    """The values of a condition as a list; none for a range."""
    several = isinstance(condition, Iterable) and not isinstance(condition, str | bytes | Mapping)
    return [] if isinstance(condition, slice) else list(condition) if several else [condition]


def read_frame(
    folder: Folder,
    about: Schema,
    frame: str,
    columns: Iterable[str] | None = None,
    where: Mapping[str, Any] | None = None,
    ids: Iterable[str] | None = None,
) -> pd.DataFrame:
    """One frame of a folder, or a part of it: `columns` and `where` are those of `read`.

    `about` is the schema from the manifest, and `ids` are the runs to read, or None for all.
    """
    fields = about.frames[frame]
    columns = list(fields if columns is None else columns)
    parts = list(blocks(folder, about, frame, columns, where, ids))
    return _pandas(parts, {name: fields[name] for name in columns}, frame)


def read_manifest(folder: Folder) -> dict[str, Any]:
    """The manifest of a folder of results.

    Raises:
        ValueError: where it is missing, damaged, by a newer gradlab, or of unknown results.
    """
    manifest = _manifest.read(folder)
    schema_of(manifest, f"{folder}/manifest.json")
    return manifest


def warn_unfinished(folder: Folder, manifest: Mapping[str, Any]) -> None:
    """Warn where the frames are older than the spec: its sweep has not ended."""
    if manifest.get("status") == "running" and folder.exists("runs.parquet"):
        warnings.warn(
            f"the sweep in {str(folder)!r} has not ended: its frames are those of before it; "
            "`gradlab status` says what is missing",
            stacklevel=3,
        )


def read_summary(dir: str | Path | Folder) -> pd.DataFrame:
    """The points of the sweep in `dir`: what `summary` or `trained_summary` of its runs gives."""
    folder = dir if isinstance(dir, Folder) else Folder(dir)
    about = schema_of(read_manifest(folder))
    # The other columns are statistics over the seeds: floats.
    dtypes = {n: c.dtype for n, c in about.runs.items() if n in (*about.point, "theory")}
    with open_file(folder, "summary.csv") as file:
        # A text such as "None" or "nan" is no missing value.
        content = io.BytesIO(file.read())
        return pd.read_csv(content, dtype=dtypes, keep_default_na=False, na_values=[""])


def blocks(
    folder: Folder,
    about: Schema,
    frame: str,
    columns: Iterable[str],
    where: Mapping[str, Any] | None = None,
    ids: Iterable[str] | None = None,
) -> Iterator[pa.Table]:
    """Read a frame as `read_frame` does, piece by piece, as tables of pyarrow."""
    fields = about.frames[frame]
    whole = schema.arrow_schema(fields)
    shape = pa.schema([whole.field(name) for name in columns])
    conditions = [_condition(name, fields[name], value) for name, value in (where or {}).items()]
    among = None if ids is None else pa.array(list(ids), whole.field("run_id").type)
    if among is not None:
        conditions.append(pc.field("run_id").isin(among))
    rows = functools.reduce(operator.and_, conditions) if conditions else None
    name = f"{frame}.parquet"
    if frame in about.optional and _is_older(folder, name):
        return
    with _open_verified(folder, name) as file:
        with _damage_in(folder, name):
            parquet = ds.ParquetFileFormat().make_fragment(pa.PythonFile(file, "r"))
            present = parquet.physical_schema.names
            groups = parquet.split_by_row_group(rows, whole)
        for column in present:
            if not column.startswith("__index_level_"):
                _names.choose(f"column of {frame}", column, fields)
        # With fewer runs than row groups most groups hold none of them; counting reads only run_id.
        sparse = among is not None and len(among) < len(groups)
        for group in groups:
            with _damage_in(folder, name):
                if sparse and not group.scanner(whole, filter=rows).count_rows():
                    continue
                table = group.to_table(whole, shape.names, filter=rows)
            yield schema.fit(table, shape, frame)


def count(folder: Folder, frame: str) -> int:
    """How many rows a frame of a folder has."""
    name = f"{frame}.parquet"
    with open_file(folder, name) as file:
        return pq.read_metadata(file).num_rows


def _condition(name: str, column: Column, condition: Any) -> pc.Expression:
    """The rows that meet a condition on a column, as an expression of pyarrow's."""
    field = pc.field(name)
    missing = field.is_null(nan_is_null=True)
    kind = schema.arrow_schema({name: column}).field(name).type

    def to_array(values: list[Any]) -> pa.Array:
        try:
            array = pa.array(values, kind)
            # pyarrow truncates 1.5 to 1 in a list of integers.
            if pa.types.is_integer(kind) and array.to_pylist() != values:
                raise ValueError("not an integer")
            return array
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            text = ", ".join(map(_names.show, values[:5]))
            raise ValueError(
                f"where: column {name!r} is {column.dtype}, got {text}; valid: a value of that "
                "type, None, a list of them, or slice(low, high)"
            ) from None

    def bound(end: Any) -> pa.Scalar:
        # The bounds of integers may be floats.
        is_float = pa.types.is_integer(kind) and isinstance(end, float | np.floating)
        return pa.scalar(float(end)) if is_float else to_array([end])[0]

    if isinstance(condition, slice):
        if condition.step is not None:
            raise ValueError(f"where: a range of {name!r} has two ends and no step")
        rows = ~missing
        if condition.start is not None:
            rows &= field >= bound(condition.start)
        if condition.stop is not None:
            rows &= field <= bound(condition.stop)
        return rows
    if isinstance(condition, np.ndarray) and condition.ndim == 0:
        condition = condition.item()
    values = _to_list(condition)
    present = [v for v in values if not (v is None or v is pd.NA or v != v)]
    rows = field.isin(to_array(present))
    return rows | missing if len(present) < len(values) else rows


def _pandas(parts: list[pa.Table], fields: dict[str, Column], frame: str) -> pd.DataFrame:
    if not parts:
        return schema.coerce([], fields, frame)
    table = pa.concat_tables(parts)
    parts.clear()
    # self_destruct frees each column as soon as pandas has it.
    rows = table.to_pandas(split_blocks=True, self_destruct=True)
    del table
    return schema.coerce(rows, fields, frame)


@contextlib.contextmanager
def open_file(folder: Folder, name: str) -> Iterator[Any]:
    """Open a frame's file or summary.csv for reading, and verify the sums that the manifest has.

    Raises:
        ValueError: where it is missing, or damaged: found here, or in the body of the `with`.
    """
    with _open_verified(folder, name) as file, _damage_in(folder, name):
        yield file


@contextlib.contextmanager
def _open_verified(folder: Folder, name: str) -> Iterator[Any]:
    blocks, files = _sums_of(folder)
    try:
        file = folder.open(name)
    except (FileNotFoundError, NotADirectoryError):
        raise _manifest.missing(folder, name) from None
    with file:
        with _damage_in(folder, name):
            if name in blocks:
                file = _sums.VerifiedFile(file, blocks[name])
            elif name in files:
                if _sums.of_file(file) != files[name]:
                    raise _sums.DamageError("it does not have the sum that it was written with")
                file.seek(0)
        yield file


def _sums_of(folder: Folder) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The sums of blocks and of whole files that a manifest has, each by the file's name."""
    try:
        manifest = read_manifest(folder)
    except _manifest.Missing:
        return {}, {}
    blocks, files = (
        sums if isinstance(sums := manifest.get(name), dict) else {} for name in ("blocks", "files")
    )
    return blocks, files


def _is_older(folder: Folder, name: str) -> bool:
    """Whether a folder is from before there was such a file; one that lost it has its sum."""
    return not any(name in sums for sums in _sums_of(folder)) and not folder.exists(name)


@contextlib.contextmanager
def _damage_in(folder: Folder, name: str) -> Iterator[None]:
    """Name the file in the error where it cannot be read."""
    try:
        yield
    except ReadError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _manifest.damage_error(folder, name, error) from None


def to_csv(dir: str | Path | Folder) -> list[Path | str]:
    """Writes every frame of the results in `dir` as `dir/NAME.csv`; returns their paths.

    Floats are written in full, a zero's log_norm as `-inf`, a missing value as an empty field.
    """
    folder = dir if isinstance(dir, Folder) else Folder(dir)
    manifest = read_manifest(folder)
    warn_unfinished(folder, manifest)
    about = schema_of(manifest)
    paths: list[Path | str] = []
    for frame in about.frames:
        folder.write(f"{frame}.csv", lambda file, frame=frame: _csv(folder, about, frame, file))
        local = folder.local
        paths.append(f"{folder}/{frame}.csv" if local is None else local / f"{frame}.csv")
    return paths


def _csv(folder: Folder, about: Schema, frame: str, file: Any) -> None:
    fields = about.frames[frame]
    head = schema.coerce([], fields, frame)
    file.write(head.to_csv(index=False, lineterminator="\n").encode())
    for table in blocks(folder, about, frame, fields):
        for place in range(0, len(table), _BATCH):
            rows = _pandas([table.slice(place, _BATCH)], fields, frame)
            file.write(rows.to_csv(index=False, header=False, lineterminator="\n").encode())
