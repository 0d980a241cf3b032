"""The independently recurrent network."""

import functools

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from gradlab.cells.base import (
    BIAS,
    INPUT,
    Cell,
    Params,
    activation_function,
    gate_init,
    register_family,
)
from gradlab.cells.parallel import LinearRecurrence
from gradlab.initializers import Initializer

RECURRENT = jax.nn.initializers.uniform(1.0)


@register_family
def indrnn(
    inputs: int,
    hidden: int,
    *,
    activation: str = "relu",
    recurrent: Initializer = RECURRENT,
    input: Initializer = INPUT,
    bias: Initializer = BIAS,
) -> Cell:
    """IndRNN, h_t = φ(u ⊙ h_{t-1} + U x_t + b): each unit reads itself alone; the state is h.

    Args:
        recurrent: initializer of u (H,), `params["recurrent"]`, called once for each unit with
            shape (1, 1), as a network of width 1. By default u_i ~ U(0, 1), as in the authors'
            cell; their networks for sequences of length T draw from U(0, a^(1/T)), a = 2 or 5, and
            keep |u_i| below that bound.

    With `activation="linear"`, `parallel` gives all states at once.

    >>> cell = indrnn(inputs=3, hidden=2, recurrent=jax.nn.initializers.constant(0.5))
    >>> cell.matrices(cell.init(jax.random.key(0))).tolist()
    [[[0.5, 0.0], [0.0, 0.5]]]

    Source: Li, Li, Cook, Zhu & Gao, "Independently recurrent neural network (IndRNN)" (2018),
    equation 4 and section 3; github.com/Sunnydreamrain/IndRNN_pytorch, IndRNN_onlyrecurrent.py and
    Indrnn_plainnet.py, commit 9b9cb4c.
    """
    phi = activation_function(activation)

    blocks = gate_init(inputs, hidden, jax.nn.initializers.zeros, input, bias)

    def init(key: Array, dtype: DTypeLike | None = None) -> Params:
        blocks_key, units_key = jax.random.split(key)
        params = blocks(blocks_key, dtype)
        own = functools.partial(recurrent, shape=(1, 1), dtype=params["bias"].dtype)
        u = jax.vmap(own)(jax.random.split(units_key, hidden))
        return params | {"recurrent": u.reshape(hidden)}

    def coefficients(params: Params, drive: Array) -> tuple[Array, Array]:
        return params["recurrent"], drive

    linear = LinearRecurrence(coefficients)

    def advance(params: Params, h: Array, drive: Array) -> Array:
        return phi(linear(params, h, drive))

    def matrices(params: Params) -> Array:
        return jnp.diag(params["recurrent"])[None]

    step = linear if activation == "linear" else advance
    return Cell(inputs, hidden, init, step, name="indrnn", matrices=matrices)
