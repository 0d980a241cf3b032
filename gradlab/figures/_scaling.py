"""Figures of curvature, depth and width."""

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from gradlab import frames
from gradlab.figures._lags import draw_map
from gradlab.figures._lines import colours_of, draw_lines, need
from gradlab.figures._style import (
    LABELS,
    PREDICTED,
    STYLE,
    grid,
    name_tasks,
    order,
    point_of,
    product,
    with_variants,
)


def curvature(
    eigenvalues: pd.DataFrame,
    *,
    rates: pd.DataFrame | None = None,
    blocks: pd.DataFrame | None = None,
    stable: float | None = None,
) -> Figure:
    """The largest eigenvalues of the Hessian over training, and what Adam makes of the curvature.

    Args:
        eigenvalues: a row per training step and eigenvalue: `training_step`, `index` (1 for the
            largest), `eigenvalue`; further rows are seeds. From the recorder `hessian_eigenvalues`.
        rates: a second panel, a row per training step and leaf: `training_step`, `leaf`, `rate`;
            several rows of one leaf are its entries. From `gl.training.effective_rates`.
        blocks: a third panel, a row per block of the Hessian: `row` and `column`, names of leaves;
            `log_norm`, ln of its norm. From `gl.spectrum.hessian`.
        stable: the largest curvature at which plain gradient descent is stable, 2 over its learning
            rate, dashed.

    Returns:
        The figure: medians with the range of seeds or entries.

    Raises:
        ValueError: for a frame without rows, or that lacks a column.

    >>> import gradlab as gl
    >>> frame = pd.DataFrame({"training_step": [0, 10], "index": 1, "eigenvalue": [1.0, 3.0]})
    >>> gl.figures.curvature(frame, stable=4.0).axes[0].lines[0].get_ydata().tolist()
    [1.0, 3.0]
    """
    need(eigenvalues, ["training_step", "index", "eigenvalue"])
    count = 1 + (rates is not None) + (blocks is not None)
    with rc_context(STYLE):
        fig, axes = grid(1, count, height=2.3, width=(4.2, 7.0, 8.6)[count - 1])
        panels = iter(axes[0])
        ax = next(panels)
        rows = eigenvalues.sort_values("index")
        draw_lines(ax, rows, "training_step", "eigenvalue", "index", label="$i$ = {:g}")
        if stable is not None:
            ax.axhline(stable, color="0.2", ls=PREDICTED, lw=0.8, label="2 / learning rate")
        ax.set(xlabel=LABELS["update"], ylabel="eigenvalue $i$ of the Hessian")
        ax.legend()
        if rates is not None:
            need(rates, ["training_step", "leaf", "rate"])
            ax = next(panels)
            draw_lines(ax, rates, "training_step", "rate", "leaf")
            ax.set(xlabel=LABELS["update"], ylabel="effective learning rate", yscale="log")
            # Above: the bands of entries fill the panel.
            ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
        if blocks is not None:
            need(blocks, ["row", "column", "log_norm"])
            ax = next(panels)
            names = list(dict.fromkeys(blocks["row"]))
            table = blocks.pivot(index="row", columns="column", values="log_norm")
            table = table.reindex(index=names, columns=names).set_axis(range(len(names)))
            table = table.set_axis(range(len(names)), axis=1)
            draw_map(fig, ax, table, "ln of the block's norm")
            ax.set_xticks(range(len(names)), names, rotation=90)
            ax.set_yticks(range(len(names)), names)
            ax.invert_yaxis()
    return fig


def depth(frame: pd.DataFrame) -> Figure:
    """Gradients layer by layer, with what theory says of them.

    Args:
        frame: a row per layer, quantity and variant: `layer`; `quantity`, such as "ln‖λ‖ (nats)",
            a panel each; `name` of the variant; `value`, and `predicted`, NaN without a theory;
            further rows of one name are its seeds. From `gl.trace` of layers under a scan and
            `gl.meanfield.layers`.

    Returns:
        The figure: medians with the range of seeds, theory dotted.

    Raises:
        ValueError: for a frame without rows, or that lacks a column.

    >>> import gradlab as gl
    >>> frame = pd.DataFrame({"layer": [1, 2], "quantity": "ln‖λ‖ (nats)", "name": "g = 1"})
    >>> frame = frame.assign(value=[-1.0, 0.0], predicted=[-0.9, 0.0])
    >>> [line.get_ydata().tolist() for line in gl.figures.depth(frame).axes[0].lines[:2]]
    [[-1.0, 0.0], [-0.9, 0.0]]
    """
    need(frame, ["layer", "quantity", "name", "value", "predicted"])
    quantities = list(dict.fromkeys(frame["quantity"]))
    colours = colours_of(list(dict.fromkeys(frame["name"])))
    with rc_context(STYLE):
        fig, axes = grid(1, len(quantities), height=2.3)
        for ax, quantity in zip(axes[0], quantities, strict=True):
            rows = frame[frame["quantity"] == quantity]
            draw_lines(ax, rows, "layer", "value", "name", colours=colours)
            for name, colour in colours.items():
                theory = rows[rows["name"] == name].groupby("layer")["predicted"].mean()
                if theory.notna().any():
                    ax.plot(theory.index, theory, color=colour, ls=PREDICTED, lw=1.6)
            ax.set(xlabel="layer $l$", ylabel=quantity)
        axes[0, 0].plot([], [], color="0.2", ls=PREDICTED, label="theory")
        axes[0, 0].legend()
    return fig


