"""How each reference on dynamics is checked: groups lyapunov, maps, exact and regulariser.

``CHECKS[id](case)`` asserts; ``NOT_HERE[id]`` says why a reference cannot be checked. Runs that
several references share are made once.
"""

import functools
import json
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import scipy.signal
import scipy.special

import gradlab as gl

CASES = json.loads((Path(__file__).parents[1] / "reference" / "references.json").read_text())
ORACLE = json.loads((Path(__file__).parents[1] / "reference" / "cells.json").read_text())
CHECKS, NOT_HERE = {}, {}


def checks(pattern):
    """Enter a check for every id that matches; the groups of the match are its arguments."""

    def enter(check):
        for case in CASES:
            match = re.fullmatch(pattern, case["id"])
            if match:
                CHECKS[case["id"]] = functools.partial(_run, check, match.groups())
        return check

    return enter


def _run(check, arguments, case):
    check(case, *arguments)


def near(value, tolerance):
    return pytest.approx(value, rel=0, abs=float(tolerance))


def mean_near(samples, value, bias):
    """Whether the mean over the first axis is `value`, but for a bias of the method.

    Chaos follows the last bit: another processor draws other samples, so that a bound must hold
    for all that could be drawn. Five standard errors leave one draw in a thousand and less.
    """
    error = np.std(samples, axis=0, ddof=1) / math.sqrt(len(samples))
    return np.all(np.abs(np.mean(samples, axis=0) - value) <= bias + 5 * error)


def gaussian(seed, n, dtype=np.float64):
    """W_ij ~ N(0, 1/n) and a state."""
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((n, n)) / math.sqrt(n)
    return W.astype(dtype), rng.standard_normal(n).astype(dtype)


# Random networks.


@checks(r"lyap_theory_discrete_g(.*)")
def discrete_theory(case, gain):
    theory = gl.meanfield.elman("tanh", float(gain))
    if float(gain) < 10:
        assert theory.rate == near(case["value"], case["tol"])
        return
    # The published numbers miss their own definition, ½ ln g² E sech⁴, by 2e-8 at g = 10 and by
    # 1.5e-3 at g = 20: too few nodes for so narrow a sech. An adaptive quadrature judges instead.
    assert abs(theory.rate - case["value"]) < 2e-3

    def expect(f, q):
        def integrand(z):
            return 2 * f(math.sqrt(q) * z) * math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)

        edges = (0, 0.05, 0.2, 1, 12)
        pairs = zip(edges, edges[1:], strict=False)
        return sum(scipy.integrate.quad(integrand, *pair, epsabs=1e-14)[0] for pair in pairs)

    g, q = float(gain), float(gain) ** 2
    for _ in range(20):
        q = g * g * expect(lambda a: math.tanh(a) ** 2, q)
    rate = 0.5 * math.log(g * g * expect(lambda a: math.cosh(a) ** -4, q))
    assert theory.rate == near(rate, case["tol"])


SIM_GAINS = (0.5, 0.9, 1.5, 2.0, 3.0, 5.0)
SIM_SEEDS = range(4)
FORMS = {
    "tanhW": lambda W, g, h: jnp.tanh(g * (W @ h)),
    "Wtanh": lambda W, g, h: g * (W @ jnp.tanh(h)),
}


@functools.cache
def simulated(form):
    """λ_1 for each seed and gain at N = 500 in float32, over 1200 steps after 600."""

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, None, 0))
    def run(W, h, gain):
        spectrum = gl.spectrum.lyapunov(
            lambda h: FORMS[form](W, gain, h), h, steps=1200, burn_in=600, k=1, qr_every=8
        )
        return spectrum.exponents[0]

    gains = jnp.array(SIM_GAINS, jnp.float32)
    return np.array([run(*gaussian(seed, 500, np.float32), gains) for seed in SIM_SEEDS])


@functools.cache
def log_radius(seed):
    return math.log(np.abs(np.linalg.eigvals(gaussian(seed, 500)[0])).max())


