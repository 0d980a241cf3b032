"""A latched neuron forgets the way into its attractor."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
from scipy.optimize import brentq

import gradlab as gl
from published.drawing import Curve, draw
from published.table import Row

PAPER = "Bengio, Simard & Frasconi (1994)"
PLACE = "sections 3 and 4: a single neuron h' = tanh(w h) that latches a bit"
MAP = (
    ("|∂h_T/∂h_0| = Π |w (1 - h_t²)| → 0 where the bit is latched", "gradlab.trace",
     "tests/project/test_published_formulas.py::test_derivative_of_a_latched_neuron"),
)  # fmt: skip
NOTES = """
200 steps from h = 0.5. The rate is that of the last 100 steps, once the neuron is latched.
"""
SOURCE = "formula: h* = tanh(w h*), rate = ln(w (1 - h*²))"
WEIGHTS, STEPS = (1.25, 1.5, 2.0, 3.0), 200


def published(w: float) -> tuple[float, float]:
    """The attractor and its exponent."""
    h = brentq(lambda h: math.tanh(w * h) - h, 1e-6, 1)
    return h, math.log(w * (1 - h**2))


def measure(out: Path) -> list[Row]:
    """Trace a neuron for each weight."""

    def last(h: jax.Array, w: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda h, _: (jnp.tanh(w * h), None), h, length=STEPS)[0]

    rows, pairs = [], []
    for w in WEIGHTS:
        out_ = gl.trace(last)(jnp.float32(0.5), jnp.float32(w))
        curve = out_.scans[0].log_norm
        # Back from the end; the first half of the orbit is the way into the attractor.
        rate = float(curve[STEPS // 2] - curve[-1]) / (STEPS - 1 - STEPS // 2)
        state, exponent = published(w)
        pairs.append((rate, exponent))
        rows += [
            Row(f"attractor h*, w = {w:g}", state, SOURCE, float(out_.value), 1e-5),
            Row(f"rate (nats/step), w = {w:g}", exponent, SOURCE, rate, 1e-3),
        ]
    rates, exponents = zip(*pairs, strict=True)
    draw(out / "bengio_latch", {"": [Curve("rate", WEIGHTS, exponents, rates)]}, xlabel="w",
         ylabel="nats/step")  # fmt: skip
    return rows
