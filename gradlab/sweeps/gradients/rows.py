"""One row per run from its curve: the columns of `frames.GRADIENTS` but for the axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gradlab import decay, frames, initializers
from gradlab._memory import device_name
from gradlab.grid import Run, Tell
from gradlab.sweeps.gradients import theory
from gradlab.sweeps.gradients.curves import (
    PRECISION,
    Curves,
    curves,
    draw_key,
    runs_per_call,
    weights,
)


def measure(runs: Sequence[Run], size: int, tell: Tell) -> list[dict[str, Any]]:
    """Measure runs that share a program, `size` at once on every device."""
    rows, count = [], runs_per_call(runs[0], size)
    for place in range(0, len(runs), count):
        batch = runs[place : place + count]
        rows += rows_of(batch, curves(batch, size=size), _AUDITS(batch, size=size))
    return rows


def rows_of(
    batch: Sequence[Run], norms: Curves, audits: Sequence[dict[str, float]]
) -> list[dict[str, Any]]:
    """One mapping per run: the columns of `frames.GRADIENTS`, and its steps.

    status: "nonfinite" where a state or an adjoint is NaN or infinite, "zero" where an adjoint is
    exactly zero, else "ok". verdict: "nonfinite" by that status; else by the side on which the
    norm leaves [eps, 1/eps] of its start at the horizon: "vanishing" below, "exploding" above,
    and "stable" where it never does.
    """
    log_norm, finite = norms.log_norm, norms.finite
    length = log_norm.shape[1]
    slope, stderr = decay.rate(log_norm)
    horizon = decay.horizon(log_norm)
    verdict = np.where(finite.all(axis=1), decay.verdict(log_norm), "nonfinite")
    lags = frames.lags(length)
    rows = []
    for i, run in enumerate(batch):
        curve = log_norm[i]
        with np.errstate(invalid="ignore"):
            log_gain = curve[0] - curve[-1] + 0.0
        zero = np.isneginf(curve).any()
        prediction = theory.predict(run)
        rows.append(
            {
                "precision": PRECISION,
                "status": "nonfinite" if verdict[i] == "nonfinite" else "zero" if zero else "ok",
                "verdict": str(verdict[i]),
                "rate": slope[i] + 0.0,  # never -0.0
                "rate_stderr": stderr[i],
                "theory": prediction.theory,
                "predicted_rate": prediction.rate,
                "predicted_bias": prediction.bias,
                "disagreement": _disagreement(slope[i], stderr[i], prediction),
                "log_gain": log_gain,
                "horizon": None if np.isnan(horizon[i]) else int(horizon[i]),
                "first_nonfinite_step": _first_nonfinite_step(curve, finite[i]),
                **audits[i],
                "device": device_name(),
                "steps": {
                    "step": length - lags,
                    "lag": lags,
                    "log_norm": np.where(np.isposinf(curve), np.nan, curve)[length - 1 - lags],
                },
            }
        )
    return rows


def _first_nonfinite_step(curve: np.ndarray, finite: np.ndarray) -> int | None:
    """The first step whose state is not finite; without one, the last whose adjoint is not."""
    if not finite.all():
        return int(np.argmin(finite)) + 1
    bad = np.flatnonzero(np.isnan(curve) | np.isposinf(curve))
    return int(bad[-1]) + 1 if len(bad) else None


def _disagreement(rate: float, stderr: float, prediction: theory.Prediction) -> float:
    """By how many errors a rate lies above the prediction at the run's width and length.

    NaN where rate, error or bias is: the bias is known for untied weights, where `stderr` is all
    the error that there is, and where theory is exact for every matrix, so that none differs.
    """
    error = math.hypot(stderr, frames.ROUNDING)
    return float(rate - prediction.rate - prediction.bias) / error + 0.0


class Audits:
    """Audits of the recurrent weights and the gates, once for all runs that drew the same ones.

    A cell with several gates has one matrix each; the worst value over them is reported, the
    largest but for the smallest singular value. Untied runs are audited at one draw of their law.

    Eigenvalues take longer than the curves. So where a run's matrices are g W, with W those of the
    same run at gain 1, W is audited: all its columns are those of g W but for ρ and the singular
    values, which are |g| times as large.
    """

    MOST = 100_000

    def __init__(self) -> None:
        self._audits: dict[Run, dict[str, float]] = {}  # by `draw_key`
        self._matrices: dict[Run, dict[str, np.ndarray]] = {}  # likewise, (G,)

    def __call__(self, batch: Sequence[Run], *, size: int = 1) -> list[dict[str, float]]:
        """The audits of each run, as columns of runs; `size` as in `curves`."""
        draws = [draw_key(run) for run in batch]
        fresh = {draw: run for draw, run in zip(draws, batch, strict=True)}
        if missing := [run for draw, run in fresh.items() if draw not in self._audits]:
            for table in (self._audits, self._matrices):
                if len(table) > self.MOST:
                    others = [draw for draw in table if draw not in fresh]
                    for draw in others:
                        del table[draw]
            self._add(missing, size)
        return [self._audits[draw] for draw in draws]

    def _add(self, runs: Sequence[Run], size: int) -> None:
        sample = weights(runs, size=size)
        units = [run._replace(gain=1.0) if run.gain else run for run in runs]
        plain = weights(units, size=size).recurrent if units != list(runs) else sample.recurrent
        gains = np.array([run.gain or 1.0 for run in runs], np.float32).astype(np.float64)
        is_multiple = _are_close(sample.recurrent, gains[:, None, None, None] * plain)
        sources = [
            (draw_key(unit), plain[i]) if is_multiple[i] else (draw_key(run), sample.recurrent[i])
            for i, (run, unit) in enumerate(zip(runs, units, strict=True))
        ]
        fresh = {draw: W for draw, W in sources if draw not in self._matrices}
        if fresh:
            audit = initializers.audit(np.stack(list(fresh.values())))
            for i, draw in enumerate(fresh):
                self._matrices[draw] = {name: value[i] for name, value in audit.items()}
        for i, (run, (source, _)) in enumerate(zip(runs, sources, strict=True)):
            factor = abs(gains[i]) if is_multiple[i] else 1.0
            audit = {
                name: (factor if name in _PROPORTIONAL else 1.0)
                * float(value.min() if name == "smallest_singular_value" else value.max())
                for name, value in self._matrices[source].items()
            }
            if sample.log_retention is not None:
                times = initializers.time_constants(sample.log_retention[i])
                audit |= {name: float(value) for name, value in times.items()}
            self._audits[draw_key(run)] = audit


# The audits that grow with the matrix; the others are the same for each multiple of it.
_PROPORTIONAL = ("spectral_radius", "largest_singular_value", "smallest_singular_value")


def _are_close(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether the matrices of each run, (runs, G, H, H), agree to the rounding of their type."""
    axes = (1, 2, 3)
    with np.errstate(invalid="ignore", over="ignore"):
        error, peak = np.abs(a - b).max(axis=axes), np.abs(b).max(axis=axes)
        # NaN is close to nothing, and the zero matrix has audits of its own.
        return (error <= 8 * np.finfo(a.dtype).eps * peak) & (peak > 0) & np.isfinite(peak)


# Shared by all chunks of a process, so that it audits each draw once.
_AUDITS = Audits()
