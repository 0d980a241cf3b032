"""Bodies whose state and outputs come out of one equation, against an unrolled loop."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab as gl

STEPS, BATCH, WIDTH = 6, 2, 3


class Model(NamedTuple):
    """A step in the two parts that trace has to find in it."""

    advance: Callable  # params, state, x -> state, what else the outputs need
    readout: Callable  # params, state, that, x -> outputs

    def body(self, params, state, x):
        new, more = self.advance(params, state, x)
        return new, self.readout(params, new, more, x)


def gated(params, state, x):
    c, h = state
    gate = jax.nn.sigmoid(h @ params["w"] + x)
    c = gate * c + (1 - gate) * jnp.tanh(x @ params["v"])
    return (c, gate * jnp.tanh(c)), gate


def read_all(params, state, gate, x):
    """An output that is a leaf, one that reads both leaves and one that reads a gate."""
    c, h = state
    return h, jnp.tanh(h @ params["v"]) * c, gate


def looping(params, state, x):
    """A scan inside makes the state."""
    state, gates = jax.lax.scan(lambda s, _: gated(params, s, x), state, None, length=2)
    return state, gates[-1]


def masked(params, state, x):
    new, gate = gated(params, state, x)
    mask = x[:, :1] > 0
    return tuple(jnp.where(mask, n, o) for n, o in zip(new, state, strict=True)), gate


LSTM = Model(gated, read_all)
KEEP = Model(
    lambda params, state, x: (state, x),
    lambda params, state, x, _: (state[1], state[0] * jnp.sin(x), jnp.ones_like(x)),
)
HALVE = Model(
    lambda params, state, x: ((0.5 * state[0], jnp.zeros_like(x)), state[1]),
    lambda params, state, old, x: (state[0] * x, jnp.sin(state[1]), old),
)


def switch(*models):
    def number(x):
        return (x.sum() > 0).astype(int) + (len(models) > 2) * (x.sum() > 2).astype(int)

    def advance(params, state, x):
        branches = [lambda s, x, f=m.advance: f(params, s, x) for m in models]
        return jax.lax.switch(number(x), branches, state, x)

    def readout(params, state, more, x):
        branches = [lambda s, m, x, f=m.readout: f(params, s, m, x) for m in models]
        return jax.lax.switch(number(x), branches, state, more, x)

    def body(params, state, x):
        branches = [lambda s, x, f=m.body: f(params, s, x) for m in models]
        return jax.lax.switch(number(x), branches, state, x)

    return Model(advance, readout), body


def twice(params, state, x):
    """As keras masks: the output is the new state, computed again."""
    new, (_, readout, gate) = LSTM.body(params, state, x)
    mask = x[:, :1] > 0
    ours = tuple(jnp.where(mask, n, o) for n, o in zip(new, state, strict=True))
    return ours, (jnp.where(mask, new[1], state[1]), jnp.ones_like(x), gate)


def layered(params, state, x):
    """A call inside a call, and equations on either side of it."""
    new, (h, readout, gate) = jax.checkpoint(switch(LSTM, KEEP)[1])(params, state, 2 * x)
    return new, (jnp.sin(h), h + readout, gate)


def around(params, state, more, x):
    h, readout, gate = switch(LSTM, KEEP)[0].readout(params, state, more, 2 * x)
    return jnp.sin(h), h + readout, gate


MASKED = Model(masked, lambda params, state, gate, x: (state[1], jnp.ones_like(x), gate))
LAYERED = Model(lambda p, s, x: switch(LSTM, KEEP)[0].advance(p, s, 2 * x), around)
LOOPING = Model(looping, read_all)
remat = jax.checkpoint
CASES = {
    "plain": (LSTM, LSTM.body),
    "remat": (LSTM, remat(LSTM.body)),
    "remat with a policy": (
        LSTM,
        remat(LSTM.body, policy=jax.checkpoint_policies.dots_saveable, prevent_cse=False),
    ),
    "remat of jit": (LSTM, remat(jax.jit(LSTM.body))),
    "remat of a scan": (LOOPING, remat(LOOPING.body)),
    "cond": switch(LSTM, KEEP),
    "switch": switch(LSTM, KEEP, HALVE),
    "remat of a switch": (switch(HALVE, LSTM)[0], remat(switch(HALVE, LSTM)[1])),
    "layered": (LAYERED, layered),
    "masked twice": (MASKED, twice),
    "remat of masked twice": (MASKED, remat(twice)),
}


def arguments():
    w, v, x = jax.random.split(jax.random.key(0), 3)
    params = {name: jax.random.normal(k, (WIDTH, WIDTH)) for name, k in (("w", w), ("v", v))}
    return params, jax.random.normal(x, (STEPS, BATCH, WIDTH))


def start():
    return 0.3 * jnp.ones((BATCH, WIDTH)), jnp.full((BATCH, WIDTH), -0.2)


def score(state, ys):
    weights = jnp.cos(jnp.arange(STEPS * BATCH * WIDTH)).reshape(STEPS, BATCH, WIDTH)
    return sum(jnp.sum(weights * jnp.sin(y)) for y in ys) + sum(jnp.sum(s) for s in state)


def unrolled(model, total, direct, params, xs):
    """`total` reaches all that comes after a state, `direct` its own step's outputs alone."""
    state, rows = start(), []
    for t, x in enumerate(xs):
        state, more = model.advance(params, state, x)
        state = tuple(s + k[t] for s, k in zip(state, total, strict=True))
        seen = tuple(s + k[t] for s, k in zip(state, direct, strict=True))
        rows.append(model.readout(params, seen, more, x))
    return score(seen, [jnp.stack(column) for column in zip(*rows, strict=True)])


