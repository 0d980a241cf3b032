"""What a network remembers, forgets and learns from while it reads one sequence."""

# seaborn's and matplotlib's annotations are narrower than what they take.

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib import font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from gradlab.figures._style import DIVERGING, LABELS, STYLE, grid, headline, mark

_BAD = "0.75"
# 7 pt text needs 0.1 in of the 5.6 in that the panels have.
_NAMES = 52
_LETTERS = 16
# Above this many steps, a marker per step is a thick line.
_POINTS = 60
_HEIGHTS = {"states": 1.7, "gate": 0.6, "readout": 0.75, "log_norm": 0.95}


def reading(
    tokens: Sequence[str] | None,
    states: ArrayLike,
    gates: Mapping[str, ArrayLike],
    log_norm: ArrayLike,
    readout: ArrayLike | None = None,
    title: str | None = None,
    *,
    readout_label: str = "readout",
) -> Figure:
    """What a network remembers, forgets and learns from in one sequence, token by token.

    Panels over the steps t = 1..T, from above: the hidden state as a heat map; each gate, the mean
    over its units as a line and the range from the 10th to the 90th percentile of the units as a
    band; the readout, if there is one; ln‖λ_t‖, how much the loss depends on the state after each
    token. Of more than 52 tokens every k-th is named, the last one always.

    The units stand in the order in which they act: by the step at which |h| is largest, the first
    of these where there are several, from the top down.

    Args:
        tokens: what is read, T texts; None for the numbers of the steps.
        states: h_1..h_T, (T, H), real. The colours saturate beyond the 99th percentile of |h|.
        gates: name -> (T, H), as `cell.gate_values` mapped over the steps gives them; {} for a cell
            without gates. The names are shown as they are, in this order.
        log_norm: ln‖λ_t‖ in nats, (T,): a scan's `log_norm` of `gradlab.trace`.
        readout: a number for each state, (T,), such as the probability after each word. Where all
            are between 0 and 1 the panel shows this range, and a line at 1/2.
        title: above the figure.
        readout_label: what the readout is.

    Returns:
        The figure, for `figures.save`. What is NaN or infinite is grey in the heat map and a gap in
        a line; one such unit is enough for a gap in its gate. Of the adjoint, an exact zero, -inf,
        is ▽ at the foot of its panel, and NaN is × there.

    Raises:
        ValueError: for no steps, parts of unequal length, a wrong number of axes, or complex
            states, of which the figure needs what `cell.read` gives.

    Any traced model gives the arrays; here a GRU that sums up its last state:

    >>> import jax
    >>> import jax.numpy as jnp
    >>> import gradlab as gl
    >>> cell, xs = gl.cells.make("gru", inputs=2, hidden=4), jnp.ones((5, 2))
    >>> params = cell.init(jax.random.key(0))
    >>> def loss(params):
    ...     def body(h, x):
    ...         new = cell.step(params, h, x)
    ...         return new, (new, cell.gate_values(params, h, x))
    ...     last, seen = jax.lax.scan(body, cell.start(), xs)
    ...     return last.sum(), seen
    >>> out = gl.trace(loss, has_aux=True)(params)
    >>> states, gates = out.aux
    >>> fig = reading("it was not bad .".split(), states, gates, out.scans[0].log_norm)
    >>> len(fig.axes)
    4
    """
    h = _states(states)
    steps = len(h)
    names = _tokens(tokens, steps)
    values = {name: _fit(f"gate {name!r}", gate, steps, 2) for name, gate in gates.items()}
    adjoint = _fit("log_norm", log_norm, steps, 1)
    output = None if readout is None else _fit("readout", readout, steps, 1)
    kinds = ["states", *["gate"] * len(values), *["readout"] * (output is not None), "log_norm"]
    heights = [_HEIGHTS[kind] for kind in kinds]
    with rc_context(STYLE):
        fig, axes = grid(
            len(kinds),
            1,
            height=sum(heights) / len(kinds),
            margin=0.5 if names is None else 1.0,
            sharex=True,
        )
        panels = list(axes[:, 0])
        panels[0].get_gridspec().set_height_ratios(heights)
        _heat_map(panels[0], h)
        _gates(panels[1 : 1 + len(values)], values)
        if output is not None:
            _readout(panels[-2], output, readout_label)
        _adjoint(panels[-1], adjoint)
        _name_steps(panels[-1], names, steps)
        fig.align_ylabels(panels)
        headline(fig, title)
    return fig


def _states(states: ArrayLike) -> np.ndarray:
    h = np.asarray(states)
    if np.iscomplexobj(h):
        raise ValueError("reading needs real states: give it what cell.read makes of them")
    if h.ndim != 2 or 0 in h.shape:
        raise ValueError(f"reading needs states of shape (T, H), none of them 0, got {h.shape}")
    return h.astype(np.float64)


def _tokens(tokens: Sequence[str] | None, steps: int) -> list[str] | None:
    if tokens is None:
        return None
    if isinstance(tokens, str):
        raise ValueError("reading needs a list of tokens, got one text: split it")
    if len(tokens) != steps:
        raise ValueError(f"reading needs {steps} tokens, one a state, got {len(tokens)}")
    return [drawable(str(token)) for token in tokens]


def drawable(token: str) -> str:
    """The token in letters that the font has, cut where it is long."""
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    charmap = font.get_charmap()
    text = "".join(letter if ord(letter) in charmap else "□" for letter in token)
    return text if len(text) <= _LETTERS else text[: _LETTERS - 1] + "…"


