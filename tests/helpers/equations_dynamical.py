"""The equations of the cells that come from dynamical systems, in plain NumPy, from the papers.

Each maps (params, flat state, x) to the flat state and is analytic (piecewise, where the cell is),
so that it can be differentiated by a complex step. Of the flat state, the tail is what is read,
where READS does not say otherwise.
"""

import numpy as np
import scipy.special

CASES = {
    "indrnn-relu": ("indrnn", {}),
    "indrnn-tanh": ("indrnn", {"activation": "tanh"}),
    "leaky": ("leaky", {"dt": 0.25}),
    "leaky-erf": ("leaky", {"activation": "erf", "dt": 0.5}),
    "antisymmetric": ("antisymmetric", {"epsilon": 0.3, "gamma": 0.2}),
    "gated_antisymmetric": ("gated_antisymmetric", {"epsilon": 0.3, "gamma": 0.2}),
    "cornn": ("cornn", {"dt": 0.2, "gamma": 1.3, "epsilon": 0.7}),
    "lem": ("lem", {"dt": 0.8}),
    "lru": ("lru", {}),
    "min_gru": ("min_gru", {}),
    "min_lstm": ("min_lstm", {}),
    "min_gru-positive": ("min_gru", {"candidate": "positive"}),
    "min_lstm-positive": ("min_lstm", {"candidate": "positive"}),
    "orthogonal": ("orthogonal", {}),
}


def logistic(a):
    return 1 / (1 + np.exp(-a))


def blocks(p, count):
    """Each gate's (U, b)."""
    return list(zip(np.split(p["input"], count), np.split(p["bias"], count), strict=True))


def indrnn_relu(p, h, x):
    a = p["input"] @ x + p["recurrent"] * h + p["bias"]
    return np.where(a.real > 0, a, 0)


def indrnn_tanh(p, h, x):
    return np.tanh(p["input"] @ x + p["recurrent"] * h + p["bias"])


def leaky(phi, delta):
    def step(p, h, x):
        rate_of_change = -h + p["recurrent"] @ phi(h) + p["input"] @ x + p["bias"]
        return h + delta * rate_of_change

    return step


def skew(p):
    """Chang et al.'s W_h - W_h^T - gamma I, entry by entry."""
    W = p["recurrent"]
    M = np.zeros_like(W)
    for i in range(len(W)):
        for j in range(len(W)):
            M[i, j] = W[i, j] - W[j, i] if i != j else -0.2
    return M


def antisymmetric(p, h, x):
    return h + 0.3 * np.tanh(skew(p) @ h + p["input"] @ x + p["bias"])


def gated_antisymmetric(p, h, x):
    (U_z, b_z), (U_h, b_h) = blocks(p, 2)
    z = logistic(skew(p) @ h + U_z @ x + b_z)
    return h + 0.3 * z * np.tanh(skew(p) @ h + U_h @ x + b_h)


def cornn(p, state, x):
    """The authors' form: one matrix on the input, y and z side by side; positions move last."""
    y, z = np.split(state, 2)
    W, V = np.split(p["recurrent"], 2)
    side_by_side = np.concatenate([p["input"], W, V], axis=1)
    acceleration = np.tanh(side_by_side @ np.concatenate([x, y, z]) + p["bias"]) - 1.3 * y - 0.7 * z
    z = z + 0.2 * acceleration
    return np.concatenate([y + 0.2 * z, z])


def lem(p, state, x):
    y, z = np.split(state, 2)
    W_1, W_2, W_z, W_y = np.split(p["recurrent"], 4)
    (V_1, b_1), (V_2, b_2), (V_z, b_z), (V_y, b_y) = blocks(p, 4)
    dt = 0.8 * logistic(W_1 @ y + V_1 @ x + b_1)
    dt_bar = 0.8 * logistic(W_2 @ y + V_2 @ x + b_2)
    z = z + dt * (np.tanh(W_z @ y + V_z @ x + b_z) - z)
    y = y + dt_bar * (np.tanh(W_y @ z + V_y @ x + b_y) - y)
    return np.concatenate([y, z])


def lru_multipliers(p):
    """|lambda| cos(arg lambda) and |lambda| sin(arg lambda)."""
    radius, angle = np.exp(-np.exp(p["nu_log"])), np.exp(p["theta_log"])
    return radius * np.cos(angle), radius * np.sin(angle)


def lru(p, state, x):
    """The complex recurrence as a rotation and contraction of each pair (re, im)."""
    re, im = np.split(state, 2)
    c, s = lru_multipliers(p)
    B_re, B_im = np.split(p["input"], 2)
    gamma = np.exp(p["gamma_log"])
    return np.concatenate(
        [c * re - s * im + gamma * (B_re @ x), s * re + c * im + gamma * (B_im @ x)]
    )


def linear(a):
    return a


def positive(a):
    """Feng et al.'s g, appendix B.3."""
    return np.where(a.real >= 0, a + 0.5, logistic(a))


def min_gru(phi):
    def step(p, h, x):
        (U_z, b_z), (U_h, b_h) = blocks(p, 2)
        z = logistic(U_z @ x + b_z)
        return (1 - z) * h + z * phi(U_h @ x + b_h)

    return step


