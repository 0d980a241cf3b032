"""Figures of a sweep: what gradients do against lag, length, gain and input."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import AsinhNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator, SymmetricalLogLocator

from gradlab import _names, frames
from gradlab.figures._style import (
    DECADES,
    DIVERGING,
    FLOAT32,
    LABELS,
    LEFT,
    MEASURED,
    PREDICTED,
    SINGLE,
    STYLE,
    counts,
    float32_lines,
    gain_colours,
    grid,
    head,
    headline,
    init_handles,
    init_styles,
    limits,
    margins,
    mark,
    mark_handles,
    missing_seeds,
    note,
    order,
    point_of,
    product,
    thin,
    with_variants,
)


def _varying(runs: pd.DataFrame, *others: str) -> list[str]:
    """The axes that distinguish variants: all but those that figures draw in their own way."""
    main_axes = ("cell", "init", "gain", "input", *others)
    return [axis for axis in point_of(runs, frames.GRADIENTS) if axis not in main_axes]


def decay(
    runs: pd.DataFrame, steps: pd.DataFrame, *, input: str | None = None, length: int | None = None
) -> Figure:
    """log10 of the gradient's norm, relative to lag 0, against lag.

    A panel per initialization (row) and cell (column), a line per gain: the median over seeds, with
    the seeds' range as a band, both in the extended reals. `input` and `length` choose the runs
    (defaults: gaussian or the first, and the longest). A line ends where the median is -inf or a
    seed is NaN: a note says how many are, from which lag on. × and ▽ stand on a line where its
    first seed becomes non-finite or exactly zero. Failed runs are counted (◇) and left out, and
    what has no runs of this length is named above. The vertical axis stops at ±`DECADES`.
    """
    without = left_out(runs, input, length)
    runs = select(runs, input, length)
    curves = _curves(runs, steps)
    colours = gain_colours(runs["gain"])
    rows, columns = order(runs["init"]), order(runs["variant"])
    with rc_context(STYLE):
        fig, axes = grid(len(rows), len(columns), height=1.35, sharex=True, sharey=True)
        low, high = limits(curves[["low", "high"]].to_numpy())
        axes[0, 0].set_ylim(low, high)
        axes[0, 0].set_xlim(0, max(int(runs["length"].max()) - 1, 1))
        for (i, init), (j, variant) in product(rows, columns):
            ax = axes[i, j]
            float32_lines(ax)
            panel = curves[(curves["init"] == init) & (curves["variant"] == variant)]
            _decay_lines(ax, panel, colours, (low, high))
            line = panel["gain"].rank(method="dense").astype(int) - 1
            every = [f"gain {gain:g}" for gain in sorted(panel["gain"].unique())]
            note(ax, missing_seeds(panel.assign(line=line), every, "lag", "lag {:g}"))
            head(ax, runs[(runs["init"] == init) & (runs["variant"] == variant)])
        axes[0, 0].xaxis.set_major_locator(MaxNLocator(4, integer=True))
        margins(axes, rows, columns)
        fig.supxlabel(LABELS["lag"], fontsize=8)
        fig.supylabel(LABELS["decades"], fontsize=8)
        gains = list(colours) if len(colours) <= 2 * _ROWS else thin(list(colours), _ROWS)
        handles: list[Any] = [
            Line2D([], [], color=colours[gain], label=f"{gain:g}") for gain in reversed(gains)
        ]
        handles += [
            Patch(color="0.5", alpha=0.3, lw=0, label="range of seeds"),
        ]
        handles += [
            Line2D([], [], color="0.4", lw=0.6, ls=dashes, label=label)
            for dashes, (label, values) in FLOAT32.items()
            if any(low < value < high for value in values)
        ]
        handles += mark_handles(runs)
        columns_of_legend = 2 if len(gains) > _ROWS else 1
        place = {"loc": "outside right upper", "ncols": columns_of_legend, "columnspacing": 1.0}
        fig.legend(handles=handles, title="gain", alignment="left", **place)
        headline(fig, without)
    return fig


# The most gains in one column of a legend.
_ROWS = 9


def phase(runs: pd.DataFrame, *, input: str | None = None, length: int | None = None) -> Figure:
    """The rate over gain × cell, a panel per initialization: where gradients vanish and explode.

    Colour is the median rate over seeds in the extended reals: a run whose gradient is exactly zero
    counts as -inf where it has no rate. A point with a seed of no rate at all has no median, and is
    hatched. Failed runs are counted (◇) and left out. The solid line is where the median crosses
    zero between two neighbours that were measured, the dashed line where `predicted_rate` does.
    What has no runs of this length is named above.
    """
    without = left_out(runs, input, length)
    runs = select(runs, input, length)
    inits, variants = order(runs["init"]), order(runs["variant"])
    gains = sorted(runs["gain"].unique())
    keys = [runs["init"], runs["variant"], runs["gain"]]
    predicted = runs["predicted_rate"].groupby(keys).median()
    measured = runs[runs["status"] != "failed"]
    keys = [measured["init"], measured["variant"], measured["gain"]]
    rates = frames.spread(_rates(measured), keys)["median"].reindex(predicted.index)
    # A few steep points must not wash out the region around the boundary: colours are linear up
    # to the median size and logarithmic from there, and the steepest hundredth saturates.
    sizes = rates[np.isfinite(rates)].abs()
    span = max(float(sizes.quantile(0.99)), 1e-6) if len(sizes) else 1.0
    linear = max(float(sizes.median()) / 2, 1e-3 * span) if len(sizes) else 1.0
    with rc_context(STYLE):
        height = 0.21 * len(variants) + 0.28
        fig, axes = grid(len(inits), 1, height=height, width=SINGLE, margin=1.3, sharex=True)
        for i, init in enumerate(inits):
            ax = axes[i, 0]
            table = _table(rates, init, variants, gains)
            theory = _table(predicted, init, variants, gains)
            # Not seaborn's heatmap, which draws the whole figure to see whether labels overlap.
            ax.pcolormesh(
                table.clip(-10 * span, 10 * span).to_numpy(),  # infinite values would be blank
                cmap=DIVERGING,
                norm=AsinhNorm(linear_width=linear, vmin=-span, vmax=span),
                edgecolors="white",
                linewidths=0.4,
            )
            ax.set(xlim=(0, len(gains)), ylim=(len(variants), 0))
            ax.spines[:].set_visible(False)
            ticks = thin(list(range(len(gains))), 14)
            ax.set_xticks([k + 0.5 for k in ticks], [f"{gains[k]:g}" for k in ticks], rotation=90)
            ax.set_yticks([k + 0.5 for k in range(len(variants))], variants)
            ax.tick_params(axis="y", length=0)
            ax.tick_params(axis="x", length=2.5 if i == len(inits) - 1 else 0)
            ax.set(xlabel="", ylabel="")
            ax.set_title(init, loc="left")
            _phase_marks(ax, runs[runs["init"] == init], table, variants, gains)
            _boundary(ax, table.to_numpy(), color="black", linestyle=MEASURED)
            _boundary(ax, theory.to_numpy(), color="black", linestyle=PREDICTED)
        axes[-1, 0].set_xlabel(LABELS["gain"])
        image = axes[0, 0].collections[0]
        bar = fig.colorbar(image, ax=axes[:, 0], aspect=30, pad=0.03, extend="both")
        bar.set_ticks([sign * size for sign in (-1, 1) for size in _ticks(span, linear)] + [0])
        bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
        bar.minorticks_off()
        bar.set_label(LABELS["rate"])
        bar.outline.set_visible(False)
        handles: list[Any] = [
            Line2D([], [], color="black", lw=1.4, ls=MEASURED, label="rate 0, measured")
        ]
        if predicted.notna().any():
            theory = {"color": "black", "lw": 1.4, "ls": PREDICTED}
            handles.append(Line2D([], [], label="rate 0, predicted", **theory))
        if rates.isna().any():
            handles.append(_hatch(label="no median: a seed\nhas no rate"))
        handles += mark_handles(runs)
        fig.legend(handles=handles, loc="outside lower center", ncols=2)
        headline(fig, without)
    return fig


def length(
    runs: pd.DataFrame, *, input: str | None = None, gains: Sequence[float] | None = None
) -> Figure:
    """log10 of the norm at the first step, relative to the last, against sequence length.

    A panel per gain (row; default the lowest, the nearest to 1 and the highest) and cell (column),
    a line per initialization: median and range over seeds, in the extended reals. The line has no
    point where the median is -inf, more than half of the gradients being exactly zero, or where a
    seed is NaN, which a note says; ▽ and × stand there, and a bar down to the lower edge reaches
    -inf. Failed runs are counted (◇) and left out. The vertical axis is linear within ±1 decade and
    logarithmic beyond.
    """
    runs = select(runs, input, None, every_length=True)
    if gains is None:
        gains = _few(runs["gain"])
    columns, inits = order(runs["variant"]), order(runs["init"])
    colours, markers = init_styles(inits)
    near = np.isclose(runs["gain"].to_numpy()[:, None], gains)
    runs = runs.assign(decades=runs["log_gain"] / np.log(10), row=near.argmax(axis=1))
    runs = runs[runs["gain"].isin(runs["gain"].to_numpy()[near.any(axis=1)])]
    measured = runs[runs["status"] != "failed"]
    keys = ["row", "variant", "init", "length"]
    table = frames.spread(measured["decades"], [measured[name] for name in keys]).reset_index()
    with rc_context(STYLE):
        fig, axes = grid(len(gains), len(columns), height=1.5, sharex=True, sharey="row")
        notes = []
        for (i, _), (j, variant) in product(gains, columns):
            ax = axes[i, j]
            ax.set_yscale("symlog", linthresh=1, linscale=0.6)
            ax.margins(y=0.1)
            panel, part = (x[(x["row"] == i) & (x["variant"] == variant)] for x in (runs, table))
            ax.axhline(0, color="0.6", lw=0.6, zorder=0)
            lines = []
            for k, init in enumerate(inits):
                rows, line = (x[x["init"] == init] for x in (panel, part))
                dodge = 1.05 ** (k - (len(inits) - 1) / 2)
                _length_line(ax, rows, line, dodge, colours[init], markers[init])
                lines.append(line.assign(line=k))
            texts = missing_seeds(pd.concat(lines), inits, "length", "$T$ = {:g}")
            notes.append((ax, texts))
            head(ax, panel)
        for ax in axes[:, 0]:
            locator = SymmetricalLogLocator(base=10, linthresh=1)
            locator.set_params(numticks=7)
            ax.yaxis.set_major_locator(locator)
            ax.yaxis.set_major_formatter("{x:g}")
        for i, ax in enumerate(axes[:, 0]):
            if not np.isfinite(runs.loc[runs["row"] == i, "decades"]).any():
                ax.set_ylim(-1, 1)
        if runs["length"].nunique() == 1:  # limits that coincide cannot be made logarithmic
            axes[0, 0].set_xlim(runs["length"].iloc[0] / 2, runs["length"].iloc[0] * 2)
        axes[0, 0].set_xscale("log")
        for ax, texts in notes:
            note(ax, texts)
        margins(axes, [f"gain {gain:g}" for gain in gains], columns)
        fig.supxlabel(LABELS["length"], fontsize=8)
        fig.supylabel(LABELS["gain_decades"], fontsize=8)
        handles = init_handles(colours, markers)
        handles += mark_handles(runs)
        fig.legend(handles=handles, title="initialization", loc="outside right upper", **LEFT)
    return fig


def inputs(
    runs: pd.DataFrame,
    *,
    input: str = "reviews",
    reference: str = "gaussian",
    length: int | None = None,
) -> Figure:
    """The rate on one input against the rate on another, run by run with the same seed.

    Above, a point per initialization and gain, mean ± standard deviation over seeds, and the
    diagonal of equal rates; below, the paired difference against gain. A column per cell. A point
    of which a seed has no finite rate has no finite mean and is not drawn: a note says how many
    are not. Runs that failed are counted (◇) and left out with the runs that they pair with.
    """
    for name in (input, reference):
        _names.choose("input", name, set(runs["input"]))
    both = runs[runs["input"].isin([input, reference])]
    without = left_out(both, None, length, every_input=True)
    both = select(both, None, length, every_input=True)
    columns, inits = order(both["variant"]), order(both["init"])
    colours, markers = init_styles(inits)
    points = _pairs(both, input, reference)
    spacing = np.diff(sorted(both["gain"].unique())).min(initial=0.1)
    with rc_context(STYLE):
        fig, axes = grid(2, len(columns), height=1.75)
        for ax in axes[1, 1:]:
            ax.sharex(axes[1, 0])
            ax.sharey(axes[1, 0])
            ax.tick_params(labelleft=False)
        for j, variant in enumerate(columns):
            above, below = axes[:, j]
            below.axhline(0, color="0.6", lw=0.6, zorder=0)
            for k, init in enumerate(inits):
                rows = points[(points["variant"] == variant) & (points["init"] == init)]
                style = {
                    "fmt": markers[init],
                    "color": colours[init],
                    "ms": 3,
                    "lw": 0,
                    "elinewidth": 0.7,
                    "mew": 0,
                }
                rows = rows[np.isfinite(rows["d"])]
                above.errorbar(rows["x"], rows["y"], rows["y_sd"], rows["x_sd"], **style)
                dodge = 0.15 * spacing * (k - (len(inits) - 1) / 2)
                below.errorbar(rows["gain"] + dodge, rows["d"], rows["d_sd"], **style)
            above.axline((0, 0), slope=1, color="0.6", lw=0.6, zorder=0)
            rows = points[points["variant"] == variant]
            span = _without_outliers(rows[["x", "y"]].to_numpy())
            _square(above, 4 if len(columns) < 4 else 3, span)
            beyond = _count_beyond(rows[["x", "y"]], span)
            gaps = int((~np.isfinite(rows["d"])).sum())
            alone = int(rows["alone"].sum())
            note(
                above,
                ([f"{gaps} of {len(rows)} points not drawn"] if gaps else [])
                + ([f"{alone} runs without a partner"] if alone else [])
                + ([f"{beyond} points beyond the axes"] if beyond else []),
                corners=((False, True), (True, False)),  # beside the diagonal
            )
            head(above, both[both["variant"] == variant])
            above.set_title(variant, loc="left")
        low, high = both["gain"].min(), both["gain"].max()
        axes[1, 0].set_xlim(low - spacing, high + spacing)
        span = _without_outliers(points["d"].to_numpy())
        if span is not None:
            axes[1, 0].set_ylim(span)
            for j, variant in enumerate(columns):
                beyond = _count_beyond(points.loc[points["variant"] == variant, ["d"]], span)
                note(axes[1, j], [f"{beyond} points beyond the axis"] if beyond else [])
        middle, even = divmod(len(columns) - 1, 2)
        centre = 1.15 if even else 0.5
        axes[0, middle].set_xlabel(f"{LABELS['rate']}, {reference} input", x=centre)
        axes[1, middle].set_xlabel(LABELS["gain"], x=centre)
        axes[0, 0].set_ylabel(f"{LABELS['rate']},\n{input} input")
        axes[1, 0].set_ylabel(LABELS["difference"].format(other=input, reference=reference))
        fig.align_ylabels(list(axes[:, 0]))
        handles = init_handles(colours, markers, line=False)
        handles += [Line2D([], [], color="0.6", lw=0.6, label="equal rates"), *mark_handles(both)]
        fig.legend(handles=handles, title="initialization", loc="outside right upper", **LEFT)
        headline(fig, without)
    return fig


def select(
    runs: pd.DataFrame,
    input: str | None,
    length: int | None,
    every_length: bool = False,
    every_input: bool = False,
    hue: str | None = None,
) -> pd.DataFrame:
    """The runs of one input and length, with a column `variant` that names their cell.

    Where runs of one cell differ in a further axis other than `hue`, that axis becomes part of the
    name. The length is by default the longest of which a run did not fail.
    """
    runs = _of_input(runs, None if every_input else input, every_input)
    if not every_length:
        length = _longest(runs) if length is None else length
        if not (runs["length"] == length).any():
            raise ValueError(
                f"no runs of length {length}; valid: "
                + ", ".join(str(n) for n in sorted(runs["length"].unique()))
            )
        runs = runs[runs["length"] == length]
    runs = _everywhere(runs)
    return with_variants(runs, _varying(runs, "length", *([hue] if hue else [])))


def _of_input(runs: pd.DataFrame, input: str | None, every: bool) -> pd.DataFrame:
    if runs.empty:
        raise ValueError("no runs to draw")
    if every:
        return runs
    present = order(runs["input"])
    if input is None:
        input = "gaussian" if "gaussian" in present else present[0]
    _names.choose("input", input, present)
    return runs[runs["input"] == input]


def _longest(runs: pd.DataFrame) -> int:
    lengths = runs.loc[runs["status"] != "failed", "length"]
    return int((lengths if len(lengths) else runs["length"]).max())


def left_out(
    runs: pd.DataFrame, input: str | None, length: int | None, every_input: bool = False
) -> str | None:
    """What of one input a figure of one length leaves out, in words; None where nothing is.

    That are the points, seed by seed, of which there are runs of other lengths only, and the longer
    runs where all of them failed.
    """
    runs = _of_input(runs, input, every_input)
    T = _longest(runs) if length is None else length
    runs = with_variants(runs, _varying(runs, "length"))
    keys = ["variant", "init", "input", "gain", "seed"]
    groups = runs.assign(here=runs["length"] == T).groupby(keys, dropna=False, sort=False)
    table = groups.agg(here=("here", "any"), longest=("length", "max")).reset_index()
    table["init"] = table["init"].astype(object).where(table["init"].notna(), "")
    parts = []
    for variant, rows in table.groupby("variant", sort=False):
        absent = rows[~rows["here"]]
        if len(absent) == len(rows):
            parts.append(f"{variant} (longest {rows['longest'].max()})")
            continue
        for init, some in absent.groupby("init", sort=False):
            total = int((rows["init"] == init).sum())
            share = "" if len(some) == total else f" ({len(some)} of {total} runs)"
            parts.append(f"{variant} {init}".strip() + share)
    text = [f"no runs of T = {T}: {', '.join(parts)}"] if parts else []
    longer = sorted(runs.loc[runs["length"] > T, "length"].unique())
    if length is None and longer:
        text.append(f"every run of T = {', '.join(map(str, longer))} failed")
    return "; ".join(text) or None


def _rates(runs: pd.DataFrame) -> pd.Series:
    """The rate, and -inf for a run without one whose gradient is exactly zero."""
    return runs["rate"].mask(runs["rate"].isna() & (runs["status"] == "zero"), -np.inf)


def _everywhere(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs, those of a cell without recurrent weights to draw at every init and every gain.

    Such a run has neither, and stands for all of them: no panel has to leave it out.
    """
    for name, alone in (("init", "none"), ("gain", 1.0)):
        lacks = runs[name].isna()
        if lacks.any():
            every = [alone] if lacks.all() else runs.loc[~lacks, name].unique()
            every = pd.DataFrame({name: every})
            spread = runs[lacks].drop(columns=name).merge(every, how="cross")
            runs = pd.concat([runs[~lacks], spread[runs.columns]], ignore_index=True)
    return runs


