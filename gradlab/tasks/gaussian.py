"""White Gaussian input: the case that mean-field theory describes."""

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from gradlab.tasks import _checks
from gradlab.tasks.base import register_input


@register_input
def gaussian(
    key: PRNGKeyArray, length: int, features: int, dtype=None
) -> Float[Array, "length features"]:
    """A sequence of independent standard normal numbers, x_ti ~ N(0, 1).

    Args:
        key: the randomness; the same key gives the same sequence.
        length: the number of steps T, at least 1.
        features: the size of each x_t, at least 1.
        dtype: a floating type; JAX's default float if None.

    Returns:
        xs of shape (length, features), no unit. With JAX's default (partitionable) generator a
        shorter sequence from the same key is the beginning of the longer one.

    Raises:
        ValueError: if length or features is below 1, or dtype is not floating.

    >>> import jax
    >>> gaussian(jax.random.key(0), length=10, features=3).shape
    (10, 3)
    """
    _checks.positive(length=length, features=features)
    return jax.random.normal(key, (length, features), _checks.floating(dtype))
