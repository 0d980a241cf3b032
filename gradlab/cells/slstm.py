"""The xLSTM's scalar memory."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradlab._names import choose
from gradlab._norms import widen
from gradlab.cells.base import (
    BIAS,
    INPUT,
    RECURRENT,
    Cell,
    Gates,
    Params,
    gate_init,
    gates_at,
    read_field,
    register_family,
    shift_bias,
    zero_state,
)
from gradlab.initializers import Initializer

# ln of the forget gate, as a function of its preactivation.
FORGET = {
    "exp": lambda a: a,
    "sigmoid": jax.nn.log_sigmoid,
}


class SLSTMState(NamedTuple):
    """What an sLSTM carries, each (hidden,): memory c, output h, stabilizer m, normalizer n.

    c and n are in units of e^m.
    """

    c: Array
    h: Array
    m: Array
    n: Array


@register_family
def slstm(
    inputs: int,
    hidden: int,
    *,
    forget: str = "sigmoid",
    recurrent: Initializer = RECURRENT,
    input: Initializer = INPUT,
    bias: Initializer = BIAS,
    forget_bias: ArrayLike = 1.0,
) -> Cell:
    """The sLSTM, with an exponential input gate; the state is `SLSTMState(c, h, m, n)`.

    With (i, f, z, o) the four blocks of W h_{t-1} + U x_t + b, σ the logistic function, and F the
    logarithm of the forget gate, ln σ(f) or f::

        m_t = max(F + m_{t-1}, i)
        c_t = exp(F + m_{t-1} - m_t) c_{t-1} + exp(i - m_t) tanh(z)
        n_t = exp(F + m_{t-1} - m_t) n_{t-1} + exp(i - m_t)
        h_t = σ(o) c_t / n_t

    The stabilizer m keeps both exponentials below 1 and cancels in h. In the first step, where n
    is 0 and there is nothing to keep, m_t = i, so that n is at least 1 from there on. One head: W_f
    and its like are full matrices.

    `gate_values` gives σ(o) under o, and under i and f the stabilized exp(i - m_t) and
    exp(F + m_{t-1} - m_t), the larger of which is 1, since e^i itself has no upper bound. In the
    first step f is 0.

    Args:
        forget: the forget gate, `"sigmoid"` or `"exp"`.

    Raises:
        ValueError: for an unknown forget gate.

    >>> cell = slstm(inputs=3, hidden=2)
    >>> params = cell.init(jax.random.key(0))
    >>> cell.step(params, cell.start(), jnp.zeros(3)).n.tolist()
    [1.0, 1.0]

    Source: Beck et al., "xLSTM: extended long short-term memory" (2024), section 2.2 and
    appendix A. The first step, the order of the gates and the default of `forget` are those of
    github.com/NX-AI/xlstm, xlstm/blocks/slstm/cell.py and src/vanilla/slstm.py, commit 032a6fb.
    There W starts at 0 and b_f, in the first block, falls from 5 to -7 over the units k = 0, ...,
    H - 1 of a head, 5 - 12 (k / (H - 1))^0.3. W is orthogonal and b_f = 1 here, as in `lstm`, so
    that the two can be compared; `recurrent` and `forget_bias` take theirs.
    """
    choose("forget gate", forget, FORGET)
    log_forget = FORGET[forget]

    blocks = gate_init(inputs, hidden, recurrent, input, bias, gates=4)
    init = shift_bias(blocks, 1, hidden, forget_bias)

    def open_gates(
        params: Params, state: SLSTMState, drive: Array
    ) -> tuple[Gates, tuple[Array, Array]]:
        i, f, z, o = jnp.split(state.h @ params["recurrent"].T + drive, 4)
        # Where there is nothing to keep, m must not follow the forget gate far above i: exp(i - m)
        # would underflow, and n with it.
        old = jnp.where(state.n == 0, -jnp.inf, log_forget(f) + state.m)
        m = jnp.maximum(old, i)
        gates = {"i": jnp.exp(i - m), "f": jnp.exp(old - m), "o": jax.nn.sigmoid(o)}
        return gates, (jnp.tanh(z), m)

    def advance(params: Params, state: SLSTMState, drive: Array) -> SLSTMState:
        gates, (z, m) = open_gates(params, state, drive)
        keep, write = gates["f"], gates["i"]
        c = keep * state.c + write * z
        n = keep * state.n + write
        return SLSTMState(c, gates["o"] * c / n, m, n)

    def log_retention(params: Params) -> Array:
        return log_forget(widen(params["bias"][hidden : 2 * hidden]))

    return Cell(
        inputs,
        hidden,
        init,
        advance,
        name="slstm",
        gates=("i", "f", "z", "o"),
        start=zero_state(hidden, SLSTMState),
        read=read_field("h"),
        log_retention=log_retention,
        gate_values=gates_at(open_gates),
    )
