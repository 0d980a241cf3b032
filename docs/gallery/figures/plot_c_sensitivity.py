"""
Sensitivity: what the weights see, forwards and backwards
=========================================================

A linear recurrence h = a h + x under an input that keeps the size of h. As a goes to 1 the adjoint
vanishes no longer, and what a small change of a does to the state grows like 1/(1 - a): a long
memory is hard to learn also where no gradient vanishes or explodes.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

import gradlab as gl

length, seeds, rows = 300, 5, []


def step(a, h, x):
    return a * h + x


def loss(a, xs):
    return jax.lax.scan(lambda h, x: (step(a, h, x), None), jnp.float32(0), xs)[0]


@jax.jit
def measure(a):
    xs = jax.random.normal(jax.random.key(0), (seeds, length)) * (1 - a**2) ** 0.5
    forwards = jax.vmap(lambda xs: gl.spectrum.log_sensitivity(step, a, 0.0, xs))(xs)
    backwards = jax.vmap(lambda xs: gl.trace(loss, argnums=())(a, xs).scans[0].log_norm)(xs)
    return {"forwards": forwards, "backwards": backwards}


for a in (0.8, 0.95, 0.99):
    for side, values in measure(jnp.float32(a)).items():
        steps = {"step": np.tile(np.arange(length) + 1, seeds), "log_norm": np.ravel(values)}
        rows.append(pd.DataFrame(steps | {"side": side, "name": f"a = {a}"}))
fig = gl.figures.sensitivity(pd.concat(rows))
