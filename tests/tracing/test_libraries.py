"""`trace` on other libraries' models, unchanged, against brute force in float64.

The traced program is the library's own recurrent layer. The oracle applies the library's cell in a
Python loop, adds a zero perturbation to every state and differentiates the loss by it, so that the
two share the cell and no scan.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradlab as gl

BATCH, STEPS, INPUTS, HIDDEN, CLASSES = 3, 5, 2, 4, 5
F64 = jnp.float64


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape, F64)


XS = draw(0, BATCH, STEPS, INPUTS)
LABELS = jax.random.randint(jax.random.key(1), (BATCH, STEPS), 0, CLASSES)


def dense(params, rest, out):
    return out @ draw(2, out.shape[-1], CLASSES)


# A state's output: the state itself, or h of (h, c) and of (c, h).


def only(state):
    return state


def first(state):
    return state[0]


def second(state):
    return state[1]


class Pass(NamedTuple):
    """One recurrence: the library's cell, its first state, and the output that a state gives."""

    step: Callable[..., Any]  # (params, rest, state, x) -> state
    start: Any
    read: Callable[..., Any] = only
    backward: bool = False


class Model(NamedTuple):
    """A library's layer; `rest` is what the loss takes beside the parameters, differentiated."""

    params: Any
    rest: Any
    run: Callable[..., Any]  # (params, rest, xs, every) -> outputs (B, T, H), or the last (B, H)
    passes: tuple[Pass, ...]
    readout: Callable[..., Any] = dense


def plain():
    params = {"w": draw(3, HIDDEN, HIDDEN) / 2, "u": draw(4, INPUTS, HIDDEN)}
    start = jnp.zeros((BATCH, HIDDEN))

    def step(params, rest, h, x):
        return jnp.tanh(h @ params["w"] + x @ params["u"])

    def run(params, rest, xs, every):
        h, hs = jax.lax.scan(
            lambda h, x: ((h := step(params, rest, h, x)), h), start, jnp.swapaxes(xs, 0, 1)
        )
        return jnp.swapaxes(hs, 0, 1) if every else h

    return Model(params, (), run, (Pass(step, start),))


def linen_pass(cell, weights, read, backward=False):
    def step(params, rest, state, x):
        return cell.apply({"params": weights(params)}, state, x)[0]

    start = cell.initialize_carry(jax.random.key(0), (BATCH, INPUTS))
    return Pass(step, start, read, backward)


def linen_rnn(name, read, remat=False):
    import flax.linen as nn

    cell = getattr(nn, name)(HIDDEN, param_dtype=F64)
    rnn = nn.RNN(nn.remat(type(cell))(HIDDEN, param_dtype=F64) if remat else cell)

    def run(params, rest, xs, every):
        last, ys = rnn.apply({"params": params}, xs, return_carry=True)
        return ys if every else read(last)

    params = rnn.init(jax.random.key(5), XS)["params"]
    return Model(params, (), run, (linen_pass(cell, lambda p: p["cell"], read),))


def linen_scan():
    import flax.linen as nn

    class Unrolled(nn.Module):
        @nn.compact
        def __call__(self, state, xs):
            scan = nn.scan(
                nn.LSTMCell,
                variable_broadcast="params",
                split_rngs={"params": False},
                in_axes=1,
                out_axes=1,
            )
            return scan(HIDDEN, param_dtype=F64, name="cell")(state, xs)

    model = Unrolled()
    lstm = linen_pass(nn.LSTMCell(HIDDEN, param_dtype=F64), lambda p: p["cell"], second)

    def run(params, rest, xs, every):
        last, ys = model.apply({"params": params}, lstm.start, xs)
        return ys if every else second(last)

    params = model.init(jax.random.key(6), lstm.start, XS)["params"]
    return Model(params, (), run, (lstm,))


def linen_bidirectional():
    import flax.linen as nn

    gru, lstm = nn.GRUCell(HIDDEN, param_dtype=F64), nn.LSTMCell(HIDDEN, param_dtype=F64)
    both = nn.Bidirectional(nn.RNN(gru), nn.RNN(lstm))

    def run(params, rest, xs, every):
        (ahead, back), ys = both.apply({"params": params}, xs, return_carry=True)
        return ys if every else jnp.concatenate([ahead, second(back)], -1)

    passes = (
        linen_pass(gru, lambda p: p["forward_rnn"]["cell"], only),
        linen_pass(lstm, lambda p: p["backward_rnn"]["cell"], second, backward=True),
    )
    return Model(both.init(jax.random.key(7), XS)["params"], (), run, passes)


