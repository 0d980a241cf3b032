"""The distribution F(s) of the Lyapunov exponents of leaky networks."""

from pathlib import Path

import numpy as np

from published import clark
from published.drawing import Curve, draw
from published.table import Row

PAPER = "Clark (2026)"
PLACE = "figure 1: F(s) at g = 3 for δ = 1, 1/2 and 1/4"
MAP = (
    ("F(s): the share of exponents below s, λ_i = mean of ln|R_ii|", "gradlab.spectrum.lyapunov",
     "tests/spectrum/test_dynamics.py::test_finite_time_exponents_against_numpy"),
)  # fmt: skip
NOTES = """
One network of width 400, 200 units of time. For δ < 1 the published F(s) is that of the
single-site theory at the smallest regulator; for δ = 1, which the paper's figure does not show,
it is the free product of W and diag φ'.
"""
GAIN, WIDTH, TIME = 3.0, 400, 200
TOLERANCE = 0.02
THRESHOLDS = {
    1.0: {s: 1 - clark.share_above(GAIN, s) for s in (-3.0, -2.0, -1.5, -1.0, -0.5, 0.0)},
    0.5: {-2.286294: 0.09610245, -1.786294: 0.18051292, -1.486294: 0.31422845,
          -1.086294: 0.65226599, -0.686294: 0.78715463, -0.286294: 0.88996307, 0.0: 0.95620115},
    0.25: {-2.350728: 0.05465999, -1.850728: 0.11792406, -1.450728: 0.22322077,
           -1.000728: 0.65066752, -0.650728: 0.81309921, -0.250728: 0.91663897, 0.0: 0.96532494},
}  # fmt: skip


def measure(out: Path) -> list[Row]:
    """Simulate a full spectrum for each δ."""
    rows, curves = [], []
    for dt, published in THRESHOLDS.items():
        spectrum = np.asarray(clark.exponents(np.uint32(0), GAIN, dt, WIDTH, WIDTH, TIME))
        shares = [float(np.mean(spectrum < s)) for s in published]
        curves.append(Curve(f"δ = {dt:g}", [*published], [*published.values()], shares))
        source = "formula: free product of W and diag φ'" if dt == 1 else clark.SOURCE
        rows += [
            Row(f"F(s), δ = {dt:g}, s = {s:.4g}", value, source, share, TOLERANCE)
            for (s, value), share in zip(published.items(), shares, strict=True)
        ]
    draw(out / "clark_spectrum", {"": curves}, xlabel="s", ylabel="F(s)")
    return rows
