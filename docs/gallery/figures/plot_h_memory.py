"""
Memory: what the state tells of an old input
============================================

Under noise in the state, a delay line without feedback from its end holds more Fisher information
on old inputs than a normal matrix can, for whose curve the sum is 1/ε. Beside it the share of an
old input that a linear readout recovers; its sum is at most the number of units.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

import gradlab as gl

n, lags, rows = 20, 40, []
line = jnp.diag(jnp.full(n - 1, 1.1), -1)
normal = 0.95 * gl.initializers.make("orthogonal")(jax.random.key(0), (n, n))
v = jnp.eye(n)[0]
networks = {
    "normal, linear": (normal, lambda a: a),
    "normal, tanh": (normal, jnp.tanh),
    "delay line, linear": (line, lambda a: a),
    "delay line, tanh": (line, jnp.tanh),
}
xs = jax.random.normal(jax.random.key(1), (3000,))
for name, (W, activation) in networks.items():

    def step(h, x, W=W, activation=activation):
        return activation(W @ h + v * x)

    _, states = jax.lax.scan(lambda h, x: (step(h, x),) * 2, jnp.zeros(n), xs)
    fisher = gl.spectrum.log_fisher_memory(step, jnp.zeros(n), xs[:200], noise=0.1, lags=lags)
    capacity = gl.spectrum.memory_capacity(states[200:], xs[200:], lags=lags)
    print(f"{name}: capacity {float(capacity.sum()):.1f} of {n}")
    columns = {"log_fisher": fisher, "capacity": capacity}
    rows.append(pd.DataFrame({"lag": np.arange(lags), "name": name} | columns))
fig = gl.figures.memory(pd.concat(rows))
