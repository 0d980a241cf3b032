"""What the command lines of the applications share: lines of text, and files for models."""

import os
import sys
from pathlib import Path

from gradlab._files import expand


def read_lines(file: Path | None, what: str) -> list[tuple[int, str]]:
    """The lines that are not blank, with their numbers, of a file or of standard input.

    Args:
        file: None or `-` for standard input.
        what: a line is, for messages.

    Raises:
        ValueError: for a line that is not UTF-8, no line at all, or a file that cannot be read.
    """
    if file is None and sys.stdin.isatty():
        raise ValueError(
            f"give a text in quotes, --file FILE, or a {what} a line on standard input"
        )
    if file is None or str(file) == "-":
        name, content = "standard input", sys.stdin.buffer.read()
    else:
        try:
            name, content = str(file), file.read_bytes()
        except OSError as error:
            raise ValueError(f"{file}: cannot be read ({error.strerror})") from None
    try:
        # Not splitlines, which also ends a line at signs that stand inside a text, such as U+2028.
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"{name}, line {line}: not UTF-8 ({error.reason})") from None
    rows = [(i, line) for i, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise ValueError(f"{name}: there is no {what} in it")
    return rows


def check_out(path: Path) -> Path:
    """The file for a model, in a folder that can be written; found out before the training.

    Raises:
        ValueError: for a folder, or a place that cannot be written.
    """
    path = expand(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; --out needs the name of a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"cannot write to {path.parent}")
    return path
