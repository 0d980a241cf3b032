"""Tables in text files: their rows, with the lines that messages name."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def rows_of(path: Path, lines: Iterable[str], **style: Any) -> Iterator[tuple[int, list[str]]]:
    """The number of the line, from 1, and the cells of each row.

    Args:
        path: where the lines come from, for messages.
        lines: of text.
        style: what `csv.reader` takes, such as the delimiter.

    Raises:
        ValueError: for a line that csv cannot read.

    >>> list(rows_of(Path("a.csv"), ["x,y", "1,2"]))
    [(1, ['x', 'y']), (2, ['1', '2'])]
    """
    rows = csv.reader(lines, **style)
    try:
        for row in rows:
            yield rows.line_num, row
    except csv.Error as error:
        raise ValueError(f"{path}, line {rows.line_num}: {error}") from None
