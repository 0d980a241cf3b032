"""Fixed points and finite-time exponents, against NumPy, SciPy and closed forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from gradlab import spectrum

RNG = np.random.default_rng(0)


def network(gain, n, seed=0):
    W = np.random.default_rng(seed).normal(size=(n, n)) * gain / np.sqrt(n)
    return W, lambda h, x: jnp.tanh(W @ h + x)


# Fixed points.


def test_fixed_points_of_a_flip_flop_against_scipy():
    # Two bits that hold themselves: tanh(2.5 h) + a little of the other, nine fixed points.
    W = np.array([[2.5, 0.2], [-0.1, 2.5]])
    starts = RNG.uniform(-1.2, 1.2, size=(60, 2))
    found = spectrum.fixed_points(lambda h: jnp.tanh(W @ h), starts, steps=400)
    assert found.found.all()
    solutions = [
        scipy.optimize.root(lambda h: np.tanh(W @ h) - h, start)
        for start in RNG.uniform(-1.2, 1.2, size=(400, 2))
    ]
    roots = {tuple(np.round(found.x, 5) + 0.0) for found in solutions if found.success}
    distinct = found.states[found.group == np.arange(60)]
    assert {tuple(np.round(h, 5) + 0.0) for h in np.asarray(distinct)} == roots
    assert len(roots) == 9
    for h, values, unstable in zip(found.states, found.eigenvalues, found.unstable, strict=True):
        J = (1 - np.tanh(W @ h) ** 2)[:, None] * W
        expected = sorted(np.linalg.eigvals(J), key=lambda v: (-abs(v), -v.imag))
        np.testing.assert_allclose(values, expected, atol=1e-6)
        assert unstable == np.sum(np.abs(expected) > 1)
    counts = np.bincount(found.unstable[found.group == np.arange(60)])
    assert counts.tolist() == [4, 4, 1]


def test_slow_points_are_not_found_but_have_a_speed():
    # h + 0.01 (1 + h²) never stands still; it is slowest at 0, at a speed of ½ 0.01².
    found = spectrum.fixed_points(lambda h: h + 0.01 * (1 + h**2), jnp.array([[0.3], [-0.2]]))
    assert not found.found.any()
    np.testing.assert_allclose(found.states, 0, atol=1e-3)
    np.testing.assert_allclose(found.log_speed, math.log(0.01**2 / 2), atol=1e-4)


def test_fixed_points_under_an_input_and_in_any_pytree():
    def step(state, x):
        return {"a": 0.5 * state["a"] + x, "b": 0.5j * state["b"] + state["a"][:1]}

    starts = {"a": jnp.zeros((3, 2)), "b": jnp.ones((3, 1), jnp.complex128)}
    found = spectrum.fixed_points(step, starts, jnp.array([1.0, -1.0]))
    b = 2 / (1 - 0.5j)
    np.testing.assert_allclose(found.states, [[2, -2, b.real, b.imag]] * 3, atol=1e-8)
    np.testing.assert_allclose(np.abs(found.eigenvalues), 0.5)
    assert found.group.tolist() == [0, 0, 0] and found.unstable.tolist() == [0, 0, 0]


def test_searches_that_are_lost_are_nan():
    found = spectrum.fixed_points(
        lambda h: jnp.where(h > 0.5, jnp.nan, 0.5 * h), jnp.array([[0.9], [0.1], [0.8]])
    )
    assert found.found.tolist() == [False, True, False]
    assert np.isnan(found.states[0]).all() and np.isnan(found.log_speed[0])
    assert found.unstable.tolist() == [-1, 0, -1] and found.group.tolist() == [0, 1, 2]


def test_bad_states_of_a_search_are_refused():
    with pytest.raises(ValueError, match="needs a leading axis, of one length"):
        spectrum.fixed_points(lambda h: h, (jnp.zeros((2, 1)), jnp.zeros((3, 1))))
    with pytest.raises(ValueError, match="states of floats alone"):
        spectrum.fixed_points(lambda h: h, (jnp.zeros((2, 1)), jnp.zeros((2, 1), int)))


# Finite-time exponents.


def test_finite_time_exponents_against_numpy():
    W, step = network(1.5, 5)
    xs = RNG.normal(size=(70, 5)) * 0.3
    found = spectrum.finite_time_exponents(step, jnp.zeros(5), xs, window=20, burn_in=10, k=3)
    frame = np.asarray(np.linalg.qr(jax.random.normal(jax.random.key(0), (5, 3)))[0])
    h, logs = np.zeros(5), []
    for x in xs:
        h = np.tanh(W @ h + x)
        frame, R = np.linalg.qr((1 - h**2)[:, None] * W @ frame)
        logs.append(np.log(np.abs(np.diag(R))))
    np.testing.assert_allclose(found, np.reshape(logs[10:], (3, 20, 3)).mean(1), atol=1e-9)
    whole = spectrum.lyapunov(step, jnp.zeros(5), xs, burn_in=10, k=3).exponents
    np.testing.assert_allclose(found.mean(0), whole, atol=1e-9)


def test_finite_time_exponents_end_where_the_orbit_does():
    xs = np.ones(12)
    xs[7] = np.nan
    found = spectrum.finite_time_exponents(lambda h, x: x * h, jnp.ones(1), xs, window=3)
    np.testing.assert_allclose(found[:, 0], [0, 0, np.nan, np.nan])
    lost = spectrum.finite_time_exponents(lambda h: 0 * h, jnp.ones(1), steps=2, window=1)
    assert np.isneginf(lost).all()
    with pytest.raises(ValueError, match="window must divide the steps, got 5 and 12"):
        spectrum.finite_time_exponents(lambda h, x: x * h, jnp.ones(1), xs, window=5)
    with pytest.raises(ValueError, match="window at least 1, got 0 and 0"):
        spectrum.finite_time_exponents(lambda h, x: x * h, jnp.ones(1), xs, window=0)
