"""manifest.json of a folder of results: its one reader, and what to say of a file that is bad."""

from __future__ import annotations

import json
from typing import Any

from gradlab import _sums
from gradlab._files import Folder
from gradlab._names import shorten

FORMAT = 1
"""The layout of a folder of results, as its manifest says it; a folder that says none is older."""

NAME = "manifest.json"


class Missing(ValueError):
    """A file of results that is not there."""


class Newer(ValueError):
    """A folder that a newer gradlab wrote."""

    def __init__(self, folder: Any, form: Any) -> None:
        super().__init__(
            f"{folder} was written by a newer gradlab (format {shorten(str(form), 80)}, this one "
            f"reads up to {FORMAT}); update gradlab, or give another folder"
        )


def check_format(folder: Any, form: Any) -> None:
    """Refuse a format that this gradlab does not know.

    Raises:
        Newer: where it is above `FORMAT`, or no whole number.
    """
    if not isinstance(form, int) or form > FORMAT:
        raise Newer(folder, form)


def read(folder: Folder, *, verify: bool = True) -> dict[str, Any]:
    """The manifest of a folder.

    Args:
        folder: the folder of results.
        verify: whether to refuse a manifest that does not have the sum it was written with, as one
            that somebody edited.

    Raises:
        Missing: where there is none.
        Newer: where a newer gradlab wrote it.
        ValueError: where it is damaged.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as here:
    ...     folder = Folder(here)
    ...     folder.put("manifest.json", b'{"runs": 3}')
    ...     read(folder), find(Folder(f"{here}/none"))
    ({'runs': 3}, {})
    """
    try:
        content = folder.read(NAME)
    except (FileNotFoundError, NotADirectoryError):
        raise missing(folder, NAME) from None
    except OSError as error:
        raise damage_error(folder, NAME, error) from None
    try:
        manifest = json.loads(content.decode())
        if not isinstance(manifest, dict):
            raise ValueError("not a table")
        # Before the sum: a newer gradlab may take it in another way.
        check_format(folder, manifest.get("format", 0))
        if verify:
            _sums.verify(manifest)
    except Newer:
        raise
    except ValueError as error:
        raise damage_error(folder, NAME, error) from None
    return manifest


def find(folder: Folder, *, verify: bool = True) -> dict[str, Any]:
    """`read`, but {} where the manifest is missing or damaged: a sweep writes it again.

    Raises:
        Newer: where a newer gradlab wrote it.
    """
    try:
        return read(folder, verify=verify)
    except Newer:
        raise
    except ValueError:
        return {}


def missing(folder: Folder, name: str) -> Missing:
    """The error for a file of results that is not there, with what to do."""
    if name != NAME and read(folder).get("status") == "running":
        return Missing(
            f"no results in {str(folder)!r} yet: its sweep has not ended; `gradlab status` says "
            "what is missing"
        )
    return Missing(
        f"no results in {str(folder)!r}: {name} missing; "
        "`gradlab sweep SPEC.toml --out DIR` writes them"
    )


def damage_error(folder: Folder, name: str, error: Exception) -> ValueError:
    """The error for a file of results that cannot be read, in one line, with what to do."""
    place = f"{str(folder).rstrip('/')}/{name}"
    why = shorten((str(error).splitlines() or [type(error).__name__])[0], 200)
    return ValueError(
        f"{place!r} is damaged: {why}; the `gradlab sweep` that made the folder writes it again "
        "from its chunks"
    )
