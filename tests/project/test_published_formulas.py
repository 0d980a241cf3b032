"""Formulas of the published figures, each against an exact or a small computation in float64."""

import json
import math
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import digamma, erf

import gradlab as gl

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

from published import clark, parity_eigenvalues, zucchet_hessian, zucchet_variance  # noqa: E402

KEY = jax.random.key(0)


def last(lam, xs):
    return jax.lax.scan(lambda h, x: (lam * h + x, None), jnp.zeros(()), xs)[0]


@pytest.mark.parametrize("lam", [0.5, 0.9])
@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_moments_of_states_and_sensitivities(lam, rho):
    """h_T and dh_T/dλ are linear in the inputs: a pulse at each step gives their coefficients."""
    steps = 400
    traces = jax.vmap(lambda xs: gl.trace(last)(lam, xs))(jnp.eye(steps))
    lags = np.abs(np.subtract.outer(np.arange(steps), np.arange(steps)))
    correlation = np.where(lags == 0, 1.0, rho**lags)
    moments = [float(c @ correlation @ c) for c in (np.array(traces.value), np.array(traces.grads))]
    assert moments == pytest.approx(zucchet_variance.published(lam, rho), rel=1e-9)


@pytest.mark.parametrize("lam", [0.5, 0.9])
def test_hessian_of_a_student_at_its_teacher(lam):
    """½ E (y - y*)² under white inputs is half the squared distance of the responses to a pulse."""
    pulses = jnp.eye(400)
    students = (
        (zucchet_hessian.last_state, lam),
        (zucchet_hessian.lru_output, math.log(-math.log(lam))),
    )
    for (output, parameter), law in zip(students, zucchet_hessian.published(lam), strict=True):
        respond = jax.vmap(output, (None, 0))
        target = respond(parameter, pulses)
        found = gl.spectrum.hessian(
            lambda p, respond=respond, target=target: (
                jnp.sum((respond(p, pulses) - target) ** 2) / 2
            ),
            jnp.float64(parameter),
        )
        assert found.matrix.item() == pytest.approx(law, rel=1e-9)


@pytest.mark.parametrize("gain", [1.5, 2.5])
def test_quantiles_of_a_full_spectrum_solve_the_equation(gain):
    path = ROOT / "tests" / "reference" / "references.json"
    cases = {case["id"]: case["value"] for case in json.loads(path.read_text("utf-8"))}
    for share, exponent in cases[f"full_spectrum_g{gain:.1f}"]["quantiles"].items():
        assert clark.share_above(gain, exponent) == pytest.approx(float(share), abs=1e-6)


@pytest.mark.parametrize("delta", [1.0, 0.25])
def test_eigenvalues_of_a_leaky_step_at_zero(delta):
    n = 6
    W = np.asarray(jax.random.normal(KEY, (n, n))) / n**0.5
    cell = gl.cells.make("leaky", inputs=1, hidden=n, dt=delta)
    params = dict(cell.init(KEY, jnp.float64)) | {"recurrent": jnp.asarray(W)}
    J = gl.spectrum.jacobian(lambda h: cell.advance(params, h, jnp.zeros(n)), jnp.zeros(n))
    found = np.log(np.abs(np.linalg.eigvals(J))) / delta
    law = np.log(np.abs(1 - delta + delta * np.linalg.eigvals(W))) / delta
    np.testing.assert_allclose(np.sort(found), np.sort(law), atol=1e-12)


def test_condition_number_of_a_normal_product():
    n, steps = 4, 30
    axes = np.linalg.qr(np.asarray(jax.random.normal(KEY, (n, n))))[0]
    W = jnp.asarray(axes * np.array([1.2, -0.9, 0.6, 0.3]) @ axes.T)
    # After 50 steps the frame lies along the axes.
    exponents = gl.spectrum.lyapunov(
        lambda h: W @ h, jnp.zeros(n), steps=50 + steps, burn_in=50
    ).exponents
    logs = gl.spectrum.log_singular_values(lambda h: W @ h, jnp.zeros(n), steps=steps)
    found = float(logs[0] - logs[-1])
    assert found == pytest.approx(steps * float(exponents[0] - exponents[-1]), rel=1e-9)


