"""Which cases a run of the tests has: all of them in `make test-long`, some in `make test`."""

import os
from collections.abc import Iterable
from typing import TypeVar

Case = TypeVar("Case")
LONG = "GRADLAB_LONG" in os.environ


def some(cases: Iterable[Case], every: int = 2) -> list[Case]:
    """Each second of cases that test one law with one code, where each takes seconds to compile."""
    return list(cases)[:: 1 if LONG else every]
