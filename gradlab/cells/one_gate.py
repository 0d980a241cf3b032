"""Cells with one gate, whose state is h."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from gradlab.cells.base import (
    BIAS,
    INPUT,
    RECURRENT,
    Cell,
    Gates,
    Params,
    add_leaves,
    gate_init,
    gate_retention,
    gates_at,
    linear,
    register_family,
    shift_bias,
)
from gradlab.initializers import Initializer


@register_family
def mgu(
    inputs: int,
    hidden: int,
    *,
    recurrent: Initializer = RECURRENT,
    input: Initializer = INPUT,
    bias: Initializer = BIAS,
    forget_bias: ArrayLike = 1.0,
) -> Cell:
    """The minimal gated unit, a GRU whose one gate f resets and updates; the state is h.

    With W, U and b in two blocks (f, n), and σ the logistic function::

        f = σ(W_f h_{t-1} + U_f x_t + b_f)
        n = tanh(W_n (f h_{t-1}) + U_n x_t + b_n)
        h_t = (1 - f) h_{t-1} + f n

    What the authors call the forget gate is how much is forgotten: the cell keeps
    1 - f = σ(-W_f h_{t-1} - U_f x_t - b_f). A larger `forget_bias` keeps more, as in every other
    cell, and so it is subtracted from b_f. `gate_values` gives f, the share that is forgotten.

    Args:
        forget_bias: subtracted from the f block of b by `init`; a scalar or (H,), possibly traced.

    >>> cell = mgu(inputs=3, hidden=2, forget_bias=5.0)
    >>> cell.init(jax.random.key(0))["bias"].tolist()
    [-5.0, -5.0, 0.0, 0.0]

    Source: Zhou, Wu, Zhang & Zhou, "Minimal gated unit for recurrent neural networks" (2016),
    section 3. No public code of the authors was found: `forget_bias` starts as in `lstm`.
    """
    blocks = gate_init(inputs, hidden, recurrent, input, bias, gates=2)
    init = shift_bias(blocks, 0, hidden, -jnp.asarray(forget_bias))

    def open_gates(params: Params, h: Array, drive: Array) -> tuple[Gates, Array]:
        W_f, W_n = jnp.split(params["recurrent"], 2)
        x_f, x_n = jnp.split(drive, 2)
        f = jax.nn.sigmoid(h @ W_f.T + x_f)
        return {"f": f}, jnp.tanh((f * h) @ W_n.T + x_n)

    def advance(params: Params, h: Array, drive: Array) -> Array:
        gates, n = open_gates(params, h, drive)
        return (1 - gates["f"]) * h + gates["f"] * n

    return Cell(
        inputs,
        hidden,
        init,
        advance,
        name="mgu",
        gates=("f", "n"),
        log_retention=gate_retention(0, hidden, sign=-1),
        gate_values=gates_at(open_gates),
    )


@register_family
def janet(
    inputs: int,
    hidden: int,
    *,
    recurrent: Initializer = RECURRENT,
    input: Initializer = INPUT,
    bias: Initializer = BIAS,
    forget_bias: ArrayLike = 1.0,
    beta: ArrayLike = 1.0,
) -> Cell:
    """JANET, an LSTM with the forget gate alone; the state is h (the authors' c).

    With (f, n) the two blocks of W h_{t-1} + U x_t + b, and σ the logistic function::

        h_t = σ(f) h_{t-1} + (1 - σ(f - β)) tanh(n)

    `gate_values` gives σ(f) under f.

    Args:
        beta: β, lets more in than the gate forgets; a scalar, possibly traced. With 0 the two are
            coupled.

    >>> cell = janet(inputs=3, hidden=2, forget_bias=5.0)
    >>> cell.init(jax.random.key(0))["bias"].tolist()
    [5.0, 5.0, 0.0, 0.0]

    Source: van der Westhuizen & Lasenby, "The unreasonable effectiveness of the forget gate"
    (2018), section 3. β and `forget_bias` are as in github.com/JosvanderWesthuizen/janet,
    aux_code/rnn_cells.py, commit fa2f0a5, where the blocks stand in the order (n, f), and where
    the longest lag, if it is given, sets the forget bias: `remedies.chrono`.
    """
    blocks = gate_init(inputs, hidden, recurrent, input, bias, gates=2)
    init = shift_bias(blocks, 0, hidden, forget_bias)

    def open_gates(params: Params, h: Array, drive: Array) -> tuple[Gates, Array]:
        f, n = jnp.split(h @ params["recurrent"].T + drive, 2)
        # 1 - σ(a) = σ(-a), which keeps its digits where the gate is nearly open.
        let_in = jax.nn.sigmoid(jnp.asarray(beta, f.dtype) - f)
        return {"f": jax.nn.sigmoid(f)}, let_in * jnp.tanh(n)

    def advance(params: Params, h: Array, drive: Array) -> Array:
        gates, new = open_gates(params, h, drive)
        return gates["f"] * h + new

    return Cell(
        inputs,
        hidden,
        init,
        advance,
        name="janet",
        gates=("f", "n"),
        log_retention=gate_retention(0, hidden),
        gate_values=gates_at(open_gates),
    )


@register_family
def ugrnn(
    inputs: int,
    hidden: int,
    *,
    recurrent: Initializer = RECURRENT,
    input: Initializer = INPUT,
    bias: Initializer = BIAS,
    forget_bias: ArrayLike = 1.0,
) -> Cell:
    """The update gate RNN, one gate between the old state and a new one; the state is h.

    With (g, n) the two blocks of W h_{t-1} + U x_t + b, and σ the logistic function::

        h_t = σ(g) h_{t-1} + (1 - σ(g)) tanh(n)

    `gate_values` gives σ(g) under g.

    Args:
        forget_bias: added to the g block of b by `init`; a scalar or (H,), possibly traced.

    >>> cell = ugrnn(inputs=3, hidden=2, forget_bias=5.0)
    >>> cell.init(jax.random.key(0))["bias"].tolist()
    [5.0, 5.0, 0.0, 0.0]

    Source: Collins, Sohl-Dickstein & Sussillo, "Capacity and trainability in recurrent neural
    networks" (2017), section 1.1; `forget_bias` is that of `UGRNNCell` in
    github.com/tensorflow/tensorflow, tensorflow/contrib/rnn/python/ops/rnn_cell.py, commit
    9aca4c6, which adds it in every step, so that it is not in the weights.
    """
    blocks = gate_init(inputs, hidden, recurrent, input, bias, gates=2)
    init = shift_bias(blocks, 0, hidden, forget_bias)

    def open_gates(params: Params, h: Array, drive: Array) -> tuple[Gates, Array]:
        g, n = jnp.split(h @ params["recurrent"].T + drive, 2)
        return {"g": jax.nn.sigmoid(g)}, jnp.tanh(n)

    def advance(params: Params, h: Array, drive: Array) -> Array:
        gates, n = open_gates(params, h, drive)
        return gates["g"] * h + (1 - gates["g"]) * n

    return Cell(
        inputs,
        hidden,
        init,
        advance,
        name="ugrnn",
        gates=("g", "n"),
        log_retention=gate_retention(0, hidden),
        gate_values=gates_at(open_gates),
    )


@register_family
def minimal_rnn(
    inputs: int,
    hidden: int,
    *,
    recurrent: Initializer = RECURRENT,
    input: Initializer = INPUT,
    bias: Initializer = BIAS,
    embedded: Initializer = INPUT,
) -> Cell:
    """The minimal RNN, one gate between the old state and the embedded input; the state is h.

    With z_t the embedded input, and σ the logistic function::

        z_t = tanh(U x_t + b')
        u = σ(W h_{t-1} + V z_t + b)
        h_t = u h_{t-1} + (1 - u) z_t

    All of z_t and V z_t + b needs no state: it is the drive, (2·H,). `gate_values` gives u.

    Args:
        bias: initializer of b (H,), `params["bias"]`, and of b' (H,), `params["input_bias"]`.
        embedded: initializer of V (H, H), `params["embedded"]`.

    >>> cell = minimal_rnn(inputs=3, hidden=2)
    >>> {name: p.shape for name, p in sorted(cell.init(jax.random.key(0)).items())}
    {'bias': (2,), 'embedded': (2, 2), 'input': (2, 3), 'input_bias': (2,), 'recurrent': (2, 2)}

    Source: Chen, Pennington & Schoenholz, "Dynamical isometry and a mean field theory of RNNs:
    gating enables signal propagation in recurrent neural networks" (2018), section 2.2, with a
    layer of tanh as the embedding: Chen, "MinimalRNN" (2017). No public code of the authors was
    found: the biases start at 0 as in every family here.
    """
    blocks = gate_init(inputs, hidden, recurrent, input, bias)
    leaves = {"embedded": (embedded, (hidden, hidden)), "input_bias": (bias, (hidden,))}

    def project(params: Params, x: Array) -> Array:
        z = jnp.tanh(x @ params["input"].T + params["input_bias"])
        return jnp.concatenate([z @ params["embedded"].T + params["bias"], z])

    def open_gates(params: Params, h: Array, drive: Array) -> tuple[Gates, Array]:
        e, z = jnp.split(drive, 2)
        return {"u": jax.nn.sigmoid(h @ params["recurrent"].T + e)}, z

    def advance(params: Params, h: Array, drive: Array) -> Array:
        gates, z = open_gates(params, h, drive)
        return gates["u"] * h + (1 - gates["u"]) * z

    return Cell(
        inputs,
        hidden,
        add_leaves(blocks, **leaves),
        advance,
        name="minimal_rnn",
        gates=("u",),
        project=project,
        log_retention=gate_retention(0, hidden),
        gate_values=gates_at(open_gates, project),
    )


@register_family
def fastgrnn(
    inputs: int,
    hidden: int,
    *,
    recurrent: Initializer = RECURRENT,
    input: Initializer = INPUT,
    bias: Initializer = BIAS,
    forget_bias: ArrayLike = 1.0,
    update_bias: ArrayLike = 1.0,
    zeta: ArrayLike = 1.0,
    nu: ArrayLike = -4.0,
) -> Cell:
    """FastGRNN, whose gate and candidate share their weights; the state is h.

    With a = W h_{t-1} + U x_t, one block for both, b in two blocks (z, n), and σ the logistic
    function::

        z = σ(a + b_z)
        n = tanh(a + b_n)
        h_t = (σ(ζ) (1 - z) + σ(ν)) n + z h_{t-1}

    `gate_values` gives z; σ(ζ) and σ(ν) are two numbers of the whole layer.

    Args:
        forget_bias: added to b_z by `init`; a scalar or (H,), possibly traced. At 1 the gate keeps
            σ(1) = 0.73 at first.
        update_bias: added to b_n by `init`, likewise.
        zeta: where `init` puts ζ, a scalar and trained, `params["zeta"]`; possibly traced.
        nu: where `init` puts ν, likewise, `params["nu"]`.

    >>> cell = fastgrnn(inputs=3, hidden=2)
    >>> params = cell.init(jax.random.key(0))
    >>> {name: p.shape for name, p in sorted(params.items())}
    {'bias': (4,), 'input': (2, 3), 'nu': (), 'recurrent': (2, 2), 'zeta': ()}
    >>> jax.nn.sigmoid(params["bias"]).round(2).tolist()
    [0.73, 0.73, 0.73, 0.73]

    Source: Kusupati et al., "FastGRNN: a fast, accurate, stable and tiny kilobyte sized gated
    recurrent neural network" (2018), section 3.2, at full rank. Both biases, ζ and ν start as in
    github.com/microsoft/EdgeML, pytorch/edgeml_pytorch/graph/rnn.py, commit 81025fc, whose U is W
    here and the other way round; there both are drawn from N(0, 0.1²), whatever the width.
    """
    blocks = gate_init(inputs, hidden, recurrent, input, bias)

    def plain(key: Array, dtype: DTypeLike | None = None) -> Params:
        blocks_key, bias_key = jax.random.split(key)
        params = blocks(blocks_key, dtype)
        b_z = params["bias"]
        b_n = bias(bias_key, (hidden,), b_z.dtype)
        return params | {
            "bias": jnp.concatenate([b_z, b_n]),
            "zeta": jnp.asarray(zeta, b_z.dtype),
            "nu": jnp.asarray(nu, b_z.dtype),
        }

    init = shift_bias(shift_bias(plain, 0, hidden, forget_bias), 1, hidden, update_bias)

    def open_gates(params: Params, h: Array, drive: Array) -> tuple[Gates, Array]:
        a = h @ params["recurrent"].T + drive
        b_z, b_n = jnp.split(params["bias"], 2)
        return {"z": jax.nn.sigmoid(a + b_z)}, jnp.tanh(a + b_n)

    def advance(params: Params, h: Array, drive: Array) -> Array:
        gates, n = open_gates(params, h, drive)
        z = gates["z"]
        share = jax.nn.sigmoid(params["zeta"]) * (1 - z) + jax.nn.sigmoid(params["nu"])
        return share * n + z * h

    return Cell(
        inputs,
        hidden,
        init,
        advance,
        name="fastgrnn",
        gates=("z", "n"),
        project=linear,
        log_retention=gate_retention(0, hidden),
        gate_values=gates_at(open_gates, linear),
    )
