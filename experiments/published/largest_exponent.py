"""The largest Lyapunov exponent against the gain; experiments/largest_exponent.py."""

from pathlib import Path

from published import deviations_from_theory
from published.table import Row

PAPER = "Molgedey, Schuchhardt & Schuster (1992); Sompolinsky, Crisanti & Sommers (1988)"
PLACE = "the largest exponent against g, of discrete and leaky networks"
MAP = (
    ("λ_i = mean of ln|R_ii|", "gradlab.spectrum.lyapunov",
     "tests/spectrum/test_dynamics.py::test_finite_time_exponents_against_numpy"),
)  # fmt: skip
NOTES = f"""
Width 1,000, five seeds. {deviations_from_theory.TOLERANCE}
With what the width adds below g = 1 (`derived_bias` of experiments/largest_exponent.py: the mean
growth of ln|(c + r W)^k v| over Gaussian W of that width) 18 of the 23 rows would lie within. What
else misses is chaotic, at a finite width.
"""


def measure(out: Path) -> list[Row]:
    """Simulate and compare."""
    source = (
        "½ ln χ for δ = 1; ln(1 - δ + δg)/δ for g < 1; else rnn-lyapunov (Clark 2026), "
        "data/max_exponent_operator.json"
    )
    return deviations_from_theory.measure(
        out, "largest_exponent", source, ["cell"], "largest_exponent.py"
    )
