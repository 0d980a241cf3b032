"""Gradients of a norm-preserving network, a tanh network and an LSTM as training begins."""

from pathlib import Path

import gradlab as gl
from published.drawing import Curve, draw
from published.table import RESULTS, Row

PAPER = "Arjovsky, Shah & Bengio (2016)"
PLACE = "the gradient norms ‖∂C/∂h_t‖ at the first updates, on adding"
MAP = (
    ("‖∂C/∂h_t‖ <= ‖∂C/∂h_T‖ Π ‖D_k‖ for orthogonal W", "gradlab.trace",
     "tests/project/test_published_formulas.py::test_adjoints_under_orthogonal_weights_stay_below_the_slopes"),
)  # fmt: skip
NOTES = """
Adding over 100 steps, width 64, RMSprop at 0.001, two seeds, before the first update and after 100.
The rate is the slope of ln ‖λ_t‖ on the lag. `orthogonal` has W by Cayley's transform and modReLU,
in place of the paper's complex product. On copying, where the loss of each step adds to its
adjoint, the slope tells nothing: all three had rates within 0.02 of 0 before training.
"""
SOURCE = "section on gradients: only the uRNN's do not vanish"
SPEC = {
    "axes": {"cell": ["orthogonal", "elman", "lstm"], "seeds": 2},
    "fixed": {"task": "adding", "length": 100, "hidden": 64, "init": "glorot",
              "optimizer": "rmsprop", "learning_rate": 1e-3, "batch": 20, "updates": 100,
              "evaluate_every": 50, "evaluation": 100},
}  # fmt: skip
START, LATER, VANISHING = 0.005, 0.02, -0.02


def measure(out: Path) -> list[Row]:
    """Rates before and after a few updates."""
    runs = gl.sweep(SPEC, RESULTS / "urnn_gradients").results.runs
    rates = runs.groupby("cell", observed=True)[["rate_before", "rate_after"]].median()
    rows = []
    for column, when, tolerance in (
        ("rate_before", "before training", START), ("rate_after", "after 100 updates", LATER),
    ):  # fmt: skip
        rows.append(
            Row(f"rate of orthogonal {when} (nats/step)", 0, SOURCE,
                float(rates.loc["orthogonal", column]), tolerance)
        )  # fmt: skip
        rows += [
            Row(f"{cell} vanishes {when}", 1, SOURCE, rates.loc[cell, column] < VANISHING, 0)
            for cell in ("elman", "lstm")
        ]
    draw(out / "urnn_gradients",
         {"": [Curve(cell, [0, 100], measured=rates.loc[cell].tolist()) for cell in rates.index]},
         xlabel="updates", ylabel="rate (nats/step)")  # fmt: skip
    return rows
