"""Weight initializers with a gain, in the signature of ``jax.nn.initializers``.

An initializer is a function ``(key, shape, dtype) -> array`` for a weight of shape
``(out, in)``, used as ``weight @ vector``. A gain may be a traced scalar, so a sweep over gains
is one compiled program.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from gradlab._names import choose

Initializer = Callable[..., Array]


def normal(gain: ArrayLike = 1.0) -> Initializer:
    """Independent Gaussian weights, W_ij ~ N(0, gain²/n).

    Args:
      gain: σ_w, a scalar, possibly traced; n is the fan-in, ``shape[-1]``.

    Returns:
      An initializer. It raises ``ValueError`` for a shape that is not ``(out, in)``.

    For a square W the spectral radius tends to ``gain`` as n grows (circular law).

    >>> W = normal(gain=2.0)(jax.random.key(0), (100, 400))
    >>> round(float(W.std()), 1)
    0.1

    Source: Sompolinsky, Crisanti & Sommers, "Chaos in random neural networks" (1988); the
    fan-in scaling is that of LeCun et al., "Efficient BackProp" (1998), section 4.6.
    """

    def init(key: Array, shape: Sequence[int], dtype: DTypeLike | None = None) -> Array:
        dtype = _float(dtype)
        _, fan_in = _matrix("normal", shape)
        return _scale(gain, dtype) * jax.random.normal(key, shape, dtype) / np.sqrt(fan_in).item()

    return init


def orthogonal(gain: ArrayLike = 1.0) -> Initializer:
    """A scaled random orthogonal matrix, W = gain·Q with Q Haar-distributed.

    Args:
      gain: the common singular value of W, a scalar, possibly traced.

    Returns:
      An initializer. A rectangular W has orthonormal rows or columns (times ``gain``), whichever
      are fewer. It raises ``ValueError`` for a shape that is not ``(out, in)``.

    Over a stack of gates this would not be orthogonal gate by gate: the cells call it once per
    gate.

    >>> W = orthogonal(gain=2.0)(jax.random.key(0), (8, 8))
    >>> bool(jnp.allclose(W.T @ W, 4.0 * jnp.eye(8), atol=1e-5))
    True

    Source: Saxe, McClelland & Ganguli, "Exact solutions to the nonlinear dynamics of learning in
    deep linear neural networks" (2014), section 3.
    """

    def init(key: Array, shape: Sequence[int], dtype: DTypeLike | None = None) -> Array:
        dtype = _float(dtype)
        shape = _matrix("orthogonal", shape)
        return _scale(gain, dtype) * jax.nn.initializers.orthogonal()(key, shape, dtype)

    return init


def identity(gain: ArrayLike = 1.0) -> Initializer:
    """A scaled identity, W = gain·I; the key is not used.

    Args:
      gain: the value on the diagonal, a scalar, possibly traced.

    Returns:
      An initializer. A rectangular W has ones (times ``gain``) on its main diagonal. It raises
      ``ValueError`` for a shape that is not ``(out, in)``.

    >>> identity(gain=0.5)(None, (2, 2)).tolist()
    [[0.5, 0.0], [0.0, 0.5]]

    Source: Le, Jaitly & Hinton, "A simple way to initialize recurrent networks of rectified
    linear units" (2015), section 2.
    """

    def init(key: Array | None, shape: Sequence[int], dtype: DTypeLike | None = None) -> Array:
        dtype = _float(dtype)
        return _scale(gain, dtype) * jnp.eye(*_matrix("identity", shape), dtype=dtype)

    return init


def glorot(gain: ArrayLike = 1.0) -> Initializer:
    """Glorot's uniform weights, W_ij ~ gain · U(-a, a) with a = sqrt(6 / (fan_in + fan_out)).

    Args:
      gain: multiplies every weight, a scalar, possibly traced. For a square W of width n the
        standard deviation is gain/√n.

    Returns:
      An initializer. It raises ``ValueError`` for a shape that is not ``(out, in)``.

    >>> W = glorot()(jax.random.key(0), (100, 50))
    >>> bool(jnp.abs(W).max() <= 0.2)
    True

    Source: Glorot & Bengio, "Understanding the difficulty of training deep feedforward neural
    networks" (2010), equation 16.
    """

    def init(key: Array, shape: Sequence[int], dtype: DTypeLike | None = None) -> Array:
        dtype = _float(dtype)
        limit = np.sqrt(6.0 / sum(_matrix("glorot", shape))).item()
        return _scale(gain, dtype) * jax.random.uniform(key, shape, dtype, -limit, limit)

    return init


_BUILDERS = {builder.__name__: builder for builder in (glorot, identity, normal, orthogonal)}


def names() -> tuple[str, ...]:
    """Return the name of every initializer that ``make`` knows, sorted.

    >>> names()
    ('glorot', 'identity', 'normal', 'orthogonal')
    """
    return tuple(sorted(_BUILDERS))


def make(name: str, **options: Any) -> Initializer:
    """Build an initializer by name.

    Args:
      name: one of ``names()``.
      options: the builder's own arguments, for example ``gain``.

    Raises:
      ValueError: for an unknown name or an unknown option.

    >>> make("identity", gain=3.0)(None, (1, 1)).tolist()
    [[3.0]]
    """
    choose("initializer", name, _BUILDERS)
    for option in options:
        choose(f"{name} option", option, inspect.signature(_BUILDERS[name]).parameters)
    return _BUILDERS[name](**options)


def audit(W: ArrayLike) -> dict[str, np.ndarray]:
    """Measure what an initializer really gave, on the host in float64.

    Args:
      W: a square matrix (n, n), or a stack of them (..., n, n).

    Returns:
      ``spectral_radius``, ρ(W) = max |eigenvalue|, and ``orthogonality_error``,
      ‖WᵀW/s² - I‖₂ (spectral norm) with s² = ‖W‖_F²/n, so that any multiple of an orthogonal
      matrix has error 0. Each has the shape of the leading axes. Both are NaN for a matrix that is
      not finite, and the error is NaN for the zero matrix.

    Raises:
      ValueError: if the last two axes are not square.

    >>> measured = audit(jnp.array([[0.0, 2.0], [-2.0, 0.0]]))
    >>> {name: round(float(value), 6) for name, value in measured.items()}
    {'spectral_radius': 2.0, 'orthogonality_error': 0.0}
    """
    W = np.asarray(W, dtype=np.float64)
    if W.ndim < 2 or W.shape[-1] != W.shape[-2] or W.shape[-1] == 0:
        raise ValueError(f"audit needs square matrices (..., n, n), got shape {W.shape}")
    n = W.shape[-1]
    finite = np.asarray(np.isfinite(W).all(axis=(-2, -1)))
    # LAPACK refuses a whole stack for one NaN in it.
    safe = np.where(finite[..., None, None], W, 0.0)
    radius = np.abs(np.linalg.eigvals(safe)).max(axis=-1)
    # Dividing by the largest entry first keeps the square of a tiny or huge matrix in range.
    peak = np.abs(safe).max(axis=(-2, -1), keepdims=True)
    unit = np.divide(safe, peak, out=np.full_like(safe, np.nan), where=peak > 0)
    square = np.square(unit).sum(axis=(-2, -1), keepdims=True) / n
    gram = np.swapaxes(unit, -2, -1) @ unit / square - np.eye(n)
    known = np.asarray(np.isfinite(gram).all(axis=(-2, -1)))
    error = np.linalg.norm(np.where(known[..., None, None], gram, 0.0), ord=2, axis=(-2, -1))
    return {
        "spectral_radius": np.where(finite, radius, np.nan),
        "orthogonality_error": np.where(known, error, np.nan),
    }


def _float(dtype: DTypeLike | None) -> DTypeLike:
    return jnp.result_type(float) if dtype is None else dtype


def _scale(gain: ArrayLike, dtype: DTypeLike) -> Array:
    # A traced float64 gain must not turn float32 weights into float64.
    return jnp.asarray(gain, dtype)


def _matrix(name: str, shape: Sequence[int]) -> tuple[int, int]:
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"{name} needs a shape (out, in) with both at least 1, got {tuple(shape)}")
    return shape[0], shape[1]
