"""How long the state of a network tells what its input was."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradlab._norms import norm
from gradlab.spectrum._system import check_steps, push, ravel, ravel_step, unravel
from gradlab.spectrum._units import log_norms, log_total, rescale


def log_fisher_memory(
    step: Callable[..., Any], state: Any, xs: Array, *, noise: float = 1.0, lags: int | None = None
) -> Array:
    """The Fisher memory curve: what h_T tells of an input k steps ago, under noise in the state.

    Noise of variance ε is added to each coordinate of the state after every step. To first order in
    it, with J_t = ∂h_t/∂h_{t-1} and V_t = ∂h_t/∂x_t along the orbit without noise::

      C_t = J_t C_{t-1} J_tᵀ + ε I,  C_0 = 0      the covariance of h_t,
      U_k = J_T ... J_{T-k+1} V_{T-k}             what x_{T-k} does to h_T,
      J(k) = tr U_kᵀ C_T⁻¹ U_k                    the Fisher information of h_T on x_{T-k}

    For a linear network h_t = W h_{t-1} + v x_t and T → ∞ these are the curves of the source: for a
    normal W and |v| = 1 their sum is 1/ε, and for none it is above n/ε. A saturated tanh passes
    less on, as its V_t and J_t say. Everything is carried in the coordinates in which C_t is the
    identity, where nothing grows, and each U_k in its own unit.

    Args:
      step: ``step(state, x)``; returns the next state.
      state: h_0.
      xs: x_1..x_T, an array of floats with a leading axis of time.
      noise: ε, the variance per step and coordinate.
      lags: how many lags, 0..lags-1; without it, all T.

    Returns:
      ln J(k), (lags,), in nats: -inf where x_{T-k} has no effect at all. NaN where the orbit is not
      finite, and where C_T has a condition number past 1/eps²: the network amplifies noise so much
      that rounding hides the rest.

    Raises:
      ValueError: for a noise that is not above 0, xs that are no floats, lags outside 1..T, and as
        ``jacobian`` does.

    >>> W = 0.5**0.5 * jnp.eye(1)
    >>> logs = log_fisher_memory(lambda h, x: W @ h + x, jnp.zeros(1), jnp.zeros((60, 1)))
    >>> [round(float(each), 4) for each in jnp.exp(logs[:4])]  # (1 - a²) a^{2k}
    [0.5, 0.25, 0.125, 0.0625]

    Source: Ganguli, Huh & Sompolinsky, "Memory traces in dynamical systems" (2008).
    """
    if not noise > 0:
        raise ValueError(f"noise must be above 0, got {noise}")
    system = ravel_step(step, state)
    length, xs = check_steps(xs, None, 0)
    if not isinstance(xs, Array) or not jnp.issubdtype(xs.dtype, jnp.inexact):
        raise ValueError("xs must be one array of floats, whose derivative is taken")
    count = length if lags is None else lags
    if not 1 <= count <= length:
        raise ValueError(f"lags must be between 1 and {length}, got {lags}")
    n, dtype = system.start.size, system.start.dtype
    root = jnp.eye(n, dtype=dtype) * jnp.asarray(noise, dtype) ** 0.5

    def advance(carry: Any, x: Any) -> tuple[Any, None]:
        (flat, others), L, memory, ok = carry
        inputs, _ = ravel([x])

        def drive(values: Array) -> Array:
            return system.move(flat, others, unravel(values, [], [x])[0])[0]

        V = jax.jacfwd(drive)(inputs)
        flat, others, columns = push(system, flat, others, L.T, x)
        # C_t = L Lᵀ: its root is triangular, without a product that squares the condition.
        new = jnp.linalg.qr(jnp.concatenate([columns, root]))[1].T
        # What was white before the step: L_t⁻¹ J L_{t-1} has no singular value above 1.
        solve = jax.scipy.linalg.solve_triangular
        whole = solve(new, jnp.concatenate([columns.T, V], axis=1), lower=True)
        older = rescale(memory.rows @ whole[:, :n].T, memory.exponent)
        first = rescale(whole[:, n:].T)
        memory = jax.tree.map(lambda old, new: jnp.roll(old, 1, 0).at[0].set(new), older, first)
        diagonal = jnp.abs(jnp.diagonal(new))
        ok = ok & jnp.isfinite(flat).all() & (diagonal.max() * system.eps < diagonal.min())
        return ((flat, others), new, memory, ok), None

    # One program: each operation outside of it would be one.
    @jax.jit
    def run(xs: Array) -> Array:
        nothing = rescale(jnp.zeros((count, ravel([xs[0]])[0].size, n), dtype))
        carry = (system.start, system.others), jnp.zeros_like(root), nothing, jnp.array(True)
        (_, _, memory, ok), _ = jax.lax.scan(advance, carry, xs)
        return jnp.where(ok, 2 * log_total(log_norms(memory)), jnp.nan)

    return run(xs)


def memory_capacity(states: ArrayLike, signal: ArrayLike, *, lags: int) -> Array:
    """How much of the input k steps ago a linear readout of the state recovers, for each lag k.

    The share of the variance of x_{t-k} that the best readout of h_t explains, over the steps t
    at which all lags are known, N of them, with r the rank of the centred states::

      R²(k) = max over w, b of 1 - Σ_t (x_{t-k} - wᵀ h_t - b)² / Σ_t (x_{t-k} - mean)²
      m(k) = 1 - (1 - R²(k)) (N - 1)/(N - r - 1)

    R² of r regressors on N values is about r/N where there is nothing to recover; m(k) is 0 there
    on average, and can be below. For an input that is drawn afresh at each step the sum over all
    lags is at most n, and for a linear network equal to r.

    Args:
      states: h_1..h_T, (T, n) real: of a network that has forgotten its start.
      signal: x_1..x_T, (T,): the input that drove it, x_t at step t.
      lags: how many lags, 0..lags-1.

    Returns:
      m, (lags,), dimensionless. NaN where a state or an input is not finite, where the input does
      not vary by more than its rounding, and for fewer than r + 2 steps.

    Raises:
      ValueError: for arrays of other shapes, for complex numbers (stack their real and imaginary
        parts), and lags outside 1..T.

    >>> xs = jax.random.normal(jax.random.key(0), (2000,))
    >>> delays = jnp.stack([jnp.roll(xs, k) for k in range(3)], axis=1)  # the last three inputs
    >>> [round(float(each), 2) + 0.0 for each in memory_capacity(delays, xs, lags=5)]
    [1.0, 1.0, 1.0, 0.0, 0.0]

    Source: Jaeger, "Short term memory in echo state networks" (2001); Ezekiel, "Methods of
    correlation analysis" (1930), for the correction.
    """
    states, signal = jnp.asarray(states), jnp.asarray(signal)
    if states.ndim != 2 or signal.shape != states.shape[:1]:
        raise ValueError(
            f"needs states (T, n) and a signal (T,), got {states.shape} and {signal.shape}"
        )
    if jnp.iscomplexobj(states) or jnp.iscomplexobj(signal):
        raise ValueError(
            "needs real states and a real signal: give the real and imaginary parts of complex "
            "states as columns of their own"
        )
    length = len(signal)
    if not 1 <= lags <= length:
        raise ValueError(f"lags must be between 1 and {length}, got {lags}")
    return _capacity(states, signal, lags)


def _unit(x: Array) -> Array:
    """x over a power of two near its largest entry: squares stay in the float's range."""
    unit, _ = norm(x)
    return x / unit.astype(x.dtype)


