"""What an axis of a sweep is, and the types of its values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
import pydantic

LARGEST = float(np.finfo(np.float32).max)  # runs are computed in float32


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"must be finite, got {value}")
    if abs(value) > LARGEST:
        raise ValueError(f"must be finite in float32, got {value}")
    return value


def _json(value: Any) -> Any:
    """A JSON value in a form that can be compared and hashed."""
    if isinstance(value, list | tuple):
        return tuple(map(_json, value))
    if isinstance(value, dict):
        return tuple(sorted((str(k), _json(v)) for k, v in value.items()))
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"must be finite, got {value}")
    if not isinstance(value, str | int | float | bool | None):
        raise ValueError(f"must be a value of JSON, got {value!r}")
    return value


Number = Annotated[float, pydantic.AfterValidator(_finite)]
Scale = Annotated[Number, pydantic.Field(ge=0)]
Size = Annotated[int, pydantic.Field(ge=1, strict=True)]
Count = Annotated[int, pydantic.Field(ge=0, strict=True)]
Seed = Annotated[int, pydantic.Field(ge=0, lt=2**31, strict=True)]
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
    absent: Any = None
    optional: bool = False
    by: bool = False
