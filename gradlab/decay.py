"""Statistics of a curve of log-norms: how fast a gradient vanishes or explodes, and where.

A curve is `log_norm` of a trace, (..., T) in nats, row t-1 for step t: y_k = ln‖λ_{T-k}‖ at lag k.
With `batch_axis` a trace has (..., T, batch): there `axis=-2` says where the steps are.
"""

import math

import numpy as np

from gradlab._student import student_factor

__all__ = [
    "LOG_EPS",
    "horizon",
    "increment_weights",
    "rate",
    "verdict",
]


def __dir__() -> list[str]:
    return sorted(__all__)


LOG_EPS = math.log(np.finfo(np.float32).eps)


def increment_weights(length: int) -> tuple[slice, np.ndarray]:
    """The least-squares slope over the middle 80 % of the lags, as a weighted mean of increments.

    With y_k at lag k = 0..T-1, the slope over k = floor(T/10) .. T-1-floor(T/10), n lags in all, is

        sum_i w_i (y_{k+1} - y_k),   w_i = 6 i (n - i) / (n (n^2 - 1)),   i = 1..n-1.

    Args:
        length: T.

    Returns:
        The slice of the T lags, and w, (n - 1,), whose sum is 1; empty for n < 2.

    >>> increment_weights(5)
    (slice(0, 5, None), array([0.2, 0.3, 0.3, 0.2]))
    """
    skip = length // 10
    n = length - 2 * skip
    i = np.arange(1, n)
    weights = 6 * i * (n - i) / (n * (n**2 - 1.0)) if n > 1 else np.zeros(0)
    return slice(skip, length - skip), weights


def rate(log_norm: np.ndarray, axis: int = -1) -> tuple[np.ndarray, np.ndarray]:
    """The slope of log_norm against lag past the transients, and its standard error.

    With y_k = ln|lambda_{T-k}| at lag k, the least-squares slope over the middle 80 % of the lags,
    k = floor(T/10) .. T-1-floor(T/10): the smallest lags are left out since the adjoint has yet to
    turn into the leading directions, the largest since the state, which starts at zero, has yet to
    reach its stationary law. The slope is a weighted mean of the increments d_i = y_{i+1} - y_i,

        rate = sum_i w_i d_i,   w_i = 6 i (n - i) / (n (n^2 - 1)),   i = 1..m,  m = n - 1,

    over n lags. Log-norms are sums of increments, so their residuals about the line are a random
    walk and the textbook error of a fitted slope is far too small. The variance of the slope is
    S sum_i w_i^2 with S the increments' long-run variance, that is with all their correlations.
    S is estimated from how strongly B slow cosines are present in the increments,

        c_j = sqrt(2/m) sum_i d_i cos(pi j (i - 1/2)/m),   j = 1, 3, 4, .., B + 1,
        S = (c_1^2 + c_3^2 + .. + c_{B+1}^2) / B,          B = min(0.4 m^(2/3), 32), at least 4,

    and at most m - 2; j = 2 is left out since it is nearly the shape of w. For independent Gaussian
    increments S has exactly B degrees of freedom, and for others that are correlated over far
    fewer than m/B steps nearly so. The error is widened for that:

        stderr = t_B/2 sqrt(S sum_i w_i^2),   t_B the quantile of Student's t at 97.72 %.

    So rate +- 2 stderr covers the mean of this slope over repetitions in 95.45 % of the
    repetitions, at every length; the root of the slope's variance is smaller by t_B/2 (1.43 for
    B = 4, 1.13 at T = 200). Where increments are correlated over m/B steps or more it covers less.
    A repetition draws again what varies along the sequence: its input and, if they are untied, its
    weights. Weights that are the same at all steps are not drawn again, so that the error leaves
    out how matrices differ.

    Args:
        log_norm: (..., T) in nats, row t-1 for step t.
        axis: the axis of the steps; -2 for what a trace with `batch_axis` records, (..., T, batch).

    Returns:
        rate and stderr in nats per step, each (...); NaN where a log_norm in the range is not
        finite (NaN itself included) or where fewer than two (four for the error) lags are left.

    Source: Lazarus, Lewis, Stock and Watson, "HAR inference: recommendations for practice" (2018),
    the EWC test, which keeps j = 2.

    >>> [value.round(6).tolist() for value in rate(np.arange(20) * 0.5)]
    [-0.5, 0.0]
    """
    y = _curves(log_norm, axis)[..., ::-1]
    lags, weights = increment_weights(y.shape[-1])
    y = y[..., lags]
    n = y.shape[-1]
    nothing = np.full(y.shape[:-1], np.nan)
    if n < 2:
        return nothing, nothing
    y = np.where(np.isfinite(y).all(axis=-1, keepdims=True), y, np.nan)
    increments = np.diff(y, axis=-1)
    # Not as a product, whose rounding would depend on how many curves there are.
    slope = np.sum(increments * weights, axis=-1)
    if n < 4:
        return slope, nothing
    m = n - 1
    dof = min(m - 2, max(4, min(32, int(0.4 * m ** (2 / 3)))))
    # Without the mean, of which the cosines would leave rounding.
    increments, middles = increments - slope[..., None], np.arange(m) + 0.5
    powers = [
        np.sum(increments * np.cos(np.pi * j / m * middles), axis=-1) ** 2
        for j in (1, *range(3, dof + 2))
    ]
    variance = 2 / m * np.sum(powers, axis=0) / dof
    return slope, student_factor(dof) * np.sqrt(variance * np.sum(weights**2))


