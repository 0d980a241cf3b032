"""Vectors in units of powers of two: what a recursion carries past the float's range.

Each row has an exponent of its own, so that one which vanishes stays exact beside one that
explodes. A product with a power of two rounds nothing.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradlab.spectrum._scaled import split
from gradlab.tracing._norms import LN2, ZERO, power


class Rows(NamedTuple):
    """Vectors x_i = rows_i 2^exponent_i, the largest entry of rows_i near 1.

    A row of zeros has the exponent `ZERO`, below that of every other.
    """

    rows: Array
    exponent: Array


def rescale(rows: Array, exponent: Array | int = 0) -> Rows:
    """The vectors rows · 2^exponent, in units of their own."""
    top = jnp.abs(rows).max(-1, initial=0)
    own = split(top).exponent
    total = jnp.where(top == 0, ZERO, own + exponent).astype(jnp.int32)
    return Rows(shift(rows, -own), total)


def shift(rows: Array, exponent: Array) -> Array:
    """2^exponent rows, in two factors: the power itself may lie outside the float's range."""
    half = exponent // 2
    for part in (half, exponent - half):
        rows = rows * power(part, rows.dtype)[..., None]
    return rows


def add(x: Rows, y: Rows) -> Rows:
    """x + y, row by row, in the larger of their units."""
    top = jnp.maximum(x.exponent, y.exponent)
    return rescale(shift(x.rows, x.exponent - top) + shift(y.rows, y.exponent - top), top)


def log_norms(x: Rows) -> Array:
    """ln of each row's 2-norm: -inf for a row of zeros, NaN where an entry is not finite."""
    finite = jnp.isfinite(x.rows).all(-1)
    squares = jnp.sum(jnp.where(finite[..., None], x.rows, 1) ** 2, -1)
    log = jnp.log(jnp.where(squares == 0, 1, squares)) / 2 + _nats(x)
    return jnp.where(finite, jnp.where(squares == 0, -jnp.inf, log), jnp.nan)


def log_entries(x: Rows) -> Array:
    """ln of the modulus of every entry: -inf for a zero, NaN where it is not finite."""
    size = jnp.abs(x.rows)
    log = jnp.log(jnp.where(size == 0, 1, size)) + _nats(x)[..., None]
    return jnp.where(jnp.isfinite(size), jnp.where(size == 0, -jnp.inf, log), jnp.nan)


def _nats(x: Rows) -> Array:
    return x.exponent.astype(x.rows.dtype) * LN2


def log_total(logs: Array) -> Array:
    """ln √Σ exp(2 logs) over the last axis: the norm of a whole from those of its parts."""
    return jax.nn.logsumexp(2 * logs, axis=-1) / 2
