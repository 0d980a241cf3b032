"""
Numbers: a measurement of your own
==================================

A function whose arguments are axes is a measurement: its sweep is stored, resumed and drawn as
any other, the numbers that it returns against the axis that varies most.
"""

import tempfile

import jax.numpy as jnp

import gradlab as gl


@gl.sweeps.measurement
def largest_eigenvalue(gain, hidden=32, seed=0):
    """The spectral radius of a Gaussian matrix, against the circular law's."""
    import jax

    matrix = gl.initializers.normal(gain=gain)(jax.random.key(seed), (hidden, hidden))
    return {"radius": jnp.max(jnp.abs(jnp.linalg.eigvals(matrix)))}


spec = {"measurement": "largest_eigenvalue", "gain": [0.5, 1.0, 1.5, 2.0], "hidden": [8, 32, 128]}
with tempfile.TemporaryDirectory() as folder:
    report = gl.sweep(spec, folder, set={"seeds": 8})
    runs = report.results.runs
table = runs.groupby(["gain", "hidden"])["radius"].median().unstack()
print(table.round(2))

# %%
# The columns are the widths: the wider the matrix, the nearer its radius is to the gain.

from matplotlib.figure import Figure

fig = Figure(figsize=(4, 3), layout="constrained")
ax = fig.subplots()
table.plot(ax=ax, marker="o")
ax.plot(table.index, table.index, "k--", label="circular law")
ax.set(xlabel="gain", ylabel="spectral radius")
ax.legend(title="width")
