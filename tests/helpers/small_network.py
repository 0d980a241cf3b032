"""A small tanh network in float64, for tests against dense derivatives."""

import jax.numpy as jnp
import numpy as np

HIDDEN, INPUTS, LENGTH = 4, 2, 12


def draw():
    """The generator, for what a test draws later, then parameters, inputs and the first state."""
    rng = np.random.default_rng(0)
    params = {
        "recurrent": jnp.asarray(rng.normal(size=(HIDDEN, HIDDEN)) * 0.8),
        "input": jnp.asarray(rng.normal(size=(HIDDEN, INPUTS))),
        "bias": jnp.asarray(rng.normal(size=HIDDEN)),
    }
    xs = jnp.asarray(rng.normal(size=(LENGTH, INPUTS)))
    return rng, params, xs, jnp.asarray(rng.normal(size=HIDDEN))


def step(params, h, x):
    return jnp.tanh(params["recurrent"] @ h + params["input"] @ x + params["bias"])
