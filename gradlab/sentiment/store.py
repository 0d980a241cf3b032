"""A classifier as one file, without pickle."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradlab import _files
from gradlab.sentiment.learn import Classifier, build
from gradlab.sentiment.recipes import Recipe
from gradlab.sentiment.text import Vocabulary

VERSION = 1
"""Of the file's format: a change of what a file holds, or of what its numbers mean, raises it."""

_FORMAT = "gradlab sentiment model"


def save(classifier: Classifier, path: str | Path) -> None:
    """Writes a classifier to one .npz file: the parameters, and a JSON text of everything else.

    The file is complete or it is not there.
    """
    path = Path(path)
    about = {
        "format": _FORMAT,
        "version": VERSION,
        "recipe": classifier.recipe._asdict(),
        "vocabulary": classifier.vocabulary._asdict(),
    }
    text = np.frombuffer(json.dumps(about).encode(), np.uint8)
    leaves = {f"{i:03d}": np.asarray(x) for i, x in enumerate(jax.tree.leaves(classifier.params))}
    path.parent.mkdir(parents=True, exist_ok=True)
    named = {"about": text, "seen": classifier.seen, **leaves}
    _files.write(path, lambda file: np.savez_compressed(file, allow_pickle=False, **named))


def load(path: str | Path) -> Classifier:
    """Reads what ``save`` wrote.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: for a file that is damaged, of another version, or no model at all.
    """
    try:
        with Path(path).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}  # each one checked by its CRC
        about = json.loads(arrays.pop("about").tobytes())
        ours = about["format"] == _FORMAT
        version = about["version"]
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: there is no such file") from None
    except Exception as error:  # what a damaged archive raises is as varied as the damage
        raise ValueError(f"{path}: damaged, or not a gradlab sentiment model ({error})") from None
    if not ours:
        raise ValueError(f"{path}: not a gradlab sentiment model")
    if version != VERSION:
        raise ValueError(
            f"{path}: a model file of version {version}, and this gradlab reads version {VERSION}; "
            "train the model again"
        )
    try:
        return _rebuild(about, arrays)
    except Exception as error:
        raise ValueError(f"{path}: damaged: its parts do not fit together ({error})") from None


def _rebuild(about: dict[str, Any], arrays: dict[str, np.ndarray]) -> Classifier:
    recipe = Recipe(**about["recipe"])
    vocabulary = Vocabulary(**about["vocabulary"])
    vocabulary = vocabulary._replace(tokens=tuple(vocabulary.tokens))
    model = build(recipe, vocabulary)
    leaves, tree = jax.tree.flatten(jax.eval_shape(model.init, jax.random.key(0)))
    seen = arrays.pop("seen")
    values = [arrays[f"{i:03d}"] for i in range(len(arrays))]
    for wanted, got in zip(leaves, values, strict=True):
        if wanted.shape != got.shape or not np.issubdtype(got.dtype, np.floating):
            raise ValueError(f"{got.dtype} of shape {got.shape} in place of {wanted.shape}")
    params = jax.tree.unflatten(tree, map(jnp.asarray, values))
    return Classifier(recipe, vocabulary, model, params, seen)


def default_path() -> Path:
    """Where a model is kept that was given no place: in the user's cache folder."""
    return _files.cache() / "sentiment.npz"
