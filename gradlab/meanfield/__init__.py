"""What mean-field theory predicts for the gradient of a wide random network, in float64 NumPy.

``elman`` is the network a_t = W φ(a_{t-1}) + b + s_t with W_ij ~ N(0, σ_w²/n), b_i ~ N(0, σ_b²)
and an input s_t of variance q_in per unit. h_t = φ(W h_{t-1} + U x_t + b) is the same network seen
after φ, and has the same rate. ``minimal_rnn``, ``gru``, ``gru_reset_before`` and ``lstm`` are for
weights drawn afresh at each step; ``disc`` is for one W for all steps, around the state 0.
``untied_steps`` is ``elman`` with weights drawn afresh, at a finite width and from the first step.
"""

from gradlab.meanfield._disc import Disc as Disc
from gradlab.meanfield._disc import disc as disc
from gradlab.meanfield._elman import Correlation as Correlation
from gradlab.meanfield._elman import MeanField as MeanField
from gradlab.meanfield._elman import correlation as correlation
from gradlab.meanfield._elman import critical_bias_std as critical_bias_std
from gradlab.meanfield._elman import critical_gain as critical_gain
from gradlab.meanfield._elman import elman as elman
from gradlab.meanfield._elman import second_moment as second_moment
from gradlab.meanfield._gated import GatedMeanField as GatedMeanField
from gradlab.meanfield._gated import gru as gru
from gradlab.meanfield._gated import gru_reset_before as gru_reset_before
from gradlab.meanfield._gated import minimal_rnn as minimal_rnn
from gradlab.meanfield._lstm import LSTMMeanField as LSTMMeanField
from gradlab.meanfield._lstm import lstm as lstm
from gradlab.meanfield._width import untied_steps as untied_steps
