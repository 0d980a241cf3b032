"""Long short-term memory, plain, with peepholes and with a projection."""

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
    Gates,
    Params,
    add_leaves,
    gate_init,
    gate_retention,
    gates_at,
    read_field,
    register_family,
    shift_bias,
    zero_state,
)
from gradlab.initializers import Initializer

# The spread that Greff et al. (2017) draw all weights with; the default of Gaussian in
# github.com/IDSIA/brainstorm, brainstorm/initializers.py, commit 8f1fc88.
PEEPHOLE = jax.nn.initializers.normal(0.1)


class LSTMState(NamedTuple):
    """What an LSTM carries: the memory c and the output h, each (hidden,)."""

    c: Array
    h: Array


def open_lstm(preactivations: Array) -> tuple[Gates, Array]:
    """The gates i, f and o, and the candidate tanh(g), from the blocks (i, f, g, o)."""
    i, f, g, o = jnp.split(preactivations, 4)
    gates = {"i": jax.nn.sigmoid(i), "f": jax.nn.sigmoid(f), "o": jax.nn.sigmoid(o)}
    return gates, jnp.tanh(g)


@register_family
def lstm(
    inputs: int,
    hidden: int,
    *,
    recurrent: Initializer = RECURRENT,
    input: Initializer = INPUT,
    bias: Initializer = BIAS,
    forget_bias: ArrayLike = 1.0,
) -> Cell:
    """The LSTM with a forget gate and no peepholes; the state is `LSTMState(c, h)`.

    With (i, f, g, o) the four blocks of W h_{t-1} + U x_t + b, and σ the logistic function::

        c_t = σ(f) c_{t-1} + σ(i) tanh(g)
        h_t = σ(o) tanh(c_t)

    `gate_values` gives σ(i), σ(f) and σ(o) under i, f and o; g is the candidate.

    >>> cell = lstm(inputs=3, hidden=2, forget_bias=5.0)
    >>> params = cell.init(jax.random.key(0))
    >>> params["bias"].tolist()
    [0.0, 0.0, 5.0, 5.0, 0.0, 0.0, 0.0, 0.0]
    >>> gates = cell.gate_values(params, cell.start(), jnp.zeros(3))
    >>> {name: [round(float(v), 3) for v in value] for name, value in sorted(gates.items())}
    {'f': [0.993, 0.993], 'i': [0.5, 0.5], 'o': [0.5, 0.5]}

    Source: Gers, Schmidhuber & Cummins, "Learning to forget" (2000), section 3; the positive
    forget bias is also in Jozefowicz, Zaremba & Sutskever (2015). PyTorch's order of the gates.
    """
    blocks = gate_init(inputs, hidden, recurrent, input, bias, gates=4)
    init = shift_bias(blocks, 1, hidden, forget_bias)

    def open_gates(params: Params, state: LSTMState, drive: Array) -> tuple[Gates, Array]:
        return open_lstm(state.h @ params["recurrent"].T + drive)

    def advance(params: Params, state: LSTMState, drive: Array) -> LSTMState:
        gates, g = open_gates(params, state, drive)
        c = gates["f"] * state.c + gates["i"] * g
        return LSTMState(c, gates["o"] * jnp.tanh(c))

    return Cell(
        inputs,
        hidden,
        init,
        advance,
        name="lstm",
        gates=("i", "f", "g", "o"),
        start=zero_state(hidden, LSTMState),
        read=read_field("h"),
        log_retention=gate_retention(1, hidden),
        gate_values=gates_at(open_gates),
    )


@register_family
def lstm_peephole(
    inputs: int,
    hidden: int,
    *,
    recurrent: Initializer = RECURRENT,
    input: Initializer = INPUT,
    bias: Initializer = BIAS,
    peephole: Initializer = PEEPHOLE,
    forget_bias: ArrayLike = 1.0,
) -> Cell:
    """The LSTM whose gates also see the memory, unit by unit; the state is `LSTMState(c, h)`.

    With (i, f, g, o) the four blocks of W h_{t-1} + U x_t + b, p in three blocks, and σ the
    logistic function::

        c_t = σ(f + p_f c_{t-1}) c_{t-1} + σ(i + p_i c_{t-1}) tanh(g)
        h_t = σ(o + p_o c_t) tanh(c_t)

    `gate_values` gives the three logistic functions under i, f and o, the last with the c_t that
    the step writes.

    Args:
        peephole: initializer of p = (p_i, p_f, p_o), (3·H,), `params["peephole"]`; by default
            N(0, 0.1²).

    >>> cell = lstm_peephole(inputs=3, hidden=2)
    >>> {name: p.shape for name, p in sorted(cell.init(jax.random.key(0)).items())}
    {'bias': (8,), 'input': (8, 3), 'peephole': (6,), 'recurrent': (8, 2)}

    Source: Gers & Schmidhuber, "Recurrent nets that time and count" (2000), with the tanh on the
    output that they drop and later work keeps: Greff et al., "LSTM: a search space odyssey"
    (2017), section 2, and github.com/IDSIA/brainstorm, brainstorm/layers/lstm_layer.py, commit
    8f1fc88, by two of its authors. They draw all weights from N(0, 0.1²); W, U and b are as in
    `lstm` here, so that nothing but p tells the two apart. The gradient goes through the
    peepholes, which Gers & Schmidhuber cut.
    """
    blocks = shift_bias(
        gate_init(inputs, hidden, recurrent, input, bias, gates=4), 1, hidden, forget_bias
    )

    init = add_leaves(blocks, peephole=(peephole, (3 * hidden,)))

    def open_gates(params: Params, state: LSTMState, drive: Array) -> tuple[Gates, Array]:
        i, f, g, o = jnp.split(state.h @ params["recurrent"].T + drive, 4)
        p_i, p_f, p_o = jnp.split(params["peephole"], 3)
        f = jax.nn.sigmoid(f + p_f * state.c)
        i = jax.nn.sigmoid(i + p_i * state.c)
        # The output gate sees the new memory, so that the gates bring it along.
        c = f * state.c + i * jnp.tanh(g)
        return {"i": i, "f": f, "o": jax.nn.sigmoid(o + p_o * c)}, c

    def advance(params: Params, state: LSTMState, drive: Array) -> LSTMState:
        gates, c = open_gates(params, state, drive)
        return LSTMState(c, gates["o"] * jnp.tanh(c))

    return Cell(
        inputs,
        hidden,
        init,
        advance,
        name="lstm_peephole",
        gates=("i", "f", "g", "o"),
        start=zero_state(hidden, LSTMState),
        read=read_field("h"),
        log_retention=gate_retention(1, hidden),
        gate_values=gates_at(open_gates),
    )


