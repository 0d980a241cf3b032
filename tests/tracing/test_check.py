"""`gl.check` finds planted faults and names their places, and reports no form that is right.

The forms are those of `planted`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import planted
import pytest

import gradlab as gl
from gradlab import frames
from gradlab.checking import _check, _rounding

LENGTH, SIZE = 6, 3
RIGHT, FAULTS = planted.rights(SIZE, LENGTH), planted.faults(SIZE, LENGTH)


@pytest.fixture(scope="module", autouse=True)
def shared_programs():
    """Most cases have the plain form of another one: compile it once."""
    runner, _check.runner = _check.runner, functools.cache(_check.runner)
    yield
    _check.runner = runner


def report(cell, fast, plain, batch_axis=None, **needs):
    return gl.check(fast, plain, batch_axis=batch_axis)(*planted.sample(cell, LENGTH, **needs))


@pytest.mark.parametrize("name", [name for name in RIGHT if name not in planted.ALIKE])
def test_a_right_form_agrees(name):
    cell, fast, plain, needs = RIGHT[name]
    found = report(cell, fast, plain, **needs)
    assert found.ok and found, str(found)
    assert str(found).startswith("the two forms agree to rounding")
    # A state that is held against nothing is named.
    pairs = {each.recurrence for each in found.comparisons if each.quantity == "state"}
    assert pairs or any("which differ from the first" in s or "shows none" in s
                        for s in found.skipped)  # fmt: skip


@pytest.mark.parametrize("name", [name for name in FAULTS if name not in planted.ALIKE])
def test_a_fault_is_found_and_its_place_named(name):
    cell, fast, plain, needs, places = FAULTS[name]
    found = report(cell, fast, plain, **needs)
    assert not found.ok and not found
    first = str(found).splitlines()[0]
    assert any(place in first for place in places), first


def test_the_frame_has_every_step_and_says_where_they_part():
    cell, fast, plain, needs, _ = FAULTS["border without gradient"]
    found = report(cell, fast, plain, **needs)
    rows = found.frame
    assert list(rows.columns) == [name for name in frames.CHECK if name != "sample"]
    adjoint = rows[(rows.quantity == "adjoint") & (rows.leaf == "c")]
    assert adjoint.step.tolist() == list(range(1, LENGTH + 1))
    # Behind the border all is right, and before it the fast form has an exact zero.
    assert adjoint.agrees.tolist() == [t > SIZE for t in range(1, LENGTH + 1)]
    assert np.isneginf(adjoint.log_fast[:SIZE]).all()
    assert np.isfinite(adjoint.log_plain[:-1]).all()
    assert rows[rows.quantity == "state"].agrees.all()


def test_a_sample_is_held_against_its_own_norm():
    """In the mean over samples a fault of a faint sample is hidden, by itself it is not."""

    def form(turn):
        def loss(w, xs):
            def step(h, x):
                return jnp.tanh(h @ w + x), None

            h, _ = jax.lax.scan(step, jnp.zeros_like(xs[:, 0]), jnp.moveaxis(xs, 1, 0))
            return jnp.sum(h[0]) + 1e-12 * turn * jnp.sum(h[1])

        return loss

    args = 0.5 * jnp.eye(3, dtype=jnp.float32), jnp.full((2, 4, 3), 0.5, jnp.float32)
    wrong, right = form(-1.0), form(1.0)
    assert gl.check(wrong, right)(*args).ok
    found = gl.check(wrong, right, batch_axis=0)(*args)
    assert "adjoint at step 4 of 4, sample 1" in str(found).splitlines()[0]
    rows = found.frame
    assert rows[rows["sample"] == 0].agrees.all()
    assert not rows[(rows["sample"] == 1) & (rows.quantity == "adjoint")].agrees.any()


def test_far_below_the_float_s_range_a_difference_is_seen():
    """Adjoints of 0.1^1000: values and gradients of both forms are the same."""

    def form(border):
        def loss(w, xs):
            def step(h, row):
                t, x = row
                h = jnp.where(t == border, jax.lax.stop_gradient(h), h)
                return w * h + x, None

            return jax.lax.scan(step, jnp.ones_like(xs[0]), (jnp.arange(1, 1001), xs))[0]

        return loss

    args = jnp.float32(0.1), jnp.ones(1000, jnp.float32)
    right = form(0)
    found = gl.check(form(301), right)(*args)
    assert [each.quantity for each in found.comparisons if each.parts.any()] == ["adjoint"]
    assert "adjoint at step 300 of 1000" in str(found).splitlines()[0]
    assert gl.check(right, right)(*args).ok


def test_rtol_replaces_the_allowance():
    cell, fast, plain, needs, _ = FAULTS["bfloat16"]
    args = planted.sample(cell, LENGTH, **needs)
    assert gl.check(fast, plain, rtol=0.1)(*args).ok
    assert not gl.check(fast, plain, rtol=1e-4)(*args).ok
    with pytest.raises(ValueError, match="rtol=-1"):
        gl.check(fast, plain, rtol=-1)


def test_what_rounding_may_change_altogether_is_named():
    """Chaos: h_t = 3.9 h (1 - h) multiplies an error by e^(0.5 t)."""

    def form(order):
        def loss(r, xs):
            def step(h, x):
                new = r * h * (1 - h) if order else r * (h - h * h)
                return new, None

            return jax.lax.scan(step, xs[0], xs)[0]

        return loss

    args = jnp.float32(3.9), jnp.full(100, 0.3, jnp.float32)
    found = gl.check(form(True), form(False))(*args)
    assert found.ok
    (line,) = found.skipped
    assert line.startswith("value, gradients, adjoints and later states, since rounding alone")
    rows = found.frame
    assert rows[rows.quantity != "state"].agrees.isna().all()
    assert rows[(rows.quantity == "state") & (rows.step < 10)].agrees.all()


@pytest.mark.parametrize("around", [lambda form: form, jax.jit], ids=["plain", "jit"])
def test_decays_that_a_form_closes_over_are_rounded_too(around):
    """The next float after a is a to rounding, of which 2,000 steps make 2,000 times as much."""
    decays = jnp.linspace(0.9985, 0.9995, 16, dtype=jnp.float32)

    def form(a):
        def loss(start):
            return jnp.sum(jax.lax.scan(lambda h, _: (a * h, None), start, length=2000)[0])

        return around(loss)

    plain, fast = form(decays), form(jnp.nextafter(decays, jnp.ones_like(decays)))
    start = jnp.ones(16, jnp.float32)
    report = gl.check(fast, plain)(start)
    assert report.ok and not report.skipped, report
    assert not gl.check(lambda start: 1.01 * fast(start), plain)(start).ok
    assert not gl.check(form(decays * 0.99999), plain)(start).ok


def test_narrow_arguments_do_not_excuse_narrow_sums():
    """Arithmetic counts, not the type in which numbers come."""

    def form(dtype):
        def loss(w, xs):
            def step(h, x):
                h = (h + x.astype(dtype)).astype(dtype)
                return h, None

            start = jnp.zeros(xs.shape[1:], dtype)
            return jnp.sum(w * jax.lax.scan(step, start, xs)[0].astype(jnp.float32))

        return loss

    xs = jnp.asarray(np.random.default_rng(0).uniform(size=(20, 3)), jnp.bfloat16)
    args = jnp.ones(3, jnp.float32), xs
    assert _rounding.epsilons(form(jnp.float32), args, {})[0] == 2.0**-23
    assert _rounding.epsilons(form(jnp.bfloat16), args, {})[0] == 2.0**-7
    assert not gl.check(form(jnp.bfloat16), form(jnp.float32))(*args).ok


def test_nan_and_infinity():
    def form(last):
        def loss(w, xs):
            h, hs = jax.lax.scan(lambda h, x: (w * h + x,) * 2, jnp.zeros_like(xs[0]), xs)
            return jnp.where(last, jnp.nan, 1) * h + 0 * hs[0]

        return loss

    args = jnp.float32(0.5), jnp.ones(3, jnp.float32)
    spoilt, sound = form(True), form(False)
    assert gl.check(spoilt, spoilt)(*args).ok
    assert not gl.check(spoilt, sound)(*args).ok
    assert not gl.check(sound, spoilt)(*args).ok
    big = jnp.float32(1e30), jnp.ones(3, jnp.float32)
    assert gl.check(sound, sound)(*big).ok


def test_taps_stand_for_recurrences_that_cannot_be_seen():
    def plain(w, xs):
        return jax.lax.scan(lambda h, x: (w * h + x, None), jnp.zeros_like(xs[0]), xs)[0]

    def looped(wrong):
        def loss(w, xs):
            h = 0.0
            for t, x in enumerate(xs):
                h = gl.tap(w * (jax.lax.stop_gradient(h) if t == wrong else h) + x, "h")
            return h

        return loss

    args = jnp.float32(0.5), jnp.ones(4, jnp.float32)
    right = gl.check(looped(0), plain)(*args)
    assert right.ok and {each.quantity for each in right.comparisons} >= {"adjoint"}
    found = gl.check(looped(2), plain)(*args)
    assert "adjoint at step 2 of 4" in str(found).splitlines()[0]


def test_aux_several_arguments_and_no_gradients():
    def form(scale):
        def loss(params, xs, text, factor=1.0):
            assert text == "text"
            hs = jax.lax.scan(lambda h, x: (params["w"] * h + x,) * 2, 0 * xs[0], xs)[1]
            return scale * factor * jnp.sum(hs), {"states": hs, "name": text}

        return loss

    args = {"w": jnp.float32(0.5)}, jnp.ones(3, jnp.float32), "text"
    right, wrong = form(1.0), form(-1.0)
    both = gl.check(right, right, argnums=(0, 1), has_aux=True)(*args, factor=2.0)
    leaves = [each.leaf for each in both.comparisons if each.quantity == "gradient"]
    assert both.ok and leaves == ["0/w", "1"]
    found = gl.check(wrong, right, argnums=(), has_aux=True)(*args)
    assert "the adjoint at step 3 of 3" in str(found).splitlines()[0]
    assert not [each for each in found.comparisons if each.quantity == "gradient"]


def test_bad_requests_name_the_form():
    def right(w, xs):
        return jnp.sum(w * xs)

    args = jnp.ones(2), jnp.ones(2)
    with pytest.raises(TypeError, match="the fast form of the model: trace needs a loss"):
        gl.check(lambda w, xs: w * xs, right)(*args)
    with pytest.raises(TypeError, match="the plain form of the model: trace needs a loss"):
        gl.check(right, lambda w, xs: w * xs)(*args)
    with pytest.raises(ValueError, match="the plain form of the model: argnums=2"):
        gl.check(right, right, argnums=2)(*args)


def tanh_scan(W, xs):
    def step(h, x):
        h = jnp.tanh(W @ h + x)
        return h, h

    return jax.lax.scan(step, jnp.zeros(len(W)), xs)[1]


def test_a_gradient_that_is_all_zero_is_no_rounding():
    """Rounding may change this gradient by twice its norm, but makes no zeros of all entries."""
    keys = jax.random.split(jax.random.key(0))
    args = 1.5 * jax.random.normal(keys[0], (16, 16)), jax.random.normal(keys[1], (60, 16))

    def plain(W, xs):
        return jnp.mean(tanh_scan(W, xs) ** 2)

    def fast(W, xs):
        return jax.lax.stop_gradient(plain(W, xs)) + 0 * jnp.sum(W)

    found = gl.check(fast, plain)(*(x.astype(jnp.float32) for x in args))
    assert not found.ok and "gradient" in str(found).splitlines()[0]
    same = gl.check(plain, plain)(*(x.astype(jnp.float32) for x in args))
    assert same.ok


def test_what_rounding_hides_is_not_said_to_agree():
    args = jnp.float32(3.9), jnp.full(100, 0.3, jnp.float32)

    def plain(r, xs):
        return jax.lax.scan(lambda h, x: (r * h * (1 - h), None), xs[0], xs)[0]

    found = gl.check(plain, plain)(*args)
    assert str(found).startswith("the two forms agree to rounding, as far as they are compared")


def test_a_detached_direction_parts_in_the_adjoint():
    """No gradient reaches one scan of the fast form: its states are unknown, not zero."""
    keys = jax.random.split(jax.random.key(0))
    args = 0.3 * jax.random.normal(keys[0], (4, 4)), jax.random.normal(keys[1], (12, 4))

    def loss(cut):
        def value(W, xs):
            back = cut(tanh_scan(W, xs[::-1])[::-1])
            return jnp.sum(jnp.sin(tanh_scan(W, xs) + 2 * back))

        return value

    found = gl.check(loss(jax.lax.stop_gradient), loss(lambda x: x))(*args)
    assert not found.ok
    assert not any(each.quantity == "state" and each.parts.any() for each in found.comparisons)


def test_a_layer_with_a_small_gradient_is_not_hidden_by_one_with_a_large_one():
    """Stacked weights: the gradient of layer 0 is 1e-9 of that of layer 1, and misses a part."""
    keys = jax.random.split(jax.random.key(0))
    args = 0.5 * jax.random.normal(keys[0], (2, 4, 4)), jax.random.normal(keys[1], (12, 4))

    def form(cut):
        def loss(weights, xs):
            faint = tanh_scan(cut(weights[0]), xs)
            return jnp.sum(tanh_scan(weights[1], xs) ** 2) + 1e-9 * jnp.sum(faint**2)

        return loss

    def lose_row(W):
        return W.at[1].set(jax.lax.stop_gradient(W[1]))

    plain = form(lambda W: W)
    found = gl.check(form(lose_row), plain)(*args)
    (gradient,) = [each for each in found.comparisons if each.quantity == "gradient"]
    assert not found.ok and gradient.leaf == "[0]" and gradient.place.startswith(" (most at [0, 1,")
    same = gl.check(plain, plain)(*args)
    assert same.ok, str(same)
