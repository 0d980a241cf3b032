"""Figures of a sweep: what gradients do against lag, length, gain and input."""

# pandas' own annotations say Series | DataFrame for nearly every selection.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
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
    init_handles,
    init_styles,
    limits,
    margins,
    mark,
    mark_handles,
    order,
    product,
    thin,
    with_variants,
)

_VARYING = tuple(axis for axis in frames.AXES if axis not in ("cell", "init", "gain", "input"))


def decay(
    runs: pd.DataFrame, steps: pd.DataFrame, *, input: str | None = None, length: int | None = None
) -> Figure:
    """log10 of the gradient's norm, relative to lag 0, against lag.

    A panel per initialization (row) and cell (column), a line per gain: the median over seeds, with
    the seeds' range as a band. `input` and `length` choose the runs (defaults: gaussian or the
    first, and the longest). × and ▽ stand on a line where its first seed becomes non-finite or
    exactly zero. The vertical axis stops at ±`DECADES`.
    """
    runs = select(runs, input, length)
    curves = _curves(runs, steps)
    colours = gain_colours(runs["gain"])
    rows, columns = order(runs["init"]), order(runs["variant"])
    with rc_context(STYLE):
        fig, axes = grid(len(rows), len(columns), height=1.35, sharex=True, sharey=True)
        low, high = limits(curves[["low", "high"]].to_numpy())
        for (i, init), (j, variant) in product(rows, columns):
            ax = axes[i, j]
            float32_lines(ax)
            panel = curves[(curves["init"] == init) & (curves["variant"] == variant)]
            _decay_lines(ax, panel, colours, (low, high))
            head(ax, runs[(runs["init"] == init) & (runs["variant"] == variant)])
        axes[0, 0].set_ylim(low, high)
        axes[0, 0].set_xlim(0, max(int(runs["length"].max()) - 1, 1))
        axes[0, 0].xaxis.set_major_locator(MaxNLocator(4, integer=True))
        margins(axes, rows, columns)
        fig.supxlabel(LABELS["lag"], fontsize=8)
        fig.supylabel(LABELS["decades"], fontsize=8)
        gains = thin(list(colours), 12)
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
        fig.legend(handles=handles, title="gain", loc="outside right upper", alignment="left")
    return fig


def phase(runs: pd.DataFrame, *, input: str | None = None, length: int | None = None) -> Figure:
    """The rate over gain × cell, a panel per initialization: where gradients vanish and explode.

    Colour is the median rate over seeds. The solid line is where that rate crosses zero, the dashed
    line where `predicted_rate` does. Points without a finite rate are hatched.
    """
    runs = select(runs, input, length)
    inits, variants = order(runs["init"]), order(runs["variant"])
    gains = sorted(runs["gain"].unique())
    finite = runs["rate"].where(np.isfinite(runs["rate"]))
    keys = [runs["init"], runs["variant"], runs["gain"]]
    rates, predicted = finite.groupby(keys).median(), runs["predicted_rate"].groupby(keys).median()
    # A few steep points must not wash out the region around the boundary: the colour of the
    # steepest quarter saturates.
    sizes = rates.abs().dropna()
    span = max(float(sizes.quantile(0.75)), 1e-6) if len(sizes) else 1.0
    with rc_context(STYLE):
        height = 0.21 * len(variants) + 0.28
        fig, axes = grid(len(inits), 1, height=height, width=SINGLE, margin=1.3, sharex=True)
        for i, init in enumerate(inits):
            ax = axes[i, 0]
            table = _table(rates, init, variants, gains)
            theory = _table(predicted, init, variants, gains)
            sns.heatmap(
                table,
                ax=ax,
                cmap=DIVERGING,
                vmin=-span,
                vmax=span,
                cbar=False,
                linewidths=0.4,
                xticklabels=[f"{gain:g}" for gain in gains],
                yticklabels=variants,
            )
            kept = thin(list(range(len(gains))), 14)
            ax.set_xticks([k + 0.5 for k in kept], [f"{gains[k]:g}" for k in kept], rotation=90)
            ax.tick_params(axis="y", rotation=0, length=0)
            ax.tick_params(axis="x", length=2.5 if i == len(inits) - 1 else 0)
            ax.set(xlabel="", ylabel="")
            ax.set_title(init, loc="left")
            _phase_marks(ax, runs[runs["init"] == init], variants, gains)
            _boundary(ax, table.to_numpy(), color="black", linestyle=MEASURED)
            _boundary(ax, theory.to_numpy(), color="black", linestyle=PREDICTED)
        axes[-1, 0].set_xlabel(LABELS["gain"])
        image = axes[0, 0].collections[0]
        bar = fig.colorbar(image, ax=axes[:, 0], aspect=30, pad=0.03, extend="both")
        bar.set_label(LABELS["rate"])
        bar.outline.set_visible(False)
        handles: list[Any] = [
            Line2D([], [], color="black", lw=1.4, ls=MEASURED, label="rate 0, measured")
        ]
        if predicted.notna().any():
            theory = {"color": "black", "lw": 1.4, "ls": PREDICTED}
            handles.append(Line2D([], [], label="rate 0, predicted", **theory))
        if rates.isna().any():
            handles.append(_hatched(label="no finite rate"))
        handles += mark_handles(runs)
        fig.legend(handles=handles, loc="outside lower center", ncols=2)
    return fig


