"""What one run measures: the compiled program, and the numbers made from its log-norms."""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradlab import cells, frames, initializers, tasks, tracing
from gradlab.sweeps import theory
from gradlab.sweeps.plan import Run
from gradlab.tasks import probe

PRECISION = "float32"
LOG_EPS = math.log(np.finfo(np.float32).eps)
# Random draws run for milliseconds; full optimization would compile them for seconds.
DRAWING = {"xla_backend_optimization_level": 1}


# Steps whose parameters are kept at once where each step has its own.
SEGMENT = 16
# Name, activation, width and inputs of a cell.
Shape = tuple[str, str | None, int, int]
# Name and options of an initializer, but for its gain.
Init = tuple[str | None, tuple[tuple[str, Any], ...]]


class Curves(NamedTuple):
    """One row per run: ln|dL/dh_t| and whether h_t is finite, for t = 1..T; and what to audit.

    `recurrent` are the matrices that multiply the state, (runs, G, H, H), `log_retention` the
    logarithm of what each unit keeps in a step, (runs, H). Both are None where they were not asked
    for, the latter also where the cell has none. Where weights are untied, they are of one draw.
    """

    log_norm: np.ndarray
    finite: np.ndarray
    recurrent: np.ndarray | None
    log_retention: np.ndarray | None


def curves(batch: Sequence[Run], recurrent: bool = True) -> Curves:
    """Trace the probe loss L = v.h_T of runs that share a program.

    Weights are drawn from the seed, the cell, the initializer and the widths, so runs that differ
    in gain, length or input share the same draw; the input from the seed and its source; v from the
    seed and the width. Nothing depends on what else is in the batch.
    """
    first = batch[0]
    shape = first.cell, first.activation, first.hidden, first.inputs
    init = _init(first)
    seeds = np.array([run.seed for run in batch], np.uint32)
    scalars = {
        name: np.array([getattr(run, name) or 0.0 for run in batch], np.float32)
        for name in ("gain", "forget_bias", "input_scale", "bias_scale")
    }
    # Recent GPUs multiply float32 matrices in TF32 unless told otherwise.
    with jax.default_matmul_precision("highest"):
        params = _draw(init, shape)(seeds, scalars)
        xs = _inputs(first.input, first.length, first.inputs)(seeds)
        if first.weights == "tied":
            log_norm, finite = _tied(shape)(params, xs, seeds)
        else:
            log_norm, finite = _untied(init, shape)(seeds, scalars, xs)
    matrices = kept = None
    if recurrent:
        cell = _cell(*shape)
        matrices = np.asarray(jax.vmap(cell.matrices)(params))
        if cell.log_retention is not None:
            kept = np.asarray(jax.vmap(cell.log_retention)(params), np.float64)
    return Curves(np.asarray(log_norm, np.float64), np.asarray(finite), matrices, kept)


def _init(run: Run) -> Init:
    if run.init != "critical":
        return run.init, ()
    options = {
        "activation": run.activation or "tanh",
        "bias_std": run.bias_scale or 0.0,
        "input_variance": run.input_scale**2,
    }
    return run.init, tuple(options.items())


def _cell(name: str, activation: str | None, hidden: int, inputs: int, **options: Any) -> Any:
    if activation is not None:
        options["activation"] = activation
    return cells.make(name, inputs=inputs, hidden=hidden, **options)


def _drawn(init: Init, shape: Shape, scalars: dict[str, jax.Array]) -> Any:
    """The cell whose `init` draws what a run says, as far as the cell has it to draw."""
    name, options = init
    draws: dict[str, Any] = {
        "input": initializers.normal(scalars["input_scale"]),
        "bias": lambda key, shape, dtype: (
            scalars["bias_scale"] * jax.random.normal(key, shape, dtype)
        ),
        "forget_bias": scalars["forget_bias"],
    }
    if name is not None:
        draws["recurrent"] = initializers.make(name, gain=scalars["gain"], **dict(options))
    taken = cells.options(shape[0])
    return _cell(*shape, **{option: draw for option, draw in draws.items() if option in taken})


