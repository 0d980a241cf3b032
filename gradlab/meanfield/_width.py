"""What a finite width and the first steps change: elman with weights drawn afresh at each step."""

import math
from typing import NamedTuple

import numpy as np
from scipy import special

from gradlab._names import choose
from gradlab.meanfield._checks import check_scales
from gradlab.meanfield._kernels import KERNELS, half_nodes

# Variances whose expectations are computed at once: some megabytes.
BLOCK = 1000


class _Moments(NamedTuple):
    """Expectations under x ~ N(0, q) that the rate needs to first order in 1/n, one per q.

    With p = φ(x) and d = φ'(x): `slope2` = E d², `k` = E d⁴/(E d²)², `square_spread` = Var p²,
    `growth` and `bend` = the first two derivatives of E p² by q, `tilt` and `curve` = those of
    ln E d², `r` = E x² d²/(q E d²), `s` = E p² d²/(E p² E d²), `turn` = (E x p d)²/(q E p² E d²).
    """

    slope2: np.ndarray
    k: np.ndarray
    square_spread: np.ndarray
    growth: np.ndarray
    bend: np.ndarray
    tilt: np.ndarray
    curve: np.ndarray
    r: np.ndarray
    s: np.ndarray
    turn: np.ndarray


def _moments(activation: str, q: np.ndarray) -> _Moments:
    x, weight = half_nodes(q, 0.05, 24.0)
    q = q[:, None]
    if activation == "tanh":
        p, d = np.tanh(x), 4 * np.exp(-2 * x) / (1 + np.exp(-2 * x)) ** 2
    else:
        p, d = special.erf(x), 2 / math.sqrt(math.pi) * np.exp(-(x**2))

    def mean(f: np.ndarray) -> np.ndarray:
        return np.sum(weight * f, axis=-1)

    # By parts: the derivative by q of E f(x) is E f (x² - q)/(2q²), the second E f He4/(4q⁴).
    # In place of p² stands 1 - p², which vanishes where the nodes end.
    first, second = (x**2 - q) / (2 * q**2), (x**4 - 6 * q * x**2 + 3 * q**2) / (4 * q**4)
    rest, d2, q = 1 - p**2, d**2, q[:, 0]
    slope2, square = mean(d2), 1 - mean(rest)
    tilt = mean(d2 * first) / slope2
    return _Moments(
        slope2=slope2,
        k=mean(d2**2) / slope2**2,
        square_spread=mean(rest**2) - mean(rest) ** 2,
        growth=-mean(rest * first),
        bend=-mean(rest * second),
        tilt=tilt,
        curve=mean(d2 * second) / slope2 - tilt**2,
        r=mean(x**2 * d2) / (q * slope2),
        s=mean(p**2 * d2) / (square * slope2),
        turn=mean(x * p * d) ** 2 / (q * square * slope2),
    )


