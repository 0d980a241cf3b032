"""minimalRNN and GRUs whose weights are drawn afresh at each step."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gradlab.meanfield._checks import check_finite, check_scales, half_log, timescale
from gradlab.meanfield._kernels import half_nodes, nodes


class GatedMeanField(NamedTuple):
    """The fixed point of a gated network's theory and the rate that follows from it.

    Attributes:
      q: E h², the mean square of a unit of the state.
      chi: χ, the factor on the squared gradient norm in one step back.
      rate: ½ ln χ, in nats per step: < 0 vanishing, > 0 exploding.
    """

    q: float
    chi: float
    rate: float

    @property
    def xi_grad(self) -> float:
        """-1/ln χ: steps in which the squared gradient norm falls by e; < 0 where it grows."""
        return timescale(self.chi)


def minimal_rnn(
    gain: float,
    *,
    feature_variance: float,
    input_gain: float = 1.0,
    update_bias: float = 0.0,
    bias_std: float = 0.0,
) -> GatedMeanField:
    """Mean-field theory of the minimalRNN, h_t = u h_{t-1} + (1 - u) x_t.

    u = σ(W h_{t-1} + V x_t + b), of which everything is drawn afresh at each step. With
    a ~ N(μ, σ_w² q + σ_v² R + σ_b²) and u = σ(a)::

      q = R E (1 - u)² / (1 - E u²)
      χ = E u² + σ_w² (q + R) E u'²

    Args:
      gain: σ_w, where W_ij ~ N(0, σ_w²/n).
      feature_variance: R, the mean square of a unit of the features x_t.
      input_gain: σ_v, where V_ij ~ N(0, σ_v²/n).
      update_bias: μ, the mean of the bias of u.
      bias_std: σ_b, its standard deviation.

    Returns:
      A ``GatedMeanField``. With one W for all steps the rate is higher, by up to 0.03 in
      networks of width 800.

    Raises:
      ValueError: for a scale that is negative or not finite, or a bias that is not finite.

    >>> round(minimal_rnn(2.0, feature_variance=1.0).rate, 6)
    -0.317429

    Source: after Chen, Pennington & Schoenholz, "Dynamical isometry and a mean field theory of
    RNNs" (2018); derived anew here and checked against simulated networks.
    """
    check_scales(
        gain=gain, feature_variance=feature_variance, input_gain=input_gain, bias_std=bias_std
    )
    check_finite(update_bias=update_bias)
    weight, drive = float(gain) ** 2, input_gain**2 * feature_variance + bias_std**2

    def update(q: float) -> float:
        u = Gate.at(update_bias, weight * q + drive)
        return feature_variance * u.closed / u.leak

    q = settle(update) if feature_variance <= 1 else _settle_in_units(update, feature_variance)
    u = Gate.at(update_bias, weight * q + drive)
    chi = u.open + weight * (q + feature_variance) * u.slope
    return GatedMeanField(q, chi, half_log(chi))


def _settle_in_units(update: Callable[[float], float], top: float) -> float:
    return top * settle(lambda q: update(top * q) / top)


def gru(
    gain: float,
    *,
    update_bias: float = 0.0,
    reset_bias: float = 0.0,
    bias_std: float = 0.0,
    input_variance: float = 0.0,
) -> GatedMeanField:
    """Mean-field theory of the GRU that resets after the product, for untied weights.

    h_t = z h_{t-1} + (1 - z) n, n = tanh(s_n + r a), a = W_n h_{t-1} + b', where W, b and the
    input's part s of every gate are drawn afresh at each step::

      q = E (1 - z)² E n² / (1 - E z²)
      χ = E z² + σ_w² (E z'² (q + E n²) + E (1 - z)² (E (n' r)² + E (n' r' a)²))

    Args:
      gain: σ_w, where each gate's W_ij ~ N(0, σ_w²/n).
      update_bias: the mean of the bias of z, the gate that keeps h.
      reset_bias: the mean of the bias of r.
      bias_std: σ_b, the standard deviation of every bias, b' included.
      input_variance: the variance that the input adds to the preactivation of each gate.

    Returns:
      A ``GatedMeanField``, at the least stable q: the one that a network started at h = 0 comes
      to. With one W for all steps it does not hold: the rate is off by as much as 0.3.

    Raises:
      ValueError: for a scale that is negative or not finite, or a bias that is not finite.

    >>> round(gru(2.0, input_variance=0.25).rate, 6)
    -0.299198

    Source: after Gilboa et al., "Dynamical isometry and a mean field theory of LSTMs and GRUs"
    (2019); derived anew here and checked against simulated networks.
    """
    check_scales(gain=gain, bias_std=bias_std, input_variance=input_variance)
    check_finite(update_bias=update_bias, reset_bias=reset_bias)
    weight, bias = float(gain) ** 2, float(bias_std) ** 2
    drive = bias + input_variance

    def candidate(q: float) -> tuple[float, float]:
        """Return E n² and E (n' r)² + E (n' r' a)²."""
        product = weight * q + bias
        # Half the step that r alone would need: n's variance, drive + r² product, is 0 at an r
        # whose preactivation can lie as near to the real axis as π/2.
        x, w = nodes(reset_bias, weight * q + drive, 0.25)
        r = logistic(x)
        total = drive + r**2 * product
        y, v = half_nodes(total, 0.25, 12.0)
        second, slope2 = _tanh_moments(y, v, total)
        # Given r and y = s_n + r a, a has the mean share·y/√total and variance product - share².
        # An r below 1e-100 makes no difference to n.
        ratio = 1 / np.maximum(total, 1e-200)
        share2 = (r * product) ** 2 * ratio
        spread = np.sum(v * (y**2 * ratio[..., None]) * sech4(y), axis=-1)
        past = (product - share2) * slope2 + share2 * spread
        slope = r**2 * slope2 + (r * logistic(-x)) ** 2 * past
        return float(w @ second), float(w @ slope)

    return _settled_gru(weight, drive, update_bias, candidate)


def gru_reset_before(
    gain: float,
    *,
    update_bias: float = 0.0,
    reset_bias: float = 0.0,
    bias_std: float = 0.0,
    input_variance: float = 0.0,
) -> GatedMeanField:
    """Mean-field theory of the GRU that resets before the product, for untied weights.

    As ``gru``, but n = tanh(s_n + W_n (r h_{t-1})), so that::

      χ = E z² + σ_w² (E z'² (q + E n²) + E (1 - z)² E n'² (E r² + σ_w² q E r'²))

    Args:
      gain: σ_w, where each gate's W_ij ~ N(0, σ_w²/n).
      update_bias: the mean of the bias of z, the gate that keeps h.
      reset_bias: the mean of the bias of r.
      bias_std: σ_b, the standard deviation of every bias.
      input_variance: the variance that the input adds to the preactivation of each gate.

    Returns:
      A ``GatedMeanField``, as ``gru`` does.

    Raises:
      ValueError: for a scale that is negative or not finite, or a bias that is not finite.

    >>> gru_reset_before(2.0).rate == gru(2.0).rate  # at h = 0 both are one
    True

    Source: after Gilboa et al., "Dynamical isometry and a mean field theory of LSTMs and GRUs"
    (2019); derived anew here and checked against simulated networks.
    """
    check_scales(gain=gain, bias_std=bias_std, input_variance=input_variance)
    check_finite(update_bias=update_bias, reset_bias=reset_bias)
    weight, drive = float(gain) ** 2, float(bias_std) ** 2 + input_variance

    def candidate(q: float) -> tuple[float, float]:
        """Return E n² and E n'² (E r² + σ_w² q E r'²)."""
        r = Gate.at(reset_bias, weight * q + drive)
        total = np.asarray(weight * r.open * q + drive)
        second, slope2 = _tanh_moments(*half_nodes(total, 0.25, 12.0), total)
        return float(second), float(slope2) * (r.open + weight * q * r.slope)

    return _settled_gru(weight, drive, update_bias, candidate)


def _settled_gru(
    weight: float,
    drive: float,
    update_bias: float,
    candidate: Callable[[float], tuple[float, float]],
) -> GatedMeanField:
    def update(q: float) -> float:
        z = Gate.at(update_bias, weight * q + drive)
        return z.closed * candidate(q)[0] / z.leak

    q = settle(update)
    z = Gate.at(update_bias, weight * q + drive)
    second, slope = candidate(q)
    chi = z.open + weight * (z.slope * (q + second) + z.closed * slope)
    return GatedMeanField(q, chi, half_log(chi))


class Gate(NamedTuple):
    """E g², E (1 - g)², E g'² and 1 - E g² of a gate g = σ(a) under a Gaussian a."""

    open: float
    closed: float
    slope: float
    leak: float

    @classmethod
    def at(cls, mean: float, variance: float) -> "Gate":
        """Compute them for a ~ N(mean, variance)."""
        x, w = nodes(mean, variance, 0.5)
        g, rest = logistic(x), logistic(-x)
        moments = (g**2, rest**2, (g * rest) ** 2, rest * (1 + g))
        return cls(*(float(w @ moment) for moment in moments))


def logistic(x: np.ndarray) -> np.ndarray:
    """Return 1/(1 + e^-x), accurate where it is small."""
    return np.exp(-np.logaddexp(0.0, -x))


def sech4(x: np.ndarray) -> np.ndarray:
    """Return 1/cosh(x)⁴ for x >= 0, without overflow."""
    t = np.exp(-x)
    return (2 * t / (1 + t * t)) ** 4


def _tanh_moments(
    y: np.ndarray, weights: np.ndarray, variance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """E tanh² and E sech⁴, from half nodes of the variance, which end short of tanh's tails."""
    near = np.sum(weights * np.tanh(y) ** 2, axis=-1)
    far = 1 - np.sum(weights * sech4(y) ** 0.5, axis=-1)
    return np.where(variance <= 1, near, far), np.sum(weights * sech4(y), axis=-1)


def settle(update: Callable[[float], float]) -> float:
    """Return the least stable fixed point in [0, 1] of a map from [0, 1] to [0, 1).

    Two points within a factor of √10, and any below 1e-10, are not told apart.
    """
    start = update(0.0)
    low = high = 0.0
    for step in range(-1, 22):
        high = min(1.0, max(1e-10, start) * 10 ** (step / 2))
        if update(high) < high:
            break
        low = high
    if low == 0 and start == 0:
        return 0.0
    return _falling_root(lambda q: update(q) - q, low, high)


def _falling_root(f: Callable[[float], float], low: float, high: float) -> float:
    """Return where f goes from above 0 to below, by the Illinois form of false position."""
    f_low, f_high, side, root = f(low), f(high), 0, high
    while True:
        last, root = root, high - f_high * (high - low) / (f_high - f_low)
        if not low < root < high or abs(root - last) <= 1e-15 * root:
            return root
        value = f(root)
        if value == 0:
            return root
        if value > 0:
            low, f_low, f_high = root, value, f_high / (2 if side > 0 else 1)
        else:
            high, f_high, f_low = root, value, f_low / (2 if side < 0 else 1)
        side = 1 if value > 0 else -1
