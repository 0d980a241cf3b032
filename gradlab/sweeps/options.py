"""Which axes a run has: what its cell, initializer, input, task and remedies take."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import numbers
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pydantic

from gradlab import cells, initializers, remedies, tasks
from gradlab._registry import Registry
from gradlab.cells.elman import ACTIVATIONS
from gradlab.frames import KINDS, Axis, Schema
from gradlab.frames.axes import Integer, Json, Number, plain
from gradlab.grid import Axes, Run

# The axes that name a builder.
OWNERS: dict[str, Registry[Any]] = {
    "task": tasks.REGISTRY,
    "cell": cells.REGISTRY,
    "init": initializers.REGISTRY,
    "input": tasks.INPUTS,
}
CHOICES = {
    "cell": cells.names,
    "initializer": initializers.names,
    "input": tasks.input_names,
    "task": tasks.names,
    "activation": lambda: tuple(ACTIVATIONS),
}
# Arguments of builders that a run passes from axes of other names, or without an axis.
_ARGUMENTS = {"inputs", "hidden", "recurrent", "input", "bias", "key", "shape", "dtype", "features"}


def parts(schema: Schema, axis_names: frozenset[str], axes: Axes) -> list[Axes]:
    """The axes of disjoint grids with the same runs, without what builders do not take.

    An axis that a cell or a task has no option for does not multiply its runs. A builder that takes
    `**options` takes those among `axis_names`, which the spec names. "code" is the digest of the
    user's code that the runs of a part use, "" where all of it is gradlab's.
    """
    groups = {
        owner: _groups(schema, axis_names, owner, axes[owner]) for owner in OWNERS if owner in axes
    }
    groups |= {
        axis.name: _on_and_off(axis, axes[axis.name])
        for axis in schema.axes
        if axis.switch and remedies.is_foreign(axis.name)
    }
    grids = []
    for choice in itertools.product(*groups.values()):
        part = axes | dict(zip(groups, choice, strict=True))
        # An axis may need one that was left out just before: a gain needs an initializer.
        for axis in schema.axes:
            takes = [_takes(axis, owner, part[owner][0], axis_names) for owner in axis.needs]
            if takes and not (all(takes) if axis.needs_all else any(takes)):
                part[axis.name] = (axis.absent,)
        grids.append(part | {"code": (_code(schema, part),)})
    return grids


def _groups(
    schema: Schema, axis_names: frozenset[str], owner: str, names: tuple[Any, ...]
) -> list[tuple[Any, ...]]:
    """The names of builders, apart where they take other options or have code of the user's."""
    axes = [axis for axis in schema.axes if owner in axis.needs]
    groups: dict[Any, list[Any]] = {}
    for name in names:
        alone = owner in ("cell", "task") or (name is not None and OWNERS[owner].is_foreign(name))
        key = name if alone else tuple(_takes(axis, owner, name, axis_names) for axis in axes)
        groups.setdefault(key, []).append(name)
    return [tuple(group) for group in groups.values()]