@functools.partial(jax.jit, static_argnums=2)
def _capacity(states: Array, signal: Array, lags: int) -> Array:
    length, dtype = len(signal), jnp.promote_types(jnp.result_type(states, signal), jnp.float32)
    h, x = _unit(states[lags - 1 :].astype(dtype)), _unit(signal.astype(dtype))
    past = jnp.stack([x[lags - 1 - k : length - k] for k in range(lags)], axis=1)
    eps = jnp.finfo(dtype).eps
    size = jnp.sqrt(jnp.sum(h**2))
    # Again, since the rounding of a mean is left of what is nearly constant.
    for _ in range(2):
        h, past = h - h.mean(0, keepdims=True), past - past.mean(0, keepdims=True)
    varies = jnp.abs(past).max(0, initial=0) > 4 * eps * jnp.abs(x).max(initial=0)
    basis, sizes, _ = jnp.linalg.svd(h, full_matrices=False)
    # Directions below the rounding of the states are none.
    nonzero = sizes > 10 * eps * size
    explained = jnp.sum((jnp.where(nonzero, basis, 0).T @ past) ** 2, axis=0)
    share = explained / jnp.where(varies, jnp.sum(past**2, axis=0), jnp.nan)
    count, rank = len(h), nonzero.sum()
    m = 1 - (1 - share) * (count - 1) / (count - rank - 1)
    valid = jnp.isfinite(states).all() & jnp.isfinite(signal).all() & (count > rank + 1)
    return jnp.where(valid, m, jnp.nan)
