"""Norms over 10,000 steps, far outside the float's range, against exact and float64 recursions."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import gradlab as gl
from gradlab import cells, initializers

T, N = 10_000, 4
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@pytest.fixture(scope="module", autouse=True)
def optimized():
    """Here it is the long runs that take the time, above all those in bfloat16."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


# How far a logarithm may be off, in parts of its size and in nats: a rounding at every step.
PRECISION = {"float32": (2e-6, 2e-3), "bfloat16": (5e-3, 1.0)}


def scales(reads):
    """2^k with which the loss reads the state of each step; exact in every dtype."""
    if reads == "last":
        return np.append(np.zeros(T - 1), 1.0)
    return 2.0 ** np.random.default_rng(1).integers(-40, 40, T)


def tracer(step, start):
    """Trace sum_t weights_t direction @ read(h_t); `step(p, h, x)` returns (h, read(h))."""

    def loss(p, direction, xs, weights):
        _, hs = jax.lax.scan(lambda h, x: step(p, h, x), start, xs)
        return jnp.sum(hs @ direction * weights)

    return gl.trace(loss, argnums=())


def compare(scan, expected, name):
    logs = scan.log_norm, scan.log_direct, scan.log_transported
    for log, exact in zip(logs, expected, strict=True):
        assert log.dtype == jnp.float32
        log = np.asarray(log, np.float64)
        np.testing.assert_array_equal(np.isneginf(log), np.isneginf(exact))
        there = np.isfinite(exact)
        rtol, atol = PRECISION[name]
        np.testing.assert_allclose(log[there], exact[there], rtol=rtol, atol=atol)


def log_of(vector):
    """ln of the 2-norm of a vector of integers of any size, from the first 200 of their bits."""
    beyond = max(0, max(x.bit_length() for x in vector) - 200)
    square = sum((x >> beyond) ** 2 for x in vector)
    return math.log(square) / 2 + beyond * math.log(2) if square else -math.inf


@functools.cache
def exactly(matrix, direction, exponents):
    """The recursion in integers, for W = matrix / 4 and d_t = 2^(k_t - 40) direction.

    L_t = 4^(T-t) 2^40 lambda_t is an integer vector: L_t = 4^(T-t) 2^(k_t) direction +
    matrix^T L_{t+1}.
    """
    (a, b), (c, d) = matrix
    total, rows = (0, 0), []
    for lag, k in enumerate(reversed(exponents)):
        unit = lag * math.log(4) + 40 * math.log(2)
        moved = a * total[0] + c * total[1], b * total[0] + d * total[1]
        direct = [0 if k is None else x << (2 * lag + k) for x in direction]
        total = moved[0] + direct[0], moved[1] + direct[1]
        rows.append([log_of(v) - unit for v in (total, direct, moved)])
    return np.array(rows[::-1]).T


@functools.cache
def linear(name):
    return tracer(lambda w, h, x: ((h := w @ h + x), h), jnp.zeros(2, DTYPES[name]))


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("reads", ["last", "every"])
@pytest.mark.parametrize(
    "matrix, beyond",
    [
        (((2, 1), (-1, 2)), -5000),
        (((2, 7), (0, 2)), -5000),
        (((8, 3), (-3, 8)), 5000),
    ],
    ids=["vanishing", "vanishing shear", "exploding"],
)
def test_a_linear_map_against_integers(matrix, beyond, reads, name):
    dtype = DTYPES[name]
    weights = scales(reads)
    exponents = tuple(40 + round(math.log2(s)) if s else None for s in weights)
    expected = exactly(matrix, (3, -1), exponents)
    if reads == "last" or beyond > 0:
        assert expected[0, 0] / beyond > 1
    (scan,) = linear(name)(
        jnp.asarray(matrix, dtype) / 4,
        jnp.asarray([3, -1], dtype),
        jnp.zeros((T, 2), dtype),
        jnp.asarray(weights, dtype),
    ).scans
    compare(scan, expected, name)


