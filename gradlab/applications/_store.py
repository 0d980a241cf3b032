"""A trained model as one safetensors file, without pickle: what the applications share."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradlab import _arrays
from gradlab._names import shorten, show


def write(
    path: str | Path,
    kind: str,
    version: int,
    about: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Write a model of an application; the file is complete or it is not there."""
    _arrays.write(path, {"format": _format(kind), "version": version, **about}, arrays)


def _format(kind: str) -> str:
    return f"gradlab {kind} model"


def leaves(params: Any) -> dict[str, np.ndarray]:
    """The parameters by their paths in the tree, such as `params/cell/recurrent`."""
    pairs, _ = jax.tree.flatten_with_path(params)
    return {_name(path): np.asarray(leaf) for path, leaf in pairs}


def _name(path: Any) -> str:
    return f"params/{jax.tree_util.keystr(path, simple=True, separator='/')}"


def read(
    path: str | Path,
    kind: str,
    version: int,
    rebuild: Callable[[dict[str, Any], dict[str, np.ndarray]], Any],
) -> Any:
    """What `rebuild` makes of a file that `write` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file that is damaged, of another version, or no model of that kind.
    """
    try:
        about, arrays = _arrays.read(path)
        form = about["format"]
        file_version = about["version"]
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: there is no such file") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: damaged, or not a {_format(kind)} ({error})") from None
    if form != _format(kind):
        raise ValueError(f"{path}: not a {_format(kind)}")
    if file_version != version:
        raise ValueError(
            f"{path}: a model file of version {show(file_version)}, and this gradlab reads version "
            f"{version}; train the model again"
        )
    try:
        return rebuild(about, arrays)
    except Exception as error:
        what = shorten(str(error), 400)
        raise ValueError(f"{path}: damaged: its parts do not fit together ({what})") from None


def restore(init: Callable[..., Any], arrays: Mapping[str, np.ndarray]) -> Any:
    """The parameters of a model from arrays by their paths.

    Raises:
        ValueError: where one is missing, of another shape, or not finite in float32.
    """
    shapes = jax.eval_shape(init, jax.random.key(0))
    places, tree = jax.tree.flatten_with_path(shapes)
    names = [_name(path) for path, _ in places]
    if set(arrays) != set(names):
        raise ValueError(f"parameters {sorted(arrays)} instead of {sorted(names)}")
    values = [arrays[name] for name in names]
    for name, (_, like), array in zip(names, places, values, strict=True):
        is_number = jnp.issubdtype(array.dtype, jnp.inexact)
        is_complex = jnp.issubdtype(like.dtype, jnp.complexfloating)
        fits = is_number and jnp.issubdtype(array.dtype, jnp.complexfloating) == is_complex
        if like.shape != array.shape or not fits:
            raise ValueError(f"{name}: {array.dtype} {array.shape} instead of {like.shape}")
        # As training has them: float32 has no number for 1e39.
        narrow = np.complex64 if is_complex else np.float32
        with np.errstate(over="ignore"):
            if not np.isfinite(array.astype(narrow)).all():
                raise ValueError(f"{name}: not all of its weights are finite")
    return jax.tree.unflatten(tree, map(jnp.asarray, values))


def check_number(name: str, value: Any, kind: type, low: float, high: float) -> None:
    """Refuse what is no number between two others.

    Raises:
        ValueError: with the name, and what it may be.

    >>> check_number("epochs", -1, int, 0, 10)
    Traceback (most recent call last):
    ValueError: epochs: -1 is not a whole number from 0 to 10
    """
    is_number = isinstance(value, int | kind) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:  # NaN is neither
        what = "a whole number" if kind is int else "a number"
        raise ValueError(f"{name}: {show(value)} is not {what} from {low:g} to {high:g}")


def check_options(options: Any) -> None:
    """Refuse options of a model's builder that are no table of texts, flags and sane numbers.

    Widths are whole numbers from 1; shares, whose names end with `dropout`, are from 0 to 1.
    """
    if not isinstance(options, dict):
        raise ValueError(f"options: {show(options)} is no table")
    for name, value in options.items():
        if isinstance(value, bool | str):
            continue
        is_share = name.endswith("dropout")
        numbers = value if isinstance(value, list) and value else [value]
        for number in numbers:
            kind = float if is_share or name == "scale" else int
            check_number(name, number, kind, 0 if is_share else 1e-9, 1 if is_share else 10**6)
