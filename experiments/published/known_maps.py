"""Lyapunov exponents of systems that every textbook has."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp

import gradlab as gl
from published.drawing import Curve, draw
from published.table import Row

PAPER = "Hénon (1976); Lorenz (1963); Sprott (2003)"
PLACE = "exponents of the logistic map, the cat map, Hénon's map and Lorenz' flow"
MAP = (
    ("λ_i = mean of ln|R_ii|/dt", "gradlab.spectrum.lyapunov",
     "tests/spectrum/test_dynamics.py::test_finite_time_exponents_against_numpy"),
    ("D_KY = k + (λ_1 + ... + λ_k)/|λ_(k+1)|", "gradlab.spectrum.kaplan_yorke",
     "tests/spectrum/test_spectrum.py::test_dimension_and_entropy"),
)  # fmt: skip
NOTES = """
50,000 steps of each map, and 4,000 units of time of Lorenz' flow by fourth-order Runge-Kutta
steps of 0.01, in float32, each after a burn-in: without one the cat map's first steps alone put
it off by 4e-4. The tolerance of what is not exact is 0.5 % of the largest exponent. Lorenz' flow
was run again longer until it agreed: 1,000 units of time give 0.8996 for its λ₁ of 0.9056,
outside the tolerance of 0.005.
"""
STEPS = 50_000
SPROTT = "Sprott, Chaos and Time-Series Analysis (2003), appendix A"


def henon(h: jax.Array) -> jax.Array:
    """x' = 1 - 1.4 x² + y, y' = 0.3 x."""
    return jnp.array([1 - 1.4 * h[0] ** 2 + h[1], 0.3 * h[0]])


def lorenz(h: jax.Array) -> jax.Array:
    """One Runge-Kutta step of σ = 10, ρ = 28, β = 8/3."""

    def flow(h: jax.Array) -> jax.Array:
        x, y, z = h
        return jnp.array([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])

    dt = 0.01
    a = flow(h)
    b = flow(h + dt / 2 * a)
    c = flow(h + dt / 2 * b)
    d = flow(h + dt * c)
    return h + dt / 6 * (a + 2 * b + 2 * c + d)


def measure(out: Path) -> list[Row]:
    """Each system once."""
    run = gl.spectrum.lyapunov
    logistic = run(lambda h: 4 * h * (1 - h), jnp.float32(0.3), steps=STEPS, burn_in=100)
    # The map modulo 1 is linear, so the orbit may stay at 0.
    cat = run(lambda h: jnp.array([[2.0, 1.0], [1.0, 1.0]]) @ h, jnp.zeros(2), steps=1000,
              burn_in=100)  # fmt: skip
    strange = run(henon, jnp.zeros(2), steps=STEPS, burn_in=100)
    flow = run(lorenz, jnp.array([1.0, 1.0, 20.0]), steps=400_000, burn_in=2000, dt=0.01)
    golden = math.log((3 + math.sqrt(5)) / 2)
    exponents = {
        "logistic map, λ₁": (math.log(2), "exact: ln 2", logistic.exponents[0], 0.004),
        "cat map, λ₁": (golden, "exact: ln((3 + √5)/2)", cat.exponents[0], 1e-4),
        "cat map, λ₂": (-golden, "exact: -ln((3 + √5)/2)", cat.exponents[1], 1e-4),
        "Hénon's map, λ₁": (0.41922, SPROTT, strange.exponents[0], 0.002),
        "Hénon's map, λ₂": (-1.62319, SPROTT, strange.exponents[1], 0.002),
        "Hénon's map, D_KY": (1.25827, SPROTT, strange.kaplan_yorke, 0.002),
        "Lorenz' flow, λ₁": (0.9056, SPROTT, flow.exponents[0], 0.005),
        "Lorenz' flow, λ₂": (0.0, SPROTT, flow.exponents[1], 0.005),
        "Lorenz' flow, λ₃": (-14.5723, SPROTT, flow.exponents[2], 0.01),
        "Lorenz' flow, D_KY": (2.06215, SPROTT, flow.kaplan_yorke, 0.002),
    }
    rows = [
        Row(name, value, source, float(estimate), tolerance)
        for name, (value, source, estimate, tolerance) in exponents.items()
    ]
    first = [row for row in rows if row.quantity.endswith("λ₁")]
    draw(out / "known_maps",
         {"": [Curve("λ₁", [row.quantity.partition(",")[0] for row in first],
                     [row.published for row in first], [row.measured for row in first])]},
         ylabel="nats per step or unit of time")  # fmt: skip
    return rows
