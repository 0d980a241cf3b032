"""Short forms of results, as text for a prompt and as HTML for a notebook.

They never raise: inside `jax.jit` an array has a shape and no values, and one that was donated has
neither.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

# Size of a drawn curve, in pixels of the page, and how many are drawn of one record.
WIDTH, HEIGHT, CURVES = 260, 56, 16


def values(x: Any) -> np.ndarray | None:
    """The numbers of an array in float64, or None where there are none to be had."""
    try:
        return np.asarray(x, np.float64)
    except Exception:
        return None


def number(x: Any) -> str:
    """
    >>> number(0.031662), number(float("-inf")), number(float("nan")), number(3)
    ('0.03166', '-inf', 'NaN', '3')
    """
    array = values(x)
    if array is None or array.ndim:
        return shape(x)
    return "NaN" if np.isnan(array) else f"{float(array):.4g}"


def shape(x: Any) -> str:
    """
    >>> shape(np.zeros((2, 3), np.float32)), shape(None)
    ('float32[2,3]', 'None')
    """
    if not hasattr(x, "dtype"):
        return "None" if x is None else type(x).__name__
    return f"{x.dtype}[{','.join(map(str, x.shape))}]"


def count(n: int, one: str, many: str | None = None) -> str:
    """
    >>> count(1, "scan"), count(0, "scan"), count(2, "leaf", "leaves")
    ('1 scan', '0 scans', '2 leaves')
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def leaves(tree: Any) -> str:
    """
    >>> leaves({"w": np.zeros((2, 3)), "b": np.zeros(2)}), leaves(None)
    ('2 arrays of 8 numbers', 'none')
    """
    arrays = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "size")]
    if not arrays:
        return "none"
    return f"{count(len(arrays), 'array')} of {sum(leaf.size for leaf in arrays):,} numbers"


def curve(log_norm: Any, length: int, batched: bool) -> str:
    """What a record of ln norms holds, (*outer, T) or (*outer, T, batch).

    >>> curve(np.array([-2.0, -1.0, 0.0]), 3, False)
    '-2 at step 1, 0 at step 3'
    >>> curve(np.array([[-2.0, -3.0], [0.0, float("nan")]]), 2, True)
    '-3 to 0, of shape (2, 2), 1 of 4 NaN'
    """
    logs = values(log_norm)
    if logs is None:
        return shape(log_norm)
    if logs.ndim == 1 and len(logs) > 1 and not batched:
        return f"{number(logs[0])} at step 1, {number(logs[-1])} at step {length}"
    valid = logs[~np.isnan(logs)]
    text = f"{number(valid.min())} to {number(valid.max())}" if valid.size else "all NaN"
    gaps = f", {logs.size - valid.size:,} of {logs.size:,} NaN" if valid.size < logs.size else ""
    return f"{text}, of shape {logs.shape}{gaps}"


def sparkline(log_norm: Any, batched: bool, what: str = "ln norm") -> str:
    """A small drawing of numbers over the steps, as SVG; "" where there is nothing to draw.

    At most `CURVES` curves; a step that is NaN or an exact zero leaves a gap.
    """
    logs = values(log_norm)
    if logs is None or logs.size < 2 or not logs.ndim:
        return ""
    if batched:
        logs = np.moveaxis(logs, -1, 0)
    lines = logs.reshape(-1, logs.shape[-1])[:CURVES]
    finite = lines[np.isfinite(lines)]
    if finite.size == 0 or lines.shape[1] < 2:
        return ""
    low, high = float(finite.min()), float(finite.max())
    # More points than pixels only make the page heavy.
    at = np.unique(np.linspace(0, lines.shape[1] - 1, 2 * WIDTH).astype(int))
    x = 3 + at / (lines.shape[1] - 1) * (WIDTH - 6)
    paths = []
    for line in lines[:, at]:
        y = 3 + (high - line) / max(high - low, 1e-9) * (HEIGHT - 6)
        breaks = np.flatnonzero(~np.isfinite(y))
        for part in np.split(np.arange(len(y)), breaks):
            part = part[np.isfinite(y[part])]
            if len(part) > 1:
                points = " ".join(f"{x[i]:.1f},{y[i]:.1f}" for i in part)
                paths.append(f'<polyline points="{points}" />')
    title = f"{what} over the steps, between {number(low)} and {number(high)}"
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{title}" fill="none" stroke="currentColor" stroke-width="1.2" '
        f'stroke-opacity="{1 if len(lines) == 1 else 0.5}"><title>{title}</title>'
        f"{''.join(paths)}</svg>"
    )


class Markup(str):
    """A text that is HTML already."""


def table(title: str, rows: Iterable[tuple[str, Any]], *more: str) -> str:
    """A table of names and values as HTML; all but `Markup` is escaped.

    >>> table("A <b>", [("n", "1 < 2")])  # doctest: +ELLIPSIS
    '<div><strong>A &lt;b&gt;</strong><table><tr><th ...>n</th><td ...>1 &lt; 2</td></tr>...'
    """
    left = 'style="text-align: left"'
    lines = [
        f'<tr><th scope="row" {left}>{escape(name)}</th><td {left}>{escape(value)}</td></tr>'
        for name, value in rows
    ]
    body = f"<table>{''.join(lines)}</table>{''.join(more)}"
    return f"<div><strong>{escape(title)}</strong>{body}</div>"


def escape(text: Any) -> str:
    return text if isinstance(text, Markup) else html.escape(str(text))


def text(title: str, rows: Sequence[tuple[str, Any]]) -> str:
    """
    >>> print(text("Trace", [("value", "1"), ("scans", "2")]))
    Trace
      value  1
      scans  2
    """
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join([title, *(f"  {name:{width}}  {value}" for name, value in rows)])
