"""Two forms of one model, held against each other step by step."""

from gradlab.checking._check import Report, check

__all__ = [
    "Report",
    "check",
]


def __dir__() -> list[str]:
    return sorted(__all__)
