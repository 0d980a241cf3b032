"""One row per run from its curve: the columns of `frames.GRADIENTS` but for the axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from gradlab import decay, frames, initializers
from gradlab.grid import Run, Tell
from gradlab.sweeps.gradients import theory
from gradlab.sweeps.gradients.curves import PRECISION, Curves, curves, runs_per_call


def measure(runs: Sequence[Run], size: int, tell: Tell) -> list[dict[str, Any]]:
    """Measure runs that share a program, `size` at once on every device."""
    rows, count = [], runs_per_call(runs[0], size)
    for place in range(0, len(runs), count):
        batch = runs[place : place + count]
        measured = curves(batch, recurrent=_AUDITS.lacks(batch), size=size)
        rows += rows_of(batch, measured, _AUDITS(batch, measured))
    return rows


def rows_of(
    batch: Sequence[Run], measured: Curves, audits: Sequence[dict[str, float]]
) -> list[dict[str, Any]]:
    """One mapping per run: the columns of `frames.GRADIENTS`, and its steps.

    status: "nonfinite" where a state or an adjoint is NaN or infinite, "zero" where an adjoint is
    exactly zero, else "ok". verdict: "nonfinite" by that status; else by the side on which the
    norm leaves [eps, 1/eps] of its start at the horizon: "vanishing" below, "exploding" above,
    and "stable" where it never does.
    """
    log_norm, finite = measured.log_norm, measured.finite
    length = log_norm.shape[1]
    slope, stderr = decay.rate(log_norm)
    horizon = decay.horizon(log_norm)
    verdict = np.where(finite.all(axis=1), decay.verdict(log_norm), "nonfinite")
    lags = frames.lags(length)
    device = jax.devices()[0]
    rows = []
    for i, run in enumerate(batch):
        curve = log_norm[i]
        with np.errstate(invalid="ignore"):
            log_gain = curve[0] - curve[-1] + 0.0
        zero = np.isneginf(curve).any()
        expected = theory.predict(run)
        rows.append(
            {
                "precision": PRECISION,
                "status": "nonfinite" if verdict[i] == "nonfinite" else "zero" if zero else "ok",
                "verdict": str(verdict[i]),
                "rate": slope[i] + 0.0,  # never -0.0
                "rate_stderr": stderr[i],
                "theory": expected.theory,
                "predicted_rate": expected.rate,
                "predicted_bias": expected.bias,
                "disagreement": _disagreement(slope[i], stderr[i], expected),
                "log_gain": log_gain,
                "horizon": None if np.isnan(horizon[i]) else int(horizon[i]),
                "first_nonfinite_step": _first_nonfinite_step(curve, finite[i]),
                **audits[i],
                "device": f"{device.platform}: {device.device_kind}",
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


def _disagreement(rate: float, stderr: float, expected: theory.Prediction) -> float:
    """By how many errors a rate lies above what theory expects at the run's width and length.

    NaN where rate, error or bias is: the bias is known for untied weights, where `stderr` is all
    the error that there is, and where theory is exact for every matrix, so that none differs.
    """
    error = math.hypot(stderr, frames.ROUNDING)
    return float(rate - expected.rate - expected.bias) / error + 0.0


class Audits:
    """Audits of the recurrent weights and the gates, once for all runs that drew the same ones.

    A cell with several gates has one matrix each; the worst value over them is reported, the
    largest but for the smallest singular value. Untied runs are audited at one draw of their law.
    """

    MOST = 100_000

    def __init__(self) -> None:
        self._known: dict[Any, dict[str, float]] = {}

    def lacks(self, batch: Sequence[Run]) -> bool:
        """Whether some of the runs drew weights that were not audited yet."""
        return any(_draw_of(run) not in self._known for run in batch)

    def __call__(self, batch: Sequence[Run], measured: Curves) -> list[dict[str, float]]:
        """The audits of each run, as columns of runs."""
        places = {
            _draw_of(run): i for i, run in enumerate(batch) if _draw_of(run) not in self._known
        }
        if places and measured.recurrent is not None:
            rows = list(places.values())
            audit = {
                name: value.min(axis=1) if name == "smallest_singular_value" else value.max(axis=1)
                for name, value in initializers.audit(measured.recurrent[rows]).items()
            }
            if measured.log_retention is not None:
                audit |= initializers.time_constants(measured.log_retention[rows])
            if len(self._known) > self.MOST:
                others = self._known.keys() - {_draw_of(run) for run in batch}
                self._known = {k: v for k, v in self._known.items() if k not in others}
            for i, name in enumerate(places):
                self._known[name] = {key: float(value[i]) for key, value in audit.items()}
        return [self._known[_draw_of(run)] for run in batch]


def _draw_of(run: Run) -> Run:
    """A run without what its parameters do not depend on."""
    return run._replace(weights="", length=0, input="", batch=1)


# A process audits a draw once, whatever chunks it stands in.
_AUDITS = Audits()
