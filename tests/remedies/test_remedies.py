"""Each remedy keeps the law that it promises, against NumPy, finite differences or closed forms."""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import gradlab as gl
from gradlab import cells, initializers, remedies, tasks, training

KEY = jax.random.key(0)
HERE = Path(__file__).parents[1] / "reference"
ORACLE = json.loads((HERE / "cells.json").read_text())
REFERENCES = {case["id"]: case for case in json.loads((HERE / "references.json").read_text())}


def leaves(tree):
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])


def finite_difference(f, params, direction, step=1e-6):
    ahead = jax.tree.map(lambda p, d: p + step * d, params, direction)
    behind = jax.tree.map(lambda p, d: p - step * d, params, direction)
    return (f(ahead) - f(behind)) / (2 * step)


def random_like(tree, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), tree)


def initial(model):
    """The parameters of a cell or a network, drawn by one program, for NumPy to add to."""
    return jax.tree.map(np.asarray, jax.jit(model.init)(KEY))


def along(gradient, direction):
    return leaves(gradient) @ leaves(direction)


# Clipping.


@jax.jit
@jax.vmap
def clipped(gradient, norm, value):
    transformation = remedies.clip(norm=norm, value=value)
    return transformation.update(gradient, transformation.init(gradient))[0]


def gradients(dtype):
    """Gradients of every size that the type holds, and one that is 0."""
    rng = np.random.default_rng(1)
    sizes = np.array([0.0, 1e-30, 1e-18, 1e-3, 1.0, 3.0, 1e3, 1e18, 1e25, 1e30])[:, None]
    a, b = sizes * rng.normal(size=(10, 4)), sizes * rng.normal(size=(10, 2))
    return {"a": jnp.asarray(a, dtype), "b": jnp.asarray(b, dtype).reshape(10, 2, 1)}


def rows(tree):
    return np.concatenate([np.reshape(leaf, (len(leaf), -1)) for leaf in jax.tree.leaves(tree)], 1)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("threshold", [1e-20, 0.5, 1e20])
def test_clipping_by_norm_never_raises_the_norm_and_keeps_the_direction(threshold, dtype):
    given = gradients(dtype)
    out = clipped(given, jnp.full(10, threshold, dtype), jnp.full(10, jnp.inf, dtype))
    assert {leaf.dtype for leaf in jax.tree.leaves(out)} == {jnp.dtype(dtype)}
    before, after = rows(given).astype(np.float64), rows(out).astype(np.float64)
    norms = np.linalg.norm(before, axis=1)
    expected = np.minimum(norms, threshold)
    np.testing.assert_allclose(np.linalg.norm(after, axis=1), expected, rtol=3e-7)
    directions = before / np.where(norms > 0, norms, 1)[:, None]
    np.testing.assert_allclose(after, directions * expected[:, None], rtol=1e-6)
    np.testing.assert_array_equal(after[norms < threshold], before[norms < threshold])


def test_clipping_by_value_bounds_every_entry_and_moves_no_other():
    given = gradients(jnp.float32)
    infinite = jnp.full(10, jnp.inf, jnp.float32)
    out = rows(clipped(given, infinite, jnp.full(10, 0.5, jnp.float32)))
    np.testing.assert_array_equal(out, np.clip(rows(given), -0.5, 0.5))
    np.testing.assert_array_equal(rows(clipped(given, infinite, infinite)), rows(given))


def test_clipping_is_optax_s_where_no_square_overflows():
    given = jax.tree.map(lambda leaf: np.asarray(leaf)[3:7], gradients(jnp.float64))
    theirs = optax.chain(optax.clip(2.0), optax.clip_by_global_norm(1.5))
    ours = remedies.clip(norm=1.5, value=2.0)
    their, our = (jax.jit(lambda g, by=by: by.update(g, by.init(g))[0]) for by in (theirs, ours))
    for row in range(4):
        gradient = jax.tree.map(lambda leaf, row=row: np.asarray(leaf)[row], given)
        np.testing.assert_allclose(leaves(our(gradient)), leaves(their(gradient)), rtol=1e-14)


def clip_once(given: Any, **thresholds: Any) -> Any:
    return remedies.clip(**thresholds).update(given, optax.EmptyState())[0]


NARROW = [jnp.float16, jnp.bfloat16, jnp.float8_e4m3fn, jnp.float8_e5m2]


