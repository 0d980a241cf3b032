"""What to measure: a TOML file as a typed, validated grid."""

from __future__ import annotations

import collections
import functools
import graphlib
import itertools
import math
import operator
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self, get_args, get_origin

import numpy as np
import pydantic

from gradlab import cells, initializers, tasks
from gradlab._names import choose
from gradlab.cells.elman import ACTIVATIONS


def _name(kind: str, valid: Callable[[], Sequence[str]]) -> pydantic.AfterValidator:
    def check(value: str) -> str:
        choose(kind, value, valid())
        return value

    return pydantic.AfterValidator(check)


LARGEST = float(np.finfo(np.float32).max)  # runs are computed in float32


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"must be finite, got {value}")
    if abs(value) > LARGEST:
        raise ValueError(f"must be finite in float32, got {value}")
    return value


def _range(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 1:
            raise ValueError(f"a number of seeds must be at least 1, got {value}")
        return list(range(value))
    return value


# One draw of the parameters for all steps, or one for each: the network of mean-field theory.
WEIGHTS = ("tied", "untied")
OPTIMIZERS = ("adam", "rmsprop", "sgd")

Number = Annotated[float, pydantic.AfterValidator(_finite)]
Scale = Annotated[Number, pydantic.Field(ge=0)]
Size = Annotated[int, pydantic.Field(ge=1, strict=True)]
Count = Annotated[int, pydantic.Field(ge=0, strict=True)]
Seed = Annotated[int, pydantic.Field(ge=0, lt=2**31, strict=True)]


SPACINGS: dict[str, Callable[..., Any]] = {"linspace": np.linspace, "logspace": np.logspace}


def _values(value: Any, integer: bool) -> Any:
    """An axis that is given as a spacing, {"linspace": [start, stop, num]}, as its values."""
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise ValueError(f"an axis has one spacing of {', '.join(SPACINGS)}, got {sorted(value)}")
    ((name, arguments),) = value.items()
    choose("spacing", name, SPACINGS)
    try:
        start, stop, num = arguments
        if not isinstance(num, int) or isinstance(num, bool) or num < 1:
            raise ValueError
        with np.errstate(over="ignore"):
            values = SPACINGS[name](float(start), float(stop), num)
    except (TypeError, ValueError):
        form = "[start, stop, num]" if name == "linspace" else "[start, stop, num], powers of 10"
        raise ValueError(f"{name} takes {form}, got {arguments!r}") from None
    if not np.isfinite(values).all():
        raise ValueError(f"{name} of {arguments!r} is not finite")
    if integer:
        return [int(v) for v in dict.fromkeys(np.rint(values))]
    # As one would write it: 0.3, not 0.30000000000000004, which would be another run.
    return [float(f"{v:.12g}") for v in values]


class _Grid(pydantic.BaseModel):
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

    blocks: list[dict[str, Any]] = []
    zip: list[dict[str, list[Any]]] = []
    when: dict[str, dict[str, list[Any]]] = {}
    # The first values of the axes that were zipped, in a grid that has one of their rows.
    _first: dict[str, list[Any]] = pydantic.PrivateAttr(default_factory=dict)

    @classmethod
    def axes(cls) -> tuple[str, ...]:
        """The names of the axes."""
        numbers = [name for name, field in cls.model_fields.items() if field.annotation is int]
        return tuple(name for name in cls.model_fields if name not in (*_SHAPING, *numbers))

    @classmethod
    def default(cls, axis: str) -> list[Any] | None:
        """What an axis has where a spec does not name it; None where it has to."""
        field = cls.model_fields[axis]
        return None if field.is_required() else field.default

    def otherwise(self, axis: str) -> list[Any]:
        """What an axis has where a run does not meet its condition."""
        return self.default(axis) or self._first.get(axis) or getattr(self, axis)[:1]

    @classmethod
    def checked(cls, axis: str, values: Any) -> list[Any]:
        """The values of one axis with the types that a run has them in."""
        field = pydantic.TypeAdapter(cls.model_fields[axis].rebuild_annotation())
        return field.validate_python(_values(values, cls._integer(axis)))

    def parts(self) -> list[Self]:
        """The grid of each block; none where there are no blocks."""
        whole = self.model_dump(exclude={"blocks"}, exclude_unset=True)
        return [type(self)(**_merged(whole, block)) for block in self.blocks]

    def grids(self) -> list[Self]:
        """The grids, without blocks and zipped axes: their union is what the spec asks for."""
        if self.blocks:
            return [grid for part in self.parts() for grid in part.grids()]
        if not self.zip:
            return [self]
        whole = self.model_dump(exclude={"zip"})
        together = [
            [
                {axis: [v] for axis, v in zip(group, row, strict=True)}
                for row in zip(*group.values(), strict=True)
            ]
            for group in self.zip
        ]
        rows = itertools.product(*together)
        made = [type(self)(**functools.reduce(operator.or_, row, whole)) for row in rows]
        for grid in made:
            grid._first.update(
                {axis: self.checked(axis, v)[:1] for group in self.zip for axis, v in group.items()}
            )
        return made

    @pydantic.model_validator(mode="before")
    @classmethod
    def _zipped_axes(cls, values: Any) -> Any:
        """Check the zipped axes, and let each have a value: required ones must be there."""
        if not isinstance(values, dict) or not values.get("zip"):
            return values
        groups = []
        for i, group in enumerate(values["zip"]):
            lists = {}
            for axis, given in group.items():
                choose(f"axis in zip[{i}]", axis, cls.axes())
                if any(axis in other for other in groups):
                    raise ValueError(f"{axis} is zipped twice")
                lists[axis] = _values(given, cls._integer(axis))
                if axis in values and lists[axis] and values[axis] != lists[axis][:1]:
                    raise ValueError(f"{axis} is an axis of its own and zipped as well")
            sizes = {axis: len(v) if isinstance(v, list) else None for axis, v in lists.items()}
            if len(set(sizes.values())) != 1 or None in sizes.values():
                told = ", ".join(f"{axis}: {n or 'no list'}" for axis, n in sizes.items())
                raise ValueError(f"axes zipped with each other need lists of one length; {told}")
            rows = collections.Counter(map(str, zip(*lists.values(), strict=True)))
            if twice := [row for row, n in rows.items() if n > 1]:
                raise ValueError(f"zip[{i}] has values twice: {', '.join(twice)}")
            groups.append(lists)
        first = {axis: [v[0]] for group in groups for axis, v in group.items() if v}
        return first | values | {"zip": groups}

    @pydantic.field_validator("when", mode="before")
    @classmethod
    def _check_when(cls, when: Any) -> Any:
        if not isinstance(when, dict):
            return when
        checked: dict[str, dict[str, list[Any]]] = {}
        for axis, condition in when.items():
            choose("axis in when", axis, cls.axes())
            if not isinstance(condition, dict) or not condition:
                raise ValueError(f"when.{axis} maps other axes to values, got {condition!r}")
            checked[axis] = {}
            for other, wanted in condition.items():
                choose(f"axis in when.{axis}", other, tuple(n for n in cls.axes() if n != axis))
                wanted = wanted if isinstance(wanted, list) else [wanted]
                try:
                    checked[axis][other] = cls.checked(other, wanted)
                except pydantic.ValidationError as error:
                    what = error.errors()[0]["msg"].removeprefix("Value error, ")
                    raise ValueError(f"when.{axis}.{other}: {what}") from None
        try:
            graphlib.TopologicalSorter(checked).prepare()
        except graphlib.CycleError as error:
            raise ValueError(
                f"when: conditions go around in a circle: {', '.join(error.args[1])}"
            ) from None
        return checked

    @classmethod
    def _integer(cls, axis: str) -> bool:
        (item,) = get_args(cls.model_fields[axis].annotation) or (None,)
        return get_origin(item) is Annotated and get_args(item)[0] is int

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _spaced(cls, values: Any, info: pydantic.ValidationInfo) -> Any:
        name = str(info.field_name)
        return values if name in _SHAPING else _values(values, cls._integer(name))

    @pydantic.field_validator("*")
    @classmethod
    def _check_axis(cls, values: Any, info: pydantic.ValidationInfo) -> Any:
        if not isinstance(values, list) or info.field_name in _SHAPING:
            return values
        if not values:
            raise ValueError("an axis needs at least one value")
        twice = [value for value, n in collections.Counter(values).items() if n > 1]
        if twice:
            raise ValueError(f"values twice: {', '.join(map(str, sorted(twice)))}")
        return values


_SHAPING = ("blocks", "zip", "when")


def _merged(whole: dict[str, Any], block: dict[str, Any]) -> dict[str, Any]:
    """A grid's values with those of a block in their place, itself or in its zipped axes."""
    given = {*block, *(axis for group in block.get("zip", ()) for axis in group)}
    groups = []
    for group in whole.get("zip", ()):
        taken = given.intersection(group)
        if taken and taken != set(group):
            raise ValueError(
                f"a block gives {', '.join(sorted(taken))}, which is zipped with "
                f"{', '.join(sorted(set(group) - taken))} outside of it"
            )
        groups += [] if taken else [group]
    rest = {name: value for name, value in whole.items() if name not in given}
    return rest | block | {"zip": [*groups, *block.get("zip", ())]}


class Spec(_Grid):
    """A grid of runs: every combination of the values of its axes.

    Each field is an axis; one that is fixed has one value. In TOML an axis stands under `[axes]`
    as a list, a fixed value under `[fixed]`; what neither names has the default given here.

    >>> spec = Spec(cell=["elman"], init=["normal"], gain=[0.5, 2.0], length=[10], seed=[0, 1])
    >>> spec.hidden, spec.input
    ([128], ['gaussian'])
    """

    cell: list[Annotated[str, _name("cell", cells.names)]]
    init: list[Annotated[str, _name("initializer", initializers.names)]]
    gain: list[Scale]
    length: list[Size]
    weights: list[Annotated[str, _name("weights", lambda: WEIGHTS)]] = ["tied"]
    activation: list[Annotated[str, _name("activation", lambda: tuple(ACTIVATIONS))]] = ["tanh"]
    forget_bias: list[Number] = [1.0]
    input: list[Annotated[str, _name("input", tasks.input_names)]] = ["gaussian"]
    input_scale: list[Scale] = [1.0]
    bias_scale: list[Scale] = [0.0]
    hidden: list[Size] = [128]
    inputs: list[Size] = [32]
    batch: list[Size] = [1]
    seed: Annotated[list[Seed], pydantic.BeforeValidator(_range)] = [0]


class TrainingSpec(_Grid):
    """A grid of trainings: every combination of the values of its axes.

    A run trains a `network` of the cell on the task, one batch of fresh sequences per update, and
    ends where the task is solved. Every `evaluate_every` updates it is evaluated on `evaluation`
    fresh sequences (or on all that the task holds out), and traced. The remedies are axes that are
    off at their default, 0 (`leak`: 1); see `gradlab.remedies`. `omega` and
    `omega_squared` weigh the two forms of Pascanu's regularizer, the mean over steps; `chrono` is
    T_max; `preflossing` counts updates of gradient flossing alone, with Adam at 1e-3, before the
    first one of the task.

    `evaluate_every`, `evaluation` and `flossing_exponents` are one number each.

    >>> spec = TrainingSpec(task=["adding"], length=[50], cell=["gru"], learning_rate=[1e-3],
    ...                     updates=[1000], clip_norm=[0.0, 1.0])
    >>> spec.hidden, spec.omega
    ([64], [0.0])
    """

    task: list[Annotated[str, _name("task", tasks.names)]]
    length: list[Size]
    cell: list[Annotated[str, _name("cell", cells.names)]]
    learning_rate: list[Scale]
    updates: list[Size]
    symbols: list[Size] = [2]
    size: list[Size] = [8]
    permuted: list[bool] = [False]
    every_step: list[bool] = [False]
    optimizer: list[Annotated[str, _name("optimizer", lambda: OPTIMIZERS)]] = ["adam"]
    batch: list[Size] = [32]
    init: list[Annotated[str, _name("initializer", initializers.names)]] = ["orthogonal"]
    gain: list[Scale] = [1.0]
    activation: list[Annotated[str, _name("activation", lambda: tuple(ACTIVATIONS))]] = ["tanh"]
    forget_bias: list[Number] = [1.0]
    hidden: list[Size] = [64]
    clip_norm: list[Scale] = [0.0]
    clip_value: list[Scale] = [0.0]
    omega: list[Scale] = [0.0]
    omega_squared: list[Scale] = [0.0]
    orthogonality: list[Scale] = [0.0]
    flossing: list[Scale] = [0.0]
    preflossing: list[Count] = [0]
    chrono: list[Scale] = [0.0]
    window: list[Count] = [0]
    leak: list[Annotated[Number, pydantic.Field(gt=0, le=1)]] = [1.0]
    seed: Annotated[list[Seed], pydantic.BeforeValidator(_range)] = [0]
    evaluate_every: Size = 100
    evaluation: Size = 500
    flossing_exponents: Size = 8

    @pydantic.field_validator("chrono")
    @classmethod
    def _check_chrono(cls, values: list[float]) -> list[float]:
        if any(0 < value < 2 for value in values):
            raise ValueError(f"T_max must be at least 2, or 0 for none, got {values}")
        return values

    @pydantic.model_validator(mode="after")
    def _check_updates(self) -> Self:
        for updates in self.updates:
            if updates % self.evaluate_every:
                raise ValueError(
                    f"updates must be a multiple of evaluate_every, {self.evaluate_every}, "
                    f"got {updates}"
                )
        return self


def load(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Spec | TrainingSpec:
    """Read a spec from a TOML file; see `parse`.

    Raises:
        ValueError: with one message that names the file, the key and what is valid.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        end = f"at line {len(text.splitlines())}, the end of the file"
        what = str(error).replace("at end of document", end)
        raise ValueError(f"{path}: broken TOML: {what}") from None
    try:
        return parse(table, overrides)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def made(given: Any, overrides: Mapping[str, Any] | None = None) -> Spec | TrainingSpec:
    """A spec from a TOML file, from its content or its axes as a mapping, or from a spec."""
    if isinstance(given, str | Path):
        return load(given, overrides)
    if isinstance(given, Mapping):
        return parse(given, overrides)
    if not isinstance(given, Spec | TrainingSpec):
        raise ValueError(f"a spec is a TOML file or its content as a mapping; got {given!r}")
    return parse(given.model_dump(exclude_unset=True), overrides) if overrides else given


def parse(
    table: Mapping[str, Any], overrides: Mapping[str, Any] | None = None
) -> Spec | TrainingSpec:
    """Check the content of a spec file: tables `axes`, `fixed` and `when`, lists `zip`, `blocks`.

    A spec that names a task is a `TrainingSpec`, any other a `Spec`. Under `axes` an axis is a list
    or a spacing (`{linspace = [0.5, 3.0, 26]}`), under `fixed` one value; a table of axes alone,
    without sections, holds either. A block `[[blocks]]` holds either as well, in place of what
    stands outside, and `overrides` do so in place of what stands anywhere.

    >>> parse({"axes": {"gain": [1.0], "length": [10]}, "fixed": {"cell": "gru", "init": "normal"}})
    Spec(blocks=[], zip=[], when={}, cell=['gru'], init=['normal'], gain=[1.0], length=[10], ...)
    >>> flat = {"cell": "gru", "init": "normal", "gain": {"linspace": [0, 1, 3]}, "length": 10}
    >>> spec = parse(flat, overrides={"length": 20, "seeds": 2})
    >>> spec.gain, spec.length, spec.seed
    ([0.0, 0.5, 1.0], [20], [0, 1])

    Raises:
        ValueError: with one message that names the key and what is valid.
    """
    shaping = {name: value for name, value in table.items() if name in _SHAPING}
    sections = {name: value for name, value in table.items() if name not in _SHAPING}
    if not all(isinstance(content, dict) for content in sections.values()):
        sections = sections if {"axes", "fixed"} & sections.keys() else {"": sections}
    blocks, zipped = shaping.get("blocks", []), shaping.get("zip", [])
    _check_tables("blocks", blocks)
    _check_tables("zip", zipped)
    for i, block in enumerate(blocks):
        _check_tables(f"blocks[{i}].zip", block.get("zip", []))
    overrides = dict(overrides or {})
    everywhere = [*(c for c in sections.values() if isinstance(c, dict)), *blocks, *zipped]
    training = any("task" in content for content in (*everywhere, overrides))
    model = TrainingSpec if training else Spec
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for section, content in sections.items():
        if section:
            choose("section", section, ("axes", "fixed", *_SHAPING))
        if not isinstance(content, dict):
            raise ValueError(f"{section} must be a table: [{section}]")
        for key, value in content.items():
            place = f"{section}.{key}" if section else key
            field = _field(model, key, f"key in [{section}]" if section else "key")
            if field in values:
                raise ValueError(f"{field} is given twice, as {places[field]} and {place}")
            several = isinstance(value, list | dict)
            if section == "axes" and field not in model.axes():
                raise ValueError(f"{key} is one number for all runs; it belongs into [fixed]")
            if section == "axes" and not several and key != "seeds":
                raise ValueError(f"axes.{key} must be a list; one value belongs into [fixed]")
            if section == "fixed" and several:
                raise ValueError(f"fixed.{key} must be one value; a list belongs into [axes]")
            values[field] = _listed(model, key, value)
            places[field] = place
    made = [_block(model, i, block) for i, block in enumerate(blocks)]
    for key, value in overrides.items():
        field = _field(model, key, "key to set")
        for group in (*zipped, *(group for block in made for group in block.get("zip", ()))):
            if field in group:
                raise ValueError(f"{field} is zipped with {', '.join(group)} and cannot be set")
        for block in made:
            block.pop(field, None)
        values[field] = _listed(model, key, value)
        places[field] = key
    values |= {name: value for name, value in shaping.items() if name != "blocks"}
    if not made:
        return _checked(model, values, places)
    for i, block in enumerate(made):
        named = {field: f"blocks[{i}].{field}" for field in block}
        _checked(model, _merged(values, block), places | named)
    # What only blocks give has to stand somewhere outside as well: no block leaves it as it is.
    first = {
        axis: _values(v, model._integer(axis))[:1]
        for group in made[0].get("zip", ())
        for axis, v in group.items()
    }
    needed = {k: v for k, v in (first | made[0]).items() if k in model.axes()}
    needed = {k: v for k, v in needed.items() if model.default(k) is None}
    return _checked(model, needed | values | {"blocks": made}, places)


def _check_tables(name: str, tables: Any) -> None:
    # A block may leave all as it is; axes that go together are at least one.
    least = 0 if name == "blocks" else 1
    if not isinstance(tables, list) or not all(
        isinstance(each, dict) and len(each) >= least for each in tables
    ):
        raise ValueError(f"{name} must be tables: [[{name.rpartition('].')[2]}]]")


def _field(model: type[_Grid], key: str, what: str) -> str:
    field = "seed" if key == "seeds" else key
    names = (name for name in model.model_fields if name not in _SHAPING)
    choose(what, field, (*names, "seeds"))
    return field


def _listed(model: type[_Grid], key: str, value: Any) -> Any:
    """One value of an axis as a list; a number of seeds and what is no axis stay as they are."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, tuple | range):
        value = list(value)
    if isinstance(value, list | dict) or key == "seeds" or key not in model.axes():
        return value
    return [value]


def _block(model: type[_Grid], i: int, block: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in block.items():
        if key in ("zip", "when"):
            made[key] = value
            continue
        field = _field(model, key, f"key in blocks[{i}]")
        if field not in model.axes():
            raise ValueError(f"{key} is one number for all runs; it belongs into [fixed]")
        made[field] = _listed(model, key, value)
    return made


def _checked(model: type[_Grid], values: dict[str, Any], places: dict[str, str]) -> Any:
    try:
        made = model(**values)
        # Blocks were checked one by one.
        if not made.blocks:
            made.grids()
        return made
    except pydantic.ValidationError as error:
        raise ValueError(_explain(error, places)) from None


def _explain(error: pydantic.ValidationError, places: dict[str, str]) -> str:
    first = error.errors()[0]
    what = first["msg"].removeprefix("Value error, ")
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
    shown = "" if first["type"] == "value_error" else f", got {first['input']!r}"
    return f"{place}: {what}{shown}"