def _on_and_off(axis: Axis, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    sides = (tuple(v for v in values if (v == axis.default) is off) for off in (True, False))
    return [side for side in sides if side]


def _takes(axis: Axis, owner: str, name: str | None, axis_names: frozenset[str]) -> bool:
    if name is None:
        return False
    registry, options = OWNERS[owner], axis.needs[owner]
    if {*options} & {*registry.options(name)}:
        return True
    return axis.name in axis_names and registry.takes(name, options[0])


def _code(schema: Schema, part: Axes) -> str:
    return _join([registry.fingerprint(name) for registry, name in _foreign(schema, part)])


def with_code(schema: Schema, axes: Axes, digests: list[str]) -> list[Axes]:
    """Disjoint grids, each with the digest of the user's code that it uses beside the given one.

    An axis named cell, init, input or task names a builder where its value is a registered name.
    """
    owners = [owner for owner in OWNERS if owner in axes]
    parts = []
    for names in itertools.product(*(axes[owner] for owner in owners)):
        part = {owner: (name,) for owner, name in zip(owners, names, strict=True)}
        foreign = [registry.fingerprint(name) for registry, name in _foreign(schema, part)]
        parts.append(axes | part | {"code": (_join([*digests, *foreign]),)})
    return parts


def _join(digests: list[str]) -> str:
    return digests[0] if len(digests) == 1 else _digest(digests) if digests else ""


def _digest(texts: Iterable[str]) -> str:
    return hashlib.sha256("/".join(texts).encode()).hexdigest()[:16]


def _foreign(
    schema: Schema, axes: Mapping[str, Iterable[Any]]
) -> Iterator[tuple[Registry[Any], str]]:
    """The user's code that runs with these values use: its registry and its name."""
    for owner, registry in OWNERS.items():
        for name in axes.get(owner, ()):
            if name in registry.names() and registry.is_foreign(name):
                yield registry, name
    for axis in schema.axes:
        if not axis.switch or not remedies.is_foreign(axis.name):
            continue
        if any(value != axis.default for value in axes.get(axis.name, ())):
            yield remedies.REGISTRY, axis.name


def code_of(schema: Schema, axes: Mapping[str, set[Any]]) -> dict[str, str]:
    """The user's code that runs with these values use: its kind and name, and its digest."""
    lists = {axis: sorted(values, key=str) for axis, values in axes.items()}
    return {f"{r.kind} {name}": r.fingerprint(name) for r, name in _foreign(schema, lists)}


def foreign_names(schema: Schema, content: Iterable[tuple[str, Any]]) -> list[str]:
    """The names of the user's code that a spec names."""
    values: dict[str, list[Any]] = {}
    for key, value in content:
        values.setdefault(key, []).extend(to_list(value))
    return list(dict.fromkeys(name for _, name in _foreign(schema, values)))


def options_of(run: Run, owner: str) -> dict[str, Any]:
    """The options of a run's builder that stand on axes of their own names."""
    # An option may have the name of an axis of another kind: a cell's leak in a sweep of gradients.
    own = {axis.name for axis in KINDS[run.schema_kind].axes}
    names = [n for n, owners in run.owners.items() if owner in owners and n not in own]
    values = {name: getattr(run, name) for name in names}
    builder = getattr(run, owner)
    return {
        name: value
        for name, value in values.items()
        if value is not None and builder is not None and OWNERS[owner].takes(builder, name)
    }


def to_plain(options: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Options as the user wrote them: a run and a cache have lists as tuples."""
    return {name: plain(value) for name, value in options}


def length_option(task: str) -> str:
    """The option of a task that the axis `length` is."""
    return "length" if tasks.REGISTRY.takes(task, "length") else "delay"


def more_axes(schema: Schema, content: Iterable[tuple[str, Any]]) -> tuple[Axis, ...]:
    """Axes for what a spec names beyond the schema's own: options of builders, users' remedies.

    Args:
        schema: gradlab's own.
        content: every key of the spec that may name an axis, with its value.

    >>> from gradlab.frames import GRADIENTS
    >>> content = {"cell": "leaky", "dt": [0.1, 0.5], "nonsense": 3}
    >>> [(axis.name, axis.dtype) for axis in more_axes(GRADIENTS, content.items())]
    [('dt', 'float64')]
    """
    content = list(content)
    own = {axis.name for axis in schema.axes} | {"seeds"} | _ARGUMENTS
    values: dict[str, list[Any]] = {}
    for key, value in content:
        if key not in own:
            values.setdefault(key, []).extend(to_list(value))
    axes = []
    names = _builders(schema, content)
    _refuse_taken(schema, {key for key, _ in content}, names)
    for key, entries in values.items():
        if any(axis.name == "task" for axis in schema.axes) and remedies.is_foreign(key):
            axes.append(_remedy_axis(key))
            continue
        # Of builders that take `**options`, those of the same kinds get it too; all of them where
        # no builder names it.
        takers = [(o, n) for o, n in names if key in _options(o, n)]
        takers = takers or [(o, n) for o, n in names if _takes_any(o, n)]
        if takers:
            whose = ", ".join(sorted(name for _, name in takers))
            meaning = f"option of {whose}; missing where the run has no such option or names none"
            needs = {owner: (key,) for owner in OWNERS if owner in {o for o, _ in takers}}
            dtype, kind = type_of(entries)
            axis = Axis(key, dtype, "", meaning, kind, None, needs=needs, optional=True)
            axes.append(axis._replace(needs_all=False))
    return tuple(axes)


def valid_options(schema: Schema, content: Iterable[tuple[str, Any]]) -> tuple[str, ...]:
    """What a spec may name beside the axes of a schema: the options of the builders in it."""
    own = {axis.name for axis in schema.axes} | _ARGUMENTS
    options = {
        option for o, name in _builders(schema, list(content)) for option in _options(o, name)
    }
    return tuple(sorted(options - own))


def _builders(schema: Schema, content: list[tuple[str, Any]]) -> set[tuple[str, str]]:
    """The builders that a spec names, each with the axis that names it."""
    return {
        (owner, name)
        for owner in {axis.name for axis in schema.axes} & OWNERS.keys()
        for key, value in content
        if key == owner
        for name in (*to_list(value), *_default(schema, owner))
        if name in OWNERS[owner].names()
    }


def _takes_any(owner: str, name: str) -> bool:
    parameters = inspect.signature(OWNERS[owner].builder(name)).parameters.values()
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def _options(owner: str, name: str) -> set[str]:
    options = set(OWNERS[owner].options(name))
    return options - {length_option(name)} if owner == "task" else options


def _refuse_taken(schema: Schema, keys: set[str], names: set[tuple[str, str]]) -> None:
    """Refuse an option of the user's code whose name is an axis that means something else.

    Its values would be recorded as if the builder had got them.
    """
    for axis in schema.axes:
        for owner, name in sorted(names) if axis.name in keys else ():
            registry = OWNERS[owner]
            taken = axis.name in registry.options(name) and axis.name not in _ARGUMENTS
            if registry.is_foreign(name) and taken and axis.name not in axis.needs.get(owner, ()):
                raise ValueError(
                    f"{axis.name} is an axis of gradlab's own ({axis.meaning}) and an option of "
                    f"the {registry.kind} {name}; give the option another name"
                )


def _remedy_axis(name: str) -> Axis:
    meaning = f"strength of the remedy {name}; 0 without it"
    return Axis(name, "float64", "1", meaning, Number, 0.0, switch=True, optional=True)


def _default(schema: Schema, owner: str) -> list[Any]:
    return [axis.default for axis in schema.axes if axis.name == owner]


def to_list(value: Any) -> list[Any]:
    """Convert the values that a spec gives an axis to a list; a spacing stands for numbers."""
    if hasattr(value, "tolist"):  # an array or a number of NumPy's
        value = value.tolist()
    if isinstance(value, Mapping):  # a spacing
        return [1.0]
    return list(value) if isinstance(value, list | tuple | range) else [value]


def type_of(values: Iterable[Any]) -> tuple[str, Any]:
    """The dtype of a column of such values, and the type of an axis.

    >>> [type_of(values)[0] for values in ([1, 2], [1, 0.5], [True], ["a"], [[1]])]
    ['Int64', 'float64', 'boolean', 'str', 'str']
    """
    kinds = {_kind(value) for value in values}
    if kinds == {"bool"}:
        return "boolean", pydantic.StrictBool
    if kinds == {"int"}:
        return "Int64", Integer
    if kinds and kinds <= {"int", "float"}:
        return "float64", Number
    return "str", str if kinds == {"str"} else Json


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, numbers.Integral):
        return "int"
    if isinstance(value, numbers.Real):
        return "float"
    return "str" if isinstance(value, str) else "json"


def idle(values: Mapping[str, set[Any]]) -> Iterator[tuple[str, str]]:
    """Axes that are part of a run's name and of none of its numbers, and why."""
    if values.get("input_scale") == {0.0}:
        for axis in ("input", "inputs"):
            yield axis, "changes no run: input_scale is 0 in all of them; leave it out"
    if values.get("flossing") == {0.0} and values.get("preflossing") == {0}:
        yield "flossing_exponents", "changes no run: flossing and preflossing are off; leave it out"
    if "task" in values and all(tasks.make(name).held_out is not None for name in values["task"]):
        yield (
            "evaluation",
            "changes no run: the tasks hold out what they are judged by; leave it out",
        )