@pytest.mark.parametrize("dtype", NARROW)
def test_clipping_takes_the_norm_of_narrow_floats_in_float32(dtype):
    # In float16 the squares of 0.01 are 1e-4 and the sum of a million of 8² is infinite.
    small, large = jnp.full(100_000, 0.0078125, dtype), jnp.full(100_000, 8.0, dtype)
    clip = jax.jit(lambda tree, norm: clip_once(tree, norm=norm))
    for given in (small, large):
        tree = {"a": given, "b": jnp.zeros((2, 0), dtype)}
        exact = np.linalg.norm(np.asarray(given, np.float64))
        kept, cut = clip(tree, 2 * exact)["a"], clip(tree, exact / 2)["a"]
        assert kept.dtype == cut.dtype == dtype
        np.testing.assert_array_equal(np.asarray(kept, float), np.asarray(given, float))
        np.testing.assert_allclose(np.asarray(cut, float), np.asarray(given, float) / 2, rtol=1e-6)


def test_clipping_has_optax_s_very_bits_in_the_usual_range():
    given = {name: np.asarray(leaf)[3:7] for name, leaf in gradients(jnp.float32).items()}
    for row in range(4):
        gradient = jax.tree.map(lambda leaf, row=row: jnp.asarray(leaf[row]), given)
        theirs, _ = optax.clip_by_global_norm(0.7).update(gradient, optax.EmptyState())
        ours, _ = remedies.clip(norm=0.7).update(gradient, optax.EmptyState())
        np.testing.assert_array_equal(leaves(ours), leaves(theirs))


def test_clipping_of_nan_and_of_nothing():
    given = jnp.array([[1.0, jnp.nan], [1.0, jnp.inf], [3.0, 4.0], [0.0, 0.0]])
    clip = jax.jit(jax.vmap(lambda g, norm: clip_once(g, norm=norm), (0, None)))
    assert np.isnan(clip(given, 1.0)).all(1).tolist() == [True, True, False, False]
    np.testing.assert_array_equal(clip(given, jnp.inf), given)
    assert np.isnan(clip(given, jnp.array(jnp.nan))[:3]).all()
    assert clip_once({}, norm=1.0) == {}
    assert clip_once(jnp.zeros(0), norm=1.0).shape == (0,)


@pytest.mark.parametrize(("name", "bad"), [("norm", 0.0), ("norm", -1), ("value", float("nan"))])
def test_thresholds_that_clip_everything_are_refused(name, bad):
    with pytest.raises(ValueError, match=f"clip needs {name} above 0, got {bad}"):
        remedies.clip(**{name: bad})


# Penalties.


def test_a_penalized_loss_is_the_sum_and_so_is_its_gradient():
    def loss(w, x):
        return jnp.sum(jnp.sin(w) * x), {"error": x[0]}

    def total(strength, w, x):
        inner = remedies.penalized(loss, strength, lambda w, x: jnp.sum(w**2), has_aux=True)
        outer = remedies.penalized(inner, 3.0, lambda w, x: w[0] * x[1], name="b", has_aux=True)
        return jax.value_and_grad(outer, has_aux=True)(w, x)

    w, x, strengths = np.array([0.3, -0.7]), np.array([2.0, 5.0]), np.array([0.0, 0.5, 2.0])
    (values, report), grads = jax.vmap(total, in_axes=(0, None, None))(strengths, w, x)
    plain, penalty = np.sum(np.sin(w) * x), np.sum(w**2)
    np.testing.assert_allclose(values, plain + strengths * penalty + 3 * w[0] * x[1], rtol=1e-14)
    expected = np.cos(w) * x + 2 * np.outer(strengths, w) + 3 * np.array([x[1], 0])
    np.testing.assert_allclose(grads, expected, rtol=1e-14)
    for name, value in (("unpenalized", plain), ("penalty", penalty), ("error", 2.0)):
        np.testing.assert_allclose(report[name], np.full(3, value), rtol=1e-14)
    with pytest.raises(ValueError, match="the loss reports 'error' already"):
        remedies.penalized(loss, 1.0, lambda w, x: w[0], name="error", has_aux=True)(w, x)


LENGTH, BATCH = 12, 3
TASK = tasks.make("temporal_order", length=LENGTH)


def build(name, **options):
    cell = cells.make(name, inputs=TASK.inputs, hidden=5, **options)
    network = tasks.network(cell, TASK.outputs)
    return cell, network, tasks.batch_loss(network, TASK)


