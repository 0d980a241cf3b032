"""The Hessian of a loss: its largest eigenvalues by Lanczos, and all of it for small models."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from gradlab._norms import log_norm, norm


class HessianEigenvalues(NamedTuple):
    """The largest eigenvalues of a Hessian, and how far to trust them.

    Attributes:
      values: (k,), the largest first; none is above the eigenvalue of its rank, but for rounding.
      error: (k,), an eigenvalue lies within this distance of each value, rounding included. That no
        larger one was missed is likely, not certain.
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
    product H v is one derivative of the gradient along v: H is never formed. One start finds one
    vector of a multiple eigenvalue. So for k > 1 it is done again from vectors orthogonal to what
    was found, until no value grows, k times at most; the values are then those of H on the span of
    all, and the error is ‖H v - value v‖. The most negative
    eigenvalues of L are minus the largest of ``lambda params: -loss(params)``.

    Args:
      loss: params -> L, a real scalar.
      params: θ, a pytree of real floats, P entries in all.
      k: how many eigenvalues.
      iterations: m, how many products each time; without it, 4k + 20, and P at most.
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
    eps = jnp.finfo(flat.dtype).eps

    @jax.jit
    def run(flat: Array) -> HessianEigenvalues:
        def times(v: Array) -> Array:
            return jax.jvp(gradient, (flat,), (v,))[1]

        nothing = jnp.zeros((0, flat.size), flat.dtype)
        values, vectors, error, finite = _lanczos(times, nothing, m, k, key)
        # A vector has one part in all directions of a multiple eigenvalue, so that the rest of
        # them is found from another one, orthogonal to what is found: one more in each round.
        more = min(m, flat.size - k)
        if k == 1 or more == 0:
            return HessianEigenvalues(values, error)

        def look_again(carry: Any) -> Any:
            count, old, vectors, *_ = carry
            other = _lanczos(times, vectors, more, min(k, more), jax.random.fold_in(key, -count))
            both = jnp.concatenate([vectors, other[1]])
            values, vectors, error = _project(both, jax.lax.map(times, both), k)
            grows = (values - old > 10 * m * eps * jnp.abs(values).max()).any()
            return count + 1, values, vectors, error, grows

        start = jnp.int32(1), values, vectors, error, finite
        _, values, _, error, _ = jax.lax.while_loop(
            lambda carry: carry[-1] & (carry[0] < k), look_again, start
        )
        return HessianEigenvalues(values, error)

    return run(flat)


def _lanczos(
    times: Callable[[Array], Array], found: Array, m: int, k: int, key: Array
) -> tuple[Array, Array, Array, Array]:
    """The k largest eigenvalues orthogonal to the rows found, vectors, errors, and if finite."""
    size, dtype = found.shape[1], found.dtype
    tiny = 10 * jnp.finfo(dtype).eps

    def draw(i: Array | int, basis: Array) -> Array:
        fresh = jax.random.normal(jax.random.fold_in(key, i), (size,), dtype)
        return _orthogonal(fresh, found, basis)

    def advance(carry: Any, i: Array) -> tuple[Any, tuple[Array, Array]]:
        basis, v, largest = carry
        basis = basis.at[i].set(v)
        w = times(v)
        alpha = w @ v
        w = _orthogonal(w, found, basis)
        beta = _length(w)
        largest = jnp.maximum(largest, jnp.abs(alpha) + beta)
        # All that the start leads to is found: start again from what is orthogonal to it.
        breakdown = beta <= tiny * largest
        new = jnp.where(breakdown, draw(i + 1, basis), w)
        length = _length(new)
        beta = jnp.where(breakdown, 0, beta)
        return (basis, new / jnp.where(length == 0, 1, length), largest), (alpha, beta)

    basis = jnp.zeros((m, size), dtype)
    start = draw(0, basis)
    carry = basis, start / _length(start), jnp.zeros((), dtype)
    (basis, *_), (alpha, beta) = jax.lax.scan(advance, carry, jnp.arange(m))
    finite = jnp.isfinite(alpha).all() & jnp.isfinite(beta).all()
    side = jnp.diag(beta[:-1], 1)
    values, vectors = _eigh(jnp.where(finite, jnp.diag(alpha) + side + side.T, 0))
    error = jnp.abs(beta[-1] * vectors[-1]) + _rounding(values, m)
    leading = values[:k], vectors.T[:k] @ basis, error[:k]
    return *jax.tree.map(lambda each: jnp.where(finite, each, jnp.nan), leading), finite


def _project(vectors: Array, products: Array, k: int) -> tuple[Array, Array, Array]:
    """The k largest eigenvalues of H on the span of rows, their vectors, and the residuals."""
    matrix = products @ vectors.T
    values, turn = _eigh((matrix + matrix.T) / 2)
    values, turn = values[:k], turn.T[:k]
    vectors, products = turn @ vectors, turn @ products
    residuals = jax.vmap(_length)(products - values[:, None] * vectors)
    return values, vectors, residuals + _rounding(values, len(matrix))


def _orthogonal(v: Array, *bases: Array) -> Array:
    """What is left of v beside the rows of some bases."""
    # Twice is enough: without it, found eigenvalues would come back as copies.
    for _ in range(2):
        for basis in bases:
            v = v - basis.T @ (basis @ v)
    return v


def _eigh(matrix: Array) -> tuple[Array, Array]:
    """Eigenvalues, the largest first, and the vectors in columns."""
    unit = norm(matrix).unit.astype(matrix.dtype)
    values, vectors = jnp.linalg.eigh(matrix / unit)
    return unit * values[::-1], vectors[:, ::-1]


def _length(v: Array) -> Array:
    """‖v‖₂, also where its square leaves the float's range."""
    unit, squares = norm(v)
    return (unit * jnp.sqrt(squares)).astype(v.dtype)


def _rounding(values: Array, m: int) -> Array:
    return m * jnp.finfo(values.dtype).eps * jnp.abs(values).max()


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
        blocks = list(zip(ends[:-1], ends[1:], strict=True))
        logs = [log_norm(self.matrix[a:b, c:d]) for a, b in blocks for c, d in blocks]
        return jnp.stack(logs).reshape(len(blocks), len(blocks)).astype(self.matrix.dtype)


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
