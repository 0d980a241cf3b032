"""Layer by layer: the theory of a deep network away from its fixed point."""

from typing import NamedTuple

import numpy as np

from gradlab._names import choose
from gradlab.meanfield._checks import check_scales
from gradlab.meanfield._kernels import KERNELS


class Layers(NamedTuple):
    """What theory says of each layer l = 1..L of a wide network; row l-1 of each array.

    Attributes:
      q: variance of a unit's preactivation.
      second: E h², the mean square of a unit after the activation.
      log_norm: ½ ln E‖λ_l‖² / ‖λ_L‖², in nats, with λ_l = dL/dh_l.
      log_weights: ½ ln E‖∂L/∂W_l‖² / ‖λ_L‖², in nats.
    """

    q: np.ndarray
    second: np.ndarray
    log_norm: np.ndarray
    log_weights: np.ndarray


def layers(
    activation: str,
    gain: float,
    depth: int,
    n: int,
    *,
    bias_std: float = 0.0,
    start: float = 1.0,
) -> Layers:
    """Mean-field theory of a deep network, from its input on: h_l = φ(W_l h_{l-1} + b_l).

    Each layer has weights of its own, W_ij ~ N(0, σ_w²/n), and the loss reads h_L along a direction
    that does not depend on them. With z ~ N(0, 1) and p_0 = ``start``::

      q_l = σ_w² p_{l-1} + σ_b²,   p_l = E φ(√q_l z)²
      E‖λ_{l-1}‖² = χ_l E‖λ_l‖²,   χ_l = σ_w² E φ'(√q_l z)²
      E‖∂L/∂W_l‖² = E‖λ_l‖² E φ'(√q_l z)² n p_{l-1}

    Args:
      activation: φ, one of tanh, relu, erf, linear.
      gain: σ_w.
      depth: L, at least 1.
      n: the width, of the input too; it scales the gradient of the weights alone.
      bias_std: σ_b.
      start: p_0, the mean square of the input's entries.

    Returns:
      ``Layers``, in the limit of large widths: exact there for every l, not at the fixed point
      alone. -inf where an expectation is 0; NaN for `q`, `second` and `log_weights` from the layer
      on at which the variance leaves the float's range.

    Raises:
      ValueError: for an unknown activation, an argument that is negative or not finite, and a depth
        or width below 1.

    >>> theory = layers("tanh", 1.5, 30, 100)
    >>> round(float(theory.log_norm[0] - theory.log_norm[1]), 3), round(float(theory.q[-1]), 3)
    (-0.016, 0.793)

    Source: Schoenholz et al., "Deep information propagation" (2017), section 4; Poole et al.,
    "Exponential expressivity in deep neural networks through transient chaos" (2016), equation 3;
    Glorot & Bengio, "Understanding the difficulty of training deep feedforward neural networks"
    (2010), for the gradients of the weights.
    """
    choose("activation", activation, KERNELS)
    check_scales(gain=gain, bias_std=bias_std, start=start)
    if depth < 1 or n < 1:
        raise ValueError(f"depth and n must be at least 1, got {depth} and {n}")
    kernel, weight = KERNELS[activation], float(gain) ** 2
    q, second, slope = np.zeros(depth), np.zeros(depth), np.zeros(depth)
    mean_square = float(start)
    for i in range(depth):
        variance = weight * mean_square + float(bias_std) ** 2
        mean_square = float(kernel.second(variance))
        q[i], second[i], slope[i] = variance, mean_square, kernel.slope2(variance)
    # Of a relu or linear network the variance may leave the float's range.
    inside = np.isfinite(q) & ((q > 0) | (weight * start + bias_std == 0))
    q, second = np.where(inside, q, np.nan), np.where(inside, second, np.nan)
    before = np.concatenate([[float(start)], second[:-1]])
    with np.errstate(divide="ignore"):
        growth = np.log(weight * slope) / 2
        log_norm = np.concatenate([np.cumsum(growth[:0:-1])[::-1], [0.0]])
        log_weights = log_norm + (np.log(slope) + np.log(n) + np.log(before)) / 2
    return Layers(q, second, log_norm, log_weights)
