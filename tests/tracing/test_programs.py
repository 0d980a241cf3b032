"""`trace` on the kinds of programs that models are made of, and what else it records."""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gradlab as gl

T, B, N = 7, 4, 3


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


W, XS = draw(0, N, N), draw(1, T, B, N)
close = functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10)


def rnn(w, xs):
    def body(h, x):
        h = jnp.tanh(h @ w + x)
        return h, h

    return jax.lax.scan(body, jnp.zeros_like(xs[0]), xs)


def mesh():
    return jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))


@jax.custom_vjp
def with_vjp(w, xs):
    return rnn(w, xs)


with_vjp.defvjp(lambda w, xs: jax.vjp(rnn, w, xs), lambda pull, ct: pull(ct))


@jax.custom_jvp
def with_jvp(w, xs):
    return rnn(w, xs)


with_jvp.defjvp(lambda primals, tangents: jax.jvp(rnn, primals, tangents))


@jax.custom_vjp
def doubled(w, xs):
    return rnn(w, xs)


doubled.defvjp(lambda w, xs: jax.vjp(rnn, w, xs), lambda pull, ct: tuple(2 * x for x in pull(ct)))


def sharded(w, xs):
    where = NamedSharding(mesh(), P()), NamedSharding(mesh(), P(None, "d"))
    return jax.jit(rnn, in_shardings=where)(w, xs)


MODELS = {
    "custom_vjp": with_vjp,
    "custom_jvp": with_jvp,
    "a rule that is not the derivative": doubled,
    "jit": jax.jit(rnn),
    "jit with shardings": sharded,
    "remat of custom_vjp": jax.checkpoint(with_vjp),
    "cond": lambda w, xs: jax.lax.cond(w[0, 0] < 9, rnn, lambda w, xs: (xs[0], xs), w, xs),
}


def loss_of(model):
    def loss(w, xs):
        h, ys = model(w, xs)
        return jnp.sum(h**2) + jnp.sum(jnp.sin(ys))

    return loss


PLAIN = loss_of(rnn)


@functools.cache
def plain():
    """What `trace` records of the plain scan."""
    (scan,) = gl.trace(PLAIN)(W, XS).scans
    return scan


@functools.cache
def grads_of(loss):
    return jax.jit(jax.grad(loss))(W, XS)


@pytest.mark.parametrize("name", MODELS)
def test_scans_inside(name):
    loss = loss_of(MODELS[name])
    out = gl.trace(loss)(W, XS)
    (scan,) = out.scans
    close(scan.log_norm, plain().log_norm)
    close(scan.log_direct, plain().log_direct)
    close(out.grads, grads_of(loss))


@pytest.mark.parametrize("check_vma", [True, False])
def test_shard_map_in_the_loss_gives_a_row_per_shard(check_vma):
    model = jax.shard_map(
        rnn,
        mesh=mesh(),
        in_specs=(P(), P(None, "d")),
        out_specs=(P("d"), P(None, "d")),
        check_vma=check_vma,
    )
    out = gl.trace(loss_of(model))(W, XS)
    assert out.scans[0].outer == (2,)
    close(np.logaddexp(*(2 * out.scans[0].log_norm)) / 2, plain().log_norm)
    close(out.grads, grads_of(PLAIN))


@pytest.mark.parametrize("check_vma", [True, False])
def test_a_parallel_scan_in_shard_map_gives_a_row_per_shard(check_vma):
    """There JAX writes equations of its own between those of the scan."""
    a, b = jax.nn.sigmoid(XS), jnp.tanh(XS @ W)

    def loss(a, b):
        states = jax.lax.associative_scan(lambda x, y: (x[0] * y[0], y[0] * x[1] + y[1]), (a, b))
        return jnp.sum(states[1] ** 2)

    def shards(a, b):
        return jax.shard_map(
            lambda a, b: jax.lax.psum(loss(a, b), "d"),
            mesh=mesh(),
            in_specs=P(None, "d"),
            out_specs=P(),
            check_vma=check_vma,
        )(a, b)

    def recurrence(a, b):
        def step(h, ab):
            h = ab[0] * h + ab[1]
            return h, h

        return jnp.sum(jax.lax.scan(step, jnp.zeros_like(b[0]), (a, b))[1] ** 2)

    for options in ({}, {"segment": 3}):
        out = jax.jit(gl.trace(shards, argnums=(0, 1), **options))(a, b)
        want = gl.trace(recurrence, argnums=(0, 1))(a, b)
        assert out.scans[0].outer == (2,)
        close(np.logaddexp(*(2 * out.scans[0].log_norm)) / 2, want.scans[0].log_norm)
        close(out.value, want.value)
        close(out.grads, jax.jit(jax.grad(shards, (0, 1)))(a, b))


