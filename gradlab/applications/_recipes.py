"""What the recipes of all applications share."""

from collections.abc import Mapping
from typing import Any

from gradlab._names import choose
from gradlab.applications import _store

Limits = Mapping[str, tuple[type, float, float]]
"""What each field may be: its type, the least and the most."""

_SCHEDULE: Limits = {
    "batch": (int, 1, 10**6),
    "epochs": (int, 0, 10**6),
    "rate": (float, 0, 1e38),
    "clip": (float, 0, 1e30),
    "decay": (float, 0, 1e6),
}


def change(recipes: Mapping[str, Any], name: str, changes: Mapping[str, Any]) -> Any:
    """The recipe of that name, a NamedTuple, with some of its fields changed.

    Raises:
        ValueError: for an unknown name or field.
    """
    choose("recipe", name, recipes)
    for field in changes:
        choose("recipe field", field, recipes[name]._fields)
    return recipes[name]._replace(**changes)


def check_numbers(recipe: Any, limits: Limits) -> None:
    """Refuse a recipe with a number outside of its limits, or outside of those of every schedule.

    Raises:
        ValueError: with the field, and what it may be.
    """
    for name, (kind, low, high) in {**limits, **_SCHEDULE}.items():
        _store.check_number(name, getattr(recipe, name), kind, low, high)