def length(
    runs: pd.DataFrame, *, input: str | None = None, gains: Sequence[float] | None = None
) -> Figure:
    """log10 of the norm at the first step, relative to the last, against sequence length.

    A panel per gain (row; default the lowest, the nearest to 1 and the highest) and cell (column),
    a line per initialization: median and range over seeds. The vertical axis is linear within ±1
    decade and logarithmic beyond.
    """
    runs = select(runs, input, None, every_length=True)
    if gains is None:
        gains = _few(runs["gain"])
    columns, inits = order(runs["variant"]), order(runs["init"])
    colours, markers = init_styles(inits)
    runs = runs.assign(decades=runs["log_gain"].where(np.isfinite(runs["log_gain"])) / np.log(10))
    with rc_context(STYLE):
        fig, axes = grid(len(gains), len(columns), height=1.5, sharex=True, sharey="row")
        for (i, gain), (j, variant) in product(gains, columns):
            ax = axes[i, j]
            ax.set_yscale("symlog", linthresh=1, linscale=0.6)
            ax.margins(y=0.1)
            panel = runs[np.isclose(runs["gain"], gain) & (runs["variant"] == variant)]
            ax.axhline(0, color="0.6", lw=0.6, zorder=0)
            for k, init in enumerate(inits):
                rows = panel[panel["init"] == init]
                dodge = 1.05 ** (k - (len(inits) - 1) / 2)
                _length_line(ax, rows, dodge, colours[init], markers[init])
            head(ax, panel)
        for ax in axes[:, 0]:
            locator = SymmetricalLogLocator(base=10, linthresh=1)
            locator.set_params(numticks=7)
            ax.yaxis.set_major_locator(locator)
            ax.yaxis.set_major_formatter("{x:g}")
        for ax, gain in zip(axes[:, 0], gains, strict=True):
            if runs.loc[np.isclose(runs["gain"], gain), "decades"].isna().all():
                ax.set_ylim(-1, 1)
        if runs["length"].nunique() == 1:  # limits that coincide cannot be made logarithmic
            axes[0, 0].set_xlim(runs["length"].iloc[0] / 2, runs["length"].iloc[0] * 2)
        axes[0, 0].set_xscale("log")
        margins(axes, [f"gain {gain:g}" for gain in gains], columns)
        fig.supxlabel(LABELS["length"], fontsize=8)
        fig.supylabel(LABELS["gain_decades"], fontsize=8)
        handles = init_handles(colours, markers)
        shown = runs[np.isclose(runs["gain"].to_numpy()[:, None], np.array(gains)).any(axis=1)]
        handles += mark_handles(shown)
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
    diagonal of equal rates; below, the paired difference against gain. A column per cell.
    """
    for name in (input, reference):
        _names.choose("input", name, set(runs["input"]))
    both = select(runs[runs["input"].isin([input, reference])], None, length, every_input=True)
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
                above.errorbar(rows["x"], rows["y"], rows["y_sd"], rows["x_sd"], **style)
                dodge = 0.15 * spacing * (k - (len(inits) - 1) / 2)
                below.errorbar(rows["gain"] + dodge, rows["d"], rows["d_sd"], **style)
            above.axline((0, 0), slope=1, color="0.6", lw=0.6, zorder=0)
            _square(above, 4 if len(columns) < 4 else 3)
            head(above, both[both["variant"] == variant])
            above.set_title(variant, loc="left")
        low, high = both["gain"].min(), both["gain"].max()
        axes[1, 0].set_xlim(low - spacing, high + spacing)
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
    name.
    """
    if runs.empty:
        raise ValueError("no runs to draw")
    if not every_input:
        present = order(runs["input"])
        if input is None:
            input = "gaussian" if "gaussian" in present else present[0]
        _names.choose("input", input, present)
        runs = runs[runs["input"] == input]
    if not every_length:
        if length is None:
            length = int(runs["length"].max())
        if not (runs["length"] == length).any():
            raise ValueError(
                f"no runs of length {length}; valid: "
                + ", ".join(str(n) for n in sorted(runs["length"].unique()))
            )
        runs = runs[runs["length"] == length]
    runs = _everywhere(runs)
    return with_variants(runs, [axis for axis in _VARYING if axis not in ("length", hue)])


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
    """Per init, variant, gain and lag: median and range over seeds of the relative log10 norm."""
    keys = ["init", "variant", "gain"]
    # Numbers for names: there are rows by the million, and a name takes many times the bytes.
    ids = pd.Index(runs["run_id"].unique())
    points = pd.DataFrame(
        {"run": ids.get_indexer(runs["run_id"]), "point": runs.groupby(keys).ngroup()}
    )
    rows = steps[["lag", "log_norm"]].assign(run=ids.get_indexer(steps["run_id"]))
    rows = rows[rows["run"] >= 0]
    start = rows[rows["lag"] == 0].drop_duplicates("run").set_index("run")["log_norm"]
    start = start.where(np.isfinite(start)).reindex(range(len(ids))).to_numpy()
    rows["decades"] = (rows.pop("log_norm") - start[rows["run"]]) / np.log(10)
    rows = rows.merge(points[points["point"] >= 0], on="run")
    grouped = rows.groupby(["point", "lag"])["decades"]
    statistics = {"median": "median", "low": "min", "high": "max", "finite": "count"}
    curves = grouped.agg(**statistics, seeds="size").reset_index()
    names = runs[keys].assign(point=points["point"]).drop_duplicates("point").set_index("point")
    return names.loc[curves.pop("point")].reset_index(drop=True).join(curves)


