"""
Curvature: the Hessian over training, and what Adam makes of it
===============================================================

The largest eigenvalues of the Hessian while a small network learns, by Lanczos; the learning rate
that Adam gives each parameter; and the blocks of the Hessian at the end.
"""

import jax
import numpy as np
import optax
import pandas as pd

import gradlab as gl

task = gl.tasks.make("adding", length=15)
cell = gl.cells.make("elman", inputs=task.inputs, hidden=8)
net = gl.tasks.network(cell, task.outputs)
loss, sample = gl.tasks.batch_loss(net, task), gl.tasks.batch_sampler(task, 32)
batch = sample(jax.random.key(9), 0)
largest = gl.training.recorders.hessian_eigenvalues(loss, batch, k=3, has_aux=True)
optimizer, key = optax.adam(1e-2), jax.random.key(1)

rows, rates, state = [], [], gl.training.start(net.init(jax.random.key(0)), optimizer, key)
largest = jax.jit(largest)
more = jax.jit(lambda s: gl.training.advance(loss, sample, optimizer, s, 25, has_aux=True)[0])
for _ in range(8):
    state, step = more(state), int(state.step) + 25
    columns = {"training_step": step, "index": [1, 2, 3], "eigenvalue": largest(state.params)}
    rows.append(pd.DataFrame(columns))
    found = gl.training.effective_rates(state.opt_state, 1e-2, b2=0.999)
    for path, leaf in jax.tree.leaves_with_path(found):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        columns = {"training_step": step, "leaf": name, "rate": np.ravel(leaf)}
        rates.append(pd.DataFrame(columns))

whole = gl.spectrum.hessian(lambda params: loss(params, batch)[0], state.params)
names = pd.MultiIndex.from_product([whole.names] * 2, names=["row", "column"])
blocks = pd.Series(np.ravel(whole.log_norms), names, name="log_norm").reset_index()
fig = gl.figures.curvature(pd.concat(rows), rates=pd.concat(rates), blocks=blocks)
