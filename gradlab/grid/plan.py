"""From a spec to its runs, lazily: their coordinates, and which of them share a program."""

from __future__ import annotations

import collections
import graphlib
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

from gradlab.grid.measurement import Axes, Run
from gradlab.grid.spec import MOST_GRIDS, check_number

# Runs, and programs of them: more than any machine has ever gone through.
MOST_RUNS, MOST_PROGRAMS = 10**9, 20_000
# Whether an axis is off: at its default.
_SIDES = (True, False)


class Plan:
    """The runs of a spec, without a list of them: a union of disjoint grids.

    `len(plan)` counts the runs and `plan.programs()` those that differ in more than arguments, both
    without going through them; `iter(plan)` makes one run after the other, each once, whatever
    stands in two blocks.

    Args:
        spec: the grid; see `gradlab.sweeps.load`.

    Raises:
        ValueError: where there are more grids, programs or runs than could be gone through.

    >>> from gradlab.sweeps import parse
    >>> plan = Plan(parse({"cell": ["gru", "lstm"], "init": "normal", "gain": 1.0, "length": 10,
    ...                    "forget_bias": [0.0, 1.0]}))
    >>> len(plan), [(run.cell, run.forget_bias) for run in plan]
    (3, [('gru', None), ('lstm', 0.0), ('lstm', 1.0)])
    """

    def __init__(self, spec: Any) -> None:
        self.measurement = spec.measurement
        self._union = _Union((*spec.axes(), "code"))
        self.add(spec)
        programs = sum(math.prod(map(len, self._choices(axes).values())) for axes in self.grids)
        check_number("programs", [programs], MOST_PROGRAMS)
        check_number("runs", [count(self.grids)], MOST_RUNS)

    def add(self, spec: Any) -> None:
        """Take in the runs of one more spec."""
        for grid in spec.grids():
            for part in _apply_conditions(grid, grid.values()):
                for axes in self.measurement.parts(part):
                    self._union.add(axes if "code" in axes else axes | {"code": ("",)})
                check_number("grids", [len(self.grids)], 2 * MOST_GRIDS)

    def _choices(self, axes: Axes) -> dict[str, list[tuple[Any, ...]]]:
        """The values of each axis that decides a program, those of one program together."""
        off = {axis.name: axis.default for axis in self.measurement.schema.axes if axis.switch}
        arguments = self.measurement.arguments(axes)
        choices = {}
        for name, values in axes.items():
            if name in off:
                sides = (tuple(v for v in values if (v in (off[name], None)) is o) for o in _SIDES)
                choices[name] = [side for side in sides if side]
            elif name not in arguments:
                choices[name] = [(value,) for value in values]
        return choices

    @property
    def grids(self) -> list[Axes]:
        """The disjoint grids."""
        return self._union.grids

    def __len__(self) -> int:
        return count(self.grids)

    def __iter__(self) -> Iterator[Run]:
        return itertools.chain.from_iterable(self.runs(axes) for axes in self.grids)

    def runs(self, axes: Axes) -> Iterator[Run]:
        """The runs of one grid, seed by seed at each point."""
        return itertools.starmap(self.measurement.run, itertools.product(*axes.values()))

    def values(self) -> dict[str, set[Any]]:
        """The values that the runs have on each axis."""
        sets: dict[str, set[Any]] = collections.defaultdict(set)
        for grid in self.grids:
            for name, values in grid.items():
                sets[name].update(values)
        return sets

    def programs(self) -> dict[Any, list[Axes]]:
        """The grids of the runs that share a program, by what `Run.program` says of it.

        Those of one cell and shape stand together.
        """
        groups: dict[Any, list[Axes]] = {}
        for axes in self.grids:
            choices = self._choices(axes)
            for choice in itertools.product(*choices.values()):
                one = axes | dict(zip(choices, choice, strict=True))
                first = self.measurement.run(*(values[0] for values in one.values()))
                groups.setdefault(first.program, []).append(one)
        return dict(sorted(groups.items(), key=lambda item: tuple(map(str, item[0]))))

    def covers(self, other: Plan) -> bool:
        """Whether every run of another plan is one of this plan."""
        return not any(map(self._union.outside, other.grids))


def count(grids: Iterable[Axes]) -> int:
    """How many runs disjoint grids have."""
    return sum(math.prod(map(len, axes.values())) for axes in grids)


def _apply_conditions(grid: Any, axes: Axes) -> list[Axes]:
    """Split the axes by the conditions of `when`: an axis varies only where its own holds."""
    parts = [axes]
    # Split by the condition of an axis before the conditions that refer to this axis.
    order = graphlib.TopologicalSorter(grid.when).static_order()
    for axis in [axis for axis in order if axis in grid.when]:
        condition = {k: set(values) for k, values in grid.when[axis].items()}
        otherwise = tuple(grid.otherwise(axis))
        cut = []
        for part in parts:
            inside = part | {k: tuple(v for v in part[k] if v in condition[k]) for k in condition}
            cut += [inside] if count([inside]) else []
            cut += [rest | {axis: otherwise} for rest in _outside(part, [inside])]
        parts = cut
    return parts


class _Union:
    """Disjoint grids, which are found by the values on their axes."""

    def __init__(self, names: Iterable[str]) -> None:
        self.grids: list[Axes] = []
        self._sets: list[dict[str, frozenset[Any]]] = []
        self._places: dict[str, dict[Any, list[int]]]
        self._places = {name: collections.defaultdict(list) for name in names}

    def add(self, axes: Axes) -> None:
        """Take in the points of a grid that lie in no other."""
        for part in self.outside(axes):
            for name, values in part.items():
                for value in values:
                    self._places[name][value].append(len(self.grids))
            self.grids.append(part)
            self._sets.append({name: frozenset(values) for name, values in part.items()})

    def outside(self, axes: Axes) -> list[Axes]:
        """Disjoint grids of the points of a grid that lie in none of these."""
        candidates = [
            [places[value] for value in axes[name] if value in places]
            for name, places in self._places.items()
        ]
        fewest = min(candidates, key=lambda lists: sum(map(len, lists)))
        near = sorted(set(itertools.chain.from_iterable(fewest)))
        return _outside(axes, [self.grids[place] for place in near if self._meets(place, axes)])

    def _meets(self, place: int, axes: Axes) -> bool:
        sets = self._sets[place]
        return not any(sets[name].isdisjoint(values) for name, values in axes.items())


def _outside(axes: Axes, others: Iterable[Axes]) -> list[Axes]:
    """Disjoint grids of the points that lie in no other grid."""
    parts = [axes]
    for other in others:
        parts = [rest for part in parts for rest in _difference(part, other)]
    return parts


def _difference(axes: Axes, other: Axes) -> list[Axes]:
    overlap = {}
    for name, values in axes.items():
        members = set(other[name])
        overlap[name] = tuple(value for value in values if value in members)
        if not overlap[name]:
            return [axes]
    parts, inside = [], dict(axes)
    for name, values in axes.items():
        members = set(overlap[name])
        rest = tuple(value for value in values if value not in members)
        if rest:
            parts.append(inside | {name: rest})
        inside[name] = overlap[name]
    return parts