def _decay_lines(
    ax: Axes, panel: pd.DataFrame, colours: dict[float, Any], limits: tuple[float, float]
) -> None:
    beyond = 2 * DECADES
    shown = panel[np.isfinite(panel["median"])].copy()
    for name in ("median", "low", "high"):
        shown[name] = shown[name].clip(-beyond, beyond)
    for gain, line in shown.groupby("gain"):
        band = {"color": colours[gain], "alpha": 0.3, "lw": 0}
        ax.fill_between(line["lag"], line["low"], line["high"], **band)
    if len(shown):
        sns.lineplot(
            shown,
            x="lag",
            y="median",
            hue="gain",
            palette=colours,
            estimator=None,
            legend=False,
            ax=ax,
        )
    ax.set(xlabel="", ylabel="")
    for gain, line in panel.groupby("gain"):
        lost = {"nonfinite": line["finite"] < line["seeds"], "zero": line["low"] == -np.inf}
        for status, at in lost.items():
            if at.any():
                before = line[(line["lag"] < line["lag"][at].min()) & np.isfinite(line["median"])]
                place = before[["lag", "median"]].iloc[-1] if len(before) else (0.0, 0.0)
                x, y = (float(value) for value in place)
                ax.plot(x, np.clip(y, *limits), color=colours[gain], **mark(status))


