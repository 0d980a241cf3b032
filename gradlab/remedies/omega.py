"""Pascanu's regularizer, which keeps the norm of what a step carries back."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gradlab._norms import norm, widen
from gradlab.cells import Cell
from gradlab.tracing import trace


def omega(
    cell: Cell,
    params: dict[str, Array],
    states: Any,
    xs: Array,
    adjoints: Any,
    *,
    squared: bool = False,
    mean: bool = False,
) -> Array:
    """Ω of one sequence: how far each step is from carrying its adjoint back at its own norm.

    With λ_t = dL/ds_t the adjoint of the state s_t, and J_t = ∂s_t/∂s_{t-1}::

      r_t = ‖J_tᵀ λ_t‖ / ‖λ_t‖,    Ω = Σ_t (r_t - 1)²

    States and adjoints are held constant, so that the gradient is what the authors call the
    immediate derivative: it acts on J_t through the parameters alone, at no second backward pass
    through time. (For h_t = φ(W h_{t-1} + U x_t + b) it also acts on φ' at step t. In the authors'
    parametrization, whose state is the preactivation, J_t holds no other parameter than W: that is
    the cell ``leaky`` with ``dt=1``.)

    Args:
      cell: the step.
      params: its parameters.
      states: s_0..s_{T-1}, a state with leaves (T, H).
      xs: x_1..x_T, (T, D).
      adjoints: λ_1..λ_T in the layout of ``states``, as ``jax.grad`` gives them; each λ_t may have
        a scale of its own. Steps whose adjoint is exactly 0 do not count.
      squared: penalize (r_t² - 1)² instead, as the authors' code does.
      mean: divide by the number of steps that count, as the authors' code does: a strength α then
        means the same at every length.

    Returns:
      Ω, in float32 at least; 0 where no step counts. NaN where a state, an input, a parameter or an
      adjoint is NaN, and where an adjoint is infinite.

    Raises:
      ValueError: for no steps.

    >>> from gradlab import cells, initializers
    >>> cell = cells.make("elman", inputs=2, hidden=4, activation="linear",
    ...                   recurrent=initializers.orthogonal(1.5))
    >>> params = cell.init(jax.random.key(0))
    >>> hs, xs = jnp.zeros((10, 4)), jnp.zeros((10, 2))
    >>> round(float(omega(cell, params, hs, xs, jnp.ones((10, 4)))), 4)  # 10 (1.5 - 1)²
    2.5

    Source: Pascanu, Mikolov & Bengio, "On the difficulty of training recurrent neural networks"
    (2013), section 3.3, equations 9 and 10; ``squared`` and ``mean``: github.com/pascanur/
    trainingRNNs, which also leaves out steps where ‖λ_t‖² is below 1e-20.
    """
    if not len(xs):
        raise ValueError("omega needs at least one step, got an empty xs")
    states, adjoints = jax.lax.stop_gradient((states, adjoints))
    ready = cell.prepare(params)

    def ratio_of_norms(state: Any, x: Array, adjoint: Any) -> tuple[Array, Array]:
        # The unit of the largest entry first: squares of a small adjoint would underflow.
        unit = norm(adjoint).unit
        adjoint = jax.tree.map(lambda leaf: (widen(leaf) / unit).astype(leaf.dtype), adjoint)
        drive = cell.project(ready, x)
        _, pull = jax.vjp(lambda s: cell.advance(ready, s, drive), state)
        (earlier,) = pull(adjoint)
        before, after = norm(adjoint).squares, norm(earlier)
        # NaN counts: only an adjoint of exactly 0 does not.
        counts = before != 0
        # The root of an exact 0 has no derivative: such a step is left alone.
        size = jnp.sqrt(jnp.where(after.squares == 0, 1, after.squares)) * after.unit
        ratio = jnp.where(after.squares == 0, 0, size / jnp.sqrt(jnp.where(counts, before, 1)))
        return ratio, counts

    ratios, counts = jax.vmap(ratio_of_norms)(states, xs, adjoints)
    if squared:
        ratios = ratios**2
    total = jnp.sum(jnp.where(counts, (ratios - 1) ** 2, 0))
    return total / jnp.maximum(jnp.sum(counts), 1).astype(total.dtype) if mean else total


def omega_penalty(
    loss: Callable[[Any, Any], Any],
    cell: Cell,
    *,
    squared: bool = False,
    mean: bool = False,
    sequences: int | None = None,
    has_aux: bool = False,
) -> Callable[[Any, Any], Array]:
    """The mean of ``omega`` over a batch, with the states and adjoints of a loss, as a penalty.

    ``gradlab.trace`` measures s_t and λ_t in one more pass of the loss, each sample in a scale of
    its own, so that an adjoint below the float's range counts as any other.

    Args:
      loss: of (params, batch), as ``tasks.batch_loss`` of a ``tasks.network`` of the cell:
        ``params["cell"]`` are the cell's parameters, the first part of a batch is xs (B, T, D), and
        the first scan of the loss runs the cell over it, from the cell's ``start``.
      cell: the cell of the network.
      squared: as in ``omega``.
      mean: as in ``omega``.
      sequences: how many sequences of the batch to take, its first, which costs less; None for all.
      has_aux: whether the loss returns a pair.

    Returns:
      ``(params, batch) -> Ω``, for ``penalized``; NaN as ``omega`` gives it.

    Raises:
      ValueError: for ``sequences`` below 1.

    >>> from gradlab import cells, tasks
    >>> task = tasks.make("temporal_order", length=20)
    >>> cell = cells.make("elman", inputs=task.inputs, hidden=8)
    >>> network = tasks.network(cell, task.outputs)
    >>> loss = tasks.batch_loss(network, task)
    >>> penalty = jax.jit(omega_penalty(loss, cell, has_aux=True))
    >>> batch = jax.jit(tasks.batch_sampler(task, batch_size=4))(jax.random.key(0), 0)
    >>> bool(penalty(jax.jit(network.init)(jax.random.key(1)), batch) > 0)
    True
    """

    if sequences is not None and sequences < 1:
        raise ValueError(f"sequences must be at least 1, got {sequences}")

    def both(state: Any, adjoint: Any) -> tuple[Any, Any]:
        return state, adjoint

    trace_states = trace(loss, argnums=(), has_aux=has_aux, batch_axis=0, measure=both)

    def of_sample(params: Any, later: Any, xs: Array, adjoints: Any) -> Array:
        start = cell.start(jnp.result_type(*jax.tree.leaves(params)))
        states = jax.tree.map(lambda s, h: jnp.concatenate([s[None], h[:-1]]), start, later)
        return omega(cell, params, states, xs, adjoints, squared=squared, mean=mean)

    def penalty(params: Any, batch: Any) -> Array:
        batch = jax.tree.map(lambda leaf: leaf[:sequences], batch)
        scan = trace_states(*jax.lax.stop_gradient((params, batch))).scans[0]
        tree = jax.tree.structure(cell.start())
        states, adjoints = (_as_state(part, tree) for part in scan.measured)
        each = jax.vmap(of_sample, in_axes=(None, 1, 0, 1))
        return jnp.mean(each(params["cell"], states, batch[0], adjoints))

    return penalty


def _as_state(part: Any, tree: Any) -> Any:
    """The state that ``measure`` saw as one array, or as a dict of its leaves by their numbers."""
    leaves = [part[name] for name in sorted(part, key=int)] if isinstance(part, dict) else [part]
    return jax.tree.unflatten(tree, leaves)
