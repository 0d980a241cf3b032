"""The figure of one neuron: its curves are those that JAX differentiates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradlab import figures

FUNCTIONS = {"tanh": jnp.tanh, "logistic": jax.nn.sigmoid, "relu": jax.nn.relu}


@pytest.mark.parametrize("weight", [1.0, -1.5])
def test_curves_are_the_derivatives_of_a_neuron_that_hears_itself(weight):
    steps = (1, 3)
    fig = figures.neuron(weight, tuple(FUNCTIONS), steps)
    value, slope, product = (ax.get_lines() for ax in fig.axes)
    for i, (name, function) in enumerate(FUNCTIONS.items()):
        z = np.asarray(value[i].get_xdata())
        assert value[i].get_label() == name
        np.testing.assert_allclose(value[i].get_ydata(), function(z), atol=1e-12)
        away = z != 0  # relu has no derivative there
        grads = jax.vmap(jax.grad(function))(z)
        np.testing.assert_allclose(slope[i].get_ydata()[away], grads[away], atol=1e-12)
        for j, n in enumerate(steps):

            def run(h, x, function=function, n=n):
                # The input is chosen so that the weighted sum stays at x.
                for _ in range(n):
                    h = function(weight * h + x - weight * jax.lax.stop_gradient(h))
                return h

            grads = jnp.abs(jax.vmap(jax.grad(run))(jnp.ones_like(z), jnp.asarray(z)))
            line = np.asarray(product[len(steps) * i + j].get_ydata())
            shown = away & (np.asarray(grads) > 0)
            np.testing.assert_allclose(line[shown], grads[shown], rtol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activations": ["tahn"]}, "unknown activation .*tahn.*choose from tanh, logistic, relu"),
        ({"weight": float("nan")}, "a finite number other than 0"),
        ({"steps": [0]}, "numbers of at least 1"),
    ],
)
def test_what_cannot_be_drawn_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        figures.neuron(**arguments)
