"""Singular values of long products of Jacobians."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradlab.spectrum._scaled import WideFloat, divide, log, multiply, ones, split
from gradlab.spectrum._system import (
    check_count,
    check_steps,
    draw_frame,
    ravel_step,
    ravel_system,
    refuse_nonfinite,
)

_MOST_SWEEPS = 40


def log_singular_values(
    step: Callable[..., Any],
    state: Any,
    xs: Any = None,
    *,
    steps: int | None = None,
    k: int | None = None,
    key: Array | None = None,
) -> Array:
    """Log singular values of J = ∂h_T/∂h_0 = J_T ... J_1, far past the float's range.

    A full frame is carried by QR from a random orthogonal Q_0, and the triangular factors are
    multiplied in units of their diagonals, so that nothing over- or underflows::

      J Q_0 = Q_T D U,   D diagonal,   U unit upper triangular and of order 1

    The singular values of D U come from one-sided Jacobi rotations of its rows. D and the rows'
    scales are fractions and powers of two, whose exponents are integers: no sum of logarithms
    grows. For ∂h_T/∂h_t start at the state h_t, with the inputs from t + 1 on.

    Args:
      step: ``step(state)``, or ``step(state, x)`` where ``xs`` is given; returns the next state.
      state: h_0, where the orbit starts.
      xs: inputs, a pytree whose leaves have one leading axis of time.
      steps: T; without it, all that ``xs`` holds.
      k: how many to return, the largest first; all n without it. The work is that of all.
      key: draws Q_0; without it, always the same one.

    Returns:
      (k,), descending, in nats. Under ``jit`` or ``vmap`` NaN where the orbit did not stay finite.

    Raises:
      ValueError: as ``lyapunov`` does.

    The result is exact for Jacobians that differ from those given by a few eps of their norm each:
    a log is off by about eps √T where the steps are well conditioned, and by up to eps T κ for the
    smallest, κ being the condition number of a step; and by eps of itself, 0.008 at 70,000 in
    float32. Rows or columns of zeros in a step's Jacobian, as of dead relu units, give as many
    values of -inf. A step that is singular in another way (W of low rank) is so to rounding alone,
    and each such step shows as about ln eps.

    >>> W = jnp.diag(jnp.array([2.0, 0.5]))
    >>> logs = log_singular_values(lambda h: W @ h, jnp.zeros(2), steps=2000)
    >>> [round(float(log), 1) for log in logs]
    [1386.3, -1386.3]

    Source: Oliveira & Stewart, "Exponential splittings of products of matrices and accurately
    computing singular values of long products" (2000); Demmel & Veselić, "Jacobi's method is more
    accurate than QR" (1992), on why the rows' scales cost no accuracy.
    """
    system = ravel_system(step, state, xs)
    n = system.start.size
    k = check_count(k, n)
    steps, xs = check_steps(xs, steps, 0)

    eye = jnp.eye(n, dtype=system.start.dtype)

    def advance(carry: Any, x: Any) -> tuple[Any, None]:
        (orbit, _, *count), product = carry
        moving, _ = system.advance((orbit, eye, *count), x)
        return (moving, _times(moving[1], product)), None

    start = system.begin(eye), _identity(draw_frame(system.start, n, key))
    (moving, product), _ = jax.lax.scan(advance, start, xs, length=steps)
    first_nonfinite_step = moving[-1]
    refuse_nonfinite(first_nonfinite_step, steps)
    logs = _log_values(product)[:k]
    return jnp.where(first_nonfinite_step == 0, logs, jnp.nan)


def log_singular_values_by_lag(
    step: Callable[..., Any],
    state: Any,
    xs: Any = None,
    *,
    lags: Sequence[int],
    steps: int | None = None,
    k: int | None = None,
    key: Array | None = None,
) -> Array:
    """Log singular values of ∂h_T/∂h_{T-l} for several lags l, in one pass back from h_T.

    As ``log_singular_values`` of the transpose, whose factors come in the order of the lags::

      (∂h_T/∂h_{T-l})ᵀ = J_{T-l+1}ᵀ ... J_Tᵀ

    The logarithm of the condition number is the first minus the last: how far from one size the
    gradients of different directions at h_T are when they have come back to h_{T-l}.

    Args:
      step: ``step(state)``, or ``step(state, x)`` where ``xs`` is given; returns the next state.
      state: h_0, where the orbit starts.
      xs: inputs, a pytree whose leaves have one leading axis of time.
      lags: l, each between 1 and T.
      steps: T; without it, all that ``xs`` holds.
      k: how many to return, the largest first; all n without it. The work is that of all.
      key: draws the frame that is carried back; without it, always the same one.

    Returns:
      (len(lags), k), each row descending, in nats: as exact as ``log_singular_values``, also where
      a step is singular. NaN where
      the orbit, or a Jacobian of the last l steps, is not finite.

    Raises:
      ValueError: as ``lyapunov`` does for its arguments, and for a lag outside 1..T.

    >>> W = jnp.diag(jnp.array([2.0, 0.5]))
    >>> logs = log_singular_values_by_lag(lambda h: W @ h, jnp.zeros(2), steps=100, lags=(1, 100))
    >>> [round(float(log), 2) for log in logs[:, 0] - logs[:, 1]]  # l ln 4
    [1.39, 138.63]

    Source: as ``log_singular_values``; Pennington, Schoenholz & Ganguli, "Resurrecting the sigmoid
    in deep learning through dynamical isometry" (2017), for what the spread does to learning.
    """
    system = ravel_step(step, state)
    n = system.start.size
    k = check_count(k, n)
    steps, xs = check_steps(xs, steps, 0)
    if not len(lags):
        raise ValueError(f"lags must be between 1 and {steps}, got none")
    for lag in lags:
        if not 1 <= lag <= steps:
            raise ValueError(f"lags must be between 1 and {steps}, got {lag}")

    def move(flat: Array, others: list[Array], x: Any) -> tuple[Array, list[Array]]:
        return system.move(flat, others, *(() if xs is None else (x,)))

    def forward(carry: Any, x: Any) -> tuple[Any, Any]:
        flat, others = carry
        return move(flat, others, x), (carry, x)

    eye = jnp.eye(n, dtype=system.start.dtype)

    def backward(product: Any, inputs: Any) -> tuple[Any, Any]:
        (flat, others), x = inputs
        pull = jax.vjp(lambda flat: move(flat, others, x)[0], flat)[1]
        product = _times(jax.vmap(lambda row: pull(row)[0])(eye), product)
        return product, product

    @jax.jit
    def run(xs: Any, frame: Array) -> Array:
        last, orbit = jax.lax.scan(forward, (system.start, system.others), xs, length=steps)
        # Only the longest of the lags is walked back.
        most = max(lags)
        orbit = jax.tree.map(lambda part: part[steps - most :], orbit)
        _, products = jax.lax.scan(backward, _identity(frame), orbit, reverse=True)
        by_lag = jax.tree.map(lambda part: part[most - np.array(lags)], products)
        logs = jax.vmap(_log_values)(by_lag)[:, :k]
        return jnp.where(jnp.isfinite(last[0]).all(), logs, jnp.nan)

    return run(xs, draw_frame(system.start, n, key))


class _Product(NamedTuple):
    """A product of Jacobians times an orthogonal matrix: Q diag(sizes) U, frame being Qᵀ."""

    frame: Array
    sizes: WideFloat
    U: Array
    zeros: Array  # how many of its singular values are exactly 0


def _identity(frame: Array) -> _Product:
    n = len(frame)
    return _Product(frame, ones(n, frame.dtype), jnp.eye(n, dtype=frame.dtype), jnp.int32(0))


def _times(columns: Array, product: _Product) -> _Product:
    """One more Jacobian J on the left, given by its columns as rows.

    As many singular values of a product are 0 as its factors have rows or columns of zeros, which
    rounding would make ln eps of each step: dead units of a relu network.
    """
    rows = jnp.matmul(product.frame, columns, precision="highest")
    Q = jnp.linalg.qr(rows.T)[0]
    # Where all steps are equal, the rounding of the factorization's own R is the same in each, and
    # adds up.
    R = jnp.triu(jnp.matmul(Q.T, rows.T, precision="highest"))
    is_zero = columns == 0
    zeros = jnp.maximum(is_zero.all(0).sum(), is_zero.all(1).sum()).astype(jnp.int32)
    return _Product(
        Q.T, *_times_graded(R, product.sizes, product.U), jnp.maximum(product.zeros, zeros)
    )


@jax.jit
def _log_values(product: _Product) -> Array:
    logs = _graded_singular_values(product.sizes, product.U)
    return jnp.where(jnp.arange(len(logs)) < len(logs) - product.zeros, logs, -jnp.inf)


def _times_graded(R: Array, sizes: WideFloat, U: Array) -> tuple[WideFloat, Array]:
    """Write R D U as D' U', with D = diag(sizes) and U' unit upper triangular again."""
    diagonal = jnp.abs(jnp.diagonal(R))
    triangle = R * _ratios(sizes) / jnp.where(diagonal == 0, 1, diagonal)[:, None]
    return multiply(sizes, split(diagonal)), triangle @ U


