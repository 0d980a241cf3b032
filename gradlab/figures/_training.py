"""Figures of training: what gradients do while a network learns, and whether it learns at all."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import offset_copy

from gradlab import _names, frames
from gradlab.figures._style import (
    LABELS,
    LEFT,
    MARKERS,
    PREDICTED,
    SEQUENTIAL,
    STYLE,
    grid,
    head,
    headline,
    mark_handles,
    missing_seeds,
    note,
    order,
    point_of,
    row_grid,
    with_variants,
)

# Remedies are left out of a label where they are off.
_OFF = {axis.name: axis.default for axis in frames.TRAINING.axes if axis.switch}
_OFF |= {"preflossing": 0.0, "window": 0.0}
_UNIT = {"adding": "squared error", "temperature": "squared error"}
# Colours outside the colour map, for gradients that are exactly zero or not finite.
_ZERO, _NONFINITE = "black", "0.75"
_HIGHEST = 30.0
_PULL_COLOUR = "#f7ecc4"


def training(
    steps: pd.DataFrame,
    metrics: pd.DataFrame,
    *,
    baselines: Mapping[str, float] | None = None,
    column: str | None = None,
) -> Figure:
    """A heatmap of ln‖λ_t‖ over training step and lag, with the loss above it.

    `steps` is `gl.frame(training)` (the whole state of its first scan is drawn, the median over
    samples where there are any, in the extended reals), `metrics` is `gl.frames.metrics(training)`;
    or the frames of a training sweep. With `column`, the name of a column of both, there is a panel
    for each of its values, with colours of its own. `baselines` are drawn as lines through the
    loss. A median of exactly zero is black; where a norm is not finite the cell is grey, and where
    a loss is NaN the line has a gap, which a note says.
    """
    if "leaf" in steps:
        first = steps["scan"].iloc[0] if len(steps) else ""
        steps = steps[(steps["leaf"] == "") & (steps["scan"] == first)]
    if steps.empty:
        raise ValueError("no traces to draw")
    if "log_grad_norm" in metrics:  # row 0 of a training holds its records alone, no loss
        metrics = metrics[metrics["training_step"] > 0]
    names = order(steps[column]) if column else [""]
    with rc_context(STYLE):
        # On one scale, panels whose gradients are of other sizes would be of one colour each.
        own = len(names) > 1
        margin = 1.3 if own else 0.7
        fig, axes = grid(2, len(names), height=1.2, margin=margin, sharex="col", sharey="row")
        axes[0, 0].get_gridspec().set_height_ratios([1, 1.8 + 0.8 * own])
        meshes = []
        for j, name in enumerate(names):
            above, below = axes[:, j]
            line = metrics[metrics[column].astype(str) == name] if column else metrics
            rows = steps[steps[column].astype(str) == name] if column else steps
            _loss_lines(above, line, baselines or {})
            meshes.append(_heat(below, rows, _scale(rows["log_norm"])))
            if own:
                fig.colorbar(meshes[-1], ax=below, location="bottom", aspect=12, shrink=0.9)
            below.xaxis.set_major_locator(MaxNLocator(3, integer=True))
            above.set_title(textwrap.fill(name, 16), loc="left")
            below.set_xlim(0, max(line["training_step"].max(), 1))
        axes[0, 0].set_ylabel("loss")
        axes[1, 0].set_ylabel(LABELS["lag"])
        if own:
            fig.supxlabel(f"{LABELS['update']}; colours: {LABELS['log_norm']}", fontsize=8)
        else:
            fig.supxlabel(LABELS["update"], fontsize=8)
            fig.colorbar(meshes[-1], ax=axes[1, :].tolist(), label=LABELS["log_norm"], pad=0.02)
        handles: list[Any] = [
            Line2D([], [], color="0.2", ls=PREDICTED, label=label) for label in baselines or {}
        ]
        if np.isneginf(steps["log_norm"]).any():
            handles.append(Patch(color=_ZERO, label="exactly zero"))
        if steps["log_norm"].isna().any():
            handles.append(Patch(color=_NONFINITE, label="not finite"))
        if handles:
            fig.legend(handles=handles, loc="outside upper right", ncols=len(handles))
    return fig


def _scale(log_norm: pd.Series) -> Normalize:
    """The colours of a panel; those of the lowest and the highest percent saturate."""
    finite = log_norm.where(np.isfinite(log_norm))
    low, high = (float(finite.quantile(q)) for q in (0.01, 0.99))
    if not low < high:
        low, high = (low - 1, low + 1) if np.isfinite(low) else (-1.0, 1.0)
    return Normalize(low, high)


def _loss_lines(ax: Axes, metrics: pd.DataFrame, baselines: Mapping[str, float]) -> None:
    table = frames.spread(metrics["loss"], [metrics["training_step"]]).reset_index()
    curve = table.replace([-np.inf, np.inf], np.nan)
    if (table["count"] > 1).any():
        band = {"color": "C0", "alpha": 0.3, "lw": 0}
        ax.fill_between(table["training_step"], curve["low"], curve["high"], **band)
    ax.plot(table["training_step"], curve["median"], color="C0", lw=0.8)
    note(ax, missing_seeds(table.assign(line=0), [""], "training_step", "update {:g}", "losses"))
    for value in baselines.values():
        ax.axhline(value, color="0.2", ls=PREDICTED, lw=0.8)
    finite = curve["median"].dropna()
    # Less than half a decade has hardly a tick on a logarithmic axis.
    if finite.min() > 0 and finite.max() > 3 * finite.min():
        ax.set_yscale("log")


def _heat(ax: Axes, steps: pd.DataFrame, norm: Normalize) -> Any:
    keys = [steps["lag"], steps["training_step"]]
    table = frames.spread(steps["log_norm"], keys)["median"].unstack("training_step")
    values = table.to_numpy()
    colours = sns.color_palette(SEQUENTIAL, as_cmap=True).with_extremes(bad=_NONFINITE)
    image = np.ma.masked_invalid(values)
    x, y = _edges(table.columns.to_numpy(float)), _edges(table.index.to_numpy(float))
    mesh = ax.pcolormesh(x, y, image, cmap=colours, norm=norm, rasterized=True)
    zero = np.ma.masked_where(~np.isneginf(values), np.ones(values.shape))
    ax.pcolormesh(x, y, zero, cmap=ListedColormap([_ZERO]), rasterized=True)
    ax.set_ylim(y[0], y[-1])
    return mesh


def _edges(centres: np.ndarray) -> np.ndarray:
    """Where the cells around increasing centres meet."""
    if centres.size == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])


def learning(runs: pd.DataFrame, curves: pd.DataFrame, *, task: str | None = None) -> Figure:
    """The loss on fresh sequences against training step, with the task's baseline.

    A panel per sequence length, a line per cell and remedy: the median over seeds, the range of the
    seeds as a band, up to 30 times the baseline. A run that ends keeps its last loss, but for one
    that ends since it is not finite: its loss is NaN from there on, which ends the line, and a note
    says how many seeds are. ● stands where the first seed is solved, × where the first is not
    finite. Failed runs are counted (◇) and left out.
    """
    runs = _of_task(runs, task)
    lengths, names = _lengths(runs), order(runs["variant"])
    colours = dict(zip(names, sns.color_palette("colorblind", len(names)), strict=True))
    with rc_context(STYLE):
        fig, axes = row_grid(len(lengths), sharey=True)
        for ax, length in zip(axes, lengths, strict=True):
            panel = runs[runs["length"].fillna(0) == length]
            lines = []
            for k, name in enumerate(names):
                table = _learning_line(ax, panel[panel["variant"] == name], curves, colours[name])
                lines.append(table.assign(line=k))
            texts = missing_seeds(pd.concat(lines), names, "training_step", "update {:g}")
            ax.set_title(f"$T$ = {length:g}" if length else " ", loc="left")
            head(ax, panel[panel["status"] == "failed"])
            ax.set_yscale("log")
            baseline = _baseline(panel)
            if np.isfinite(baseline):
                ax.axhline(baseline, color="0.2", ls=PREDICTED, lw=0.8, zorder=0)
                ax.set_ylim(top=min(ax.get_ylim()[1], _HIGHEST * baseline))
            ax.set_xlim(0, max(panel["updates"].max(), 1))
            note(ax, texts)
        fig.supxlabel(LABELS["update"], fontsize=8)
        unit = _UNIT.get(order(runs["task"])[0], "nats")
        fig.supylabel(LABELS["loss"].format(unit=unit), fontsize=8)
        handles: list[Any] = [Line2D([], [], color=colours[name], label=name) for name in names]
        handles += [
            Line2D([], [], color="0.2", ls=PREDICTED, label="baseline: remember\nnothing"),
            Patch(color="0.5", alpha=0.3, lw=0, label="range of seeds"),
        ]
        for status, marker in (("solved", "o"), ("nonfinite", "x")):
            if (runs["status"] == status).any():
                label = {"solved": "first seed solved", "nonfinite": "first seed not finite"}
                style = {"color": "0.3", "ls": "none", "marker": marker, "ms": 3.5}
                handles.append(Line2D([], [], label=label[status], **style))
        handles += mark_handles(runs[runs["status"] == "failed"])
        # Long names beside the panels would take their room.
        wide = max(len(name) for name in names) > 16
        style: Any = LEFT | {"loc": "outside lower center" if wide else "outside right upper"}
        title = order(runs["task"])[0].replace("_", " ")
        fig.legend(handles=handles, title=title, ncols=3 if wide else 1, **style)
    return fig


def _learning_line(ax: Axes, runs: pd.DataFrame, curves: pd.DataFrame, colour: Any) -> pd.DataFrame:
    """Draw one line, and give its statistics by training step."""
    runs = runs[runs["status"] != "failed"]
    rows = curves[curves["run_id"].isin(runs["run_id"])]
    table = rows.pivot(index="training_step", columns="run_id", values="loss")
    # Repeat a run's last loss after its end only: a NaN before that is a loss, not a gap.
    here = rows.assign(here=True).pivot(index="training_step", columns="run_id", values="here")
    is_over = here.isna() & here.ffill().notna()
    table = table.where(~is_over, table.ffill())
    bad = runs[runs["status"] == "nonfinite"].set_index("run_id")["first_nonfinite_step"]
    for name, first in zip(bad.index, bad, strict=True):
        if name in table:
            end = here[name].last_valid_index()
            end = end if pd.isna(first) else min(end, int(first))
            table.loc[table.index > end, name] = np.nan
    long = table.reset_index().melt("training_step", value_name="loss")
    table = frames.spread(long["loss"], [long["training_step"]]).reset_index()
    if table.empty:
        return table
    curve = table.replace([-np.inf, np.inf], np.nan).set_index("training_step")
    ax.fill_between(curve.index, curve["low"], curve["high"], color=colour, alpha=0.2, lw=0)
    ax.plot(curve.index, curve["median"], color=colour, lw=0.9)
    for status, name, marker in (
        ("solved", "solved_step", "o"),
        ("nonfinite", "first_nonfinite_step", "x"),
    ):
        at = runs.loc[runs["status"] == status, name].dropna()
        finite = curve["median"].dropna()
        before = finite[finite.index <= int(at.min())] if len(at) else finite[:0]
        if len(before):
            style = {"color": colour, "marker": marker, "ms": 3.5, "ls": "none"}
            ax.plot(before.index[-1], before.iloc[-1], **style)
    return table


def _baseline(runs: pd.DataFrame) -> float:
    """The task's baseline, which a failed run may lack."""
    values = runs["baseline"].dropna()
    return float(values.iloc[0]) if len(values) else np.nan


