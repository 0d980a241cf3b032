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
import datetime
import importlib.metadata
import json
import os
import platform
import re
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import jax
import pyarrow as pa
import pyarrow.parquet as pq

from gradlab import _names, _sums
from gradlab._files import Folder
from gradlab.frames import FORMAT, KINDS
from gradlab.sweeps import consolidate
from gradlab.sweeps.plan import Plan

# What a folder of results may hold; anything else in it is somebody's and stays untouched.
_CHUNK = consolidate.CHUNK
_TEMPORARY = re.compile(r"(.*/)?\.[0-9a-f]{32}\.tmp")
_FRAMES = {f"{name}.parquet" for names in KINDS.values() for name in names}
_OURS = (*_FRAMES, "summary.csv", "manifest.json", "report.html", ".lock")
_METADATA = b"gradlab"
# Seconds between two signs of life of a sweep that holds a remote folder.
BEAT = 5.0


class Kind(NamedTuple):
    """What the results in a folder are: how its rows are kept, and the frames made of them.

    Attributes:
        name: the key in `frames.KINDS`, which names the frames.
        lists: the columns that hold a list for each run, and the type of its items.
        split: the tables of some rows, lists and all, for each name of `frames.KINDS` but runs.
    """

    name: str
    lists: dict[str, pa.DataType]
    split: Callable[[pa.Table], tuple[pa.Table, ...]]

    @property
    def derived(self) -> tuple[str, ...]:
        """The files that are made from the chunks."""
        return (*(f"{name}.parquet" for name in KINDS[self.name]), "summary.csv")


def encode(kind: Kind, rows: Sequence[dict[str, Any]], facts: dict[str, Any]) -> bytes:
    """The rows of one chunk as the content of a file; facts are its metadata.

    Raises:
        ValueError: where a row has a column that the frames do not know, or another type of value.
    """
    schema = consolidate.chunk_schema(kind.name, tuple(kind.lists.items()))
    for name in {name for row in rows for name in row}:
        _names.choose("column of runs", name, schema.names)
    columns = [
        # A number that is missing is none; within a list NaN is a norm that is not finite.
        pa.array(
            [row.get(field.name) for row in rows],
            field.type,
            from_pandas=field.name not in kind.lists,
        )
        for field in schema
    ]
    said = json.dumps({"format": FORMAT, **facts}).encode()
    table = pa.table(columns, schema.with_metadata({_METADATA: said}))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


class Chunk(NamedTuple):
    """What a chunk's file says: its runs, their status and reason, and its metadata."""

    run_ids: list[str]
    failed: dict[str, str]
    facts: dict[str, Any]


def decode(source: Any) -> Chunk:
    """Read what a chunk's file says of its runs, without their numbers.

    Raises:
        ValueError: where a newer gradlab wrote it.
    """
    file = pq.ParquetFile(source)
    facts = written_by(file)
    names = [n for n in ("run_id", "status", "reason") if n in file.schema_arrow.names]
    table = file.read(columns=names).to_pydict()
    reasons = table.get("reason", [None] * len(table["run_id"]))
    told = zip(table["run_id"], table["status"], reasons, strict=True)
    failed = {name: str(reason) for name, status, reason in told if status == "failed"}
    return Chunk(table["run_id"], failed, facts)


def written_by(file: pq.ParquetFile, folder: Any = "this folder") -> dict[str, Any]:
    """The metadata of a chunk's file.

    Raises:
        ValueError: where a newer gradlab wrote it.
    """
    facts = json.loads((file.metadata.metadata or {}).get(_METADATA, b"{}"))
    if facts.get("format", 0) > FORMAT:
        raise Newer(folder)
    return facts


class Newer(ValueError):
    """A folder that a newer gradlab wrote."""

    def __init__(self, folder: Any) -> None:
        super().__init__(
            f"{folder} was written by a newer gradlab than this one; update gradlab, or give "
            "another folder with --out"
        )


