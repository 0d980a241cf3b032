"""`trace` against brute force: perturb every state, differentiate the loss by the perturbation."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab as gl
from gradlab import cells, initializers

N, T = 5, 9


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def params(seed=0):
    return {
        "w": draw(seed, N, N) / math.sqrt(N),
        "u": draw(seed + 1, N, 3),
        "v": draw(seed + 2, 2, N),
        "g": draw(seed + 3, N, N) / math.sqrt(N),
    }


XS = draw(10, T, 3)
H0 = draw(11, N) / 2


def log_norms(rows):
    rows = np.asarray(rows).reshape(len(rows), -1)
    with np.errstate(divide="ignore"):
        return np.log(np.linalg.norm(rows, axis=1))


# Each model is a step (p, state, x) -> new state, a readout (p, state, others, x) -> y of the
# state *at the boundary*, and a loss of (final state, stacked ys). `others` is what the step made
# on the way and the readout uses. The traced program and the perturbed one share no scan.


def tanh_step(p, h, x):
    return jnp.tanh(p["w"] @ h + p["u"] @ x), ()


def gated_step(p, h, x):
    gate = jax.nn.sigmoid(p["g"] @ h)
    return gate * h + (1 - gate) * jnp.tanh(p["w"] @ h + p["u"] @ x), gate


def two_leaf_step(p, state, x):
    c, h = state["c"], state["h"]
    c = jax.nn.sigmoid(p["g"] @ h) * c + jnp.tanh(p["w"] @ h + p["u"] @ x)
    return {"c": c, "h": jnp.tanh(c) * jax.nn.sigmoid(p["u"] @ x)}, ()


MODELS = {
    "last state": (tanh_step, lambda p, h, o, x: (), H0, lambda h, ys: jnp.sum(h**2)),
    "every state": (tanh_step, lambda p, h, o, x: h, H0, lambda h, ys: jnp.sum(jnp.sin(ys))),
    "states and last": (tanh_step, lambda p, h, o, x: h, H0, lambda h, ys: ys.sum() + h @ h),
    "readout inside": (
        tanh_step,
        lambda p, h, o, x: p["v"] @ h,
        H0,
        lambda h, ys: jnp.sum(ys**2),
    ),
    "readout of the last": (
        tanh_step,
        lambda p, h, o, x: jnp.tanh(p["v"] @ h),
        H0,
        lambda h, ys: jnp.sum(ys[-1] ** 2),
    ),
    "readout of a gate": (
        gated_step,
        lambda p, h, gate, x: (p["v"] @ h, jnp.sum(gate * h), gate),
        H0,
        lambda h, ys: jnp.sum(ys[0] ** 2) + jnp.sum(ys[1]) + jnp.sum(jnp.cos(ys[2])),
    ),
    "two leaves": (
        two_leaf_step,
        lambda p, s, o, x: s["h"] * s["c"],
        {"c": H0, "h": jnp.sin(H0)},
        lambda s, ys: jnp.sum(ys**2) + s["h"].sum(),
    ),
}


def scanned(model, p, xs, reverse=False):
    step, readout, start, loss = model

    def body(state, x):
        new, others = step(p, state, x)
        return new, readout(p, new, others, x)

    return loss(*jax.lax.scan(body, start, xs, reverse=reverse))


def adjoints(model, p, xs, reverse=False):
    """dL/d(perturbation of the state after each input), total and direct, by an unrolled loop."""
    step, readout, start, loss = model
    zeros = jax.tree.map(lambda h: jnp.zeros((len(xs), *h.shape), h.dtype), start)

    def perturbed(total, direct):
        state, ys = start, {}
        order = range(len(xs))
        for t in reversed(order) if reverse else order:
            new, others = step(p, state, xs[t])
            new = jax.tree.map(lambda h, e, t=t: h + e[t], new, total)
            seen = jax.tree.map(lambda h, e, t=t: h + e[t], new, direct)
            ys[t] = readout(p, seen, others, xs[t])
            state = new
        stacked = jax.tree.map(lambda *rows: jnp.stack(rows), *(ys[t] for t in order))
        last = jax.tree.map(lambda h, e: h + e[0 if reverse else -1], state, direct)
        return loss(last, stacked)

    return jax.jit(jax.grad(perturbed, argnums=(0, 1)))(zeros, zeros)


def flat(tree):
    return np.concatenate([np.asarray(x).reshape(len(x), -1) for x in jax.tree.leaves(tree)], 1)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_brute_force(name, reverse):
    model, p = MODELS[name], params()
    out = gl.trace(functools.partial(scanned, model, reverse=reverse))(p, XS)
    total, direct = adjoints(model, p, XS, reverse)
    (scan,) = out.scans
    assert (scan.length, scan.reverse) == (T, reverse)
    np.testing.assert_allclose(scan.log_norm, log_norms(flat(total)), atol=1e-10)
    np.testing.assert_allclose(scan.log_direct, log_norms(flat(direct)), atol=1e-10)
    # Rounding leaves ~1e-17 of an exact zero in the difference of two vectors.
    transported = flat(total) - flat(direct)
    transported[np.linalg.norm(transported, axis=1) < 1e-14] = 0
    np.testing.assert_allclose(scan.log_transported, log_norms(transported), atol=1e-10)
    for leaf, rows in total.items() if isinstance(total, dict) else ():
        np.testing.assert_allclose(scan.leaves[leaf], log_norms(rows), atol=1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_value_and_grads_are_those_of_jax(name):
    loss = functools.partial(scanned, MODELS[name])
    out = jax.jit(gl.trace(loss, argnums=(0, 1)))(params(), XS)
    value, grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(params(), XS)
    np.testing.assert_allclose(out.value, value, rtol=1e-14)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13), out.grads, grads
    )
    without = gl.trace(loss, argnums=())(params(), XS)
    assert without.grads is None
    np.testing.assert_allclose(without.scans[0].log_norm, out.scans[0].log_norm, atol=1e-12)


@pytest.mark.parametrize("name", cells.names())
def test_cells_against_brute_force(name):
    """A loss of the last state and of every output: one program holds both."""
    cell = cells.make(name, inputs=3, hidden=N)
    p = cell.init(jax.random.key(5))

    def loss(h, ys):
        return jnp.sum(cell.read(h) ** 2) + jnp.sum(jnp.sin(ys))

    start = jax.tree.map(lambda h: h + 0.1, cell.start(jnp.float64))
    model = (
        lambda p, h, x: (cell.step(p, h, x), ()),
        lambda p, h, o, x: cell.read(h),
        start,
        loss,
    )
    (scan,) = gl.trace(functools.partial(scanned, model))(p, XS[:5]).scans
    total, direct = adjoints(model, p, XS[:5])
    np.testing.assert_allclose(scan.log_norm, log_norms(flat(total)), atol=1e-10)
    np.testing.assert_allclose(scan.log_direct, log_norms(flat(direct)), atol=1e-10)
    each = total._asdict() if isinstance(total, tuple) else {"": total}
    assert len(scan.leaves) == len(each)
    for name, mine in scan.leaves.items():
        theirs = each[name.strip(".")] if len(each) > 1 else each[""]
        np.testing.assert_allclose(mine, log_norms(theirs), atol=1e-10)


def long_adjoint(weights, slopes, arriving):
    """ln|lambda_t| by a float64 loop that renormalizes at every step and keeps the logarithm."""
    vector, log = np.zeros(len(weights)), 0.0
    rows = []
    for t in reversed(range(len(arriving))):
        # lambda = exp(log) * vector + arriving, kept in the larger of the two units.
        size = np.linalg.norm(arriving[t])
        unit = max(log if vector.any() else -np.inf, np.log(size) if size else -np.inf)
        vector = vector * np.exp(log - unit) + (arriving[t] * np.exp(-unit) if size else 0)
        norm = np.linalg.norm(vector)
        vector, log = vector / norm, unit + np.log(norm)
        rows.append(log)
        vector = weights.T @ (slopes[t] * vector)
    return np.array(rows[::-1])


@pytest.mark.parametrize("reads", ["last", "every"])
@pytest.mark.parametrize(
    "activation, gain, beyond",
    [("tanh", 0.5, -3000), ("linear", 0.5, -3000), ("linear", 2.0, 3000), ("relu", 0.5, -3000)],
)
def test_float32_far_outside_its_range(activation, gain, beyond, reads):
    steps, n = 5000, 32
    cell = cells.make(
        "elman",
        inputs=1,
        hidden=n,
        activation=activation,
        recurrent=initializers.normal(gain),
        bias=jax.nn.initializers.constant(0.01 if activation == "relu" else 0.0),
    )
    p = cell.init(jax.random.key(3), jnp.float32)
    direction = jax.random.normal(jax.random.key(4), (n,), jnp.float32)
    xs = jnp.zeros((steps, 1), jnp.float32)

    def loss(p, xs):
        last, hs = jax.lax.scan(
            lambda h, x: ((h := cell.step(p, h, x)), h), cell.start(jnp.float32), xs
        )
        return direction @ (last if reads == "last" else hs.sum(0))

    (scan,) = gl.trace(loss)(p, xs).scans
    assert scan.log_norm.dtype == jnp.float32

    w, b = (np.asarray(p[key], np.float64) for key in ("recurrent", "bias"))
    h, slopes = np.zeros(n), []
    for _ in range(steps):
        a = w @ h + b
        h = {"tanh": np.tanh, "relu": lambda a: np.maximum(a, 0), "linear": lambda a: a}[
            activation
        ](a)
        slopes.append({"tanh": 1 - h**2, "relu": (a > 0) * 1.0, "linear": 1 + 0 * a}[activation])
    arriving = np.zeros((steps, n))
    arriving[slice(None) if reads == "every" else -1] = direction
    expected = long_adjoint(w, slopes, arriving)
    if reads == "last" or beyond > 0:
        assert expected[0] / beyond > 1
    error = np.abs(scan.log_norm - expected) / np.maximum(1, np.abs(expected))
    assert error.max() < 1e-3


def test_exact_zeros_and_unreached_scans():
    def loss(w, xs):
        h, _ = jax.lax.scan(lambda h, x: (w * h + x, None), jnp.zeros(2), xs)
        cut, _ = jax.lax.scan(lambda h, x: (0 * h + w * x, None), jnp.zeros(2), xs)
        dead, _ = jax.lax.scan(lambda h, x: (w * h + x, None), jnp.zeros(2), xs)
        return h.sum() + cut.sum()

    reached, cut, dead = gl.trace(loss)(jnp.float64(0.5), jnp.ones((4, 2))).scans
    assert np.isfinite(reached.log_norm).all()
    assert cut.log_norm[:-1].tolist() == [-np.inf] * 3 and np.isfinite(cut.log_norm[-1])
    assert np.isneginf(dead.log_norm).all()


def test_two_scans_in_program_order_and_their_names():
    def loss(p, xs):
        h, hs = jax.lax.scan(lambda h, x: ((h := tanh_step(p, h, x)[0]), h), H0, xs)
        h, _ = jax.lax.scan(lambda h, x: (jnp.tanh(p["g"] @ h + x), None), h, hs)
        return h @ h

    encoder, decoder = gl.trace(loss)(params(), XS).scans
    assert encoder.name.startswith("test_tracing.py:") and encoder.name.endswith("(loss)")
    assert int(encoder.name.split(":")[1].split()[0]) < int(decoder.name.split(":")[1].split()[0])

    def second(eps):
        h, hs = jax.lax.scan(
            lambda h, xe: ((h := tanh_step(params(), h, xe[0])[0] + xe[1]), h), H0, (XS, eps)
        )
        h, _ = jax.lax.scan(lambda h, x: (jnp.tanh(params()["g"] @ h + x), None), h, hs)
        return h @ h

    lam = jax.grad(second)(jnp.zeros((T, N)))
    np.testing.assert_allclose(encoder.log_norm, log_norms(lam), atol=1e-10)


def nested(p, xs, eps_out=None, eps_in=None):
    """A scan over blocks with a recurrence inside, the outer state being the inner's start."""
    eps_out = jnp.zeros((4, N)) if eps_out is None else eps_out
    eps_in = jnp.zeros((4, 3, N)) if eps_in is None else eps_in

    def outer(h, row):
        block, e_out, e_in = row

        def inner(z, xe):
            return jnp.tanh(p["w"] @ z + p["u"] @ xe[0]) + xe[1], None

        z, _ = jax.lax.scan(inner, h, (block, e_in))
        h = jnp.sin(z + p["g"] @ h) + e_out
        return h, p["v"] @ h

    h, ys = jax.lax.scan(outer, H0, (xs, eps_out, eps_in))
    return h.sum() + jnp.sum(ys**2)


