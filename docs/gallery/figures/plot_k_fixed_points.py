"""
Fixed points: where a network rests
===================================

Two bits that hold themselves. From states along an orbit the search finds the four that are stable,
the saddles between them and the repeller in the middle, each with the eigenvalues of its Jacobian.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

import gradlab as gl

W = jnp.array([[2.0, 0.3], [-0.3, 2.0]])


def step(h, x):
    return jnp.tanh(W @ h + x)


pulses = jax.random.normal(jax.random.key(0), (400, 2))
pulses = jnp.where(jax.random.uniform(jax.random.key(1), (400, 2)) < 0.2, 2 * pulses, 0)
_, orbit = jax.lax.scan(lambda h, x: (step(h, x),) * 2, jnp.zeros(2), pulses)
starts = jnp.concatenate([orbit[::4], jax.random.uniform(jax.random.key(2), (60, 2)) * 2 - 1])
found = gl.spectrum.fixed_points(step, starts, jnp.zeros(2))
distinct = np.flatnonzero((found.group == np.arange(len(starts))) & found.found)
h, values = np.asarray(found.states)[distinct], np.asarray(found.eigenvalues)[distinct]
unstable = np.asarray(found.unstable)[distinct]
print(f"{len(distinct)} fixed points, {np.bincount(unstable)} with 0, 1, 2 unstable directions")
fig = gl.figures.fixed_points(
    pd.DataFrame({"x": h[:, 0], "y": h[:, 1], "unstable": unstable}),
    pd.DataFrame(
        {
            "real": values.real.ravel(),
            "imaginary": values.imag.ravel(),
            "unstable": np.repeat(unstable, 2),
        }
    ),
    pd.DataFrame({"x": orbit[:, 0], "y": orbit[:, 1]}),
)
