"""The probe: a loss that reads the last state along one fixed random direction.

L = v·h_T with v ~ N(0, I/n), so that the gradient starts at dL/dh_T = v, whose norm is close to
1 whatever the cell or its width n, and what is left of it at step t is the recurrence's doing.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from gradlab.tasks import _checks

if TYPE_CHECKING:
    from gradlab.cells import Cell


def direction(key: PRNGKeyArray, hidden: int, dtype=None) -> Float[Array, " hidden"]:
    """A random direction v ~ N(0, I/n) in the space of the hidden state; E‖v‖² = 1.

    Args:
        key: the randomness; the same key gives the same direction.
        hidden: the width n of the state, at least 1.
        dtype: a floating type; JAX's default float if None.

    Returns:
        v of shape (hidden,).

    Raises:
        ValueError: if hidden is below 1, or dtype is not floating.

    >>> import jax
    >>> direction(jax.random.key(0), hidden=16).shape
    (16,)
    """
    _checks.positive(hidden=hidden)
    return jax.random.normal(key, (hidden,), _checks.floating(dtype)) / hidden**0.5


def loss(
    cell: "Cell", direction: Float[Array, " hidden"]
) -> Callable[[PyTree, Float[Array, "length inputs"]], Float[Array, ""]]:
    """The probe's loss as a function of the cell's parameters and one input sequence.

    L(params, xs) = v·h_T, with h_t = read(s_t), s_t = step(params, s_{t-1}, x_t), s_0 = start().
    What needs the parameters alone (the cell's `prepare`) is computed once, and what does not need
    the state (its `project`) for all steps in one product, before the one `lax.scan`.

    Args:
        cell: the recurrent map; `params` comes from its `init`.
        direction: v, of shape (cell.hidden,); see `direction`.

    Returns:
        A function of params and xs, of shape (T, cell.inputs), unbatched, to the scalar L.

    Raises:
        ValueError: if v has not the shape (cell.hidden,).

    >>> import jax
    >>> from gradlab import cells
    >>> from gradlab.tasks import gaussian
    >>> key = jax.random.key(0)
    >>> cell = cells.make("elman", inputs=3, hidden=5)
    >>> value = loss(cell, direction(key, cell.hidden))
    >>> value(cell.init(key), gaussian.gaussian(key, length=10, features=3)).shape
    ()
    """
    value_and_finite = checked_loss(cell, direction)
    return lambda params, xs: value_and_finite(params, xs)[0]


def untied_loss(
    cell: "Cell", direction: Float[Array, " hidden"], batched: bool = False
) -> Callable[
    [PRNGKeyArray, Float[Array, "length *batch inputs"]],
    tuple[Float[Array, ""], Bool[Array, " length"]],
]:
    """`checked_loss` of the cell with parameters drawn afresh at every step.

    L(key, xs) = v·h_T with s_t = step(init(key_t), s_{t-1}, x_t) and key_1..key_T split from the
    key. This is the network that mean-field theory describes: a deep one, a layer for each step.

    Args:
        cell: the recurrent map; its `init` draws the parameters of each step.
        direction: v, of shape (cell.hidden,); see `direction`.
        batched: whether xs are several sequences, as in `checked_loss`.

    Returns:
        A function of a key and xs, of shape (T, cell.inputs), to (L, finite).

    Raises:
        ValueError: if v has not the shape (cell.hidden,).

    Source: Chen, Pennington and Schoenholz (2018), "Dynamical isometry and a mean field theory of
    RNNs", section 3: their untied-weights assumption.

    >>> import jax
    >>> from gradlab import cells
    >>> cell = cells.make("gru", inputs=1, hidden=2)
    >>> loss = untied_loss(cell, jax.numpy.ones(2))
    >>> _, finite = loss(jax.random.key(0), jax.numpy.ones((3, 1)))
    >>> finite.shape
    (3,)
    """
    _check_direction(cell, direction)
    each, start, read_out = _BATCHED if batched else _LONE

    def value(key, xs):
        dtype = xs.dtype

        def body(state, row):
            key_t, x = row
            state = each(functools.partial(cell.step, cell.init(key_t, dtype)))(state, x)
            return state, jnp.isfinite(each(cell.read)(state)).all()

        keys = jax.random.split(key, len(xs))
        last, finite = jax.lax.scan(body, start(cell, dtype, xs), (keys, xs))
        return read_out(direction, each(cell.read)(last)), finite

    return value


class _Layout(NamedTuple):
    """How one sequence, or several at once, go through a cell."""

    each: Callable[..., Any]
    start: Callable[..., Any]
    read_out: Callable[..., Array]


def _starts(cell: "Cell", dtype: Any, xs: Array) -> Any:
    return jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (xs.shape[1], *leaf.shape)), cell.start(dtype)
    )


_LONE = _Layout(lambda f: f, lambda cell, dtype, xs: cell.start(dtype), jnp.dot)
_BATCHED = _Layout(jax.vmap, _starts, lambda v, states: jnp.sum(states @ v))


def _check_direction(cell: "Cell", direction: Array) -> None:
    if direction.shape != (cell.hidden,):
        raise ValueError(f"direction must have shape ({cell.hidden},), got {direction.shape}")


def checked_loss(
    cell: "Cell", direction: Float[Array, " hidden"], batched: bool = False
) -> Callable[
    [PyTree, Float[Array, "length *batch inputs"]], tuple[Float[Array, ""], Bool[Array, " length"]]
]:
    """`loss` with an auxiliary output: whether every entry of h_t is finite, for t = 1..T.

    Arguments, errors and the loss are those of `loss`; the function returned gives
    (L, finite) with finite of shape (T,). With `batched`, xs are several sequences that go through
    the same parameters, (T, batch, inputs); L is the sum of theirs, `finite` asks for all of them,
    and the leading axis of the state counts them.

    >>> import jax
    >>> from gradlab import cells
    >>> cell = cells.make("elman", inputs=1, hidden=2, activation="linear",
    ...                   recurrent=jax.nn.initializers.constant(1e30))
    >>> value = checked_loss(cell, jax.numpy.ones(2))
    >>> key = jax.random.key(0)
    >>> _, finite = value(cell.init(key, jax.numpy.float32), jax.numpy.ones((3, 1), "float32"))
    >>> finite.tolist()
    [True, True, False]
    """
    _check_direction(cell, direction)
    each, start, read_out = _BATCHED if batched else _LONE

    def value(params, xs):
        dtype = jnp.result_type(*jax.tree.leaves((params, xs)))
        ready = cell.prepare(params)
        drives = jax.vmap(each(lambda x: cell.project(ready, x)))(xs)

        def body(state, drive):
            state = each(functools.partial(cell.advance, ready))(state, drive)
            return state, jnp.isfinite(each(cell.read)(state)).all()

        last, finite = jax.lax.scan(body, start(cell, dtype, xs), drives)
        return read_out(direction, each(cell.read)(last)), finite

    return value