def lstm_projected(
    inputs: int,
    hidden: int,
    *,
    memory: int,
    recurrent: Initializer = RECURRENT,
    input: Initializer = INPUT,
    bias: Initializer = BIAS,
    projection: Initializer = RECURRENT,
    forget_bias: ArrayLike = 1.0,
) -> Cell:
    """The LSTM whose output is a projection of its memory; the state is `LSTMState(c, h)`.

    With (i, f, g, o) the four blocks of W h_{t-1} + U x_t + b, and σ the logistic function::

        c_t = σ(f) c_{t-1} + σ(i) tanh(g)
        h_t = R (σ(o) tanh(c_t))

    `gate_values` gives σ(i), σ(f) and σ(o) under i, f and o, each (M,).

    It is the one cell whose h is not as wide as the rest of its state, which the sweeps take for
    granted: it is not among `names()`.

    Args:
        inputs: D, the width of x_t, at least 1.
        hidden: P, the width of h_t, at least 1; PyTorch's `proj_size`.
        memory: M, the width of c_t and of each gate, at least P; PyTorch's `hidden_size`.
        recurrent: initializer of an (M, M) matrix for each gate, whose first P columns are W;
            `params["recurrent"]`, (4·M, P); by default orthogonal.
        input: initializer of U, (M, D) for each gate, `params["input"]`; by default N(0, 1/D).
        bias: initializer of b, (M,) for each gate, `params["bias"]`; by default 0.
        projection: initializer of R, (P, M), `params["projection"]`; by default with orthonormal
            rows.
        forget_bias: added by `init` to the f block of b; a scalar or (M,), possibly traced.

    `matrices` gives W R of each gate, (4, M, M): what reads the last σ(o) tanh(c).

    Raises:
        ValueError: for a width below 1, or a memory that is narrower than h.

    >>> cell = lstm_projected(inputs=3, hidden=2, memory=5)
    >>> params = cell.init(jax.random.key(0))
    >>> state = cell.step(params, cell.start(), jax.numpy.ones(3))
    >>> state.c.shape, state.h.shape
    ((5,), (2,))

    Source: Sak, Senior & Beaufays, "Long short-term memory recurrent neural network architectures
    for large scale acoustic modeling" (2014), equations 7 to 13 without the peepholes; the
    documentation of `torch.nn.LSTM`, `proj_size`.
    """
    if memory < hidden:
        raise ValueError(f"lstm_projected needs memory of at least hidden = {hidden}, got {memory}")
    blocks = shift_bias(
        gate_init(inputs, memory, recurrent, input, bias, gates=4), 1, memory, forget_bias
    )
    square = add_leaves(blocks, projection=(projection, (hidden, memory)))

    def init(key: Array, dtype: DTypeLike | None = None) -> Params:
        params = square(key, dtype)
        return params | {"recurrent": params["recurrent"][:, :hidden]}

    def open_gates(params: Params, state: LSTMState, drive: Array) -> tuple[Gates, Array]:
        return open_lstm(state.h @ params["recurrent"].T + drive)

    def advance(params: Params, state: LSTMState, drive: Array) -> LSTMState:
        gates, g = open_gates(params, state, drive)
        c = gates["f"] * state.c + gates["i"] * g
        return LSTMState(c, (gates["o"] * jnp.tanh(c)) @ params["projection"].T)

    def start(dtype: DTypeLike | None = None) -> LSTMState:
        return LSTMState(zero_state(memory)(dtype), zero_state(hidden)(dtype))

    def matrices(params: Params) -> Array:
        return (params["recurrent"] @ params["projection"]).reshape(4, memory, memory)

    return Cell(
        inputs,
        hidden,
        init,
        advance,
        name="lstm_projected",
        gates=("i", "f", "g", "o"),
        start=start,
        read=read_field("h"),
        matrices=matrices,
        log_retention=gate_retention(1, memory),
        gate_values=gates_at(open_gates),
    )
