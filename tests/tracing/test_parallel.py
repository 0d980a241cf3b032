"""A parallel scan is recorded as the recurrence out_t = f(out_{t-1}, elem_t) that it computes.

The oracle is a Python loop over that recurrence with a zero added to each state: JAX's derivative
of the loss by the zero of step t is the adjoint.
"""

import functools
import inspect
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.lax import associative_scan

import gradlab as gl

T = 7
A, B, M, W = (
    jax.random.normal(key, shape) / 2
    for key, shape in zip(
        jax.random.split(jax.random.key(0), 4),
        [(T, 3), (T, 3), (T, 3, 3), (4, T, 3)],
        strict=True,
    )
)


def combine(p, q):
    return p[0] * q[0], q[0] * p[1] + q[1]


def by_name(p, q):
    return {"a": p["a"] * q["a"], "h": q["a"] * p["h"] + q["h"]}


@jax.vmap
def matrices(p, q):
    return q[0] @ p[0], q[0] @ p[1] + q[1]


def blocks(p, q):
    product = jnp.einsum("tij,tjk->tik", q[0], p[0])
    return product, jnp.einsum("tij,tj->ti", q[0], p[1]) + q[1]


def resetting(p, q):
    flag = q[2][:, None]
    a = jnp.where(flag, q[0], p[0] * q[0])
    return a, jnp.where(flag, q[1], q[0] * p[1] + q[1]), p[2] | q[2]


def scaled(p, q):
    return A[:1] * p[0] * q[0], A[:1] * q[0] * p[1] + q[1]


# What is combined, the elements, and which leaf the loss reads; then the options of the scan.
KINDS = {
    "diagonal": (combine, (A, B), lambda h: h[1], {}),
    "both leaves": (combine, (A, B), lambda h: h[0] + h[1], {}),
    "dict": (by_name, {"a": A, "h": B}, lambda h: h["h"], {}),
    "complex": (combine, (A * jnp.exp(1j * B), B + 1j * A), lambda h: h[1].real + h[1].imag, {}),
    "matrices": (matrices, (M, B), lambda h: h[1], {}),
    "compiled": (jax.jit(matrices), (M, B), lambda h: h[1], {}),
    "blocks": (blocks, (M, B), lambda h: h[1], {}),
    "product": (lambda p, q: q @ p, M, lambda h: h[:, 0], {}),
    "sum": (jnp.add, B, lambda h: h, {}),
    "maximum": (jnp.maximum, B, lambda h: h, {}),
    "reset": (resetting, (A, B, jnp.arange(T) % 3 == 0), lambda h: h[1], {}),
    "closed over": (scaled, (A, B), lambda h: h[1], {}),
    "reverse": (combine, (A, B), lambda h: h[1], {"reverse": True}),
    "last axis": (combine, (A.T, B.T), lambda h: h[1].T, {"axis": 1}),
}


def in_order(elems, function, reverse=False, axis=0):
    """The recurrence as a loop; returns the stacked states, and adds `zeros` to each."""

    def row(tree, t):
        return jax.tree.map(lambda x: jax.lax.slice_in_dim(x, t, t + 1, axis=axis), tree)

    def states(elems, zeros):
        order = range(T - 1, -1, -1) if reverse else range(T)
        found, h = {}, None
        for t in order:
            h = row(elems, t) if h is None else function(h, row(elems, t))
            h = jax.tree.map(lambda x, z: x + z if x.dtype != bool else x, h, row(zeros, t))
            found[t] = h
        rows = [found[t] for t in range(T)]
        return jax.tree.map(lambda *xs: jnp.concatenate(xs, axis=axis), *rows)

    zeros = jax.tree.map(jnp.zeros_like, elems)
    return states, zeros


def leaf_norms(tree, axis):
    """ln of the norm of each float leaf at each step."""
    norms = []
    for x in jax.tree.leaves(tree):
        if x.dtype not in (bool, jax.dtypes.float0):
            rows = np.moveaxis(np.asarray(x), axis, 0).reshape(T, -1)
            norms.append(np.linalg.norm(rows, axis=1))
    with np.errstate(divide="ignore"):
        return np.log(norms), np.log(np.linalg.norm(norms, axis=0))


