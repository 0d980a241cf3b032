"""
Entries: what a unit remembers of itself, and of the others
===========================================================

The entries of ∂h_t/∂h_0. In a network of independent units all is on the diagonal; a random matrix
mixes, so that after a few steps a unit depends on all others as much as on itself.
"""

import functools

import jax
import numpy as np
import pandas as pd

import gradlab as gl

n, length = 12, 30
init = gl.initializers.make("identity", gain=0.95)
cell = gl.cells.make("elman", inputs=2, hidden=n, recurrent=init)
params = cell.init(jax.random.key(0))
noise = 0.02 * jax.random.normal(jax.random.key(1), (n, n))
params |= {"recurrent": params["recurrent"] + noise}
xs = 0.3 * jax.random.normal(jax.random.key(2), (length, 2))
logs = gl.spectrum.log_jacobian(functools.partial(cell.step, params), cell.start(), xs)
step, row, column = np.indices(logs.shape)
entries = {"step": step.ravel() + 1, "row": row.ravel(), "column": column.ravel()}
fig = gl.figures.entries(pd.DataFrame(entries | {"log_entry": np.ravel(logs)}))
