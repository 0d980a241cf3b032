"""The leaky rate network."""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradlab._norms import widen
from gradlab.cells.base import (
    BIAS,
    INPUT,
    Cell,
    Params,
    activation_function,
    check_numbers,
    gate_init,
    register_family,
)
from gradlab.initializers import Initializer, normal

RECURRENT = normal()


@register_family
def leaky(
    inputs: int,
    hidden: int,
    *,
    activation: str = "tanh",
    dt: ArrayLike = 0.1,
    recurrent: Initializer = RECURRENT,
    input: Initializer = INPUT,
    bias: Initializer = BIAS,
) -> Cell:
    """A rate network in steps of dt, h_t = (1 - δ) h_{t-1} + δ (W φ(h_{t-1}) + U x_t + b).

    It is Euler's method for τ dh/dt = -h + W φ(h) + U x + b with δ = dt/τ; the state h is the
    potential, the rates are φ(h). Divide an exponent in nats per step by δ for one per unit of τ.
    At δ = 1 it is the discrete network h_t = W φ(h_{t-1}) + U x_t + b.

    Args:
        dt: δ, the step in units of τ, in (0, 1]; a scalar or (H,), possibly traced.
        recurrent: initializer of W (H, H), `params["recurrent"]`; by default W_ij ~ N(0, g²/H)
            with g = 1, and `initializers.normal(g)` sets the gain g.

    Raises:
        ValueError: for a dt outside (0, 1].

    >>> import jax
    >>> cell = leaky(inputs=1, hidden=2, dt=0.25, recurrent=jax.nn.initializers.zeros)
    >>> params = cell.init(jax.random.key(0))
    >>> cell.step(params, jnp.array([8.0, 4.0]), jnp.zeros(1)).tolist()
    [6.0, 3.0]

    Source: Sompolinsky, Crisanti & Sommers, "Chaos in random neural networks" (1988), equation 1;
    Engelken, Wolf & Abbott, "Lyapunov spectra of chaotic recurrent neural networks" (2023), whose
    example takes δ = 0.1: github.com/RainerEngelken/RNN-LyapunovSpectra,
    demo_lypunov_spectra_chaotic_ratenetwork.py, commit fb81838. There the diagonal of W is 0.
    """
    check_numbers("leaky", "above 0 and at most 1", lambda v: 0 < v <= 1, dt=dt)
    phi = activation_function(activation)

    init = gate_init(inputs, hidden, recurrent, input, bias)

    def advance(params: Params, h: Array, drive: Array) -> Array:
        delta = jnp.asarray(dt, h.dtype)
        return (1 - delta) * h + delta * (phi(h) @ params["recurrent"].T + drive)

    def log_retention(params: Params) -> Array:
        b = widen(params["bias"])
        return jnp.broadcast_to(jnp.log1p(-jnp.asarray(dt, b.dtype)), b.shape)

    return Cell(inputs, hidden, init, advance, name="leaky", log_retention=log_retention)
