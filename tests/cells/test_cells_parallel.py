"""The parallel form of each cell that has one, against the scan over its steps in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab as gl
from gradlab import cells

INPUTS, HIDDEN, BATCH = 3, 4, 2
BIAS = jax.nn.initializers.normal(0.5)
# Every cell that has the form: with the options that give it one, and a slow memory for long runs.
CASES = {
    "lru": {"r_min": 0.5, "r_max": 0.99},
    "min_gru": {"bias": BIAS},
    "min_lstm": {"bias": BIAS},
    "indrnn": {"activation": "linear", "bias": BIAS},
}


def build(name):
    return cells.make(name, inputs=INPUTS, hidden=HIDDEN, **CASES[name])


def in_turn(cell):
    def states(params, state, xs):
        return jax.lax.scan(lambda s, x: (cell.step(params, s, x),) * 2, state, xs)[1]

    return states


def sample(cell, length, dtype):
    """Parameters, a first state that is not zero, and a batch of inputs."""
    params = jax.jit(functools.partial(cell.init, dtype=jnp.float64))(jax.random.key(0))
    rng = np.random.default_rng(length)
    state = rng.normal(size=(BATCH, HIDDEN)) + 0j
    state += 1j * rng.normal(size=state.shape)
    xs = jnp.asarray(rng.normal(size=(BATCH, length, INPUTS)), dtype)
    # In float32 the parameters are those of float64, rounded.
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    kind = cell.start(dtype).dtype
    real = not jnp.issubdtype(kind, jnp.complexfloating)
    return params, jnp.asarray(state.real if real else state, kind), xs


def loss(cell, form, params, state, xs):
    """Of every step, under vmap, so that direct and transported parts both count."""
    states = jax.vmap(form(cell), in_axes=(None, 0, 0))(params, state, xs)
    h = jax.vmap(jax.vmap(cell.read))(states)
    weights = jnp.cos(jnp.arange(h.shape[1], dtype=h.dtype))
    return jnp.mean(jnp.einsum("bth,t->bh", jnp.sin(h), weights)), states


@functools.cache
def traced(name, form, length, dtype):
    cell = build(name)
    run = gl.trace(functools.partial(loss, cell, form), argnums=(0, 1, 2), has_aux=True)
    return jax.device_get(run(*sample(cell, length, dtype)))


def close(fast, plain, dtype):
    """To rounding: in units of the largest entry, since each is a sum of terms of that size."""
    bound = 100 * jnp.finfo(dtype).eps * np.abs(plain).max()
    assert fast.dtype == plain.dtype and fast.shape == plain.shape
    np.testing.assert_allclose(fast, plain, rtol=0, atol=bound)


def test_every_registered_cell_with_a_linear_recurrence_is_under_these_laws():
    found = set()
    for name in cells.names():
        linear = {"activation": "linear"} if "activation" in cells.options(name) else {}
        cell = cells.make(name, inputs=1, hidden=1, **linear)
        if isinstance(cell.advance, cells.LinearRecurrence):
            found.add(name)
    assert found == set(CASES)
    with pytest.raises(ValueError) as error:
        cells.parallel(cells.make("lstm", inputs=1, hidden=1))
    assert all(name in str(error.value) for name in found)


# A long program takes long to compile: one cell stands for all of them there.
@pytest.mark.parametrize(
    ("name", "length", "dtype"),
    [
        *((name, 1, jnp.float64) for name in CASES),
        *((name, 6, jnp.float64) for name in CASES),
        ("min_lstm", 7, jnp.float32),
        ("lru", 1000, jnp.float32),
    ],
)
def test_value_gradients_states_and_record_are_those_of_the_scan(name, length, dtype):
    fast = traced(name, cells.parallel, length, dtype)
    plain = traced(name, in_turn, length, dtype)
    close(fast.value, plain.value, dtype)
    close(fast.aux, plain.aux, dtype)
    jax.tree.map(functools.partial(close, dtype=dtype), fast.grads, plain.grads)
    (one,), (other,) = fast.scans, plain.scans
    assert one.length == other.length == length
    # The adjoint of the products is exactly 0, so the state's leaf has all of the norm.
    for part in ("log_norm", "log_direct", "log_transported"):
        record = getattr(one, part)
        bound = 20 * length**0.5 * jnp.finfo(dtype).eps
        np.testing.assert_allclose(record, getattr(other, part), rtol=bound, atol=bound)
    if length > 1:
        assert np.isneginf(one.leaves["0"]).all()
        np.testing.assert_array_equal(one.leaves["1"], one.log_norm)


def test_the_record_is_right_far_outside_the_float_s_range():
    """L = Σ h_T: ln|λ_t| = ln|Π a|, of which the products in the program itself underflow."""
    cell, length = build("min_gru"), 200
    params, state, xs = sample(cell, length, jnp.float32)

    def last(params, xs):
        return jnp.sum(cells.parallel(cell)(params, state[0], xs)[-1])

    scan = gl.trace(last, argnums=())(params, 30 * xs[0]).scans[0]
    a, _ = jax.vmap(cell.project, (None, 0))(
        {name: leaf.astype(jnp.float64) for name, leaf in params.items()}, 30.0 * xs[0]
    )
    logs = np.cumsum(np.log(np.asarray(a))[::-1], axis=0)[-2::-1]
    expected = np.logaddexp.reduce(2 * logs, axis=1) / 2
    assert expected[0] < -500
    np.testing.assert_allclose(scan.log_norm[:-1], expected, rtol=1e-5, atol=1e-4)


def test_a_cell_of_the_user_s_has_the_form():
    """A state of two leaves, with coefficients that need not have the state's shape."""

    @cells.register
    def two_speeds(inputs, hidden):
        def coefficients(params, drive):
            slow = (drive, params["keep"])
            return slow, (drive + 1, jnp.ones((), drive.dtype))

        init = cells.base.add_leaves(
            cells.gate_init(inputs, hidden), keep=(jax.nn.initializers.constant(0.5), (1,))
        )
        return cells.Cell(
            inputs,
            hidden,
            init,
            cells.LinearRecurrence(coefficients),
            start=lambda dtype=None: (jnp.zeros(hidden, dtype), jnp.zeros(hidden, dtype)),
            project=lambda params, x: jnp.sum(x) / 9,
            read=lambda state: state[0],
        )

    try:
        cell = cells.make("two_speeds", inputs=INPUTS, hidden=HIDDEN)
    finally:
        cells.REGISTRY.remove("two_speeds")
    params, xs = cell.init(jax.random.key(0)), jnp.linspace(-1, 1, 5 * INPUTS).reshape(5, INPUTS)
    args = params, (jnp.ones(HIDDEN), -jnp.ones(HIDDEN)), xs
    fast, plain = jax.jit(cells.parallel(cell))(*args), jax.jit(in_turn(cell))(*args)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-12), fast, plain)


def test_another_recurrence_has_no_form_of_the_old_one():
    cell = build("lru")._replace(advance=lambda params, s, drive: s * s)
    with pytest.raises(ValueError, match="the cell lru has no parallel form"):
        cells.parallel(cell)
