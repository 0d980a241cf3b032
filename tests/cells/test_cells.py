"""Laws that every registered cell keeps, each against an equation written out in NumPy.

A new cell enters CASES and EQUATIONS of one of the modules of equations; a registered cell that is
missing there fails. Compiling is all that costs here: one program per case answers most laws.
"""

import functools
import json
import re
from pathlib import Path
from typing import NamedTuple

import equations_dynamical
import equations_gated
import equations_layer_norm
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import gradlab as gl
from gradlab import cells, initializers

INPUTS, HIDDEN, STEPS = 3, 4, 6
REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "cells.json").read_text())


def merged(table):
    """One table of all modules: CASES and EQUATIONS have every case, the others exceptions."""
    modules = equations_gated, equations_dynamical, equations_layer_norm
    tables = [getattr(module, table) for module in modules]
    together = {case: entry for entries in tables for case, entry in entries.items()}
    assert len(together) == sum(map(len, tables))
    return together


CASES, EQUATIONS = merged("CASES"), merged("EQUATIONS")
READS, SHAPES, MATRICES, IDLE = (merged(t) for t in ("READS", "SHAPES", "MATRICES", "IDLE"))
GATES = merged("GATES")
every_case = pytest.mark.parametrize("case", CASES)
every_gated_case = pytest.mark.parametrize("case", GATES)
GAINS = np.array([0.5, 1.0, 2.0], np.float32)
SHIFTS = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [-1, 0, 0.5, -2.5]], np.float32)
both_dtypes = pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])


def options(case):
    return cells.options(CASES[case][0])


def build(case, *, inputs=INPUTS, hidden=HIDDEN, **options):
    """The cell of a case."""
    name, fixed = CASES[case]
    return cells.make(name, inputs=inputs, hidden=hidden, **fixed | options)


def shapes(case):
    """The shape of every parameter: a block for each gate, or what the case says."""
    rows = len(build(case).gates) * HIDDEN
    blocks = {"recurrent": (rows, HIDDEN), "input": (rows, INPUTS), "bias": (rows,)}
    return SHAPES.get(case, blocks)


def flat(tree, axis=0):
    """The leaves side by side along ``axis``, a complex one as its real and imaginary parts."""
    parts = []
    for leaf in map(np.asarray, jax.tree.leaves(tree)):
        parts += [leaf.real, leaf.imag] if np.iscomplexobj(leaf) else [leaf]
    return np.concatenate([np.reshape(part, (*part.shape[:axis], -1)) for part in parts], axis)


def unflat(vector, like):
    """The state with the leaves of ``like`` whose ``flat`` is ``vector``."""
    leaves, at = [], 0
    for leaf in jax.tree.leaves(like):
        part = vector[at : at + leaf.size].reshape(leaf.shape)
        at += leaf.size
        if jnp.iscomplexobj(leaf):
            part = part + 1j * vector[at : at + leaf.size].reshape(leaf.shape)
            at += leaf.size
        leaves.append(jnp.asarray(part, leaf.dtype))
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def complex_step_jacobian(f, x):
    columns = [np.imag(f(x + 1e-30j * unit)) / 1e-30 for unit in np.eye(x.size)]
    return np.stack(columns, axis=1)


def run(cell, params, kicks, state, xs, weights):
    """Return sum_t w_t·h_t and the states, a zero added to each state, h_0 first, for its adjoint.

    This one program shows the states, the adjoints, the parameters' gradients and what is
    transported from step to step.
    """

    def body(state, inputs):
        x, kick = inputs
        state = jax.tree.map(jnp.add, cell.step(params, state, x), kick)
        return state, (state, cell.read(state))

    first = jax.tree.map(lambda leaf, kick: leaf + kick[0], state, kicks)
    later = jax.tree.map(lambda kick: kick[1:], kicks)
    _, (states, hs) = jax.lax.scan(body, first, (xs, later))
    return jnp.sum(weights * hs), (states, hs)


