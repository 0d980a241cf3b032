"""A coordinate check against a training that is written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradlab as gl

N, LENGTH, RATE, UPDATES = 3, 4, 0.5, 3
W = np.random.default_rng(0).normal(size=(N, N)) * 0.6


def states(w, xs):
    return jax.lax.scan(lambda h, x: (jnp.tanh(w @ h + x),) * 2, jnp.zeros(N), xs)[1]


def loss(w, xs):
    return jnp.sum(states(w, xs)[-1] ** 2) / N


def sample(key, step):
    return jax.random.normal(key, (LENGTH, N))


def by_hand(w, xs):
    """h_1..h_T, λ_1..λ_T and the gradient by w."""
    h = [np.zeros(N)]
    for x in xs:
        h.append(np.tanh(w @ h[-1] + x))
    adjoint, adjoints, gradient = 2 * h[-1] / N, [], np.zeros((N, N))
    for t in range(LENGTH, 0, -1):
        adjoints.append(adjoint)
        inner = (1 - h[t] ** 2) * adjoint
        gradient += np.outer(inner, h[t - 1])
        adjoint = w.T @ inner
    return np.array(h[1:]), np.array(adjoints[::-1]), gradient


def test_sizes_are_those_of_a_training_by_hand():
    key = jax.random.key(4)
    found = gl.training.coordinate_check(
        loss, states, jnp.asarray(W), sample, optax.sgd(RATE), updates=UPDATES, key=key
    )
    probe, training = jax.random.split(key)
    xs, w = np.asarray(sample(probe, 0)), W
    first = by_hand(w, xs)[0]
    for u in range(UPDATES + 1):
        h, adjoints, _ = by_hand(w, xs)
        size = lambda x: np.log(np.sqrt(np.mean(x**2, axis=-1)))  # noqa: E731
        assert found.log_state[u] == pytest.approx(size(h.ravel()))
        if u:
            assert found.log_update[u] == pytest.approx(size((h - first).ravel()))
        np.testing.assert_allclose(found.log_adjoint[u], size(adjoints), atol=1e-9)
        batch = np.asarray(sample(jax.random.fold_in(training, u), u))
        w = w - RATE * by_hand(w, batch)[2]
    assert np.isneginf(found.log_update[0])


def test_what_cannot_be_checked_is_refused():
    arguments = jnp.asarray(W), sample, optax.sgd(RATE)
    with pytest.raises(ValueError, match="updates must be at least 1, got 0"):
        gl.training.coordinate_check(loss, states, *arguments, updates=0, key=jax.random.key(0))
    with pytest.raises(ValueError, match="the scan has 4"):
        gl.training.coordinate_check(
            loss, lambda w, xs: states(w, xs)[1:], *arguments, updates=1, key=jax.random.key(0)
        )


def test_sizes_are_nan_from_an_update_on_that_is_not_finite():
    def failing(w, xs):
        return loss(w, xs[:-1]) / xs[-1, 0]

    def last_zero(key, step):
        # The second update divides by 0.
        return jnp.concatenate([sample(key, step), jnp.full((1, N), 1.0 - (step == 1))])

    found = gl.training.coordinate_check(
        failing, lambda w, xs: states(w, xs[:-1]), jnp.asarray(W), last_zero, optax.sgd(RATE),
        updates=3, key=jax.random.key(4),
    )  # fmt: skip
    for sizes in found:
        assert np.isnan(sizes).reshape(4, -1).all(1).tolist() == [False, False, True, True]


def test_complex_states_are_refused():
    def turned(w, xs):
        return jax.lax.scan(lambda h, x: (1j * (h + x),) * 2, jnp.zeros(N, complex), xs)[1]

    with pytest.raises(ValueError, match="states must be real numbers, got complex128"):
        gl.training.coordinate_check(
            lambda w, xs: jnp.sum(jnp.abs(turned(w, xs)[-1])), turned, jnp.asarray(W), sample,
            optax.sgd(RATE), updates=1, key=jax.random.key(0),
        )  # fmt: skip
