"""Singular values of products of random matrices: Gaussian against orthogonal."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import gradlab as gl
from published.drawing import Curve, draw
from published.table import Row

PAPER = "Pennington, Schoenholz & Ganguli (2017)"
PLACE = "section 2: the end-to-end Jacobian of deep linear networks"
MAP = (
    ("s_max² = (L + 1)^(L + 1)/L^L, Var s² = L for Gaussian weights of variance 1/n",
     "gradlab.spectrum.log_singular_values",
     "tests/project/test_published_formulas.py::test_squared_singular_values_of_gaussian_products"),
    ("s = 1 for orthogonal weights", "gradlab.initializers.orthogonal",
     "tests/initializers/test_initializers.py::test_orthogonal_is_orthogonal"),
)  # fmt: skip
NOTES = """
Width 200; the mean of four products for each depth L. The largest singular value of a finite
matrix lies a little below the edge of the limit. That shortfall grows with the depth: 7 % at L =
4 and 17 % at L = 8, which miss.
"""
SOURCE = "formula: Fuss-Catalan law of a product of L Gaussian matrices"
DEPTHS, WIDTH, SEEDS = (1, 2, 4, 8), 200, 4
EDGE, VARIANCE, ISOMETRY = 0.05, 0.1, 1e-4  # the first two relative


def log_values(init: str, depth: int) -> np.ndarray:
    """Log singular values, a row per seed."""
    make = gl.initializers.make(init)

    @jax.jit
    def one(key: jax.Array) -> jax.Array:
        draw_matrix = jax.vmap(lambda key: make(key, (WIDTH, WIDTH), jnp.float32))
        matrices = draw_matrix(jax.random.split(key, depth))
        return gl.spectrum.log_singular_values(lambda h, W: W @ h, jnp.zeros(WIDTH), matrices)

    return np.array([one(jax.random.key(seed)) for seed in range(SEEDS)], float)


def measure(out: Path) -> list[Row]:
    """Edge and variance of s² for each depth."""
    rows, edges = [], []
    for depth in DEPTHS:
        squares = np.exp(2 * log_values("normal", depth))
        edge, variance = squares.max(1).mean(), squares.var(1).mean()
        law = (depth + 1) ** (depth + 1) / depth**depth
        edges.append((law, edge))
        isometric = np.abs(log_values("orthogonal", depth)).max()
        rows += [
            Row(f"s_max², Gaussian, L = {depth}", law, SOURCE, edge, EDGE * law),
            Row(f"Var s², Gaussian, L = {depth}", depth, SOURCE, variance, VARIANCE * depth),
            Row(f"largest |ln s|, orthogonal, L = {depth}", 0, "section 2: dynamical isometry",
                isometric, ISOMETRY),
        ]  # fmt: skip
    picture(out, edges)
    return rows


def picture(out: Path, edges: list[tuple[float, float]]) -> None:
    """The largest s² at each depth: (published, measured)."""
    laws, maxima = zip(*edges, strict=True)
    draw(out / "pennington_isometry", {"": [Curve("s_max², Gaussian", DEPTHS, laws, maxima)]},
         xlabel="depth L", ylabel="s_max²", xscale="log")  # fmt: skip