def test_scan_in_a_scan():
    xs = draw(20, 4, 3, 3)
    outer, inner = gl.trace(nested)(params(), xs).scans
    assert (outer.outer, inner.outer) == ((), (4,))
    by_out, by_in = jax.grad(lambda o, i: nested(params(), xs, o, i), (0, 1))(
        jnp.zeros((4, N)), jnp.zeros((4, 3, N))
    )
    np.testing.assert_allclose(outer.log_norm, log_norms(by_out), atol=1e-10)
    np.testing.assert_allclose(inner.log_norm, [log_norms(b) for b in by_in], atol=1e-10)


def test_scan_in_a_scan_below_the_range():
    """200 blocks of 20 steps at rate ln 0.5, in float32: the inner rows know the outer's scale."""

    def loss(w, xs):
        def block(h, row):
            return jax.lax.scan(lambda h, x: (w * h + x, None), h, row)

        return jnp.sum(jax.lax.scan(block, jnp.zeros(2, jnp.float32), xs)[0])

    _, inner = gl.trace(loss)(jnp.float32(0.5), jnp.zeros((200, 20, 2), jnp.float32)).scans
    lag = np.arange(4000)[::-1].reshape(200, 20)
    np.testing.assert_allclose(inner.log_norm, lag * np.log(0.5) + np.log(2) / 2, rtol=1e-5)


