"""The equations of elman and the gated cells in plain NumPy, gate by gate.

Each maps (params, flat state, x) to the flat state and is analytic (piecewise, where the cell is),
so that it can be differentiated by a complex step. The tail of the flat state is read, or what
READS says.
"""

import numpy as np
import scipy.special

CASES = {
    "elman-tanh": ("elman", {"activation": "tanh"}),
    "elman-relu": ("elman", {"activation": "relu"}),
    "elman-erf": ("elman", {"activation": "erf"}),
    "elman-linear": ("elman", {"activation": "linear"}),
    "fastgrnn": ("fastgrnn", {}),
    "gru": ("gru", {}),
    "gru-reset-before": ("gru_reset_before", {}),
    "janet": ("janet", {"beta": 0.7}),
    "lstm": ("lstm", {}),
    "lstm-peephole": ("lstm_peephole", {}),
    "mgu": ("mgu", {}),
    "minimal-rnn": ("minimal_rnn", {}),
    "slstm-exp": ("slstm", {"forget": "exp"}),
    "slstm-sigmoid": ("slstm", {"forget": "sigmoid"}),
    "ugrnn": ("ugrnn", {}),
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


def lstm_peephole(p, state, x):
    c, h = np.split(state, 2)
    w_i, w_f, w_o = np.split(p["peephole"], 3)
    i = logistic(gate(p, 0, h, x) + w_i * c)
    f = logistic(gate(p, 1, h, x) + w_f * c)
    c = f * c + i * np.tanh(gate(p, 2, h, x))
    return np.concatenate([c, logistic(gate(p, 3, h, x) + w_o * c) * np.tanh(c)])


def gru_reset_before(p, h, x):
    r, z = logistic(gate(p, 0, h, x)), logistic(gate(p, 1, h, x))
    return (1 - z) * np.tanh(gate(p, 2, r * h, x)) + z * h


def mgu(p, h, x):
    f = logistic(gate(p, 0, h, x))
    return (1 - f) * h + f * np.tanh(gate(p, 1, f * h, x))


def janet(p, h, x):
    s = gate(p, 0, h, x)
    return logistic(s) * h + (1 - logistic(s - 0.7)) * np.tanh(gate(p, 1, h, x))


def ugrnn(p, h, x):
    g = logistic(gate(p, 0, h, x))
    return g * h + (1 - g) * np.tanh(gate(p, 1, h, x))


def minimal_rnn(p, h, x):
    z = np.tanh(p["input"] @ x + p["input_bias"])
    u = logistic(p["recurrent"] @ h + p["embedded"] @ z + p["bias"])
    return u * h + (1 - u) * z


def fastgrnn(p, h, x):
    a, (b_z, b_n) = p["recurrent"] @ h + p["input"] @ x, np.split(p["bias"], 2)
    z = logistic(a + b_z)
    opened = logistic(p["zeta"]) * (1 - z) + logistic(p["nu"])
    return opened * np.tanh(a + b_n) + z * h


def slstm(forget):
    """The published recurrence without its stabilizer, in plain units, then put into units of e^m.

    The stabilizer is followed beside it, from its own definition.
    """

    def step(p, state, x):
        c, h, m, n = np.split(state, 4)
        a = gate(p, 0, h, x)
        i, f = np.exp(a), forget(gate(p, 1, h, x))
        z, o = np.tanh(gate(p, 2, h, x)), logistic(gate(p, 3, h, x))
        plain_c, plain_n = f * np.exp(m) * c + i * z, f * np.exp(m) * n + i
        old = np.log(f) + m
        m = np.where((n == 0) | (a.real > old.real), a, old)
        unit = np.exp(-m)
        return np.concatenate([plain_c * unit, o * plain_c / plain_n, m, plain_n * unit])

    return step


EQUATIONS = {
    **{f"elman-{phi}": elman(phi) for phi in PHI},
    "fastgrnn": fastgrnn,
    "gru": gru,
    "gru-reset-before": gru_reset_before,
    "janet": janet,
    "lstm": lstm,
    "lstm-peephole": lstm_peephole,
    "mgu": mgu,
    "minimal-rnn": minimal_rnn,
    "slstm-exp": slstm(np.exp),
    "slstm-sigmoid": slstm(logistic),
    "ugrnn": ugrnn,
}


def lstm_gates(p, state, x):
    _, h = np.split(state, 2)
    return {name: logistic(gate(p, k, h, x)) for k, name in ((0, "i"), (1, "f"), (3, "o"))}


def peephole_gates(p, state, x):
    c, h = np.split(state, 2)
    see = dict(zip("ifo", np.split(p["peephole"], 3), strict=True))
    new, _ = np.split(lstm_peephole(p, state, x), 2)
    return {
        "i": logistic(gate(p, 0, h, x) + see["i"] * c),
        "f": logistic(gate(p, 1, h, x) + see["f"] * c),
        "o": logistic(gate(p, 3, h, x) + see["o"] * new),
    }


def one_gate(name):
    return lambda p, h, x: {name: logistic(gate(p, 0, h, x))}


def gru_gates(p, h, x):
    return {"r": logistic(gate(p, 0, h, x)), "z": logistic(gate(p, 1, h, x))}


def minimal_gates(p, h, x):
    z = np.tanh(p["input"] @ x + p["input_bias"])
    return {"u": logistic(p["recurrent"] @ h + p["embedded"] @ z + p["bias"])}


def fastgrnn_gates(p, h, x):
    b_z = p["bias"][: h.size]
    return {"z": logistic(p["recurrent"] @ h + p["input"] @ x + b_z)}


def slstm_gates(case):
    """The plain gates e^i and F in units of the new e^m: n's old unit e^m becomes the new one."""

    def gates(p, state, x):
        _, h, m, _ = np.split(state, 4)
        _, _, new, _ = np.split(EQUATIONS[case](p, state, x), 4)
        forget = {"slstm-exp": np.exp, "slstm-sigmoid": logistic}[case]
        return {
            "i": np.exp(gate(p, 0, h, x)) / np.exp(new),
            "f": forget(gate(p, 1, h, x)) * np.exp(m) / np.exp(new),
            "o": logistic(gate(p, 3, h, x)),
        }

    return gates


# case -> function(params, flat state, x) -> the gates that the step uses; none for the others.
GATES = {
    "fastgrnn": fastgrnn_gates,
    "gru": gru_gates,
    "gru-reset-before": gru_gates,
    "janet": one_gate("f"),
    "lstm": lstm_gates,
    "lstm-peephole": peephole_gates,
    "mgu": one_gate("f"),
    "minimal-rnn": minimal_gates,
    "slstm-exp": slstm_gates("slstm-exp"),
    "slstm-sigmoid": slstm_gates("slstm-sigmoid"),
    "ugrnn": one_gate("g"),
}

# What test_cells.py reads of both modules of equations beside CASES (id -> (cell, options)) and
# EQUATIONS. A complex leaf of the state stands in the flat state as its real parts, then its
# imaginary parts.

# case -> function(flat state) -> h, analytic as well, where h is not the tail of the flat state.
READS = {case: lambda state: np.split(state, 4)[1] for case in ("slstm-exp", "slstm-sigmoid")}

# case -> {leaf: shape} of every parameter with D = 3 and H = 4, where they are not one block
# (H, H), (H, D) and (H,) for each gate.
SHAPES = {
    "fastgrnn": {"recurrent": (4, 4), "input": (4, 3), "bias": (8,), "zeta": (), "nu": ()},
    "gru": {"recurrent": (12, 4), "input": (12, 3), "bias": (12,), "recurrent_bias": (4,)},
    "lstm-peephole": {"recurrent": (16, 4), "input": (16, 3), "bias": (16,), "peephole": (12,)},
    "minimal-rnn": {
        "recurrent": (4, 4),
        "input": (4, 3),
        "bias": (4,),
        "embedded": (4, 4),
        "input_bias": (4,),
    },
}

# case -> function(params) -> (count, H, H), where cell.matrices is not the blocks of "recurrent".
MATRICES = {"fastgrnn": lambda p: p["recurrent"][None]}

# case -> {leaf: mask} of the entries that nothing can depend on (the diagonal of a W that enters
# as W - W^T), whose gradient is therefore zero; all others must not be.
IDLE = {}
