"""
Reading: what a network does with one sentence
==============================================

The state, the gates, and below how much the loss depends on the state after each word: ln of
the total gradient's norm. Any traced model can be drawn so; this one is a GRU with random
weights.
"""

import jax
import jax.numpy as jnp

import gradlab as gl

words = "the film was slow at first and then it was wonderful".split()
vectors = {word: jax.random.normal(jax.random.key(i), (8,)) for i, word in enumerate(set(words))}
xs = jnp.stack([vectors[word] for word in sorted(vectors)])[
    jnp.array([sorted(vectors).index(word) for word in words])
]
cell = gl.cells.make("gru", inputs=8, hidden=24)
params = cell.init(jax.random.key(0))


def loss(params):
    def body(h, x):
        new = cell.step(params, h, x)
        return new, (new, cell.gate_values(params, h, x))

    last, seen = jax.lax.scan(body, cell.start(), xs)
    return jnp.sum(last), seen


out = gl.trace(loss, has_aux=True)(params)
states, gates = out.aux
fig = gl.figures.reading(words, states, gates, out.scans[0].log_norm)
