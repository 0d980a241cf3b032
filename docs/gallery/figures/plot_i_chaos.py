"""
Chaos: exponent, dimension and entropy against gain
===================================================

A random tanh network is quiet below a gain of 1 and chaotic above. The Kaplan-Yorke dimension and
the entropy rate grow with the number of units: divided by it, networks of several widths agree.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

import gradlab as gl


def measure(n, gain, key):
    W = gain * jax.random.normal(key, (n, n)) / n**0.5
    start = jax.random.normal(jax.random.fold_in(key, 1), (n,))
    found = gl.spectrum.lyapunov(
        lambda h: jnp.tanh(W @ h), start, steps=400, burn_in=200, qr_every=2
    )
    return found.exponents[0], found.kaplan_yorke, found.entropy_rate


rows = []
for n in (16, 32):
    gains = jnp.repeat(jnp.array([0.6, 0.9, 1.2, 1.5, 2.0, 3.0]), 4)
    keys = jax.random.split(jax.random.key(n), len(gains))
    values = jax.jit(jax.vmap(partial(measure, n)))(gains, keys)
    columns = dict(zip(("gain", "exponent", "dimension", "entropy"), (gains, *values)))
    columns = {name: np.asarray(column) for name, column in columns.items()}
    rows.append(pd.DataFrame(columns | {"hidden": n}))
fig = gl.figures.chaos(pd.concat(rows))
