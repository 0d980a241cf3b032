"""Recurrent cells as bundles of pure functions: one file per family, one registry."""

from gradlab.cells.base import Cell, make, names, options, register
from gradlab.cells.elman import elman
from gradlab.cells.gru import gru
from gradlab.cells.lstm import LSTMState, lstm

__all__ = [
    "Cell",
    "LSTMState",
    "elman",
    "gru",
    "lstm",
    "make",
    "names",
    "options",
    "register",
]
