"""Clipping of the gradient, by norm and by value."""

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

if TYPE_CHECKING:
    import optax


def clip(norm: ArrayLike = math.inf, value: ArrayLike = math.inf) -> "optax.GradientTransformation":
    """Clip a gradient entry by entry, then by the norm over all its leaves.

    With v = ``value`` and c = ``norm``::

      g' = max(-v, min(v, g)),    g'' = g' min(1, c / ‖g'‖₂)

    Args:
      norm: c, the largest norm that is let through; a scalar, possibly traced; infinity for any.
      value: v, the largest entry, likewise.

    Returns:
      optax's ``clip`` and ``clip_by_global_norm``, for ``optax.chain(clip(norm=1.0), optimizer)``.
      The norm is computed in units of the largest entry, so that a float32 gradient whose squares
      overflow (‖g‖ > 1.8e19) is shortened to c, where optax alone makes it zero, and so that an
      infinite threshold leaves it as it is.

    Raises:
      ValueError: for a threshold that is a plain number and not above 0.

    >>> import optax
    >>> optimizer = optax.chain(clip(norm=5.0), optax.sgd(1.0))
    >>> gradient = jnp.array([3e30, 4e30], jnp.float32)
    >>> updates, _ = optimizer.update(gradient, optimizer.init(gradient))
    >>> [round(float(u), 3) for u in updates]
    [-3.0, -4.0]

    Source: Pascanu, Mikolov & Bengio, "On the difficulty of training recurrent neural networks"
    (2013), section 3.2 and algorithm 1, by norm; Mikolov, "Statistical language models based on
    neural networks" (2012), section 3.2.2, by value.
    """
    import optax

    for what, threshold in (("norm", norm), ("value", value)):
        if isinstance(threshold, int | float) and not threshold > 0:
            raise ValueError(f"clip needs {what} above 0, got {threshold}")

    by_value = optax.clip(value)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, _ = by_value.update(updates, optax.EmptyState())
        largest = jnp.max(jnp.stack([jnp.abs(leaf).max() for leaf in jax.tree.leaves(updates)]))
        unit = jnp.where(largest > 0, largest, 1)
        scaled = jax.tree.map(lambda leaf: leaf / unit.astype(leaf.dtype), updates)
        passes = optax.tree.norm(scaled) <= jnp.asarray(norm, unit.dtype) / unit
        # In units of its largest entry, a gradient that is not 0 has a norm of at least 1.
        directions, _ = optax.clip_by_global_norm(1.0).update(scaled, optax.EmptyState())
        updates = jax.tree.map(
            lambda leaf, along: jnp.where(passes, leaf, jnp.asarray(norm, leaf.dtype) * along),
            updates,
            directions,
        )
        return updates, state

    return optax.GradientTransformation(optax.init_empty_state, update)