def _curves(runs: pd.DataFrame, steps: pd.DataFrame) -> pd.DataFrame:
    """Per init, variant, gain and lag: `frames.spread` over seeds of the relative log10 norm.

    A run that lacks a lag which others of its point have is NaN there; a gradient that is exactly
    zero at lag 0 has no norm relative to that one, and is NaN at every lag.
    """
    keys = ["init", "variant", "gain"]
    runs = runs[runs["status"] != "failed"]
    # Number the runs: with millions of rows, their names would take many times the bytes.
    ids = pd.Index(runs["run_id"].unique())
    points = pd.DataFrame(
        {"run": ids.get_indexer(pd.Index(runs["run_id"])), "point": runs.groupby(keys).ngroup()}
    )
    rows = steps[["lag", "log_norm"]].assign(run=ids.get_indexer(pd.Index(steps["run_id"])))
    rows = rows[rows["run"] >= 0]
    start = rows[rows["lag"] == 0].drop_duplicates("run").set_index("run")["log_norm"]
    start = start.where(np.isfinite(start)).reindex(range(len(ids))).to_numpy()
    rows["decades"] = (rows.pop("log_norm") - start[rows["run"]]) / np.log(10)
    zero = np.isneginf(rows["decades"])
    rows = rows.assign(zero=zero).merge(points[points["point"] >= 0], on="run")
    by = [rows["point"], rows["lag"]]
    curves = frames.spread(rows["decades"], by).join(rows["zero"].groupby(by).sum()).reset_index()
    seeds = points.groupby("point").size()
    absent = curves["point"].map(seeds) - curves["count"]
    curves["count"] += absent
    curves["missing"] += absent
    statistics = ["median", "mean", "low", "high"]
    curves[statistics] = curves[statistics].where(curves["missing"] == 0)
    names = runs[keys].assign(point=points["point"]).drop_duplicates("point").set_index("point")
    return names.loc[curves.pop("point")].reset_index(drop=True).join(curves)