WRAPPERS = {
    "jit": jax.jit,
    "remat": jax.checkpoint,
    "cond": lambda f: lambda p, xs: jax.lax.cond(xs[0, 0] < 9, f, lambda p, xs: 0.0, p, xs),
    "map": lambda f: lambda p, xs: jax.lax.map(lambda x: f(p, x), jnp.stack([xs, xs])).sum() / 2,
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_scans_inside_other_programs(wrapper):
    model = MODELS["readout of a gate"]
    (plain,) = gl.trace(functools.partial(scanned, model))(params(), XS).scans
    wrapped = WRAPPERS[wrapper](functools.partial(scanned, model))
    out = gl.trace(wrapped)(params(), XS)
    (scan,) = out.scans
    halved = np.log(2) if wrapper == "map" else 0
    expected = np.broadcast_to(plain.log_norm - halved, scan.log_norm.shape)
    np.testing.assert_allclose(scan.log_norm, expected, atol=1e-12)
    grads = jax.grad(wrapped)(params(), XS)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-13), out.grads, grads
    )


def test_trace_under_vmap_jit_and_grad():
    loss = functools.partial(scanned, MODELS["every state"])
    many = jnp.stack([XS, 2 * XS, XS - 1])
    traced = jax.jit(jax.vmap(gl.trace(loss), in_axes=(None, 0)))(params(), many)
    for i, xs in enumerate(many):
        (one,) = gl.trace(loss)(params(), xs).scans
        np.testing.assert_allclose(traced.scans[0].log_norm[i], one.log_norm, atol=1e-12)

    def penalty(p):
        return jnp.sum(gl.trace(loss)(p, XS).scans[0].log_norm ** 2)

    direction = params(7)
    slope = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, jax.grad(penalty)(params()), direction)))
    moved = [
        penalty(jax.tree.map(lambda a, b, s=s: a + s * b, params(), direction))
        for s in (1e-6, -1e-6)
    ]
    np.testing.assert_allclose(slope, (moved[0] - moved[1]) / 2e-6, rtol=1e-6)


