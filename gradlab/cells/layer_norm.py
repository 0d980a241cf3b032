"""Cells that normalize their preactivations over the units of a layer."""

import functools

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from gradlab._names import choose
from gradlab.cells.base import (
    BIAS,
    INPUT,
    RECURRENT,
    Cell,
    Params,
    biased,
    check_widths,
    gate_init,
    kept,
    register,
    stacked,
    zeros,
)
from gradlab.cells.elman import ACTIVATIONS
from gradlab.cells.lstm import LSTMState
from gradlab.initializers import Initializer

# Added to the variance, as in github.com/ryankiros/layer-norm, layers.py, commit 7a9a1bf.
EPS = 1e-5
SCALE = jax.nn.initializers.ones


def _norm(a: Array) -> Array:
    """(a - μ) / √(σ² + EPS), with μ and σ² the mean and variance over the last axis."""
    centred = a - jnp.mean(a, axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + EPS)


def _project(params: Params, x: Array) -> Array:
    return x @ params["input"].T


def _read(h: Array) -> Array:
    return h


@register
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
        inputs: D, the width of x_t.
        hidden: H, the width of h_t; with H = 1 nothing but b is left.
        activation: φ, one of tanh, relu, erf, linear.
        recurrent: initializer of W (H, H), `params["recurrent"]`.
        input: initializer of U (H, D), `params["input"]`.
        bias: initializer of b (H,), `params["bias"]`.
        scale: initializer of g (H,), `params["scale"]`; by default 1.

    Raises:
        ValueError: for an unknown activation or a width below 1.

    >>> cell = layer_norm_elman(inputs=3, hidden=5, activation="linear")
    >>> h = cell.step(cell.init(jax.random.key(0)), cell.start(), jnp.ones(3))
    >>> round(float(h.std()), 3)
    1.0

    Source: Ba, Kiros & Hinton, "Layer normalization" (2016), equation 4; 1e-5 is that of the gated
    cells in github.com/ryankiros/layer-norm, layers.py, commit 7a9a1bf.
    """
    check_widths("layer_norm_elman", inputs=inputs, hidden=hidden)
    choose("activation", activation, ACTIVATIONS)
    phi = ACTIVATIONS[activation]
    blocks = gate_init(1, inputs, hidden, recurrent, input, bias)

    def init(key: Array, dtype: DTypeLike | None = None) -> Params:
        blocks_key, scale_key = jax.random.split(key)
        params = blocks(blocks_key, dtype)
        return params | {"scale": scale(scale_key, (hidden,), params["bias"].dtype)}

    def advance(params: Params, h: Array, drive: Array) -> Array:
        a = _norm(h @ params["recurrent"].T + drive)
        return phi(params["scale"] * a + params["bias"])

    return Cell(
        name="layer_norm_elman",
        gates=("h",),
        hidden=hidden,
        inputs=inputs,
        init=init,
        start=functools.partial(zeros, hidden),
        project=_project,
        advance=advance,
        read=_read,
        matrices=stacked(1, hidden),
    )


@register
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

    b stands for the sum of three biases in the paper. At h = 0 the derivative of N is 1/√1e-5, so
    that the first step back to a zero state multiplies the adjoint by up to 316.

    Args:
        inputs: D, the width of x_t.
        hidden: H, the width of c_t and h_t.
        recurrent: initializer of each gate's block (H, H) of W, `params["recurrent"]`.
        input: initializer of each gate's block (H, D) of U, `params["input"]`.
        bias: initializer of each gate's block (H,) of b, `params["bias"]`, and of b_c (H,),
            `params["memory_bias"]`.
        scale: initializer of s_W (4·H,), s_U (4·H,) and s_c (H,), `params["recurrent_scale"]`,
            `params["input_scale"]` and `params["memory_scale"]`; by default 1.
        forget_bias: added to the f block of b by `init`; a scalar or (H,), possibly traced.

    Raises:
        ValueError: for a width below 1.

    >>> cell = layer_norm_lstm(inputs=3, hidden=2)
    >>> {name: p.shape for name, p in sorted(cell.init(jax.random.key(0)).items())}
    {'bias': (8,), 'input': (8, 3), 'input_scale': (8,), 'memory_bias': (2,), 'memory_scale': (2,),
     'recurrent': (8, 2), 'recurrent_scale': (8,)}

    Source: Ba, Kiros & Hinton, "Layer normalization" (2016), supplementary material, equations 20
    to 22. 1e-5, the scales and the orthogonal W are from github.com/ryankiros/layer-norm,
    layers.py, commit 7a9a1bf. There the gates are (i, f, o, g), b enters inside N(U x_t + b) as
    well, and b_f starts at 0; here at 1, so that the norm alone tells this cell from `lstm`.
    """
    check_widths("layer_norm_lstm", inputs=inputs, hidden=hidden)
    blocks = biased(gate_init(4, inputs, hidden, recurrent, input, bias), 1, hidden, forget_bias)

    def init(key: Array, dtype: DTypeLike | None = None) -> Params:
        blocks_key, *keys = jax.random.split(key, 5)
        params = blocks(blocks_key, dtype)
        dtype = params["bias"].dtype
        return params | {
            "recurrent_scale": scale(keys[0], (4 * hidden,), dtype),
            "input_scale": scale(keys[1], (4 * hidden,), dtype),
            "memory_scale": scale(keys[2], (hidden,), dtype),
            "memory_bias": bias(keys[3], (hidden,), dtype),
        }

    def start(dtype: DTypeLike | None = None) -> LSTMState:
        return LSTMState(zeros(hidden, dtype), zeros(hidden, dtype))

    def project(params: Params, x: Array) -> Array:
        return params["input_scale"] * _norm(_project(params, x)) + params["bias"]

    def advance(params: Params, state: LSTMState, drive: Array) -> LSTMState:
        from_h = params["recurrent_scale"] * _norm(state.h @ params["recurrent"].T)
        i, f, g, o = jnp.split(from_h + drive, 4)
        c = jax.nn.sigmoid(f) * state.c + jax.nn.sigmoid(i) * jnp.tanh(g)
        shown = params["memory_scale"] * _norm(c) + params["memory_bias"]
        return LSTMState(c, jax.nn.sigmoid(o) * jnp.tanh(shown))

    def read(state: LSTMState) -> Array:
        return state.h

    return Cell(
        name="layer_norm_lstm",
        gates=("i", "f", "g", "o"),
        hidden=hidden,
        inputs=inputs,
        init=init,
        start=start,
        project=project,
        advance=advance,
        read=read,
        matrices=stacked(4, hidden),
        log_retention=kept(1, hidden),
    )


