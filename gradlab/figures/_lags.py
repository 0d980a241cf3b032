"""Figures of what travels how far: forwards from parameters and inputs, backwards from losses."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from gradlab.figures._lines import colours_of, draw_lines, need
from gradlab.figures._style import LEFT, PREDICTED, SEQUENTIAL, STYLE, grid, note

_STEP = "step $t$"
_LAG = "lag $k$ (steps)"


def sensitivity(frame: pd.DataFrame) -> Figure:
    """What the weights see: dh_t/dθ forwards on the left, the adjoint λ_t on the right.

    Args:
        frame: a row per step, side and name: `step`; `side`, "forwards" or "backwards"; `name`, of
            a leaf or of a variant; `log_norm` in nats; further rows of one name are its seeds. From
            `gl.spectrum.log_sensitivity` and `gl.trace`.

    Returns:
        The figure: medians with the range of seeds; an exact zero leaves a gap.

    Raises:
        ValueError: for a frame without rows, or that lacks a column.

    >>> import gradlab as gl
    >>> rows = {"step": [1, 2, 1, 2], "side": ["forwards"] * 2 + ["backwards"] * 2}
    >>> frame = pd.DataFrame(rows | {"name": "W", "log_norm": [0.0, 1.0, -1.0, 0.0]})
    >>> [ax.get_ylabel() for ax in gl.figures.sensitivity(frame).axes]
    ['ln ‖d$h_t$/dθ‖ (nats)', 'ln ‖$\\\\lambda_t$‖ (nats)']
    """
    need(frame, ["step", "side", "name", "log_norm"])
    colours = colours_of(list(dict.fromkeys(frame["name"])))
    labels = {"forwards": "ln ‖d$h_t$/dθ‖ (nats)", "backwards": r"ln ‖$\lambda_t$‖ (nats)"}
    with rc_context(STYLE):
        fig, axes = grid(1, 2, height=2.3)
        for ax, (side, label) in zip(axes[0], labels.items(), strict=True):
            rows = frame[frame["side"] == side]
            if len(rows):
                draw_lines(ax, rows, "step", "log_norm", "name", colours=colours)
                ax.legend()
            ax.set(xlabel=_STEP, ylabel=label, title=side)
    return fig


def conditioning(frame: pd.DataFrame) -> Figure:
    """Singular values of ∂h_T/∂h_{T-l} against the lag l, and the condition number.

    Args:
        frame: a row per lag and singular value: `lag`, `index` (1 for the largest), `log_value` in
            nats; further rows are seeds, told apart by a column `seed`. From
            `gl.spectrum.log_singular_values_by_lag`.

    Returns:
        The figure: on the left every singular value, on the right how many nats the largest and
        the smallest lie apart, with float32's 1/ε dashed: beyond it the smallest is rounding where
        the product itself is formed.

    Raises:
        ValueError: for a frame without rows, or that lacks a column.

    >>> import gradlab as gl
    >>> frame = pd.DataFrame({"lag": [1, 1], "index": [1, 2], "log_value": [0.5, -0.5]})
    >>> gl.figures.conditioning(frame).axes[1].lines[0].get_ydata().tolist()
    [1.0]
    """
    need(frame, ["lag", "index", "log_value"])
    keys = ["lag", *(["seed"] if "seed" in frame else [])]
    values = frame.groupby(keys)["log_value"]
    # A singular product has infinite values, whose difference is NaN.
    with np.errstate(invalid="ignore"):
        width = (values.max() - values.min()).rename("log_condition").reset_index()
    is_complete = values.count() == values.size()
    width["log_condition"] = width["log_condition"].where(is_complete.to_numpy())
    with rc_context(STYLE):
        fig, axes = grid(1, 2, height=2.3)
        left, right = axes[0]
        colours = colours_of(sorted(frame["index"].unique()))
        draw_lines(left, frame.sort_values("index"), "lag", "log_value", "index", colours=colours)
        left.set(xlabel=_LAG.replace("k", "l"), ylabel="ln of the singular values (nats)")
        left.set_title("dark to light: from the largest to the smallest", loc="left")
        draw_lines(right, width, "lag", "log_condition")
        right.axhline(-np.log(np.finfo(np.float32).eps), color="0.4", ls="--", lw=0.7,
                      label="1/ε of float32")  # fmt: skip
        right.set(xlabel=_LAG.replace("k", "l"), ylabel="ln of the condition number (nats)")
        right.legend()
    return fig


def entries(frame: pd.DataFrame) -> Figure:
    """The entries of ∂h_t/∂h_0: the diagonal against the rest, and all of them at the last step.

    Args:
        frame: a row per step and entry: `step`, `row`, `column`, `log_entry` = ln|∂h_i/∂h_j| in
            nats. From `gl.spectrum.log_jacobian`.

    Returns:
        The figure: on the left the root mean square of the entries on the diagonal, and of the
        others, in nats, on the right the entries of the last step. Exact zeros are black.

    Raises:
        ValueError: for a frame without rows, or that lacks a column.

    >>> import gradlab as gl
    >>> frame = pd.DataFrame([(1, i, j, -1.0 - (i != j)) for i in (0, 1) for j in (0, 1)],
    ...                      columns=["step", "row", "column", "log_entry"])
    >>> [float(line.get_ydata()[0]) for line in gl.figures.entries(frame).axes[0].lines]
    [-1.0, -2.0]
    """
    need(frame, ["step", "row", "column", "log_entry"])
    last = frame[frame["step"] == frame["step"].max()]
    with rc_context(STYLE):
        fig, axes = grid(1, 2, height=2.4)
        left, right = axes[0]
        inside = frame["row"] == frame["column"]
        for name, rows in (("diagonal", frame[inside]), ("others", frame[~inside])):
            if len(rows):
                curve = rows.groupby("step")["log_entry"].agg(_log_mean_square)
                curve = curve.replace(-np.inf, np.nan)
                left.plot(curve.index, curve, label=name)
        left.set(xlabel=_STEP, ylabel="ln of the root mean square\nof ∂$h_t$/∂$h_0$ (nats)")
        left.legend()
        table = last.pivot(index="row", columns="column", values="log_entry")
        draw_map(fig, right, table, "ln |∂$h_{t,i}$/∂$h_{0,j}$| (nats)")
        right.set(xlabel="unit $j$ at step 0", ylabel="unit $i$")
        right.set_title(f"$t$ = {last['step'].iloc[0]:g}", loc="left")
        right.invert_yaxis()
    return fig


def _log_mean_square(logs: pd.Series) -> float:
    """½ ln of the mean of exp(2 logs), by the largest of them."""
    top = logs.max(skipna=False)
    if not np.isfinite(top):
        return float(top)
    return float(top + np.log(np.mean(np.exp(2 * (logs - top)))) / 2)


def draw_map(fig: Figure, ax: Axes, table: pd.DataFrame, label: str) -> None:
    """The table's values over its columns and rows; -inf is black, NaN grey."""
    values = table.to_numpy(float)
    finite = values[np.isfinite(values)]
    palette = sns.color_palette(SEQUENTIAL, as_cmap=True)
    colours = palette.with_extremes(under="black", bad="0.9")
    low, high = (finite.min(), finite.max()) if finite.size else (-1.0, 1.0)
    norm = Normalize(low, high if high > low else low + 1)
    image = np.where(np.isneginf(values), low - 1, values)
    mesh = ax.pcolormesh(table.columns, table.index, image, cmap=colours, norm=norm,
                         shading="nearest", rasterized=True)  # fmt: skip
    fig.colorbar(mesh, ax=ax, label=label, pad=0.02)