def draw(network):
    return initial(network), jax.jit(tasks.batch_sampler(TASK, BATCH))(jax.random.key(1), 0)


def measured_ratios(cell, network, params, batch):
    """|J^T lambda| / |lambda| of every sample and step, by explicit Jacobians and NumPy."""
    start, unravel = ravel_pytree(cell.start())

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0, 0))
    def jacobians_and_last_adjoint(params, xs, target):
        def step(h, x):
            return ravel_pytree(cell.step(params["cell"], unravel(h), x))[0]

        def read_out(h):
            readout = params["readout"]
            return TASK.loss(readout["weight"] @ cell.read(unravel(h)) + readout["bias"], target)

        def body(h, x):
            return step(h, x), jax.jacobian(step)(h, x)

        last, jacobians = jax.lax.scan(body, start, xs)
        return jacobians, jax.grad(read_out)(last)

    out = []
    for jacobians, adjoint in zip(*jacobians_and_last_adjoint(params, *batch), strict=True):
        ratios = []
        for J in np.asarray(jacobians)[::-1]:
            before = J.T @ np.asarray(adjoint)
            ratios.append(np.linalg.norm(before) / np.linalg.norm(adjoint))
            adjoint = before
        out.append(ratios[::-1])
    return np.array(out)


@pytest.mark.parametrize("name", ["elman", "lstm"])
def test_omega_of_a_batch_measures_what_explicit_jacobians_carry_back(name):
    cell, network, loss = build(name)
    params, batch = draw(network)
    ratios = measured_ratios(cell, network, params, batch)

    @jax.jit
    def every_form(params, batch):
        forms = [{"sequences": 2}, {"squared": True}, {"squared": True, "mean": True}]
        made = [remedies.omega_penalty(loss, cell, has_aux=True, **form) for form in forms]
        return [penalty(params, batch) for penalty in made]

    paper, code, code_mean = every_form(params, batch)
    assert paper == pytest.approx(((ratios[:2] - 1) ** 2).sum(1).mean(), rel=1e-10)
    assert code == pytest.approx(((ratios**2 - 1) ** 2).sum(1).mean(), rel=1e-10)
    assert code_mean == pytest.approx(((ratios**2 - 1) ** 2).mean(), rel=1e-10)


def oracle():
    """The oracle's vanilla network: parameters, h_0..h_6, inputs, and the adjoints of h_1..h_7."""
    count, width = ORACLE["I"], ORACLE["H"]
    cell = cells.make("elman", inputs=count, hidden=width)

    def formula(name, columns):
        i, j = np.arange(width)[:, None], np.arange(columns)[None, :]
        phase = ORACLE["phases"][name]
        return jnp.asarray(ORACLE["A"] * np.sin(1 + 0.7 * i + 1.3 * j + 0.9 * i * j + phase))

    params = {
        "recurrent": formula("W_hh", width),
        "input": formula("W_ih", count),
        "bias": (formula("b_ih", 1) + formula("b_hh", 1))[:, 0],
    }
    expected = ORACLE["cells"]["rnn"]
    states, adjoints = jnp.array(expected["h"]), jnp.array(expected["grad_h"])
    return cell, params, states[:-1], jnp.array(ORACLE["x"]), adjoints[1:]


def test_both_forms_of_omega_are_the_references():
    cell, *arrays = oracle()
    case = REFERENCES["pascanu_omega"]

    @jax.jit
    def both_forms(*arrays):
        return remedies.omega(cell, *arrays), remedies.omega(cell, *arrays, squared=True)

    paper, code = both_forms(*arrays)
    assert paper == pytest.approx(case["value"]["paper"], rel=1e-9)
    assert code == pytest.approx(case["value"]["code_form"], rel=1e-9)


@pytest.mark.parametrize("name", ["elman", "gru", "lstm"])
def test_omega_s_gradient_is_that_of_frozen_states_and_adjoints(name):
    cell = cells.make(name, inputs=3, hidden=4)
    params = jax.tree.map(lambda p, r: p + 0.3 * r, initial(cell), random_like(initial(cell), 2))
    state = jax.tree.map(lambda leaf: jnp.zeros((6, *leaf.shape)), cell.start())
    states, adjoints = random_like(state, 3), random_like(state, 4)
    xs = random_like(jnp.zeros((6, 3)), 5)

    def both_forms(params):
        forms = ({}, {"squared": True, "mean": True})
        return jnp.stack([remedies.omega(cell, params, states, xs, adjoints, **f) for f in forms])

    gradients = jax.jit(jax.jacrev(both_forms))(params)
    values = jax.jit(both_forms)
    for seed in range(3):
        direction = random_like(params, 10 + seed)
        expected = finite_difference(values, params, direction)
        for row in range(2):
            gradient = jax.tree.map(lambda leaf, row=row: leaf[row], gradients)
            found = along(gradient, direction)
            assert found == pytest.approx(float(expected[row]), rel=1e-6)


