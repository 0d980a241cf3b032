"""What is done with one chunk of runs, on this machine or on a worker: measured, and encoded."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import scipy.linalg  # noqa: F401  (whose BLAS XLA factorizes with: it has to be there to be limited)
import threadpoolctl

from gradlab.sweeps import chunks, cost, gradients, plan, training
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
        size: (run, wanted, budget in bytes) -> how many runs a device takes at once.
        filled: (run, size) -> how many runs make one chunk.
        measure: (runs, size, tell) -> a row per run.
        failed: a run -> the row of one that failed, but for the reason.
    """

    kind: Kind
    spec: type
    run: Any
    check: Callable[[Plan], None]
    label: Callable[[Any], str]
    size: Callable[[Any, int, int], int]
    filled: Callable[[Any, int], int]
    measure: Callable[[Sequence[Any], int, Tell], list[dict[str, Any]]]
    failed: Callable[[Any], dict[str, Any]]

    def plan_of(self, content: dict[str, Any]) -> Plan:
        """The plan of a spec as a manifest holds it."""
        return Plan(self.spec(**content), self.run)


def _trained_together(run: Any, wanted: int, budget: int) -> int:
    """The most runs that are trained in one chunk."""
    if jax.default_backend() == "cpu":
        # They would be trained one after the other: each is stored as it ends.
        return 1
    return cost.fits(lambda count: cost.peak(run, count), wanted, budget)


def _train(runs: Sequence[Any], size: int, tell: Tell) -> list[dict[str, Any]]:
    parts = (runs[place : place + size] for place in range(0, len(runs), size))
    return [row for part in parts for row in training.train(part, tell)]


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
            gradients.filled,
            gradients.measure_all,
            gradients.failed,
        ),
        Sweep(
            training.KIND,
            TrainingSpec,
            training.Run,
            training.check,
            training.label,
            _trained_together,
            lambda run, size: size,
            _train,
            training.failed,
        ),
    )
}


def sweep_of(spec: Any) -> Sweep:
    """What the sweep of a spec needs."""
    return next(sweep for sweep in SWEEPS.values() if isinstance(spec, sweep.spec))


def check_workers(workers: Any) -> None:
    """Refuse what is no number of processes."""
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
        raise ValueError(f"workers must be a whole number, 0 or more; got {workers!r}")


class Chunk(NamedTuple):
    """Runs that share a program and are stored together, `size` at once on every device.

    `halved` counts how often the size was halved because memory ran out; `refusal` is the reason
    why the runs are not to be measured at all.
    """

    kind: str
    runs: tuple[Any, ...]
    size: int
    halved: int = 0
    refusal: str | None = None


class Fit(NamedTuple):
    """How many runs of a program a device takes at once, how many make one chunk, or neither.

    `refusal` is the reason why the program is not to be measured at all.
    """

    size: int
    filled: int
    refusal: str | None = None


def fitted(kind: str, run: Any, wanted: int, memory: int | None, share: int) -> Fit:
    """What fits this machine's devices of runs like this one, of which `wanted` are to be measured.

    Args:
        kind: that of the sweep.
        run: one of the runs.
        wanted: how many there are.
        memory: bytes, above which a single run is refused; if None, `cost.budget` and no refusal.
        share: how many processes have this memory between them.
    """
    how = SWEEPS[kind]
    try:
        budget = (cost.budget() if memory is None else memory) // share
        needed = 0 if memory is None else cost.peak(run, 1)
        size = how.size(run, wanted, budget) if needed <= budget else 1
        filled = how.filled(run, size)
    except Exception as error:
        # What cannot be sized cannot be measured: the rows of these runs say so.
        return Fit(1, gradients.MOST, _reason(error))
    refusal = None
    if needed > budget:
        refusal = (
            f"MemoryError: needs about {cost.scaled(needed)}B on {jax.local_device_count()} "
            f"devices, and --memory leaves {cost.scaled(budget)}B; fewer devices need less "
            "(JAX_NUM_CPU_DEVICES=1)"
        )
    return Fit(size, filled, refusal)


class Part(NamedTuple):
    """The content of one file of the store, the runs in it, their time, and whether they failed."""

    run_ids: list[str]
    content: bytes
    seconds: float
    failed: bool


def compute(chunk: Chunk, tell: Tell = lambda _: None) -> list[Part]:
    """Measure the runs of a chunk: a part with their rows, and one with those that failed.

    Where memory runs out, calls of half the size are tried, down to single runs. Whatever
    else goes wrong is the reason in the rows of its runs.
    """
    started, start = now(), time.perf_counter()
    # Threads of a small factorization wait for each other, for long where a core is taken.
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        rows = _rows(chunk, tell)
    facts = {"started": started, "seconds": round(time.perf_counter() - start, 4)}
    split = ([row for row in rows if (row["status"] == "failed") == bad] for bad in (False, True))
    return [_part(chunk, part, facts) for part in split if part]


def failed_part(chunk: Chunk, error: Exception) -> Part:
    """The part of a chunk whose runs failed, with the error as their reason."""
    return _part(chunk, _failed(chunk, _reason(error)), {"started": now()})


def halved(chunk: Chunk) -> Chunk:
    """The same runs, half as many at once."""
    return chunk._replace(size=(chunk.size + 1) // 2, halved=chunk.halved + 1)


def _part(chunk: Chunk, rows: list[dict[str, Any]], facts: dict[str, Any]) -> Part:
    facts = facts | {"host": socket.gethostname(), "size": chunk.size}
    failed = sum(row["status"] == "failed" for row in rows)
    content = encode(SWEEPS[chunk.kind].kind, rows, facts | ({"failed": failed} if failed else {}))
    return Part([row["run_id"] for row in rows], content, facts.get("seconds", 0.0), failed > 0)


def _rows(chunk: Chunk, tell: Tell) -> list[dict[str, Any]]:
    if chunk.refusal is not None:
        return _failed(chunk, chunk.refusal)
    try:
        rows = SWEEPS[chunk.kind].measure(chunk.runs, chunk.size, tell)
    except Exception as error:
        if not _is_memory(error) or chunk.size == 1:
            return _failed(chunk, _reason(error))
    else:
        return [row | {"halved": chunk.halved} for row in rows]
    # Not inside the handler, where the error would keep what the chunk had allocated.
    return _rows(halved(chunk), tell)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _failed(chunk: Chunk, reason: str) -> list[dict[str, Any]]:
    row = {"status": "failed", "reason": reason, "halved": chunk.halved}
    return [SWEEPS[chunk.kind].failed(run) | row for run in chunk.runs]


def _is_memory(error: Exception) -> bool:
    """Whether memory ran out, as Python, XLA and the drivers of accelerators say it."""
    said = str(error)
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in said or "ut of memory" in said
