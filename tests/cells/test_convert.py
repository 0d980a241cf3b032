"""Weights of other libraries: the same outputs and gradients, to 1e-10 in float64.

PyTorch's answers are in reference/gru_torch.json, made by experiments/gru_oracle.py. The other
libraries run here, each stepped by its own cell. A gradient by a library's weights is compared
through the conversion: gradlab's loss as a function of that library's own tree of weights.
"""

import functools
import importlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab as gl
from gradlab import cells, initializers
from gradlab.cells import LSTMState

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "gru_torch.json").read_text())
INPUTS, HIDDEN, STEPS = REFERENCE["I"], REFERENCE["H"], REFERENCE["T"]
F64 = jnp.float64

close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-10)


def formula(phase, shape):
    i = np.arange(shape[0])[:, None]
    j = np.arange(shape[1] if len(shape) == 2 else 1)[None, :]
    wave = np.sin(1 + 0.7 * i + 1.3 * j + 0.9 * i * j + phase)
    return (REFERENCE["A"] * wave).reshape(shape)


def filled(tree):
    """The formula's values in a tree of shapes, another phase at every leaf."""
    leaves, structure = jax.tree.flatten(tree)
    values = [jnp.asarray(formula(0.1 + 0.8 * n, leaf.shape)) for n, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, values)


XS = np.cos(0.5 * np.arange(STEPS)[:, None] + np.arange(INPUTS))
WEIGHTS = np.cos(0.7 * np.arange(1, STEPS + 1)[:, None] + np.arange(HIDDEN))
H_0, C_0 = 0.3 * np.sin(np.arange(HIDDEN) + 1.0), 0.2 * np.cos(np.arange(HIDDEN))


def start(cell):
    return LSTMState(jnp.array(C_0), jnp.array(H_0)) if cell == "lstm" else jnp.array(H_0)


def run(step, xs, state, kicks):
    """The loss and all states; a zero is added to each state, h_0 first, for its adjoint."""

    def body(state, inputs):
        x, kick = inputs
        state = jax.tree.map(jnp.add, step(state, x), kick)
        return state, state

    first = jax.tree.map(lambda leaf, kick: leaf + kick[0], state, kicks)
    later = jax.tree.map(lambda kick: kick[1:], kicks)
    _, states = jax.lax.scan(body, first, (xs, later))
    h = states.h if isinstance(states, LSTMState) else states
    return jnp.sum(WEIGHTS * h), states


def quiet(state):
    return jax.tree.map(lambda leaf: jnp.zeros((STEPS + 1, *leaf.shape)), state)


def torch_weights(name, suffix=""):
    rows = {"rnn": 1, "gru": 3, "lstm": 4}[name.split("_")[0]] * HIDDEN
    shapes = {"weight_ih": (rows, INPUTS), "weight_hh": (rows, HIDDEN)}
    shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
    phases = REFERENCE["phases"]
    return {key + suffix: formula(phases[key], shape) for key, shape in shapes.items()}


class Tensor:
    """What of a torch.Tensor matters here: NumPy is refused until it is detached."""

    def __init__(self, values, detached=False):
        self.values, self.detached = values, detached

    def detach(self):
        return Tensor(self.values, True)

    def cpu(self):
        return self

    def numpy(self):
        assert self.detached
        return np.array(self.values)

    def __array__(self, *_, **__):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


@pytest.mark.parametrize("name", REFERENCE["cells"])
def test_pytorch_s_outputs_and_gradients(name):
    expected = REFERENCE["cells"][name]
    weights = torch_weights(name, "_l0")
    if name == "gru_reset_before":
        cell = cells.gru_reset_before(INPUTS, HIDDEN)
        names = {"recurrent": "weight_hh", "input": "weight_ih", "bias": "bias_ih"}
        params = {ours: jnp.array(weights[f"{theirs}_l0"]) for ours, theirs in names.items()}
    else:
        activation = {"rnn_relu": "relu", "rnn_tanh": "tanh"}.get(name)
        cell, params = cells.from_torch(weights, activation=activation)

    def loss(params, xs, kicks):
        return run(functools.partial(cell.step, params), xs, start(cell.name), kicks)

    program = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))
    (value, states), (grads, by_x, adjoints) = program(params, XS, quiet(start(cell.name)))
    close(cell.read(states), expected["h"][1:])
    close(value, expected["loss"])
    close(by_x, expected["grad_x"])
    close(cell.read(adjoints), expected["grad_h"])
    if name == "lstm":
        close(states.c, expected["c"][1:])
        close(adjoints.c, expected["grad_c"])
    close(grads["recurrent"], expected["grad_weight_hh"])
    close(grads["input"], expected["grad_weight_ih"])
    close(grads["bias"], expected["grad_bias_ih"])
    if name == "gru":
        close(grads["recurrent_bias"], expected["grad_bias_hh"][2 * HIDDEN :])


@pytest.mark.parametrize("name", REFERENCE["stacks"])
def test_real_modules_of_two_layers_both_ways(name):
    stack = REFERENCE["stacks"][name]
    weights = {f"model.rnn.{key}": Tensor(value) for key, value in stack["state_dict"].items()}
    weights["model.head.weight"] = Tensor(np.ones((1, 4)))

    @functools.partial(jax.jit, static_argnums=0)
    def outputs(step, params, state, xs):
        def body(state, x):
            state = step(params, state, x)
            return state, state.h if isinstance(state, LSTMState) else state

        return jax.lax.scan(body, state, xs)[1]

    ys = jnp.array(XS[:, :2])
    for layer in range(2):
        both = []
        for reverse in (False, True):
            cell, params = cells.from_torch(
                weights,
                layer=layer,
                reverse=reverse,
                prefix="model.rnn.",
                activation=None if name in ("lstm", "gru") else "tanh",
            )
            assert (cell.inputs, cell.hidden) == (2 * (layer + 1), 2)
            order = slice(None, None, -1 if reverse else 1)
            both.append(outputs(cell.step, params, cell.start(F64), ys[order])[order])
        ys = jnp.concatenate(both, axis=1)
    close(ys, stack["outputs"])


class Layer(NamedTuple):
    """A library's cell: its own tree of weights, its step, and what brings them over."""

    cell: str  # which cell of gradlab it is
    weights: Any
    step: Callable[..., Any]  # (weights, state, x) -> state, the state as gradlab has it
    convert: Callable[..., Any]  # weights -> (cell, params)