def success(runs: pd.DataFrame, *, task: str | None = None) -> Figure:
    """The share of runs that solve the task against sequence length, a line per cell and remedy.

    A run whose loss is not finite has not solved it. Runs that failed were not trained: the share
    is of the others, and a note says how many there are.
    """
    runs = _of_task(runs, task)
    names = order(runs["variant"])
    colours = sns.color_palette("colorblind", len(names))
    with rc_context(STYLE):
        fig, axes = grid(1, 1, height=2.2, width=5.0)
        ax = axes[0, 0]
        lengths = np.array(_lengths(runs), float)
        if len(lengths) == 1:
            return _success_at_one_length(fig, ax, runs, colours)
        gap = np.diff(lengths).min(initial=lengths.max() or 1.0)
        for k, (name, colour) in enumerate(zip(names, colours, strict=True)):
            rows = runs[(runs["variant"] == name) & (runs["status"] != "failed")]
            share = (rows["status"] == "solved").groupby(rows["length"].fillna(0)).mean()
            # Shift lines sideways so that those that coincide, as at 0 and 1, can be seen.
            dodge = 0.03 * gap * (k - (len(names) - 1) / 2)
            marker = MARKERS[k % len(MARKERS)]
            x = share.index.to_numpy(float) + dodge
            # Up or down by points of the page, so that the numbers of the line stay what they are.
            lift = 1.5 * (k - (len(names) - 1) / 2)
            place = offset_copy(ax.transData, fig, y=lift, units="points")
            style = {"color": colour, "marker": marker, "ms": 3.5, "transform": place}
            ax.plot(x, share, label=name, **style)
        head(ax, runs[runs["status"] == "failed"])
        reach = 0.03 + 0.006 * len(names)
        ax.set_ylim(-reach, 1 + reach)
        ax.set_xticks(lengths, [f"{length:g}" for length in lengths])
        ax.set_xlabel(LABELS["length"])
        ax.set_ylabel(LABELS["solved"])
        title = order(runs["task"])[0].replace("_", " ")
        handles = [*ax.get_lines(), *mark_handles(runs[runs["status"] == "failed"])]
        fig.legend(handles=handles, title=title, loc="outside right upper", **LEFT)
    return fig


