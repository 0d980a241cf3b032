"""From the chunks to the frames, in an order that nothing but the runs decides, in little memory.

The rows of the chunks are brought in order as an external sort does it. A first pass reads the
coordinates alone and gives each run its place among all. A second one reads whole chunks, those
with the first places first, and lets rows go as soon as no chunk to come can hold an earlier one;
where too many wait, as with chunks in which distant runs stand together, they are put aside, in
order, into a temporary file, and merged from there.
"""

from __future__ import annotations

import collections
import contextlib
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gradlab import _sums, frames
from gradlab._files import Folder, ReadError
from gradlab.frames import Schema

# Bytes of rows that may wait for earlier ones; more are put aside.
WAITING = 2**25
# Bytes of rows that are made into frames at a time, and that are read back at a time.
BLOCK, PIECE = 2**24, 2**20
# Rows of a row group: what reading a part of a frame takes at least.
GROUPS = {"runs": 2**14}
GROUP = 2**20
# Runs that are summarized at a time; a point is never split.
SUMMARY_BATCH = 2**15

# Columns of runs whose values are counted for the manifest.
CATEGORIES = ("status", "device", "precision")

CHUNK = re.compile(r"chunks/([0-9a-f]{16})-([0-9a-f]{16})\.parquet")
"""The name of a chunk: KEY-SUM, as `store` says."""


def sum_in(name: str) -> str | None:
    """The sum of its content in the name of a chunk; None where the name has none."""
    match = CHUNK.fullmatch(name)
    return match and match[2]


def consolidate(
    folder: Folder, names: Iterable[str], schema: Schema, into: Folder | None = None
) -> tuple[Schema, dict[str, collections.Counter[str]]]:
    """Write the frames and summary.csv of a folder from its chunks.

    The runs stand in the order of `Schema.order`, then of their seeds, and the other frames follow
    them: the files are the same, byte by byte, in whatever chunks the same rows came. A run that
    is in two chunks counts once, as one that did not fail if there is one.

    Args:
        folder: where the chunks are.
        names: their files in it.
        schema: what the rows hold.
        into: where to write, the same folder by default; each file is there whole or not at all.

    Returns:
        The schema, with the columns that an open one got from the chunks, and how many runs have
        each status, device and precision.

    Raises:
        ValueError: where there is no chunk, or one is missing, damaged or has columns that are not
            known.

    It holds some 200 bytes for each run while it finds their order, and then not more than
    `WAITING` bytes of rows, a chunk, a row group and a few blocks.
    """
    names = sorted(names)
    if not names:
        raise ValueError(f"{folder} holds no chunks to make frames of")
    schema = _widen(folder, names, schema)
    index, counts = _index(folder, names, schema)
    schemas = {name: frames.arrow_schema(fields) for name, fields in schema.frames.items()}
    files = [*(f"{name}.parquet" for name in schemas), "summary.csv"]

    def fill(*outputs: Any) -> None:
        tables = [
            _Parquet(file, schema, GROUPS.get(name, GROUP))
            for file, (name, schema) in zip(outputs[:-1], schemas.items(), strict=True)
        ]
        points = _Points(outputs[-1], schema)
        start = 0
        try:
            for rows in _sort_rows(folder, names, schema, index):
                runs = rows.select(schemas["runs"].names)
                for table, name in zip(tables, schemas, strict=True):
                    table.add(runs if name == "runs" else _unfold(rows, name, schema.tables[name]))
                points.add(runs, index.points[start : start + len(rows)])
                start += len(rows)
            for table in tables:
                table.close()
            points.close()
        except BaseException:
            for table in tables:
                table.abandon()
            raise

    _write_all(into or folder, files, fill)
    return schema, counts


def chunk_schema(schema: Schema) -> pa.Schema:
    """The columns of a chunk: those of runs, and for each of another frame a list for each run."""
    runs = frames.arrow_schema(schema.runs)
    lists = [
        pa.field(f"{frame}.{field.name}", pa.list_(field.type))
        for frame, fields in schema.tables.items()
        for field in frames.arrow_schema(fields)
    ]
    return pa.schema([*runs, *lists], runs.metadata)


def _widen(folder: Folder, names: Sequence[str], schema: Schema) -> Schema:
    """Add the columns of the chunks to an open schema, in their order where all agree on it."""
    if not schema.is_open:
        return schema
    rows = []
    for name in names:
        with _readable(folder, name) as parquet:
            row: dict[str, Any] = {}
            for column in parquet.schema_arrow.names:
                frame, dot, rest = column.partition(".")
                if dot:
                    row.setdefault(frame, {})[rest] = None
                else:
                    row[column] = None
            rows.append(row)
    if len({tuple(row) for row in rows}) > 1:
        rows = [dict(sorted(row.items())) for row in rows]
    return schema.widen(rows)


