"""Copying with chrono initialization; experiments/copying.toml."""

from pathlib import Path

from published import training
from published.table import Row

PAPER = "Tallec & Ollivier (2018)"
PLACE = "section 4: copying with chrono against a plain lstm"
EXPERIMENT = "copying"
MAP = (
    ("b_f = ln U(1, T_max - 1)", "gradlab.initializers.chrono",
     "tests/initializers/test_initializers.py::test_chrono_spreads_time_constants_evenly"),
    ("b_i = -b_f", "gradlab.remedies.chrono",
     "tests/remedies/test_remedies.py::test_chrono_s_time_constants_lie_up_to_the_longest_dependency"),
    ("baseline 10 ln 8/(T + 20)", "gradlab.tasks.copying.copying",
     "tests/tasks/test_task_registry.py::test_published_baseline"),
)  # fmt: skip
NOTES = f"""
Delay 100, width 64, RMSprop, 4,000 updates, two seeds. At the published learning rate of 0.001
chrono is not yet below the plain lstm: with input gates of 1/76 it writes little at a time, and
4,000 updates are a fraction of the authors'. At 0.01 it is. {training.NOTE}
"""


def minutes() -> float:
    """Those of the sweep."""
    return training.minutes(EXPERIMENT)


def measure(out: Path) -> list[Row]:
    """Chrono and plain at two learning rates."""
    table = training.summary(EXPERIMENT)
    lines = {"plain": {"chrono": 0.0}, "chrono": {"chrono": 150.0}}
    training.picture(out / "copying", table, lines, "learning_rate", "loss_median", xscale="log")
    baseline = "uRNN.tex of github.com/amarshah/complex_RNN: 10 ln 8/(T + 20)"
    rows = [
        Row("loss of the baseline, T = 100 (nats)", 0.17328679514, baseline,
            table["baseline"].iloc[0], 1e-9)
    ]  # fmt: skip
    for rate, name in ((1e-3, "0.001, as published"), (1e-2, "0.01")):
        loss = {key: training.point(table, learning_rate=rate, **where)["loss_median"]
                for key, where in lines.items()}  # fmt: skip
        rows += [
            Row(f"chrono ends below the plain lstm, learning rate {name}", 1, "section 4",
                loss["chrono"] < loss["plain"], 0),
            Row(f"loss of the plain lstm (nats), learning rate {name}", 0.17328679514,
                "section 4: the plain lstm stays at the baseline", loss["plain"], 0.005),
        ]  # fmt: skip
    return rows
