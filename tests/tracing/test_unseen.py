"""Recurrences that cannot be recorded are named: beside others in a warning, alone in an error."""

import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import ode
from jax.experimental import pallas as pl

import gradlab as gl

XS = jnp.linspace(-1.0, 1.0, 5)
W = jnp.asarray(0.7)


def recurrence(w, xs):
    return jax.lax.scan(lambda h, x: (jnp.tanh(w * h + x),) * 2, jnp.zeros_like(xs[0]), xs)[1]


def with_rule(function):
    """The function on the forward pass, with the derivative of 2 x."""

    @jax.custom_vjp
    def call(x):
        return function(x)

    call.defvjp(lambda x: (function(x), None), lambda _, ct: (2 * ct,))
    return call


@with_rule
def kernel(x):
    def run(x_ref, out_ref):
        out_ref[...] = 2 * x_ref[...]

    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return pl.pallas_call(run, out_shape=shape, interpret=True)(x)


@with_rule
def callback(x):
    return jax.pure_callback(lambda x: 2 * np.asarray(x), jax.ShapeDtypeStruct(x.shape, x.dtype), x)


@with_rule
def loop(x):
    return jax.lax.while_loop(lambda s: s[1] < 1, lambda s: (2 * s[0], s[1] + 1), (x, 0))[0]


@with_rule
def scan_in_loop(x):
    def body(state):
        return recurrence(1.0, state[0]), state[1] + 1

    return jax.lax.while_loop(lambda s: s[1] < 1, body, (x, 0))[0]


@with_rule
def loop_in_scan(x):
    return jax.lax.scan(lambda h, x: (h + loop(x), h), jnp.zeros(()), x)[1]


def solved(x):
    return ode.odeint(lambda y, t: -y, x, jnp.asarray([0.0, 0.1]))[-1]


def pushed(x):
    """A parallel scan inside a forward derivative, whose equations lie between others."""

    def scan(x):
        return jax.lax.associative_scan(jnp.multiply, jnp.cos(x))

    return jax.jvp(scan, (x,), (jnp.ones_like(x),))[1]


def solved_in_order(x):
    """(1 - shift / 2) h = x as a linear solve, whose solver is the recurrence of h."""

    def solve(_, x, reverse=False):
        return jax.lax.scan(lambda h, x: (x + 0.5 * h,) * 2, x[0] * 0, x, reverse=reverse)[1]

    def matvec(h):
        return h - 0.5 * jnp.concatenate([h[:1] * 0, h[:-1]])

    back = functools.partial(solve, reverse=True)
    return jax.lax.custom_linear_solve(matvec, x, solve, back)


def exported(x):
    """A compiled program from elsewhere, with the recurrence inside."""

    def states(x):
        return jax.lax.scan(lambda h, x: ((h := jnp.tanh(h + x)), h), jnp.zeros_like(x[0]), x)[1]

    return jax.export.export(jax.jit(states))(jax.ShapeDtypeStruct(x.shape, x.dtype)).call(x)


UNSEEN = {
    "associative_scan in jvp": pushed,
    "solver": solved_in_order,
    "cumsum": jax.lax.cumsum,
    "cumsum of jnp": jnp.cumsum,  # which is compiled, and may keep another caller's line
    "cumprod": jax.lax.cumprod,
    "cumlogsumexp": jax.lax.cumlogsumexp,
    "cummax": jax.lax.cummax,
    "cummin": functools.partial(jax.lax.cummin, reverse=True),
    "pallas_call": kernel,
    "call_exported": exported,
    "pure_callback": callback,
    "while_loop": loop,
    "while_loop around a scan": scan_in_loop,
    "while_loop in a scan": loop_in_scan,
    "while_loop of odeint": solved,
}


def loss_of(function, around=lambda f: f):
    def loss(w, xs):
        return jnp.sum(recurrence(w, around(function)(w * xs)) ** 2)

    return loss


@pytest.mark.parametrize("name", UNSEEN)
def test_what_is_not_recorded_is_named_beside_what_is(name):
    loss = loss_of(UNSEEN[name])
    with pytest.warns(UserWarning, match=name.split(" ")[0]) as warned:
        out = gl.trace(loss)(W, XS)
    assert len(warned) == 1 and "test_unseen.py" in str(warned[0].message)
    value, grad = jax.jit(jax.value_and_grad(loss))(W, XS)
    np.testing.assert_allclose((out.value, out.grads), (value, grad))
    # The scan behind it reads the same rows, and so has the same record.
    rows = UNSEEN[name](W * XS)
    known = gl.trace(lambda w, rows: jnp.sum(recurrence(w, rows) ** 2))(W, rows)
    np.testing.assert_allclose(out.scans[-1].log_norm, known.scans[0].log_norm)


@pytest.mark.parametrize("name", UNSEEN)
def test_alone_it_is_an_error_that_says_how_to_go_on(name):
    with pytest.raises(ValueError, match=name.split(" ")[0]) as error:
        gl.trace(lambda w, xs: jnp.sum(UNSEEN[name](w * xs) ** 2))(W, XS)
    assert "gl.tap" in str(error.value) or "associative_scan" in str(error.value)