def nnx_rnn(name, read, split):
    """The module itself is the differentiated argument, or the `nnx.Param` half of its split."""
    from flax import nnx

    cell = getattr(nnx, name)(INPUTS, HIDDEN, dtype=F64, param_dtype=F64, rngs=nnx.Rngs(8))
    start = cell.initialize_carry((BATCH, INPUTS), rngs=nnx.Rngs(0))
    start = jax.tree.map(lambda h: h.astype(F64), start)
    # By default the layer holds a key and a counter, by which nothing can be differentiated.
    rnn = nnx.RNN(cell, rngs=split)
    params, rest = rnn, ()
    if split:
        graph, params, others = nnx.split(rnn, nnx.Param, ...)
        rest = (graph, others)

    def module(params, rest):
        return nnx.merge(rest[0], params, rest[1]) if split else params

    def run(params, rest, xs, every):
        last, ys = module(params, rest)(xs, initial_carry=start, return_carry=True)
        return ys if every else read(last)

    def step(params, rest, state, x):
        return module(params, rest).cell(state, x)[0]

    return Model(params, rest, run, (Pass(step, start, read),))


def equinox_cell(name, read):
    """A user's module; its static half, with activation functions in it, is not differentiated."""
    import equinox as eqx

    class Tagger(eqx.Module):
        cell: eqx.Module
        readout: eqx.nn.MLP

        def __call__(self, xs, every):
            h = jnp.zeros(HIDDEN)
            state = (h, h) if name == "LSTMCell" else h
            state, hs = jax.lax.scan(lambda s, x: ((s := self.cell(x, s)), read(s)), state, xs)
            return hs if every else read(state)

    keys = jax.random.split(jax.random.key(9))
    model = Tagger(
        getattr(eqx.nn, name)(INPUTS, HIDDEN, key=keys[0]),
        eqx.nn.MLP(HIDDEN, CLASSES, 3, 1, key=keys[1]),
    )
    params, rest = eqx.partition(model, eqx.is_inexact_array)

    def run(params, rest, xs, every):
        return jax.vmap(lambda xs: eqx.combine(params, rest)(xs, every))(xs)

    def step(params, rest, state, x):
        return jax.vmap(eqx.combine(params, rest).cell)(x, state)

    def readout(params, rest, out):
        flat = jax.vmap(eqx.combine(params, rest).readout)(out.reshape(-1, HIDDEN))
        return flat.reshape(*out.shape[:-1], CLASSES)

    h = jnp.zeros((BATCH, HIDDEN))
    start = (h, h) if name == "LSTMCell" else h
    return Model(params, rest, run, (Pass(step, start, read),), readout)


def haiku_unroll(name, read):
    import haiku as hk

    def layer(xs):
        core = getattr(hk, name)(HIDDEN)
        return hk.dynamic_unroll(core, xs, core.initial_state(BATCH), time_major=False)

    layer = hk.without_apply_rng(hk.transform(layer))
    core = hk.without_apply_rng(hk.transform(lambda x, state: getattr(hk, name)(HIDDEN)(x, state)))

    def run(params, rest, xs, every):
        ys, last = layer.apply(params, xs)
        return ys if every else read(last)

    def step(params, rest, state, x):
        return core.apply(params, x, state)[1]

    start = hk.transform(lambda: getattr(hk, name)(HIDDEN).initial_state(BATCH)).apply({}, None)
    return Model(layer.init(jax.random.key(11), XS), (), run, (Pass(step, start, read),))


def shown(x):
    """Which steps of which samples a masked model sees."""
    return x[..., :1] > -0.5


def keras_layer(name, read, backward=False, masked=False):
    import keras

    keras.utils.set_random_seed(12)
    layers = {
        every: getattr(keras.layers, name)(
            # Keras's own tanh rounds to float32, whatever the layer's dtype is.
            HIDDEN,
            activation=jnp.tanh,
            return_sequences=every,
            go_backwards=backward,
            dtype="float64",
        )
        for every in (True, False)
    }
    inputs = keras.Input((STEPS, INPUTS), dtype="float64")
    seen = keras.layers.Masking(dtype="float64")(inputs) if masked else inputs
    models = {every: keras.Model(inputs, layer(seen)) for every, layer in layers.items()}
    cell = layers[True].cell
    params, rest = (
        [variable.value for variable in variables]
        for variables in (models[True].trainable_variables, models[True].non_trainable_variables)
    )

    def run(params, rest, xs, every):
        xs = xs * shown(xs) if masked else xs
        ys, _ = models[every].stateless_call(params, rest, xs)
        # A layer that goes backwards returns its outputs in the order of its steps.
        return ys[:, ::-1] if every and backward else ys

    def step(params, rest, state, x):
        fixed = [variable.value for variable in cell.non_trainable_variables]
        new = cell.stateless_call(params, fixed, x, state)[0][1]
        if not masked:
            return new
        return [jnp.where(shown(x), n, old) for n, old in zip(new, state, strict=True)]

    start = cell.get_initial_state(BATCH)
    return Model(params, rest, run, (Pass(step, start, read, backward),))


