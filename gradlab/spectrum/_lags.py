"""Gradients by how far they travel back: one adjoint for each lag, in its own unit."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradlab.spectrum._system import check_steps, ravel_leaf, ravel_step
from gradlab.spectrum._units import Rows, add, log_norms, rescale, shift


class LagGradient(NamedTuple):
    """The gradient of a sum of losses, L = Σ_s ℓ_s, by how many steps back it was carried.

    Attributes:
      reach: ln‖∂ℓ_{t+k}/∂h_t‖, (T, K), row t-1 for the state's step t and a column for each lag k:
        whose loss reaches whom. NaN where t + k > T: there is no such loss.
      log_norm: ln‖C_k‖, (K,): the part of the gradient that was carried over exactly k steps.
      log_full: ln‖g‖, a scalar: the whole gradient, g = Σ_k C_k over all T lags.
      share: ⟨C_k, g⟩ / ‖g‖², (K,): 1 in the sum over all T lags; < 0 where a lag pulls against the
        others.
      cosine: cos(G_k, g), (K,), with G_k = C_0 + ... + C_k: the gradient of backpropagation that
        is truncated after k steps.
      error: ‖g - G_k‖ / ‖g‖, (K,).
    """

    reach: Array
    log_norm: Array
    log_full: Array
    share: Array
    cosine: Array
    error: Array

    def horizon(self, tolerance: float = 0.1) -> Array:
        """The effective horizon: the first lag from which on the error stays within ``tolerance``.

        Returns:
          A scalar, in steps; NaN where the error of the last lag is larger or NaN.
        """
        outside = ~(self.error <= tolerance)
        first = outside.size - jnp.argmax(outside[::-1])
        first = jnp.where(outside.any(), first, 0)
        return jnp.where(outside[-1], jnp.nan, first)


def gradient_by_lag(
    step: Callable[..., Any],
    loss: Callable[..., Any],
    params: Any,
    state: Any,
    xs: Any,
    *,
    lags: int | None = None,
) -> LagGradient:
    """Split the gradient of a recurrent loss by the lag that its parts were carried over.

    With h_t = step(θ, h_{t-1}, x_t), ℓ_t = loss(θ, h_t, x_t) and J_t = ∂h_t/∂h_{t-1}, an adjoint
    for each lag k is carried back, and adds what the parameters of step t get::

      λ_{t,0} = ∂ℓ_t/∂h_t,   λ_{t,k} = J_{t+1}ᵀ λ_{t+1,k-1} = (∂ℓ_{t+k}/∂h_t)ᵀ
      C_k = Σ_t (∂h_t/∂θ)ᵀ λ_{t,k},   C_0 with Σ_t ∂ℓ_t/∂θ as well

    Backpropagation through time that is truncated after k steps gives G_k = C_0 + ... + C_k. Each
    adjoint and each C_k is carried in its own unit, a power of two.

    Args:
      step: ``step(params, state, x)``; returns the next state.
      loss: ``loss(params, state, x)`` -> ℓ_t, a real scalar, of the state after the step; targets
        go with x.
      params: θ, a pytree of floats.
      state: h_0.
      xs: x_1..x_T, a pytree whose leaves have one leading axis of time.
      lags: K, how many lags, 0..K-1; without it, all T. The whole gradient is exact anyway.

    Returns:
      A ``LagGradient``; NaN where an adjoint is not finite, and in `share`, `cosine` and `error`
      where the gradient is 0.

    Raises:
      ValueError: for a leaf of ``params`` or a state without floats, inputs of several lengths,
        lags outside 1..T, and a step that does not return the state's structure.

    The work is that of K backward passes, and memory that of K gradients.

    >>> step, loss = (lambda w, h, x: w * h + x), (lambda w, h, x: h)
    >>> found = gradient_by_lag(step, loss, 0.5, 0.0, jnp.ones(30))
    >>> [round(float(share), 3) for share in found.share[:4]], int(found.horizon(0.01))
    ([0.519, 0.25, 0.12, 0.058], 6)

    Source: Pascanu, Mikolov & Bengio, "On the difficulty of training recurrent neural networks"
    (2013), equation 3, for the sum over lags; Williams & Peng, "An efficient gradient-based
    algorithm for on-line training of recurrent network trajectories" (1990), for truncation.
    """
    leaves, tree = jax.tree.flatten(params)
    if not leaves:
        raise ValueError("params has no leaves: what is closed over has no gradient here")
    leaves = [jnp.asarray(leaf, jnp.result_type(leaf)) for leaf in leaves]
    places = [ravel_leaf(leaf) for leaf in leaves]
    theta = [flat for flat, _ in places]
    dtype = jnp.result_type(*theta)

    def rebuild(theta: list[Array]) -> Any:
        return tree.unflatten(make(flat) for flat, (_, make) in zip(theta, places, strict=True))

    system = ravel_step(lambda state, theta, x: step(rebuild(theta), state, x), state)
    length, xs = check_steps(xs, None, 0)
    count = length if lags is None else lags
    if not 1 <= count <= length:
        raise ValueError(f"lags must be between 1 and {length}, got {lags}")

    def forward(carry: Any, x: Any) -> tuple[Any, Any]:
        return system.move(*carry, theta, x), carry

    def backward(carry: Any, inputs: Any) -> tuple[Any, Array]:
        adjoints, parts, t = carry
        (flat, others), (new, new_others), x = inputs
        of = lambda flat, theta: loss(rebuild(theta), system.restore(flat, new_others), x)  # noqa: E731
        direct, by_theta = jax.grad(of, argnums=(0, 1))(new, theta)
        # The last row is the sum over all lags: the adjoint of the whole loss.
        older = jax.tree.map(lambda part: jnp.roll(part[:-1], 1, axis=0), adjoints)
        first = rescale(direct)
        older = Rows(older.rows.at[0].set(first.rows), older.exponent.at[0].set(first.exponent))
        whole = add(_row(adjoints, -1), first)
        rows = jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), older, whole)
        pull = jax.vjp(lambda *at: system.move(at[0], others, at[1], x)[0], flat, theta)[1]
        back, gradients = jax.vmap(pull)(rows.rows)
        gradients = rescale(jnp.concatenate(gradients, axis=-1).astype(dtype), rows.exponent)
        own = rescale(jnp.concatenate(by_theta).astype(dtype))
        takes = jnp.zeros(count + 1, bool).at[jnp.array([0, -1])].set(True)
        own = Rows(jnp.where(takes[:, None], own.rows[None], 0), jnp.where(takes, own.exponent, 0))
        parts = add(add(parts, gradients), rescale(own.rows, own.exponent))
        reach = jnp.where(t + jnp.arange(count) <= length, log_norms(rows)[:-1], jnp.nan)
        return (rescale(back, rows.exponent), parts, t - 1), reach

    # One program: each operation outside of it would be one.
    @jax.jit
    def run(xs: Any) -> LagGradient:
        last, before = jax.lax.scan(forward, (system.start, system.others), xs)
        after = jax.tree.map(lambda rows, end: jnp.concatenate([rows[1:], end[None]]), before, last)
        size = sum(flat.size for flat in theta)
        adjoints = rescale(jnp.zeros((count + 1, system.start.size), system.start.dtype))
        carry = adjoints, rescale(jnp.zeros((count + 1, size), dtype)), jnp.int32(length)
        (_, sums, _), reach = jax.lax.scan(backward, carry, (before, after, xs), reverse=True)
        parts = jax.tree.map(lambda part: part[:-1], sums)
        return LagGradient(reach, log_norms(parts), *_compare(parts, _row(sums, -1)))

    return run(xs)


def _row(x: Rows, i: int) -> Rows:
    return jax.tree.map(lambda part: part[i], x)


def _compare(parts: Rows, full: Rows) -> tuple[Array, Array, Array, Array]:
    """ln‖g‖, the shares, cosines and errors of the gradients of up to each lag."""
    log_full = log_norms(full)
    # In units of g: what is far larger is infinite, as its ratio to g is.
    unit = full.rows / jnp.linalg.norm(full.rows)
    length = jnp.exp(log_full - full.exponent.astype(unit.dtype) * jnp.log(2.0))

    def advance(total: Rows, part: Rows) -> tuple[Rows, Rows]:
        total = add(total, part)
        return total, total

    _, sums = jax.lax.scan(advance, jax.tree.map(jnp.zeros_like, full), parts)
    share = shift(parts.rows, parts.exponent - full.exponent) @ unit / length
    cosine = sums.rows @ unit / jnp.linalg.norm(sums.rows, axis=-1)
    rest = shift(sums.rows, sums.exponent - full.exponent) - full.rows[None]
    error = jnp.linalg.norm(rest, axis=-1) / length
    some = full.rows.any()
    share, cosine, error = (jnp.where(some, each, jnp.nan) for each in (share, cosine, error))
    return log_full, share, cosine, error
