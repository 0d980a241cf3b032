"""What to measure: a TOML file as a typed, validated grid."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

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


class _Grid(pydantic.BaseModel):
    """A grid of runs: every combination of the values of its axes.

    `blocks` makes several grids of one: each block is a mapping of axes to other values, and gives
    a grid of its own with all else as it stands here.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    blocks: list[dict[str, Any]] = []

    def grids(self) -> list[Self]:
        """The grids, without blocks: this one, or one for each block."""
        if not self.blocks:
            return [self]
        whole = self.model_dump(exclude={"blocks"})
        return [type(self)(**(whole | block)) for block in self.blocks]

    @pydantic.field_validator("*")
    @classmethod
    def _check_axis(cls, values: Any, info: pydantic.ValidationInfo) -> Any:
        if not isinstance(values, list) or info.field_name == "blocks":
            return values
        if not values:
            raise ValueError("an axis needs at least one value")
        twice = {value for value in values if values.count(value) > 1}
        if twice:
            raise ValueError(f"values twice: {', '.join(map(str, sorted(twice)))}")
        return values


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


def load(path: str | Path) -> Spec | TrainingSpec:
    """Read a spec from a TOML file.

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
        return parse(table)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def parse(table: dict[str, Any]) -> Spec | TrainingSpec:
    """Check the content of a spec file: tables `axes` and `fixed`, and any number of `blocks`.

    A spec that names a task is a `TrainingSpec`, any other a `Spec`. A block `[[blocks]]` holds
    axes and fixed values alike, a list or one value, in place of those that stand outside.

    >>> parse({"axes": {"gain": [1.0], "length": [10]}, "fixed": {"cell": "gru", "init": "normal"}})
    Spec(blocks=[], cell=['gru'], init=['normal'], gain=[1.0], length=[10], ...)

    Raises:
        ValueError: with one message that names the key and what is valid.
    """
    table = dict(table)
    blocks = table.pop("blocks", [])
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise ValueError("blocks must be tables: [[blocks]]")
    tables = [*(content for content in table.values() if isinstance(content, dict)), *blocks]
    model = TrainingSpec if any("task" in content for content in tables) else Spec
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for section, content in table.items():
        choose("section", section, ("axes", "fixed", "blocks"))
        if not isinstance(content, dict):
            raise ValueError(f"{section} must be a table: [{section}]")
        for key, value in content.items():
            field = "seed" if key == "seeds" else key
            choose(f"key in [{section}]", field, (*model.model_fields, "seeds"))
            if field in values:
                raise ValueError(f"{field} is given twice, as {places[field]} and {section}.{key}")
            is_count = key == "seeds" and not isinstance(value, list)
            number = model.model_fields[field].annotation is int
            if section == "axes" and number:
                raise ValueError(f"{key} is one number for all runs; it belongs into [fixed]")
            if section == "axes" and not isinstance(value, list) and not is_count:
                raise ValueError(f"axes.{key} must be a list; one value belongs into [fixed]")
            if section == "fixed" and isinstance(value, list):
                raise ValueError(f"fixed.{key} must be one value; a list belongs into [axes]")
            values[field] = value if section == "axes" or is_count or number else [value]
            places[field] = f"{section}.{key}"
    if not blocks:
        return _checked(model, values, places)
    overrides = []
    for i, block in enumerate(blocks):
        override: dict[str, Any] = {}
        for key, value in block.items():
            field = "seed" if key == "seeds" else key
            choose(f"key in blocks[{i}]", field, (*model.model_fields, "seeds"))
            if model.model_fields[field].annotation is int:
                raise ValueError(f"{key} is one number for all runs; it belongs into [fixed]")
            override[field] = value if isinstance(value, list) or key == "seeds" else [value]
        overrides.append(override)
        named = {field: f"blocks[{i}].{field}" for field in override}
        _checked(model, values | override, places | named)
    # What only blocks give has to stand somewhere outside as well: no block leaves it as it is.
    needed = {k: v for k, v in overrides[0].items() if model.model_fields[k].is_required()}
    return _checked(model, needed | values | {"blocks": overrides}, places)


def _checked(model: type[_Grid], values: dict[str, Any], places: dict[str, str]) -> Any:
    try:
        return model(**values)
    except pydantic.ValidationError as error:
        raise ValueError(_explain(error, places)) from None


def _explain(error: pydantic.ValidationError, places: dict[str, str]) -> str:
    first = error.errors()[0]
    if not first["loc"]:  # about several fields at once
        return first["msg"].removeprefix("Value error, ")
    field, *index = first["loc"]
    if first["type"] == "missing":
        return f"{field} is missing; give it as a list in [axes] or as one value in [fixed]"
    place = places.get(str(field), str(field))
    if not place.startswith("fixed."):
        place += "".join(f"[{i}]" for i in index)
    what = first["msg"].removeprefix("Value error, ")
    shown = "" if first["type"] == "value_error" else f", got {first['input']!r}"
    return f"{place}: {what}{shown}"
