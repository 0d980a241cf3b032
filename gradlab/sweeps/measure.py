"""What one run measures: the compiled program, and the numbers made from its log-norms."""

from __future__ import annotations

import contextlib
import functools
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradlab import cells, frames, initializers, tasks, tracing
from gradlab._student import student_factor
from gradlab.sweeps import theory
from gradlab.sweeps.plan import Run
from gradlab.sweeps.slope import increment_weights
from gradlab.tasks import probe

PRECISION = "float32"
LOG_EPS = math.log(np.finfo(np.float32).eps)
# Random draws run for milliseconds; full optimization would compile them for seconds.
DRAWING = {"xla_backend_optimization_level": 1}
# Cells whose sums XLA orders by how many runs are mapped at once.
ROUNDED_TOGETHER = "layer_norm"
# Cores are shared out by runs; threads inside a product would decide how it is rounded.
ONE_THREAD = {"xla_cpu_multi_thread_eigen": False}

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


def curves(runs: Sequence[Run], recurrent: bool = True, *, size: int = 1) -> Curves:
    """Trace the probe loss of runs that share a program, `size` at once on every device.

    The loss of a run is L = sum_b v.h_T^b over the `batch` input sequences that go through its
    weights, and its log_norm at step t is the mean over them of ln|dL/dh_t^b|: -inf where one is
    exactly zero, NaN where one is not finite. `finite` asks for all of them.

    Weights are drawn from the seed, the cell, the initializer and the widths, so runs that differ
    in gain, length or input share the same draw; the first input sequence from the seed and its
    source, each further one from its number as well; v from the seed and the width.

    What is guaranteed: a run's numbers follow from its coordinates alone, bit for bit, whatever
    the other runs, its place among them, their number, the number of devices and of cores, JAX's
    default key type and whether 64-bit numbers are on. One ulp would be enough to part the curves
    of a chaotic network. So runs of one sequence are always mapped at least two at once on each
    device, since XLA makes another program of one alone, whose sums are rounded differently; cells
    that normalize a layer are never mapped; and one thread adds up each product. Where not: how
    many runs a device takes at once (of several sequences above all whether it is one) can move a
    norm's logarithm by an ulp of float32 or some, though no state; another processor, another kind
    of device or another version of JAX rounds differently; on a GPU the guarantee is not tested.
    """
    first = runs[0]
    count = together(first, size)
    filled = [*runs, *[runs[-1]] * (-len(runs) % count)]
    with pinned():
        parts = [
            _together(filled[place : place + count], recurrent)
            for place in range(0, len(filled), count)
        ]
        log_norm, finite, matrices, kept = (
            None if some[0] is None else np.concatenate([np.asarray(x) for x in some])[: len(runs)]
            for some in zip(*parts, strict=True)
        )
    assert log_norm is not None and finite is not None
    mean = log_norm.astype(np.float64)
    if first.batch > 1:
        with np.errstate(invalid="ignore"):
            mean = mean.mean(axis=-1)
        mean[np.isposinf(mean)] = np.nan
    return Curves(mean, finite, matrices, None if kept is None else kept.astype(np.float64))


def least(run: Run) -> int:
    """The fewest runs of the kind that a device may take at once: see `curves`."""
    return 1 if run.batch > 1 or is_alone(run) else 2


def is_alone(run: Run) -> bool:
    """Whether a device must take one run of the kind after the other."""
    return run.cell.startswith(ROUNDED_TOGETHER)


def together(run: Run, size: int) -> int:
    """How many runs like this one a call of the program takes, `size` at once on every device.

    >>> run = Run("elman", "tanh", "normal", 1.0, "tied", None, "gaussian", 1.0, 0.0, length=9,
    ...           hidden=8, inputs=2, batch=1, seed=0)
    >>> together(run, 1) == 2 * jax.local_device_count()
    True
    """
    return jax.local_device_count() * (1 if is_alone(run) else max(least(run), size))


@contextlib.contextmanager
def pinned() -> Iterator[None]:
    """The settings of JAX that decide numbers, as a sweep needs them; a user's own come back."""
    with (
        jax.enable_x64(False),
        jax.threefry_partitionable(True),
        # Recent GPUs multiply float32 matrices in TF32 unless told otherwise.
        jax.default_matmul_precision("highest"),
    ):
        yield


def _together(runs: Sequence[Run], recurrent: bool) -> tuple[Any, ...]:
    """One call of the program: (log_norm, finite, matrices, log_retention), not waited for."""
    program, params = drawn(runs, recurrent)
    log_norm, finite = program()
    matrices, kept = _audited(_shape(runs[0]))(params) if recurrent else (None, None)
    return log_norm, finite, matrices, kept