def _key(seed: jax.Array, *stream: Any) -> jax.Array:
    """A key for one purpose: the seed, folded with a name for what is drawn."""
    name = zlib.crc32("/".join(map(str, stream)).encode())
    return jax.random.fold_in(jax.random.key(seed), name)


@functools.cache
def _draw(init: Init, shape: Shape) -> Any:
    name, _, hidden, inputs = shape

    def draw(seed: jax.Array, scalars: dict[str, jax.Array]) -> Any:
        key = _key(seed, "params", name, init[0], hidden, inputs)
        return _drawn(init, shape, scalars).init(key, jnp.float32)

    return jax.jit(jax.vmap(draw), compiler_options=DRAWING)


@functools.cache
def _inputs(source: str, length: int, features: int) -> Any:
    sample = tasks.make_input(source)

    def draw(seed: jax.Array) -> jax.Array:
        return sample(_key(seed, "input", source), length, features, jnp.float32)

    return jax.jit(jax.vmap(draw), compiler_options=DRAWING)


@functools.cache
def _tied(shape: Shape) -> Any:
    cell = _cell(*shape)

    def one(params: Any, xs: jax.Array, seed: jax.Array) -> tuple[jax.Array, jax.Array]:
        loss = probe.checked_loss(cell, _direction(seed, cell.hidden))
        out = tracing.trace(loss, argnums=(), has_aux=True)(params, xs)
        return out.scans[0].log_norm, out.aux

    return jax.jit(jax.vmap(one))


