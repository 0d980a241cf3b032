import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.integrate
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

from gradlab import meanfield

REFERENCES = json.loads((Path(__file__).parents[1] / "reference" / "references.json").read_text())
ACTIVATIONS = ("tanh", "erf", "relu", "linear")

# Largest Lyapunov exponents of random tanh networks: of width 500 as simulated for the references,
# of width 4096 as published, where the last digit is all that is known of the error.
SIMULATED = [
    (case["id"], float(case["id"].split("_g")[1]), 500, case["value"]["mean"], case["value"]["se"])
    for case in REFERENCES
    if case["id"].startswith("lyap_sim_") and float(case["id"].split("_g")[1]) >= 2
] + [("published_g2", 2.0, 4096, 0.15425, 2e-5), ("published_g3", 3.0, 4096, 0.30958, 2e-5)]


@pytest.mark.parametrize(
    ("gain", "width", "exponent", "stderr"),
    [row[1:] for row in SIMULATED],
    ids=[row[0] for row in SIMULATED],
)
def test_finite_width_against_simulated_exponents(gain, width, exponent, stderr):
    theory = meanfield.elman("tanh", gain)
    predicted = theory.rate + theory.finite_width_bias(width)
    assert predicted == pytest.approx(exponent, abs=3 * stderr)


PHI = {
    "tanh": (np.tanh, lambda a: np.cosh(a) ** -2.0),
    "erf": (scipy.special.erf, lambda a: 2 / np.sqrt(np.pi) * np.exp(-(a**2))),
    "relu": (lambda a: np.maximum(a, 0), lambda a: np.heaviside(a, 0.5)),
    "linear": (lambda a: a, np.ones_like),
}


def simulated_steps(activation, gain, length, n, p, bias_std, input_std, orthogonal, draws=6000):
    """Growth of ln|λ| in each step back, (draws, T - 1) by lag: float64, weights drawn afresh."""
    rng = np.random.default_rng(7)
    phi, slope = PHI[activation]
    h, steps = np.zeros((draws, n)), []
    for _ in range(length):
        W = rng.normal(size=(draws, n, n)) * gain / n**0.5
        if orthogonal:
            W = gain * np.linalg.qr(W)[0] * rng.choice([-1, 1], size=(draws, 1, n))
        drive = rng.normal(size=(draws, n, p)) @ rng.normal(size=(draws, p, 1)) / p**0.5
        a = (W @ h[..., None] + input_std * drive)[..., 0] + bias_std * rng.normal(size=(draws, n))
        h = phi(a)
        steps.append((W, slope(a)))
    adjoint, norms = rng.normal(size=(draws, n)), []
    for W, d in steps[:0:-1]:
        norms.append(np.linalg.norm(adjoint, axis=-1))
        adjoint = ((d * adjoint)[:, None, :] @ W)[:, 0]
    norms.append(np.linalg.norm(adjoint, axis=-1))
    alive = norms[-1] > 0
    return np.diff(np.log(np.array(norms)[:, alive]), axis=0).T


@pytest.mark.parametrize(
    ("activation", "gain", "n", "p", "bias_std", "input_std", "orthogonal", "rest"),
    [
        ("linear", 0.9, 8, 2, 0.1, 1.0, False, 0),
        ("linear", 0.9, 8, 2, 0.1, 1.0, True, 0),
        ("relu", 1.4, 8, 2, 0.1, 1.0, False, 0),
        ("relu", 1.4, 8, 2, 0.1, 1.0, True, 0),
        ("tanh", 2.0, 16, 3, 0.1, 0.5, False, 1),
        ("erf", 1.5, 16, 8, 0.2, 0.4, False, 1),
    ],
)
def test_untied_steps_against_brute_force(
    activation, gain, n, p, bias_std, input_std, orthogonal, rest
):
    """Exact for linear and relu; for the others to the order 1/n², 1/256 here."""
    length = 8
    growth = simulated_steps(activation, gain, length, n, p, bias_std, input_std, orthogonal)
    found = meanfield.untied_steps(
        activation, gain, length, n, bias_std=bias_std, input_variance=input_std**2,
        input_spread=input_std**2 * (2 / p) ** 0.5, orthogonal=orthogonal,
    )  # fmt: skip
    error = growth.std(axis=0) / len(growth) ** 0.5
    off = growth.mean(axis=0) - found[:0:-1]
    assert found.shape == (length,)
    assert (np.abs(off) < 4 * error + 1e-12 + rest * 2 / n**2).all()
    assert abs(off.mean()) < 3 * error.mean() + 1e-12 + rest / n**2


