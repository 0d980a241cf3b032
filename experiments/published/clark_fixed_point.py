"""Exponents at the trivial fixed point, below chaos."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import gradlab as gl
from published.drawing import Curve, draw
from published.table import Row

PAPER = "Clark (2026)"
PLACE = "figure 3 and its appendix: F(s) at h = 0 for g < 1"
MAP = (
    ("λ = ln|1 - δ + δ μ|/δ for the eigenvalues μ of W", "gradlab.spectrum.jacobian",
     "tests/project/test_published_formulas.py::test_eigenvalues_of_a_leaky_step_at_zero"),
)  # fmt: skip
NOTES = """
One network of width 1,000 at g = 0.9. F(s) is the share of the disc of radius δ g around 1 - δ
that lies inside the circle of radius e^(δ s) around 0; for δ = 1 it is e^(2s)/g².
"""
GAIN, WIDTH, TOLERANCE = 0.9, 1000, 0.02
QUANTILES = (0.1, 0.3, 0.6, 0.9)


def overlap(r: float, R: float, d: float) -> float:
    """Area that two discs of radii r and R have in common, their centres d apart."""
    if d <= abs(r - R):
        return math.pi * min(r, R) ** 2
    if d >= r + R:
        return 0.0
    x, y = (d**2 + r**2 - R**2) / (2 * d), (d**2 + R**2 - r**2) / (2 * d)
    return (
        r**2 * math.acos(x / r) + R**2 * math.acos(y / R)
        - 0.5 * math.sqrt((-d + r + R) * (d + r - R) * (d - r + R) * (d + r + R))
    )  # fmt: skip


def published(dt: float, s: float) -> float:
    """F(s) by the overlap of two discs."""
    return overlap(math.exp(dt * s), dt * GAIN, 1 - dt) / (math.pi * (dt * GAIN) ** 2)


def measure(out: Path) -> list[Row]:
    """The eigenvalues of the step's Jacobian at 0."""
    rows, curves = [], []
    for dt in (1.0, 0.5, 0.25):
        cell = gl.cells.make(
            "leaky", inputs=1, hidden=WIDTH, dt=dt, recurrent=gl.initializers.normal(GAIN)
        )
        params = cell.init(jax.random.key(0), jnp.float32)
        J = gl.spectrum.jacobian(
            lambda h, params=params, cell=cell: cell.advance(params, h, jnp.zeros(WIDTH)),
            jnp.zeros(WIDTH),
        )
        exponents = np.log(np.abs(np.linalg.eigvals(np.asarray(J, float)))) / dt
        # Where the published F has round values, so that the tails are seen as well.
        grid = np.linspace(exponents.min(), 0, 4001)
        law = np.array([published(dt, s) for s in grid])
        places = [float(grid[np.searchsorted(law, q)]) for q in QUANTILES]
        shares = [float(np.mean(exponents < s)) for s in places]
        values = [published(dt, s) for s in places]
        curves.append(Curve(f"δ = {dt:g}", places, values, shares))
        rows += [
            Row(f"F(s), δ = {dt:g}, s = {s:.4f}", value, "formula: overlap of two discs", share,
                TOLERANCE)
            for s, value, share in zip(places, values, shares, strict=True)
        ]  # fmt: skip
    draw(out / "clark_fixed_point", {"": curves}, xlabel="s", ylabel="F(s)")
    return rows