def min_lstm(phi):
    def step(p, h, x):
        (U_f, b_f), (U_i, b_i), (U_h, b_h) = blocks(p, 3)
        f, i = logistic(U_f @ x + b_f), logistic(U_i @ x + b_i)
        return f / (f + i) * h + i / (f + i) * phi(U_h @ x + b_h)

    return step


def rotation(p):
    A = p["recurrent"]
    S = A - A.T
    return np.linalg.inv(np.eye(len(A)) + S) @ (np.eye(len(A)) - S)


def orthogonal(p, h, x):
    a = rotation(p) @ h + p["input"] @ x
    sign = np.sign(a.real)
    return np.where(sign * a.real + p["bias"].real > 0, a + sign * p["bias"], 0)


EQUATIONS = {
    "indrnn-relu": indrnn_relu,
    "indrnn-tanh": indrnn_tanh,
    "leaky": leaky(np.tanh, 0.25),
    "leaky-erf": leaky(scipy.special.erf, 0.5),
    "antisymmetric": antisymmetric,
    "gated_antisymmetric": gated_antisymmetric,
    "cornn": cornn,
    "lem": lem,
    "lru": lru,
    "min_gru": min_gru(linear),
    "min_lstm": min_lstm(linear),
    "min_gru-positive": min_gru(positive),
    "min_lstm-positive": min_lstm(positive),
    "orthogonal": orthogonal,
}


def gated_antisymmetric_gates(p, h, x):
    U_z, b_z = blocks(p, 2)[0]
    return {"z": logistic(skew(p) @ h + U_z @ x + b_z)}


def lem_gates(p, state, x):
    y, _ = np.split(state, 2)
    W, U = np.split(p["recurrent"], 4), blocks(p, 4)
    return {str(k + 1): 0.8 * logistic(W[k] @ y + U[k][0] @ x + U[k][1]) for k in (0, 1)}


def min_gru_gates(p, h, x):
    U_z, b_z = blocks(p, 2)[0]
    return {"z": logistic(U_z @ x + b_z)}


def min_lstm_gates(p, h, x):
    f, i = (logistic(U @ x + b) for U, b in blocks(p, 3)[:2])
    return {"f": f / (f + i), "i": i / (f + i)}


# case -> function(params, flat state, x) -> the gates that the step uses; none for the others.
GATES = {
    "gated_antisymmetric": gated_antisymmetric_gates,
    "lem": lem_gates,
    **dict.fromkeys(("min_gru", "min_gru-positive"), min_gru_gates),
    **dict.fromkeys(("min_lstm", "min_lstm-positive"), min_lstm_gates),
}

# case -> function(flat state) -> h, where h is not the tail of the flat state.
READS = {name: lambda state: state[: state.size // 2] for name in ("cornn", "lem", "lru")}

# case -> {leaf: shape} of every parameter with D = 3, H = 4, where it is not one block (H, H),
# (H, D) and (H,) for each gate.
UNITS = {"recurrent": (4,), "input": (4, 3), "bias": (4,)}
SHAPES = {
    "indrnn-relu": UNITS,
    "indrnn-tanh": UNITS,
    "gated_antisymmetric": {"recurrent": (4, 4), "input": (8, 3), "bias": (8,)},
    "cornn": {"recurrent": (8, 4), "input": (4, 3), "bias": (4,)},
    "lru": {"nu_log": (4,), "theta_log": (4,), "gamma_log": (4,), "input": (8, 3)},
    **dict.fromkeys(("min_gru", "min_gru-positive"), {"input": (8, 3), "bias": (8,)}),
    **dict.fromkeys(("min_lstm", "min_lstm-positive"), {"input": (12, 3), "bias": (12,)}),
}


def diagonal(values):
    return np.diag(values)[None]


def lru_matrices(p):
    c, s = lru_multipliers(p)
    return diagonal(c + 1j * s)


def min_gru_matrices(p):
    return diagonal(1 - logistic(np.split(p["bias"], 2)[0]))


def min_lstm_matrices(p):
    f, i, _ = np.split(logistic(p["bias"]), 3)
    return diagonal(f / (f + i))


# case -> function(params) -> (count, H, H), where cell.matrices is not the blocks of "recurrent".
MATRICES = {
    "indrnn-relu": lambda p: diagonal(p["recurrent"]),
    "indrnn-tanh": lambda p: diagonal(p["recurrent"]),
    "antisymmetric": lambda p: skew(p)[None],
    "gated_antisymmetric": lambda p: skew(p)[None],
    "lru": lru_matrices,
    **dict.fromkeys(("min_gru", "min_gru-positive"), min_gru_matrices),
    **dict.fromkeys(("min_lstm", "min_lstm-positive"), min_lstm_matrices),
    "orthogonal": lambda p: rotation(p)[None],
}

# case -> {leaf: mask} of the parameters that cancel in the equation: their gradient is exactly 0.
CANCELLED = {"recurrent": np.eye(4, dtype=bool)}
IDLE = {
    "antisymmetric": CANCELLED,
    "gated_antisymmetric": CANCELLED,
    "orthogonal": CANCELLED,
}