@pytest.mark.parametrize(
    "changes",
    [{"gain": 0.0}, {"length": 0}, {"n": 0}, {"gain": math.nan}, {"activation": "relu"},
     {"orthogonal": True, "input_variance": 0.1}, {"input_spread": -1.0}, {"activation": "sine"}],
)  # fmt: skip
def test_untied_steps_refuses_what_it_has_no_theory_of(changes):
    with pytest.raises(ValueError):
        meanfield.untied_steps(**{"activation": "tanh", "gain": 1.0, "length": 3, "n": 4} | changes)


def expect(f, q):
    """E f(√q z) by adaptive quadrature, split at zero and where f is narrow."""

    def integrand(z):
        return f(np.sqrt(q) * z) * np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)

    edges = [-12, -1 / np.sqrt(1 + q), 0, 1 / np.sqrt(1 + q), 12]
    parts = [
        scipy.integrate.quad(integrand, a, b, epsabs=1e-13, epsrel=1e-11, limit=200)[0]
        for a, b in zip(edges, edges[1:], strict=False)
    ]
    return sum(parts)


@pytest.mark.parametrize("variance", [0.0, 1e-6, 0.3, 2.0, 50.0])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_second_moment_by_quadrature(activation, variance):
    phi, _ = PHI[activation]
    wanted = expect(lambda x: phi(x) ** 2, variance)
    found = meanfield.second_moment(activation, variance)
    assert found == pytest.approx(wanted, rel=1e-9, abs=1e-13)


def test_second_moment_refuses():
    with pytest.raises(ValueError, match="softplus.*tanh"):
        meanfield.second_moment("softplus", 1.0)
    with pytest.raises(ValueError, match="variance"):
        meanfield.second_moment("tanh", -1.0)


@pytest.mark.parametrize("gain", [0.3, 0.7, 1.01, 1.3, 3.0, 8.0])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_answer_solves_the_equations(activation, gain):
    theory = meanfield.elman(activation, gain, bias_std=0.2, input_variance=0.1)
    phi, slope = PHI[activation]
    if math.isfinite(theory.q):
        variance = gain**2 * expect(lambda a: phi(a) ** 2, theory.q) + 0.2**2 + 0.1
        assert theory.q == pytest.approx(variance, rel=1e-9)
        second = expect(lambda a: slope(a) ** 2, theory.q)
        fourth = expect(lambda a: slope(a) ** 4, theory.q)
        assert theory.chi == pytest.approx(gain**2 * second, rel=1e-9)
        assert theory.k == pytest.approx(fourth / second**2, rel=1e-9)
    assert theory.rate == pytest.approx(0.5 * math.log(theory.chi), abs=1e-12)


@pytest.mark.parametrize("activation", ["tanh", "erf"])
def test_the_quiet_phase_is_exact(activation):
    slope = PHI[activation][1](np.array(0.0)).item()
    for gain in (0.2, 0.5, 0.99 / slope):
        theory = meanfield.elman(activation, gain)
        assert theory.q == 0
        assert theory.rate == pytest.approx(math.log(gain * slope), rel=1e-9)


def test_the_critical_point_of_tanh_is_exact():
    theory = meanfield.elman("tanh", 1.0)
    assert (theory.q, theory.k) == (0, pytest.approx(1, abs=1e-14))
    assert theory.chi == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize("excess", [1e-3, 1e-5, 1e-8])
def test_just_above_the_critical_point(excess):
    # tanh² = x² - 2x⁴/3 + 17x⁶/45 gives σ_w² (1 - 2q + 17q²/3) = 1 at the fixed point.
    theory = meanfield.elman("tanh", math.sqrt(1 + excess))
    m = excess / (1 + excess)
    assert theory.q == pytest.approx(m / 2 + 17 * m * m / 24, rel=max(20 * m * m, 1e-6))


