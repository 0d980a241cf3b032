"""Figures from the frames alone: DataFrame -> Figure. Palette, sizes and labels live here only.

Every figure fits a paper's double column (7 in) or single column (3.4 in) with text of 7 pt or
more. Runs without a finite gradient are marked × and runs whose gradient is exactly zero ▽, each
with their number: no figure drops a run silently.
"""

# pandas' own annotations say Series | DataFrame for nearly every selection.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator, SymmetricalLogLocator

from gradlab import _names, frames

DOUBLE = 7.0
SINGLE = 3.4
STYLE = {
    "font.size": 7,
    "axes.labelsize": 8,
    "axes.titlesize": 7.5,
    "axes.titlepad": 3,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7.5,
    "legend.frameon": False,
    "lines.linewidth": 1.0,
    "hatch.linewidth": 0.5,
    "axes.unicode_minus": True,
    "pdf.fonttype": 42,
    "savefig.dpi": 200,
}
LABELS = {
    "lag": "lag $T - t$ (steps)",
    "length": "sequence length $T$ (steps)",
    "gain": "gain $g$ (dimensionless)",
    "rate": "rate (nats/step)",
    "decades": r"$\log_{10}\,\|\lambda_t\| \,/\, \|\lambda_T\|$ (decades)",
    "gain_decades": r"$\log_{10}\,\|\lambda_1\| \,/\, \|\lambda_T\|$ (decades)",
    "difference": "{other} − {reference},\nrate (nats/step)",
    "exponent": "largest exponent\n({unit})",
    "share": "share $i/n$ of the exponents (dimensionless)",
    "spectrum": "exponent $i$ of $n$ ({unit})",
    "deviation": "measured − theory\n({unit})",
    "init": "initialization",
    "weights": "weights",
    "input_scale": "input scale",
    "hidden": "width $n$",
}
QUANTITIES = {
    "rate": ("gain", "rate", "nats/step"),
    "exponent": ("gain", "exponent", "nats per unit of time"),
    "spectrum": ("share", "spectrum", "nats/step"),
}
"""What `theory` can draw: the labels of its axes, and the unit of the vertical ones."""

MARKS = {
    "nonfinite": ("×", "x", "non-finite\n(× n: in n runs)"),
    "zero": ("▽", "v", "exactly zero\n(▽ n: in n runs)"),
}
"""For each status that a figure has to show: its sign in text, its marker, its legend entry."""

SEQUENTIAL = "viridis"
DIVERGING = "vlag"
MEASURED, PREDICTED = "-", (0, (1.5, 1))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
FLOAT32 = {":": ("float32 ε, 1/ε", (-6.92, 6.92)), "--": ("float32 range", (-37.93, 38.53))}
"""log10 of float32's epsilon and of its smallest and largest normal number, by line style."""

DECADES = 45.0
"""Norms are drawn to this many decades either side: what float32 can hold, and a little more."""

_log = logging.getLogger(__name__)


def decay(
    runs: pd.DataFrame, steps: pd.DataFrame, *, input: str | None = None, length: int | None = None
) -> Figure:
    """log10 of the gradient's norm, relative to lag 0, against lag.

    A panel per initialization (row) and cell (column), a line per gain: the median over seeds, with
    the seeds' range as a band. `input` and `length` choose the runs (defaults: gaussian or the
    first, and the longest). × and ▽ stand on a line where its first seed becomes non-finite or
    exactly zero. The vertical axis stops at ±`DECADES`.
    """
    runs = _select(runs, input, length)
    curves = _curves(runs, steps)
    colours = _gain_colours(runs["gain"])
    rows, columns = _order(runs["init"]), _order(runs["variant"])
    with rc_context(STYLE):
        fig, axes = _grid(len(rows), len(columns), height=1.35, sharex=True, sharey=True)
        low, high = _limits(curves[["low", "high"]].to_numpy())
        for (i, init), (j, variant) in _product(rows, columns):
            ax = axes[i, j]
            _float32_lines(ax)
            panel = curves[(curves["init"] == init) & (curves["variant"] == variant)]
            _decay_lines(ax, panel, colours, (low, high))
            _head(ax, runs[(runs["init"] == init) & (runs["variant"] == variant)])
        axes[0, 0].set_ylim(low, high)
        axes[0, 0].set_xlim(0, max(int(runs["length"].max()) - 1, 1))
        axes[0, 0].xaxis.set_major_locator(MaxNLocator(4, integer=True))
        _margins(axes, rows, columns)
        fig.supxlabel(LABELS["lag"], fontsize=8)
        fig.supylabel(LABELS["decades"], fontsize=8)
        gains = _thin(list(colours), 12)
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
        handles += _mark_handles(runs)
        fig.legend(handles=handles, title="gain", loc="outside right upper", alignment="left")
    return fig


