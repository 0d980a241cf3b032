"""Curvature at the optimum as memory grows: a plain eigenvalue against the LRU's."""

from collections.abc import Callable
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
    ("d²L/dλ² = E (dh/dλ)² = (1 + λ²)/(1 - λ²)³ at the optimum", "gradlab.spectrum.hessian",
     "tests/project/test_published_formulas.py::test_hessian_of_a_student_at_its_teacher"),
    ("λ = exp(-e^ν), γ = √(1 - λ²): the LRU's parameters", "gradlab.cells.lru",
     "tests/cells/test_cells_dynamical.py::test_lru_draws_its_eigenvalues_uniformly_on_the_ring"),
)  # fmt: skip
NOTES = """
`gl.spectrum.hessian` of the student's loss ½ E (y - y*)² at the teacher's own parameters, white
inputs, 4,096 sequences of 12/(1 - λ) steps. The last row holds it against the mean square of
`gl.trace`'s first derivatives of the output over the same sequences, which it equals where y = y*.
For the plain eigenvalue it grows as 1/(4 (1 - λ)³), for the LRU's normalized output γ h and its ν
it goes to 1/4.
"""
SOURCE = "formula: moments of h and dh/dλ under white inputs"
LAMBDAS, SAMPLES, RELATIVE, ROUNDING = (0.5, 0.9, 0.97, 0.99), 4096, 0.1, 1e-3


def published(lam: float) -> tuple[float, float]:
    """d²L/dλ² of the plain student, d²L/dν² of the LRU."""
    gap = 1 - lam**2
    square, cross, sensitivity = 1 / gap, lam / gap**2, (1 + lam**2) / gap**3
    gamma = np.sqrt(gap)
    slope = -lam / gamma
    inner = gamma**2 * sensitivity + 2 * gamma * slope * cross + slope**2 * square
    return sensitivity, (lam * np.log(lam)) ** 2 * inner


def last_state(lam: jax.Array, xs: jax.Array) -> jax.Array:
    """The last state of h' = λ h + x."""
    return jax.lax.scan(lambda h, x: (lam * h + x, None), jnp.zeros((), xs.dtype), xs)[0]


def lru_output(nu: jax.Array, xs: jax.Array) -> jax.Array:
    """The last γ h, λ = exp(-e^ν), γ = √(1 - λ²)."""
    log = -jnp.exp(nu)
    return jnp.sqrt(-jnp.expm1(2 * log)) * last_state(jnp.exp(log), xs)


def simulate(output: Callable, parameter: jax.Array, steps: int) -> tuple[float, float]:
    """The Hessian of the loss at the teacher, and the mean square of the output's derivative."""
    keys = jax.random.split(jax.random.key(1), SAMPLES)
    xs = jax.vmap(lambda key: jax.random.normal(key, (steps,)))(keys)
    targets = jax.jit(jax.vmap(output, (None, 0)))(parameter, xs)

    def loss(parameter: jax.Array) -> jax.Array:
        return jnp.mean((jax.vmap(output, (None, 0))(parameter, xs) - targets) ** 2) / 2

    curvature = gl.spectrum.hessian(loss, parameter).matrix
    derivative = jax.jit(lambda xs: gl.trace(output)(parameter, xs).grads)
    slopes = jax.lax.map(derivative, xs, batch_size=1024)
    return float(curvature[0, 0]), float(np.mean(np.square(np.asarray(slopes, float))))


def measure(out: Path) -> list[Row]:
    """Both students at each λ."""
    laws = np.array([published(lam) for lam in LAMBDAS])
    rows, curves, apart = [], [], []
    memory = [1 / (1 - lam) for lam in LAMBDAS]
    students = {
        "plain, d²L/dλ²": (last_state, jnp.float32),
        "LRU, d²L/dν²": (lru_output, lambda lam: jnp.log(-jnp.log(jnp.float32(lam)))),
    }
    for (name, (output, parameter)), law in zip(students.items(), laws.T, strict=True):
        pairs = [simulate(output, parameter(lam), int(12 / (1 - lam))) for lam in LAMBDAS]
        curvatures, squares = np.array(pairs).T
        apart.append(np.abs(curvatures / squares - 1).max())
        curves.append(Curve(name, memory, law, curvatures))
        rows += [
            Row(f"{name}, λ = {lam:g}", theory, SOURCE, value, RELATIVE * theory)
            for lam, theory, value in zip(LAMBDAS, law, curvatures, strict=True)
        ]
    rows.append(
        Row("largest |Hessian/mean square of first derivatives - 1|", 0,
            "formula: the other term of the Hessian is a multiple of y - y*", max(apart), ROUNDING)
    )  # fmt: skip
    draw(out / "zucchet_hessian", {"": curves}, xlabel="1/(1 - λ)", xscale="log", yscale="log")
    return rows
