"""The network whose recurrent matrix stays orthogonal."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from gradlab.cells.base import INPUT, Cell, Params, add_leaf, gate_init, linear, register_family
from gradlab.initializers import Initializer


def rotation_blocks(key: Array, shape: Sequence[int], dtype: DTypeLike | None = None) -> Array:
    """Draw A (H, H) for `orthogonal`: W turns ⌊H/2⌋ planes by angles uniform on (0, π/2).

    Zero but for A_{2j,2j+1} = tan(t_j / 2) with t_j ~ U(0, π/2), in the signature of
    `jax.nn.initializers`.

    >>> rotation_blocks(jax.random.key(0), (3, 3)).astype(bool).tolist()
    [[False, True, False], [False, False, False], [False, False, False]]

    Source: Helfrich, Willmott & Ye, "Orthogonal recurrent neural networks with scaled Cayley
    transform" (2018), section 3.
    """
    dtype = jnp.result_type(float) if dtype is None else dtype
    rows = jnp.arange(0, shape[0] - 1, 2)
    angles = jax.random.uniform(key, rows.shape, dtype, 0, jnp.pi / 2)
    return jnp.zeros(shape, dtype).at[rows, rows + 1].set(jnp.tan(angles / 2))


def small(key: Array, shape: Sequence[int], dtype: DTypeLike | None = None) -> Array:
    """Draw from U(-0.01, 0.01), where Lezcano-Casado's modReLU starts."""
    return jax.random.uniform(key, shape, dtype or float, -0.01, 0.01)


@register_family
def orthogonal(
    inputs: int,
    hidden: int,
    *,
    recurrent: Initializer = rotation_blocks,
    input: Initializer = INPUT,
    bias: Initializer = small,
) -> Cell:
    """An orthogonal network with modReLU, W by Cayley's transform; the state is h::

        h_t = modReLU_b(W h_{t-1} + U x_t),   modReLU_b(a) = sign(a) ⊙ max(|a| + b, 0)
        W = (I + S)⁻¹ (I - S),   S = A - Aᵀ

    W is orthogonal for every A, with determinant 1 and no eigenvalue -1 (the papers' further fixed
    signs D, which lift this, are all 1 here). A's diagonal cancels in S, and its gradient is 0.

    Args:
        recurrent: initializer of A (H, H), `params["recurrent"]`; by default `rotation_blocks`.
        bias: initializer of modReLU's b (H,), `params["bias"]`; by default U(-0.01, 0.01).

    `prepare` adds W, `params["rotation"]`: prepare the parameters before a scan.

    >>> cell = orthogonal(inputs=1, hidden=2)
    >>> A = jnp.array([[0.0, 1.0], [0.0, 0.0]])
    >>> cell.matrices({"recurrent": A}).round(6).tolist()
    [[[0.0, -1.0], [1.0, 0.0]]]

    Source: Helfrich, Willmott & Ye, "Orthogonal recurrent neural networks with scaled Cayley
    transform" (2018), section 3; Lezcano-Casado & Martínez-Rubio, "Cheap orthogonal constraints
    in neural networks" (2019), on the exponential in the transform's place. The angles are those of
    github.com/SpartinStuff/scoRNN, scoRNN.py, commit d390c9b, and of `cayley_init_` in
    github.com/lezcano/expRNN, initialization.py, commit 830ec83, b is that of the latter's
    orthogonal.py. scoRNN's b starts at 0, its U from U(-0.01, 0.01); both read the state from the
    left, h W, so that their A is -A here. D is given there, the identity if it is not.
    """

    def rotation(params: Params) -> Array:
        A = params["recurrent"]
        S, eye = A - A.T, jnp.eye(hidden, dtype=A.dtype)
        return jnp.linalg.solve(eye + S, eye - S)

    prepare = add_leaf("rotation", rotation)

    def advance(params: Params, h: Array, drive: Array) -> Array:
        params = prepare(params)
        a = h @ params["rotation"].T + drive
        return jnp.sign(a) * jax.nn.relu(jnp.abs(a) + params["bias"])

    def matrices(params: Params) -> Array:
        return prepare(params)["rotation"][None]

    return Cell(
        inputs,
        hidden,
        gate_init(inputs, hidden, recurrent, input, bias),
        advance,
        name="orthogonal",
        project=linear,
        matrices=matrices,
        prepare=prepare,
    )