def expected(kind):
    """Total, direct and transported, each by leaf and of all leaves."""
    function, elems, read, options = KINDS[kind]
    states, zeros = in_order(elems, function, **options)

    def loss(hs):
        return jnp.sum(jnp.tanh(read(hs)) * B)

    allow = {"allow_int": True}

    @jax.jit
    def differentiate(zeros):
        total = jax.grad(lambda zeros: loss(states(elems, zeros)), **allow)(zeros)
        return total, jax.grad(loss, **allow)(states(elems, zeros))

    total, direct = differentiate(zeros)
    rest = jax.tree.map(lambda x, d: x if x.dtype == jax.dtypes.float0 else x - d, total, direct)
    return [leaf_norms(part, options.get("axis", 0)) for part in (total, direct, rest)]


@pytest.fixture(scope="module")
def traced():
    """All kinds in one loss, which is compiled once, and the result of JAX itself for it."""

    def loss(elems):
        total = 0.0
        for kind, (function, _, read, options) in KINDS.items():
            hs = associative_scan(function, elems[kind], **options)
            total += jnp.sum(jnp.tanh(read(hs)) * B)
        return total

    elems = {kind: case[1] for kind, case in KINDS.items()}
    moving = {kind: e for kind, e in elems.items() if kind != "reset"}

    def of_floats(moving):
        return loss(elems | moving)

    return gl.trace(of_floats)(moving), jax.jit(jax.value_and_grad(of_floats))(moving)


def test_value_and_gradients_are_those_of_the_parallel_program(traced):
    out, (value, grads) = traced
    np.testing.assert_allclose(out.value, value, rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), out.grads, grads
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_the_recurrence(traced, kind):
    scan = traced[0].scans[list(KINDS).index(kind)]
    assert scan.length == T and scan.reverse == KINDS[kind][3].get("reverse", False)
    assert scan.name.startswith("test_parallel.py:")
    records = [
        (scan.leaves, scan.log_norm),
        (scan.leaves_direct, scan.log_direct),
        (scan.leaves_transported, scan.log_transported),
    ]
    last = 0 if scan.reverse else T - 1
    for i, ((leaves, whole), (want_leaves, want)) in enumerate(
        zip(records, expected(kind), strict=True)
    ):
        got = np.array([*leaves.values(), whole])
        want = np.array([*want_leaves, want])
        if i == 2:
            # A difference of the oracle's total and direct parts is not exactly zero.
            assert np.all(np.isneginf(got[:, last]))
            got, want = np.delete(got, last, 1), np.delete(want, last, 1)
            got, want = np.maximum(got, -12), np.maximum(want, -12)
        np.testing.assert_allclose(got, want, atol=2e-4)


@jax.jit
def compiled_model(a, b):
    return associative_scan(combine, (a, b))[1]


def layers(stack, x, scan):
    def layer(x, w):
        z = jnp.tanh(x @ w)
        return x + scan(jax.nn.sigmoid(z), z), None

    return jnp.sum(jax.lax.scan(layer, x, stack)[0] ** 2)


def linear_scan(a, b):
    def step(h, row):
        h = row[0] * h + row[1]
        return h, h

    return jax.lax.scan(step, jnp.zeros_like(b[0]), (a, b))[1]


def linear_parallel(a, b):
    return associative_scan(combine, (a, b))[1]


# Programs around the scan, as functions of what runs it.
AROUND = {
    "compiled before": lambda scan: jnp.sum(
        jnp.tanh((compiled_model if scan is linear_parallel else scan)(A, B))
    ),
    "vmap": lambda scan: jnp.sum(jnp.tanh(jax.vmap(lambda b: scan(A, b))(W))),
    # As many samples as units, so that no shape tells their axes apart.
    "vmap of time first": lambda scan: jnp.sum(
        jnp.tanh(jax.vmap(lambda b: scan(A, b), in_axes=1)(jnp.moveaxis(W[:3], 0, 1))) * W[:3]
    ),
    "vmap of the last axis": lambda scan: jnp.sum(
        jnp.tanh(jax.vmap(lambda b: scan(A, b), in_axes=2, out_axes=1)(M)) * M
    ),
    "vmap of the decay": lambda scan: jnp.sum(
        jnp.tanh(jax.vmap(lambda a: scan(a, B), in_axes=2)(M)) * W[:3]
    ),
    "layers": lambda scan: layers(M[:2], B, scan),
    "remat": lambda scan: layers(M[:2], B, jax.checkpoint(scan)),
    "cond": lambda scan: jnp.sum(jax.lax.cond(A[0, 0] > 9, lambda: B, lambda: scan(A, B)) ** 3),
    "stacked": lambda scan: jnp.sum(scan(A, jnp.tanh(scan(A, B))) ** 2),
}