def zero_kicks(state, steps):
    return jax.tree.map(lambda leaf: jnp.zeros((steps + 1, *leaf.shape), leaf.dtype), state)


@functools.cache
def initialized(name):
    """Parameters by init in float32, mapped over keys, gains and forget biases, and one by one."""
    case = next(case for case in CASES if CASES[case][0] == name)
    free = {"recurrent", "forget_bias"} & set(options(case))

    def init(key, gain, shift):
        given = {"recurrent": initializers.orthogonal(gain), "forget_bias": shift}
        return build(case, **{name: given[name] for name in free}).init(key, jnp.float32)

    def program(*axes):
        return jax.vmap(init)(*axes), jax.lax.map(lambda at: init(*at), axes)

    keys = jax.random.split(jax.random.key(1), len(GAINS))
    return jax.device_get(jax.jit(program)(keys, GAINS, SHIFTS))


def inits(case):
    # Cases of one cell differ in how it steps; compiling takes a second.
    return initialized(CASES[case][0])


class Sample(NamedTuple):
    """A cell in float64 with generic parameters, a state it can be in, inputs and weights."""

    cell: cells.Cell
    params: dict
    state: object
    xs: np.ndarray
    weights: np.ndarray


@functools.cache
def sample(case):
    cell, rng = build(case), np.random.default_rng(3)
    params = {
        name: value[0] + rng.normal(0, 0.3, value[0].shape)
        for name, value in sorted(inits(case)[0].items())
    }
    xs = rng.normal(size=(STEPS, INPUTS))
    like = jax.eval_shape(lambda: cell.start(jnp.float64))
    state = flat(jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like))
    for x in rng.normal(size=(2, INPUTS)):
        state = EQUATIONS[case](params, state, x)
    return Sample(cell, params, unflat(state, like), xs, rng.normal(size=(STEPS, HIDDEN)))


def cast(case, dtype):
    """The sample in a precision, in the order that ``run`` takes it after the cell."""
    s = sample(case)
    narrow = functools.partial(jax.tree.map, lambda leaf: jnp.asarray(leaf, narrowed(leaf, dtype)))
    params, state, xs, weights = map(narrow, (s.params, s.state, s.xs, s.weights))
    return params, zero_kicks(state, STEPS), state, xs, weights


@functools.cache
def measured(case):
    """All numbers of a case in double precision: the scan traced, and the step's other uses."""
    cell = build(case)

    def program(params, kicks, state, xs, weights):
        scanned = functools.partial(run, cell)
        out = gl.trace(scanned, argnums=(0, 1), has_aux=True)(params, kicks, state, xs, weights)
        drives = jax.vmap(cell.project, in_axes=(None, 0))(params, xs)
        mapped = jax.vmap(cell.step, in_axes=(None, None, 0))(params, state, xs)
        split = jax.vmap(cell.advance, in_axes=(None, None, 0))(params, state, drives)
        return out, mapped, split

    return jax.device_get(jax.jit(program)(*cast(case, jnp.float64)))


@functools.cache
def measured_in_single(case):
    """The gradients of a case in single precision, its states and what it reads."""
    scanned = functools.partial(run, build(case))
    program = jax.jit(jax.grad(scanned, argnums=(0, 1), has_aux=True))
    return jax.device_get(program(*cast(case, jnp.float32)))


def narrowed(leaf, dtype):
    return jnp.result_type(dtype, jnp.complex64) if jnp.iscomplexobj(leaf) else dtype


class Written(NamedTuple):
    """What the written equation says of a sample, h_0 first."""

    states: np.ndarray
    jacobians: np.ndarray
    direct: np.ndarray
    transported: np.ndarray


def read(case, state):
    return READS[case](state) if case in READS else state[-HIDDEN:]