def test_random_keys_are_kept_for_segments_inside_a_branch():
    """The start of each segment is a residual, and `cond` of JAX 0.10.0 loses keys there."""

    def noisy(w, xs):
        def body(carry, x):
            h, key = carry
            key, own = jax.random.split(key)
            h = jnp.tanh(h @ w + x + 0.1 * jax.random.normal(own, h.shape))
            return (h, key), h

        (h, _), hs = jax.lax.scan(body, (jnp.zeros_like(xs[0]), jax.random.key(0)), xs)
        return jnp.sum(h**2) + jnp.sum(hs**3)

    def branch(w, xs):
        return jax.lax.cond(w[0, 0] < 9, noisy, lambda w, xs: jnp.sum(w), w, xs)

    want = gl.trace(noisy)(W, XS)
    for size in (None, 2):
        out = jax.jit(gl.trace(branch, segment=size))(W, XS)
        close(out.scans[0].log_norm, want.scans[0].log_norm)
        close(out.grads, jax.grad(noisy)(W, XS))


def shifted(w, xs):
    """Each shard's state goes to the next one at every step, so adjoints cross between shards."""

    def body(h, x):
        h = jnp.tanh(h @ w + x)
        return jax.lax.ppermute(h, "d", [(0, 1), (1, 0)]) + jax.lax.pmean(h, "d"), None

    h, _ = jax.lax.scan(body, jnp.zeros_like(xs[0]), xs)
    return jax.lax.psum(jnp.sum(h**2), "d")


@pytest.mark.parametrize("loss", [loss_of(rnn), shifted], ids=["apart", "mixing"])
def test_trace_inside_shard_map(loss):
    # One shard's inputs saturate: its adjoint is many orders of magnitude smaller.
    xs = XS.at[:, :2].multiply(30)

    def inside(w, xs):
        out = gl.trace(loss)(w, xs)
        return out.scans[0].log_norm[None], out.grads

    def shards(function, out_specs):
        return jax.jit(
            jax.shard_map(function, mesh=mesh(), in_specs=(P(), P(None, "d")), out_specs=out_specs)
        )(W, xs)

    norms, grads = shards(inside, (P("d"), P()))
    close(grads, shards(jax.grad(loss), P()))
    if loss is not shifted:
        close(np.logaddexp(*(2 * norms)) / 2, gl.trace(loss)(W, xs).scans[0].log_norm)


def test_collectives_over_a_vmapped_axis():
    def loss(w, xs):
        def body(h, x):
            return jax.lax.pmean(jnp.tanh(h @ w + x), "i") + h / 2, None

        h, _ = jax.lax.scan(body, xs[0], xs)
        return jnp.sum(h**2)

    xs = XS.at[:, :2].multiply(40)
    over = functools.partial(jax.vmap, in_axes=(None, 1), axis_name="i")
    close(over(gl.trace(loss))(W, xs).grads, over(jax.grad(loss))(W, xs))


def test_trace_under_jit_of_vmap_of_scan():
    loss = loss_of(rnn)

    def norms(w):
        _, rows = jax.lax.scan(
            lambda c, s: (c, gl.trace(loss)(s * w, XS).scans[0].log_norm), 0, jnp.arange(1.0, 3)
        )
        return rows

    rows = jax.jit(jax.vmap(norms))(jnp.stack([W, W / 2]))
    close(rows[1, 1], plain().log_norm)


def fori(w, xs):
    return jax.lax.fori_loop(0, T, lambda t, h: jnp.tanh(h @ w + xs[t]), jnp.zeros((B, N))).sum()


def mapped(w, xs):
    def one(x):
        return jax.lax.scan(lambda h, r: (jnp.tanh(h @ w + r), None), jnp.zeros(N), x)[0].sum()

    return jax.lax.map(one, xs.swapaxes(0, 1)).sum()


def layers(w, xs):
    """A scan over layers with a recurrence inside: the outer steps are depth."""

    def layer(hs, w):
        return rnn(w, hs)[1], None

    return jax.lax.scan(layer, xs, jnp.stack([w, w.T, 2 * w]))[0].sum()


