"""The equations of the cells with layer normalization in plain NumPy, as equations_gated.py."""

import numpy as np
from equations_gated import PHI, logistic

CASES = {
    "layer-norm-elman": ("layer_norm_elman", {}),
    "layer-norm-gru": ("layer_norm_gru", {}),
    "layer-norm-lstm": ("layer_norm_lstm", {}),
}


def norm(a):
    return (a - a.mean()) / np.sqrt(((a - a.mean()) ** 2).mean() + 1e-5)


def elman(p, h, x):
    return PHI["tanh"](p["scale"] * norm(p["recurrent"] @ h + p["input"] @ x) + p["bias"])


def lstm(p, state, x):
    c, h = np.split(state, 2)
    from_h = p["recurrent_scale"] * norm(p["recurrent"] @ h)
    i, f, g, o = np.split(from_h + p["input_scale"] * norm(p["input"] @ x) + p["bias"], 4)
    c = logistic(f) * c + logistic(i) * np.tanh(g)
    shown = p["memory_scale"] * norm(c) + p["memory_bias"]
    return np.concatenate([c, logistic(o) * np.tanh(shown)])


def gru(p, h, x):
    gates, n = slice(2 * h.size), slice(2 * h.size, None)

    def part(weight, rows, v):
        return p[weight + "_scale"][rows] * norm(p[weight][rows] @ v)

    both = part("recurrent", gates, h) + part("input", gates, x) + p["bias"][gates]
    r, z = np.split(logistic(both), 2)
    inner = part("recurrent", n, h) + p["recurrent_bias"]
    return (1 - z) * np.tanh(part("input", n, x) + p["bias"][n] + r * inner) + z * h


def lstm_gates(p, state, x):
    _, h = np.split(state, 2)
    from_h = p["recurrent_scale"] * norm(p["recurrent"] @ h)
    i, f, _, o = np.split(from_h + p["input_scale"] * norm(p["input"] @ x) + p["bias"], 4)
    return {"i": logistic(i), "f": logistic(f), "o": logistic(o)}


def gru_gates(p, h, x):
    rows = slice(2 * h.size)
    from_h = p["recurrent_scale"][rows] * norm(p["recurrent"][rows] @ h)
    from_x = p["input_scale"][rows] * norm(p["input"][rows] @ x)
    return dict(zip("rz", np.split(logistic(from_h + from_x + p["bias"][rows]), 2), strict=True))


GATES = {"layer-norm-gru": gru_gates, "layer-norm-lstm": lstm_gates}
EQUATIONS = {"layer-norm-elman": elman, "layer-norm-gru": gru, "layer-norm-lstm": lstm}
READS, MATRICES, IDLE = {}, {}, {}
SHAPES = {
    "layer-norm-elman": {"recurrent": (4, 4), "input": (4, 3), "bias": (4,), "scale": (4,)},
    "layer-norm-gru": {
        "recurrent": (12, 4),
        "input": (12, 3),
        "bias": (12,),
        "recurrent_bias": (4,),
        "recurrent_scale": (12,),
        "input_scale": (12,),
    },
    "layer-norm-lstm": {
        "recurrent": (16, 4),
        "input": (16, 3),
        "bias": (16,),
        "memory_bias": (4,),
        "memory_scale": (4,),
        "recurrent_scale": (16,),
        "input_scale": (16,),
    },
}
