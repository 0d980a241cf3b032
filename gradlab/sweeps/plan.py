"""From a spec to its runs, lazily: coordinates, names, and which runs share a program."""

from __future__ import annotations

import collections
import graphlib
import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from gradlab import cells

# Part of every run's name: a change of what a run measures makes new names.
VERSION = 4

# A grid: every combination of the values of its axes, in the order of a run's coordinates.
Axes = dict[str, tuple[Any, ...]]

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
        text = repr((VERSION, *self))
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

    @classmethod
    def narrow(cls, axes: Axes) -> list[Axes]:
        """Axes without those that a cell has no option for: they do not multiply its runs."""
        made = []
        for cell in axes["cell"]:
            lacks = {
                field: (None,)
                for field in cls._fields
                if OPTIONS.get(field, "inputs") not in cells.options(cell)
            }
            made.append(axes | lacks | {"cell": (cell,)})
        return made

    @classmethod
    def free(cls, axes: Axes) -> tuple[str, ...]:
        """The axes whose values make no other program."""
        free = ("gain", "forget_bias", "seed")
        return free if "critical" in axes["init"] else (*free, "input_scale", "bias_scale")


class Plan:
    """The runs of a spec, without a list of them: a union of disjoint grids.

    `len(plan)` counts the runs and `plan.programs()` those that differ in more than arguments, both
    without going through them; `iter(plan)` makes one run after the other, each once, whatever
    stands in two blocks.

    Args:
        spec: the grid; see `gradlab.sweeps.load`.
        kind: what a run is: a NamedTuple of its coordinates with a `run_id` and a `program`, and
            the class methods `narrow` and `free`.

    >>> from gradlab.sweeps.spec import Spec
    >>> spec = Spec(cell=["gru", "lstm"], init=["normal"], gain=[1.0], length=[10],
    ...             forget_bias=[0.0, 1.0])
    >>> plan = Plan(spec, Run)
    >>> len(plan), [(run.cell, run.forget_bias) for run in plan]
    (3, [('gru', None), ('lstm', 0.0), ('lstm', 1.0)])
    """

    def __init__(self, spec: Any, kind: Any) -> None:
        self.kind = kind
        self._union = _Union(kind._fields)
        self.add(spec)

    def add(self, spec: Any) -> None:
        """Take in the runs of one more spec."""
        kind = self.kind
        for grid in spec.grids():
            values = {name: getattr(grid, name) for name in kind._fields}
            axes = {k: tuple(v) if isinstance(v, list) else (v,) for k, v in values.items()}
            for part in _conditioned(grid, axes):
                for new in kind.narrow(part):
                    self._union.add(new)

    @property
    def grids(self) -> list[Axes]:
        """The disjoint grids."""
        return self._union.grids

    def __len__(self) -> int:
        return count(self.grids)

    def __iter__(self) -> Iterator[Any]:
        return itertools.chain.from_iterable(self.runs(axes) for axes in self.grids)

    def runs(self, axes: Axes) -> Iterator[Any]:
        """The runs of one grid, seed by seed at each point."""
        return itertools.starmap(self.kind, itertools.product(*axes.values()))

    def programs(self) -> dict[Any, list[Axes]]:
        """The grids of the runs that share a program, by what `Run.program` says of it.

        Those of one cell and shape stand together.
        """
        found: dict[Any, list[Axes]] = {}
        for axes in self.grids:
            free = self.kind.free(axes)
            choices = {k: [(v,) for v in values] for k, values in axes.items() if k not in free}
            for chosen in itertools.product(*choices.values()):
                one = axes | dict(zip(choices, chosen, strict=True))
                first = self.kind(*(values[0] for values in one.values()))
                found.setdefault(first.program, []).append(one)
        return dict(sorted(found.items(), key=lambda item: tuple(map(str, item[0]))))

    def covers(self, other: Plan) -> bool:
        """Whether every run of another plan is one of this plan."""
        return not any(map(self._union.outside, other.grids))


def count(grids: Iterable[Axes]) -> int:
    """How many runs disjoint grids have."""
    return sum(math.prod(map(len, axes.values())) for axes in grids)


def _conditioned(grid: Any, axes: Axes) -> list[Axes]:
    """The axes cut by the conditions under which they are varied."""
    parts = [axes]
    # An axis is settled before the conditions that are about it.
    ordered = graphlib.TopologicalSorter(grid.when).static_order()
    for axis in [axis for axis in ordered if axis in grid.when]:
        condition, otherwise = grid.when[axis], tuple(grid.otherwise(axis))
        cut = []
        for part in parts:
            met = part | {k: tuple(v for v in part[k] if v in condition[k]) for k in condition}
            cut += [met] if count([met]) else []
            cut += [rest | {axis: otherwise} for rest in _outside(part, [met])]
        parts = cut
    return parts


class _Union:
    """Disjoint grids, which are found by the values on their axes."""

    def __init__(self, names: Iterable[str]) -> None:
        self.grids: list[Axes] = []
        self._places: dict[str, dict[Any, list[int]]]
        self._places = {name: collections.defaultdict(list) for name in names}

    def add(self, axes: Axes) -> None:
        """Take in the points of a grid that lie in no other."""
        for part in self.outside(axes):
            for name, values in part.items():
                for value in values:
                    self._places[name][value].append(len(self.grids))
            self.grids.append(part)

    def outside(self, axes: Axes) -> list[Axes]:
        """Disjoint grids of the points of a grid that lie in none of these."""
        shared = [
            [places[value] for value in axes[name] if value in places]
            for name, places in self._places.items()
        ]
        fewest = min(shared, key=lambda lists: sum(map(len, lists)))
        near = sorted(set(itertools.chain.from_iterable(fewest)))
        return _outside(axes, [self.grids[place] for place in near])


def _outside(axes: Axes, others: Iterable[Axes]) -> list[Axes]:
    """Disjoint grids of the points that lie in no other grid."""
    parts = [axes]
    for other in others:
        parts = [rest for part in parts for rest in _difference(part, other)]
    return parts


def _difference(axes: Axes, other: Axes) -> list[Axes]:
    shared = {}
    for name, values in axes.items():
        known = set(other[name])
        shared[name] = tuple(value for value in values if value in known)
        if not shared[name]:
            return [axes]
    parts, inside = [], dict(axes)
    for name, values in axes.items():
        known = set(shared[name])
        left = tuple(value for value in values if value not in known)
        if left:
            parts.append(inside | {name: left})
        inside[name] = shared[name]
    return parts
