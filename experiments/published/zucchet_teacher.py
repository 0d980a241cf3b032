"""A dense linear network and an LRU learn from a teacher whose eigenvalues go to 1."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradlab as gl
from published.drawing import Curve, draw
from published.table import Row

PAPER = "Zucchet & Orvieto (2024)"
PLACE = "section 4, teacher and student: RNN against LRU as |λ| of the teacher goes to 1"
MAP = (
    ("s' = λ ⊙ s + γ ⊙ (B x), λ = exp(-e^ν + i e^θ)", "gradlab.cells.lru",
     "tests/cells/test_cells.py::test_step_is_the_equation"),
)  # fmt: skip
NOTES = """
Teachers of 10 complex units of modulus ν₀ and phases below 0.5, outputs of variance 1, white
inputs of 240 steps; students of 32 units, 400 updates of Adam at 0.003, one seed. Both start
with eigenvalues on a ring up to 0.99. The paper's students have more units and updates: the
verdicts are on which student is better, not on their losses. With one seed and 400 updates the
order at ν₀ = 0.97 is the other way round; nothing else was tried.
"""
SOURCE = "section 4: the RNN fails where the LRU does not, as memory grows"
RADII, STEPS, WIDTH, UPDATES, RATE = (0.9, 0.97, 0.99), 240, 32, 400, 3e-3


def teacher(radius: float) -> jax.Array:
    """The impulse response of a teacher, (T,), of unit variance under white inputs."""
    rng = np.random.default_rng(0)
    phase = rng.uniform(0, 0.5, 10)
    weight = rng.normal(size=10) + 1j * rng.normal(size=10)
    lags = np.arange(STEPS)[:, None]
    response = (weight * radius**lags * np.exp(1j * phase * lags)).real.sum(1)
    return jnp.asarray(response / np.sqrt((response**2).sum()), jnp.float32)


def student(name: str) -> tuple[dict, object]:
    """Parameters and outputs(params, xs) of a student."""
    weights, readout = jax.random.split(jax.random.key(1))
    if name == "LRU":
        cell = gl.cells.make("lru", inputs=1, hidden=WIDTH, r_min=0.5, r_max=0.99, max_phase=1.0)
        size = 2 * WIDTH
    else:
        ring = gl.initializers.make("eigenvalue_ring", r_min=0.5, r_max=0.99)
        cell = gl.cells.make("elman", inputs=1, hidden=WIDTH, activation="linear", recurrent=ring)
        size = WIDTH
    params = {
        "cell": cell.init(weights, jnp.float32),
        "out": jax.random.normal(readout, (size,)) / size**0.5,
        "skip": jnp.zeros(()),
    }

    def outputs(params: dict, xs: jax.Array) -> jax.Array:
        ready = cell.prepare(params["cell"])

        def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            h = cell.step(ready, h, x)
            return h, h

        states = jax.lax.scan(step, cell.start(), xs)[1]
        if jnp.iscomplexobj(states):
            states = jnp.concatenate([states.real, states.imag], -1)
        return states @ params["out"] + params["skip"] * xs[:, 0]

    return params, outputs


def final_loss(name: str, radius: float) -> float:
    """Mean squared error on fresh sequences, in units of the target's variance."""
    params, outputs = student(name)
    response = teacher(radius)

    def sample(key: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array]:
        xs = jax.random.normal(key, (32, STEPS, 1))
        targets = jax.vmap(lambda x: jnp.convolve(x[:, 0], response)[:STEPS])(xs)
        return xs, targets

    def loss(params: dict, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        xs, targets = batch
        ys = jax.vmap(lambda x: outputs(params, x))(xs)
        # The first steps have not seen what the target remembers.
        return jnp.mean((ys - targets)[:, STEPS // 3 :] ** 2)

    run = gl.train(loss, params, sample, optax.adam(RATE), steps=UPDATES, key=jax.random.key(2))
    if run.failure:
        return float("inf")
    return float(loss(run.params, sample(jax.random.key(3), 0)))


def measure(out: Path) -> list[Row]:
    """Both students at each radius."""
    losses = {name: [final_loss(name, radius) for radius in RADII] for name in ("RNN", "LRU")}
    memory = [1 / (1 - radius) for radius in RADII]
    draw(out / "zucchet_teacher",
         {"": [Curve(name, memory, measured=values) for name, values in losses.items()]},
         xlabel="1/(1 - ν₀)", ylabel="error/variance", xscale="log", yscale="log")  # fmt: skip
    rows = [
        Row(f"the LRU's error is below the RNN's, ν₀ = {radius:g}", 1, SOURCE, lru < rnn, 0)
        for radius, rnn, lru in zip(RADII, losses["RNN"], losses["LRU"], strict=True)
    ]
    for name, values in losses.items():
        rows.append(
            Row(f"the {name} is worse at ν₀ = 0.99 than at 0.9", 1,
                "section 4: difficulty grows with memory", values[-1] > values[0], 0)
        )  # fmt: skip
    return rows
