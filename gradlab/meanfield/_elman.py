"""The simple recurrent network: fixed points, timescales, and the critical line."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gradlab._names import choose
from gradlab.meanfield._checks import check_scales, half_log, timescale
from gradlab.meanfield._kernels import KERNELS, Kernel


class MeanField(NamedTuple):
    """The fixed point of the theory and the rate that follows from it.

    Attributes:
      q: variance of a unit's preactivation; inf where it grows without bound, NaN where every
        value is a fixed point.
      chi: χ, the factor on the squared gradient norm in one step back.
      rate: ½ ln χ, in nats per step: < 0 vanishing, > 0 exploding.
      k: E φ'⁴ / (E φ'²)² at the fixed point, the spread of the slopes.
      q_slope: derivative of the next step's variance by this step's, at the fixed point.
    """

    q: float
    chi: float
    rate: float
    k: float
    q_slope: float

    @property
    def xi_grad(self) -> float:
        """-1/ln χ: steps in which the squared gradient norm falls by e; < 0 where it grows."""
        return timescale(self.chi)

    @property
    def xi_q(self) -> float:
        """-1/ln ``q_slope``: steps in which the variance comes nearer to q by e."""
        return timescale(self.q_slope)

    def finite_width_bias(self, n: int) -> float:
        """Return -(1 + 3k)/(4n), what a width of n adds to ``rate``, in nats per step.

        The mean of a logarithm lies below the logarithm of the mean. A fit to first order in 1/n
        for a chaotic tanh network with tied weights. A linear network whose weights are drawn
        afresh at each step has -1/(2n) exactly, half of what this gives. NaN where ``k`` is.

        Raises:
          ValueError: for an n below 1.

        >>> theory = elman("tanh", 2.0)
        >>> round(theory.rate + theory.finite_width_bias(4096), 5)
        0.15428
        """
        if not n >= 1:
            raise ValueError(f"n must be at least 1, got {n}")
        return -(1 + 3 * self.k) / (4 * n)


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
    choose("activation", activation, KERNELS)
    check_scales(gain=gain, bias_std=bias_std, input_variance=input_variance)
    kernel = KERNELS[activation]
    weight, drive = float(gain) ** 2, float(bias_std) ** 2 + float(input_variance)
    if activation in ("relu", "linear"):
        q = _homogeneous_variance(weight * kernel.second(1.0), drive)
    else:
        q = _saturating_variance(kernel, weight, drive)
    second, fourth = kernel.slope2(q), kernel.slope4(q)
    chi = weight * second
    rate = half_log(chi)
    return MeanField(q, chi, rate, fourth / second**2, weight * kernel.growth(q))


def _homogeneous_variance(ratio: float, drive: float) -> float:
    """Solve q = ratio·q + drive."""
    if ratio < 1:
        return drive / (1 - ratio)
    return math.nan if ratio == 1 and drive == 0 else math.inf


def _saturating_variance(kernel: Kernel, weight: float, drive: float) -> float:
    """Solve q = weight·E φ² + drive for an odd φ with |φ| <= 1, whose E φ² is concave in q."""
    steepest = weight * kernel.slope**2
    if drive == 0 and steepest <= 1:
        return 0.0
    # Below the root, from φ(x)² >= φ'(0)² (x² - 2x⁴/3), which holds for tanh and for erf.
    low = drive if drive > 0 else (1 - 1 / steepest) / 4
    return bisect(lambda q: weight * kernel.second(q) + drive - q, low, weight + drive)


def bisect(f: Callable[[float], float], low: float, high: float) -> float:
    """Return where f goes from above 0 to below, to the last bit."""
    middle = 0.5 * (low + high)
    while low < middle < high:
        low, high = (middle, high) if f(middle) > 0 else (low, middle)
        middle = 0.5 * (low + high)
    return middle


class Correlation(NamedTuple):
    """Where the correlation of two copies of a network settles.

    Attributes:
      c_star: c*, the stable fixed point of the correlation; 1 in the ordered phase. NaN where q is
        0, infinite or undetermined, and no correlation is defined.
      slope: χ at c*, the factor on a small departure from c* in one step.
    """

    c_star: float
    slope: float

    @property
    def xi_c(self) -> float:
        """-1/ln ``slope``: steps in which the correlation comes nearer to c* by e."""
        return timescale(self.slope)


def correlation(
    activation: str, gain: float, *, bias_std: float = 0.0, input_variance: float = 0.0
) -> Correlation:
    """Correlation of two copies of a network that differ in their first states only.

    Both have the same weights, bias and inputs. With a and b both N(0, q) and of correlation c::

      c' = (σ_w² E φ(a) φ(b) + σ_b² + q_in) / q
      slope = dc'/dc = σ_w² E φ'(a) φ'(b)

    c = 1 is always a fixed point, of slope χ. It is stable for χ <= 1; for χ > 1 the stable one
    lies below.

    Args:
      activation: φ, one of tanh, relu, erf, linear.
      gain: σ_w, where W_ij ~ N(0, σ_w²/n).
      bias_std: σ_b, the standard deviation of the bias.
      input_variance: q_in, the variance that the input adds to each preactivation.

    Raises:
      ValueError: for an unknown activation, or an argument that is negative or not finite.

    >>> round(correlation("tanh", 2.0, bias_std=0.3).c_star, 6)
    0.263895
    >>> correlation("tanh", 0.9, bias_std=0.3).c_star
    1.0

    Source: Poole et al., "Exponential expressivity in deep neural networks through transient
    chaos" (2016), equations 5 and 6; Schoenholz et al., "Deep information propagation" (2017),
    section 3, for the timescale.
    """
    theory = elman(activation, gain, bias_std=bias_std, input_variance=input_variance)
    if not 0 < theory.q < math.inf:
        return Correlation(math.nan, math.nan)
    pair, weight = KERNELS[activation].pair, float(gain) ** 2
    if theory.chi <= 1 or pair is None:
        return Correlation(1.0, theory.chi)

    def slope(d: np.ndarray) -> np.ndarray:
        return weight * pair(theory.q, d)

    # By symmetry: an odd φ keeps two independent copies independent.
    independent = bias_std == 0 and input_variance == 0
    d = 1.0 if independent else _departure(slope, theory.q)
    return Correlation(1 - d, float(slope(np.array(d))))


def _departure(slope: Callable[[np.ndarray], np.ndarray], q: float) -> float:
    """Solve ∫_0^d (slope(x) - 1) dx = 0 for d = 1 - c*, without a difference of close numbers."""
    # slope falls like 1/√(1 + 2qx): exactly so for erf, nearly so for tanh. x = sinh²(v)/(2q)
    # makes the integrand smooth at every q.
    node, weight = np.polynomial.legendre.leggauss(48)
    node, weight = 0.5 * (node + 1), 0.5 * weight

    def mean_excess(d: float) -> float:
        top = math.asinh(math.sqrt(2 * q * d))
        v = top * node
        x = np.sinh(v) ** 2 / (2 * q)
        return float(top * weight @ (np.sinh(2 * v) / (2 * q) * (slope(x) - 1))) / d

    low = 1.0
    while (excess := mean_excess(low)) <= 0:
        low /= 2
        if low < 1e-15:
            return 0.0
    # Convex and falling in d: Newton's steps from the left never pass the root.
    while excess > 0:
        here = float(slope(np.array(low))) - 1
        step = excess * low / (excess - here)
        if low + step <= low * (1 + 1e-15):
            break
        low, excess = low + step, mean_excess(low + step)
    return low


def second_moment(activation: str, variance: float) -> float:
    """Return what an activation makes of a Gaussian preactivation: E φ(√q z)², z ~ N(0, 1).

    Args:
      activation: φ, one of tanh, relu, erf, linear.
      variance: q, of the preactivation.

    Raises:
      ValueError: for an unknown activation, or a variance that is negative or not finite.

    >>> second_moment("relu", 3.0)
    1.5

    Source: Poole et al., "Exponential expressivity in deep neural networks through transient
    chaos" (2016), equation 3; for erf Williams, "Computing with infinite networks" (1997).
    """
    choose("activation", activation, KERNELS)
    check_scales(variance=variance)
    return float(KERNELS[activation].second(float(variance)))


def critical_gain(activation: str, *, bias_std: float = 0.0, input_variance: float = 0.0) -> float:
    """Return σ_w where χ = 1, and a gradient neither vanishes nor explodes.

    With z ~ N(0, 1), at the variance q where q - E φ(√q z)² / E φ'(√q z)² = σ_b² + q_in::

      σ_w = 1 / √(E φ'(√q z)²)

    Args:
      activation: φ, one of tanh, relu, erf, linear.
      bias_std: σ_b, the standard deviation of the bias.
      input_variance: q_in, the variance that the input adds to each preactivation.

    Returns:
      σ_w; for relu √2 and for linear 1 whatever the bias and the input, under either of which the
      variance grows without bound there.

    Raises:
      ValueError: for an unknown activation, or an argument that is negative or not finite.

    >>> round(critical_gain("tanh", bias_std=0.3), 6)
    1.395584

    Source: Schoenholz et al., "Deep information propagation" (2017), section 3: χ_1 = 1.
    """
    choose("activation", activation, KERNELS)
    check_scales(bias_std=bias_std, input_variance=input_variance)
    kernel, drive = KERNELS[activation], float(bias_std) ** 2 + float(input_variance)
    q = 0.0
    if drive > 0 and kernel.pair is not None:

        def missing(q: float) -> float:
            return drive - q + kernel.second(q) / kernel.slope2(q)

        high = 1.0 + 2 * drive
        while missing(high) > 0:
            high *= 2
        q = bisect(missing, drive, high)
    return 1 / math.sqrt(kernel.slope2(q))


def critical_bias_std(activation: str, gain: float, *, input_variance: float = 0.0) -> float:
    """Return σ_b where χ = 1: the critical line read the other way.

    With z ~ N(0, 1), at the variance q where σ_w² E φ'(√q z)² = 1::

      σ_b² = q - σ_w² E φ(√q z)² - q_in

    Args:
      activation: φ, tanh or erf.
      gain: σ_w, where W_ij ~ N(0, σ_w²/n).
      input_variance: q_in, the variance that the input adds to each preactivation.

    Raises:
      ValueError: for an unknown activation, an argument that is negative or not finite, relu and
        linear, whose χ does not depend on the bias, and a gain below ``critical_gain`` without
        bias.

    >>> round(critical_bias_std("tanh", 1.05**0.5) ** 2, 12)
    2.0105213e-05

    Source: Schoenholz et al., "Deep information propagation" (2017), section 3: χ_1 = 1.
    """
    choose("activation", activation, KERNELS)
    check_scales(gain=gain, input_variance=input_variance)
    kernel, weight = KERNELS[activation], float(gain) ** 2
    if kernel.pair is None:
        raise ValueError(
            f"no critical bias_std for {activation}: its chi does not depend on the bias; "
            "valid: erf, tanh"
        )
    critical = critical_gain(activation, input_variance=input_variance)
    if gain < critical:
        raise ValueError(
            f"no critical bias_std for {activation} with gain {gain}: chi < 1 at every bias; "
            f"gain must be at least {critical:.6g}"
        )
    high = 1.0
    while weight * kernel.slope2(high) > 1:
        high *= 2
    q = bisect(lambda q: weight * kernel.slope2(q) - 1, 0.0, high)
    return math.sqrt(max(0.0, q - weight * kernel.second(q) - float(input_variance)))