def _success_at_one_length(
    fig: Figure, ax: Axes, runs: pd.DataFrame, colours: Sequence[Any]
) -> Figure:
    """A bar per cell and remedy: there is no axis of lengths."""
    names = order(runs["variant"])
    rows = runs[runs["status"] != "failed"]
    share = (rows["status"] == "solved").groupby(rows["variant"]).mean().reindex(names)
    places = np.arange(len(names))
    ax.barh(places, share, color=colours, height=0.6)
    for place, value in zip(places, share, strict=True):
        text = "not measured" if np.isnan(value) else f"{value:.0%}"
        ax.annotate(text, (0 if np.isnan(value) else value, place), (3, 0),
                    textcoords="offset points", va="center", fontsize=7)  # fmt: skip
    ax.set_yticks(places, [textwrap.fill(name, 28) for name in names])
    ax.invert_yaxis()
    ax.set_xlim(0, 1.12)
    ax.set_xlabel(LABELS["solved"].replace("\n", " "))
    task, length = order(runs["task"])[0].replace("_", " "), _lengths(runs)[0]
    ax.set_title(f"{task}, $T$ = {length:g}" if length else task, loc="left")
    head(ax, runs[runs["status"] == "failed"])
    if marks := mark_handles(runs[runs["status"] == "failed"]):
        fig.legend(handles=marks, loc="outside right upper", **LEFT)
    return fig