@checks(r"lyap_sim_(tanhW|Wtanh)_g(.*)")
def simulated_networks(case, form, gain):
    exponents = simulated(form)[:, SIM_GAINS.index(float(gain))]
    if float(gain) < 1:
        for seed, exponent in zip(SIM_SEEDS, exponents, strict=True):
            assert exponent == near(log_radius(seed) + math.log(float(gain)), 2e-3)
    elif float(gain) < 2:
        assert mean_near(exponents, case["value"]["mean"], 0.01)
    else:
        assert mean_near(exponents, case["value"]["finite_N_corrected"], 0.003)


@checks("finite_N_lambda1")
def finite_width(case):
    assert case["value"].endswith("g=2,3,5 N=500: 0.15109, 0.30470, 0.52302")
    for gain, n, expected in (
        (2, 4096, 0.15428),
        (3, 4096, 0.30957),
        (2, 500, 0.15109),
        (3, 500, 0.30470),
        (5, 500, 0.52302),
    ):
        theory = gl.meanfield.elman("tanh", gain)
        assert theory.rate + theory.finite_width_bias(n) == near(expected, 6e-6)


LEAKY = [case["id"] for case in CASES if case["id"].startswith("lyap_theory_delta0.")]


@functools.cache
def leaky():
    """λ_1 per unit of time for each seed and LEAKY at N = 1000, over 800 steps after 400."""
    delta, gain = (
        jnp.array([float(re.findall(r"[\d.]+", name)[i]) for name in LEAKY], jnp.float32)
        for i in (0, 1)
    )

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, None, 0, 0))
    def run(W, x, delta, gain):
        def step(x):
            return (1 - delta) * x + delta * gain * (W @ jnp.tanh(x))

        spectrum = gl.spectrum.lyapunov(step, x, steps=800, burn_in=400, k=1, qr_every=8, dt=delta)
        return spectrum.exponents[0]

    return np.array([run(*gaussian(seed, 1000, np.float32), delta, gain) for seed in range(8)])


@checks(r"lyap_theory_delta(0\.\d+)_g(.*)")
def leaky_networks(case, _delta, _gain):
    exponents = leaky()[:, LEAKY.index(case["id"])]
    # At this width 0.006 to 0.016 below the infinite one, by the mean over 24 matrices.
    assert mean_near(exponents, case["value"], 0.016)


for _case in CASES:
    if _case["id"].startswith("lyap_theory_delta0 "):
        NOT_HERE[_case["id"]] = (
            "infinitely wide network in continuous time: one of width 500 lies 0.02 (g = 1.25) to "
            "0.17 (g = 20) below, so a simulation that runs in seconds cannot tell"
        )

WIDE, WIDE_GAINS, WIDE_SEEDS = 200, (1.5, 2.0, 2.5), range(8)


@functools.cache
def full_spectra():
    """All exponents of each seed and gain at N = 200 in float32, over 240 steps after 60."""

    # Three steps between QRs lose only what lies 5.3 below λ_1, past the last quantile.
    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, None, 0))
    def run(W, h, gain):
        return gl.spectrum.lyapunov(
            lambda h: FORMS["tanhW"](W, gain, h), h, steps=240, burn_in=60, qr_every=3
        ).exponents

    gains = jnp.array(WIDE_GAINS, jnp.float32)
    return np.array([run(*gaussian(seed, WIDE, np.float32), gains) for seed in WIDE_SEEDS])


@checks(r"full_spectrum_g(.*)")
def full_spectrum(case, gain):
    exponents = full_spectra()[:, WIDE_GAINS.index(float(gain))]
    expected = case["value"]
    # 1 % at N = 4096, and what is missing at a finite width goes as 1/N.
    bias = 0.01 * 4096 / WIDE
    for name, samples, factor in (
        ("D_KY_over_N", gl.spectrum.kaplan_yorke(exponents) / WIDE, 1),
        ("entropy_rate_over_N", gl.spectrum.entropy_rate(exponents) / WIDE, 1.5),
        ("unstable_fraction", np.mean(exponents > 0, axis=1), 1),
    ):
        assert mean_near(samples, expected[name], factor * bias * expected[name]), name
    places = (np.arange(WIDE) + 0.5) / WIDE
    for place, value in expected["quantiles"].items():
        samples = [np.interp(float(place), places, -np.sort(-each)) for each in exponents]
        assert mean_near(samples, value, 0.03 + 0.03 * abs(value)), place


