"""How large the state of an LRU grows by the ring of its eigenvalues."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import gradlab as gl
from published.drawing import Curve, draw
from published.table import Row

PAPER = "Orvieto et al. (2023)"
PLACE = "lemma 3.2 and proposition 3.3: initialization on a ring, and the gain of the state"
MAP = (
    ("E|s|²/E|Bx|² = ln((1 - r_min²)/(1 - r_max²))/(r_max² - r_min²)", "gradlab.cells.lru",
     "tests/project/test_published_formulas.py::test_gain_of_a_ring_s_states"),
    ("|λ|² uniform on [r_min², r_max²]", "gradlab.initializers.eigenvalue_ring",
     "tests/initializers/test_initializers.py::test_eigenvalue_ring_of_a_diagonal"),
)  # fmt: skip
NOTES = """
What is checked is the draw of the parameters: no state is run. A hundred draws of 1,000 units at
each ring; the gain is that which the formula of a unit's variance gives for the drawn λ. Without
the factor γ a unit under white input has the variance 1/(1 - |λ|²), whose mean over the ring is
the published gain; with γ = √(1 - |λ|²) it is 1.
"""
SOURCE = "formula: proposition 3.3"
RINGS, WIDTH, SEEDS = ((0.0, 0.9), (0.0, 0.99), (0.9, 0.99), (0.9, 0.999)), 1000, 100
RELATIVE = 0.03


def measure(out: Path) -> list[Row]:
    """Means over the units of a fresh cell."""
    rows, curves = [], []
    for low, high in RINGS:
        cell = gl.cells.make("lru", inputs=1, hidden=WIDTH, r_min=low, r_max=high)
        keys = jax.random.split(jax.random.key(0), SEEDS)
        params = jax.vmap(lambda key, cell=cell: cell.init(key, jnp.float32))(keys)
        # |λ|² = exp(-2 e^ν); 1 - |λ|² without cancellation.
        gap = -np.expm1(-2 * np.exp(np.asarray(params["nu_log"], float)))
        gamma = np.exp(2 * np.asarray(params["gamma_log"], float))
        law = math.log((1 - low**2) / (1 - high**2)) / (high**2 - low**2)
        gain = float(np.mean(1 / gap))
        curves.append((law, gain))
        where = f"r_min = {low:g}, r_max = {high:g}"
        rows += [
            Row(f"gain of the state, {where}", law, SOURCE, gain, RELATIVE * law),
            Row(f"gain with γ, {where}", 1, "section 3.4", float(np.mean(gamma / gap)), 1e-3),
            Row(f"mean |λ|², {where}", (low**2 + high**2) / 2, "formula: lemma 3.2",
                float(np.mean(1 - gap)), 0.005),
        ]  # fmt: skip
    laws, gains = zip(*curves, strict=True)
    names = [f"{low:g} to {high:g}" for low, high in RINGS]
    draw(out / "lru_ring", {"": [Curve("gain", names, laws, gains)]},
         xlabel="|λ|, r_min to r_max", ylabel="E|s|²/E|Bx|²", yscale="log")  # fmt: skip
    return rows