def recursion(jacobians, arriving):
    """The same in float64, each step's vectors as a unit vector and the logarithm of its norm."""

    def split(vector, log):
        norm = np.linalg.norm(vector)
        return (vector / norm, log + np.log(norm)) if norm else (vector, -np.inf)

    vector, log, rows = np.zeros(arriving.shape[1]), -np.inf, []
    for t in reversed(range(len(arriving))):
        # J_{t+1} is the last step's that brought the adjoint here.
        moved, moved_log = split(jacobians[t + 1].T @ vector, log) if t + 1 < T else (vector, log)
        direct, direct_log = split(arriving[t], 0.0)
        unit = max(moved_log, direct_log)
        if np.isfinite(unit):
            vector, log = split(
                moved * np.exp(moved_log - unit) + direct * np.exp(direct_log - unit), unit
            )
        rows.append([log, direct_log, moved_log])
    return np.array(rows[::-1]).T


CELLS = {
    "tanh": ("elman", {"recurrent": initializers.normal(0.6)}, -5000),
    "saturated tanh": ("elman", {"recurrent": initializers.normal(3.0)}, None),
    "linear": ("elman", {"activation": "linear", "recurrent": initializers.normal(0.3)}, -5000),
    "relu": (
        "elman",
        {
            "activation": "relu",
            "recurrent": initializers.orthogonal(0.5),
            "bias": jax.nn.initializers.constant(1.0),
        },
        -5000,
    ),
    "lstm": ("lstm", {"forget_bias": -0.5}, -5000),
    "exploding lstm": (
        "lstm",
        {"forget_bias": 0.0, "recurrent": initializers.orthogonal(8.0)},
        5000,
    ),
}
# Near 1 the slope 1 - tanh^2 of a bfloat16 is another number than that of a float64.
CASES = [(c, d) for c in CELLS for d in DTYPES if (c, d) != ("saturated tanh", "bfloat16")]
DIRECTION = (1.0, -0.5, 0.25, 2.0)


def flat(state):
    return np.concatenate([np.asarray(x, np.float64) for x in jax.tree.leaves(state)], -1)


def wide(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float64), tree)


@functools.cache
def model(case, name):
    """The traced loss and its inputs, and in float64 the Jacobians and what reads a state."""
    dtype = DTYPES[name]
    family, settings, beyond = CELLS[case]
    cell = cells.make(family, inputs=1, hidden=N, **settings)
    # An orthogonal matrix is not drawn in bfloat16.
    p = jax.tree.map(lambda x: x.astype(dtype), cell.init(jax.random.key(3), jnp.float32))
    # States whose Jacobians explode would saturate, unless they stay at the fixed point zero.
    drive = 0.0 if beyond == 5000 else 0.5
    xs = drive * jax.random.normal(jax.random.key(4), (T, 1), dtype)
    start = cell.start(dtype)

    def step(p, state, x):
        state = cell.step(p, state, x)
        return state, cell.read(state)

    # The states as the tested dtype made them, so that chaos does not part the two computations.
    states = jax.jit(
        lambda: jax.lax.scan(lambda s, x: ((s := step(p, s, x)[0]), s), start, xs)[1]
    )()
    before = jax.tree.map(lambda s, rows: jnp.concatenate([s[None], rows[:-1]]), start, states)
    vector, unravel = ravel_pytree(wide(start))

    def vector_step(vector, x):
        return ravel_pytree(cell.step(wide(p), unravel(vector), x))[0]

    jacobians = jax.jit(jax.vmap(jax.jacobian(vector_step)))(flat(before), wide(xs))
    reader = jax.grad(lambda vector: cell.read(unravel(vector)) @ jnp.array(DIRECTION))(vector)
    trace = functools.partial(tracer(step, start), p, jnp.asarray(DIRECTION, dtype), xs)
    return trace, np.asarray(jacobians), np.asarray(reader)


@pytest.mark.parametrize("reads", ["last", "every"])
@pytest.mark.parametrize("case, name", CASES)
def test_cells_against_jacobians_in_float64(case, name, reads):
    trace, jacobians, reader = model(case, name)
    weights, beyond = scales(reads), CELLS[case][2]
    expected = recursion(jacobians, weights[:, None] * reader)
    if beyond is not None and (reads == "last" or beyond > 0):
        assert expected[0, 0] / beyond > 1
    (scan,) = trace(jnp.asarray(weights, DTYPES[name])).scans
    compare(scan, expected, name)
