"""Forecasts of the next K values: by a cell, and by three rules that need no network."""

import numpy as np
from jaxtyping import Float

from gradlab import cells
from gradlab.tasks import Network, network

Windows = Float[np.ndarray, "m length"]
Forecast = Float[np.ndarray, "m horizon"]


def make(cell: str, hidden: int, horizon: int) -> Network:
    """A cell that reads the last T values, and after the last of them gives K differences.

    With z the standardized series and x_t = z_{k+t} for t = 1..T, the output y_j, j = 1..K, is the
    forecast of z_{k+T+j} - z_{k+T}: what changes, so that a network that gives 0 is persistence.

    Args:
        cell: a name of `gradlab.cells`.
        hidden: its width.
        horizon: K.

    >>> import jax
    >>> net = make("gru", hidden=4, horizon=24)
    >>> params = net.init(jax.random.key(0))
    >>> net.apply(params, np.zeros((48, 1))).shape
    (24,)
    """
    return network(cells.make(cell, inputs=1, hidden=hidden), horizon)


def persistence(past: Windows, horizon: int) -> Forecast:
    """Nothing changes: z_{t+j} = z_t.

    >>> persistence(np.array([[1.0, 2.0]]), 3).tolist()
    [[2.0, 2.0, 2.0]]
    """
    return np.repeat(past[:, -1:], horizon, axis=1)


def seasonal(past: Windows, horizon: int, period: int) -> Forecast:
    """What was at the same place of the last whole period.

    >>> seasonal(np.array([[1.0, 2.0, 3.0]]), 3, period=2).tolist()
    [[2.0, 3.0, 2.0]]

    Source: Hyndman & Athanasopoulos, "Forecasting: principles and practice" (2021), section 5.2.
    """
    places = past.shape[1] - period + np.arange(horizon) % period
    return past[:, places]


def fit_linear(past: Windows, future: Forecast) -> Float[np.ndarray, "length+1 horizon"]:
    """The linear autoregression of each horizon on all T values and 1, by least squares.

    Of several solutions, it is the one of least norm.

    >>> fit_linear(np.array([[0.0], [1.0], [2.0]]), np.array([[1.0], [3.0], [5.0]])).round(6)
    array([[2.],
           [1.]])
    """
    return np.linalg.lstsq(_with_one(past), future, rcond=None)[0]


def linear(past: Windows, weights: Float[np.ndarray, "length+1 horizon"]) -> Forecast:
    """What `fit_linear`'s weights forecast."""
    return _with_one(past) @ weights


def _with_one(past: Windows) -> np.ndarray:
    return np.column_stack([past, np.ones(len(past))])
