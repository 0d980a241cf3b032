"""Long expressive memory."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradlab._norms import widen
from gradlab.cells.base import (
    BIAS,
    INPUT,
    RECURRENT,
    Cell,
    Gates,
    Params,
    check_numbers,
    gate_init,
    gates_at,
    read_field,
    register_family,
    zero_state,
)
from gradlab.initializers import Initializer


class LEMState(NamedTuple):
    """What LEM carries: the output y and the memory z that feeds it, each (hidden,)."""

    y: Array
    z: Array


@register_family
def lem(
    inputs: int,
    hidden: int,
    *,
    dt: ArrayLike = 1.0,
    recurrent: Initializer = RECURRENT,
    input: Initializer = INPUT,
    bias: Initializer = BIAS,
) -> Cell:
    """LEM, two variables with a learned time step each; the state is `LEMState(y, z)`.

    With W, U and b in four blocks (1, 2, z, y), and σ the logistic function::

        α = Δt σ(W_1 y_{t-1} + U_1 x_t + b_1)
        β = Δt σ(W_2 y_{t-1} + U_2 x_t + b_2)
        z_t = (1 - α) z_{t-1} + α tanh(W_z y_{t-1} + U_z x_t + b_z)
        y_t = (1 - β) y_{t-1} + β tanh(W_y z_t + U_y x_t + b_y)

    The paper writes Δt_n for α and Δt with a bar for β; `read` gives y. `gate_values` gives these
    two time steps, in [0, Δt], under the names of their blocks: α under "1", β under "2".

    Args:
        dt: Δt in (0, 1], the longest time step; a scalar, possibly traced. 1 is the authors'
            default.

    Raises:
        ValueError: for a dt outside (0, 1].

    >>> cell = lem(inputs=1, hidden=1)
    >>> params = jax.tree.map(jnp.zeros_like, cell.init(jax.random.key(0)))
    >>> state = cell.step(params, LEMState(jnp.array([2.0]), jnp.array([4.0])), jnp.zeros(1))
    >>> state.y.tolist(), state.z.tolist()
    ([1.0], [2.0])

    Source: Rusch, Mishra, Erichson & Mahoney, "Long expressive memory for sequence modeling"
    (2022), equation 3; github.com/tk-rusch/LEM, src/adding/network.py, commit 833da6b. That code
    swaps two pairs of blocks: the four of `inp2hid` are (2, 1, y, z) and the three of `hid2hid`
    (2, 1, z); `transform_z` is W_y. Weights that come over are put into the order (1, 2, z, y)
    first, and b is the sum of the biases of the layers. All start from U(-1/√H, 1/√H) there.
    The blocks of LEM_cuda stand in yet another order, (1, z, 2).
    """
    check_numbers("lem", "above 0 and at most 1", lambda v: 0 < v <= 1, dt=dt)

    def open_gates(params: Params, state: LEMState, drive: Array) -> tuple[Gates, Array]:
        longest = jnp.asarray(dt, state.y.dtype)
        h_1, h_2, h_z = jnp.split(state.y @ params["recurrent"][: 3 * hidden].T, 3)
        x_1, x_2, x_z, _ = jnp.split(drive, 4)
        alpha = longest * jax.nn.sigmoid(h_1 + x_1)
        beta = longest * jax.nn.sigmoid(h_2 + x_2)
        return {"1": alpha, "2": beta}, jnp.tanh(h_z + x_z)

    def advance(params: Params, state: LEMState, drive: Array) -> LEMState:
        gates, new = open_gates(params, state, drive)
        alpha, beta = gates["1"], gates["2"]
        z = (1 - alpha) * state.z + alpha * new
        # The candidate of y reads the new z.
        W_y, x_y = params["recurrent"][3 * hidden :], drive[3 * hidden :]
        y = (1 - beta) * state.y + beta * jnp.tanh(z @ W_y.T + x_y)
        return LEMState(y, z)

    def log_retention(params: Params) -> Array:
        b = widen(params["bias"][:hidden])
        return jnp.log1p(-jnp.asarray(dt, b.dtype) * jax.nn.sigmoid(b))

    return Cell(
        inputs,
        hidden,
        gate_init(inputs, hidden, recurrent, input, bias, gates=4),
        advance,
        name="lem",
        gates=("1", "2", "z", "y"),
        start=zero_state(hidden, LEMState),
        read=read_field("y"),
        log_retention=log_retention,
        gate_values=gates_at(open_gates),
    )
