"""How every figure looks: sizes, colours, labels, marks, and the pieces that figures share."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from gradlab import frames

DOUBLE = 7.0
SINGLE = 3.4
STYLE: dict[Any, Any] = {
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
    "figure.autolayout": False,
    "figure.constrained_layout.use": False,
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
    "update": "training step (updates)",
    "loss": "loss on fresh sequences\n({unit})",
    "solved": "share of runs that solve\nthe task (dimensionless)",
    "log_norm": r"$\ln\,\|\lambda_t\|$ (nats)",
}

MARKS = {
    "nonfinite": ("×", "x", "non-finite\n(× n: in n runs)"),
    "zero": ("▽", "v", "exactly zero\n(▽ n: in n runs)"),
    "failed": ("◇", "D", "failed, left out\n(◇ n: n runs)"),
}
"""For each status that a figure has to show: its sign in text, its marker, its legend entry."""


class Figure(matplotlib.figure.Figure):
    """A figure that a notebook shows, also where nothing has imported pyplot."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        # In two dots per pixel of the page, for sharp screens: the width says so.
        content = io.BytesIO()
        with rc_context(STYLE):
            self.savefig(content, format="png", metadata={"Software": None})
        return content.getvalue(), {"width": round(100 * self.get_figwidth())}


SEQUENTIAL = "viridis"
DIVERGING = "vlag"
MEASURED, PREDICTED = "-", (0, (1.5, 1))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
FLOAT32 = {":": ("float32 ε, 1/ε", (-6.92, 6.92)), "--": ("float32 range", (-37.93, 38.53))}
"""log10 of float32's epsilon and of its smallest and largest normal number, by line style."""

DECADES = 45.0
"""Norms are drawn to this many decades either side: what float32 can hold, and a little more."""


