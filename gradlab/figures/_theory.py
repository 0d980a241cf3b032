"""Measured rates and exponents through theory, and how far they lie apart."""

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from gradlab import _names, frames
from gradlab.figures._style import (
    LABELS,
    LEFT,
    MARKERS,
    PREDICTED,
    STYLE,
    grid,
    head,
    headline,
    mark_handles,
    order,
    point_of,
)
from gradlab.figures._sweep import left_out, select

QUANTITIES = {
    "rate": ("gain", "rate", "nats/step"),
    "exponent": ("gain", "exponent", "nats per unit of time"),
    "spectrum": ("share", "spectrum", "nats/step"),
}
"""What `theory` can draw: the labels of its axes, and the unit of the vertical ones."""


def deviations(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per point of the sweep (all of `AXES`): how far its seeds lie from theory, and why.

    With m runs of finite rate r_s at a point, mean r and sample standard deviation sd::

      stderr    = sd / √m
      deviation = r - predicted_rate
      bound     = 3 stderr

    where the runs' own mean `rate_stderr` stands for an sd below it: few seeds can agree by chance,
    and one has none. `within` says whether the deviation lies within the bound of `predicted_bias`,
    what the width and length are derived to add to `predicted_rate`; where that is missing, whether
    it lies within the bound of 0. Where `predicted_rate` is missing, the last three are too, and so
    they are where no rate is finite. Of 5 seeds by the law of theory, 4 % of the points miss.

    >>> record = dict(cell="elman", init="normal", gain=1, input="gaussian", length=10, hidden=4,
    ...               inputs=2, status="ok", verdict="stable", predicted_rate=0.0)
    >>> rows = [record | dict(run_id=str(seed), seed=seed, rate=0.1 * seed) for seed in range(3)]
    >>> table = deviations(frames.runs_frame(rows))
    >>> table[["rate", "rate_sd", "deviation", "bound"]].round(3).values.tolist()
    [[0.1, 0.1, 0.1, 0.173]]
    """
    rows = runs.assign(rate=runs["rate"].where(np.isfinite(runs["rate"])))
    if "predicted_bias" not in rows:
        rows = rows.assign(predicted_bias=np.nan)
    point = list(point_of(runs, frames.GRADIENTS))
    groups = rows.groupby(point, dropna=False, sort=False, observed=True)
    points = groups.agg(
        runs=("rate", "count"),
        rate=("rate", "mean"),
        rate_sd=("rate", "std"),
        own=("rate_stderr", "mean"),
        predicted_rate=("predicted_rate", "mean"),
        predicted_bias=("predicted_bias", "mean"),
    ).reset_index()
    sd = points["rate_sd"].fillna(0)
    own = points.pop("own").fillna(0)
    sd = sd.where(sd >= own, own)
    stderr = sd / np.sqrt(points["runs"])
    points["rate_sd"] = sd
    points.insert(list(points.columns).index("rate_sd") + 1, "rate_stderr", stderr)
    points["deviation"] = points["rate"] - points["predicted_rate"]
    points["bound"] = (3 * stderr).where(points["deviation"].notna())
    off = points["deviation"] - points["predicted_bias"].fillna(0)
    within = (off.abs() <= points["bound"]).astype("boolean")
    points["within"] = within.where(points["deviation"].notna())
    return points


def theory(
    runs: pd.DataFrame,
    *,
    hue: str | None = None,
    quantity: str = "rate",
    input: str | None = None,
    length: int | None = None,
) -> Figure:
    """The rate against gain with theory's line through it, and below the deviations from it.

    A column per variant, a colour per value of `hue`: one of `AXES` such as weights or input_scale,
    by default init. Above, the mean over seeds with their standard deviation, and `predicted_rate`
    as a dashed line; hollow points have no theory. Below, measured minus theory: the band is the
    expected effect of a finite width and length, from 0 to `predicted_bias`, and a bar is 3
    standard errors over the seeds, so that a bar which does not reach the band's far edge (0 where
    there is no band) is a miss, and ringed (`deviations` has the numbers). The largest deviation
    stands above its panel.

    `quantity` is what the rates are: rate; exponent, the largest Lyapunov exponent per unit of
    time; or spectrum, an exponent at a share i/n of all, which then stands in the column gain.
    """
    _names.choose("quantity", quantity, QUANTITIES)
    x, y, unit = QUANTITIES[quantity]
    symbol = "$i/n$" if quantity == "spectrum" else "$g$"
    if hue is not None:
        _names.choose("hue", hue, point_of(runs, frames.GRADIENTS))
    without = left_out(runs, input, length)
    runs = select(runs, input, length, hue=hue)
    if runs["init"].nunique() > 1 and hue is None:
        hue = "init"
    elif runs["init"].nunique() > 1 and hue != "init":
        runs["variant"] += " " + runs["init"]
    point = list(point_of(runs, frames.GRADIENTS))
    points = deviations(runs).merge(runs[[*point, "variant"]].drop_duplicates(), on=point)
    columns = order(runs["variant"])
    values = [None] if hue is None else sorted(runs[hue].unique())
    palette = sns.color_palette("colorblind", len(values))
    styles = list(zip(values, palette, MARKERS, strict=False))
    with rc_context(STYLE):
        fig, axes = grid(2, len(columns), height=1.7, sharex="col", height_ratios=(3, 2))
        for (above, below), variant in zip(axes.T, columns, strict=True):
            panel = points[points["variant"] == variant]
            for ax in (above, below):
                ax.axhline(0, color="0.6", lw=0.6, zorder=0)
            for value, colour, marker in styles:
                rows = panel if hue is None else panel[panel[hue] == value]
                _theory_points(above, below, rows.sort_values("gain"), colour, marker)
            above.set_title(variant, loc="left")
            head(above, runs[runs["variant"] == variant])
            below.yaxis.set_major_locator(MaxNLocator(4))
            if panel["deviation"].notna().any():
                below.set_title(_largest(panel, symbol), loc="left", fontsize=7)
            else:
                _without_theory(above, below, variant)
        axes[0, 0].set_ylabel(LABELS[y].format(unit=unit))
        axes[1, 0].set_ylabel(LABELS["deviation"].format(unit=unit))
        fig.align_ylabels(list(axes[:, 0]))
        fig.supxlabel(LABELS[x], fontsize=8)
        handles: list[Any] = [
            Line2D([], [], color=colour, marker=marker, ms=3.5, mew=0, ls="", label=f"{value}")
            for value, colour, marker in styles
            if hue is not None
        ]
        shade = "0.3" if hue is not None else palette[0]
        handles += [
            Line2D([], [], color=shade, ls=PREDICTED, label="theory"),
        ]
        if points["predicted_bias"].notna().any():
            handles.append(Patch(color=shade, alpha=0.2, lw=0, label="finite width"))
        if points["predicted_rate"].isna().any():
            hollow = {"marker": "o", "ms": 3.5, "mfc": "white", "mew": 0.8, "ls": ""}
            handles.append(Line2D([], [], color=shade, label="no theory", **hollow))
        if (~points["within"].fillna(True)).any():
            handles.append(Line2D([], [], label="beyond the\nbound", **_RING))
        handles += mark_handles(runs)
        title = None if hue is None else LABELS.get(hue, hue.replace("_", " "))
        fig.legend(handles=handles, title=title, loc="outside right upper", **LEFT)
        headline(fig, without)
    return fig


_RING = {"marker": "o", "ms": 7, "mfc": "none", "mec": "black", "mew": 0.7, "ls": ""}


def _theory_points(above: Axes, below: Axes, rows: pd.DataFrame, colour: Any, marker: str) -> None:
    points = rows[rows["predicted_rate"].notna()]
    style = {"color": colour, "ls": "", "marker": marker, "ms": 3, "elinewidth": 0.7}
    for part, fill in ((points, colour), (rows.drop(points.index), "white")):
        above.errorbar(part["gain"], part["rate"], part["rate_sd"], mfc=fill, mew=0.7, **style)
    above.plot(points["gain"], points["predicted_rate"], color=colour, ls=PREDICTED)
    below.errorbar(points["gain"], points["deviation"], points["bound"], mew=0.7, **style)
    bias = points["predicted_bias"]  # no band where it is NaN
    band = {"color": colour, "alpha": 0.25, "lw": 0}
    for ax, line in ((above, points["predicted_rate"]), (below, 0 * bias)):
        ax.fill_between(points["gain"], line, line + bias, **band)
    misses = points[~points["within"].fillna(True).astype(bool)]
    below.plot(misses["gain"], misses["deviation"], **_RING)


def _largest(points: pd.DataFrame, symbol: str) -> str:
    worst = points.iloc[int(points["deviation"].abs().argmax())]
    text = f"largest difference {worst['deviation']:+.3f},".replace("-", "−")
    return f"{text}\nat {symbol} = {worst['gain']:g}"


def _without_theory(above: Axes, below: Axes, variant: str) -> None:
    """In the place of an empty panel, say that there is nothing to compare with."""
    below.set_axis_off()
    below.text(0.5, 0.6, f"no theory of\n{variant}", transform=below.transAxes, ha="center",
               va="center", fontsize=7, color="0.35")  # fmt: skip
    above.xaxis.set_tick_params(labelbottom=True)
