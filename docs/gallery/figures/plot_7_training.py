"""
Training: the gradient while a network learns
=============================================

The loss, and below it ln of the gradient's norm at every lag and update: a network that starts
to remember shows as a colour that spreads to longer lags.
"""

import jax
import optax

import gradlab as gl

task = gl.tasks.make("adding", length=30)
cell = gl.cells.make("gru", inputs=task.inputs, hidden=32)
net = gl.tasks.network(cell, task.outputs)
run = gl.train(
    gl.tasks.batch_loss(net, task),
    net.init(jax.random.key(0)),
    gl.tasks.batch_sampler(task, 32),
    optax.chain(gl.remedies.clip(norm=1.0), optax.adam(1e-2)),
    steps=400,
    key=jax.random.key(1),
    has_aux=True,
    trace_every=10,
)
fig = gl.figures.training(
    gl.frame(run), gl.frames.metrics(run), baselines=task.baselines
)
