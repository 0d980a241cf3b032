"""What gradient flossing does to the Lyapunov exponents of random tanh networks, before training.

Engelken (2023), "Gradient flossing: improving gradient descent through dynamic control of
Jacobians", section 3 and figure 1: h_t = W tanh(h_{t-1}) + U x_t, W_ij ~ N(0, g²/n), x_t ~ N(0, 1),
Adam at 1e-3 on the mean square of the first exponents, along one new sequence of T steps for each
update. The exponents before and after are those along 1,000 other steps. The effect on learning is
the sweep flossed_order.toml.
"""

import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

import gradlab as gl

OUT = Path(__file__).parent.parent / "results" / "training" / "flossing"
WIDTH, FLOSSED, UPDATES, BURN_IN, SEEDS = 32, 8, 500, 15, 3
# Gains and lengths of the flossing; the shorter one for chaotic networks, whose gradient explodes.
POINTS = ((0.5, 40), (1.0, 40), (1.5, 40), (2.0, 40), (1.5, 10), (2.0, 10))


@jax.jit
def exponents(params: dict, key: jax.Array, cell_key: jax.Array) -> jax.Array:
    """All exponents along a long sequence of its own."""
    xs = jax.random.normal(key, (1100, 1))
    cell = build(1.0)
    return gl.spectrum.lyapunov(
        lambda h, x: cell.step(params, h, x), cell.start(), xs, burn_in=100, key=cell_key
    ).exponents


def build(gain: jax.Array | float) -> gl.cells.Cell:
    """The network of the publication: the state is the potential."""
    return gl.cells.make(
        "leaky", inputs=1, hidden=WIDTH, dt=1.0, recurrent=gl.initializers.normal(gain)
    )


def flossed(gain: float, steps: int, seed: int) -> list[dict]:
    """A row per exponent, before and after."""
    draw, run, look = jax.random.split(jax.random.key(seed), 3)
    cell = build(gain)
    params = {"cell": cell.init(draw, jnp.float32)}
    training = gl.train(
        gl.remedies.flossing_penalty(cell, FLOSSED, burn_in=BURN_IN),
        params,
        lambda key, step: (jax.random.normal(key, (1, BURN_IN + steps, 1)), None),
        optax.adam(1e-3),
        steps=UPDATES,
        key=run,
    )
    if training.failure:
        raise ValueError(f"gain {gain}, seed {seed}: update {training.failure.step} is not finite")
    point = {"gain": gain, "steps": steps, "flossed": FLOSSED, "seed": seed}
    rows = []
    for stage, weights in (("before", params), ("after", training.params)):
        values = np.asarray(exponents(weights["cell"], look, draw), float)
        rows += [
            point | {"stage": stage, "index": i + 1, "exponent": value}
            for i, value in enumerate(values)
        ]
    return rows


def main() -> None:
    """Measures, and writes the frame, its summary and the figure."""
    began = time.monotonic()
    rows = []
    for gain, steps in POINTS:
        for seed in range(SEEDS):
            rows += flossed(gain, steps, seed)
        print(f"gain {gain}, T = {steps}: done", flush=True)
    frame = pd.DataFrame(rows)
    pulled = frame[frame["index"] <= FLOSSED].assign(square=lambda f: f["exponent"] ** 2)
    keys = ["gain", "steps", "stage"]
    table = pulled.groupby(keys, sort=False).agg(
        root_mean_square=("square", lambda x: np.sqrt(x.mean())),
        first=("exponent", lambda x: x[pulled.loc[x.index, "index"] == 1].mean()),
        last_pulled=("exponent", lambda x: x[pulled.loc[x.index, "index"] == FLOSSED].mean()),
    )
    (OUT / "figures").mkdir(parents=True, exist_ok=True)
    frame.to_csv(OUT / "exponents.csv", index=False, float_format="%.5g")
    seconds = {"seconds": round(time.monotonic() - began, 1)}
    (OUT / "seconds.json").write_text(json.dumps(seconds) + "\n", encoding="utf-8")
    table.reset_index().to_csv(OUT / "summary.csv", index=False, float_format="%.4g")
    gl.figures.save(gl.figures.flossing(frame), OUT / "figures" / "exponents", ("png",))
    print(table.to_string())


if __name__ == "__main__":
    main()
