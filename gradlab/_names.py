"""One way to refuse a name that no registry holds."""

from collections.abc import Iterable
from difflib import get_close_matches


def choose(kind: str, name: str, valid: Iterable[str]) -> None:
    """Accept ``name`` if it is one of ``valid``; otherwise raise a one-line ``ValueError``.

    The message names the ``kind`` of thing, the nearest valid name (if any is near) and every
    valid name.

    >>> choose("cell", "lstm", ["gru", "lstm"])
    >>> choose("cell", "lstn", ["gru", "lstm"])
    Traceback (most recent call last):
    ValueError: unknown cell 'lstn'; did you mean 'lstm'? valid: gru, lstm
    """
    valid = sorted(valid)
    if name in valid:
        return
    near = get_close_matches(str(name).lower(), valid, n=1)
    hint = f" did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown {kind} {name!r};{hint} valid: {', '.join(valid) or '(none)'}")