def flossing(exponents: pd.DataFrame) -> Figure:
    """Lyapunov exponents before and after gradient flossing, a panel per gain and length.

    Args:
        exponents: columns gain, steps (T of the flossing), flossed (how many exponents it pulls),
            stage ("before" or "after"), index (from 1), exponent (nats/step), seed. A line is the
            mean over seeds, the band their range; the shaded exponents are those that are pulled.
            Where a seed is NaN the line has a gap, and a note says how many are.
    """
    panels = exponents[["gain", "steps"]].drop_duplicates().to_numpy()
    colours = dict(zip(("before", "after"), sns.color_palette("colorblind", 2), strict=True))
    with rc_context(STYLE):
        fig, axes = row_grid(len(panels), sharex=True)
        for ax, (gain, steps) in zip(axes, panels, strict=True):
            rows = exponents[(exponents["gain"] == gain) & (exponents["steps"] == steps)]
            ax.axhline(0, color="0.6", lw=0.6, zorder=0)
            ax.axvspan(0.5, rows["flossed"].iloc[0] + 0.5, color=_PULL_COLOUR, lw=0, zorder=-1)
            lines = []
            for k, (stage, colour) in enumerate(colours.items()):
                part = rows[rows["stage"] == stage]
                line = frames.spread(part["exponent"], [part["index"]]).reset_index()
                lines.append(line.assign(line=k))
                line = line.replace([-np.inf, np.inf], np.nan)
                band = {"color": colour, "alpha": 0.25, "lw": 0}
                ax.fill_between(line["index"], line["low"], line["high"], **band)
                ax.plot(line["index"], line["mean"], color=colour, marker="o", ms=2)
            note(ax, missing_seeds(pd.concat(lines), list(colours), "index", "exponent {:g}"))
            ax.set_title(f"$g$ = {gain:g}, $T$ = {steps:g}", loc="left")
        fig.supxlabel("exponent $i$", fontsize=8)
        fig.supylabel("Lyapunov exponent (nats/step)", fontsize=8)
        handles: list[Any] = [
            Line2D([], [], color=colour, marker="o", ms=2, label=f"{stage} flossing")
            for stage, colour in colours.items()
        ]
        handles += [
            Patch(color="0.5", alpha=0.3, lw=0, label="range of seeds"),
            Patch(color=_PULL_COLOUR, lw=0, label="pulled to 0"),
        ]
        fig.legend(handles=handles, loc="outside right upper", **LEFT)
    return fig


