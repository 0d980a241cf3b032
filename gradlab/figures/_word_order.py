"""Accuracy where only the order of words decides, against how far they stand apart."""

# seaborn's and matplotlib's annotations are narrower than what they take.

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rc_context
from matplotlib.figure import Figure

from gradlab.figures._style import MARKERS, STYLE, grid


def word_order(frame: pd.DataFrame) -> Figure:
    """Accuracy on `word_order` after training, and how far the gradient reached before it.

    Left: the mean accuracy over seeds, a point for each seed, against the distance between the two
    words. Right: ln(‖λ_{T-d}‖ / ‖λ_T‖) before training, in nats, for the models that have a state;
    below the dashed line float32 loses what comes back beside what is near.

    Args:
        frame: a row per run: `model`, `distance` in steps, `seed`, `accuracy`, and `reach`, the
            relative log norm, NaN for a model without a state.

    >>> import gradlab as gl
    >>> rows = {"model": ["gru"] * 2, "distance": [1, 8], "seed": [0, 0]}
    >>> frame = pd.DataFrame(rows | {"accuracy": [1.0, 0.5], "reach": [0.0, -9.0]})
    >>> figure = gl.figures.word_order(frame)
    >>> [ax.get_ylabel() for ax in figure.axes]
    ['accuracy', 'ln(|λ$_{T-d}$| / |λ$_T$|) before training (nats)']
    """
    models = list(dict.fromkeys(frame["model"]))
    colours = dict(zip(models, sns.color_palette("colorblind"), strict=False))
    with rc_context(STYLE):
        fig, axes = grid(1, 2, height=2.6)
        for marker, (model, rows) in zip(MARKERS, frame.groupby("model", sort=False), strict=False):
            for ax, column in zip(axes[0], ("accuracy", "reach"), strict=True):
                points = rows.dropna(subset=[column])
                distances = np.unique(points["distance"])
                means = [points.loc[points["distance"] == d, column].mean() for d in distances]
                colour = colours[model]
                ax.plot(distances, means, color=colour, marker=marker, ms=4, label=model)
                ax.scatter(points["distance"], points[column], color=colour, s=4, alpha=0.6)
        distances = np.unique(frame["distance"])
        for ax in axes[0]:
            ax.set_xscale("log", base=2)
            ax.set_xticks(distances, [f"{d:g}" for d in distances])
            ax.set_xlabel("distance d between the two words (steps)")
        accuracy, reach = axes[0]
        accuracy.axhline(0.5, color="0.5", lw=0.8, ls=":")
        accuracy.annotate("chance", (distances[0], 0.5), (0, -8), textcoords="offset points",
                          color="0.35")  # fmt: skip
        accuracy.set(ylabel="accuracy", ylim=(0.44, 1.03))
        reach.axhline(
            np.log(np.finfo(np.float32).eps),
            color="0.3",
            lw=0.8,
            ls="--",
            label="float32's epsilon",
        )
        reach.set_ylabel("ln(|λ$_{T-d}$| / |λ$_T$|) before training (nats)")
        reach.legend()
    return fig