@pytest.mark.parametrize(("activation", "critical"), [("relu", math.sqrt(2)), ("linear", 1.0)])
def test_where_relu_and_linear_have_no_finite_variance(activation, critical):
    above = critical * 1.01
    assert meanfield.elman(activation, above).q == math.inf
    assert meanfield.elman(activation, above, bias_std=0.1).q == math.inf
    assert meanfield.elman(activation, 0.99 * critical).q == 0
    assert meanfield.elman(activation, above).rate == pytest.approx(math.log(1.01), rel=1e-12)


def test_a_critical_linear_network_keeps_any_variance():
    assert math.isnan(meanfield.elman("linear", 1.0).q)
    assert meanfield.elman("linear", 1.0, input_variance=1.0).q == math.inf
    assert meanfield.elman("linear", 1.0).rate == 0


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_no_weights_no_gradient(activation):
    theory = meanfield.elman(activation, 0.0, input_variance=0.5)
    assert (theory.q, theory.chi, theory.rate) == (0.5, 0, -math.inf)


@given(
    activation=st.sampled_from(["tanh", "erf"]),
    gain=st.floats(0.0, 100.0),
    bias=st.floats(0.0, 5.0),
    drive=st.floats(0.0, 5.0),
)
def test_a_bias_and_an_input_add_as_variances_and_quieten(activation, gain, bias, drive):
    both = meanfield.elman(activation, gain, bias_std=bias, input_variance=drive)
    joint = meanfield.elman(activation, gain, input_variance=bias**2 + drive)
    assert both.q == pytest.approx(joint.q, rel=1e-9, abs=1e-9)
    assert both.q <= gain**2 + bias**2 + drive + 1e-9
    assert both.chi <= meanfield.elman(activation, gain).chi + 1e-9
    assert both.k >= 1 - 1e-12


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("tahn", 1.0), {}, "unknown activation 'tahn'; did you mean 'tanh'? valid: erf, linear"),
        (("tanh", -1.0), {}, "gain must be finite and at least 0, got -1.0"),
        (("tanh", math.nan), {}, "gain must be finite and at least 0, got nan"),
        (("tanh", 1.0), {"bias_std": math.inf}, "bias_std must be finite and at least 0, got inf"),
        (("erf", 1.0), {"input_variance": -0.1}, "input_variance must be finite and at least 0"),
    ],
)
def test_bad_arguments_are_refused(arguments, options, message):
    with pytest.raises(ValueError) as error:
        meanfield.elman(*arguments, **options)
    assert str(error.value).startswith(message)


def expect_pair(f, q, c):
    """E f(a, b) of two N(0, q) of correlation c, by the midpoint rule on 400 cells a side."""
    x = (np.arange(400) - 199.5) * 0.04
    w = 0.04 * np.exp(-0.5 * x**2)
    a = np.sqrt(q) * x[:, None]
    b = np.sqrt(q) * (c * x[:, None] + np.sqrt(1 - c**2) * x)
    return w @ f(a, b) @ w / (2 * np.pi)


@pytest.mark.parametrize("drive", [0.01, 0.3, 2.0])
@pytest.mark.parametrize("gain", [1.5, 2.0])
@pytest.mark.parametrize("activation", ["tanh", "erf"])
def test_c_star_solves_its_equation_and_is_stable(activation, gain, drive):
    options = {"bias_std": math.sqrt(0.4 * drive), "input_variance": 0.6 * drive}
    theory = meanfield.elman(activation, gain, **options)
    found = meanfield.correlation(activation, gain, **options)
    phi, slope = PHI[activation]
    product = expect_pair(lambda a, b: phi(a) * phi(b), theory.q, found.c_star)
    assert found.c_star == pytest.approx((gain**2 * product + drive) / theory.q, abs=1e-9)
    slopes = expect_pair(lambda a, b: slope(a) * slope(b), theory.q, found.c_star)
    assert found.slope == pytest.approx(gain**2 * slopes, abs=1e-9)
    assert found.slope < 1
    assert (found.c_star == 1) == (theory.chi <= 1)
    assert found.xi_c == pytest.approx(-1 / math.log(found.slope))


