"""Laws of the record over random steps: whatever floats meet in a step, whether samples mix in it
and whether leaves repeat each other's expressions, each row is the adjoint of the rounded program.

A step is drawn as a description, and run twice: by `lax.scan` in the types that it names, and in
float64, where each value is rounded to those types and derivatives pass the rounding unchanged.
"""

import dataclasses
import functools
import os

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab as gl

N, B, T = 3, 2, 200
DRAWN = 100 if "GRADLAB_LONG" in os.environ else 2
FLOATS = ("float16", "bfloat16", "float32", "float64")
# Each takes the values a and b, of shape (B, N), and the weights (N, N).
OPS = {
    "product": lambda a, b, w: a @ w,
    "tanh": lambda a, b, w: jnp.tanh(a),
    "sigmoid": lambda a, b, w: jax.nn.sigmoid(a) - 0.5,
    "relu": lambda a, b, w: jax.nn.relu(a + 0.1),
    "gate": lambda a, b, w: a * jax.nn.sigmoid(b),
    "sum": lambda a, b, w: a + 0.5 * b,
    "swish": lambda a, b, w: jax.nn.silu(a + b),
    "where": lambda a, b, w: jnp.where(b > 0, a, 0.5 * a),
    "columns": lambda a, b, w: jnp.concatenate([a[:, 1:], b[:, :1]], 1),
    "flatten": lambda a, b, w: (a.reshape(-1) * 0.9).reshape(a.shape),
    "standardize": lambda a, b, w: a - 0.5 * a.mean(1, keepdims=True),
}
MIXES = {
    "mean": lambda a, b, w: a - 0.5 * a.mean(0, keepdims=True),
    "batch norm": lambda a, b, w: (
        (a - a.mean(0, keepdims=True)) / jnp.sqrt(1 + a.var(0, keepdims=True))
    ),
    "attention": lambda a, b, w: jax.nn.softmax(b @ b.T) @ a,
    "neighbour": lambda a, b, w: a + 0.2 * jnp.roll(a, 1, axis=0),
    "other": lambda a, b, w: a[::-1],
}


@dataclasses.dataclass(frozen=True)
class Op:
    kind: str
    dtype: str
    a: int = -1
    b: int = 0


@dataclasses.dataclass(frozen=True)
class Step:
    ops: tuple
    leaves: tuple  # the type of each leaf
    equal: bool = False  # the leaves have one expression, written anew for each
    output: str = "float32"
    rate: float = -1.0  # the growth per step, in nats
    batch: bool = False
    seed: int = 0


def run_ops(step, compute, values, w):
    values = list(values)
    for op in step.ops:
        a, b = values[op.a % len(values)], values[op.b % len(values)]
        values.append(compute(op, a, b, w))
    return values[-1]


def advance(step, compute, cast, state, x, w):
    """The new state and what is made beside it."""
    new = []
    for i, dtype in enumerate(step.leaves):
        order = state if step.equal else state[i:] + state[:i]
        made = run_ops(step, compute, [*order, x], w)
        # The factor comes last and in float32, so that the growth per step is known.
        new.append(cast(cast(made, "float32") * np.float32(np.exp(step.rate)), dtype))
    return tuple(new)


def real(x, dtype):
    return x.astype(dtype)


def real_op(op, a, b, w):
    return (OPS | MIXES)[op.kind](*(x.astype(op.dtype) for x in (a, b, w)))


def rounded(x, dtype):
    """The float64 of the number that the type holds; the identity to a derivative."""
    x = x.astype(jnp.float64)
    return x + jax.lax.stop_gradient(x.astype(dtype).astype(jnp.float64) - x)


def rounded_op(op, a, b, w):
    a, b, w = (rounded(x, op.dtype) for x in (a, b, w))
    return rounded((OPS | MIXES)[op.kind](a, b, w), op.dtype)


def arguments(step):
    keys = jax.random.split(jax.random.key(step.seed), 3)
    w = jnp.linalg.qr(jax.random.normal(keys[0], (N, N)))[0]
    # What grows has to start from a fixed point, or the state would leave the narrow range.
    quiet = 0.0 if step.rate > 0 else 0.3
    xs = quiet * jax.random.normal(keys[1], (T, B, N))
    return w.astype(jnp.float32), xs.astype(jnp.float32)


def score(step, state, ys):
    weights = jnp.cos(jnp.arange(B * N)).reshape(B, N)
    ends = sum((1 + i) * jnp.sum(weights * s.astype(jnp.float64)) for i, s in enumerate(state))
    return ends + jnp.sum(ys[-5:].astype(jnp.float64))


def traced(step, w, xs):
    def body(state, x):
        state = advance(step, real_op, real, state, x, w)
        return state, sum(s.astype(step.output) for s in state)

    init = tuple(jnp.zeros((B, N), dtype) for dtype in step.leaves)
    return score(step, *jax.lax.scan(body, init, xs))


