"""How far each column of a summary may lie from that of the same spec measured elsewhere.

Two machines round float32 differently. What is counted, named or computed in float64 is the same
all the same. What is measured moves by the roundings of one step, and by those of earlier steps as
far as the network amplifies them: past e^16 nothing is left of a state but its statistics, and a
rate is that of another stretch of the same process. A rule takes the points and gives a bound for
each: `bound = rounding + min(amplification, sampling_error)`. No bound was fitted to a measured
difference.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

Rule = Callable[[pd.DataFrame], np.ndarray]

# A few roundings of float32 in each sum.
ROUNDINGS = 8 * 2.0**-23
# Standard errors: a summary has some ten thousand entries, of which none is to leave its bound by
# chance (6 errors: two in a thousand million).
DEVIATIONS = 6.0
# ln of the ratio of norms that ends a run's horizon, 1 / eps of float32.
HORIZON = 23 * np.log(2)


def exact(points: pd.DataFrame) -> np.ndarray:
    """Counts, names, and shares of what is decided before anything is rounded."""
    return np.zeros(len(points))


def unknown(points: pd.DataFrame) -> np.ndarray:
    """No bound is derived: two trainings on two machines part."""
    return np.full(len(points), np.inf)


def predicted(points: pd.DataFrame) -> np.ndarray:
    """Theory in float64: 1e-16, through fixed points that amplify by up to 1 / (1 - χ) ~ 1e6."""
    return np.full(len(points), 1e-9)


def _unit(points: pd.DataFrame) -> np.ndarray:
    """The relative rounding of a product with a vector: `hidden` terms, whose errors add up as
    the steps of a random walk do."""
    return ROUNDINGS * np.sqrt(points["hidden"].to_numpy(float))


def _rate(points: pd.DataFrame, errors: float | np.ndarray) -> np.ndarray:
    """The bound on a statistic of rates: that of one run, and `errors` where it is drawn anew.

    A step's log-norm is rounded by `_unit`, and so is the rate, a mean over steps. A rounding of
    the state is amplified as the adjoint is, by at most e^(T·rate): with T of them the rate moves
    by less than T·unit·e^(T·rate). It never moves by more than two independent stretches differ,
    √2 standard errors.
    """
    unit, length = _unit(points), points["length"].to_numpy(float)
    growth = np.clip(length * points["rate_max"].to_numpy(float), 0, 50)
    amplification = unit * length * np.exp(np.nan_to_num(growth))
    sampling_error = DEVIATIONS * np.sqrt(2) * errors * points["rate_stderr_max"].to_numpy(float)
    return unit + np.fmin(amplification, sampling_error)


def extreme_rate(points: pd.DataFrame) -> np.ndarray:
    """The least, the largest and the spread of rates: the bound of one run, at most."""
    return _rate(points, 1.0)


def mean_rate(points: pd.DataFrame) -> np.ndarray:
    """The mean of n rates, whose error is that of one by √n."""
    return _rate(points, 1 / np.sqrt(np.maximum(points["rate_runs"].to_numpy(float), 1)))


def median_rate(points: pd.DataFrame) -> np.ndarray:
    """The median of n rates: √(π/2) times the error of the mean, for normal ones."""
    return _rate(points, np.sqrt(np.pi / 2 / np.maximum(points["rate_runs"].to_numpy(float), 1)))


def stderr(points: pd.DataFrame) -> np.ndarray:
    """A standard error of correlated increments has few degrees of freedom: drawn anew it is
    another one of its size. What is rounded moves it as it moves the rate."""
    return np.fmin(_rate(points, 1.0), _unit(points) + points["rate_stderr_max"].to_numpy(float))


def disagreement(points: pd.DataFrame) -> np.ndarray:
    """That of a fraction whose numerator is the mean rate and whose denominator is sd / √n.

    Where the spread between seeds is no larger than its own bound, the fraction has no bound.
    """
    spread, change = points["rate_sd"].to_numpy(float), extreme_rate(points)
    roots = np.sqrt(points["rate_runs"].to_numpy(float))
    numerator = roots * (mean_rate(points) + predicted(points))
    denominator = np.where(spread > change, spread - change, np.nan)
    bound = (numerator + np.abs(points["disagreement"].to_numpy(float)) * change) / denominator
    return np.nan_to_num(bound, nan=np.inf)


def log_gain(points: pd.DataFrame) -> np.ndarray:
    """A sum over T steps: T times the bound of the rate, which is one of their means."""
    return points["length"].to_numpy(float) * median_rate(points)


def _in_reach(points: pd.DataFrame) -> np.ndarray:
    """Where some run may pass e^±16 on one machine and not on another: its log-norm moves by more
    than a twentieth of a nat, and it comes as near to the border as it moves."""
    length = points["length"].to_numpy(float)
    change = length * extreme_rate(points)
    low, high = (length * points[f"rate_{end}"].to_numpy(float) for end in ("min", "max"))
    # The rate leaves out a tenth of the steps at either end: e^16 may be reached on the way.
    low, high = low - change - HORIZON / 4, high + change + HORIZON / 4
    near = ((low < border) & (border < high) for border in (-HORIZON, HORIZON))
    return (change > 0.05) & np.logical_or(*near)


def share(points: pd.DataFrame) -> np.ndarray:
    """Shares by verdict: a run that comes near the border of a verdict may get another one.

    Where each of five seeds has even odds, two draws differ by more than three in 2 % of the
    points, and such points are some tens of a thousand.
    """
    return np.where(_in_reach(points), 3 / 5, 0.0)


def horizon(points: pd.DataFrame) -> np.ndarray:
    """The lag at which a log-norm passes the border: what the norm moves by, over its slope.

    A norm that passes close to a whole lag may pass one lag later.
    """
    length = points["length"].to_numpy(float)
    slope = np.maximum(np.abs(points["rate_median"].to_numpy(float)), 1 / length)
    lags = np.ceil(length * median_rate(points) / slope)
    return np.where(_in_reach(points), length, np.minimum(np.maximum(lags, 1), length))


def matrix(points: pd.DataFrame) -> np.ndarray:
    """Singular values and norms of the weights: by Weyl's theorem they move by no more than the
    norm of what the weights are rounded by."""
    return _unit(points) * (1 + points["largest_singular_value"].to_numpy(float))


def relative_matrix(points: pd.DataFrame) -> np.ndarray:
    """What is a ratio to a norm of the weights."""
    return _unit(points) * (1 + points["orthogonality_error"].to_numpy(float))


def eigenvalue(points: pd.DataFrame) -> np.ndarray:
    """Eigenvalues move by more than singular values: the eigenvectors' condition, about √n."""
    return matrix(points) * np.sqrt(points["hidden"].to_numpy(float))


def log_condition(points: pd.DataFrame) -> np.ndarray:
    """log10 of the ratio of the largest to the smallest singular value, both moved."""
    condition = 10.0 ** np.minimum(points["log10_condition"].to_numpy(float), 300)
    return _unit(points) * (1 + condition) / np.log(10)


def time_constants(name: str) -> Rule:
    """-1 / ln f of a retention f that float32 rounds: the error grows with the constant."""

    def rule(points: pd.DataFrame) -> np.ndarray:
        constant = np.nan_to_num(points[name].to_numpy(float), posinf=0.0)
        return ROUNDINGS * constant * (1 + constant)

    return rule
