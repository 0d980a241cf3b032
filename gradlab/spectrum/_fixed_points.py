"""Fixed points and slow points of a step, found from states along an orbit."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradlab._norms import log_norm
from gradlab.spectrum._system import ravel_step

if TYPE_CHECKING:
    import optax

# Newton's steps after the search: each doubles the digits.
_POLISH = 8


class FixedPoints(NamedTuple):
    """What a search from M states found, in their order, of n coordinates each.

    Attributes:
      states: (M, n), the real coordinates where each search ended.
      log_speed: ln q, (M,), with q = ½ ‖step(h) - h‖²: -inf where the state does not move at all,
        NaN where the search left the float's range.
      eigenvalues: (M, n) complex, of the Jacobian there, the largest modulus first.
      unstable: how many of them lie outside the unit circle, (M,): 0 for a stable point, n for a
        repeller, and a saddle between; -1 where an eigenvalue is NaN.
      group: (M,), the first search that ended at the same place, to within ``same``: the distinct
        points are those with ``group == arange(M)``. NaN states are in groups of their own.
      found: (M,), whether the point is a fixed one: ``log_speed`` is at most that of the tolerance.
    """

    states: Array
    log_speed: Array
    eigenvalues: Array
    unstable: Array
    group: Array
    found: Array


def fixed_points(
    step: Callable[..., Any],
    states: Any,
    x: Any = None,
    *,
    optimizer: "optax.GradientTransformation | None" = None,
    steps: int = 1000,
    tolerance: float | None = None,
    same: float = 1e-3,
) -> FixedPoints:
    """Search for the fixed points of h -> step(h, x) from given states, and classify them.

    From each state the speed is minimized, and then Newton's steps are made while they lower it::

      q(h) = ½ ‖step(h, x) - h‖²,   h - (J - I)⁻¹ (step(h, x) - h)

    A minimum with q > 0 is a slow point: not found, but of use where its ``log_speed`` is low.

    Args:
      step: ``step(state)``, or ``step(state, x)`` where ``x`` is given; returns the next state.
      states: where the searches start, such as states along the orbits of data: a pytree whose
        leaves, floats all, have one leading axis of M.
      x: an input that stays, often that of zeros.
      optimizer: of optax; without it, Adam at a rate that falls from 0.1 to 0.001.
      steps: how many updates it makes.
      tolerance: the largest entry of step(h) - h that still counts as none; without it, the float's
        eps^¾, 6e-6 in float32.
      same: how far two points may lie from each other, in the largest of the coordinates, to count
        as one.

    Returns:
      A ``FixedPoints``. A search whose speed becomes NaN has NaN everywhere and found no point.

    Raises:
      ValueError: for states with leaves other than floats or of several numbers of rows.

    >>> W = jnp.array([[2.0, 0.0], [0.0, 0.5]])
    >>> starts = jnp.array([[0.5, 0.1], [-0.5, 0.1], [0.01, 0.3]])
    >>> points = fixed_points(lambda h: jnp.tanh(W @ h), starts)
    >>> [round(float(h), 3) + 0.0 for h in points.states[:, 0]]
    [0.958, -0.958, 0.0]
    >>> points.unstable.tolist(), points.found.tolist()
    ([0, 0, 1], [True, True, True])

    Source: Sussillo & Barak, "Opening the black box: low-dimensional dynamics in high-dimensional
    recurrent neural networks" (2013), section 2.
    """
    import optax

    rows = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(states)}
    if len(rows) != 1 or () in rows:
        raise ValueError("every leaf of states needs a leading axis, of one length")
    system = ravel_step(step, jax.tree.map(lambda leaf: jnp.asarray(leaf)[0], states))
    if system.others:
        raise ValueError("a search for fixed points is for states of floats alone")
    if optimizer is None:
        optimizer = optax.adam(optax.exponential_decay(0.1, max(steps, 1), 0.01))
    inputs = () if x is None else (x,)
    largest = system.eps**0.75 if tolerance is None else tolerance

    def off(h: Array) -> Array:
        return system.move(h, [], *inputs)[0] - h

    def speed(h: Array) -> Array:
        return jnp.sum(off(h) ** 2) / 2

    def polish(h: Array, _: None) -> tuple[Array, None]:
        new = h - jnp.linalg.solve(jax.jacfwd(off)(h), off(h))
        return jnp.where(speed(new) < speed(h), new, h), None

    def search(h: Array) -> tuple[Array, ...]:
        def update(carry: Any, _: None) -> tuple[Any, None]:
            h, state = carry
            change, state = optimizer.update(jax.grad(speed)(h), state, h)
            return (optax.apply_updates(h, change), state), None

        (h, _), _ = jax.lax.scan(update, (h, optimizer.init(h)), length=steps)
        h, _ = jax.lax.scan(polish, h, length=_POLISH)
        values = jnp.linalg.eigvals(jax.jacfwd(off)(h) + jnp.eye(h.size, dtype=h.dtype))
        values = values[jnp.lexsort((-values.imag, -jnp.abs(values)))]
        finite = jnp.isfinite(speed(h))
        unstable = jnp.where(finite, jnp.sum(jnp.abs(values) > 1), -1)
        is_fixed = finite & (jnp.abs(off(h)).max() <= largest)
        log = 2 * log_norm(off(h)) - math.log(2)
        h, log, values = (jnp.where(finite, each, jnp.nan) for each in (h, log, values))
        return h, log, values, unstable, is_fixed

    starts = jax.vmap(lambda state: ravel_step(step, state).start)(states)
    h, log_speed, values, unstable, found = jax.jit(jax.vmap(search))(starts)

    def find_first(i: Array) -> Array:
        near = jnp.abs(h - h[i][None]).max(-1) <= same
        return jnp.argmax(near | (jnp.arange(len(h)) == i))

    # Row by row: there may be tens of thousands of searches.
    group = jax.lax.map(find_first, jnp.arange(len(h)))
    return FixedPoints(h, log_speed, values, unstable, group, found)