@functools.cache
def _untied(init: Init, shape: Shape) -> Any:
    def one(
        seed: jax.Array, scalars: dict[str, jax.Array], xs: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        cell = _drawn(init, shape, scalars)
        loss = probe.untied_loss(cell, _direction(seed, cell.hidden))
        key = _key(seed, "untied", cell.name, init[0], cell.hidden, cell.inputs)
        # The parameters of a step are residuals of its own: drawn again, they need not be kept.
        out = tracing.trace(loss, argnums=(), has_aux=True, segment=SEGMENT)(key, xs)
        return out.scans[0].log_norm, out.aux

    return jax.jit(jax.vmap(one))


def _direction(seed: jax.Array, hidden: int) -> jax.Array:
    return probe.direction(_key(seed, "direction", hidden), hidden, jnp.float32)


def rate(log_norm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The slope of log_norm against lag past the transients, and its standard error.

    With y_k = ln|lambda_{T-k}| at lag k, the least-squares slope over the middle 80 % of the lags,
    k = floor(T/10) .. T-1-floor(T/10): the smallest lags are left out since the adjoint has yet to
    turn into the leading directions, the largest since the state, which starts at zero, has yet to
    reach its stationary law. The slope is a weighted mean of the increments d_i = y_{i+1} - y_i,

        rate = sum_i w_i d_i,   w_i = 6 i (n - i) / (n (n^2 - 1)),   i = 1..n-1,

    over n lags. Log-norms are sums of increments, so their residuals about the line are a random
    walk and the textbook error of a fitted slope is far too small; the standard error is that of
    the weighted mean, with the increments' correlations up to L = floor(4 (n/100)^(2/9)) lags:

        stderr^2 = n/(n-1) sum_{|k| <= L} (1 - |k|/(L+1)) sum_i w_i u_i w_{i+k} u_{i+k},
        u_i = d_i - rate.

    Args:
        log_norm: (..., T), row t-1 for step t.

    Returns:
        rate and stderr in nats per step, each (...); NaN where a log_norm in the range is not
        finite or where fewer than two (three for the error) lags are left.

    Source: Newey and West (1987), "A simple, positive semi-definite, heteroskedasticity and
    autocorrelation consistent covariance matrix", equation 5.

    >>> [value.round(6).tolist() for value in rate(np.arange(20) * 0.5)]
    [-0.5, 0.0]
    """
    y = np.asarray(log_norm, np.float64)[..., ::-1]
    skip = y.shape[-1] // 10
    y = y[..., skip : y.shape[-1] - skip]
    n = y.shape[-1]
    nothing = np.full(y.shape[:-1], np.nan)
    if n < 2:
        return nothing, nothing
    y = np.where(np.isfinite(y).all(axis=-1, keepdims=True), y, np.nan)
    i = np.arange(1, n)
    weights = 6 * i * (n - i) / (n * (n**2 - 1.0))
    increments = np.diff(y, axis=-1)
    slope = increments @ weights
    if n < 3:
        return slope, nothing
    terms = weights * (increments - slope[..., None])
    reach = min(int(4 * (n / 100) ** (2 / 9)), n - 2)
    variance = np.sum(terms**2, axis=-1)
    for k in range(1, reach + 1):
        share = 2 * (1 - k / (reach + 1))
        variance += share * np.sum(terms[..., k:] * terms[..., :-k], axis=-1)
    return slope, np.sqrt(np.maximum(variance, 0) * n / (n - 1))


def horizon(log_norm: np.ndarray) -> np.ndarray:
    """The first lag at which |lambda| has left [eps, 1/eps] times its size at lag 0, else NaN.

    eps is float32's, ln eps = -15.94: past it a gradient added to one of lag 0 is lost in rounding
    (or loses the other).

    >>> horizon(np.array([-40.0, -20.0, -10.0, 0.0])).tolist()
    2.0
    """
    y = np.asarray(log_norm, np.float64)[..., ::-1]
    with np.errstate(invalid="ignore"):
        outside = np.abs(y - y[..., :1]) > -LOG_EPS
    return np.where(outside.any(axis=-1), outside.argmax(axis=-1), np.nan)


def records(
    batch: Sequence[Run], measured: Curves, audits: Sequence[dict[str, float]]
) -> list[dict[str, Any]]:
    """One mapping per run: the columns of `frames.RUNS`, and its `lags` and `log_norms`.

    status: "nonfinite" where a state or an adjoint is NaN or infinite, "zero" where an adjoint is
    exactly zero, else "ok". verdict: "nonfinite" by that status; else by the side on which the
    norm leaves [eps, 1/eps] of its start at the horizon: "vanishing" below, "exploding" above,
    and "stable" where it never does.
    """
    log_norm, finite = measured.log_norm, measured.finite
    slope, stderr = rate(log_norm)
    reach = horizon(log_norm)
    length = log_norm.shape[1]
    kept = frames.lags(length)
    device = jax.devices()[0]
    rows = []
    for i, run in enumerate(batch):
        curve = log_norm[i]
        bad_states = np.flatnonzero(~finite[i])
        bad_adjoints = np.flatnonzero(np.isnan(curve) | np.isposinf(curve))
        nonfinite = len(bad_states) > 0 or len(bad_adjoints) > 0
        first_bad = None
        if nonfinite:
            first_bad = int(bad_states[0] if len(bad_states) else bad_adjoints[-1]) + 1
        crossing = None if np.isnan(reach[i]) else int(reach[i])
        zero = np.isneginf(curve).any()
        if nonfinite:
            verdict = "nonfinite"
        elif crossing is None:
            verdict = "stable"
        else:
            verdict = "exploding" if curve[-1 - crossing] > curve[-1] else "vanishing"
        with np.errstate(invalid="ignore"):
            log_gain = curve[0] - curve[-1]
        expected = theory.predict(run)
        rows.append(
            {
                **run._asdict(),
                "run_id": run.run_id,
                "precision": PRECISION,
                "status": "nonfinite" if nonfinite else "zero" if zero else "ok",
                "verdict": verdict,
                "rate": slope[i],
                "rate_stderr": stderr[i],
                "theory": expected.theory,
                "predicted_rate": expected.rate,
                "predicted_bias": expected.bias,
                "disagreement": _disagreement(slope[i], stderr[i], expected),
                "log_gain": log_gain,
                "horizon": crossing,
                "first_nonfinite_step": first_bad,
                **audits[i],
                "device": f"{device.platform}: {device.device_kind}",
                "lags": kept,
                "log_norms": np.where(np.isposinf(curve), np.nan, curve)[length - 1 - kept],
            }
        )
    return rows


def _disagreement(rate: float, stderr: float, expected: theory.Prediction) -> float:
    """By how many standard errors a rate lies above what theory expects at the run's width."""
    bias = 0.0 if math.isnan(expected.bias) else expected.bias
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.divide(rate - expected.rate - bias, stderr))
