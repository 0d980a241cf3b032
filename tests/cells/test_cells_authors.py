"""Cells against the code that their authors published: where they start, and how weights come over.

The numbers are those of the files that the docstrings name. What a file computes is written out in
NumPy from the equations, in that file's own order of the blocks.
"""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradlab import cells
from gradlab.cells import CoRNNState, LEMState

D, H = 3, 4


def logistic(a):
    return 1 / (1 + np.exp(-a))


@functools.cache
def drawn(name, hidden=H):
    init = jax.jit(functools.partial(cells.make(name, inputs=D, hidden=hidden).init))
    return jax.device_get(init(jax.random.key(0)))


DEFAULTS = {
    "antisymmetric": {"epsilon": 0.01, "gamma": 0.01},
    "cornn": {"dt": 0.042, "gamma": 2.7, "epsilon": 4.7},
    "fastgrnn": {"forget_bias": 1.0, "update_bias": 1.0, "zeta": 1.0, "nu": -4.0},
    "gated_antisymmetric": {"epsilon": 0.01, "gamma": 0.01},
    "indrnn": {"activation": "relu"},
    "janet": {"forget_bias": 1.0, "beta": 1.0},
    "leaky": {"activation": "tanh", "dt": 0.1},
    "lem": {"dt": 1.0},
    "lru": {"r_min": 0.0, "r_max": 1.0, "max_phase": pytest.approx(6.28, abs=0.01)},
    "slstm": {"forget": "sigmoid"},
    "ugrnn": {"forget_bias": 1.0},
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_constants_are_those_of_the_authors_code(name):
    parameters = inspect.signature(getattr(cells, name)).parameters
    assert {option: parameters[option].default for option in DEFAULTS[name]} == DEFAULTS[name]


@pytest.mark.parametrize("name", cells.names())
def test_every_docstring_names_its_source(name):
    source = " ".join(inspect.getdoc(getattr(cells, name)).split("Source: ")[1].split())
    # A paper alone is enough where nobody published code, or where a paper is all there is.
    papers = ("elman", "gated_antisymmetric", "gru", "lstm", "mgu", "min_lstm", "minimal_rnn")
    assert ("github.com/" in source and " commit " in source) != (name in papers), source


def test_the_gate_of_fastgrnn_keeps_three_quarters_at_first():
    params = drawn("fastgrnn")
    np.testing.assert_array_equal(params["bias"], 1)
    cell = cells.fastgrnn(D, H)
    kept = np.exp(np.asarray(cell.log_retention(params), np.float64))
    np.testing.assert_allclose(kept, 1 / (1 + np.exp(-1)), rtol=1e-6)
    # From h = 0 and x = 0: (σ(1)(1 - σ(1)) + σ(-4)) tanh(1).
    first = cell.step(params, cell.start(), jnp.zeros(D))
    np.testing.assert_allclose(first, 0.16343, atol=1e-5)


def test_fastgrnn_starts_so_whatever_draws_its_biases():
    plain = cells.fastgrnn(D, 2, bias=jax.nn.initializers.constant(0.5), update_bias=0.0)
    bias = plain.init(jax.random.key(0))["bias"]
    assert bias.tolist() == [1.5, 1.5, 0.5, 0.5]


def test_what_the_authors_draw_at_random():
    u = drawn("indrnn", 400)["recurrent"]
    assert 0 <= u.min() < 0.02 and 0.98 < u.max() < 1
    b = drawn("orthogonal", 400)["bias"]
    assert -0.01 <= b.min() < -0.0098 and 0.0098 < b.max() < 0.01
    p = drawn("lstm_peephole", 100)["peephole"]
    # 300 draws: the deviation of a standard deviation is 0.1 / sqrt(600).
    assert np.std(p) == pytest.approx(0.1, abs=4 * 0.1 / np.sqrt(600))
    lru = drawn("lru", 400)
    assert np.exp(lru["theta_log"]).max() <= 2 * np.pi
    # Re B and Im B have variance 1/(2 D): 1,200 draws each.
    assert np.var(lru["input"]) == pytest.approx(1 / (2 * D), rel=4 * np.sqrt(2 / 2400))


def test_weights_of_the_authors_lem_come_over_in_the_order_of_the_docstring():
    rng = np.random.default_rng(0)
    inp2hid, hid2hid = rng.normal(size=(4 * H, D)), rng.normal(size=(3 * H, H))
    transform_z = rng.normal(size=(H, H))
    b_inp, b_hid, b_z = rng.normal(size=4 * H), rng.normal(size=3 * H), rng.normal(size=H)
    y, z, x, dt = rng.normal(size=H), rng.normal(size=H), rng.normal(size=D), 0.7

    # Theirs: the first block steps y, the second z; of x the third moves y, the fourth z.
    x_slow, x_fast, x_to_y, x_to_z = np.split(inp2hid @ x + b_inp, 4)
    h_slow, h_fast, h_to_z = np.split(hid2hid @ y + b_hid, 3)
    step_z, step_y = dt * logistic(x_fast + h_fast), dt * logistic(x_slow + h_slow)
    new_z = (1 - step_z) * z + step_z * np.tanh(x_to_z + h_to_z)
    new_y = (1 - step_y) * y + step_y * np.tanh(transform_z @ new_z + b_z + x_to_y)

    def ordered(blocks, order):
        blocks = np.split(blocks, len(order))
        return [blocks[index] for index in order]

    of_x, of_h = (1, 0, 3, 2), (1, 0, 2)
    params = {
        "input": np.concatenate(ordered(inp2hid, of_x)),
        "recurrent": np.concatenate([*ordered(hid2hid, of_h), transform_z]),
        "bias": np.concatenate(ordered(b_inp, of_x)) + np.concatenate([*ordered(b_hid, of_h), b_z]),
    }
    params = {name: jnp.asarray(leaf) for name, leaf in params.items()}
    state = cells.lem(D, H, dt=dt).step(params, LEMState(jnp.array(y), jnp.array(z)), x)
    np.testing.assert_allclose(state.y, new_y, rtol=1e-12)
    np.testing.assert_allclose(state.z, new_z, rtol=1e-12)
    # Taken as it stands, the published order is another network.
    raw = params | {"input": jnp.array(inp2hid)}
    other = cells.lem(D, H, dt=dt).step(raw, LEMState(jnp.array(y), jnp.array(z)), x)
    assert np.abs(other.y - new_y).max() > 0.1


def test_weights_of_the_authors_cornn_come_over_in_the_order_of_the_docstring():
    rng = np.random.default_rng(1)
    i2h, b = rng.normal(size=(H, D + 2 * H)), rng.normal(size=H)
    y, z, x = rng.normal(size=H), rng.normal(size=H), rng.normal(size=D)
    force = np.tanh(i2h @ np.concatenate([x, z, y]) + b)
    new_z = z + 0.042 * (force - 2.7 * y - 4.7 * z)
    U, V, W = np.split(i2h, [D, D + H], axis=1)
    params = {"input": U, "recurrent": np.concatenate([W, V]), "bias": b}
    params = {name: jnp.asarray(leaf) for name, leaf in params.items()}
    state = cells.cornn(D, H).step(params, CoRNNState(jnp.array(y), jnp.array(z)), x)
    np.testing.assert_allclose(state.z, new_z, rtol=1e-12)
    np.testing.assert_allclose(state.y, y + 0.042 * new_z, rtol=1e-12)
