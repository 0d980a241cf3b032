"""The dynamic mean-field theory of leaky networks, against published numbers and quadrature."""

import math

import numpy as np
import pytest

from gradlab import meanfield

# s_* of Clark (2026): davidclark1/rnn-lyapunov, commit 41ba738, data/max_exponent_operator.json, c.
PUBLISHED = [
    (0.5, 2.0, 60, 0.10778861324801278),
    (0.5, 3.0, 40, 0.21612370471089118),
    (0.5, 5.0, 40, 0.3788908206099555),
    (0.25, 3.0, 60, 0.2254014581468722),
]


@pytest.mark.parametrize(("dt", "gain", "span", "exponent"), PUBLISHED)
def test_the_largest_exponent_is_the_published_one(dt, gain, span, exponent):
    assert meanfield.leaky(gain, dt, span=span).rate == pytest.approx(exponent, abs=1e-8)


def test_without_a_leak_it_is_elman():
    found, theory = meanfield.leaky(2.0, 1.0, span=5), meanfield.elman("tanh", 2.0)
    assert found.rate == pytest.approx(theory.rate, abs=1e-9)
    assert found.correlation == pytest.approx([theory.q, 0, 0, 0, 0, 0], abs=1e-12)


def test_the_correlation_solves_the_equation_of_a_step():
    # x' = (1 - δ) x + δ η has (1 + (1-δ)²) C(τ) - (1-δ) (C(τ+1) + C(τ-1)) = δ² g² C_φ(τ), whatever
    # the memory; C_φ by brute force over a fine grid in two dimensions.
    gain, dt = 3.0, 0.5
    C = meanfield.leaky(gain, dt, span=40).correlation
    z = np.linspace(-8, 8, 801)
    weight = np.exp(-(z**2) / 2)
    weight /= weight.sum()
    for lag in (0, 1, 3, 8):
        share = C[lag] / C[0]
        a = np.sqrt(C[0]) * z[:, None]
        b = np.sqrt(C[0]) * (share * z[:, None] + math.sqrt(1 - share**2) * z)
        product = weight @ (np.tanh(a) * np.tanh(b)) @ weight
        left = (1 + (1 - dt) ** 2) * C[lag] - (1 - dt) * (C[lag + 1] + C[abs(lag - 1)])
        assert left == pytest.approx((dt * gain) ** 2 * product, abs=1e-8)


@pytest.mark.parametrize("dt", [0.25, 1.0])
def test_the_quiet_phase_is_exact(dt):
    found = meanfield.leaky(0.5, dt, span=4)
    assert found.rate == pytest.approx(math.log(1 - dt / 2) / dt)
    assert not found.correlation.any() and (found.slopes == 1).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2.0, 0.0), "dt must be above 0 and at most 1"),
        ((2.0, math.nan), "dt must be above 0"),
        ((math.nan, 0.5), "gain must be finite"),
        ((2.0, 0.5, 0.1), "span must be finite and at least dt"),
        ((1.5, 0.5, 5.0), "has not fallen to 0"),
    ],
)
def test_what_has_no_answer_is_refused(arguments, message):
    gain, dt, *span = arguments
    with pytest.raises(ValueError, match=message):
        meanfield.leaky(gain, dt, **({"span": span[0]} if span else {}))
