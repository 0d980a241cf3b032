"""One picture for all figures: published values as lines, measured ones as points."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import seaborn as sns
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

import gradlab as gl

MARKERS = ("o", "s", "^", "D", "v", "p", "h", "d")
# Each shows through the gaps of the next, where curves lie on each other.
LINES = ("-", (0, (5, 3)), (0, (1, 2)), (0, (5, 2, 1, 2)))
DASHES = ((0, (3, 3)), (3, (3, 3)))
# More values on a logarithmic axis than these get matplotlib's own ticks.
LABELS = 8


class Curve(NamedTuple):
    """One curve of a panel; `published` or `measured` is empty where there is none.

    Names as `x` have no order: no line goes from one to the next.
    """

    label: str
    x: Sequence[float] | Sequence[str]
    published: Sequence[float] = ()
    measured: Sequence[float] = ()

    @property
    def names(self) -> bool:
        """Whether x are names."""
        return isinstance(next(iter(self.x)), str)


def draw(path: Path, panels: Mapping[str, Sequence[Curve]], **axes: Any) -> None:
    """Write a PNG of the panels side by side; `axes` goes to `Axes.set` of each."""
    with rc_context(gl.figures.STYLE):
        width = 3.4 if len(panels) == 1 else 7.0
        fig = Figure(figsize=(width, 2.6), layout="constrained")
        boxes = fig.subplots(1, len(panels), squeeze=False)[0]
        for ax, (title, curves) in zip(boxes, panels.items(), strict=True):
            colours = sns.color_palette("colorblind", max(len(curves), 1))
            for i, (colour, curve) in enumerate(zip(colours, curves, strict=True)):
                # Later ones are smaller, so that they don't hide those that they lie on.
                _plot(ax, curve, i, color=colour, size=1 - i / len(curves))
            ax.set(title=title, **axes)
            if axes.get("xscale") == "log":
                _label_values(ax, curves)
            ax.legend(fontsize=6)
        key = _key([curve for curves in panels.values() for curve in curves])
        fig.suptitle(key, fontsize=6, x=0.99, ha="right")
        gl.figures.save(fig, path.with_suffix(""), ["png"])


def _plot(ax: Axes, curve: Curve, i: int, *, color: Any, size: float) -> None:
    """Published values dashed, measured ones as hollow points; a line where they stand alone."""
    width = 0.9 + 0.9 * size
    published, measured = (np.asarray(y, float) for y in (curve.published, curve.measured))
    dashes: dict[str, Any] = {"ls": DASHES[i % len(DASHES)], "lw": width}
    if curve.names:
        ax.margins(x=0.1)
        dashes = {"ls": "", "marker": "_", "ms": 12 + 8 * size}
    if len(published):
        label = None if len(measured) else curve.label
        ax.plot(curve.x, published, color=color, label=label, **dashes)
    if len(measured):
        alone = not len(published) and not curve.names
        points = (2.5 + 3.5 * size) * min(1, (20 / len(measured)) ** 0.5)
        ax.plot(curve.x, measured, color=color, label=curve.label, marker=MARKERS[i % len(MARKERS)],
                ms=points, mfc="none", mew=0.9, ls=LINES[i % len(LINES)] if alone else "",
                lw=width)  # fmt: skip


def _label_values(ax: Axes, curves: Sequence[Curve]) -> None:
    """A tick for each value of x where there are few: labels between decades run together."""
    values = sorted({float(x) for curve in curves for x in curve.x})
    if len(values) <= LABELS:
        ax.set_xticks(values, [f"{value:.3g}" for value in values])
        ax.xaxis.set_minor_locator(NullLocator())


def _key(curves: Sequence[Curve]) -> str:
    """What tells published values from measured ones, where there are both."""
    if not any(len(curve.published) for curve in curves):
        return ""
    return f"{'bars' if curves[0].names else 'dashed'}: published, points: measured"
