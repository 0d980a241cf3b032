"""Singular values of long products of Jacobians."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradlab.spectrum._system import (
    check_count,
    check_steps,
    draw_frame,
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

      J Q_0 = Q_T D U,   D = exp(diag(d)),   U unit upper triangular and of order 1

    The singular values of D U come from one-sided Jacobi rotations of its rows, whose scales stay
    logarithms. For ∂h_T/∂h_t start at the state h_t, with the inputs from t + 1 on.

    Args:
      step: ``step(state)``, or ``step(state, x)`` where ``xs`` is given; returns the next state.
      state: h_0, where the orbit starts.
      xs: inputs, a pytree whose leaves have one leading axis of time.
      steps: T; without it, all that ``xs`` holds.
      k: how many to return, the largest first; all n without it. The work is that of all.
      key: draws Q_0; without it, always the same one.

    Returns:
      (k,), descending, in nats.

    Raises:
      ValueError: as ``lyapunov`` does.

    The result is exact for Jacobians that differ from those given by a few eps of their norm each:
    a log is off by about eps √T where the steps are well conditioned, and by up to eps T κ for the
    smallest, κ being the condition number of a step. An exact zero of a step shows as about ln eps
    rather than -inf.

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

    def advance(carry: Any, x: Any) -> tuple[Any, None]:
        moving, logs, U = carry
        (orbit, frame, *count), _ = system.advance(moving, x)
        Q, R = jnp.linalg.qr(frame.T)
        return ((orbit, Q.T, *count), *_times_graded(R, logs, U)), None

    moving = system.begin(draw_frame(system.start, n, key))
    identity = jnp.zeros_like(system.start), jnp.eye(n, dtype=system.start.dtype)
    (moving, logs, U), _ = jax.lax.scan(advance, (moving, *identity), xs, length=steps)
    refuse_nonfinite(moving[-1], steps)
    return _graded_singular_values(logs, U)[:k]


def _times_graded(R: Array, logs: Array, U: Array) -> tuple[Array, Array]:
    """Write R exp(diag(logs)) U as exp(diag(logs')) U', with U' unit upper triangular again."""
    size = jnp.abs(jnp.diagonal(R))
    scaled = R * _ratio(logs) / jnp.where(size == 0, 1, size)[:, None]
    return logs + jnp.log(size), scaled @ U


def _ratio(logs: Array) -> Array:
    """The upper triangle of exp(logs_j - logs_i), 1 where they are equal."""
    apart = logs[None, :] - logs[:, None]
    apart = jnp.where(logs[None, :] == logs[:, None], 0, apart)
    return jnp.triu(jnp.exp(jnp.triu(apart)))


def _graded_singular_values(logs: Array, rows: Array) -> Array:
    """Log singular values of exp(diag(logs)) rows, descending."""
    n = logs.size
    # A QR step of the transpose, which keeps the values, leaves rows that are orthogonal but for
    # those of like scale: rotations have less to do.
    for _ in range(2):
        order = jnp.argsort(-logs)
        logs, rows = logs[order], rows[order]
        rows = jnp.linalg.qr(rows.T)[1] * _ratio(logs)
    if n % 2:
        # One more row, orthogonal to all others, so that all have a partner.
        rows = jnp.pad(rows, ((0, 1), (0, 1))).at[-1, -1].set(1)
        logs = jnp.pad(logs, (0, 1), constant_values=-jnp.inf)
    half = logs.size // 2
    # A round robin: row i meets row half + i, then all but the first move on by one seat.
    seats = np.arange(2 * half)
    ring = np.concatenate([seats[1:half], seats[half:][::-1]])
    reseat = seats.copy()
    reseat[ring] = np.roll(ring, 1)

    def meet(carry: Any, _: None) -> tuple[Any, Array]:
        logs, rows = carry
        # Within a pair everything is in units of the larger row a.
        swap = logs[half:] > logs[:half]
        (log_a, log_b), (a, b) = _halves(logs, swap), _halves(rows, swap[:, None])
        twice = jnp.where(log_b == -jnp.inf, -jnp.inf, 2 * (log_b - log_a))
        size, gap = jnp.exp(twice), -jnp.expm1(twice)
        cosine = jnp.sum(a * b, axis=1)
        # tan of the angle that makes them orthogonal, over their ratio √size.
        tilt = 2 * cosine / (gap + jnp.sqrt(gap**2 + 4 * size * cosine**2))
        tilt = jnp.where(cosine == 0, 0, tilt)
        turn = -0.5 * jnp.log1p(size * tilt**2)
        logs = jnp.concatenate([log_a + turn, log_b + turn])
        rows = jnp.concatenate([a + (size * tilt)[:, None] * b, b - tilt[:, None] * a])
        logs = jnp.concatenate(_halves(logs, swap))
        rows = jnp.concatenate(_halves(rows, swap[:, None]))
        logs, rows = _unit(logs[reseat], rows[reseat])
        return (logs, rows), jnp.abs(cosine).max()

    def sweep(carry: Any) -> Any:
        logs, rows, _, made = carry
        (logs, rows), cosines = jax.lax.scan(meet, (logs, rows), length=2 * half - 1)
        return logs, rows, cosines.max(), made + 1

    def unfinished(carry: Any) -> Array:
        _, _, cosine, made = carry
        return (cosine > 2 * half * jnp.finfo(logs.dtype).eps) & (made < _MOST_SWEEPS)

    start = (*_unit(logs, rows), jnp.ones((), logs.dtype), 0)
    logs = jax.lax.while_loop(unfinished, sweep, start)[0]
    return jnp.sort(logs, descending=True)[:n]


def _halves(array: Array, swap: Array) -> tuple[Array, Array]:
    """The first and the second half of an array, exchanged where ``swap``."""
    first, second = jnp.split(array, 2)
    return jnp.where(swap, second, first), jnp.where(swap, first, second)


def _unit(logs: Array, rows: Array) -> tuple[Array, Array]:
    """Bring the rows to norm 1 and their lengths into the logs."""
    size = jnp.linalg.norm(rows, axis=1)
    return logs + jnp.log(size), rows / jnp.where(size == 0, 1, size)[:, None]