@checks("sum_rule")
def sum_rule(case):
    # Longer, and chaos would part NumPy's orbit from JAX's.
    n, steps = 30, 50
    W, h = gaussian(3, n)
    W *= 2
    spectrum = jax.jit(lambda h: gl.spectrum.lyapunov(lambda h: jnp.tanh(W @ h), h, steps=steps))(h)
    total = steps * np.linalg.slogdet(W)[1]
    for _ in range(steps):
        h = np.tanh(W @ h)
        total += np.log1p(-(h**2)).sum()
    assert spectrum.exponents.sum() == near(total / steps, case["tol"])


# Maps.


@checks("logistic_r4")
def logistic(case):
    spectrum = gl.spectrum.lyapunov(lambda h: 4 * h * (1 - h), 0.3, steps=20_000, burn_in=100)
    assert spectrum.exponents[0] == near(case["value"], case["tol"])
    assert spectrum.exponents[0] == near(case["value"], 5 * spectrum.stderr[0])


@checks("cat_map")
def cat_map(case):
    cat = jnp.array([[2.0, 1.0], [1.0, 1.0]])
    spectrum = gl.spectrum.lyapunov(
        lambda h: (cat @ h) % 1, jnp.array([0.1, 0.7]), steps=500, burn_in=100
    )
    expected = [case["value"], -case["value"]]
    assert np.asarray(spectrum.exponents) == near(expected, case["tol"])


@checks("henon")
def henon(case):
    def step(h):
        return jnp.stack([1 - 1.4 * h[0] ** 2 + h[1], 0.3 * h[0]])

    run = jax.vmap(lambda h: gl.spectrum.lyapunov(step, h, steps=5000, burn_in=100, qr_every=5))
    starts = np.random.default_rng(0).uniform(-0.1, 0.1, (1000, 2))
    exponents = np.asarray(jax.jit(run)(starts).exponents)
    # The reference's 2e-4 would be half a standard error at its 1e6 steps; these are 5e6.
    assert exponents[:, 0].std() / math.sqrt(1000) < 2e-4
    assert mean_near(exponents[:, 0], case["value"]["lambda1"], 0)
    assert exponents.sum(1) == near(case["value"]["sum"], 1e-10)
    assert gl.spectrum.kaplan_yorke(exponents.mean(0)) == near(case["value"]["D_KY"], 5e-4)


@checks("lorenz")
def lorenz(case):
    def field(h):
        x, y, z = h
        return jnp.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])

    def step(h, dt=0.005):
        a = field(h)
        b = field(h + dt / 2 * a)
        c = field(h + dt / 2 * b)
        return h + dt / 6 * (a + 2 * b + 2 * c + field(h + dt * c))

    run = jax.vmap(
        lambda h: (
            gl.spectrum.lyapunov(
                step, h, steps=30_000, burn_in=4000, qr_every=40, dt=0.005
            ).exponents
        )
    )
    starts = np.random.default_rng(0).uniform(-1, 1, (400, 3)) + np.array([0, 0, 25])
    exponents = np.asarray(jax.jit(run)(starts))
    # 60,000 units of time; the second carries what the start has not yet forgotten.
    assert (exponents.std(0) / 20 < 1e-3).all()
    assert mean_near(exponents, case["value"]["lambda_"], 1e-4)
    # RK4 does not contract by exactly the trace.
    assert exponents.mean(0).sum() == near(case["value"]["sum"], 1e-3)


# Exact values.


@checks(r"scalar_tanh_w(.*)")
def scalar_tanh(case, weight):
    w = float(weight)
    spectrum = gl.spectrum.lyapunov(lambda h: jnp.tanh(w * h), 1.0, steps=40, burn_in=200)
    assert spectrum.exponents[0] == near(float(case["value"]["lyap"]), case["tol"])


