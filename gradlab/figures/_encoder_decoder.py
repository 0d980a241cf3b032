"""How far each step of writing depends on each step of reading."""

# seaborn's and matplotlib's annotations are narrower than what they take.

from collections.abc import Mapping, Sequence

import numpy as np
import seaborn as sns
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import ArrayLike

from gradlab.figures._reading import drawable
from gradlab.figures._style import SEQUENTIAL, STYLE, grid

# What is shown below the largest adjoint of a panel, in nats: e^-10 is 0.00005.
_RANGE = 10.0
_BAD = "0.75"

Panel = tuple[Sequence[str], Sequence[str], ArrayLike]


def encoder_decoder(panels: Mapping[str, Mapping[str, Panel]]) -> Figure:
    """The adjoint of every encoder step from every decoder step, a matrix for each network.

    Row t and column s of a panel show ln‖∂z_t/∂h_s‖ in nats below the panel's largest, which
    stands above it: what the decoder writes at step t depends so far on what the encoder had in
    mind after source piece s. Where all goes through one state the rows are alike and fade towards
    the beginning of what was read; attention opens a direct path from each t to each s.

    Args:
        panels: {row: {column: (source, target, log_norm)}}: the pieces of the source, S, and of
            the target, T, and the adjoints in nats, (T, S), as the fields of
            `gradlab.translation.adjoints`. Each row has the same columns.

    Returns:
        The figure, for `figures.save`. An exact zero, -inf, has the colour of the lower end, and
        NaN is grey.

    Raises:
        ValueError: for no panel, rows with other columns, or a matrix of another shape.

    >>> import gradlab as gl
    >>> panel = ["two", "end"], ["dois", "end"], [[0.0, -1.0], [-2.0, -3.0]]
    >>> figure = gl.figures.encoder_decoder({"before": {"plain": panel}})
    >>> figure.axes[0].get_title(loc="left")
    'plain: largest 0 nats'
    """
    rows = list(panels)
    columns = list(panels[rows[0]]) if rows else []
    if not columns or any(list(panels[row]) != columns for row in rows):
        raise ValueError("encoder_decoder needs panels, and the same columns in each row")
    with rc_context(STYLE):
        fig, axes = grid(len(rows), len(columns), height=2.5, margin=0.3)
        images = []
        for line, row in zip(axes, rows, strict=True):
            for ax, column in zip(line, columns, strict=True):
                images.append(_matrix(ax, column, *panels[row][column]))
            line[0].set_ylabel(f"{row}\nwritten, step $t$")
        for ax in axes[-1]:
            ax.set_xlabel("read, step $s$")
        bar = fig.colorbar(images[0], ax=axes, shrink=0.5, aspect=30)
        bar.set_label(r"$\ln\,\|\partial z_t / \partial h_s\|$ below the largest (nats)")
        bar.outline.set_visible(False)
    return fig


def _matrix(
    ax: Axes, name: str, source: Sequence[str], target: Sequence[str], log_norm: ArrayLike
) -> AxesImage:
    matrix = np.asarray(log_norm, float)
    if matrix.shape != (len(target), len(source)) or not matrix.size:
        raise ValueError(
            f"{name}: {len(target)} target and {len(source)} source pieces, and adjoints of shape "
            f"{matrix.shape}"
        )
    finite = matrix[np.isfinite(matrix)]
    largest = finite.max() if finite.size else np.nan
    colours = sns.color_palette(SEQUENTIAL, as_cmap=True).with_extremes(bad=_BAD)
    relative = np.where(np.isneginf(matrix), -_RANGE, matrix - largest)
    image = ax.imshow(relative, cmap=colours, vmin=-_RANGE, vmax=0, aspect="auto")
    ax.set_title(f"{name}: largest {largest:.2g} nats", loc="left")
    ax.set_xticks(range(len(source)), map(drawable, source), rotation=90, parse_math=False)
    ax.set_yticks(range(len(target)), map(drawable, target), parse_math=False)
    ax.tick_params(length=0, labelsize=6.5)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return image
