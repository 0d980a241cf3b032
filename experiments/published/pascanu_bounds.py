"""The largest singular value bounds what a step can do to a gradient."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import gradlab as gl
from published.drawing import Curve, draw
from published.table import Row

PAPER = "Pascanu, Mikolov & Bengio (2013); Arjovsky, Shah & Bengio (2016)"
PLACE = "Pascanu section 2.1: σ_1 < 1/γ suffices to vanish; Arjovsky equation 4: orthogonal W"
MAP = (
    ("‖λ_t‖ ≤ (γ σ_1)^(T - t) ‖λ_T‖, γ = max φ'", "gradlab.trace",
     "tests/project/test_published_formulas.py::test_adjoints_stay_below_the_bound_of_the_singular_value"),
)  # fmt: skip
NOTES = """
32 Gaussian or orthogonal networks of width 64 at each point, 100 steps under input, the loss a
random direction of the last state. γ is 1 for tanh and linear, 2/√π for erf. The excess is the
largest ln‖λ_t‖ - (T - t) ln(γ σ_1) over all networks and lags, whose published value is at most
0.
"""
WIDTH, STEPS, SEEDS = 64, 100, 32
SLOPE = {"tanh": 1.0, "erf": 2 / math.sqrt(math.pi), "relu": 1.0, "linear": 1.0}
# Float32 rounds ln‖λ‖ by this much over 100 steps.
ROUNDING = 1e-3


def curves(activation: str, init: str, size: float) -> np.ndarray:
    """ln‖λ_t‖ by lag, a row per network whose W has σ_1 = `size`."""
    cell = gl.cells.make("elman", inputs=4, hidden=WIDTH, activation=activation,
                         recurrent=gl.initializers.make(init))  # fmt: skip

    @jax.jit
    def one(key: jax.Array) -> jax.Array:
        weights, inputs, way = jax.random.split(key, 3)
        params = dict(cell.init(weights, jnp.float32))
        W = params["recurrent"]
        params["recurrent"] = W * size / jnp.linalg.svd(W, compute_uv=False)[0]
        xs = jax.random.normal(inputs, (STEPS, 4))
        direction = jax.random.normal(way, (WIDTH,))
        direction /= jnp.linalg.norm(direction)

        def loss(params: dict) -> jax.Array:
            last, _ = jax.lax.scan(lambda h, x: (cell.step(params, h, x), None), cell.start(), xs)
            return last @ direction

        return gl.trace(loss)(params).scans[0].log_norm[::-1]

    return np.array([one(jax.random.key(seed)) for seed in range(SEEDS)], float)


def measure(out: Path) -> list[Row]:
    """Excess over the bound, and how many gradients vanish below it."""
    lag = np.arange(STEPS)
    rows, drawn = [], []
    for activation, gamma in SLOPE.items():
        for size in (0.95 / gamma, 1.5 / gamma):
            logs = curves(activation, "normal", size)
            excess = float((logs - lag * math.log(gamma * size)).max())
            rows.append(
                Row(f"excess over the bound (nats), {activation}, γ σ_1 = {gamma * size:.2f}", 0,
                    "section 2.1, equation 7", max(excess, 0), ROUNDING)
            )  # fmt: skip
            if size * gamma < 1:
                share = float(np.mean(logs[:, -1] < logs[:, 0]))
                rows.append(
                    Row(f"share that vanishes, {activation}, γ σ_1 = {gamma * size:.2f}", 1,
                        "section 2.1: sufficient to vanish", share, 0)
                )  # fmt: skip
                label = f"{activation}, γ σ_1 = {gamma * size:.2f}"
                drawn.append(Curve(label, lag, lag * math.log(gamma * size), logs.max(0)))
    for activation in ("linear", "relu"):
        logs = curves(activation, "orthogonal", 1.0)
        excess = float(np.abs(logs).max()) if activation == "linear" else float(logs.max())
        what = "|ln‖λ_t‖|" if activation == "linear" else "growth of ‖λ_t‖ (nats)"
        rows.append(
            Row(f"largest {what}, {activation}, orthogonal W", 0, "Arjovsky et al., equation 4",
                max(excess, 0), ROUNDING)
        )  # fmt: skip
    draw(out / "pascanu_bounds", {"": drawn}, xlabel="lag", ylabel="largest ln‖λ‖")
    return rows
