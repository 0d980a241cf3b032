"""A penalty on recurrent matrices that are not orthogonal."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array

from gradlab._norms import widen
from gradlab.cells import Cell


def orthogonality(cell: Cell, params: dict[str, Array]) -> Array:
    """Σ_g ‖W_gᵀ W_g - I‖_F², over the matrices W_g through which the step reads its last state.

    Its gradient is 4 W_g (W_gᵀ W_g - I), and it is 0 where every W_g keeps norms.

    Args:
      cell: whose ``matrices`` are the W_g, (G, H, H).
      params: the cell's parameters.

    Returns:
      The sum, computed in float32 at least; NaN where an entry of a W_g is, 0 for a cell without a
      W_g.

    >>> import jax
    >>> from gradlab import cells, initializers
    >>> cell = cells.make("gru", inputs=2, hidden=4, recurrent=initializers.orthogonal(2.0))
    >>> params = jax.jit(cell.init)(jax.random.key(0))
    >>> round(float(orthogonality(cell, params)), 3)  # 3 gates, 4 (2² - 1)²
    108.0

    Source: Vorontsov, Trabelsi, Kadoury & Pal, "On orthogonality and learning recurrent networks
    with long term dependencies" (2017), section 3.2, the soft constraint.
    """
    blocks = widen(cell.matrices(params))
    identity = jnp.eye(blocks.shape[-1], dtype=blocks.dtype)
    products = jnp.swapaxes(blocks, -1, -2).conj() @ blocks
    return jnp.sum(jnp.abs(products - jnp.broadcast_to(identity, products.shape)) ** 2)


def orthogonality_penalty(cell: Cell) -> Callable[[Any, Any], Array]:
    """``orthogonality`` of a ``tasks.network`` of the cell, as a penalty of (params, batch)."""
    return lambda params, batch: orthogonality(cell, params["cell"])