def _unfold(rows: pa.Table, frame: str, fields: frames.Columns) -> pa.Table:
    """The rows of another frame, which stand as lists in the rows of runs.

    >>> rows = pa.table({"run_id": ["a", "b"], "steps.lag": [[0, 1], [5]]})
    >>> _unfold(rows, "steps", {"lag": frames.Column("int64", "", "")}).to_pydict()
    {'run_id': ['a', 'a', 'b'], 'lag': [0, 1, 5]}
    """
    lists = {name: rows[f"{frame}.{name}"].combine_chunks() for name in fields}
    first = next(iter(lists.values()))
    counts = pc.call_function("list_value_length", [first]).fill_null(0).to_numpy()
    run = pa.array(np.repeat(np.arange(len(rows)), counts.astype(np.int64)))
    columns: dict[str, Any] = {"run_id": rows["run_id"].combine_chunks().take(run)}
    for name, column in lists.items():
        items = column.flatten()
        # A number that is not finite is a missing value in a frame.
        is_float = pa.types.is_floating(items.type)
        columns[name] = pa.array(items.to_numpy(), from_pandas=True) if is_float else items
    return pa.table(columns)


def _write_all(
    folder: Folder, names: Sequence[str], fill: Callable[..., None], outputs: tuple[Any, ...] = ()
) -> None:
    """Write several files at once with `Folder.write`; the first one gets its name last."""
    if not names:
        fill(*outputs)
        return
    rest = names[1:]
    folder.write(names[0], lambda file: _write_all(folder, rest, fill, (*outputs, file)))


class _Index(NamedTuple):
    """Where the rows of the chunks belong.

    Attributes:
        places: for each chunk its rows' places among all runs; -1 for a row that is left out.
        points: for each place the point of the sweep that the run is of; they increase.
    """

    places: list[np.ndarray]
    points: np.ndarray


def _index(
    folder: Folder, names: Sequence[str], schema: Schema
) -> tuple[_Index, dict[str, collections.Counter[str]]]:
    axes = schema.order
    runs = frames.arrow_schema(schema.runs)
    categories = [name for name in CATEGORIES if name in runs.names]
    columns = dict.fromkeys(("run_id", *axes, "seed", *categories))
    shape = pa.schema([runs.field(name) for name in columns])
    values = {name: _Values(field.type) for name, field in zip(columns, shape, strict=True)}
    ids, sizes = [], []
    for name in names:
        table = _chunk(folder, name, schema, shape)
        sizes.append(len(table))
        ids.append(table["run_id"].combine_chunks())
        for column, column_values in values.items():
            if column != "run_id":
                column_values.add(table[column])
    ids = pa.chunked_array(ids, pa.large_string()).combine_chunks()
    dense = pc.RankOptions(tiebreaker="dense")
    names_ = pc.call_function("rank", [ids], dense).to_numpy().astype(np.int64)
    del ids
    failed = values["status"].equal("failed")
    # The first row of each run_id, one that did not fail if there is one.
    order = np.lexsort((failed, names_))
    rows = order[np.diff(names_[order], prepend=-1) > 0]
    counts = {name: values[name].counts(rows) for name in categories}
    point = np.zeros(len(rows), np.int64)
    for axis in axes:
        rank = values[axis].ranks(rows)
        _, point = np.unique(point * (rank.max(initial=0) + 1) + rank, return_inverse=True)
    order = np.lexsort((names_[rows], values["seed"].ranks(rows), point))
    places = np.full(sum(sizes), -1, np.int64)
    places[rows[order]] = np.arange(len(rows))
    return _Index(np.split(places, np.cumsum(sizes)[:-1]), point[order]), counts


