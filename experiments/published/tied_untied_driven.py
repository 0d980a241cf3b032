"""GRU and LSTM under input, fresh weights at each step; experiments/tied_untied.py."""

from pathlib import Path

from published import deviations_from_theory
from published.table import Row

PAPER = "Gilboa et al. (2019)"
PLACE = "the theory of gradients in untied LSTMs and GRUs"
MAP = (
    ("χ of the GRU: E z² + σ_w² (...) of its three gates", "gradlab.meanfield.gru",
     "tests/meanfield/test_meanfield.py::test_a_gru_against_samples"),
    ("χ of the LSTM: the largest eigenvalue of the moments of (h, c)", "gradlab.meanfield.lstm",
     "tests/meanfield/test_meanfield.py::test_an_lstm_against_a_population_of_memories"),
)  # fmt: skip
NOTES = f"""
Width 256, 200 steps, five seeds. {deviations_from_theory.TOLERANCE} Tied weights have no theory
and no row: they lie up to 0.215 nats per step above the untied one.
"""


def minutes() -> float:
    """Those of the sweep."""
    return deviations_from_theory.minutes("tied_untied_driven")


def measure(out: Path) -> list[Row]:
    """Sweep and compare."""
    source = "formula: ½ ln χ of each cell"
    return deviations_from_theory.measure(
        out, "tied_untied_driven", source, ["cell", "weights"], "tied_untied.py", "driven"
    )
