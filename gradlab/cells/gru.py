"""The gated recurrent unit, in both of its forms."""

import jax
import jax.numpy as jnp
from jax import Array

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
    register_family,
)
from gradlab.initializers import Initializer


def open_gru(params: Params, from_h: Array, from_x: Array) -> tuple[Gates, Array]:
    """The gates r and z, and the candidate n, reset after the product; blocks (r, z, n)."""
    h_r, h_z, h_n = jnp.split(from_h, 3)
    x_r, x_z, x_n = jnp.split(from_x, 3)
    r = jax.nn.sigmoid(h_r + x_r)
    z = jax.nn.sigmoid(h_z + x_z)
    return {"r": r, "z": z}, jnp.tanh(x_n + r * (h_n + params["recurrent_bias"]))


@register_family
def gru(
    inputs: int,
    hidden: int,
    *,
    recurrent: Initializer = RECURRENT,
    input: Initializer = INPUT,
    bias: Initializer = BIAS,
) -> Cell:
    """The GRU that resets after the product, as PyTorch and cuDNN do; the state is h.

    With W, U and b in three blocks (r, z, n), and σ the logistic function::

        r = σ(W_r h_{t-1} + U_r x_t + b_r)
        z = σ(W_z h_{t-1} + U_z x_t + b_z)
        n = tanh(U_n x_t + b_n + r (W_n h_{t-1} + b'))
        h_t = (1 - z) n + z h_{t-1}

    Cho et al. (2014) reset before the product, W_n (r h_{t-1}): that is `gru_reset_before`.
    `gate_values` gives r, which lets the old state into the candidate, and z, which keeps it.

    Args:
        bias: initializer of each gate's block (H,) of b, `params["bias"]`, and of b' (H,),
            `params["recurrent_bias"]`.

    >>> cell = gru(inputs=3, hidden=5)
    >>> {name: p.shape for name, p in sorted(cell.init(jax.random.key(0)).items())}
    {'bias': (15,), 'input': (15, 3), 'recurrent': (15, 5), 'recurrent_bias': (5,)}

    Source: Cho et al., "Learning phrase representations using RNN encoder-decoder" (2014),
    section 2.3; this form is that of cuDNN and `torch.nn.GRU`.
    """
    init = add_leaves(
        gate_init(inputs, hidden, recurrent, input, bias, gates=3), recurrent_bias=(bias, (hidden,))
    )

    def open_gates(params: Params, h: Array, drive: Array) -> tuple[Gates, Array]:
        return open_gru(params, h @ params["recurrent"].T, drive)

    def advance(params: Params, h: Array, drive: Array) -> Array:
        gates, n = open_gates(params, h, drive)
        return (1 - gates["z"]) * n + gates["z"] * h

    return Cell(
        inputs,
        hidden,
        init,
        advance,
        name="gru",
        gates=("r", "z", "n"),
        log_retention=gate_retention(1, hidden),
        gate_values=gates_at(open_gates),
    )


@register_family
def gru_reset_before(
    inputs: int,
    hidden: int,
    *,
    recurrent: Initializer = RECURRENT,
    input: Initializer = INPUT,
    bias: Initializer = BIAS,
) -> Cell:
    """The GRU that resets before the product, as published; the state is h.

    With W, U and b in three blocks (r, z, n), and σ the logistic function::

        r = σ(W_r h_{t-1} + U_r x_t + b_r)
        z = σ(W_z h_{t-1} + U_z x_t + b_z)
        n = tanh(W_n (r h_{t-1}) + U_n x_t + b_n)
        h_t = (1 - z) n + z h_{t-1}

    `gate_values` gives r and z.

    haiku's `GRU` is this cell with blocks in the order (z, r, n) and with z for 1 - z, that is
    with -W_z, -U_z, -b_z. PyTorch, cuDNN and flax reset after the product: that is `gru`.

    >>> cell = gru_reset_before(inputs=3, hidden=5)
    >>> {name: p.shape for name, p in sorted(cell.init(jax.random.key(0)).items())}
    {'bias': (15,), 'input': (15, 3), 'recurrent': (15, 5)}

    Source: Cho et al., "Learning phrase representations using RNN encoder-decoder" (2014),
    section 2.3. In the authors' code, `RecurrentLayer` of github.com/pascanur/GroundHog,
    groundhog/layers/rec_layers.py, commit 3691cbf, the update gate writes what it keeps in the
    paper: with their weights, z is 1 - z here as for haiku's.
    """
    init = gate_init(inputs, hidden, recurrent, input, bias, gates=3)

    def open_gates(params: Params, h: Array, drive: Array) -> tuple[Gates, Array]:
        W_rz, W_n = jnp.split(params["recurrent"], [2 * hidden])
        x_rz, x_n = jnp.split(drive, [2 * hidden])
        r, z = jnp.split(jax.nn.sigmoid(h @ W_rz.T + x_rz), 2)
        return {"r": r, "z": z}, jnp.tanh((r * h) @ W_n.T + x_n)

    def advance(params: Params, h: Array, drive: Array) -> Array:
        gates, n = open_gates(params, h, drive)
        return (1 - gates["z"]) * n + gates["z"] * h

    return Cell(
        inputs,
        hidden,
        init,
        advance,
        name="gru_reset_before",
        gates=("r", "z", "n"),
        log_retention=gate_retention(1, hidden),
        gate_values=gates_at(open_gates),
    )
