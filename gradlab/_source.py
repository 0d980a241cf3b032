"""Which lines of code are the user's own."""

from __future__ import annotations

import functools
import glob
import os
import re
import sysconfig
import traceback
from pathlib import Path

import jax

JAX = str(Path(jax.__file__).parent) + os.sep
_HOUSE = str(Path(__file__).parent) + os.sep
_STDLIB = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib")})
# Where installed packages lie, of whatever interpreter: a virtual environment may see those of the
# system, of the user or of another environment.
_PACKAGES = re.compile(
    r"[/\\](site-packages|dist-packages)[/\\]|\.(egg|whl)[/\\]|[/\\]python\d+\.zip[/\\]"
)
# Code that no file holds and no user wrote: wrappers that libraries put around functions.
_GENERATED = ("<frozen ", "<@beartype", "<attrs generated", "<decorator-gen", "<makefun-gen")
NOT_USERS = (JAX, *_STDLIB, *_GENERATED)
"""Beginnings of the paths of JAX, of the standard library, and of what no file holds."""


@functools.cache
def is_users(path: str, function: str) -> bool:
    """Whether a frame is of the user's code."""
    if path.startswith((_HOUSE, *NOT_USERS)) or _PACKAGES.search(path):
        return False
    # A dataclass of a library has functions from a string.
    if path == "<string>" and function.startswith("__create_fn__"):
        return False
    return not _is_installed(Path(path))


def _is_installed(path: Path) -> bool:
    """Whether a file is of a package that `pip install --target` put into a folder.

    An editable install is not: its metadata lie elsewhere.
    """
    top = path
    while top.parent != top and (top.parent / "__init__.py").exists():
        top = top.parent
    return any(top.parent.glob(f"{glob.escape(top.stem)}-*.dist-info"))


def describe(error: BaseException) -> str:
    """An error in one line of at most some hundred characters, with the user's line of code.

    >>> describe(ValueError("no such thing"))
    'ValueError: no such thing'
    """
    text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    frames = reversed(traceback.extract_tb(error.__traceback__))
    own = (frame for frame in frames if is_users(frame.filename, frame.name))
    frame = next(own, None)
    return f"{text} ({Path(frame.filename).name}:{frame.lineno})" if frame else text
