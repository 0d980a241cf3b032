"""The simple recurrent network."""

from jax import Array

from gradlab.cells.base import ACTIVATIONS as ACTIVATIONS
from gradlab.cells.base import (
    BIAS,
    INPUT,
    RECURRENT,
    Cell,
    Params,
    activation_function,
    gate_init,
    register_family,
)
from gradlab.initializers import Initializer


@register_family
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

    >>> import jax
    >>> cell = elman(inputs=3, hidden=5, activation="relu")
    >>> params = cell.init(jax.random.key(0))
    >>> cell.step(params, cell.start(), jax.numpy.ones(3)).shape
    (5,)

    Source: Elman, "Finding structure in time" (1990).
    """
    phi = activation_function(activation)

    init = gate_init(inputs, hidden, recurrent, input, bias)

    def advance(params: Params, h: Array, drive: Array) -> Array:
        return phi(h @ params["recurrent"].T + drive)

    return Cell(inputs, hidden, init, advance, name="elman")
