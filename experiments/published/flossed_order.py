"""Temporal order after and with gradient flossing; experiments/flossed_order.toml."""

from pathlib import Path

from published import training
from published.table import Row

PAPER = "Engelken (2023)"
PLACE = "section 4: flossing before and during training"
EXPERIMENT = "flossed_order"
MAP = (
    ("mean of λ_i² over the first k exponents", "gradlab.remedies.flossing_penalty",
     "tests/remedies/test_remedies.py::test_flossing_is_the_mean_square_of_the_exponents"),
)  # fmt: skip
NOTES = f"""
Width 50, Adam at 0.001, 6,000 updates, two seeds, on temporal order in place of the delayed XOR
of the paper. Flossing during training is what holds; one of its two runs at T = 100 does not
solve the task in time. {training.NOTE}
"""
SOURCE = "section 4: networks with flossing during training learn what others do not"
WAYS = {
    "plain": {"preflossing": 0, "flossing": 0.0},
    "before": {"preflossing": 500, "flossing": 0.0},
    "during": {"preflossing": 500, "flossing": 1.0},
}


def minutes() -> float:
    """Those of the sweep."""
    return training.minutes(EXPERIMENT)


def measure(out: Path) -> list[Row]:
    """Success with and without flossing."""
    table = training.summary(EXPERIMENT)
    training.picture(out / "flossed_order", table, WAYS, "length", "solved")
    rows = []
    for length in (50, 100):
        solved = {
            name: training.point(table, length=length, **where)["solved"]
            for name, where in WAYS.items()
        }
        rows += [
            Row(f"share solved with flossing during training, T = {length}", 1, SOURCE,
                solved["during"], 0),
            Row(f"flossing during training solves more often than none, T = {length}", 1, SOURCE,
                solved["during"] > solved["plain"], 0),
            Row(f"flossing before is no better than during, T = {length}", 1, SOURCE,
                solved["before"] <= solved["during"], 0),
        ]  # fmt: skip
    return rows
