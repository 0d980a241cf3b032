"""Weights of other libraries' recurrent layers as a cell of gradlab with its parameters.

Each function takes what its library gives its user (a state_dict, a tree of parameters, a module,
a list of arrays) and returns `(cell, params)` such that `cell.step(params, ...)` is that
library's step. None imports its library: names and shapes say which cell it is. Arrays keep their
dtype, as far as JAX's own settings let them, and may be traced.

Weights do not tell a plain RNN's nonlinearity: the caller names it, and without that the call is
refused, except for haiku's, which is always relu. Gated cells have the logistic function at
their gates and tanh elsewhere: PyTorch's, equinox's and haiku's have nothing else. flax' and keras'
take other functions as options, which their weights do not show and which no cell here has; don't
bring such a layer over.

What the libraries do, with H the width of h, D that of x, G the number of gates, W the recurrent
and U the input weights. "By gate" means one weight for each gate; stacked weights are shown
as stored, (out, in) used as weight @ vector and (in, out) as vector @ weight. "Resets" says where
the GRU applies r, before or after its product with W_n. The forget bias is its value at the start.

  ============  =======  =====  ======================  ================  ========  ==============
  library       LSTM     GRU    weights                 biases            resets    forget bias
  ============  =======  =====  ======================  ================  ========  ==============
  gradlab       i f g o  r z n  (G·H, H), (G·H, D)      1; gru b' at W_n  both      1
  PyTorch       i f g o  r z n  (G·H, H), (G·H, D)      2, at W and U     after     sum of 2 drawn
  cuDNN         i f g o  r z n  by gate, in one buffer  2, at W and U     after     the caller's
  flax linen    i f g o  r z n  by gate, (H, H) (D, H)  1; GRU b' at W_n  after     0
  flax nnx      i f g o  r z n  (H, G·H), (D, G·H) [1]  1                 after     0
  equinox       i f g o  r z n  (G·H, H), (G·H, D)      1; GRU b' at W_n  after     drawn
  haiku         i g f o  z r n  (H, G·H), (D, G·H) [2]  1 [3]             before    0, and 1 added
  keras         i f g o  z r n  (H, G·H), (D, G·H)      1; GRU 2 [4]      after [4] 1
  ============  =======  =====  ======================  ================  ========  ==============

  ============  ======================================  =============================  ===========
  library       initial W                               initial U                      initial b
  ============  ======================================  =============================  ===========
  gradlab       orthogonal in each gate                 N(0, 1/D)                      0
  PyTorch       U(-1/√H, 1/√H)                          U(-1/√H, 1/√H)                 as W
  cuDNN         the caller's                            the caller's                   the caller's
  flax linen    orthogonal in each gate                 truncated N(0, 1/D) [5]        0
  flax nnx      orthogonal over the stack of gates [1]  truncated N(0, 1/D) [5]        0
  equinox       U(-1/√H, 1/√H)                          U(-1/√H, 1/√H)                 as W
  haiku         truncated normal [6]                    truncated normal [6]           0
  keras         orthogonal over the stack of gates      U(-a, a), a² = 6/(D + G·H)     0
  ============  ======================================  =============================  ===========

  [1] OptimizedLSTMCell and GRUCell. A stack of gates with WᵀW = I as a whole is not orthogonal in
      any gate. nnx's LSTMCell is by gate, as linen's, and orthogonal in each gate; nnx's GRUCell
      has no b'. linen's OptimizedLSTMCell has the parameters of its LSTMCell, by gate; its MGUCell
      starts with 1 as the bias of its gate.
  [2] The LSTM has one weight, (D + H, 4·H), for x and h side by side.
  [3] VanillaRNN has two by default (`double_bias`), and its nonlinearity is relu.
  [4] With `reset_after=True`, the default, b is (2, 3·H), at U and at W; with `False` it is
      (3·H,) and the reset comes before the product. haiku's z is the others' 1 - z.
  [5] Cut at two standard deviations of the normal, which is widened so that 1/D is the variance of
      what is left.
  [6] Cut at two standard deviations. LSTM and VanillaRNN draw from N(0, 1/n), n = D + H in the LSTM
      and the width read in VanillaRNN, and the cut leaves 0.774/n; GRU widens it as in [5], with
      H for W and D for U.

cuDNN's rows were read, not run: its header (cudnnRNNMode_t, cudnnRNNBiasMode_t), and for the order
of the gates the converter in keras (`keras/src/backend/tensorflow/rnn.py`). The others are those
of the libraries themselves: flax 0.12.8, equinox 0.13.8, haiku 0.0.17, keras 3.15.1, PyTorch
2.13.0. On JAX, keras computes its own tanh in float32, in float64 layers as well.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from gradlab._names import choose
from gradlab.cells.base import Cell, Params
from gradlab.cells.elman import elman
from gradlab.cells.gru import gru, gru_reset_before
from gradlab.cells.lstm import lstm
from gradlab.cells.one_gate import ugrnn

GATES = {1: "a plain RNN", 3: "a GRU", 4: "an LSTM"}
TORCH_KEY = re.compile(r"(weight|bias)_(ih|hh)(_l\d+(_reverse)?)?")

# What flax calls the layers of each cell, "i" + gate and "h" + gate, and which have a bias.
FLAX = {
    "SimpleCell": (("",), ("i",)),
    "LSTMCell": (("i", "f", "g", "o"), ("hi", "hf", "hg", "ho")),
    "GRUCell": (("r", "z", "n"), ("ir", "iz", "in", "hn")),
    "MGUCell": (("f", "n"), ("if", "in")),
}


def from_torch(
    state_dict: Mapping[str, Any],
    *,
    layer: int = 0,
    reverse: bool = False,
    prefix: str = "",
    activation: str | None = None,
) -> tuple[Cell, Params]:
    """One layer of PyTorch's `RNN`, `LSTM` or `GRU`, or one of its cells.

    PyTorch's two biases enter as their sum b_ih + b_hh, except in the GRU's candidate, whose b_hn
    is `params["recurrent_bias"]`. A layer without biases gives zeros.

    Args:
        state_dict: the module's `state_dict()`, or arrays under the same names.
        layer: which layer of a stack, 0 first; a cell has only this one.
        reverse: the backward direction of a bidirectional layer; give it the inputs last to first.
        prefix: what the names begin with in a larger model's state_dict, `"encoder.rnn."`.
        activation: φ of a plain RNN, `"tanh"` or `"relu"` as its `nonlinearity` says: the
            state_dict of both is the same. One of `elman`'s; needed for a plain RNN only.

    Returns:
        `elman`, `lstm` or `gru`, by the number of gates, and its parameters. Values are not
        looked at: a NaN stays where it is.

    Raises:
        ValueError: for a missing or unknown name, a shape that does not fit, a plain RNN without
            `activation`, or one that a gated cell does not have.

    >>> import numpy as np
    >>> weights = {"weight_ih_l0": np.ones((8, 3)), "weight_hh_l0": np.ones((8, 2))}
    >>> cell, params = from_torch(weights)
    >>> cell.name, cell.inputs, params["bias"].shape
    ('lstm', 3, (8,))

    Source: the documentation of `torch.nn.LSTM` and `torch.nn.GRU`, "Variables".
    """
    who = "from_torch"
    names = (name for name in state_dict if name.startswith(prefix))
    own = {name.removeprefix(prefix): state_dict[name] for name in names}
    own = {name: value for name, value in own.items() if "." not in name}
    plain = "weight_hh" in own and not layer and not reverse
    suffix = "" if plain else f"_l{layer}" + "_reverse" * reverse
    for name in own:
        if not TORCH_KEY.fullmatch(name):
            raise ValueError(
                f"{who}: unknown {prefix + name!r}; it knows weight_ih, weight_hh, bias_ih, bias_hh"
            )
    needed = f"weight_hh{suffix}"
    if needed not in own:
        hints = sorted({n.removesuffix(needed) for n in state_dict if n.endswith(needed)})
        hint = f"; prefix={hints[0]!r} would find one" if hints else ""
        raise ValueError(
            f"{who} needs {prefix + needed!r}, found {_listed(own or state_dict)}{hint}"
        )

    W = _array(who, needed, own[needed])
    gates, hidden = _gates(who, needed, W.shape, GATES)
    rows = gates * hidden
    U = _take(who, f"weight_ih{suffix}", own, (rows, None))
    b, b_hh = jnp.zeros(rows, W.dtype), jnp.zeros(rows, W.dtype)
    if any(name in own for name in (f"bias_ih{suffix}", f"bias_hh{suffix}")):
        b = _take(who, f"bias_ih{suffix}", own, (rows,))
        b_hh = _take(who, f"bias_hh{suffix}", own, (rows,))
    return _cell(who, gates, W, U, b, b_hh, activation=activation)


def from_flax(params: Mapping[str, Any], *, activation: str | None = None) -> tuple[Cell, Params]:
    """A cell of flax, linen or nnx: SimpleCell, LSTMCell, OptimizedLSTMCell, GRUCell or MGUCell.

    linen's MGUCell resets after the product, unlike the published unit (`mgu`): it is a `gru`
    whose r and z are one gate: it becomes a `gru` with the gate's weights twice; with
    `reset_gate=False` it is a `ugrnn`.

    Args:
        params: the cell's own parameters: in linen the dict that holds the layers ("ii", "hi",
            ...), `variables["params"]` of a cell and one level below it for an `nn.RNN`, ["cell"];
            in nnx `nnx.state(cell, nnx.Param)`, or that as a plain dict.
        activation: φ of a SimpleCell, its `activation_fn`, which the parameters do not tell; one of
            `elman`'s, needed for a SimpleCell only. Nor do they tell `residual=True`, which no cell
            here has.

    Returns:
        `elman`, `lstm`, `gru` or `ugrnn`, and its parameters. Values are not looked at: a
        NaN stays where it is.

    Raises:
        ValueError: for a missing or unknown name, a shape that does not fit, a SimpleCell without
            `activation`, or one that a gated cell does not have.

    >>> import numpy as np
    >>> layers = {"i": {"kernel": np.ones((3, 2)), "bias": np.ones(2)}, "h": {"kernel": np.eye(2)}}
    >>> cell, params = from_flax(layers, activation="tanh")
    >>> cell.name, params["input"].shape
    ('elman', (2, 3))

    Source: `flax/linen/recurrent.py` and `flax/nnx/nn/recurrent.py`.
    """
    who = "from_flax"
    if not isinstance(params, Mapping):
        raise ValueError(
            f"{who} needs a mapping of layers, got {type(params).__name__}; "
            "of an nnx module, nnx.state(module, nnx.Param)"
        )
    layers = {name: _layer(who, name, layer) for name, layer in params.items() if layer is not None}
    if "dense_h" in layers or "dense_i" in layers:
        layers, biased = _unstacked(who, layers)
        gates = _nearest(layers)[0]
    else:
        layers = {"if" if name == "if_" else name: layer for name, layer in layers.items()}
        gates, biased = _nearest(layers)
        if gates == ("f", "n") and "bias" in layers.get("hn", {}):
            biased = (*biased, "hn")
    _exactly(who, layers, [side + gate for side in "ih" for gate in gates])

    for name, layer in layers.items():
        _exactly(who, layer, ["kernel", "bias"] if name in biased else ["kernel"], f"{name}/")

    first = f"i{gates[0]}"
    inputs, hidden = _shape(who, f"{first}/kernel", layers[first]["kernel"], 2)
    kernels, biases = {}, {}
    for name, layer in layers.items():
        width = inputs if name.startswith("i") else hidden
        kernels[name] = _fits(who, f"{name}/kernel", layer["kernel"], (width, hidden)).T
        biases[name] = jnp.zeros(hidden, kernels[name].dtype)
        if name in biased:
            biases[name] = _fits(who, f"{name}/bias", layer["bias"], (hidden,))

    tied = gates == ("f", "n") and "hn" in biased
    gates = ("f", "f", "n") if tied else gates
    W, U, b, b_hh = (
        jnp.concatenate([side[at + gate] for gate in gates])
        for side, at in ((kernels, "h"), (kernels, "i"), (biases, "i"), (biases, "h"))
    )
    if gates == ("f", "n"):
        _only_tanh(who, "an MGUCell", activation)
        return ugrnn(inputs, hidden), {"recurrent": W, "input": U, "bias": b}
    return _cell(who, len(gates), W, U, b, b_hh, activation=activation)


def from_equinox(cell: Any) -> tuple[Cell, Params]:
    """`equinox.nn.LSTMCell` or `GRUCell`; without biases (`use_bias=False`) they are zeros.

    Args:
        cell: the module, or a mapping with its arrays' names: weight_ih, weight_hh, bias, bias_n.

    Returns:
        `lstm` or `gru`, and its parameters.

    Raises:
        ValueError: for a missing name, or a shape that does not fit.

    >>> import numpy as np
    >>> weights = {"weight_ih": np.ones((6, 3)), "weight_hh": np.ones((6, 2))}
    >>> cell, params = from_equinox(weights | {"bias": np.ones(6), "bias_n": np.ones(2)})
    >>> cell.name, cell.inputs, cell.hidden
    ('gru', 3, 2)

    Source: `equinox/nn/_rnn.py`.
    """
    who = "from_equinox"
    found = dict(cell) if isinstance(cell, Mapping) else dict(getattr(cell, "__dict__", {}))
    W = _array(who, "weight_hh", _present(who, "weight_hh", found))
    gates, hidden = _gates(who, "weight_hh", W.shape, {3: GATES[3], 4: GATES[4]})
    rows = gates * hidden
    U = _take(who, "weight_ih", found, (rows, None))
    b, b_hh = jnp.zeros(rows, W.dtype), jnp.zeros(rows, W.dtype)
    if _present(who, "bias", found) is not None:
        b = _take(who, "bias", found, (rows,))
        if gates == 3:
            b_hh = b_hh.at[2 * hidden :].set(_take(who, "bias_n", found, (hidden,)))
    return _cell(who, gates, W, U, b, b_hh)


def from_haiku(params: Mapping[str, Mapping[str, Any]], *, prefix: str = "") -> tuple[Cell, Params]:
    """haiku's `VanillaRNN`, `LSTM` or `GRU`.

    The 1 that haiku's LSTM adds to its forget gate is in the bias here. haiku's GRU keeps what
    others replace, so that its update gate comes with the opposite sign: 1 - σ(a) = σ(-a).

    Args:
        params: what `init` of the transformed function gives, by module: "gru", "lstm/linear",
            "vanilla_rnn/linear" and "vanilla_rnn/linear_1".
        prefix: what the modules' names begin with, `"model/~/lstm"`, where there are others.

    Returns:
        `elman` with relu, `lstm` or `gru_reset_before`, and its parameters.

    Raises:
        ValueError: for a missing or unknown name, or a shape that does not fit.

    >>> import numpy as np
    >>> cell, params = from_haiku({"lstm/linear": {"w": np.ones((5, 8)), "b": np.zeros(8)}})
    >>> cell.name, cell.inputs, params["bias"].tolist()
    ('lstm', 3, [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0])

    Source: `haiku/_src/recurrent.py`.
    """
    who = "from_haiku"
    modules = {name: params[name] for name in params if name.startswith(prefix)}
    last = {name.rsplit("/", 1)[-1]: name for name in modules}
    if len(modules) == 2 and set(last) == {"linear", "linear_1"}:
        return _haiku_vanilla(who, modules, last)
    if len(modules) != 1:
        raise ValueError(
            f"{who} needs one module (a GRU, or an LSTM's linear) or two (a VanillaRNN's linear "
            f"and linear_1) under prefix={prefix!r}, found {_listed(modules or params)}"
        )
    ((module, weights),) = modules.items()
    at = f"{module}/"
    if "w" in weights:
        _exactly(who, weights, ["w", "b"], at)
        w = _array(who, f"{at}w", weights["w"])
        rows, columns = _shape(who, f"{at}w", w, 2)
        hidden, rest = divmod(columns, 4)
        inputs = rows - hidden
        if rest or not hidden or inputs < 1:
            raise ValueError(f"{who} needs {at}w of shape (D + H, 4·H), got {w.shape}")
        b = _fits(who, f"{at}b", weights["b"], (columns,))
        U, W, b = (_ordered(p, (0, 2, 1, 3)) for p in (w[:inputs].T, w[inputs:].T, b))
        b = b.at[hidden : 2 * hidden].add(1)
        return _cell(who, 4, W, U, b)

    _exactly(who, weights, ["w_i", "w_h", "b"], at)
    w_h = _array(who, f"{at}w_h", weights["w_h"])
    _, hidden = _gates(who, f"{at}w_h", w_h.shape, {3: GATES[3]}, transposed=True)
    w_i = _fits(who, f"{at}w_i", weights["w_i"], (None, 3 * hidden))
    b = _fits(who, f"{at}b", weights["b"], (3 * hidden,))
    turned = [_ordered(p, (1, 0, 2)) for p in (w_h.T, w_i.T, b)]
    update = slice(hidden, 2 * hidden)
    W, U, b = (p.at[update].multiply(-1) for p in turned)
    return _cell(who, 3, W, U, b, before=True)


def from_keras(
    weights: Sequence[Any], *, reset_after: bool | None = None, activation: str | None = None
) -> tuple[Cell, Params]:
    """keras' `SimpleRNN`, `LSTM` or `GRU`, or the cells of the same names.

    A GRU with `reset_after=True` (keras' default) has a bias of shape (2, 3·H) and becomes a
    `gru`; with `False` it is (3·H,) and becomes a `gru_reset_before`.

    Args:
        weights: the layer's `get_weights()`: kernel, recurrent_kernel and, unless the layer has
            none, bias. A Bidirectional layer's list is that of both directions, forward first.
        reset_after: the layer's own, needed only for a GRU without a bias to tell it from.
        activation: φ of a SimpleRNN, its `activation`, which the weights do not tell; one of
            `elman`'s, needed for a SimpleRNN only.

    Returns:
        `elman`, `lstm`, `gru` or `gru_reset_before`, and its parameters. Values are not
        looked at: a NaN stays where it is.

    Raises:
        ValueError: for a number of arrays or a shape that does not fit, a GRU of either form, a
            SimpleRNN without `activation`, or one that a gated cell does not have.

    >>> import numpy as np
    >>> cell, params = from_keras([np.ones((3, 6)), np.ones((2, 6)), np.ones(6)])
    >>> cell.name, cell.inputs, params["bias"].shape
    ('gru_reset_before', 3, (6,))

    Source: `keras/src/layers/rnn/`: simple_rnn.py, lstm.py, gru.py.
    """
    who = "from_keras"
    weights = list(weights)
    if len(weights) not in (2, 3):
        raise ValueError(
            f"{who} needs 2 or 3 arrays (kernel, recurrent_kernel and bias), got {len(weights)}"
        )
    names = ["kernel", "recurrent_kernel", "bias"]
    found = dict(zip(names, weights, strict=False))
    kernel = _array(who, "recurrent_kernel", found["recurrent_kernel"])
    gates, hidden = _gates(who, "recurrent_kernel", kernel.shape, GATES, transposed=True)
    rows = gates * hidden
    U = _take(who, "kernel", found, (None, rows)).T
    W, b, b_hh = kernel.T, jnp.zeros(rows, kernel.dtype), jnp.zeros(rows, kernel.dtype)
    if gates != 3:
        b = _take(who, "bias", found, (rows,)) if "bias" in found else b
        return _cell(who, gates, W, U, b, b_hh, activation=activation)

    if "bias" in found:
        bias = _array(who, "bias", found["bias"])
        after = bias.ndim == 2
        if reset_after not in (None, after):
            raise ValueError(
                f"{who}: a bias of shape {bias.shape} is one of reset_after={after}, "
                f"got reset_after={reset_after}"
            )
        bias = _fits(who, "bias", bias, (2, rows) if after else (rows,))
        b, b_hh = bias if after else (bias, b_hh)
    elif reset_after is None:
        raise ValueError(f"{who} needs reset_after=True or False for a GRU without a bias")
    else:
        after = reset_after
    W, U, b, b_hh = (_ordered(p, (1, 0, 2)) for p in (W, U, b, b_hh))
    return _cell(who, 3, W, U, b, b_hh, activation=activation, before=not after)


def _haiku_vanilla(
    who: str, modules: Mapping[str, Mapping[str, Any]], last: Mapping[str, str]
) -> tuple[Cell, Params]:
    at_i, at_h = (f"{last[name]}/" for name in ("linear", "linear_1"))
    of_x, of_h = modules[last["linear"]], modules[last["linear_1"]]
    _exactly(who, of_x, ["w", "b"], at_i)
    _exactly(who, of_h, ["w", "b"] if "b" in of_h else ["w"], at_h)
    w = _array(who, f"{at_h}w", of_h["w"])
    _, hidden = _gates(who, f"{at_h}w", w.shape, {1: GATES[1]})
    U = _fits(who, f"{at_i}w", of_x["w"], (None, hidden)).T
    b = _fits(who, f"{at_i}b", of_x["b"], (hidden,))
    b_hh = _fits(who, f"{at_h}b", of_h["b"], (hidden,)) if "b" in of_h else jnp.zeros_like(b)
    return _cell(who, 1, w.T, U, b, b_hh, activation="relu")


def _unstacked(
    who: str, layers: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
    """nnx's dense_i and dense_h cut into the layers of each gate, and which have a bias."""
    _exactly(who, layers, ["dense_i", "dense_h"])
    kernel = _array(who, "dense_h/kernel", _present(who, "kernel", layers["dense_h"], "dense_h/"))
    count, hidden = _gates(who, "dense_h/kernel", kernel.shape, GATES, transposed=True)
    cell = {1: "SimpleCell", 3: "GRUCell", 4: "LSTMCell"}[count]
    gates, at = FLAX[cell][0], "dense_h" if count == 4 else "dense_i"
    out: dict[str, dict[str, Any]] = {side + gate: {} for side in "ih" for gate in gates}
    for name, layer in layers.items():
        side = name[-1]
        _exactly(who, layer, ["kernel", "bias"] if name == at else ["kernel"], f"{name}/")
        width = hidden if side == "h" else None
        for leaf, shape in (("kernel", (width, count * hidden)), ("bias", (count * hidden,))):
            if leaf in layer:
                whole = _fits(who, f"{name}/{leaf}", layer[leaf], shape)
                for gate, part in zip(gates, jnp.split(whole, count, axis=-1), strict=True):
                    out[side + gate][leaf] = part
    return out, tuple(at[-1] + gate for gate in gates)


def _nearest(layers: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The gates and biased layers of flax' cell whose layers' names differ least from these."""
    names = set(layers)

    def unlike(cell: str) -> int:
        return len(names ^ {side + gate for side in "ih" for gate in FLAX[cell][0]})

    return FLAX[min(FLAX, key=unlike)]


def _cell(
    who: str,
    gates: int,
    W: Array,
    U: Array,
    b: Array,
    b_hh: Array | None = None,
    *,
    activation: str | None = None,
    before: bool = False,
) -> tuple[Cell, Params]:
    """The cell with G gates, from weights in gradlab's order; `before` is the GRU's reset."""
    hidden, inputs = W.shape[1], U.shape[1]
    b_hh = jnp.zeros_like(b) if b_hh is None else b_hh
    params = {"recurrent": W, "input": U, "bias": b + b_hh}
    if gates == 1:
        if activation is None:
            raise ValueError(
                f"{who} needs activation='tanh' or activation='relu' for a plain RNN, "
                "whose weights do not tell it"
            )
        return elman(inputs, hidden, activation=activation), params
    _only_tanh(who, GATES[gates], activation)
    if gates == 4:
        return lstm(inputs, hidden), params
    if before:
        return gru_reset_before(inputs, hidden), params
    n = slice(2 * hidden, None)
    params |= {"bias": params["bias"].at[n].set(b[n]), "recurrent_bias": b_hh[n]}
    return gru(inputs, hidden), params


def _only_tanh(who: str, kind: str, activation: str | None) -> None:
    if activation not in (None, "tanh"):
        raise ValueError(f"{who}: {kind} has tanh here, got activation={activation!r}")


def _ordered(stack: Array, order: Sequence[int]) -> Array:
    """The gate blocks of a stack in another order.

    >>> _ordered(jnp.arange(6), (1, 0, 2)).tolist()
    [2, 3, 0, 1, 4, 5]
    """
    blocks = jnp.split(stack, len(order))
    return jnp.concatenate([blocks[index] for index in order])


def _array(who: str, key: str, value: Any) -> Array:
    if hasattr(value, "detach"):  # NumPy refuses a tensor that requires a gradient.
        value = value.detach().cpu().numpy()
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError):
        raise ValueError(f"{who} needs an array at {key}, got {type(value).__name__}") from None


def _shape(who: str, key: str, value: Any, ndim: int) -> tuple[int, ...]:
    shape = _array(who, key, value).shape
    if len(shape) != ndim or 0 in shape:
        raise ValueError(f"{who} needs {key} with {ndim} axes, got shape {shape}")
    return shape


def _fits(who: str, key: str, value: Any, shape: tuple[int | None, ...]) -> Array:
    """The value as an array, if it has the shape; `None` stands for the width of the input."""
    array = _array(who, key, value)
    fits = len(array.shape) == len(shape) and all(
        size > 0 if width is None else size == width
        for size, width in zip(array.shape, shape, strict=False)
    )
    if not fits:
        needed = ", ".join("D" if width is None else str(width) for width in shape)
        raise ValueError(
            f"{who} needs {key} of shape ({needed}{',' * (len(shape) == 1)}), got {array.shape}"
        )
    return array


def _take(who: str, key: str, found: Mapping[str, Any], shape: tuple[int | None, ...]) -> Array:
    return _fits(who, key, _present(who, key, found), shape)


def _gates(
    who: str,
    key: str,
    shape: tuple[int, ...],
    kinds: Mapping[int, str],
    transposed: bool = False,
) -> tuple[int, int]:
    """G and H from a recurrent weight's shape, (G·H, H) or, transposed, (H, G·H)."""
    if len(shape) == 2 and 0 not in shape:
        rows, hidden = reversed(shape) if transposed else shape
        if rows % hidden == 0 and rows // hidden in kinds:
            return rows // hidden, hidden
    layout = "(H, G·H)" if transposed else "(G·H, H)"
    valid = " or ".join(f"G = {gates} ({kind})" for gates, kind in kinds.items())
    raise ValueError(f"{who} needs {key} of shape {layout} with {valid}, got {shape}")


def _layer(who: str, name: str, layer: Any) -> Mapping[str, Any]:
    if not isinstance(layer, Mapping):
        raise ValueError(
            f"{who} needs a mapping with a kernel at {name!r}, got {type(layer).__name__}"
        )
    return {leaf: value for leaf, value in layer.items() if value is not None}


def _present(who: str, key: str, found: Mapping[str, Any], at: str = "") -> Any:
    if key not in found:
        raise ValueError(f"{who} needs {at + key!r}, found {_listed(found)}")
    return found[key]


def _exactly(who: str, found: Mapping[str, Any], keys: Iterable[str], at: str = "") -> None:
    """Raise for a key too many or too few."""
    keys = list(keys)
    for key in keys:
        _present(who, key, found, at)
    for key in found:
        choose(f"{who} key", at + key, [at + key for key in keys])


def _listed(found: Iterable[str], most: int = 8) -> str:
    names = sorted(map(str, found))
    return ", ".join(names[:most] + ["..."] * (len(names) > most)) or "nothing"
