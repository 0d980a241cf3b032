"""cuDNN's LSTM as the scans that it stands for, against a loop in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import rnn
from jaxlib import gpu_rnn

import gradlab as gl

BATCH, LENGTH, INPUTS, WIDTH = 2, 4, 3, 2
LENGTHS = np.array([4, 2], np.int32)


@pytest.fixture(autouse=True)
def sizes(monkeypatch):
    """The type of the primitive asks the GPU's library, which a CPU's jaxlib lacks."""
    monkeypatch.setattr(
        gpu_rnn, "compute_rnn_workspace_reserve_space_sizes", lambda *_: (0, 16), raising=False
    )


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def run_loop(w, x, layers, directions, bump=None):
    """The loss, sample by sample and step by step; `bump` moves h after one step of one scan."""
    count, start = layers * directions, 0

    def take(*shape):
        nonlocal start
        start += np.prod(shape)
        return w[start - np.prod(shape) : start].reshape(shape)

    inputs = [INPUTS if i < directions else directions * WIDTH for i in range(count)]
    matrices = [(take(4 * WIDTH, n), take(4 * WIDTH, WIDTH)) for n in inputs]
    biases = [(take(4 * WIDTH), take(4 * WIDTH)) for _ in range(count)]
    loss = 0
    for b in range(BATCH):
        rows = list(x[b, : LENGTHS[b]])
        for layer in range(layers):
            outs = []
            for direction in range(directions):
                i = layer * directions + direction
                h, c, ys = np.full(WIDTH, 0.1), np.full(WIDTH, -0.2), {}
                order = range(len(rows))[:: -1 if direction else 1]
                for t in order:
                    z = matrices[i][0] @ rows[t] + biases[i][0] + matrices[i][1] @ h + biases[i][1]
                    gates = np.split(z, 4)
                    c = sigmoid(gates[1]) * c + sigmoid(gates[0]) * np.tanh(gates[2])
                    h = sigmoid(gates[3]) * np.tanh(c)
                    if bump and bump[:3] == (i, t, b):
                        h = h + bump[3]
                    ys[t] = h
                outs.append([ys[t] for t in range(len(rows))])
                loss += np.sum(h) + np.sum(c**2)
            rows = [np.concatenate(parts) for parts in zip(*outs, strict=True)]
        loss += sum(np.sum(row**2) for row in rows)
    return loss


@pytest.mark.parametrize("layers, directions", [(1, 1), (2, 2)])
def test_value_gradient_and_record(layers, directions):
    count = layers * directions
    both = directions == 2
    size = rnn.get_num_params_in_lstm(INPUTS, WIDTH, layers, both)
    rng = np.random.default_rng(0)
    w, x = rng.normal(size=size) / 2, rng.normal(size=(BATCH, LENGTH, INPUTS))
    h0, c0 = np.full((count, BATCH, WIDTH), 0.1), np.full((count, BATCH, WIDTH), -0.2)

    def loss(w, x):
        y, h, c = rnn.lstm(x, h0, c0, w, LENGTHS, INPUTS, WIDTH, layers, 0.0, both)
        return jnp.sum(y**2) + jnp.sum(h) + jnp.sum(c**2)

    out = gl.trace(loss, batch_axis=0)(w, x)
    np.testing.assert_allclose(out.value, run_loop(w, x, layers, directions))
    along = rng.normal(size=size)
    slope = (
        run_loop(w + 1e-6 * along, x, layers, directions)
        - run_loop(w - 1e-6 * along, x, layers, directions)
    ) / 2e-6
    np.testing.assert_allclose(out.grads @ along, slope, rtol=1e-7)

    assert [scan.reverse for scan in out.scans] == [False, True][:directions] * layers
    assert all(
        "test_cudnn.py" in scan.name and list(scan.leaves) == ["c", "h"] for scan in out.scans
    )
    for i, t, b in [(0, 0, 0), (0, 1, 1), (count - 1, 2, 0), (count - 1, 0, 1)]:
        adjoint = [
            run_loop(w, x, layers, directions, (i, t, b, 1e-6 * unit))
            - run_loop(w, x, layers, directions, (i, t, b, -1e-6 * unit))
            for unit in np.eye(WIDTH)
        ]
        log = np.log(np.linalg.norm(adjoint) / 2e-6)
        np.testing.assert_allclose(out.scans[i].leaves["h"][t, b], log, atol=1e-6)


def test_dropout_is_not_guessed():
    size = rnn.get_num_params_in_lstm(INPUTS, WIDTH, 2, False)
    x, h0 = jnp.ones((BATCH, LENGTH, INPUTS)), jnp.zeros((2, BATCH, WIDTH))

    def loss(w):
        return jnp.sum(rnn.lstm(x, h0, h0, w, LENGTHS, INPUTS, WIDTH, 2, 0.5, False)[0])

    with pytest.raises(ValueError, match="rnn_fwd at .* may hold a recurrence"):
        gl.trace(loss)(jnp.ones(size))


def test_the_lstm_in_a_compiled_model():
    size = rnn.get_num_params_in_lstm(INPUTS, WIDTH, 1, False)
    x, h0 = jnp.ones((BATCH, LENGTH, INPUTS)), jnp.zeros((1, BATCH, WIDTH))

    @jax.jit
    def model(w):
        return rnn.lstm(x, h0, h0, w, LENGTHS, INPUTS, WIDTH, 1, 0.0, False)[0]

    (scan,) = gl.trace(lambda w: jnp.sum(model(w) ** 2))(jnp.ones(size)).scans
    assert scan.length == LENGTH
