"""Lyapunov exponents, and what follows from them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gradlab.spectrum._system import (
    check_count,
    check_steps,
    draw_frame,
    ravel_system,
    refuse_nonfinite,
)

# More batches resolve the error better, fewer are longer against the correlation time.
_BATCHES = 20


class LyapunovSpectrum(NamedTuple):
    """The first k Lyapunov exponents of an orbit, and how far to trust them.

    Attributes:
      exponents: λ_1..λ_k in the order of the tangent frame, in nats per step (per unit of time
        where ``dt`` gives one); -inf where a tangent was lost exactly.
      stderr: the standard error of each by batch means: the spread of the means of up to 20
        batches of successive steps, so correlations that are short against a batch are paid for.
        NaN with fewer than two batches.
      convergence: |mean over the second half - mean over the first half| of each.
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
      A ``LyapunovSpectrum``. Under ``jit`` or ``vmap`` a divergent orbit shows in its
      ``first_nonfinite_step``, and its exponents mean nothing.

    Raises:
      ValueError: for a k outside 1..n, counts that do not fit together, a step that does not
        return the state's structure, shapes and dtypes, and (outside ``jit`` and ``vmap``) an
        orbit that does not stay finite: at which step.

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
    batches = min(_BATCHES, intervals)
    batch = np.arange(intervals) * batches // intervals
    # The burn-in adds to a row of its own, which nobody reads.
    rows = np.concatenate([np.full(burn_in // qr_every, batches), batch])

    def interval(carry: Any, inputs: Any) -> tuple[Any, None]:
        moving, sums = carry
        row, x = inputs
        (orbit, frame, *count), _ = jax.lax.scan(system.advance, moving, x, length=qr_every)
        Q, R = jnp.linalg.qr(frame.T)
        # The sign of R_ii is left as it falls: nothing here reads it.
        growth = jnp.log(jnp.abs(jnp.diagonal(R)))
        sums = jax.lax.dynamic_update_index_in_dim(sums, sums[row] + growth, row, 0)
        return ((orbit, Q.T, *count), sums), None

    if xs is not None:
        xs = jax.tree.map(lambda leaf: leaf.reshape(-1, qr_every, *leaf.shape[1:]), xs)
    sums = jnp.zeros((batches + 1, k), system.start.dtype)
    carry = (system.begin(draw_frame(system.start, k, key)), sums)
    (moving, sums), _ = jax.lax.scan(interval, carry, (jnp.asarray(rows), xs))
    first_nonfinite_step = moving[-1]
    refuse_nonfinite(first_nonfinite_step, burn_in + steps)

    sums = sums[:-1] / jnp.asarray(dt, sums.dtype)
    lengths = np.bincount(batch) * qr_every
    exponents = sums.sum(0) / steps
    stderr = convergence = jnp.full_like(exponents, jnp.nan)
    if batches > 1:
        # Σ (sum_b - T_b λ)² / T², where the mean of batch b is sum_b / T_b.
        excess = (sums - jnp.asarray(lengths, sums.dtype)[:, None] * exponents[None]) / steps
        stderr = jnp.sqrt((excess**2).sum(0) * (batches / (batches - 1)))
        half = batches // 2
        first = sums[:half].sum(0) / lengths[:half].sum()
        second = sums[half:].sum(0) / lengths[half:].sum()
        convergence = jnp.abs(second - first)
    return LyapunovSpectrum(exponents, stderr, convergence, steps, first_nonfinite_step)


def kaplan_yorke(exponents: ArrayLike) -> Array:
    """The Kaplan-Yorke dimension: where the sum of the largest exponents turns negative.

    With the exponents in descending order and j the most of them whose sum is not negative::

      D = j + (λ_1 + ... + λ_j) / |λ_{j+1}|

    Args:
      exponents: (..., k), in any order.

    Returns:
      D, of shape (...); 0 where every exponent is negative. Where no partial sum is negative, k:
      the dimension if these are all exponents, a lower bound if they are the first k.

    >>> round(float(kaplan_yorke(jnp.array([0.9, 0.0, -14.5]))), 3)
    2.062

    Source: Frederickson, Kaplan, Yorke & Yorke, "The Liapunov dimension of strange attractors"
    (1983), equation 3.
    """
    exponents = jnp.sort(jnp.asarray(exponents), axis=-1, descending=True)
    sums = jnp.cumsum(exponents, axis=-1)
    # The partial sums rise, then fall: once negative, they stay so.
    negative = sums < 0
    turn = negative & (jnp.cumsum(negative, axis=-1) == 1)
    before = jnp.concatenate([jnp.zeros_like(sums[..., :1]), sums[..., :-1]], axis=-1)
    part = jnp.where(turn, before / jnp.abs(exponents), 0)
    return jnp.sum(jnp.where(negative, part, 1), axis=-1)


def entropy_rate(exponents: ArrayLike) -> Array:
    """The sum of the positive exponents, h = Σ_i max(λ_i, 0), in nats per step (or unit of time).

    The Kolmogorov-Sinai entropy where Pesin's identity holds, an upper bound of it elsewhere.

    Args:
      exponents: (..., k).

    Returns:
      h, of shape (...).

    >>> float(entropy_rate(jnp.array([0.5, 0.25, -3.0])))
    0.75

    Source: Pesin, "Characteristic Lyapunov exponents and smooth ergodic theory" (1977); Ruelle, "An
    inequality for the entropy of differentiable maps" (1978) for the bound.
    """
    return jnp.sum(jnp.maximum(jnp.asarray(exponents), 0), axis=-1)
