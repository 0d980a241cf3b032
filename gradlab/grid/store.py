"""Where results are kept: one immutable, self-checking file per finished chunk of runs.

DIR/chunks/KEY-SUM.parquet holds the rows of one chunk. KEY names what the file answers for: the
runs in it (whose ids follow from their coordinates and from what else decides their numbers) and
the format of the file; SUM names its bytes, so a file that was cut short or changed is found out
by its own name. Its metadata say when, where and in what time it was measured. All else (the
frames, the summary, the figures) is made from the chunks and can be made again.

DIR is a folder of this machine or an fsspec address. One sweep at a time holds it.
"""

from __future__ import annotations

import collections
import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from gradlab import _manifest, _names, _sums
from gradlab._files import Folder
from gradlab.frames import FORMAT, KINDS, Schema, describe
from gradlab.grid import consolidate
from gradlab.grid.locks import Check, Unwritable, hold
from gradlab.grid.manifest import content_of
from gradlab.grid.measurement import code_in
from gradlab.grid.plan import Plan

# What a folder of results may hold; anything else in it is somebody's and stays untouched.
_CHUNK = consolidate.CHUNK
_TEMPORARY = re.compile(r"(.*/)?\.[0-9a-f]{32}\.tmp")
_FRAMES = {f"{name}.parquet" for schema in KINDS.values() for name in schema.frames}
_OURS = (*_FRAMES, "summary.csv", "manifest.json", "report.html", ".lock")
_METADATA = b"gradlab"


def encode(schema: Schema, rows: Sequence[dict[str, Any]], facts: dict[str, Any]) -> bytes:
    """The rows of one chunk as the content of a file; facts are its metadata.

    Raises:
        ValueError: where a row has a column that the frames do not know, or another type of value.
    """
    shape = consolidate.chunk_schema(schema.widen(rows))
    flat = [_flatten(row, schema) for row in rows]
    for name in {name for row in flat for name in row}:
        _names.choose("column of runs", name, shape.names)
    columns = [
        # A number that is missing is none; within a list NaN is a norm that is not finite.
        pa.array(
            [row.get(field.name) for row in flat],
            field.type,
            from_pandas=not pa.types.is_list(field.type),
        )
        for field in shape
    ]
    text = json.dumps({"format": FORMAT, **facts}).encode()
    table = pa.table(columns, shape.with_metadata({_METADATA: text}))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def _flatten(row: dict[str, Any], schema: Schema) -> dict[str, Any]:
    """A row whose other frames stand as columns of lists: {"steps": {"lag": …}} as "steps.lag"."""
    flat = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{column}": items for column, items in value.items()}
        else:
            flat[name] = value
    return flat


class Chunk(NamedTuple):
    """What a chunk's file says: its runs, their status and reason, and its metadata."""

    run_ids: list[str]
    failed: dict[str, str]
    facts: dict[str, Any]


def decode(source: Any, folder: Any = "this folder") -> Chunk:
    """Read what a chunk's file says of its runs, without their numbers.

    Raises:
        ValueError: where a newer gradlab wrote it.
    """
    file = pq.ParquetFile(source)
    facts = read_facts(file, folder)
    names = [n for n in ("run_id", "status", "reason") if n in file.schema_arrow.names]
    table = file.read(columns=names).to_pydict()
    reasons = table.get("reason", [None] * len(table["run_id"]))
    rows = zip(table["run_id"], table["status"], reasons, strict=True)
    failures = {name: str(reason) for name, status, reason in rows if status == "failed"}
    return Chunk(table["run_id"], failures, facts)


def read_facts(file: pq.ParquetFile, folder: Any = "this folder") -> dict[str, Any]:
    """Read the metadata of a chunk's file.

    Raises:
        ValueError: where a newer gradlab wrote it.
    """
    facts = json.loads((file.metadata.metadata or {}).get(_METADATA, b"{}"))
    _manifest.check_format(folder, facts.get("format", 0))
    return facts


