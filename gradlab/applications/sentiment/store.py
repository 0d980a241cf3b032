"""A classifier as one file, without pickle."""

from pathlib import Path
from typing import Any

import numpy as np

from gradlab.applications import _store
from gradlab.applications.sentiment.data import Vocabulary
from gradlab.applications.sentiment.learn import Classifier, build
from gradlab.applications.sentiment.recipes import Recipe, check

VERSION = 3
"""Of the file's format: a change of what a file holds, or of what its numbers mean, raises it."""

SHIPPED = "gradlab/applications/sentiment/weights/everyday.safetensors"
"""The package's own model, which `load()` reads, from the root of the project."""

_KIND = "sentiment"
_TABLE, _TABLE_STEPS = "params/embedding", "steps/embedding"
_STEPS = 127  # of an 8-bit number to each side of zero


def save(classifier: Classifier, path: str | Path, *, small: bool = False) -> None:
    """Write a classifier to one safetensors file.

    Each parameter has its path in the tree as its name, such as `params/cell/W`; the recipe and the
    vocabulary are in the file's metadata. The file is complete or it is not there.

    Args:
        classifier: what to write.
        path: the file.
        small: write the vectors of the words in 8 bits: row i is s_i times integers from -127 to
            127, with s_i in `steps/embedding`. A quarter of the bytes, and an entry is off by at
            most s_i / 2.
    """
    about = {
        "recipe": classifier.recipe._asdict(),
        "vocabulary": classifier.vocabulary._asdict(),
    }
    arrays = _store.leaves(classifier.params)
    if small:
        table = arrays[_TABLE]
        steps = np.maximum(np.abs(table).max(1), 1e-30).astype(np.float32) / _STEPS
        arrays[_TABLE] = np.rint(table / steps[:, None]).astype(np.int8)
        arrays[_TABLE_STEPS] = steps
    _store.write(path, _KIND, VERSION, about, {"seen": classifier.seen, **arrays})


def load(path: str | Path | None = None) -> Classifier:
    """Read what `save` wrote; without a path, the model that the package ships.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file that is damaged, of another version, or no model at all.

    >>> load().recipe.options["cell"]
    'gru'
    """
    path = Path(__file__).parent / "weights" / Path(SHIPPED).name if path is None else path
    return _store.read(path, _KIND, VERSION, _rebuild)


def _rebuild(about: dict[str, Any], arrays: dict[str, np.ndarray]) -> Classifier:
    recipe = Recipe(**about["recipe"])
    vocabulary = Vocabulary(**about["vocabulary"])
    vocabulary = vocabulary._replace(tokens=tuple(vocabulary.tokens))
    _check_both(recipe, vocabulary)
    model = build(recipe, vocabulary)
    seen = arrays.pop("seen")
    if (steps := arrays.pop(_TABLE_STEPS, None)) is not None:
        arrays[_TABLE] = arrays[_TABLE] * steps[:, None]
    params = _store.restore(model.init, arrays)
    if seen.dtype != np.uint64 or seen.ndim != 1:
        raise ValueError(f"seen: {seen.dtype} {seen.shape} instead of uint64 (n,)")
    return Classifier(recipe, vocabulary, model, params, seen)


def _check_both(recipe: Recipe, vocabulary: Vocabulary) -> None:
    """Refuse a recipe that nobody could have trained by, and a vocabulary that is not its own.

    Raises:
        ValueError: with the field, and what it may be.
    """
    check(recipe)
    # True is equal to 1, and 2.0 to 2, but no array has so many columns.
    _store.check_number("grams", vocabulary.grams, int, 1, 2)
    if (vocabulary.unit, vocabulary.grams) != (recipe.unit, recipe.grams):
        raise ValueError("the vocabulary has other tokens than the recipe")
    tokens = vocabulary.tokens
    if not all(isinstance(token, str) for token in tokens) or len({*tokens}) < len(tokens):
        raise ValueError("the vocabulary has a token twice, or one that is no text")