def batched(p, xs):
    """xs (T, B, 3): the samples ride in the carry's axis 0."""
    h, ys = jax.lax.scan(
        lambda h, x: ((h := jnp.tanh(h @ p["w"].T + x @ p["u"].T)), jnp.tanh(h @ p["v"].T)),
        jnp.broadcast_to(H0, (xs.shape[1], N)),
        xs,
    )
    return h.sum() + jnp.sum(ys**2)


def test_batch_axis_gives_each_sample_its_own_row():
    xs = draw(30, T, 4, 3)
    out = gl.trace(batched, batch_axis=0)(params(), xs)
    assert out.scans[0].log_norm.shape == (T, 4)
    for i in range(4):
        (one,) = gl.trace(batched)(params(), xs[:, i : i + 1]).scans
        np.testing.assert_allclose(out.scans[0].log_norm[:, i], one.log_norm, atol=1e-12)
        np.testing.assert_allclose(out.scans[0].log_direct[:, i], one.log_direct, atol=1e-12)
    grads = jax.grad(batched)(params(), xs)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-13), out.grads, grads
    )


def test_batch_axis_keeps_samples_of_different_rates_apart():
    rates = jnp.array([0.5, 0.99, 2.0], jnp.float32)

    def loss(w, xs):
        h, gates = jax.lax.scan(
            lambda h, x: (w * h + x[:, None], jnp.tanh(h.sum())), jnp.zeros((3, 2), jnp.float32), xs
        )
        return h.sum() + 0 * gates.sum()

    w = rates[:, None] * jnp.ones((3, 2), jnp.float32)
    out = gl.trace(loss, batch_axis=0)(w, jnp.zeros((2000, 3), jnp.float32))
    expected = np.arange(2000)[::-1, None] * np.log(np.float64(rates)) + np.log(2) / 2
    np.testing.assert_allclose(out.scans[0].log_norm, expected, rtol=2e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.complex128])
