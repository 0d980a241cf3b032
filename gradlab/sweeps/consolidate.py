"""From the chunks to the frames, in an order that nothing but the runs decides, in little memory.

The rows of the chunks are brought in order as an external sort does it. A first pass reads the
coordinates alone and gives each run its place among all. A second one reads whole chunks, those
with the first places first, and lets rows go as soon as no chunk to come can hold an earlier one;
where too many wait, as with chunks in which distant runs stand together, they are put aside, in
order, into a temporary file, and merged from there.
"""

# pyarrow's own annotations do not know the functions that it makes as it is imported.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

import collections
import functools
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gradlab import _sums, frames
from gradlab._files import Folder

if TYPE_CHECKING:
    from gradlab.sweeps.store import Kind

# Bytes of rows that may wait for earlier ones; more are put aside.
WAITING = 2**25
# Bytes of rows that are made into frames at a time, and that are read back at a time.
BLOCK, PIECE = 2**24, 2**20
# Rows of a row group: what reading a part of a frame takes at least.
GROUPS = {"runs": 2**14}
GROUP = 2**20
# Runs that are summarized at a time, whole points only.
SUMMARIZED = 2**15

COUNTED = ("status", "device", "precision")

CHUNK = re.compile(r"chunks/([0-9a-f]{16})-([0-9a-f]{16})\.parquet")
"""The name of a chunk: KEY-SUM, as `store` says."""


def sum_in(name: str) -> str | None:
    """The sum of its content in the name of a chunk; None where the name has none."""
    match = CHUNK.fullmatch(name)
    return match and match[2]


def consolidate(
    folder: Folder, names: Iterable[str], kind: Kind
) -> dict[str, collections.Counter[str]]:
    """Write the frames and summary.csv of a folder from its chunks.

    The runs stand in the order of `frames.ORDER`, then of their seeds, and the other frames follow
    them: the files are the same, byte by byte, in whatever chunks the same rows came. A run that
    is in two chunks counts once, as one that did not fail if there is one.

    Args:
        folder: where to write; each file is there whole or not at all.
        names: the chunks' files in it.
        kind: what the rows are.

    Returns:
        How many runs have each status, device and precision.

    Raises:
        ValueError: where there is no chunk, or one is missing, damaged or has columns that are not
            known.

    It holds some 200 bytes for each run while it finds their order, and then not more than
    `WAITING` bytes of rows, a chunk, a row group and a few blocks.
    """
    names = sorted(names)
    if not names:
        raise ValueError(f"{folder} holds no chunks to make frames of")
    index, counts = _index(folder, names, kind)
    schemas = {
        name: frames.arrow_schema(fields) for name, fields in frames.KINDS[kind.name].items()
    }
    files = [*(f"{name}.parquet" for name in schemas), "summary.csv"]

    def fill(*opened: Any) -> None:
        tables = [
            _Parquet(file, schema, GROUPS.get(name, GROUP))
            for file, (name, schema) in zip(opened[:-1], schemas.items(), strict=True)
        ]
        points = _Points(opened[-1], kind.name)
        done = 0
        for rows in _ordered(folder, names, kind, index):
            made = (rows.select(schemas["runs"].names), *kind.split(rows))
            for table, part in zip(tables, made, strict=True):
                table.add(part)
            points.add(made[0], index.points[done : done + len(rows)])
            done += len(rows)
        for table in tables:
            table.close()
        points.close()

    _together(folder, files, fill)
    return counts


@functools.cache
def chunk_schema(kind: str, lists: tuple[tuple[str, pa.DataType], ...]) -> pa.Schema:
    """The columns of a chunk: those of runs, and the lists that the other frames are made of."""
    schema = frames.arrow_schema(frames.KINDS[kind]["runs"])
    for name, item in lists:
        schema = schema.append(pa.field(name, pa.list_(item)))
    return schema


