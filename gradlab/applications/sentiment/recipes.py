"""What is trained how: every choice of the sentiment experiment, in one place.

All were made on 20,000 of the training reviews against the other 5,000; none on the test part.
"""

from typing import Any, NamedTuple

from gradlab._names import choose
from gradlab.applications import _recipes, _store
from gradlab.applications.sentiment.data import UNITS


class Recipe(NamedTuple):
    """A model and how it is trained.

    Attributes:
        model: a name of `models`.
        options: the arguments of its builder, but for the vocabulary's size.
        unit: what a text is cut into, words or characters.
        grams: 1, or 2 for pairs of neighbours as well.
        tokens: the size of the vocabulary, without the codes of padding and of other tokens.
        length: T, how many of a review's last tokens are read.
        batch: reviews per update.
        epochs: passes through the reviews.
        rate: the peak of Adam's learning rate, reached after a quarter of an epoch; then a half
            cosine down to a fiftieth.
        clip: the norm that a gradient is scaled down to; 0 for no clipping.
        decay: the decoupled weight decay, per unit of learning rate (AdamW).
        word_dropout: the share of a review's tokens that training replaces by the unknown one.
        pair_dropout: the share of the other tokens that lose the pair which ends there.
    """

    model: str
    options: dict[str, Any]
    unit: str = "words"
    grams: int = 1
    tokens: int = 15_000
    length: int = 400
    batch: int = 64
    epochs: int = 4
    rate: float = 2e-3
    clip: float = 1.0
    decay: float = 0.0
    word_dropout: float = 0.1
    pair_dropout: float = 0.0


def _recurrent(cell: str, **changes: Any) -> Recipe:
    options = {"cell": cell, "embedding_dropout": 0.3, "dropout": 0.3}
    options |= changes.pop("options", {})
    return Recipe("recurrent", options, **changes)


_STANDARD = {"initialization": "standard"}

RECIPES: dict[str, Recipe] = {
    # Elman's network: as PyTorch begins it, then orthogonal, then with clipped gradients on top.
    "elman": _recurrent("elman", options=_STANDARD, rate=1e-3, clip=0.0),
    "elman_orthogonal": _recurrent("elman", rate=1e-3, clip=0.0),
    "elman_clipped": _recurrent("elman", rate=1e-3),
    "gru": _recurrent("gru"),
    "lstm": _recurrent("lstm", word_dropout=0.2),
    "pooled": Recipe(
        "pooled",
        {
            "cell": "gru",
            "hidden": 48,
            "bidirectional": True,
            "scale": 0.01,
            "embedding_dropout": 0.5,
            "dropout": 0.5,
        },
        grams=2,
        tokens=45_000,
        epochs=3,
        decay=0.1,
        word_dropout=0.3,
        pair_dropout=0.3,
    ),
    # What the package ships (experiments/sentiment_model.py): words and pairs, in few numbers.
    "everyday": _recurrent(
        "gru",
        options={"embedding": 48},
        grams=2,
        tokens=24_000,
        epochs=3,
        pair_dropout=0.2,
    ),
    "convolution": Recipe(
        "convolution",
        {"widths": [3, 4, 5], "filters": 50, "dropout": 0.5},
        epochs=3,
        rate=4e-3,
    ),
    # What the networks above read, without its order: the same words, each by itself.
    "bag_of_single_words": Recipe(
        "bag_of_words", {}, rate=2e-2, clip=0.0, word_dropout=0.0, epochs=6
    ),
    "bag_of_words": Recipe(
        "bag_of_words",
        {},
        grams=2,
        tokens=200_000,
        length=1000,
        rate=2e-2,
        clip=0.0,
        word_dropout=0.0,
    ),
}


def recipe(name: str, **changes: Any) -> Recipe:
    """A recipe by name, with some of its fields changed.

    Raises:
        ValueError: for an unknown name or field.

    >>> recipe("gru", epochs=1).epochs
    1
    """
    return _recipes.change(RECIPES, name, changes)


def quick(name: str, unit: str = "words") -> Recipe:
    """The recipe for the package's snippets, single sentences: seconds instead of minutes.

    In characters, pairs of neighbours have vectors as well.

    >>> quick("gru", "characters").length
    200
    """
    whole = recipe(name, unit=unit)
    if unit != "characters":
        return whole._replace(tokens=10_000, length=50)
    lighter = {"embedding_dropout": 0.0, "dropout": 0.2}
    return whole._replace(
        options=whole.options | {key: lighter[key] for key in lighter if key in whole.options},
        grams=2,
        tokens=2_000,
        length=200,
        batch=32,
        epochs=5,
        rate=max(whole.rate, 3e-3),
        word_dropout=0.0,
        pair_dropout=0.0,
    )


_LIMITS: _recipes.Limits = {
    "grams": (int, 1, 2),
    "tokens": (int, 1, 10**8),
    "length": (int, 1, 10**6),
    "word_dropout": (float, 0, 1),
    "pair_dropout": (float, 0, 1),
}


def check(recipe: Recipe) -> None:
    """Refuse a recipe that nobody could train by.

    Raises:
        ValueError: with the field, and what it may be.
    """
    _recipes.check_numbers(recipe, _LIMITS)
    choose("unit", recipe.unit, UNITS)
    _store.check_options(recipe.options)