def test_programs_around_the_scan():
    compiled_model(A, B)

    def loss(scan, one):
        return one * sum(program(scan) for program in AROUND.values())

    got, want = (
        gl.trace(lambda one, scan=scan: loss(scan, one))(1.0)
        for scan in (linear_parallel, linear_scan)
    )
    assert len(got.scans) == len(want.scans) == 12
    np.testing.assert_allclose(got.grads, want.grads, rtol=1e-6)
    for mine, theirs in zip(got.scans, want.scans, strict=True):
        assert (mine.outer, mine.length) == (theirs.outer, theirs.length)
        for name in ("log_norm", "log_direct", "log_transported"):
            np.testing.assert_allclose(getattr(mine, name), getattr(theirs, name), atol=1e-4)


def test_options_are_those_of_the_equal_scan():
    def loss(scan, w):
        return jnp.sum(jnp.tanh(jax.vmap(lambda b: scan(w * A, b))(W)))

    def measure(state, adjoint):
        # The parallel scan has the product of the decays as a leaf beside the state.
        state, adjoint = (x["1"] if isinstance(x, dict) else x for x in (state, adjoint))
        return jnp.vdot(state, adjoint)

    for options in ({"batch_axis": 0}, {"measure": measure}):
        got, want = (
            gl.trace(lambda w, scan=scan: loss(scan, w), **options)(1.0).scans[0]
            for scan in (linear_parallel, linear_scan)
        )
        np.testing.assert_allclose(got.log_norm, want.log_norm, atol=1e-5)
        if "measure" in options:
            scale = np.exp(got.log_scale - want.log_scale)
            np.testing.assert_allclose(got.measured * scale, want.measured, rtol=1e-4)
        else:
            assert got.log_norm.shape == (T, 4)


def test_what_a_step_closes_over():
    def parallel(c):
        return associative_scan(lambda p, q: (c * p[0] * q[0], c * q[0] * p[1] + q[1]), (A, B))[1]

    def scan(c):
        return jax.lax.scan(lambda h, row: ((c * row[0] * h + row[1]),) * 2, B[0], (A[1:], B[1:]))[
            1
        ]

    got, want = (
        gl.trace(lambda c, run=run: jnp.sum(run(c) ** 2), log_param=True)(0.9).scans[0].log_param
        for run in (parallel, scan)
    )
    assert np.isneginf(got[0])
    np.testing.assert_allclose(got[1:], want, atol=1e-5)


LONG = 300


@gl.trace
def far(b, decay):
    a = jnp.full((LONG, 2), jnp.exp(decay))
    return associative_scan(combine, (a, b))[1][-1].sum()


@pytest.mark.parametrize("rate", [-3.0, -0.3, 0.0, 0.2])
def test_far_outside_the_range_of_the_float(rate):
    scan = far(jnp.ones((LONG, 2)), rate).scans[0]
    lag = LONG - np.arange(1, LONG + 1)
    np.testing.assert_allclose(scan.log_norm, np.log(2) / 2 + lag * rate, atol=1e-3)
    np.testing.assert_allclose(scan.log_norm[:-1], scan.log_transported[:-1])
    assert np.all(np.isneginf(scan.log_direct[:-1])) and np.isfinite(scan.log_direct[-1])


def test_the_first_step_that_is_not_finite():
    def loss(b):
        return associative_scan(combine, (A, b))[1].sum()

    scan = gl.trace(loss)(B.at[3, 1].set(jnp.nan)).scans[0]
    assert scan.first_nonfinite_state == 4 and scan.first_nonfinite_adjoint == 0


