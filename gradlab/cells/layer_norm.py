"""Cells that normalize their preactivations over the units of a layer."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradlab.cells.base import (
    BIAS,
    INPUT,
    RECURRENT,
    Cell,
    Gates,
    Params,
    activation_function,
    add_leaves,
    gate_init,
    gate_retention,
    gates_at,
    linear,
    read_field,
    register_family,
    shift_bias,
    zero_state,
)
from gradlab.cells.gru import open_gru
from gradlab.cells.lstm import LSTMState, open_lstm
from gradlab.initializers import Initializer

# Added to the variance, as in github.com/ryankiros/layer-norm, layers.py, commit 7a9a1bf.
EPS = 1e-5
SCALE = jax.nn.initializers.ones


def _norm(a: Array) -> Array:
    """(a - μ) / √(σ² + EPS), with μ and σ² the mean and variance over the last axis."""
    deviation = a - jnp.mean(a, axis=-1, keepdims=True)
    return deviation * jax.lax.rsqrt(jnp.mean(deviation**2, axis=-1, keepdims=True) + EPS)


@register_family
def layer_norm_elman(
    inputs: int,
    hidden: int,
    *,
    activation: str = "tanh",
    recurrent: Initializer = RECURRENT,
    input: Initializer = INPUT,
    bias: Initializer = BIAS,
    scale: Initializer = SCALE,
) -> Cell:
    """Elman's network with its preactivation normalized, h_t = φ(g ⊙ N(W h_{t-1} + U x_t) + b).

    N(a) = (a - μ) / √(σ² + 1e-5), with μ and σ² the mean and the variance of a over the H units.
    h_t is the same when W and U are multiplied by one number, as long as σ² is large against 1e-5.
    The state is h.

    Args:
        hidden: H, the width of h_t; with H = 1 nothing but b is left.
        scale: initializer of g (H,), `params["scale"]`; by default 1.

    >>> cell = layer_norm_elman(inputs=3, hidden=5, activation="linear")
    >>> h = cell.step(cell.init(jax.random.key(0)), cell.start(), jnp.ones(3))
    >>> round(float(h.std()), 3)
    1.0

    Source: Ba, Kiros & Hinton, "Layer normalization" (2016), equation 4; 1e-5 is that of the gated
    cells in github.com/ryankiros/layer-norm, layers.py, commit 7a9a1bf.
    """
    phi = activation_function(activation)
    blocks = gate_init(inputs, hidden, recurrent, input, bias)

    init = add_leaves(blocks, scale=(scale, (hidden,)))

    def advance(params: Params, h: Array, drive: Array) -> Array:
        a = _norm(h @ params["recurrent"].T + drive)
        return phi(params["scale"] * a + params["bias"])

    return Cell(inputs, hidden, init, advance, name="layer_norm_elman", project=linear)


@register_family
def layer_norm_lstm(
    inputs: int,
    hidden: int,
    *,
    recurrent: Initializer = RECURRENT,
    input: Initializer = INPUT,
    bias: Initializer = BIAS,
    scale: Initializer = SCALE,
    forget_bias: ArrayLike = 1.0,
) -> Cell:
    """The LSTM with normalized preactivations and memory; the state is `LSTMState(c, h)`.

    With N(a) = (a - μ) / √(σ² + 1e-5), μ and σ² being the mean and the variance over a's entries
    (4·H of them for the gates together), (i, f, g, o) four blocks, and σ the logistic function::

        (i, f, g, o) = s_W ⊙ N(W h_{t-1}) + s_U ⊙ N(U x_t) + b
        c_t = σ(f) c_{t-1} + σ(i) tanh(g)
        h_t = σ(o) tanh(s_c ⊙ N(c_t) + b_c)

    `gate_values` gives σ(i), σ(f) and σ(o) under i, f and o.

    b stands for the sum of three biases in the paper. At h = 0 the derivative of N is 1/√1e-5, so
    that the first step back to a zero state multiplies the adjoint by up to 316.

    Args:
        bias: initializer of each gate's block (H,) of b, `params["bias"]`, and of b_c (H,),
            `params["memory_bias"]`.
        scale: initializer of s_W (4·H,), s_U (4·H,) and s_c (H,), `params["recurrent_scale"]`,
            `params["input_scale"]` and `params["memory_scale"]`; by default 1.

    >>> cell = layer_norm_lstm(inputs=3, hidden=2)
    >>> {name: p.shape for name, p in sorted(cell.init(jax.random.key(0)).items())}
    {'bias': (8,), 'input': (8, 3), 'input_scale': (8,), 'memory_bias': (2,), 'memory_scale': (2,),
     'recurrent': (8, 2), 'recurrent_scale': (8,)}

    Source: Ba, Kiros & Hinton, "Layer normalization" (2016), supplementary material, equations 20
    to 22. 1e-5, the scales and the orthogonal W are from github.com/ryankiros/layer-norm,
    layers.py, commit 7a9a1bf. There the gates are (i, f, o, g), b enters inside N(U x_t + b) as
    well, and b_f starts at 0; here at 1, so that the norm alone tells this cell from `lstm`.
    """
    blocks = shift_bias(
        gate_init(inputs, hidden, recurrent, input, bias, gates=4), 1, hidden, forget_bias
    )

    init = add_leaves(
        blocks,
        recurrent_scale=(scale, (4 * hidden,)),
        input_scale=(scale, (4 * hidden,)),
        memory_scale=(scale, (hidden,)),
        memory_bias=(bias, (hidden,)),
    )

    def project(params: Params, x: Array) -> Array:
        return params["input_scale"] * _norm(linear(params, x)) + params["bias"]

    def open_gates(params: Params, state: LSTMState, drive: Array) -> tuple[Gates, Array]:
        from_h = params["recurrent_scale"] * _norm(state.h @ params["recurrent"].T)
        return open_lstm(from_h + drive)

    def advance(params: Params, state: LSTMState, drive: Array) -> LSTMState:
        gates, g = open_gates(params, state, drive)
        c = gates["f"] * state.c + gates["i"] * g
        memory = params["memory_scale"] * _norm(c) + params["memory_bias"]
        return LSTMState(c, gates["o"] * jnp.tanh(memory))

    return Cell(
        inputs,
        hidden,
        init,
        advance,
        name="layer_norm_lstm",
        gates=("i", "f", "g", "o"),
        start=zero_state(hidden, LSTMState),
        project=project,
        read=read_field("h"),
        log_retention=gate_retention(1, hidden),
        gate_values=gates_at(open_gates, project),
    )


@register_family
def layer_norm_gru(
    inputs: int,
    hidden: int,
    *,
    recurrent: Initializer = RECURRENT,
    input: Initializer = INPUT,
    bias: Initializer = BIAS,
    scale: Initializer = SCALE,
) -> Cell:
    """The GRU with normalized preactivations; the state is h.

    With N(a) = (a - μ) / √(σ² + 1e-5), μ and σ² being the mean and the variance over a's entries
    (2·H of them for r and z together), W, U, b, s_W and s_U in three blocks (r, z, n), and σ the
    logistic function::

        (r, z) = σ(s_W ⊙ N(W_rz h_{t-1}) + s_U ⊙ N(U_rz x_t) + b_rz)
        n = tanh(s_U,n ⊙ N(U_n x_t) + b_n + r (s_W,n ⊙ N(W_n h_{t-1}) + b'))
        h_t = (1 - z) n + z h_{t-1}

    `gate_values` gives r and z.

    b_rz stands for the sum of two biases in the paper, whose z is 1 - z here, as in `gru`. At
    h = 0 the derivative of N is 1/√1e-5, so that the first step back to a zero state multiplies
    what the adjoint sends through W by up to 316.

    Args:
        bias: initializer of each gate's block (H,) of b, `params["bias"]`, and of b' (H,),
            `params["recurrent_bias"]`.
        scale: initializer of s_W (3·H,) and s_U (3·H,), `params["recurrent_scale"]` and
            `params["input_scale"]`; by default 1.

    >>> cell = layer_norm_gru(inputs=3, hidden=2)
    >>> {name: p.shape for name, p in sorted(cell.init(jax.random.key(0)).items())}
    {'bias': (6,), 'input': (6, 3), 'input_scale': (6,), 'recurrent': (6, 2),
     'recurrent_bias': (2,), 'recurrent_scale': (6,)}

    Source: Ba, Kiros & Hinton, "Layer normalization" (2016), supplementary material, equations 26
    to 28. 1e-5, the scales and the orthogonal W are from github.com/ryankiros/layer-norm,
    layers.py, commit 7a9a1bf, where another b, 0 at first, enters inside N(U x_t + b).
    """
    blocks = gate_init(inputs, hidden, recurrent, input, bias, gates=3)

    init = add_leaves(
        blocks,
        recurrent_scale=(scale, (3 * hidden,)),
        input_scale=(scale, (3 * hidden,)),
        recurrent_bias=(bias, (hidden,)),
    )

    def norm_blocks(a: Array) -> Array:
        gates, candidate = jnp.split(a, [2 * hidden])
        return jnp.concatenate([_norm(gates), _norm(candidate)])

    def project(params: Params, x: Array) -> Array:
        return params["input_scale"] * norm_blocks(linear(params, x)) + params["bias"]

    def open_gates(params: Params, h: Array, drive: Array) -> tuple[Gates, Array]:
        from_h = params["recurrent_scale"] * norm_blocks(h @ params["recurrent"].T)
        return open_gru(params, from_h, drive)

    def advance(params: Params, h: Array, drive: Array) -> Array:
        gates, n = open_gates(params, h, drive)
        return (1 - gates["z"]) * n + gates["z"] * h

    return Cell(
        inputs,
        hidden,
        init,
        advance,
        name="layer_norm_gru",
        gates=("r", "z", "n"),
        project=project,
        log_retention=gate_retention(1, hidden),
        gate_values=gates_at(open_gates, project),
    )
