"""All Lyapunov exponents of h' = W tanh(h); experiments/full_spectrum.py."""

from pathlib import Path

from published import deviations_from_theory
from published.table import Row

PAPER = "Engelken, Wolf & Abbott (2023)"
PLACE = "the full Lyapunov spectrum of random tanh networks"
MAP = (
    ("λ_i = mean of ln|R_ii|", "gradlab.spectrum.lyapunov",
     "tests/spectrum/test_dynamics.py::test_finite_time_exponents_against_numpy"),
    ("x = E[u d²/(1 + u d²)], λ = ½ ln(g² x/u), d = φ' of a Gaussian of variance q",
     "published.clark.share_above",
     "tests/project/test_published_formulas.py::test_quantiles_of_a_full_spectrum_solve_the_equation"),
)  # fmt: skip
NOTES = f"""
Widths 500 (three seeds) and 1,000. {deviations_from_theory.TOLERANCE}
"""


def measure(out: Path) -> list[Row]:
    """Simulate and compare."""
    source = "formula: quantiles of the free product of W and diag φ'"
    return deviations_from_theory.measure(
        out, "full_spectrum", source, ["cell", "hidden"], "full_spectrum.py"
    )