def linen(name, cell, **options):
    nn = importlib.import_module("flax.linen")
    convert = functools.partial(cells.from_flax, **options.pop("told", {}))
    module = getattr(nn, name)(HIDDEN, param_dtype=F64, **options)

    def step(weights, state, x):
        state = module.apply({"params": weights}, state, x)[0]
        return LSTMState(*state) if cell == "lstm" else state

    shapes = jax.eval_shape(module.init, jax.random.key(0), start(cell), XS[0])
    return Layer(cell, filled(shapes["params"]), step, convert)


def nnx(name, cell, **options):
    nnx = importlib.import_module("flax.nnx")
    convert = functools.partial(cells.from_flax, **options.pop("told", {}))
    kind = functools.partial(getattr(nnx, name), INPUTS, HIDDEN, dtype=F64, param_dtype=F64)
    abstract = nnx.eval_shape(lambda: kind(rngs=nnx.Rngs(0), **options))
    graph, weights = nnx.split(abstract, nnx.Param)

    def step(weights, state, x):
        state = nnx.merge(graph, weights)(state, x)[0]
        return LSTMState(*state) if cell == "lstm" else state

    return Layer(cell, filled(weights), step, convert)


def equinox(name, cell, **options):
    eqx = importlib.import_module("equinox")

    def make(key):
        return getattr(eqx.nn, name)(INPUTS, HIDDEN, dtype=F64, key=key, **options)

    def step(weights, state, x):
        if cell == "gru":
            return weights(x, state)
        h, c = weights(x, (state.h, state.c))
        return LSTMState(c, h)

    shapes = eqx.filter_eval_shape(make, jax.random.key(0))
    return Layer(cell, filled(shapes), step, cells.from_equinox)


def haiku(name, cell, **options):
    hk = importlib.import_module("haiku")
    module = hk.without_apply_rng(
        hk.transform(lambda x, state: getattr(hk, name)(HIDDEN, **options)(x, state)[1])
    )

    def theirs(state):
        return hk.LSTMState(hidden=state.h, cell=state.c) if cell == "lstm" else state

    def step(weights, state, x):
        state = module.apply(weights, x, theirs(state))
        return LSTMState(state.cell, state.hidden) if cell == "lstm" else state

    shapes = jax.eval_shape(module.init, jax.random.key(0), XS[0], theirs(start(cell)))
    return Layer(cell, filled(shapes), step, cells.from_haiku)


def keras(name, cell, **options):
    keras = importlib.import_module("keras")
    convert = functools.partial(cells.from_keras, **options.pop("told", {}))
    options |= dict.fromkeys(("kernel_initializer", "recurrent_initializer"), "zeros")
    # On JAX, keras casts what it gives to its own tanh to float32, whatever the layer's dtype.
    options = {"activation": jnp.tanh} | options
    layer = getattr(keras.layers, name)(HIDDEN, dtype="float64", **options)
    layer.build((1, STEPS, INPUTS))
    rest = [variable.value for variable in layer.cell.non_trainable_variables]

    def step(weights, state, x):
        theirs = [leaf[None] for leaf in ((state.h, state.c) if cell == "lstm" else (state,))]
        with jax.numpy_rank_promotion("allow"):
            (_, new), _ = layer.cell.stateless_call(weights, rest, x[None], theirs)
        new = [leaf[0] for leaf in new]
        return LSTMState(new[1], new[0]) if cell == "lstm" else new[0]

    shapes = [variable.value for variable in layer.weights]
    return Layer(cell, filled(shapes), step, convert)


RELU, TANH = {"activation": "relu"}, {"activation": "tanh"}
CASES = {
    "linen-SimpleCell": (linen, "SimpleCell", "elman", {}, TANH),
    "linen-SimpleCell-relu": (linen, "SimpleCell", "elman", {"activation_fn": jax.nn.relu}, RELU),
    "linen-LSTMCell": (linen, "LSTMCell", "lstm"),
    "linen-OptimizedLSTMCell": (linen, "OptimizedLSTMCell", "lstm"),
    "linen-GRUCell": (linen, "GRUCell", "gru"),
    "linen-MGUCell": (linen, "MGUCell", "gru"),
    "linen-MGUCell-no-reset": (linen, "MGUCell", "ugrnn", {"reset_gate": False}),
    "nnx-SimpleCell": (nnx, "SimpleCell", "elman", {}, TANH),
    "nnx-LSTMCell": (nnx, "LSTMCell", "lstm"),
    "nnx-OptimizedLSTMCell": (nnx, "OptimizedLSTMCell", "lstm"),
    "nnx-GRUCell": (nnx, "GRUCell", "gru"),
    "equinox-LSTMCell": (equinox, "LSTMCell", "lstm"),
    "equinox-GRUCell": (equinox, "GRUCell", "gru"),
    "equinox-GRUCell-no-bias": (equinox, "GRUCell", "gru", {"use_bias": False}),
    "haiku-VanillaRNN": (haiku, "VanillaRNN", "elman"),
    "haiku-VanillaRNN-one-bias": (haiku, "VanillaRNN", "elman", {"double_bias": False}),
    "haiku-LSTM": (haiku, "LSTM", "lstm"),
    "haiku-GRU": (haiku, "GRU", "gru_reset_before"),
    "keras-SimpleRNN": (keras, "SimpleRNN", "elman", {}, TANH),
    "keras-SimpleRNN-relu": (keras, "SimpleRNN", "elman", RELU, RELU),
    "keras-LSTM": (keras, "LSTM", "lstm"),
    "keras-GRU": (keras, "GRU", "gru"),
    "keras-GRU-before": (keras, "GRU", "gru_reset_before", {"reset_after": False}),
    "keras-GRU-before-no-bias": (
        keras,
        "GRU",
        "gru_reset_before",
        {"reset_after": False, "use_bias": False},
        {"reset_after": False},
    ),
}


@functools.cache
def layer(case):
    make, name, cell, *more = CASES[case]
    options, told = [*more, {}, {}][:2]
    return make(name, cell, **options, **({"told": told} if told else {}))