@pytest.mark.parametrize("activation", ["tanh", "erf"])
def test_c_star_leaves_one_at_the_critical_gain(activation):
    critical = meanfield.critical_gain(activation, bias_std=0.3)
    assert meanfield.correlation(activation, critical * (1 - 1e-9), bias_std=0.3).c_star == 1
    near = [
        meanfield.correlation(activation, critical * (1 + e), bias_std=0.3) for e in (1e-6, 1e-4)
    ]
    # To first order both sides depart in proportion: the slope at c* lies as far below 1 as chi
    # lies above.
    chi = [meanfield.elman(activation, critical * (1 + e), bias_std=0.3).chi for e in (1e-6, 1e-4)]
    for point, there in zip(near, chi, strict=True):
        assert 0 < 1 - point.c_star < 1e-2
        assert 1 - point.slope == pytest.approx(there - 1, rel=0.01)
    assert (1 - near[1].c_star) / (1 - near[0].c_star) == pytest.approx(100, rel=0.02)


@pytest.mark.parametrize(("activation", "gain"), [("relu", 1.2), ("linear", 0.8)])
def test_relu_and_linear_have_no_chaotic_phase(activation, gain):
    theory = meanfield.elman(activation, gain, bias_std=0.1)
    assert meanfield.correlation(activation, gain, bias_std=0.1) == (1.0, theory.chi)
    assert all(np.isnan(meanfield.correlation(activation, 2.0, bias_std=0.1)))


@pytest.mark.parametrize(
    ("activation", "gain"),
    [("tanh", 1.0), ("erf", math.sqrt(math.pi) / 2), ("relu", math.sqrt(2)), ("linear", 1.0)],
)
def test_the_critical_gain_without_drive_is_exact(activation, gain):
    assert meanfield.critical_gain(activation) == pytest.approx(gain, rel=1e-14)


@pytest.mark.parametrize("drive", [1e-6, 0.1, 30.0])
@pytest.mark.parametrize("activation", ["tanh", "erf"])
def test_the_critical_line_reads_both_ways(activation, drive):
    gain = meanfield.critical_gain(activation, bias_std=drive**0.5, input_variance=drive)
    theory = meanfield.elman(activation, gain, bias_std=drive**0.5, input_variance=drive)
    assert theory.chi == pytest.approx(1, abs=1e-10)
    back = meanfield.critical_bias_std(activation, gain, input_variance=drive)
    assert back == pytest.approx(drive**0.5, rel=1e-8)


@pytest.mark.parametrize("gain", [0.7, 1.3, 3.0])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_variance_comes_nearer_by_q_slope(activation, gain):
    theory = meanfield.elman(activation, gain, input_variance=0.2)
    q = theory.q if math.isfinite(theory.q) else 1.0
    phi = PHI[activation][0]
    above, below = (gain**2 * expect(lambda a: phi(a) ** 2, q * e) for e in (1.001, 0.999))
    assert theory.q_slope == pytest.approx((above - below) / (0.002 * q), rel=1e-5)


def test_timescales_at_the_edges():
    assert meanfield.elman("tanh", 1.0).xi_grad == math.inf
    assert meanfield.elman("tanh", 0.0).xi_grad == 0
    assert meanfield.elman("tanh", 2.0).xi_grad < 0 < meanfield.elman("tanh", 2.0).xi_q


def logistic(a):
    return 1 / (1 + np.exp(-a))


@pytest.mark.parametrize("reset_bias", [-1.0, 2.0])
def test_a_gru_against_samples(reset_bias):
    """The equations of both forms on 400,000 samples of one unit."""
    gain, bias_std, drive = 2.5, 0.4, 0.3
    options = {"update_bias": 0.5, "bias_std": bias_std, "input_variance": drive}
    after = meanfield.gru(gain, reset_bias=reset_bias, **options)
    before = meanfield.gru_reset_before(gain, reset_bias=reset_bias, **options)
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((4, 400_000))
    for theory, form in ((after, "after"), (before, "before")):
        std = np.sqrt(gain**2 * theory.q + bias_std**2 + drive)
        z, r = logistic(0.5 + std * normal[0]), logistic(reset_bias + std * normal[1])
        x = np.sqrt(bias_std**2 + drive) * normal[2]
        if form == "after":
            a = np.sqrt(gain**2 * theory.q + bias_std**2) * normal[3]
            n = np.tanh(x + r * a)
            into_n = np.mean((1 - n**2) ** 2 * (r**2 + (r * (1 - r) * a) ** 2))
        else:
            kept = np.mean(r**2)
            n = np.tanh(x + gain * np.sqrt(kept * theory.q) * normal[3])
            through_r = gain**2 * theory.q * np.mean((r * (1 - r)) ** 2)
            into_n = np.mean((1 - n**2) ** 2) * (kept + through_r)
        q = np.mean(z**2) * theory.q + np.mean((1 - z) ** 2) * np.mean(n**2)
        into_z = np.mean((z * (1 - z)) ** 2) * (theory.q + np.mean(n**2))
        chi = np.mean(z**2) + gain**2 * (into_z + np.mean((1 - z) ** 2) * into_n)
        assert theory.q == pytest.approx(q, rel=5e-3)
        assert theory.chi == pytest.approx(chi, rel=5e-3)
        assert theory.rate == pytest.approx(0.5 * math.log(theory.chi))