def bidirectional(w, xs):
    forward = rnn(w, xs)[1]
    backward = jax.lax.scan(
        lambda h, x: ((h := jnp.tanh(h @ w.T + x)), h), xs[0], xs, reverse=True
    )[1]
    return jnp.sum(forward * backward)


def unrolled(w, xs):
    return jax.lax.scan(lambda h, x: (jnp.tanh(h @ w + x), None), xs[0], xs, unroll=3)[0].sum()


@pytest.mark.parametrize(
    "loss, outers",
    [(fori, [()]), (mapped, [(B,)]), (layers, [(), (3,)]), (bidirectional, [()] * 2),
     (unrolled, [()])],
)  # fmt: skip
def test_loops_that_become_scans(loss, outers):
    out = gl.trace(loss)(W, XS)
    assert [scan.outer for scan in out.scans] == outers
    close(out.grads, grads_of(loss))
    # A perturbation of the first weight matrix's step goes through all of the record.
    assert all(np.isfinite(scan.log_norm).all() for scan in out.scans)


def test_scan_over_layers_measures_depth():
    outer, inner = gl.trace(layers)(W, XS).scans
    weights = jnp.stack([W, W.T, 2 * W])

    def perturbed(after, within):
        hs = XS
        for depth, w in enumerate(weights):
            h, rows = jnp.zeros((B, N)), []
            for t in range(T):
                h = jnp.tanh(h @ w + hs[t]) + within[depth, t]
                rows.append(h)
            hs = jnp.stack(rows) + after[depth]
        return hs.sum()

    zeros = np.zeros((3, T, B, N))
    after, within = jax.jit(jax.grad(perturbed, (0, 1)))(zeros, zeros)
    close(outer.log_norm, np.log(np.linalg.norm(after.reshape(3, -1), axis=1)))
    close(inner.log_norm, np.log(np.linalg.norm(within.reshape(3, T, -1), axis=2)))


# ---- taps ----


def test_taps_in_a_python_loop_are_steps_of_one_record():
    def loss(w, xs):
        h = jnp.zeros((B, N))
        for x in xs:
            h = gl.tap(jnp.tanh(h @ w + x), "h")
        return jnp.sum(h**2)

    (scan,) = gl.trace(lambda w, xs: jnp.sum(rnn(w, xs)[0] ** 2))(W, XS).scans
    out = gl.trace(loss)(W, XS)
    assert out.scans == () and list(out.taps) == ["h"] and out.taps["h"].length == T
    close(out.taps["h"].log_norm, scan.log_norm)
    close(out.grads, grads_of(loss))
    samples = gl.trace(loss, batch_axis=0)(W, XS).taps["h"].log_norm
    close(np.logaddexp.reduce(2 * samples, axis=1) / 2, scan.log_norm)
    assert gl.frame(out).lag.tolist() == list(range(T - 1, -1, -1))


def test_a_tap_on_the_states_of_a_parallel_scan_records_their_total_adjoint():
    decay = jnp.array([0.5, 0.9, -0.7])

    def loss(decay, xs):
        def combine(left, right):
            return left[0] * right[0], right[0] * left[1] + right[1]

        _, hs = jax.lax.associative_scan(combine, (jnp.broadcast_to(decay, xs.shape), xs))
        hs = gl.tap(hs, "states", axis=0)
        return jnp.sum(hs**2)

    def adjoints(xs):
        h, states = np.zeros(N), []
        for x in np.asarray(xs):
            h = decay * h + x
            states.append(h)
        total, rows = np.zeros(N), []
        for h in states[::-1]:
            total = 2 * h + decay * total
            rows.append(total)
        return np.stack(rows[::-1])

    (record,) = gl.trace(loss)(decay, XS[:, 0]).taps.values()
    close(record.log_norm, np.log(np.linalg.norm(adjoints(XS[:, 0]), axis=1)))

    batched = jax.vmap(loss, in_axes=(None, 1))
    many = gl.trace(lambda decay, xs: batched(decay, xs).sum())(decay, XS).taps["states"]
    every = np.stack([adjoints(XS[:, i]) for i in range(XS.shape[1])], axis=1)
    close(many.log_norm, np.log(np.linalg.norm(every, axis=(1, 2))))


