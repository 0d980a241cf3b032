"""Laws that every registered cell keeps, each against an equation written out in NumPy.

A new cell enters CASES and EQUATIONS; a registered cell that is missing there fails.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from jax.flatten_util import ravel_pytree

from gradlab import cells, initializers

INPUTS, HIDDEN, STEPS = 3, 4, 6
REFERENCE = json.loads((Path(__file__).parent / "reference" / "cells.json").read_text())

CASES = {
    "elman-tanh": ("elman", {"activation": "tanh"}),
    "elman-relu": ("elman", {"activation": "relu"}),
    "elman-erf": ("elman", {"activation": "erf"}),
    "elman-linear": ("elman", {"activation": "linear"}),
    "gru": ("gru", {}),
    "lstm": ("lstm", {}),
}
every_case = pytest.mark.parametrize("case", CASES)
both_dtypes = pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])


def logistic(a):
    return 1 / (1 + np.exp(-a))


# Each equation maps (params, flat state, x) to the flat state, gate by gate, and is analytic (relu
# piecewise), so that it can be differentiated by a complex step.
PHI = {
    "tanh": np.tanh,
    "relu": lambda a: np.where(a.real > 0, a, 0),
    "erf": scipy.special.erf,
    "linear": lambda a: a,
}


def elman_equation(phi):
    def step(p, h, x):
        return PHI[phi](p["recurrent"] @ h + p["input"] @ x + p["bias"])

    return step


def gate(p, index, h, x):
    rows = slice(index * HIDDEN, (index + 1) * HIDDEN)
    return p["recurrent"][rows] @ h + p["input"][rows] @ x + p["bias"][rows]


def lstm_equation(p, state, x):
    c, h = state[:HIDDEN], state[HIDDEN:]
    i, f, o = (logistic(gate(p, index, h, x)) for index in (0, 1, 3))
    c = f * c + i * np.tanh(gate(p, 2, h, x))
    return np.concatenate([c, o * np.tanh(c)])


def gru_equation(p, h, x):
    r, z = logistic(gate(p, 0, h, x)), logistic(gate(p, 1, h, x))
    n = slice(2 * HIDDEN, None)
    inner = p["recurrent"][n] @ h + p["recurrent_bias"]
    return (1 - z) * np.tanh(p["input"][n] @ x + p["bias"][n] + r * inner) + z * h


EQUATIONS = {
    **{f"elman-{phi}": elman_equation(phi) for phi in PHI},
    "gru": gru_equation,
    "lstm": lstm_equation,
}


def build(case, *, inputs=INPUTS, hidden=HIDDEN, **options):
    name, fixed = CASES[case]
    return cells.make(name, inputs=inputs, hidden=hidden, **fixed, **options)


def draw(case, dtype=jnp.float64):
    """A cell with generic parameters, a generic state and a sequence."""
    cell = build(case, bias=jax.nn.initializers.normal(0.3))
    params_key, state_key, xs_key = jax.random.split(jax.random.key(3), 3)
    flat, unravel = ravel_pytree(cell.start(dtype))
    state = unravel(0.5 * jax.random.normal(state_key, flat.shape, dtype))
    return cell, cell.init(params_key, dtype), state, normal(xs_key, (STEPS, INPUTS), dtype)


def normal(key, shape, dtype=jnp.float64):
    return jax.random.normal(key, shape, dtype)


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def complex_step_jacobian(f, x):
    columns = [np.imag(f(x + 1e-30j * unit)) / 1e-30 for unit in np.eye(x.size)]
    return np.stack(columns, axis=1)


def test_every_registered_cell_is_under_these_laws():
    assert {name for name, _ in CASES.values()} == set(cells.names())
    assert set(EQUATIONS) == set(CASES)


@both_dtypes
@every_case
def test_shapes_and_dtypes(case, dtype):
    cell = build(case)
    params, state = cell.init(jax.random.key(0), dtype), cell.start(dtype)
    rows = len(cell.gates) * HIDDEN
    assert (cell.name, cell.hidden, cell.inputs) == (CASES[case][0], HIDDEN, INPUTS)
    assert params["recurrent"].shape == (rows, HIDDEN)
    assert params["input"].shape == (rows, INPUTS)
    assert params["bias"].shape == (rows,)
    assert not flat(state).any()
    after = cell.step(params, state, jnp.ones(INPUTS, dtype))
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert cell.read(after).shape == (HIDDEN,)
    for leaf in jax.tree.leaves((params, state, after)):
        assert leaf.dtype == dtype
    for before, leaf in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert before.shape == leaf.shape


@every_case
def test_default_dtype_is_jax_s_own(case):
    cell = build(case)
    for leaf in jax.tree.leaves((cell.init(jax.random.key(0)), cell.start())):
        assert leaf.dtype == jnp.result_type(float)


@every_case
def test_width_one_works(case):
    cell = build(case, inputs=1, hidden=1)
    params = cell.init(jax.random.key(0))
    assert cell.read(cell.step(params, cell.start(), jnp.ones(1))).shape == (1,)


@every_case
def test_step_is_the_equation(case):
    cell, params, state, xs = draw(case)
    p = {name: np.asarray(value) for name, value in params.items()}
    expected = flat(state)
    for x in xs:
        state = cell.step(params, state, x)
        expected = EQUATIONS[case](p, expected, np.asarray(x))
        np.testing.assert_allclose(flat(state), expected, rtol=1e-13, atol=1e-15)
    np.testing.assert_array_equal(cell.read(state), flat(state)[-HIDDEN:])


@both_dtypes
@every_case
def test_step_is_advance_after_project(case, dtype):
    cell, params, state, xs = draw(case, dtype)
    drives = jax.vmap(cell.project, in_axes=(None, 0))(params, xs)
    split = joint = state
    for x, drive in zip(xs, drives, strict=True):
        split, joint = cell.advance(params, split, drive), cell.step(params, joint, x)
    tolerance = 50 * jnp.finfo(dtype).eps
    np.testing.assert_allclose(flat(split), flat(joint), rtol=tolerance, atol=tolerance)


@both_dtypes
@every_case
def test_jit_and_vmap_agree_with_the_plain_step(case, dtype):
    cell, params, state, xs = draw(case, dtype)
    plain = np.stack([flat(cell.step(params, state, x)) for x in xs])
    jitted = np.stack([flat(jax.jit(cell.step)(params, state, x)) for x in xs])
    mapped = jax.vmap(cell.step, in_axes=(None, None, 0))(params, state, xs)
    mapped = np.stack([flat(jax.tree.map(lambda leaf, t=t: leaf[t], mapped)) for t in range(STEPS)])
    tolerance = 50 * jnp.finfo(dtype).eps
    np.testing.assert_allclose(jitted, plain, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(mapped, plain, rtol=tolerance, atol=tolerance)


@every_case
def test_init_under_vmap_is_init_one_by_one(case):
    keys = jax.random.split(jax.random.key(1), 3)

    def init(key, gain):
        recurrent = initializers.orthogonal(gain)
        return build(case, recurrent=recurrent).init(key, jnp.float32)

    gains = jnp.array([0.5, 1.0, 2.0])
    mapped = jax.jit(jax.vmap(init))(keys, gains)
    for at, (key, gain) in enumerate(zip(keys, gains, strict=True)):
        one = init(key, gain)
        for name, value in one.items():
            assert mapped[name].dtype == jnp.float32
            np.testing.assert_allclose(mapped[name][at], value, rtol=1e-5, atol=1e-6)


@every_case
def test_every_gate_is_drawn_on_its_own(case):
    cell = build(case, hidden=32, recurrent=initializers.orthogonal(gain=1.5))
    params = cell.init(jax.random.key(0), jnp.float32)
    blocks = cell.matrices(params)
    assert blocks.shape == (len(cell.gates), 32, 32)
    assert initializers.audit(blocks)["orthogonality_error"].max() < 1e-6
    for name in ("recurrent", "input"):
        parts = np.split(np.asarray(params[name]), len(cell.gates))
        for one in range(len(parts)):
            for other in range(one):
                assert not np.any(parts[one] == parts[other])


@every_case
def test_matrices_follow_the_gates(case):
    cell = build(case)
    params = cell.init(jax.random.key(0))
    blocks = cell.matrices(params)
    assert blocks.shape == (len(cell.gates), HIDDEN, HIDDEN)
    for index in range(len(cell.gates)):
        rows = slice(index * HIDDEN, (index + 1) * HIDDEN)
        np.testing.assert_array_equal(blocks[index], params["recurrent"][rows])


def run(cell, params, state, xs, kicks):
    """Return v·h_T, with a zero added to each state, h_0 first, for its adjoint."""

    def body(state, inputs):
        x, kick = inputs
        state = cell.step(params, state, x)
        return jax.tree.map(jnp.add, state, kick), None

    first = jax.tree.map(lambda leaf, kick: leaf + kick[0], state, kicks)
    later = jax.tree.map(lambda kick: kick[1:], kicks)
    last, _ = jax.lax.scan(body, first, (xs, later))
    return jnp.cos(jnp.arange(cell.hidden, dtype=xs.dtype)) @ cell.read(last)


def zero_kicks(state, steps):
    return jax.tree.map(lambda leaf: jnp.zeros((steps + 1, *leaf.shape), leaf.dtype), state)


@every_case
def test_adjoints_of_a_sequence_are_products_of_explicit_jacobians(case):
    cell, params, state, xs = draw(case)
    adjoints = jax.grad(run, argnums=4)(cell, params, state, xs, zero_kicks(state, STEPS))
    measured = np.concatenate(jax.tree.leaves(adjoints), axis=1)

    p = {name: np.asarray(value) for name, value in params.items()}
    before, jacobians = flat(state), []
    for x in np.asarray(xs):
        jacobians.append(complex_step_jacobian(lambda s, x=x: EQUATIONS[case](p, s, x), before))
        before = EQUATIONS[case](p, before, x)
    expected = [np.concatenate([np.zeros(before.size - HIDDEN), np.cos(np.arange(HIDDEN))])]
    for jacobian in reversed(jacobians):
        expected.append(jacobian.T @ expected[-1])
    np.testing.assert_allclose(measured, np.stack(expected[::-1]), rtol=1e-12, atol=1e-15)


@every_case
def test_parameter_gradients_of_a_sequence_by_a_complex_step(case):
    cell, params, state, xs = draw(case)
    grads = jax.grad(run, argnums=1)(cell, params, state, xs, zero_kicks(state, STEPS))

    p = {name: np.asarray(value) for name, value in params.items()}
    v = np.cos(np.arange(HIDDEN))
    for name, value in p.items():

        def loss(moved, name=name, value=value):
            s = flat(state)
            for x in np.asarray(xs):
                s = EQUATIONS[case](p | {name: moved.reshape(value.shape)}, s, x)
            return np.atleast_1d(v @ s[-HIDDEN:])

        expected = complex_step_jacobian(loss, value.ravel())[0]
        np.testing.assert_allclose(np.ravel(grads[name]), expected, rtol=1e-11, atol=1e-14)


@both_dtypes
@every_case
def test_every_parameter_has_a_gradient(case, dtype):
    cell, params, state, xs = draw(case, dtype)
    if case == "elman-relu":
        # A unit that is never above zero rightly has none; a large bias keeps every unit on.
        params = params | {"bias": params["bias"] + 20}
    grads = jax.grad(run, argnums=1)(cell, params, state, xs, zero_kicks(state, STEPS))
    assert set(grads) == set(params)
    for name, gradient in grads.items():
        assert gradient.dtype == dtype
        assert np.isfinite(gradient).all(), name
        assert np.all(np.asarray(gradient) != 0), name


ORACLE = {"elman-tanh": "rnn", "lstm": "lstm"}
against_oracle = pytest.mark.parametrize("case", ORACLE)


def oracle(case):
    """The oracle's cell, parameters from its closed formula, state, sequence and answers."""
    count, width = REFERENCE["I"], REFERENCE["H"]
    cell = build(case, inputs=count, hidden=width)
    rows = len(cell.gates) * width

    def formula(name, rows, columns):
        i, j = np.arange(rows)[:, None], np.arange(columns)[None, :]
        phase = REFERENCE["phases"][name]
        return REFERENCE["A"] * np.sin(1 + 0.7 * i + 1.3 * j + 0.9 * i * j + phase)

    params = {
        "recurrent": formula("W_hh", rows, width),
        "input": formula("W_ih", rows, count),
        "bias": (formula("b_ih", rows, 1) + formula("b_hh", rows, 1))[:, 0],
    }
    h = jnp.array(REFERENCE["h0"])
    state = cells.LSTMState(jnp.array(REFERENCE["c0"]), h) if case == "lstm" else h
    xs = jnp.array(REFERENCE["x"])
    return cell, jax.tree.map(jnp.array, params), state, xs, REFERENCE["cells"][ORACLE[case]]


