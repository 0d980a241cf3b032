"""Elman's rate against the gain, with ½ ln χ through it; experiments/rate_against_gain.py."""

from pathlib import Path

from published import deviations_from_theory
from published.table import Row

PAPER = "Chen, Pennington & Schoenholz (2018)"
PLACE = "section 3: ½ ln χ for tanh, erf, relu and linear networks"
MAP = (
    ("χ = σ_w² E φ'(√q z)², rate = ½ ln χ", "gradlab.meanfield.elman",
     "tests/meanfield/test_meanfield.py::test_the_answer_solves_the_equations"),
)  # fmt: skip
NOTES = f"""
Width 512 with one W for all 500 steps, five seeds. {deviations_from_theory.TOLERANCE}
The 8 linear rows are one measurement: each seed has one W at all gains, and the rate is that of W
plus ln σ_w. With what the width adds to them (`linear_effect` of experiments/deviations.py: the
mean growth of ln|W^k v| over Gaussian W of that width) 56 of the 72 rows would lie within. What
else misses is ordered and weakly driven, where the rate is ln of the spectral radius of the very
W, or chaotic, where no effect of the width is derived: see
[deviations.md](theory/deviations.md).
"""


def minutes() -> float:
    """Those of the sweep."""
    return deviations_from_theory.minutes("rate_saturating", "rate_relu", "rate_linear")


def measure(out: Path) -> list[Row]:
    """Sweep and compare."""
    source = "formula: ½ ln χ, equation 7 of Poole et al. (2016) at q*"
    curves = ["activation", "input_scale"]
    return deviations_from_theory.measure(
        out, "rate_against_gain", source, curves, "rate_against_gain.py"
    )