def _of_task(runs: pd.DataFrame, task: str | None) -> pd.DataFrame:
    if runs.empty:
        raise ValueError("no runs to draw")
    present = order(runs["task"])
    task = present[0] if task is None else task
    _names.choose("task", task, present)
    point = point_of(runs, frames.TRAINING)
    main_axes = ("task", "cell", "length", "precision")
    varying = [axis for axis in point if axis not in main_axes]
    return with_variants(runs[runs["task"] == task], varying, _OFF)


def _lengths(runs: pd.DataFrame) -> list[float]:
    return sorted(float(length) for length in runs["length"].fillna(0).unique())


def gradients(
    runs: pd.DataFrame,
    curves: pd.DataFrame,
    steps: pd.DataFrame,
    *,
    task: str | None = None,
    length: int | None = None,
) -> Figure:
    """`training` for a training sweep: a panel per cell and remedy, the first seed of each.

    `length` chooses the runs; the longest by default. The first seed is the lowest that did not
    fail; where that is not the same for all, the panel names it. A run that is solved ends there,
    and its panel says when. What has no such run is named above.
    """
    every = _of_task(runs, task)
    runs = pick(runs, task, length)
    without = [name for name in order(every["variant"]) if name not in set(runs["variant"])]
    if runs.empty:
        raise ValueError("no traces to draw: every run failed")
    lowest = runs["seed"].min()
    seed = (" seed " + runs["seed"].astype(str)).where(runs["seed"] != lowest, "")
    runs = runs.assign(variant=runs["variant"] + seed)
    ends = runs["solved_step"].map(lambda step: f", solved at {step:.0f}", na_action="ignore")
    runs = runs.assign(variant=runs["variant"] + ends.astype(object).fillna(""))
    keys = runs[["run_id", "variant"]]
    baseline = _baseline(runs)
    fig = training(
        steps.merge(keys, on="run_id"),
        curves.merge(keys, on="run_id"),
        baselines={"baseline: remember nothing": baseline} if np.isfinite(baseline) else None,
        column="variant",
    )
    if without:
        headline(fig, f"no runs of this length that did not fail: {', '.join(without)}")
    return fig


def pick(runs: pd.DataFrame, task: str | None = None, length: int | None = None) -> pd.DataFrame:
    """Pick the runs that `gradients` draws."""
    runs = _of_task(runs, task)
    here = _lengths(runs)[-1] if length is None else length
    _names.choose("length", f"{here:g}", [f"{one:g}" for one in _lengths(runs)])
    runs = runs[(runs["length"].fillna(0) == here) & (runs["status"] != "failed")]
    return runs[runs["seed"] == runs.groupby("variant")["seed"].transform("min")]