PHI = {
    "tanh": (np.tanh, lambda a: 1 - np.tanh(a) ** 2, 1.0),
    "erf": (erf, lambda a: 2 / math.sqrt(math.pi) * np.exp(-(a**2)), 2 / math.sqrt(math.pi)),
    "relu": (lambda a: np.maximum(a, 0), lambda a: (a > 0) * 1.0, 1.0),
    "linear": (lambda a: a, np.ones_like, 1.0),
}


def adjoints_and_slopes(activation, init, size):
    """ln‖λ_t‖ of an Elman network by lag, σ_1 of W is `size`; and the largest φ' of each step."""
    n, steps = 8, 30
    weights, drive, way = jax.random.split(KEY, 3)
    cell = gl.cells.make("elman", inputs=2, hidden=n, activation=activation)
    params = dict(cell.init(weights, jnp.float64))
    W = gl.initializers.make(init)(weights, (n, n), jnp.float64)
    W = params["recurrent"] = W * size / np.linalg.svd(W, compute_uv=False)[0]
    xs, direction = jax.random.normal(drive, (steps, 2)), jax.random.normal(way, (n,))

    def loss(params):
        return jax.lax.scan(lambda h, x: (cell.step(params, h, x), None), cell.start(), xs)[0] @ (
            direction
        )

    phi, slope, _ = PHI[activation]
    h, slopes = np.zeros(n), []
    for x in np.asarray(xs):
        a = W @ h + params["input"] @ x + params["bias"]
        h = phi(np.asarray(a))
        slopes.append(np.abs(slope(np.asarray(a))).max())
    return np.asarray(gl.trace(loss)(params).scans[0].log_norm)[::-1], np.array(slopes)[::-1]


@pytest.mark.parametrize("activation", PHI)
@pytest.mark.parametrize("size", [0.8, 1.5])
def test_adjoints_stay_below_the_bound_of_the_singular_value(activation, size):
    logs, _ = adjoints_and_slopes(activation, "normal", size)
    rate = math.log(PHI[activation][2] * size)
    assert (logs <= logs[0] + rate * np.arange(len(logs)) + 1e-12).all()


@pytest.mark.parametrize("activation", ["tanh", "linear"])
def test_adjoints_under_orthogonal_weights_stay_below_the_slopes(activation):
    logs, slopes = adjoints_and_slopes(activation, "orthogonal", 1.0)
    bound = logs[0] + np.concatenate([[0], np.cumsum(np.log(slopes))[:-1]])
    assert (logs <= bound + 1e-12).all()
    if activation == "linear":
        np.testing.assert_allclose(logs, bound, atol=1e-12)
    else:
        assert logs[-1] < bound[-1] < logs[0]


def test_depth_of_gradients_is_that_of_chi():
    for gain in (0.8, 1.1, 2.0):
        theory = gl.meanfield.elman("tanh", gain, bias_std=0.2)
        assert theory.xi_grad == pytest.approx(-1 / math.log(theory.chi), rel=1e-12)


@pytest.mark.parametrize("w", [1.25, 3.0])
def test_derivative_of_a_latched_neuron(w):
    def state(h):
        return jax.lax.scan(lambda h, _: (jnp.tanh(w * h), None), h, length=60)[0]

    h, log = 0.5, 0.0
    for _ in range(60):
        h = math.tanh(w * h)
        log += math.log(w * (1 - h**2))
    out = gl.trace(state)(0.5)
    assert math.log(out.grads) == pytest.approx(log, rel=1e-10)
    # λ_1 leaves out the first step.
    first = math.log(w * (1 - math.tanh(w * 0.5) ** 2))
    assert float(out.scans[0].log_norm[0]) == pytest.approx(log - first, rel=1e-10)


