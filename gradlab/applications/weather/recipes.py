"""What is trained how: every choice of the weather experiment, in one place.

All were made on the part validation; none on the test part.
"""

from typing import NamedTuple

from gradlab import cells
from gradlab._names import choose
from gradlab.applications import _recipes


class Recipe(NamedTuple):
    """A network and how it is trained.

    Attributes:
        cell: a name of `gradlab.cells`.
        hidden: H, the width of the cell.
        length: T, the steps that a forecast reads.
        horizon: K, the steps that it forecasts.
        batch: windows per update.
        epochs: passes through as many windows as there are.
        rate: the peak of Adam's learning rate, reached after a quarter of an epoch; then a half
            cosine down to a fiftieth.
        clip: the norm that a gradient is scaled down to; 0 for no clipping.
        decay: the decoupled weight decay, per unit of learning rate (AdamW).
    """

    cell: str
    hidden: int = 32
    length: int = 72
    horizon: int = 24
    batch: int = 64
    epochs: int = 60
    rate: float = 5e-3
    clip: float = 1.0
    decay: float = 0.0


RECIPES: dict[str, Recipe] = {name: Recipe(name) for name in ("elman", "lstm", "gru")}


def recipe(name: str, **changes: object) -> Recipe:
    """A recipe by name, with some of its fields changed.

    Raises:
        ValueError: for an unknown name or field.

    >>> recipe("gru", epochs=1).epochs
    1
    """
    return _recipes.change(RECIPES, name, changes)


_LIMITS: _recipes.Limits = {
    "hidden": (int, 1, 10**5),
    "length": (int, 1, 10**6),
    "horizon": (int, 1, 10**6),
}


def check(recipe: Recipe) -> None:
    """Refuse a recipe that nobody could train by.

    Raises:
        ValueError: with the field, and what it may be.
    """
    _recipes.check_numbers(recipe, _LIMITS)
    choose("cell", recipe.cell, cells.names())
