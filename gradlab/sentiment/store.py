"""A classifier as one file, without pickle."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradlab import _arrays
from gradlab._names import choose, shorten, show
from gradlab.sentiment.learn import Classifier, build
from gradlab.sentiment.recipes import Recipe
from gradlab.sentiment.text import UNITS, Vocabulary

VERSION = 3
"""Of the file's format: a change of what a file holds, or of what its numbers mean, raises it."""

SHIPPED = "gradlab/sentiment/data/everyday.safetensors"
"""The package's own model, which `load()` reads, from the root of the project."""

_FORMAT = "gradlab sentiment model"
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
        "format": _FORMAT,
        "version": VERSION,
        "recipe": classifier.recipe._asdict(),
        "vocabulary": classifier.vocabulary._asdict(),
    }
    leaves, _ = jax.tree.flatten_with_path(classifier.params)
    arrays = {_name(path): np.asarray(leaf) for path, leaf in leaves}
    if small:
        table = arrays[_TABLE]
        steps = np.maximum(np.abs(table).max(1), 1e-30).astype(np.float32) / _STEPS
        arrays[_TABLE] = np.rint(table / steps[:, None]).astype(np.int8)
        arrays[_TABLE_STEPS] = steps
    _arrays.write(path, about, {"seen": classifier.seen, **arrays})


def _name(path: Any) -> str:
    return f"params/{jax.tree_util.keystr(path, simple=True, separator='/')}"


def load(path: str | Path | None = None) -> Classifier:
    """Read what `save` wrote; without a path, the model that the package ships.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file that is damaged, of another version, or no model at all.

    >>> load().recipe.options["cell"]
    'gru'
    """
    path = Path(__file__).parent / "data" / Path(SHIPPED).name if path is None else path
    try:
        about, arrays = _arrays.read(path)
        is_ours = about["format"] == _FORMAT
        version = about["version"]
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: there is no such file") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: damaged, or not a gradlab sentiment model ({error})") from None
    if not is_ours:
        raise ValueError(f"{path}: not a gradlab sentiment model")
    if version != VERSION:
        raise ValueError(
            f"{path}: a model file of version {version}, and this gradlab reads version {VERSION}; "
            "train the model again"
        )
    try:
        return _rebuild(about, arrays)
    except Exception as error:
        what = shorten(str(error), 400)
        raise ValueError(f"{path}: damaged: its parts do not fit together ({what})") from None


def _rebuild(about: dict[str, Any], arrays: dict[str, np.ndarray]) -> Classifier:
    recipe = Recipe(**about["recipe"])
    vocabulary = Vocabulary(**about["vocabulary"])
    vocabulary = vocabulary._replace(tokens=tuple(vocabulary.tokens))
    _check_recipe(recipe, vocabulary)
    model = build(recipe, vocabulary)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    leaves, tree = jax.tree.flatten_with_path(shapes)
    names = [_name(path) for path, _ in leaves]
    seen = arrays.pop("seen")
    if (steps := arrays.pop(_TABLE_STEPS, None)) is not None:
        arrays[_TABLE] = arrays[_TABLE] * steps[:, None]
    if set(arrays) != set(names):
        raise ValueError(f"parameters {sorted(arrays)} instead of {sorted(names)}")
    values = [arrays[name] for name in names]
    for name, (_, wanted), got in zip(names, leaves, values, strict=True):
        if wanted.shape != got.shape or not jnp.issubdtype(got.dtype, jnp.floating):
            raise ValueError(f"{name}: {got.dtype} {got.shape} instead of {wanted.shape}")
    params = jax.tree.unflatten(tree, map(jnp.asarray, values))
    for name, weights in zip(names, values, strict=True):
        # As training has them: float32 has no number for 1e39.
        with np.errstate(over="ignore"):
            if not np.isfinite(weights.astype(np.float32)).all():
                raise ValueError(f"{name}: not all of its weights are finite")
    if seen.dtype != np.uint64 or seen.ndim != 1:
        raise ValueError(f"seen: {seen.dtype} {seen.shape} instead of uint64 (n,)")
    return Classifier(recipe, vocabulary, model, params, seen)


# What each field of a recipe may be: its type, the least and the most.
_LIMITS: dict[str, tuple[type, float, float]] = {
    "grams": (int, 1, 2),
    "tokens": (int, 1, 10**8),
    "length": (int, 1, 10**6),
    "batch": (int, 1, 10**6),
    "epochs": (int, 0, 10**6),
    "rate": (float, 0, 1e6),
    "clip": (float, 0, 1e30),
    "decay": (float, 0, 1e6),
    "word_dropout": (float, 0, 1),
    "pair_dropout": (float, 0, 1),
}


def _check_recipe(recipe: Recipe, vocabulary: Vocabulary) -> None:
    """Refuse a recipe that nobody could have trained by.

    Raises:
        ValueError: with the field, and what it may be.
    """
    for name, (kind, least, most) in _LIMITS.items():
        _check_number(name, getattr(recipe, name), kind, least, most)
    choose("unit", recipe.unit, UNITS)
    if not isinstance(recipe.options, dict):
        raise ValueError(f"options: {show(recipe.options)} is no table")
    for name, value in recipe.options.items():
        if not isinstance(value, bool | str):
            share = name.endswith("dropout")
            numbers = value if isinstance(value, list) and value else [value]
            for number in numbers:
                kind = float if share or name == "scale" else int
                _check_number(name, number, kind, 0 if share else 1e-9, 1 if share else 10**6)
    if (vocabulary.unit, vocabulary.grams) != (recipe.unit, recipe.grams):
        raise ValueError("the vocabulary has other tokens than the recipe")
    tokens = vocabulary.tokens
    if not all(isinstance(token, str) for token in tokens) or len({*tokens}) < len(tokens):
        raise ValueError("the vocabulary has a token twice, or one that is no text")


def _check_number(name: str, value: Any, kind: type, least: float, most: float) -> None:
    is_number = isinstance(value, int | kind) and not isinstance(value, bool)
    if not is_number or not least <= value <= most:  # NaN is neither
        what = "a whole number" if kind is int else "a number"
        raise ValueError(f"{name}: {show(value)} is not {what} from {least:g} to {most:g}")
