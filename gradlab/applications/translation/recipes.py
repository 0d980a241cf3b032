"""What is trained how: every choice of the translation experiment, in one place.

All were made on the part validation; none on the test part.
"""

from typing import Any, NamedTuple

from gradlab.applications import _recipes, _store


class Recipe(NamedTuple):
    """A model and how it is trained.

    Attributes:
        options: the arguments of `models.translator`, but for the vocabularies' sizes.
        reverse: whether the source is read from its end to its beginning.
        pieces: the most pieces of words in each vocabulary.
        length: the most pieces of a text; longer pairs are left out of the training.
        batch: pairs per update.
        epochs: passes through the pairs.
        rate: the peak of Adam's learning rate, reached after a quarter of an epoch; then a half
            cosine down to a fiftieth.
        clip: the norm that a gradient is scaled down to; 0 for no clipping.
        decay: the decoupled weight decay, per unit of learning rate (AdamW).
        smoothing: ε, the share of the probability that training wants spread over all pieces.
        beam: how many beginnings of a translation are followed side by side.
    """

    options: dict[str, Any]
    reverse: bool = False
    pieces: int = 500
    length: int = 40
    batch: int = 64
    epochs: int = 6
    rate: float = 3e-3
    clip: float = 1.0
    decay: float = 0.0
    smoothing: float = 0.0
    beam: int = 1


_PLAIN = {"attention": False}
_SENTENCES = Recipe(
    {
        "hidden": 192,
        "embedding": 128,
        "width": 96,
        "embedding_dropout": 0.1,
        "dropout": 0.2,
    },
    pieces=3000,
    length=60,
    batch=64,
    epochs=5,
    rate=3e-3,
    smoothing=0.1,
    beam=5,
)

RECIPES: dict[str, Recipe] = {
    # Numbers in words: short texts of few words.
    "attention": Recipe({}),
    "plain": Recipe(_PLAIN),
    "reversed": Recipe(_PLAIN, reverse=True),
    # Sentences of everyday length, such as the captions of Multi30k.
    "sentences": _SENTENCES,
    "sentences_plain": _SENTENCES._replace(options={**_SENTENCES.options, "attention": False}),
}
RECIPES["sentences_reversed"] = RECIPES["sentences_plain"]._replace(reverse=True)


def recipe(name: str, **changes: Any) -> Recipe:
    """A recipe by name, with some of its fields changed.

    Raises:
        ValueError: for an unknown name or field.

    >>> recipe("attention", epochs=1).epochs
    1
    """
    return _recipes.change(RECIPES, name, changes)


_LIMITS: _recipes.Limits = {
    "pieces": (int, 1, 10**6),
    "length": (int, 1, 10**4),
    "smoothing": (float, 0, 1),
    "beam": (int, 1, 1000),
}


def check(recipe: Recipe) -> None:
    """Refuse a recipe that nobody could train by.

    Raises:
        ValueError: with the field, and what it may be.
    """
    _recipes.check_numbers(recipe, _LIMITS)
    if not isinstance(recipe.reverse, bool):
        raise ValueError(f"reverse: {recipe.reverse!r} is neither true nor false")
    _store.check_options(recipe.options)
