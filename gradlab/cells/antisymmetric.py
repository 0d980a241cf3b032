"""The antisymmetric network and its gated form."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradlab.cells.base import (
    BIAS,
    INPUT,
    Cell,
    Gates,
    Params,
    add_leaf,
    check_numbers,
    gate_init,
    gates_at,
    keep_leaves,
    register_family,
)
from gradlab.initializers import Initializer, normal

RECURRENT = normal()


@register_family
def antisymmetric(
    inputs: int,
    hidden: int,
    *,
    epsilon: ArrayLike = 0.01,
    gamma: ArrayLike = 0.01,
    recurrent: Initializer = RECURRENT,
    input: Initializer = INPUT,
    bias: Initializer = BIAS,
) -> Cell:
    """AntisymmetricRNN; the state is h::

        h_t = h_{t-1} + ε tanh(M h_{t-1} + U x_t + b),   M = W - Wᵀ - γ I

    Every eigenvalue of M has real part -γ: Euler's method for an ODE at the edge of stability. W's
    diagonal cancels in M, and its gradient is 0.

    Args:
        epsilon: ε > 0, the step of Euler's method, a scalar, possibly traced.
        gamma: γ ≥ 0, the diffusion, a scalar, possibly traced.
        recurrent: initializer of W (H, H), `params["recurrent"]`; by default N(0, 1/H).

    `prepare` adds M, `params["skew"]`.

    Raises:
        ValueError: for an ε that is not positive or a negative γ.

    >>> cell = antisymmetric(inputs=1, hidden=2, gamma=0.5)
    >>> cell.matrices({"recurrent": jnp.array([[7.0, 3.0], [1.0, 7.0]])}).tolist()
    [[[-0.5, 2.0], [-2.0, -0.5]]]

    Source: Chang, Chen, Haber & Chi, "AntisymmetricRNN: a dynamical system view on recurrent
    neural networks" (2019), section 3; appendix C draws W from N(0, σ_w²/H) and U from N(0, 1/D)
    and searches ε over 0.01, 0.1 and 1. The authors published no code. ε = γ = 0.01 is the default
    of `asymRNN` in github.com/erichson/LipschitzRNN, models.py, commit df6552e, by the authors of
    "Lipschitz recurrent neural networks" (2021); its matrix is -C there.
    """
    _check_euler("antisymmetric", epsilon, gamma)

    prepare = add_leaf("skew", _skew(gamma))

    def advance(params: Params, h: Array, drive: Array) -> Array:
        step = jnp.tanh(h @ prepare(params)["skew"].T + drive)
        return h + jnp.asarray(epsilon, h.dtype) * step

    def matrices(params: Params) -> Array:
        return prepare(params)["skew"][None]

    return Cell(
        inputs,
        hidden,
        gate_init(inputs, hidden, recurrent, input, bias),
        advance,
        name="antisymmetric",
        matrices=matrices,
        prepare=prepare,
    )


@register_family
def gated_antisymmetric(
    inputs: int,
    hidden: int,
    *,
    epsilon: ArrayLike = 0.01,
    gamma: ArrayLike = 0.01,
    recurrent: Initializer = RECURRENT,
    input: Initializer = INPUT,
    bias: Initializer = BIAS,
) -> Cell:
    """AntisymmetricRNN with an input gate that reads the state through the same matrix::

        M = W - Wᵀ - γ I
        z = σ(M h_{t-1} + U_z x_t + b_z)
        h_t = h_{t-1} + ε z ⊙ tanh(M h_{t-1} + U_h x_t + b_h)

    The state is h; σ is the logistic function. W's diagonal cancels in M, and its gradient is 0.
    `gate_values` gives z.

    Args:
        epsilon: ε > 0, the step of Euler's method, a scalar, possibly traced.
        gamma: γ ≥ 0, the diffusion, a scalar, possibly traced.
        recurrent: initializer of W (H, H), `params["recurrent"]`; by default N(0, 1/H).
        input: initializer of each block (H, D) of U = (U_z, U_h), `params["input"]`.
        bias: initializer of each block (H,) of b = (b_z, b_h), `params["bias"]`.

    `prepare` adds M, `params["skew"]`.

    Raises:
        ValueError: for an ε that is not positive or a negative γ.

    >>> cell = gated_antisymmetric(inputs=3, hidden=5)
    >>> {name: p.shape for name, p in sorted(cell.init(jax.random.key(0)).items())}
    {'bias': (10,), 'input': (10, 3), 'recurrent': (5, 5)}

    Source: Chang, Chen, Haber & Chi, "AntisymmetricRNN: a dynamical system view on recurrent
    neural networks" (2019), section 3; the defaults are those of `antisymmetric`.
    """
    _check_euler("gated_antisymmetric", epsilon, gamma)

    blocks = gate_init(inputs, hidden, recurrent, input, bias, gates=2)
    prepare = add_leaf("skew", _skew(gamma))

    init = keep_leaves(blocks, hidden, "recurrent")

    def open_gates(params: Params, h: Array, drive: Array) -> tuple[Gates, Array]:
        h_both = h @ prepare(params)["skew"].T
        x_z, x_h = jnp.split(drive, 2)
        return {"z": jax.nn.sigmoid(h_both + x_z)}, jnp.tanh(h_both + x_h)

    def advance(params: Params, h: Array, drive: Array) -> Array:
        gates, new = open_gates(params, h, drive)
        return h + jnp.asarray(epsilon, h.dtype) * gates["z"] * new

    def matrices(params: Params) -> Array:
        return prepare(params)["skew"][None]

    return Cell(
        inputs,
        hidden,
        init,
        advance,
        name="gated_antisymmetric",
        gates=("z", "h"),
        matrices=matrices,
        prepare=prepare,
        gate_values=gates_at(open_gates),
    )


def _check_euler(name: str, epsilon: ArrayLike, gamma: ArrayLike) -> None:
    check_numbers(name, "above 0", lambda v: v > 0, epsilon=epsilon)
    check_numbers(name, "of at least 0", lambda v: v >= 0, gamma=gamma)


def _skew(gamma: ArrayLike) -> Callable[[Params], Array]:
    def skew(params: Params) -> Array:
        W = params["recurrent"]
        return W - W.T - jnp.asarray(gamma, W.dtype) * jnp.eye(len(W), dtype=W.dtype)

    return skew
