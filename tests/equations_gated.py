"""The equations of elman and the gated cells in plain NumPy, gate by gate.

Each maps (params, flat state, x) to the flat state and is analytic (piecewise, where the cell is),
so that it can be differentiated by a complex step. Of the flat state, the tail is what is read.
"""

import numpy as np
import scipy.special

CASES = {
    "elman-tanh": ("elman", {"activation": "tanh"}),
    "elman-relu": ("elman", {"activation": "relu"}),
    "elman-erf": ("elman", {"activation": "erf"}),
    "elman-linear": ("elman", {"activation": "linear"}),
    "gru": ("gru", {}),
    "lstm": ("lstm", {}),
}

PHI = {
    "tanh": np.tanh,
    "relu": lambda a: np.where(a.real > 0, a, 0),
    "erf": scipy.special.erf,
    "linear": lambda a: a,
}


def logistic(a):
    return 1 / (1 + np.exp(-a))


def gate(p, index, h, x):
    rows = slice(index * h.size, (index + 1) * h.size)
    return p["recurrent"][rows] @ h + p["input"][rows] @ x + p["bias"][rows]


def elman(phi):
    def step(p, h, x):
        return PHI[phi](p["recurrent"] @ h + p["input"] @ x + p["bias"])

    return step


def lstm(p, state, x):
    c, h = np.split(state, 2)
    i, f, o = (logistic(gate(p, index, h, x)) for index in (0, 1, 3))
    c = f * c + i * np.tanh(gate(p, 2, h, x))
    return np.concatenate([c, o * np.tanh(c)])


def gru(p, h, x):
    r, z = logistic(gate(p, 0, h, x)), logistic(gate(p, 1, h, x))
    n = slice(2 * h.size, None)
    inner = p["recurrent"][n] @ h + p["recurrent_bias"]
    return (1 - z) * np.tanh(p["input"][n] @ x + p["bias"][n] + r * inner) + z * h


EQUATIONS = {
    **{f"elman-{phi}": elman(phi) for phi in PHI},
    "gru": gru,
    "lstm": lstm,
}

# What test_cells.py reads of both modules of equations beside CASES (id -> (cell, options)) and
# EQUATIONS. A complex leaf of the state stands in the flat state as its real parts, then its
# imaginary parts.

# case -> function(flat state) -> h, analytic as well, where h is not the tail of the flat state.
READS = {}

# case -> {leaf: shape} of every parameter with D = 3 and H = 4, where they are not one block
# (H, H), (H, D) and (H,) for each gate.
SHAPES = {"gru": {"recurrent": (12, 4), "input": (12, 3), "bias": (12,), "recurrent_bias": (4,)}}

# case -> function(params) -> (count, H, H), where cell.matrices is not the blocks of "recurrent".
MATRICES = {}

# case -> {leaf: mask} of the entries that nothing can depend on (the diagonal of a W that enters
# as W - W^T), whose gradient is therefore zero; all others must not be.
IDLE = {}
