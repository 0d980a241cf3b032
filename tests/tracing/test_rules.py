"""Backward rules that a user wrote: those that are not linear see the adjoint itself."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab as gl
from gradlab.tracing import _jaxpr, _rules
from gradlab.tracing._changes import Changes

STEPS, BATCH, WIDTH = 12, 3, 4


def identity_with(rule):
    """The identity, with `rule(ct)` as its pullback."""

    @jax.custom_vjp
    def f(x):
        return x

    f.defvjp(lambda x: (x, x), lambda x, ct: (rule(x, ct),))
    return f


@identity_with
def clip_by_value(x, ct):
    return jnp.clip(ct, -1e-3, 1e-3)


@identity_with
def square(x, ct):
    return ct * ct


def through_scan(x, ct):
    body = lambda c, row: (0.5 * c + row, c)  # noqa: E731
    return jax.lax.scan(body, jnp.zeros_like(ct[0]), ct)[1]


def scan_of_squares(x, ct):
    return jax.lax.scan(lambda c, row: (c * c + row, c), jnp.zeros_like(ct[0]), ct)[1]


def scan_from_one(x, ct):
    return jax.lax.scan(lambda c, row: (0.5 * c + row, c), jnp.ones_like(ct[0]), ct)[1]


LINEAR = {
    "scaled": lambda x, ct: 0.5 * ct / (2 + x),
    "masked": lambda x, ct: jnp.where(x > 0, ct, 0),
    "product": lambda x, ct: ct @ jnp.outer(x[0], jnp.sin(x[0])),
    "sums": lambda x, ct: jnp.cumsum(ct[::-1], axis=0) - ct.mean(),
    "transform": lambda x, ct: jnp.fft.irfft(jnp.fft.rfft(ct, axis=1), n=WIDTH, axis=1),
    "written": lambda x, ct: jnp.zeros_like(ct).at[0].set(2 * ct[1]),
    "added": lambda x, ct: jnp.zeros_like(ct).at[jnp.array([0, 1])].add(ct[1:]),
    "gathered": lambda x, ct: ct[jnp.array([2, 0, 0])],
    "solved": lambda x, ct: jax.scipy.linalg.solve_triangular(jnp.eye(BATCH), ct),
    "loop": through_scan,
    "branch": lambda x, ct: jax.lax.cond(x[0, 0] > 0, lambda c: 2 * c, lambda c: -c, ct),
    "nothing": lambda x, ct: jnp.zeros_like(ct),
    "inner rule": lambda x, ct: square(2 * ct),
}
OTHER = {
    "value": lambda x, ct: jnp.clip(ct, -1e-3, 1e-3),
    "norm": lambda x, ct: ct * jnp.minimum(1, 1e-2 / jnp.linalg.norm(ct)),
    "unit": lambda x, ct: ct / jnp.linalg.norm(ct),
    "sign": lambda x, ct: jnp.sign(ct),
    "affine": lambda x, ct: ct + 1e-3,
    "constant": lambda x, ct: jnp.ones_like(ct),
    "square": lambda x, ct: ct * ct,
    "rounded": lambda x, ct: ct.astype(int).astype(ct.dtype),
    "branch of its size": lambda x, ct: jax.lax.cond(
        ct[0, 0] > 0, lambda c: 2 * c, lambda c: -c, ct
    ),
    "affine branch": lambda x, ct: jax.lax.cond(x[0, 0] > 0, lambda c: c + 1, lambda c: -c, ct),
    "indexed by its size": lambda x, ct: jnp.tile(ct[jnp.argmax(ct[:, 0])], (BATCH, 1)),
    "loop": scan_of_squares,
    "loop from one": scan_from_one,
    "while": lambda x, ct: jax.lax.while_loop(lambda c: c[0, 0] > 1, lambda c: c / 2, ct),
}


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.checkpoint], ids=["", "jit", "remat"])
@pytest.mark.parametrize(
    ("rule", "expected"),
    [(rule, True) for rule in LINEAR.values()] + [(rule, False) for rule in OTHER.values()],
    ids=[f"linear {name}" for name in LINEAR] + [f"other {name}" for name in OTHER],
)
def test_which_rules_are_linear(rule, expected, wrap):
    f = identity_with(rule)
    closed = jax.make_jaxpr(wrap(lambda x: jnp.sin(f(x))))(jnp.ones((BATCH, WIDTH)))
    assert _rules.all_linear(_jaxpr.program(closed).nodes, Changes(_jaxpr.callee)) == expected


def program(rule):
    """A loss and the same loss unrolled, with a perturbation added to every state."""
    f = identity_with(rule)
    keys = jax.random.split(jax.random.key(0), 4)
    W = 0.4 * jax.random.normal(keys[0], (WIDTH, WIDTH))
    xs = jax.random.normal(keys[1], (STEPS, BATCH, WIDTH))
    weights = jax.random.normal(keys[2], (STEPS, BATCH, WIDTH))

    def step(W, h, x):
        z = f(h @ W + x)
        h = jnp.tanh(z)
        return h, z

    def read(h, z):
        return f(h) * jnp.cos(z)

    def loss(W, xs):
        def body(h, x):
            h, z = step(W, h, x)
            return h, read(h, z)

        h, ys = jax.lax.scan(body, jnp.zeros((BATCH, WIDTH)), xs)
        return jnp.sum(h) + jnp.sum(weights * ys)

    def unrolled(kicks, W, xs):
        h, total = jnp.zeros((BATCH, WIDTH)), 0.0
        for t in range(STEPS):
            h, z = step(W, h, xs[t])
            h = h + kicks[t]
            total += jnp.sum(weights[t] * read(h, z))
        return jnp.sum(h) + total

    return loss, unrolled, W, xs


@pytest.mark.parametrize("axis", [None, 0])
@pytest.mark.parametrize("rule", ["value", "norm", "unit", "affine"])
def test_a_rule_that_is_not_linear_sees_the_adjoint(rule, axis):
    loss, unrolled, W, xs = program(OTHER[rule])
    out = gl.trace(loss, argnums=(0, 1), batch_axis=axis)(W, xs)
    value, grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(W, xs)
    np.testing.assert_allclose(out.value, value, rtol=1e-14)
    for ours, theirs in zip(out.grads, grads, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-14)
    adjoint = jax.jit(jax.grad(unrolled))(jnp.zeros_like(xs), W, xs)
    expected = np.linalg.norm(adjoint, axis=-1 if axis == 0 else (1, 2))
    np.testing.assert_allclose(np.exp(out.scans[0].log_norm), expected, rtol=1e-11)
    assert not np.any(out.scans[0].log_scale)


@pytest.mark.parametrize("depth", [1, 2])
def test_clipping_where_float32_vanishes(depth):
    """Far below where rescaling would begin, a clip to 1e-3 changes nothing."""

    def loss(W, x, clip):
        def step(h, _):
            h = 0.3 * h @ W
            return clip_by_value(h) if clip else h, None

        def outer(h, _):
            return jax.lax.scan(step, h, None, length=20)[0], None

        h, _ = jax.lax.scan(*((outer, x, None, 2) if depth == 2 else (step, x, None, 40)))
        return 1e-4 * jnp.sum(h)

    W = jnp.asarray(np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0], jnp.float32)
    x = jnp.ones((1, 4), jnp.float32)
    clipped, plain = (gl.trace(functools.partial(loss, clip=clip))(W, x) for clip in (True, False))
    np.testing.assert_allclose(clipped.grads, plain.grads, rtol=1e-5)
    for ours, theirs in zip(clipped.scans, plain.scans, strict=True):
        np.testing.assert_allclose(ours.log_norm, theirs.log_norm, rtol=1e-5)
    assert np.any(plain.scans[0].log_scale)
    assert float(plain.scans[0].log_norm[0]) < np.log(2.0**-42)
    # The clip does act where the adjoint is large.
    large = gl.trace(lambda W, x: 100 * loss(W, x, True))(W, x)
    last = large.scans[-1].log_norm.ravel()[-2:]
    np.testing.assert_allclose(last, np.log([6e-4, 2e-2]), rtol=1e-5)


def test_a_linear_rule_keeps_the_log_domain():
    halve = identity_with(lambda x, ct: 0.5 * ct)

    def loss(h):
        h, _ = jax.lax.scan(lambda h, _: (halve(h), None), h, None, length=2000)
        return jnp.sum(h)

    scan = gl.trace(loss)(jnp.ones(1)).scans[0]
    np.testing.assert_allclose(scan.log_norm, np.log(0.5) * np.arange(1999, -1, -1), atol=1e-9)


@jax.custom_vjp
def particular(h, c, k):
    """tanh(c h) k, whose rule refuses to be differentiated by k, and by c where told so."""
    return jnp.tanh(c * h) * k


def _forward(h, c, k):
    assert h.perturbed and not c.perturbed and not k.perturbed
    return particular(h.value, c.value, k.value), (h.value, c.value, k.value)


def _backward(saved, ct):
    h, c, k = saved
    return ct * k * c / jnp.cosh(c * h) ** 2, None, None


particular.defvjp(_forward, _backward, symbolic_zeros=True)


@jax.custom_jvp
def unmoved(c):
    return c


@unmoved.defjvp
def _(primals, tangents):
    raise RuntimeError("a change of this is refused")


def test_a_rule_that_refuses_what_the_program_does_not_change_is_not_asked():
    def loss(w, xs, c):
        def body(h, x):
            h = jnp.tanh(w * h + x) * unmoved(jnp.cos(c))
            return h, h

        return jnp.sum(jax.lax.scan(body, jnp.zeros_like(w), xs)[1])

    args = jnp.asarray(0.7), jnp.linspace(-1, 1, 4), jnp.asarray(0.3)
    out = gl.trace(loss)(*args)
    np.testing.assert_allclose(out.grads, jax.grad(loss)(*args), rtol=1e-6)
    assert np.all(np.isfinite(out.scans[0].log_norm))


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float16])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.checkpoint])
def test_a_rule_is_asked_with_what_the_program_perturbs(dtype, layers, wrap):
    def loss_of(step):
        def loss(w, xs, c):
            xs, c = xs.astype(dtype), c.astype(dtype)

            def body(h, x):
                h = wrap(step)(w.astype(dtype) * h + x, jnp.cos(c), jnp.ones((), dtype) * 0.9)
                return h, h

            for _ in range(layers):
                _, xs = jax.lax.scan(body, jnp.zeros((), dtype), xs)
            return jnp.sum(xs.astype(jnp.float32) ** 2)

        return loss

    args = jnp.float32(0.7), jnp.linspace(-1, 1, 4), jnp.asarray(0.3)
    out = gl.trace(loss_of(particular))(*args)
    plain = gl.trace(loss_of(lambda h, c, k: jnp.tanh(c * h) * k))(*args)
    value, grad = jax.value_and_grad(loss_of(particular))(*args)
    assert out.value == value
    np.testing.assert_allclose(out.grads, grad, rtol=1e-2 if dtype == jnp.float16 else 1e-6)
    for found, known in zip(out.scans, plain.scans, strict=True):
        np.testing.assert_allclose(found.log_norm, known.log_norm, atol=1e-2)
