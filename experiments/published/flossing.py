"""What flossing does to exponents and to the condition number; experiments/flossing.py."""

import json
from pathlib import Path

import pandas as pd

from published.drawing import Curve, draw
from published.table import RESULTS, Row

PAPER = "Engelken (2023)"
PLACE = "section 3, figure 1: flossing pushes exponents to zero"
EXPERIMENT = "flossing"
MAP = (
    ("mean of λ_i² over the first k exponents", "gradlab.remedies.flossing_penalty",
     "tests/remedies/test_remedies.py::test_flossing_is_the_mean_square_of_the_exponents"),
    ("ln κ = t (λ_1 - λ_k)", "gradlab.spectrum.lyapunov",
     "tests/project/test_published_formulas.py::test_condition_number_of_a_normal_product"),
)  # fmt: skip
NOTES = """
32 units, the first 8 exponents, 500 updates, three seeds; pushed means less than half the root
mean square that it was, and the condition number is that of the flossed directions per step, λ_1
- λ_8. At the edge of chaos under this drive (a gain of 2) flossing hardly moves anything. Run
again on another machine, the root mean squares after flossing differ by up to 9 %, since rounding
grows along chaotic orbits, and one verdict changes: at a gain of 2 over 40 steps the condition
number then falls, by 1 %.
"""


def minutes() -> float:
    """Those of the last run of experiments/flossing.py."""
    path = RESULTS / "training" / EXPERIMENT / "seconds.json"
    return json.loads(path.read_text("utf-8"))["seconds"] / 60


def measure(out: Path) -> list[Row]:
    """Verdicts on each point, from the exponents before and after."""
    table = pd.read_csv(RESULTS / "training" / EXPERIMENT / "summary.csv")
    keys = ["gain", "steps"]
    stages = {stage: rows.set_index(keys) for stage, rows in table.groupby("stage")}
    before, after = stages["before"], stages["after"]
    long = [gain for gain, steps in after.index if steps == 40]
    at = [(gain, 40) for gain in long]
    draw(
        out / "flossing",
        {"": [Curve("before", long, measured=before.loc[at, "root_mean_square"]),
              Curve("after", long, measured=after.loc[at, "root_mean_square"])]},
        xlabel="gain", ylabel="rms of 8 exponents (nats/step)",
    )  # fmt: skip
    rows = []
    for gain, steps in after.index:
        old, new = before.loc[(gain, steps)], after.loc[(gain, steps)]
        spread = [stage["first"] - stage["last_pulled"] for stage in (old, new)]
        rows += [
            Row(f"exponents are pushed to zero, gain {gain:g}, T = {steps}", 1, "figure 1",
                new["root_mean_square"] < old["root_mean_square"] / 2, 0),
            Row(f"the condition number falls, gain {gain:g}, T = {steps}", 1, "section 3",
                spread[1] < spread[0], 0),
        ]  # fmt: skip
    return rows
