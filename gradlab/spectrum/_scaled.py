"""Long products of numbers, as a fraction and a power of two.

A sum of T logarithms in float32 loses more with every step: next to a sum of 70,000 nats, a term is
rounded to 0.008. The exponent of a product is an integer and stays exact however long it grows,
and a rounding of the fraction costs the same at every step.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradlab.tracing._norms import power

_ROOT = 0.5**0.5
_LN2_HEAD = 0.6875
_LN2_TAIL = 0.005647180559945309


class WideFloat(NamedTuple):
    """Numbers x >= 0 as fraction · 2^exponent, the fraction in [√½, √2) or 0, NaN or infinite."""

    fraction: Array
    exponent: Array


def ones(shape: int | tuple[int, ...], dtype: jnp.dtype) -> WideFloat:
    """Where a product begins."""
    return WideFloat(jnp.ones(shape, dtype), jnp.zeros(shape, jnp.int32))


def split(x: Array) -> WideFloat:
    """x as a fraction and an exponent; the derivative goes through the fraction."""
    # The exponent's own bits: jnp.frexp would compile for a second.
    info = jnp.finfo(x.dtype)
    integer = jnp.int64 if info.bits == 64 else jnp.int32
    bits = jax.lax.bitcast_convert_type(jax.lax.stop_gradient(x), integer)
    exponent = (bits >> info.nmant).astype(jnp.int32) - (info.maxexp - 1)
    exponent = jnp.where((x > 0) & (x < jnp.inf), exponent, 0)
    # Two factors: 2^-exponent alone can lie outside the float's range.
    half = exponent // 2
    fraction = x * power(-half, x.dtype) * power(half - exponent, x.dtype)
    return _centre(fraction, exponent)


def _centre(fraction: Array, exponent: Array) -> WideFloat:
    """The same number with a fraction in [√½, √2), from one in [½, 2)."""
    up, down = fraction >= 2 * _ROOT, (fraction < _ROOT) & (fraction > 0)
    factor = jnp.where(up, 0.5, jnp.where(down, 2.0, 1.0)).astype(fraction.dtype)
    return WideFloat(fraction * factor, exponent + up.astype(jnp.int32) - down.astype(jnp.int32))


def multiply(x: WideFloat, y: WideFloat) -> WideFloat:
    """The product x y, its fraction rounded once."""
    return _centre(x.fraction * y.fraction, x.exponent + y.exponent)


def divide(x: WideFloat, y: WideFloat) -> Array:
    """x / y as a plain number: 0 or infinite outside the float's range, 1 for 0/0."""
    exponent = x.exponent - y.exponent
    exponent = jnp.where(x.fraction == 0, 0, exponent)
    half = exponent // 2
    dtype = x.fraction.dtype
    both_zero = (x.fraction == 0) & (y.fraction == 0)
    fraction = jnp.where(both_zero, 1, x.fraction) / jnp.where(both_zero, 1, y.fraction)
    return fraction * power(half, dtype) * power(exponent - half, dtype)


def log(x: WideFloat) -> Array:
    """ln x, -inf for 0: as exact as the float is."""
    exponent = x.exponent.astype(x.fraction.dtype)
    # ln 2 in two parts: the product with the first, of four bits, is exact below 2^20.
    return exponent * _LN2_HEAD + (jnp.log(x.fraction) + exponent * _LN2_TAIL)
