"""Newton's iteration for all states at once, against NumPy and a dense solver."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradlab import spectrum

RNG = np.random.default_rng(0)


def network(gain, n, seed=0):
    W = np.random.default_rng(seed).normal(size=(n, n)) * gain / np.sqrt(n)
    return W, lambda h, x: jnp.tanh(W @ h + x)


def sequential(W, xs):
    h, found = np.zeros(len(W)), []
    for x in np.asarray(xs):
        h = np.tanh(W @ h + x)
        found.append(h)
    return np.array(found)


@pytest.mark.parametrize("gain", [0.5, 1.5, 3.0])
def test_newton_finds_the_states_of_the_recurrence(gain):
    W, step = network(gain, 6)
    xs = RNG.normal(size=(64, 6)) * 0.5
    found = jax.jit(functools.partial(spectrum.newton, step, tolerance=1e-10))(jnp.zeros(6), xs)
    assert 0 < found.steps <= 64
    np.testing.assert_allclose(found.states, sequential(W, xs), atol=1e-8)
    logs = np.asarray(found.log_residuals)
    assert np.isnan(logs[found.steps :]).all() and not np.isnan(logs[: found.steps]).any()
    # The first residual is that of the guess, 0: h_t = tanh(W 0 + x_t).
    assert logs[0] == pytest.approx(np.log(np.abs(np.tanh(xs)).max()))


def test_newton_iterates_as_the_dense_equations_do():
    # Newton's method on all T n equations at once, by a dense solver.
    W, step = network(2.0, 3)
    xs = RNG.normal(size=(8, 3))

    def residual(h):
        before = jnp.concatenate([jnp.zeros((1, 3)), h[:-1]])
        return (h - jax.vmap(step)(before, xs)).ravel()

    linearize = jax.jit(lambda h: (jax.jacobian(residual)(h).reshape(24, 24), residual(h)))
    h = np.zeros((8, 3))
    for most in (1, 2, 3):
        h = h - np.linalg.solve(*map(np.asarray, linearize(h))).reshape(8, 3)
        found = spectrum.newton(step, jnp.zeros(3), xs, most=most, tolerance=1e-15)
        np.testing.assert_allclose(found.states, h, atol=1e-9)
        assert found.steps == -1


def test_a_linear_recurrence_takes_one_iteration_and_one_to_see_it():
    W = RNG.normal(size=(4, 4)) * 0.4
    found = spectrum.newton(lambda h, x: W @ h + x, jnp.ones(4), RNG.normal(size=(50, 4)))
    assert found.steps == 2


def test_a_good_guess_takes_fewer_iterations():
    W, step = network(1.2, 6)
    xs = RNG.normal(size=(64, 6)) * 0.3
    cold = spectrum.newton(step, jnp.zeros(6), xs)
    warm = spectrum.newton(step, jnp.zeros(6), xs, guess=cold.states)
    assert warm.steps == 1 < cold.steps


def test_states_that_overflow_start_again():
    # Far from its states the linearized logistic map explodes: 4^k past 1e308 in 600 steps.
    xs = jnp.full(700, 3.9, jnp.float32)
    found = spectrum.newton(lambda h, x: x * h * (1 - h), jnp.float32(0.4), xs)
    h, expected = jnp.float32(0.4), []
    for _ in range(30):
        h = xs[0] * h * (1 - h)
        expected.append(h)
    assert 0 < found.steps <= 700 and np.isfinite(found.states).all()
    np.testing.assert_allclose(found.states[:30], expected, atol=1e-3)


def test_steps_of_newton_rise_where_the_exponent_turns_positive():
    n, length = 24, 256
    W, _ = network(1.0, n, seed=2)
    # Without an input the exponent turns positive near a gain of 1; from a state off 0.
    start = np.random.default_rng(2).normal(size=n)

    @jax.jit
    @jax.vmap
    def measure(gain):
        step = lambda h, x: jnp.tanh(gain * W @ h + x)  # noqa: E731
        xs = jnp.zeros((length, n))
        exponent = spectrum.lyapunov(step, start, xs, k=1, burn_in=56).exponents[0]
        return exponent, spectrum.newton(step, start, xs).steps

    exponents, steps = measure(jnp.array([0.5, 0.6, 2.5, 4.0]))
    assert (exponents[:2] < -0.1).all() and (exponents[2:] > 0.02).all()
    assert (steps[:2] <= 8).all() and (steps[2:] >= 3 * steps[:2].max()).all()
    condition = spectrum.log_newton_condition(exponents, length)
    assert condition[:2].max() < 3 < 5 < condition[2:].min()


@pytest.mark.parametrize("length", [1, 7, 400])
def test_condition_is_the_logarithm_of_the_sum(length):
    exponents = np.array([-3.0, -1e-3, 0.0, 1e-12, 0.5, 1.7])
    sums = [math.log(math.fsum(math.exp(e * k) for k in range(length))) for e in exponents]
    found = spectrum.log_newton_condition(exponents, length)
    np.testing.assert_allclose(found, sums, rtol=1e-9, atol=1e-12)


def test_condition_of_special_exponents():
    found = spectrum.log_newton_condition(jnp.array([-jnp.inf, jnp.nan, jnp.inf, 1e3]), 10**6)
    assert found[0] == 0 and np.isnan(found[1]) and np.isposinf(found[2])
    assert found[3] == pytest.approx(1e9)
    with pytest.raises(ValueError, match="length must be at least 1"):
        spectrum.log_newton_condition(0.1, 0)


def test_condition_bounds_the_norm_of_the_inverse():
    # A scalar linear recurrence: the inverse is the matrix of a^{t-s}, t >= s.
    a, length = 0.9, 50
    inverse = np.linalg.inv(np.eye(length) - np.diag(np.full(length - 1, a), -1))
    bound = float(spectrum.log_newton_condition(math.log(a), length))
    assert math.log(np.linalg.norm(inverse, 2)) <= bound
    assert math.log(np.linalg.norm(inverse, np.inf)) == pytest.approx(bound)


@pytest.mark.parametrize("lost", [1, 3])
def test_a_state_that_is_not_finite_is_no_solution(lost):
    xs = jnp.ones((5, 1)).at[lost].set(jnp.nan)
    found = spectrum.newton(lambda h, x: 0.5 * h + x, jnp.zeros(1), xs)
    assert found.steps == -1 and np.isnan(found.states[lost:]).all()
    np.testing.assert_allclose(found.states[:lost, 0], [1, 1.5, 1.75][:lost])
    start = spectrum.newton(lambda h, x: 0.5 * h + x, jnp.full(1, jnp.nan), jnp.ones((5, 1)))
    assert start.steps == -1 and np.isnan(start.states).all()
    steep = spectrum.newton(
        lambda h, x: 2 * h**2, jnp.full(1, 10.0, "float32"), jnp.zeros((8, 1), "float32")
    )
    assert steep.steps == -1 and np.isnan(steep.states[4:]).all()


@pytest.mark.parametrize("unit", [1e-10, 1.0, 1e10])
def test_the_tolerance_is_in_the_unit_of_the_states(unit):
    def step(h, x):
        return unit * jnp.tanh((2 * h + x) / unit)

    found = spectrum.newton(step, jnp.zeros(1), jnp.full((50, 1), unit))
    h, states = 0.0, []
    for _ in range(50):
        h = unit * np.tanh((2 * h + unit) / unit)
        states.append(h)
    assert found.steps > 1
    np.testing.assert_allclose(found.states[:, 0], states, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"most": 0}, "most and tolerance must be above 0"),
        ({"tolerance": 0.0}, "most and tolerance must be above 0"),
        ({"guess": jnp.zeros((4, 2))}, "guess must hold 5 states like the first"),
        ({"state": (jnp.zeros(2), jnp.zeros(2, int))}, "for states of floats alone"),
    ],
)
def test_bad_arguments_of_newton(options, message):
    arguments = {"state": jnp.zeros(2)} | options
    with pytest.raises(ValueError, match=message):
        spectrum.newton(lambda h, x: h, arguments.pop("state"), jnp.zeros((5, 2)), **arguments)