@register
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

    b_rz stands for the sum of two biases in the paper, whose z is 1 - z here, as in `gru`. At
    h = 0 the derivative of N is 1/√1e-5, so that the first step back to a zero state multiplies
    what the adjoint sends through W by up to 316.

    Args:
        inputs: D, the width of x_t.
        hidden: H, the width of h_t.
        recurrent: initializer of each gate's block (H, H) of W, `params["recurrent"]`.
        input: initializer of each gate's block (H, D) of U, `params["input"]`.
        bias: initializer of each gate's block (H,) of b, `params["bias"]`, and of b' (H,),
            `params["recurrent_bias"]`.
        scale: initializer of s_W (3·H,) and s_U (3·H,), `params["recurrent_scale"]` and
            `params["input_scale"]`; by default 1.

    Raises:
        ValueError: for a width below 1.

    >>> cell = layer_norm_gru(inputs=3, hidden=2)
    >>> {name: p.shape for name, p in sorted(cell.init(jax.random.key(0)).items())}
    {'bias': (6,), 'input': (6, 3), 'input_scale': (6,), 'recurrent': (6, 2),
     'recurrent_bias': (2,), 'recurrent_scale': (6,)}

    Source: Ba, Kiros & Hinton, "Layer normalization" (2016), supplementary material, equations 26
    to 28. 1e-5, the scales and the orthogonal W are from github.com/ryankiros/layer-norm,
    layers.py, commit 7a9a1bf, where another b, 0 at first, enters inside N(U x_t + b).
    """
    check_widths("layer_norm_gru", inputs=inputs, hidden=hidden)
    blocks = gate_init(3, inputs, hidden, recurrent, input, bias)

    def init(key: Array, dtype: DTypeLike | None = None) -> Params:
        blocks_key, *keys = jax.random.split(key, 4)
        params = blocks(blocks_key, dtype)
        dtype = params["bias"].dtype
        return params | {
            "recurrent_scale": scale(keys[0], (3 * hidden,), dtype),
            "input_scale": scale(keys[1], (3 * hidden,), dtype),
            "recurrent_bias": bias(keys[2], (hidden,), dtype),
        }

    def normed(a: Array) -> Array:
        gates, candidate = jnp.split(a, [2 * hidden])
        return jnp.concatenate([_norm(gates), _norm(candidate)])

    def project(params: Params, x: Array) -> Array:
        return params["input_scale"] * normed(_project(params, x)) + params["bias"]

    def advance(params: Params, h: Array, drive: Array) -> Array:
        from_h = params["recurrent_scale"] * normed(h @ params["recurrent"].T)
        h_r, h_z, h_n = jnp.split(from_h, 3)
        x_r, x_z, x_n = jnp.split(drive, 3)
        r, z = jax.nn.sigmoid(h_r + x_r), jax.nn.sigmoid(h_z + x_z)
        n = jnp.tanh(x_n + r * (h_n + params["recurrent_bias"]))
        return (1 - z) * n + z * h

    return Cell(
        name="layer_norm_gru",
        gates=("r", "z", "n"),
        hidden=hidden,
        inputs=inputs,
        init=init,
        start=functools.partial(zeros, hidden),
        project=project,
        advance=advance,
        read=_read,
        matrices=stacked(3, hidden),
        log_retention=kept(1, hidden),
    )
