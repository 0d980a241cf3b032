"""What the papers say of single families of cells, beyond the laws that all cells keep."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab as gl
from gradlab import cells

INPUTS, HIDDEN = 3, 6
NOTHING = jax.nn.initializers.zeros


@functools.cache
def made(name, hidden, options):
    cell = cells.make(name, inputs=INPUTS, hidden=hidden, **dict(options))
    init = jax.jit(functools.partial(cell.init, dtype=jnp.float64))
    return cell, jax.device_get(init(jax.random.key(0)))


def drawn(name, hidden=HIDDEN, **options):
    """A cell and parameters of its own draw, in float64."""
    cell, params = made(name, hidden, tuple(options.items()))
    return cell, jax.tree.map(jnp.asarray, params)


def linear_limit(cell, params):
    """dh_t/dh_{t-1} at h = 0 with neither input nor bias."""
    params = params | {"bias": jnp.zeros_like(params["bias"])}
    step = functools.partial(cell.step, params, x=jnp.zeros(INPUTS))
    return jax.jacobian(step)(cell.start(jnp.float64))


@pytest.mark.parametrize("scale", [0.0, 0.3, 30.0])
def test_orthogonal_keeps_its_matrix_orthogonal_and_the_norm(scale):
    cell, params = drawn("orthogonal", bias=NOTHING)
    rng = np.random.default_rng(0)
    params["recurrent"] = params["recurrent"] + scale * rng.normal(size=(HIDDEN, HIDDEN))
    (W,) = np.asarray(cell.matrices(params))
    np.testing.assert_allclose(W.T @ W, np.eye(HIDDEN), rtol=0, atol=1e-12)
    assert np.linalg.det(W) == pytest.approx(1, abs=1e-12)
    # With b = 0 modReLU is the identity, so that the step is W alone.
    h = jnp.asarray(rng.normal(size=HIDDEN))
    after = cell.step(params, h, jnp.zeros(INPUTS))
    np.testing.assert_allclose(after, W @ h, rtol=1e-12, atol=1e-14)
    assert np.linalg.norm(after) == pytest.approx(np.linalg.norm(h), rel=1e-12)


@pytest.mark.parametrize("hidden", [6, 7])
def test_orthogonal_starts_with_angles_up_to_a_right_angle(hidden):
    cell, params = drawn("orthogonal", hidden=hidden)
    (W,) = cell.matrices(params)
    angles = np.sort(np.abs(np.angle(np.linalg.eigvals(W))))
    pairs = angles[hidden % 2 :].reshape(-1, 2)
    np.testing.assert_allclose(pairs[:, 0], pairs[:, 1], rtol=1e-10)
    assert pairs.min() > 0.01 and pairs.max() < np.pi / 2
    assert angles[: hidden % 2] == pytest.approx(0, abs=1e-7)
    expected = 2 * np.arctan(np.diagonal(params["recurrent"], 1)[::2])
    np.testing.assert_allclose(pairs[:, 0], np.sort(expected), rtol=1e-10)


def test_modrelu_shrinks_towards_zero_and_keeps_the_sign():
    cell, params = drawn("orthogonal", hidden=3, recurrent=NOTHING)
    params |= {"bias": jnp.array([-1.0, -1.0, 0.5]), "input": jnp.eye(3)}
    step = functools.partial(cell.step, params, cell.start(jnp.float64))
    np.testing.assert_allclose(step(jnp.array([3.0, -3.0, -3.0])), [2, -2, -3.5])
    np.testing.assert_allclose(step(jnp.array([0.9, -0.9, 0.1])), [0, 0, 0.6], atol=1e-15)


@pytest.mark.parametrize("name", ["orthogonal", "antisymmetric", "gated_antisymmetric", "lru"])
def test_prepared_parameters_give_the_same_numbers(name):
    cell, params = drawn(name)
    x = jnp.ones(INPUTS)
    state = cell.step(params, cell.start(jnp.float64), x)

    def loss(params):
        return jnp.sum(jnp.sin(cell.read(cell.step(params, state, x))))

    def both(params):
        prepared = jax.value_and_grad(lambda params: loss(cell.prepare(params)))(params)
        return prepared, jax.value_and_grad(loss)(params)

    prepared, plain = jax.jit(both)(params)
    assert float(prepared[0]) == pytest.approx(float(plain[0]), rel=1e-12)
    for leaf in params:
        np.testing.assert_allclose(prepared[1][leaf], plain[1][leaf], rtol=1e-9, atol=1e-14)

    (added,) = set(cell.prepare(params)) - set(params)
    again = cell.prepare(cell.prepare(params) | {added: jnp.ones(())})
    assert again[added] == 1  # what is there is not computed again


def test_a_prepared_step_of_orthogonal_solves_nothing():
    cell, params = drawn("orthogonal")

    def primitives(params):
        program = jax.make_jaxpr(cell.advance)(params, jnp.ones(HIDDEN), jnp.ones(HIDDEN))
        return str(program)

    assert "triangular_solve" in primitives(params)
    assert "triangular_solve" not in primitives(cell.prepare(params))


@pytest.mark.parametrize("gamma", [0.0, 0.3])
@pytest.mark.parametrize("name", ["antisymmetric", "gated_antisymmetric"])
def test_antisymmetric_eigenvalues_have_real_part_minus_gamma(name, gamma):
    cell, params = drawn(name, epsilon=0.1, gamma=gamma)
    gate = 1.0 if name == "antisymmetric" else 0.5  # the logistic function at 0
    rates = np.linalg.eigvals((linear_limit(cell, params) - np.eye(HIDDEN)) / (0.1 * gate))
    np.testing.assert_allclose(rates.real, -gamma, rtol=0, atol=1e-12)
    assert np.abs(rates.imag).min() > 0.01


def test_leaky_in_whole_steps_is_the_discrete_network():
    """h_t = W tanh(h_{t-1}) + U x_t + b is W applied to elman's state, a half step later."""
    leaky, params = drawn("leaky", dt=1.0, bias=jax.nn.initializers.normal(0.3))
    elman = cells.make("elman", inputs=INPUTS, hidden=HIDDEN)
    xs = np.random.default_rng(2).normal(size=(5, INPUTS))
    h, rate = leaky.start(jnp.float64), elman.start(jnp.float64)
    for x in jnp.asarray(xs):
        h, before, rate = leaky.step(params, h, x), rate, elman.step(params, rate, x)
        expected = params["recurrent"] @ before + params["input"] @ x + params["bias"]
        np.testing.assert_allclose(h, expected, rtol=1e-12)
        np.testing.assert_allclose(jnp.tanh(h), rate, rtol=1e-12)


