"""
Depth: gradients layer by layer
===============================

Layers under a scan are traced as steps are. Their adjoints, and the gradients of each layer's
weights, against mean-field theory from the first layer on, dotted.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

import gradlab as gl

depth, n, seeds, rows = 20, 64, 8, []


def loss(W, x, direction):
    h, _ = jax.lax.scan(lambda h, W: (jnp.tanh(W @ h), None), x, W)
    return h @ direction


@jax.jit
@jax.vmap
def measure(gain, key):
    keys = jax.random.split(key, 3)
    W = gain / n**0.5 * jax.random.normal(keys[0], (depth, n, n))
    x = jax.random.normal(keys[1], (n,))
    out = gl.trace(loss)(W, x, jax.random.normal(keys[2], (n,)) / n**0.5)
    weights = jax.vmap(gl.training.log_norm)(out.grads)
    log_norm = out.scans[0].log_norm
    return log_norm - log_norm[-1], weights - log_norm[-1]


for gain in (0.9, 1.2, 2.0):
    measured = measure(jnp.full(seeds, gain), jax.random.split(jax.random.key(0), seeds))
    theory = gl.meanfield.layers("tanh", gain, depth, n)
    names = ("ln ‖λ$_l$‖ / ‖λ$_L$‖ (nats)", "ln ‖∂L/∂W$_l$‖ / ‖λ$_L$‖ (nats)")
    for quantity, values, exact in zip(names, measured, (theory.log_norm, theory.log_weights)):
        columns = {"layer": np.tile(np.arange(1, depth + 1), seeds), "value": np.ravel(values)}
        columns |= {"predicted": np.tile(exact, seeds), "quantity": quantity}
        rows.append(pd.DataFrame(columns | {"name": f"g = {gain}"}))
fig = gl.figures.depth(pd.concat(rows))