def test_omega_holds_states_and_adjoints():
    cell, params, states, xs, adjoints = oracle()

    def value(states, adjoints):
        return remedies.omega(cell, params, states, xs, adjoints)

    assert not leaves(jax.jit(jax.grad(value, argnums=(0, 1)))(states, adjoints)).any()


def test_omega_counts_small_adjoints_as_any_and_leaves_out_those_that_are_zero():
    cell, *arrays = oracle()
    params, states, xs, adjoints = jax.tree.map(lambda a: np.asarray(a, np.float32), arrays)
    form = {"squared": True, "mean": True}
    sizes = np.array([1e-35, 1.0, 1e30, 1e-25, 1e-30, 1e25, 3.0], np.float32)[:, None]

    @functools.partial(jax.jit, static_argnums=2)
    @jax.value_and_grad
    def both(params, adjoints, first=0):
        return remedies.omega(cell, params, states[first:], xs[first:], adjoints[first:], **form)

    plain, plain_gradient = both(params, adjoints)
    scaled, scaled_gradient = both(params, sizes * adjoints)
    assert plain.dtype == jnp.float32
    assert scaled == pytest.approx(float(plain), rel=1e-5)
    np.testing.assert_allclose(leaves(scaled_gradient), leaves(plain_gradient), rtol=1e-4)

    few, few_gradient = both(params, adjoints * (np.arange(7) >= 4)[:, None])
    alone = both(params, adjoints, 4)[0]
    assert few == pytest.approx(float(alone), rel=1e-6)
    assert np.isfinite(leaves(few_gradient)).all()
    nothing, no_gradient = both(params, np.zeros_like(adjoints))
    assert nothing == 0
    assert not leaves(no_gradient).any()


@jax.jit
def forms_of_omega(params, states, xs, adjoints):
    given = oracle()[0], params, states, xs, adjoints
    return jnp.stack([remedies.omega(*given), remedies.omega(*given, squared=True, mean=True)])


@pytest.mark.parametrize("which", ["params", "states", "xs", "adjoints", "infinite"])
def test_omega_of_nan_is_nan(which):
    cell, *arrays = oracle()
    given: dict[str, Any] = dict(zip(("params", "states", "xs", "adjoints"), arrays, strict=True))
    if which == "params":
        given["params"] = {name: p.at[0].set(jnp.nan) for name, p in given["params"].items()}
    elif which == "infinite":
        given["adjoints"] = given["adjoints"].at[2, 0].set(jnp.inf)
    else:
        given[which] = given[which].at[2, 0].set(jnp.nan)
    assert np.isnan(forms_of_omega(**given)).all()


def test_penalties_refuse_to_be_of_nothing():
    cell, params, states, xs, adjoints = oracle()
    with pytest.raises(ValueError, match="omega needs at least one step"):
        remedies.omega(cell, params, states[:0], xs[:0], adjoints[:0])
    with pytest.raises(ValueError, match="sequences must be at least 1, got 0"):
        remedies.omega_penalty(lambda params, batch: 0.0, cell, sequences=0)
    with pytest.raises(ValueError, match="sequences must be at least 1, got 0"):
        remedies.flossing_penalty(cell, k=1, sequences=0)


def scaled_identity(scale, width, dtype):
    cell = cells.make("elman", inputs=1, hidden=width, activation="linear")
    shapes = jax.eval_shape(cell.init, KEY)
    params = {name: np.zeros(p.shape, dtype) for name, p in shapes.items()}
    return cell, params | {"recurrent": scale * jnp.eye(width, dtype=dtype)}


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_penalties_take_norms_of_16_bits_in_float32(dtype):
    # The squares of 400 entries of 16 add up past float16's 65504, and past bfloat16's digits.
    width = 400
    cell, params = scaled_identity(16.0, width, dtype)
    ones = np.ones((2, width), dtype)
    omega = jax.jit(lambda *arrays: remedies.omega(cell, *arrays))
    found = omega(params, ones, np.zeros((2, 1), dtype), ones)
    assert found.dtype == jnp.float32
    assert found == pytest.approx(2 * 15.0**2, rel=1e-5)
    found = remedies.orthogonality(cell, params)
    assert found.dtype == jnp.float32
    assert found == pytest.approx(width * 255.0**2, rel=1e-5)


