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

REFERENCE = json.loads((Path(__file__).parent / "reference" / "meanfield.json").read_text())
ACTIVATIONS = ("tanh", "erf", "relu", "linear")


def rows(table):
    columns = REFERENCE[table]["columns"]
    return [dict(zip(columns, row, strict=True)) for row in REFERENCE[table]["rows"]]


@pytest.mark.parametrize(
    "row",
    rows("fixed_points"),
    ids=lambda r: f"{r['activation']}-{r['gain']}-{r['bias_std']}-{r['input_variance']}",
)
def test_fixed_points(row):
    theory = meanfield.elman(
        row["activation"],
        row["gain"],
        bias_std=row["bias_std"],
        input_variance=row["input_variance"],
    )
    expected_q = math.inf if row["q"] is None else row["q"]
    assert theory.q == pytest.approx(expected_q, abs=row["tolerance"])
    assert theory.chi == pytest.approx(row["chi"], abs=row["tolerance"])
    assert theory.rate == pytest.approx(row["rate"], abs=row["tolerance"])


@pytest.mark.parametrize("row", rows("critical_line_tanh"), ids=lambda r: f"b={r['bias_std']}")
def test_chi_is_one_on_the_critical_line(row):
    theory = meanfield.elman("tanh", row["gain"], bias_std=row["bias_std"])
    assert theory.chi == pytest.approx(1, abs=row["tolerance"])
    assert theory.q == pytest.approx(row["q"], abs=row["tolerance"])


@pytest.mark.parametrize("row", rows("simulated_tanh"), ids=lambda r: f"{r['gain']}-{r['width']}")
def test_finite_width_against_simulated_exponents(row):
    theory = meanfield.elman("tanh", row["gain"])
    predicted = theory.rate + theory.finite_width_bias(row["width"])
    assert predicted == pytest.approx(row["exponent"], abs=3 * (row["stderr"] or 2e-5))


PHI = {
    "tanh": (np.tanh, lambda a: np.cosh(a) ** -2.0),
    "erf": (scipy.special.erf, lambda a: 2 / np.sqrt(np.pi) * np.exp(-(a**2))),
    "relu": (lambda a: np.maximum(a, 0), lambda a: np.heaviside(a, 0.5)),
    "linear": (lambda a: a, np.ones_like),
}


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
