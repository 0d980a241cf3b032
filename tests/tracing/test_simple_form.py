"""The record is that of the simple form, in which JAX transposes the scan itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from simple_form import record

import gradlab as gl

T, N = 120, 3
XS = jax.random.normal(jax.random.key(0), (T, N))
W = jax.random.normal(jax.random.key(1), (3, N, N)) / np.sqrt(N)


def lstm_like(gain):
    def step(state, x):
        c, h = state
        i, f, g = (w @ h + x for w in gain * W)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return c, jnp.tanh(c) * jax.nn.sigmoid(i)

    return step, (jnp.zeros(N), jnp.zeros(N))


# Steps whose adjoints shrink, grow, stay, and go down and up again; and their first states.
STEPS = {
    "tanh": (lambda h, x: jnp.tanh(W[0] @ h + x), jnp.zeros(N)),
    "shrinks": (lambda h, x: 1e-9 * (W[0] @ h) + x, jnp.zeros(N)),
    "grows": (lambda h, x: 1e9 * (W[0] @ h) + x, jnp.zeros(N)),
    "turns": (lambda h, x: jnp.where(x[0] > 0, 1e8, 1e-8) * (W[1] @ h) + x, jnp.zeros(N)),
    "complex": (lambda h, x: jnp.exp(1j * x - 0.3) * h + x, jnp.zeros(N, complex)),
    "pair": lstm_like(1.5),
    "dies": (lambda h, x: jnp.where(x[0] > 1.5, 0.0, 0.9) * h + x, jnp.zeros(N)),
}
READS = {
    "last": lambda hs: sum(jnp.sum(h[-1]).real for h in jax.tree.leaves(hs)),
    "all": lambda hs: sum(jnp.sum(h.real @ jnp.arange(1.0, N + 1)) for h in jax.tree.leaves(hs)),
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("name", STEPS)
def test_the_record_is_that_of_the_simple_form(name, read):
    step, start = STEPS[name]

    def loss(xs):
        def body(h, x):
            h = step(h, x)
            return h, h

        return READS[read](jax.lax.scan(body, start, xs)[1])

    scan = gl.trace(loss)(XS).scans[0]
    want = record(step, start, XS, READS[read])
    got = {
        "total": scan.log_norm,
        "direct": scan.log_direct,
        "transported": scan.log_transported,
    }
    for part, log in got.items():
        np.testing.assert_allclose(log, want[part], rtol=1e-9, atol=1e-7, err_msg=part)