def test_omega_has_a_gradient_where_squares_of_what_is_carried_underflow():
    # r = s for W = s I, so dΩ/ds = 2 (s - 1) = -2; (1e-25)² is 0 in float32.
    def value(scale):
        cell, params = scaled_identity(scale, 3, jnp.float32)
        ones = jnp.ones((1, 3), jnp.float32)
        return remedies.omega(cell, params, ones, jnp.zeros((1, 1), jnp.float32), ones)

    assert jax.jit(jax.grad(value))(jnp.float32(1e-25)) == pytest.approx(-2, rel=1e-6)


def test_a_step_that_carries_nothing_has_a_finite_omega():
    cell = cells.make("elman", inputs=3, hidden=4, activation="relu")
    params = initial(cell) | {"bias": jnp.full(4, -100.0)}
    arguments = jnp.zeros((2, 4)), jnp.ones((2, 3)), jnp.ones((2, 4))
    omega = jax.jit(jax.value_and_grad(lambda p: remedies.omega(cell, p, *arguments)))
    value, gradient = omega(params)
    assert value == 2
    assert not leaves(gradient).any()


@pytest.mark.parametrize("gain", [0.6, 1.6])
def test_descending_omega_brings_the_measured_ratios_to_one(gain):
    cell, network, loss = build("elman", recurrent=initializers.orthogonal(gain))
    params, batch = draw(network)
    penalty = remedies.omega_penalty(loss, cell, has_aux=True)

    @jax.jit
    def descend(params):
        def update(params, _):
            gradient = jax.grad(penalty)(params, batch)
            return jax.tree.map(lambda p, g: p - 0.02 * g, params, gradient), None

        return jax.lax.scan(update, params, length=40)[0]

    before = np.abs(measured_ratios(cell, network, params, batch) - 1).mean()
    after = np.abs(measured_ratios(cell, network, descend(params), batch) - 1).mean()
    assert before > 0.15
    assert after < before / 2


