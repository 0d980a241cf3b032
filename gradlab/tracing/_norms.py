"""Norms and powers of two that do not leave the float's range."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp

from gradlab.tracing import _jaxpr

LN2 = 0.6931471805599453
# The exponent of an exact zero: below anything a product of steps can reach.
ZERO = -(2**30)
_Function = TypeVar("_Function", bound=Callable[..., Any])


class Size(NamedTuple):
    """How large a vector is, per sample where an axis counts samples.

    `top` is an integer k with the norm near 2^k, `ZERO` for an exact zero and 0 where the norm is
    not finite; `total` is ln of the 2-norm over all leaves and `each` of every leaf; an exact zero
    is -inf.
    """

    top: jax.Array
    total: jax.Array
    each: tuple[jax.Array, ...]


def real_dtype(leaves: Sequence[Any]) -> Any:
    """float64 where a leaf has that precision, else float32: norms of bfloat16 are not bfloat16."""
    wide = any(jnp.finfo(leaf.dtype).bits == 64 for leaf in leaves)
    return jnp.float64 if wide else jnp.float32


def _traced_once(*static: str) -> Callable[[_Function], _Function]:
    """Let JAX keep what a function does for operands of a type, only for the speed of tracing.

    A program with a recurrence holds these equations at ten places, and jnp takes a millisecond to
    write a few of them. They are written into the program as without it.
    """
    return cast(Any, functools.partial(jax.jit, static_argnames=static, inline=True))


def size(leaves: Sequence[jax.Array], axis: int | None, dtype: Any) -> Size:
    """The size of the vector whose parts are `leaves`; vmap it for the rows of stacked vectors."""
    return _size(tuple(leaves), axis=axis, dtype=dtype)


@_traced_once("axis", "dtype")
def _size(leaves: tuple[jax.Array, ...], axis: int | None, dtype: Any) -> Size:
    if are_split(leaves):
        return _careful(axis, dtype, leaves)
    # A sum of squares is enough, at a tenth of the cost, unless it leaves the float's range.
    squares = tuple(_sum_of_squares(x, axis, dtype) for x in leaves)
    limit = jnp.finfo(dtype).maxexp // 2
    low, high = 2.0**-limit, 2.0**limit
    healthy = functools.reduce(jnp.logical_and, [jnp.all((low < s) & (s < high)) for s in squares])
    # Inside shard_map both branches must say the same of where their results may differ.
    axes = frozenset().union(*(_jaxpr.varies_over(jax.typeof(x)) for x in leaves))

    def varying(size: Size) -> Size:
        return jax.tree.map(lambda x: _jaxpr.vary(x, axes), size)

    return jax.lax.cond(
        everywhere(healthy),
        lambda squares, _: varying(_quick(dtype, squares)),
        lambda _, leaves: varying(_careful(axis, dtype, leaves)),
        squares,
        leaves,
    )


def size_in_range(leaves: Sequence[jax.Array], axis: int | None, dtype: Any) -> tuple[Size, Any]:
    """The size by sums of squares alone, and whether they stay in the float's range."""
    # A square that is rounded or lost below the smallest float is then far below the sum.
    limit = 3 * jnp.finfo(dtype).maxexp // 4
    squares = [_add_up(_squares(x, dtype), axis) for x in leaves]
    # The square of what is not zero may be.
    zeros = [_add_up(jnp.abs(x).astype(dtype), axis) == 0 for x in leaves]
    inside = [
        zero | ((2.0**-limit < s) & (s < 2.0**limit))
        for s, zero in zip(squares, zeros, strict=True)
    ]
    total = functools.reduce(jnp.add, squares)
    zero = functools.reduce(jnp.logical_and, zeros)
    exponent = jnp.where(zero, ZERO, jnp.frexp(total)[1] // 2).astype(jnp.int32)
    # The derivative of ln 0 would be NaN.
    each = tuple(
        jnp.where(zero, -jnp.inf, jnp.log(jnp.where(zero, 1, s)) / 2)
        for s, zero in zip(squares, zeros, strict=True)
    )
    log = jnp.where(zero, -jnp.inf, jnp.log(jnp.where(zero, 1, total)) / 2)
    size = Size(exponent, each[0] if len(each) == 1 else log, each)
    return size, functools.reduce(jnp.logical_and, inside)


@jax.custom_batching.custom_vmap
def everywhere(condition: jax.Array) -> jax.Array:
    """A condition, which under vmap is that of all together.

    A cond on a batched condition would run both of its branches.
    """
    return condition


@everywhere.def_vmap
def _(size: int, batched: Sequence[bool], condition: jax.Array) -> tuple[jax.Array, bool]:
    return everywhere(jnp.all(condition, axis=0)) if batched[0] else condition, False


def _quick(dtype: Any, squares: Sequence[jax.Array]) -> Size:
    # Under vmap both branches run, and the derivative of ln 0 would poison the other one's.
    safe = [jnp.where(s > 0, s, 1) for s in squares]
    total = functools.reduce(jnp.add, safe)
    top = (jnp.frexp(jax.lax.stop_gradient(total))[1] // 2).astype(jnp.int32)
    each = tuple(jnp.log(s) / 2 for s in safe)
    return Size(top, each[0] if len(each) == 1 else jnp.log(total) / 2, each)


def _careful(axis: int | None, dtype: Any, leaves: Sequence[jax.Array]) -> Size:
    exponents = [_exponent(x, axis, dtype) for x in leaves]
    each = tuple(_log_norm(x, k, axis, dtype) for x, k in zip(leaves, exponents, strict=True))
    largest = functools.reduce(jnp.maximum, exponents)
    if len(each) == 1:
        return Size(largest, each[0], each)
    return Size(largest, jax.nn.logsumexp(2 * jnp.stack(each), axis=0) / 2, each)


def top(leaves: Sequence[jax.Array], axis: int | None, dtype: Any) -> jax.Array:
    """The largest k of an entry, which lies below 2^k and not below 2^(k-1)."""
    return functools.reduce(jnp.maximum, [_exponent(x, axis, dtype) for x in leaves])


def _exponent(x: jax.Array, axis: int | None, dtype: Any) -> jax.Array:
    """The k with 2^(k-1) <= max|x| < 2^k."""
    top = _over(jnp.max, jnp.abs(jax.lax.stop_gradient(x)).astype(dtype), axis)
    k = jnp.where(jnp.isfinite(top), jnp.frexp(top)[1], 0).astype(jnp.int32)
    return jnp.where(top == 0, ZERO, k)


def _log_norm(x: jax.Array, k: jax.Array, axis: int | None, dtype: Any) -> jax.Array:
    in_range = scale(x, jnp.where(k == ZERO, 0, -k), axis)
    total = _sum_of_squares(in_range, axis, dtype)
    zero = total == 0
    log = jnp.where(zero, -jnp.inf, jnp.log(jnp.where(zero, 1, total)) / 2)
    return log + nats(jnp.where(zero, 0, k), dtype)


def _sum_of_squares(x: jax.Array, axis: int | None, dtype: Any) -> jax.Array:
    return _over(jnp.sum, _squares(x, dtype), axis)


def _squares(x: jax.Array, dtype: Any) -> jax.Array:
    parts = (x.real, x.imag) if jnp.iscomplexobj(x) else (x,)
    parts = [part.astype(dtype) for part in parts]
    return functools.reduce(jnp.add, [part * part for part in parts])


def _add_up(x: jax.Array, axis: int | None) -> jax.Array:
    """The sum of a row of a stack, or per sample, as a product with ones.

    XLA on a CPU adds the numbers of a row one after the other, which takes five times as long.
    """
    samples = () if axis is None else (x.shape[axis],)
    rest = _rest(x, () if axis is None else (axis % x.ndim,))
    rows = (x if axis is None else jnp.moveaxis(x, axis, 0)).reshape(*samples, math.prod(rest))
    return jnp.matmul(rows, jnp.ones(rows.shape[-1], x.dtype), precision=jax.lax.Precision.HIGHEST)


def finite(leaves: Sequence[jax.Array], axis: int | None) -> jax.Array:
    """Whether every entry is finite, per sample where `axis` is given."""

    def look(leaves: Sequence[jax.Array]) -> jax.Array:
        each = [_over(jnp.all, jnp.isfinite(x), axis) for x in leaves]
        return functools.reduce(jnp.logical_and, each)

    if are_split(leaves):
        return look(leaves)
    dtype = real_dtype(leaves)
    squares = [_add_up(_squares(x, dtype), axis) for x in leaves]
    good = functools.reduce(jnp.logical_and, [jnp.isfinite(s) for s in squares])
    # The squares of large finite numbers overflow too.
    return jax.lax.cond(
        everywhere(jnp.all(good)), lambda _: jnp.ones_like(good), look, tuple(leaves)
    )


def are_split(leaves: Sequence[jax.Array]) -> bool:
    """Whether explicit axes of a mesh hold parts of the leaves.

    vmap turns a cond into a choice between operands that forgets how they are split, and fails.
    """
    splits = [_jaxpr.sharding(jax.typeof(x)) for x in leaves]
    return any(split is not None and any(split.spec) for split in splits)


def power(k: jax.Array, dtype: Any) -> jax.Array:
    """2^k, exactly; 0 below the float's normal range and its largest power of two above it."""
    info = jnp.finfo(dtype)
    integer = jnp.int64 if info.bits == 64 else jnp.int32
    bias = info.maxexp - 1
    bits = (jnp.clip(k, -bias, bias) + bias).astype(integer) << info.nmant
    return jax.lax.bitcast_convert_type(bits, dtype)


@_traced_once("axis")
def scale(x: jax.Array, k: jax.Array, axis: int | None) -> jax.Array:
    """2^k x, exactly; per sample where `axis` is given."""
    dtype = real_dtype([x])
    wide = x.astype(jnp.promote_types(x.dtype, dtype))
    # Two factors, since 2^k itself may lie outside the range that 2^k x is inside of.
    for part in (k // 2, k - k // 2):
        wide = wide * _along(power(part, dtype), x, axis).astype(wide.dtype)
    return wide.astype(x.dtype)


def floor(dtype: Any) -> float:
    """ln of a norm so small that entries of the vector may leave the float's range.

    It is 16 bits above the smallest float, so that few entries are below it.
    """
    return (float(jnp.finfo(dtype).minexp) + 16) * LN2


def nats(k: jax.Array, dtype: Any) -> jax.Array:
    """ln 2^k."""
    return k.astype(dtype) * LN2


def _along(factor: jax.Array, x: jax.Array, axis: int | None) -> jax.Array:
    shape = [1] * x.ndim
    if axis is not None:
        shape[axis] = factor.shape[0]
    return factor.reshape(shape)


def _over(reduce: Any, x: jax.Array, axis: int | None) -> jax.Array:
    axes = tuple(i for i in range(x.ndim) if axis is None or i != axis % x.ndim)
    return _jaxpr.gather(reduce(x, axis=axes) if x.size else jnp.zeros(_rest(x, axes), x.dtype))


def _rest(x: jax.Array, axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for i, n in enumerate(x.shape) if i not in axes)
