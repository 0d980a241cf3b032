"""What to measure: a TOML file as a typed, validated grid."""

from __future__ import annotations

import collections
import functools
import graphlib
import itertools
import math
import operator
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import pydantic

from gradlab._names import choose, shorten, show
from gradlab.frames import Axis
from gradlab.frames.axes import DEEPEST, REQUIRED
from gradlab.grid.measurement import Axes, Measurement

# More is a slip of the fingers, or does not fit in memory: characters of a spec, values of an axis,
# blocks, grids that blocks and zipped rows make.
CHARACTERS, MOST_VALUES, MOST_BLOCKS, MOST_GRIDS = 10**6, 10**5, 500, 5000
# A dotted key of so many parts, each of which tomllib copies for the next.
_LONG_KEY = re.compile(r"""(?:\.[ \t]*(?:"[^"\n]*"|'[^'\n]*'|[^\s.=,\[\]{}#"']+)[ \t]*){64}""")


def _range(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= MOST_VALUES:
            raise ValueError(f"a number of seeds must be 1 to {MOST_VALUES:,}, got {show(value)}")
        return list(range(value))
    return value


SPACINGS: dict[str, Callable[..., Any]] = {"linspace": np.linspace, "logspace": np.logspace}


def _values(value: Any, integer: bool) -> Any:
    """An axis that is given as a spacing, {"linspace": [start, stop, num]}, as its values."""
    if isinstance(value, list) and len(value) > MOST_VALUES:
        raise ValueError(f"an axis has at most {MOST_VALUES:,} values, got {len(value):,}")
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise ValueError(f"an axis has one spacing of {', '.join(SPACINGS)}, got {show(value)}")
    ((name, arguments),) = value.items()
    choose("spacing", name, SPACINGS)
    try:
        start, stop, num = arguments
        if not isinstance(num, int) or isinstance(num, bool) or not 1 <= num <= MOST_VALUES:
            raise ValueError
        with np.errstate(over="ignore", invalid="ignore"):
            values = SPACINGS[name](float(start), float(stop), num)
    except (TypeError, ValueError, OverflowError):
        form = "[start, stop, num]" if name == "linspace" else "[start, stop, num], powers of 10"
        most = f"num from 1 to {MOST_VALUES:,}"
        raise ValueError(f"{name} takes {form}, with {most}; got {show(arguments)}") from None
    if not np.isfinite(values).all():
        raise ValueError(f"{name} of {show(arguments)} is not finite")
    if integer:
        return [int(v) for v in dict.fromkeys(np.rint(values))]
    # As one would write it: 0.3, not 0.30000000000000004, which would be another run.
    return [float(f"{v:.12g}") for v in values]


class Grid(pydantic.BaseModel):
    """A grid of runs: every combination of the values of its axes.

    An axis is a list of values, or a spacing as in NumPy: `{"linspace": [start, stop, num]}`, or
    `{"logspace": [start, stop, num]}` from 10^start to 10^stop; an axis of integers is rounded.

    Three fields change what is combined. `zip` is a list of mappings of axes to lists of one
    length: the axes of a mapping take their values together. `when` maps an axis to a condition, a
    mapping of other axes to one value or several: where a run does not meet it, the axis has its
    default (its first value where it has none) and multiplies nothing. `blocks` makes several
    grids of one: each block is a mapping of axes (and `zip`, `when`) to other values, and gives a
    grid of its own with all else as it stands here.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    measurement: ClassVar[Measurement]

    blocks: list[dict[str, Any]] = []
    zip: list[dict[str, list[Any]]] = []
    when: dict[str, dict[str, list[Any]]] = {}
    # The first values of the axes that were zipped, in a grid that has one of their rows.
    _first: dict[str, list[Any]] = pydantic.PrivateAttr(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        # Each call of `parse` makes a type of its own.
        if not isinstance(other, Grid):
            return NotImplemented
        kinds = self.measurement.kind, other.measurement.kind
        return kinds[0] == kinds[1] and self.model_dump() == other.model_dump()

    @classmethod
    def axes(cls) -> tuple[str, ...]:
        """The names of the axes."""
        return tuple(axis.name for axis in cls.measurement.schema.axes)

    @classmethod
    def valid_names(cls) -> tuple[str, ...]:
        """The axes, and the options of builders that would become axes."""
        return tuple(dict.fromkeys((*cls.axes(), *cls.measurement.options)))

    @classmethod
    def default(cls, axis: str) -> list[Any] | None:
        """What an axis has where a spec does not name it; None where it has to."""
        field = cls.model_fields[axis]
        return None if field.is_required() else field.default

    def values(self) -> Axes:
        """The values of each axis."""
        return {name: tuple(getattr(self, name)) for name in self.axes()}

    def otherwise(self, axis: str) -> list[Any]:
        """What an axis has where a run does not meet its condition."""
        return self.default(axis) or self._first.get(axis) or getattr(self, axis)[:1]

    @classmethod
    def checked(cls, axis: str, values: Any) -> list[Any]:
        """The values of one axis with the types that a run has them in."""
        field = pydantic.TypeAdapter(cls.model_fields[axis].rebuild_annotation())
        return field.validate_python(_values(values, cls.is_integer(axis)))

    def parts(self) -> list[Self]:
        """The grid of each block; none where there are no blocks."""
        whole = self.model_dump(exclude={"blocks"}, exclude_unset=True)
        return [type(self)(**_merge(whole, block)) for block in self.blocks]

    def grids(self) -> list[Self]:
        """The grids, without blocks and zipped axes: their union is what the spec asks for."""
        if self.blocks:
            return [grid for part in self.parts() for grid in part.grids()]
        if not self.zip:
            return [self]
        groups = [
            {axis: self._check_zipped(axis, values) for axis, values in group.items()}
            for group in self.zip
        ]
        check_number("grids of zipped rows", map(_rows, groups))
        rows_of_groups = [
            [
                {axis: [v] for axis, v in zip(group, row, strict=True)}
                for row in zip(*group.values(), strict=True)
            ]
            for group in groups
        ]
        rows = itertools.product(*rows_of_groups)
        first = {axis: values[:1] for group in groups for axis, values in group.items()}
        # The values are checked, so a copy will do: to validate each grid anew takes a thousand
        # times as long.
        return [
            self.model_copy(update=functools.reduce(operator.or_, row, {"zip": []})).remember(first)
            for row in rows
        ]

    def _check_zipped(self, axis: str, values: list[Any]) -> list[Any]:
        try:
            return self.checked(axis, values)
        except pydantic.ValidationError as error:
            raise ValueError(f"zip: {axis}{_reason(error.errors()[0])}") from None

    def remember(self, first: dict[str, list[Any]]) -> Self:
        """Keep the first values of zipped axes, for `otherwise`."""
        self._first = self._first | first
        return self

    @pydantic.model_validator(mode="before")
    @classmethod
    def _zipped_axes(cls, values: Any) -> Any:
        """Check the zipped axes, and let each have a value: required ones must be there."""
        if not isinstance(values, dict) or not values.get("zip"):
            return values
        groups = []
        _check_tables("zip", values["zip"])
        for i, group in enumerate(values["zip"]):
            lists = {}
            for axis, entry in group.items():
                choose(f"axis in zip[{i}]", axis, cls.valid_names())
                if any(axis in other for other in groups):
                    raise ValueError(f"{axis} is zipped twice")
                lists[axis] = _values(entry, cls.is_integer(axis))
            sizes = {axis: len(v) if isinstance(v, list) else None for axis, v in lists.items()}
            if len(set(sizes.values())) != 1 or not all(sizes.values()):
                text = ", ".join(f"{axis}: {_length(n)}" for axis, n in sizes.items())
                raise ValueError(f"axes zipped with each other need lists of one length; {text}")
            for axis, entry in lists.items():
                if axis in values and values[axis] != entry[:1]:
                    raise ValueError(f"{axis} is an axis of its own and zipped as well")
            rows = collections.Counter(map(show, zip(*lists.values(), strict=True)))
            if twice := [row for row, n in rows.items() if n > 1]:
                raise ValueError(f"zip[{i}] has values twice: {shorten(', '.join(twice), 200)}")
            groups.append(lists)
        first = {axis: [v[0]] for group in groups for axis, v in group.items()}
        return first | values | {"zip": groups}

    @pydantic.field_validator("when", mode="before")
    @classmethod
    def _check_when(cls, when: Any) -> Any:
        if not isinstance(when, dict):
            return when
        conditions: dict[str, dict[str, list[Any]]] = {}
        for axis, condition in when.items():
            choose("axis in when", axis, cls.axes())
            if not isinstance(condition, dict) or not condition:
                raise ValueError(f"when.{axis} maps other axes to values, got {show(condition)}")
            conditions[axis] = {}
            for other, entries in condition.items():
                choose(f"axis in when.{axis}", other, tuple(n for n in cls.axes() if n != axis))
                entries = entries if isinstance(entries, list) else [entries]
                try:
                    conditions[axis][other] = cls.checked(other, entries)
                except pydantic.ValidationError as error:
                    what = _reason(error.errors()[0])
                    raise ValueError(f"when.{axis}.{other}{what}") from None
        try:
            graphlib.TopologicalSorter(conditions).prepare()
        except graphlib.CycleError as error:
            raise ValueError(
                f"when: conditions go around in a circle: {', '.join(error.args[1])}"
            ) from None
        return conditions

    @classmethod
    def is_integer(cls, axis: str) -> bool:
        """Whether an axis has whole numbers, which a spacing is rounded to."""
        axes = cls.measurement.schema.axes
        return any(a.name == axis and a.dtype.lower() == "int64" for a in axes)

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _expand_spacings(cls, values: Any, info: pydantic.ValidationInfo) -> Any:
        name = str(info.field_name)
        return values if name in _SHAPING else _values(values, cls.is_integer(name))

    @pydantic.field_validator("*")
    @classmethod
    def _check_axis(cls, values: Any, info: pydantic.ValidationInfo) -> Any:
        if not isinstance(values, list) or info.field_name in _SHAPING:
            return values
        if not values:
            raise ValueError("an axis needs at least one value")
        twice = [value for value, n in collections.Counter(values).items() if n > 1]
        if twice:
            raise ValueError(f"values twice: {shorten(', '.join(sorted(map(str, twice))), 200)}")
        return values


_SHAPING = ("blocks", "zip", "when")


def model_of(measurement: Measurement) -> type[Grid]:
    """The type of the specs of a measurement: a field for each of its axes."""
    fields: dict[str, Any] = {}
    for axis in measurement.schema.axes:
        # One wrong value is enough: of a million, errors would fill the memory.
        values: Any = Annotated[list[_value_of(axis, measurement)], pydantic.FailFast()]
        if axis.name == "seed":
            values = Annotated[values, pydantic.BeforeValidator(_range)]
        fields[axis.name] = (values, ... if axis.default is REQUIRED else [axis.default])
    meanings = "\n".join(f"    {axis.name}: {axis.meaning}." for axis in measurement.schema.axes)
    model = pydantic.create_model(
        "Spec",
        __base__=Grid,
        __doc__=f"{Grid.__doc__}\n\nAttributes:\n{meanings}\n",
        **fields,
    )
    model.measurement = measurement
    return model


def _value_of(axis: Axis, measurement: Measurement) -> Any:
    """The type of one value of an axis, a valid name where it has choices."""
    if not axis.choices:
        return axis.type
    kind = axis.choices if isinstance(axis.choices, str) else axis.name

    def check(value: str) -> str:
        names = axis.choices
        choose(kind, value, measurement.choices[names]() if isinstance(names, str) else names)
        return value

    return Annotated[str, pydantic.AfterValidator(check)]


def _merge(whole: dict[str, Any], block: dict[str, Any]) -> dict[str, Any]:
    """Replace a grid's values by those of a block, whether plain or zipped."""
    block_axes = {*block, *(axis for group in block.get("zip", ()) for axis in group)}
    groups = []
    for group in whole.get("zip", ()):
        overlap = block_axes.intersection(group)
        if overlap and overlap != set(group):
            raise ValueError(
                f"a block gives {', '.join(sorted(overlap))}, which is zipped with "
                f"{', '.join(sorted(set(group) - overlap))} outside of it"
            )
        groups += [] if overlap else [group]
    rest = {name: value for name, value in whole.items() if name not in block_axes}
    return rest | block | {"zip": [*groups, *block.get("zip", ())]}


def read(path: Path) -> dict[str, Any]:
    """The content of a spec file.

    Raises:
        ValueError: with one message that names the file and what is wrong.
    """
    text = ""
    try:
        with path.open("rb") as file:
            text = file.read(4 * CHARACTERS + 1).decode("utf-8")
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None
    try:
        return loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def loads(text: str) -> dict[str, Any]:
    """The content of TOML, within limits: see `check_content`.

    Raises:
        ValueError: for what is no TOML, is too long or too deep.

    >>> loads("gain = [0.5, 1]")
    {'gain': [0.5, 1]}
    """
    if len(text) > CHARACTERS:
        raise ValueError(f"a spec has at most {CHARACTERS:,} characters")
    try:
        if _LONG_KEY.search(text):
            raise RecursionError
        table = tomllib.loads(text)
    except RecursionError:
        raise ValueError(f"a spec has at most {DEEPEST} levels of lists and tables") from None
    except tomllib.TOMLDecodeError as error:
        end = f"at line {len(text.splitlines())}, the end of the file"
        raise ValueError(f"broken TOML: {str(error).replace('at end of document', end)}") from None
    except ValueError:
        # Python converts at most 4,300 digits.
        raise ValueError(_INTEGERS) from None
    check_content(table)
    return table


_INTEGERS = "an integer must be from -2^63 to 2^63 - 1, as TOML has it"


def check_content(content: Any, depth: int = 0) -> None:
    """Refuse lists and tables that are too deep, and integers of more than 64 bits.

    Raises:
        ValueError: with what is valid, before anything takes time or memory.
    """
    if depth > DEEPEST:
        raise ValueError(f"a spec has at most {DEEPEST} levels of lists and tables")
    if isinstance(content, range) and len(content) > MOST_VALUES:
        raise ValueError(f"an axis has at most {MOST_VALUES:,} values, got {len(content):,}")
    if isinstance(content, Mapping):
        for key, value in content.items():
            try:
                check_content(value, depth + 1)
            except ValueError as error:
                raise ValueError(f"{key}: {error}" if depth < 2 else str(error)) from None
    elif isinstance(content, list | tuple):
        for value in content:
            if isinstance(value, int | list | tuple | dict):
                check_content(value, depth + 1)
    elif isinstance(content, int) and not -(2**63) <= content < 2**63:
        raise ValueError(f"{_INTEGERS}, got {show(content)}")


def parse(
    measurement: Measurement, table: Mapping[str, Any], overrides: Mapping[str, Any] | None = None
) -> Any:
    """Check the content of a spec file: tables `axes`, `fixed` and `when`, lists `zip`, `blocks`.

    Under `axes` an axis is a list or a spacing (`{linspace = [0.5, 3.0, 26]}`), under `fixed` one
    value; what stands outside of the tables is either. A block `[[blocks]]` holds either as well,
    in place of what stands outside of it, and `overrides` do so in place of what stands anywhere.

    Returns:
        A `Grid` of the measurement's own type, `measurement.model`.

    Raises:
        ValueError: with one message that names the key and what is valid.
    """
    model = measurement.model
    _check_shape(table)
    shaping = {name: value for name, value in table.items() if name in _SHAPING}
    blocks, zips = shaping.get("blocks", []), shaping.get("zip", [])
    overrides = dict(overrides or {})
    fields = {_field(model, key, "key to set") for key in overrides}
    zips = _drop_overrides(zips, fields)
    blocks = [
        block | ({"zip": _drop_overrides(block["zip"], fields)} if "zip" in block else {})
        for block in blocks
    ]
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for section, content in _sections(table).items():
        if not isinstance(content, dict):
            raise ValueError(f"{section} must be a table: [{section}]")
        for key, value in content.items():
            place = f"{section}.{key}" if section else key
            field = _field(model, key, f"key in [{section}]" if section else "key")
            if field in values:
                raise ValueError(f"{field} is given twice, as {places[field]} and {place}")
            several = isinstance(value, list | dict)
            if section == "axes" and not several and key != "seeds":
                raise ValueError(f"axes.{key} must be a list; one value belongs into [fixed]")
            if section == "fixed" and several:
                raise ValueError(f"fixed.{key} must be one value; a list belongs into [axes]")
            values[field] = _to_list(model, key, value)
            places[field] = place
    blocks = [_block(model, i, block) for i, block in enumerate(blocks)]
    for key, value in overrides.items():
        field = _field(model, key, "key to set")
        for block in blocks:
            block.pop(field, None)
        values[field] = _to_list(model, key, value)
        places[field] = key
    values |= {name: value for name, value in shaping.items() if name != "blocks"}
    values |= {"zip": zips} if "zip" in shaping else {}
    if not blocks:
        return _to_spec(model, values, places)
    for i, block in enumerate(blocks):
        block_places = {field: f"blocks[{i}].{field}" for field in block}
        _to_spec(model, _merge(values, block), places | block_places)
    # The model requires axes that only the blocks give: fill in values that every block replaces.
    first = {
        axis: _values(v, model.is_integer(axis))[:1]
        for group in blocks[0].get("zip", ())
        for axis, v in group.items()
    }
    first_values = {k: v for k, v in (first | blocks[0]).items() if k in model.axes()}
    first_values = {k: v for k, v in first_values.items() if model.default(k) is None}
    return _to_spec(model, first_values | values | {"blocks": blocks}, places)


def _drop_overrides(groups: list[dict[str, Any]], fields: set[str]) -> list[dict[str, Any]]:
    """Drop the zipped groups whose axes `fields` overrides; it must override all of a group."""
    rest = []
    for group in groups:
        overlap = sorted(fields.intersection(group))
        if overlap and len(overlap) < len(group):
            others = sorted(set(group) - fields)
            raise ValueError(
                f"{', '.join(overlap)} is zipped with {', '.join(others)}; set all of them, or none"
            )
        rest += [] if overlap else [group]
    return rest


def _sections(table: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of a spec: axes, fixed, and what stands outside of both under ""."""
    sections = {name: table[name] for name in ("axes", "fixed") if name in table}
    loose = {k: v for k, v in table.items() if k not in (*sections, *_SHAPING)}
    tables = {k for k, v in loose.items() if isinstance(v, dict) and not SPACINGS.keys() & v.keys()}
    if sections or tables == loose.keys():
        for name in tables:
            choose("section", name, ("axes", "fixed", *_SHAPING))
    return sections | ({"": loose} if loose else {})


def tables(table: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Every key of a spec that may name an axis, wherever it stands, with its value.

    Raises:
        ValueError: where blocks or zip are no tables.
    """
    _check_shape(table)
    for content in _sections(table).values():
        yield from content.items() if isinstance(content, Mapping) else ()
    for block in table.get("blocks", ()):
        yield from (item for item in block.items() if item[0] not in _SHAPING)
    groups = [*table.get("zip", ())]
    groups += [group for block in table.get("blocks", ()) for group in block.get("zip", ())]
    for group in groups:
        yield from group.items()


def _check_shape(table: Mapping[str, Any]) -> None:
    _check_tables("blocks", table.get("blocks", []))
    if len(table.get("blocks", [])) > MOST_BLOCKS:
        raise ValueError(f"a spec has at most {MOST_BLOCKS:,} blocks, got {len(table['blocks']):,}")
    _check_tables("zip", table.get("zip", []))
    for i, block in enumerate(table.get("blocks", [])):
        _check_tables(f"blocks[{i}].zip", block.get("zip", []))


def _check_tables(name: str, tables: Any) -> None:
    # A block may leave all as it is; axes that go together are at least one.
    minimum = 0 if name == "blocks" else 1
    if not isinstance(tables, list) or not all(
        isinstance(each, dict) and len(each) >= minimum for each in tables
    ):
        raise ValueError(f"{name} must be tables: [[{name.rpartition('].')[2]}]]")


def _length(number: int | None) -> str:
    return "no list" if number is None else str(number or "an empty list")


def _rows(group: Mapping[str, list[Any]]) -> int:
    return len(next(iter(group.values())))


def _format(number: int) -> str:
    return f"{number:,}" if number < 10**15 else f"more than {10**15:,}"


def check_number(what: str, factors: Iterable[int], most: int = MOST_GRIDS) -> None:
    """Refuse a grid that is larger than any that could be gone through."""
    number = math.prod(factors)
    if number > most:
        raise ValueError(f"a sweep has at most {most:,} {what}, this one has {_format(number)}")


def _field(model: type[Grid], key: str, what: str) -> str:
    field = "seed" if key == "seeds" else key
    choose(what, field, (*model.valid_names(), "seeds"))
    return field


def _to_list(model: type[Grid], key: str, value: Any) -> Any:
    """Wrap one value of an axis in a list; leave a number of seeds and what is no axis alone."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, tuple | range):
        value = list(value)
    if isinstance(value, list | dict) or key == "seeds" or key not in model.axes():
        return value
    return [value]


def _block(model: type[Grid], i: int, block: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in block.items():
        if key in ("zip", "when"):
            result[key] = value
            continue
        field = _field(model, key, f"key in blocks[{i}]")
        result[field] = _to_list(model, key, value)
    return result


def _to_spec(model: type[Grid], values: dict[str, Any], places: dict[str, str]) -> Any:
    try:
        spec = model(**values)
        # Blocks were checked one by one.
        if not spec.blocks:
            spec.grids()
        return spec
    except pydantic.ValidationError as error:
        raise ValueError(_explain(error, places)) from None


def _explain(error: pydantic.ValidationError, places: dict[str, str]) -> str:
    first = error.errors()[0]
    what = str(first["msg"]).removeprefix("Value error, ")
    if not first["loc"]:  # about several fields at once
        return what
    field, *index = first["loc"]
    if first["type"] == "missing":
        return f"{field} is missing; give it as a list in [axes] or as one value in [fixed]"
    place = places.get(str(field), str(field))
    if field in _SHAPING and first["type"] == "value_error":
        return what
    if not place.startswith("fixed."):
        place += "".join(f"[{i}]" for i in index)
    return f"{place}: {what}{_describe_input(first)}"


def _describe_input(error: Any) -> str:
    return "" if error["type"] == "value_error" else f", got {show(error['input'])}"


def _reason(error: Any) -> str:
    """What pydantic says of a list of values, with the place in it."""
    place = "".join(f"[{i}]" for i in error["loc"])
    return f"{place}: {str(error['msg']).removeprefix('Value error, ')}{_describe_input(error)}"