@pytest.mark.parametrize("length", [1, 2, 3])
def test_short_ones(length):
    def loss(b):
        return jnp.sum(associative_scan(combine, (A[:length], b))[1])

    if length == 1:
        with pytest.raises(ValueError, match="no lax.scan"):
            gl.trace(loss)(B[:1])
    else:
        (scan,) = gl.trace(loss)(B[:length]).scans
        later = [1 + A[1] * (1 + A[2] if length == 3 else 1), 1 + A[2], jnp.ones(3)]
        want = [jnp.linalg.norm(x) for x in later[: length - 1] + later[2:]]
        want = want[-length:] if length == 3 else [jnp.linalg.norm(1 + A[1]), want[-1]]
        np.testing.assert_allclose(scan.log_norm, jnp.log(jnp.array(want)), atol=1e-5)


@pytest.mark.parametrize("length", [3, 4, 5])
def test_vmap_over_one_leaf_of_two(length):
    """Then out_1 has an axis less in the program than out_2."""

    def loss(scan, decays, inputs):
        each = jax.vmap(lambda a: jax.vmap(lambda b: scan(a[:length], b[:length]))(inputs))(decays)
        same = jax.vmap(lambda a: scan(a[:length], B[:length]), out_axes=1)(decays)
        turned = jax.vmap(
            lambda c: jax.vmap(lambda b: scan(c * b[:length], b[:length]))(inputs), out_axes=1
        )(jnp.arange(2.0))
        return jnp.sum(jnp.tanh(each)) + jnp.sum(same**2) + jnp.sum(turned**3)

    got, want = (
        gl.trace(functools.partial(loss, scan))(jnp.stack([A, B]), W)
        for scan in (linear_parallel, linear_scan)
    )
    assert len(got.scans) == len(want.scans) == 3
    np.testing.assert_allclose(got.grads, want.grads, rtol=1e-6)
    for mine, theirs in zip(got.scans, want.scans, strict=True):
        np.testing.assert_allclose(mine.log_norm, theirs.log_norm, atol=1e-4)
        np.testing.assert_allclose(mine.log_direct, theirs.log_direct, atol=1e-4)


def test_of_two_elements_with_vmap_over_one_leaf_there_is_no_step():
    def loss(decays):
        return jnp.sum(jax.vmap(lambda a: linear_parallel(a[:2], B[:2]))(decays) ** 2)

    with pytest.raises(ValueError, match=r"associative_scan at test_parallel.py.* is not recorded"):
        gl.trace(loss)(jnp.stack([A, A]))


def test_integers_are_no_state():
    def loss(b):
        counts = associative_scan(jnp.add, jnp.arange(T))
        return jnp.sum(associative_scan(jnp.add, b) * counts[:, None])

    assert len(gl.trace(loss)(B).scans) == 1


def copy_of_jax(name):
    """JAX's function as a library has it that copied it under another name."""
    source = inspect.getsource(associative_scan).replace("def associative_scan", f"def {name}")
    home = dict(vars(sys.modules[associative_scan.__module__]))
    exec(compile(source, "a_library.py", "exec"), home)
    return home[name]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_copy_under_another_name_is_recorded_beside_the_original(reverse):
    scans = {"copy": copy_of_jax("blelloch"), "original": associative_scan}

    def loss(b, *names):
        for name in names:
            b = scans[name](combine, (A, b), reverse=reverse)[1]
        return jnp.sum(jnp.tanh(b) ** 2)

    want = gl.trace(lambda b: loss(b, "original", "original"))(B)
    out = gl.trace(lambda b: loss(b, "copy", "original"))(B)
    for own, other in zip(out.scans, want.scans, strict=True):
        np.testing.assert_allclose(own.log_norm, other.log_norm, atol=1e-6)
        assert own.name.startswith("test_parallel.py")


def test_a_function_that_is_no_parallel_scan_may_have_the_name_of_its_recursion():
    def loss(b):
        def _scan(x):
            return x[::2] * 2

        return jnp.sum(associative_scan(combine, (A, b))[1]) + jnp.sum(_scan(b))

    assert len(gl.trace(loss)(B).scans) == 1


