"""The LSTM whose weights are drawn afresh at each step."""

import functools
from typing import NamedTuple

import numpy as np
from numpy.polynomial.chebyshev import chebder, chebinterpolate, chebval, chebvander

from gradlab.meanfield._checks import check_finite, check_scales, half_log, timescale
from gradlab.meanfield._gated import Gate, logistic, settle
from gradlab.meanfield._kernels import nodes


class LSTMMeanField(NamedTuple):
    """The fixed point of an LSTM's theory and the rate that follows from it.

    Attributes:
      q: E h², the mean square of a unit of the output h.
      q_c: E c², the mean square of a unit of the memory c.
      chi: χ, the factor on the squared gradient norm in one step back: the largest eigenvalue of
        ``moments``.
      rate: ½ ln χ, in nats per step: < 0 vanishing, > 0 exploding.
      moments: ((hh, hc), (ch, cc)), what the mean squares of the adjoints of h and c become in
        one step back: ``moments @ (p_h, p_c)``.
    """

    q: float
    q_c: float
    chi: float
    rate: float
    moments: tuple[tuple[float, float], tuple[float, float]]

    @property
    def xi_grad(self) -> float:
        """-1/ln χ: steps in which the squared gradient norm falls by e; < 0 where it grows."""
        return timescale(self.chi)


def lstm(
    gain: float,
    *,
    forget_bias: float = 0.0,
    input_bias: float = 0.0,
    output_bias: float = 0.0,
    bias_std: float = 0.0,
    input_variance: float = 0.0,
) -> LSTMMeanField:
    """Mean-field theory of the LSTM, for untied weights.

    c_t = f c_{t-1} + i g and h_t = o tanh(c_t), where W, b and the input's part of every gate are
    drawn afresh at each step. Each gate's preactivation is then N(μ, σ_w² q + σ_b² + q_in)::

      q_c = E i² E g² / (1 - E f²)
      q   = E o² E tanh(c)²
      cc  = E f²
      hc  = σ_w² (E f'² q_c + E i'² E g² + E i² E g'²)
      ch  = E o² E f² S
      hh  = σ_w² (E o² E ((f' c)² + (i' g)² + (i g')²) S + E o'² E tanh(c)²)

    with S = sech(f c + i g)⁴. c is not Gaussian: its characteristic function solves
    ψ(k) = E cos(k i g) E ψ(f k), and every expectation of c follows from ψ.

    Args:
      gain: σ_w, where each gate's W_ij ~ N(0, σ_w²/n).
      forget_bias: the mean of the bias of f.
      input_bias: the mean of the bias of i.
      output_bias: the mean of the bias of o.
      bias_std: σ_b, the standard deviation of every bias.
      input_variance: q_in, the variance that the input adds to the preactivation of each gate.

    Returns:
      An ``LSTMMeanField``, at the least stable q: the one that a network started at 0 comes to.
      With one W for all steps it does not hold: the rate is off by as much as 0.3.

    Raises:
      ValueError: for a scale that is negative or not finite, or a bias that is not finite.

    >>> round(lstm(1.0, forget_bias=1.0, input_variance=0.25).rate, 4)
    -0.2782

    Source: after Gilboa et al., "Dynamical isometry and a mean field theory of LSTMs and GRUs"
    (2019); derived anew here and checked against simulated networks.
    """
    check_scales(gain=gain, bias_std=bias_std, input_variance=input_variance)
    check_finite(forget_bias=forget_bias, input_bias=input_bias, output_bias=output_bias)
    weight, drive = float(gain) ** 2, float(bias_std) ** 2 + input_variance
    biases = (forget_bias, input_bias)

    def update(q: float) -> float:
        variance = weight * q + drive
        return Gate.at(output_bias, variance).open * _Memory(*biases, variance).tanh2()

    q = settle(update)
    variance = weight * q + drive
    o, memory = Gate.at(output_bias, variance), _Memory(*biases, variance)
    through_h, keep_h = memory.through_h()
    hh = weight * (o.open * through_h + o.slope * memory.tanh2())
    moments = ((hh, weight * memory.through_c()), (o.open * keep_h, memory.forget.open))
    chi = float(np.max(np.linalg.eigvals(np.array(moments)).real))
    return LSTMMeanField(q, memory.q_c, chi, half_log(chi), moments)