def horizon(log_norm: np.ndarray, axis: int = -1) -> np.ndarray:
    """The first lag at which |lambda| has left [eps, 1/eps] times its size at lag 0, else NaN.

    eps is float32's, ln eps = `LOG_EPS` = -15.94: past it a gradient added to one of lag 0 is
    lost in rounding (or loses the other). NaN as well for no steps, and where lag 0 is not finite
    or a NaN comes before the first lag that is outside: what is not known is not the first. `axis`
    is that of the steps, as in `rate`.

    >>> horizon(np.array([-40.0, -20.0, -10.0, 0.0])).tolist()
    2.0
    """
    y = _curves(log_norm, axis)[..., ::-1]
    if not y.shape[-1]:
        return np.full(y.shape[:-1], np.nan)
    with np.errstate(invalid="ignore"):
        distance = np.abs(y - y[..., :1])
    # The first lag that is outside or NaN decides.
    stops = ~(distance <= -LOG_EPS)
    first = stops.argmax(axis=-1)
    unknown = np.isnan(np.take_along_axis(distance, first[..., None], axis=-1)[..., 0])
    return np.where(stops.any(axis=-1) & ~unknown, first, np.nan)


def verdict(log_norm: np.ndarray, axis: int = -1) -> np.ndarray:
    """By which side the norm leaves [eps, 1/eps] of its size at lag 0: a text for each curve.

    "vanishing" below, and where it is exactly zero at lag 0; "exploding" above; "stable" where it
    never does, see `horizon`; "nonfinite" where a log-norm is NaN or inf. `axis` is that of the
    steps, as in `rate`.

    >>> curves = np.array([[-40.0, -20.0, 0.0], [1.0, 0.5, 0.0]])
    >>> verdict(curves).tolist(), verdict(curves.T, axis=0).tolist()
    (['vanishing', 'stable'], ['vanishing', 'stable'])
    """
    y = _curves(log_norm, axis)
    lag = horizon(y)
    left = np.nan_to_num(lag).astype(int)[..., None]
    outside = np.take_along_axis(y[..., ::-1], left, axis=-1)[..., 0]
    texts = np.where(outside > y[..., -1], "exploding", "vanishing")
    texts = np.where(np.isnan(lag) & ~np.isneginf(y[..., -1]), "stable", texts)
    return np.where((np.isnan(y) | np.isposinf(y)).any(axis=-1), "nonfinite", texts)


def _curves(log_norm: np.ndarray, axis: int) -> np.ndarray:
    """Curves along the last axis, in float64."""
    return np.moveaxis(np.asarray(log_norm, np.float64), axis, -1)
