"""Weights rescaled to a spectral radius, dense or sparse, as in echo-state networks."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from gradlab.initializers.base import Initializer, floating, register, scalar, square


@register
def spectral_radius(gain: ArrayLike = 1.0, density: float = 1.0) -> Initializer:
    """Gaussian weights, rescaled so that this very matrix has the spectral radius `gain`.

    With V_ij ~ N(0, 1), each row kept in round(density·n) places drawn at random (at least 1)::

        W = gain·V / ρ(V),  ρ(V) = max |eigenvalue of V|

    Args:
        gain: ρ, the spectral radius of W, a scalar, possibly traced.
        density: the share of the weights that are not zero, in (0, 1].

    Returns:
        An initializer. It raises `ValueError` for a shape that is not `(n, n)`.

    Raises:
        ValueError: for a density outside (0, 1].

    ρ(V) is the limit of ‖Vᵏ‖^(1/k), taken by squaring V until k is past the precision of the
    dtype: matrix products alone, so that it runs under jit and vmap on every device, and it is
    right for complex pairs of leading eigenvalues, where power iteration is not. Rows without a
    weight are avoided because the links of such a V may form no cycle, and then ρ(V) = 0.

    >>> W = spectral_radius(gain=0.9, density=0.2)(jax.random.key(0), (20, 20))
    >>> round(float(max(abs(np.linalg.eigvals(W)))), 4), int(jnp.sum(W != 0))
    (0.9, 80)

    Source: Jaeger, "The echo state approach to analysing and training recurrent neural networks"
    (2001); Lukosevicius, "A practical guide to applying echo state networks" (2012), section 3.2.
    The limit is Gelfand's formula.
    """
    return _radius_initializer("spectral_radius", gain, density)


@register
def echo_state(gain: ArrayLike = 1.0, density: float = 0.1) -> Initializer:
    """Sparse Gaussian weights of spectral radius `gain`: `spectral_radius` at another default.

    Args:
        gain: ρ, the spectral radius of W, a scalar, possibly traced.
        density: the share of the weights that are not zero, in (0, 1].

    Returns:
        An initializer. It raises `ValueError` for a shape that is not `(n, n)`.

    Raises:
        ValueError: for a density outside (0, 1].

    >>> W = echo_state()(jax.random.key(0), (20, 20))
    >>> int(jnp.sum(W != 0))
    40

    Source: as for `spectral_radius`.
    """
    return _radius_initializer("echo_state", gain, density)


def _radius_initializer(name: str, gain: ArrayLike, density: float) -> Initializer:
    if not 0 < density <= 1:
        raise ValueError(f"{name} needs a density in (0, 1], got {density}")

    def init(key: Array, shape: Sequence[int], dtype: DTypeLike | None = None) -> Array:
        dtype = floating(dtype)
        n = square(name, shape)
        links = max(1, round(density * n))
        weight_key, place_key = jax.random.split(key)
        V = jax.random.normal(weight_key, (n, n), dtype)
        if links < n:
            order = jnp.argsort(jax.random.uniform(place_key, (n, n), jnp.float32), axis=1)
            V = jnp.where(order < links, V, 0)
        return scalar(gain, dtype) * (V / _radius(V))

    return init


def _radius(V: Array) -> Array:
    """Return ρ(V) as ‖Vᵏ‖^(1/k), k a power of 2."""

    def square_once(carry: tuple[Array, Array], weight: Array) -> tuple[tuple[Array, Array], None]:
        power, total = carry
        norm = jnp.linalg.norm(power)
        # A nilpotent V reaches 0; log 0 then makes the radius 0 as it should.
        power = power / jnp.where(norm > 0, norm, 1)
        # TF32 would leave three digits of the radius.
        power = jnp.matmul(power, power, precision="highest")
        return (power, total + weight * jnp.log(norm)), None

    # ln‖Vᵏ‖/k errs by ln(κ)/k, κ the condition of the eigenvectors: a few bits beyond the format.
    weights = 0.5 ** np.arange(jnp.finfo(V.dtype).nmant + 5)
    start = (V, jnp.zeros((), V.dtype))
    (_, total), _ = jax.lax.scan(square_once, start, jnp.asarray(weights, V.dtype))
    return jnp.exp(total)
