"""The coupled oscillatory network."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradlab.cells.base import (
    BIAS,
    INPUT,
    RECURRENT,
    Cell,
    Params,
    check_numbers,
    gate_init,
    keep_leaves,
    read_field,
    register_family,
    zero_state,
)
from gradlab.initializers import Initializer


class CoRNNState(NamedTuple):
    """What a coRNN carries: the positions y and the velocities z, each (hidden,)."""

    y: Array
    z: Array


@register_family
def cornn(
    inputs: int,
    hidden: int,
    *,
    dt: ArrayLike = 0.042,
    gamma: ArrayLike = 2.7,
    epsilon: ArrayLike = 4.7,
    recurrent: Initializer = RECURRENT,
    input: Initializer = INPUT,
    bias: Initializer = BIAS,
) -> Cell:
    """coRNN, driven and damped oscillators coupled by tanh; the state is `CoRNNState(y, z)`::

        z_t = z_{t-1} + Δt (tanh(W y_{t-1} + V z_{t-1} + U x_t + b) - γ y_{t-1} - ε z_{t-1})
        y_t = y_{t-1} + Δt z_t

    with the damping taken at z_{t-1}, as in the authors' code; `read` gives y.

    Args:
        dt: Δt > 0; a scalar, possibly traced, as are γ and ε. The defaults of the three are the
            authors' for sequential MNIST; each of their tasks has its own.
        gamma: γ > 0, the square of the frequency.
        epsilon: ε > 0, the damping.
        recurrent: initializer of each of the two blocks (H, H) of `params["recurrent"]`: W, which
            reads y, then V, which reads z. `gates` names the two.
        input: initializer of U (H, D), `params["input"]`, one block.
        bias: initializer of b (H,), `params["bias"]`, one block.

    Raises:
        ValueError: for a dt, gamma or epsilon that is not positive.

    >>> import jax
    >>> cell = cornn(inputs=1, hidden=1, dt=0.5, gamma=1.0, epsilon=1.0)
    >>> params = jax.tree.map(jnp.zeros_like, cell.init(jax.random.key(0)))
    >>> state = cell.step(params, CoRNNState(jnp.array([1.0]), jnp.array([0.0])), jnp.zeros(1))
    >>> state.y.tolist(), state.z.tolist()
    ([0.75], [-0.5])

    Source: Rusch & Mishra, "Coupled oscillatory recurrent neural network (coRNN)" (2021),
    equation 3; github.com/tk-rusch/coRNN, sMNIST/network.py and sMNIST_task.py, commit afd8174.
    Their one layer `i2h` reads (x, z, y) side by side: its columns are U, then V, then W. It
    starts from U(-1/√n, 1/√n) with n = D + 2·H, as does b.
    """
    check_numbers("cornn", "above 0", lambda v: v > 0, dt=dt, gamma=gamma, epsilon=epsilon)

    init = keep_leaves(
        gate_init(inputs, hidden, recurrent, input, bias, gates=2), hidden, "input", "bias"
    )

    def advance(params: Params, state: CoRNNState, drive: Array) -> CoRNNState:
        y, z = state
        step, stiffness, damping = (jnp.asarray(v, y.dtype) for v in (dt, gamma, epsilon))
        from_y, from_z = jnp.split(params["recurrent"], 2)
        force = jnp.tanh(y @ from_y.T + z @ from_z.T + drive)
        z = z + step * (force - stiffness * y - damping * z)
        return CoRNNState(y + step * z, z)

    return Cell(
        inputs,
        hidden,
        init,
        advance,
        name="cornn",
        gates=("y", "z"),
        start=zero_state(hidden, CoRNNState),
        read=read_field("y"),
    )