@pytest.mark.parametrize("name", ["cumsum", "pallas_call"])
@pytest.mark.parametrize(
    "around", [jax.jit, jax.checkpoint, jax.vmap], ids=["jit", "remat", "vmap"]
)
def test_inside_a_step(name, around):
    def loss(w, xs):
        def step(h, x):
            return jnp.tanh(around(UNSEEN[name])(w * h + x)), None

        return jnp.sum(jax.lax.scan(step, jnp.zeros((2, 3)), xs)[0])

    with pytest.warns(UserWarning, match=name) as warned:
        gl.trace(loss, argnums=())(W, jnp.ones((2, 2, 3)))
    assert len(warned) == 1


def test_what_no_gradient_goes_through_is_not_named():
    def loss(w, xs):
        times, order = jnp.cumsum(jnp.ones(5)), jnp.cumsum(jnp.argsort(w * xs))
        slopes = jax.grad(lambda xs: jnp.sum(jax.lax.associative_scan(jnp.multiply, xs)))(xs)
        direct = jnp.linalg.solve(jnp.eye(5), w * xs)  # no loop, but for LAPACK's
        return jnp.sum(recurrence(w, kernel(xs) + times + order + slopes + direct) ** 2)

    gl.trace(loss)(W, XS)


@pytest.mark.parametrize(("axis", "reverse"), [(0, False), (1, False), (0, True), (1, True)])
def test_the_function_to_use_in_place_of_a_cumulative_one_is_the_same(axis, reverse):
    x = jnp.arange(6.0).reshape(2, 3)

    def loss(x):
        return jnp.sum(jax.lax.cumsum(x, axis, reverse) ** 2)

    with pytest.raises(ValueError, match="cumsum at") as error:
        gl.trace(loss)(x)
    call = str(error.value).split("`")[1]
    np.testing.assert_allclose(
        eval(call, {"jax": jax, "jnp": jnp, "x": x}), jax.lax.cumsum(x, axis, reverse)
    )


def states_in_ref(w, xs, carry):
    """The state is in a mutable array: the scan carries something else, or nothing."""
    ref = jax.new_ref(jnp.zeros_like(xs[0]))

    def step(c, x):
        ref[...] = jnp.tanh(w * ref[...] + x)
        return None if c is None else 0.5 * c + ref[...], ref[...]

    return jax.lax.scan(step, carry, xs)[1]


def test_a_state_in_a_mutable_array_is_named():
    def loss(w, xs):
        return jnp.sum(states_in_ref(w, xs, None))

    with pytest.raises(ValueError, match="mutable array .*, which is not recorded: carry"):
        gl.trace(loss)(W, XS)
    with pytest.warns(UserWarning, match="mutable array"):
        out = gl.trace(lambda w, xs: loss(w, xs) + jnp.sum(recurrence(w, xs)))(W, XS)
    assert len(out.scans) == 1
    with pytest.raises(ValueError, match="mutable array"):
        gl.trace(lambda w, xs: jnp.sum(states_in_ref(w, xs, jnp.zeros_like(xs[0]))))(W, XS)


def test_a_rule_that_closes_over_an_argument_is_named():
    def loss(w, xs):
        rule = jax.custom_vjp(lambda w: jnp.sum(recurrence(w, xs)))
        rule.defvjp(
            lambda w: (rule(w), w),
            lambda w, ct: (ct * jax.grad(lambda w: jnp.sum(recurrence(w, xs)))(w),),
        )
        return rule(w)

    with pytest.raises(ValueError, match="closes over an argument of the loss"):
        gl.trace(loss)(W, XS)
    # Value and gradient can be compared.
    assert gl.check(loss, lambda w, xs: jnp.sum(recurrence(w, xs)))(W, XS).ok


def write_at(out, t, h):
    return out.at[t].set(h)


def write_slice(out, t, h):
    return jax.lax.dynamic_update_slice_in_dim(out, h[None], t, axis=0)


def write_and_read(out, t, h):
    return out.at[t].set(h + 0.1 * out[t - 1])


def buffered(write, w, xs):
    def step(t, state):
        h, out = state
        h = jnp.tanh(w * h + xs[t])
        return h, write(out, t, h)

    return jax.lax.fori_loop(0, len(xs), step, (0 * xs[0], 0 * xs))[1]


@pytest.mark.parametrize("write", [write_at, write_slice])
@pytest.mark.parametrize("batch", [False, True])
def test_a_buffer_in_the_carry_is_named(write, batch):
    """What is read of it is not direct for the state: its record is that of another quantity."""

    def loss(w):
        states = functools.partial(buffered, write, w)
        return jnp.sum(jax.vmap(states)(jnp.stack([XS, 2 * XS])) if batch else states(XS))

    state, buffer = ("1", "2") if batch else ("1/0", "1/1")
    with pytest.warns(UserWarning, match=rf"leaf '{buffer}' of the scan at .* is a buffer"):
        out = gl.trace(loss)(W)
    assert np.isneginf(out.scans[0].leaves[state][-1])


@pytest.mark.filterwarnings("error")
def test_a_memory_that_the_steps_read_is_no_buffer():
    gl.trace(lambda w: jnp.sum(buffered(write_and_read, w, XS)))(W)
    gl.trace(lambda w: jnp.sum(jax.lax.fori_loop(
        0, 5, lambda t, out: out.at[t].set(w * XS[t]), 0 * XS)))(W)  # fmt: skip