def test_a_penalized_loss_is_traced_as_the_loss():
    cell, network, loss = build("elman")
    params, batch = draw(network)
    penalty = remedies.omega_penalty(loss, cell, has_aux=True)
    both = remedies.penalized(loss, 2.0, penalty, name="omega", has_aux=True)

    @jax.jit
    def program(params, batch):
        plain, out = (gl.trace(f, has_aux=True, batch_axis=0)(params, batch) for f in (loss, both))
        return plain, out, jax.grad(penalty)(params, batch)["cell"]

    plain, out, alone = program(params, batch)
    assert out.scans[0].name == plain.scans[0].name
    np.testing.assert_allclose(out.scans[0].log_norm, plain.scans[0].log_norm, rtol=1e-12)
    # The immediate derivative is the cell's alone: what reads the states learns from the loss.
    theirs, ours = plain.grads["readout"], out.grads["readout"]
    np.testing.assert_allclose(leaves(ours), leaves(theirs), rtol=1e-12)
    change = jax.tree.map(jnp.subtract, out.grads["cell"], plain.grads["cell"])
    np.testing.assert_allclose(leaves(change), 2 * leaves(alone), rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(out.value, plain.value + 2 * out.aux["omega"], rtol=1e-12)
    assert set(out.aux) == {"unpenalized", "error", "omega"}


@pytest.mark.parametrize("name", ["elman", "lstm"])
def test_the_gradient_of_orthogonality_is_its_closed_form(name):
    cell, network, _ = build(name)
    params = initial(network)
    penalty = remedies.orthogonality_penalty(cell)
    both = jax.jit(jax.value_and_grad(penalty))
    assert both(params, None)[0] == pytest.approx(0, abs=1e-20)
    params = jax.tree.map(lambda p, r: p + 0.1 * r, params, random_like(params, 6))
    value, gradient = both(params, None)
    blocks = np.asarray(params["cell"]["recurrent"]).reshape(-1, 5, 5)
    excess = np.swapaxes(blocks, 1, 2) @ blocks - np.eye(5)
    assert value == pytest.approx((excess**2).sum(), rel=1e-12)
    found = gradient["cell"].pop("recurrent").reshape(-1, 5, 5)
    np.testing.assert_allclose(found, 4 * blocks @ excess, rtol=1e-10, atol=1e-12)
    assert not leaves(gradient).any()


# Flossing.


def exponents_by_numpy(cell, params, xs, burn_in=50):
    """All Lyapunov exponents along one sequence: explicit Jacobians, NumPy's QR."""
    state, unravel = ravel_pytree(cell.start())

    @jax.jit
    def run(state):
        def body(h, x):
            step = lambda h: ravel_pytree(cell.step(params, unravel(h), x))[0]  # noqa: E731
            return step(h), jax.jacobian(step)(h)

        return jax.lax.scan(body, state, xs)[1]

    frame, total = np.eye(state.size), np.zeros(state.size)
    for t, jacobian in enumerate(np.asarray(run(state))):
        frame, R = np.linalg.qr(jacobian @ frame)
        if t >= burn_in:
            total += np.log(np.abs(np.diagonal(R)))
    return total / (len(xs) - burn_in)


def inputs(steps, seed=0):
    return 0.5 * jax.random.normal(jax.random.key(seed), (steps, 2))


@pytest.mark.parametrize(("name", "k"), [("elman", 3), ("lstm", 8)])
def test_flossing_s_gradient_goes_through_orbit_and_tangents(name, k):
    cell = cells.make(name, inputs=2, hidden=4, recurrent=initializers.normal(1.2))
    params = initial(cell)

    @jax.jit
    def value(params):
        return remedies.flossing(cell, params, inputs(16), k, target=0.1, burn_in=4, qr_every=2)

    gradient = jax.grad(value)(params)
    for seed in range(2):
        direction = random_like(params, seed)
        expected = finite_difference(value, params, direction)
        assert along(gradient, direction) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("elman", {"recurrent": initializers.normal(0.5)}),
        ("elman", {"recurrent": initializers.orthogonal(1.5), "activation": "linear"}),
        ("lstm", {}),
    ],
    ids=["elman-vanishing", "linear-exploding", "lstm"],
)
def test_flossing_pulls_the_first_exponents_to_zero(name, options):
    k = 4
    cell = cells.make(name, inputs=2, hidden=8, **options)
    before = {"cell": initial(cell)}
    optimizer = optax.adam(0.02)

    def sample(key, step):
        return 0.5 * jax.random.normal(key, (1, 40, 2)), None

    @jax.jit
    def floss(params):
        penalty = remedies.flossing_penalty(cell, k, burn_in=10)
        state = training.start(params, optimizer, KEY)
        return training.advance(penalty, sample, optimizer, state, 60)[0].params

    after = floss(before)
    start, end = (exponents_by_numpy(cell, p["cell"], inputs(350, 7)) for p in (before, after))
    assert np.sqrt(np.mean(end[:k] ** 2)) < np.sqrt(np.mean(start[:k] ** 2)) / 2


def test_flossing_is_the_mean_square_of_the_exponents():
    cell = cells.make("elman", inputs=2, hidden=4, recurrent=initializers.normal(1.2))
    params, xs = initial(cell), inputs(400)
    expected = np.mean((exponents_by_numpy(cell, params, xs)[:2] - 0.1) ** 2)
    found = jax.jit(lambda p, xs: remedies.flossing(cell, p, xs, 2, target=0.1, burn_in=50))(
        params, xs
    )
    assert found == pytest.approx(expected, rel=0.01)


# Cells made of cells.

T_MAX = jnp.array([2.0, 10.0, 1000.0])
FORGET = jnp.array([-1.0, 0.0, 2.5])


@functools.cache
def initialized(name):
    """Parameters and ln k by chrono, by forget_bias and by the cell itself, for three strengths."""
    # Drawing matrices takes most of the compiling.
    weights = {"recurrent", "input"} & set(cells.options(name))
    plain = cells.make(
        name, inputs=2, hidden=50, **dict.fromkeys(weights, jax.nn.initializers.zeros)
    )

    def init(cell):
        params = cell.init(KEY)
        return params, cell.log_retention(params)

    @jax.jit
    @jax.vmap
    def program(t_max, value):
        made = remedies.chrono(plain, t_max), remedies.forget_bias(plain, value), plain
        return [init(cell) for cell in made]

    return program(T_MAX, FORGET)