@against_oracle
def test_oracle_outputs(case):
    cell, params, state, xs, expected = oracle(case)
    outputs, memories = [cell.read(state)], [jax.tree.leaves(state)[0]]
    for x in xs:
        state = cell.step(params, state, x)
        outputs.append(cell.read(state))
        memories.append(jax.tree.leaves(state)[0])
    np.testing.assert_allclose(outputs, expected["h"], rtol=0, atol=1e-10)
    if case == "lstm":
        np.testing.assert_allclose(memories, expected["c"], rtol=0, atol=1e-10)


@against_oracle
def test_oracle_loss_gradients_and_adjoints(case):
    cell, params, state, xs, expected = oracle(case)
    kicks = zero_kicks(state, len(xs))
    value, (grads, adjoints) = jax.value_and_grad(run, argnums=(1, 4))(
        cell, params, state, xs, kicks
    )
    assert value == pytest.approx(expected["loss"], abs=1e-10)
    for ours, theirs in (("recurrent", "grad_W_hh"), ("input", "grad_W_ih"), ("bias", "grad_b_ih")):
        np.testing.assert_allclose(grads[ours], expected[theirs], rtol=0, atol=1e-10)
    h = cell.read(adjoints)
    np.testing.assert_allclose(h, expected["grad_h"], rtol=0, atol=1e-10)
    norms = np.linalg.norm(h, axis=1)
    np.testing.assert_allclose(norms, expected["grad_h_norm"], rtol=0, atol=1e-10)
    whole = np.linalg.norm(np.concatenate(jax.tree.leaves(adjoints), axis=1), axis=1)
    np.testing.assert_allclose(whole, expected["adjoint_state_norm"], rtol=0, atol=1e-10)
    if case == "lstm":
        norms = np.linalg.norm(adjoints.c, axis=1)
        np.testing.assert_allclose(norms, expected["grad_c_independent_norm"], rtol=0, atol=1e-10)


