"""minGRU and minLSTM, whose gates read the input alone."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from gradlab._names import choose
from gradlab._norms import widen
from gradlab.cells.base import (
    BIAS,
    INPUT,
    Cell,
    Gates,
    Init,
    Params,
    affine,
    gate_init,
    gate_retention,
    keep_leaves,
    register_family,
)
from gradlab.cells.parallel import LinearRecurrence
from gradlab.initializers import Initializer


def positive(a: Array) -> Array:
    """g(a) = a + 1/2 where a ≥ 0 and σ(a) elsewhere, above 0 and without a jump.

    >>> positive(jnp.array([-1e3, 0.0, 2.0])).tolist()
    [0.0, 0.5, 2.5]
    """
    return jnp.where(a >= 0, a + 0.5, jax.nn.sigmoid(a))


CANDIDATES: dict[str, Callable[[Array], Array]] = {"linear": lambda a: a, "positive": positive}


@register_family
def min_gru(
    inputs: int,
    hidden: int,
    *,
    candidate: str = "linear",
    input: Initializer = INPUT,
    bias: Initializer = BIAS,
) -> Cell:
    """minGRU, h_t = (1 - z_t) ⊙ h_{t-1} + z_t ⊙ φ(U_h x_t + b_h); the state is h.

    With z_t = σ(U_z x_t + b_z) and σ the logistic function. The recurrence is linear in h, and no
    weight reads h: `project` gives the pair (1 - z_t, z_t ⊙ φ(U_h x_t + b_h)), and `parallel` all
    states at once. `gate_values` gives z, which reads the input alone.

    Args:
        candidate: φ, `"linear"`, the identity, or `"positive"`, a + 1/2 where a ≥ 0 and σ(a)
            elsewhere.
        input: initializer of each block (H, D) of U = (U_z, U_h), `params["input"]`.
        bias: initializer of each block (H,) of b = (b_z, b_h), `params["bias"]`.

    `matrices` gives what multiplies h at x = 0, diag(1 - σ(b_z)), (1, H, H).

    Raises:
        ValueError: for an unknown candidate.

    >>> cell = min_gru(inputs=3, hidden=2)
    >>> params = cell.init(jax.random.key(0))
    >>> cell.step(params, jnp.array([4.0, 2.0]), jnp.zeros(3)).tolist()
    [2.0, 1.0]

    Source: Feng, Tung, Ahmed, Bengio & Hajimirsadeghi, "Were RNNs all we needed?" (2024),
    section 3.1, and appendix B for the positive candidate, which logarithms need.
    github.com/BorealisAI/minRNNs, models/minRNNs.py, commit ff52e9d, has the second; blocks (h, z);
    U(-1/√D, 1/√D) for U and b.
    """
    choose("candidate", candidate, CANDIDATES)
    phi = CANDIDATES[candidate]

    def open_gates(params: Params, x: Array) -> tuple[Gates, Array, Array]:
        z, new = jnp.split(affine(params, x), 2)
        # 1 - σ(z) = σ(-z), which keeps its digits where the gate is nearly open.
        return {"z": jax.nn.sigmoid(z)}, jax.nn.sigmoid(-z), phi(new)

    def project(params: Params, x: Array) -> tuple[Array, Array]:
        gates, retention, new = open_gates(params, x)
        return retention, gates["z"] * new

    def gate_values(params: Params, h: Array, x: Array) -> Gates:
        return open_gates(params, x)[0]

    return Cell(
        inputs,
        hidden,
        _init(inputs, hidden, input, bias, 2),
        LinearRecurrence(_coefficients),
        name="min_gru",
        gates=("z", "h"),
        project=project,
        matrices=_at_no_input(project, inputs),
        log_retention=gate_retention(0, hidden, sign=-1),
        gate_values=gate_values,
    )


@register_family
def min_lstm(
    inputs: int,
    hidden: int,
    *,
    candidate: str = "linear",
    input: Initializer = INPUT,
    bias: Initializer = BIAS,
) -> Cell:
    """minLSTM, h_t = f'_t ⊙ h_{t-1} + i'_t ⊙ φ(U_h x_t + b_h); the state is h.

    With the gates f = σ(U_f x_t + b_f) and i = σ(U_i x_t + b_i), σ the logistic function, scaled
    to sum to 1: f' = f / (f + i), i' = i / (f + i). The recurrence is linear in h, and no weight
    reads h: `project` gives the pair (f'_t, i'_t ⊙ φ(U_h x_t + b_h)), and `parallel` all states at
    once. `gate_values` gives the scaled gates, f' under f and i' under i.

    Args:
        candidate: φ, as in `min_gru`.
        input: initializer of each block (H, D) of U = (U_f, U_i, U_h), `params["input"]`.
        bias: initializer of each block (H,) of b = (b_f, b_i, b_h), `params["bias"]`.

    `matrices` gives what multiplies h at x = 0, diag(f'), (1, H, H).

    Raises:
        ValueError: for an unknown candidate.

    >>> cell = min_lstm(inputs=3, hidden=2)
    >>> params = cell.init(jax.random.key(0))
    >>> cell.step(params, jnp.array([4.0, 2.0]), jnp.zeros(3)).tolist()
    [2.0, 1.0]

    Source: Feng, Tung, Ahmed, Bengio & Hajimirsadeghi, "Were RNNs all we needed?" (2024),
    section 3.2; of the authors' code `min_gru` says the same, with blocks (h, f, i). There the
    sum of 1 is an option, as is a number added to b_f.
    """
    choose("candidate", candidate, CANDIDATES)
    phi = CANDIDATES[candidate]

    def log_odds(f: Array, i: Array) -> Array:
        # f' = f / (f + i) = σ(ln f - ln i), which stays right where both gates underflow.
        return jax.nn.log_sigmoid(f) - jax.nn.log_sigmoid(i)

    def open_gates(params: Params, x: Array) -> tuple[Gates, Array]:
        f, i, new = jnp.split(affine(params, x), 3)
        odds = log_odds(f, i)
        return {"f": jax.nn.sigmoid(odds), "i": jax.nn.sigmoid(-odds)}, phi(new)

    def project(params: Params, x: Array) -> tuple[Array, Array]:
        gates, new = open_gates(params, x)
        return gates["f"], gates["i"] * new

    def gate_values(params: Params, h: Array, x: Array) -> Gates:
        return open_gates(params, x)[0]

    def log_retention(params: Params) -> Array:
        f, i, _ = jnp.split(widen(params["bias"]), 3)
        return jax.nn.log_sigmoid(log_odds(f, i))

    return Cell(
        inputs,
        hidden,
        _init(inputs, hidden, input, bias, 3),
        LinearRecurrence(_coefficients),
        name="min_lstm",
        gates=("f", "i", "h"),
        project=project,
        matrices=_at_no_input(project, inputs),
        log_retention=log_retention,
        gate_values=gate_values,
    )


def _init(inputs: int, hidden: int, input: Initializer, bias: Initializer, gates: int) -> Init:
    blocks = gate_init(inputs, hidden, jax.nn.initializers.zeros, input, bias, gates)
    return keep_leaves(blocks, None, "input", "bias")


def _coefficients(params: Params, drive: tuple[Array, Array]) -> tuple[Array, Array]:
    return drive


def _at_no_input(
    project: Callable[[Params, Array], tuple[Array, Array]], inputs: int
) -> Callable[[Params], Array]:
    def matrices(params: Params) -> Array:
        retention, _ = project(params, jnp.zeros(inputs, params["bias"].dtype))
        return jnp.diag(retention)[None]

    return matrices