def _fit(what: str, values: ArrayLike, steps: int, ndim: int) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if array.ndim != ndim or len(array) != steps or 0 in array.shape:
        shape = f"({steps}, H)" if ndim == 2 else f"({steps},)"
        raise ValueError(
            f"reading needs {what} of shape {shape}, as many as states; got {array.shape}"
        )
    return array


def acting_order(states: np.ndarray) -> np.ndarray:
    """The units by the step at which |h| is largest; those without a finite state are last.

    >>> acting_order(np.array([[0.0, 0.9, 0.1], [0.1, 0.2, -0.8], [0.5, 0.3, 0.1]])).tolist()
    [1, 2, 0]
    """
    size = np.where(np.isfinite(states), np.abs(states), -1.0)
    peak = np.where(size.max(0) < 0, len(states), size.argmax(0))
    return np.argsort(peak, kind="stable")


def _heat_map(ax: Axes, h: np.ndarray) -> None:
    steps, units = h.shape
    finite = np.abs(h[np.isfinite(h)])
    bound = float(np.quantile(finite, 0.99)) if finite.size else 0.0
    bound = bound or 1.0
    colours = sns.color_palette(DIVERGING, as_cmap=True).with_extremes(bad=_BAD)
    image = np.ma.masked_invalid(h[:, acting_order(h)].T)
    x, y = np.arange(steps + 1) + 0.5, np.arange(units + 1) + 0.5
    mesh = ax.pcolormesh(x, y, image, cmap=colours, vmin=-bound, vmax=bound, rasterized=True)
    ax.set_ylim(units + 0.5, 0.5)
    ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.set_ylabel("hidden units by when\n$|h|$ is largest (first on top)")
    # An inset keeps the panel as wide as those below it.
    bar = ax.inset_axes((1.015, 0, 0.02, 1))
    beyond = "both" if finite.size and finite.max() > bound else "neither"
    ax.figure.colorbar(mesh, cax=bar, extend=beyond, label="$h_t$ (dimensionless)")


def _gates(panels: Sequence[Axes], gates: Mapping[str, np.ndarray]) -> None:
    palette = sns.color_palette("colorblind", len(gates))
    for ax, (name, values), colour in zip(panels, gates.items(), palette, strict=True):
        whole = np.where(np.isfinite(values).all(1, keepdims=True), values, np.nan)
        t = np.arange(1, len(whole) + 1)
        low, high = np.quantile(whole, (0.1, 0.9), axis=1)
        ax.fill_between(t, low, high, color=colour, alpha=0.25, lw=0)
        ax.plot(t, whole.mean(1), color=colour, **_points(len(t)))
        finite = values[np.isfinite(values)]
        # A gate is a share, but for exponential ones, which have no bound.
        if not finite.size or (0 <= finite.min() and finite.max() <= 1):
            ax.set_ylim(0, 1)
            ax.set_yticks([0, 0.5, 1])
        ax.set_ylabel(textwrap.fill(f"gate {name}", 9))
    if gates:
        handles = [
            Line2D([], [], color="0.3", label="mean of units"),
            Patch(color="0.3", alpha=0.25, lw=0, label="10 to 90 %\nof units"),
        ]
        _legend(panels[0], handles=handles)


def _readout(ax: Axes, values: np.ndarray, label: str) -> None:
    curve = np.where(np.isfinite(values), values, np.nan)
    t = np.arange(1, len(values) + 1)
    finite = values[np.isfinite(values)]
    if finite.size and 0 <= finite.min() and finite.max() <= 1:
        ax.set_ylim(-0.08, 1.08)
        ax.axhline(0.5, color="0.6", lw=0.6, zorder=0)
    ax.plot(t, curve, color="0.15", **_points(len(t)))
    ax.set_ylabel(label)


def _adjoint(ax: Axes, log_norm: np.ndarray) -> None:
    t = np.arange(1, len(log_norm) + 1)
    finite = np.isfinite(log_norm)
    ax.plot(t, np.where(finite, log_norm, np.nan), color="C3", **_points(len(t)))
    zero = np.isneginf(log_norm)
    foot = ax.get_ylim()[0]
    for status, there, label in (
        ("zero", zero, "exactly zero"),
        ("nonfinite", ~finite & ~zero, "not finite"),
    ):
        if there.any():
            ax.plot(t[there], np.full(there.sum(), foot), color="C3", label=label, **mark(status))
    ax.set_ylim(bottom=foot)
    ax.yaxis.set_major_locator(MaxNLocator(4))
    if not finite.any():
        ax.set_yticks([])  # there is no number to tell
    ax.set_ylabel("adjoint\n" + LABELS["log_norm"])
    if not finite.all():
        _legend(ax)


def _points(steps: int) -> dict[str, Any]:
    return {"marker": "o", "ms": 2.2} if steps <= _POINTS else {"lw": 0.8}


def _legend(ax: Axes, **options: Any) -> None:
    """Beside the panel: nothing in it is free for sure."""
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), handlelength=1.2, borderaxespad=0, **options)


def _name_steps(ax: Axes, names: list[str] | None, steps: int) -> None:
    ax.set_xlim(0.5, steps + 0.5)
    if names is None:
        ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        ax.set_xlabel("step $t$")
        return
    every = -(-steps // _NAMES)
    places = np.arange(steps - 1, -1, -every)[::-1]
    # Without mathematics: a token may be a dollar sign.
    ax.set_xticks(places + 1, [names[k] for k in places], rotation=90, parse_math=False)
    more = f" (1 of {every} is named, {steps} in all)" if every > 1 else ""
    ax.set_xlabel(f"tokens in order{more}")