def _decay_lines(
    ax: Axes, panel: pd.DataFrame, colours: dict[float, Any], limits: tuple[float, float]
) -> None:
    beyond = 2 * DECADES
    names = ["lag", "median", "low", "high", "missing", "zero"]
    # Columns of NumPy: a figure has hundreds of lines, and pandas takes a millisecond for each.
    for gain in sorted(panel["gain"].unique()):
        line = panel[panel["gain"] == gain]
        lag, median, low, high, missing, zero = (line[name].to_numpy() for name in names)
        finite = np.isfinite(median)
        colour = colours[gain]
        if finite.any():
            band = {"color": colour, "alpha": 0.3, "lw": 0}
            ax.fill_between(lag, *(np.clip(x, -beyond, beyond) for x in (low, high)), **band)
            middle = np.where(finite, np.clip(median, -beyond, beyond), np.nan)
            ax.plot(lag, middle, color=colour)
        for status, at in (("nonfinite", missing > 0), ("zero", zero > 0)):
            if at.any():
                before = np.flatnonzero((lag < lag[at].min()) & finite)
                x, y = (lag[before[-1]], median[before[-1]]) if len(before) else (0.0, 0.0)
                ax.plot(x, np.clip(y, *limits), color=colour, **mark(status))


def _length_line(
    ax: Axes, rows: pd.DataFrame, table: pd.DataFrame, dodge: float, colour: Any, marker: str
) -> None:
    """Draws one line from its runs and their statistics by length."""
    runs = rows[rows["status"] != "failed"]
    curve = table[["median", "low", "high"]].replace([-np.inf, np.inf], np.nan)
    place = table["length"] * dodge
    style = {"marker": marker, "ms": 3.5, "mew": 0}
    if len(table):
        ax.plot(place, curve["median"], color=colour, **style)
        ax.vlines(place, curve["low"], curve["high"], color=colour, lw=0.7)
    # A range that reaches -inf leaves the axes through their lower edge.
    bottom = table["low"] == -np.inf
    for x, high in zip(place[bottom], curve["high"][bottom], strict=True):
        if np.isfinite(high):
            arrow = {"arrowstyle": "-", "color": colour, "lw": 0.7, "shrinkA": 0, "shrinkB": 0}
            ends = {"xycoords": ("data", "axes fraction"), "textcoords": "data"}
            ax.annotate("", (x, 0), (x, high), arrowprops=arrow, annotation_clip=False, **ends)
    gaps = ~np.isfinite(runs["decades"])
    for status, height in (("nonfinite", 0.94), ("zero", 0.06)):
        at = sorted(set(runs.loc[(runs["status"] == status) & gaps, "length"] * dodge))
        if at:
            edge = ax.get_xaxis_transform()
            ax.plot(at, [height] * len(at), color=colour, transform=edge, **mark(status))


