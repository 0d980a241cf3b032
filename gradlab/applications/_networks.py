"""Pieces of networks that read sequences with padding in them."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from gradlab.cells import Cell


def table(
    key: PRNGKeyArray, codes: int, width: int, dtype: DTypeLike | None, scale: float = 0.1
) -> Float[Array, "codes width"]:
    """A vector for each code, with entries of N(0, scale²)."""
    return scale * jax.random.normal(key, (codes, width), jnp.result_type(dtype or float))


def drop(key: PRNGKeyArray | None, rate: float, shape: Any, dtype: Any) -> Array:
    """Factors of mean 1, 0 or 1/(1 - rate) each; ones without a key."""
    if key is None or not rate:
        return jnp.ones(shape, dtype)
    shape = shape if isinstance(shape, tuple) else (shape,)
    return jax.random.bernoulli(key, 1 - rate, shape).astype(dtype) / (1 - rate)


def run(
    cell: Cell,
    params: Any,
    xs: Float[Array, "T D"],
    live: Bool[Array, " T"],
    reverse: bool = False,
) -> tuple[Any, Float[Array, "T H"]]:
    """The last state and all h_t of a cell that reads x_t where `live` and holds its state else.

    s_t = step(params, s_{t-1}, x_t) where live_t, and s_{t-1} elsewhere, so that the step's own
    gradient there is the identity. With `reverse` it reads from the last row to the first.
    """
    ready = cell.prepare(params)

    def body(state: Any, row: Any) -> tuple[Any, Array]:
        x, real = row
        # The input's product stays in the step: in cache, it is faster than one product before.
        new = cell.step(ready, state, x)
        state = jax.tree.map(lambda a, b: jnp.where(real, a, b), new, state)
        return state, cell.read(state)

    return jax.lax.scan(body, cell.start(xs.dtype), (xs, live), reverse=reverse)