@pytest.mark.parametrize("case", CASES)
def test_the_libraries_outputs_and_gradients(case):
    theirs = layer(case)
    cell, params = theirs.convert(theirs.weights)
    assert (cell.name, cell.inputs, cell.hidden) == (theirs.cell, INPUTS, HIDDEN)
    like = jax.eval_shape(cell.init, jax.random.key(0))
    shapes = {name: leaf.shape for name, leaf in like.items()}
    assert {name: leaf.shape for name, leaf in params.items()} == shapes
    assert all(leaf.dtype == F64 for leaf in params.values())

    def loss(ours, weights, xs, kicks):
        if not ours:
            return run(functools.partial(theirs.step, weights), xs, start(cell.name), kicks)
        same, params = theirs.convert(weights)
        return run(functools.partial(same.step, params), xs, start(cell.name), kicks)

    def program(*at):
        return [
            jax.value_and_grad(functools.partial(loss, ours), (0, 1, 2), has_aux=True)(*at)
            for ours in (True, False)
        ]

    answers = jax.jit(program)(theirs.weights, jnp.array(XS), quiet(start(cell.name)))
    ours, expected = answers
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    jax.tree.map(close, ours, expected)
    for leaf in jax.tree.leaves(expected):
        assert np.any(np.abs(leaf) > 1e-3)


def test_a_cell_of_pytorch_has_the_names_of_a_layer_without_its_number():
    for name, told in (("rnn_tanh", TANH), ("lstm", {}), ("gru", {})):
        of_layer, params = cells.from_torch(torch_weights(name, "_l0"), **told)
        of_cell, same = cells.from_torch(torch_weights(name), **told)
        assert of_cell.name == of_layer.name
        jax.tree.map(np.testing.assert_array_equal, same, params)


def test_one_module_among_others_is_found_by_its_prefix():
    weights = layer("haiku-LSTM").weights
    _, expected = cells.from_haiku(weights)
    renamed = {f"model/~/{name}": value for name, value in weights.items()}
    _, params = cells.from_haiku(renamed | {"model/~/head": {}}, prefix="model/~/lstm")
    jax.tree.map(np.testing.assert_array_equal, params, expected)


def test_the_variables_of_a_keras_layer_are_weights_as_they_are():
    made = importlib.import_module("keras").layers.GRU(HIDDEN)
    with jax.numpy_rank_promotion("allow"):
        made.build((1, STEPS, INPUTS))
    assert [v.name for v in made.weights] == ["kernel", "recurrent_kernel", "bias"]
    cell, params = cells.from_keras(made.weights)
    assert cell.name == "gru"
    _, expected = cells.from_keras([np.asarray(v.value) for v in made.weights])
    jax.tree.map(np.testing.assert_array_equal, params, expected)


def test_without_biases_they_are_zero():
    def two(*shape):
        return np.full(shape, 2.0)

    torch = {"weight_ih_l0": two(12, 3), "weight_hh_l0": two(12, 4)}
    equinox = {"weight_ih": two(16, 3), "weight_hh": two(16, 4), "bias": None}
    bare = [cells.from_torch(torch), cells.from_equinox(equinox)]
    bare += [
        cells.from_keras([two(3, g * 4), two(4, g * 4)], reset_after=True, activation="tanh")
        for g in (1, 3, 4)
    ]
    assert [cell.name for cell, _ in bare] == ["gru", "lstm", "elman", "gru", "lstm"]
    for _, params in bare:
        for name, leaf in params.items():
            np.testing.assert_array_equal(leaf, 0.0 if "bias" in name else 2.0)


