"""Cells made of cells: biases that keep the memory, and leaky connections."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from gradlab import initializers
from gradlab._names import choose
from gradlab._norms import widen
from gradlab.cells import Cell
from gradlab.cells.base import Drive, Params, State, check_numbers
from gradlab.initializers import Initializer


class _Keeps(NamedTuple):
    """Which block of the bias keeps the memory, by σ(sign·b), and which one writes, by σ(b)."""

    gate: int
    sign: int = 1
    writes: int | None = None


_KEEPS = {
    "fastgrnn": _Keeps(0),
    "gru": _Keeps(1),
    "gru_reset_before": _Keeps(1),
    "janet": _Keeps(0),
    "layer_norm_gru": _Keeps(1),
    "layer_norm_lstm": _Keeps(1, writes=0),
    "lstm": _Keeps(1, writes=0),
    "lstm_peephole": _Keeps(1, writes=0),
    "mgu": _Keeps(0, sign=-1),
    "min_gru": _Keeps(0, sign=-1),
    "min_lstm": _Keeps(0, writes=1),
    "minimal_rnn": _Keeps(0),
    "ugrnn": _Keeps(0),
}


def retaining() -> tuple[str, ...]:
    """The cells that ``chrono`` and ``forget_bias`` take: those with a logistic gate that keeps.

    >>> "gru" in retaining(), "elman" in retaining()
    (True, False)
    """
    return tuple(sorted(_KEEPS))


def chrono(cell: Cell, t_max: ArrayLike) -> Cell:
    """The cell with time constants spread evenly up to ``t_max`` steps at its initialization.

    With b_f the bias of the gate that keeps the memory, and b_i that of the input gate, where the
    cell has both::

      b_f = ln u,  u ~ U[1, t_max - 1],    b_i = -b_f

    whatever the cell's own ``bias`` and ``forget_bias``. A GRU's update gate z keeps, and writes
    with 1 - z: b_z = ln u does both. Where a gate is written as what is forgotten (mgu, min_gru),
    its bias is -ln u.

    Args:
      cell: one of ``retaining()``.
      t_max: T_max, the longest dependency that the cell should hold, in steps, at least 2; a
        scalar, possibly traced.

    Raises:
      ValueError: for a cell with no such gate, or a ``t_max`` that is below 2 or not finite.

    >>> from gradlab import cells
    >>> cell = chrono(cells.make("lstm", inputs=2, hidden=64), t_max=100)
    >>> tau = -1 / cell.log_retention(jax.jit(cell.init)(jax.random.key(0)))
    >>> bool((tau >= 1 / jnp.log(2)).all() and (tau < 100).all())
    True

    Source: Tallec & Ollivier, "Can recurrent neural networks warp time?" (2018), equation 16 and,
    for the GRU, section 3.
    """
    return _keeping(cell, "chrono", initializers.chrono(t_max), mirrored=True)


def forget_bias(cell: Cell, value: ArrayLike) -> Cell:
    """The cell whose memory is kept by σ(``value``) at its initialization, nothing else changed.

    For every cell of ``retaining()``; the bias of the gate that keeps is set, not added to.

    Args:
      cell: one of ``retaining()``.
      value: b_f, a scalar, possibly traced.

    Raises:
      ValueError: for a cell with no such gate.

    >>> from gradlab import cells
    >>> cell = forget_bias(cells.make("mgu", inputs=2, hidden=3), 2.0)
    >>> jax.jit(cell.init)(jax.random.key(0))["bias"].tolist()
    [-2.0, -2.0, -2.0, 0.0, 0.0, 0.0]

    Source: Gers, Schmidhuber & Cummins, "Learning to forget" (2000); Jozefowicz, Zaremba &
    Sutskever, "An empirical exploration of recurrent network architectures" (2015), section 5.
    """
    return _keeping(cell, "forget_bias", initializers.forget_bias(value), mirrored=False)


def _keeping(cell: Cell, remedy: str, draw: Initializer, mirrored: bool) -> Cell:
    choose(f"cell for {remedy}", cell.name, _KEEPS)
    keeps, hidden = _KEEPS[cell.name], cell.hidden

    def init(key: Array, dtype: DTypeLike | None = None) -> Params:
        params = cell.init(key, dtype)
        b = params["bias"]
        # A key of its own: the weights stay those of the cell.
        gate_bias = draw(jax.random.fold_in(key, 1), (hidden,), b.dtype)
        b = b.at[keeps.gate * hidden : (keeps.gate + 1) * hidden].set(keeps.sign * gate_bias)
        if mirrored and keeps.writes is not None:
            b = b.at[keeps.writes * hidden : (keeps.writes + 1) * hidden].set(-gate_bias)
        return params | {"bias": b}

    return cell._replace(init=init)


def leak(cell: Cell, alpha: ArrayLike) -> Cell:
    """The cell with leaky connections from each state to the next, past the step.

    With s'_t what the cell makes of s_{t-1}, and for every leaf of the state::

      s_t = (1 - α) s_{t-1} + α s'_t,    ∂s_t/∂s_{t-1} = (1 - α) I + α ∂s'_t/∂s_{t-1}

    Args:
      cell: any but the slstm, the leaves of whose state have no fixed unit.
      alpha: α, in (0, 1], possibly traced; at 1 it is the cell itself.

    Returns:
      The cell. Its ``log_retention`` is in float32 at least, with no loss where a unit keeps nearly
      all; NaN where the cell's own is, or a traced α is NaN.

    Raises:
      ValueError: for an alpha that is a plain number outside (0, 1], or an slstm.

    >>> from gradlab import cells
    >>> cell = leak(cells.make("elman", inputs=1, hidden=2), 0.25)
    >>> params = jax.tree.map(jnp.zeros_like, cell.init(jax.random.key(0)))
    >>> cell.step(params, jnp.array([8.0, 4.0]), jnp.zeros(1)).tolist()
    [6.0, 3.0]

    Source: Jaeger, Lukoševičius, Popovici & Siewert, "Optimization and applications of echo state
    networks with leaky-integrator neurons" (2007), equation 4; Bengio, Boulanger-Lewandowski &
    Pascanu, "Advances in optimizing recurrent networks" (2013), section 3.2, on leaky units as skip
    connections through time.
    """
    check_numbers("leak", "above 0 and at most 1", lambda v: 0 < v <= 1, alpha=alpha)
    if cell.name == "slstm":
        raise ValueError("leak cannot mix states of slstm: their unit changes from step to step")
    inner = cell.log_retention

    def advance(params: Params, state: State, drive: Drive) -> State:
        def mix(old: Array, new: Array) -> Array:
            a = jnp.asarray(alpha, old.real.dtype)
            return (1 - a) * old + a * new

        return jax.tree.map(mix, state, cell.advance(params, state, drive))

    def log_retention(params: Params) -> Array:
        assert inner is not None
        log_kept = widen(inner(params))
        a = jnp.asarray(alpha, log_kept.dtype)
        # ln(1 - α + α k): 1 - k would cancel where k is near 1, and k underflow where it is small.
        near = log_kept > -1
        close = jnp.log1p(a * jnp.expm1(jnp.where(near, log_kept, 0)))
        far = jnp.logaddexp(jnp.log1p(-a), jnp.log(a) + jnp.where(near, -1, log_kept))
        return jnp.where(near, close, far)

    return cell._replace(advance=advance, log_retention=inner and log_retention)
