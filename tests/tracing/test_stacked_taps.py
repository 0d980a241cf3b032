"""A tap on the stacked states of a scan has their total adjoint, or a warning says that it has not.

The oracle is the record of the equal `jax.lax.scan`.
"""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name

import gradlab as gl

T, H = 7, 4
A, B, C = (jax.random.normal(key, (T, H)) / 2 for key in jax.random.split(jax.random.key(3), 3))


def combine(p, q):
    return p[0] * q[0], q[0] * p[1] + q[1]


def parallel(a, b):
    return lax.associative_scan(combine, (a, b))[1]


def in_order(a, b):
    def step(h, row):
        h = row[0] * h + row[1]
        return h, h

    return lax.scan(step, jnp.zeros_like(b[0]), (a, b))[1]


@jax.custom_vjp
def with_rule(a, b):
    return parallel(a, b)


def _pull(saved, ct):
    return jax.vjp(parallel, *saved)[1](ct)


with_rule.defvjp(lambda a, b: (parallel(a, b), (a, b)), _pull)


def same(x):
    return x


def total_of(read, complex_states=False, batch_axis=None):
    """ln of the total adjoint of each state, where the loss reads the states by `read`."""
    b = B * (1 + 0.5j) if complex_states else B

    def loss(b):
        return jnp.sum(jnp.tanh(read(in_order(A.astype(b.dtype), b)).real) ** 2)

    return gl.trace(loss, batch_axis=batch_axis)(b).scans[0].log_norm


def tapped(read, axis=0, run=parallel, complex_states=False, batch_axis=None):
    """The tap on read(states)."""
    b = B * (1 + 0.5j) if complex_states else B

    def loss(b):
        hs = gl.tap(read(run(A.astype(b.dtype), b)), "h", axis=axis)
        return jnp.sum(jnp.tanh(hs.real) ** 2)

    return gl.trace(loss, batch_axis=batch_axis)(b).taps["h"].log_norm