def drawn(runs: Sequence[Run], weights: bool) -> tuple[Callable[[], Any], Any]:
    """The program for one call of these runs, and their weights where they are asked for."""
    first = runs[0]
    shape, init = _shape(first), _init(first)
    seeds = np.array([run.seed for run in runs], np.uint32)
    scalars = {
        name: np.array([getattr(run, name) or 0.0 for run in runs], np.float32)
        for name in ("gain", "forget_bias", "input_scale", "bias_scale")
    }
    tied = first.weights == "tied"
    params = _draw(init, shape)(seeds, scalars) if weights or tied else None
    xs = _inputs(first.input, first.length, first.inputs, first.batch)(seeds)
    if tied:
        return functools.partial(_tied(shape, first.batch), params, xs, seeds), params
    return functools.partial(_untied(init, shape, first.batch), seeds, scalars, xs), params


def _shape(run: Run) -> Shape:
    return run.cell, run.activation, run.hidden, run.inputs


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
    return jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), name)


@functools.cache
def _draw(init: Init, shape: Shape) -> Any:
    name, _, hidden, inputs = shape

    def draw(seed: jax.Array, scalars: dict[str, jax.Array]) -> Any:
        key = _key(seed, "params", name, init[0], hidden, inputs)
        return _drawn(init, shape, scalars).init(key, jnp.float32)

    return jax.jit(jax.vmap(draw), compiler_options=DRAWING)


@functools.cache
def _inputs(source: str, length: int, features: int, batch: int) -> Any:
    sample = tasks.make_input(source)

    def draw(seed: jax.Array) -> jax.Array:
        key = _key(seed, "input", source)
        if batch == 1:
            return sample(key, length, features, jnp.float32)
        # The first sequence is that of a run with no other.
        others = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(1, batch))
        keys = jnp.concatenate([key[None], others])
        return jax.vmap(lambda each: sample(each, length, features, jnp.float32), out_axes=1)(keys)

    return jax.jit(jax.vmap(draw), compiler_options=DRAWING)


@functools.cache
def _audited(shape: Shape) -> Any:
    cell = _cell(*shape)

    def audited(params: Any) -> tuple[jax.Array, jax.Array | None]:
        kept = None if cell.log_retention is None else cell.log_retention(params)
        return cell.matrices(params), kept

    return jax.jit(jax.vmap(audited), compiler_options=DRAWING)


@functools.cache
def _tied(shape: Shape, batch: int) -> Any:
    cell = _cell(*shape)

    def one(params: Any, xs: jax.Array, seed: jax.Array) -> tuple[jax.Array, jax.Array]:
        loss = probe.checked_loss(cell, _direction(seed, cell.hidden), batched=batch > 1)
        out = tracing.trace(loss, argnums=(), has_aux=True, batch_axis=_axis(batch))(params, xs)
        return out.scans[0].log_norm, out.aux

    return _spread(one)