def test_other_dtypes(dtype):
    def loss(w, xs):
        h, _ = jax.lax.scan(lambda h, x: (w * h + x, None), jnp.zeros(2, dtype), xs)
        return jnp.sum(h.real).astype(jnp.float32)

    xs = jnp.ones((400, 2), dtype)
    w = jnp.asarray(0.5, dtype)
    out = gl.trace(loss)(w, xs)
    expected = np.arange(400)[::-1] * np.log(0.5) + np.log(2) / 2
    np.testing.assert_allclose(out.scans[0].log_norm, expected, atol=1e-3)
    np.testing.assert_allclose(
        np.asarray(out.grads, complex), np.asarray(jax.grad(loss)(w, xs), complex), rtol=1e-2
    )


def test_carries_with_leaves_that_are_not_floats():
    def loss(w, xs):
        def body(carry, x):
            h, count, key, flag, none = carry
            key, sub = jax.random.split(key)
            h = jnp.tanh(w * h + x + 0.1 * jax.random.normal(sub, h.shape) * (count % 2))
            return (h, count + 1, key, ~flag, none), (count, h.sum())

        carry, (_, ys) = jax.lax.scan(body, (H0, 0, jax.random.key(1), True, None), xs)
        return carry[0].sum() + ys.sum()

    xs = draw(40, T, N)
    out = gl.trace(loss)(jnp.float64(0.7), xs)
    np.testing.assert_allclose(out.grads, jax.grad(loss)(jnp.float64(0.7), xs), rtol=1e-12)
    assert list(out.scans[0].leaves) == ["0"]
    assert np.isfinite(out.scans[0].log_norm).all()


