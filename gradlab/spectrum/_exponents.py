"""Lyapunov exponents, and what follows from them."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gradlab.spectrum._error import error_of_mean
from gradlab.spectrum._scaled import WideFloat, log, multiply, ones, split
from gradlab.spectrum._system import (
    check_count,
    check_steps,
    draw_frame,
    ravel_system,
    refuse_nonfinite,
)

# The error sees correlations between the batches, and those within one as part of its mean.
_MOST_BATCHES = 256


class LyapunovSpectrum(NamedTuple):
    """The first k Lyapunov exponents of an orbit, and how far to trust them.

    Attributes:
      exponents: λ_1..λ_k in the order of the tangent frame, in nats per step (per unit of time
        where ``dt`` gives one); -inf where a tangent was lost exactly, NaN where the orbit did not
        stay finite.
      stderr: the standard error of each: the true mean lies within two of them in 95 % of orbits
        whose steps are correlated. It is from an autoregression of the means of up to 256 equal
        batches of successive steps (see ``error_of_mean``), with the float's rounding added: eps
        for each factorization and eps |λ|, eps being that of the narrowest leaf of the state. NaN
        for fewer than 50 factorizations, for an orbit that is worth fewer than three independent
        ones, and where the exponent is not finite. A slow part that
        hides under faster noise is counted in full only by orbits of some 50 of its times.
      convergence: |mean over the second half - mean over the first half| of each; NaN for one
        factorization alone, and where the exponent is not finite.
      steps: the number of steps that the means are over, burn-in not counted.
      first_nonfinite_step: the first step, counted from 1 and with the burn-in, after which the
        state or a tangent was not finite; 0 if there was none.
    """

    exponents: Array
    stderr: Array
    convergence: Array
    steps: int
    first_nonfinite_step: Array

    @property
    def kaplan_yorke(self) -> Array:
        """The Kaplan-Yorke dimension of these exponents; see ``kaplan_yorke``."""
        return kaplan_yorke(self.exponents)

    @property
    def entropy_rate(self) -> Array:
        """The entropy rate of these exponents; see ``entropy_rate``."""
        return entropy_rate(self.exponents)


def lyapunov(
    step: Callable[..., Any],
    state: Any,
    xs: Any = None,
    *,
    steps: int | None = None,
    k: int | None = None,
    burn_in: int = 0,
    qr_every: int = 1,
    dt: ArrayLike = 1.0,
    key: Array | None = None,
) -> LyapunovSpectrum:
    """The first k Lyapunov exponents along an orbit, by QR of k tangents.

    A frame Q (n, k) of orthonormal tangents is carried along the orbit and made orthonormal again
    every s = ``qr_every`` steps, with J the product of the s Jacobians between::

      J Q = Q' R
      λ_i = mean of ln|R_ii| / (s dt)

    Args:
      step: ``step(state)``, or ``step(state, x)`` where ``xs`` is given; returns the next state.
      state: h_0, where the orbit starts.
      xs: inputs, a pytree whose leaves have one leading axis of time.
      steps: T, how many steps to average over; without it, all that ``xs`` holds past the burn-in.
      k: how many exponents, the largest first; all n without it.
      burn_in: how many steps to make first, with the orbit and the frame, that no mean sees.
      qr_every: s, which must divide ``steps`` and ``burn_in``.
      dt: the time that a step takes; exponents are per unit of it.
      key: draws the first frame; without it, always the same one.

    Returns:
      A ``LyapunovSpectrum``. Under ``jit`` or ``vmap`` an orbit that does not stay finite (NaN in
      the state, the inputs or a Jacobian included) gives NaN, and its ``first_nonfinite_step``.

    Raises:
      ValueError: for a k outside 1..n, counts that do not fit together, a dt that is a plain number
        and not above 0, a step that does not return the state's structure, shapes and dtypes, and
        (outside ``jit`` and ``vmap``) an orbit that does not stay finite: at which step.

    Outside ``jit`` every call compiles. With s > 1 the tangents lean towards the leading ones for
    s steps: λ_i is lost in rounding where s (λ_1 - λ_i) > -ln eps, 15.9 in float32, and everything
    where s |λ| leaves the float's range, 87 in float32. A singular Jacobian leaves rounding as
    well, an exponent near λ_1 + ln eps / s. On a CPU, QR is LAPACK's: with hundreds of exponents on
    cores that others use as well, set OPENBLAS_NUM_THREADS=1, since its threads wait by spinning.

    >>> spectrum = lyapunov(lambda h: 4 * h * (1 - h), 0.3, steps=1000, burn_in=100)
    >>> round(float(spectrum.exponents[0]), 2)
    0.69

    Source: Benettin, Galgani, Giorgilli & Strelcyn, "Lyapunov characteristic exponents for smooth
    dynamical systems" (1980); Geist, Parlitz & Lauterborn, "Comparison of different methods for
    computing Lyapunov exponents" (1990).
    """
    system = ravel_system(step, state, xs)
    k = check_count(k, system.start.size)
    if isinstance(dt, int | float) and not 0 < dt < np.inf:
        raise ValueError(f"dt must be above 0 and finite, got {dt}")
    if burn_in < 0 or qr_every < 1:
        raise ValueError(
            f"burn_in must be at least 0 and qr_every at least 1, got {burn_in} and {qr_every}"
        )
    steps, xs = check_steps(xs, steps, burn_in)
    if steps % qr_every or burn_in % qr_every:
        raise ValueError(
            f"qr_every must divide steps and burn_in, got {qr_every}, {steps} and {burn_in}"
        )
    intervals = steps // qr_every
    size = _batch_size(intervals)
    batches = -(-intervals // size)
    # The burn-in multiplies into a row of its own, which nobody reads.
    burn_in_rows = np.full(burn_in // qr_every, batches)
    rows = np.concatenate([burn_in_rows, np.arange(intervals) // size])

    def interval(carry: Any, inputs: Any) -> tuple[Any, None]:
        moving, growths = carry
        row, x = inputs
        (orbit, frame, *count), _ = jax.lax.scan(system.advance, moving, x, length=qr_every)
        Q, R = jnp.linalg.qr(frame.T)
        # The sign of R_ii is left as it falls: nothing here reads it.
        growth = split(jnp.abs(jnp.diagonal(R)))
        product = multiply(jax.tree.map(lambda part: part[row], growths), growth)
        growths = jax.tree.map(
            lambda all, one: jax.lax.dynamic_update_index_in_dim(all, one, row, 0), growths, product
        )
        return ((orbit, Q.T, *count), growths), None

    if xs is not None:
        xs = jax.tree.map(lambda leaf: leaf.reshape(-1, qr_every, *leaf.shape[1:]), xs)
    growths = ones((batches + 1, k), system.start.dtype)
    carry = (system.begin(draw_frame(system.start, k, key)), growths)
    (moving, growths), _ = jax.lax.scan(interval, carry, (jnp.asarray(rows), xs))
    first_nonfinite_step = moving[-1]
    refuse_nonfinite(first_nonfinite_step, burn_in + steps)

    exponents, stderr, convergence = _summarize(
        jax.tree.map(lambda part: part[:-1], growths),
        first_nonfinite_step,
        jnp.asarray(dt, system.start.dtype),
        intervals=intervals,
        qr_every=qr_every,
        eps=system.eps,
    )
    return LyapunovSpectrum(exponents, stderr, convergence, steps, first_nonfinite_step)


# One program for all orbits of a length: outside jit each of these operations would be one.
@functools.partial(jax.jit, static_argnames=("intervals", "qr_every", "eps"))
def _summarize(
    growths: WideFloat,
    first_nonfinite_step: Array,
    dt: Array,
    *,
    intervals: int,
    qr_every: int,
    eps: float,
) -> tuple[Array, Array, Array]:
    """The exponents, their standard errors and their convergence, from each batch's growth."""
    batches, size = len(growths.fraction), _batch_size(intervals)
    growths = growths._replace(
        fraction=jnp.where(first_nonfinite_step == 0, growths.fraction, jnp.nan)
    )
    steps = np.bincount(np.arange(intervals) // size) * qr_every
    times = jnp.asarray(steps, dt.dtype)[:, None] * dt
    exponents = _mean(growths, times)
    floor = eps * (1 / (qr_every * dt) + jnp.abs(exponents))
    means = log(growths) / times
    stderr = error_of_mean(means[: intervals // size], intervals / size, floor)
    half = batches // 2
    convergence = jnp.full_like(exponents, jnp.nan)
    if half:
        first = _mean(jax.tree.map(lambda part: part[:half], growths), times[:half])
        second = _mean(jax.tree.map(lambda part: part[half:], growths), times[half:])
        convergence = jnp.abs(second - first)
    return exponents, stderr, convergence


def _batch_size(intervals: int) -> int:
    """Batches are of equal length, but for the last: which only the mean sees, not its error."""
    return -(-intervals // _MOST_BATCHES)


def _mean(growths: WideFloat, times: Array) -> Array:
    """ln of the product of all rows, per unit of time: the integers first, which are exact."""
    total = WideFloat(jnp.ones_like(growths.fraction[0]), growths.exponent.sum(0))
    return (log(total) + jnp.log(growths.fraction).sum(0)) / times.sum()


def finite_time_exponents(
    step: Callable[..., Any],
    state: Any,
    xs: Any = None,
    *,
    window: int,
    steps: int | None = None,
    k: int | None = None,
    burn_in: int = 0,
    key: Array | None = None,
) -> Array:
    """The exponents of an orbit window by window: what ``lyapunov`` takes the mean of.

    The frame Q of ``lyapunov``, made orthonormal after every step, with R_t = Q_tᵀ J_t Q_{t-1}::

      λ_i(j) = mean of ln|R_t,ii| over the steps t of window j

    Their mean over all windows is the Lyapunov exponent λ_i, and how widely they spread says how
    unlike each other the stretches of the orbit are. The exponents of one window of its own,
    without what came before, are ``log_singular_values`` divided by its length.

    Args:
      step: ``step(state)``, or ``step(state, x)`` where ``xs`` is given; returns the next state.
      state: h_0, where the orbit starts.
      xs: inputs, a pytree whose leaves have one leading axis of time.
      window: how many steps each value is over; must divide ``steps``.
      steps: T, past the burn-in; without it, all that ``xs`` holds.
      k: how many exponents, the largest first; all n without it.
      burn_in: how many steps to make first, with the orbit and the frame.
      key: draws the first frame; without it, always the same one.

    Returns:
      (T / window, k), in nats per step: -inf where a tangent was lost exactly, NaN from the window
      on in which the orbit or a tangent is not finite.

    Raises:
      ValueError: as ``lyapunov`` does for its arguments, and for a window that does not divide the
        steps.

    >>> values = finite_time_exponents(lambda h: 4 * h * (1 - h), 0.3, steps=1000, window=100)
    >>> values.shape, round(float(values.mean()), 2), round(float(values.std()), 2)
    ((10, 1), 0.69, 0.01)

    Source: Grassberger, Badii & Politi, "Scaling laws for invariant measures on hyperbolic and
    nonhyperbolic attractors" (1988); Pikovsky & Politi, "Lyapunov exponents" (2016), chapter 5.
    """
    system = ravel_system(step, state, xs)
    k = check_count(k, system.start.size)
    if burn_in < 0 or window < 1:
        raise ValueError(
            f"burn_in must be at least 0 and window at least 1, got {burn_in} and {window}"
        )
    steps, xs = check_steps(xs, steps, burn_in)
    if steps % window:
        raise ValueError(f"window must divide the steps, got {window} and {steps}")

    def advance(carry: Any, x: Any) -> tuple[Any, Array]:
        (orbit, frame, *count), _ = system.advance(carry, x)
        Q, R = jnp.linalg.qr(frame.T)
        logs = jnp.log(jnp.abs(jnp.diagonal(R)))
        return (orbit, Q.T, *count), jnp.where(count[-1] == 0, logs, jnp.nan)

    carry = system.begin(draw_frame(system.start, k, key))
    _, logs = jax.lax.scan(advance, carry, xs, length=burn_in + steps)
    return logs[burn_in:].reshape(-1, window, k).mean(1)


def kaplan_yorke(exponents: ArrayLike) -> Array:
    """The Kaplan-Yorke dimension: where the sum of the largest exponents turns negative.

    With the exponents in descending order and j the most of them whose sum is not negative::

      D = j + (λ_1 + ... + λ_j) / |λ_{j+1}|

    Args:
      exponents: (..., k), in any order; at least one.

    Returns:
      D, of shape (...); 0 where every exponent is negative. Where no partial sum is negative, k:
      the dimension if these are all exponents, a lower bound if they are the first k. NaN where
      an exponent is NaN or +inf; one of -inf is a direction that is lost at once.

    Raises:
      ValueError: for no exponents.

    >>> round(float(kaplan_yorke(jnp.array([0.9, 0.0, -14.5]))), 3)
    2.062

    Source: Frederickson, Kaplan, Yorke & Yorke, "The Liapunov dimension of strange attractors"
    (1983), equation 3.
    """
    exponents = jnp.sort(_exponents(exponents), axis=-1, descending=True)
    valid = jnp.all(exponents < jnp.inf, axis=-1)
    sums = jnp.cumsum(exponents, axis=-1)
    # The partial sums rise, then fall: once negative, they stay so.
    negative = sums < 0
    turn = negative & (jnp.cumsum(negative, axis=-1) == 1)
    before = jnp.concatenate([jnp.zeros_like(sums[..., :1]), sums[..., :-1]], axis=-1)
    part = jnp.where(turn, before / jnp.abs(exponents), 0)
    return jnp.where(valid, jnp.sum(jnp.where(negative, part, 1), axis=-1), jnp.nan)


def entropy_rate(exponents: ArrayLike) -> Array:
    """The sum of the positive exponents, h = Σ_i max(λ_i, 0), in nats per step (or unit of time).

    The Kolmogorov-Sinai entropy where Pesin's identity holds, an upper bound of it elsewhere.

    Args:
      exponents: (..., k), at least one.

    Returns:
      h, of shape (...); NaN where an exponent is NaN.

    Raises:
      ValueError: for no exponents.

    >>> float(entropy_rate(jnp.array([0.5, 0.25, -3.0])))
    0.75

    Source: Pesin, "Characteristic Lyapunov exponents and smooth ergodic theory" (1977); Ruelle, "An
    inequality for the entropy of differentiable maps" (1978) for the bound.
    """
    return jnp.sum(jnp.maximum(_exponents(exponents), 0), axis=-1)


def _exponents(values: ArrayLike) -> Array:
    """The exponents in float32 at least: sums of 16-bit numbers round too much."""
    exponents = jnp.asarray(values)
    if exponents.ndim == 0 or exponents.shape[-1] == 0:
        raise ValueError(f"needs at least one exponent, got shape {exponents.shape}")
    return exponents.astype(jnp.promote_types(exponents.dtype, jnp.float32))