@functools.cache
def written(case):
    s, equation = sample(case), EQUATIONS[case]
    states, jacobians, direct = [flat(s.state)], [], [np.zeros(flat(s.state).size)]
    for x, weight in zip(s.xs, s.weights, strict=True):
        before = states[-1]
        jacobians.append(complex_step_jacobian(lambda h, x=x: equation(s.params, h, x), before))
        states.append(equation(s.params, before, x))
        reading = complex_step_jacobian(functools.partial(read, case), states[-1])
        direct.append(reading.T @ weight)
    transported = [np.zeros_like(direct[-1])]
    for jacobian, own in zip(reversed(jacobians), reversed(direct), strict=False):
        transported.append(jacobian.T @ (own + transported[-1]))
    return Written(*map(np.stack, (states, jacobians, direct, transported[::-1])))


def test_every_registered_cell_is_under_these_laws():
    assert {name for name, _ in CASES.values()} == set(cells.names())
    assert set(EQUATIONS) == set(CASES)
    assert set(READS) | set(SHAPES) | set(MATRICES) | set(IDLE) | set(GATES) <= set(CASES)


@both_dtypes
@every_case
def test_shapes_and_dtypes(case, dtype):
    cell = build(case)
    params = jax.eval_shape(lambda key: cell.init(key, dtype), jax.random.key(0))
    state = jax.eval_shape(lambda: cell.start(dtype))
    assert (cell.name, cell.hidden, cell.inputs) == (CASES[case][0], HIDDEN, INPUTS)
    assert {name: leaf.shape for name, leaf in params.items()} == shapes(case)
    x = jax.ShapeDtypeStruct((INPUTS,), dtype)
    after = jax.eval_shape(cell.step, params, state, x)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert jax.eval_shape(cell.read, after).shape == (HIDDEN,)
    assert jax.eval_shape(cell.read, after).dtype == dtype
    for leaf in jax.tree.leaves((params, state, after)):
        assert leaf.dtype == narrowed(leaf, dtype)
    for before, leaf in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert before.shape == leaf.shape
    if cell.log_retention is not None:
        retention = jax.eval_shape(cell.log_retention, params)
        assert (retention.shape, retention.dtype) == ((HIDDEN,), dtype)


@every_case
def test_default_dtype_is_jax_s_own(case):
    cell = build(case)
    params = jax.eval_shape(cell.init, jax.random.key(0))
    for leaf in jax.tree.leaves((params, jax.eval_shape(cell.start))):
        assert leaf.dtype == narrowed(leaf, jnp.result_type(float))


@every_case
def test_start_is_zero(case):
    assert not flat(build(case).start()).any()


@every_case
def test_width_one_works(case):
    cell = build(case, inputs=1, hidden=1)
    params = jax.eval_shape(cell.init, jax.random.key(0))
    state = jax.eval_shape(cell.step, params, jax.eval_shape(cell.start), jnp.ones(1))
    assert jax.eval_shape(cell.read, state).shape == (1,)


@every_case
def test_step_is_the_equation(case):
    (out, mapped, split), expected = measured(case), written(case)
    states, hs = out.aux
    np.testing.assert_allclose(flat(states, 1), expected.states[1:], rtol=1e-12, atol=1e-14)
    read_there = [read(case, state) for state in expected.states[1:]]
    np.testing.assert_allclose(hs, read_there, rtol=1e-12, atol=1e-14)

    s = sample(case)
    alone = [EQUATIONS[case](s.params, flat(s.state), x) for x in s.xs]
    np.testing.assert_allclose(flat(mapped, 1), alone, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(flat(split, 1), alone, rtol=1e-12, atol=1e-14)


@every_case
def test_the_plain_step_is_the_compiled_one(case):
    s, (_, mapped, _) = sample(case), measured(case)
    params, state = jax.tree.map(jnp.asarray, (s.params, s.state))
    plain = s.cell.step(params, state, jnp.asarray(s.xs[0]))
    np.testing.assert_allclose(flat(plain), flat(mapped, 1)[0], rtol=1e-12, atol=1e-14)


@functools.cache
def gates_measured(case):
    """The gates of every step of a sample, the gradient of their sum, and what biases make of them.

    The biases are those of the sample with 50 added to one gate's block, or taken from it, and the
    other way round at the gate that shares its scale.
    """
    cell = build(case)
    shifts = [bias_shift(case, name, size) for name in cell.gates for size in (-50, 50)]

    def program(params, states, xs):
        every = jax.vmap(cell.gate_values, (None, 0, 0))
        total = jax.grad(lambda p: sum(map(jnp.sum, jax.tree.leaves(every(p, states, xs)))))
        biases = params["bias"][None] + jnp.asarray(np.stack(shifts))
        moved = jax.vmap(lambda b: every(params | {"bias": b}, states, xs))(biases)
        return every(params, states, xs), total(params), moved

    params, _, state, xs, _ = cast(case, jnp.float64)
    like = jax.eval_shape(lambda: state)
    before = [unflat(vector, like) for vector in written(case).states[:-1]]
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *before)
    return jax.device_get(jax.jit(program)(params, states, xs))


