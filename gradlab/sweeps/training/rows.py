"""One row per trained run: the columns of `frames.TRAINING` but for the axes."""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradlab import decay, frames, tasks
from gradlab._memory import device_name
from gradlab.grid import Run, Tell
from gradlab.sweeps.gradients.curves import PRECISION, pin_settings
from gradlab.sweeps.training.programs import (
    compile_programs,
    compile_record,
    kind_of,
    scalars_of,
    task_of,
)


class Point(NamedTuple):
    """What an evaluation measured, after so many updates."""

    updates: int
    loss: float
    error: float
    log_norm: np.ndarray
    record: dict[str, Any]


def label(run: Run) -> str:
    """What a progress bar says of the runs that share this one's program."""
    return f"{run.task} {run.cell}" + (f" T={run.length}" if run.length else "")


def measure(runs: Sequence[Run], size: int, tell: Tell) -> list[dict[str, Any]]:
    """Train runs that share a program, `size` side by side."""
    batches = (runs[place : place + size] for place in range(0, len(runs), size))
    return [row for batch in batches for row in train(batch, tell)]


def train(batch: Sequence[Run], tell: Tell) -> list[dict[str, Any]]:
    """Train runs that share a program, and give one mapping per run: `frames.TRAINING`.

    A run ends where it is solved at an evaluation, where its loss or parameters are not finite, or
    after its updates; how long the others take changes none of its numbers.
    """
    first = batch[0]
    task = task_of(first)
    seeds = jnp.asarray([run.seed for run in batch], jnp.uint32)
    numbers = [scalars_of(run) for run in batch]
    scalars = {
        name: jnp.asarray([each[name] for each in numbers], jnp.float32) for name in numbers[0]
    }
    points: list[list[Point]] = [[] for _ in batch]
    is_done, bad = np.zeros(len(batch), bool), np.zeros(len(batch), int)
    with pin_settings():
        programs = compile_programs(kind_of(first))
        states = programs.start(seeds, scalars)
        for update in range(0, first.updates + 1, first.evaluate_every):
            evaluation = programs.evaluate(seeds, states.params, scalars)
            losses, errors, curves = (np.asarray(x, np.float64) for x in evaluation)
            record = {}
            if first.record:
                record = compile_record(kind_of(first), first.record)(seeds, states.params, scalars)
                record = jax.tree.map(np.asarray, record)
            bad = np.asarray(states.first_nonfinite_step)
            for i in np.flatnonzero(~is_done):
                # Training stops before a nonfinite update. If that was the first one since the last
                # evaluation, the parameters are the same: add no second point.
                updates = bad[i] - 1 if bad[i] else update
                if not points[i] or updates > points[i][-1].updates:
                    values = jax.tree.map(lambda leaf, i=i: leaf[i], record)
                    point = Point(int(updates), losses[i], errors[i], curves[i], values)
                    points[i].append(point)
                is_done[i] = errors[i] <= task.solved or bad[i] > 0
            if is_done.all() or update + first.evaluate_every > first.updates:
                break
            tell(f"{label(first)} update {update} loss {losses.min():.3g}")
            states = programs.advance(jnp.asarray(~is_done), states, scalars)
    rows = zip(points, bad.tolist(), strict=True)
    return [_row(task, line, step) for line, step in rows]


def _row(task: tasks.Task, points: list[Point], bad: int) -> dict[str, Any]:
    last = points[-1]
    solved = last.error <= task.solved
    lags = frames.lags(task.length)
    rates = decay.rate(np.stack([points[0].log_norm, last.log_norm]))[0]
    updates = np.array([point.updates for point in points])
    return _records(points, updates) | {
        "precision": PRECISION,
        "status": "nonfinite" if bad else "solved" if solved else "unsolved",
        "solved_step": last.updates if solved and not bad else None,
        "first_nonfinite_step": bad or None,
        "trained": last.updates,
        "loss": last.loss,
        "error": last.error,
        # np.min propagates NaN, Python's min would depend on the order.
        "best_loss": float(np.min([point.loss for point in points])),
        "baseline": min(task.baselines.values()),
        "rate_before": rates[0],
        "rate_after": rates[1],
        "device": device_name(),
        "curves": {
            "training_step": updates,
            "loss": [point.loss for point in points],
            "error": [point.error for point in points],
        },
        "steps": {
            **place_of_steps(updates, task.length),
            "log_norm": np.concatenate(
                [_finite(point.log_norm)[task.length - 1 - lags] for point in points]
            ),
        },
    }


def place_of_steps(updates: np.ndarray, length: int) -> dict[str, np.ndarray]:
    """The columns of `steps` that say where: every lag at the first point, then at the second."""
    lags = frames.lags(length)
    return {
        "training_step": np.repeat(updates, len(lags)),
        "step": np.tile(length - lags, len(updates)),
        "lag": np.tile(lags, len(updates)),
    }


def _records(points: list[Point], updates: np.ndarray) -> dict[str, Any]:
    """The rows of what was recorded; nothing where nothing was to be."""
    if not points[0].record:
        return {}
    values = jax.tree.map(lambda *leaves: np.stack(leaves), *[point.record for point in points])
    rows = frames.records(types.SimpleNamespace(record_steps=updates, records=values))
    return {"records": {name: rows[name].tolist() for name in rows}}


def _finite(log_norm: np.ndarray) -> np.ndarray:
    return np.where(np.isposinf(log_norm), np.nan, log_norm)