def save(
    fig: matplotlib.figure.Figure, stem: str | Path, formats: Sequence[str] = ("png",)
) -> list[Path]:
    """Write `fig` as `stem`.png or another of `formats`, without times and versions."""
    nothing = {
        "png": {"Software": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }
    with rc_context(STYLE):
        # The layout is found once, where each format would find it again.
        if (engine := fig.get_layout_engine()) is not None:
            engine.execute(fig)
        fig.set_layout_engine(None)
        for kind in formats:
            fig.savefig(f"{stem}.{kind}", metadata=nothing[kind])
    return [Path(f"{stem}.{kind}") for kind in formats]


LEFT = {"alignment": "left"}


def grid(
    rows: int,
    columns: int,
    *,
    height: float,
    width: float = DOUBLE,
    margin: float = 0.45,
    **share: Any,
) -> tuple[Figure, NDArray[np.object_]]:
    if width == DOUBLE and columns > 4:
        width = DOUBLE / 4 * columns
    fig = Figure(figsize=(width, max(rows * height + margin, 2.2)), layout="constrained")
    FigureCanvasAgg(fig)
    return fig, fig.subplots(rows, columns, squeeze=False, **share)


def row_grid(panels: int, **share: Any) -> tuple[Figure, NDArray[np.object_]]:
    """A figure of so many panels, four to a row, and their axes in one row."""
    columns = min(panels, 4)
    fig, axes = grid(-(-panels // columns), columns, height=1.7, **share)
    for k, ax in enumerate(axes.ravel()):
        ax.set_visible(k < panels)
        # The lowest panel of a column, whose numbers a shared axis leaves to the row below.
        ax.xaxis.set_tick_params(labelbottom=k + columns >= panels)
    return fig, axes.ravel()[:panels]


def margins(axes: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> None:
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


def head(ax: Axes, runs: pd.DataFrame) -> None:
    """Write how many of the panel's runs are of each status of `MARKS` above its right corner."""
    ax.set_title(counts(runs) or " ", loc="right", fontsize=7)


def counts(runs: pd.DataFrame) -> str:
    counts = {
        sign: runs.loc[runs["status"] == status, "run_id"].nunique()
        for status, (sign, *_) in MARKS.items()
    }
    return " ".join(f"{sign}{count}" for sign, count in counts.items() if count)


CORNERS = ((False, False), (True, True), (True, False), (False, True))
"""Whether right and whether top, in the order in which a note prefers them."""


def note(
    ax: Axes, lines: Sequence[str], corners: Sequence[tuple[bool, bool]] = CORNERS, width: int = 24
) -> None:
    """Write what the panel's lines leave out into the corner that they leave most free.

    The panel's limits have to be those that are drawn.
    """
    if lines:
        text = "\n".join(textwrap.fill(line, width) for line in lines)
        right, top = min(corners, key=lambda corner: _points_near(ax, *corner))
        place: dict[str, Any] = {
            "ha": "right" if right else "left",
            "va": "top" if top else "bottom",
        }
        box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8}
        x, y = 0.97 if right else 0.03, 0.97 if top else 0.03
        ax.text(x, y, text, fontsize=7, transform=ax.transAxes, bbox=box, zorder=5, **place)


def _points_near(ax: Axes, right: bool, top: bool) -> int:
    """How much of the panel's lines and marks stands in a corner: 0.7 wide, 0.3 high."""
    ax.autoscale_view()  # limits that are out of date are found now
    count = 0
    for line in ax.get_lines():
        alone = line.get_linestyle() == "None"
        if not alone and line.get_transform() != ax.transData:
            continue  # a reference line goes through the whole panel
        points = np.column_stack(line.get_data(orig=False)).astype(float)
        points = ax.transAxes.inverted().transform(line.get_transform().transform(points))
        points = points[np.isfinite(points).all(axis=1)]
        if len(points) > 1 and not alone:
            place = np.linspace(0, len(points) - 1, 200)
            points = np.column_stack(
                [np.interp(place, np.arange(len(points)), part) for part in points.T]
            )
        x, y = np.abs(points - (right, top)).T
        count += int(((x < 0.7) & (y < 0.3)).sum())
    return count


def headline(fig: matplotlib.figure.Figure, text: str | None) -> None:
    """Write what the whole figure leaves out above it, below what stands there already."""
    if text:
        before = fig.get_suptitle()
        width = int(20 * fig.get_figwidth())
        text = "\n".join(filter(None, [before, textwrap.fill(text, width)]))
        fig.suptitle(text, x=0.005, ha="left", fontsize=7)


def missing_seeds(
    table: pd.DataFrame, names: Sequence[str], where: str, form: str, what: str = "seeds"
) -> list[str]:
    """What to say of the lines of a panel in which a seed is NaN: one line, or a sum of them.

    Args:
        table: rows of `frames.spread`, a line of the panel for each value of its column "line".
        names: what the lines are, by "line".
        where: the column that the panel is drawn over.
        form: how a value of it reads, such as "lag {:g}".
        what: what a line is over.
    """
    gaps = table[table["missing"] > 0]
    if gaps.empty:
        return []
    seeds = gaps.groupby("line")[["missing", "count"]].max()
    first = table["line"].map(gaps.groupby("line")[where].min())
    stays = (table.loc[table[where] >= first, "missing"] > 0).all()
    place = form.format(gaps[where].min())
    text = f"{seeds['missing'].sum():.0f} of {seeds['count'].sum():.0f} {what} are NaN"
    text += f" from {place} on" if stays else f", first at {place}"
    if table["line"].nunique() == 1:
        return [text]
    if len(seeds) == 1:
        return [f"{names[int(seeds.index[0])]}: {text}"]
    return [f"{len(seeds)} lines: {text}"]


def mark(status: str) -> dict[str, Any]:
    style = {"ls": "none", "ms": 4.5, "mfc": "white", "mew": 1.2, "clip_on": False, "zorder": 4}
    return {"marker": MARKS[status][1], **style}


def mark_handles(runs: pd.DataFrame) -> list[Line2D]:
    return [
        Line2D([], [], color="0.3", label=label, **mark(status))
        for status, (_, _, label) in MARKS.items()
        if (runs["status"] == status).any()
    ]


def float32_lines(ax: Axes) -> None:
    for dashes, (_, values) in FLOAT32.items():
        for decades in values:
            ax.axhline(decades, color="0.4", lw=0.6, ls=dashes, zorder=0)


def limits(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return -1.0, 1.0
    low, high = min(finite.min(), 0.0), max(finite.max(), 0.0)
    pad = 0.04 * max(high - low, 1e-3)
    return max(low - pad, -DECADES), min(high + pad, DECADES)


def order(values: pd.Series) -> list[str]:
    return [str(value) for value in values.unique()]


def point_of(runs: pd.DataFrame, schema: frames.Schema) -> tuple[str, ...]:
    """The axes by which the points of runs differ, those of a sweep's own included."""
    plain = runs.drop(columns=["variant", "value"], errors="ignore")
    return schema.including(plain).point


def with_variants(
    runs: pd.DataFrame, axes: Sequence[str], off: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """The runs with a column `variant`: their cell, and each of `axes` in which its runs differ.

    A value that is `off` for its axis is not named.
    """
    variant = runs["cell"].astype(object)
    for _, group in runs.groupby("cell"):
        for axis in axes:
            if group[axis].nunique(dropna=False) < 2:
                continue
            values = group[axis]
            silent = values.isna() | (values == (off or {}).get(axis, np.nan))
            if axis not in ("activation", "weights", "init", "optimizer"):
                name = axis.replace("_", " ")
                values = values.map(lambda value, name=name: f"{name} {value}")
            variant.loc[group.index] += (" " + values.astype(object)).where(~silent, "")
    return runs.assign(variant=variant.astype("str"))


def name_tasks(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """The table with the task before each name of a network, where there are several tasks."""
    if table["task"].nunique() < 2:
        return table
    return table.assign(**{column: table["task"].astype("str") + " " + table[column]})


def product(
    rows: Sequence[Any], columns: Sequence[Any]
) -> list[tuple[tuple[int, Any], tuple[int, Any]]]:
    return [(row, column) for row in enumerate(rows) for column in enumerate(columns)]


def thin(values: list[Any], most: int) -> list[Any]:
    if len(values) <= most:
        return values
    return values[:: -(-len(values) // most)]


def gain_colours(gains: pd.Series) -> dict[float, Any]:
    every = sorted(gains.unique())
    # The map's light end does not stand out on white.
    shades = np.linspace(0, 0.92, len(every)) if len(every) > 1 else [0.4]
    palette = sns.color_palette(SEQUENTIAL, as_cmap=True)
    return {float(gain): palette(shade) for gain, shade in zip(every, shades, strict=True)}


def init_styles(inits: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    palette = sns.color_palette("colorblind", len(inits))
    markers = [MARKERS[k % len(MARKERS)] for k in range(len(inits))]
    return dict(zip(inits, palette, strict=True)), dict(zip(inits, markers, strict=True))


def init_handles(
    colours: dict[str, Any], markers: dict[str, str], line: bool = True
) -> list[Line2D]:
    style = {"ls": "-" if line else "none", "ms": 3.5, "mew": 0}
    return [
        Line2D([], [], color=colours[init], marker=markers[init], label=init, **style)
        for init in colours
    ]
