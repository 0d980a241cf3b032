"""Gaussian expectations of activations, by the trapezoidal rule or in closed form."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Kernel(NamedTuple):
    """Expectations under N(0, q) of an activation and its slope, as functions of q.

    ``second`` is E φ², ``growth`` its derivative by q, ``slope2`` and ``slope4`` are E φ'² and
    E φ'⁴. ``pair`` is E φ'(a) φ'(b) for a and b of correlations 1 - d, an array of d; None where
    no finite q > 0 has χ > 1. ``slope`` is φ'(0).
    """

    slope: float
    second: Callable[[float], float]
    growth: Callable[[float], float]
    slope2: Callable[[float], float]
    slope4: Callable[[float], float]
    pair: Callable[[float, np.ndarray], np.ndarray] | None = None


def half_nodes(
    variance: float | np.ndarray, step: float, reach: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return x >= 0 and weights of E f(x), x ~ N(0, variance), for an even f.

    The steps are of ``step`` in x or in standard deviations, the smaller of both. The rule is as
    good as its step where f is analytic well beyond ``step`` off the real axis, and as its reach
    where f vanishes beyond x = ``reach`` or the variance is below (reach/8)².

    An array of variances, of shape (...), gives nodes and weights of shape (..., n).
    """
    std = np.sqrt(np.asarray(variance, float))[..., None]
    spread = np.maximum(1.0, std)
    z = np.arange(0.0, reach, step) / spread
    weight = 2 * step / spread / math.sqrt(2 * math.pi) * np.exp(-0.5 * z**2)
    weight[..., 0] /= 2
    return std * z, weight


def nodes(mean: float, variance: float, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Return x and weights of E f(x), x ~ N(mean, variance), for a bounded f of any shape.

    The steps are of ``step`` in x or of 2/5 in standard deviations, the smaller of both, which is
    exact to rounding for f analytic within 6·``step`` of the real axis.
    """
    std = math.sqrt(variance)
    width = min(0.4, step / std) if std > 0 else 0.4
    count = math.ceil(8.5 / width)
    z = width * np.arange(-count, count + 1)
    return mean + std * z, width / math.sqrt(2 * math.pi) * np.exp(-0.5 * z**2)


def _sech_moment(power: int, q: float) -> float:
    """E sech(√q z)^power."""
    # The trapezoidal rule errs by exp(-2π d/step), d = π/2 being the distance from the real axis
    # to the nearest pole of sech. Gauss-Hermite would need thousands of nodes at q > 10.
    x, weight = half_nodes(q, 0.1, 24.0)
    t = np.exp(-x)
    return float(weight @ (2 * t / (1 + t * t)) ** power)


def _tanh_variance(q: float) -> float:
    """E tanh(√q z)²."""
    if q > 1:
        return 1 - _sech_moment(2, q)
    x, weight = half_nodes(q, 0.1, 24.0)
    return float(weight @ np.tanh(x) ** 2)


def _tanh_pair(q: float, d: np.ndarray) -> np.ndarray:
    """E sech²(a) sech²(b), with the independent half sum and half difference of a and b."""
    mean, mean_weight = half_nodes(q * (1 - d / 2), 0.25, 12.0)
    half, half_weight = half_nodes(q * d / 2, 0.25, 12.0)
    both = np.cosh(2 * mean)[..., :, None] + np.cosh(2 * half)[..., None, :]
    return np.einsum("...i,...j,...ij->...", mean_weight, half_weight, 4 / both**2)


KERNELS = {
    "tanh": Kernel(
        1.0,
        _tanh_variance,
        lambda q: 3 * _sech_moment(4, q) - 2 * _sech_moment(2, q),
        lambda q: _sech_moment(4, q),
        lambda q: _sech_moment(8, q),
        _tanh_pair,
    ),
    # Williams, "Computing with infinite networks" (1997): the arcsine kernel.
    "erf": Kernel(
        2 / math.sqrt(math.pi),
        lambda q: 2 / math.pi * math.asin(2 * q / (1 + 2 * q)),
        lambda q: 4 / math.pi / (1 + 2 * q) / math.sqrt(1 + 4 * q),
        lambda q: 4 / math.pi / math.sqrt(1 + 4 * q),
        lambda q: (4 / math.pi) ** 2 / math.sqrt(1 + 8 * q),
        lambda q, d: 4 / math.pi / np.sqrt((1 + 2 * q * d) * (1 + 4 * q - 2 * q * d)),
    ),
    "relu": Kernel(1.0, lambda q: q / 2, lambda q: 0.5, lambda q: 0.5, lambda q: 0.5),
    "linear": Kernel(1.0, lambda q: q, lambda q: 1.0, lambda q: 1.0, lambda q: 1.0),
}
