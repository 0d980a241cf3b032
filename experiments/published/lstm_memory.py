"""The memory of an LSTM's cell by its forget bias, and chrono's."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp

import gradlab as gl
from published.drawing import Curve, draw
from published.table import Row

PAPER = "Hochreiter & Schmidhuber (1997); Jozefowicz et al. (2015); Tallec & Ollivier (2018)"
PLACE = "the constant error carousel, the forget bias of 1, and chrono's b_f = ln(T - 1)"
MAP = (
    ("∂c_T/∂c_0 = σ(b_f)^T without recurrent weights", "gradlab.trace",
     "tests/cells/test_cells.py::test_constant_error_carousel"),
    ("b_f = ln(T - 1) keeps (1 - 1/T)^T over T steps", "gradlab.initializers.gate_time_constants",
     "tests/initializers/test_initializers.py::test_gate_time_constants_against_the_published_decay"),
)  # fmt: skip
NOTES = """
An LSTM of 4 units without recurrent weights and input, traced over 101 steps, or over chrono's
own T.
"""
SOURCE = "formula: ln σ(b_f) per step"
BIASES, LENGTHS = (0.0, 1.0, 2.0, 5.0), (10, 100, 1000)


def rate(bias: float, steps: int) -> float:
    """Nats per step that ∂L/∂c loses, L = Σ c_T."""
    cell = gl.cells.make("lstm", inputs=1, hidden=4, forget_bias=bias)
    params = jax.tree.map(jnp.zeros_like, cell.init(jax.random.key(0), jnp.float32))
    params["bias"] = params["bias"].at[4:8].set(bias)

    def loss(start: tuple, params: dict) -> jax.Array:
        def step(state: tuple, x: jax.Array) -> tuple[tuple, None]:
            return cell.step(params, state, x), None

        return jax.lax.scan(step, start, jnp.zeros((steps + 1, 1)))[0].c.sum()

    curve = gl.trace(loss)(cell.start(), params).scans[0].log_norm
    return float(curve[0] - curve[-1]) / steps


def measure(out: Path) -> list[Row]:
    """Rates by bias, and what is left after T steps of chrono."""
    rates = [rate(bias, 100) for bias in BIASES]
    laws = [-math.log1p(math.exp(-bias)) for bias in BIASES]
    rows = [
        Row(f"rate (nats/step), forget bias {bias:g}", law, SOURCE, slope, 1e-5)
        for bias, law, slope in zip(BIASES, laws, rates, strict=True)
    ]
    for T in LENGTHS:
        left = math.exp(T * rate(math.log(T - 1), T))
        rows.append(
            Row(f"share left after T = {T} steps of chrono's longest unit", (1 - 1 / T) ** T,
                "formula: (1 - 1/T)^T", left, 1e-3)
        )  # fmt: skip
    draw(out / "lstm_memory", {"": [Curve("rate", BIASES, laws, rates)]}, xlabel="forget bias",
         ylabel="nats/step")  # fmt: skip
    return rows