def lists(rows: pa.Table, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The items of a column of lists, one list after another, and how many each list has.

    >>> lists(pa.table({"lags": [[0, 1, 2], [], [5]]}), "lags")
    (array([0, 1, 2, 5]), array([3, 0, 1]))
    """
    column = rows[name].combine_chunks()
    counts = pc.list_value_length(column).fill_null(0).to_numpy()
    return column.flatten().to_numpy(), counts.astype(np.int64)


def _together(
    folder: Folder, names: Sequence[str], fill: Callable[..., None], opened: tuple[Any, ...] = ()
) -> None:
    """`Folder.write` of several files at once; the first one takes its name last."""
    if not names:
        fill(*opened)
        return
    rest = names[1:]
    folder.write(names[0], lambda file: _together(folder, rest, fill, (*opened, file)))


class _Index(NamedTuple):
    """Where the rows of the chunks belong.

    Attributes:
        places: for each chunk its rows' places among all runs; -1 for a row that is left out.
        points: for each place the point of the sweep that the run is of; they increase.
    """

    places: list[np.ndarray]
    points: np.ndarray


def _index(
    folder: Folder, names: Sequence[str], kind: Kind
) -> tuple[_Index, dict[str, collections.Counter[str]]]:
    axes = frames.ORDER[kind.name]
    runs = frames.arrow_schema(frames.KINDS[kind.name]["runs"])
    wanted = dict.fromkeys(("run_id", *axes, "seed", *COUNTED))
    schema = pa.schema([runs.field(name) for name in wanted])
    values = {name: _Values(field.type) for name, field in zip(wanted, schema, strict=True)}
    ids, sizes = [], []
    for name in names:
        table = _chunk(folder, name, kind, schema)
        sizes.append(len(table))
        ids.append(table["run_id"].combine_chunks())
        for column, found in values.items():
            if column != "run_id":
                found.add(table[column])
    ids = pa.chunked_array(ids, pa.large_string()).combine_chunks()
    names_ = pc.rank(ids, tiebreaker="dense").to_numpy().astype(np.int64)
    del ids
    failed = values["status"].equal("failed")
    # The first of each name, one that did not fail if there is one.
    order = np.lexsort((failed, names_))
    kept = order[np.diff(names_[order], prepend=-1) > 0]
    counts = {name: values[name].counts(kept) for name in COUNTED}
    point = np.zeros(len(kept), np.int64)
    for axis in axes:
        rank = values[axis].ranks(kept)
        _, point = np.unique(point * (rank.max(initial=0) + 1) + rank, return_inverse=True)
    order = np.lexsort((names_[kept], values["seed"].ranks(kept), point))
    places = np.full(sum(sizes), -1, np.int64)
    places[kept[order]] = np.arange(len(kept))
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
        encoded = values.dictionary_encode()
        known = self._strings
        codes = [known.setdefault(value, len(known)) for value in encoded.dictionary.to_pylist()]
        indices = encoded.indices.fill_null(len(codes)).to_numpy(zero_copy_only=False)
        self._parts.append(np.array([*codes, -1], np.int32)[indices])

    def _all(self) -> np.ndarray:
        self._parts = [np.concatenate(self._parts)]
        return self._parts[0]

    def equal(self, value: str) -> np.ndarray:
        assert self._strings is not None
        return self._all() == self._strings.get(value, -2)

    def counts(self, kept: np.ndarray) -> collections.Counter[str]:
        assert self._strings is not None
        found = np.bincount(self._all()[kept] + 1, minlength=len(self._strings) + 1)[1:]
        pairs = zip(self._strings, found.tolist(), strict=True)
        return collections.Counter({value: count for value, count in sorted(pairs) if count})

    def ranks(self, kept: np.ndarray) -> np.ndarray:
        """The place of each value among the different ones; a missing one is the last."""
        values = self._all()[kept]
        if self._strings is None:
            return np.unique(values, return_inverse=True)[1]
        places = np.empty(len(self._strings) + 1, np.int64)
        for place, value in enumerate(sorted(self._strings)):
            places[self._strings[value]] = place
        places[-1] = len(self._strings)
        return places[values]


def _chunk(folder: Folder, name: str, kind: Kind, schema: pa.Schema) -> pa.Table:
    """The columns of a schema in one chunk; those that an older chunk lacks are filled."""
    known = {*frames.KINDS[kind.name]["runs"], *kind.lists}
    try:
        content = folder.read(name)
        if sum_in(name) not in (None, _sums.of_bytes(content)):
            raise _sums.Damaged("it does not have the sum in its name")
        parquet = pq.ParquetFile(pa.BufferReader(content))
        present = parquet.schema_arrow.names
        table = parquet.read([n for n in schema.names if n in present], use_threads=False)
    except FileNotFoundError:
        raise ValueError(f"{folder}/{name} is missing") from None
    except (pa.ArrowException, OSError, _sums.Damaged) as error:
        raise ValueError(f"{folder}/{name} is damaged: {str(error).splitlines()[0]}") from None
    unknown = sorted(set(present) - known)
    if unknown:
        raise ValueError(f"{folder}/{name} has a column that is not known: {unknown[0]!r}")
    return frames.fit(table, schema, name)


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
        taken = []
        while self._head is not None:
            places, table = self._head
            cut = int(np.searchsorted(places, below))
            if cut:
                taken.append((places[:cut], table.slice(0, cut)))
            if cut < len(places):
                self._head = places[cut:], table.slice(cut)
                break
            self._head = next(self._pieces, None)
        return taken


def _ordered(folder: Folder, names: Sequence[str], kind: Kind, index: _Index) -> Iterator[pa.Table]:
    """All rows in their order, a block at a time."""
    schema = chunk_schema(kind.name, tuple(kind.lists.items()))
    total = len(index.points)
    starts = np.array([places[places >= 0].min(initial=total) for places in index.places])
    queue = [int(chunk) for chunk in np.argsort(starts, kind="stable") if starts[chunk] < total]
    ends = [*starts[queue[1:]].tolist(), total]
    waiting: list[_Source] = []
    aside: list[_Source] = []
    done = 0
    with tempfile.TemporaryDirectory() as temporary:
        for chunk, end in zip(queue, ends, strict=True):
            table = _chunk(folder, names[chunk], kind, schema)
            size = table.nbytes
            block = max(1, BLOCK * len(table) // size)
            piece = _sorted([(index.places[chunk], table)])
            del table
            waiting.append(_Source(iter([piece]), size))
            del piece
            while done < end and (end == total or end - done >= block):
                below = min(done + block, end)
                yield _sorted([p for s in (*waiting, *aside) for p in s.take(below)])[1]
                done = below
                waiting = [source for source in waiting if not source.empty()]
                aside = [source for source in aside if not source.empty()]
            if sum(source.size for source in waiting) > WAITING:
                rest = _sorted([piece for source in waiting for piece in source.take(total)])
                waiting.clear()
                path = Path(temporary) / f"{len(aside)}-{chunk}.arrow"
                _put_aside(path, rest, max(1, PIECE * len(rest[1]) // rest[1].nbytes))
                del rest
                aside.append(_Source(_read_back(path)))


def _sorted(pieces: Sequence[Piece]) -> Piece:
    """The rows of several pieces in their order, without those that have no place."""
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
        # A norm is its own value nearly always: its bytes are packed, not looked up.
        packed = [name for name in schema.names if name == "log_norm"]
        self._writer = pq.ParquetWriter(
            file,
            schema,
            compression="zstd",
            use_dictionary=[name for name in schema.names if name not in packed],
            column_encoding=dict.fromkeys(packed, "BYTE_STREAM_SPLIT") or None,
        )
        self._parts: list[pa.Table] = []
        self._held = 0

    def add(self, table: pa.Table) -> None:
        self._parts.append(table.cast(self._schema))
        self._held += len(table)
        while self._held >= self._rows:
            self._write(self._rows)

    def close(self) -> None:
        if self._held:
            self._write(self._held)
        self._writer.close()

    def _write(self, rows: int) -> None:
        whole = pa.concat_tables(self._parts)
        # One piece for each column: how the rows came must not show in the file's pages.
        group = whole.slice(0, rows).combine_chunks()
        self._parts = [whole.slice(rows)]
        self._held -= rows
        self._writer.write_table(group, row_group_size=rows)


class _Points:
    """summary.csv, a batch of whole points at a time: the same batches however the rows come."""

    def __init__(self, file: Any, kind: str) -> None:
        self._file, self._kind = file, kind
        self._parts: list[pa.Table] = []
        self._points: list[np.ndarray] = []
        self._head = True

    def add(self, runs: pa.Table, points: np.ndarray) -> None:
        self._parts.append(runs)
        self._points.append(points)
        while sum(map(len, self._points)) > SUMMARIZED:
            points = np.concatenate(self._points)
            # The points that end within the batch; if none does, the first one when it ends.
            rows = int(np.searchsorted(points, points[SUMMARIZED]))
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
        fields = frames.KINDS[self._kind]["runs"]
        runs = frames.coerce(whole.slice(0, rows).to_pandas(), fields, "runs")
        text = frames.SUMMARIES[self._kind](runs).to_csv(
            index=False, header=self._head, lineterminator="\n"
        )
        self._head = False
        self._file.write(text.encode())
