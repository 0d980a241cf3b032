"""Student's t for errors whose variance is an estimate: two of them mean what two sigma mean."""

import numpy as np
from numpy.typing import ArrayLike
from scipy import special


def student_factor(dof: ArrayLike) -> np.ndarray:
    """The factor on an estimated standard error by which ±2 of it cover 95.45 %.

    A Gaussian estimate lies within ±2 σ of the truth with probability 95.45 %. Where σ is an
    estimate with ν degrees of freedom, independent of the first, that takes ±t, with t the
    quantile of Student's law of ν at 97.72 %; the factor is t/2.

    Args:
        dof: the degrees of freedom ν, of any shape.

    Returns:
        The factor, of the same shape, no unit: above 1, and 1 for ν = ∞. NaN for ν <= 0 or NaN.

    >>> student_factor([1, 2, 4, 100]).round(2).tolist()
    [6.98, 2.26, 1.43, 1.01]

    Source: Student, "The probable error of a mean" (1908).
    """
    dof = np.asarray(dof, np.float64)
    with np.errstate(invalid="ignore"):
        return special.stdtrit(np.where(dof > 0, dof, np.nan), special.ndtr(2.0)) / 2
