"""Biases that set how long a gate remembers."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from gradlab.initializers.base import Initializer, floating, register_bias, scalar, vector


@register_bias
def chrono(t_max: ArrayLike) -> Initializer:
    """Forget biases whose time constants are spread evenly up to `t_max` steps.

    ::

        b_f = ln u,  u ~ U[1, t_max - 1],  and b_i = -b_f for the input gate

    Args:
        t_max: T_max, the longest dependency that the cell should hold, in steps, at least 2; a
            scalar, possibly traced.

    Returns:
        An initializer of b_f; the cell that takes it sets b_i = -b_f. It raises `ValueError` for a
        shape that is not `(n,)`.

    Raises:
        ValueError: for a `t_max` that is below 2 or not finite; a JAX array is not looked into.

    A gate with bias ln u and no other drive is σ(ln u) = u/(1 + u) and forgets with the time
    constant 1/ln(1 + 1/u), which lies between u and u + 1/2.

    >>> b = chrono(t_max=100)(jax.random.key(0), (64,))
    >>> bool(((b >= 0) & (b <= jnp.log(99))).all())
    True

    Source: Tallec & Ollivier, "Can recurrent neural networks warp time?" (2018), equation 16.
    """
    if not isinstance(t_max, Array):  # which may be traced, and has no value here
        longest = np.asarray(t_max)
        if longest.ndim or not 2 <= longest < math.inf:
            raise ValueError(f"chrono needs a finite t_max of at least 2, got {t_max}")

    def init(key: Array, shape: Sequence[int], dtype: DTypeLike | None = None) -> Array:
        dtype = floating(dtype)
        shape = (vector("chrono", shape),)
        longest = scalar(t_max, dtype) - 1
        return jnp.log(jax.random.uniform(key, shape, dtype, 1.0, longest))

    return init


@register_bias
def forget_bias(value: ArrayLike = 1.0) -> Initializer:
    """One value for every unit's forget bias; the key is not used.

    Args:
        value: b_f, a scalar, possibly traced.

    Returns:
        An initializer. It raises `ValueError` for a shape that is not `(n,)`.

    >>> forget_bias(2.0)(None, (3,)).tolist()
    [2.0, 2.0, 2.0]

    Source: Gers, Schmidhuber & Cummins, "Learning to forget" (2000); Jozefowicz, Zaremba &
    Sutskever, "An empirical exploration of recurrent network architectures" (2015), section 5.
    """

    def init(key: Array | None, shape: Sequence[int], dtype: DTypeLike | None = None) -> Array:
        return jnp.full(vector("forget_bias", shape), scalar(value, floating(dtype)))

    return init
