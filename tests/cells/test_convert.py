"""Weights of other libraries: the same outputs and gradients, to 1e-10 in float64.

PyTorch's answers are in reference/gru_torch.json, made by experiments/gru_oracle.py. The other
libraries run here, each stepped by its own cell. A gradient by a library's weights is compared
through the conversion: gradlab's loss as a function of that library's own tree of weights.
"""

import functools
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
        "from_torch: unknown 'weight_hr_l0'; it knows weight_ih, weight_hh, bias_ih, bias_hh",
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
