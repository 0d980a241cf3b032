"""What mean-field theory predicts for the gradient of a wide random network, in float64 NumPy.

``elman`` is the network a_t = W φ(a_{t-1}) + b + s_t with W_ij ~ N(0, σ_w²/n), b_i ~ N(0, σ_b²)
and an input s_t of variance q_in per unit. h_t = φ(W h_{t-1} + U x_t + b) is the same network seen
after φ, and has the same rate. ``minimal_rnn``, ``gru``, ``gru_reset_before`` and ``lstm`` are for
weights drawn afresh at each step; ``disc`` is for one W for all steps, around the state 0.
``leaky`` is for the network h' = (1 - δ) h + δ W tanh(h), with its correlations over time.
``untied_steps`` is ``elman`` with weights drawn afresh, at a finite width and from the first step;
``layers`` is a deep network, layer by layer from its input on.
"""

from gradlab.meanfield._disc import Disc, disc
from gradlab.meanfield._elman import (
    Correlation,
    MeanField,
    correlation,
    critical_bias_std,
    critical_gain,
    elman,
    second_moment,
)
from gradlab.meanfield._gated import GatedMeanField, gru, gru_reset_before, minimal_rnn
from gradlab.meanfield._layers import Layers, layers
from gradlab.meanfield._leaky import LeakyMeanField, leaky
from gradlab.meanfield._lstm import LSTMMeanField, lstm
from gradlab.meanfield._width import untied_steps

__all__ = [
    "Correlation",
    "Disc",
    "GatedMeanField",
    "LSTMMeanField",
    "Layers",
    "LeakyMeanField",
    "MeanField",
    "correlation",
    "critical_bias_std",
    "critical_gain",
    "disc",
    "elman",
    "gru",
    "gru_reset_before",
    "layers",
    "leaky",
    "lstm",
    "minimal_rnn",
    "second_moment",
    "untied_steps",
]


def __dir__() -> list[str]:
    return sorted(__all__)