def _ratios(sizes: WideFloat) -> Array:
    """The upper triangle of size_j / size_i."""
    return jnp.triu(divide(_at(sizes, (None,)), _at(sizes, (slice(None), None))))


@jax.jit
def _graded_singular_values(sizes: WideFloat, rows: Array) -> Array:
    """Log singular values of diag(sizes) rows, descending; NaN where an entry is not finite."""
    n = len(rows)
    finite = jnp.isfinite(rows).all() & jnp.isfinite(sizes.fraction).all()
    # A QR step of the transpose, which keeps the values, leaves rows that are orthogonal but for
    # those of like scale: rotations have less to do.
    for _ in range(2):
        order = jnp.lexsort((-sizes.fraction, -sizes.exponent, sizes.fraction == 0))
        sizes, rows = _at(sizes, order), rows[order]
        rows = jnp.linalg.qr(rows.T)[1] * _ratios(sizes)
    if n % 2:
        # One more row, orthogonal to all others, so that all have a partner.
        rows = jnp.pad(rows, ((0, 1), (0, 1))).at[-1, -1].set(1)
        sizes = jax.tree.map(lambda part: jnp.pad(part, (0, 1)), sizes)
    half = len(rows) // 2
    # A round robin: row i meets row half + i, then all but the first move on by one seat.
    seats = np.arange(2 * half)
    ring = np.concatenate([seats[1:half], seats[half:][::-1]])
    reseat = seats.copy()
    reseat[ring] = np.roll(ring, 1)

    def meet(carry: Any, _: None) -> tuple[Any, Array]:
        sizes, rows = carry
        # Within a pair everything is in units of the larger row a.
        swap = _smaller(_at(sizes, seats[:half]), _at(sizes, seats[half:]))
        (size_a, size_b), (a, b) = _halves(sizes, swap), _halves(rows, swap[:, None])
        ratio = jnp.where(size_b.fraction == 0, 0, divide(size_b, size_a))
        # 1 - ratio², which would lose half of its digits where the sizes are close.
        size, gap = ratio**2, (1 - ratio) * (1 + ratio)
        cosine = jnp.sum(a * b, axis=1)
        # tan of the angle that makes them orthogonal, over their ratio.
        tilt = 2 * cosine / (gap + jnp.sqrt(gap**2 + 4 * size * cosine**2))
        tilt = jnp.where(cosine == 0, 0, tilt)
        turn = split(jax.lax.rsqrt(1 + size * tilt**2))
        pairs = multiply(size_a, turn), multiply(size_b, turn)
        sizes = jax.tree.map(lambda *parts: jnp.concatenate(parts), *pairs)
        rows = jnp.concatenate([a + (size * tilt)[:, None] * b, b - tilt[:, None] * a])
        sizes = jax.tree.map(lambda *parts: jnp.concatenate(parts), *_halves(sizes, swap))
        rows = jnp.concatenate(_halves(rows, swap[:, None]))
        sizes, rows = _unit(_at(sizes, reseat), rows[reseat])
        return (sizes, rows), jnp.abs(cosine).max()

    def sweep(carry: Any) -> Any:
        sizes, rows, _, sweeps = carry
        (sizes, rows), cosines = jax.lax.scan(meet, (sizes, rows), length=2 * half - 1)
        return sizes, rows, cosines.max(), sweeps + 1

    def continues(carry: Any) -> Array:
        _, _, cosine, sweeps = carry
        return (cosine > 2 * half * jnp.finfo(rows.dtype).eps) & (sweeps < _MOST_SWEEPS)

    start = (*_unit(sizes, rows), jnp.ones((), rows.dtype), 0)
    logs = log(jax.lax.while_loop(continues, sweep, start)[0])
    return jnp.where(finite, jnp.sort(logs, descending=True)[:n], jnp.nan)