class Store:
    """One folder of results, held by one sweep at a time (`with open_store(...) as store`)."""

    def __init__(self, folder: Folder, plan: Plan, check_hold: Check = lambda: None) -> None:
        self.folder = folder
        self._check_hold = check_hold
        self.measurement = plan.measurement
        self.schema = plan.measurement.schema
        self._code = self.measurement.code(plan.values())
        self._codes = {"", *(code for axes in plan.grids for code in axes["code"])}
        self.run_ids: set[str] = set()  # ids of the runs that are stored
        self.failed: dict[str, str] = {}  # those of them that have only a reason
        self.damaged: list[str] = []  # chunks that are not what their name says
        self.chunks: dict[str, dict[str, Any]] = {}  # what the others say of themselves
        # The sums of the frames that stand there: they may be read while this sweep runs.
        self.blocks: dict[str, Any] = _manifest.find(folder).get("blocks") or {}
        for name in chunk_names(folder):
            content = folder.read(name)
            if is_whole(name, content):
                self._enter(name, content)
            else:
                self.damaged.append(name)

    def _enter(self, name: str, content: bytes) -> None:
        chunk = decode(pa.BufferReader(content), self.folder)
        if any(code_in(run) not in self._codes for run in chunk.run_ids):
            # Measured with code of the user's that has changed since. Should it change back, the
            # chunk counts again.
            return
        again = self.run_ids.intersection(chunk.run_ids)
        # Of a run that was tried again, the numbers count.
        self.failed = {k: v for k, v in self.failed.items() if k not in again - chunk.failed.keys()}
        self.failed |= {k: v for k, v in chunk.failed.items() if k not in again}
        self.run_ids.update(chunk.run_ids)
        self.chunks[name] = {"runs": len(chunk.run_ids), **chunk.facts}

    def add(self, run_ids: Sequence[str], content: bytes) -> None:
        """Store one chunk, whole or not at all."""
        text = json.dumps([FORMAT, self.measurement.kind, *sorted(run_ids)])
        name = f"chunks/{_sums.of_bytes(text.encode())}-{_sums.of_bytes(content)}.parquet"
        self._write(name, content)
        self._enter(name, content)

    def forget_failures(self) -> None:
        """Remove the chunks of runs that failed, so that they are run again."""
        for name in [n for n in self.chunks if self.chunks[n].get("failed")]:
            self.folder.remove(name)
            del self.chunks[name]
        self.run_ids -= self.failed.keys()
        self.failed = {}

    def consolidate(self) -> dict[str, collections.Counter[str]]:
        """Write the frames and the summary from the chunks; see `consolidate`."""
        self._check_hold()
        self.schema, counts = consolidate.consolidate(self.folder, self.chunks, self.schema)
        self.blocks = {}
        for name in self.outputs:
            with self.folder.open(name) as file:
                self.blocks[name] = _sums.of_blocks(file)
        return counts

    @property
    def outputs(self) -> tuple[str, ...]:
        """The files that are made from the chunks."""
        return (*(f"{name}.parquet" for name in self.schema.frames), "summary.csv")

    def is_complete(self, spec: dict[str, Any]) -> bool:
        """Whether all that follows from the chunks is there as it was written, for this spec."""
        manifest = _manifest.find(self.folder)
        files = manifest.get("files")
        if manifest.get("status") != "complete" or manifest.get("spec") != spec:
            return False
        if manifest.get("code", {}) != self._code:
            # The frames are of other code of the user's, though its runs may stand here as well.
            return False
        if not isinstance(files, dict) or not files:
            return False
        return all(
            self.folder.exists(name) and self._checksum(name) == checksum
            for name, checksum in files.items()
        )

    def checksums(self) -> dict[str, str]:
        """What `is_complete` compares with: the frames, the summary and the figures."""
        pictures = self.folder.names("figures")
        return {name: self._checksum(name) for name in (*self.outputs, *pictures)}

    def _checksum(self, name: str) -> str:
        with self.folder.open(name) as file:
            return _sums.of_file(file)

    def write_manifest(self, spec: dict[str, Any], **facts: Any) -> None:
        """Write manifest.json: the facts given, with what they were made, and sums.

        "files" has the sum of each whole file, "blocks" those of each block of the frames and the
        summary, and "sum" that of the manifest.
        """
        about = {
            "kind": self.measurement.kind,
            "spec": spec,
            "imports": list(self.measurement.imports),
            "named": list(self.measurement.named),
            "code": self._code,
            **describe(self.schema),
        }
        self._write("manifest.json", content_of(about | facts | {"blocks": self.blocks}))

    def _write(self, name: str, content: bytes) -> None:
        with writing(self.folder):
            self._check_hold()
            self.folder.put(name, content)