FLAX_CELLS = {
    "SimpleCell": only,
    "GRUCell": only,
    "LSTMCell": second,
    "OptimizedLSTMCell": second,
}

MODELS = {
    "plain": plain,
    **{
        f"linen {name}": functools.partial(linen_rnn, name, read)
        for name, read in FLAX_CELLS.items()
    },
    "linen remat": functools.partial(linen_rnn, "LSTMCell", second, remat=True),
    "linen scan": linen_scan,
    "linen bidirectional": linen_bidirectional,
    **{
        f"nnx {name}": functools.partial(nnx_rnn, name, read, split=False)
        for name, read in FLAX_CELLS.items()
    },
    "nnx LSTMCell split": functools.partial(nnx_rnn, "LSTMCell", second, split=True),
    "nnx GRUCell split": functools.partial(nnx_rnn, "GRUCell", only, split=True),
    "equinox LSTMCell": functools.partial(equinox_cell, "LSTMCell", first),
    "equinox GRUCell": functools.partial(equinox_cell, "GRUCell", only),
    "haiku VanillaRNN": functools.partial(haiku_unroll, "VanillaRNN", only),
    "haiku GRU": functools.partial(haiku_unroll, "GRU", only),
    "haiku LSTM": functools.partial(haiku_unroll, "LSTM", first),
    "keras SimpleRNN": functools.partial(keras_layer, "SimpleRNN", first),
    "keras GRU": functools.partial(keras_layer, "GRU", first),
    "keras LSTM": functools.partial(keras_layer, "LSTM", first),
    "keras LSTM backwards": functools.partial(keras_layer, "LSTM", first, backward=True),
    "keras SimpleRNN masked": functools.partial(keras_layer, "SimpleRNN", first, masked=True),
    "keras LSTM masked": functools.partial(keras_layer, "LSTM", first, masked=True),
}


@functools.cache
def made(name):
    return MODELS[name]()


def cross_entropy(logits, every):
    labels = LABELS if every else LABELS[:, -1]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def loss_of(model, every, pay=cross_entropy):
    def loss(params, rest, xs):
        return pay(model.readout(params, rest, model.run(params, rest, xs, every)), every)

    return loss


def value_and_grad(model, loss):
    return jax.jit(lambda p: jax.value_and_grad(loss)(p, model.rest, XS))(model.params)


@functools.cache
def traced(name, every):
    """With losses at every step the whole batch's rows, with one at the last each sample's."""
    model = made(name)
    loss = gl.trace(loss_of(model, every), batch_axis=None if every else 0)
    return loss(model.params, model.rest, XS)


@functools.cache
def adjoints(name, every, pay=cross_entropy):
    """dL/d(perturbation of the state after each step of each pass), total and direct."""
    model = made(name)

    def outputs(one, params, rest, total, direct):
        state, ys = one.start, []
        for k in range(STEPS):
            new = one.step(params, rest, state, XS[:, STEPS - 1 - k if one.backward else k])
            state = jax.tree.map(lambda h, e, k=k: h + e[k], new, total)
            # What reads the state sees both perturbations, the next step only the first.
            ys.append(one.read(jax.tree.map(lambda h, e, k=k: h + e[k], state, direct)))
        if not every:
            return ys[-1]
        return jnp.stack(ys[::-1] if one.backward else ys, 1)

    def perturbed(totals, directs, params):
        each = [
            outputs(one, params, model.rest, *rows)
            for one, *rows in zip(model.passes, totals, directs, strict=True)
        ]
        out = jnp.concatenate(each, -1)
        return pay(model.readout(params, model.rest, out), every)

    zeros = [
        jax.tree.map(lambda h: jnp.zeros((STEPS, *h.shape)), one.start) for one in model.passes
    ]
    by = jax.jit(jax.grad(perturbed, argnums=(0, 1)))(zeros, zeros, model.params)
    return list(zip(*by, strict=True))


