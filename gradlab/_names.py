"""One way to refuse a name that no registry holds, and to keep what errors say short."""

import contextlib
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

import jax

# Characters of a whole message, of what somebody typed in it, and of the valid names.
LONGEST, QUOTE_LENGTH, LIST_LENGTH = 600, 80, 420


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
    # Longer texts are no slip of the fingers, and take long to compare.
    near = _near(name, valid)
    hint = f" did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown {kind} {show(name)};{hint} valid: {_enumerate(valid)}")


def _near(name: Any, valid: list[str]) -> list[str]:
    if not isinstance(name, str) or len(name) > QUOTE_LENGTH:
        return []
    return get_close_matches(name.lower(), valid, n=1)


def _enumerate(names: list[str]) -> str:
    text = ", ".join(names) or "(none)"
    if len(text) <= LIST_LENGTH:
        return text
    cut = text[:LIST_LENGTH].rpartition(", ")[0]
    return f"{cut} and {len(names) - cut.count(', ') - 1} more"


class _Short(reprlib.Repr):
    """`repr` of a few levels and elements."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, QUOTE_LENGTH, QUOTE_LENGTH

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write out an integer of more than 4,300 digits.
        return f"an integer of {x.bit_length()} bits" if x.bit_length() > 256 else repr(x)


_SHORT = _Short()


def show(value: Any) -> str:
    """What somebody typed, as an error shows it: `repr`, in a line that does not go on for ever.

    >>> show("gru"), show([1, 2.5]), show("a" * 1000)[-9:], show(10**400)
    ("'gru'", '[1, 2.5]', "aaaaaaaa'", 'an integer of 1329 bits')
    """
    return shorten(_SHORT.repr(value), QUOTE_LENGTH)


def shorten(text: str, most: int = LONGEST) -> str:
    """The text, without its middle where it is longer than so many characters.

    >>> shorten("0123456789" * 3, 15)
    '01234567 … 6789'
    """
    if len(text) <= most:
        return text
    end = most // 3
    return f"{text[: most - end - 3 + 1]} … {text[len(text) - end + 1 :]}"


@contextlib.contextmanager
def short_errors() -> Iterator[None]:
    """Keep the message of a `ValueError` below `LONGEST` characters, whatever was typed."""
    try:
        yield
    except ValueError as error:
        if len(str(error)) <= LONGEST:
            raise
        raise ValueError(shorten(str(error))) from None


def flatten(trees: Mapping[str, Any]) -> dict[str, Any]:
    """Every leaf of some pytrees, under the name of its tree and its path: "name.path".

    Raises:
        ValueError: where two leaves would have one name.

    >>> flatten({"radius": 1.0, "norms": {"w": 2.0, "b": [3.0, 4.0]}})
    {'radius': 1.0, 'norms.b.0': 3.0, 'norms.b.1': 4.0, 'norms.w': 2.0}
    """
    leaves: dict[str, Any] = {}
    for name, tree in trees.items():
        for path, leaf in jax.tree.leaves_with_path(tree):
            end = jax.tree_util.keystr(path, simple=True, separator=".")
            label = f"{name}.{end}" if path else name
            if label in leaves:
                raise ValueError(f"two records have the name {label!r}; give one of them another")
            leaves[label] = leaf
    return leaves
