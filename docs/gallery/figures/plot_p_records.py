"""
Records: what training does to the weights
==========================================

`gl.train(record=...)` calls functions of the parameters as it goes: here the spectral radius and
the singular values of the recurrent matrix, and the norm of the gradient of each leaf. A sweep of
training does the same with the axis `record`, and `gl.figures.records(results)` draws it, a row of
panels for each network.
"""

import jax
import jax.numpy as jnp
import optax

import gradlab as gl
from gradlab.training import recorders

task = gl.tasks.make("adding", length=20)
cell = gl.cells.make("elman", inputs=2, hidden=16)
net = gl.tasks.network(cell, 1)
loss = gl.tasks.batch_loss(net, task)
sample = gl.tasks.batch_sampler(task, 16, jnp.float32)

record = {
    "spectral_radius": recorders.spectral_radius(lambda params: params["cell"]["recurrent"]),
    "singular_values": recorders.singular_values(lambda params: params["cell"]["recurrent"]),
    "log_gradient_norms": recorders.log_gradient_norms(
        loss, sample(jax.random.key(2), 0), has_aux=True
    ),
}
run = gl.train(
    loss, net.init(jax.random.key(0), jnp.float32), sample, optax.adam(0.01),
    steps=100, key=jax.random.key(1), has_aux=True, record=record, record_every=10,
)  # fmt: skip
fig = gl.figures.records(gl.frames.records(run))
