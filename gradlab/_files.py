"""One way to write a file: whole, or not at all; and where the user's own files are kept."""

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write(path: str | Path, fill: Callable[[BinaryIO], object]) -> None:
    """Give ``path`` the content that ``fill`` writes, once all of it is on the disk.

    The content goes into a temporary file of the same folder, which takes the name at the end;
    where anything fails, the old file stays and nothing is left behind.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(Path(folder) / "a.txt", lambda file: file.write(b"whole"))
    ...     [path.read_text() for path in Path(folder).iterdir()]
    ['whole']
    """
    path = Path(path)
    temporary = path.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        with temporary.open("wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def cache() -> Path:
    """The user's folder for what can be made again: gradlab in $XDG_CACHE_HOME, or in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "gradlab"