@functools.cache
def adjoints(model):
    """Of all that comes after each state, and of its own step's outputs; of a model once."""
    params, xs = arguments()
    zeros = (jnp.zeros_like(xs),) * 2
    return jax.jit(jax.grad(lambda t, d: unrolled(model, t, d, params, xs), (0, 1)))(zeros, zeros)


RUNS = [(case, {}) for case in CASES]
RUNS += [("layered", {"batch_axis": 0}), ("remat of a switch", {"segment": 4})]


@pytest.mark.parametrize(("case", "options"), RUNS, ids=lambda x: str(x))
def test_against_an_unrolled_loop(case, options):
    model, body = CASES[case]
    params, xs = arguments()

    def loss(params, xs):
        return score(*jax.lax.scan(lambda s, x: body(params, s, x), start(), xs))

    total, direct = adjoints(model)
    out = gl.trace(loss, (0, 1), **options)(params, xs)
    value, grads = jax.jit(jax.value_and_grad(loss, (0, 1)))(params, xs)
    np.testing.assert_allclose(out.value, value, rtol=1e-13)
    for ours, theirs in zip(*map(jax.tree.leaves, (out.grads, grads)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)

    def norms(leaves):
        stacked = np.stack(leaves)
        kept = (0, 3) if "batch_axis" in options else (0, 2, 3)
        return np.sqrt(np.square(stacked).sum(axis=kept))

    scan = out.scans[0]
    transported = [t - d for t, d in zip(total, direct, strict=True)]
    for logs, exact in (
        (scan.log_norm, total),
        (scan.log_direct, direct),
        (scan.log_transported, transported),
    ):
        np.testing.assert_allclose(np.exp(logs), norms(exact), rtol=1e-9, atol=1e-12)
    for name, exact in zip(scan.leaves, total, strict=True):
        np.testing.assert_allclose(np.exp(scan.leaves[name]), norms([exact]), rtol=1e-9)


def test_remat_keeps_fewer_residuals():
    """Cut in two, a body under remat is still run again in the backward pass."""
    params, xs = arguments()

    def size(body):
        def loss(params, xs):
            state, ys = jax.lax.scan(lambda s, x: body(params, s, x), start(), xs)
            return sum(jnp.sum(jnp.sin(y)) for y in ys) + jnp.sum(state[1])

        traced = jax.jit(gl.trace(loss)).lower(params, jnp.tile(xs, (100, 1, 1)))
        return traced.compile().memory_analysis().temp_size_in_bytes

    def deep(params, state, x):
        for _ in range(8):
            state, _ = gated(params, state, x)
        return LSTM.body(params, state, x)

    assert size(remat(deep)) < 0.5 * size(deep)