@functools.cache
def _untied(init: Init, shape: Shape, batch: int) -> Any:
    def one(
        seed: jax.Array, scalars: dict[str, jax.Array], xs: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        cell = _drawn(init, shape, scalars)
        loss = probe.untied_loss(cell, _direction(seed, cell.hidden), batched=batch > 1)
        key = _key(seed, "untied", cell.name, init[0], cell.hidden, cell.inputs)
        # The parameters of a step are residuals of its own: drawn again, they need not be kept.
        out = tracing.trace(
            loss, argnums=(), has_aux=True, batch_axis=_axis(batch), segment=SEGMENT
        )(key, xs)
        return out.scans[0].log_norm, out.aux

    return _spread(one)


def _axis(batch: int) -> int | None:
    return 0 if batch > 1 else None


def _spread(function: Any) -> Any:
    """`function` over a leading axis of runs, an equal share of them on each device.

    A share of one is not mapped: XLA multiplies a batch of one matrix more slowly than a matrix.
    """

    def local(*args: Any) -> Any:
        if jax.tree.leaves(args)[0].shape[0] > 1:
            return jax.vmap(function)(*args)
        result = function(*jax.tree.map(lambda x: x[0], args))
        return jax.tree.map(lambda x: x[None], result)

    devices = jax.local_devices()
    runs = jax.sharding.PartitionSpec("runs")
    mesh = jax.sharding.Mesh(np.array(devices), ("runs",))
    spread = jax.shard_map(local, mesh=mesh, in_specs=runs, out_specs=runs, check_vma=False)
    return jax.jit(spread, compiler_options=ONE_THREAD if devices[0].platform == "cpu" else {})


def _direction(seed: jax.Array, hidden: int) -> jax.Array:
    return probe.direction(_key(seed, "direction", hidden), hidden, jnp.float32)


def rate(log_norm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The slope of log_norm against lag past the transients, and its standard error.

    With y_k = ln|lambda_{T-k}| at lag k, the least-squares slope over the middle 80 % of the lags,
    k = floor(T/10) .. T-1-floor(T/10): the smallest lags are left out since the adjoint has yet to
    turn into the leading directions, the largest since the state, which starts at zero, has yet to
    reach its stationary law. The slope is a weighted mean of the increments d_i = y_{i+1} - y_i,

        rate = sum_i w_i d_i,   w_i = 6 i (n - i) / (n (n^2 - 1)),   i = 1..m,  m = n - 1,

    over n lags. Log-norms are sums of increments, so their residuals about the line are a random
    walk and the textbook error of a fitted slope is far too small. The variance of the slope is
    S sum_i w_i^2 with S the increments' long-run variance, that is with all their correlations.
    S is estimated from how strongly B slow cosines are present in the increments,

        c_j = sqrt(2/m) sum_i d_i cos(pi j (i - 1/2)/m),   j = 1, 3, 4, .., B + 1,
        S = (c_1^2 + c_3^2 + .. + c_{B+1}^2) / B,          B = min(0.4 m^(2/3), 32), at least 4,

    and at most m - 2; j = 2 is left out since it is nearly the shape of w. For independent Gaussian
    increments S has exactly B degrees of freedom, and for others that are correlated over far
    fewer than m/B steps nearly so. The error is widened for that:

        stderr = t_B/2 sqrt(S sum_i w_i^2),   t_B the quantile of Student's t at 97.72 %.

    So rate +- 2 stderr covers the mean of this slope over repetitions in 95.45 % of the
    repetitions, at every length; the root of the slope's variance is smaller by t_B/2 (1.43 for
    B = 4, 1.13 at T = 200). Where increments are correlated over m/B steps or more it covers less.
    A repetition draws again what varies along the sequence: its input and, if they are untied, its
    weights. Weights that are the same at all steps are not drawn again, so that the error leaves
    out how matrices differ.

    Args:
        log_norm: (..., T) in nats, row t-1 for step t.

    Returns:
        rate and stderr in nats per step, each (...); NaN where a log_norm in the range is not
        finite (NaN itself included) or where fewer than two (four for the error) lags are left.

    Source: Lazarus, Lewis, Stock and Watson, "HAR inference: recommendations for practice" (2018),
    the EWC test, which keeps j = 2.

    >>> [value.round(6).tolist() for value in rate(np.arange(20) * 0.5)]
    [-0.5, 0.0]
    """
    y = np.asarray(log_norm, np.float64)[..., ::-1]
    lags, weights = increment_weights(y.shape[-1])
    y = y[..., lags]
    n = y.shape[-1]
    nothing = np.full(y.shape[:-1], np.nan)
    if n < 2:
        return nothing, nothing
    y = np.where(np.isfinite(y).all(axis=-1, keepdims=True), y, np.nan)
    increments = np.diff(y, axis=-1)
    # Not as a product, whose rounding would depend on how many curves there are.
    slope = np.sum(increments * weights, axis=-1)
    if n < 4:
        return slope, nothing
    m = n - 1
    dof = min(m - 2, max(4, min(32, int(0.4 * m ** (2 / 3)))))
    # Without the mean, of which the cosines would leave rounding.
    increments, middles = increments - slope[..., None], np.arange(m) + 0.5
    powers = [
        np.sum(increments * np.cos(np.pi * j / m * middles), axis=-1) ** 2
        for j in (1, *range(3, dof + 2))
    ]
    variance = 2 / m * np.sum(powers, axis=0) / dof
    return slope, student_factor(dof) * np.sqrt(variance * np.sum(weights**2))


def horizon(log_norm: np.ndarray) -> np.ndarray:
    """The first lag at which |lambda| has left [eps, 1/eps] times its size at lag 0, else NaN.

    eps is float32's, ln eps = -15.94: past it a gradient added to one of lag 0 is lost in rounding
    (or loses the other). NaN as well for no steps, and where lag 0 is not finite or a NaN comes
    before the first lag that is outside: what is not known is not the first.

    >>> horizon(np.array([-40.0, -20.0, -10.0, 0.0])).tolist()
    2.0
    """
    y = np.asarray(log_norm, np.float64)[..., ::-1]
    if not y.shape[-1]:
        return np.full(y.shape[:-1], np.nan)
    with np.errstate(invalid="ignore"):
        distance = np.abs(y - y[..., :1])
    # The first lag that is outside or NaN decides.
    stops = ~(distance <= -LOG_EPS)
    first = stops.argmax(axis=-1)
    unknown = np.isnan(np.take_along_axis(distance, first[..., None], axis=-1)[..., 0])
    return np.where(stops.any(axis=-1) & ~unknown, first, np.nan)


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
            log_gain = curve[0] - curve[-1] + 0.0
        expected = theory.predict(run)
        rows.append(
            {
                **run._asdict(),
                "run_id": run.run_id,
                "precision": PRECISION,
                "status": "nonfinite" if nonfinite else "zero" if zero else "ok",
                "verdict": verdict,
                "rate": slope[i] + 0.0,  # never -0.0
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
    """By how many errors a rate lies above what theory expects at the run's width and length.

    NaN where rate, error or bias is: the bias is known for untied weights, where `stderr` is all
    the error that there is, and where theory is exact for every matrix, so that none differs.
    """
    error = math.hypot(stderr, frames.ROUNDING)
    return float(rate - expected.rate - expected.bias) / error + 0.0