_legendre = functools.lru_cache(maxsize=256)(np.polynomial.legendre.leggauss)


class _Memory:
    """The stationary law of c = f c + i g, by its characteristic function ψ on [0, K].

    E sech(c)² = ∫ k/sinh(πk/2) ψ(k) dk and E sech(c)⁴ = ∫ k (k² + 4)/(6 sinh(πk/2)) ψ(k) dk.
    """

    def __init__(self, forget_bias: float, input_bias: float, variance: float) -> None:
        self.forget, self.input = Gate.at(forget_bias, variance), Gate.at(input_bias, variance)
        f, self.f_weight = nodes(forget_bias, variance, 0.35)
        i, i_weight = nodes(input_bias, variance, 0.35)
        g, g_weight = nodes(0.0, variance, 0.25)
        self.f, self.f_slope = logistic(f), logistic(f) * logistic(-f)
        i, i_slope, g = logistic(i), logistic(i) * logistic(-i), np.tanh(g)
        g_slope = 1 - g**2
        self.g2, self.g_slope2 = float(g_weight @ g**2), float(g_weight @ g_slope**2)
        self.q_c = self.input.open * self.g2 / self.forget.leak

        # The kernels are below 1e-15 beyond 26, ψ is far sooner where c is wide; the degree lets
        # the series follow cos(k c) up to 8 standard deviations.
        std = self.q_c**0.5
        self.top = 40 / max(std, 40 / 26)
        degree = int(40 + self.top * (4 * std + 0.5))
        x, w = _legendre(degree)
        k = 0.5 * self.top * (x + 1)
        sech2 = 0.5 * self.top * w * k / np.sinh(0.5 * np.pi * k)
        self.sech2, self.sech4 = sech2, sech2 * (k**2 + 4) / 6

        # E cos(k i g), and the same with (i' g)² and (i g')² in it: over g first, as series in k i.
        terms = np.stack([g_weight, g_weight * g**2, g_weight * g_slope**2], axis=1)
        over_g = chebinterpolate(lambda x: np.cos(0.5 * self.top * np.outer(x + 1, g)) @ terms, 60)
        plain, with_g, with_slope = chebval(np.outer(x + 1, i) - 1, over_g)
        self.drive = plain @ i_weight
        self.drive_slope = with_g @ (i_weight * i_slope**2) + with_slope @ (i_weight * i**2)

        self.shrunk = np.outer(x + 1, self.f) - 1  # f k, on the series' own [-1, 1]
        mean = np.empty((degree, degree + 1))
        before, now = np.ones_like(self.shrunk), self.shrunk
        for j in range(degree + 1):
            mean[:, j] = before @ self.f_weight
            before, now = now, 2 * self.shrunk * now - before
        equations = chebvander(x, degree) - self.drive[:, None] * mean
        at_zero = chebvander(np.array([-1.0]), degree)
        values = np.append(np.zeros(degree), 1.0)
        self.series = np.linalg.solve(np.vstack([equations, at_zero]), values)
        self.psi = chebval(x, self.series)

    def tanh2(self) -> float:
        """E tanh(c)²."""
        if self.q_c < 1e-8:
            return self.q_c  # to first order; 1 - E sech(c)² would be rounding noise
        return 1 - float(self.sech2 @ self.psi)

    def through_c(self) -> float:
        """E f'² q_c + E i'² E g² + E i² E g'²."""
        return (
            self.forget.slope * self.q_c
            + self.input.slope * self.g2
            + self.input.open * self.g_slope2
        )

    def through_h(self) -> tuple[float, float]:
        """E ((f' c)² + (i' g)² + (i g')²) S, and E f² S."""
        psi = chebval(self.shrunk, self.series)
        # E c² cos(f k c) is minus the second derivative of ψ.
        bend = -chebval(self.shrunk, chebder(self.series, 2)) * (2 / self.top) ** 2
        past = self.drive * (bend @ (self.f_weight * self.f_slope**2))
        new = self.drive_slope * (psi @ self.f_weight)
        retention = self.drive * (psi @ (self.f_weight * self.f**2))
        return float(self.sech4 @ (past + new)), float(self.sech4 @ retention)