@against_oracle
def test_oracle_singular_values_of_each_step(case):
    cell, params, state, xs, expected = oracle(case)
    for x, singular in zip(xs, expected["jacobian_step_singular_values"], strict=True):
        vector, unravel = ravel_pytree(state)

        def step(vector, x=x, unravel=unravel):
            return ravel_pytree(cell.step(params, unravel(vector), x))[0]

        measured = np.linalg.svd(jax.jacobian(step)(vector), compute_uv=False)
        np.testing.assert_allclose(measured, singular, rtol=0, atol=1e-10)
        state = cell.step(params, state, x)


@pytest.mark.parametrize("row", REFERENCE["carousel"]["rows"], ids=lambda row: f"b_f={row[0]}")
def test_constant_error_carousel(row):
    forget_bias, log_sigma, product = row
    cell = build("lstm", recurrent=jax.nn.initializers.zeros, forget_bias=forget_bias)
    params = cell.init(jax.random.key(0), jnp.float64)

    def last_memory(c):
        def body(state, _):
            return cell.step(params, state, jnp.zeros(INPUTS)), None

        start = cells.LSTMState(c, jnp.zeros(HIDDEN))
        return jax.lax.scan(body, start, None, length=100)[0].c

    jacobian = jax.jacobian(last_memory)(jnp.ones(HIDDEN))
    np.testing.assert_allclose(jacobian, product * np.eye(HIDDEN), rtol=1e-12, atol=0)
    assert np.log(jacobian[0, 0]) / 100 == pytest.approx(log_sigma, rel=1e-12)