class _Values:
    """One column of all chunks, held as 4 bytes (a string) or 8 (a number) a row."""

    def __init__(self, kind: pa.DataType) -> None:
        self._strings: dict[str, int] | None = {} if pa.types.is_large_string(kind) else None
        self._parts: list[np.ndarray] = []

    def add(self, column: pa.ChunkedArray) -> None:
        values = column.combine_chunks()
        if self._strings is None:
            self._parts.append(values.cast(pa.float64()).to_numpy(zero_copy_only=False))
            return
        encoding = values.dictionary_encode()
        strings = self._strings
        codes = [strings.setdefault(text, len(strings)) for text in encoding.dictionary.to_pylist()]
        indices = encoding.indices.fill_null(len(codes)).to_numpy(zero_copy_only=False)
        self._parts.append(np.array([*codes, -1], np.int32)[indices])

    def _all(self) -> np.ndarray:
        self._parts = [np.concatenate(self._parts)]
        return self._parts[0]

    def equal(self, value: str) -> np.ndarray:
        assert self._strings is not None
        return self._all() == self._strings.get(value, -2)

    def counts(self, rows: np.ndarray) -> collections.Counter[str]:
        assert self._strings is not None
        numbers = np.bincount(self._all()[rows] + 1, minlength=len(self._strings) + 1)[1:]
        pairs = zip(self._strings, numbers.tolist(), strict=True)
        return collections.Counter({value: count for value, count in sorted(pairs) if count})

    def ranks(self, rows: np.ndarray) -> np.ndarray:
        """The place of each value among the different ones; a missing one is the last."""
        values = self._all()[rows]
        if self._strings is None:
            return np.unique(values, return_inverse=True)[1]
        places = np.empty(len(self._strings) + 1, np.int64)
        for place, value in enumerate(sorted(self._strings)):
            places[self._strings[value]] = place
        places[-1] = len(self._strings)
        return places[values]


@contextlib.contextmanager
def _readable(folder: Folder, name: str) -> Iterator[pq.ParquetFile]:
    """A chunk's file, with its sum verified; what is wrong with it is a ValueError."""
    try:
        content = folder.read(name)
        if sum_in(name) not in (None, _sums.of_bytes(content)):
            raise _sums.DamageError("it does not have the sum in its name")
        yield pq.ParquetFile(pa.BufferReader(content))
    except FileNotFoundError:
        raise ValueError(f"{folder}/{name} is missing") from None
    except ReadError:
        raise
    except (pa.ArrowException, OSError, _sums.DamageError) as error:
        raise ValueError(f"{folder}/{name} is damaged: {str(error).splitlines()[0]}") from None


def _chunk(folder: Folder, name: str, schema: Schema, shape: pa.Schema) -> pa.Table:
    """Some columns of one chunk; those that an older chunk lacks are filled."""
    with _readable(folder, name) as parquet:
        present = parquet.schema_arrow.names
        table = parquet.read([n for n in shape.names if n in present], use_threads=False)
    unknown = sorted({*present} - {*chunk_schema(schema).names})
    if unknown:
        raise ValueError(f"{folder}/{name} has a column that is not known: {unknown[0]!r}")
    return frames.fit(table, shape, name)


Piece = tuple[np.ndarray, pa.Table]
"""Rows in their order, and the place of each."""


class _Source:
    """Rows in their order, given out from the front."""

    def __init__(self, pieces: Iterator[Piece], size: int = 0) -> None:
        self.size = size  # bytes that it holds until it is empty
        self._pieces = pieces
        self._head = next(pieces, None)

    def empty(self) -> bool:
        return self._head is None

    def take(self, below: int) -> list[Piece]:
        """The rows whose places are below one."""
        pieces = []
        while self._head is not None:
            places, table = self._head
            cut = int(np.searchsorted(places, below))
            if cut:
                pieces.append((places[:cut], table.slice(0, cut)))
            if cut < len(places):
                self._head = places[cut:], table.slice(cut)
                break
            self._head = next(self._pieces, None)
        return pieces


