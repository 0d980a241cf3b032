"""The coupled oscillatory network."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from gradlab.cells.base import (
    BIAS,
    INPUT,
    RECURRENT,
    Cell,
    Params,
    affine,
    check_numbers,
    check_widths,
    gate_init,
    register,
    stacked,
    zeros,
)
from gradlab.initializers import Initializer


class CoRNNState(NamedTuple):
    """What a coRNN carries: the positions y and the velocities z, each (hidden,)."""

    y: Array
    z: Array


@register
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
        inputs: D, the width of x_t.
        hidden: H, the width of y_t and z_t.
        dt: Δt > 0; a scalar, possibly traced, as are γ and ε. The defaults of the three are the
            authors' for sequential MNIST; each of their tasks has its own.
        gamma: γ > 0, the square of the frequency.
        epsilon: ε > 0, the damping.
        recurrent: initializer of each of the two blocks (H, H) of `params["recurrent"]`: W, which
            reads y, then V, which reads z. `gates` names the two.
        input: initializer of U (H, D), `params["input"]`, one block.
        bias: initializer of b (H,), `params["bias"]`, one block.

    Raises:
        ValueError: for a width below 1, or a dt, gamma or epsilon that is not positive.

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
    check_widths("cornn", inputs=inputs, hidden=hidden)
    check_numbers("cornn", "above 0", lambda v: v > 0, dt=dt, gamma=gamma, epsilon=epsilon)

    blocks = gate_init(2, inputs, hidden, recurrent, input, bias)

    def init(key: Array, dtype: DTypeLike | None = None) -> Params:
        params = blocks(key, dtype)
        return params | {name: params[name][:hidden] for name in ("input", "bias")}

    def start(dtype: DTypeLike | None = None) -> CoRNNState:
        return CoRNNState(zeros(hidden, dtype), zeros(hidden, dtype))

    def advance(params: Params, state: CoRNNState, drive: Array) -> CoRNNState:
        y, z = state
        step, stiffness, damping = (jnp.asarray(v, y.dtype) for v in (dt, gamma, epsilon))
        from_y, from_z = jnp.split(params["recurrent"], 2)
        force = jnp.tanh(y @ from_y.T + z @ from_z.T + drive)
        z = z + step * (force - stiffness * y - damping * z)
        return CoRNNState(y + step * z, z)

    def read(state: CoRNNState) -> Array:
        return state.y

    return Cell(
        name="cornn",
        gates=("y", "z"),
        hidden=hidden,
        inputs=inputs,
        init=init,
        start=start,
        project=affine,
        advance=advance,
        read=read,
        matrices=stacked(2, hidden),
    )