# What is done to the stack before the tap, along which axis that goes, and the rows that it has.
FOLLOWED = {
    "plain": (same, 0, slice(None)),
    "sliced": (lambda h: h[1:], 0, slice(1, None)),
    "sliced twice": (lambda h: h[1:][::2], 0, slice(1, None, 2)),
    "one row": (lambda h: h[4:5], 0, slice(4, 5)),
    "turned": (lambda h: h[::-1][1:], 0, slice(None, None, -1)),
    "reshaped": (lambda h: h.reshape(T, 2, H // 2), 0, slice(None)),
    "one more axis": (lambda h: h[None, :, None], 1, slice(None)),
    "and one less": (lambda h: h[:, None][1:, 0], 0, slice(1, None)),
    "transposed": (lambda h: h[2:].T, 1, slice(2, None)),
    "cast": (lambda h: h.astype(jnp.bfloat16).astype(jnp.float32), 0, slice(None)),
    "named": (lambda h: checkpoint_name(h, "h"), 0, slice(None)),
}


@pytest.mark.parametrize("form", FOLLOWED)
def test_the_total_of_states_that_were_arranged(form):
    read, axis, rows = FOLLOWED[form]
    want = total_of(read)[rows]
    want = want[1:] if form == "turned" else want
    np.testing.assert_allclose(tapped(read, axis), want, atol=2e-2 if form == "cast" else 1e-5)


RUNS = {
    "remat": jax.checkpoint(parallel),
    "remat of a slice": jax.checkpoint(lambda a, b: parallel(a, b)[1:]),
    "custom_vjp": with_rule,
    "jit in remat in jit": jax.jit(jax.checkpoint(jax.jit(parallel))),
    "second of two": lambda a, b: jax.checkpoint(lambda c: (parallel(a, c), parallel(a, b)))(3 * b)[
        1
    ],
}


@pytest.mark.parametrize("run", RUNS)
def test_the_total_of_states_that_come_out_of_a_call(run):
    is_sliced = run == "remat of a slice"
    want = total_of(lambda h: h[1:])[1:] if is_sliced else total_of(same)
    np.testing.assert_allclose(tapped(same, run=RUNS[run]), want, atol=1e-5)


def test_a_state_before_the_first_as_in_the_published_min_gru():
    def loss(b, run):
        a = jnp.concatenate([jnp.ones((1, H)), A])
        hs = run(a, jnp.concatenate([C[:1], b]))[1:]
        hs = gl.tap(hs, "h", axis=0) if run is parallel else hs
        return jnp.sum(jnp.tanh(hs) ** 2)

    got = gl.trace(lambda b: loss(b, parallel))(B).taps["h"]
    want = gl.trace(lambda b: loss(b, in_order))(B).scans[0]
    assert got.length == T
    np.testing.assert_allclose(got.log_norm, want.log_norm[1:], atol=1e-5)


def test_samples_keep_their_own_rows():
    for read, axis, batch in ((lambda h: h[1:], 0, 0), (lambda h: h[1:].T, 1, 0)):
        got = tapped(read, axis, batch_axis=batch)
        np.testing.assert_allclose(got, total_of(lambda h: h[1:], batch_axis=0)[1:], atol=1e-5)
    # The record has a row for each of H samples, the tap for each of two.
    with pytest.warns(UserWarning, match="direct part only"):
        assert tapped(lambda h: h.reshape(T, 2, 2), batch_axis=0).shape == (T, 2)


def test_taps_in_vmap_and_in_layers():
    def loss(b, run):
        def layer(x, _):
            hs = jax.vmap(lambda b: jax.checkpoint(run)(A, b))(x)
            hs = (
                jax.vmap(lambda h: gl.tap(h[1:], "h", axis=0))(hs) if run is parallel else hs[:, 1:]
            )
            return jnp.tanh(jnp.pad(hs, ((0, 0), (1, 0), (0, 0)))), None

        return jnp.sum(lax.scan(layer, b, None, length=2)[0] ** 2)

    b = jnp.stack([B, C])
    got = gl.trace(lambda b: loss(b, parallel))(b).taps["h"]
    want = gl.trace(lambda b: loss(b, in_order))(b).scans[1]
    assert got.outer == want.outer == (2,) and got.length == T - 1
    np.testing.assert_allclose(got.log_norm, want.log_norm[:, 1:], atol=1e-5)


def branch(a, b):
    return lax.cond(b[0, 0] > 9, lambda: b, lambda: parallel(a, b))


def layers(a, b):
    return lax.scan(lambda x, _: (parallel(a, jnp.tanh(x)),) * 2, b, None, length=2)[1][1]


def carried(a, b):
    return lax.fori_loop(0, 2, lambda _, x: parallel(a, jnp.tanh(x)), b)


def chunks(a, b):
    """A scan over chunks, each a parallel scan from the last state on."""

    def step(h, row):
        a, b = (
            jnp.concatenate(pair) for pair in zip((jnp.ones((1, H)), h[None]), row, strict=True)
        )
        hs = parallel(a, b)[1:]
        return hs[-1], hs

    rows = (x[:6].reshape(2, 3, H) for x in (a, b))
    return lax.scan(step, b[0], tuple(rows))[1].reshape(6, H)


def shards(a, b):
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec(None, "d")
    return jax.shard_map(parallel, mesh=mesh, in_specs=spec, out_specs=spec)(a, b)


def step_with_view(a, b):
    def step(h, row):
        y = (row[0] * h[0] + row[1]).astype(jnp.bfloat16)
        return (y.astype(b.dtype), h[1] + 1), y

    return lax.scan(step, (b[0], 0), (a, b))[1].astype(b.dtype)


def step_in_remat(a, b):
    @jax.checkpoint
    def step(h, row):
        h = row[0] * h + row[1]
        return h, {"h": h[None]}

    return lax.scan(step, b[0], (a, b))[1]["h"][:, 0]


def state_before(a, b):
    return lax.scan(lambda h, row: (row[0] * h + row[1], h), b[0], (a, b))[1]


MASK = jnp.arange(T)[:, None] < 5

# What runs the scan, and what is done to the stack.
PARTIAL = {
    "one unit": (parallel, lambda h: h[:, 0]),
    "some units": (parallel, lambda h: h[:, 1:]),
    "joined axes": (parallel, lambda h: h.reshape(-1)),
    "real": (parallel, lambda h: h.real),
    "real as complex": (parallel, lambda h: lax.complex(h.real, h.imag)),
    "joined": (parallel, lambda h: jnp.concatenate([C[:1], h])),
    "picked": (parallel, lambda h: h[jnp.array([1, 3, 2])]),
    "masked": (parallel, lambda h: jnp.where(MASK, h, 0)),
    "set": (parallel, lambda h: h.at[0].set(0.0)),
    "from a window": (parallel, lambda h: lax.dynamic_slice_in_dim(h, 2, 3)),
    "split": (parallel, lambda h: jnp.split(h, [2])[1]),
    "cond": (branch, same),
    "layers": (layers, same),
    "carried": (carried, same),
    "chunks": (chunks, same),
    "shard_map": (shards, same),
    "outside of remat": (parallel, same),
    "lax.scan": (in_order, same),
    "lax.scan sliced": (in_order, lambda h: h[1:]),
    "lax.scan in remat": (jax.checkpoint(in_order), same),
    "lax.scan of a view": (step_with_view, same),
    "lax.scan of remat": (step_in_remat, same),
    "lax.scan of the state before": (state_before, same),
}


@pytest.mark.parametrize("form", PARTIAL)
def test_the_direct_part_comes_with_a_warning(form):
    run, read = PARTIAL[form]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if form == "outside of remat":
            tail = jax.checkpoint(lambda hs: jnp.sum(gl.tap(hs, "h", axis=0) ** 2))
            gl.trace(lambda b: tail(parallel(A, b)))(B)
        else:
            tapped(read, run=run, complex_states="real" in form)
    (warning,) = caught
    text = str(warning.message)
    assert "the tap 'h' at test_stacked_taps.py" in text and "direct part only" in text
    assert "scan at test_stacked_taps.py" in text and "`out.scans`" in text


def readout(a, b):
    return lax.scan(lambda h, row: (row[0] * h + row[1],) + (jnp.tanh(h),), b[0], (a, b))[1]


def padded(a, b):
    """Both outputs of the step take their zeros from one constant."""

    def step(h, row):
        zeros = jnp.zeros(H)
        return jnp.where(MASK[0], row[0] * h, zeros), jnp.where(MASK[0], jnp.sin(h), zeros)

    return lax.scan(step, b[0], (a, b))[1]


SILENT = {
    "readout": (parallel, lambda h: h @ jnp.ones((H, 2)), 0),
    "function": (parallel, jnp.tanh, 0),
    "function of cases": (parallel, lambda h: jax.nn.leaky_relu(h[1:]), 0),
    "elements": (lambda a, b: parallel(a, b) + b, same, 0),
    "another axis": (parallel, same, 1),
    "last state": (lambda a, b: parallel(a, b)[-1], same, 0),
    "last state of scan": (lambda a, b: in_order(a, b)[-1], same, 0),
    "outputs of a scan": (readout, same, 0),
    "padded outputs": (padded, same, 0),
}


@pytest.mark.parametrize("form", SILENT)
def test_what_is_no_stack_of_states_is_as_it_is(form):
    """pytest makes an error of a warning."""
    run, read, axis = SILENT[form]
    value = read(run(A, B))
    direct = jax.grad(lambda x: jnp.sum(jnp.tanh(x) ** 2))(value)
    rows = np.moveaxis(np.asarray(direct), axis, 0).reshape(value.shape[axis], -1)
    got = tapped(read, axis, run)
    np.testing.assert_allclose(got, np.log(np.linalg.norm(rows, axis=1)), rtol=1e-5, atol=1e-5)


def test_what_goes_past_a_tap_with_the_total_is_in_it():
    def loss(b, run):
        hs = run(A, b)
        mark = gl.tap(hs[1:], "h", axis=0) if run is parallel else hs[1:]
        return jnp.sum(hs**2) + jnp.sum(lax.stop_gradient(mark) * 3)

    got = gl.trace(lambda b: loss(b, parallel))(B).taps["h"].log_norm
    want = gl.trace(lambda b: loss(b, in_order))(B).scans[0].log_norm
    np.testing.assert_allclose(got, want[1:], atol=1e-5)


def test_the_cast_that_a_tap_is_given_is_no_use_beside_it():
    def loss(b):
        return jnp.sum(gl.tap(jnp.tanh(b).reshape(-1).astype(jnp.bfloat16), "x") ** 2)

    assert gl.trace(loss)(B).taps["x"].length == 1

    def beside(b):
        x = jnp.tanh(b)
        return jnp.sum(gl.tap(x.reshape(-1), "x") ** 2) + jnp.sum(x)

    with pytest.warns(UserWarning, match="adjoint of its result alone"):
        gl.trace(beside)(B)


# How a tap without an axis reads the stack, and whether later steps send something back to that.
ROWS = {
    "the last": (lambda h: h[-1], False),
    "another": (lambda h: h[2], True),
    "the last, gathered": (lambda h: jnp.take(h, -1, axis=0), False),
    "another, gathered": (lambda h: jnp.take(h, 2, axis=0), True),
    "the last, by an array": (lambda h: h[jnp.int32(T - 1)], False),
    "another, by an array": (lambda h: h[jnp.int32(1)], True),
    "one that the states say": (lambda h: h[jnp.argmax(h[:, 0])], True),
    "the last of the transpose": (lambda h: h.T[:, -1], False),
    "another of the transpose": (lambda h: h.T[:, 1], True),
    "the last behind others": (lambda h: jnp.concatenate([C[:1], h])[-1], False),
    "another behind others": (lambda h: jnp.concatenate([C[:1], h])[2], True),
    "one before the states": (lambda h: jnp.concatenate([C[:1], h])[0], False),
    "the first of those turned": (lambda h: h[::-1][0], False),
    "the last of those turned": (lambda h: h[::-1][-1], True),
    "the last of some": (lambda h: h[2:][-1], False),
    "some": (lambda h: h[-2:], True),
    "all": (same, True),
    "their mean": (lambda h: h.mean(0), False),
    "two": (lambda h: jnp.concatenate([h[0], h[-1]]), True),
    "an entry of the last": (lambda h: h[-1, 0], False),
    "an entry of another": (lambda h: h[1, 0], True),
    "the last in remat": (jax.checkpoint(lambda h: h[-1]), False),
    "another in remat": (jax.checkpoint(lambda h: h[1]), True),
}


def in_chunks(a, b):
    def outer(h, rows):
        return lax.scan(lambda h, row: (row[0] * h + row[1],) * 2, h, rows)

    chunks = (x[:6].reshape(3, 2, H) for x in (a, b))
    return lax.scan(outer, jnp.zeros(H), tuple(chunks))[1]


def in_reverse(a, b):
    return lax.scan(lambda h, row: (row[0] * h + row[1],) * 2, jnp.zeros(H), (a, b), reverse=True)[
        1
    ]


RUNS_OF_ROWS = {
    **{
        f"{name}, {way}": (run, *ROWS[name])
        for name in ROWS
        for way, run in (
            ("parallel", parallel),
            ("in order", in_order),
            ("vmap", lambda a, b: jax.vmap(in_order)(*(jnp.stack([x, x]) for x in (a, b)))[1]),
        )
    },
    "the first in reverse": (in_reverse, lambda h: h[0], False),
    "the last in reverse": (in_reverse, lambda h: h[-1], True),
    "the last of the last chunk": (in_chunks, lambda h: h[-1, -1], False),
    "the last of another chunk": (in_chunks, lambda h: h[1, -1], True),
}


@pytest.mark.parametrize("form", RUNS_OF_ROWS)
def test_a_row_of_a_stack_has_the_direct_part_and_says_so(form):
    run, read, sends_back = RUNS_OF_ROWS[form]

    def loss(b):
        return jnp.sum(gl.tap(read(run(A, b)), "h") ** 2)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        jax.eval_shape(gl.trace(loss), B)
    assert len(caught) == sends_back
    assert all("records the direct part only" in str(each.message) for each in caught)