def _phase_marks(
    ax: Axes,
    runs: pd.DataFrame,
    table: pd.DataFrame,
    variants: Sequence[str],
    gains: Sequence[float],
) -> None:
    values = table.to_numpy()
    for (variant, gain), point in runs.groupby(["variant", "gain"]):
        x, y = gains.index(gain), variants.index(variant)
        if np.isnan(values[y, x]):
            ax.add_patch(_hatch(xy=(x, y), width=1, height=1))
        place = {"ha": "center", "va": "center", "rotation": 90 if len(gains) > 12 else 0}
        ax.text(x + 0.5, y + 0.5, counts(point), **place)


def _hatch(**options: Any) -> Any:
    style = {"facecolor": "0.88", "edgecolor": "0.6", "hatch": "//////", "lw": 0}
    return Rectangle(**options, **style) if "xy" in options else Patch(**options, **style)


def _boundary(ax: Axes, table: np.ndarray, **style: Any) -> None:
    """Draws where each row of `table` changes sign between two neighbours that have a value.

    It is interpolated between the cells' centres, and their common edge where one is infinite.
    """
    segments = []
    for row, values in enumerate(table):
        for left, (a, b) in enumerate(itertools.pairwise(values)):
            if np.isnan(a) or np.isnan(b) or (a < 0) == (b < 0):
                continue
            share = a / (a - b) if np.isfinite(a) and np.isfinite(b) else 0.5
            x = left + 0.5 + share
            segments.append([(x, row), (x, row + 1)])
    if segments:
        ax.add_collection(LineCollection(segments, linewidths=1.4, **style))


