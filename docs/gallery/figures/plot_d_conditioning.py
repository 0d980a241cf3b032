"""
Conditioning: the singular values of long products
==================================================

Each step of an orthogonal network turns gradients and stretches none; those of a Gaussian network
spread by one more factor at every lag, until float32 holds the largest alone. The logarithms stay
right far beyond. A sweep has the largest, the smallest and their ratio as columns by
`measurement = "conditioning"`; all of them, as drawn here, take a measurement of one's own.
"""

import functools
import tempfile

import jax
import numpy as np

import gradlab as gl

lags = (1, 2, 5, 10, 20, 50, 100)


@gl.sweeps.measurement
def singular_values(init, hidden=16, seed=0):
    """The condition number of 100 steps, and the singular values by lag."""
    matrix = gl.initializers.make(init)
    cell = gl.cells.make("elman", inputs=4, hidden=hidden, recurrent=matrix)
    params = cell.init(jax.random.key(seed))
    xs = 0.1 * jax.random.normal(jax.random.key(seed + 100), (150, 4))
    logs = gl.spectrum.log_singular_values_by_lag(
        functools.partial(cell.step, params), cell.start(), xs, lags=lags
    )
    lag, index = np.meshgrid(lags, range(1, hidden + 1), indexing="ij")
    steps = {"lag": lag.ravel(), "index": index.ravel(), "log_value": np.ravel(logs)}
    return {"log_condition": logs[-1, 0] - logs[-1, -1], "steps": steps}


spec = {"measurement": "singular_values", "init": ["normal", "orthogonal"]}
with tempfile.TemporaryDirectory() as folder:
    results = gl.sweep(spec, folder).results
print(results.runs[["init", "log_condition"]])
steps = results.steps.merge(results.runs[["run_id", "init"]], on="run_id")
fig = gl.figures.conditioning(steps[steps["init"] == "normal"])

# %%
# The orthogonal network: its tanh saturates a little, and its weights spread nothing.

orthogonal = gl.figures.conditioning(steps[steps["init"] == "orthogonal"])
