"""Code of the user's own that a sweep names: files and modules to import, installed packages."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import sys
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gradlab import _source
from gradlab._names import show

GROUP = "gradlab.plugins"
"""The entry-point group of installed packages whose modules register something."""


def load(imports: Any, folder: str | Path = ".") -> tuple[str, ...]:
    """Import the files and modules of a spec, and the installed plugins.

    Args:
        imports: file names that end in .py, relative to `folder`, or names of modules.
        folder: where the spec stands. Modules are looked for there too.

    Returns:
        The imports, files by their whole paths: what another process has to load.

    Raises:
        ValueError: where one is not there, or raises an error.

    A file is imported under its own name, so that it can import its neighbours. One that has
    changed since it was imported is imported again.
    """
    load_installed()
    if isinstance(imports, str) or not isinstance(imports, Iterable):
        raise ValueError(f"imports is a list of files and modules, got {show(imports)}")
    return tuple(_load_one(each, Path(folder)) for each in imports)


@functools.cache
def load_installed() -> None:
    """Import the modules that installed packages name in the entry-point group."""
    for entry in importlib.metadata.entry_points(group=GROUP):
        try:
            entry.load()
        except Exception as error:
            raise ValueError(
                f"the plugin {entry.name} ({entry.value}) cannot be imported: "
                f"{type(error).__name__}: {error}"
            ) from error


def _load_one(name: Any, folder: Path) -> str:
    if not isinstance(name, str) or not name:
        raise ValueError(f"imports names files and modules, got {show(name)}")
    try:
        path = (folder / name).resolve() if name.endswith(".py") else None
        is_there = path is None or path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        is_there, path = False, Path(show(name))
    if not is_there:
        raise ValueError(f"imports: {path} is not there; a file is relative to the spec")
    here = str(path.parent if path is not None else folder.resolve())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        if path is None:
            importlib.import_module(name)
            return name
        _load_file(path)
        return str(path)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and path is None and error.name == name:
            raise ValueError(f"imports: there is no module {name} in {here} or installed") from None
        raise ValueError(f"imports: {name}: {_source.describe(error)}") from error


# The digest of each file's content when it was imported.
_CONTENTS: dict[Path, str] = {}


def _load_file(path: Path) -> types.ModuleType:
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    old = sys.modules.get(path.stem)
    origin = getattr(old, "__file__", None)
    if old is not None and (origin is None or Path(origin).resolve() != path):
        raise ValueError(
            f"another module is named {path.stem} already ({origin or 'built in'}); give the file "
            "another name"
        )
    if old is not None and _CONTENTS.get(path) in (None, content):
        _CONTENTS[path] = content
        return old
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    _CONTENTS[path] = content
    return module
