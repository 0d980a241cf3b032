"""What is done with one chunk of runs, on this machine or on a worker: measured, and encoded."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from gradlab import frames
from gradlab.sweeps import chunks, gradients, plan, training
from gradlab.sweeps.plan import Plan
from gradlab.sweeps.spec import Spec, TrainingSpec
from gradlab.sweeps.store import Kind, encode, now

Tell = Callable[[str], None]


class Sweep(NamedTuple):
    """What a sweep of one kind of spec needs.

    Attributes:
        kind: how its results are kept.
        spec: the type of its spec.
        run: the type of its runs.
        check: (plan) raises where a run cannot be built.
        label: a run -> what a progress bar says of it.
        size: (run, wanted, budget in bytes) -> the most runs of its program in one chunk.
        measure: (runs, size, tell) -> a row per run.
        failed: a run -> the row of one that failed, but for the reason.
        summary: the runs' frame -> a row per point.
    """

    kind: Kind
    spec: type
    run: Any
    check: Callable[[Plan], None]
    label: Callable[[Any], str]
    size: Callable[[Any, int, int], int]
    measure: Callable[[Sequence[Any], int, Tell], list[dict[str, Any]]]
    failed: Callable[[Any], dict[str, Any]]
    summary: Callable[[pd.DataFrame], pd.DataFrame]


SWEEPS = {
    sweep.kind.name: sweep
    for sweep in (
        Sweep(
            gradients.KIND,
            Spec,
            plan.Run,
            lambda _: None,
            gradients.label,
            chunks.size,
            gradients.measure_all,
            gradients.failed,
            frames.summary,
        ),
        Sweep(
            training.KIND,
            TrainingSpec,
            training.Run,
            training.check,
            training.label,
            training.size,
            lambda runs, _, tell: training.train(runs, tell),
            training.failed,
            frames.trained_summary,
        ),
    )
}


class Chunk(NamedTuple):
    """Runs that share a program and are measured together, as one call for `size` runs."""

    kind: str
    runs: tuple[Any, ...]
    size: int


class Part(NamedTuple):
    """The content of one file of the store, and the runs in it."""

    run_ids: list[str]
    content: bytes


def compute(chunk: Chunk, tell: Tell = lambda _: None) -> list[Part]:
    """Measure the runs of a chunk: a part with their rows, and one with those that failed.

    A chunk for which memory runs out is halved and tried again, down to single runs. Whatever
    else goes wrong is the reason in the rows of its runs.
    """
    how = SWEEPS[chunk.kind]
    started, start = now(), time.perf_counter()
    rows = _rows(how, chunk.runs, chunk.size, 0, tell)
    seconds = time.perf_counter() - start
    facts = {
        "host": socket.gethostname(),
        "started": started,
        "seconds": round(seconds, 4),
        "size": chunk.size,
    }
    parts = []
    for failed in (False, True):
        part = [row for row in rows if (row["status"] == "failed") == failed]
        if part:
            told = facts | ({"failed": len(part)} if failed else {})
            content = encode(how.kind, part, told)
            parts.append(Part([row["run_id"] for row in part], content))
    return parts


def _rows(how: Sweep, runs: Sequence[Any], size: int, halved: int, tell: Tell) -> list[Any]:
    try:
        rows = how.measure(runs, size, tell)
    except Exception as error:
        if not _is_memory(error) or len(runs) == 1:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            failed = {"status": "failed", "reason": reason, "halved": halved}
            return [how.failed(run) | failed for run in runs]
        half = (len(runs) + 1) // 2
        parts = runs[:half], runs[half:]
    else:
        return [row | {"halved": halved} for row in rows]
    return [row for part in parts for row in _rows(how, part, half, halved + 1, tell)]


def _is_memory(error: Exception) -> bool:
    """Whether memory ran out, as Python, XLA and the drivers of accelerators say it."""
    said = str(error)
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in said or "ut of memory" in said
