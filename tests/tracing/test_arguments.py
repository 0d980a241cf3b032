"""What trace takes and refuses, and how it names things."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab as gl

W = jax.random.normal(jax.random.key(0), (3, 3))
XS = jax.random.normal(jax.random.key(1), (7, 4, 3))


def rnn(w, xs, **how):
    return jax.lax.scan(lambda h, x: (jnp.tanh(h @ w + x), None), jnp.zeros((4, 3)), xs, **how)[0]


def loss(w, xs):
    return jnp.sum(rnn(w, xs))


def same(ours, theirs):
    for a, b in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"argnums": 1.5}, "argnums=1.5: an integer is needed"),
        ({"argnums": "0"}, "argnums='0': an integer is needed"),
        ({"argnums": None}, "argnums=None: an integer is needed"),
        ({"argnums": (0, "x")}, "argnums='x': an integer is needed"),
        ({"batch_axis": 1.5}, "batch_axis=1.5: an integer is needed"),
        ({"segment": 2.5}, "segment=2.5: an integer is needed"),
        ({"measure": 3}, r"measure=3: a function of \(state, adjoint\) is needed"),
        ({"measure": lambda h, a: "s"}, r"measure at the scan at test_arguments.py:\d+ \(rnn\)"),
    ],
)
def test_options_of_a_wrong_type_are_named(options, message):
    with pytest.raises(TypeError, match=message):
        gl.trace(loss, **options)(W, XS)


@pytest.mark.parametrize(
    ("value", "what"),
    [("text", "str"), ((1.0, 2.0), "tuple"), (None, "NoneType"), ({"a": 1.0}, "dict")],
)
def test_a_loss_that_is_no_number(value, what):
    with pytest.raises(TypeError, match=f"one real scalar, and got {what}"):
        gl.trace(lambda w, xs: (loss(w, xs), value)[1])(W, XS)


def test_what_jax_accepts():
    expected = jax.value_and_grad(loss)(W, XS)
    out = gl.trace(loss, argnums=np.int64(0))(W, XS)
    same((out.value, out.grads), expected)
    aux = {"name": np.str_("s"), "objects": np.array([None]), "count": 3}
    out = gl.trace(lambda w, xs: [loss(w, xs), aux], has_aux=True)(W, XS)
    same((out.value, out.grads), expected)
    assert out.aux["name"] == "s" and out.aux["objects"][0] is None and out.aux["count"] == 3


@pytest.mark.parametrize("name", ["h", None])
def test_a_tap_marks_one_array(name):
    with pytest.raises(TypeError, match="tap each" if name else "a string is needed"):
        gl.tap((W, W) if name else W, name)


def test_a_loop_with_bounds_of_the_data_is_named():
    def looping(w, xs, n):
        return jnp.sum(jax.lax.fori_loop(0, n, lambda i, h: jnp.tanh(h @ w + xs[i]), xs[0]))

    with pytest.raises(ValueError, match=r"while_loop at test_arguments.py:\d+ \(looping\).*bound"):
        gl.trace(looping)(W, XS, jnp.int32(3))


def test_a_scan_of_no_steps_is_no_scan():
    with pytest.raises(ValueError, match="no lax.scan of at least one step"):
        gl.trace(loss)(W, XS[:0])


def test_scans_on_one_line_are_told_apart():
    out = gl.trace(lambda w, xs: jnp.sum(rnn(w, xs) + rnn(w, xs, reverse=True)))(W, XS)
    first, second = (scan.name for scan in out.scans)
    assert second == f"{first} #2"
    rows = gl.frame(out)
    assert not rows.duplicated(["scan", "leaf", "step"]).any()


def test_a_trace_inside_a_trace_keeps_the_line():
    def inner(w):
        return jax.lax.scan(lambda h, _: (jnp.tanh(h @ w), None), XS[0, 0], None, length=3)[0].sum()

    out = gl.trace(lambda w: jnp.sum(gl.trace(inner)(w).grads))(W)
    assert {scan.name.partition(" (")[2] for scan in out.scans} == {"inner)", "inner) #2"}


def clock(way):
    """A loss whose state has a leaf that no argument moves, read by what has no derivative."""

    def body(w, state, x):
        h, t = state
        if way == "while":
            k = jax.lax.while_loop(lambda k: k > 1, lambda k: k - 1, t)
        else:
            k = jax.pure_callback(np.sin, jax.ShapeDtypeStruct((), t.dtype), t)
        return (jnp.tanh(h @ w + x) * (1 + k), t + 0.3), None

    def loss(w, xs):
        return jnp.sum(jax.lax.scan(functools.partial(body, w), (xs[0], jnp.zeros(())), xs)[0][0])

    return loss


@pytest.mark.parametrize("argnums", [0, ()])
@pytest.mark.parametrize("way", ["while", "callback"])
def test_a_leaf_that_no_argument_reaches_may_be_read_without_a_derivative(way, argnums):
    out = gl.trace(clock(way), argnums=argnums)(W, XS)
    value, grads = jax.value_and_grad(clock(way))(W, XS)
    same((out.value, out.grads), (value, grads if argnums == 0 else None))
    h, t = out.scans[0].leaves.values()
    assert np.isfinite(h).all() and np.isneginf(t).all()
    assert not np.isnan(out.scans[0].log_norm).any()


def test_a_loop_on_the_way_to_an_argument_is_refused():
    def looping(w, xs):
        def body(h, x):
            h = jax.lax.while_loop(lambda h: h[0, 0] > 1, lambda h: h / 2, jnp.tanh(h @ w + x))
            return h, None

        return jnp.sum(jax.lax.scan(body, xs[0], xs)[0])

    with pytest.raises(ValueError, match="cannot go back through the while_loop at test_arg"):
        gl.trace(looping)(W, XS)


def test_strict_promotion():
    with jax.numpy_dtype_promotion("strict"):
        out = gl.trace(loss, batch_axis=0, segment=3)(W, XS)
        same((out.value, out.grads), jax.value_and_grad(loss)(W, XS))
        whole = gl.trace(loss, log_param=True)(W, XS)
        assert np.isfinite(whole.scans[0].log_param[1:]).all()


def test_a_weight_that_comes_in_twice_is_one_weight():
    @jax.jit
    def tied(a, b, xs):
        body = lambda h, x: (jnp.tanh(h @ a + jnp.sin(h) @ b + x), None)  # noqa: E731
        return jax.lax.scan(body, jnp.zeros((4, 3)), xs)[0]

    def once(w, xs):
        body = lambda h, x: (jnp.tanh(h @ w + jnp.sin(h) @ w + x), None)  # noqa: E731
        return jnp.sum(jax.lax.scan(body, jnp.zeros((4, 3)), xs)[0])

    one = gl.trace(once, log_param=True)(W, XS)
    two = gl.trace(lambda w, xs: jnp.sum(tied(w, w, xs)), log_param=True)(W, XS)
    same(two.scans[0].log_param, one.scans[0].log_param)
    same(two.grads, one.grads)


def test_a_partial_function_among_the_arguments_is_traced_once():
    seen = []

    def with_activation(w, act, xs):
        seen.append(act)
        return loss(act(w), xs)

    traced = gl.trace(with_activation)
    act = functools.partial(jax.nn.leaky_relu, negative_slope=0.2)
    first, second = traced(W, act, XS), traced(W, act, XS)
    assert len(seen) == 1
    same(first.grads, second.grads)


def test_a_loss_that_was_called_already_is_refused_at_once():
    with pytest.raises(TypeError, match="trace takes the loss, a function, got ArrayImpl"):
        gl.trace(jnp.sum(jnp.ones(3)))
    with pytest.raises(TypeError, match="trace.loss. gives the function to call") as error:
        gl.trace(jnp.sum, {"W": jnp.ones((100, 100))}, jnp.ones(3))
    assert len(str(error.value)) < 300