def phase(runs: pd.DataFrame, *, input: str | None = None, length: int | None = None) -> Figure:
    """The rate over gain × cell, a panel per initialization: where gradients vanish and explode.

    Colour is the median rate over seeds. The solid line is where that rate crosses zero, the dashed
    line where `predicted_rate` does. Points without a finite rate are hatched.
    """
    runs = _select(runs, input, length)
    inits, variants = _order(runs["init"]), _order(runs["variant"])
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
        fig, axes = _grid(len(inits), 1, height=height, width=SINGLE, margin=1.3, sharex=True)
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
            kept = _thin(list(range(len(gains))), 14)
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
        handles += _mark_handles(runs)
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
    runs = _select(runs, input, None, every_length=True)
    if gains is None:
        gains = _few(runs["gain"])
    columns, inits = _order(runs["variant"]), _order(runs["init"])
    colours, markers = _init_styles(inits)
    runs = runs.assign(decades=runs["log_gain"].where(np.isfinite(runs["log_gain"])) / np.log(10))
    with rc_context(STYLE):
        fig, axes = _grid(len(gains), len(columns), height=1.5, sharex=True, sharey="row")
        for (i, gain), (j, variant) in _product(gains, columns):
            ax = axes[i, j]
            ax.set_yscale("symlog", linthresh=1, linscale=0.6)
            ax.margins(y=0.1)
            panel = runs[np.isclose(runs["gain"], gain) & (runs["variant"] == variant)]
            ax.axhline(0, color="0.6", lw=0.6, zorder=0)
            for k, init in enumerate(inits):
                rows = panel[panel["init"] == init]
                dodge = 1.05 ** (k - (len(inits) - 1) / 2)
                _length_line(ax, rows, dodge, colours[init], markers[init])
            _head(ax, panel)
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
        _margins(axes, [f"gain {gain:g}" for gain in gains], columns)
        fig.supxlabel(LABELS["length"], fontsize=8)
        fig.supylabel(LABELS["gain_decades"], fontsize=8)
        handles = _init_handles(colours, markers)
        shown = runs[np.isclose(runs["gain"].to_numpy()[:, None], np.array(gains)).any(axis=1)]
        handles += _mark_handles(shown)
        fig.legend(handles=handles, title="initialization", loc="outside right upper", **_LEFT)
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
    both = _select(runs[runs["input"].isin([input, reference])], None, length, every_input=True)
    columns, inits = _order(both["variant"]), _order(both["init"])
    colours, markers = _init_styles(inits)
    points = _pairs(both, input, reference)
    spacing = np.diff(sorted(both["gain"].unique())).min(initial=0.1)
    with rc_context(STYLE):
        fig, axes = _grid(2, len(columns), height=1.75)
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
            _head(above, both[both["variant"] == variant])
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
        handles = _init_handles(colours, markers, line=False)
        handles += [Line2D([], [], color="0.6", lw=0.6, label="equal rates"), *_mark_handles(both)]
        fig.legend(handles=handles, title="initialization", loc="outside right upper", **_LEFT)
    return fig