@pytest.mark.parametrize("of", ["state", "output", "constant"])
def test_effects_in_the_body_happen_once_a_step(of):
    seen = []

    def loss(w, xs):
        def body(h, x):
            h = jnp.tanh(w * h + x)
            y = 2 * h.sum()
            value = {"state": h[0], "output": y, "constant": w}[of]
            jax.debug.callback(lambda v: seen.append(float(v)), value)
            return h, y

        h, ys = jax.lax.scan(body, H0, xs)
        return h.sum() + ys.sum()

    xs = draw(50, T, N)
    out = gl.trace(loss)(jnp.float64(0.7), xs)
    jax.effects_barrier()
    assert len(seen) == T
    np.testing.assert_allclose(out.grads, jax.grad(loss)(jnp.float64(0.7), xs), rtol=1e-12)


def test_frame_of_a_batched_trace_and_of_a_vmapped_one():
    xs = draw(60, T, 4, 3)
    out = gl.trace(batched, batch_axis=0)(params(), xs)
    rows = gl.frame(out).query("leaf == ''")
    one = rows[(rows["sample"] == 2) & (rows["lag"] == 3)]
    assert one["log_norm"].tolist() == [float(out.scans[0].log_norm[T - 4, 2])]
    many = jax.vmap(gl.trace(batched), in_axes=(None, 0))(params(), jnp.stack([xs, xs]))
    with pytest.raises(ValueError, match="frame takes one trace"):
        gl.frame(many)
    assert len(gl.frame(jax.tree.map(lambda x: x[0], many)).query("leaf == ''")) == T


def test_aux_static_arguments_and_keywords():
    def loss(p, xs, length, *, scale=1.0):
        return scale * scanned(MODELS["last state"], p, xs[:length]), {"name": "aux", "xs": xs}

    out = gl.trace(loss, has_aux=True)(params(), XS, 4, scale=2.0)
    assert out.aux["name"] == "aux" and out.aux["xs"].shape == XS.shape
    assert out.scans[0].length == 4
    value, _ = loss(params(), XS, 4, scale=2.0)
    np.testing.assert_allclose(out.value, value, rtol=1e-12)


def test_second_call_compiles_nothing():
    traces = []

    def loss(p, xs):
        traces.append(1)
        return scanned(MODELS["every state"], p, xs)

    traced = gl.trace(loss)
    traced(params(), XS)
    once = len(traces)
    traced(params(5), XS + 1)
    assert len(traces) == once == 1


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: gl.trace(jnp.sin)(jnp.ones(3)), TypeError, r"one real scalar.*float64\[3\]"),
        (lambda: gl.trace(jnp.sum)(jnp.ones(3)), ValueError, "no lax.scan"),
        (lambda: gl.trace(nested, argnums=5)(params(), XS), ValueError, "argnums=5 .* 2 posit"),
        (lambda: gl.trace(nested)(3, XS), TypeError, "argnums=0: the leaf itself is int"),
        (
            lambda: gl.trace(functools.partial(scanned, MODELS["last state"]), batch_axis=1)(
                params(), XS
            ),
            ValueError,
            r"batch_axis=1: the carry leaf .* of the scan at test_tracing.py:\d+ \(scanned\)",
        ),
        (lambda: gl.trace(nested, has_aux=True)(params(), draw(20, 4, 3, 3)), TypeError, "pair"),
    ],
)
def test_errors_name_the_thing(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_scan_that_no_gradient_reaches_has_unknown_states():
    def states(W, xs):
        return jax.lax.scan(lambda h, x: ((h := jnp.tanh(W @ h + x)), h), jnp.zeros(3), xs)[1]

    def loss(W, xs):
        bad = jax.lax.stop_gradient(states(W, xs.at[2].set(jnp.nan)))
        return jnp.sum(states(W, xs)) + 0 * jnp.nansum(bad)

    args = 0.5 * jnp.eye(3), jnp.ones((5, 3))
    out = gl.trace(loss, measure=lambda h, adjoint: jnp.linalg.norm(h))(*args)
    unseen, seen = sorted(out.scans, key=lambda scan: int(scan.first_nonfinite_state))
    assert np.isnan(unseen.measured).all() and unseen.first_nonfinite_state == -1
    assert np.isneginf(unseen.log_norm).all()
    assert np.isfinite(seen.measured).all() and seen.first_nonfinite_state == 0