class Store:
    """One folder of results, held by one sweep at a time (`with open_store(...) as store`)."""

    def __init__(self, folder: Folder, kind: Kind) -> None:
        self.folder = folder
        self.kind = kind
        self.done: set[str] = set()  # ids of the runs that are stored
        self.failed: dict[str, str] = {}  # those of them that have only a reason
        self.damaged: list[str] = []  # chunks that are not what their name says
        self.chunks: dict[str, dict[str, Any]] = {}  # what the others say of themselves
        # The sums of the frames that stand there: they may be read while this sweep runs.
        self.blocks: dict[str, Any] = known_manifest(folder).get("blocks") or {}
        for name in chunk_names(folder):
            content = folder.read(name)
            if is_whole(name, content):
                self._enter(name, content)
            else:
                self.damaged.append(name)

    def _enter(self, name: str, content: bytes) -> None:
        said = decode(pa.BufferReader(content))
        again = self.done.intersection(said.run_ids)
        # Of a run that was tried again, the numbers count.
        self.failed = {k: v for k, v in self.failed.items() if k not in again - said.failed.keys()}
        self.failed |= {k: v for k, v in said.failed.items() if k not in again}
        self.done.update(said.run_ids)
        self.chunks[name] = {"runs": len(said.run_ids), **said.facts}

    def add(self, run_ids: Sequence[str], content: bytes) -> None:
        """Store one chunk, whole or not at all."""
        text = json.dumps([FORMAT, self.kind.name, *sorted(run_ids)])
        name = f"chunks/{_sums.of_bytes(text.encode())}-{_sums.of_bytes(content)}.parquet"
        self._write(name, content)
        self._enter(name, content)

    def forget_failures(self) -> None:
        """Remove the chunks of runs that failed, so that they are run again."""
        for name in [n for n in self.chunks if self.chunks[n].get("failed")]:
            self.folder.remove(name)
            del self.chunks[name]
        self.done -= self.failed.keys()
        self.failed = {}

    def consolidate(self) -> dict[str, collections.Counter[str]]:
        """Write the frames and the summary from the chunks; see `consolidate`."""
        counts = consolidate.consolidate(self.folder, self.chunks, self.kind)
        self.blocks = {}
        for name in self.kind.derived:
            with self.folder.open(name) as file:
                self.blocks[name] = _sums.of_blocks(file)
        return counts

    def is_complete(self, spec: dict[str, Any]) -> bool:
        """Whether all that follows from the chunks is there as it was written, for this spec."""
        manifest = known_manifest(self.folder)
        files = manifest.get("files")
        if manifest.get("status") != "complete" or manifest.get("spec") != spec:
            return False
        if not isinstance(files, dict) or not files:
            return False
        return all(
            self.folder.exists(name) and self._checksum(name) == checksum
            for name, checksum in files.items()
        )

    def checksums(self) -> dict[str, str]:
        """What `is_complete` compares with: the frames, the summary and the figures."""
        drawn = [name for name in self.folder.names() if name.startswith("figures/")]
        return {name: self._checksum(name) for name in (*self.kind.derived, *drawn)}

    def _checksum(self, name: str) -> str:
        with self.folder.open(name) as file:
            return _sums.of_file(file)

    def write_manifest(self, spec: dict[str, Any], **facts: Any) -> None:
        """Write manifest.json: the facts given, with what they were made, and sums.

        "files" has the sum of each whole file, "blocks" those of each block of the frames and the
        summary, and "sum" that of the manifest.
        """
        content = {
            "format": FORMAT,
            "kind": self.kind.name,
            "spec": spec,
            **facts,
            "written": now(),
            "host": socket.gethostname(),
            "git": _git(),
            "versions": {
                "python": platform.python_version(),
                **{name: importlib.metadata.version(name) for name in _LIBRARIES},
            },
            "settings": settings(),
            "blocks": self.blocks,
        }
        text = json.dumps(_sums.seal(content), indent=2) + "\n"
        self._write("manifest.json", text.encode())

    def _write(self, name: str, content: bytes) -> None:
        with writing(self.folder):
            self.folder.put(name, content)