def deviations(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per point of the sweep (all of `AXES`): how far its seeds lie from theory, and why.

    With m runs of finite rate r_s at a point, mean r and sample standard deviation sd::

      stderr    = sd / √m
      deviation = r - predicted_rate
      bound     = 3 stderr + sd, and |predicted_bias| more on the side of its sign

    where the runs' own mean `rate_stderr` stands for an sd below it: few seeds can agree by chance.

    `predicted_bias` is what theory expects a finite width to add to `predicted_rate`; missing, it
    counts as 0. So a deviation passes its bound where it lies outside of 0 .. predicted_bias by
    more than the seeds explain; `within` says whether it does not. Where `predicted_rate` is
    missing, the last three are too.

    >>> record = dict(cell="elman", init="normal", gain=1, input="gaussian", length=10, hidden=4,
    ...               inputs=2, status="ok", verdict="stable", predicted_rate=0.0)
    >>> rows = [record | dict(run_id=str(seed), seed=seed, rate=0.1 * seed) for seed in range(3)]
    >>> table = deviations(frames.runs_frame(rows))
    >>> table[["rate", "rate_sd", "deviation", "bound"]].round(3).values.tolist()
    [[0.1, 0.1, 0.1, 0.273]]
    """
    rows = runs.assign(rate=runs["rate"].where(np.isfinite(runs["rate"])))
    if "predicted_bias" not in rows:
        rows = rows.assign(predicted_bias=np.nan)
    grouped = rows.groupby(list(frames.AXES), dropna=False, sort=False, observed=True)
    points = grouped.agg(
        runs=("rate", "count"),
        rate=("rate", "mean"),
        rate_sd=("rate", "std"),
        own=("rate_stderr", "mean"),
        predicted_rate=("predicted_rate", "mean"),
        predicted_bias=("predicted_bias", "mean"),
    ).reset_index()
    sd = points["rate_sd"].fillna(0)
    sd = np.maximum(sd, points.pop("own").fillna(0))
    stderr = sd / np.sqrt(points["runs"])
    points["rate_sd"] = sd
    points.insert(list(points.columns).index("rate_sd") + 1, "rate_stderr", stderr)
    points["deviation"] = points["rate"] - points["predicted_rate"]
    width = (points["predicted_bias"] * np.sign(points["deviation"])).clip(lower=0).fillna(0)
    bound = width + 3 * stderr + sd
    points["bound"] = bound.where(points["deviation"].notna())
    within = (points["deviation"].abs() <= points["bound"]).astype("boolean")
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
    expected effect of a finite width, from 0 to `predicted_bias`, and a bar is 3 standard errors
    and one standard deviation of the seeds, so that a bar which does not reach the band is a miss,
    and ringed (`deviations` has the numbers). The largest deviation stands above its panel.

    `quantity` is what the rates are: rate; exponent, the largest Lyapunov exponent per unit of
    time; or spectrum, an exponent at a share i/n of all, which then stands in the column gain.
    """
    _names.choose("quantity", quantity, QUANTITIES)
    x, y, unit = QUANTITIES[quantity]
    if hue is not None:
        _names.choose("hue", hue, frames.AXES)
    runs = _select(runs, input, length, hue=hue)
    if runs["init"].nunique() > 1 and hue is None:
        hue = "init"
    elif runs["init"].nunique() > 1 and hue != "init":
        runs["variant"] += " " + runs["init"]
    points = deviations(runs).merge(
        runs[[*frames.AXES, "variant"]].drop_duplicates(), on=list(frames.AXES)
    )
    columns = _order(runs["variant"])
    values = [None] if hue is None else sorted(runs[hue].unique())
    palette = sns.color_palette("colorblind", len(values))
    styles = list(zip(values, palette, MARKERS, strict=False))
    with rc_context(STYLE):
        fig, axes = _grid(2, len(columns), height=1.7, sharex="col", height_ratios=(3, 2))
        for (above, below), variant in zip(axes.T, columns, strict=True):
            panel = points[points["variant"] == variant]
            for ax in (above, below):
                ax.axhline(0, color="0.6", lw=0.6, zorder=0)
            for value, colour, marker in styles:
                rows = panel if hue is None else panel[panel[hue] == value]
                _theory_points(above, below, rows.sort_values("gain"), colour, marker)
            above.set_title(variant, loc="left")
            _head(above, runs[runs["variant"] == variant])
            below.set_title(_largest(panel), loc="left", fontsize=7)
            below.yaxis.set_major_locator(MaxNLocator(4))
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
            Patch(color=shade, alpha=0.2, lw=0, label="finite width"),
        ]
        if points["predicted_rate"].isna().any():
            hollow = {"marker": "o", "ms": 3.5, "mfc": "white", "mew": 0.8, "ls": ""}
            handles.append(Line2D([], [], color=shade, label="no theory", **hollow))
        if (~points["within"].fillna(True)).any():
            handles.append(Line2D([], [], label="beyond the\nbound", **_RING))
        handles += _mark_handles(runs)
        title = None if hue is None else LABELS.get(hue, hue.replace("_", " "))
        fig.legend(handles=handles, title=title, loc="outside right upper", **_LEFT)
    return fig


_RING = {"marker": "o", "ms": 7, "mfc": "none", "mec": "black", "mew": 0.7, "ls": ""}