def test_taps_inside_scans_share_the_scan_s_scale():
    def loss(w, xs):
        def body(h, x):
            h = gl.tap(0.1 * (h @ w) + x, "before")
            return h, None

        return jax.lax.scan(body, jnp.zeros(N, jnp.float32), xs)[0].sum()

    xs = jnp.ones((300, N), jnp.float32)
    out = gl.trace(loss)(jnp.eye(N, dtype=jnp.float32), xs)
    assert out.taps["before"].length == 300 and out.taps["before"].outer == ()
    expected = np.arange(300)[::-1] * np.log(0.1) + np.log(3) / 2
    np.testing.assert_allclose(out.taps["before"].log_norm, expected, rtol=1e-5, atol=1e-4)


def test_tap_costs_nothing_outside_trace():
    def loss(w):
        return jnp.sum(gl.tap(jnp.sin(w), "s", axis=1))

    @jax.jit
    def differentiate(w):
        plain = jax.hessian(lambda w: jnp.sin(w).sum())(w)
        return jax.grad(loss)(w), jax.vmap(jax.hessian(loss))(w[None])[0], plain

    slope, curvature, plain = differentiate(W)
    close(slope, np.cos(W))
    close(curvature, plain)


# ---- what scans hand to each other ----


def stack(a, b):
    """Two layers: the first forgets at once, the second hands it its own slow decay."""
    ys = jax.lax.scan(
        lambda h, x: (a * h + x, a * h + x), jnp.float32(0), jnp.ones(T_LONG, jnp.float32)
    )[1]
    return jax.lax.scan(lambda h, x: (b * h + x, None), jnp.float32(0), ys)[0]


def encoder(a, b):
    first = jax.lax.scan(
        lambda h, x: (a * h + x, None), jnp.float32(0), jnp.ones(T_LONG, jnp.float32)
    )[0]
    return jax.lax.scan(lambda h, x: (b * h + x, None), first, jnp.ones(T_LONG, jnp.float32))[0]


T_LONG = 300


@pytest.mark.parametrize("model", [stack, encoder])
def test_what_is_lost_between_scans_is_not_known(model):
    """A cotangent below the float's range is 0 on its way: no row may pass that on as a number."""
    a, b = jnp.float32(0.05), jnp.float32(0.5)
    scan = gl.trace(model)(a, b).scans[0]
    lags = T_LONG - 1.0 - np.arange(T_LONG)
    exact = {
        # The sum over the way of what the second layer hands to each later step.
        "stack": lags * np.log(0.5) + np.log((1 - 0.1 ** (lags + 1)) / 0.9),
        "encoder": lags * np.log(0.05) + T_LONG * np.log(0.5),
    }[model.__name__]
    known = ~np.isnan(scan.log_norm)
    np.testing.assert_allclose(scan.log_norm[known], exact[known], atol=1e-3)
    assert np.array_equal(known, exact > -76.2)
    mild = gl.trace(model)(a, jnp.float32(0.99)).scans[0].log_norm
    assert np.all(np.isfinite(mild))


# ---- taps whose result is not used ----


def dropped(w):
    h = w
    for _ in range(3):
        h = jnp.tanh(h @ w)
        gl.tap(h, "h")
    return h.sum()


def dropped_cast(w):
    h = jnp.tanh(w)
    gl.tap(h.astype(jnp.float16).reshape(-1), "h")
    return h.astype(jnp.float16).astype(float).sum()


def dropped_in_a_step(w):
    def step(h, x):
        h = jnp.tanh(w @ h + x)
        gl.tap(h, "h")
        return h, None

    return jax.lax.scan(step, jnp.zeros(N), XS[:, 0])[0].sum()


def dropped_in_a_branch(w):
    def branch(h):
        gl.tap(h, "h")
        return h.sum()

    return jax.lax.cond(w[0, 0] > 0, branch, lambda h: h[0, 0], w)


DROPPED = {"loop": dropped, "cast": dropped_cast, "scan": dropped_in_a_step,
           "cond": dropped_in_a_branch, "jit": jax.jit(dropped),
           "remat": jax.checkpoint(dropped)}  # fmt: skip


@pytest.mark.parametrize("name", DROPPED)
def test_a_tap_whose_result_is_dropped_is_refused(name):
    with pytest.raises(
        ValueError, match=r"tap 'h' at .*test_programs.py:\d+.*`h = gl.tap\(h, 'h'\)"
    ):
        gl.trace(DROPPED[name])(W)


