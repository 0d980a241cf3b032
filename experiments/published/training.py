"""What the figures of training share: the summary of their sweep, and how long it ran."""

import json
from pathlib import Path

import pandas as pd

import gradlab as gl
from published.drawing import Curve, draw
from published.table import RESULTS, ROOT

NOTE = """The rows are those of the summary that
`make training` left."""

LABELS = {
    "length": "T (steps)",
    "learning_rate": "learning rate",
    "solved": "share of runs that solve it",
    "loss_median": "median loss (nats)",
    "best_loss_median": "least mean squared error",
}


def summary(name: str) -> pd.DataFrame:
    """The points of experiments/NAME.toml over their seeds; the sweep runs where it has not yet."""
    path = RESULTS / "training" / name / "summary.csv"
    if not path.exists():
        gl.sweep(ROOT / "experiments" / f"{name}.toml", path.parent)
    return pd.read_csv(path)


def minutes(name: str) -> float:
    """How long the sweep ran, on one of two cores."""
    manifest = json.loads((RESULTS / "training" / name / "manifest.json").read_text("utf-8"))
    return manifest["seconds"] / 60


def point(table: pd.DataFrame, **where: object) -> pd.Series:
    """The one row of a summary at these values."""
    for column, value in where.items():
        table = table[table[column] == value]
    (row,) = table.to_dict("records")
    return pd.Series(row)


def picture(
    path: Path, table: pd.DataFrame, lines: dict[str, dict], x: str, y: str, **axes
) -> None:
    """One curve per entry of `lines`, which says where it is in the table."""
    curves = []
    for label, where in lines.items():
        rows = table
        for column, value in where.items():
            rows = rows[rows[column] == value]
        rows = rows.sort_values(x)
        curves.append(Curve(label, rows[x], measured=rows[y]))
    draw(path, {"": curves}, xlabel=LABELS.get(x, x), ylabel=LABELS.get(y, y), **axes)
