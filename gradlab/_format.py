"""Numbers in words."""

from __future__ import annotations

import humanize

_YEAR = 365.25 * 86400
_CENTURY = 100 * _YEAR
# A unit of time, the smallest that is shown, and the seconds from which on it is.
_PRECISION = (("hours", 3600, 86400), ("minutes", 60, 600), ("seconds", 1, 10))


def format_duration(seconds: float) -> str:
    """A time span in words.

    To the second below 10 minutes, to the minute below a day, to the hour beyond.

    Args:
        seconds: the time span, in seconds. NaN, infinity and what is below 0 give "unknown".

    >>> format_duration(0.25), format_duration(4.5), format_duration(119.7)
    ('0.25 seconds', '4.5 seconds', '2 minutes')
    >>> format_duration(9000), format_duration(90_000), format_duration(float("nan"))
    ('2 hours and 30 minutes', '1 day and 1 hour', 'unknown')
    """
    if not 0 <= seconds < float("inf"):
        return "unknown"
    if seconds > _CENTURY:
        # Beyond what humanize and datetime can count.
        return f"{seconds / _YEAR:,.3g} years"
    for unit, size, start in _PRECISION:
        if seconds >= start:
            # Round first, or humanize carries nothing: "1 hour and 60 minutes".
            whole = round(seconds / size) * size
            return humanize.precisedelta(whole, minimum_unit=unit, format="%.0f")
    return humanize.precisedelta(seconds, format="%.2g")


def format_si(number: float, unit: str) -> str:
    """A number with a prefix, to three digits.

    >>> format_si(2_048_000, "FLOP"), format_si(12, "B")
    ('2.05 MFLOP', '12.0 B')
    """
    return humanize.metric(number, unit)


def format_bytes(number: float) -> str:
    """A number of bytes with a prefix.

    >>> format_bytes(2_048_000)
    '2.05 MB'
    """
    return format_si(number, "B")
