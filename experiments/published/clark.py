"""What the figures of Clark (2026) share: exponents of a leaky network, and theory for δ = 1."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import brentq

import gradlab as gl

SOURCE = "github.com/davidclark1/rnn-lyapunov at 41ba738, data/theory, the smallest regulator"


@functools.partial(jax.jit, static_argnames=("dt", "n", "k", "time"))
def exponents(seed: jax.Array, gain: jax.Array, dt: float, n: int, k: int, time: int) -> jax.Array:
    """The first k exponents per unit of time, the largest first."""
    cell = gl.cells.make("leaky", inputs=1, hidden=n, dt=dt, recurrent=gl.initializers.normal(gain))
    weights, start, tangents = jax.random.split(jax.random.key(seed), 3)
    params = cell.init(weights, jnp.float32)

    def step(h: jax.Array) -> jax.Array:
        return cell.advance(params, h, jnp.zeros(n))

    settle = round(200 / dt)
    state = jax.lax.fori_loop(0, settle, lambda _, h: step(h), jax.random.normal(start, (n,)))
    spectrum = gl.spectrum.lyapunov(
        step, state, steps=round(time / dt), burn_in=round(50 / dt), k=k, dt=dt, key=tangents
    )
    return jnp.sort(spectrum.exponents, descending=True)


def share_above(gain: float, s: float) -> float:
    """Share of the exponents above s for δ = 1: x with E[u d²/(1 + u d²)] = x, s = ½ ln(g² x/u).

    W diag φ'(h_t) of successive steps are as if free of each other in a wide network.
    """
    z = np.linspace(-8, 8, 4001)
    weight = np.exp(-(z**2) / 2)
    weight /= weight.sum()
    slope2 = (1 - np.tanh(np.sqrt(gl.meanfield.elman("tanh", gain).q) * z) ** 2) ** 2

    def share(log_u: float) -> float:
        u = np.exp(log_u)
        return float(weight @ (u * slope2 / (1 + u * slope2)))

    def excess(log_u: float) -> float:
        return 0.5 * (2 * np.log(gain) + np.log(share(log_u)) - log_u) - s

    return share(brentq(excess, -30, 60))
