"""One way to refuse a name that no registry holds, and to name the leaves of pytrees."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import jax


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


def flatten(trees: Mapping[str, Any]) -> dict[str, Any]:
    """Every leaf of some pytrees, under the name of its tree and its path: "name.path".

    Raises:
        ValueError: where two leaves would have one name.

    >>> flatten({"radius": 1.0, "norms": {"w": 2.0, "b": [3.0, 4.0]}})
    {'radius': 1.0, 'norms.b.0': 3.0, 'norms.b.1': 4.0, 'norms.w': 2.0}
    """
    found: dict[str, Any] = {}
    for name, tree in trees.items():
        for path, leaf in jax.tree.leaves_with_path(tree):
            end = jax.tree_util.keystr(path, simple=True, separator=".")
            label = f"{name}.{end}" if path else name
            if label in found:
                raise ValueError(f"two records have the name {label!r}; give one of them another")
            found[label] = leaf
    return found