def test_an_lstm_against_a_population_of_memories():
    """c = f c + i g iterated on 200,000 units, from which every moment is a mean."""
    gain, drive = 2.5, 0.4
    biases = {"forget_bias": 1.0, "input_bias": -0.5, "output_bias": 0.7}
    theory = meanfield.lstm(gain, **biases, input_variance=drive)
    rng = np.random.default_rng(0)
    std, c, means = np.sqrt(gain**2 * theory.q + drive), np.zeros(200_000), []
    for step in range(55):
        normal = rng.standard_normal((4, 200_000), dtype=np.float32).astype(float)
        f, i, o = (
            logistic(mean + std * a) for mean, a in zip(biases.values(), normal, strict=False)
        )
        g = np.tanh(std * normal[3])
        before, c = c, f * c + i * g
        if step < 40:
            continue
        t2 = np.tanh(c) ** 2
        into = (f * (1 - f) * before) ** 2 + (i * (1 - i) * g) ** 2 + (i * (1 - g**2)) ** 2
        s = o**2 * (1 - t2) ** 2
        hh = gain**2 * (np.mean(into * s) + np.mean((o * (1 - o)) ** 2 * t2))
        hc, ch, cc = gain**2 * np.mean(into), np.mean(f**2 * s), np.mean(f**2)
        means.append([np.mean(o**2 * t2), np.mean(c**2), hh, hc, ch, cc])
    q, q_c, *moments = np.mean(means, axis=0)
    assert (theory.q, theory.q_c) == pytest.approx((q, q_c), rel=5e-3)
    assert np.ravel(theory.moments) == pytest.approx(moments, rel=5e-3)
    chi = np.max(np.linalg.eigvals(theory.moments).real)
    assert (theory.chi, theory.rate) == pytest.approx((chi, 0.5 * math.log(chi)))


def test_a_wide_memory_is_as_a_gaussian():
    # Long memories add many independent terms.
    theory = meanfield.lstm(0.3, forget_bias=7.0, input_variance=0.01)
    gates = logistic(0.0) ** 2
    gaussian = expect(lambda c: np.tanh(c) ** 2, theory.q_c)
    assert theory.q == pytest.approx(gates * gaussian, rel=0.02)


@pytest.mark.parametrize("forget_bias", [-1.0, 0.0, 3.0])
def test_the_untied_state_zero_is_exact(forget_bias):
    f = logistic(forget_bias)
    lstm = meanfield.lstm(1.0, forget_bias=forget_bias)
    assert (lstm.q, lstm.q_c) == (0, 0)
    # hh = S o² i² σ_w², hc = i² σ_w², ch = o² f², cc = f²: a matrix of rank one.
    assert lstm.chi == pytest.approx(1 / 16 + f**2, abs=1e-9)
    for theory in (
        meanfield.gru(1.0, update_bias=forget_bias),
        meanfield.gru_reset_before(1.0, update_bias=forget_bias),
    ):
        assert theory.q == 0
        assert theory.chi == pytest.approx(f**2 + (1 - f) ** 2 / 4, abs=1e-9)


def test_a_gated_network_leaves_zero_where_its_variance_grows():
    # q' = q/4 (1 + σ_w²/4) to first order, so at σ_w = √12.
    critical = math.sqrt(12)
    assert meanfield.gru(0.99 * critical).q == 0
    assert meanfield.gru(1.01 * critical).q > 1e-3
    assert meanfield.minimal_rnn(2.0, feature_variance=0.0).q == 0