def test_a_tap_beside_its_own_value_is_warned_of():
    def loss(w, xs):
        def step(h, x):
            h = jnp.tanh(h @ w + x)
            return h, gl.tap(h, "outputs")

        return jax.lax.scan(step, jnp.zeros_like(xs[0]), xs)[1].sum()

    with pytest.warns(UserWarning, match="adjoint of its result alone"):
        out = gl.trace(loss)(W, XS)
    np.testing.assert_allclose(out.taps["outputs"].log_norm, np.log(XS[0].size) / 2, rtol=1e-6)


def test_taps_that_the_loss_does_not_reach_are_zero():
    """The loss reads the second of four states: what comes later is dropped by right."""

    def loss(w):
        states = [jnp.ones(N)]
        for _ in range(4):
            states.append(gl.tap(jnp.tanh(w @ states[-1]), "h"))
        return states[2].sum()

    log_norm = gl.trace(loss)(W).taps["h"].log_norm
    assert np.array_equal(np.isneginf(log_norm), [False, False, True, True])


# ---- debugging modes of JAX ----

MODES = {
    "nans": lambda: jax.debug_nans(True),
    "infs": lambda: jax.debug_infs(True),
    "disable_jit": jax.disable_jit,
    "leaks": jax.checking_leaks,
    "checks": lambda: jax.enable_checks(True),
    "promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "keys": lambda: jax.debug_key_reuse(True),
    "transfers": lambda: jax.transfer_guard("disallow"),
}


def narrow_rnn(w, xs):
    def step(h, x):
        h, x = h.astype(jnp.bfloat16), x.astype(jnp.bfloat16)
        return jnp.tanh(h @ w.astype(jnp.bfloat16) + x).astype(jnp.float32), None

    return jax.lax.scan(step, jnp.zeros(xs[0].shape, jnp.float32), xs)


def traced_afresh(model):
    """Of a loss that no program was compiled for."""

    def loss(w, xs):
        return jnp.sum(model(w, xs)[0].astype(w.dtype))

    return gl.trace(loss)(W, XS)


without_modes = functools.cache(traced_afresh)


