"""What a sweep of training records: `gradlab.training.recorders`, built for the network of a run.

All of them are of the batch that an evaluation traces. Those along an orbit start at the cell's own
start and go along the inputs of its first sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradlab import cells
from gradlab.training import recorders
from gradlab.training.recorders import Function

# How many Lyapunov exponents, and from the ends of how many sequences fixed points are searched.
EXPONENTS, SEARCHES = 8, 4


def states(cell: cells.Cell, params: Any, xs: jax.Array) -> jax.Array:
    """h_1..h_T of each of the sequences xs (B, T, D), ravelled: (B, T, n)."""
    start, ready = cell.start(jnp.float32), cell.prepare(params)
    return jax.vmap(lambda each: recorders.states(cell.step, start, each)(ready))(xs)


class Subject(NamedTuple):
    """What is recorded.

    Attributes:
        cell: of the network.
        loss: (params, batch) -> the task's loss and a report, without penalties. Its gradient is
            cut at the run's `window`, as that of the training is.
        whole_loss: the same without a window.
        batch: inputs (B, T, D) and targets.
    """

    cell: cells.Cell
    loss: Callable[..., Any]
    whole_loss: Callable[..., Any]
    batch: Any

    @property
    def start(self) -> Any:
        """h_0."""
        return self.cell.start(jnp.float32)

    @property
    def orbit(self) -> tuple[Any, Any, Any]:
        """The step, h_0 and the inputs of the first sequence."""
        return self.cell.step, self.start, self.batch[0][0]

    def of_cell(self, function: Function) -> Function:
        """A function of the cell's own parameters as one of the network's."""
        # Prepared once: in the body of a scan it would be done at every step.
        return lambda params: function(self.cell.prepare(params["cell"]))

    def ends(self, params: Any) -> Any:
        """h_T of the first sequences."""

        def last(xs: Any) -> Any:
            step = self.cell.step
            return jax.lax.scan(lambda h, x: (step(params, h, x), None), self.start, xs)[0]

        return jax.vmap(last)(self.batch[0][:SEARCHES])


def _fixed_points(of: Subject) -> Function:
    x = jnp.zeros_like(of.batch[0][0, 0])

    def function(params: Any) -> Any:
        return recorders.fixed_point_eigenvalues(of.cell.step, of.ends(params), x)(params)

    return of.of_cell(function)


def _exponents(of: Subject) -> Function:
    leaves = jax.tree.leaves(of.start)
    coordinates = sum(leaf.size * (2 if jnp.iscomplexobj(leaf) else 1) for leaf in leaves)
    return of.of_cell(recorders.lyapunov(*of.orbit, k=min(EXPONENTS, coordinates)))


BUILDERS: dict[str, Callable[[Subject], Function]] = {
    "eigenvalues": lambda of: of.of_cell(recorders.eigenvalues(of.cell.matrices)),
    "fixed_point_eigenvalues": _fixed_points,
    "hessian_eigenvalues": lambda of: recorders.hessian_eigenvalues(
        of.whole_loss, of.batch, has_aux=True
    ),
    "jacobian_eigenvalues": lambda of: of.of_cell(recorders.jacobian_eigenvalues(*of.orbit)),
    "log_gradient_norms": lambda of: recorders.log_gradient_norms(of.loss, of.batch, has_aux=True),
    "log_norms": lambda of: recorders.log_norms(),
    "lyapunov": _exponents,
    "participation_ratio": lambda of: recorders.participation_ratio(
        lambda params: states(of.cell, params["cell"], of.batch[0])
    ),
    "singular_values": lambda of: of.of_cell(recorders.singular_values(of.cell.matrices)),
    "spectral_radius": lambda of: of.of_cell(recorders.spectral_radius(of.cell.matrices)),
    "time_constants": lambda of: recorders.time_constants(of.cell, lambda params: params["cell"]),
}
"""The names that the axis `record` has (`gradlab.frames.training.RECORDERS`), and what they are."""


def build(names: str, of: Subject) -> dict[str, Function]:
    """The functions of the parameters of a network that a run's `record` names.

    Raises:
        ValueError: for a cell that lacks what one of them needs.
    """
    functions = {}
    for name in names.split():
        try:
            functions[name] = BUILDERS[name](of)
        except ValueError as error:
            raise ValueError(f"record {name}: {error}") from None
    return functions
