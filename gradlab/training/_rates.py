"""What learning rate each parameter has under an adaptive optimizer."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree


def effective_rates(
    opt_state: PyTree, learning_rate: float, *, b2: float, eps: float = 1e-8
) -> PyTree:
    """The learning rate that Adam gives each parameter: how much it divides by.

    With ν_t the running mean of the squared gradient after t updates, the update is -ρ times the
    running mean of the gradient, both corrected for their start at 0::

        ν̂ = ν_t / (1 - b2^t),    ρ = learning_rate / (√ν̂ + eps)

    Args:
        opt_state: of `optax.adam`, `optax.adamw`, or a chain with one of them, as in
            `Training.state.opt_state`.
        learning_rate: η of the same update; that of a schedule at its count.
        b2: of the optimizer, whose state does not hold it: 0.999 where `optax.adam` got none.
        eps: of the optimizer.

    Returns:
        ρ, a pytree like the parameters, dimension: parameter per gradient. NaN before the first
        update, where nothing is known, and where ν is NaN; η / eps for a gradient that was always
        exactly 0.

    Raises:
        ValueError: for an optimizer's state that has no such mean, or several.

    >>> import optax
    >>> optimizer = optax.adam(0.1)
    >>> params, gradient = {"w": jnp.zeros(2)}, {"w": jnp.array([1.0, 4.0])}
    >>> _, state = optimizer.update(gradient, optimizer.init(params))
    >>> [round(float(rate), 4) for rate in effective_rates(state, 0.1, b2=0.999)["w"]]
    [0.1, 0.025]

    Source: Kingma & Ba, "Adam: a method for stochastic optimization" (2015), algorithm 1; Zucchet &
    Orvieto, "Recurrent neural networks: vanishing and exploding gradients are not the end of the
    story" (2024), section 4, for why recurrent networks need them.
    """

    def is_adam(node: Any) -> bool:
        return isinstance(node, optax.ScaleByAdamState)

    states = [node for node in jax.tree.leaves(opt_state, is_leaf=is_adam) if is_adam(node)]
    if len(states) != 1:
        raise ValueError(f"needs the state of one Adam, found {len(states)}")
    (state,) = states
    # 0/0 before the first update.
    correction = 1 - b2 ** jnp.asarray(state.count, jnp.float32)
    return jax.tree.map(lambda nu: learning_rate / (jnp.sqrt(nu / correction) + eps), state.nu)
