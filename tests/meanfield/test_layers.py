"""Theory of deep networks layer by layer, against layers under a scan that are traced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab as gl
from gradlab import meanfield

DEPTH, N, SEEDS = 6, 120, 24
FUNCTIONS = {"tanh": jnp.tanh, "linear": lambda x: x, "relu": jax.nn.relu}


def measure(activation, gain, bias_std, start, n=N, seeds=SEEDS):
    """Means over networks of q, ‖λ_l‖² / ‖λ_L‖² and ‖∂L/∂W_l‖² / ‖λ_L‖²."""
    phi = FUNCTIONS[activation]

    def one(key):
        keys = jax.random.split(key, 4)
        W = gain / n**0.5 * jax.random.normal(keys[0], (DEPTH, n, n))
        b = bias_std * jax.random.normal(keys[1], (DEPTH, n))
        x = start**0.5 * jax.random.normal(keys[2], (n,))
        direction = jax.random.normal(keys[3], (n,)) / n**0.5

        def loss(W):
            def layer(h, Wb):
                z = Wb[0] @ h + Wb[1]
                return phi(z), jnp.mean(z**2)

            h, q = jax.lax.scan(layer, x, (W, b))
            return h @ direction, q

        out = gl.trace(loss, has_aux=True)(W)
        log_norm = out.scans[0].log_norm
        weights = jnp.sum(out.grads**2, axis=(1, 2))
        scale = jnp.exp(-2 * log_norm[-1])
        return out.aux, jnp.exp(2 * log_norm) * scale, weights * scale

    found = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), seeds))
    return [(np.mean(x, 0), np.std(x, 0) / np.sqrt(seeds)) for x in map(np.asarray, found)]


@pytest.mark.parametrize(
    ("activation", "gain", "bias_std", "start"),
    [("tanh", 1.8, 0.0, 0.3), ("tanh", 0.9, 0.3, 4.0), ("relu", 1.2, 0.1, 1.0)],
)
def test_layers_are_those_of_wide_networks(activation, gain, bias_std, start):
    theory = meanfield.layers(activation, gain, DEPTH, N, bias_std=bias_std, start=start)
    measured = measure(activation, gain, bias_std, start)
    expected = theory.q, np.exp(2 * theory.log_norm), np.exp(2 * theory.log_weights)
    for (mean, error), exact in zip(measured, expected, strict=True):
        # Up to a few layers of 1/n each.
        np.testing.assert_allclose(mean, exact, rtol=DEPTH / N, atol=4 * error.max())
    np.testing.assert_allclose(theory.second[:-1] * gain**2 + bias_std**2, theory.q[1:])


def test_linear_layers_have_closed_forms():
    theory = meanfield.layers("linear", 1.5, 5, 10, start=2.0)
    layer = np.arange(1, 6)
    np.testing.assert_allclose(theory.q, 2 * 1.5 ** (2 * layer))
    np.testing.assert_allclose(theory.log_norm, (5 - layer) * np.log(1.5), atol=1e-12)
    # ‖λ_l‖² n p_{l-1} = n 2 σ^{2(L-1)}: the same at every layer, as Glorot & Bengio asked for.
    np.testing.assert_allclose(theory.log_weights, np.log(20 * 1.5**8) / 2)


def test_deep_layers_agree_with_the_fixed_point():
    theory = meanfield.layers("tanh", 1.5, 400, 100, bias_std=0.2)
    fixed = meanfield.elman("tanh", 1.5, bias_std=0.2)
    assert theory.q[-1] == pytest.approx(fixed.q)
    assert theory.log_norm[200] - theory.log_norm[201] == pytest.approx(fixed.rate)


def test_layers_beyond_the_range_and_without_an_input():
    deep = meanfield.layers("linear", 10.0, 400, 4)
    assert deep.log_norm[0] == pytest.approx(399 * np.log(10))
    assert np.isnan(deep.q[320:]).all() and np.isnan(deep.log_weights[320:]).all()
    shallow = meanfield.layers("tanh", 0.1, 400, 4)
    assert np.isnan(shallow.log_weights[-1]) and np.isfinite(shallow.log_norm).all()
    zero = meanfield.layers("tanh", 0.5, 3, 4, start=0.0)
    assert (zero.q == 0).all() and np.isneginf(zero.log_weights).all()
    for options in ({"gain": np.nan}, {"start": -1.0}, {"depth": 0}, {"n": 0}, {"activation": "x"}):
        arguments = {"activation": "tanh", "gain": 1.0, "depth": 3, "n": 4} | options
        with pytest.raises(ValueError):
            meanfield.layers(**arguments)