_LIBRARIES = ("gradlab", "jax", "jaxlib", "numpy", "optax", "pandas", "pyarrow")


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


def settings() -> dict[str, Any]:
    """What of JAX's settings and of the device a number could depend on."""
    devices = jax.devices()
    return {
        "dtype": "float32",
        "matmul_precision": "highest",
        "jax_enable_x64": jax.dtypes.canonicalize_dtype("float64") == "float64",
        "platform": devices[0].platform,
        "devices": [str(device.device_kind) for device in devices],
        "cores": os.cpu_count(),
    }


def now() -> str:
    """The date and time, for people: nothing is decided by a clock that may jump."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _git() -> dict[str, Any] | None:
    """The commit of gradlab's own source and whether its tree is clean; None without either."""
    where = Path(__file__).parents[2]
    if not (where / ".git").exists():
        return None

    def ask(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(where), *words], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "clean": not ask("status", "--porcelain")}
    except (OSError, subprocess.CalledProcessError):
        return None


def chunk_names(folder: Folder) -> list[str]:
    """The files of the chunks, in the order of their names."""
    return [name for name in folder.names() if _CHUNK.fullmatch(name)]


def is_whole(name: str, content: bytes) -> bool:
    """Whether the content of a chunk has the sum in the chunk's name."""
    return _sums.of_bytes(content) == consolidate.sum_in(name)


@contextlib.contextmanager
def open_store(
    address: str | Path, kind: Kind, plan: Plan, of: Callable[..., Plan]
) -> Iterator[Store]:
    """Open or make a folder of results for the planned runs, alone.

    Args:
        address: the folder.
        kind: what its results are.
        plan: the runs.
        of: the plan of another spec, as a manifest holds it.

    Raises:
        ValueError: where the folder cannot be written, is in use, was written by a newer gradlab or
            holds other results; nothing in it is changed then.
    """
    folder = Folder(address)
    _refuse_strangers(folder)
    manifest = known_manifest(folder)
    with _held(folder):
        try:
            store = Store(folder, kind)
        except Newer:
            raise Newer(folder) from None
        _refuse_others(store, manifest, plan, of)
        for name in store.damaged:
            folder.remove(name)
        for name in filter(_TEMPORARY.fullmatch, folder.names()):
            folder.remove(name)
        yield store


def _refuse_strangers(folder: Folder) -> None:
    """Accept a folder that does not exist, is empty or holds a sweep's files."""
    if folder.local is not None and folder.local.exists() and not folder.local.is_dir():
        raise ValueError(f"cannot write to {folder}: it is not a folder")
    names = folder.names()
    inside = [name for name in names if name.startswith("chunks/")]
    strange = [n for n in inside if not (_CHUNK.fullmatch(n) or _TEMPORARY.fullmatch(n))]
    if not inside:
        ours = (name for name in names if not _TEMPORARY.fullmatch(name))
        strange += [name for name in ours if name.split("/")[0] not in (*_OURS, "figures")]
    if strange:
        raise ValueError(
            f"{folder} holds files that no sweep made ({min(strange)}, ...); give another folder "
            "with --out"
        )


