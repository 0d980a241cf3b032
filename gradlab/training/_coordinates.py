"""How large states, their updates and their adjoints are at one width."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from gradlab._norms import log_norm
from gradlab.tracing import trace
from gradlab.training._loop import Loss, Sampler, advance, start


class Coordinates(NamedTuple):
    """Sizes per coordinate, ln of the root mean square in nats, on one batch that stays.

    Attributes:
        log_state: of the states, (updates + 1,): row u after u updates.
        log_update: of how far the states have moved from those before training, (updates + 1,);
            -inf in row 0.
        log_adjoint: of λ_t = dL/dh_t, (updates + 1, T).
    """

    log_state: Float[Array, " rows"]
    log_update: Float[Array, " rows"]
    log_adjoint: Float[Array, "rows steps"]


def coordinate_check(
    loss: Loss,
    states: Callable[[Any, Any], Array],
    params: PyTree,
    sample: Sampler,
    optimizer: optax.GradientTransformation,
    *,
    updates: int,
    key: PRNGKeyArray,
    has_aux: bool = False,
) -> Coordinates:
    """Train for some updates, and measure how large a coordinate of the state is, and its update.

    With h_t the states at step t on a probe batch, m entries each over all T steps, after u
    updates::

        log_state  = ½ ln Σ_t ‖h_t(u)‖² / m
        log_update = ½ ln Σ_t ‖h_t(u) - h_t(0)‖² / m
        log_adjoint_t = ½ ln ‖λ_t(u)‖² T / m

    Done for several widths, the sizes say whether a parametrization lets networks of every width
    learn alike: in one of maximal updates states and updates neither grow nor vanish with the
    width. Where λ reads the states by a mean over units, its coordinates fall like 1/n.

    Args:
        loss: (params, batch) -> L, or L and a dict with `has_aux`; its first scan carries the
            states.
        states: (params, batch) -> h_1..h_T, real, (T, ...): one array with all that the scan
            carries.
        params: θ before training.
        sample: (key, step) -> batch; the probe is that of a key of its own.
        optimizer: of optax.
        updates: how many updates to make, at least 1.
        key: of the probe and of the training.
        has_aux: whether the loss also reports a dict.

    Returns:
        `Coordinates`. An exact zero is -inf; NaN where a state or an adjoint is not finite, and
        from the first update on that is not.

    Raises:
        ValueError: for fewer than one update, and for states that are no real array whose leading
            axis is as long as the scan.

    >>> import gradlab as gl
    >>> def states(w, xs):
    ...     return jax.lax.scan(lambda h, x: (jnp.tanh(w @ h + x),) * 2, jnp.zeros(4), xs)[1]
    >>> found = coordinate_check(
    ...     lambda w, xs: jnp.mean(states(w, xs)[-1]), states, jnp.eye(4),
    ...     lambda key, step: jnp.ones((3, 4)), optax.sgd(0.1), updates=2, key=jax.random.key(0))
    >>> [round(float(size), 3) for size in found.log_update]
    [-inf, -7.501, -6.793]

    Source: Yang et al., "Tensor programs V: tuning large neural networks via zero-shot
    hyperparameter transfer" (2022), appendix D.1.
    """
    if updates < 1:
        raise ValueError(f"updates must be at least 1, got {updates}")
    probe_key, key = jax.random.split(key)
    probe = sample(probe_key, jnp.int32(0))
    trace_loss = trace(loss, argnums=(), has_aux=has_aux)
    first = states(params, probe)
    if not isinstance(first, jax.Array):
        raise ValueError(f"states must return one array, h_1..h_T, got a {type(first).__name__}")
    if not jnp.issubdtype(first.dtype, jnp.floating):
        raise ValueError(f"states must be real numbers, got {first.dtype}")

    def measure(params: PyTree) -> Coordinates:
        h = states(params, probe)
        adjoint = trace_loss(params, probe).scans[0].log_norm
        if adjoint.shape != h.shape[:1]:
            raise ValueError(
                f"states must have the scan's steps as their leading axis: {h.shape}, and the scan "
                f"has {adjoint.shape[0]}"
            )
        root = jnp.log(jnp.asarray(h.size, adjoint.dtype)) / 2
        each = jnp.log(jnp.asarray(h[0].size, adjoint.dtype)) / 2
        return Coordinates(log_norm(h) - root, log_norm(h - first) - root, adjoint - each)

    def update(state: Any, _: None) -> tuple[Any, Coordinates]:
        # After an update that is not finite the parameters stay as they were before it.
        bad = state.first_nonfinite_step > 0
        row = jax.tree.map(lambda size: jnp.where(bad, jnp.nan, size), measure(state.params))
        return advance(loss, sample, optimizer, state, 1, has_aux=has_aux)[0], row

    @jax.jit
    def run(params: PyTree) -> Coordinates:
        # The last update is for nothing, and cheaper than compiling `measure` once more.
        return jax.lax.scan(update, start(params, optimizer, key), length=updates + 1)[1]

    return run(params)