def test_gain_of_a_ring_s_states():
    """E|s|² under white input is the sum of the squared responses to one pulse."""
    low, high, n = 0.3, 0.9, 4000
    cell = gl.cells.make("lru", inputs=1, hidden=n, r_min=low, r_max=high)
    params = cell.init(KEY, jnp.float64)
    ready = cell.prepare(params)

    def step(s, x):
        s = cell.step(ready, s, x)
        return s, jnp.abs(s) ** 2

    squares = jax.lax.scan(step, cell.start(), jnp.zeros((200, 1)).at[0].set(1))[1]
    # The first state is γ B x.
    gains = np.asarray(squares.sum(0) / squares[0])
    law = math.log((1 - low**2) / (1 - high**2)) / (high**2 - low**2)
    assert gains.mean() == pytest.approx(law, abs=4 * gains.std() / math.sqrt(n))
    gamma = np.exp(np.asarray(params["gamma_log"]))
    np.testing.assert_allclose(gamma**2 * gains, 1, rtol=1e-9)


def gaussian_layers(init, n, layers):
    make = gl.initializers.make(init)
    return jax.vmap(lambda key: make(key, (n, n), jnp.float64))(jax.random.split(KEY, layers))


def test_exponents_of_gaussian_products():
    n = 4
    found = gl.spectrum.lyapunov(
        lambda h, W: W @ h, jnp.zeros(n), gaussian_layers("normal", n, 5000)
    )
    law = 0.5 * (digamma((n - np.arange(n)) / 2) + math.log(2 / n))
    assert (np.abs(found.exponents - law) < 4 * np.asarray(found.stderr)).all()
    assert found.stderr.max() < 0.02


def test_exponents_of_orthogonal_products_are_zero():
    layers = gaussian_layers("orthogonal", 4, 50)
    found = gl.spectrum.lyapunov(lambda h, W: W @ h, jnp.zeros(4), layers).exponents
    np.testing.assert_allclose(found, 0, atol=1e-13)


@pytest.mark.parametrize("depth", [1, 2])
def test_squared_singular_values_of_gaussian_products(depth):
    n, products = 80, 8

    @jax.vmap
    def log_values(layers):
        return gl.spectrum.log_singular_values(lambda h, W: W @ h, jnp.zeros(n), layers)

    layers = gaussian_layers("normal", n, products * depth).reshape(products, depth, n, n)
    squares = np.exp(2 * np.asarray(log_values(layers)))
    assert squares.mean() == pytest.approx(1, abs=0.02)
    # A finite product ends inside the edge, by a few n^(-2/3) = 0.05 of it.
    edge = (depth + 1) ** (depth + 1) / depth**depth
    assert 0.85 < squares.max(1).mean() / edge < 1
    assert squares.var(1).mean() == pytest.approx(depth, rel=0.1)


def test_gates_of_parity_reach_their_range():
    """h' = a(x) h with a(1) = -1, a(-1) = 1 is the sign of parity; a in [0, 1] turns no sign."""
    nothing = jnp.zeros((1, 1))
    params = {
        "gate": jnp.array([[-50.0]]), "gate_bias": jnp.zeros(1), "in": nothing,
        "in_bias": jnp.zeros(1), "start": jnp.ones(1), "out": jnp.array([[1.0]]),
        "out_bias": jnp.zeros(1),
    }  # fmt: skip
    xs = jax.random.rademacher(KEY, (20, 1), jnp.float64)
    signed = parity_eigenvalues.logits(params, xs, signed=True)[:, 0]
    parity = np.cumsum(np.asarray(xs[:, 0]) > 0) % 2
    np.testing.assert_allclose(signed, 1 - 2 * parity, atol=1e-12)
    assert (parity_eigenvalues.logits(params, xs, signed=False) >= 0).all()
    gates = parity_eigenvalues.eigenvalue(params, xs[0], signed=False)
    b = 0.7 * jnp.ones(1)
    constant = params | {"in_bias": b, "gate": nothing}
    # a = σ(0) = 1/2: h' = h/2 + b.
    h = parity_eigenvalues.logits(constant, xs, signed=False)[:, 0]
    np.testing.assert_allclose(h[1:], h[:-1] / 2 + 0.7, rtol=1e-12)
    assert ((gates >= 0) & (gates <= 1)).all()
