"""Dynamic mean-field theory of a leaky network: correlations and the largest exponent."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradlab.meanfield._checks import check_scales
from gradlab.meanfield._elman import bisect, elman

# How far the trapezoid rule goes, in standard deviations.
_REACH = 8.0
_MOST_UPDATES, _TOLERANCE = 10, 1e-10


class LeakyMeanField(NamedTuple):
    """The stationary state of an infinitely wide leaky network.

    Attributes:
      correlation: C(τ) = E h_i(t) h_i(t + τ) at τ = 0, δ, 2δ, ...: (lags,).
      slopes: E φ'(h_i(t)) φ'(h_i(t + τ)) at the same τ: (lags,).
      rate: λ_1, the largest Lyapunov exponent, in nats per unit of time, which is 1/δ steps.
    """

    correlation: NDArray[np.float64]
    slopes: NDArray[np.float64]
    rate: float


def leaky(gain: float, dt: float, *, span: float = 160.0) -> LeakyMeanField:
    """Dynamic mean-field theory of h' = (1 - δ) h + δ W tanh(h), W_ij ~ N(0, g²/n).

    A unit is a Gaussian process whose correlation solves, with C_φ(τ) = E tanh(h(t)) tanh(h(t+τ))::

      C(τ) = g² δ²/(1 - (1 - δ)²) Σ_τ' (1 - δ)^|τ - τ'| C_φ(τ')

    and a tangent's correlation grows as e^(s(t + t')) ψ(t - t'). λ_1 is s/δ for the largest s at
    which the lowest eigenvalue of this operator is 0::

      (e^2s + (1 - δ)² - δ² g² E φ'φ'(τ)) ψ(τ) - (1 - δ) e^s (ψ(τ + 1) + ψ(τ - 1))

    The correlation is followed by Newton's method from δ = 1, where C(τ) = 0 for τ > 0.

    Args:
      gain: g.
      dt: δ, above 0 and at most 1.
      span: the largest τ; the correlation must have fallen to 0 before it.

    Returns:
      A ``LeakyMeanField``. For g <= 1 the state is 0, and the rate ln(1 - δ + δ g)/δ.

    Raises:
      ValueError: for a gain that is negative or not finite, a δ or span out of range, or where the
        correlation does not fall below 1e-6 of C(0) within the span (near g = 1 it takes longer).

    >>> round(leaky(3.0, 0.5, span=40).rate, 6)
    0.216124

    Source: Sompolinsky, Crisanti & Sommers, "Chaos in random neural networks" (1988); Molgedey,
    Schuchhardt & Schuster (1992) for δ = 1; the operator after Clark, "Lyapunov spectrum of random
    neural networks" (2026), appendix on the largest exponent.
    """
    check_scales(gain=gain)
    if not 0 < dt <= 1:
        raise ValueError(f"dt must be above 0 and at most 1, got {dt}")
    if not dt <= span < math.inf:
        raise ValueError(f"span must be finite and at least dt, got {span}")
    lags = math.ceil(span / dt) + 1
    if gain <= 1:
        grow = 1 - dt + dt * gain
        rate = math.log(grow) / dt if grow > 0 else -math.inf
        return LeakyMeanField(np.zeros(lags), np.ones(lags), rate)
    correlation = _correlation(gain, dt, lags)
    if abs(correlation[-1]) > 1e-6 * correlation[0]:
        raise ValueError(
            f"the correlation has not fallen to 0 at span = {span}; a longer span may do"
        )
    slopes = _moments(correlation)[1]
    return LeakyMeanField(correlation, slopes, _largest_exponent(gain, dt, slopes))


def _correlation(gain: float, dt: float, lags: int) -> NDArray[np.float64]:
    """C, followed from δ = 1 to δ = dt in steps that halve where Newton's method fails."""
    correlation = np.zeros(lags)
    correlation[0] = elman("tanh", gain).q
    delta, step = 1.0, 0.5 * (1 - dt)
    while delta > dt:
        to = max(dt, delta - step)
        # On the way an answer is only where the next search starts.
        solution = _newton(correlation, gain, to, _TOLERANCE if to == dt else 1e-3)
        if solution is not None:
            delta, correlation = to, solution
        elif step > 1e-3:
            step /= 2
        else:
            raise ValueError(f"Newton's method does not converge at dt = {to:g}")
    return correlation


def _newton(correlation: NDArray, gain: float, delta: float, tolerance: float) -> NDArray | None:
    """The solution next to `correlation`, or None."""
    weights = gain**2 * _kernel(delta, len(correlation))
    for _ in range(_MOST_UPDATES):
        products, slopes, bends = _moments(correlation)
        residual = correlation - weights @ products
        jacobian = np.eye(len(correlation)) - weights * slopes
        # C(0) is the variance of both units, so every lag depends on it.
        jacobian[:, 0] -= weights @ bends
        update = np.linalg.solve(jacobian, residual)
        # |C| <= C(0): a longer step would leave where the moments are defined.
        size = min(1.0, 0.5 * correlation[0] / np.abs(update).max())
        correlation = correlation - size * update
        if np.abs(update).max() <= tolerance * correlation[0]:
            return correlation
    return None


def _kernel(delta: float, lags: int) -> NDArray[np.float64]:
    """The leak's correlation as a matrix on even functions of the lag, (lags, lags)."""
    lag = np.arange(lags)
    decay = (1 - delta) ** np.arange(2 * lags)
    matrix = decay[np.abs(lag[:, None] - lag)] + decay[lag[:, None] + lag]
    matrix[:, 0] /= 2
    return matrix * delta**2 / (1 - (1 - delta) ** 2)


def _moments(correlation: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """E φ(a)φ(b), E φ'(a)φ'(b) and E φ''(a)φ(b) of tanh for each lag, (a, b) of that correlation.

    With x = √C(0) (√c z + √(1 - c) y), E f(a) g(b) is the mean over z of the products of the means
    over y. As functions of arcsin c they are smooth up to c = 1, so few nodes are enough.
    """
    variance = correlation[0]
    c = np.clip(correlation / variance, -1, 1)
    # tanh(√C(0) z) is steeper the larger C(0) is, and its poles lie nearer to the real axis.
    steep = math.sqrt(variance)
    nodes, points = 28 + round(4 * steep), 241 + 2 * round(12 * steep)
    # Chebyshev nodes of the second kind on [0, π/2].
    node = 0.25 * np.pi * (1 - np.cos(np.pi * np.arange(nodes) / (nodes - 1)))
    # The trapezoid rule's error falls faster than any power for a smooth integrand.
    z = np.linspace(-_REACH, _REACH, points)
    weight = np.exp(-(z**2) / 2)
    weight /= weight.sum()
    # The products are even in the outer variable.
    half = points // 2
    outer = np.concatenate([weight[half : half + 1], 2 * weight[half + 1 :]])
    at = np.empty((3, nodes))
    for i, share in enumerate(np.sin(node)):
        x = steep * (math.sqrt(share) * z[half:, None] + math.sqrt(1 - share) * z)
        value = np.tanh(x)
        slope = 1 - value**2
        means = [part @ weight for part in (value, slope, -2 * value * slope)]
        products = (means[0] ** 2, means[1] ** 2, means[2] * means[0])
        at[:, i] = [outer @ part for part in products]
    # φ and φ'' are odd, φ' is even.
    odd = np.sign(c)
    first, second, third = (_interpolate(node, part, np.arcsin(np.abs(c))) for part in at)
    return odd * first, second, odd * third


def _interpolate(node: NDArray, values: NDArray, x: NDArray) -> NDArray:
    """The barycentric formula on Chebyshev nodes of the second kind."""
    weight = (-1.0) ** np.arange(len(node))
    weight[[0, -1]] /= 2
    distance = x[:, None] - node
    hit = distance == 0
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = weight / distance
        result = ratio @ values / ratio.sum(1)
    on_node = hit.any(1)
    result[on_node] = values[hit[on_node].argmax(1)]
    return result


def _largest_exponent(gain: float, dt: float, slopes: NDArray) -> float:
    """λ_1, where the lowest eigenvalue of the tangents' operator is 0."""
    from scipy.linalg import eigh_tridiagonal

    both = np.concatenate([slopes[:0:-1], slopes])

    def lowest(s: float) -> float:
        diagonal = math.exp(2 * s) + (1 - dt) ** 2 - (dt * gain) ** 2 * both
        beside = np.full(len(both) - 1, -(1 - dt) * math.exp(s))
        return float(eigh_tridiagonal(diagonal, beside, select="i", select_range=(0, 0))[0][0])

    # A tangent grows by at most 1 - δ + δ g √E φ'² in a step, and in chaos it does grow.
    top = math.log(1 - dt + dt * gain)
    return bisect(lambda s: -lowest(s), 0.0, top) / dt
