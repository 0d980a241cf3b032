"""The fixed points of a network that holds three bits."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradlab as gl
from published.drawing import Curve, draw
from published.table import Row

PAPER = "Sussillo & Barak (2013)"
PLACE = "section 4, figure 4: the 3-bit flip-flop and its fixed points"
MAP = (
    ("the minima of q = ½ ‖F(h) - h‖², by the eigenvalues there", "gradlab.spectrum.fixed_points",
     "tests/spectrum/test_dynamics.py::test_fixed_points_of_a_flip_flop_against_scipy"),
)  # fmt: skip
NOTES = """
A GRU of 32 units on 50 steps with a pulse of ±1 at a twentieth of the steps on each line,
trained for 1,500 updates; 2,048 searches from states along fresh sequences, with noise. The
eight memories are the corners of a cube, the saddles of one unstable direction lie between two
that differ in one bit. The number of searches was raised until all saddles were found: 512, the
first, found all 8 stable points and 11 of the 12 saddles, so that the last row was not within.
"""
SOURCE = "section 4: 2³ stable points, and saddles between them"
WIDTH, STEPS, UPDATES, SEARCHES = 32, 50, 1500, 2048


def draw_batch(key: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Pulses (count, T, 3), and the sign of the last one on each line."""
    when, sign = jax.random.split(key)
    pulses = jax.random.bernoulli(when, 0.05, (count, STEPS, 3)) * jax.random.rademacher(
        sign, (count, STEPS, 3), jnp.float32
    )
    # All bits are set at the start.
    first = jax.random.rademacher(jax.random.fold_in(key, 1), (count, 3), jnp.float32)
    pulses = pulses.at[:, 0].set(first)

    def hold(bits: jax.Array, pulse: jax.Array) -> tuple[jax.Array, jax.Array]:
        bits = jnp.where(pulse != 0, pulse, bits)
        return bits, bits

    target = jax.vmap(lambda xs: jax.lax.scan(hold, jnp.zeros(3), xs)[1])(pulses)
    return pulses, target


def measure(out: Path) -> list[Row]:
    """Train, search, count."""
    cell = gl.cells.make("gru", inputs=3, hidden=WIDTH)
    weights, run, look = jax.random.split(jax.random.key(0), 3)
    params = {
        "cell": cell.init(weights, jnp.float32),
        "out": jax.random.normal(run, (3, WIDTH)) / WIDTH**0.5,
    }

    def states(params: dict, xs: jax.Array) -> jax.Array:
        def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            h = cell.step(params["cell"], h, x)
            return h, h

        return jax.vmap(lambda xs: jax.lax.scan(step, cell.start(), xs)[1])(xs)

    def loss(params: dict, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        xs, target = batch
        return jnp.mean((states(params, xs) @ params["out"].T - target) ** 2)

    trained = gl.train(
        loss, params, lambda key, step: draw_batch(key, 64), optax.adam(5e-3), steps=UPDATES,
        key=run,
    ).params  # fmt: skip
    xs, target = draw_batch(look, 256)
    hs = jax.jit(states)(trained, xs)
    error = float(jnp.mean(jnp.sign(hs @ trained["out"].T) != target))
    flat = hs[:, 10:].reshape(-1, WIDTH)
    at = jax.random.choice(look, len(flat), (SEARCHES,), replace=False)
    starts = flat[at] + 0.3 * jax.random.normal(run, (SEARCHES, WIDTH))
    points = gl.spectrum.fixed_points(
        lambda h: cell.step(trained["cell"], h, jnp.zeros(3)), starts, same=0.02
    )
    group, found, unstable = (np.asarray(x) for x in (points.group, points.found, points.unstable))
    distinct = (group == np.arange(SEARCHES)) & found
    outputs = np.asarray(points.states @ trained["out"].T)
    stable = distinct & (unstable == 0)
    corners = {tuple(np.sign(row)) for row in outputs[stable]}
    off = np.abs(np.abs(outputs[stable]) - 1).max() if stable.any() else np.nan
    saddles = int((distinct & (unstable == 1)).sum())
    counts = [int((distinct & (unstable == i)).sum()) for i in range(4)]
    # A cube has corners, edges, faces and a centre.
    draw(out / "flip_flop",
         {"": [Curve("found (bars: of a cube)", ["0", "1", "2", "3"], [8, 12, 6, 1], counts)]},
         xlabel="unstable directions", ylabel="fixed points")  # fmt: skip
    return [
        Row("share of wrong bits after training", 0, "section 4: the network is trained", error,
            0.01),
        Row("stable fixed points", 8, SOURCE, int(stable.sum()), 0),
        Row("memories among them (sign patterns of the outputs)", 8, SOURCE, len(corners), 0),
        Row("largest | |output| - 1 | at a stable point", 0, "figure 4: corners of a cube", off,
            0.1),
        Row("saddles of one unstable direction are found", 1, SOURCE, saddles > 0, 0),
        Row("at least one saddle for each of the cube's 12 edges", 1,
            "formula: one between neighbouring corners", saddles >= 12, 0),
    ]  # fmt: skip