def test_leaky_takes_a_traced_step_and_a_gain():
    def last(dt, gain):
        cell = cells.leaky(2, 3, dt=dt, recurrent=gl.initializers.normal(gain))
        params = cell.init(jax.random.key(0), jnp.float32)
        return cell.step(params, jnp.ones(3, jnp.float32), jnp.zeros(2, jnp.float32))

    steps = jax.jit(jax.vmap(last))(jnp.array([0.25, 1.0]), jnp.array([2.0, 1.0]))
    assert steps.dtype == jnp.float32
    quarter = (steps[0] - 0.75) / (0.25 * 2)
    np.testing.assert_allclose(quarter, steps[1], rtol=1e-5)


@pytest.mark.parametrize(("r_min", "r_max", "phase"), [(0.0, 1.0, 6.28), (0.9, 0.999, 0.3)])
def test_lru_draws_its_eigenvalues_uniformly_on_the_ring(r_min, r_max, phase):
    cell, params = drawn("lru", hidden=2000, r_min=r_min, r_max=r_max, max_phase=phase)
    values = np.asarray(cell.prepare(params)["eigenvalues"])
    radii, angles = np.abs(values), np.angle(values) % (2 * np.pi)
    assert r_min < radii.min() and radii.max() < r_max and angles.max() < phase
    area = (radii**2 - r_min**2) / (r_max**2 - r_min**2)
    for uniform in (area, angles / phase):
        # Kolmogorov's statistic, whose 99.9 % point is 1.95.
        gap = np.abs(np.sort(uniform) - (np.arange(2000) + 0.5) / 2000).max()
        assert gap * np.sqrt(2000) < 1.95
    np.testing.assert_allclose(np.exp(params["gamma_log"]) ** 2, 1 - radii**2, rtol=1e-9)


