"""Each leaf of a state is a coordinate of its own, whatever expression makes it.

A body is written once, with `at(i, value)` around leaf i where the boundary is. Traced, `at` is the
identity; in the unrolled loop it adds a perturbation of that leaf alone.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab as gl

N, T = 3, 4
W = jnp.cos(jnp.arange(9.0)).reshape(N, N)


def equal(state, x, at):
    a, b = at(0, jnp.tanh(W @ x + state[0])), at(1, jnp.tanh(W @ x + state[0]))
    return (a, b), a + 2 * b * x


def equal_of_equal(state, x, at):
    """What the leaves are made of is equal too."""
    a, b = at(0, jnp.sin(W @ x) * state[1]), at(1, jnp.sin(W @ x) * state[1])
    return (a, b), jnp.stack([a * x, 3 * b])


def three(state, x, at):
    a, b, c = (at(i, 0.5 * (x + state[2])) for i in range(3))
    return (a, b, c), a + jnp.cos(b) + c * c


def equal_in_other_forms(state, x, at):
    """Reshapes of equal values, and an output that reads one before its reshape."""
    first, second = W @ (x + state[0][0]), W @ (x + state[0][0])
    a, b = at(0, first.reshape(1, N)), at(1, second.reshape(1, N))
    return (a, b), 2 * a.reshape(N) + x * b.reshape(N)


def repeats(state, x, at):
    """An output that repeats a leaf's expression is that leaf; of equal leaves, the first."""
    a, b = at(0, jnp.sin(x + state[1])), at(1, jnp.sin(x + state[1]))
    # Traced, a third equal expression stands here; `at` says which leaf it is.
    return (a, b), 2 * at(0, jnp.sin(x + state[1])) + x * b


def twice(state, x, at):
    """One value returned as two leaves: outputs read the first."""
    new = jnp.sin(W @ state[0] + state[1] + x)
    return (at(0, new), at(1, new)), 3 * at(0, new)


def a_row(state, x, at):
    """A leaf that is the input's row: outputs that read the row read the input."""
    a = at(0, jnp.tanh(W @ state[0] + state[1]))
    return (a, at(1, x)), a * x


def a_constant(state, x, at):
    a = at(0, jnp.tanh(state[0] + state[1] * x))
    return (a, at(1, jnp.ones(N))), a + x


def swapped(state, x, at):
    """Leaves that change places: outputs that read them read the old state."""
    c = at(2, jnp.tanh(state[2] + x * state[0] + 0.5 * state[1]))
    return (at(0, state[1]), at(1, state[0]), c), c * (state[0] + 2 * state[1])


def remat(state, x, at):
    return jax.checkpoint(lambda s, x: equal(s, x, at))(state, x)


def cond(state, x, at):
    def other(state, x):
        a, b = at(0, state[1] * x), at(1, state[1] * x)
        return (a, b), b - 2 * a

    return jax.lax.cond(x[0] > 0, lambda s, x: equal(s, x, at), other, state, x)


BODIES = {
    body.__name__: (body, leaves)
    for body, leaves in (
        (equal, 2), (equal_of_equal, 2), (three, 3), (equal_in_other_forms, 2), (repeats, 2),
        (twice, 2), (a_row, 2), (a_constant, 2), (swapped, 3), (remat, 2), (cond, 2),
    )
}  # fmt: skip
XS = jnp.sin(1.0 + jnp.arange(T * N)).reshape(T, N)


def start(name):
    shape = (1, N) if name == "equal_in_other_forms" else (N,)
    return tuple(jnp.full(shape, 0.3 + 0.2 * i) for i in range(BODIES[name][1]))


def score(state, ys):
    return sum((1 + i) * jnp.sum(jnp.sin(s)) for i, s in enumerate(state)) + jnp.sum(
        jnp.cos(jnp.arange(ys.size)).reshape(ys.shape) * ys
    )


@pytest.mark.parametrize("name", BODIES)
def test_record_of_a_leaf_is_that_of_perturbing_it_alone(name):
    body = BODIES[name][0]

    def traced(init):
        return score(*jax.lax.scan(lambda s, x: body(s, x, lambda _, v: v), init, XS))

    def unrolled(perturbation):
        state, rows = start(name), []
        for t, x in enumerate(XS):
            state, y = body(state, x, lambda i, value, t=t: value + perturbation[i][t])
            rows.append(y)
        return score(state, jnp.stack(rows))

    zeros = tuple(jnp.zeros((T, *leaf.shape)) for leaf in start(name))
    exact = jax.jit(jax.grad(unrolled))(zeros)
    scan = gl.trace(traced)(start(name)).scans[0]
    assert len(scan.leaves) == len(zeros)
    for log, adjoint in zip(scan.leaves.values(), exact, strict=True):
        norm = np.linalg.norm(np.asarray(adjoint).reshape(T, -1), axis=1)
        np.testing.assert_allclose(np.exp(log), norm, rtol=1e-12, atol=1e-14)


def test_equal_leaves_under_vmap_and_in_a_wider_float():
    """An output that reads a leaf before vmap's transpose, or before its cast, reads that leaf."""

    def loss(forms):
        def body(state, x):
            a, b = W.astype(forms) @ x.astype(forms), W.astype(forms) @ x.astype(forms)
            return (a.astype(float), b.astype(float)), (a + 2 * b * x.astype(forms)).astype(float)

        def run(xs):
            init = (jnp.zeros(N), jnp.zeros(N))
            return jax.lax.scan(body, init, xs)[1].sum()

        return lambda xs: jax.vmap(run)(xs).sum()

    xs = jnp.stack([XS, 2 * XS])
    for forms in (jnp.float64, jnp.float32):
        scan = gl.trace(loss(forms), batch_axis=0)(xs).scans[0]
        first, second = (np.exp(log) for log in scan.leaves.values())
        np.testing.assert_allclose(first, np.sqrt(N), rtol=1e-6)
        norms = np.linalg.norm(2 * np.asarray(xs), axis=-1).T
        np.testing.assert_allclose(second, norms, rtol=1e-6)