def _table(
    values: pd.Series, init: str, variants: Sequence[str], gains: Sequence[float]
) -> pd.DataFrame:
    return (
        values.xs(init, level="init")
        .unstack("gain")
        .reindex(index=list(variants), columns=list(gains))
    )


def _pairs(both: pd.DataFrame, other: str, reference: str) -> pd.DataFrame:
    """Mean and standard deviation over seeds of both rates and of their difference, paired.

    `alone` counts the runs that were measured on one input only, which no pair has.
    """
    keys = [*_varying(both), "cell", "init", "gain", "variant", "seed"]
    both = both[both["status"] != "failed"]
    both = both.assign(value=_rates(both))
    y = both[both["input"] == other].set_index(keys)["value"].rename("y").reset_index()
    x = both[both["input"] == reference].set_index(keys)["value"].rename("x").reset_index()
    pairs = x.merge(y, on=keys, how="outer", indicator="found")
    is_pair = pairs.pop("found") == "both"
    point = ["variant", "init", "gain"]
    alone = (~is_pair).groupby([pairs[name] for name in point]).sum()
    pairs = pairs[is_pair]
    with np.errstate(invalid="ignore"):
        pairs["d"] = pairs["y"] - pairs["x"]
    by = [pairs[name] for name in point]
    table = pd.DataFrame({name: frames.spread(pairs[name], by)["mean"] for name in ("x", "y", "d")})
    finite = pairs[["x", "y", "d"]].replace([-np.inf, np.inf], np.nan)
    table = table.join(finite.groupby(by).std().add_suffix("_sd"))
    return table.join(alone.rename("alone"), how="outer").reset_index()


