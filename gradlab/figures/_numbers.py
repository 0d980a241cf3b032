"""What a measurement of the user's own returned, over an axis."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rc_context

from gradlab import frames
from gradlab.figures._style import DOUBLE, SINGLE, STYLE, Figure, note


def axis_of(runs: pd.DataFrame, schema: frames.Schema) -> str | None:
    """The first axis of numbers with several values; None where there is none."""
    numbers = ("float64", "Int64", "int64")
    names = [a.name for a in schema.axes if a.dtype in numbers and a.name != "seed"]
    return next((name for name in names if runs[name].nunique() > 1), None)


def numbers(runs: pd.DataFrame, schema: frames.Schema, name: str, axis: str) -> Figure:
    """One number over an axis: the median of all seeds and their range, a colour per variant.

    A variant is a combination of the values of the other axes that vary. Runs without the number
    end the line of their variant, since the median of the others would be one of survivors. A note
    says how many points have no finite median, and of these how many are infinite.
    """
    others = [n for n in schema.point if n != axis and runs[n].nunique(dropna=False) > 1]
    points = frames.spread(runs[name], [_variants(runs[others]), runs[axis]]).reset_index()
    with rc_context(STYLE):
        fig = Figure(figsize=(DOUBLE if others else SINGLE, 2.6), layout="constrained")
        ax = fig.subplots()
        colors = sns.color_palette("colorblind", max(points["variant"].nunique(), 1))
        for color, (label, rows) in zip(colors, points.groupby("variant"), strict=False):
            ax.plot(rows[axis], rows["median"], "o-", color=color, label=str(label), markersize=3)
            ax.fill_between(rows[axis], rows["low"], rows["high"], color=color, alpha=0.2, lw=0)
        gaps = points["median"][~np.isfinite(points["median"])]
        infinite = int(np.isinf(gaps).sum())
        if len(gaps):
            text = f"{len(gaps)} of {len(points)} points not drawn"
            note(ax, [text + (f", {infinite} of them infinite" if infinite else "")])
        if len(gaps) == len(points):
            ax.set(xlim=(points[axis].min(), points[axis].max()), yticks=[])
        unit = schema.measured[name].unit
        ax.set(xlabel=axis, ylabel=name if unit in ("", "1") else f"{name} ({unit})")
        if others:
            # Beside the axes: there may be many, and lines everywhere.
            fig.legend(frameon=False, loc="outside right upper")
    return fig


def _variants(values: pd.DataFrame) -> pd.Series:
    """The values of each row as one text; an axis that a run does not have is left out."""
    texts = [
        ", ".join(
            value if isinstance(value, str) else f"{name} {value}"
            for name, value, missing in zip(values, row, gaps, strict=True)
            if not missing
        )
        for row, gaps in zip(values.to_numpy(object), values.isna().to_numpy(), strict=True)
    ]
    return pd.Series(texts, values.index, name="variant", dtype="str")
