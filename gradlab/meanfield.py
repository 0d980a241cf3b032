"""What mean-field theory predicts for the gradient of a wide random network, in float64 NumPy.

The network is a_t = W φ(a_{t-1}) + b + s_t with W_ij ~ N(0, σ_w²/n), b_i ~ N(0, σ_b²) and an
input s_t of variance q_in per unit. h_t = φ(W h_{t-1} + U x_t + b) is the same network seen
after φ, and has the same rate.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gradlab._names import choose


class MeanField(NamedTuple):
    """The fixed point of the theory and the rate that follows from it.

    Attributes:
      q: variance of a unit's preactivation; inf where it grows without bound, NaN where every
        value is a fixed point.
      chi: χ, the factor on the squared gradient norm in one step back.
      rate: ½ ln χ, in nats per step: < 0 vanishing, > 0 exploding.
      k: E φ'⁴ / (E φ'²)² at the fixed point, the spread of the slopes.
    """

    q: float
    chi: float
    rate: float
    k: float

    def finite_width_bias(self, n: int) -> float:
        """Return -(1 + 3k)/(4n), what a width of n adds to ``rate``, in nats per step.

        The mean of a logarithm lies below the logarithm of the mean. A fit to first order in 1/n
        for a chaotic tanh network with tied weights. A linear network whose weights are drawn
        afresh at each step has -1/(2n) exactly, half of what this gives.

        >>> theory = elman("tanh", 2.0)
        >>> round(theory.rate + theory.finite_width_bias(4096), 5)
        0.15428
        """
        return -(1 + 3 * self.k) / (4 * n)


class _Kernel(NamedTuple):
    slope: float
    second: Callable[[float], float]
    slope2: Callable[[float], float]
    slope4: Callable[[float], float]


def elman(
    activation: str, gain: float, *, bias_std: float = 0.0, input_variance: float = 0.0
) -> MeanField:
    """Mean-field theory of a simple recurrent network with Gaussian weights.

    The variance q is the stable fixed point of the first line, z ~ N(0, 1)::

      q = σ_w² E φ(√q z)² + σ_b² + q_in
      χ = σ_w² E φ'(√q z)²
      rate = ½ ln χ

    Args:
      activation: φ, one of tanh, relu, erf, linear.
      gain: σ_w, where W_ij ~ N(0, σ_w²/n).
      bias_std: σ_b, the standard deviation of the bias.
      input_variance: q_in, the variance that the input adds to each preactivation.

    Returns:
      A ``MeanField``. Without bias and input, q is exactly 0 for tanh and erf as long as
      σ_w φ'(0) <= 1. relu and linear have a constant χ; where χ > 1, or χ = 1 under a bias or
      an input, q is inf, and at χ = 1 without them every q is a fixed point and q is NaN. A gain
      of 0 gives rate -inf.

    Raises:
      ValueError: for an unknown activation, or an argument that is negative or not finite.

    >>> round(elman("tanh", 2.0).rate, 6)
    0.154724
    >>> elman("tanh", 0.5).q
    0.0

    Source: Poole et al., "Exponential expressivity in deep neural networks through transient
    chaos" (2016), equations 3 and 7; Schoenholz et al., "Deep information propagation" (2017),
    section 4; Chen, Pennington & Schoenholz (2018) for recurrent networks.
    """
    choose("activation", activation, _KERNELS)
    for name, value in (
        ("gain", gain),
        ("bias_std", bias_std),
        ("input_variance", input_variance),
    ):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be finite and at least 0, got {value}")
    kernel = _KERNELS[activation]
    weight, drive = float(gain) ** 2, float(bias_std) ** 2 + float(input_variance)
    if activation in ("relu", "linear"):
        q = _homogeneous_variance(weight * kernel.second(1.0), drive)
    else:
        q = _saturating_variance(kernel, weight, drive)
    second, fourth = kernel.slope2(q), kernel.slope4(q)
    chi = weight * second
    rate = 0.5 * math.log(chi) if chi > 0 else -math.inf
    return MeanField(q, chi, rate, fourth / second**2)


def _homogeneous_variance(ratio: float, drive: float) -> float:
    """Solve q = ratio·q + drive."""
    if ratio < 1:
        return drive / (1 - ratio)
    return math.nan if ratio == 1 and drive == 0 else math.inf


def _saturating_variance(kernel: _Kernel, weight: float, drive: float) -> float:
    """Solve q = weight·E φ² + drive for an odd φ with |φ| <= 1, whose E φ² is concave in q."""
    steepest = weight * kernel.slope**2
    if drive == 0 and steepest <= 1:
        return 0.0
    # Below the root, from φ(x)² >= φ'(0)² (x² - 2x⁴/3), which holds for tanh and for erf.
    low = drive if drive > 0 else (1 - 1 / steepest) / 4
    high = weight + drive
    while low < (middle := 0.5 * (low + high)) < high:
        if weight * kernel.second(middle) + drive > middle:
            low = middle
        else:
            high = middle
    return middle


def _nodes(q: float) -> tuple[np.ndarray, np.ndarray]:
    """Return z >= 0 and weights of E f(√q z), for an even f that is narrow on a scale of 1."""
    step, spread = 0.1, max(1.0, math.sqrt(q))
    z = np.arange(0.0, 24.0, step) / spread
    weight = 2 * step / spread / math.sqrt(2 * math.pi) * np.exp(-0.5 * z**2)
    weight[0] /= 2
    return z, weight


def _sech_moment(power: int, q: float) -> float:
    """E sech(√q z)^power."""
    # The trapezoidal rule errs by exp(-2π d/step), d = π/2 being the distance from the real axis
    # to the nearest pole of sech. Gauss-Hermite would need thousands of nodes at q > 10.
    z, weight = _nodes(q)
    t = np.exp(-math.sqrt(q) * z)
    return float(weight @ (2 * t / (1 + t * t)) ** power)


def _tanh_variance(q: float) -> float:
    """E tanh(√q z)²."""
    if q > 1:
        return 1 - _sech_moment(2, q)
    z, weight = _nodes(q)
    return float(weight @ np.tanh(math.sqrt(q) * z) ** 2)


_KERNELS = {
    "tanh": _Kernel(
        1.0,
        _tanh_variance,
        lambda q: _sech_moment(4, q),
        lambda q: _sech_moment(8, q),
    ),
    # Williams, "Computing with infinite networks" (1997): the arcsine kernel, at equal arguments.
    "erf": _Kernel(
        2 / math.sqrt(math.pi),
        lambda q: 2 / math.pi * math.asin(2 * q / (1 + 2 * q)),
        lambda q: 4 / math.pi / math.sqrt(1 + 4 * q),
        lambda q: (4 / math.pi) ** 2 / math.sqrt(1 + 8 * q),
    ),
    "relu": _Kernel(1.0, lambda q: q / 2, lambda q: 0.5, lambda q: 0.5),
    "linear": _Kernel(1.0, lambda q: q, lambda q: 1.0, lambda q: 1.0),
}
