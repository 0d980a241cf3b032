"""How many steps Newton's iteration over time needs, against the largest exponent."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import gradlab as gl
from published.drawing import Curve, draw
from published.table import Row

PAPER = "Gonzalez et al. (2025)"
PLACE = "predictability and parallelization: steps of DEER against the largest Lyapunov exponent"
MAP = (
    ("h'_t = f(h_(t-1)) + J_t (h'_(t-1) - h_(t-1))", "gradlab.spectrum.newton",
     "tests/spectrum/test_newton.py::test_newton_iterates_as_the_dense_equations_do"),
    ("λ_1 = mean of ln|R_11|", "gradlab.spectrum.lyapunov",
     "tests/spectrum/test_dynamics.py::test_finite_time_exponents_against_numpy"),
)  # fmt: skip
NOTES = """
Tanh networks of 24 units under white inputs of 0.1, one matrix at ten gains. Below an exponent of
-0.1 the steps do not depend on T; above 0.1, they grow in proportion to it. The power is the
slope of ln steps on ln T over T = 128, 256, 512 and 1,024. The five gains with |λ₁| < 0.1 are
left out of these rows. There λ₁ alone does not say how many steps are needed: at gains of 1, 1.2
and 1.5 it is -0.001 to -0.002, and 16, 43 and 129 of 1,024 steps are taken; at 2 it is -0.02,
below 0 as well, and 280 are; at 4 it is 0.06, and 945 are.
"""
SOURCE = "abstract and theory: O(log T) where predictable, O(T) where not"
GAINS = (0.4, 0.6, 0.8, 1.0, 1.2, 1.5, 2.0, 4.0, 6.0, 10.0)
LENGTHS, WIDTH = (128, 256, 512, 1024), 24
POWER, FEW, RISE = 0.25, 10, 0.1


def measure(out: Path) -> list[Row]:
    """Exponent and steps at each gain."""
    W = jax.random.normal(jax.random.key(0), (WIDTH, WIDTH)) / WIDTH**0.5
    xs = 0.1 * jax.random.normal(jax.random.key(1), (4000, WIDTH))

    def step(h: jax.Array, x: jax.Array, gain: jax.Array) -> jax.Array:
        return jnp.tanh(gain * W @ h + x)

    @jax.jit
    def exponent(gain: jax.Array) -> jax.Array:
        spectrum = gl.spectrum.lyapunov(
            lambda h, x: step(h, x, gain), jnp.zeros(WIDTH), xs, burn_in=200, k=1
        )
        return spectrum.exponents[0]

    def count(gain: float, length: int) -> int:
        number = gl.spectrum.newton(
            lambda h, x: step(h, x, gain), jnp.zeros(WIDTH), xs[:length]
        ).steps
        return int(number) if number > 0 else length

    exponents = [float(exponent(gain)) for gain in GAINS]
    steps = np.array([[count(gain, length) for length in LENGTHS] for gain in GAINS])
    powers = [np.polyfit(np.log(LENGTHS), np.log(each), 1)[0] for each in steps]
    rows = []
    for gain, rate, power, each in zip(GAINS, exponents, powers, steps, strict=True):
        if abs(rate) < RISE:  # where one turns into the other
            continue
        where = f"gain {gain:g} (λ₁ = {rate:+.2f})"
        law = float(rate > 0)
        rows.append(Row(f"power of T in the steps, {where}", law, SOURCE, power, POWER))
        if rate < 0:
            rows.append(
                Row(f"at most {FEW} steps at T = 1,024, {where}", 1, "figure 1", each[-1] <= FEW, 0)
            )
    order = np.argsort(exponents)
    sorted_rates, sorted_steps = np.array(exponents)[order], steps[order, -1]
    rise = float(sorted_rates[np.argmax(sorted_steps > FEW)])
    rows.append(
        Row(f"first exponent at which more than {FEW} steps are needed", 0,
            "figure 1: the threshold is λ₁ = 0", rise, RISE)
    )  # fmt: skip
    draw(out / "gonzalez_steps",
         {"": [Curve(f"T = {length}", sorted_rates, measured=steps[order, i])
               for i, length in enumerate(LENGTHS)]},
         xlabel="λ₁ (nats/step)", ylabel="Newton's steps", yscale="log")  # fmt: skip
    return rows
