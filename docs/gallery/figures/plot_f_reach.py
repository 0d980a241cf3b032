"""
Reach: whose loss reaches whom
==============================

A loss at every step, and how large its gradient is at each state before it. A row is one state, a
diagonal one loss: lines along the diagonals are losses that reach less far than their neighbours.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

import gradlab as gl

length = 60
cell = gl.cells.make("gru", inputs=2, hidden=16)
params = cell.init(jax.random.key(0))
xs = jax.random.normal(jax.random.key(1), (length, 2))


def loss(params, h, x):
    return jnp.mean(h**2)


found = gl.spectrum.gradient_by_lag(cell.step, loss, params, cell.start(), xs)
step, lag = np.indices(found.reach.shape)
columns = {"step": step.ravel() + 1, "lag": lag.ravel()}
fig = gl.figures.reach(pd.DataFrame(columns | {"log_norm": np.ravel(found.reach)}))