def exact(step, w, xs):
    """ln of each leaf's adjoint at each step, by perturbing it alone, in float64."""

    def loss(perturbations):
        def body(state, row):
            x, each = row
            state = advance(step, rounded_op, rounded, state, x, w)
            state = tuple(s + p for s, p in zip(state, each, strict=True))
            return state, sum(rounded(s, step.output) for s in state)

        init = tuple(jnp.zeros((B, N)) for _ in step.leaves)
        return score(step, *jax.lax.scan(body, init, (xs, perturbations)))

    adjoints = jax.jit(jax.grad(loss))(tuple(jnp.zeros((T, B, N)) for _ in step.leaves))
    axes = -1 if step.batch else (-2, -1)
    return [norm(np.asarray(adjoint), axes) for adjoint in adjoints]


def norm(x, axes):
    """The 2-norm, also where squares leave the range of a float64."""
    top = np.abs(x).max(axis=axes, keepdims=True)
    top[top == 0] = 1
    return np.linalg.norm(x / top, axis=axes) * top.reshape(top.shape[: x.ndim - np.size(axes)])


@st.composite
def steps(draw):
    kinds = [*OPS] * 2 + [*MIXES]
    rate = draw(st.sampled_from([-2.2, -0.5, 0.5]))
    linear = ["product", "columns", "flatten", "sum", "other", "neighbour"]
    ops = draw(
        st.lists(
            st.builds(
                Op,
                st.sampled_from(linear if rate > 0 else kinds),
                st.sampled_from(FLOATS),
                st.integers(-2, 1),
                st.integers(0, 2),
            ),
            min_size=1,
            max_size=4,
        )
    )
    return Step(
        ops=tuple(ops),
        leaves=tuple(draw(st.lists(st.sampled_from(FLOATS), min_size=1, max_size=2))),
        equal=draw(st.booleans()),
        output=draw(st.sampled_from(FLOATS)),
        rate=rate,
        batch=draw(st.booleans()),
        seed=draw(st.integers(0, 99)),
    )


PRODUCT = Op("product", "float16")


@hypothesis.example(Step((PRODUCT,), ("float32",), rate=-2.5))
@hypothesis.example(Step((PRODUCT,), ("float32",), rate=1.0))
@hypothesis.example(Step((Op("product", "bfloat16"), Op("tanh", "float16")), ("float64",)))
@hypothesis.example(Step((PRODUCT, Op("tanh", "float32")), ("bfloat16", "bfloat16"), equal=True))
@hypothesis.example(Step((PRODUCT, Op("mean", "bfloat16")), ("float16",), batch=True, rate=-0.5))
@hypothesis.settings(
    derandomize=True,
    deadline=None,
    print_blob=True,
    database=None,
    max_examples=DRAWN,
    suppress_health_check=list(hypothesis.HealthCheck),
)
@hypothesis.given(steps())
def test_record_is_the_adjoint_of_the_rounded_program(step):
    w, xs = arguments(step)
    loss = functools.partial(traced, step)
    out = gl.trace(loss, argnums=(0, 1), batch_axis=0 if step.batch else None)(w, xs)
    np.testing.assert_allclose(out.value, jax.jit(loss)(w, xs), rtol=1e-2, atol=1e-2)
    scan = out.scans[0]
    norms = exact(step, w, xs)
    logs = [np.log(np.maximum(each, 1e-300)) for each in norms]
    highest = functools.reduce(np.maximum, logs)
    for log, size in zip(scan.leaves.values(), norms, strict=True):
        log = np.asarray(log)
        known = ~np.isnan(log)
        # A leaf or a sample may be too far below the others for its float: then it is NaN.
        top = highest.max(1, keepdims=True) if step.batch else highest
        assert np.all(known | (np.log(np.maximum(size, 1e-300)) < top - 40))
        assert np.array_equal(np.isneginf(log[known]), size[known] == 0)
        alive = known & (size > 0)
        np.testing.assert_allclose(log[alive], np.log(size[alive]), atol=0.05)


@pytest.mark.parametrize("kind", [*OPS, *MIXES])
def test_samples_have_units_of_their_own_where_they_do_not_mix(kind):
    """Rows that part by e^180 stay known where samples stay apart, and share a unit where not."""
    rates = jnp.array([[0.3], [2.0]], jnp.float32)
    w = jnp.eye(N, dtype=jnp.float32)

    def loss(rates):
        def body(h, _):
            return rates * (OPS | MIXES)[kind](h, h, w), None

        return jax.lax.scan(body, jnp.zeros((B, N), jnp.float32), length=120)[0].sum()

    scan = gl.trace(loss, argnums=(), batch_axis=0)(rates).scans[0]
    together = np.array_equal(*np.asarray(scan.log_scale).T)
    assert together == (kind in MIXES)
    if kind in OPS:
        parted = np.diff(scan.log_norm[0])[0]
        np.testing.assert_allclose(parted, 119 * np.log(2 / 0.3), rtol=1e-5)