def test_a_minimal_rnn_against_direct_quadrature():
    theory = meanfield.minimal_rnn(
        3.0, feature_variance=2.0, input_gain=0.5, update_bias=1.0, bias_std=0.2
    )

    def mean(f):
        return expect(lambda a: (f(1.0 + a) + f(1.0 - a)) / 2, 9 * theory.q + 0.5 + 0.04)

    kept = mean(lambda a: logistic(a) ** 2)
    q = theory.q * kept + 2.0 * mean(lambda a: logistic(-a) ** 2)
    slope = mean(lambda a: (logistic(a) * logistic(-a)) ** 2)
    assert theory.q == pytest.approx(q, rel=1e-9)
    assert theory.chi == pytest.approx(kept + 9 * (theory.q + 2) * slope, rel=1e-9)
    assert theory.xi_grad == pytest.approx(-1 / math.log(theory.chi))


@pytest.mark.parametrize("cell", ["gru", "gru_reset_before", "lstm"])
def test_the_disc_holds_the_eigenvalues(cell):
    n, gain = 300, 3.0
    w = gain * np.random.default_rng(0).standard_normal((n, n)) / math.sqrt(n)
    if cell == "lstm":
        biases = {"forget_bias": 0.5, "input_bias": -1.0, "output_bias": 1.0}
        f, i, o = (logistic(b) for b in biases.values())
        eye = np.eye(n)
        # On (c, h): c' = f c + i W h, h' = o c'.
        jacobian = np.block([[f * eye, i * w], [o * f * eye, o * i * w]])
        values = np.linalg.eigvals(jacobian)
        values = values[np.abs(values) > 1e-6]
        assert len(values) == n
    else:
        biases = {"update_bias": 0.5, "reset_bias": -1.0}
        z, r = (logistic(b) for b in biases.values())
        values = np.linalg.eigvals(z * np.eye(n) + (1 - z) * r * w)
    found = meanfield.disc(cell, gain, **biases)
    distance = np.abs(values - found.centre)
    assert np.max(distance) == pytest.approx(found.radius, rel=0.08)
    # Uniform on the disc: a quarter of them within half its radius.
    assert np.mean(distance < found.radius / 2) == pytest.approx(0.25, abs=0.05)
    assert found.rate == pytest.approx(math.log(np.max(np.abs(values))), abs=0.05)
    assert meanfield.disc(cell, found.critical_gain, **biases).rate == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: meanfield.correlation("tanhh", 1.0), "unknown activation 'tanhh'; did you mean"),
        (
            lambda: meanfield.critical_gain("gelu"),
            "unknown activation 'gelu'; did you mean 'relu'?",
        ),
        (lambda: meanfield.critical_gain("tanh", bias_std=-1.0), "bias_std must be finite and at"),
        (lambda: meanfield.critical_bias_std("relu", 1.5), "no critical bias_std for relu: its"),
        (
            lambda: meanfield.critical_bias_std("tanh", 0.9),
            "no critical bias_std for tanh with gain 0.9: chi < 1 at every bias; gain must be at "
            "least 1",
        ),
        (lambda: meanfield.gru(-1.0), "gain must be finite and at least 0, got -1.0"),
        (lambda: meanfield.gru(1.0, reset_bias=math.nan), "reset_bias must be finite, got nan"),
        (lambda: meanfield.gru_reset_before(1.0, bias_std=-0.1), "bias_std must be finite and at"),
        (lambda: meanfield.lstm(1.0, forget_bias=math.inf), "forget_bias must be finite, got inf"),
        (
            lambda: meanfield.minimal_rnn(1.0, feature_variance=-1.0),
            "feature_variance must be finite and at least 0, got -1.0",
        ),
        (lambda: meanfield.disc("elman", 1.0), "unknown cell with a disc 'elman'; valid: gru, "),
        (
            lambda: meanfield.disc("gru", 1.0, forget_bias=1.0),
            "unknown bias of gru 'forget_bias'; did you mean",
        ),
        (lambda: meanfield.disc("lstm", -1.0), "gain must be finite and at least 0, got -1.0"),
    ],
)
def test_what_has_no_answer_is_refused(call, message):
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value).startswith(message)


def test_a_width_of_nothing_is_refused():
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        meanfield.elman("tanh", 2.0).finite_width_bias(0)


def test_scales_whose_squares_overflow_are_refused():
    for theory in (meanfield.gru, lambda gain: meanfield.elman("linear", gain)):
        with pytest.raises(ValueError, match="gain must be at most 1e150, got 1e\\+200"):
            theory(1e200)