def test_what_is_not_associative_has_no_record():
    def loss(b):
        return jnp.sum(associative_scan(lambda p, q: jnp.tanh(p) - q, b))

    (scan,) = gl.trace(loss)(B).scans
    assert np.all(np.isnan(scan.log_norm))


def test_gates_that_only_a_reset_makes_differ_by_sample():
    resets = jnp.arange(4)[:, None] == jnp.arange(T)[None] % 4

    def loss(a, W):
        def run(b, reset):
            return associative_scan(resetting, (a, b, reset))[1]

        return jnp.sum(jnp.tanh(jax.vmap(run)(W, resets)) ** 2)

    def plain(a, W):
        def run(b, reset):
            def step(h, row):
                h = jnp.where(row[2], 0.0, row[0] * h) + row[1]
                return h, h

            return jax.lax.scan(step, jnp.zeros(3), (a, b, reset))[1]

        return jnp.sum(jnp.tanh(jax.vmap(run)(W, resets)) ** 2)

    got, want = (gl.trace(f)(A, W).scans[0] for f in (loss, plain))
    np.testing.assert_allclose(got.log_norm, want.log_norm, atol=1e-6)
    np.testing.assert_allclose(got.log_transported, want.log_transported, atol=1e-6)


def test_a_scan_of_one_element_is_no_recurrence():
    def loss(xs):
        return jnp.sum(jax.lax.associative_scan(jnp.multiply, xs))

    with pytest.raises(ValueError, match="no lax.associative_scan of at least two"):
        gl.trace(loss)(jnp.ones((1, 3)))


@pytest.mark.parametrize("row", [0, 10, -1])
def test_one_large_row_hides_no_other(row):
    """f is not associative, so there is no recurrence to record, whatever the largest state."""
    b = jax.random.normal(jax.random.key(0), (16, 3), jnp.float32).at[row].set(1e4)

    def loss(b):
        return jnp.sum(jax.lax.associative_scan(lambda a, b: jnp.tanh(0.5 * a) + b, b))

    assert np.isnan(gl.trace(loss)(b).scans[0].log_norm).all()


@pytest.mark.parametrize("shape", [(3,), (1, 3)])
def test_a_decay_that_samples_share_is_no_leaf_of_theirs(shape):
    """With `measure`, which is given the other leaves, and in `gl.check`."""
    key = jax.random.key(0)
    a = jax.nn.sigmoid(jax.random.normal(key, (6, *shape)))
    b = jax.random.normal(key, (6, 4, 3))

    def fast(b):
        hs = jax.lax.associative_scan(
            lambda x, y: (x[0] * y[0], y[0] * x[1] + y[1]), (a if a.ndim > 2 else a[:, None], b)
        )[1]
        return jnp.sum(jnp.sin(hs))

    def plain(b):
        rows = a if a.ndim > 2 else a[:, None]
        step = lambda h, row: ((h := row[0] * h + row[1]), h)  # noqa: E731
        return jnp.sum(jnp.sin(jax.lax.scan(step, jnp.zeros((4, 3)), (rows, b))[1]))

    out = gl.trace(fast, batch_axis=0, measure=lambda h, adjoint: h)(b)
    equal = gl.trace(plain, batch_axis=0)(b)
    np.testing.assert_allclose(out.scans[0].log_norm, equal.scans[0].log_norm, rtol=1e-5)
    assert gl.check(fast, plain, batch_axis=0)(b).ok


def test_an_effect_in_f_happens_in_the_parallel_program_alone():
    calls = []

    def f(a, b):
        jax.debug.callback(lambda _: calls.append(1), a[0].sum())
        return a[0] * b[0], b[0] * a[1] + b[1]

    def loss(b):
        return jnp.sum(jax.lax.associative_scan(f, (jnp.full_like(b, 0.5), b))[1])

    b = jnp.ones((4, 2))
    jax.block_until_ready(jax.value_and_grad(loss)(b))
    usual = len(calls)
    out = gl.trace(loss)(b)
    jax.block_until_ready(out)
    jax.effects_barrier()
    assert len(calls) == 2 * usual
    np.testing.assert_allclose(
        jnp.exp(out.scans[0].log_norm), np.sqrt(2) * np.array([1.875, 1.75, 1.5, 1.0]), rtol=1e-5
    )