def log_norms(trees, per_sample=False):
    """ln of each step's norm over all leaves, (T,), or (T, B)."""
    shape = (STEPS, BATCH, -1) if per_sample else (STEPS, -1)
    rows = np.concatenate([np.asarray(x).reshape(shape) for x in jax.tree.leaves(trees)], -1)
    # Rounding leaves ~1e-17 of an exact zero in the difference of two vectors.
    norms = np.linalg.norm(rows, axis=-1)
    with np.errstate(divide="ignore"):
        return np.log(np.where(norms < 1e-15, 0, norms))


def leaf_of(scan, path):
    """The log-norm of the state's leaf at this path, wherever the library keeps it in its carry."""
    wanted = jax.tree_util.keystr(path, simple=True, separator="/")
    if len(scan.leaves) == 1:
        (alone,) = scan.leaves
        assert "kernel" not in alone and "bias" not in alone
        return scan.leaves[alone]
    (found,) = (leaf for leaf in scan.leaves if f"/{leaf}".endswith(f"/{wanted}"))
    return scan.leaves[found]


@pytest.fixture(autouse=True)
def options():
    """Keras adds a bias of rank 1 to its batches."""
    with jax.numpy_rank_promotion("allow"):
        yield


close = functools.partial(np.testing.assert_allclose, atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    "name, every",
    [*((name, True) for name in MODELS), *((name, False) for name in MODELS)],
)
def test_against_brute_force(name, every):
    scans, rows = traced(name, every).scans, adjoints(name, every)
    for scan, (total, direct) in zip(scans, rows, strict=True):
        assert scan.length == STEPS
        order = slice(None, None, -1 if scan.reverse else 1)
        transported = jax.tree.map(jnp.subtract, total, direct)
        close(scan.log_norm[order], log_norms(total, scan.batched))
        close(scan.log_direct[order], log_norms(direct, scan.batched))
        close(scan.log_transported[order], log_norms(transported, scan.batched))


@pytest.mark.parametrize("name", MODELS)
def test_leaves_by_their_names(name):
    for scan, (total, _) in zip(traced(name, True).scans, adjoints(name, True), strict=True):
        order = slice(None, None, -1 if scan.reverse else 1)
        leaves = jax.tree_util.tree_leaves_with_path(total)
        assert len(scan.leaves) == len(leaves)
        for path, rows in leaves:
            close(leaf_of(scan, path)[order], log_norms(rows))


@pytest.mark.parametrize("name", MODELS)
def test_value_and_grads_are_those_of_jax(name):
    model, out = made(name), traced(name, True)
    value, grads = value_and_grad(model, loss_of(model, True))
    np.testing.assert_allclose(out.value, value, rtol=1e-13)
    assert type(out.grads) is type(grads)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-13), out.grads, grads
    )


@pytest.mark.parametrize("name", MODELS)
def test_a_scan_is_named_by_the_users_line(name):
    for scan in traced(name, True).scans:
        assert scan.name.startswith("test_libraries.py:")


def ctc(logits, every):
    none = jnp.zeros((BATCH, STEPS))
    return optax.ctc_loss(logits, none, 1 + LABELS[:, :2] % 4, none[:, :2]).mean()


def one_hot(logits):
    return jax.nn.one_hot(LABELS, CLASSES, dtype=logits.dtype)


LOSSES = {
    "sigmoid": lambda logits, every: optax.sigmoid_binary_cross_entropy(
        logits, one_hot(logits)
    ).mean(),
    "huber": lambda logits, every: optax.huber_loss(logits, one_hot(logits)).mean(),
    "cosine": lambda logits, every: optax.cosine_distance(logits, one_hot(logits)).mean(),
    "ctc": ctc,
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_optax(name):
    model = made("plain")
    loss = loss_of(model, every=True, pay=LOSSES[name])
    out = gl.trace(loss)(model.params, model.rest, XS)
    value, grads = value_and_grad(model, loss)
    np.testing.assert_allclose(out.value, value, rtol=1e-13)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-10), out.grads, grads)
    # The CTC loss is a scan itself.
    assert len(out.scans) == (2 if name == "ctc" else 1)
    ((total, direct),) = adjoints("plain", True, LOSSES[name])
    close(out.scans[0].log_norm, log_norms(total))
    close(out.scans[0].log_direct, log_norms(direct))
