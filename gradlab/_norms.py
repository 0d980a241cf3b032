"""The norm of a tree, in float32 at least and past the range of its squares."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Norm(NamedTuple):
    """‖x‖₂ = unit · √squares, with ``unit`` a power of two: neither factor leaves the range."""

    unit: Array
    squares: Array


def norm(tree: Any) -> Norm:
    """The 2-norm over all leaves of a tree: NaN where an entry is, 0 for no entries.

    >>> unit, squares = norm([jnp.array([3e30], "float32"), jnp.array([4e30], "float32")])
    >>> round(float(unit * squares**0.5 / 1e30), 4)
    5.0
    """
    leaves = [jnp.abs(widen(leaf)).ravel() for leaf in jax.tree.leaves(tree)]
    tops = [jax.lax.stop_gradient(leaf.max(initial=0)) for leaf in leaves]
    largest = jnp.max(jnp.stack([jnp.float32(0), *tops]))
    # largest = f 2^k with f in [½, 1): a division by 2^k is exact.
    fraction = jnp.frexp(largest)[0]
    unit = jnp.where((largest > 0) & jnp.isfinite(largest), largest / fraction / 2, 1)
    squares = [jnp.sum((leaf / unit.astype(leaf.dtype)) ** 2) for leaf in leaves]
    return Norm(unit, sum(squares, start=jnp.zeros_like(unit)))


def log_norm(tree: Any) -> Array:
    """ln‖x‖₂ over all leaves of a tree, in nats; right where squares would under- or overflow.

    In float32 at least, whatever the leaves are. -inf where all entries are 0, NaN where one is.

    >>> float(log_norm({"a": jnp.array([3e-30], "float32"), "b": jnp.array([4e-30], "float32")}))
    ... # doctest: +ELLIPSIS
    -67.468...
    """
    unit, squares = norm(tree)
    return jnp.log(unit) + jnp.log(squares) / 2


def widen(leaf: Any) -> Array:
    """The array in float32 where its own type is narrower."""
    leaf = jnp.asarray(leaf)
    inexact = jnp.issubdtype(leaf.dtype, jnp.inexact)
    return leaf if inexact and jnp.finfo(leaf.dtype).bits >= 32 else leaf.astype(jnp.float32)