def test_lru_normalization_keeps_the_state_s_variance_at_one():
    """White input of unit variance gives E|s|² = γ² E|Bx|² / (1 - |λ|²) = 1 at any |λ|."""
    cell, params = drawn("lru", hidden=4000, r_min=0.1, r_max=0.9999)
    gain = np.exp(2 * params["gamma_log"]) / (1 - np.abs(cell.prepare(params)["eigenvalues"]) ** 2)
    parts = np.asarray(params["input"]).reshape(2, 4000, INPUTS)
    variance = gain * np.sum(parts**2, axis=(0, 2))
    # Each is a mean of 2·INPUTS squares: standard deviation sqrt(2 / 6), over 4,000 units 0.0091.
    assert variance.mean() == pytest.approx(1, abs=0.03)


def test_lru_in_single_precision_never_draws_an_infinite_parameter():
    for r_min, r_max in ((0.0, 1.0), (0.9999999, 1.0)):
        cell = cells.lru(1, 20000, r_min=r_min, r_max=r_max)
        params = jax.jit(functools.partial(cell.init, dtype=jnp.float32))(jax.random.key(0))
        for leaf in params.values():
            assert np.isfinite(leaf).all()


def test_min_lstm_gates_that_underflow_still_sum_to_one():
    cell, params = drawn("min_lstm")
    zero = jnp.zeros(INPUTS, jnp.float32)
    bias = jnp.repeat(jnp.array([-200.0, -201.0, 1.0], jnp.float32), HIDDEN)
    kept, new = cell.project({"input": params["input"].astype(jnp.float32), "bias": bias}, zero)
    np.testing.assert_allclose(kept, 1 / (1 + np.exp(-1)), rtol=1e-6)
    np.testing.assert_allclose(kept + new, 1, rtol=1e-6)


def test_cornn_keeps_the_papers_energy_bound():
    """|y_n|² + |z_n|² ≤ n m Δt for γ = 1, whatever the input and the weights."""
    dt, steps = 0.05, 400
    cell, params = drawn("cornn", dt=dt, gamma=1.0, epsilon=1.0)
    params = jax.tree.map(lambda leaf: 3 * leaf, params)
    xs = jnp.asarray(np.random.default_rng(4).normal(0, 5, size=(steps, INPUTS)))
    _, (y, z) = jax.lax.scan(
        lambda state, x: (cell.step(params, state, x),) * 2, cell.start(jnp.float64), xs
    )
    energy = np.sum(y**2 + z**2, axis=1)
    assert np.all(energy <= np.arange(1, steps + 1) * HIDDEN * dt)
    assert energy.max() > 0.01 * HIDDEN  # it moves at all


