"""The standard error of a mean over steps that are correlated."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

# Below so many values no error is given: too few to tell a correlation from chance.
FEWEST = 50
# The most terms of the autoregression, and how many values each of them asks for.
_MOST_TERMS, _VALUES_PER_TERM = 6, 20
# Fewer independent values than these leave the error itself unknown.
_FEWEST_INDEPENDENT = 3.0


def error_of_mean(x: Array, batches: float, floor: Array) -> Array:
    """The standard error of the mean of a stationary series, from the series alone.

    Burg's method fits autoregressions of 1 to 6 terms to x, and the corrected criterion of Akaike
    chooses among them. With φ its weights, σ² the variance of what they leave over, and n values
    of variance v::

      S = Σφ + (1 + 3 Σφ)/n,    V = σ² / (1 - S)²,    m = n v / V
      error² = (V/n) (1 + 3/m)² + floor²

    S is corrected for the bias of fitted weights. m counts the independent values that the series
    is worth: the factor 1 + 3/m pays for an error that is itself estimated, so that the true mean
    lies within 2 errors in 95 % of series. Both the factor and the limits below are from
    simulations; ``tests/spectrum/test_spectrum.py`` measures the coverage.

    Args:
      x: (n, k), k series of equal steps.
      batches: how many values the mean is over: n, or a little more where x ends early.
      floor: the error of rounding in the mean, (k,). Where x varies less than this, it is all.

    Returns:
      (k,); NaN where x has a value that is not finite, for n < 50, and for m < 3: then the series
      is too short against its own correlations to say.

    Source: Burg (1975), "Maximum entropy spectral analysis"; Hurvich & Tsai (1989) for the
    criterion; Marriott & Pope (1954), "Bias in the estimation of autocorrelations", for 1 + 3φ.
    """
    n = x.shape[0]
    if n < FEWEST:
        return jnp.full(x.shape[1:], jnp.nan, x.dtype)
    x = jax.lax.stop_gradient(x)
    deviation = x - x.mean(0, keepdims=True)
    variance = jnp.mean(deviation**2, axis=0)
    total, noise = _autoregression(deviation, variance)
    total = jnp.minimum(total + (1 + 3 * total) / n, 1 - jnp.finfo(x.dtype).eps)
    long_run = noise / (1 - total) ** 2
    # Variances are of n - 1 values here. A series that repeats itself has no noise at all.
    independent = n * variance * (n / (n - 1)) / jnp.where(long_run == 0, jnp.inf, long_run)
    independent = jnp.where(long_run == 0, jnp.inf, independent)
    error = jnp.sqrt(long_run / batches) * (1 + 3 / independent)
    error = jnp.where(independent >= _FEWEST_INDEPENDENT, error, jnp.nan)
    error = jnp.where(jnp.sqrt(variance) <= floor, 0, error)
    return jnp.hypot(error, floor)


def _autoregression(deviation: Array, variance: Array) -> tuple[Array, Array]:
    """The sum of the weights and the variance of what is left, of the best autoregression."""
    n = deviation.shape[0]
    most = min(_MOST_TERMS, n // _VALUES_PER_TERM)
    place = jnp.arange(n)[:, None]

    def add_term(carry: Any, terms: Array) -> tuple[Any, Any]:
        ahead, behind, weights, noise = carry
        behind = jnp.roll(behind, 1, axis=0)
        # The first values have no predecessor that far back.
        ahead, behind = (jnp.where(place >= terms, x, 0) for x in (ahead, behind))
        size = jnp.sum(ahead**2 + behind**2, axis=0)
        last = 2 * jnp.sum(ahead * behind, axis=0) / jnp.where(size == 0, 1, size)
        # The weights so far are followed by zeros; in reverse order they start again at 0.
        reverse = jnp.roll(weights[::-1], terms - 1 - most, axis=0)
        weights = (weights - last[None] * reverse).at[terms - 1].set(last)
        ahead, behind = ahead - last[None] * behind, behind - last[None] * ahead
        noise = noise * jnp.maximum(1 - last**2, 0)
        score = n * jnp.log(noise) + 2 * n * (terms + 1) / (n - terms - 2)
        outcome = score, weights.sum(0), noise * (n / (n - terms - 1))
        return (ahead, behind, weights, noise), outcome

    # A scan, since six terms would compile for seconds.
    start = deviation, deviation, jnp.zeros_like(deviation[:most]), variance
    _, (scores, totals, noises) = jax.lax.scan(add_term, start, jnp.arange(1, most + 1))
    best = jnp.argmin(scores, axis=0)[None]
    total, noise = (jnp.take_along_axis(each, best, axis=0)[0] for each in (totals, noises))
    return total, noise