def _sort_rows(
    folder: Folder, names: Sequence[str], schema: Schema, index: _Index
) -> Iterator[pa.Table]:
    """Yield all rows sorted, a block at a time."""
    shape = chunk_schema(schema)
    total = len(index.points)
    starts = np.array([places[places >= 0].min(initial=total) for places in index.places])
    queue = [int(chunk) for chunk in np.argsort(starts, kind="stable") if starts[chunk] < total]
    ends = [*starts[queue[1:]].tolist(), total]
    waiting: list[_Source] = []
    aside: list[_Source] = []
    start = 0
    with tempfile.TemporaryDirectory() as temporary:
        for chunk, end in zip(queue, ends, strict=True):
            table = _chunk(folder, names[chunk], schema, shape)
            size = table.nbytes
            block = max(1, BLOCK * len(table) // size)
            piece = _merge([(index.places[chunk], table)])
            del table
            waiting.append(_Source(iter([piece]), size))
            del piece
            while start < end and (end == total or end - start >= block):
                below = min(start + block, end)
                yield _merge([p for s in (*waiting, *aside) for p in s.take(below)])[1]
                start = below
                waiting = [source for source in waiting if not source.empty()]
                aside = [source for source in aside if not source.empty()]
            if sum(source.size for source in waiting) > WAITING:
                rest = _merge([piece for source in waiting for piece in source.take(total)])
                waiting.clear()
                path = Path(temporary) / f"{len(aside)}-{chunk}.arrow"
                _put_aside(path, rest, max(1, PIECE * len(rest[1]) // rest[1].nbytes))
                del rest
                aside.append(_Source(_read_back(path)))


def _merge(pieces: Sequence[Piece]) -> Piece:
    """Sort the rows of several pieces by place, and drop those that have none."""
    places = np.concatenate([places for places, _ in pieces])
    table = pa.concat_tables([table for _, table in pieces])
    if len(places) and places[0] >= 0 and (np.diff(places) > 0).all():
        return places, table
    order = np.argsort(places, kind="stable")[np.count_nonzero(places < 0) :]
    return places[order], table.combine_chunks().take(pa.array(order))


def _put_aside(path: Path, piece: Piece, rows: int) -> None:
    places, table = piece
    table = table.append_column("place", pa.array(places)).replace_schema_metadata()
    options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
    with pa.ipc.new_stream(str(path), table.schema, options=options) as stream:
        stream.write_table(table, max_chunksize=rows)


def _read_back(path: Path) -> Iterator[Piece]:
    with path.open("rb") as file, pa.ipc.open_stream(file) as stream:
        for batch in stream:
            table = pa.table(batch)
            yield table["place"].to_numpy(), table.drop_columns("place")
    path.unlink()


class _Parquet:
    """A parquet file whose row groups do not depend on how its rows come."""

    def __init__(self, file: Any, schema: pa.Schema, rows: int) -> None:
        self._schema, self._rows = schema, rows
        # Norms hardly ever repeat: a dictionary would not pay, so pack their bytes.
        norms = [name for name in schema.names if name == "log_norm"]
        self._writer = pq.ParquetWriter(
            file,
            schema,
            compression="zstd",
            # pyarrow's own annotation forgets the names.
            use_dictionary=[n for n in schema.names if n not in norms],  # pyright: ignore[reportArgumentType]
            column_encoding=dict.fromkeys(norms, "BYTE_STREAM_SPLIT") or None,
        )
        self._parts: list[pa.Table] = []
        self._size = 0

    def add(self, table: pa.Table) -> None:
        self._parts.append(table.cast(self._schema))
        self._size += len(table)
        while self._size >= self._rows:
            self._write(self._rows)

    def close(self) -> None:
        if self._size:
            self._write(self._size)
        self._writer.close()

    def abandon(self) -> None:
        """Leave the file as it is: pyarrow would end it later, in a file that is closed by then."""
        self._writer.is_open = False

    def _write(self, rows: int) -> None:
        whole = pa.concat_tables(self._parts)
        # One piece for each column: how the rows came must not show in the file's pages.
        group = whole.slice(0, rows).combine_chunks()
        self._parts = [whole.slice(rows)]
        self._size -= rows
        self._writer.write_table(group, row_group_size=rows)


class _Points:
    """summary.csv, a batch of whole points at a time: the same batches however the rows come."""

    def __init__(self, file: Any, schema: Schema) -> None:
        self._file, self._schema = file, schema
        self._parts: list[pa.Table] = []
        self._points: list[np.ndarray] = []
        self._head = True

    def add(self, runs: pa.Table, points: np.ndarray) -> None:
        self._parts.append(runs)
        self._points.append(points)
        while sum(map(len, self._points)) > SUMMARY_BATCH:
            points = np.concatenate(self._points)
            # The points that end within the batch; if none does, the first one when it ends.
            rows = int(np.searchsorted(points, points[SUMMARY_BATCH]))
            rows = rows or int(np.searchsorted(points, points[0], side="right"))
            if rows == len(points):
                return
            self._write(rows)

    def close(self) -> None:
        self._write(sum(map(len, self._points)))

    def _write(self, rows: int) -> None:
        if not rows:
            return
        whole, points = pa.concat_tables(self._parts), np.concatenate(self._points)
        self._parts, self._points = [whole.slice(rows)], [points[rows:]]
        runs = frames.coerce(whole.slice(0, rows).to_pandas(), self._schema.runs, "runs")
        text = self._schema.summarize(runs, self._schema).to_csv(
            index=False, header=self._head, lineterminator="\n"
        )
        self._head = False
        self._file.write(text.encode())