def reach(frame: pd.DataFrame) -> Figure:
    """Whose loss reaches whom: ln‖∂ℓ_{t+k}/∂h_t‖ for every step t and lag k.

    Args:
        frame: a row per step and lag: `step`, `lag`, `log_norm` in nats. From
            `gl.spectrum.gradient_by_lag`, its `reach`.

    Returns:
        The figure: exact zeros are black; grey where there is no such loss, or NaN.

    Raises:
        ValueError: for a frame without rows, or that lacks a column.

    >>> import gradlab as gl
    >>> frame = pd.DataFrame({"step": [1, 2, 1], "lag": [0, 0, 1], "log_norm": [0.0, 0.1, -1.0]})
    >>> gl.figures.reach(frame).axes[0].get_xlabel()
    'lag $k$ of the loss $\\\\ell_{t+k}$ (steps)'
    """
    need(frame, ["step", "lag", "log_norm"])
    table = frame.pivot(index="step", columns="lag", values="log_norm")
    with rc_context(STYLE):
        fig, axes = grid(1, 1, height=2.6, width=4.2)
        ax = axes[0, 0]
        draw_map(fig, ax, table, r"ln ‖∂$\ell_{t+k}$/∂$h_t$‖ (nats)")
        ax.set(xlabel=r"lag $k$ of the loss $\ell_{t+k}$ (steps)", ylabel=_STEP)
    return fig


