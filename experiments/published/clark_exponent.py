"""The largest exponent of leaky networks by dynamic mean-field theory."""

from pathlib import Path

import gradlab as gl
from published.drawing import Curve, draw
from published.table import Row

PAPER = "Clark (2026)"
PLACE = "figure 4c: s_*(g) for δ = 1, 1/2 and 1/4, the theory"
MAP = (
    ("the largest s at which e^2s + (1-δ)² - δ² g² C_d(τ) less (1-δ) e^s (ψ(τ+1) + ψ(τ-1)) has the "
     "lowest eigenvalue 0", "gradlab.meanfield.leaky",
     "tests/meanfield/test_leaky.py::test_the_largest_exponent_is_the_published_one"),
    ("C(τ) = g² δ²/(1 - (1-δ)²) Σ (1-δ)^|τ-τ'| C_φ(τ')", "gradlab.meanfield.leaky",
     "tests/meanfield/test_leaky.py::test_the_correlation_solves_the_equation_of_a_step"),
)  # fmt: skip
NOTES = """
Theory against theory: both solve the same equations by other means. How simulated networks
follow it is the figure `largest_exponent`.
"""
SOURCE = "github.com/davidclark1/rnn-lyapunov at 41ba738, data/max_exponent_operator.json, panel c"
PUBLISHED = {
    1.0: {1.5: 0.06521721191, 2.0: 0.15472422983, 3.0: 0.31024931515, 5.0: 0.53242794163,
          10.0: 0.85643521221},
    0.5: {1.5: 0.04591321930, 2.0: 0.10778861325, 3.0: 0.21612370471, 5.0: 0.37889082061,
          10.0: 0.71624058715},
    0.25: {1.5: 0.04633010059, 2.0: 0.11009156914, 3.0: 0.22540145815, 5.0: 0.40107411048,
           10.0: 0.68017115079},
}  # fmt: skip
TOLERANCE = 1e-6


def measure(out: Path) -> list[Row]:
    """Solve and compare."""
    rows, curves = [], []
    for dt, exponents in PUBLISHED.items():
        rates = [gl.meanfield.leaky(gain, dt, span=160 if gain < 2 else 60).rate
                 for gain in exponents]  # fmt: skip
        curves.append(Curve(f"δ = {dt:g}", [*exponents], [*exponents.values()], rates))
        rows += [
            Row(f"λ₁ per unit of time, δ = {dt:g}, g = {gain:g}", value, SOURCE, rate, TOLERANCE)
            for (gain, value), rate in zip(exponents.items(), rates, strict=True)
        ]
    draw(out / "clark_exponent", {"": curves}, xlabel="g", ylabel="λ₁ per unit of time")
    return rows
