"""Why order needs memory: accuracy on `word_order` against distance, and what the trace foresees.

    python experiments/word_order.py

"O carro parou antes do acidente ocorrer": which of two words comes first decides, and no word does.
A bag of words stays at chance at every distance; a convolution over 5 words sees the order of what
is less than 5 words apart; what a recurrent network learns is measured here. `reach` is measured
before training: ln of the norm of the adjoint `distance` steps before the end, relative to that at
the end. What results/order holds already is not run again.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

import gradlab as gl

OUT = Path(__file__).parents[1] / "results" / "order"
MODELS = ("bag of words", "convolution", "elman", "lstm", "gru")
DISTANCES = (1, 2, 4, 8, 16, 32, 64)
SEEDS = (0,)
HIDDEN, WINDOW, BATCH, UPDATES, MORE = 32, 5, 64, 1_000, 28


def network(name: str, inputs: int, outputs: int) -> gl.tasks.Network:
    """A model by its name; the two without a state have the same form as a network."""
    if name not in ("bag of words", "convolution"):
        return gl.tasks.network(gl.cells.make(name, inputs=inputs, hidden=HIDDEN), outputs)
    width = 1 if name == "bag of words" else WINDOW

    def init(key, dtype=None):
        k_filters, k_readout = jax.random.split(key)
        filters = jax.random.normal(k_filters, (HIDDEN, width * inputs)) * (width * inputs) ** -0.5
        return {
            "filters": filters,
            "bias": jnp.zeros(HIDDEN),
            "readout": jax.random.normal(k_readout, (outputs, HIDDEN)) * HIDDEN**-0.5,
        }

    def apply(params, xs):
        rows = [jnp.roll(xs, k, axis=0).at[:k].set(0) for k in range(width)]
        responses = jnp.concatenate(rows, axis=1) @ params["filters"].T + params["bias"]
        return params["readout"] @ jnp.max(jax.nn.relu(responses), axis=0)

    return gl.tasks.Network(init, apply)


def reach(net: gl.tasks.Network, params, task, distance: int) -> float:
    """ln(‖λ_{T-distance}‖ / ‖λ_T‖) before training, the mean over 32 sequences."""
    xs, target = jax.vmap(task.sample)(jax.random.split(jax.random.key(7), 32))

    def loss(params, xs, target):
        return jnp.mean(jax.vmap(lambda x, y: task.loss(net.apply(params, x), y))(xs, target))

    log_norm = gl.trace(loss, argnums=(), batch_axis=0)(params, xs, target).scans[0].log_norm
    return float(jnp.mean(log_norm[-1 - distance] - log_norm[-1]))


def run(name: str, distance: int, seed: int) -> dict[str, object]:
    """Train one model; the row of it."""
    task = gl.tasks.make("word_order", length=distance + MORE, distance=distance)
    net = network(name, task.inputs, task.outputs)
    params = net.init(jax.random.fold_in(jax.random.key(seed), distance))
    recurrent = name in ("elman", "lstm", "gru")
    foreseen = reach(net, params, task, distance) if recurrent else np.nan
    optimizer = optax.chain(gl.remedies.clip(norm=1.0), optax.adam(3e-3))
    done = gl.train(
        gl.tasks.batch_loss(net, task), params, gl.tasks.batch_sampler(task, BATCH), optimizer,
        steps=UPDATES, key=jax.random.key(seed), has_aux=True,
    )  # fmt: skip
    xs, target = jax.vmap(task.sample)(jax.random.split(jax.random.key(999), 2_000))
    says = jax.vmap(lambda x: net.apply(done.params, x))(xs).argmax(-1)
    row = {"model": name, "distance": distance, "seed": seed, "length": task.length}
    return row | {"accuracy": float((says == target).mean()), "reach": foreseen}


def main() -> None:
    """Runs what is missing, and draws."""
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / "accuracy.csv"
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    done = {(row["model"], row["distance"], row["seed"]) for row in rows}
    for distance in DISTANCES:
        for name in MODELS:
            for seed in SEEDS:
                if (name, distance, seed) not in done:
                    rows.append(run(name, distance, seed))
                    print(rows[-1], flush=True)
                    pd.DataFrame(rows).to_csv(path, index=False, float_format="%.6g")
    gl.figures.save(gl.figures.word_order(pd.DataFrame(rows)), OUT / "order")


if __name__ == "__main__":
    main()
