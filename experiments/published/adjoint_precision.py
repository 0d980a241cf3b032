"""How far errors can be propagated forwards in time in bfloat16, float32 and float64."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import gradlab as gl
from published.drawing import Curve, draw
from published.table import Row

PAPER = "Zucchet, Pourcel & Ernoult (2026)"
PLACE = "forward propagation of errors through time: an imprecision ε grows to λ^-T ε"
MAP = (
    ("δ_t = J^T δ_(t+1) + ∂l_t/∂h_t", "gradlab.trace",
     "tests/cells/test_cells.py::test_trace_measures_what_explicit_jacobians_carry_back"),
)  # fmt: skip
NOTES = """
h' = λ h + x with the loss Σ h_t²/2. The adjoint of `gl.trace` at the first step, in the float of
the run, is followed forwards by δ_(t+1) = (δ_t - h_t)/λ in the same float, and parts from the
adjoint of float64 by λ^-t ε. The reach is the first step at which the error is as large as the
adjoint; the mean of 16 input sequences. The tolerance is that of a factor of 10 in ε.
"""
SOURCE = "github.com/NicolasZucchet/Forward-propagation-errors-through-time, docs/index.md"
LAMBDAS, SEQUENCES = (0.9, 0.97), 16
FLOATS = {"bfloat16": jnp.bfloat16, "float32": jnp.float32, "float64": jnp.float64}


def reach(lam: float, dtype: jnp.dtype, length: int) -> tuple[float, float]:
    """The mean reach, and the growth of the error per step."""

    def loss(hs: jax.Array, xs: jax.Array) -> jax.Array:
        def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            h = (jnp.asarray(lam, h.dtype) * h + x).astype(h.dtype)
            return h, h

        states = jax.lax.scan(step, jnp.zeros((), xs.dtype), xs)[1]
        return ((states + hs) ** 2).sum() / 2

    def forwards(start: jax.Array, states: jax.Array) -> jax.Array:
        def step(delta: jax.Array, h: jax.Array) -> tuple[jax.Array, jax.Array]:
            return ((delta - h) / jnp.asarray(lam, h.dtype)).astype(h.dtype), delta

        return jax.lax.scan(step, start, states)[1]

    @jax.jit
    def errors(key: jax.Array) -> jax.Array:
        exact = jax.random.normal(key, (length,), jnp.float64)
        # The inputs are numbers of the narrow float, so that only the arithmetic differs.
        narrow = exact.astype(dtype)
        wide = narrow.astype(jnp.float64)
        states = jax.lax.associative_scan(
            lambda a, b: (a[0] * b[0], b[0] * a[1] + b[1]), (jnp.full(length, lam), wide)
        )[1]
        zeros = jnp.zeros(length)
        # What the outputs add to each step's loss: the adjoint of h_t, in log and sign.
        truth = jax.lax.scan(
            lambda d, h: (lam * d + h, lam * d + h), jnp.zeros(()), states, reverse=True
        )[1]
        log_norm = gl.trace(loss)(zeros.astype(dtype), narrow).scans[0].log_norm
        start = (jnp.sign(truth[0]) * jnp.exp(log_norm[0].astype(jnp.float64))).astype(dtype)
        adjoints = forwards(start, states.astype(dtype)).astype(jnp.float64)
        return jnp.abs(adjoints - truth), jnp.abs(truth)

    reaches, slopes = [], []
    for seed in range(SEQUENCES):
        error, size = (np.asarray(x) for x in errors(jax.random.key(seed)))
        typical = np.median(size)
        beyond = np.flatnonzero(~(error < typical))
        last = int(beyond[0]) if len(beyond) else length
        reaches.append(last)
        inside = error[:last]
        at = np.flatnonzero(inside > 0)
        half = at[at >= last // 3]
        if len(half) > 8:
            slopes.append(np.polyfit(half, np.log(inside[half]), 1)[0])
    return float(np.mean(reaches)), float(np.mean(slopes))


def measure(out: Path) -> list[Row]:
    """Reach and growth for each λ and float."""
    rows, curves = [], []
    for lam in LAMBDAS:
        laws, reaches = [], []
        for name, dtype in FLOATS.items():
            law = math.log(float(jnp.finfo(dtype).eps)) / math.log(lam)
            with jax.enable_x64(True):
                steps, growth = reach(lam, dtype, int(1.5 * law) + 50)
            laws.append(law)
            reaches.append(steps)
            rows.append(
                Row(f"reach in steps, {name}, λ = {lam:g}", law, f"{SOURCE}: ln ε/ln λ", steps,
                    math.log(10) / -math.log(lam))
            )  # fmt: skip
            if name != "bfloat16":  # too few steps for a slope
                rows.append(
                    Row(f"growth of the error (nats/step), {name}, λ = {lam:g}", -math.log(lam),
                        f"{SOURCE}: λ^-T ε", growth, 0.1 * -math.log(lam))
                )  # fmt: skip
        curves.append(Curve(f"λ = {lam:g}", [8, 24, 53], laws, reaches))
    draw(out / "adjoint_precision", {"": curves}, xlabel="bits of precision",
         ylabel="reach (steps)", yscale="log")  # fmt: skip
    return rows
