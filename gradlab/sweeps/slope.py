"""The slope of a log-norm curve: which lags it is fitted to, and how it weighs the increments."""

import numpy as np


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
