"""The minimalRNN and Elman's network around criticality; experiments/minimal_rnn.py."""

from pathlib import Path

from published import deviations_from_theory
from published.table import Row

PAPER = "Chen, Pennington & Schoenholz (2018)"
PLACE = "figures 1 and 4: minimalRNN against a vanilla RNN around criticality"
MAP = (
    ("χ of the minimalRNN: E u² + σ_w² (Q + R) E u'²", "gradlab.meanfield.minimal_rnn",
     "tests/meanfield/test_meanfield.py::test_a_minimal_rnn_against_direct_quadrature"),
)  # fmt: skip
NOTES = f"""
Width 256, 200 steps, five seeds. {deviations_from_theory.TOLERANCE}
With what the width adds to Elman's network with untied weights (`gl.meanfield.untied_steps`, to
first order in 1/n) 18 of the 24 rows would lie within. For untied gated networks it is not
derived: at width 64, 128 and 256 the deviations at a gain of 3 were -0.018, -0.011 and -0.008.
Tied minimalRNNs have no theory and no row.
"""


def minutes() -> float:
    """Those of the sweep."""
    return deviations_from_theory.minutes("minimal_rnn")


def measure(out: Path) -> list[Row]:
    """Sweep and compare."""
    source = "formula: ½ ln χ of each cell"
    return deviations_from_theory.measure(
        out, "minimal_rnn", source, ["cell", "weights"], "minimal_rnn.py"
    )