def untied_steps(
    activation: str,
    gain: float,
    length: int,
    n: int,
    *,
    bias_std: float = 0.0,
    input_variance: float = 0.0,
    input_spread: float = 0.0,
    orthogonal: bool = False,
) -> np.ndarray:
    """Expected growth of ln|λ| in each step back through untied weights of a finite width.

    h_t = φ(W_t h_{t-1} + U_t x_t + b_t) for t = 1..T, h_0 = 0, with W_t, U_t and b_t drawn afresh
    at each step, and λ_t = dL/dh_t of a loss that reads h_T along a random direction. The answer is
    E ln|λ_{t-1}| - E ln|λ_t|.

    Linear and relu networks have it exactly, for every step alike. W_t u of a fixed u has
    independent entries N(0, σ_w²|u|²/n), and relu lets each through with probability ½, whatever
    the state, since the sign of each row is symmetric. So with ψ the digamma function::

      linear: ln σ_w + ½ (ψ(n/2) - ln(n/2))
      relu:   ln σ_w + ½ E[ψ(K/2) - ln(n/2)],   K ~ Binomial(n, ½) given K >= 1

    and with orthogonal W, whose W_t u lies on a sphere, ψ(n/2) stands for ln(n/2) in both.

    Saturating activations have it to first order in 1/n. With the expectations over N(0, q_t) of
    `_Moments`, F(q) = σ_w² E φ² + σ_b² + q_in, f = ln E φ'² and c_t the share of W_t h_{t-1} in
    q_t::

      q_1 = σ_b² + q_in,   q_{t+1} = F(q_t)                        the preactivations' variance,
      m_{t+1} = F' m_t + ½ F'' v_t                                 the mean by which it is off,
      v_{t+1} = F'² v_t + σ_w⁴ Var(φ²)/n + spread²                 the variance of that,
      e_{t-1} = c_t (r - 1) + c_t turn e_t,  e_T = 0,              λ's excess along h,
      growth  = ½ ln(σ_w² E φ'²) + ½ (ψ(a) - ln a) + ½ f' m_t + ¼ f'' v_t
                + ((s - 1) e_t + e_{t-1})/(2n),   a = n/(3k - 1).

    ½ (ψ(a) - ln a) = -(3k - 1)/(4n) + O(1/n²) is the mean of half the logarithm of a sum of n
    independent φ'² g², g ~ N(0, 1), taken as Gamma-distributed: for a linear network exact. e_t/n
    is by how much more of |λ_t|² lies along h_t than along any other direction: W_t maps h_{t-1} to
    the very preactivations that φ' depends on. What is left is of the order of 1/n²: for tanh
    at n = 16 within 0.001 at σ_w = 0.9 and 0.003 at σ_w = 2.

    Args:
      activation: φ, one of tanh, relu, erf, linear.
      gain: σ_w > 0, where W_ij ~ N(0, σ_w²/n), or W is σ_w times an orthogonal matrix.
      length: T, at least 1.
      n: the width, at least 1.
      bias_std: σ_b, the standard deviation of the bias.
      input_variance: q_in, the variance that the input adds to each preactivation.
      input_spread: the standard deviation from step to step of what the input adds, in units of
        variance: q_in √(2/p) for p independent Gaussian features. linear and relu ignore it.
      orthogonal: whether W is orthogonal: for linear and relu only.

    Returns:
      (T,), float64, in nats per step, row t-1 for the step from λ_t to λ_{t-1}.

    Raises:
      ValueError: for an unknown activation, an argument that is out of its range or not finite
        (NaN too), relu at a state that stays 0, and orthogonal with tanh or erf.

    >>> float(untied_steps("linear", 1.0, 3, 16)[0].round(5))
    -0.0319
    >>> untied_steps("tanh", 2.0, 200, 100, input_variance=0.09)[[0, 100]].round(4).tolist()
    [0.6139, 0.1269]

    Source: derived here, and checked by Monte Carlo in the tests. For linear networks Newman, "The
    distribution of Lyapunov exponents: exact results for random matrices" (1986); for relu Hanin &
    Nica, "Products of many large random matrices and gradients in deep neural networks" (2018).
    """
    choose("activation", activation, KERNELS)
    check_scales(
        bias_std=bias_std, input_variance=input_variance, input_spread=input_spread, gain=gain
    )
    if gain == 0 or length < 1 or n < 1:
        raise ValueError(f"gain, length and n must be above 0, got {gain}, {length} and {n}")
    drive = float(bias_std) ** 2 + float(input_variance)
    # Without a drive the state stays 0, where tanh and erf are linear.
    if activation == "linear" or (drive == 0 and activation != "relu"):
        start = math.log(gain * KERNELS[activation].slope)
        return np.full(length, start + (0.0 if orthogonal else _log_chi(n, n)))
    if activation == "relu":
        if drive == 0:
            raise ValueError("relu without bias and input stays at 0, where no gradient passes")
        on = np.arange(1, n + 1)
        chance = np.exp(special.gammaln(n + 1) - special.gammaln(on + 1)
                        - special.gammaln(n - on + 1) - n * math.log(2))  # fmt: skip
        growth = np.sum(chance * _log_chi(on, n)) / np.sum(chance)
        return np.full(length, math.log(gain) + growth - (_log_chi(n, n) if orthogonal else 0.0))
    if orthogonal:
        raise ValueError(f"no theory of the width of {activation} with orthogonal weights")
    return _saturating_steps(activation, float(gain) ** 2, length, n, drive, float(input_spread))


def _log_chi(on: int | np.ndarray, n: int) -> np.ndarray:
    """½ E ln(χ²/n), χ² of `on` degrees of freedom."""
    return 0.5 * (special.digamma(np.asarray(on) / 2) - math.log(n / 2))


def _saturating_steps(
    activation: str, weight: float, length: int, n: int, drive: float, spread: float
) -> np.ndarray:
    second = KERNELS[activation].second
    path = [drive]
    while len(path) < length:
        path.append(weight * second(path[-1]) + drive)
        if abs(path[-1] - path[-2]) <= 1e-14 * path[-1]:
            break
    q = np.array(path)
    blocks = [_moments(activation, q[i : i + BLOCK]) for i in range(0, len(q), BLOCK)]
    # The variance is at its fixed point from the end of the path on.
    place = np.minimum(np.arange(length), len(q) - 1)
    at = _Moments(*(np.concatenate(parts)[place] for parts in zip(*blocks, strict=True)))
    share = 1 - drive / q[place]
    off, variance, excess = np.zeros(length), np.zeros(length), np.zeros(length)
    variance[0] = spread**2
    for t in range(length - 1):
        slope = weight * at.growth[t]
        off[t + 1] = slope * off[t] + weight * at.bend[t] * variance[t] / 2
        noise = weight**2 * at.square_spread[t] / n + spread**2
        variance[t + 1] = slope**2 * variance[t] + noise
    for t in range(length - 1, 0, -1):
        excess[t - 1] = share[t] * (at.r[t] - 1 + at.turn[t] * excess[t])
    before = np.concatenate([[0.0], excess[:-1]])
    shape = n / (3 * at.k - 1)
    return (
        0.5 * np.log(weight * at.slope2)
        + 0.5 * (special.digamma(shape) - np.log(shape))
        + at.tilt * off / 2
        + at.curve * variance / 4
        + ((at.s - 1) * excess + before) / (2 * n)
    )