def _at(sizes: WideFloat, index: Any) -> WideFloat:
    return jax.tree.map(lambda part: part[index], sizes)


def _smaller(x: WideFloat, y: WideFloat) -> Array:
    """Whether x < y; the exponent of a zero says nothing."""
    below = (x.exponent < y.exponent) | ((x.exponent == y.exponent) & (x.fraction < y.fraction))
    return jnp.where((x.fraction == 0) | (y.fraction == 0), x.fraction < y.fraction, below)


def _halves(both: Any, swap: Array) -> tuple[Any, Any]:
    """The first and the second half of an array or of all in a tree, exchanged where ``swap``."""
    first = jax.tree.map(lambda x: x[: len(swap)], both)
    second = jax.tree.map(lambda x: x[len(swap) :], both)
    return (
        jax.tree.map(lambda x, y: jnp.where(swap, y, x), first, second),
        jax.tree.map(lambda x, y: jnp.where(swap, x, y), first, second),
    )


def _unit(sizes: WideFloat, rows: Array) -> tuple[WideFloat, Array]:
    """Bring the rows to norm 1 and their lengths into the sizes."""
    norms = jnp.linalg.norm(rows, axis=1)
    return multiply(sizes, split(norms)), rows / jnp.where(norms == 0, 1, norms)[:, None]
