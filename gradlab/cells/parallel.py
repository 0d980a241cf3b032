"""Cells whose recurrence is linear and elementwise: all their states at once."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from gradlab.cells.base import Cell, Drive, Params, State


@dataclasses.dataclass(frozen=True)
class LinearRecurrence:
    """The `advance` of a cell whose recurrence is linear and elementwise::

        s_t = a_t ⊙ s_{t-1} + b_t,   (a_t, b_t) = coefficients(params, drive_t)

    A cell whose `advance` is one has a parallel form, which `parallel` gives.

    Attributes:
        coefficients: `(params, drive) -> (a, b)`, each of the state's structure, and each leaf of
            a shape that broadcasts to that of the state's leaf. They do not read the state.

    >>> ema = LinearRecurrence(lambda params, drive: (params["keep"], drive))
    >>> float(ema({"keep": 0.5}, 4.0, 1.0))
    3.0
    """

    coefficients: Callable[[Params, Drive], tuple[State, State]]

    def __call__(self, params: Params, state: State, drive: Drive) -> State:
        """One step."""
        a, b = self.coefficients(params, drive)
        return jax.tree.map(lambda s, a, b: a * s + b, state, a, b)


def parallel(cell: Cell) -> Callable[[Params, State, Array], State]:
    """The parallel form of a cell: all states of a sequence by one `jax.lax.associative_scan`.

    With s_t = a_t ⊙ s_{t-1} + b_t, two steps after each other are one of the same form,
    (a, b) then (a', b') = (a' ⊙ a, a' ⊙ b + b'), and this product is associative: T steps take
    log T levels. h_0 enters through b_1, so that row t is the state after input t.

    The cells `lru`, `min_gru`, `min_lstm`, and `indrnn` with `activation="linear"` have this form.
    A user's own cell has it where its `advance` is a `LinearRecurrence`.

    Args:
        cell: a cell whose `advance` is a `LinearRecurrence`.

    Returns:
        `(params, state, xs) -> states`, with xs (T, inputs) and the states s_1..s_T stacked along
        the first axis: to rounding what `jax.lax.scan` over `cell.step` gives, as are the
        gradients, and in `gradlab.trace` the record of each step. (There the products of a are
        leaves of the state as well, whose adjoint is 0.) `cell.read`, mapped over the states, gives
        h. A NaN in one step is in all later states. So is one where a product of a overflows and
        meets a state of 0; the scan over steps has neither the product nor the NaN.

    Raises:
        ValueError: for a cell without a linear recurrence.

    >>> from gradlab import cells
    >>> cell = cells.min_gru(inputs=3, hidden=5)
    >>> params, xs = cell.init(jax.random.key(0)), jnp.ones((7, 3))
    >>> states = jax.jit(parallel(cell))(params, cell.start(), xs)
    >>> last, _ = jax.lax.scan(lambda h, x: (cell.step(params, h, x), None), cell.start(), xs)
    >>> states.shape, bool(jnp.allclose(states[-1], last))
    ((7, 5), True)

    A cell of one's own, h_t = u ⊙ h_{t-1} + U x_t + b:

    >>> recurrence = LinearRecurrence(lambda params, drive: (params["u"], drive))
    >>> init = cells.base.add_leaves(cells.gate_init(3, 5), u=(jax.nn.initializers.ones, (5,)))
    >>> mine = cells.Cell(3, 5, init, recurrence)
    >>> jax.eval_shape(parallel(mine), mine.init(jax.random.key(0)), mine.start(), xs).shape
    (7, 5)

    Source: Blelloch, "Prefix sums and their applications" (1990), section 1.4; Martin and Cundy,
    "Parallelizing linear recurrent neural nets over sequence length" (2018), section 2.
    """
    advance = cell.advance
    if not isinstance(advance, LinearRecurrence):
        raise ValueError(
            f"the cell {cell.name or 'without a name'} has no parallel form, since its advance is "
            "no gradlab.cells.LinearRecurrence; lru, min_gru, min_lstm and indrnn with "
            'activation="linear" have one'
        )

    def states(params: Params, state: State, xs: Array) -> State:
        if len(xs) < 2:
            # There is nothing to combine, so no recurrence would be left for `trace` to see.
            return jax.lax.scan(lambda s, x: (cell.step(params, s, x),) * 2, state, xs)[1]
        ready = cell.prepare(params)

        def elements(x: Array) -> tuple[State, State]:
            def fill(part: Array, s: Array) -> Array:
                return jnp.broadcast_to(part, s.shape).astype(s.dtype)

            a, b = advance.coefficients(ready, cell.project(ready, x))
            return jax.tree.map(fill, a, state), jax.tree.map(fill, b, state)

        a, b = jax.vmap(elements)(xs)
        b = jax.tree.map(lambda a, b, s: b.at[0].add(a[0] * s), a, b, state)
        return jax.lax.associative_scan(_combine, (a, b))[1]

    return states


def _combine(early: tuple[State, State], late: tuple[State, State]) -> tuple[State, State]:
    (a, b), (after, new) = early, late
    product = jax.tree.map(jnp.multiply, after, a)
    return product, jax.tree.map(lambda after, b, new: after * b + new, after, b, new)
