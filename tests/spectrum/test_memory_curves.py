"""What states tell of inputs, against closed forms and dense covariances."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import small_network
from small_network import HIDDEN, step

from gradlab import spectrum

RNG, PARAMS, XS, START = small_network.draw()


def curves_of(W, v, noise, lags):
    """Ganguli's curve and Jaeger's capacity of a linear network that has run for ever."""
    U = np.array([np.linalg.matrix_power(W, k) @ v for k in range(lags)])
    C = scipy.linalg.solve_discrete_lyapunov(W, noise * np.eye(len(W)))
    S = scipy.linalg.solve_discrete_lyapunov(W, np.outer(v, v))
    fisher = np.einsum("ki,ij,kj->k", U, np.linalg.inv(C), U)
    return fisher, np.einsum("ki,ij,kj->k", U, np.linalg.pinv(S), U)


@pytest.fixture(scope="module")
def networks():
    rng = np.random.default_rng(3)
    Q = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    v = rng.normal(size=6)
    gaussian = rng.normal(size=(6, 6)) * 0.9 / np.sqrt(6)
    return {"normal": 0.9 * Q, "gaussian": gaussian}, v / np.linalg.norm(v)


@pytest.mark.parametrize("name", ["normal", "gaussian"])
def test_fisher_memory_of_linear_networks(networks, name):
    W, v = networks[0][name], networks[1]
    move = lambda h, x: W @ h + v * x  # noqa: E731
    found = np.exp(spectrum.log_fisher_memory(move, jnp.zeros(6), jnp.zeros(300), noise=0.5))
    np.testing.assert_allclose(found[:40], curves_of(W, v, 0.5, 40)[0], rtol=1e-8)
    if name == "normal":
        assert found.sum() == pytest.approx(1 / 0.5, rel=1e-6)


def test_fisher_memory_of_a_delay_line_reaches_its_bound():
    # A chain of amplifiers: n / ε is the most that any network has.
    n, gain = 5, 1e3
    W, v = jnp.diag(jnp.full(n - 1, gain), -1), jnp.eye(n)[0]
    logs = spectrum.log_fisher_memory(lambda h, x: W @ h + v * x, jnp.zeros(n), jnp.zeros(20))
    np.testing.assert_allclose(np.exp(logs[:n]), 1, rtol=2e-6)
    assert np.isneginf(logs[n:]).all()


def test_fisher_memory_of_a_tanh_network_against_dense_covariances():
    C, U, h = np.zeros((HIDDEN, HIDDEN)), [], np.asarray(START)
    W, u = np.asarray(PARAMS["recurrent"]), np.asarray(PARAMS["input"])
    for x in np.asarray(XS):
        h = np.tanh(W @ h + u @ x + np.asarray(PARAMS["bias"]))
        slope = (1 - h**2)[:, None]
        J = slope * W
        C = J @ C @ J.T + 0.1 * np.eye(HIDDEN)
        U = [slope * u, *(J @ each for each in U)]
    expected = [np.trace(each.T @ np.linalg.solve(C, each)) for each in U]
    move = functools.partial(step, PARAMS)
    found = spectrum.log_fisher_memory(move, START, XS, noise=0.1)
    np.testing.assert_allclose(found, np.log(expected), atol=1e-9)
    few = spectrum.log_fisher_memory(move, START, XS, noise=0.1, lags=3)
    np.testing.assert_allclose(few, found[:3], atol=1e-12)


def test_fisher_memory_past_the_range_and_where_it_cannot_be_known():
    half = lambda h, x: 0.5 * h + x  # noqa: E731
    xs = jnp.zeros((1000, 1), jnp.float32)
    logs = spectrum.log_fisher_memory(half, jnp.zeros(1, jnp.float32), xs)
    expected = np.log(0.75) - 2 * np.arange(1000) * np.log(2)
    np.testing.assert_allclose(logs[:990], expected[:990], rtol=1e-5)
    # Two directions, one of which explodes: the other is below the rounding of the first.
    W = jnp.array([[3.0, 0.5], [0.5, 0.3]])
    lost = spectrum.log_fisher_memory(lambda h, x: W @ h + x, jnp.zeros(2), jnp.zeros((200, 2)))
    assert np.isnan(lost).all()
    for noise in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="noise must be above 0"):
            spectrum.log_fisher_memory(half, jnp.zeros(1), jnp.zeros((3, 1)), noise=noise)


@pytest.mark.parametrize("name", ["normal", "gaussian"])
def test_memory_capacity_of_linear_networks(networks, name):
    W, v = networks[0][name], networks[1]
    xs = np.random.default_rng(5).normal(size=6000)
    h, found = np.zeros(6), []
    for x in xs:
        h = W @ h + v * x
        found.append(h)
    capacity = spectrum.memory_capacity(np.array(found)[100:], xs[100:], lags=60)
    expected = curves_of(W, v, 1.0, 60)[1]
    # R² of N = 5,841 values has a standard error of 2 √(R² / N) (1 - R²) at most.
    np.testing.assert_allclose(capacity, expected, atol=4 * 0.4 * 2 / np.sqrt(5841))
    assert capacity.sum() == pytest.approx(6, abs=0.15)


def test_memory_capacity_of_nothing_is_zero_on_average():
    rng = np.random.default_rng(0)
    h, x = rng.normal(size=(200, 100, 8)), rng.normal(size=(200, 100))
    found = np.asarray(jax.vmap(lambda h, x: spectrum.memory_capacity(h, x, lags=1))(h, x))
    # Without the correction 8 / 99 of the variance would be explained.
    assert found.mean() == pytest.approx(0, abs=4 * np.std(found) / np.sqrt(200))


@pytest.mark.parametrize("unit", [1e-25, 1.0, 1e25])
def test_memory_capacity_in_float32_of_a_small_direction_of_many_steps(unit):
    xs = np.random.default_rng(1).normal(size=300_000)
    states = np.stack([xs, 0.01 * np.roll(xs, 1)], axis=1)[2:]
    found = spectrum.memory_capacity(
        jnp.asarray(unit * states, "float32"), jnp.asarray(unit * xs[2:], "float32"), lags=3
    )
    np.testing.assert_allclose(found, [1, 1, 0], atol=1e-3)
    none = spectrum.memory_capacity(states, np.full(len(states), 0.1, "float32"), lags=2)
    assert np.isnan(none).all()


def test_memory_capacity_that_is_not_known():
    h, x = np.ones((10, 2)), np.arange(10.0)
    assert np.isnan(spectrum.memory_capacity(h * np.nan, x, lags=2)).all()
    assert np.isnan(spectrum.memory_capacity(h, np.ones(10), lags=2)).all()
    assert np.isnan(spectrum.memory_capacity(RNG.normal(size=(4, 3)), x[:4], lags=1)).all()
    with pytest.raises(ValueError, match="lags must be between 1 and 10, got 11"):
        spectrum.memory_capacity(h, x, lags=11)
    with pytest.raises(ValueError, match="needs states"):
        spectrum.memory_capacity(h, x[1:], lags=1)
    with pytest.raises(ValueError, match="real and imaginary parts of complex states as columns"):
        spectrum.memory_capacity(h * 1j, x, lags=1)
