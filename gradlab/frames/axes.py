"""What an axis of a sweep is, and the types of its values."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
import pydantic

from gradlab._names import show

LARGEST = float(np.finfo(np.float32).max)  # runs are computed in float32
LARGEST_SIZE = 2**31 - 1  # XLA and JAX count the elements of a dimension in int32
DEEPEST = 16  # levels of lists and tables in a value, and in a spec


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ValueError(f"must be a number, got {show(value)}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"must be finite in float32, got {show(value)}") from None


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"must be finite, got {value}")
    if abs(value) > LARGEST:
        raise ValueError(f"must be finite in float32, got {value}")
    return value


def _json(value: Any) -> Any:
    """A JSON value in a form that can be compared and hashed."""
    return _freeze(value, 0)


class Table(tuple):
    """A table of JSON as its pairs, which can be hashed."""

    def __repr__(self) -> str:
        return f"Table({tuple(self)!r})"


def plain(value: Any) -> Any:
    """A value of JSON as the user wrote it.

    >>> plain((1, Table([("a", (2,))])))
    [1, {'a': [2]}]
    """
    if isinstance(value, Table):
        return {name: plain(each) for name, each in value}
    if isinstance(value, tuple):
        return [plain(each) for each in value]
    return value


def _freeze(value: Any, depth: int) -> Any:
    if depth > DEEPEST:
        raise ValueError(f"must have at most {DEEPEST} levels of lists and tables")
    if isinstance(value, list | tuple):
        return tuple(_freeze(each, depth + 1) for each in value)
    if isinstance(value, dict):
        pairs = ((str(k), _freeze(v, depth + 1)) for k, v in value.items())
        return Table(sorted(pairs, key=lambda pair: pair[0]))
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"must be finite, got {value}")
    if not isinstance(value, str | int | float | bool | None):
        raise ValueError(f"must be a value of JSON, got {show(value)}")
    return value


Number = Annotated[float, pydantic.BeforeValidator(_number), pydantic.AfterValidator(_finite)]
Scale = Annotated[Number, pydantic.Field(ge=0)]
Size = Annotated[int, pydantic.Field(ge=1, le=LARGEST_SIZE, strict=True)]
Count = Annotated[int, pydantic.Field(ge=0, le=LARGEST_SIZE, strict=True)]
Seed = Annotated[int, pydantic.Field(ge=0, lt=2**31, strict=True)]
# What a column of Int64 holds.
Integer = Annotated[int, pydantic.Field(ge=-(2**63), lt=2**63, strict=True)]
Json = Annotated[Any, pydantic.AfterValidator(_json)]


class _Required:
    def __repr__(self) -> str:
        return "required"


REQUIRED = _Required()
"""The default of an axis that a spec has to name."""


class Axis(NamedTuple):
    """One coordinate of a run. All that sweeps, frames and figures know of it follows from here.

    Attributes:
        name: its name in a spec and as a column.
        dtype: the pandas dtype of the column.
        unit: "" for a label and "1" for a plain number.
        meaning: one phrase.
        type: the type of one value, as pydantic has it; `str` with `choices`.
        default: the value where a spec does not name the axis; `REQUIRED` where it has to.
        choices: the valid names, or the kind of the registry that has them, such as "cell".
        program: whether another value makes another program, or is an argument of one.
        switch: whether the program only has to know if the value is the default, which is off.
        needs: an axis has a value only where these builders take one of these options: by the axis
            that names the builder, such as {"cell": ("forget_bias",)}.
        needs_all: whether all of those builders must take it; one is enough otherwise.
        absent: what the axis has where a builder does not take it; a missing value by default.
        optional: whether the column may be missing in a frame: it is younger than others.
        by: whether `gradlab status` counts runs by it.
    """

    name: str
    dtype: str
    unit: str
    meaning: str
    type: Any
    default: Any = REQUIRED
    choices: str | tuple[str, ...] = ""
    program: bool = True
    switch: bool = False
    needs: Mapping[str, tuple[str, ...]] = {}
    needs_all: bool = True
    absent: Any = None
    optional: bool = False
    by: bool = False
