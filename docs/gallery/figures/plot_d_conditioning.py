"""
Conditioning: the singular values of long products
==================================================

Each step of an orthogonal network turns gradients and stretches none; those of a Gaussian network
spread by one more factor at every lag, until float32 holds the largest alone. The logarithms stay
right far beyond.
"""

import functools

import jax
import numpy as np
import pandas as pd

import gradlab as gl

lags, frames = (1, 2, 5, 10, 20, 50, 100), {}
for init in ("normal", "orthogonal"):
    cell = gl.cells.make("elman", inputs=4, hidden=16, recurrent=gl.initializers.make(init))
    params = cell.init(jax.random.key(0))
    xs = 0.1 * jax.random.normal(jax.random.key(1), (150, 4))
    logs = gl.spectrum.log_singular_values_by_lag(
        functools.partial(cell.step, params), cell.start(), xs, lags=lags
    )
    lag, index = np.meshgrid(lags, range(1, 17), indexing="ij")
    columns = {"lag": lag.ravel(), "index": index.ravel()}
    frames[init] = pd.DataFrame(columns | {"log_value": np.ravel(logs)})

fig = gl.figures.conditioning(frames["normal"])

# %%
# The orthogonal network: its tanh saturates a little, and its weights spread nothing.

orthogonal = gl.figures.conditioning(frames["orthogonal"])
