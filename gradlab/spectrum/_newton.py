"""A recurrence solved for all its states at once, and what its exponent says of that."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradlab.spectrum._system import check_steps, push, ravel_step


class NewtonSolution(NamedTuple):
    """The states that Newton's iteration found, and how it went.

    Attributes:
      states: h_1..h_T, a pytree like the state with a leading axis of T.
      steps: how many iterations were made, the last of which moved no coordinate by more than the
        tolerance; -1 where ``most`` of them were too few, or a state is not finite.
      log_residuals: ln max_t,i |h_t - step(h_{t-1})| before each iteration, (most,), in the
        coordinates of the state: -inf where it is exactly 0, NaN after the last.
    """

    states: Any
    steps: Array
    log_residuals: Array


def newton(
    step: Callable[..., Any],
    state: Any,
    xs: Any,
    *,
    tolerance: float | None = None,
    most: int | None = None,
    guess: Any = None,
) -> NewtonSolution:
    """All states of a recurrence by Newton's iteration, and how many iterations that takes.

    The T equations h_t - f(h_{t-1}, x_t) = 0 are linearized at the states of the last iteration,
    h, and what is left is a linear recurrence for the new ones, h'::

      h'_t = f(h_{t-1}, x_t) + J_t (h'_{t-1} - h_{t-1}),   J_t = ∂f/∂h at h_{t-1},   h'_0 = h_0

    A parallel scan solves it in O(log T) on as many processors; what counts is how many iterations
    it takes. Here it is solved step by step, which gives the same numbers and needs no product of
    matrices. After i iterations the first i states are exact, so that T are enough; with a largest
    exponent below 0 some few are, and above 0 nearly T (see ``log_newton_condition``). States that
    overflow on the way start again from 0.

    Args:
      step: ``step(state, x)``; returns the next state.
      state: h_0, a pytree of floats.
      xs: x_1..x_T, a pytree whose leaves have one leading axis of time.
      tolerance: the largest change of a coordinate that counts as none; without it, √eps of the
        state's narrowest float, 3.5e-4 in float32, times the largest coordinate of all states:
        another iteration then changes nothing more.
      most: how many iterations to make at most; without it, T.
      guess: the first h_1..h_T, a pytree like the state with a leading axis of T; without it, 0.

    Returns:
      A ``NewtonSolution``. Where the recurrence itself does not stay finite, ``steps`` is -1,
      and its states are NaN from there on.

    Raises:
      ValueError: for a state with leaves other than floats, inputs of several lengths, a tolerance
        or a count that is not above 0, and a step that does not return the state's structure.

    >>> W = 0.5 * jnp.eye(3)
    >>> step = lambda h, x: jnp.tanh(W @ h + x)
    >>> found = newton(step, jnp.zeros(3), jnp.ones((50, 3)), tolerance=1e-3)
    >>> int(found.steps)
    3

    Source: Lim, Zhu, Selfridge & Kasim, "Parallelizing non-linear sequential models over the
    sequence length" (2024), section 3 (DEER); Gonzalez, Warrington, Smith & Linderman, "Towards
    scalable and stable parallelization of nonlinear RNNs" (2024), for starting again.
    """
    system = ravel_step(step, state)
    if system.others:
        raise ValueError("Newton's iteration is for states of floats alone")
    length, xs = check_steps(xs, None, 0)
    count = length if most is None else most
    if count < 1 or not (tolerance is None or tolerance > 0):
        raise ValueError(f"most and tolerance must be above 0, got {most} and {tolerance}")
    flat = jnp.zeros((length, system.start.size), system.start.dtype)
    if guess is not None:
        flat = jax.vmap(lambda state: ravel_step(lambda h: h, state).start)(guess)
        if flat.shape != (length, system.start.size):
            raise ValueError(f"guess must hold {length} states like the first")

    def iterate(carry: Any) -> Any:
        flat, _, iterations, residuals = carry
        before = jnp.concatenate([system.start[None], flat[:-1]])

        def advance(new: Array, inputs: Any) -> tuple[Array, Any]:
            old, x = inputs
            value, _, tangents = push(system, old, [], (new - old)[None], x)
            new = value + tangents[0]
            new = jnp.where(jnp.isfinite(new), new, 0)
            return new, (new, value)

        _, (new, values) = jax.lax.scan(advance, system.start, (before, xs))
        residuals = residuals.at[iterations].set(jnp.abs(flat - values).max())
        change = jnp.abs(new - flat).max()
        largest = system.eps**0.5 * jnp.abs(new).max() if tolerance is None else tolerance
        return new, change <= largest, iterations + 1, residuals

    def continues(carry: Any) -> Array:
        _, is_done, iterations, _ = carry
        return ~is_done & (iterations < count)

    def are_finite(flat: Array) -> Array:
        before = jnp.concatenate([system.start[None], flat[:-1]])
        values = jax.vmap(lambda old, x: system.move(old, [], x)[0])(before, xs)
        return jnp.cumsum(~jnp.isfinite(values).all(1)) == 0

    # One program: each operation outside of it would be one.
    @jax.jit
    def run(flat: Array) -> NewtonSolution:
        nothing = jnp.full(count, jnp.nan, flat.dtype)
        start = flat, jnp.array(False), jnp.int32(0), nothing
        flat, is_done, iterations, residuals = jax.lax.while_loop(continues, iterate, start)
        # An iteration puts 0 for what is not finite, which may then seem to stand still.
        finite = are_finite(flat)
        flat = jnp.where(finite[:, None], flat, jnp.nan)
        states = jax.vmap(lambda flat: system.restore(flat, []))(flat)
        iterations = jnp.where(is_done & finite.all(), iterations, -1)
        return NewtonSolution(states, iterations, jnp.log(residuals))

    return run(flat)


def log_newton_condition(exponent: ArrayLike, length: int) -> Array:
    """How badly conditioned a parallel solution of a recurrence is, before one tries it.

    With λ the largest Lyapunov exponent, so that a disturbance grows like e^{λ k} over k steps, the
    inverse of the T equations that ``newton`` solves has about the norm::

      Σ_{k<T} e^{λ k} = (e^{λ T} - 1) / (e^λ - 1)

    Below an exponent of 0 it stays below 1/(1 - e^λ), however long the sequence: few iterations.
    At 0 it is T. Above, its logarithm grows like λ T, and where it passes -ln eps (15.9 in float32)
    one rounding anywhere is as large as the states: iterations of the order of T.

    λ is that of the orbit as a whole. Iterations pass near other states as well: an orbit that is
    chaotic at first and then falls to rest has λ < 0 and takes many, which
    ``finite_time_exponents`` of its first steps show.

    Args:
      exponent: λ, in nats per step, of any shape; ``lyapunov(...).exponents[0]``.
      length: T.

    Returns:
      Its natural logarithm, of the shape of ``exponent``: 0 for -inf, NaN for NaN.

    Raises:
      ValueError: for a length below 1.

    >>> [round(float(log), 2) for log in log_newton_condition(jnp.array([-0.1, 0.0, 0.1]), 1000)]
    [2.35, 6.91, 102.25]

    Source: Gonzalez, Kozachkov, Zoltowski, Clarkson & Linderman, "Predictability enables
    parallelization of nonlinear state space models" (2025): the inverse square of this bounds the
    Polyak-Łojasiewicz constant of ½ Σ_t ‖h_t - f(h_{t-1}, x_t)‖² from below.
    """
    if length < 1:
        raise ValueError(f"length must be at least 1, got {length}")
    exponent = jnp.asarray(exponent, jnp.promote_types(jnp.result_type(exponent), jnp.float32))
    size = jnp.abs(exponent)
    # The sum for λ is that for -λ times e^{λ(T-1)}, its largest term.
    safe = jnp.where(size == 0, 1, size)
    falling = jnp.log(jnp.expm1(-safe * length) / jnp.expm1(-safe))
    falling = jnp.where(size == 0, jnp.log(float(length)), falling)
    return falling + jnp.where(exponent > 0, exponent * (length - 1), 0)
