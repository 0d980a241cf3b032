"""
Newton: can this recurrence be solved in parallel?
==================================================

Newton's iteration finds all states at once. Below an exponent of 0 it takes a few iterations,
however long the sequence; above, nearly as many as there are steps. The condition, which follows
from the exponent alone, says so before one tries.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

import gradlab as gl

n = 16
W = jax.random.normal(jax.random.key(0), (n, n)) / n**0.5
start = jax.random.normal(jax.random.key(1), (n,))


def measure(length, gain):
    def step(h, x):
        return jnp.tanh(gain * W @ h + x)

    xs = jnp.zeros((length, n))
    exponent = gl.spectrum.lyapunov(step, start, xs, k=1, burn_in=28).exponents[0]
    return exponent, gl.spectrum.newton(step, start, xs).steps


rows = []
for length in (128, 512):
    gains = jnp.linspace(0.4, 4.0, 19)
    exponents, steps = jax.jit(jax.vmap(partial(measure, length)))(gains)
    condition = gl.spectrum.log_newton_condition(exponents, length)
    columns = {"exponent": exponents, "steps": steps, "log_condition": condition}
    columns = {name: np.asarray(column) for name, column in columns.items()}
    rows.append(pd.DataFrame(columns | {"length": length}))
fig = gl.figures.newton(pd.concat(rows))
