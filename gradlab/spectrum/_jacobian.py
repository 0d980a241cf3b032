"""The Jacobian of one step."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array

from gradlab.spectrum._system import ravel_system


def jacobian(step: Callable[..., Any], state: Any, x: Any = None) -> Array:
    """J = ∂step(state)/∂state, by forward mode with one tangent for each coordinate.

    Args:
      step: ``step(state)``, or ``step(state, x)`` where ``x`` is given; returns the next state.
      state: where J is taken.
      x: the step's input, a pytree.

    Returns:
      J, (n, n), with J[i, j] the derivative of coordinate i of the next state by coordinate j of
      ``state``; in float32 at least. NaN where the step's derivative is.

    Raises:
      ValueError: for a state without floating-point entries, and a step that does not return the
        state's structure, shapes and dtypes.

    >>> W = jnp.array([[0.0, 2.0], [3.0, 0.0]])
    >>> jacobian(lambda h: jnp.tanh(W @ h), jnp.zeros(2)).tolist()
    [[0.0, 2.0], [3.0, 0.0]]
    """
    system = ravel_system(step, state, x)
    tangents = jnp.eye(system.start.size, dtype=system.start.dtype)
    (_, rows, *_), _ = system.advance(system.begin(tangents), x)
    return rows.T