def lags(frame: pd.DataFrame, *, tolerance: float = 0.1) -> Figure:
    """The share of the gradient by lag, and how far truncated gradients are from the full one.

    Args:
        frame: a row per lag and variant: `lag`, `share`, `cosine`, `error`, and, where several are
            compared, `name`; further rows of one name are its seeds. From
            `gl.spectrum.gradient_by_lag`.
        tolerance: of the error that defines the effective horizon, dashed.

    Returns:
        The figure, of three panels: share, cosine, error.

    Raises:
        ValueError: for a frame without rows, or that lacks a column.

    >>> import gradlab as gl
    >>> frame = pd.DataFrame({"lag": [0, 1], "share": [0.6, 0.4], "cosine": [0.9, 1.0],
    ...                       "error": [0.5, 0.0]})
    >>> [ax.get_ylabel() for ax in gl.figures.lags(frame).axes]
    ['share of the gradient', 'cos($G_k$, $g$)', '‖$g - G_k$‖ / ‖$g$‖']
    """
    need(frame, ["lag", "share", "cosine", "error"])
    hue = "name" if "name" in frame else None
    labels = {
        "share": "share of the gradient",
        "cosine": "cos($G_k$, $g$)",
        "error": "‖$g - G_k$‖ / ‖$g$‖",
    }
    with rc_context(STYLE):
        fig, axes = grid(1, 3, height=2.2)
        for ax, (column, label) in zip(axes[0], labels.items(), strict=True):
            draw_lines(ax, frame, "lag", column, hue)
            ax.set(xlabel=_LAG, ylabel=label)
        share, cosine, error = axes[0]
        share.axhline(0, color="0.6", lw=0.6, zorder=0)
        cosine.axhline(1, color="0.6", lw=0.6, zorder=0)
        error.axhline(tolerance, color="0.3", ls=PREDICTED, lw=0.8)
        if hue:
            fig.legend(handles=share.get_lines()[: frame["name"].nunique()],
                       loc="outside upper right", ncols=4, **LEFT)  # fmt: skip
    return fig


def memory(frame: pd.DataFrame) -> Figure:
    """What the state tells of an input k steps ago: Fisher memory curve and memory capacity.

    Args:
        frame: a row per lag and network: `lag`, `name`, `log_fisher` in nats, `capacity`; a column
            may be NaN where it was not measured; further rows of one name are its seeds. From
            `gl.spectrum.log_fisher_memory` and `gl.spectrum.memory_capacity`.

    Returns:
        The figure: on the left ln J(k), on the right m(k).

    Raises:
        ValueError: for a frame without rows, or that lacks a column.

    >>> import gradlab as gl
    >>> frame = pd.DataFrame({"lag": [0, 1], "name": "W", "log_fisher": [0.0, -1.0],
    ...                       "capacity": [1.0, 0.9]})
    >>> [ax.get_ylabel() for ax in gl.figures.memory(frame).axes]
    ['ln of the Fisher information $J(k)$ (nats)', 'capacity $m(k)$ (dimensionless)']
    """
    need(frame, ["lag", "name", "log_fisher", "capacity"])
    colours = colours_of(list(dict.fromkeys(frame["name"])))
    with rc_context(STYLE):
        fig, axes = grid(1, 2, height=2.3)
        labels = ("ln of the Fisher information $J(k)$ (nats)", "capacity $m(k)$ (dimensionless)")
        for ax, column, label in zip(axes[0], ("log_fisher", "capacity"), labels, strict=True):
            # A quantity without any number was not measured: do not count it as missing seeds.
            exists = frame.groupby("name")[column].transform("count") > 0
            rows = frame[exists]
            if len(rows):
                draw_lines(ax, rows, "lag", column, "name", colours=colours)
                ax.legend()
            missing = [name for name in colours if name not in set(rows["name"])]
            note(ax, [f"not measured: {', '.join(missing)}"] if missing else [])
            ax.set(xlabel=_LAG, ylabel=label)
    return fig