def test_the_forget_bias_is_an_axis():
    def bias(forget_bias):
        return build("lstm", forget_bias=forget_bias).init(jax.random.key(0), jnp.float32)["bias"]

    mapped = jax.jit(jax.vmap(bias))(jnp.array([0.0, 2.5], jnp.float64))
    assert mapped.dtype == jnp.float32
    expected = np.zeros((2, 4, HIDDEN))
    expected[1, 1] = 2.5
    np.testing.assert_array_equal(mapped.reshape(2, 4, HIDDEN), expected)


def test_make_is_the_builder():
    made = cells.make("lstm", inputs=2, hidden=3, forget_bias=2.0).init(jax.random.key(0))
    built = cells.lstm(2, 3, forget_bias=2.0).init(jax.random.key(0))
    assert jax.tree.all(jax.tree.map(np.array_equal, made, built))
    assert cells.names() == tuple(sorted(cells.names()))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lstn", {}, "unknown cell 'lstn'; did you mean 'lstm'? valid: elman, gru, lstm"),
        ("gru", {"forget_bais": 1.0}, "unknown gru option 'forget_bais'; valid: bias, hidden, inp"),
        ("lstm", {"forget_bais": 1.0}, "unknown lstm option 'forget_bais'; did you mean 'forget_b"),
        ("elman", {"activation": "than"}, "unknown activation 'than'; did you mean 'tanh'? valid"),
        ("elman", {"inputs": 0}, "elman needs inputs of at least 1, got 0"),
        ("gru", {"hidden": -2}, "gru needs hidden of at least 1, got -2"),
        ("lstm", {"hidden": 0}, "lstm needs hidden of at least 1, got 0"),
    ],
)
def test_bad_requests_are_refused(name, options, message):
    with pytest.raises(ValueError) as error:
        cells.make(name, **({"inputs": 2, "hidden": 2} | options))
    assert str(error.value).startswith(message)
