"""What programs made last, for the next runs: those of a grid share most of their draws."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

import jax


class Recent:
    """Values by what decides them: the last ones that `most_bytes` hold, and one at least.

    >>> import numpy as np
    >>> recent = Recent(most_bytes=20)
    >>> for key in "abc":
    ...     recent.put(key, np.zeros(8, np.uint8))
    >>> [recent.get(key) is not None for key in "abc"]
    [False, True, True]
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable) -> Any:
        """The value of a key, or None; it is the last to go now."""
        if key in self._values:
            self._values.move_to_end(key)
        return self._values.get(key)

    def put(self, key: Hashable, value: Any) -> None:
        """Keep a pytree of arrays, and let others go for it."""
        if key in self._values:
            self._bytes -= _bytes(self._values.pop(key))
        self._values[key] = value
        self._bytes += _bytes(value)
        while self._bytes > self.most_bytes and len(self._values) > 1:
            self._bytes -= _bytes(self._values.popitem(last=False)[1])


def _bytes(value: Any) -> int:
    return sum(x.nbytes for x in jax.tree.leaves(value))