@functools.cache
def orthogonal_matrix():
    return scipy.linalg.qr(np.random.default_rng(5).standard_normal((6, 6)))[0]


@checks("linear_orthogonal")
def linear_orthogonal(case):
    Q = orthogonal_matrix()

    @functools.partial(jax.jit, static_argnums=1)
    def run(W, length):
        def loss(h):
            h, _ = jax.lax.scan(lambda h, _: (W @ h, None), h, length=length)
            return h @ jnp.arange(1.0, 7)

        gradient = jax.grad(loss)(jnp.ones(6))
        logs = gl.spectrum.log_singular_values(lambda h: W @ h, jnp.ones(6), steps=length)
        return jnp.linalg.norm(gradient) / jnp.linalg.norm(jnp.arange(1.0, 7)), logs

    for row in case["value"]:
        ratio, logs = run(row["rho"] * Q, row["T"])
        assert ratio == pytest.approx(row["ratio"], rel=case["tol"])
        assert np.exp(logs) == pytest.approx(np.full(6, row["ratio"]), rel=case["tol"])


@checks("tanh_orthogonal_sv")
def tanh_orthogonal(case):
    W, h = 1.7 * orthogonal_matrix(), np.linspace(-1, 1, 6)
    logs = gl.spectrum.log_singular_values(lambda h: jnp.tanh(W @ h), h, steps=1)
    expected = np.sort(1.7 * np.cosh(W @ h) ** -2)[::-1]
    assert np.exp(logs) == near(expected, case["tol"])


