"""A series of values at equal distances in time, its parts, and windows of it."""

import contextlib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gradlab._files import expand
from gradlab._names import choose, show
from gradlab.applications._tables import rows_of
from gradlab.tasks import temperature

HOUR = 3600
DAY = 24 * HOUR

PARTS = ("fit", "validation", "test")
BORDERS = (0.7, 0.8)
"""Where the parts end, as shares of the series: the test part is its last fifth."""

# Of the steps between the first and the last, the share that a file may lack.
_GAPS = 0.05


class Series(NamedTuple):
    """Values at equal distances in time.

    Attributes:
        values: z_1..z_n, (n,).
        step: the seconds from one value to the next.
        start: the time of the first.
        unit: what the values are.
        name: where they come from.
    """

    values: Float[np.ndarray, " n"]
    step: int
    start: np.datetime64
    unit: str
    name: str

    @property
    def period(self) -> int:
        """The steps of a day; of a week, where a step is a day; 1 where it is longer."""
        return DAY // self.step if self.step < DAY else 7 if self.step == DAY else 1

    def part(self, name: str, before: int = 0) -> "Series":
        """A part in time, the last fifth for `test`.

        Args:
            name: one of `PARTS`.
            before: so many values before the part are there too: what the forecast of its first
                value reads.

        Raises:
            ValueError: for an unknown name.
        """
        choose("part", name, PARTS)
        borders = [0, *(int(share * len(self.values)) for share in BORDERS), len(self.values)]
        place = PARTS.index(name)
        first, last = max(borders[place] - before, 0), borders[place + 1]
        start = self.start + np.timedelta64(first * self.step, "s")
        return self._replace(values=self.values[first:last], start=start)

    def times(self) -> np.ndarray:
        """The time of each value."""
        return self.start + np.arange(len(self.values)) * np.timedelta64(self.step, "s")

    def describe(self) -> str:
        """One line on what there is."""
        last = self.times()[-1]
        every = "hour" if self.step == HOUR else "day" if self.step == DAY else f"{self.step} s"
        return (
            f"{len(self.values):,} values of {self.name} ({self.unit}), one every {every}, "
            f"{self.start} to {last}"
        )


def seattle() -> Series:
    """The temperature of every hour of a year in Seattle, in °F: what `gradlab.tasks` forecasts.

    These are climate normals, averages over many years: the weather's chance is smoothed away.

    Raises:
        ImportError: where vega_datasets is not installed.

    >>> seattle().period, len(seattle().part("test").values)
    (24, 1752)
    """
    start = np.datetime64("2010-01-01T00:00", "s")
    return Series(temperature.series(), HOUR, start, "°F", "Seattle's hourly normals")


def read(path: str | Path, time: str | None = None, value: str | None = None) -> Series:
    """A series from a file of comma-separated columns, the first line of which names them.

    Times are as in ISO 8601 without an offset, or with slashes: 2010/01/31 23:00. The step is the
    most frequent distance of two times, and below a day it divides one. Up to 5 % of the times may
    be missing; what lies between two others is put in on the line between them.

    Args:
        path: the file, in UTF-8.
        time: the column of the times; by default the first.
        value: the column of the values, and their unit; by default the second.

    Raises:
        ValueError: for a file that is not UTF-8, a line without a time or a value, or a time that
            is not after the one before, each with its line; for an unknown column, times at no
            equal distances, or too many gaps.
        OSError: for a file that cannot be read.
    """
    path = expand(path)
    rows = rows_of(path, io.StringIO(_text(path), newline=""))
    _, names = next(rows, (0, []))
    header = [name.strip() for name in names]
    if len(header) < 2 or any(map(_is_time, header)):
        raise ValueError(f"{path}: its first line must name a column of times and one of values")
    columns = [
        header.index(_column(path, header, name, place)) for place, name in enumerate((time, value))
    ]
    times, values = [], []
    for line, row in rows:
        where = f"{path}, line {line}"
        if not any(cell.strip() for cell in row):
            continue
        if len(row) <= max(columns):
            raise ValueError(f"{where}: {len(row)} columns instead of {len(header)}")
        at = _time(row[columns[0]], where)
        if times and at <= times[-1]:
            raise ValueError(f"{where}: {at} is not after {times[-1]}, the time before it")
        times.append(at)
        values.append(_value(row[columns[1]], where))
    return _regular(times, values, header[columns[1]], path)


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise OSError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}, line {line}: not UTF-8 ({error.reason})") from None


def _column(path: Path, header: list[str], name: str | None, place: int) -> str:
    if name is None:
        return header[place]
    choose(f"column of {path.name}", name, header)
    return name


# NumPy reads more as a time, a count of seconds as a year among it.
_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d(:\d\d(:\d\d(\.\d+)?)?)?)?")


def _plain(text: str) -> str:
    return text.strip().replace("/", "-").removesuffix("Z")


def _is_time(text: str) -> bool:
    return _TIME.fullmatch(_plain(text)) is not None


def _time(text: str, where: str) -> np.datetime64:
    at = np.datetime64("NaT")
    if _is_time(text):
        with contextlib.suppress(ValueError):
            at = np.datetime64(_plain(text).replace(" ", "T", 1), "s")
    if np.isnat(at):
        raise ValueError(
            f"{where}: {show(text)} is no time such as 2010-01-31 23:00, without an offset"
        )
    return at


def _value(text: str, where: str) -> float:
    value = np.nan
    with contextlib.suppress(ValueError):
        value = np.nan if "_" in text else float(text)
    if not np.isfinite(value):
        raise ValueError(f"{where}: {show(text)} is no finite number")
    return value


def _regular(times: Sequence, values: Sequence[float], unit: str, path: Path) -> Series:
    """The series with a value for each step; a missing one lies between its neighbours."""
    if len(times) < 2:
        raise ValueError(f"{path}: {len(times)} values are no series")
    seconds = (np.array(times) - times[0]).astype(np.int64)
    distances, counts = np.unique(np.diff(seconds), return_counts=True)
    step = int(distances[np.argmax(counts)])
    if step < DAY and DAY % step:
        raise ValueError(f"{path}: a day is no whole number of steps of {step} s")
    if (seconds % step).any():
        late = int(np.flatnonzero(seconds % step)[0])
        raise ValueError(
            f"{path}: {times[late]} is no multiple of the step, {step} s, after {times[0]}"
        )
    places = seconds // step
    count = int(places[-1]) + 1
    if count - len(values) > _GAPS * count:
        raise ValueError(
            f"{path}: {count - len(values):,} of {count:,} steps of {step} s have no value, "
            f"and more than {_GAPS:.0%} must not be missing"
        )
    regular = np.interp(np.arange(count), places, values)
    return Series(regular, step, times[0], unit, path.name)


def windows(
    values: Float[np.ndarray, " n"], length: int, horizon: int
) -> tuple[Float[np.ndarray, "m length"], Float[np.ndarray, "m horizon"]]:
    """All stretches of T + K values, cut into the first T and the K after them.

    Raises:
        ValueError: for a series that is shorter.

    >>> past, future = windows(np.arange(6.0), length=3, horizon=2)
    >>> past.tolist(), future.tolist()
    ([[0.0, 1.0, 2.0], [1.0, 2.0, 3.0]], [[3.0, 4.0], [4.0, 5.0]])
    """
    if len(values) < length + horizon:
        raise ValueError(
            f"{len(values):,} values are fewer than the {length} that a forecast reads and the "
            f"{horizon} that it is compared with"
        )
    both = np.lib.stride_tricks.sliding_window_view(values, length + horizon)
    return both[:, :length], both[:, length:]