@contextlib.contextmanager
def writing(folder: Folder) -> Iterator[None]:
    """Say of an error in writing where it was, and how to go on."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"cannot write to {folder}: {error.strerror or error}; what was finished is kept, and "
            "the same command goes on from there"
        ) from error


def chunk_names(folder: Folder) -> list[str]:
    """The files of the chunks, in the order of their names."""
    return [name for name in folder.names("chunks") if _CHUNK.fullmatch(name)]


def is_whole(name: str, content: bytes) -> bool:
    """Whether the content of a chunk has the sum in the chunk's name."""
    return _sums.of_bytes(content) == consolidate.sum_in(name)


@contextlib.contextmanager
def open_store(address: str | Path, plan: Plan) -> Iterator[Store]:
    """Open or make a folder of results for the planned runs, alone.

    Args:
        address: the folder.
        plan: the runs.

    Raises:
        ValueError: where the folder cannot be written, is in use, was written by a newer gradlab or
            holds other results; nothing in it is changed then.
    """
    folder = Folder(address)
    _refuse_strangers(folder)
    manifest = _manifest.find(folder)
    with contextlib.ExitStack() as stack:
        try:
            check_hold = stack.enter_context(hold(folder))
        except Unwritable:
            # On a read-only disk, all the runs of the plan may be there already.
            store = Store(folder, plan)
            if store.damaged or any(run.run_id not in store.run_ids for run in plan):
                raise
            _refuse_others(store, manifest, plan)
            yield store
            return
        store = Store(folder, plan, check_hold)
        _refuse_others(store, manifest, plan)
        for name in store.damaged:
            folder.remove(name)
        names = (name for below in ("", "chunks", "figures") for name in folder.names(below))
        for name in filter(_TEMPORARY.fullmatch, names):
            folder.remove(name)
        yield store


def _refuse_strangers(folder: Folder) -> None:
    """Accept a folder that does not exist, is empty or holds a sweep's files."""
    if folder.local is not None and folder.local.exists() and not folder.local.is_dir():
        raise ValueError(f"cannot write to {folder}: it is not a folder")
    inside = folder.names("chunks")
    strange = [n for n in inside if not (_CHUNK.fullmatch(n) or _TEMPORARY.fullmatch(n))]
    if not inside:
        others = (name for name in folder.content() if not _TEMPORARY.fullmatch(name))
        strange += [name for name in others if name not in (*_OURS, "figures", "chunks")]
    if strange:
        raise ValueError(
            f"{folder} holds files that no sweep made ({min(strange)}, ...); give another folder "
            "with --out"
        )


def _refuse_others(store: Store, manifest: dict[str, Any], plan: Plan) -> None:
    """Accept results of the planned runs, or of some of them."""
    folder, kind = store.folder, plan.measurement.kind
    other = manifest.get("kind", kind)
    if other != kind:
        raise ValueError(
            f"{folder} holds results of another kind of sweep ({other}, this one is "
            f"{kind}); give another folder with --out"
        )
    foreign = 0
    if "spec" in manifest and not store.run_ids and manifest.get("status") == "complete":
        try:
            before = Plan(plan.measurement.model(**manifest["spec"]))
        except (TypeError, ValueError, AttributeError):
            raise ValueError(
                f"{folder} holds results of another version of gradlab; give another folder with "
                "--out"
            ) from None
        foreign = len(before) if not plan.covers(before) else 0
    ids = set(store.run_ids)
    if not manifest:
        with contextlib.suppress(pa.ArrowException, OSError, KeyError):
            content = store.folder.read("runs.parquet")
            ids.update(decode(pa.BufferReader(content)).run_ids)
    if ids and not foreign:
        foreign = len(ids) - sum(run.run_id in ids for run in plan)
    if foreign:
        raise ValueError(
            f"{folder} holds results of another spec ({foreign} runs that this one has not); give "
            "another folder with --out"
        )
