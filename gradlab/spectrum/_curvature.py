"""The Hessian of a loss: its largest eigenvalues by Lanczos, and all of it for small models."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree


class HessianEigenvalues(NamedTuple):
    """The largest eigenvalues of a Hessian, and how far to trust them.

    Attributes:
      values: (k,), the largest first.
      error: (k,), an eigenvalue lies within this distance of each value, rounding included.
    """

    values: Array
    error: Array


def hessian_eigenvalues(
    loss: Callable[[Any], Any],
    params: Any,
    *,
    k: int = 1,
    iterations: int | None = None,
    key: Array | None = None,
) -> HessianEigenvalues:
    """The k largest eigenvalues of H = ∂²L/∂θ², by Lanczos on products with vectors.

    From a random unit vector q_1, with β_0 = 0, each new vector made orthogonal to all before::

      H q_j = β_{j-1} q_{j-1} + α_j q_j + β_j q_{j+1},   j = 1..m

    The eigenvalues of the tridiagonal matrix of α and β come near those of H from both ends. A
    product H v is one derivative of the gradient along v: H is never formed. The most negative
    eigenvalues of L are minus the largest of ``lambda params: -loss(params)``.

    Args:
      loss: params -> L, a real scalar.
      params: θ, a pytree of real floats, P entries in all.
      k: how many eigenvalues.
      iterations: m, how many products; without it, 4k + 20, and P at most.
      key: draws q_1; without it, always the same one.

    Returns:
      A ``HessianEigenvalues``, in units of L per square of θ's. NaN where a product is not finite.

    Raises:
      ValueError: for k outside 1..P, iterations outside k..P, and leaves that are no real floats.

    >>> found = hessian_eigenvalues(lambda w: 1.5 * w[0] ** 2 - w[1] ** 2, jnp.zeros(2), k=2)
    >>> [round(float(value), 4) for value in found.values]
    [3.0, -2.0]

    Source: Lanczos, "An iteration method for the solution of the eigenvalue problem" (1950); Paige,
    "The computation of eigenvalues and eigenvectors of very large sparse matrices" (1971), for the
    error; Ghorbani, Krishnan & Xiao, "An investigation into neural net optimization via Hessian
    eigenvalue density" (2019), for networks.
    """
    flat, rebuild = _real(params)
    if not 1 <= k <= flat.size:
        raise ValueError(f"k must be between 1 and {flat.size}, the entries of params, got {k}")
    m = min(4 * k + 20, flat.size) if iterations is None else iterations
    if not k <= m <= flat.size:
        raise ValueError(f"iterations must be between {k} and {flat.size}, got {m}")
    gradient = jax.grad(lambda flat: loss(rebuild(flat)))
    key = jax.random.key(0) if key is None else key
    tiny = 10 * jnp.finfo(flat.dtype).eps

    def advance(carry: Any, i: Array) -> tuple[Any, tuple[Array, Array]]:
        basis, v, size = carry
        basis = basis.at[i].set(v)
        w = jax.jvp(gradient, (flat,), (v,))[1]
        alpha = w @ v
        # Twice is enough: without it, found eigenvalues would come back as copies.
        for _ in range(2):
            w = w - basis.T @ (basis @ w)
        beta = jnp.linalg.norm(w)
        size = jnp.maximum(size, jnp.abs(alpha) + beta)
        # All that q_1 leads to is found: start again from what is orthogonal to it.
        fresh = jax.random.normal(jax.random.fold_in(key, i + 1), v.shape, v.dtype)
        for _ in range(2):
            fresh = fresh - basis.T @ (basis @ fresh)
        breakdown = beta <= tiny * size
        new = jnp.where(breakdown, fresh, w)
        length = jnp.linalg.norm(new)
        beta = jnp.where(breakdown, 0, beta)
        return (basis, new / jnp.where(length == 0, 1, length), size), (alpha, beta)

    @jax.jit
    def run(flat: Array) -> HessianEigenvalues:
        start = jax.random.normal(key, flat.shape, flat.dtype)
        carry = jnp.zeros((m, flat.size), flat.dtype), start / jnp.linalg.norm(start)
        _, (alpha, beta) = jax.lax.scan(advance, (*carry, jnp.zeros((), flat.dtype)), jnp.arange(m))
        finite = jnp.isfinite(alpha).all() & jnp.isfinite(beta).all()
        side = jnp.diag(beta[:-1], 1)
        matrix = jnp.diag(alpha) + side + side.T
        values, vectors = jnp.linalg.eigh(jnp.where(finite, matrix, 0))
        rounding = m * jnp.finfo(flat.dtype).eps * jnp.abs(values).max()
        error = jnp.abs(beta[-1] * vectors[-1]) + rounding
        leading = HessianEigenvalues(values[::-1][:k], error[::-1][:k])
        return jax.tree.map(lambda each: jnp.where(finite, each, jnp.nan), leading)

    return run(flat)


class Hessian(NamedTuple):
    """A Hessian and where each leaf of the parameters stands in it.

    Attributes:
      matrix: (P, P), symmetric.
      names: of the leaves, by their path.
      ends: where the rows of each leaf start, and P: leaf i has the rows ends[i]..ends[i+1]-1.
    """

    matrix: Array
    names: tuple[str, ...]
    ends: tuple[int, ...]

    @property
    def log_norms(self) -> Array:
        """ln of Frobenius' norm of each block, (leaves, leaves): -inf for a block of zeros."""
        ends = self.ends
        rows = [
            [
                jnp.linalg.norm(self.matrix[a:b, c:d])
                for c, d in zip(ends[:-1], ends[1:], strict=True)
            ]
            for a, b in zip(ends[:-1], ends[1:], strict=True)
        ]
        return jnp.log(jnp.array(rows))


def hessian(loss: Callable[[Any], Any], params: Any) -> Hessian:
    """All of H = ∂²L/∂θ², for models of up to some thousand parameters.

    Args:
      loss: params -> L, a real scalar.
      params: θ, a pytree of real floats, P entries in all.

    Returns:
      A ``Hessian``, in the order of the leaves. NaN where a second derivative is.

    Raises:
      ValueError: for leaves that are no real floats.

    >>> found = hessian(lambda p: p["a"] * p["b"] ** 2, {"a": 2.0, "b": 3.0})
    >>> found.names, found.matrix.tolist()
    (('a', 'b'), [[0.0, 6.0], [6.0, 4.0]])

    Source: Zucchet & Orvieto, "Recurrent neural networks: vanishing and exploding gradients are not
    the end of the story" (2024), section 4, for Hessians of recurrent networks block by block.
    """
    flat, rebuild = _real(params)
    matrix = jax.jit(jax.hessian(lambda flat: loss(rebuild(flat))))(flat)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    ends = np.cumsum([0, *(np.size(leaf) for _, leaf in leaves)])
    return Hessian(matrix, tuple(names), tuple(int(end) for end in ends))


def _real(params: Any) -> tuple[Array, Callable[[Array], Any]]:
    """The parameters as one vector, of float32 at least, and what takes it apart again."""
    for leaf in jax.tree.leaves(params):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ValueError(f"params must be real floats, got a leaf of {jnp.result_type(leaf)}")
    wide = jax.tree.map(
        lambda x: jnp.asarray(x, jnp.promote_types(jnp.result_type(x), jnp.float32)), params
    )
    flat, rebuild = ravel_pytree(wide)
    if flat.size == 0:
        raise ValueError("params have no entries")
    return flat, rebuild
