"""Named arrays, and a table about them, in one safetensors file that finds its own damage."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gradlab import _files

# The types that safetensors gives back to NumPy; the others are stored as bytes.
_TYPES = {"bool", "float16", "float32", "float64", "complex64"} | {
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}


def write(path: str | Path, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays to a file, whole or not at all; its folder is made where it is missing.

    Args:
        path: the file; ~ is the user's home.
        about: what JSON can hold.
        arrays: any types that are made of plain bytes, ml_dtypes' included.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(f"{folder}/a", {"version": 1}, {"w": np.arange(3)})
    ...     read(f"{folder}/a")
    ({'version': 1}, {'w': array([0, 1, 2])})
    """
    import safetensors.numpy

    others = {n: (a.dtype.name, a.shape) for n, a in arrays.items() if a.dtype.name not in _TYPES}
    plain = {n: _bytes(a) if n in others else np.asarray(a, order="C") for n, a in arrays.items()}
    text = json.dumps({"about": about, "others": others})
    # safetensors itself has no checksum.
    metadata = {"about": text, "sum": _sum(text, plain)}
    content = safetensors.numpy.save(plain, metadata)
    path = _files.expand(path)
    _files.make_folder(path.parent)
    _files.write(path, lambda file: file.write(content))


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `write` wrote: the table and the arrays.

    Files by earlier versions of gradlab, which are .npz archives, are read as well; in these an
    array of ml_dtypes comes as a void type of its size.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it is damaged or something else.
    """
    path = _files.expand(path)
    try:
        with path.open("rb") as file:
            is_archive = file.read(4) == b"PK\3\4"
        return _read_archive(path) if is_archive else _read(path)
    except FileNotFoundError:
        raise
    except Exception as error:  # what damage raises is as varied as the damage
        raise ValueError(str(error) or type(error).__name__) from None


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    import safetensors

    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        plain = {name: file.get_tensor(name) for name in file.keys()}
    if metadata["sum"] != _sum(metadata["about"], plain):
        raise ValueError("its content does not have the sum that it was written with")
    table = json.loads(metadata["about"])
    for name, (dtype, shape) in table["others"].items():
        plain[name] = plain[name].view(np.dtype(dtype)).reshape(shape)
    return table["about"], plain


def _read_archive(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}  # each is checked by its CRC
    about = arrays.pop("about")
    text = about.tobytes().decode() if about.dtype == np.uint8 else str(about)
    return json.loads(text), arrays


def _sum(about: str, arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(about.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"\0{name} {array.dtype.str} {array.shape}".encode())
        digest.update(_bytes(array).data)
    return digest.hexdigest()


def _bytes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
