"""What every theory asks of its arguments, and the one formula that all share."""

import math


def check_scales(**scales: float) -> None:
    """Refuse a scale that is negative or not finite, or whose square is, by its name.

    >>> check_scales(gain=1e200)
    Traceback (most recent call last):
    ValueError: gain must be at most 1e150, got 1e+200
    """
    for name, value in scales.items():
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be finite and at least 0, got {value}")
        # Past this its square is infinite in float64, and so would be what follows.
        if value > 1e150:
            raise ValueError(f"{name} must be at most 1e150, got {value}")


def check_finite(**values: float) -> None:
    """Refuse a number that is not finite, by its name."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value}")


def half_log(chi: float) -> float:
    """Return ½ ln χ: -inf at 0, NaN for NaN.

    >>> half_log(0.0), half_log(math.nan)
    (-inf, nan)
    """
    return -math.inf if chi == 0 else 0.5 * math.log(chi)


def timescale(factor: float) -> float:
    """Return -1/ln factor, in steps: inf at 1, < 0 above, 0 at 0, NaN for NaN."""
    if factor == 0:
        return 0.0
    log = math.log(factor)
    return math.inf if log == 0 else -1 / log
