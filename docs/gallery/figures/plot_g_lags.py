"""
Lags: how far back a gradient comes from
========================================

The gradient of a sum of losses, split by how many steps it was carried back, for two gains: what
each lag adds, and what backpropagation that is truncated there would give.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

import gradlab as gl

length, lags, seeds, rows = 60, 25, 4, []
orthogonal = gl.initializers.make("orthogonal")
cell = gl.cells.make("elman", inputs=2, hidden=16, recurrent=orthogonal)


def loss(params, h, x):
    return jnp.mean((h - x[:1]) ** 2)


@jax.jit
@jax.vmap
def measure(gain, key):
    params = cell.init(key)
    params |= {"recurrent": gain * params["recurrent"]}
    xs = 0.5 * jax.random.normal(key, (length, 2))
    found = gl.spectrum.gradient_by_lag(cell.step, loss, params, cell.start(), xs, lags=lags)
    return found.share, found.cosine, found.error, found.horizon()


for gain in (0.7, 0.95):
    keys = jax.random.split(jax.random.key(0), seeds)
    *values, horizons = measure(jnp.full(seeds, gain), keys)
    print(f"gain {gain}: effective horizons of {horizons.astype(int).tolist()} steps")
    columns = dict(zip(("share", "cosine", "error"), map(np.ravel, values)))
    columns |= {"lag": np.tile(np.arange(lags), seeds), "name": f"g = {gain}"}
    rows.append(pd.DataFrame(columns))
fig = gl.figures.lags(pd.concat(rows))