@pytest.mark.parametrize("name", remedies.retaining())
def test_chrono_s_time_constants_lie_up_to_the_longest_dependency(name):
    (params, log_retention), _, (untouched, _) = initialized(name)
    tau = -1 / np.asarray(log_retention)
    assert (tau >= 1 / np.log(2) - 1e-12).all()
    assert (tau <= T_MAX[:, None] - 0.5 + 1e-9).all()
    assert np.median(tau[2]) > 200  # evenly spread, not crowded at the short end
    # The gate's log-odds are ±b_f; where a gate of its own writes, its bias is -b_f.
    odds = np.log(1 / np.expm1(-np.asarray(log_retention)))
    blocks = np.asarray(params["bias"]).reshape(3, -1, 50)
    like = [g for g in range(blocks.shape[1]) if np.allclose(abs(blocks[:, g]), odds, atol=1e-6)]
    assert len(like) == (2 if "lstm" in name else 1)
    if "lstm" in name:
        np.testing.assert_array_equal(blocks[:, like[0]], -blocks[:, like[1]])
    rest = [g for g in range(blocks.shape[1]) if g not in like]
    theirs = np.asarray(untouched["bias"]).reshape(3, -1, 50)
    np.testing.assert_array_equal(blocks[:, rest], theirs[:, rest])


@pytest.mark.parametrize("name", remedies.retaining())
def test_the_forget_bias_is_the_log_odds_of_what_is_kept(name):
    _, (params, log_retention), (untouched, _) = initialized(name)
    kept = 1 / (1 + np.exp(-FORGET))
    if name == "min_lstm":  # whose gates share what there is, f / (f + i), and i = 1/2 here
        kept = kept / (kept + 0.5)
    found = np.exp(log_retention)
    np.testing.assert_allclose(found, np.broadcast_to(kept[:, None], found.shape), rtol=1e-12)
    changed = [leaf for leaf in params if np.any(params[leaf] != untouched[leaf])]
    assert changed == ["bias"]
    assert np.count_nonzero(params["bias"] != untouched["bias"]) <= FORGET.size * 50


@pytest.mark.parametrize("remedy", [remedies.chrono, remedies.forget_bias])
def test_the_weights_stay_those_of_the_cell(remedy):
    plain = cells.make("gru", inputs=2, hidden=4, recurrent=initializers.normal())
    before, after = initial(plain), initial(remedy(plain, 10.0))
    assert [leaf for leaf in before if np.any(before[leaf] != after[leaf])] == ["bias"]


@pytest.mark.parametrize("remedy", [remedies.chrono, remedies.forget_bias])
def test_cells_without_a_gate_that_keeps_are_refused(remedy):
    with pytest.raises(ValueError) as error:
        remedy(cells.make("elman", inputs=2, hidden=3), 10.0)
    message = str(error.value)
    assert message.startswith(f"unknown cell for {remedy.__name__} 'elman'")
    assert message.endswith("valid: " + ", ".join(remedies.retaining()))


@pytest.mark.parametrize("name", ["elman", "lstm", "lru"])
def test_a_leak_mixes_the_state_and_its_jacobian(name):
    plain = cells.make(name, inputs=3, hidden=4)
    params, x = initial(plain), random_like(jnp.zeros(3), 1)
    state = plain.step(params, plain.step(params, plain.start(), x), -x)
    flat, unravel = ravel_pytree(state)
    holomorphic = jnp.iscomplexobj(flat)

    def step(cell, h):
        return ravel_pytree(cell.step(params, unravel(h), x))[0]

    # At alpha = 1 it is the cell itself, not only to rounding.
    assert jnp.array_equal(step(remedies.leak(plain, 1.0), flat), step(plain, flat))

    @jax.jit
    @jax.vmap
    def step_and_jacobian(alpha):
        leaky = functools.partial(step, remedies.leak(plain, alpha))
        return leaky(flat), jax.jacfwd(leaky, holomorphic=holomorphic)(flat)

    alphas = np.array([1.0, 0.3, 0.01])
    steps, jacobians = step_and_jacobian(jnp.asarray(alphas))
    after, J = np.asarray(steps[0]), np.asarray(jacobians[0])
    for alpha, step, jacobian in zip(alphas, steps, jacobians, strict=True):
        np.testing.assert_allclose(step, (1 - alpha) * flat + alpha * after, rtol=1e-12)
        mixed = (1 - alpha) * np.eye(flat.size) + alpha * J
        np.testing.assert_allclose(jacobian, mixed, rtol=1e-12, atol=1e-15)


