"""Effective learning rates are what optax's own updates divide by."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradlab as gl

B1 = 0.9


@pytest.mark.parametrize("weight_decay", [None, 0.0])
def test_an_update_is_the_rate_times_the_mean_gradient(weight_decay):
    rate, eps = 0.03, 1e-6
    inner = optax.adam if weight_decay is None else optax.adamw
    options = {} if weight_decay is None else {"weight_decay": weight_decay}
    optimizer = optax.chain(optax.clip(10.0), inner(rate, b1=B1, b2=0.95, eps=eps, **options))
    params = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}
    state = optimizer.init(params)
    assert np.isnan(gl.training.effective_rates(state, rate, b2=0.999)["w"]).all()
    means = jax.tree.map(np.zeros_like, params)
    for t in range(1, 6):
        keys = jax.random.split(jax.random.key(t), 2)
        grads = {"w": jax.random.normal(keys[0], (2, 3)), "b": jnp.zeros(3)}
        means = jax.tree.map(lambda m, g: B1 * m + (1 - B1) * g, means, grads)
        updates, state = optimizer.update(grads, state, params)
        found = gl.training.effective_rates(state, rate, b2=0.95, eps=eps)
        expected = jax.tree.map(lambda p, m, t=t: -p * m / (1 - B1**t), found, means)
        np.testing.assert_allclose(updates["w"], expected["w"], rtol=1e-5)
    # A gradient that was always 0 leaves the largest rate there is.
    np.testing.assert_allclose(found["b"], rate / eps)


def test_rates_of_a_training():
    run = gl.train(
        lambda w, x: jnp.sum(jnp.array([1.0, 10.0]) * (w - x) ** 2), jnp.zeros(2),
        lambda key, step: jnp.ones(2), optax.adam(0.01), steps=3, key=jax.random.key(0),
    )  # fmt: skip
    rates = gl.training.effective_rates(run.state.opt_state, 0.01, b2=0.999)
    # Gradients that are ten times as large have a tenth of the rate.
    assert float(rates[0]) == pytest.approx(10 * float(rates[1]), rel=1e-3)


@pytest.mark.parametrize("optimizer", [optax.sgd(0.1), optax.chain(optax.adam(1), optax.adam(1))])
def test_other_optimizers_are_refused(optimizer):
    with pytest.raises(ValueError, match="needs the state of one Adam, found [02]"):
        gl.training.effective_rates(optimizer.init(jnp.zeros(2)), 0.1, b2=0.999)
