"""Recurrent cells as bundles of pure functions: one file per family, one registry."""

from gradlab.cells.antisymmetric import antisymmetric, gated_antisymmetric
from gradlab.cells.base import REGISTRY, Cell, gate_init, make, names, options, register, zero_state
from gradlab.cells.convert import from_equinox, from_flax, from_haiku, from_keras, from_torch
from gradlab.cells.cornn import CoRNNState, cornn
from gradlab.cells.elman import elman
from gradlab.cells.gru import gru, gru_reset_before
from gradlab.cells.indrnn import indrnn
from gradlab.cells.layer_norm import layer_norm_elman, layer_norm_gru, layer_norm_lstm
from gradlab.cells.leaky import leaky
from gradlab.cells.lem import LEMState, lem
from gradlab.cells.lru import lru
from gradlab.cells.lstm import LSTMState, lstm, lstm_peephole, lstm_projected
from gradlab.cells.min_gated import min_gru, min_lstm
from gradlab.cells.one_gate import fastgrnn, janet, mgu, minimal_rnn, ugrnn
from gradlab.cells.orthogonal import orthogonal
from gradlab.cells.parallel import LinearRecurrence, parallel
from gradlab.cells.slstm import SLSTMState, slstm

__all__ = [
    "REGISTRY",
    "Cell",
    "CoRNNState",
    "LEMState",
    "LSTMState",
    "LinearRecurrence",
    "SLSTMState",
    "antisymmetric",
    "cornn",
    "elman",
    "fastgrnn",
    "from_equinox",
    "from_flax",
    "from_haiku",
    "from_keras",
    "from_torch",
    "gate_init",
    "gated_antisymmetric",
    "gru",
    "gru_reset_before",
    "indrnn",
    "janet",
    "layer_norm_elman",
    "layer_norm_gru",
    "layer_norm_lstm",
    "leaky",
    "lem",
    "lru",
    "lstm",
    "lstm_peephole",
    "lstm_projected",
    "make",
    "mgu",
    "min_gru",
    "min_lstm",
    "minimal_rnn",
    "names",
    "options",
    "orthogonal",
    "parallel",
    "register",
    "slstm",
    "ugrnn",
    "zero_state",
]


def __dir__() -> list[str]:
    return sorted(__all__)