def _without_outliers(values: np.ndarray) -> tuple[float, float] | None:
    """Limits that leave out what lies far beyond the quartiles; None where nothing does.

    One point that is ten times as far off as all others would leave them no room.
    """
    finite = values[np.isfinite(values)]
    if finite.size < 8:
        return None
    low, middle, high = np.quantile(finite, (0.05, 0.5, 0.95))
    reach = 2 * max(high - middle, middle - low)
    inside = finite[np.abs(finite - middle) <= reach]
    if inside.size == finite.size or reach == 0:
        return None
    pad = 0.1 * max(float(np.ptp(inside)), 1e-9)
    return float(inside.min()) - pad, float(inside.max()) + pad


def _count_beyond(points: pd.DataFrame, span: tuple[float, float] | None) -> int:
    if span is None:
        return 0
    finite = points[np.isfinite(points.to_numpy()).all(axis=1)]
    values = finite.to_numpy()
    return int(((values < span[0]) | (values > span[1])).any(axis=1).sum())


def _square(ax: Axes, ticks: int, limits: tuple[float, float] | None) -> None:
    """The same limits and ticks on both axes, so that the diagonal is one."""
    if limits is None:
        limits = min(ax.get_xlim()[0], ax.get_ylim()[0]), max(ax.get_xlim()[1], ax.get_ylim()[1])
    ax.set(xlim=limits, ylim=limits)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(ticks))


def _ticks(span: float, linear: float) -> list[float]:
    """Round numbers from the linear part of a colour scale to its end, at most four."""
    powers = np.arange(np.floor(np.log10(linear)), np.ceil(np.log10(span)) + 1)
    every = [float(f"{m}e{int(p)}") for p in powers for m in (1, 2, 5)]
    inside = [size for size in every if linear <= size <= span] or [span]
    return inside[:: -(-len(inside) // 4)]


def _few(gains: pd.Series) -> list[float]:
    every = np.sort(gains.unique())
    return sorted({float(every[0]), float(every[np.abs(every - 1).argmin()]), float(every[-1])})
