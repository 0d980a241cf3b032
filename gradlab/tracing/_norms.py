"""Norms and powers of two that do not leave the float's range."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

LN2 = 0.6931471805599453
# The exponent of an exact zero: below anything a product of steps can reach.
ZERO = -(2**30)


def real_dtype(leaves: Sequence[Any]) -> Any:
    """float64 where a leaf has that precision, else float32: norms of bfloat16 are not bfloat16."""
    wide = any(jnp.finfo(leaf.dtype).bits == 64 for leaf in leaves)
    return jnp.float64 if wide else jnp.float32


def exponent(leaves: Sequence[jax.Array], axis: int | None, dtype: Any) -> jax.Array:
    """The k with 2^(k-1) <= max|x| < 2^k over all leaves, per sample where `axis` is given.

    An exact zero gives `ZERO`; a maximum that is not finite gives 0.
    """
    tops = [_over(jnp.max, jnp.abs(jax.lax.stop_gradient(x)).astype(dtype), axis) for x in leaves]
    top = functools.reduce(jnp.maximum, tops)
    k = jnp.where(jnp.isfinite(top), jnp.frexp(top)[1], 0).astype(jnp.int32)
    return jnp.where(top == 0, ZERO, k)


def scale(leaves: Sequence[jax.Array], k: jax.Array, axis: int | None) -> list[jax.Array]:
    """Multiply every leaf by 2^k, exactly; per sample where `axis` is given."""
    return [_scale(x, k, axis) for x in leaves]


def _scale(x: jax.Array, k: jax.Array, axis: int | None) -> jax.Array:
    dtype = real_dtype([x])
    limit = jnp.finfo(dtype).maxexp - 2
    # Two factors, since 2^k itself may lie outside the range that 2^k x is inside of.
    first = jnp.clip(k, -limit, limit)
    second = jnp.clip(k - first, -limit, limit)
    wide = x.astype(jnp.promote_types(x.dtype, dtype))
    for part in (first, second):
        factor = jnp.ldexp(jnp.ones(part.shape, dtype), part)
        wide = wide * _along(factor, x, axis).astype(wide.dtype)
    return wide.astype(x.dtype)


def _along(factor: jax.Array, x: jax.Array, axis: int | None) -> jax.Array:
    if axis is None:
        return factor
    shape = [1] * x.ndim
    shape[axis] = factor.shape[0]
    return factor.reshape(shape)


def log_norms(
    leaves: Sequence[jax.Array], axis: int | None, dtype: Any
) -> tuple[jax.Array, list[jax.Array]]:
    """ln of the 2-norm over all leaves, and of each leaf; an exact zero is -inf."""
    each = [_log_norm(x, axis, dtype) for x in leaves]
    if len(each) == 1:
        return each[0], each
    return jax.nn.logsumexp(2 * jnp.stack(each), axis=0) / 2, each


def _log_norm(x: jax.Array, axis: int | None, dtype: Any) -> jax.Array:
    k = exponent([x], axis, dtype)
    (scaled,) = scale([x], jnp.where(k == ZERO, 0, -k), axis)
    size = jnp.abs(scaled).astype(dtype) if jnp.iscomplexobj(x) else scaled.astype(dtype)
    total = _over(jnp.sum, size * size, axis)
    zero = total == 0
    log = jnp.where(zero, -jnp.inf, jnp.log(jnp.where(zero, 1, total)) / 2)
    return log + jnp.where(zero, 0, k).astype(dtype) * LN2


def _over(reduce: Any, x: jax.Array, axis: int | None) -> jax.Array:
    axes = tuple(i for i in range(x.ndim) if axis is None or i != axis % x.ndim)
    return reduce(x, axis=axes) if x.size else jnp.zeros(_kept(x, axes), x.dtype)


def _kept(x: jax.Array, axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for i, n in enumerate(x.shape) if i not in axes)
