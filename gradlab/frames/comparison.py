"""Whether two summaries of one spec agree, column by column and point by point."""

import numpy as np
import pandas as pd

from gradlab.frames.gradients import GRADIENTS, SUMMARY

AXES, RUNS = GRADIENTS.point, GRADIENTS.runs


def compare(summary: pd.DataFrame, expected: pd.DataFrame) -> pd.DataFrame:
    """A row per column of `SUMMARY`: how far two summaries of one spec lie apart.

    Args:
        summary: of the runs of now, from `gradlab.frames.summary`.
        expected: the one to agree with.

    Returns:
        `column`; `difference` and `tolerance` at the point where the former is the largest in
        units of the latter; `points`, how many differ by more than their tolerance; `agrees`,
        whether none does. What both lack agrees; a number against NaN differs by infinity, and
        so does a text against another one. The tolerance of a point follows from what it measures
        (see `gradlab.frames.tolerances`), in either summary: the smaller one holds, so numbers
        without sense give themselves no room.

    Raises:
        ValueError: if the summaries are not about the same points, or have not the same columns,
            those of `SUMMARY`.
    """
    for frame, what in ((summary, "the summary"), (expected, "the reference")):
        lacks = [name for name in (*AXES, *SUMMARY) if name not in frame]
        unknown = [name for name in frame if name not in (*AXES, *SUMMARY)]
        if lacks or unknown:
            verb, names = ("lacks", lacks) if lacks else ("has unknown", unknown)
            raise ValueError(f"{what} {verb} columns: {', '.join(map(str, names))}")
    left, right = _points(summary), _points(expected)
    if not left.index.equals(right.index):
        more, less = (a.index.difference(b.index) for a, b in ((left, right), (right, left)))
        raise ValueError(
            "the summaries are about different points of a sweep: "
            f"{len(left)} and {len(right)}, {len(more)} of now alone, {len(less)} of the reference"
        )
    sides = _levels(left), _levels(right)
    rows = []
    for name, statistic in SUMMARY.items():
        bounds = [statistic.tolerance(points) for points in sides]
        # NaN where one of them has no number to derive a bound from: the other's holds.
        bound = np.fmin(*bounds)
        bound = np.where(np.isnan(bound), 0.0, bound)
        differs = _difference(left[name], right[name], statistic.dtype)
        if name == "horizon_median":
            # Where a run may pass the border or not, no run at all may have a horizon.
            one = np.isnan(left[name].to_numpy(float)) ^ np.isnan(right[name].to_numpy(float))
            differs[one & (bound >= left.index.get_level_values("length"))] = 0.0
        beyond = (differs > bound) | np.isinf(differs)
        with np.errstate(divide="ignore", invalid="ignore"):
            units = np.where(differs > 0, differs / bound, 0.0)
        units[beyond & ~np.isfinite(units)] = np.inf
        worst = int(np.argmax(units)) if len(units) else None
        extremes = (0.0, 0.0) if worst is None else (float(differs[worst]), float(bound[worst]))
        rows.append((name, *extremes, int(beyond.sum()), not beyond.any()))
    return pd.DataFrame(rows, columns=["column", "difference", "tolerance", "points", "agrees"])


def _points(summary: pd.DataFrame) -> pd.DataFrame:
    keys = list(AXES)
    try:
        table = summary.astype({key: RUNS[key].dtype for key in keys})
        table = table.astype({name: statistic.dtype for name, statistic in SUMMARY.items()})
    except (TypeError, ValueError) as error:
        raise ValueError(f"a summary has something else than numbers: {error}") from None
    return table.set_index(keys).sort_index()


def _levels(points: pd.DataFrame) -> pd.DataFrame:
    """The points with their length and width as columns, for the rules."""
    return points.assign(
        **{name: points.index.get_level_values(name) for name in ("length", "hidden")}
    )


def _difference(a: pd.Series, b: pd.Series, dtype: str) -> np.ndarray:
    if dtype == "str":
        same = (a == b).fillna(False).to_numpy(bool) | (a.isna() & b.isna()).to_numpy(bool)
        return np.where(same, 0.0, np.inf)
    x, y = a.to_numpy(float), b.to_numpy(float)
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    with np.errstate(invalid="ignore"):
        apart = np.abs(x - y)
    return np.where(same, 0.0, np.where(np.isnan(apart), np.inf, apart))
