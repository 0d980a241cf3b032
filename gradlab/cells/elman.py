"""The simple recurrent network."""

import jax
from jax import Array
from jax.typing import DTypeLike

from gradlab._names import choose
from gradlab.cells.base import (
    BIAS,
    INPUT,
    RECURRENT,
    Cell,
    Params,
    affine,
    check_widths,
    gate_init,
    register,
    stacked,
    zeros,
)
from gradlab.initializers import Initializer

ACTIVATIONS = {
    "erf": jax.scipy.special.erf,
    "linear": lambda a: a,
    "relu": jax.nn.relu,
    "tanh": jax.numpy.tanh,
}


@register
def elman(
    inputs: int,
    hidden: int,
    *,
    activation: str = "tanh",
    recurrent: Initializer = RECURRENT,
    input: Initializer = INPUT,
    bias: Initializer = BIAS,
) -> Cell:
    """Elman's network, h_t = φ(W h_{t-1} + U x_t + b); the state is h.

    Args:
        inputs: D, the width of x_t.
        hidden: H, the width of h_t.
        activation: φ, one of tanh, relu, erf, linear.
        recurrent: initializer of W (H, H), `params["recurrent"]`.
        input: initializer of U (H, D), `params["input"]`.
        bias: initializer of b (H,), `params["bias"]`.

    Raises:
        ValueError: for an unknown activation or a width below 1.

    >>> cell = elman(inputs=3, hidden=5, activation="relu")
    >>> params = cell.init(jax.random.key(0))
    >>> cell.step(params, cell.start(), jax.numpy.ones(3)).shape
    (5,)

    Source: Elman, "Finding structure in time" (1990).
    """
    check_widths("elman", inputs=inputs, hidden=hidden)
    choose("activation", activation, ACTIVATIONS)
    phi = ACTIVATIONS[activation]

    init = gate_init(1, inputs, hidden, recurrent, input, bias)

    def start(dtype: DTypeLike | None = None) -> Array:
        return zeros(hidden, dtype)

    def advance(params: Params, h: Array, drive: Array) -> Array:
        return phi(h @ params["recurrent"].T + drive)

    def read(h: Array) -> Array:
        return h

    return Cell(
        name="elman",
        gates=("h",),
        hidden=hidden,
        inputs=inputs,
        init=init,
        start=start,
        project=affine,
        advance=advance,
        read=read,
        matrices=stacked(1, hidden),
    )
