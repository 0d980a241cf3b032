"""Gradient flossing: Lyapunov exponents pulled towards zero."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradlab.cells import Cell
from gradlab.spectrum import lyapunov


def flossing(
    cell: Cell,
    params: dict[str, Array],
    xs: Array,
    k: int,
    *,
    target: ArrayLike = 0.0,
    burn_in: int = 0,
    qr_every: int = 1,
    key: Array | None = None,
) -> Array:
    """The mean square of the first k Lyapunov exponents of the cell along one sequence.

    With λ_1..λ_k in nats per step, from T steps after the burn-in, and g = ``target``::

      P = (1/k) Σ_{i≤k} (λ_i - g)²

    Its gradient goes through the orbit, the tangents and their QR factorizations. As a penalty it
    flosses during training; as the whole loss, before it.

    Args:
      cell: the step.
      params: its parameters.
      xs: the inputs of the burn-in and of the T steps after it, (burn_in + T, D).
      k: how many exponents, the largest first; at most the size of the state.
      target: g, in nats per step; a scalar or (k,), possibly traced.
      burn_in: how many steps are made first, from the cell's ``start``, whose growth does not
        count: while the tangents find the leading directions.
      qr_every: steps between factorizations; it must divide T and the burn-in.
      key: draws the first tangents; without it, always the same.

    Returns:
      P, in float32 at least. NaN where the orbit or its inputs do not stay finite, infinite where
      an exponent is.

    Raises:
      ValueError: as ``gradlab.spectrum.lyapunov`` does.

    Exponents below zero, and those of an exploding linear network, are pulled in a few hundred
    updates over some tens of steps. A chaotic orbit, however, has a gradient that explodes with T
    as any other, and turns at random: it hardly pulls, clipped or not. An exponent of -∞ (a relu
    that is off) has no gradient that is finite.

    >>> from gradlab import cells, initializers
    >>> cell = cells.make("elman", inputs=1, hidden=4, activation="linear",
    ...                   recurrent=initializers.orthogonal(0.5))
    >>> penalty = jax.jit(lambda params: flossing(cell, params, jnp.zeros((20, 1)), k=2))
    >>> round(float(penalty(cell.init(jax.random.key(0)))), 4)  # (ln 0.5)²
    0.4805

    Source: Engelken, "Gradient flossing: improving gradient descent through dynamic control of
    Jacobians" (2023), section 3; the mean, and the target, as in github.com/RainerEngelken/
    GradientFlossing.
    """
    ready = cell.prepare(params)
    start = cell.start(jnp.result_type(*jax.tree.leaves((params, xs))))
    drives = jax.vmap(lambda x: cell.project(ready, x))(xs)
    spectrum = lyapunov(
        lambda state, drive: cell.advance(ready, state, drive),
        start,
        drives,
        k=k,
        burn_in=burn_in,
        qr_every=qr_every,
        key=key,
    )
    return jnp.mean((spectrum.exponents - jnp.asarray(target, spectrum.exponents.dtype)) ** 2)


def flossing_penalty(
    cell: Cell,
    k: int,
    *,
    sequences: int = 1,
    target: ArrayLike = 0.0,
    burn_in: int = 0,
    qr_every: int = 1,
) -> Callable[[Any, Any], Array]:
    """The mean of ``flossing`` over the first sequences of a batch, as a penalty.

    Args:
      cell: the cell of a ``tasks.network``: ``params["cell"]`` are its parameters, and the first
        part of a batch is xs (B, T, D).
      k: as in ``flossing``, with ``target``, ``burn_in`` and ``qr_every``.
      sequences: how many sequences of the batch, at most B; the author flosses with 1.

    Returns:
      ``(params, batch) -> P``, for ``penalized``, or as the whole loss of ``gradlab.train``, to
      floss before training; NaN as ``flossing`` gives it.

    Raises:
      ValueError: for ``sequences`` below 1.

    >>> from gradlab import cells, tasks
    >>> task = tasks.make("adding", length=20)
    >>> cell = cells.make("gru", inputs=task.inputs, hidden=8)
    >>> params = jax.jit(tasks.network(cell, task.outputs).init)(jax.random.key(1))
    >>> batch = jax.jit(tasks.batch_sampler(task, batch_size=4))(jax.random.key(0), 0)
    >>> jax.jit(flossing_penalty(cell, k=3))(params, batch).shape
    ()
    """

    if sequences < 1:
        raise ValueError(f"sequences must be at least 1, got {sequences}")

    def penalty(params: Any, batch: Any) -> Array:
        def of_sample(xs: Array) -> Array:
            return flossing(
                cell, params["cell"], xs, k, target=target, burn_in=burn_in, qr_every=qr_every
            )

        return jnp.mean(jax.vmap(of_sample)(batch[0][:sequences]))

    return penalty