@pytest.mark.parametrize("model", [rnn, narrow_rnn], ids=["wide", "narrow"])
@pytest.mark.parametrize("mode", MODES)
def test_a_debugging_mode_changes_nothing(mode, model):
    """Also that of a loss which reads the last state alone: its direct parts are -inf."""
    expected = without_modes(model)
    with MODES[mode]():
        out = traced_afresh(model)
    for mine, theirs in zip(*map(jax.tree.leaves, (out, expected)), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_debugging_modes_still_find_faults_of_the_loss():
    def loss(w):
        return jax.lax.scan(lambda h, _: (w * h, None), 1e300, length=5)[0]

    for mode, w in ((jax.debug_infs, 1e100), (jax.debug_nans, np.nan)):
        with mode(True), pytest.raises(FloatingPointError):
            gl.trace(loss)(w)
        gl.trace(loss)(w)


# ---- arguments ----


@dataclasses.dataclass(frozen=True)
class Settings:
    deep: object


class Layered(NamedTuple):
    deep: object


@functools.partial(jax.tree_util.register_dataclass, data_fields=["w"], meta_fields=["deep"])
@dataclasses.dataclass(frozen=True)
class Module:
    w: object
    deep: object


KINDS = {
    "plain": lambda deep: deep,
    "in a dataclass": Settings,
    "in a tuple": Layered,
    "in a frozenset": lambda deep: frozenset({deep}),
    "beside arrays": lambda deep: Module(jnp.ones(2), deep),
    "as a key": lambda deep: {deep: jnp.ones(2)},
}


@pytest.mark.parametrize("kind", KINDS)
def test_true_and_1_are_two_programs(kind):
    def loss(w, setting):
        deep = setting
        if isinstance(setting, Settings | Layered | Module):
            deep = setting.deep
        elif isinstance(setting, frozenset | dict):
            (deep,) = setting
        scale = 10.0 if deep is True else 1.0
        return scale * jax.lax.scan(lambda h, _: (w * h, None), 1.0, length=2)[0]

    traced = gl.trace(loss)
    values = [float(traced(2.0, KINDS[kind](deep)).value) for deep in (True, 1, True)]
    assert values == [40.0, 4.0, 40.0]


class Mutable:
    def __init__(self, scale):
        self.scale = scale


def test_an_object_that_has_changed_is_seen():
    traced = gl.trace(lambda w, settings: settings.scale * loss_of(rnn)(w, XS))
    settings = Mutable(1.0)
    first = traced(W, settings).value
    settings.scale = 2.0
    close(traced(W, settings).value, 2 * first)


def test_arguments_that_cannot_be_hashed():
    class Unhashable(Mutable):
        __hash__ = None

        def __eq__(self, other):
            return True

    traced = gl.trace(lambda w, settings: settings.scale * loss_of(rnn)(w, XS))
    close(traced(W, Unhashable(3.0)).value, 3 * traced(W, Mutable(1.0)).value)


def test_python_values_in_aux_stay_what_they_are():
    def loss(w, xs):
        return loss_of(rnn)(w, xs), {"count": 3, "rate": 0.5, "name": "x", "array": xs}

    aux = gl.trace(loss, has_aux=True)(W, XS).aux
    assert aux["count"] == 3 and type(aux["count"]) is int and type(aux["rate"]) is float
    assert aux["name"] == "x" and aux["array"].shape == XS.shape


# ---- errors ----


def unbounded(w, xs):
    h, _ = rnn(w, xs)
    return jax.lax.while_loop(lambda c: c.sum() > 1, lambda c: c / 2, h).sum()


def inner_unbounded(w, xs):
    def body(h, x):
        steps = jnp.int32(jnp.abs(x).sum())
        return jax.lax.fori_loop(0, steps, lambda _, h: jnp.sin(h @ w), h), None

    return jax.lax.scan(body, xs[0], xs)[0].sum()


@pytest.mark.parametrize("loss", [unbounded, inner_unbounded])
def test_a_while_loop_is_named(loss):
    with pytest.raises(
        ValueError,
        match=r"argnums=0: .*while_loop at test_programs.py:\d+ \(.*the "
        r"scan at test_programs.py:\d+ \(",
    ):
        gl.trace(loss)(W, XS)


def test_other_errors_name_the_thing():
    loss = loss_of(rnn)
    with pytest.raises(ValueError, match=r"no tap: .*gl.tap\(h, "):
        gl.trace(jnp.sum)(W)
    with pytest.raises(ValueError, match="segment=0"):
        gl.trace(loss, segment=0)
    with pytest.raises(TypeError, match="tap 'n' marks a value of int"):
        gl.tap(jnp.arange(3), "n")
    with pytest.raises(ValueError, match=r"tap 'h': axis=2, .*shape \(3, 3\)"):
        gl.tap(W, "h", axis=2)
    with pytest.raises(ValueError, match="batch_axis=3: the tap 'h' marks"):
        gl.trace(lambda w: gl.tap(w, "h").sum(), batch_axis=3)(W)
    with pytest.raises(ValueError, match="taps named 'h' stand in different scans"):
        gl.trace(
            lambda w: (
                gl.tap(jnp.sin(w), "h").sum()
                + jax.lax.scan(lambda c, x: (gl.tap(c * x, "h"), None), 1.0, w[0])[0]
            )
        )(W)


# ---- segments, contributions, measurements ----


@functools.cache
def everything(segment, reverse):
    """All that `trace` tells of a scan, its states kept every `segment` steps."""

    def loss(w, xs):
        def body(h, x):
            gate = jax.nn.sigmoid(h @ w.T)
            h = gate * h + jnp.tanh(h @ w + x)
            return h, (gate.sum(), h)

        h, (gates, hs) = jax.lax.scan(body, jnp.ones((B, N)), xs, reverse=reverse)
        return jnp.sum(h**2) + jnp.sum(gates**2) + jnp.sum(hs)

    traced = gl.trace(loss, (0, 1), segment=segment, log_param=True,
                      measure=lambda h, adjoint: (h * adjoint).sum())  # fmt: skip
    return traced(W, XS)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("size", [1, 3, T, 2 * T])
def test_segments_change_nothing(size, reverse):
    jax.tree.map(close, everything(size, reverse), everything(None, reverse))


@functools.cache
def contributions():
    """The gradient by the weights of each step, were they parameters of their own."""

    def per_step(ws):
        h, total = jnp.zeros((B, N)), 0.0
        for w, x in zip(ws, XS, strict=True):
            h = jnp.tanh(h @ w + x)
            total += jnp.sum(jnp.sin(h @ w.T))
        return total + jnp.sum(h**2)

    return jax.jit(jax.grad(per_step))(np.stack([W] * T))


@pytest.mark.parametrize("options", [{}, {"argnums": ()}, {"batch_axis": 0}, {"segment": 2}])
def test_log_param_is_the_step_s_own_contribution(options):
    def loss(w, xs):
        def body(h, x):
            h = jnp.tanh(h @ w + x)
            return h, jnp.sin(h @ w.T)

        h, ys = jax.lax.scan(body, jnp.zeros((B, N)), xs)
        return jnp.sum(h**2) + jnp.sum(ys)

    rows = contributions()
    out = gl.trace(loss, log_param=True, **options)(W, XS)
    close(out.scans[0].log_param, np.log(np.linalg.norm(rows.reshape(T, -1), axis=1)))
    if out.grads is not None:
        close(out.grads, rows.sum(0))


def test_log_param_far_below_the_float_s_range():
    def loss(w, xs):
        return jax.lax.scan(lambda h, x: (w * h + x, None), jnp.float32(0), xs)[0]

    (scan,) = gl.trace(loss, log_param=True)(jnp.float32(0.1), jnp.ones(200, jnp.float32)).scans
    h = (1 - 0.1 ** np.arange(200)) / 0.9
    with np.errstate(divide="ignore"):
        expected = np.log(h) + np.arange(200)[::-1] * math.log(0.1)
    np.testing.assert_allclose(scan.log_param, expected, rtol=1e-5, atol=1e-4)


def test_log_param_with_samples_in_nested_scans_is_refused():
    with pytest.raises(ValueError, match="log_param=True with batch_axis"):
        gl.trace(layers, log_param=True, batch_axis=1)(W, XS)


def test_measure_sees_the_state_and_its_adjoint():
    def saturated(h, adjoint):
        return {"share": jnp.mean(jnp.abs(h) > 0.9), "count": jnp.sum(h > 0), "per unit": adjoint}

    (scan,) = gl.trace(loss_of(rnn), measure=saturated)(W, XS).scans
    hs = rnn(W, XS)[1]
    close(scan.measured["share"], jnp.mean(jnp.abs(hs) > 0.9, axis=(1, 2)))
    close(scan.measured["count"], jnp.sum(hs > 0, axis=(1, 2)))
    norms = np.linalg.norm(scan.measured["per unit"].reshape(T, -1), axis=1)
    close(np.log(norms) + scan.log_scale, scan.log_norm)
    assert (scan.log_scale == 0).all()


def test_measure_names_the_leaves_and_log_scale_gives_the_unit():
    def loss(w, xs):
        def body(state, x):
            c = 0.01 * state["c"] + x
            return {"c": c, "h": jnp.tanh(c) * w}, None

        last, _ = jax.lax.scan(body, {"c": jnp.zeros(2), "h": jnp.zeros(2)}, xs)
        return last["h"].sum()

    xs = jnp.ones((150, 2), jnp.float32)
    (scan,) = gl.trace(loss, measure=lambda s, a: (s["h"], a["c"]))(jnp.float32(1), xs).scans
    sizes = jnp.linalg.norm(scan.measured[1], axis=1)
    assert (sizes[:-1] > 0).all() and scan.log_scale[0] < -100
    close(np.log(sizes[:-1]) + scan.log_scale[:-1], scan.leaves["c"][:-1], rtol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
def test_first_steps_that_are_not_finite(reverse):
    def loss(w, xs):
        def body(h, x):
            return h @ w + x, None

        return jax.lax.scan(body, jnp.zeros((B, N)), xs, reverse=reverse)[0].sum()

    def steps(w, xs, **options):
        (scan,) = gl.trace(loss, **options)(w, xs).scans
        return np.asarray(scan.first_nonfinite_state), np.asarray(scan.first_nonfinite_adjoint)

    assert [x.tolist() for x in steps(W, XS)] == [0, 0]
    bad = XS.at[3, 1, 0].set(jnp.inf)
    assert [x.tolist() for x in steps(W, bad)] == [4, 0]
    assert steps(W, bad, batch_axis=0)[0].tolist() == [0, 4, 0, 0]
    state, adjoint = steps(W * jnp.nan, XS)
    order = [T, 1] if reverse else [1, T]
    assert state.tolist() == order[0]
    # The adjoint of the last state is the loss's own, the one before it is the first to be lost.
    assert adjoint.tolist() == (2 if reverse else T - 1)