def _refuse_others(
    store: Store, manifest: dict[str, Any], plan: Plan, of: Callable[..., Plan]
) -> None:
    """Accept results of the planned runs, or of some of them."""
    folder, other = store.folder, manifest.get("kind", store.kind.name)
    if other != store.kind.name:
        raise ValueError(
            f"{folder} holds results of another kind of sweep ({other}, this one is "
            f"{store.kind.name}); give another folder with --out"
        )
    foreign = 0
    if "spec" in manifest and not store.done and manifest.get("status") == "complete":
        try:
            before = of(manifest["spec"])
        except (TypeError, ValueError, AttributeError):
            raise ValueError(
                f"{folder} holds results of another version of gradlab; give another folder with "
                "--out"
            ) from None
        foreign = len(before) if not plan.covers(before) else 0
    stored = set(store.done)
    if not manifest:
        with contextlib.suppress(pa.ArrowException, OSError, KeyError):
            content = store.folder.read("runs.parquet")
            stored.update(decode(pa.BufferReader(content)).run_ids)
    if stored and not foreign:
        foreign = len(stored) - sum(run.run_id in stored for run in plan)
    if foreign:
        raise ValueError(
            f"{folder} holds results of another spec ({foreign} runs that this one has not); give "
            "another folder with --out"
        )


def read_manifest(folder: Folder) -> dict[str, Any]:
    """The manifest, or nothing where there is none that can be read: it can be written again."""
    try:
        manifest = json.loads(folder.read("manifest.json"))
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def known_manifest(folder: Folder) -> dict[str, Any]:
    """`read_manifest`, but nothing where its sum is wrong.

    Raises:
        Newer: where a newer gradlab wrote it.
    """
    manifest = read_manifest(folder)
    form = manifest.get("format", 0)
    if not isinstance(form, int) or form > FORMAT:
        raise Newer(folder)
    try:
        _sums.verify(manifest)
    except _sums.Damaged:
        return {}
    return manifest


@contextlib.contextmanager
def _held(folder: Folder) -> Iterator[None]:
    """Hold the folder alone."""
    with _held_local(folder, folder.local) if folder.local else _held_remote(folder):
        yield


@contextlib.contextmanager
def _held_local(folder: Folder, path: Path) -> Iterator[None]:
    lock = filelock.FileLock(path / ".lock")
    try:
        path.mkdir(parents=True, exist_ok=True)
        # `is_held` takes the lock for a moment.
        lock.acquire(timeout=0.5, poll_interval=0.05)
    except filelock.Timeout:
        raise ValueError(f"{folder} is in use by another sweep") from None
    except OSError as error:
        raise ValueError(f"cannot write to {folder}: {error.strerror or error}") from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _held_remote(folder: Folder) -> Iterator[None]:
    """Hold a folder that has no locks by a file that changes as long as its holder lives."""
    holder, lock = uuid.uuid4().hex, ".lock"

    def renew(count: int) -> None:
        folder.put(lock, json.dumps([holder, count]).encode())

    def is_mine() -> bool:
        try:
            return holder.encode() in folder.read(lock)
        except FileNotFoundError:
            return False

    try:
        held = is_held(folder)
        if not held:
            renew(0)
            # Of two that begin at once, the one that wrote last has it.
            time.sleep(BEAT / 2)
            held = not is_mine()
    except OSError as error:
        raise ValueError(f"cannot write to {folder}: {error.strerror or error}") from None
    if held:
        raise ValueError(f"{folder} is in use by another sweep")
    ended = threading.Event()

    def beat() -> None:
        count = 1
        while not ended.wait(BEAT):
            # A backend that is away for a moment, with whatever error of its own, may come back.
            with contextlib.suppress(Exception):
                renew(count)
            count += 1

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if is_mine():
            folder.remove(lock)


def is_held(folder: Folder) -> bool:
    """Whether a sweep holds the folder now. Two looks at a remote folder take seconds."""
    if folder.local is not None:
        lock = filelock.FileLock(folder.local / ".lock")
        if not folder.exists(".lock"):
            return False
        try:
            with lock.acquire(timeout=0):
                return False
        except filelock.Timeout:
            return True
        except OSError:  # a folder of somebody else's, that cannot be written
            return False
    try:
        before = folder.read(".lock")
        time.sleep(2.5 * BEAT)
        return folder.read(".lock") != before
    except FileNotFoundError:
        return False
