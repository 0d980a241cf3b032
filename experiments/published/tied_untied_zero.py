"""GRU and LSTM at their zero fixed point; experiments/tied_untied.py."""

from pathlib import Path

from published import deviations_from_theory
from published.table import Row

PAPER = "Can, Krishnamurthy & Schwab (2020)"
PLACE = "eigenvalue discs of gated networks at the zero fixed point"
MAP = (
    ("rate = ln(centre + radius); GRU: z + (1 - z) r σ_w, LSTM: f + i o σ_w",
     "gradlab.meanfield.disc",
     "tests/meanfield/test_meanfield.py::test_the_disc_holds_the_eigenvalues"),
)  # fmt: skip
NOTES = f"""
Width 256, 200 steps, five seeds. {deviations_from_theory.TOLERANCE}
With what the width adds to tied weights (`linear_effect` of experiments/deviations.py: the mean
growth of ln|(c + r W)^k v| over Gaussian W of that width) 24 of the 24 rows would lie within.
"""


def minutes() -> float:
    """Those of the sweep."""
    return deviations_from_theory.minutes("tied_untied_zero")


def measure(out: Path) -> list[Row]:
    """Sweep and compare."""
    source = "formula: ln(centre + radius) for tied, ½ ln χ for untied weights"
    return deviations_from_theory.measure(
        out, "tied_untied_zero", source, ["cell", "weights"], "tied_untied.py", "zero"
    )
