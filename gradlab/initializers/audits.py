"""What an initializer really gave, measured on the host in float64."""

import numpy as np
from jax.typing import ArrayLike


def audit(W: ArrayLike) -> dict[str, np.ndarray]:
    """Measure what an initializer really gave, on the host in float64.

    With λ_i the eigenvalues and s_1 >= … >= s_n the singular values of W, and
    s² = ‖W‖_F²/n = mean s_i²::

        spectral_radius         ρ(W) = max |λ_i|
        largest_singular_value  s_1
        smallest_singular_value s_n
        log10_condition         log10(s_1 / s_n)
        orthogonality_error     ‖WᴴW/s² - I‖₂ = max |s_i²/s² - 1|
        non_normality           sqrt(1 - Σ|λ_i|² / ‖W‖_F²)

    Args:
        W: a square matrix (n, n), or a stack of them (..., n, n); real or complex.

    Returns:
        The six above, each of the shape of the leading axes. `orthogonality_error` is 0 for any
        multiple of an orthogonal (unitary) matrix. `non_normality`, Henrici's departure from
        normality over ‖W‖_F, is 0 for a normal matrix, which it resolves to about 1e-7, and 1 for a
        nilpotent one. `log10_condition` is inf where s_n is exactly 0. All are NaN for a matrix
        that is not finite; the zero matrix has ρ = s_1 = s_n = 0 and NaN for the rest.

    Raises:
        ValueError: if the last two axes are not square.

    >>> measured = audit(np.array([[0.0, 2.0], [-2.0, 0.0]]))
    >>> for name, value in measured.items():
    ...     print(name, abs(round(float(value), 6)))
    spectral_radius 2.0
    largest_singular_value 2.0
    smallest_singular_value 2.0
    log10_condition 0.0
    orthogonality_error 0.0
    non_normality 0.0

    Source: Henrici, "Bounds for iterates, inverses, spectral variation and fields of values of
    non-normal matrices" (1962), for the departure; Trefethen & Embree, "Spectra and pseudospectra"
    (2005), chapter 48, for its use relative to the norm.
    """
    W = np.asarray(W)
    W = W.astype(np.complex128 if np.iscomplexobj(W) else np.float64)
    if W.ndim < 2 or W.shape[-1] != W.shape[-2] or W.shape[-1] == 0:
        raise ValueError(f"audit needs square matrices (..., n, n), got shape {W.shape}")
    finite = np.asarray(np.isfinite(W).all(axis=(-2, -1)))
    # LAPACK refuses a whole stack for one NaN in it.
    safe = np.where(finite[..., None, None], W, 0.0)
    # Dividing by the largest entry first keeps the square of a tiny or huge matrix in range.
    peak = np.abs(safe).max(axis=(-2, -1))
    unit = safe / np.where(peak > 0, peak, 1.0)[..., None, None]
    eigenvalues = np.abs(np.linalg.eigvals(unit))
    singular = np.linalg.svd(unit, compute_uv=False)
    with np.errstate(divide="ignore", invalid="ignore"):
        square = np.square(singular).mean(axis=-1)
        statistics = {
            "spectral_radius": peak * eigenvalues.max(axis=-1),
            "largest_singular_value": peak * singular[..., 0],
            "smallest_singular_value": peak * singular[..., -1],
            "log10_condition": np.log10(singular[..., 0] / singular[..., -1]),
            "orthogonality_error": np.abs(np.square(singular) / square[..., None] - 1).max(axis=-1),
            "non_normality": np.sqrt(
                np.maximum(1 - np.square(eigenvalues).mean(axis=-1) / square, 0.0)
            ),
        }
    return {name: np.where(finite, value, np.nan) for name, value in statistics.items()}


def gate_time_constants(bias: ArrayLike) -> dict[str, np.ndarray]:
    """Measure how long the units of a gate remember at their bias alone, in float64.

    A unit that is multiplied by σ(b) at each step decays as exp(-t/τ), σ the logistic function::

        τ = -1 / ln σ(b) = 1 / ln(1 + exp(-b))

    Args:
        bias: b, a forget gate's (or an update gate's, if the gate multiplies the old state) bias
            block (H,), or a stack of them (..., H).

    Returns:
        `time_constant_median`, `time_constant_min` and `time_constant_max` over the units, in
        steps, each of the shape of the leading axes; NaN where a bias is NaN.

    Raises:
        ValueError: for a bias without units.

    >>> measured = gate_time_constants(np.log([9.0, 99.0, 999.0]))
    >>> {name: round(float(value), 2) for name, value in measured.items()}
    {'time_constant_median': 99.5, 'time_constant_min': 9.49, 'time_constant_max': 999.5}

    Source: Tallec & Ollivier, "Can recurrent neural networks warp time?" (2018), section 2.
    """
    b = np.asarray(bias, dtype=np.float64)
    if b.ndim == 0 or b.shape[-1] == 0:
        raise ValueError(f"gate_time_constants needs a bias (..., H), got shape {b.shape}")
    with np.errstate(invalid="ignore"):
        return time_constants(-np.logaddexp(0.0, -b))


def time_constants(log_retention: ArrayLike) -> dict[str, np.ndarray]:
    """Measure how long units remember that are multiplied by k at each step, in float64::

        τ = -1 / ln k

    Args:
        log_retention: ln k of the units (H,), or a stack of them (..., H), in nats per step, as
            `gradlab.cells.Cell.log_retention` gives it.

    Returns:
        `time_constant_median`, `time_constant_min` and `time_constant_max` over the units, in
        steps, each of the shape of the leading axes: inf for a unit that forgets nothing, k = 1,
        and NaN where a value is NaN.

    >>> {name: float(value) for name, value in time_constants([-0.5, -0.1, 0.0]).items()}
    {'time_constant_median': 10.0, 'time_constant_min': 2.0, 'time_constant_max': inf}

    Source: Tallec & Ollivier, "Can recurrent neural networks warp time?" (2018), section 2.
    """
    with np.errstate(divide="ignore"):
        # Not -1 / ln k, which would be -inf for a positive zero.
        tau = 1 / (0.0 - np.asarray(log_retention, dtype=np.float64))
    return {
        f"time_constant_{name}": np.asarray(statistic(tau, axis=-1))
        for name, statistic in (("median", np.median), ("min", np.min), ("max", np.max))
    }
