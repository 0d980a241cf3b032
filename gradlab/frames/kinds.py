"""Which schema a folder of results has: gradlab's own kinds, and those that manifests describe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradlab import _names
from gradlab.frames.axes import Axis, Json
from gradlab.frames.conditioning import CONDITIONING
from gradlab.frames.coordinates import COORDINATES
from gradlab.frames.gradients import GRADIENTS
from gradlab.frames.schema import REASON, Column, Columns, Schema
from gradlab.frames.statistics import summarize_all
from gradlab.frames.training import TRAINING

KINDS: dict[str, Schema] = {
    schema.kind: schema for schema in (GRADIENTS, TRAINING, CONDITIONING, COORDINATES)
}
"""The schemas of what gradlab itself measures."""

STATUS = Column("str", "", "ok, or failed (not measured)", True)


def open_schema(kind: str, axes: tuple[Axis, ...]) -> Schema:
    """The schema of a measurement of the user's own, whose columns are known once it has run."""
    columns: Columns = {"status": STATUS, "reason": REASON}
    return Schema(kind, axes, columns, {}, summarize_all, is_open=True)


def describe(schema: Schema) -> dict[str, Any]:
    """What a manifest needs so that `schema_of` can restore the schema."""
    base = KINDS.get(schema.kind)
    own = {axis.name for axis in base.axes} if base else set()
    axes = [
        {
            "name": axis.name,
            "dtype": axis.dtype,
            "unit": axis.unit,
            "meaning": axis.meaning,
            "switch": axis.switch,
        }
        for axis in schema.axes
        if axis.name not in own
    ]
    if base:
        return {"axes": axes} if axes else {}
    columns = {"runs": schema.measured, **schema.others}
    content = {
        frame: {name: column._asdict() for name, column in fields.items()}
        for frame, fields in columns.items()
    }
    return {"axes": axes, "columns": content}


def schema_of(manifest: Mapping[str, Any], place: str = "manifest.json") -> Schema:
    """The schema of the frames that a manifest is about.

    Raises:
        ValueError: where it is of no kind that is known here and does not describe its own.
    """
    try:
        return _schema_of(manifest, place)
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"{place}: its axes or columns are none: {error}") from None


def _schema_of(manifest: Mapping[str, Any], place: str) -> Schema:
    kind = manifest.get("kind", "gradients")
    axes = tuple(Axis(type=Json, optional=True, **axis) for axis in manifest.get("axes", ()))
    declarations = manifest.get("columns")
    # Only a measurement of the user's own describes its columns.
    if declarations is None or kind in KINDS:
        _names.choose(f"kind of results in {place}:", kind, KINDS)
        return KINDS[kind].extend(axes)
    columns = {
        frame: {name: Column(**column) for name, column in fields.items()}
        for frame, fields in declarations.items()
    }
    runs = columns.pop("runs", {})
    if not isinstance(kind, str):
        raise TypeError(f"the kind is {kind!r}")
    return Schema(kind, axes, runs, columns, summarize_all)
