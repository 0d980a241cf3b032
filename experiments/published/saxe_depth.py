"""Gaussian and orthogonal starts through depth: how singular values spread."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import digamma

import gradlab as gl
from published.drawing import Curve, draw
from published.table import Row

PAPER = "Saxe, McClelland & Ganguli (2014)"
PLACE = "section 3, figure 6: deep products of Gaussian and of orthogonal matrices"
MAP = (
    ("λ_i = ½ (ψ((n - i + 1)/2) + ln(2/n)) for Gaussian matrices (Newman 1986)",
     "gradlab.spectrum.lyapunov",
     "tests/project/test_published_formulas.py::test_exponents_of_gaussian_products"),
    ("λ_i = 0 for orthogonal matrices", "gradlab.spectrum.lyapunov",
     "tests/project/test_published_formulas.py::test_exponents_of_orthogonal_products_are_zero"),
)  # fmt: skip
NOTES = """
1,000 layers. The first exponent is the drift of the largest singular value per layer, the last
that of the smallest: all but one direction die in a deep Gaussian product, none in an orthogonal
one.
"""
SOURCE = "formula: Newman (1986)"
WIDTHS, DEPTH = (2, 10, 50), 1000
TOLERANCE, EXACT = 0.06, 1e-5  # three standard errors of the last exponent over 1,000 layers


def exponents(init: str, n: int) -> np.ndarray:
    """All exponents of a product of fresh matrices."""
    make = gl.initializers.make(init)

    @jax.jit
    def product(key: jax.Array) -> jax.Array:
        def step(h: jax.Array, key: jax.Array) -> jax.Array:
            return make(key, (n, n), jnp.float32) @ h

        keys = jax.random.split(key, DEPTH)
        return gl.spectrum.lyapunov(step, jnp.zeros(n), keys).exponents

    return np.asarray(product(jax.random.key(0)), float)


def measure(out: Path) -> list[Row]:
    """First and last exponent for each width."""
    rows, curves = [], []
    for n in WIDTHS:
        i = np.arange(1, n + 1)
        law = 0.5 * (digamma((n - i + 1) / 2) + np.log(2 / n))
        values = np.sort(exponents("normal", n))[::-1]
        curves.append(Curve(f"Gaussian, n = {n}", i / n, law, values))
        worst = np.abs(exponents("orthogonal", n)).max()
        rows += [
            Row(f"first exponent, Gaussian, n = {n}", law[0], SOURCE, values[0], TOLERANCE),
            Row(f"last exponent, Gaussian, n = {n}", law[-1], SOURCE, values[-1], TOLERANCE),
            Row(f"largest |exponent|, orthogonal, n = {n}", 0, "section 3", worst, EXACT),
        ]
    draw(out / "saxe_depth", {"": curves}, xlabel="i/n", ylabel="nats per layer")
    return rows