def lstm_in_numpy(weights, suffix, xs):
    """Every c and h of an LSTM as PyTorch's documentation writes it, with or without weight_hr."""
    W, U = weights[f"weight_hh{suffix}"], weights[f"weight_ih{suffix}"]
    bias = weights[f"bias_ih{suffix}"] + weights[f"bias_hh{suffix}"]
    R = weights.get(f"weight_hr{suffix}", np.eye(len(W) // 4))
    c, h, states = np.zeros(len(W) // 4), np.zeros(len(R)), []
    for x in xs:
        i, f, g, o = np.split(U @ x + W @ h + bias, 4)
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        h = R @ (np.tanh(c) / (1 + np.exp(-o)))
        states.append((c, h))
    return [np.stack(part) for part in zip(*states, strict=True)]


def states_of(cell, params, xs):
    def body(state, x):
        state = cell.step(params, state, x)
        return state, state

    return jax.jit(lambda xs: jax.lax.scan(body, cell.start(F64), xs)[1])(jnp.asarray(xs))


def projected(inputs, memory, width, suffix="_l0"):
    shapes = {"ih": (4 * memory, inputs), "hh": (4 * memory, width), "hr": (width, memory)}
    found = {
        f"weight_{name}{suffix}": formula(0.3 * n, shape)
        for n, (name, shape) in enumerate(shapes.items())
    }
    biases = {
        f"bias_{side}{suffix}": formula(n, (4 * memory,)) for n, side in enumerate(("ih", "hh"))
    }
    return found | biases


def test_a_projected_lstm_of_two_layers_both_ways():
    ends = [f"_l{layer}{way}" for layer in range(2) for way in ("", "_reverse")]
    weights = {}
    for end in ends:
        weights |= projected(INPUTS if "0" in end else 4, 5, 2, end)
    ys = XS
    for layer in range(2):
        both = []
        for reverse in (False, True):
            order = slice(None, None, -1 if reverse else 1)
            cell, params = cells.from_torch(weights, layer=layer, reverse=reverse)
            assert (cell.name, cell.inputs, cell.hidden) == ("lstm_projected", ys.shape[1], 2)
            states = states_of(cell, params, ys[order])
            c, h = lstm_in_numpy(weights, ends[2 * layer + reverse], ys[order])
            close(states.c, c)
            close(states.h, h)
            both.append(h[order])
        ys = np.concatenate(both, axis=1)


def test_a_projected_lstm_s_adjoints_and_gradients():
    """Against central differences of the equations in NumPy."""
    weights = projected(INPUTS, 5, 2)
    cell, params = cells.from_torch(weights)
    read_out = np.cos(np.arange(2 * STEPS)).reshape(STEPS, 2)

    def loss(params):
        def body(state, x):
            state = cell.step(params, state, x)
            return state, cell.read(state)

        return jnp.sum(read_out * jax.lax.scan(body, cell.start(F64), jnp.asarray(XS))[1])

    def in_numpy(name, change):
        moved = weights | {name: weights[name] + change}
        return np.sum(read_out * lstm_in_numpy(moved, "_l0", XS)[1])

    out = gl.trace(loss)(params)
    assert sorted(out.scans[0].leaves) == ["c", "h"]
    close(out.value, in_numpy("weight_hr_l0", 0))
    leaves = {"recurrent": "weight_hh_l0", "projection": "weight_hr_l0", "bias": "bias_hh_l0"}
    for ours, theirs in leaves.items():
        change = 1e-6 * formula(2.0, weights[theirs].shape)
        slope = (in_numpy(theirs, change) - in_numpy(theirs, -change)) / 2
        np.testing.assert_allclose(np.sum(out.grads[ours] * change), slope, rtol=1e-7)


def test_a_projected_lstm_of_its_own_draws():
    cell = cells.lstm_projected(3, 2, memory=5, forget_bias=2.0)
    params = jax.jit(cell.init)(jax.random.key(0))
    assert params["bias"].reshape(4, 5).tolist() == [[0.0] * 5, [2.0] * 5, [0.0] * 5, [0.0] * 5]
    for W in np.asarray(params["recurrent"]).reshape(4, 5, 2):
        np.testing.assert_allclose(W.T @ W, np.eye(2), atol=1e-6)
    R = np.asarray(params["projection"])
    np.testing.assert_allclose(R @ R.T, np.eye(2), atol=1e-6)
    gate = np.asarray(params["recurrent"])[5:10] @ R
    np.testing.assert_allclose(cell.matrices(params)[1], gate, atol=1e-6)
    np.testing.assert_allclose(np.exp(cell.log_retention(params)), [1 / (1 + np.exp(-2))] * 5)
    with pytest.raises(ValueError, match="needs memory of at least hidden = 2, got 1"):
        cells.lstm_projected(3, 2, memory=1)


W_HH = torch_weights("lstm")["weight_hh"]
LENGTHS = {  # of W_HH: by row, by column, over all
    "row": np.sqrt((W_HH**2).sum(1, keepdims=True)),
    "column": np.sqrt((W_HH**2).sum(0, keepdims=True)),
    "all": np.sqrt((W_HH**2).sum()),
}
NEW = "parametrizations.weight_hh_l0."
PARTS = {
    **{
        f"{style}-{along}": ({g: 1.5 * length, v: 3 * W_HH}, 1.5 * W_HH)
        for along, length in LENGTHS.items()
        for style, g, v in (
            ("old", "weight_hh_l0_g", "weight_hh_l0_v"),
            ("new", NEW + "original0", NEW + "original1"),
        )
    },
    "prune": ({"weight_hh_l0_orig": W_HH, "weight_hh_l0_mask": W_HH > 0}, W_HH * (W_HH > 0)),
}


def lstm_of(parts):
    weights = torch_weights("lstm", "_l0")
    del weights["weight_hh_l0"]
    return weights | parts


@pytest.mark.parametrize("case", PARTS)
def test_a_weight_that_a_state_dict_has_in_parts(case):
    parts, expected = PARTS[case]
    for prefix in ("", "model.rnn."):
        weights = {prefix + name: value for name, value in lstm_of(parts).items()}
        weights["model.other.parametrizations.weight.original"] = np.ones(3)
        _, params = cells.from_torch(weights, prefix=prefix)
        close(params["recurrent"], expected)


class StateDict(dict):
    """With the metadata that PyTorch keeps: the names of all modules inside."""

    def __init__(self, weights, *names):
        super().__init__(weights)
        self._metadata = dict.fromkeys(names, {})


UNTOLD = {
    "spectral": {NEW + "original": W_HH, NEW + "0._u": W_HH[:, 0], NEW + "0._v": W_HH[0]},
    "orthogonal": {NEW + "original": W_HH, NEW + "0.base": W_HH},
    "own": {NEW + "original": W_HH},
    "own-of-two": {NEW + "original0": W_HH[:, :2], NEW + "original1": W_HH[:2]},
    "stacked": StateDict(PARTS["new-row"][0], NEW + "0", NEW + "1"),
    "old-spectral": {
        "weight_hh_l0_orig": W_HH,
        "weight_hh_l0_u": W_HH[:, 0],
        "weight_hh_l0_v": W_HH[0],
    },
}


@pytest.mark.parametrize("case", UNTOLD)
def test_a_parametrization_that_a_state_dict_does_not_tell_is_refused(case):
    parts = UNTOLD[case]
    weights = StateDict(lstm_of(parts), *getattr(parts, "_metadata", ()))
    advice = "torch.nn.utils.parametrize.remove_parametrizations(module, 'weight_hh_l0')"
    advice = "torch.nn.utils.remove_spectral_norm" if case == "old-spectral" else advice
    with pytest.raises(ValueError) as error:
        cells.from_torch(weights)
    assert str(error.value).startswith("from_torch: 'weight_hh_l0' is parametrized, and a state_")
    assert advice in str(error.value)


class Parametrized:
    """A weight as torch.nn.utils.parametrize has it: doubled, and changed by calls in training."""

    def __init__(self, values):
        self.values, self.training, self.calls = values, True, 0

    def eval(self):
        self.training = False
        return self

    def __call__(self):
        self.calls += 1
        return Tensor(2 * self.values if not self.training else np.nan * self.values)


class Module:
    """What of a torch.nn.Module matters here."""

    def __init__(self, weights, **attributes):
        self.weights = weights
        vars(self).update(attributes)

    def state_dict(self):
        return self.weights


def test_a_module_computes_its_parametrized_weights():
    original = Parametrized(W_HH)
    rnn = Module({}, parametrizations={"weight_hh_l0": original})
    weights = {f"encoder.{name}": value for name, value in lstm_of(UNTOLD["own"]).items()}
    _, params = cells.from_torch(Module(weights, encoder=rnn), prefix="encoder.")
    close(params["recurrent"], 2 * W_HH)
    assert (original.training, original.calls) == (True, 0)


def test_a_module_tells_its_nonlinearity():
    weights = torch_weights("rnn", "_l0")
    for name in ("relu", "tanh"):
        module = Module({f"rnn.{key}": value for key, value in weights.items()})
        module.rnn = Module(weights, nonlinearity=name)
        expected, params = cells.from_torch(weights, activation=name)
        for source, prefix in ((module, "rnn."), (module.rnn, "")):
            cell, same = cells.from_torch(source, prefix=prefix)
            h = jnp.array(H_0)
            close(cell.step(same, h, XS[0]), expected.step(params, h, XS[0]))
    with pytest.raises(
        ValueError, match="the module has nonlinearity='tanh', got activation='relu"
    ):
        cells.from_torch(module, prefix="rnn.", activation="relu")


class Narrow(Tensor):
    """A tensor of a type that NumPy has not."""

    dtype = "torch.bfloat16"

    def detach(self):
        return Narrow(self.values, True)

    def numpy(self):
        raise TypeError("Got unsupported ScalarType BFloat16")

    def float(self):
        return Tensor(np.float32(self.values), self.detached)


def test_bfloat16_and_float16_stay_what_they_are():
    halves = {name: np.round(16 * value) / 16 for name, value in projected(INPUTS, 5, 2).items()}
    for dtype in (jnp.bfloat16, jnp.float16):
        wrap = Narrow if dtype == jnp.bfloat16 else lambda value: Tensor(np.float16(value))
        cell, params = cells.from_torch({name: wrap(value) for name, value in halves.items()})
        assert {leaf.dtype for leaf in params.values()} == {jnp.dtype(dtype)}
        close(np.float64(params["recurrent"]), halves["weight_hh_l0"])
        state = cell.step(params, cell.start(dtype), jnp.ones(INPUTS, dtype))
        assert {leaf.dtype for leaf in state} == {jnp.dtype(dtype)}


class Nothing(Tensor):
    """A tensor without values."""

    def cpu(self):
        raise NotImplementedError("Cannot copy out of meta tensor; no data!\n(more)")

    detach = lambda self: self  # noqa: E731


def test_a_tensor_that_cannot_be_read_says_why():
    with pytest.raises(ValueError) as error:
        cells.from_torch(torch_weights("gru", "_l0") | {"weight_hh_l0": Nothing(0)})
    assert str(error.value) == (
        "from_torch needs an array at weight_hh_l0, got Nothing: Cannot copy out of meta tensor; "
        "no data!"
    )


def test_pytorch_s_own_modules():
    """What the stand-ins above take for granted; skipped where PyTorch is not installed."""
    torch = pytest.importorskip("torch")
    nn, utils = torch.nn, torch.nn.utils
    prune = importlib.import_module("torch.nn.utils.prune")
    torch.manual_seed(0)
    xs = torch.tensor(XS)

    def same(module, source, **options):
        cell, params = cells.from_torch(source, **options)
        outputs = module.eval()(xs)[0].detach().numpy()
        close(cell.read(states_of(cell, params, XS)), outputs)

    same(module := nn.LSTM(INPUTS, 4, proj_size=2).double(), module.state_dict())
    same(module := nn.RNN(INPUTS, 4, nonlinearity="relu").double(), module)
    for weight_norm in (utils.weight_norm, utils.parametrizations.weight_norm):
        for dim in (0, 1):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)
                module = weight_norm(nn.LSTM(INPUTS, 4).double(), "weight_hh_l0", dim=dim)
            for source in (module, module.state_dict()):
                same(module, source)
    module = prune.random_unstructured(nn.GRU(INPUTS, 4).double(), "weight_hh_l0", 0.5)
    same(module, module.state_dict())
    for parametrize in (utils.parametrizations.spectral_norm, utils.parametrizations.orthogonal):
        module = parametrize(nn.RNN(INPUTS, 4).double(), "weight_hh_l0")
        same(module, module)
        with pytest.raises(ValueError, match="'weight_hh_l0' is parametrized"):
            cells.from_torch(module.state_dict(), activation="tanh")
    module = nn.LSTM(INPUTS, 4).bfloat16()
    _, params = cells.from_torch(module)
    assert params["input"].dtype == jnp.bfloat16
    close(np.float64(params["input"]), module.weight_ih_l0.double().detach().numpy())


def logistic(a):
    return 1 / (1 + np.exp(-a))


CANDIDATES = {"linear": lambda a: a, "positive": lambda a: np.where(a >= 0, a + 0.5, logistic(a))}


def min_gated(gates, phi, rows):
    """The states of a minGRU (z, h) or minLSTM (f, i, h); rows(gate) is (weight, bias)."""
    h, states = np.zeros(HIDDEN), []
    for x in XS:
        a = {gate: rows(gate)[0] @ x + rows(gate)[1] for gate in gates}
        if "z" in gates:
            write = logistic(a["z"])
        else:
            f, i = logistic(a["f"]), logistic(a["i"])
            write = i / (f + i)
        h = (1 - write) * h + write * phi(a["h"])
        states.append(h)
    return np.stack(states)


@pytest.mark.parametrize("candidate", CANDIDATES)
@pytest.mark.parametrize("name", ["min_gru", "min_lstm"])
def test_min_gru_and_min_lstm(name, candidate):
    # Their layer has the candidate first; ours, last.
    key, order = {
        "min_gru": ("to_hidden_and_gate", "hz"),
        "min_lstm": ("to_hidden_and_f_i_gate", "hfi"),
    }[name]
    blocks = {g: (formula(n, (HIDDEN, INPUTS)), formula(n, (HIDDEN,))) for n, g in enumerate(order)}
    expected = min_gated(order, CANDIDATES[candidate], blocks.get)
    stack = {
        f"{key}.{leaf}": np.concatenate([blocks[g][n] for g in order])
        for n, leaf in enumerate(("weight", "bias"))
    }
    each = {
        f"linear_{g}.{leaf}": block[n]
        for g, block in blocks.items()
        for n, leaf in enumerate(("weight", "bias"))
    }
    for weights in (stack, each):
        cell, params = cells.from_torch(weights, activation=candidate)
        assert (cell.name, cell.hidden) == (name, HIDDEN)
        close(states_of(cell, params, XS), expected)
    bare, params = cells.from_torch({f"{key}.weight": stack[f"{key}.weight"]}, activation=candidate)
    np.testing.assert_array_equal(params["bias"], 0)
    with pytest.warns(UserWarning, match="from_torch leaves 'to_out.weight' behind"):
        cells.from_torch(stack | {"to_out.weight": np.ones((9, HIDDEN))}, activation=candidate)


def test_the_lru_with_its_b_complex_or_in_two_parts():
    logs = {
        name: formula(n, (HIDDEN,)) for n, name in enumerate(("nu_log", "theta_log", "gamma_log"))
    }
    re, im = (formula(n, (HIDDEN, INPUTS)) for n in (1, 2))
    s, states = np.zeros(HIDDEN, complex), []
    for x in XS:
        lam = np.exp(-np.exp(logs["nu_log"]) + 1j * np.exp(logs["theta_log"]))
        s = lam * s + np.exp(logs["gamma_log"]) * ((re + 1j * im) @ x)
        states.append(s)
    for parts in ({"B_re": re, "B_im": im}, {"B": re + 1j * im}):
        cell, params = cells.from_torch(logs | parts)
        assert (cell.name, cell.inputs, cell.hidden) == ("lru", INPUTS, HIDDEN)
        close(states_of(cell, params, XS), np.stack(states))
    readout = {"C": np.ones((2, HIDDEN)), "D": np.ones((2, INPUTS))}
    with pytest.warns(UserWarning, match="from_torch leaves 'C', 'D' behind"):
        cells.from_torch(logs | parts | readout)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_an_indrnn_by_its_recurrent_vector(activation):
    phi = {"relu": lambda a: np.maximum(a, 0), "tanh": np.tanh}[activation]
    U, u, b = formula(0, (HIDDEN, INPUTS)), formula(1, (HIDDEN,)), formula(2, (HIDDEN,))
    h, states = np.zeros(HIDDEN), []
    for x in XS:
        h = phi(U @ x + u * h + b)
        states.append(h)
    weights = {"weight_ih": U, "weight_hh": u, "bias_ih": b}
    weights = {f"cells.0.0.{name}": value for name, value in weights.items()} | {"h0": H_0}
    cell, params = cells.from_torch(weights, prefix="cells.0.0.", activation=activation)
    assert cell.name == "indrnn"
    close(states_of(cell, params, XS), np.stack(states))


def test_single_precision_stays_single():
    weights = {key: np.float32(value) for key, value in torch_weights("gru", "_l0").items()}
    _, params = cells.from_torch(weights)
    assert {leaf.dtype for leaf in params.values()} == {jnp.dtype(jnp.float32)}


WIDE, NARROW = 32, 12  # H and D of the libraries' own initial values
KEPT = 0.87962566103423978  # standard deviation of a standard normal cut at two


def initial(library, name):
    """The layer as the library itself initializes it, in gradlab's parameters."""
    told = TANH if name.startswith("Simple") else {}
    key, x, h = jax.random.key(1), jnp.zeros(NARROW), jnp.zeros(WIDE)
    if library == "linen":
        module = getattr(importlib.import_module("flax.linen"), name)(WIDE)
        state = module.initialize_carry(key, (NARROW,))
        return cells.from_flax(jax.jit(module.init)(key, state, x)["params"], **told)
    if library == "nnx":
        nnx = importlib.import_module("flax.nnx")
        module = getattr(nnx, name)(NARROW, WIDE, rngs=nnx.Rngs(0))
        return cells.from_flax(nnx.to_pure_dict(nnx.state(module, nnx.Param)), **told)
    if library == "equinox":
        eqx = importlib.import_module("equinox")
        return cells.from_equinox(getattr(eqx.nn, name)(NARROW, WIDE, key=key))
    if library == "haiku":
        hk = importlib.import_module("haiku")
        state = hk.LSTMState(h, h) if name == "LSTM" else h
        module = hk.transform(lambda x, state: getattr(hk, name)(WIDE)(x, state))
        return cells.from_haiku(jax.jit(module.init)(key, x, state))
    layer = getattr(importlib.import_module("keras").layers, name)(WIDE)
    with jax.numpy_rank_promotion("allow"):
        layer.build((1, STEPS, NARROW))
    return cells.from_keras(layer.weights, **told)


def in_each_gate(W):
    assert initializers.audit(W)["orthogonality_error"].max() < 1e-5


def over_the_stack(W):
    stack = W.reshape(-1, WIDE)
    np.testing.assert_allclose(stack.T @ stack, np.eye(WIDE), atol=1e-5)
    assert len(W) == 1 or initializers.audit(W)["orthogonality_error"].min() > 0.5


def within(bound, least):
    """Values that reach almost to a bound on both sides, and not beyond it."""

    def check(values):
        for side in (values, -values):
            assert least * bound < np.max(side) <= bound * (1 + 1e-6)

    return check


def uniform(bound):
    return within(bound, 0.9)


def cut(deviation):
    return within(2 * deviation, 0.9)


def constant(value):
    return lambda values: np.testing.assert_array_equal(values, value)


ROOT_H = uniform(1 / np.sqrt(WIDE))
LECUN = cut(1 / KEPT / np.sqrt(NARROW))
NONE, ONE = constant(0), constant(1)


def glorot(gates):
    return uniform(np.sqrt(6 / (NARROW + gates * WIDE)))


# Checks of W, of U, of b, and of the part of b that keeps the memory, where there is one.
DEFAULTS = {
    ("linen", "SimpleCell"): (in_each_gate, LECUN, NONE),
    ("linen", "LSTMCell"): (in_each_gate, LECUN, NONE, NONE),
    ("linen", "OptimizedLSTMCell"): (in_each_gate, LECUN, NONE, NONE),
    ("linen", "GRUCell"): (in_each_gate, LECUN, NONE, NONE),
    ("linen", "MGUCell"): (in_each_gate, LECUN, NONE, ONE),
    ("nnx", "SimpleCell"): (in_each_gate, LECUN, NONE),
    ("nnx", "LSTMCell"): (in_each_gate, LECUN, NONE, NONE),
    ("nnx", "OptimizedLSTMCell"): (over_the_stack, LECUN, NONE, NONE),
    ("nnx", "GRUCell"): (over_the_stack, LECUN, NONE, NONE),
    ("equinox", "LSTMCell"): (ROOT_H, ROOT_H, ROOT_H, uniform(1 / np.sqrt(WIDE))),
    ("equinox", "GRUCell"): (ROOT_H, ROOT_H, ROOT_H, uniform(1 / np.sqrt(WIDE))),
    ("haiku", "VanillaRNN"): (cut(1 / np.sqrt(WIDE)), cut(1 / np.sqrt(NARROW)), NONE),
    ("haiku", "LSTM"): (*[cut(1 / np.sqrt(NARROW + WIDE))] * 2, NONE, ONE),
    ("haiku", "GRU"): (cut(1 / KEPT / np.sqrt(WIDE)), LECUN, NONE, NONE),
    ("keras", "SimpleRNN"): (over_the_stack, glorot(1), NONE),
    ("keras", "LSTM"): (over_the_stack, glorot(4), NONE, ONE),
    ("keras", "GRU"): (over_the_stack, glorot(3), NONE, NONE),
}


@pytest.mark.parametrize("layer", DEFAULTS, ids="-".join)
def test_the_table_of_defaults_is_what_the_libraries_do(layer):
    cell, params = initial(*layer)
    recurrent, input, bias, *forget = DEFAULTS[layer]
    recurrent(np.asarray(cell.matrices(params)))
    input(np.asarray(params["input"]))
    # The second block keeps the memory: an LSTM's f, a GRU's z, both gates of what MGUCell becomes.
    first = 0 if layer[1] == "MGUCell" else WIDE
    keeps = slice(first, 2 * WIDE) if forget else slice(0)
    bias(np.delete(np.asarray(params["bias"]), keeps))
    for check in forget:
        check(np.asarray(params["bias"])[keeps])
    if "recurrent_bias" in params and bias is not ROOT_H:
        bias(np.asarray(params["recurrent_bias"]))


def test_pytorch_draws_everything_from_one_interval():
    for stack in REFERENCE["stacks"].values():
        for name, value in stack["state_dict"].items():
            values = np.ravel(value)
            assert 0 < np.abs(values).max() <= 1 / np.sqrt(2), name
    every = [np.ravel(v) for s in REFERENCE["stacks"].values() for v in s["state_dict"].values()]
    uniform(1 / np.sqrt(2))(np.concatenate(every))


def torch_like(**changes):
    found = {"weight_ih_l0": (8, 3), "weight_hh_l0": (8, 2), "bias_ih_l0": 8, "bias_hh_l0": 8}
    found |= changes
    return {key: np.zeros(shape) for key, shape in found.items() if shape is not None}


def dense(*shape, bias=True):
    return {"kernel": np.zeros(shape)} | ({"bias": np.zeros(shape[-1])} if bias else {})


def flax_lstm(**changes):
    layers = {f"i{gate}": dense(3, 2, bias=False) for gate in "ifgo"}
    layers |= {f"h{gate}": dense(2, 2) for gate in "ifgo"} | changes
    return {name: value for name, value in layers.items() if value is not None}


def zeros(*shapes):
    return [np.zeros(shape) for shape in shapes]


REFUSED = {
    "torch-missing": (
        lambda: cells.from_torch(torch_like(weight_ih_l0=None)),
        "from_torch needs 'weight_ih_l0', found bias_hh_l0, bias_ih_l0, weight_hh_l0",
    ),
    "torch-one-bias": (
        lambda: cells.from_torch(torch_like(bias_hh_l0=None)),
        "from_torch needs 'bias_hh_l0', found bias_ih_l0, weight_hh_l0, weight_ih_l0",
    ),
    "torch-no-such-layer": (
        lambda: cells.from_torch(torch_like(), layer=1),
        "from_torch needs 'weight_hh_l1', found bias_hh_l0, bias_ih_l0, weight_hh_l0, weight_ih_l0",
    ),
    "torch-no-such-way": (
        lambda: cells.from_torch(torch_like(), reverse=True),
        "from_torch needs 'weight_hh_l0_reverse', found bias_hh_l0, bias_ih_l0, weight_hh_l0, ",
    ),
    "torch-prefix": (
        lambda: cells.from_torch({f"rnn.{key}": value for key, value in torch_like().items()}),
        "from_torch needs 'weight_hh_l0', found rnn.bias_hh_l0, rnn.bias_ih_l0, "
        "rnn.weight_hh_l0, rnn.weight_ih_l0; prefix='rnn.' would find one",
    ),
    "torch-projection": (
        lambda: cells.from_torch(torch_like(weight_hr_l0=(1, 2))),
        "from_torch needs weight_hh_l0 of shape (8, 1), got (8, 2)",
    ),
    "torch-unknown": (
        lambda: cells.from_torch(torch_like(Lambda=3)),
        "from_torch: unknown 'Lambda'; it knows weight_ih, weight_hh, weight_hr, bias_ih, bias_hh",
    ),
    "torch-no-module": (
        lambda: cells.from_torch(3),
        "from_torch needs a state_dict or a module, got int",
    ),
    "torch-mamba": (
        lambda: cells.from_torch({"layers.0.mixer.A_log": np.ones((6, 4)), "norm.weight": 1}),
        "from_torch: 'layers.0.mixer.A_log' is one of Mamba's selective state space",
    ),
    "torch-min-gru-candidate": (
        lambda: cells.from_torch({"to_hidden_and_gate.weight": np.ones((4, 3))}),
        "from_torch needs activation='linear' or activation='positive' (the g of the forms in "
        "logarithms) for the candidate of a min_gru",
    ),
    "torch-min-gru-rows": (
        lambda: cells.from_torch(
            {"to_hidden_and_gate.weight": np.ones((12, 3)), "to_out.weight": np.ones((3, 4))},
            activation="positive",
        ),
        "from_torch needs to_hidden_and_gate.weight of 2·H rows (min_gru), got 12 rows and H = 4",
    ),
    "torch-min-gru-unknown": (
        lambda: cells.from_torch(
            {"linear_z.weight": np.ones((4, 3)), "linear_h.weight": np.ones((4, 3)), "decay": 1},
            activation="linear",
        ),
        "unknown from_torch key 'decay'; valid: linear_h.weight, linear_z.weight",
    ),
    "torch-lru-missing": (
        lambda: cells.from_torch({"nu_log": np.ones(4), "B": np.ones((4, 3), complex)}),
        "from_torch needs 'theta_log', found B, nu_log",
    ),
    "torch-lru-real": (
        lambda: cells.from_torch(
            {name: np.ones(4) for name in ("nu_log", "theta_log", "gamma_log")}
            | {"B": np.ones((4, 3))}
        ),
        "from_torch needs a complex B, got float64",
    ),
    "torch-lru-activation": (
        lambda: cells.from_torch({"nu_log": np.ones(4)}, activation="relu"),
        "from_torch: an LRU is linear, got activation='relu'",
    ),
    "torch-lru-prefix": (
        lambda: cells.from_torch({"layers.0.lru.nu_log": np.ones(4)}),
        "from_torch needs 'weight_hh_l0', found layers.0.lru.nu_log; prefix='layers.0.lru.' would",
    ),
    "torch-indrnn-activation": (
        lambda: cells.from_torch({"weight_hh": np.ones(4), "weight_ih": np.ones((4, 3))}),
        "from_torch needs activation='tanh' or activation='relu' for an IndRNN",
    ),
    "torch-gates": (
        lambda: cells.from_torch(torch_like(weight_hh_l0=(8, 4))),
        "from_torch needs weight_hh_l0 of shape (G·H, H) with G = 1 (a plain RNN) or "
        "G = 3 (a GRU) or G = 4 (an LSTM), got (8, 4)",
    ),
    "torch-shape": (
        lambda: cells.from_torch(torch_like(weight_ih_l0=(6, 3))),
        "from_torch needs weight_ih_l0 of shape (8, D), got (6, 3)",
    ),
    "torch-bias": (
        lambda: cells.from_torch(torch_like(bias_hh_l0=2)),
        "from_torch needs bias_hh_l0 of shape (8,), got (2,)",
    ),
    "torch-activation": (
        lambda: cells.from_torch(torch_like(weight_hh_l0=(8, 8)), activation="ReLU"),
        "unknown activation 'ReLU'; did you mean 'relu'? valid: erf, linear, relu, tanh",
    ),
    "torch-gated-activation": (
        lambda: cells.from_torch(torch_like(), activation="relu"),
        "from_torch: an LSTM has tanh here, got activation='relu'",
    ),
    "flax-gated-activation": (
        lambda: cells.from_flax(flax_lstm(), activation="relu"),
        "from_flax: an LSTM has tanh here, got activation='relu'",
    ),
    "flax-mgu-activation": (
        lambda: cells.from_flax(
            {f"i{g}": dense(3, 2) for g in "fn"} | {f"h{g}": dense(2, 2, bias=False) for g in "fn"},
            activation="relu",
        ),
        "from_flax: an MGUCell has tanh here, got activation='relu'",
    ),
    "keras-gated-activation": (
        lambda: cells.from_keras(zeros((3, 6), (2, 6), (2, 6)), activation="relu"),
        "from_keras: a GRU has tanh here, got activation='relu'",
    ),
    "flax-module": (
        lambda: cells.from_flax(functools),
        "from_flax needs a mapping of layers, got module; of an nnx module, nnx.state(module,",
    ),
    "flax-level": (
        lambda: cells.from_flax({"params": flax_lstm()}),
        "from_flax needs 'i', found params",
    ),
    "flax-missing": (
        lambda: cells.from_flax(flax_lstm(hg=None)),
        "from_flax needs 'hg', found hf, hi, ho, if, ig, ii, io",
    ),
    "flax-unknown": (
        lambda: cells.from_flax(flax_lstm(hx=dense(2, 2))),
        "unknown from_flax key 'hx'; valid: hf, hg, hi, ho, if, ig, ii, io",
    ),
    "flax-no-bias": (
        lambda: cells.from_flax(flax_lstm(hg=dense(2, 2, bias=False))),
        "from_flax needs 'hg/bias', found kernel",
    ),
    "flax-bias-too-many": (
        lambda: cells.from_flax(flax_lstm(ig=dense(3, 2))),
        "unknown from_flax key 'ig/bias'; valid: ig/kernel",
    ),
    "flax-shape": (
        lambda: cells.from_flax(flax_lstm(ig=dense(5, 2, bias=False))),
        "from_flax needs ig/kernel of shape (3, 2), got (5, 2)",
    ),
    "flax-array": (
        lambda: cells.from_flax(flax_lstm(ig=np.ones((3, 2)))),
        "from_flax needs a mapping with a kernel at 'ig', got ndarray",
    ),
    "nnx-gates": (
        lambda: cells.from_flax({"dense_i": dense(3, 4), "dense_h": dense(2, 4, bias=False)}),
        "from_flax needs dense_h/kernel of shape (H, G·H) with G = 1 (a plain RNN) or G = 3 (a "
        "GRU) or G = 4 (an LSTM), got (2, 4)",
    ),
    "equinox-missing": (
        lambda: cells.from_equinox({"weight_hh": np.ones((8, 2)), "bias": None}),
        "from_equinox needs 'weight_ih', found bias, weight_hh",
    ),
    "equinox-other": (
        lambda: cells.from_equinox(3),
        "from_equinox needs 'weight_hh', found nothing",
    ),
    "equinox-none": (
        lambda: cells.from_equinox({"weight_hh": None}),
        "from_equinox needs an array at weight_hh, got NoneType",
    ),
    "haiku-two": (
        lambda: cells.from_haiku({"lstm/linear": {}, "head": {}}),
        "from_haiku needs one module (a GRU, or an LSTM's linear) or two (a VanillaRNN's linear "
        "and linear_1) under prefix='', found head, lstm/linear",
    ),
    "haiku-lstm-shape": (
        lambda: cells.from_haiku({"lstm/linear": {"w": np.ones((2, 8)), "b": np.ones(8)}}),
        "from_haiku needs lstm/linear/w of shape (D + H, 4·H), got (2, 8)",
    ),
    "haiku-gru-missing": (
        lambda: cells.from_haiku({"gru": {"w_i": np.ones((3, 6)), "b": np.ones(6)}}),
        "from_haiku needs 'gru/w_h', found b, w_i",
    ),
    "keras-both-ways": (
        lambda: cells.from_keras(zeros(*[(3, 8), (2, 8), 8] * 2)),
        "from_keras needs 2 or 3 arrays (kernel, recurrent_kernel and bias), got 6",
    ),
    "keras-bias": (
        lambda: cells.from_keras(zeros((3, 8), (2, 8), 6)),
        "from_keras needs bias of shape (8,), got (6,)",
    ),
    "keras-form": (
        lambda: cells.from_keras(zeros((3, 6), (2, 6))),
        "from_keras needs reset_after=True or False for a GRU without a bias",
    ),
    "keras-other-form": (
        lambda: cells.from_keras(zeros((3, 6), (2, 6), 6), reset_after=True),
        "from_keras: a bias of shape (6,) is one of reset_after=False, got reset_after=True",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_weights_that_do_not_fit_are_refused(case):
    convert, message = REFUSED[case]
    with pytest.raises(ValueError) as error:
        convert()
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


# The weights of a plain RNN, the same for every nonlinearity.
PLAIN = {
    "torch": (
        cells.from_torch,
        {"weight_ih_l0": np.ones((2, 3)), "weight_hh_l0": -np.eye(2)},
    ),
    "torch-cell": (cells.from_torch, {"weight_ih": np.ones((2, 3)), "weight_hh": -np.eye(2)}),
    "linen": (cells.from_flax, {"i": dense(3, 2), "h": {"kernel": -np.eye(2)}}),
    "nnx": (cells.from_flax, {"dense_i": dense(3, 2), "dense_h": {"kernel": -np.eye(2)}}),
    "keras": (cells.from_keras, [np.ones((3, 2)), -np.eye(2), np.zeros(2)]),
}


@pytest.mark.parametrize("case", PLAIN)
def test_a_plain_rnn_needs_its_nonlinearity_told(case):
    convert, weights = PLAIN[case]
    with pytest.raises(ValueError) as error:
        convert(weights)
    assert str(error.value).startswith(f"{convert.__name__} needs activation='tanh' or ")
    assert "activation='relu'" in str(error.value)
    h, x = jnp.array([0.5, -2.0]), jnp.zeros(3)
    for activation, expected in (("tanh", np.tanh([-0.5, 2.0])), ("relu", [0.0, 2.0])):
        cell, params = convert(weights, activation=activation)
        np.testing.assert_allclose(cell.step(params, h, x), expected, atol=1e-6)
