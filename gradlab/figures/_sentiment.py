"""How far back the gradient reaches in film reviews, while three networks learn them."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from gradlab.figures._style import FLOAT32, LABELS, MARKERS, SEQUENTIAL, STYLE, grid

_EPSILON = FLOAT32[":"][1][0]
_LOWEST = 2.5 * _EPSILON
"""Where the panels end: gradients below this are as good as none."""


def sentiment(
    curves: pd.DataFrame,
    epochs: pd.DataFrame,
    models: Sequence[str] = ("elman", "lstm", "gru"),
) -> Figure:
    """log10 of the adjoint's norm, relative to lag 0, against the distance from the review's end.

    Above, a panel per model and a line per epoch: the median over the reviews that are longer than
    the lag, with the quartiles of the first and the last epoch as a band. Below, what share of the
    words read has a gradient above float32's epsilon, and the accuracy on held out reviews.

    Args:
        curves: columns model, epoch, lag, median, q25, q75 (nats); one seed. A median of -inf (most
            gradients are exactly zero) or NaN leaves a gap.
        epochs: columns model, epoch, seed, reached, validation_accuracy. The lines are means over
            the seeds that were measured; where those are not all, the label says how many.
        models: the panels, of those that `curves` holds.
    """
    models = [model for model in models if (curves["model"] == model).any()]
    last = int(curves["epoch"].max())
    palette = sns.color_palette(SEQUENTIAL, last + 1)
    decades = curves.assign(**{c: curves[c] / math.log(10) for c in ("median", "q25", "q75")})
    decades["q25"] = decades["q25"].clip(lower=2 * _LOWEST)  # a quarter of zeros is off the panel
    with rc_context(STYLE):
        fig, axes = grid(2, max(len(models), 2), height=1.75)
        for ax, model in zip(axes[0], models, strict=False):
            _panel(ax, decades[decades["model"] == model], palette)
            ax.set_title(model, loc="left")
        axes[0, 0].set_ylabel(LABELS["decades"])
        lags = axes[0, len(models) // 2]
        lags.set_xlabel("distance from the end of the review, lag $T - t$ (words)")
        _share(axes[1, 0], epochs, models, "reached", "share of words read\nabove float32 ε")
        _share(axes[1, 1], epochs, models, "validation_accuracy", "accuracy, held out")
        axes[1, 1].axhline(0.5, color="0.4", lw=0.6, ls="--")
        for ax in axes[1, 2:]:
            ax.set_axis_off()
        names = ["initialization", *(f"after epoch {n}" for n in range(1, last + 1))]
        handles = [Line2D([], [], color=c, label=n) for c, n in zip(palette, names, strict=True)]
        handles += [
            Patch(color="0.5", alpha=0.3, lw=0, label="quartiles of the reviews"),
            Line2D([], [], color="0.4", lw=0.6, ls=":", label="float32 ε"),
        ]
        handles += [
            Line2D([], [], color="0.2", marker=m, ms=3.5, lw=0.8, label=model)
            for m, model in zip(MARKERS, models, strict=False)
        ]
        handles.append(Line2D([], [], color="0.4", lw=0.6, ls="--", label="chance"))
        if len(models) > 2:
            axes[1, 2].legend(handles=handles, loc="upper left", ncols=1, borderaxespad=0)
        else:
            fig.legend(handles=handles, loc="outside right upper")
    return fig


def _panel(ax: Axes, rows: pd.DataFrame, palette: Sequence) -> None:
    ends = (rows["epoch"].min(), rows["epoch"].max())
    for epoch in sorted(rows["epoch"].unique()):
        line = rows[rows["epoch"] == epoch]
        colour = palette[int(epoch)]
        ax.plot(line["lag"], line["median"].where(np.isfinite(line["median"])), color=colour)
        if epoch in ends:
            ax.fill_between(line["lag"], line["q25"], line["q75"], color=colour, alpha=0.25, lw=0)
    ax.axhline(_EPSILON, color="0.4", lw=0.6, ls=":")
    high = rows["q75"].where(np.isfinite(rows["q75"])).max()
    high = high if np.isfinite(high) else 0.0
    ax.set_ylim(_LOWEST, max(1.0, high + 0.5))
    ax.set_xlim(0, max(int(rows["lag"].max()), 1))
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))


def _share(ax: Axes, epochs: pd.DataFrame, models: Sequence[str], column: str, label: str) -> None:
    table = epochs[epochs["model"].isin(models)]
    seeds, count = (rows["seed"].nunique() for rows in (table, table[table[column].notna()]))
    if count < seeds:
        label += f"\n({count} of {seeds} seeds)"
    for marker, model in zip(MARKERS, models, strict=False):
        rows = epochs[(epochs["model"] == model) & epochs[column].notna()]
        line = rows.groupby("epoch")[column].mean()
        ax.plot(line.index, line, color="0.2", lw=0.8, marker=marker, ms=3.5, clip_on=False)
    ax.set_xlabel("epoch")
    ax.set_ylabel(label)
    ax.set_ylim(top=1)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