def bias_shift(case, gate, size):
    names = build(case).gates
    shift = np.zeros((len(names), HIDDEN))
    shift[names.index(gate)] = size
    # In these two the gates are shares of their sum, or in units of the larger.
    other = {"i": "f", "f": "i"}.get(gate)
    if case.startswith(("min_lstm", "slstm")) and other:
        shift[names.index(other)] = -size
    return shift.ravel()


@every_gated_case
def test_gate_values_are_the_written_gates(case):
    gates, gradient, _ = gates_measured(case)
    s = sample(case)
    expected = [
        GATES[case](s.params, before, x)
        for before, x in zip(written(case).states[:-1], s.xs, strict=True)
    ]
    assert set(gates) == set(expected[0]) <= set(s.cell.gates)
    for name, value in gates.items():
        assert value.shape == (STEPS, HIDDEN)
        assert 0 <= value.min() and value.max() <= 1
        rows = [row[name] for row in expected]
        np.testing.assert_allclose(value, rows, rtol=1e-12, atol=1e-14)

    def total(bias):
        p = s.params | {"bias": bias}
        pairs = zip(written(case).states[:-1], s.xs, strict=True)
        return np.sum([np.sum(list(GATES[case](p, *pair).values())) for pair in pairs], keepdims=1)

    (slopes,) = complex_step_jacobian(total, s.params["bias"].astype(complex))
    np.testing.assert_allclose(gradient["bias"], slopes, rtol=1e-9, atol=1e-12)


@every_gated_case
def test_a_gate_that_its_bias_saturates_shows_it(case):
    _, _, moved = gates_measured(case)
    highest = 0.8 if case == "lem" else 1
    for row, name in enumerate(name for name in build(case).gates for _ in range(2)):
        if name in moved:
            end = highest if row % 2 else 0
            np.testing.assert_allclose(moved[name][row], end, rtol=1e-15, atol=1e-15)


@every_case
def test_cells_without_gates_show_none(case):
    cell = build(case)
    shown = jax.eval_shape(
        lambda key, x: cell.gate_values(cell.init(key), cell.start(), x),
        jax.random.key(0),
        jax.ShapeDtypeStruct((INPUTS,), jnp.float32),
    )
    assert bool(shown) == (case in GATES)
    sentence = (
        str(getattr(cells, cell.name).__doc__).partition("`gate_values`")[2].partition(". ")[0]
    )
    assert set(shown) <= set(re.findall(r"\w+", sentence))
    assert bool(sentence) == bool(shown)
    # A remedy that wraps a cell leaves its gates as they are.
    if cell.name != "slstm":
        assert gl.remedies.leak(cell, 0.5).gate_values is cell.gate_values


