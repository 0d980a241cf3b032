"""Curvature at the optimum as memory grows: a plain eigenvalue against the LRU's."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import gradlab as gl
from published.drawing import Curve, draw
from published.table import Row

PAPER = "Zucchet & Orvieto (2024)"
PLACE = "section 3: teacher and student h' = λ h + x, the Hessian at the optimum"
MAP = (
    ("d²L/dλ² = E (dh/dλ)² = (1 + λ²)/(1 - λ²)³ at the optimum", "gradlab.trace",
     "tests/tracing/test_tracing.py::test_value_and_grads_are_those_of_jax"),
    ("λ = exp(-e^ν), γ = √(1 - λ²): the LRU's parameters", "gradlab.cells.lru",
     "tests/cells/test_cells_authors.py::test_what_the_authors_draw_at_random"),
)  # fmt: skip
NOTES = """
The student's loss ½ E (y - y*)² at the teacher's own parameters, white inputs, 4,096 sequences
of 12/(1 - λ) steps. At the optimum the Hessian is the mean square of `gl.trace`'s gradient of
the output, sequence by sequence. For the plain eigenvalue it grows as 1/(4 (1 - λ)³), for the
LRU's normalized output γ h and its ν it goes to 1/4.
"""
SOURCE = "formula: moments of h and dh/dλ under white inputs"
LAMBDAS, SAMPLES, RELATIVE = (0.5, 0.9, 0.97, 0.99), 4096, 0.1


def published(lam: float) -> tuple[float, float]:
    """d²L/dλ² of the plain student, d²L/dν² of the LRU."""
    gap = 1 - lam**2
    square, cross, sensitivity = 1 / gap, lam / gap**2, (1 + lam**2) / gap**3
    gamma = np.sqrt(gap)
    slope = -lam / gamma
    inner = gamma**2 * sensitivity + 2 * gamma * slope * cross + slope**2 * square
    return sensitivity, (lam * np.log(lam)) ** 2 * inner


def simulate(lam: float) -> tuple[float, float]:
    """Mean square of the output's gradient, plain and in the LRU's ν."""
    steps = int(12 / (1 - lam))

    def last(lam: jax.Array, xs: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda h, x: (lam * h + x, None), jnp.zeros(()), xs)[0]

    def normalized(nu: jax.Array, xs: jax.Array) -> jax.Array:
        log = -jnp.exp(nu)
        return jnp.sqrt(-jnp.expm1(2 * log)) * last(jnp.exp(log), xs)

    nu = jnp.log(-jnp.log(jnp.float32(lam)))

    @jax.jit
    def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        xs = jax.random.normal(key, (steps,))
        plain = gl.trace(last)(jnp.float32(lam), xs).grads
        return plain, gl.trace(normalized)(nu, xs).grads

    keys = jax.random.split(jax.random.key(1), SAMPLES)
    gradients = jax.lax.map(one, keys, batch_size=1024)
    return tuple(float(np.mean(np.square(np.asarray(x, float)))) for x in gradients)


def measure(out: Path) -> list[Row]:
    """Both students at each λ."""
    laws = [published(lam) for lam in LAMBDAS]
    squares = [simulate(lam) for lam in LAMBDAS]
    rows, curves = [], []
    for i, name in enumerate(("plain, d²L/dλ²", "LRU, d²L/dν²")):
        curves.append(Curve(name, [1 / (1 - lam) for lam in LAMBDAS], [law[i] for law in laws],
                            [value[i] for value in squares]))  # fmt: skip
        rows += [
            Row(f"{name}, λ = {lam:g}", law[i], SOURCE, value[i], RELATIVE * law[i])
            for lam, law, value in zip(LAMBDAS, laws, squares, strict=True)
        ]
    draw(out / "zucchet_hessian", {"": curves}, xlabel="1/(1 - λ)", xscale="log", yscale="log")
    return rows
