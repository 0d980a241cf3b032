"""One picture for all figures: published values as lines, measured ones as points."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import seaborn as sns
from matplotlib import rc_context
from matplotlib.figure import Figure

import gradlab as gl


class Curve(NamedTuple):
    """One curve of a panel; `published` or `measured` is empty where there is none.

    Names as `x` have no order: no line goes from one to the next.
    """

    label: str
    x: Sequence[float] | Sequence[str]
    published: Sequence[float] = ()
    measured: Sequence[float] = ()


def draw(path: Path, panels: Mapping[str, Sequence[Curve]], **axes: Any) -> None:
    """Write a PNG of the panels side by side; `axes` goes to `Axes.set` of each."""
    with rc_context(gl.figures.STYLE):
        width = 3.4 if len(panels) == 1 else 7.0
        fig = Figure(figsize=(width, 2.6), layout="constrained")
        boxes = fig.subplots(1, len(panels), squeeze=False)[0]
        for ax, (title, curves) in zip(boxes, panels.items(), strict=True):
            colours = sns.color_palette("colorblind", max(len(curves), 1))
            for colour, curve in zip(colours, curves, strict=True):
                style: dict[str, Any] = {"ls": "--"}
                if isinstance(next(iter(curve.x)), str):
                    style = {"ls": "", "marker": "_", "ms": 18}
                    ax.margins(x=0.1)
                if len(curve.published):
                    ax.plot(curve.x, np.asarray(curve.published, float), color=colour, **style)
                if len(curve.measured):
                    ax.plot(curve.x, np.asarray(curve.measured, float), "o", ms=3, color=colour)
                ax.plot([], [], "-o", ms=3, color=colour, label=curve.label)
            ax.set(title=title, **axes)
            ax.legend(fontsize=6)
        fig.suptitle("dashed: published, points: measured", fontsize=6, x=0.99, ha="right")
        gl.figures.save(fig, path.with_suffix(""), ["png"])
