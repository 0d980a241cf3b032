"""Lines of medians with the range of all seeds, for frames of any columns."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from gradlab import frames
from gradlab.figures._style import MARKERS, SEQUENTIAL, missing_seeds, note


def need(frame: pd.DataFrame, columns: Sequence[str]) -> None:
    """Refuse a frame that is empty or lacks a column."""
    if lacks := [name for name in columns if name not in frame]:
        raise ValueError(f"the frame lacks {', '.join(lacks)}; it has {', '.join(map(str, frame))}")
    if frame.empty:
        raise ValueError("no rows to draw")


def colours_of(values: Sequence[Any]) -> dict[Any, Any]:
    """A colour for each value: numbers along a scale, names apart from each other."""
    numbers = all(isinstance(value, int | float | np.number) for value in values)
    if numbers and len(values) > 1:
        palette = sns.color_palette(SEQUENTIAL, as_cmap=True)
        shades = [palette(shade) for shade in np.linspace(0, 0.85, len(values))]
    else:
        # The second time round, names have another marker.
        base = sns.color_palette("colorblind")
        shades = [base[i % len(base)] for i in range(len(values))]
    return dict(zip(values, shades, strict=True))


def draw_lines(
    ax: Axes,
    frame: pd.DataFrame,
    x: str,
    y: str,
    hue: str | None = None,
    *,
    colours: dict[Any, Any] | None = None,
    markers: bool = False,
    label: str = "{}",
    band: bool = True,
    **style: Any,
) -> dict[Any, Any]:
    """Draw the median of `y` over `x` with the range of its seeds, a line per value of `hue`.

    A value that is infinite has a gap, and NaN ends the line where a seed has one, with a note.
    Returns the colours.
    """
    values = [None] if hue is None else list(dict.fromkeys(frame[hue]))
    colours = colours or colours_of(values)
    tables = []
    for k, value in enumerate(values):
        rows = frame if value is None else frame[frame[hue] == value]
        table = frames.spread(rows[y], [rows[x]]).reset_index()
        tables.append(table.assign(line=k))
        curve = table.replace([-np.inf, np.inf], np.nan)
        if band and (table["count"] > 1).any():
            shade = {"color": colours[value], "alpha": 0.2, "lw": 0}
            ax.fill_between(curve[x], curve["low"], curve["high"], **shade)
        if markers:
            style |= {"marker": MARKERS[k % len(MARKERS)], "ms": 3}
        text = None if value is None else label.format(value)
        ax.plot(curve[x], curve["median"], color=colours[value], label=text, **style)
    names = [str(value) for value in values]
    note(ax, missing_seeds(pd.concat(tables), names, x, f"{x} {{:g}}", "values"))
    return colours