def test_cornn_without_force_is_a_damped_oscillator():
    """y'' = -γ y - ε y', which has a closed form; the scheme's error is of first order in Δt."""
    gamma, epsilon, time = 2.0, 0.4, 3.0
    frequency = np.sqrt(gamma - epsilon**2 / 4)
    exact = np.exp(-epsilon * time / 2) * (
        np.cos(frequency * time) + epsilon / (2 * frequency) * np.sin(frequency * time)
    )

    def positions(dt):
        cell = cells.cornn(INPUTS, 1, dt=dt, gamma=gamma, epsilon=epsilon)
        params = {"recurrent": jnp.zeros((2, 1)), "input": jnp.zeros((1, 3)), "bias": jnp.zeros(1)}
        state = cell.start(jnp.float64)._replace(y=jnp.ones(1))

        def body(state, _):
            state = cell.step(params, state, jnp.zeros(INPUTS))
            return state, state.y[0]

        return jax.lax.scan(body, state, length=600)[1]

    coarse, fine = jax.jit(jax.vmap(positions))(jnp.array([time / 300, time / 600]))
    errors = np.abs(coarse[299] - exact), np.abs(fine[599] - exact)
    assert errors[0] < 0.02
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.05)


def test_lem_with_gates_fixed_is_eulers_method():
    """Gates at their ends: b → -∞ holds z and y, b → +∞ at Δt steps z' = tanh(..) - z by Δt."""
    dt = 0.3
    cell, params = drawn("lem", dt=dt)
    rng = np.random.default_rng(5)
    state = cells.LEMState(*jnp.asarray(rng.uniform(-1, 1, (2, HIDDEN))))
    x = jnp.asarray(rng.normal(size=INPUTS))
    W = np.split(np.asarray(params["recurrent"]), 4)
    U = np.split(np.asarray(params["input"]), 4)

    def stepped(gates):
        bias = np.concatenate([np.full(HIDDEN, b) for b in (*gates, 0.0, 0.0)])
        return cell.step(params | {"bias": jnp.asarray(bias)}, state, x)

    held = stepped((-1000.0, -1000.0))
    np.testing.assert_array_equal(held.z, state.z)
    np.testing.assert_array_equal(held.y, state.y)
    moved = stepped((1000.0, 1000.0))
    z = state.z + dt * (np.tanh(W[2] @ state.y + U[2] @ x) - state.z)
    np.testing.assert_allclose(moved.z, z, rtol=1e-12)
    y = state.y + dt * (np.tanh(W[3] @ z + U[3] @ x) - state.y)
    np.testing.assert_allclose(moved.y, y, rtol=1e-12)


def test_indrnn_draws_each_unit_as_a_network_of_width_one():
    _, params = drawn("indrnn", hidden=1000)
    u = np.asarray(params["recurrent"])
    assert 0 <= u.min() < 0.01 and 0.99 < u.max() < 1
    assert u.mean() == pytest.approx(0.5, abs=5 / np.sqrt(12 * 1000))
    _, params = drawn("indrnn", recurrent=gl.initializers.orthogonal(1.5))
    np.testing.assert_allclose(np.abs(params["recurrent"]), 1.5, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("leaky", {"dt": 0.0}, "leaky needs dt above 0 and at most 1, got 0.0"),
        ("leaky", {"activation": "than"}, "unknown activation 'than'; did you mean 'tanh'?"),
        ("lem", {"dt": 1.5}, "lem needs dt above 0 and at most 1, got 1.5"),
        ("cornn", {"epsilon": -1.0}, "cornn needs epsilon above 0, got -1.0"),
        ("antisymmetric", {"gamma": -0.1}, "antisymmetric needs gamma of at least 0, got -0.1"),
        ("gated_antisymmetric", {"epsilon": 0}, "gated_antisymmetric needs epsilon above 0, got 0"),
        ("lru", {"r_max": 1.1}, "lru needs r_max above 0 and at most 1, got 1.1"),
        ("lru", {"r_min": 0.9, "r_max": 0.9}, "lru needs r_min below r_max = 0.9, got 0.9"),
        ("min_gru", {"hidden": 0}, "min_gru needs hidden of at least 1, got 0"),
        ("lru", {"recurrent": NOTHING}, "unknown lru option 'recurrent'; valid: "),
    ],
)
def test_bad_requests_are_refused(name, options, message):
    with pytest.raises(ValueError) as error:
        cells.make(name, **({"inputs": 2, "hidden": 2} | options))
    assert str(error.value).startswith(message)