# case -> the part of the new flat state that gates and a candidate make, and the part itself.
REBUILT = {
    "lstm": lambda g, p, s, x: (
        g["f"] * s[:4] + g["i"] * np.tanh(equations_gated.gate(p, 2, s[4:], x)),
        slice(4),
    ),
    "gru-reset-before": lambda g, p, h, x: (
        g["z"] * h + (1 - g["z"]) * np.tanh(equations_gated.gate(p, 2, g["r"] * h, x)),
        slice(None),
    ),
    "mgu": lambda g, p, h, x: (
        (1 - g["f"]) * h + g["f"] * np.tanh(equations_gated.gate(p, 1, g["f"] * h, x)),
        slice(None),
    ),
    "ugrnn": lambda g, p, h, x: (
        g["g"] * h + (1 - g["g"]) * np.tanh(equations_gated.gate(p, 1, h, x)),
        slice(None),
    ),
    "min_lstm": lambda g, p, h, x: (
        g["f"] * h + g["i"] * (p["input"][8:] @ x + p["bias"][8:]),
        slice(None),
    ),
    "slstm-sigmoid": lambda g, p, s, x: (g["f"] * s[12:] + g["i"], slice(12, None)),
}


@pytest.mark.parametrize("case", REBUILT)
def test_the_new_state_is_made_by_the_gates(case):
    s, (out, *_), (gates, *_) = sample(case), measured(case), gates_measured(case)
    after = flat(out.aux[0], 1)
    for t, x in enumerate(s.xs):
        shown = {name: value[t] for name, value in gates.items()}
        expected, part = REBUILT[case](shown, s.params, written(case).states[t], x)
        np.testing.assert_allclose(after[t, part], expected, rtol=1e-12, atol=1e-14)


def test_the_projected_lstm_has_gates_of_its_memory_s_width():
    cell = cells.lstm_projected(3, 2, memory=5, forget_bias=50.0)
    params = cell.init(jax.random.key(0))
    gates = cell.gate_values(params, cell.start(), jnp.ones(3))
    assert {name: value.shape for name, value in gates.items()} == dict.fromkeys("ifo", (5,))
    assert np.all(gates["f"] == 1) and not np.all(gates["i"] == gates["o"])


def test_a_user_s_cell_has_the_gates_that_it_names():
    init = cells.gate_init(2, 3)

    def advance(params, h, drive):
        return jnp.tanh(params["recurrent"] @ h + drive)

    def gate_values(params, h, x):
        return {"k": jax.nn.sigmoid(h)}

    plain = cells.Cell(2, 3, init, advance)
    gated = cells.Cell(2, 3, init, advance, gate_values=gate_values)
    params, x = init(jax.random.key(0)), jnp.ones(2)
    assert plain.gate_values(params, plain.start(), x) == {}
    assert gated.gate_values(params, gated.start(), x)["k"].tolist() == [0.5] * 3

    for wrong, got in (
        (lambda params, h, x: h, r"float32\[3\]"),
        (lambda params, h, x: {"k": h.sum()}, r"{k: float32\[\]}"),
    ):

        @cells.register
        def odd(inputs, hidden, wrong=wrong):
            return cells.Cell(
                inputs, hidden, cells.gate_init(inputs, hidden), advance, gate_values=wrong
            )

        try:
            with pytest.raises(ValueError, match=f"gate_values of the cell odd must .* got {got}"):
                cells.make("odd", inputs=2, hidden=3)
        finally:
            cells.REGISTRY.remove("odd")


@every_case
def test_single_precision_is_double_precision_rounded(case):
    narrow, wide = measured_in_single(case), measured(case)[0]
    for leaf in jax.tree.leaves(narrow):
        assert leaf.dtype == narrowed(leaf, jnp.float32)
    for ours, theirs in zip(narrow, (wide.grads, wide.aux), strict=True):
        np.testing.assert_allclose(flat(ours), flat(theirs), rtol=1e-4, atol=1e-4)


@every_case
def test_init_under_vmap_is_init_one_by_one(case):
    mapped, one_by_one = inits(case)
    for name, value in one_by_one.items():
        assert value.dtype == mapped[name].dtype == jnp.float32
        np.testing.assert_allclose(mapped[name], value, rtol=1e-5, atol=1e-6)