def width(frame: pd.DataFrame | frames.TrainingResults) -> Figure:
    """Coordinate check: sizes per coordinate against width, before and during training.

    Where a parametrization lets a network of any width learn alike, the lines are level.

    Args:
        frame: what a sweep with `measurement = "coordinates"` left, or a row per width, training
            step, quantity and seed: `hidden`, `training_step`, `quantity`, such as "state", a panel
            each; `log_size`, ln of the root mean square of its coordinates, in nats; where there
            are several networks, `name`, a row of panels each. From `gl.training.coordinate_check`.

    Returns:
        The figure: medians with the range of seeds, a colour for each training step; an exact zero
        leaves a gap.

    Raises:
        ValueError: for a frame without rows, or that lacks a column.

    >>> import gradlab as gl
    >>> frame = pd.DataFrame({"hidden": [8, 16], "training_step": 0, "quantity": "state"})
    >>> gl.figures.width(frame.assign(log_size=[-0.5, -0.6])).axes[0].get_ylabel()
    'ln of the size of a coordinate of\\nstate (nats)'
    """
    if isinstance(frame, frames.TrainingResults):
        frame = name_tasks(size_table(frame.runs, frame.curves, frame.steps), "name")
    need(frame, ["hidden", "training_step", "quantity", "log_size"])
    frame = frame if "name" in frame else frame.assign(name="")
    names, quantities = order(frame["name"]), order(frame["quantity"])
    colours = colours_of(sorted(frame["training_step"].unique()))
    with rc_context(STYLE):
        fig, axes = grid(len(names), len(quantities), height=2.3)
        for (i, name), (j, quantity) in product(names, quantities):
            ax = axes[i, j]
            rows = frame[(frame["quantity"] == quantity) & (frame["name"] == name)]
            draw_lines(ax, rows.sort_values("training_step"), "hidden", "log_size", "training_step",
                       markers=True, colours=colours, label="after {:g} updates")  # fmt: skip
            ax.set_xscale("log", base=2)
            widths = sorted(rows["hidden"].unique())
            ax.set_xticks(widths, [f"{n:g}" for n in widths])
            label = f"ln of the size of a coordinate of\n{quantity} (nats)"
            ax.set(xlabel=LABELS["hidden"], ylabel=label)
        for ax, name in zip(axes[:, 0], names, strict=True):
            ax.set_title(name, loc="left")
        handles, _ = axes[0, 0].get_legend_handles_labels()
        fig.legend(handles=handles, loc="outside right upper")
    return fig


def size_table(runs: pd.DataFrame, curves: pd.DataFrame, steps: pd.DataFrame) -> pd.DataFrame:
    """The frames of a sweep of coordinates as `width` takes them, with the runs' task.

    The adjoint is that of step 1. Rows are of the updates 0, 1, 2, 4, ... and the last. A run that
    failed has NaN.
    """
    axes = point_of(runs, frames.COORDINATES)
    runs = with_variants(runs, [name for name in axes if name not in ("cell", "hidden")])
    is_first = steps["lag"] == steps.groupby("run_id")["lag"].transform("max")
    first = steps.loc[is_first, ["run_id", "training_step", "log_adjoint"]]
    sizes = curves.merge(first, on=["run_id", "training_step"])
    keys = ["run_id", "task", "variant", "hidden"]
    table = runs[[*keys, "updates"]].merge(sizes, "left", "run_id")
    step = table["training_step"].fillna(0).astype("int64")
    table = table.assign(training_step=step)[
        ((step & (step - 1)) == 0) | (step == table["updates"])
    ]
    quantities = {
        "log_state": "the state",
        "log_update": "the state's update",
        "log_adjoint": "the first adjoint",
    }
    table = table.rename(columns={"variant": "name", **quantities})
    keys = ["run_id", "task", "name", "hidden", "training_step"]
    return table.melt(keys, list(quantities.values()), "quantity", "log_size")