@checks(r"newman_n(.*)")
def newman(case, width):
    n = int(width)
    steps = {2: 8000, 10: 3000, 50: 300, 200: 60}[n]

    def step(h, key):
        return jax.random.normal(key, (n, n)) @ h / math.sqrt(n)

    keys = jax.random.split(jax.random.key(0), steps + steps // 10)
    spectrum = jax.jit(
        lambda keys: gl.spectrum.lyapunov(step, jnp.zeros(n), keys, burn_in=steps // 10)
    )(keys)
    exponents = np.asarray(spectrum.exponents)
    degrees = (n - np.arange(n)) / 2
    errors = np.sqrt(scipy.special.polygamma(1, degrees) / 4 / steps)
    assert abs(exponents[0] - case["value"]["lambda1"]) < 4 * errors[0]
    assert abs(exponents[-1] - case["value"]["lambda_n"]) < 4 * errors[-1]
    # The steps are independent, and so are the R_ii of one step.
    assert abs(exponents.sum() - case["value"]["sum"]) < 4 * np.sqrt((errors**2).sum())
    if case["value"]["all"]:
        assert (np.abs(exponents - case["value"]["all"]) < 4 * errors).all()
    # Twenty batches give a standard error to 16 %.
    ratio = np.asarray(spectrum.stderr) / errors
    assert np.sqrt(np.mean(ratio**2)) == pytest.approx(1, abs=0.5)


@functools.cache
def linear_memory():
    """∂h_T/∂x_t, by trace, and ∂²h_T/∂λ∂x_t of h_t = λ h_{t-1} + x_t."""

    def last(decay, xs):
        return jax.lax.scan(lambda h, x: (decay * h + x, None), 0.0, xs)[0]

    @jax.jit
    def run(decay):
        xs = jnp.zeros(40_000)

        def sensitivity(xs):
            return jax.jvp(lambda decay: last(decay, xs), (decay,), (1.0,))[1]

        log_norm = gl.trace(last, argnums=())(decay, xs).scans[0].log_norm
        return jnp.exp(log_norm), jax.grad(sensitivity)(xs)

    return run


@checks(r"zucchet_lam(.*)_ar(.*)")
def zucchet(case, decay, correlation):
    a = float(correlation)
    memory, sensitivity = map(np.asarray, linear_memory()(float(decay)))

    def variance(response):
        # Σ_ij r_i r_j a^|i-j|, by the recursion that sums the terms with j <= i.
        so_far = scipy.signal.lfilter([1.0], [1.0, -a], response)
        return response @ (2 * so_far - response)

    assert variance(memory) == pytest.approx(case["value"]["E_h2"], rel=case["tol"])
    assert variance(sensitivity) == pytest.approx(case["value"]["E_dh2"], rel=case["tol"])


@functools.cache
def carousel():
    """ln(∂c_T/∂c_0)/T of an LSTM without recurrent weights and input, and λ_1 of all its state."""
    zeros = jax.nn.initializers.zeros

    @functools.partial(jax.jit, static_argnums=1)
    def run(forget_bias, steps):
        cell = gl.cells.lstm(1, 3, recurrent=zeros, forget_bias=forget_bias)
        params = cell.init(jax.random.key(0))
        zero = jnp.zeros(1)

        def memory(c):
            return cell.step(params, gl.cells.LSTMState(c, jnp.zeros(3)), zero).c

        logs = gl.spectrum.log_singular_values(memory, jnp.zeros(3), steps=steps)
        spectrum = gl.spectrum.lyapunov(
            lambda state: cell.step(params, state, zero), cell.start(), steps=100, burn_in=100, k=1
        )
        return logs / steps, spectrum.exponents[0]

    return run


@checks(r"lstm_cec_bf.*")
def constant_error_carousel(case):
    slopes, exponent = carousel()(case["value"]["b_f"], 100)
    assert np.asarray(slopes) == near(case["value"]["log_sigma"], case["tol"])
    assert exponent == near(case["value"]["log_sigma"], case["tol"])
    assert np.exp(100 * slopes) == pytest.approx(case["value"]["dcT_dc0_T100"], rel=1e-12)


@checks(r"chrono_T.*")
def chrono(case):
    value = case["value"]
    assert math.log(value["T"] - 1) == near(value["b_f"], case["tol"])
    slopes, _ = carousel()(value["b_f"], value["T"])
    assert np.exp(slopes) == near(value["sigma"], case["tol"])
    assert np.exp(value["T"] * slopes) == near(value["decay_over_T"], case["tol"])


# The oracle's cells.


def oracle(name):
    """An oracle's step, its first state and its inputs; weights by the closed formula."""
    count, width = ORACLE["I"], ORACLE["H"]
    gates = {"rnn": 1, "lstm": 4}[name]

    def weights(of, *shape):
        i, j = np.indices((*shape, 1)[:2])
        values = np.sin(1 + 0.7 * i + 1.3 * j + 0.9 * i * j + ORACLE["phases"][of])
        return jnp.array(ORACLE["A"] * values.reshape(shape))

    W, U = weights("W_hh", gates * width, width), weights("W_ih", gates * width, count)
    b = weights("b_ih", gates * width) + weights("b_hh", gates * width)
    cell = {"rnn": gl.cells.elman, "lstm": gl.cells.lstm}[name](count, width)
    params = {"recurrent": W, "input": U, "bias": b}
    h = jnp.array(ORACLE["h0"])
    state = gl.cells.LSTMState(jnp.array(ORACLE["c0"]), h) if name == "lstm" else h
    return functools.partial(cell.step, params), state, jnp.array(ORACLE["x"])


@checks("pascanu_omega")
def pascanu(case):
    step, state, xs = oracle("rnn")

    def loss(h, xs):
        h, _ = jax.lax.scan(lambda h, x: (step(h, x), None), h, xs)
        return h @ jnp.array(ORACLE["v"])

    out = gl.trace(loss)(state, xs)
    start = math.log(np.linalg.norm(out.grads))
    log_norm = np.concatenate([[start], np.asarray(out.scans[0].log_norm)])
    ratio = np.exp(log_norm[:-1] - log_norm[1:])
    assert ratio == near(case["value"]["ratio"], case["tol"])
    assert np.sum((ratio - 1) ** 2) == near(case["value"]["paper"], case["tol"])
    assert np.sum((ratio**2 - 1) ** 2) == near(case["value"]["code_form"], case["tol"])