@every_case
def test_every_gate_is_drawn_on_its_own(case):
    params = inits(case)[0]
    for name in {"recurrent", "input"} & set(params):
        parts = np.split(params[name], max(1, len(params[name][0]) // HIDDEN), axis=1)
        for one in range(len(parts)):
            for other in range(one):
                assert not np.any(parts[one] == parts[other])
    if case not in MATRICES:
        blocks = jax.vmap(build(case).matrices)(params)
        audit = initializers.audit(blocks)
        assert audit["orthogonality_error"].max() < 1e-5
        norms = np.linalg.norm(blocks, ord=2, axis=(-2, -1))
        np.testing.assert_allclose(norms, np.tile(GAINS, (blocks.shape[1], 1)).T, rtol=1e-5)


@every_case
def test_matrices_are_those_of_the_last_state(case):
    s = sample(case)
    if case in MATRICES:
        expected = MATRICES[case](s.params)
    else:
        expected = s.params["recurrent"].reshape(len(s.cell.gates), HIDDEN, HIDDEN)
    blocks = s.cell.matrices(jax.tree.map(jnp.asarray, s.params))
    np.testing.assert_allclose(blocks, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("case", [c for c in CASES if build(c).log_retention is not None])
def test_log_retention_is_an_eigenvalue_of_the_step_at_rest(case):
    """With no weights and no input the step keeps k of its memory, after any transient."""
    cell, params = build(case), sample(case).params
    weights = {"recurrent", "input", "peephole", "embedded"} & set(params)
    params = params | {name: np.zeros_like(params[name]) for name in weights}
    state = flat(sample(case).state)
    for _ in range(50):
        state = EQUATIONS[case](params, state, np.zeros(INPUTS))
    step = functools.partial(EQUATIONS[case], params, x=np.zeros(INPUTS))
    found = np.abs(np.linalg.eigvals(complex_step_jacobian(step, state)))
    for retention in np.exp(cell.log_retention(jax.tree.map(jnp.asarray, params))):
        np.testing.assert_allclose(found[np.abs(found - retention).argmin()], retention, rtol=1e-9)


@pytest.mark.parametrize("case", [c for c in CASES if "forget_bias" in options(c)])
def test_the_forget_bias_moves_what_is_kept_and_nothing_else(case):
    cell = build(case)
    for index, shift in enumerate(SHIFTS):
        params = {name: value[index] for name, value in inits(case)[0].items()}
        log_odds = cell.log_retention(params)
        # The logistic function's inverse, in float64; an exponential gate's is the logarithm.
        if CASES[case][1].get("forget") != "exp":
            log_odds = log_odds - np.log(-np.expm1(np.float64(log_odds)))
        np.testing.assert_allclose(log_odds, shift, rtol=1e-5, atol=1e-6)
        moved = params["bias"] != inits(case)[0]["bias"][0]  # the first row's shift is 0
        assert np.count_nonzero(moved) == np.count_nonzero(shift)


@every_case
def test_adjoints_of_a_sequence_are_products_of_explicit_jacobians(case):
    # JAX's gradient of a complex leaf is dL/dre - i dL/dim.
    adjoints = flat(jax.tree.map(np.conj, measured(case)[0].grads[1]), 1)
    expected = written(case).direct + written(case).transported
    np.testing.assert_allclose(adjoints, expected, rtol=1e-10, atol=1e-13)


@every_case
def test_trace_measures_what_explicit_jacobians_carry_back(case):
    (scan,) = measured(case)[0].scans
    expected = written(case)
    total = np.linalg.norm((expected.direct + expected.transported)[1:], axis=1)
    np.testing.assert_allclose(scan.log_norm, np.log(total), rtol=0, atol=1e-11)
    direct = np.linalg.norm(expected.direct[1:], axis=1)
    np.testing.assert_allclose(scan.log_direct, np.log(direct), rtol=0, atol=1e-11)
    transported = np.linalg.norm(expected.transported[1:], axis=1)
    np.testing.assert_allclose(
        scan.log_transported[:-1], np.log(transported[:-1]), rtol=0, atol=1e-11
    )
    assert scan.log_transported[-1] == -np.inf


@every_case
def test_parameter_gradients_of_a_sequence_by_a_complex_step(case):
    s, (grads, _) = sample(case), measured(case)[0].grads
    assert set(grads) == set(s.params)
    for name, value in s.params.items():

        def loss(moved, name=name, value=value):
            state, total = flat(s.state), 0
            for x, weight in zip(s.xs, s.weights, strict=True):
                params = s.params | {name: moved.reshape(value.shape)}
                state = EQUATIONS[case](params, state, x)
                total = total + weight @ read(case, state)
            return np.atleast_1d(total)

        expected = complex_step_jacobian(loss, value.ravel())[0]
        np.testing.assert_allclose(np.ravel(grads[name]), expected, rtol=1e-10, atol=1e-13)


@every_case
def test_every_parameter_has_a_gradient(case):
    for grads in (measured(case)[0].grads[0], measured_in_single(case)[0][0]):
        for name, gradient in grads.items():
            assert np.isfinite(gradient).all(), name
            idle = IDLE.get(case, {}).get(name, np.zeros(gradient.shape, bool))
            np.testing.assert_array_equal(gradient == 0, idle, err_msg=name)


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
    weights = jnp.zeros((len(xs), cell.hidden)).at[-1].set(jnp.array(REFERENCE["v"]))
    (value, _), (grads, adjoints) = jax.value_and_grad(run, argnums=(1, 2), has_aux=True)(
        cell, params, kicks, state, xs, weights
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


def slstm_from_the_start(forget, preactivations, steps):
    """Return h after some steps with constant preactivations (i, f, z, o) and its gradient."""
    cell = build("slstm-" + forget)
    shapes_of = jax.eval_shape(cell.init, jax.random.key(0))
    params = {name: jnp.zeros(leaf.shape, jnp.float32) for name, leaf in shapes_of.items()}

    def output(bias):
        state, p = cell.start(jnp.float32), params | {"bias": jnp.repeat(bias, HIDDEN)}
        xs = jnp.zeros((steps, INPUTS), jnp.float32)
        last, _ = jax.lax.scan(lambda state, x: (cell.step(p, state, x), None), state, xs)
        return cell.read(last)[0]

    return jax.jit(jax.value_and_grad(output))(jnp.array(preactivations, jnp.float32))


@pytest.mark.parametrize(
    ("forget", "i", "f"),
    [("sigmoid", -200, 5), ("sigmoid", 200, -200), ("exp", -200, 90), ("exp", 300, 300)],
)
def test_slstm_is_a_mean_of_its_inputs_beyond_the_float_s_range(forget, i, f):
    # Inputs that are all tanh(z) have the mean tanh(z), whatever the weights that the gates give.
    for steps in (1, 40):
        h, gradient = slstm_from_the_start(forget, [i, f, 0.5, 1.0], steps)
        sigma, tanh = 1 / (1 + np.exp(-1)), np.tanh(0.5)
        assert h == pytest.approx(sigma * tanh, rel=1e-6)
        expected = [0, 0, sigma * (1 - tanh**2), sigma * (1 - sigma) * tanh]
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


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


def test_make_is_the_builder():
    made = cells.make("lstm", inputs=2, hidden=3, forget_bias=2.0).init(jax.random.key(0))
    built = cells.lstm(2, 3, forget_bias=2.0).init(jax.random.key(0))
    assert jax.tree.all(jax.tree.map(np.array_equal, made, built))
    assert cells.names() == tuple(sorted(cells.names()))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lstn", {}, "unknown cell 'lstn'; did you mean 'lstm'? valid: antis"),
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
