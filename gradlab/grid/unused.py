"""What a spec or `--set` names and no run has: said before anything is run."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gradlab._names import show
from gradlab.grid.measurement import Axes
from gradlab.grid.plan import Plan, count

Values = dict[str, set[Any]]


def warn(spec: Any, plan: Plan, overrides: Mapping[str, Any] | None, stacklevel: int = 3) -> None:
    """Warn of each axis whose values change no run, with the condition and what to do."""
    for message in messages(spec, plan, overrides or {}):
        warnings.warn(message, stacklevel=stacklevel)


def messages(spec: Any, plan: Plan, overrides: Mapping[str, Any]) -> list[str]:
    """One sentence for each axis, condition or block that changes no run of the plan.

    A value changes nothing where no run has it: a condition turns the axis off, no cell or task has
    such an option, or every block gives its own. An axis that `overrides` sets is to hold in every
    run that has it, so that a condition that keeps some of them at another value is said too.

    >>> from gradlab.sweeps import parse
    >>> axes = {"cell": "gru", "init": "normal", "gain": 1.0, "length": 9, "forget_bias": [0, 1]}
    >>> messages(parse(axes), Plan(parse(axes)), {})
    ['forget_bias = 0.0, 1.0 is in no run: gru has no such option; leave it out']
    """
    overridden = {"seed" if axis == "seeds" else axis for axis in overrides}
    axes = spec.model_fields_set & {*spec.axes()}
    if spec.model_fields_set == type(spec).model_fields.keys():
        # A spec from a manifest has every field set, also those left at their default.
        axes = {axis for axis in axes if _values_of(spec, axis) != spec.default(axis)} | overridden
    texts = list(_check_values(spec, plan, "", axes, overridden))
    texts += _check_conditions(spec, plan, "", spec.when)
    parts = spec.parts()
    before: Plan | None = None
    for i, (block, part) in enumerate(zip(spec.blocks, parts, strict=True)):
        own = Plan(part)
        inside = {*block, *(axis for group in block.get("zip", ()) for axis in group)}
        texts += _check_values(part, own, f"blocks[{i}].", inside & {*spec.axes()}, set())
        texts += _check_conditions(part, own, f"blocks[{i}].", block.get("when", {}))
        if before is None:
            before = own
        elif before.covers(own):
            texts.append(f"blocks[{i}] adds no run: those before it have them all; leave it out")
        else:
            before.add(part)
    for grid in parts or [spec]:
        texts += _check_overrides(grid, plan, overridden)
    idle = plan.measurement.idle(plan.values())
    texts += [f"{axis} {why}" for axis, why in idle if _is_meant(spec, axis, overridden)]
    return list(dict.fromkeys(texts))


def _values_of(spec: Any, axis: str) -> list[Any]:
    """What a spec gives an axis, zipped or not."""
    zips = [group[axis] for group in spec.zip if axis in group]
    return type(spec).checked(axis, zips[0]) if zips else getattr(spec, axis)


def _check_values(
    grid: Any, plan: Plan, place: str, axes: set[str], overridden: set[str]
) -> Iterator[str]:
    """Report those of `axes` with values that no run of the plan has."""
    values = plan.values()
    for axis in grid.axes():
        choices = _values_of(grid, axis) if axis in axes else []
        idle = [value for value in choices if value not in values[axis]]
        # A spec has to name some axes, whether its cells and tasks have them or not.
        required = grid.default(axis) is None and values[axis] == {None} and len(choices) == 1
        if idle and not (required and axis not in overridden):
            what = f"{'set ' if axis in overridden else place}{axis} = {_to_text(idle)}"
            yield f"{what} is in no run: {_reason(grid, values, axis)}"


def _check_conditions(
    grid: Any, plan: Plan, place: str, conditions: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    """Report conditions that no run meets, unless `_check_values` reports their axis."""
    for axis in conditions:
        condition = grid.when[axis]
        is_met = any(all({*part[k]} & {*condition[k]} for k in condition) for part in plan.grids)
        idle = axis in grid.model_fields_set and {*_values_of(grid, axis)} - plan.values()[axis]
        if not is_met and not idle:
            yield (
                f"{place}when.{axis} asks for {_condition(condition)}, which no run meets; leave "
                "it out, or give the axis that value"
            )


def _reason(grid: Any, values: Values, axis: str) -> str:
    whens = [("", grid.when)]
    whens += [(f"blocks[{i}].", block.get("when", {})) for i, block in enumerate(grid.blocks)]
    for place, when in whens:
        if axis in when and values[axis] != {None}:
            return (
                f"{place}when.{axis} asks for {_condition(when[axis])}, and where a run does not "
                f"meet that it has {_to_text(values[axis])}; leave that condition out, or set what "
                "it asks for"
            )
    own = [axis in block or any(axis in g for g in block.get("zip", ())) for block in grid.blocks]
    if own and all(own):
        return "every block gives its own; leave it out where it stands outside of them"
    owners = next(a.needs for a in grid.measurement.schema.axes if a.name == axis)
    names = [
        str(name) for owner in ("task", "cell", *owners) for name in values.get(owner, ()) if name
    ]
    whose = ", ".join(sorted(dict.fromkeys(names))) or grid.measurement.kind
    return f"{whose} has no such option; leave it out"


def _check_overrides(grid: Any, plan: Plan, overridden: set[str]) -> Iterator[str]:
    """Report axes that were set, but that a condition keeps at another value in some runs."""
    for axis in overridden & grid.when.keys():
        choices = set(_values_of(grid, axis))
        others = [v for v in plan.values()[axis] if v is not None and v not in choices]
        if not others or not choices & plan.values()[axis]:
            continue
        part = f"{count(_restrict(plan.grids, axis, others))} of {len(plan)}"
        yield (
            f"set {axis} = {_to_text(choices)} holds in a part of the runs: {part} have "
            f"{_to_text(others)}, since when.{axis} asks for {_condition(grid.when[axis])}; leave "
            "that condition out, or set what it asks for"
        )


def _restrict(grids: Iterable[Axes], axis: str, values: list[Any]) -> Iterator[Axes]:
    for grid in grids:
        yield grid | {axis: tuple(value for value in grid[axis] if value in values)}


def _is_meant(spec: Any, axis: str, overridden: set[str]) -> bool:
    """Whether a spec wants an axis to make a difference: it varies it, or it was set."""
    values = _values_of(spec, axis)
    return axis in overridden or len(values) > 1 or values != (spec.default(axis) or values)


def _condition(condition: Mapping[str, Any]) -> str:
    def several(values: Any) -> list[Any]:
        return values if isinstance(values, list) else [values]

    return " and ".join(f"{axis} = {_to_text(several(v))}" for axis, v in condition.items())


def _place(value: Any) -> tuple[bool, str, Any]:
    # Tuples of several types have no order.
    return value is None, str(type(value)), repr(value) if isinstance(value, tuple) else value or 0


def _to_text(values: Iterable[Any], most: int = 5) -> str:
    texts = [show(v) if isinstance(v, tuple) else str(v) for v in sorted(values, key=_place)]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")