def test_a_leak_s_retention_is_an_eigenvalue_at_rest():
    cell = remedies.leak(cells.make("gru", inputs=3, hidden=4), 0.3)
    shapes = jax.eval_shape(cell.init, KEY)
    params = {name: np.zeros(p.shape) for name, p in shapes.items()}
    params |= {"bias": random_like(params["bias"], 1)}
    step = jax.jit(lambda h: cell.step(params, h, jnp.zeros(3)))
    h = jnp.zeros(4)
    for _ in range(400):
        h = step(h)
    jacobian = jax.jit(jax.jacobian(step))(h)
    found = np.sort(np.linalg.eigvals(jacobian).real)
    np.testing.assert_allclose(found, np.sort(np.exp(cell.log_retention(params))), rtol=1e-9)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16])
def test_a_leak_s_retention_neither_cancels_nor_underflows(dtype):
    # ln(1 - α + α σ(b)) in float64; where σ(b) is near 1, from 1 - σ(b) = 1/(1 + e^b).
    plain = cells.make("gru", inputs=1, hidden=6)
    b = jnp.array([-300.0, -20.0, -1.0, 0.5, 9.0, 20.0], dtype)
    params = initial(plain) | {"bias": jnp.concatenate([b, b, b])}

    @jax.jit
    @jax.vmap
    def retention(alpha):
        of = remedies.leak(plain, alpha).log_retention
        assert of is not None
        return of(params)

    alphas = np.array([1.0, 0.5, 1e-3], np.float32)
    exact = np.asarray(b, np.float64)
    a = alphas.astype(np.float64)[:, None]
    some = exact > 5
    expected = np.log((1 - a) + a / (1 + np.exp(-exact)))
    expected[:, some] = np.log1p(-a / (1 + np.exp(exact[some])))
    found = retention(alphas)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=3e-6)


def test_leaks_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="leak needs alpha above 0 and at most 1, got 0"):
        remedies.leak(cells.make("elman", inputs=2, hidden=3), 0)
    with pytest.raises(ValueError, match="leak cannot mix states of slstm"):
        remedies.leak(cells.make("slstm", inputs=2, hidden=3), 0.5)


# Layer normalization: the cells' own laws are in test_cells.py.


def test_layer_normalization_does_not_see_the_scale_of_the_weights():
    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    def last(factor, xs):
        def of(name):
            cell = cells.make(name, inputs=3, hidden=6)
            params = cell.init(KEY)
            params |= {leaf: factor * params[leaf] for leaf in ("recurrent", "input")}
            body = lambda state, x: (cell.step(params, state, x), None)  # noqa: E731
            return cell.read(jax.lax.scan(body, cell.start(), xs)[0])

        names = ("elman", "layer_norm_elman", "layer_norm_gru", "layer_norm_lstm")
        return {name: of(name) for name in names}

    found = last(jnp.array([10.0, 100.0]), random_like(jnp.zeros((5, 3)), 1))
    plain = found.pop("elman")
    assert np.abs(plain[1] - plain[0]).max() > 0.01
    for name, h in found.items():
        np.testing.assert_allclose(h[1], h[0], rtol=2e-5, atol=1e-6, err_msg=name)


def test_the_lstm_normalizes_with_the_layers_of_pytorch():
    torch = pytest.importorskip("torch")
    cell = cells.make("layer_norm_lstm", inputs=3, hidden=4)
    params = jax.tree.map(lambda p, r: p + 0.3 * r, initial(cell), random_like(initial(cell), 2))
    p = {name: torch.tensor(np.asarray(value)) for name, value in params.items()}
    norm = torch.nn.functional.layer_norm
    c = h = torch.zeros(4, dtype=torch.float64)
    state, step = cell.start(), jax.jit(cell.step)
    for x in random_like(jnp.zeros((4, 3)), 1):
        state = step(params, state, x)
        a = norm(p["recurrent"] @ h, (16,), p["recurrent_scale"], p["bias"])
        a = a + norm(p["input"] @ torch.tensor(np.asarray(x)), (16,), p["input_scale"])
        i, f, g, o = a.chunk(4)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(norm(c, (4,), p["memory_scale"], p["memory_bias"]))
    np.testing.assert_allclose(state.h, h.numpy(), rtol=1e-12)
    np.testing.assert_allclose(state.c, c.numpy(), rtol=1e-12)
