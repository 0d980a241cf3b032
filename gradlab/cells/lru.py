"""The linear recurrent unit."""

import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from gradlab._norms import widen
from gradlab.cells.base import (
    INPUT,
    Cell,
    Params,
    add_leaf,
    check_numbers,
    gate_init,
    register_family,
)
from gradlab.cells.parallel import LinearRecurrence
from gradlab.initializers import Initializer


@register_family
def lru(
    inputs: int,
    hidden: int,
    *,
    r_min: ArrayLike = 0.0,
    r_max: ArrayLike = 1.0,
    max_phase: ArrayLike = 2 * math.pi,
    input: Initializer = INPUT,
) -> Cell:
    """The LRU's recurrence, diagonal and complex; the state is s, complex (H,)::

        s_t = λ ⊙ s_{t-1} + γ ⊙ (B x_t),   λ = exp(-e^ν + i e^θ),   |λ| < 1

    `read` gives h = Re s. The paper's output y_t = Re(C s_t) + D x_t needs parameters and the
    input, which `read` has not: it is a readout of the whole s, for the caller to apply to all
    steps at once. All parameters are real. The adjoint of s is complex, as JAX has it:
    ∂L/∂(Re s) - i ∂L/∂(Im s).

    Args:
        r_min: least |λ| that `init` draws; 0 ≤ r_min < r_max ≤ 1, each a scalar, possibly traced.
        r_max: largest |λ| that `init` draws.
        max_phase: largest arg λ that `init` draws, in radians, a positive scalar, possibly traced.
            λ is uniform over the area of the sector so bounded.
        input: initializer of √2 Re B and √2 Im B (H, D), so that E|B_ij|² = 1/D by default;
            `params["input"]` is Re B over Im B, (2H, D).

    The other leaves, each (H,), are named as in the paper: `nu_log` is ν, `theta_log` θ, and
    `gamma_log` ln γ, with γ = √(1 - |λ|²) at first and a separate parameter after that.
    `prepare` adds λ, `params["eigenvalues"]`.

    Raises:
        ValueError: for radii or a phase outside their range.

    >>> cell = lru(inputs=3, hidden=5, r_min=0.9, r_max=0.99)
    >>> params = cell.init(jax.random.key(0))
    >>> radii = abs(cell.matrices(params)[0].diagonal())
    >>> bool(radii.min() > 0.9), bool(radii.max() < 0.99)
    (True, True)

    Source: Orvieto et al., "Resurrecting recurrent neural networks for long sequences" (2023),
    section 3 and appendix A, which lists code. The defaults are those of
    github.com/NicolasZucchet/minimal-LRU, lru/model.py, commit bbd71b1, where 2π is 6.28 and
    Re B and Im B are separate leaves; C and D are the readout's.
    """
    check_numbers("lru", "above 0", lambda v: v > 0, max_phase=max_phase)
    check_numbers("lru", "above 0 and at most 1", lambda v: 0 < v <= 1, r_max=r_max)
    check_numbers("lru", "of at least 0 and below 1", lambda v: 0 <= v < 1, r_min=r_min)
    if isinstance(r_max, int | float):
        check_numbers("lru", f"below r_max = {r_max}", lambda v: v < r_max, r_min=r_min)

    zeros = jax.nn.initializers.zeros
    blocks = gate_init(inputs, hidden, zeros, input, zeros, gates=2)

    def init(key: Array, dtype: DTypeLike | None = None) -> Params:
        blocks_key, radius_key, phase_key = jax.random.split(key, 3)
        B = blocks(blocks_key, dtype)["input"] / math.sqrt(2)
        # ln 0 would be -inf in both leaves.
        smallest = jnp.finfo(B.dtype).tiny
        radius, phase = (
            jax.random.uniform(k, (hidden,), B.dtype, minval=smallest)
            for k in (radius_key, phase_key)
        )
        low, high, widest = (jnp.asarray(v, B.dtype) for v in (r_min, r_max, max_phase))
        # Draw 1 - |λ|² itself: next to 1 it may be smaller than the rounding error.
        gap = (1 - high**2) + radius * (high**2 - low**2)
        nu_log = jnp.log(-jnp.log1p(-gap) / 2)
        gamma_log = jnp.log(-jnp.expm1(-2 * jnp.exp(nu_log))) / 2
        theta_log = jnp.log(widest * phase)
        return {"nu_log": nu_log, "theta_log": theta_log, "gamma_log": gamma_log, "input": B}

    def eigenvalues(params: Params) -> Array:
        return jnp.exp(jax.lax.complex(-jnp.exp(params["nu_log"]), jnp.exp(params["theta_log"])))

    prepare = add_leaf("eigenvalues", eigenvalues)

    def start(dtype: DTypeLike | None = None) -> Array:
        real = jnp.result_type(float) if dtype is None else dtype
        return jnp.zeros(hidden, jnp.promote_types(real, jnp.complex64))

    def project(params: Params, x: Array) -> Array:
        re, im = jnp.split(x @ params["input"].T, 2)
        gamma = jnp.exp(params["gamma_log"])
        return jax.lax.complex(gamma * re, gamma * im)

    def coefficients(params: Params, drive: Array) -> tuple[Array, Array]:
        return prepare(params)["eigenvalues"], drive

    def read(s: Array) -> Array:
        return s.real

    def matrices(params: Params) -> Array:
        return jnp.diag(prepare(params)["eigenvalues"])[None]

    def log_retention(params: Params) -> Array:
        return -jnp.exp(widen(params["nu_log"]))

    return Cell(
        inputs,
        hidden,
        init,
        LinearRecurrence(coefficients),
        name="lru",
        gates=("s",),
        start=start,
        project=project,
        read=read,
        matrices=matrices,
        log_retention=log_retention,
        prepare=prepare,
    )
