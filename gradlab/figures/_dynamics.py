"""Figures of dynamics: exponents, chaos, fixed points, and what they cost in parallel."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rc_context
from matplotlib.figure import Figure

from gradlab.figures._lines import colours_of, draw_lines, need
from gradlab.figures._style import LABELS, LEFT, MARKERS, STYLE, grid, note

_EXPONENT = "Lyapunov exponent (nats/step)"
_AXES = {
    "training_step": LABELS["update"],
    "step": "step $t$",
    "gain": LABELS["gain"],
    "hidden": LABELS["hidden"],
}


def exponents(frame: pd.DataFrame, x: str = "training_step") -> Figure:
    """Lyapunov exponents over training, along an orbit, or against any other column.

    Args:
        frame: a row per value of `x` and exponent: `x`, `index` (1 for the largest), `exponent` in
            nats per step; further rows are seeds. From the recorder `lyapunov` (`gl.frames.records`
            over training), `gl.spectrum.finite_time_exponents` or `gl.spectrum.lyapunov`.
        x: the column to draw over: training_step, step, gain, hidden or any other of numbers.

    Returns:
        The figure: medians with the range of seeds; an exponent of -inf leaves a gap.

    Raises:
        ValueError: for a frame without rows, or that lacks a column.

    >>> import gradlab as gl
    >>> frame = pd.DataFrame({"step": [10, 20], "index": 1, "exponent": [-0.1, 0.1]})
    >>> gl.figures.exponents(frame, "step").axes[0].get_xlabel()
    'step $t$'
    """
    need(frame, [x, "index", "exponent"])
    values = sorted(frame["index"].unique())
    with rc_context(STYLE):
        fig, axes = grid(1, 1, height=2.3, width=4.2)
        ax = axes[0, 0]
        ax.axhline(0, color="0.6", lw=0.6, zorder=0)
        draw_lines(ax, frame.sort_values("index"), x, "exponent", "index",
                   colours=colours_of(values), label="$i$ = {:g}")  # fmt: skip
        ax.set(xlabel=_AXES.get(x, x), ylabel=_EXPONENT)
        if len(values) <= 8:
            fig.legend(handles=[h for h in ax.get_lines() if h.get_label()[0] == "$"],
                       loc="outside right upper", **LEFT)  # fmt: skip
    return fig


def chaos(frame: pd.DataFrame) -> Figure:
    """Largest exponent, Kaplan-Yorke dimension and entropy rate against gain, per unit.

    Args:
        frame: a row per gain, width and seed: `gain`, `hidden`, `exponent` (the largest, nats per
            step), `dimension` and `entropy` (nats per step) of the whole network. From
            `gl.spectrum.lyapunov`, its `kaplan_yorke` and `entropy_rate`.

    Returns:
        The figure: dimension and entropy are divided by the width, since both grow with it.

    Raises:
        ValueError: for a frame without rows, or that lacks a column.

    >>> import gradlab as gl
    >>> frame = pd.DataFrame({"gain": [1.0, 2.0], "hidden": 10, "exponent": [-0.1, 0.2],
    ...                       "dimension": [0.0, 2.0], "entropy": [0.0, 0.5]})
    >>> gl.figures.chaos(frame).axes[1].lines[0].get_ydata().tolist()
    [0.0, 0.2]
    """
    need(frame, ["gain", "hidden", "exponent", "dimension", "entropy"])
    table = frame.assign(
        dimension=frame["dimension"] / frame["hidden"], entropy=frame["entropy"] / frame["hidden"]
    )
    labels = {
        "exponent": "largest exponent (nats/step)",
        "dimension": "dimension / $n$",
        "entropy": "entropy rate / $n$\n(nats/step)",
    }
    with rc_context(STYLE):
        fig, axes = grid(1, 3, height=2.1)
        for ax, (column, label) in zip(axes[0], labels.items(), strict=True):
            draw_lines(ax, table, "gain", column, "hidden", markers=True, label="$n$ = {:g}")
            ax.set(xlabel=LABELS["gain"], ylabel=label)
        axes[0, 0].axhline(0, color="0.6", lw=0.6, zorder=0)
        handles = [line for line in axes[0, 1].get_lines() if line.get_label()[0] == "$"]
        fig.legend(handles=handles, loc="outside right upper", **LEFT)
    return fig


def fixed_points(
    points: pd.DataFrame, eigenvalues: pd.DataFrame, orbit: pd.DataFrame | None = None
) -> Figure:
    """Fixed points in a plane, by how many directions leave them, and their eigenvalues.

    Args:
        points: a row per point: `x`, `y`, its place in a plane such as that of the first two
            principal components of the orbit; `unstable`, how many eigenvalues lie outside the unit
            circle, and -1 for a search that found none. From `gl.spectrum.fixed_points`.
        eigenvalues: a row per eigenvalue: `real`, `imaginary`, `unstable` of its point.
        orbit: `x`, `y` of states along an orbit, drawn in grey.

    Returns:
        The figure: NaN is not drawn, and searches without a point are counted in a note.

    Raises:
        ValueError: for a frame without rows, or that lacks a column.

    >>> import gradlab as gl
    >>> points = pd.DataFrame({"x": [0.0, 1.0], "y": 0.0, "unstable": [1, 0]})
    >>> values = pd.DataFrame({"real": [2.0, 0.5], "imaginary": 0.0, "unstable": [1, 0]})
    >>> [t.get_text() for t in gl.figures.fixed_points(points, values).legends[0].get_texts()]
    ['stable', '1 unstable direction']
    """
    need(points, ["x", "y", "unstable"])
    need(eigenvalues, ["real", "imaginary", "unstable"])
    lost = int((points["unstable"] < 0).sum())
    counts = sorted(points["unstable"][points["unstable"] >= 0].unique())
    colours = dict(zip(counts, sns.color_palette("colorblind", len(counts)), strict=True))
    with rc_context(STYLE):
        fig, axes = grid(1, 2, height=2.6)
        plane, circle = axes[0]
        if orbit is not None:
            plane.plot(orbit["x"], orbit["y"], ".", ms=1, color="0.75", zorder=0)
        angle = np.linspace(0, 2 * np.pi, 200)
        circle.plot(np.cos(angle), np.sin(angle), color="0.5", lw=0.7)
        for k, count in enumerate(counts):
            name = {0: "stable", 1: "1 unstable direction"}.get(
                count, f"{count} unstable directions"
            )
            style = {"ls": "none", "marker": MARKERS[k % len(MARKERS)], "color": colours[count]}
            rows = points[points["unstable"] == count]
            plane.plot(rows["x"], rows["y"], ms=4.5, label=name, **style)
            rows = eigenvalues[eigenvalues["unstable"] == count]
            circle.plot(rows["real"], rows["imaginary"], ms=2.5, **style)
        plane.set(xlabel="first direction", ylabel="second direction")
        circle.set(xlabel="Re of the eigenvalues", ylabel="Im of the eigenvalues", aspect="equal")
        note(plane, [f"{lost} of {len(points)} searches lost"] if lost else [])
        handles = [line for line in plane.get_lines() if line.get_label()[0] != "_"]
        fig.legend(handles=handles, loc="outside upper right", ncols=3, **LEFT)
    return fig


def newton(frame: pd.DataFrame) -> Figure:
    """Iterations of Newton's method in parallel over time, against the largest exponent.

    Args:
        frame: a row per run: `exponent`, the largest, in nats per step; `length` T; `steps`, or -1
            where the most were too few; `log_condition` in nats. From `gl.spectrum.newton`,
            `gl.spectrum.lyapunov` and `gl.spectrum.log_newton_condition`.

    Returns:
        The figure: the iterations as a share of T, above which there is nothing to gain, on a
        logarithmic axis, over the exponent and over the logarithm of the condition; × marks runs
        that did not end.

    Raises:
        ValueError: for a frame without rows, or that lacks a column.

    >>> import gradlab as gl
    >>> frame = pd.DataFrame({"exponent": [-0.1, 0.1], "length": 100, "steps": [3, 50],
    ...                       "log_condition": [2.0, 12.0]})
    >>> gl.figures.newton(frame).axes[0].lines[0].get_ydata().tolist()
    [0.03, 0.5]
    """
    need(frame, ["exponent", "length", "steps", "log_condition"])
    lengths = sorted(frame["length"].unique())
    colours = colours_of(lengths)
    with rc_context(STYLE):
        fig, axes = grid(1, 2, height=2.3)
        for ax, column in zip(axes[0], ("exponent", "log_condition"), strict=True):
            for k, length in enumerate(lengths):
                rows = frame[frame["length"] == length].sort_values(column)
                points = rows[rows["steps"] >= 0]
                style = {"ls": "none", "ms": 3, "color": colours[length]}
                ax.plot(points[column], points["steps"] / length, marker=MARKERS[k % len(MARKERS)],
                        label=f"$T$ = {length:g}", **style)  # fmt: skip
                failures = rows[rows["steps"] < 0]
                ax.plot(failures[column], np.ones(len(failures)), marker="x", **style)
            ax.axhline(1, color="0.6", lw=0.6, zorder=0)
            ax.set(yscale="log", ylabel="iterations / $T$")
        axes[0, 0].axvline(0, color="0.6", lw=0.6, zorder=0)
        axes[0, 0].set_xlabel("largest exponent (nats/step)")
        axes[0, 1].set_xlabel("ln of the condition, from the exponent (nats)")
        axes[0, 0].legend()
    return fig
