"""One neuron, and why its gradient vanishes over many steps."""

# seaborn's and matplotlib's annotations are narrower than what they take.

from collections.abc import Callable, Sequence

import numpy as np
import seaborn as sns
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab.figures._style import DECADES, STYLE, grid, headline

_Curve = Callable[[np.ndarray], np.ndarray]


def _logistic(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


_ACTIVATIONS: dict[str, tuple[_Curve, _Curve]] = {
    "tanh": (np.tanh, lambda z: 1 / np.cosh(z) ** 2),
    "logistic": (_logistic, lambda z: _logistic(z) * _logistic(-z)),
    "relu": (lambda z: np.maximum(z, 0), lambda z: np.where(z > 0, 1.0, 0.0)),
}
_DASHES = ("-", "--", ":", "-.")


def neuron(
    weight: float = 1.0,
    activations: Sequence[str] = ("tanh", "logistic", "relu"),
    steps: Sequence[int] = (1, 10, 100),
) -> Figure:
    """What a neuron computes, the slope of it, and the product of the slopes over many steps.

    A neuron is h = φ(z) with the weighted sum z = Σ_i w_i x_i + b, and its slope is φ'(z). One that
    hears itself, h_t = φ(w h_{t-1} + x_t), passes a gradient back over n steps by

        ∂h_{t+n} / ∂h_t = Π_k w φ'(z_{t+k}),

    drawn here for a sum that stays at z: (w φ'(z))^n. Below 1 it vanishes and above 1 it explodes,
    exponentially in n. Panels from the left: φ(z); φ'(z); |w φ'(z)|^n on a scale of powers of ten,
    with the smallest normal number of float32. What is below its axis, as logistic over 100 steps
    (10^-60 at most) or an exact zero (relu at z < 0), is not drawn.

    Args:
        weight: w, of the neuron to itself.
        activations: which φ: of tanh, logistic, relu.
        steps: the numbers n of steps.

    Raises:
        ValueError: for an unknown activation, a weight that is not finite, more than four n, or one
            that is no whole number from 1.

    >>> import gradlab as gl
    >>> [ax.get_ylabel() for ax in gl.figures.neuron().axes]
    ['output φ(z)', "slope φ'(z)", "|w φ'(z)|ⁿ over n steps"]

    References:
        Bengio, Simard and Frasconi (1994), "Learning long-term dependencies with gradient descent
        is difficult", section III, for one neuron that hears itself.
    """
    unknown = [name for name in activations if name not in _ACTIVATIONS]
    if unknown or not activations:
        raise ValueError(f"unknown activation {unknown}; choose from {', '.join(_ACTIVATIONS)}")
    if np.iscomplexobj(weight) or not np.isfinite(weight) or weight == 0:
        raise ValueError(f"weight={weight}: a finite number other than 0 is needed")
    is_whole = all(n == int(n) and n >= 1 for n in steps)
    if not 1 <= len(steps) <= len(_DASHES) or not is_whole:
        raise ValueError(
            f"steps={list(steps)}: one to {len(_DASHES)} whole numbers of at least 1 are needed"
        )
    z = np.linspace(-6, 6, 601)
    colours = dict(zip(activations, sns.color_palette("colorblind"), strict=False))
    with rc_context(STYLE):
        fig, axes = grid(1, 3, height=2.6)
        value, slope, product = axes[0]
        for name in activations:
            function, derivative = _ACTIVATIONS[name]
            value.plot(z, function(z), color=colours[name], label=name)
            slope.plot(z, derivative(z), color=colours[name])
            _draw_products(product, z, np.abs(weight * derivative(z)), steps, colours[name])
        value.set(ylabel="output φ(z)", ylim=(-1.3, 2.3))
        slope.set(ylabel="slope φ'(z)", ylim=(-0.05, 1.1))
        product.set(ylabel="|w φ'(z)|ⁿ over n steps", yscale="log")
        tiny = float(np.finfo(np.float32).tiny)
        low, high = product.get_ylim()
        # Room above the curves for the legend.
        product.set_ylim(max(low, 10.0**-DECADES), max(high, 1.0) * 1e3)
        product.axhline(tiny, color="0.5", lw=0.8)
        product.annotate(
            "smallest normal float32", (0.02, tiny), (0, -8), textcoords="offset points",
            xycoords=product.get_yaxis_transform(), color="0.35", fontsize=6,
            bbox={"facecolor": "white", "alpha": 0.8, "lw": 0, "pad": 0.5},
        )  # fmt: skip
        value.legend(title="activation φ", loc="upper left")
        for n, dash in zip(steps, _DASHES, strict=False):
            product.plot([], [], color="0.3", ls=dash, label=str(n))
        product.legend(title="steps n", loc="upper right", ncols=len(steps), columnspacing=0.8)
        for ax in axes[0]:
            ax.set_xlabel("weighted sum z = Σ wᵢxᵢ + b")
        headline(fig, f"one neuron, with weight w = {weight:g} to itself")
    return fig


def _draw_products(
    ax: Axes, z: np.ndarray, factor: np.ndarray, steps: Sequence[int], colour: object
) -> None:
    for n, dash in zip(steps, _DASHES, strict=False):
        # By logarithms: the power itself may leave the float's range.
        with np.errstate(divide="ignore"):
            decades = n * np.log10(factor)
        curve = np.where(np.abs(decades) < 300, decades, np.nan)
        ax.plot(z, 10.0**curve, color=colour, ls=dash)
