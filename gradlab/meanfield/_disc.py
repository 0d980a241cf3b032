"""The eigenvalues of a gated network with tied weights at its zero fixed point."""

import math
from typing import NamedTuple

from gradlab._names import choose
from gradlab.meanfield._checks import check_finite, check_scales, half_log


class Disc(NamedTuple):
    """The disc that the eigenvalues of ∂s_t/∂s_{t-1} fill as n grows.

    Attributes:
      centre: on the real axis.
      radius: 0 for no weights.
      rate: ln(centre + radius), in nats per step: the eigenvalue of largest modulus.
      critical_gain: the gain at which rate is 0.
    """

    centre: float
    radius: float
    rate: float
    critical_gain: float


# Each gate that counts at h = 0, and the argument of its bias.
_GATES = {
    "gru": ("update_bias", "reset_bias"),
    "gru_reset_before": ("update_bias", "reset_bias"),
    "lstm": ("forget_bias", "input_bias", "output_bias"),
}


def disc(cell: str, gain: float, **biases: float) -> Disc:
    """Eigenvalue disc of a GRU or LSTM with one W for all steps, at its zero fixed point.

    0 is a fixed point without input and with a zero bias in n and g. By the circular law, with
    the gates at their biases, z = σ(update_bias) and so on::

      gru, gru_reset_before: centre z, radius (1 - z) r σ_w
      lstm:                  centre f, radius i o σ_w, and n eigenvalues 0

    The rate holds where the network stays at 0. For rate > 0 a small state grows, and neither
    this nor the untied theory says what the gradient does there.

    Args:
      cell: gru, gru_reset_before or lstm.
      gain: σ_w, where W_ij ~ N(0, σ_w²/n).
      biases: update_bias and reset_bias of a GRU; forget_bias, input_bias and output_bias of an
        LSTM; each 0 where not given.

    Raises:
      ValueError: for an unknown cell or bias, a gain that is negative or not finite, or a bias
        that is not finite.

    >>> disc("gru", 2.0)
    Disc(centre=0.5, radius=0.5, rate=0.0, critical_gain=2.0)

    Source: after Can, Krishnamurthy & Schwab, "Gating creates slow modes and controls phase-space
    complexity in GRUs and LSTMs" (2020); derived from the circular law.
    """
    choose("cell with a disc", cell, _GATES)
    for name in biases:
        choose(f"bias of {cell}", name, _GATES[cell])
    check_scales(gain=gain)
    check_finite(**biases)

    def gate(name: str, sign: float = 1.0) -> float:
        return _logistic(sign * biases.get(name, 0.0))

    if cell == "lstm":
        keep, leak = gate("forget_bias"), gate("forget_bias", -1.0)
        reach = gate("input_bias") * gate("output_bias")
    else:
        keep, leak = gate("update_bias"), gate("update_bias", -1.0)
        reach = leak * gate("reset_bias")
    radius = reach * gain
    return Disc(keep, radius, 2 * half_log(keep + radius), leak / reach)


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))
