"""Forecasts of a series: against the truth, against the horizon, and how far back they look."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradlab.figures._style import FLOAT32, PREDICTED, STYLE, grid

_RULES = ("persistence", "seasonal", "linear")


def weather(
    week: pd.DataFrame, errors: pd.DataFrame, reach: pd.DataFrame, unit: str, *, period: int = 24
) -> Figure:
    """Forecasts over a week with their errors, the error by horizon, and the adjoint by lag.

    Above, the truth and what was forecast some steps before; below it, forecast minus truth. Then
    the root mean squared error of each way against the horizon, with the rules that need no
    network dashed; and ln(‖λ_t‖ / ‖λ_T‖) of a forecast against the lag T - t, the median over
    windows, dotted before training. Lines mark whole periods, as days are of hours.

    Args:
        week: columns model, horizon (steps), hour (the steps from the first), truth, forecast; the
            rows of one model and up to two horizons are drawn.
        errors: columns model, horizon, rmse, in the unit of the series.
        reach: columns model, horizon, trained (a flag), lag, log_relative (nats). A panel for each
            horizon.
        unit: of the series.
        period: the steps of a period, `Series.period`; 24 where a step is an hour.

    >>> import gradlab as gl
    >>> week = pd.DataFrame({"model": "gru", "horizon": 1, "hour": [0, 1], "truth": [1.0, 2.0],
    ...                      "forecast": [1.5, 2.0]})
    >>> errors = pd.DataFrame({"model": ["gru", "linear"], "horizon": 1, "rmse": [0.5, 0.1]})
    >>> reach = pd.DataFrame({"model": "gru", "horizon": 1, "trained": [True, True],
    ...                       "lag": [0, 1], "log_relative": [0.0, -1.0]})
    >>> figure = gl.figures.weather(week, errors, reach, "°F")
    >>> [ax.get_ylabel() for ax in figure.axes][-2:]
    ['°F', 'error (°F)']
    """
    horizons = sorted(reach["horizon"].unique())
    models = list(dict.fromkeys(errors["model"]))
    cells = [model for model in models if model not in _RULES]
    colours = dict(zip(models, sns.color_palette("colorblind"), strict=False))
    with rc_context(STYLE):
        fig, axes = grid(3, 1 + len(horizons), height=1.7)
        for ax in axes[:2].ravel():
            ax.remove()
        space = axes[0, 0].get_gridspec()
        above, below = (fig.add_subplot(space[row, :]) for row in (0, 1))
        _week(above, below, week, unit, period)
        by_horizon, *panels = axes[2]
        _errors(by_horizon, errors, colours, unit)
        for ax, horizon in zip(panels, horizons, strict=True):
            _reach(ax, reach[reach["horizon"] == horizon], cells, colours, period)
            ax.set_title(f"forecast of {_steps(horizon)}", loc="left")
            ax.sharey(panels[0])
        panels[0].set_ylabel(r"$\ln\,(\|\lambda_t\| \,/\, \|\lambda_T\|)$ (nats)")
        handles = [line for line in by_horizon.get_lines() if line.get_label() in models]
        handles += [
            Line2D([], [], color="0.2", ls=":", label="before training"),
            Line2D([], [], color="0.2", label="after training"),
        ]
        # Below: in the panels nothing is free for sure.
        fig.legend(handles=handles, loc="outside lower center", ncols=len(handles))
        fig.align_ylabels([above, below, by_horizon])
    return fig


def _steps(horizon: int) -> str:
    return "1 step" if horizon == 1 else f"{horizon} steps"


def _week(above: Axes, below: Axes, week: pd.DataFrame, unit: str, period: int) -> None:
    first = next(iter(dict.fromkeys(week["model"])))
    rows = week[week["model"] == first]
    truth = rows[rows["horizon"] == rows["horizon"].iloc[0]]
    above.plot(truth["hour"], truth["truth"], color="0.2", lw=1.4, label="truth")
    for (horizon, some), colour in zip(
        rows.groupby("horizon"), sns.color_palette("deep"), strict=False
    ):
        label = f"{first}, {_steps(horizon)} before"
        above.plot(some["hour"], some["forecast"], color=colour, label=label)
        below.plot(some["hour"], some["forecast"] - some["truth"], color=colour)
    below.axhline(0, color="0.5", lw=0.6)
    above.set_ylabel(unit)
    below.set_ylabel(f"error ({unit})")
    below.set_xlabel("hours" if period == 24 else "steps")
    above.legend(loc="upper left", ncols=3)
    low, high = above.get_ylim()
    above.set_ylim(low, high + 0.22 * (high - low))
    for ax in (above, below):
        ax.set_xlim(week["hour"].min(), week["hour"].max())
        ax.set_xticks(_ticks(week["hour"].min(), week["hour"].max(), period))


def _errors(ax: Axes, errors: pd.DataFrame, colours: dict, unit: str) -> None:
    for model, rows in errors.groupby("model", sort=False):
        style = PREDICTED if model in _RULES else "-"
        line = rows.groupby("horizon")["rmse"].mean()
        ax.plot(line.index, line, color=colours[model], ls=style, label=model)
    ax.set_yscale("log")
    ax.set_xlabel("horizon (steps)")
    ax.set_ylabel(f"error ({unit})")


def _ticks(first: int, last: int, period: int) -> np.ndarray:
    """Whole periods, ten at most."""
    every = period * -(-(last - first) // (10 * period))
    return np.arange(first, last + 1, max(every, period))


def _reach(ax: Axes, rows: pd.DataFrame, cells: list[str], colours: dict, period: int) -> None:
    for cell in cells:
        for trained, some in rows[rows["model"] == cell].groupby("trained"):
            line = some.groupby("lag")["log_relative"].median()
            ax.plot(
                line.index,
                line.where(np.isfinite(line)),
                color=colours[cell],
                ls="-" if trained else ":",
            )
    longest = int(rows["lag"].max())
    ticks = _ticks(0, longest, period)
    for end in ticks[1:]:
        ax.axvline(end, color="0.7", lw=0.6, zorder=0)
    ax.set_xticks(ticks)
    ax.axhline(FLOAT32[":"][1][0] * np.log(10), color="0.4", lw=0.6, ls=":", zorder=0)
    ax.set_xlabel("lag $T - t$ (steps)")
