"""Synthetic `runs` and `steps`, shaped like a sweep's: a drift per cell and gain, plus noise."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from gradlab import frames

CELLS = ("elman", "lstm", "gru")
INITS = ("normal", "orthogonal", "identity", "glorot")
GAINS = tuple(np.round(np.geomspace(0.5, 2.0, 9), 4).tolist())
LENGTHS = (10, 32, 100, 316, 1000)
LIMIT = float(-np.log(np.finfo(np.float32).eps))
SHIFT = {"normal": -0.05, "orthogonal": 0.0, "identity": 0.04, "glorot": -0.08}


def drift(cell: str, init: str, gain: float, source: str) -> float:
    """A plausible rate in nats per step."""
    log_gain = np.log(gain)
    saturated = {
        "elman": log_gain if log_gain < 0 else 0.35 * log_gain,
        "lstm": 0.08 * log_gain - 0.12,
        "gru": 0.3 * log_gain - 0.06,
    }[cell]
    return float(saturated + SHIFT[init] - (0.015 if source == "reviews" else 0.0))


def _point(cell: str, init: str, gain: float, length: int, source: str, seed: int, rng):
    lags = frames.lags(length)
    gaps = np.diff(lags, prepend=0)
    rate = drift(cell, init, gain, source) + 0.006 * rng.standard_normal()
    noise = 0.12 * np.cumsum(np.sqrt(gaps) * rng.standard_normal(lags.size))
    transient = -0.4 * (1 - np.exp(-lags / 4.0))
    log_norm = rate * lags + noise + transient + 0.05 * rng.standard_normal()

    status, first = "ok", None
    if (cell, init) == ("elman", "identity") and length >= 316:
        if gain == GAINS[-1]:
            status, log_norm = "nonfinite", np.full(lags.size, np.nan)
        elif gain == GAINS[-2] and seed % 2 == 0:
            status, log_norm = "nonfinite", np.where(lags > 200, np.nan, log_norm)
    if (cell, init) == ("gru", "normal") and length == 1000 and gain == GAINS[0]:
        status, log_norm = "zero", np.where(lags > 300, -np.inf, log_norm)

    finite = np.isfinite(log_norm)
    start = log_norm[0]
    left = np.flatnonzero(np.abs(log_norm - start) > LIMIT)
    if status == "nonfinite":
        verdict, first = "nonfinite", length - int(lags[np.argmin(finite)])
    elif left.size:
        verdict = "vanishing" if log_norm[left[0]] < start else "exploding"
    else:
        verdict = "stable"
    theory = cell == "elman" and init != "identity" and source == "gaussian"
    run = {
        "run_id": f"{cell}-{init}-{gain:.4f}-{source}-{length}-{seed}",
        "cell": cell,
        "activation": "tanh" if cell == "elman" else None,
        "init": init,
        "gain": gain,
        "forget_bias": 1.0 if cell == "lstm" else np.nan,
        "input": source,
        "input_scale": 1.0,
        "bias_scale": 0.0,
        "length": length,
        "hidden": 64,
        "inputs": 32,
        "seed": seed,
        "precision": "float32",
        "status": status,
        "verdict": verdict,
        "rate": np.nan if status == "nonfinite" else rate,
        "rate_stderr": np.nan if status == "nonfinite" else 0.003,
        "predicted_rate": drift(cell, init, gain, source) - 0.02 if theory else np.nan,
        "log_gain": log_norm[-1] - start,
        "horizon": int(lags[left[0]]) if left.size else None,
        "first_nonfinite_step": first,
        "spectral_radius": gain,
        "orthogonality_error": 1e-6 if init in ("orthogonal", "identity") else 0.9,
        "device": "cpu",
    }
    return run, (run["run_id"], length - lags, lags, log_norm)


def sweep(
    cells: Sequence[str] = CELLS,
    inits: Sequence[str] = INITS,
    gains: Sequence[float] = GAINS,
    lengths: Sequence[int] = LENGTHS,
    seeds: int = 5,
    inputs: Sequence[str] = ("gaussian", "reviews"),
) -> frames.Results:
    """The frames of a sweep over the product of the axes, the same at every call."""
    rng = np.random.default_rng(0)
    runs, steps = [], []
    for cell in cells:
        for init in inits:
            for gain in gains:
                for length in lengths:
                    for source in inputs:
                        for seed in range(seeds):
                            run, rows = _point(cell, init, gain, length, source, seed, rng)
                            runs.append(run)
                            steps.append(rows)
    names, step, lag, log_norm = zip(*steps, strict=True)
    table = pd.DataFrame(
        {
            "run_id": np.repeat(np.array(names, dtype=object), [len(part) for part in lag]),
            "step": np.concatenate(step),
            "lag": np.concatenate(lag),
            "log_norm": np.concatenate(log_norm),
        }
    )
    return frames.Results(frames.runs_frame(runs), frames.steps_frame(table), {"spec": "synthetic"})


def only(results: frames.Results, runs: pd.DataFrame) -> frames.Results:
    """The results of some of the runs."""
    return results._replace(
        runs=runs, steps=results.steps[results.steps["run_id"].isin(runs["run_id"])]
    )
