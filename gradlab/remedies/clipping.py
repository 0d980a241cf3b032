"""Clipping of the gradient, by norm and by value."""

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradlab._norms import norm as tree_norm
from gradlab._norms import widen

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
      The norm is computed in float32 at least and in units of the largest entry. Where the squares
      of a gradient overflow (a float32 of ‖g‖ > 1.8e19, a float16 of ‖g‖ > 256), optax alone makes
      it zero; here it is shortened to c. An infinite threshold leaves it as it is; where the norm
      is NaN or infinite, a finite one makes every entry NaN, and so does a threshold of NaN.

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

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        leaves, tree = jax.tree.flatten(updates)
        # A threshold that a narrow type cannot hold would be 0 or infinite in it.
        wide = [widen(leaf) for leaf in leaves]
        wide = [jnp.clip(leaf, -cast(value, leaf), cast(value, leaf)) for leaf in wide]
        unit, squares = tree_norm(wide)
        # An infinite entry has no direction: NaN, rather than 0 for all the others.
        size = jnp.where(jnp.isfinite(squares), jnp.sqrt(squares), jnp.nan)
        limit = jnp.asarray(norm, unit.dtype)
        passes = (size <= limit / unit) | (limit == jnp.inf)

        def shorten(leaf: Array, original: Array) -> Array:
            direction = leaf / cast(unit, leaf) / cast(size, leaf)
            return jnp.where(passes, leaf, direction * cast(limit, leaf)).astype(original.dtype)

        outputs = [shorten(*both) for both in zip(wide, leaves, strict=True)]
        return jax.tree.unflatten(tree, outputs), state

    def cast(number: ArrayLike, leaf: Array) -> Array:
        return jnp.asarray(number, leaf.dtype)

    return optax.GradientTransformation(optax.init_empty_state, update)
