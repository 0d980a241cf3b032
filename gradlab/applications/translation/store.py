"""A translator as one file, without pickle."""

from pathlib import Path
from typing import Any

import numpy as np

from gradlab.applications import _store
from gradlab.applications.translation.data import Vocabulary
from gradlab.applications.translation.learn import Translator, build
from gradlab.applications.translation.recipes import Recipe, check

VERSION = 1
"""Of the file's format: a change of what a file holds, or of what its numbers mean, raises it."""

_KIND = "translation"


def save(translator: Translator, path: str | Path) -> None:
    """Write a translator to one safetensors file.

    Each parameter has its path in the tree as its name; the recipe, the languages and the
    vocabularies are in the file's metadata. The file is complete or it is not there.
    """
    about = {
        "recipe": translator.recipe._asdict(),
        "languages": translator.languages,
        "source": translator.source._asdict(),
        "target": translator.target._asdict(),
    }
    _store.write(path, _KIND, VERSION, about, _store.leaves(translator.params))


def load(path: str | Path) -> Translator:
    """Read what `save` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file that is damaged, of another version, or no translator; for weights
            that are not finite, and a recipe that nobody could have trained by.
    """
    return _store.read(path, _KIND, VERSION, _rebuild)


def _rebuild(about: dict[str, Any], arrays: dict[str, np.ndarray]) -> Translator:
    recipe = Recipe(**about["recipe"])
    check(recipe)
    source, target = (_vocabulary(about[side], side) for side in ("source", "target"))
    first, second = about["languages"]
    if not (isinstance(first, str) and isinstance(second, str)):
        raise ValueError("the languages are no texts")
    model = build(recipe, source, target)
    params = _store.restore(model.init, arrays)
    return Translator(recipe, (first, second), source, target, model, params)


def _vocabulary(table: dict[str, Any], side: str) -> Vocabulary:
    pieces = tuple(table["pieces"])
    merges = tuple((first, second) for first, second in table["merges"])
    texts = [*pieces, *(part for pair in merges for part in pair)]
    if not all(isinstance(text, str) and text for text in texts) or len({*pieces}) < len(pieces):
        raise ValueError(f"the vocabulary of the {side} has a piece twice, or one that is no text")
    if not {"".join(pair) for pair in merges} <= {*pieces}:
        raise ValueError(f"the vocabulary of the {side} joins pieces to one that it lacks")
    return Vocabulary(pieces, merges)
