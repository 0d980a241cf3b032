"""
Exponents: over training, and from stretch to stretch
=====================================================

The first Lyapunov exponents of a network while it learns, recorded by the way, and those of single
stretches of an orbit: what the exponents are the mean of.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

import gradlab as gl

task = gl.tasks.make("adding", length=20)
cell = gl.cells.make("elman", inputs=task.inputs, hidden=12)
net = gl.tasks.network(cell, task.outputs)
xs, _ = task.sample(jax.random.key(5))
record = gl.training.recorders.lyapunov(
    lambda params, *at: cell.step(params["cell"], *at), cell.start(), xs, k=3
)
run = gl.train(
    gl.tasks.batch_loss(net, task),
    net.init(jax.random.key(0)),
    gl.tasks.batch_sampler(task, 16),
    optax.adam(1e-2),
    steps=300,
    key=jax.random.key(1),
    has_aux=True,
    record={"exponents": record},
    record_every=10,
)
values = run.records["exponents"]
step, index = np.indices(values.shape)
columns = {"training_step": run.record_steps[step].ravel(), "index": index.ravel() + 1}
fig = gl.figures.exponents(pd.DataFrame(columns | {"exponent": np.ravel(values)}))

# %%
# Along an orbit of a chaotic network, 50 steps at a time:

W = 2.0 * jax.random.normal(jax.random.key(0), (32, 32)) / 32**0.5
found = gl.spectrum.finite_time_exponents(
    lambda h: jnp.tanh(W @ h), jnp.ones(32), steps=2000, burn_in=200, window=50, k=3
)
window, index = np.indices(found.shape)
columns = {"step": window.ravel() * 50 + 50, "index": index.ravel() + 1}
stretches = gl.figures.exponents(pd.DataFrame(columns | {"exponent": np.ravel(found)}), "step")
