"""What a training recorded of its parameters, over its updates."""

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradlab import frames
from gradlab.figures._lines import colours_of, draw_lines, need
from gradlab.figures._style import (
    LABELS,
    PREDICTED,
    SEQUENTIAL,
    STYLE,
    grid,
    margins,
    name_tasks,
    order,
    point_of,
    with_variants,
)

# What the ready recorders measure, and the value that stands for "neither grows nor shrinks".
_QUANTITIES: dict[str, tuple[str, float | None]] = {
    "eigenvalues": (r"$|\lambda_i|$ of $W$", 1.0),
    "fixed_point_eigenvalues": (r"$|\lambda_i|$ of $\partial h_t/\partial h_{t-1}$ at $h^*$", 1.0),
    "hessian_eigenvalues": ("eigenvalue $i$ of the Hessian", None),
    "jacobian_eigenvalues": (r"$|\lambda_i|$ of $\partial h_t/\partial h_{t-1}$", 1.0),
    "log_gradient_norms": (r"$\ln\,\|\partial L/\partial\theta_l\|$ (nats)", None),
    "log_norms": (r"$\ln\,\|\theta_l\|$ (nats)", None),
    "lyapunov": (r"exponent $\lambda_i$ (nats/step)", 0.0),
    "participation_ratio": ("participation ratio $D$", None),
    "singular_values": ("singular value $s_i$ of $W$", 1.0),
    "spectral_radius": (r"spectral radius $\rho(W)$", 1.0),
    "time_constants": (r"time constant $\tau_i$ (steps)", None),
}
# More lines than these are thin, without names and without the range of their seeds.
_NAMES = 8
# From this ratio on, sizes are drawn on a logarithmic axis.
_DECADES = 30.0


def records(frame: pd.DataFrame | frames.TrainingResults) -> Figure:
    """What training recorded of the parameters (`record=`), over the updates, a panel for each.

    Args:
        frame: what a sweep of training with the axis `record` left; or
            `gl.frames.records(run)`: a row per update and entry, `training_step`, `name`, `index`,
            `value` and, of complex numbers, `imag`; further rows of one entry are its seeds, and
            where there are several networks, `variant` is a row of panels each.

    Returns:
        The figure: of a complex number its modulus, a line for each leaf or entry; medians with the
        range of seeds, which is left out where there are more than 8 lines. What is infinite leaves
        a gap and is counted above its panel.

    Raises:
        ValueError: for a frame without rows, or that lacks a column.

    >>> import gradlab as gl
    >>> frame = pd.DataFrame({"training_step": [0, 5], "name": "radius", "index": ""})
    >>> gl.figures.records(frame.assign(value=[1.0, 1.5])).axes[0].lines[0].get_ydata().tolist()
    [1.0, 1.5]
    """
    if isinstance(frame, frames.TrainingResults):
        frame = name_tasks(record_table(frame.runs, frame.records), "variant")
    need(frame, ["training_step", "name", "index", "value"])
    frame = frame if "variant" in frame else frame.assign(variant="")
    parts, index = frame["name"].str.partition("."), frame["index"].astype("str")
    place = ("[" + index + "]").where(index != "", "")
    frame = frame.assign(record=parts[0], leaf=parts[2], entry=parts[2] + place)
    names, variants = order(frame["record"]), order(frame["variant"])
    with rc_context(STYLE):
        fig, axes = grid(len(variants), len(names), height=1.9, margin=0.9, sharex=True)
        for name, column in zip(names, axes.T, strict=True):
            rows = frame[frame["record"] == name]
            entries = order(rows["entry"])
            # Leaves have names of their own; the entries of an array stand in an order.
            colours = colours_of(entries) if len(entries) <= _NAMES and rows["leaf"].any() else None
            for ax, variant in zip(column, variants, strict=True):
                _draw_record(ax, rows[rows["variant"] == variant], name, colours)
            if len(entries) > 1:
                legend = colours or {"first entry": _shade(0), "last entry": _shade(1)}
                handles = [Line2D([], [], color=c, label=label) for label, c in legend.items()]
                # Above, since the lines fill the panels.
                column[0].legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1.04))
        margins(axes, variants, [""] * len(names))
        fig.supxlabel(LABELS["update"], fontsize=8)
    return fig


def _shade(place: float) -> Any:
    """The colour of an entry, whose place is 0 for the first and 1 for the last."""
    # The map's light end does not stand out on white.
    return sns.color_palette(SEQUENTIAL, as_cmap=True)(0.92 * place)


def _draw_record(ax: Axes, rows: pd.DataFrame, name: str, colours: dict[str, Any] | None) -> None:
    if rows.empty:
        ax.text(0.5, 0.5, "not recorded", ha="center", transform=ax.transAxes)
        return
    is_complex = "imag" in rows and rows["imag"].notna().any()
    if is_complex:
        rows = rows.assign(value=np.hypot(rows["value"], rows["imag"].fillna(0)))
    if colours is None:
        entries = list(dict.fromkeys(rows["entry"]))
        places = np.linspace(0, 1, len(entries))
        colours = {entry: _shade(place) for entry, place in zip(entries, places, strict=True)}
    many = len(colours) > _NAMES
    style = {"band": False, "lw": 0.6} if many else {}
    draw_lines(ax, rows, "training_step", "value", "entry", colours=colours, **style)
    if infinite := int(np.isinf(rows["value"]).sum()):
        ax.set_title(f"{infinite} of {len(rows)} infinite", loc="right", fontsize=6)
    sizes = rows["value"][np.isfinite(rows["value"])]
    if len(sizes) and sizes.min() > 0 and sizes.max() > _DECADES * sizes.min():
        ax.set_yscale("log")
    usual = f"|{name}|" if is_complex else name
    label, level = _QUANTITIES.get(name, (usual.replace("_", " "), None))
    ax.set_ylabel(label)
    low, high = ax.get_ylim()
    if level is not None and low <= level <= high:
        ax.axhline(level, color="0.2", ls=PREDICTED, lw=0.8, zorder=0)
        ax.set_ylim(low, high)


def record_table(runs: pd.DataFrame, records: pd.DataFrame) -> pd.DataFrame:
    """The records of a sweep as the figure takes them, with the task of each run."""
    others = ("task", "cell", "precision", "record")
    axes = [name for name in point_of(runs, frames.TRAINING) if name not in others]
    keys = ["run_id", "task", "variant"]
    return records.merge(with_variants(runs, axes)[keys], on="run_id")
