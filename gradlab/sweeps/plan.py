"""From a spec to its runs: coordinates, names, and which runs share a program."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from gradlab import cells
from gradlab.sweeps.spec import Spec

# Part of every run's name: a change of what a run measures makes new names.
VERSION = 4


# Which argument of a cell's builder an axis is about, where a cell may do without it.
OPTIONS = {
    "activation": "activation",
    "init": "recurrent",
    "gain": "recurrent",
    "forget_bias": "forget_bias",
    "bias_scale": "bias",
}


class Run(NamedTuple):
    """The coordinates of one run; None where a cell has no such option."""

    cell: str
    activation: str | None
    init: str | None
    gain: float | None
    weights: str
    forget_bias: float | None
    input: str
    input_scale: float
    bias_scale: float | None
    length: int
    hidden: int
    inputs: int
    batch: int
    seed: int

    @property
    def run_id(self) -> str:
        """A name that follows from the coordinates alone."""
        text = json.dumps([VERSION, *self])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def program(self) -> tuple[Any, ...]:
        """Runs that agree on this differ in arguments only, so they share compiled programs."""
        return (
            self.cell,
            self.activation,
            self.init,
            self.weights,
            self.input,
            self.hidden,
            self.inputs,
            self.length,
            self.batch,
            # The critical gain is found before a program is compiled, from these two.
            (self.input_scale, self.bias_scale) if self.init == "critical" else None,
        )


def runs(spec: Spec) -> Iterator[Run]:
    """Every run of the grid: an axis that a cell does not have does not multiply its runs.

    A run that stands in two blocks comes twice.

    >>> spec = Spec(cell=["gru", "lstm"], init=["normal"], gain=[1.0], length=[10],
    ...             forget_bias=[0.0, 1.0])
    >>> [(run.cell, run.forget_bias) for run in runs(spec)]
    [('gru', None), ('lstm', 0.0), ('lstm', 1.0)]
    """
    for grid in spec.grids():
        for cell in grid.cell:
            axes: list[Sequence[Any]] = []
            for field in Run._fields:
                if field == "cell":
                    axes.append([cell])
                elif OPTIONS.get(field, "inputs") not in cells.options(cell):
                    axes.append([None])
                else:
                    axes.append(getattr(grid, field))
            yield from itertools.starmap(Run, itertools.product(*axes))


def groups(todo: Sequence[Run]) -> list[list[Run]]:
    """The runs by shared program, those of one cell and shape together."""
    ordered = sorted(todo, key=lambda run: tuple(map(str, run.program)))
    return [list(group) for _, group in itertools.groupby(ordered, key=lambda run: run.program)]