def _length_line(ax: Axes, rows: pd.DataFrame, dodge: float, colour: Any, marker: str) -> None:
    if rows.empty:
        return
    place = rows["length"] * dodge
    sns.lineplot(
        x=place[rows["decades"].notna()].to_numpy(),
        y=rows["decades"].dropna().to_numpy(),
        color=colour,
        marker=marker,
        markersize=3.5,
        markeredgewidth=0,
        estimator="median",
        errorbar=("pi", 100),
        err_style="bars",
        err_kws={"elinewidth": 0.7},
        ax=ax,
    )
    for status, height in (("nonfinite", 0.94), ("zero", 0.06)):
        at = sorted(set(place[(rows["status"] == status) & rows["decades"].isna()]))
        if at:
            edge = ax.get_xaxis_transform()
            ax.plot(at, [height] * len(at), color=colour, transform=edge, **mark(status))


def _phase_marks(
    ax: Axes, runs: pd.DataFrame, variants: Sequence[str], gains: Sequence[float]
) -> None:
    for (variant, gain), point in runs.groupby(["variant", "gain"]):
        x, y = gains.index(gain), variants.index(variant)
        if not np.isfinite(point["rate"]).any():
            ax.add_patch(_hatched(xy=(x, y), width=1, height=1))
        place = {"ha": "center", "va": "center", "rotation": 90 if len(gains) > 12 else 0}
        ax.text(x + 0.5, y + 0.5, counts(point), **place)


def _hatched(**options: Any) -> Any:
    style = {"facecolor": "0.88", "edgecolor": "0.6", "hatch": "//////", "lw": 0}
    return Rectangle(**options, **style) if "xy" in options else Patch(**options, **style)


def _boundary(ax: Axes, table: np.ndarray, **style: Any) -> None:
    """Draws where each row of `table` changes sign, interpolated between the cells' centres."""
    segments = []
    for row, values in enumerate(table):
        known = np.flatnonzero(np.isfinite(values))
        for left, right in zip(known[:-1], known[1:], strict=True):
            a, b = values[left], values[right]
            if (a < 0) != (b < 0):
                x = left + 0.5 + (right - left) * a / (a - b)
                segments.append([(x, row), (x, row + 1)])
    if segments:
        ax.add_collection(LineCollection(segments, linewidths=1.4, **style))


def _table(
    values: pd.Series, init: str, variants: Sequence[str], gains: Sequence[float]
) -> pd.DataFrame:
    return values.xs(init, level="init").unstack("gain").reindex(index=variants, columns=gains)


def _pairs(both: pd.DataFrame, other: str, reference: str) -> pd.DataFrame:
    """Mean and standard deviation over seeds of both rates and of their difference, paired."""
    keys = [axis for axis in frames.AXES if axis != "input"] + ["variant", "seed"]
    finite = both[np.isfinite(both["rate"])]
    y = finite[finite["input"] == other].set_index(keys)["rate"].rename("y").reset_index()
    x = finite[finite["input"] == reference].set_index(keys)["rate"].rename("x").reset_index()
    pairs = x.merge(y, on=keys)
    pairs["d"] = pairs["y"] - pairs["x"]
    grouped = pairs.groupby(["variant", "init", "gain"])[["x", "y", "d"]]
    return grouped.mean().join(grouped.std().fillna(0).add_suffix("_sd")).reset_index()


def _square(ax: Axes, ticks: int) -> None:
    """The same limits and ticks on both axes, so that the diagonal is one."""
    limits = min(ax.get_xlim()[0], ax.get_ylim()[0]), max(ax.get_xlim()[1], ax.get_ylim()[1])
    ax.set(xlim=limits, ylim=limits)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(ticks))


def _few(gains: pd.Series) -> list[float]:
    every = np.sort(gains.unique())
    return sorted({float(every[0]), float(every[np.abs(every - 1).argmin()]), float(every[-1])})
