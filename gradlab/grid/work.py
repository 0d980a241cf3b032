"""What is done with one chunk of runs, on this machine or on a worker: measured, and encoded."""

from __future__ import annotations

import json
import socket
import time
from typing import Any, NamedTuple

import scipy.linalg  # noqa: F401  (whose BLAS XLA factorizes with: it has to be there to be limited)
import threadpoolctl

from gradlab import _source
from gradlab.frames.axes import plain
from gradlab.grid.manifest import now
from gradlab.grid.measurement import Measurement, Run, Tell
from gradlab.grid.sizes import MOST, Fit, fit
from gradlab.grid.store import encode


class Chunk(NamedTuple):
    """Runs that share a program and are stored together, `size` at once on every device.

    Attributes:
        measurement: what is measured.
        coordinates: those of each run, as plain tuples, which any process can read.
        size: runs at once on every device.
        halved: how often the size was halved because memory ran out.
        refusal: the reason why the runs are not to be measured at all.
    """

    measurement: Measurement
    coordinates: tuple[tuple[Any, ...], ...]
    size: int
    halved: int = 0
    refusal: str | None = None

    @property
    def runs(self) -> list[Run]:
        """The runs."""
        return [self.measurement.run(*values) for values in self.coordinates]

    def halve(self) -> Chunk:
        """The same runs, half as many at once."""
        return self._replace(size=(self.size + 1) // 2, halved=self.halved + 1)

    def split(self) -> list[Chunk]:
        """The runs in two chunks."""
        middle = len(self.coordinates) // 2
        halves = self.coordinates[:middle], self.coordinates[middle:]
        return [self._replace(coordinates=half) for half in halves]


def try_fit(measurement: Measurement, coordinates: tuple[Any, ...], *rest: Any) -> Fit:
    """`sizes.fit`; what cannot be sized cannot be measured, and the rows of its runs say so."""
    try:
        return fit(measurement, measurement.run(*coordinates), *rest)
    except Exception as error:
        return Fit(1, MOST, _source.describe(error))


class Part(NamedTuple):
    """The content of one file of the store, the runs in it, their time, and whether they failed."""

    run_ids: list[str]
    content: bytes
    seconds: float
    failed: bool


def compute(chunk: Chunk, tell: Tell = lambda _: None) -> list[Part]:
    """Measure the runs of a chunk: a part with their rows, and one with those that failed.

    Where memory runs out, calls of half the size are tried, down to single runs, and then chunks of
    half the runs: one that needs too much fails alone. Whatever else goes wrong is the reason in
    the rows of its runs.
    """
    timestamp, start = now(), time.perf_counter()
    # Threads of a small factorization wait for each other, for long where a core is taken.
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        rows = _rows(chunk, tell)
    facts = {"started": timestamp, "seconds": round(time.perf_counter() - start, 4)}
    split = ([row for row in rows if (row["status"] == "failed") == bad] for bad in (False, True))
    return [_part(chunk, part, facts) for part in split if part]


def failed_part(chunk: Chunk, reason: str) -> Part:
    """The part of a chunk whose runs failed, with the reason."""
    return _part(chunk, _failures(chunk, reason), {"started": now()})


def _part(chunk: Chunk, rows: list[dict[str, Any]], facts: dict[str, Any]) -> Part:
    facts = facts | {"host": socket.gethostname(), "size": chunk.size}
    failures = sum(row["status"] == "failed" for row in rows)
    facts |= {"failed": failures} if failures else {}
    content = encode(chunk.measurement.schema, rows, facts)
    return Part([row["run_id"] for row in rows], content, facts.get("seconds", 0.0), failures > 0)


def _rows(chunk: Chunk, tell: Tell) -> list[dict[str, Any]]:
    if chunk.refusal is not None:
        return _failures(chunk, chunk.refusal)
    try:
        rows = chunk.measurement.measure(chunk.runs, chunk.size, tell)
    except Exception as error:
        if not _is_memory(error) or (chunk.size == 1 and len(chunk.coordinates) == 1):
            return _failures(chunk, _source.describe(error))
    else:
        return [_coordinates(chunk, run) | row for run, row in zip(chunk.runs, rows, strict=True)]
    # Not inside the handler, where the error would keep what the chunk had allocated.
    parts = [chunk.halve()] if chunk.size > 1 else chunk.split()
    return [row for part in parts for row in _rows(part, tell)]


def _coordinates(chunk: Chunk, run: Run) -> dict[str, Any]:
    texts = {axis.name for axis in chunk.measurement.schema.axes if axis.dtype == "str"}
    row = {name: _text(v) if name in texts else v for name, v in run._asdict().items()}
    return row | {"run_id": run.run_id, "halved": chunk.halved, "code": run.code or None}


def _text(value: Any) -> str | None:
    """A value of JSON as a column of text stores it."""
    return value if value is None or isinstance(value, str) else json.dumps(plain(value))


def _failures(chunk: Chunk, reason: str) -> list[dict[str, Any]]:
    missing = {
        name: {"str": "failed", "int64": 0}.get(column.dtype, float("nan"))
        for name, column in chunk.measurement.schema.measured.items()
        if column.required
    }
    failure = {**missing, "status": "failed", "reason": reason}
    return [_coordinates(chunk, run) | failure for run in chunk.runs]


def _is_memory(error: Exception) -> bool:
    """Whether memory ran out, as Python, XLA and the drivers of accelerators say it."""
    text = str(error)
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text or "ut of memory" in text
