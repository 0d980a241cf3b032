"""The curse of memory: variance of states and of sensitivities as memory grows."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import gradlab as gl
from published.drawing import Curve, draw
from published.table import Row

PAPER = "Zucchet & Orvieto (2024)"
PLACE = "equations 5 and 6, figure 1: E h² and E (dh/dλ)² of h' = λ h + x"
MAP = (
    ("E h² = (1 + 2 Σ_d λ^d R(d))/(1 - λ²)", "gradlab.trace",
     "tests/project/test_published_formulas.py::test_moments_of_states_and_sensitivities"),
    ("E (dh/dλ)² = (1+λ²)/(1-λ²)³ (1 + 2 Σ_d λ^d R(d)) + 2/(1-λ²)² Σ_d d λ^d R(d)",
     "gradlab.trace",
     "tests/project/test_published_formulas.py::test_moments_of_states_and_sensitivities"),
)  # fmt: skip
NOTES = """
16,384 sequences each of 12/(1 - λ) steps, inputs of correlation R(d) = ρ^d. `gl.trace` of h_T
gives the state as its value and the sensitivity as its gradient, sequence by sequence.
"""
SOURCE = "formula: equations 5 and 6"
SAMPLES, RELATIVE = 16384, 0.05
LAMBDAS, RHOS = (0.5, 0.9, 0.99), (0.0, 0.9)


def published(lam: float, rho: float) -> tuple[float, float]:
    """Equations 5 and 6 at R(d) = ρ^d."""
    a = lam * rho
    total, moment = a / (1 - a), a / (1 - a) ** 2
    states = (1 + 2 * total) / (1 - lam**2)
    return states, (
        (1 + lam**2) / (1 - lam**2) ** 3 * (1 + 2 * total) + 2 / (1 - lam**2) ** 2 * moment
    )


def simulate(lam: float, rho: float) -> tuple[float, float]:
    """Both moments over sequences."""
    steps = int(12 / (1 - lam))

    def state(lam: jax.Array, xs: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda h, x: (lam * h + x, None), jnp.zeros(()), xs)[0]

    @jax.jit
    def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        noise = jax.random.normal(key, (steps,))

        def follow(x: jax.Array, e: jax.Array) -> tuple[jax.Array, jax.Array]:
            x = rho * x + jnp.sqrt(1 - rho**2) * e
            return x, x

        # The first input has the stationary law already.
        xs = jax.lax.scan(follow, noise[0], noise[1:])[1]
        out = gl.trace(state)(jnp.float32(lam), xs)
        return out.value, out.grads

    keys = jax.random.split(jax.random.key(0), SAMPLES)
    h, dh = jax.lax.map(one, keys, batch_size=2048)
    return tuple(float(np.mean(np.square(np.asarray(x, float)))) for x in (h, dh))


def measure(out: Path) -> list[Row]:
    """Closed forms against samples."""
    rows = []
    panels = {"E h²": [], "E (dh/dλ)²": []}
    for rho in RHOS:
        theory = [published(lam, rho) for lam in LAMBDAS]
        moments = [simulate(lam, rho) for lam in LAMBDAS]
        memory = [1 / (1 - lam) for lam in LAMBDAS]
        for i, (title, curves) in enumerate(panels.items()):
            curves.append(
                Curve(f"ρ = {rho:g}", memory, [t[i] for t in theory], [f[i] for f in moments])
            )
            rows += [
                Row(f"{title}, λ = {lam:g}, ρ = {rho:g}", t[i], SOURCE, f[i], RELATIVE * t[i])
                for lam, t, f in zip(LAMBDAS, theory, moments, strict=True)
            ]
    draw(out / "zucchet_variance", panels, xlabel="1/(1 - λ)", xscale="log", yscale="log")
    return rows
