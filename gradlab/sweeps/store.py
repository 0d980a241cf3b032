"""Where results are kept: one immutable, self-checking file per finished chunk of runs.

DIR/chunks/KEY-SUM.parquet holds the rows of one chunk, KEY naming the runs in it and SUM the bytes
of the file, so a file that was cut short or changed is found out by its own name. The frames
(DIR/runs.parquet, DIR/steps.parquet, ...) are made from the chunks and can be made again.
"""

from __future__ import annotations

import collections
import contextlib
import datetime
import hashlib
import importlib.metadata
import json
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from gradlab import _files
from gradlab.frames import KINDS
from gradlab.sweeps import consolidate

# What a folder of results may hold; anything else in it is somebody's and stays untouched.
_CHUNK = re.compile(r"[0-9a-f]{16}-[0-9a-f]{16}\.parquet")
_FRAMES = {f"{name}.parquet" for names in KINDS.values() for name in names}
_OURS = (*_FRAMES, "summary.csv", "manifest.json", "figures", "chunks", ".lock")


class Kind(NamedTuple):
    """What the results in a folder are: how its rows are kept, and the frames made of them.

    Attributes:
        name: the key in `frames.KINDS`, which names the frames.
        ids: the ids of the runs of a spec, as the manifest holds it.
        rows: the frame of a chunk's rows, without the lists.
        lists: the columns that hold a list for each run, and the type of its items.
        split: the tables of some rows, lists and all, for each name of `frames.KINDS` but runs.
    """

    name: str
    ids: Callable[[dict[str, Any]], Iterable[str]]
    rows: Callable[[Sequence[dict[str, Any]]], pd.DataFrame]
    lists: dict[str, pa.DataType]
    split: Callable[[pa.Table], tuple[pa.Table, ...]]

    @property
    def derived(self) -> tuple[str, ...]:
        """The files that are made from the chunks."""
        return (*(f"{name}.parquet" for name in KINDS[self.name]), "summary.csv")


class Store:
    """One folder of results, held by one sweep at a time (`with open_store(...) as store`)."""

    def __init__(self, folder: Path, kind: Kind) -> None:
        self.folder = folder
        self.kind = kind
        self.done: set[str] = set()  # ids of the runs that are stored
        self.damaged: list[Path] = []  # chunks that are not what their name says
        self._chunks = folder / "chunks"
        for path in sorted(self._chunks.glob("*.parquet")):
            content = path.read_bytes()
            if _checksum(content) != path.stem.rpartition("-")[2]:
                self.damaged.append(path)
            else:
                self.done.update(_run_ids(pa.BufferReader(content)))

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Store the rows of one chunk, whole or not at all."""
        plain = [{k: v for k, v in row.items() if k not in self.kind.lists} for row in rows]
        table = pa.Table.from_pandas(self.kind.rows(plain), preserve_index=False)
        for name, item in self.kind.lists.items():
            values = pa.array([row[name] for row in rows], pa.list_(item))
            table = table.append_column(name, values)
        content = _parquet(table)
        key = _checksum("".join(sorted(row["run_id"] for row in rows)).encode())
        _write(self._chunks / f"{key}-{_checksum(content)}.parquet", content)

    def consolidate(self) -> dict[str, collections.Counter[str]]:
        """Write the frames and the summary from the chunks; see `consolidate`."""
        names = [f"chunks/{path.name}" for path in self._chunks.glob("*.parquet")]
        return consolidate.consolidate(_files.Folder(self.folder), names, self.kind)

    def is_complete(self) -> bool:
        """Whether all that follows from the chunks is there as it was written."""
        manifest = _read_manifest(self.folder)
        if manifest.get("status") != "complete":
            return False
        files = manifest.get("files", {})
        return bool(files) and all(
            (self.folder / name).is_file()
            and _checksum((self.folder / name).read_bytes()) == checksum
            for name, checksum in files.items()
        )

    def checksums(self) -> dict[str, str]:
        """What `is_complete` compares with: the frames, the summary and the figures."""
        paths = [self.folder / name for name in self.kind.derived]
        paths += sorted((self.folder / "figures").glob("*.p*"))
        return {
            path.relative_to(self.folder).as_posix(): _checksum(path.read_bytes()) for path in paths
        }

    def write_manifest(self, **facts: Any) -> None:
        """Write manifest.json: the facts given, and with which versions they were made."""
        content = {
            "kind": self.kind.name,
            **facts,
            "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "versions": {
                "python": platform.python_version(),
                **{name: importlib.metadata.version(name) for name in ("jax", "numpy", "pandas")},
            },
        }
        text = json.dumps(content, indent=2) + "\n"
        _write(self.folder / "manifest.json", text.encode())


@contextlib.contextmanager
def open_store(folder: str | Path, kind: Kind, planned: set[str]) -> Iterator[Store]:
    """Open or make a folder of results for the planned runs, alone.

    Raises:
        ValueError: where the folder cannot be written, is in use, or holds other results; nothing
            in it is changed then.
    """
    folder = Path(folder)
    _refuse_strangers(folder)
    lock = filelock.FileLock(folder / ".lock")
    try:
        (folder / "chunks").mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ValueError(f"{folder} is in use by another sweep") from None
    except OSError as error:
        raise ValueError(f"cannot write to {folder}: {error.strerror or error}") from None
    try:
        store = Store(folder, kind)
        foreign = (store.done | _claimed(folder, kind)) - planned
        if foreign:
            raise ValueError(
                f"{folder} holds results of another spec ({len(foreign)} runs that this one does "
                "not have); give another folder with --out"
            )
        for path in store.damaged:
            path.unlink()
        yield store
    finally:
        lock.release()


def _refuse_strangers(folder: Path) -> None:
    """Accept a folder that does not exist, is empty or holds a sweep's files."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"cannot write to {folder}: it is not a folder")
    if not folder.is_dir():
        return
    chunks = folder / "chunks"
    inside = list(chunks.iterdir()) if chunks.is_dir() else []
    strange = [p for p in inside if not (_CHUNK.fullmatch(p.name) or p.name.endswith(".tmp"))]
    if not inside:
        strange += [p for p in folder.iterdir() if p.name not in _OURS]
    if strange:
        name = min(path.relative_to(folder).as_posix() for path in strange)
        raise ValueError(
            f"{folder} holds files that no sweep made ({name}, ...); give another folder with --out"
        )


def _claimed(folder: Path, kind: Kind) -> set[str]:
    """The runs that the manifest and the frames speak of, whether or not their chunks are there."""
    ids: set[str] = set()
    manifest = _read_manifest(folder)
    other = manifest.get("kind", kind.name)
    if other != kind.name:
        raise ValueError(
            f"{folder} holds results of another kind of sweep ({other}, this one is {kind.name}); "
            "give another folder with --out"
        )
    spec = manifest.get("spec")
    if spec is not None:
        try:
            ids.update(kind.ids(spec))
        except (TypeError, ValueError):
            raise ValueError(
                f"{folder} holds results of another version of gradlab; give another folder with "
                "--out"
            ) from None
    with contextlib.suppress(pa.ArrowException, OSError):
        ids.update(_run_ids(folder / "runs.parquet"))
    return ids


def _read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest, or nothing where there is none that can be read: it can be written again."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _run_ids(source: Any) -> list[str]:
    return pq.read_table(source, columns=["run_id"])["run_id"].to_pylist()


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _write(path: Path, content: bytes) -> None:
    _files.write(path, lambda file: file.write(content))
