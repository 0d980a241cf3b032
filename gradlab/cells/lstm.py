"""Long short-term memory."""

from typing import NamedTuple

import jax
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
    biased,
    check_widths,
    gate_init,
    kept,
    register,
    stacked,
    zeros,
)
from gradlab.initializers import Initializer


class LSTMState(NamedTuple):
    """What an LSTM carries: the memory c and the output h, each (hidden,)."""

    c: Array
    h: Array


@register
def lstm(
    inputs: int,
    hidden: int,
    *,
    recurrent: Initializer = RECURRENT,
    input: Initializer = INPUT,
    bias: Initializer = BIAS,
    forget_bias: ArrayLike = 1.0,
) -> Cell:
    """The LSTM with a forget gate and no peepholes; the state is ``LSTMState(c, h)``.

    With (i, f, g, o) the four blocks of W h_{t-1} + U x_t + b, and σ the logistic function::

      c_t = σ(f) c_{t-1} + σ(i) tanh(g)
      h_t = σ(o) tanh(c_t)

    Args:
      inputs: D, the width of x_t.
      hidden: H, the width of c_t and h_t.
      recurrent: initializer of each gate's block (H, H) of W, ``params["recurrent"]``.
      input: initializer of each gate's block (H, D) of U, ``params["input"]``.
      bias: initializer of each gate's block (H,) of b, ``params["bias"]``.
      forget_bias: added to the f block of b by ``init``; a scalar or (H,), possibly traced.

    Raises:
      ValueError: for a width below 1.

    >>> cell = lstm(inputs=3, hidden=2, forget_bias=5.0)
    >>> cell.init(jax.random.key(0))["bias"].tolist()
    [0.0, 0.0, 5.0, 5.0, 0.0, 0.0, 0.0, 0.0]

    Source: Gers, Schmidhuber & Cummins, "Learning to forget" (2000), section 3; the positive
    forget bias is also in Jozefowicz, Zaremba & Sutskever (2015). PyTorch's order of the gates.
    """
    check_widths("lstm", inputs=inputs, hidden=hidden)

    blocks = gate_init(4, inputs, hidden, recurrent, input, bias)
    init = biased(blocks, 1, hidden, forget_bias)

    def start(dtype: DTypeLike | None = None) -> LSTMState:
        return LSTMState(zeros(hidden, dtype), zeros(hidden, dtype))

    def advance(params: Params, state: LSTMState, drive: Array) -> LSTMState:
        i, f, g, o = jnp.split(state.h @ params["recurrent"].T + drive, 4)
        c = jax.nn.sigmoid(f) * state.c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return LSTMState(c, jax.nn.sigmoid(o) * jnp.tanh(c))

    def read(state: LSTMState) -> Array:
        return state.h

    return Cell(
        name="lstm",
        gates=("i", "f", "g", "o"),
        hidden=hidden,
        inputs=inputs,
        init=init,
        start=start,
        project=affine,
        advance=advance,
        read=read,
        matrices=stacked(4, hidden),
        log_retention=kept(1, hidden),
    )