def _theory_points(
    above: Axes, below: Axes, rows: pd.DataFrame, colour: Any, marker: str
) -> None:
    known = rows[rows["predicted_rate"].notna()]
    style = {"color": colour, "ls": "", "marker": marker, "ms": 3, "elinewidth": 0.7}
    for part, fill in ((known, colour), (rows.drop(known.index), "white")):
        above.errorbar(part["gain"], part["rate"], part["rate_sd"], mfc=fill, mew=0.7, **style)
    above.plot(known["gain"], known["predicted_rate"], color=colour, ls=PREDICTED)
    spread = 3 * known["rate_stderr"] + known["rate_sd"]
    below.errorbar(known["gain"], known["deviation"], spread, mew=0.7, **style)
    bias = known["predicted_bias"].fillna(0)
    band = {"color": colour, "alpha": 0.25, "lw": 0}
    for ax, line in ((above, known["predicted_rate"]), (below, 0 * bias)):
        ax.fill_between(known["gain"], line, line + bias, **band)
    missed = known[~known["within"].fillna(True).astype(bool)]
    below.plot(missed["gain"], missed["deviation"], **_RING)


def _largest(points: pd.DataFrame) -> str:
    sizes = points["deviation"].abs()
    if not sizes.notna().any():
        return "no theory"
    worst = points.loc[sizes.idxmax()]
    return f"largest {worst['deviation']:+.3f} at {worst['gain']:g}".replace("-", "−")


def draw(results: str | Path | frames.Results, out_dir: str | Path) -> list[Path]:
    """Draws every figure of `results` (frames, or a sweep's folder) into `out_dir`.

    For each input decay, phase, length and, where there is a theory, theory, and a comparison of
    each other input with gaussian; a PNG (200 dots per inch) and a PDF of each. The same frames
    give the same bytes. A figure that the runs cannot fill is skipped and the log says why. Returns
    the paths written.
    """
    if isinstance(results, str | Path):
        results = frames.read(results)
    runs, steps, _ = results
    if runs.empty:
        raise ValueError("no runs to draw")
    figures: dict[str, Callable[[], Figure]] = {}
    names = _order(runs["input"])
    for name in names:
        figures[f"decay-{name}"] = lambda name=name: decay(runs, steps, input=name)
        figures[f"phase-{name}"] = lambda name=name: phase(runs, input=name)
        figures[f"length-{name}"] = lambda name=name: length(runs, input=name)
        if runs.loc[runs["input"] == name, "predicted_rate"].notna().any():
            figures[f"theory-{name}"] = lambda name=name: theory(runs, input=name)
    others = [name for name in names if name != "gaussian"]
    for name in others:
        if "gaussian" in names:
            figures[f"inputs-{name}"] = lambda name=name: inputs(runs, input=name)
    if not others or "gaussian" not in names:
        _log.warning("inputs: skipped, the runs have no input beside %s", ", ".join(names))
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, make in figures.items():
        paths += save(make(), out_dir / name)
    return paths


