"""The record is that of the simple form, in which JAX transposes the scan itself.

The steps are some that are written out, and random ones whose adjoints go up and down by hundreds
of nats.
"""

import functools
import os

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from simple_form import record

import gradlab as gl
from gradlab.tracing import _pull

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
WEIGHTS = {
    "last": np.zeros((T, N)) + (np.arange(T) == T - 1)[:, None],
    "all": np.zeros((T, N)) + np.arange(1.0, N + 1),
}


def both_forms(step, start):
    """Our record and that of the simple form, as functions of the inputs and what is read."""

    def read(weights, hs):
        return sum(jnp.sum(weights * (h.real + 0.5 * h.imag)) for h in jax.tree.leaves(hs))

    def loss(xs, weights):
        def body(h, x):
            h = step(h, x)
            return h, h

        return read(weights, jax.lax.scan(body, start, xs)[1])

    @jax.jit
    def simple(xs, weights):
        return record(step, start, xs, functools.partial(read, weights))

    return gl.trace(loss), simple


def check(forms, xs, weights):
    ours, simple = forms
    (scan,), want = ours(xs, weights).scans, simple(xs, weights)
    got = {
        "total": scan.log_norm,
        "direct": scan.log_direct,
        "transported": scan.log_transported,
    }
    for part, log in got.items():
        np.testing.assert_allclose(log, want[part], rtol=1e-9, atol=1e-7, err_msg=part)
    return scan


@pytest.mark.parametrize("name", STEPS)
def test_the_record_is_that_of_the_simple_form(name):
    forms = both_forms(*STEPS[name])
    for weights in WEIGHTS.values():
        check(forms, XS, weights)


# Random steps, drawn as descriptions. What a program reads and how its adjoints grow are arguments:
# so a step is compiled once, and many growths and reads are tried on it.

MAPS = {
    "tanh": lambda a, b, w: jnp.tanh(a),
    "product": lambda a, b, w: w @ a,
    "gate": lambda a, b, w: a * jax.nn.sigmoid(b),
    "sum": lambda a, b, w: a + 0.5 * b,
    "turn": lambda a, b, w: jnp.roll(a, 1) - 0.1 * b,
    "sine": lambda a, b, w: a + 0.3 * jnp.sin(b),
    "where": lambda a, b, w: jnp.where(b > 0, a, 0.7 * a),
}
# Of each leaf: what is done to it and its neighbour, and whether it is complex.
LEAVES = (
    (("product", "tanh"), False),
    (("gate", "turn"), False),
    (("sine", "product"), True),
    (("sum", "where"), False),
)


def advance(leaves, state, row):
    x, growth, w = row
    names = sorted(state)
    new = {}
    for name, (kinds, is_complex) in zip(names, leaves, strict=True):
        a, b = state[name], state[names[names.index(name) - 1]].real
        for kind in kinds:
            real = MAPS[kind](a.real, b, w)
            a = jax.lax.complex(real, 0.9 * a.imag + 0.1 * real) if is_complex else real
        # The derivative grows and the state stays, so that it is in range at any growth.
        here = jax.lax.stop_gradient(a)
        new[name] = growth * (a - here) + jnp.tanh(here.real) + x
    return new


@functools.cache
def random_forms(leaves):
    start = {str(i): jnp.zeros(N, complex if each[1] else float) for i, each in enumerate(leaves)}
    return both_forms(functools.partial(advance, leaves), start)


def drawn_leaves():
    kinds = st.lists(st.sampled_from(sorted(MAPS)), min_size=1, max_size=3).map(tuple)
    return st.lists(st.tuples(kinds, st.booleans()), min_size=1, max_size=3).map(tuple)


LONG = "GRADLAB_LONG" in os.environ  # or two steps, which take a second each to compile


@hypothesis.settings(
    max_examples=150 if LONG else 15, derandomize=not LONG, database=None, deadline=None
)
@hypothesis.given(
    leaves=drawn_leaves() if LONG else st.sampled_from([LEAVES[:2], LEAVES[2:]]),
    reads=st.lists(st.integers(0, T - 1), max_size=3),
    rates=st.tuples(*[st.sampled_from([-9.0, -4.0, -0.5, 0.0, 0.5, 4.0, 9.0])] * 3),
    seed=st.integers(0, 99),
)
@hypothesis.example(LEAVES[:2], [], (9.0, 9.0, 9.0), 0)
@hypothesis.example(LEAVES[:2], [0, 60], (-9.0, -9.0, -9.0), 0)
@hypothesis.example(LEAVES[2:], [], (-9.0, 9.0, -9.0), 1)
def test_random_steps_have_the_record_of_the_simple_form(leaves, reads, rates, seed):
    """The adjoints grow by these rates, in nats per step, in the thirds of the sequence."""
    keys = jax.random.split(jax.random.key(seed), 3)
    xs = (
        0.3 * jax.random.normal(keys[0], (T, N)),
        jnp.exp(jnp.repeat(jnp.array(rates), T // 3)),
        jnp.linalg.qr(jax.random.normal(keys[1], (T, N, N)))[0],
    )
    at = jnp.array([T - 1, *reads])
    weights = jnp.zeros((T, 1)).at[at].set(1.0) * jax.random.normal(keys[2], (T, N))
    scan = check(random_forms(leaves), xs, weights)
    if not reads and rates in [(9.0,) * 3, (-9.0,) * 3]:
        assert abs(scan.log_norm[0] - scan.log_norm[-1]) > 700


@pytest.mark.parametrize("name", ["tanh", "turns", "pair", "dies"])
def test_long_scans_of_samples_have_the_record_of_short_ones(name, monkeypatch):
    """From T = 129 on chunks run in one unit, of each sample its own; before that, every step."""
    step, start = STEPS[name]
    xs = jax.random.normal(jax.random.key(5), (2, 200, N))

    def loss(xs):
        def one(xs):
            def body(h, x):
                h = step(h, x)
                return h, h

            h, hs = jax.lax.scan(body, start, xs)
            return sum(
                jnp.sum(h) + 0.1 * jnp.sum(hs)
                for h, hs in zip(*map(jax.tree.leaves, (h, hs)), strict=True)
            )

        return jnp.sum(jax.vmap(one)(xs))

    chunks = gl.trace(loss, batch_axis=0)(xs)
    monkeypatch.setattr(_pull, "_LONG", 201)
    steps = gl.trace(loss, batch_axis=0)(xs)
    assert chunks.scans[0].log_norm.shape == (200, 2)
    for field in ("log_norm", "log_direct", "log_transported"):
        one, other = (getattr(out.scans[0], field) for out in (chunks, steps))
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-7, err_msg=field)
    np.testing.assert_allclose(chunks.grads, steps.grads, rtol=1e-9)
