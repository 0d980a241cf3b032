"""What the recipes of all applications share."""

from collections.abc import Mapping
from typing import Any

from gradlab._names import choose


def change(recipes: Mapping[str, Any], name: str, changes: Mapping[str, Any]) -> Any:
    """The recipe of that name, a NamedTuple, with some of its fields changed.

    Raises:
        ValueError: for an unknown name or field.
    """
    choose("recipe", name, recipes)
    for field in changes:
        choose("recipe field", field, recipes[name]._fields)
    return recipes[name]._replace(**changes)
