"""Matrices with a structure: orthogonal, diagonal, block-diagonal, feed-forward."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from gradlab.initializers.base import (
    Initializer,
    floating,
    matrix,
    register,
    scalar,
    square,
    vector,
    whole,
)


@register
def orthogonal(gain: ArrayLike = 1.0) -> Initializer:
    """A scaled random orthogonal matrix, W = gain·Q with Q Haar-distributed.

    Args:
        gain: the common singular value of W, a scalar, possibly traced.

    Returns:
        An initializer. A rectangular W has orthonormal rows or columns (times `gain`), whichever
        are fewer. It raises `ValueError` for a shape that is not `(out, in)`.

    Over a stack of gates this would not be orthogonal gate by gate: the cells call it once per
    gate, as flax linen does with its recurrent kernels; `stacked_orthogonal` is the other one.

    >>> W = orthogonal(gain=2.0)(jax.random.key(0), (8, 8))
    >>> bool(jnp.allclose(W.T @ W, 4.0 * jnp.eye(8), atol=1e-5))
    True

    Source: Saxe, McClelland & Ganguli, "Exact solutions to the nonlinear dynamics of learning in
    deep linear neural networks" (2014), section 3.
    """

    def init(key: Array, shape: Sequence[int], dtype: DTypeLike | None = None) -> Array:
        dtype = floating(dtype)
        shape = matrix("orthogonal", shape)
        return scalar(gain, dtype) * jax.nn.initializers.orthogonal()(key, shape, dtype)

    return init


@register
def stacked_orthogonal(gain: ArrayLike = 1.0, gates: int = 4) -> Initializer:
    """A gate's block of an orthogonal kernel over all gates, the default of keras and flax nnx.

    With Q the Haar-distributed (gates·out, in) matrix that has orthonormal columns (rows, where
    those are fewer)::

        W = gain·Q[:out]

    Args:
        gain: multiplies every weight, a scalar, possibly traced.
        gates: G, the gates that share a kernel: 4 in an LSTM, 3 in a GRU.

    Returns:
        An initializer. It raises `ValueError` for a shape that is not `(out, in)`.

    Raises:
        ValueError: for `gates` below 1.

    A square W is not orthogonal: its singular values lie in [0, gain], and their mean square is
    gain²/G. Each call draws its own Q, so the law is that of one gate, and the gates of a
    cell are independent, where the columns of the libraries' whole kernel are orthonormal.

    >>> W = stacked_orthogonal(gates=4)(jax.random.key(0), (40, 40))
    >>> bool(jnp.linalg.norm(W, ord=2) < 1)
    True

    Source: keras `LSTM` and `GRU` (recurrent_initializer="orthogonal" on a kernel of shape
    (H, G·H)), flax nnx `OptimizedLSTMCell`; the law of such blocks is in Zyczkowski & Sommers,
    "Truncations of random unitary matrices" (2000).
    """
    gates = whole("stacked_orthogonal", "gates", gates)

    def init(key: Array, shape: Sequence[int], dtype: DTypeLike | None = None) -> Array:
        dtype = floating(dtype)
        rows, columns = matrix("stacked_orthogonal", shape)
        Q = jax.nn.initializers.orthogonal()(key, (gates * rows, columns), dtype)
        return scalar(gain, dtype) * Q[:rows]

    return init


@register
def identity(gain: ArrayLike = 1.0) -> Initializer:
    """A scaled identity, W = gain·I; the key is not used.

    Args:
        gain: the value on the diagonal, a scalar, possibly traced.

    Returns:
        An initializer. A rectangular W has ones (times `gain`) on its main diagonal. It raises
        `ValueError` for a shape that is not `(out, in)`.

    >>> identity(gain=0.5)(None, (2, 2)).tolist()
    [[0.5, 0.0], [0.0, 0.5]]

    Source: Le, Jaitly & Hinton, "A simple way to initialize recurrent networks of rectified
    linear units" (2015), section 2.
    """

    def init(key: Array | None, shape: Sequence[int], dtype: DTypeLike | None = None) -> Array:
        dtype = floating(dtype)
        return scalar(gain, dtype) * jnp.eye(*matrix("identity", shape), dtype=dtype)

    return init


@register
def chain(gain: ArrayLike = 1.0) -> Initializer:
    """A feed-forward chain hidden in the recurrence, W_{i+1,i} = gain; the key is not used.

    Args:
        gain: the weight of every link, a scalar, possibly traced. Its square is the α of Ganguli,
            Huh & Sompolinsky.

    Returns:
        An initializer. It raises `ValueError` for a shape that is not `(n, n)`.

    A delay line, as far from normal as a matrix can be: every eigenvalue is 0, n - 1 singular
    values are `gain`, and ‖Wᵏ‖₂ = gainᵏ for k < n before Wⁿ = 0.

    >>> chain(gain=0.5)(None, (3, 3)).tolist()
    [[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]

    Source: Ganguli, Huh & Sompolinsky, "Memory traces in dynamical systems" (2008), the delay
    line; Goldman, "Memory without feedback in a neural network" (2009); as an initialization in
    Kerg et al., "Non-normal recurrent neural network (nnRNN)" (2019).
    """

    def init(key: Array | None, shape: Sequence[int], dtype: DTypeLike | None = None) -> Array:
        dtype = floating(dtype)
        return scalar(gain, dtype) * jnp.eye(square("chain", shape), k=-1, dtype=dtype)

    return init


@register
def rotations(gain: ArrayLike = 1.0) -> Initializer:
    """Independent plane rotations in 2×2 blocks, times `gain`.

    With θ_k ~ U[0, 2π) for k = 1..n/2::

        W = gain·diag(R(θ_1), R(θ_2), …),  R(θ) = [[cos θ, -sin θ], [sin θ, cos θ]]

    Args:
        gain: the modulus of every eigenvalue gain·exp(±iθ_k) and every singular value, a scalar,
            possibly traced.

    Returns:
        An initializer. An odd n leaves the last direction unrotated. It raises `ValueError` for a
        shape that is not `(n, n)`.

    >>> W = rotations()(jax.random.key(0), (4, 4))
    >>> bool(jnp.allclose(W.T @ W, jnp.eye(4), atol=1e-6)), W[0, 2:].tolist()
    (True, [0.0, 0.0])

    Source: Henaff, Szlam & LeCun, "Recurrent orthogonal networks and long-memory tasks" (2016),
    where such blocks solve the copy task as clocks.
    """

    def init(key: Array, shape: Sequence[int], dtype: DTypeLike | None = None) -> Array:
        dtype = floating(dtype)
        n = square("rotations", shape)
        angle = jax.random.uniform(key, (n // 2,), dtype, 0.0, 2 * math.pi)
        blocks = _block_diagonal(jnp.ones((n + 1) // 2, dtype), angle, n)
        return scalar(gain, dtype) * blocks

    return init


@register
def eigenvalue_ring(
    gain: ArrayLike = 1.0, r_min: float = 0.0, r_max: float = 1.0, phase: float = 2 * math.pi
) -> Initializer:
    """Eigenvalues that are uniform on a ring of the complex plane.

    With u_k, v_k ~ U[0, 1)::

        λ_k = gain·sqrt(u_k (r_max² - r_min²) + r_min²)·exp(i·phase·v_k)

    Args:
        gain: multiplies every eigenvalue, a scalar, possibly traced.
        r_min: the inner radius.
        r_max: the outer radius.
        phase: the angles lie in [0, phase), in radians.

    Returns:
        An initializer. For a shape `(n,)` it returns the complex λ, the diagonal of a linear
        recurrent unit, whose real part has the given dtype. For `(n, n)` it returns a real
        block-diagonal matrix whose 2×2 blocks are scaled rotations with the eigenvalues λ_k and
        their conjugates; an odd n adds one that is real, |λ|. It raises `ValueError` for any other
        shape.

    Raises:
        ValueError: unless 0 <= r_min <= r_max and all three are finite.

    >>> ring = eigenvalue_ring(r_min=0.9, r_max=0.99)
    >>> eigenvalues = ring(jax.random.key(0), (50,), jnp.complex64)
    >>> bool(((jnp.abs(eigenvalues) > 0.9) & (jnp.abs(eigenvalues) < 0.99)).all())
    True
    >>> ring(jax.random.key(0), (4, 4)).dtype == jnp.result_type(float)
    True

    Source: Orvieto et al., "Resurrecting recurrent neural networks for long sequences" (2023),
    section 3.2 and lemma 3.2.
    """
    if not (0 <= r_min <= r_max < math.inf and math.isfinite(phase)):
        raise ValueError(
            "eigenvalue_ring needs 0 <= r_min <= r_max and a phase, all finite, "
            f"got r_min={r_min}, r_max={r_max}, phase={phase}"
        )

    def draw(key: Array, count: int, dtype: DTypeLike) -> tuple[Array, Array]:
        radius_key, angle_key = jax.random.split(key)
        area = jax.random.uniform(radius_key, (count,), dtype, r_min**2, r_max**2)
        return jnp.sqrt(area), phase * jax.random.uniform(angle_key, (count,), dtype)

    def init(key: Array, shape: Sequence[int], dtype: DTypeLike | None = None) -> Array:
        real = jnp.finfo(floating(dtype)).dtype
        if len(shape) == 1:
            radius, angle = draw(key, vector("eigenvalue_ring", shape), real)
            radius = scalar(gain, real) * radius
            return jax.lax.complex(radius * jnp.cos(angle), radius * jnp.sin(angle))
        n = square("eigenvalue_ring", shape)
        radius, angle = draw(key, (n + 1) // 2, real)
        return scalar(gain, real) * _block_diagonal(radius, angle[: n // 2], n)

    return init


def _block_diagonal(radius: Array, angle: Array, n: int) -> Array:
    """Return (n, n) scaled rotations r·R(θ), and r alone in the corner that an odd n leaves."""
    angle = jnp.pad(angle, (0, n % 2))
    diagonal = jnp.repeat(radius * jnp.cos(angle), 2)[:n]
    sine = radius * jnp.sin(angle)
    below = jnp.stack([sine, jnp.zeros_like(sine)], axis=1).ravel()[: n - 1]
    return jnp.diag(diagonal) + jnp.diag(below, -1) - jnp.diag(below, 1)