def save(fig: Figure, stem: str | Path, formats: Sequence[str] = ("png", "pdf")) -> list[Path]:
    """Writes `fig` as `stem`.png and `stem`.pdf, without the time and the software's version."""
    nothing = {
        "png": {"Software": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }
    with rc_context(STYLE):
        fig.draw_without_rendering()
        fig.set_layout_engine("none")  # the layout is found once, not for each format
        for kind in formats:
            fig.savefig(f"{stem}.{kind}", metadata=nothing[kind])
    return [Path(f"{stem}.{kind}") for kind in formats]


_LEFT = {"alignment": "left"}
_VARYING = tuple(axis for axis in frames.AXES if axis not in ("cell", "init", "gain", "input"))


def _select(
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
        present = _order(runs["input"])
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
    variant = runs["cell"].astype(object)
    for _, group in runs.groupby("cell"):
        for axis in _VARYING:
            if axis in ("length", hue) or group[axis].nunique(dropna=False) < 2:
                continue
            values = group[axis]
            if axis not in ("activation", "weights"):
                name = axis.replace("_", " ")
                values = values.map(lambda value, name=name: f"{name} {value}")
            variant.loc[group.index] += " " + values.astype(object).fillna("")
    return runs.assign(variant=variant.astype("str"))


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
    rows = steps.merge(runs[["run_id", "init", "variant", "gain"]], on="run_id")
    start = rows[rows["lag"] == 0].drop_duplicates("run_id").set_index("run_id")["log_norm"]
    start = rows["run_id"].map(start).astype("float64")
    start = start.where(np.isfinite(start))
    rows["decades"] = (rows["log_norm"] - start) / np.log(10)
    grouped = rows.groupby(["init", "variant", "gain", "lag"])["decades"]
    statistics = {"median": "median", "low": "min", "high": "max", "finite": "count"}
    return grouped.agg(**statistics, seeds="size").reset_index()


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
                ax.plot(x, np.clip(y, *limits), color=colours[gain], **_mark(status))


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
            ax.plot(at, [height] * len(at), color=colour, transform=edge, **_mark(status))


def _phase_marks(
    ax: Axes, runs: pd.DataFrame, variants: Sequence[str], gains: Sequence[float]
) -> None:
    for (variant, gain), point in runs.groupby(["variant", "gain"]):
        x, y = gains.index(gain), variants.index(variant)
        if not np.isfinite(point["rate"]).any():
            ax.add_patch(_hatched(xy=(x, y), width=1, height=1))
        place = {"ha": "center", "va": "center", "rotation": 90 if len(gains) > 12 else 0}
        ax.text(x + 0.5, y + 0.5, _counts(point), **place)


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


def _grid(
    rows: int,
    columns: int,
    *,
    height: float,
    width: float = DOUBLE,
    margin: float = 0.45,
    **share: Any,
) -> tuple[Figure, np.ndarray]:
    if width == DOUBLE and columns > 4:
        width = DOUBLE / 4 * columns
    fig = Figure(figsize=(width, max(rows * height + margin, 2.2)), layout="constrained")
    FigureCanvasAgg(fig)
    return fig, fig.subplots(rows, columns, squeeze=False, **share)


def _margins(axes: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> None:
    for ax, name in zip(axes[0], columns, strict=True):
        ax.set_title(name, loc="left")
    for ax, name in zip(axes[:, -1], rows, strict=True):
        ax.annotate(
            name,
            (1, 0.5),
            xytext=(4, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            rotation=270,
            ha="left",
            va="center",
            fontsize=7.5,
        )


def _head(ax: Axes, runs: pd.DataFrame) -> None:
    """Writes how many of the panel's runs are non-finite or exactly zero above its right corner."""
    ax.set_title(_counts(runs) or " ", loc="right", fontsize=7)


def _counts(runs: pd.DataFrame) -> str:
    counts = {
        sign: runs.loc[runs["status"] == status, "run_id"].nunique()
        for status, (sign, *_) in MARKS.items()
    }
    return " ".join(f"{sign}{count}" for sign, count in counts.items() if count)


def _mark(status: str) -> dict[str, Any]:
    style = {"ls": "none", "ms": 4.5, "mfc": "white", "mew": 1.2, "clip_on": False, "zorder": 4}
    return {"marker": MARKS[status][1], **style}


def _mark_handles(runs: pd.DataFrame) -> list[Line2D]:
    return [
        Line2D([], [], color="0.3", label=label, **_mark(status))
        for status, (_, _, label) in MARKS.items()
        if (runs["status"] == status).any()
    ]


def _float32_lines(ax: Axes) -> None:
    for dashes, (_, values) in FLOAT32.items():
        for decades in values:
            ax.axhline(decades, color="0.4", lw=0.6, ls=dashes, zorder=0)


def _limits(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return -1.0, 1.0
    low, high = min(finite.min(), 0.0), max(finite.max(), 0.0)
    pad = 0.04 * max(high - low, 1e-3)
    return max(low - pad, -DECADES), min(high + pad, DECADES)


def _order(values: pd.Series) -> list[str]:
    return [str(value) for value in values.unique()]


def _product(rows: Sequence[Any], columns: Sequence[Any]) -> list[tuple[Any, Any]]:
    return [(row, column) for row in enumerate(rows) for column in enumerate(columns)]


def _thin(values: list[Any], most: int) -> list[Any]:
    if len(values) <= most:
        return values
    return values[:: -(-len(values) // most)]


def _few(gains: pd.Series) -> list[float]:
    every = np.sort(gains.unique())
    return sorted({float(every[0]), float(every[np.abs(every - 1).argmin()]), float(every[-1])})


def _gain_colours(gains: pd.Series) -> dict[float, Any]:
    every = sorted(gains.unique())
    # The map's light end does not stand out on white.
    shades = np.linspace(0, 0.92, len(every)) if len(every) > 1 else [0.4]
    palette = sns.color_palette(SEQUENTIAL, as_cmap=True)
    return {float(gain): palette(shade) for gain, shade in zip(every, shades, strict=True)}


def _init_styles(inits: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    palette = sns.color_palette("colorblind", len(inits))
    markers = [MARKERS[k % len(MARKERS)] for k in range(len(inits))]
    return dict(zip(inits, palette, strict=True)), dict(zip(inits, markers, strict=True))


def _init_handles(
    colours: dict[str, Any], markers: dict[str, str], line: bool = True
) -> list[Line2D]:
    style = {"ls": "-" if line else "none", "ms": 3.5, "mew": 0}
    return [
        Line2D([], [], color=colours[init], marker=markers[init], label=init, **style)
        for init in colours
    ]
