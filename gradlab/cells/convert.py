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
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from gradlab._names import choose
from gradlab.cells._torch_weights import TorchWeights, to_array
from gradlab.cells.base import Cell, Params
from gradlab.cells.elman import elman
from gradlab.cells.gru import gru, gru_reset_before
from gradlab.cells.indrnn import indrnn
from gradlab.cells.lru import lru
from gradlab.cells.lstm import lstm, lstm_projected
from gradlab.cells.min_gated import CANDIDATES, min_gru, min_lstm
from gradlab.cells.one_gate import ugrnn

GATES = {1: "a plain RNN", 3: "a GRU", 4: "an LSTM"}
TORCH_KEY = re.compile(r"((weight|bias)_(ih|hh)|weight_hr)(_l\d+(_reverse)?)?")

# The name that says which layer a state_dict holds, where it is not one of torch.nn's, and for the
# minimal gated units the names of their blocks, in gradlab's order of the gates.
TORCH_LRU = "nu_log"
TORCH_MIN = {
    "to_hidden_and_gate": "min_gru",
    "to_hidden_and_f_i_gate": "min_lstm",
    "linear_z": "min_gru",
    "linear_f": "min_lstm",
}
MIN_BLOCKS = {"min_gru": ("linear_z", "linear_h"), "min_lstm": ("linear_f", "linear_i", "linear_h")}
# What reads the states, or starts them, and is part of no cell.
READOUTS = ("C", "C_re", "C_im", "D", "init_hidden_state", "to_out.weight", "to_out.bias")

# What flax calls the layers of each cell, "i" + gate and "h" + gate, and which have a bias.
FLAX = {
    "SimpleCell": (("",), ("i",)),
    "LSTMCell": (("i", "f", "g", "o"), ("hi", "hf", "hg", "ho")),
    "GRUCell": (("r", "z", "n"), ("ir", "iz", "in", "hn")),
    "MGUCell": (("f", "n"), ("if", "in")),
}


def from_torch(
    state_dict: Any,
    *,
    layer: int = 0,
    reverse: bool = False,
    prefix: str = "",
    activation: str | None = None,
) -> tuple[Cell, Params]:
    """One recurrent layer of PyTorch: `RNN`, `LSTM`, `GRU`, their cells, and a few of others' code.

    PyTorch's two biases enter as their sum b_ih + b_hh, except in the GRU's candidate, whose b_hn
    is `params["recurrent_bias"]`. A layer without biases gives zeros. `LSTM(proj_size=P)` becomes
    an `lstm_projected`, whose h has width P.

    Others' code comes over where its names are these, and a cell has its form:

    - IndRNN, whose `weight_hh` is a vector (github.com/StefOe/indrnn-pytorch);
    - the LRU, by `nu_log`, `theta_log`, `gamma_log` and either a complex `B` or `B_re` and `B_im`
      (github.com/Gothos/LRU-pytorch, github.com/forgi86/sysid-pytorch-lru). γ is e^gamma_log, as
      in the paper: code that multiplies by gamma_log itself needs its logarithm there;
    - minGRU and minLSTM, by `to_hidden_and_gate` and `to_hidden_and_f_i_gate`
      (github.com/lucidrains/minGRU-pytorch, github.com/BorealisAI/minRNNs), or by `linear_z` and
      `linear_h`, `linear_f`, `linear_i` and `linear_h`.

    What reads their states is no part of a cell (C and D, `to_out`), nor is a first state that was
    learned: these stay behind, with a warning that names them.

    A weight under `torch.nn.utils.parametrize` is computed by the module, if this is what is
    given. In a state_dict weight_norm's two parts and prune's mask are enough, old names or new;
    that nothing else was put on top is then the caller's word where the dict's `_metadata` is lost.

    Args:
        state_dict: the module's `state_dict()`, the module itself, or arrays under the same names.
        layer: which layer of a stack, 0 first; a cell has only this one.
        reverse: the backward direction of a bidirectional layer; give it the inputs last to first.
        prefix: what the names begin with in a larger model's state_dict, `"encoder.rnn."`.
        activation: φ of a plain RNN or IndRNN, `"tanh"` or `"relu"` as its `nonlinearity` says: the
            state_dict of both is the same, a module has it. For minGRU and minLSTM φ of the
            candidate, `"linear"` or `"positive"`, the g of the forms in logarithms.

    Returns:
        The cell, for torch.nn's `elman`, `lstm`, `lstm_projected` or `gru`, by the number of gates,
        and its parameters in the tensors' own dtypes, bfloat16 too. Values are not looked at: a
        NaN stays where it is.

    Raises:
        ValueError: for a missing or unknown name, a shape that does not fit, a parametrization that
            a state_dict does not tell, Mamba's form, which no cell has, a missing `activation`, or
            one that the cell does not have.

    >>> import numpy as np
    >>> weights = {"weight_ih_l0": np.ones((8, 3)), "weight_hh_l0": np.ones((8, 2))}
    >>> cell, params = from_torch(weights)
    >>> cell.name, cell.inputs, params["bias"].shape
    ('lstm', 3, (8,))

    Source: the documentation of `torch.nn.LSTM` and `torch.nn.GRU`, "Variables".
    """
    who = "from_torch"
    weights = TorchWeights(who, state_dict, prefix)
    single = not layer and not reverse
    if single and TORCH_LRU in weights:
        cell = _torch_lru(who, weights, activation)
        _warn_of_readout(who, weights)
        return cell
    for first, kind in TORCH_MIN.items():
        if single and f"{first}.weight" in weights:
            cell = _torch_min_gated(who, weights, first, kind, activation)
            _warn_of_readout(who, weights)
            return cell

    plain = "weight_hh" in weights and single
    suffix = "" if plain else f"_l{layer}" + "_reverse" * reverse
    own = [name for name in weights if "." not in name]
    _torch_needs(who, f"weight_hh{suffix}", own, TorchWeights(who, state_dict), prefix)
    for name in own:
        if not TORCH_KEY.fullmatch(name):
            raise ValueError(
                f"{who}: unknown {prefix + name!r}; it knows weight_ih, weight_hh, weight_hr, "
                "bias_ih, bias_hh"
            )
    return _torch_rnn(who, weights, suffix, _torch_activation(who, weights, activation))


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
        layers, with_bias = _unstack_layers(who, layers)
        gates = _nearest(layers)[0]
    else:
        layers = {"if" if name == "if_" else name: layer for name, layer in layers.items()}
        gates, with_bias = _nearest(layers)
        if gates == ("f", "n") and "bias" in layers.get("hn", {}):
            with_bias = (*with_bias, "hn")
    _exactly(who, layers, [side + gate for side in "ih" for gate in gates])

    for name, layer in layers.items():
        _exactly(who, layer, ["kernel", "bias"] if name in with_bias else ["kernel"], f"{name}/")

    first = f"i{gates[0]}"
    inputs, hidden = _shape(who, f"{first}/kernel", layers[first]["kernel"], 2)
    kernels, biases = {}, {}
    for name, layer in layers.items():
        width = inputs if name.startswith("i") else hidden
        kernels[name] = _fits(who, f"{name}/kernel", layer["kernel"], (width, hidden)).T
        biases[name] = jnp.zeros(hidden, kernels[name].dtype)
        if name in with_bias:
            biases[name] = _fits(who, f"{name}/bias", layer["bias"], (hidden,))

    tied = gates == ("f", "n") and "hn" in with_bias
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
    weights = dict(cell) if isinstance(cell, Mapping) else dict(getattr(cell, "__dict__", {}))
    W = to_array(who, "weight_hh", _present(who, "weight_hh", weights))
    gates, hidden = _gates(who, "weight_hh", W.shape, {3: GATES[3], 4: GATES[4]})
    rows = gates * hidden
    U = _take(who, "weight_ih", weights, (rows, None))
    b, b_hh = jnp.zeros(rows, W.dtype), jnp.zeros(rows, W.dtype)
    if _present(who, "bias", weights) is not None:
        b = _take(who, "bias", weights, (rows,))
        if gates == 3:
            b_hh = b_hh.at[2 * hidden :].set(_take(who, "bias_n", weights, (hidden,)))
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
            f"and linear_1) under prefix={prefix!r}, found {_join_names(modules or params)}"
        )
    ((module, weights),) = modules.items()
    at = f"{module}/"
    if "w" in weights:
        _exactly(who, weights, ["w", "b"], at)
        w = to_array(who, f"{at}w", weights["w"])
        rows, columns = _shape(who, f"{at}w", w, 2)
        hidden, rest = divmod(columns, 4)
        inputs = rows - hidden
        if rest or not hidden or inputs < 1:
            raise ValueError(f"{who} needs {at}w of shape (D + H, 4·H), got {w.shape}")
        b = _fits(who, f"{at}b", weights["b"], (columns,))
        U, W, b = (_reorder(p, (0, 2, 1, 3)) for p in (w[:inputs].T, w[inputs:].T, b))
        b = b.at[hidden : 2 * hidden].add(1)
        return _cell(who, 4, W, U, b)

    _exactly(who, weights, ["w_i", "w_h", "b"], at)
    w_h = to_array(who, f"{at}w_h", weights["w_h"])
    _, hidden = _gates(who, f"{at}w_h", w_h.shape, {3: GATES[3]}, transposed=True)
    w_i = _fits(who, f"{at}w_i", weights["w_i"], (None, 3 * hidden))
    b = _fits(who, f"{at}b", weights["b"], (3 * hidden,))
    stacks = [_reorder(p, (1, 0, 2)) for p in (w_h.T, w_i.T, b)]
    update = slice(hidden, 2 * hidden)
    W, U, b = (p.at[update].multiply(-1) for p in stacks)
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
    arrays = dict(zip(names, weights, strict=False))
    kernel = to_array(who, "recurrent_kernel", arrays["recurrent_kernel"])
    gates, hidden = _gates(who, "recurrent_kernel", kernel.shape, GATES, transposed=True)
    rows = gates * hidden
    U = _take(who, "kernel", arrays, (None, rows)).T
    W, b, b_hh = kernel.T, jnp.zeros(rows, kernel.dtype), jnp.zeros(rows, kernel.dtype)
    if gates != 3:
        b = _take(who, "bias", arrays, (rows,)) if "bias" in arrays else b
        return _cell(who, gates, W, U, b, b_hh, activation=activation)

    if "bias" in arrays:
        bias = to_array(who, "bias", arrays["bias"])
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
    W, U, b, b_hh = (_reorder(p, (1, 0, 2)) for p in (W, U, b, b_hh))
    return _cell(who, 3, W, U, b, b_hh, activation=activation, before=not after)


def _torch_needs(
    who: str, key: str, own: Sequence[str], everything: TorchWeights, prefix: str
) -> None:
    """Raise where `key`, the weight that identifies a layer, is not under the prefix."""
    if key in own:
        return
    for name in everything:
        if name.startswith(prefix) and name.rpartition(".")[2] == "A_log":
            raise ValueError(
                f"{who}: {name!r} is one of Mamba's selective state space, whose form no cell here "
                "has; write its step in JAX, and gl.trace measures it"
            )
    ends = [key]
    if key == "weight_hh_l0":
        ends += ["weight_hh", TORCH_LRU, *(f"{first}.weight" for first in TORCH_MIN)]
    pairs = ((name, end) for end in ends for name in everything if name.endswith(end))
    hints = sorted({name.removesuffix(end) for name, end in pairs} - {prefix})
    hint = f"; prefix={hints[0]!r} would find one" if hints else ""
    raise ValueError(f"{who} needs {prefix + key!r}, found {_join_names(own or everything)}{hint}")


def _torch_activation(who: str, weights: TorchWeights, activation: str | None) -> str | None:
    """The nonlinearity of a plain RNN, which a module has and a state_dict has not."""
    own = weights.attribute("nonlinearity")
    if None not in (own, activation) and own != activation:
        raise ValueError(f"{who}: the module has nonlinearity={own!r}, got {activation=}")
    return own if isinstance(own, str) else activation


def _torch_rnn(
    who: str, weights: TorchWeights, suffix: str, activation: str | None
) -> tuple[Cell, Params]:
    """One layer of torch.nn, or an IndRNN, whose recurrent weight is a vector."""
    at = f"weight_hh{suffix}"
    W, R = to_array(who, at, weights[at]), None
    if W.ndim == 1:
        gates, rows = 1, W.size
        W = _fits(who, at, W, (None,))
    elif f"weight_hr{suffix}" in weights:
        R = _fits(who, f"weight_hr{suffix}", weights[f"weight_hr{suffix}"], (None, None))
        gates, rows = 4, 4 * R.shape[1]
        W = _fits(who, at, W, (rows, R.shape[0]))
    else:
        gates, hidden = _gates(who, at, W.shape, GATES)
        rows = gates * hidden
    U = _take(who, f"weight_ih{suffix}", weights, (rows, None))
    b, b_hh = jnp.zeros(rows, W.dtype), jnp.zeros(rows, W.dtype)
    sides = [f"bias_{side}{suffix}" for side in ("ih", "hh")]
    if any(name in weights for name in sides):
        b = _take(who, sides[0], weights, (rows,))
        if W.ndim == 2 or sides[1] in weights:
            b_hh = _take(who, sides[1], weights, (rows,))
    if W.ndim == 1:
        cell = indrnn(U.shape[1], rows, activation=_require_phi(who, "an IndRNN", activation))
        return cell, {"recurrent": W, "input": U, "bias": b + b_hh}
    if R is not None:
        _only_tanh(who, GATES[4], activation)
        cell = lstm_projected(U.shape[1], R.shape[0], memory=R.shape[1])
        return cell, {"recurrent": W, "input": U, "bias": b + b_hh, "projection": R}
    return _cell(who, gates, W, U, b, b_hh, activation=activation)


def _torch_lru(who: str, weights: TorchWeights, activation: str | None) -> tuple[Cell, Params]:
    if activation not in (None, "linear"):
        raise ValueError(f"{who}: an LRU is linear, got {activation=}")
    logs = ("nu_log", "theta_log", "gamma_log")
    parts = ("B",) if "B" in weights else ("B_re", "B_im")
    _torch_exactly(who, weights, (*logs, *parts))
    hidden = _fits(who, "nu_log", weights["nu_log"], (None,)).size
    params = {name: _take(who, name, weights, (hidden,)) for name in logs}
    B = [_take(who, name, weights, (hidden, None)) for name in parts]
    if len(B) == 1 and not jnp.iscomplexobj(B[0]):
        raise ValueError(f"{who} needs a complex B, got {B[0].dtype}")
    re, im = B if len(B) == 2 else (B[0].real, B[0].imag)
    params["input"] = jnp.concatenate([re, im])
    return lru(re.shape[1], hidden), params


def _torch_min_gated(
    who: str, weights: TorchWeights, first: str, kind: str, activation: str | None
) -> tuple[Cell, Params]:
    """minGRU or minLSTM, its blocks in one layer, the candidate's first, or each in its own."""
    layers = [first] if first.startswith("to_") else list(MIN_BLOCKS[kind])
    keys, bias_keys = ([f"{layer}.{leaf}" for layer in layers] for leaf in ("weight", "bias"))
    is_biased = any(name in weights for name in bias_keys)
    _torch_exactly(who, weights, (*keys, *bias_keys) if is_biased else keys)
    gates = len(MIN_BLOCKS[kind])
    blocks = [_fits(who, name, weights[name], (None, None)) for name in keys]
    rows = sum(len(block) for block in blocks)
    hidden, rest = divmod(rows, gates)
    if "to_out.weight" in weights:
        hidden = _fits(who, "to_out.weight", weights["to_out.weight"], (None, None)).shape[1]
    if rest or rows != gates * hidden:
        raise ValueError(
            f"{who} needs {keys[0]} of {gates}·H rows ({kind}), got {rows} rows"
            + (f" and H = {hidden} by to_out.weight" if "to_out.weight" in weights else "")
        )
    inputs = blocks[0].shape[1]
    per_layer = rows // len(layers)
    U = jnp.concatenate([_fits(who, name, weights[name], (per_layer, inputs)) for name in keys])
    b = jnp.zeros(rows, U.dtype)
    if is_biased:
        b = jnp.concatenate([_take(who, name, weights, (per_layer,)) for name in bias_keys])
    if len(layers) == 1:
        U, b = (_reorder(p, (*range(1, gates), 0)) for p in (U, b))
    if activation not in CANDIDATES:
        raise ValueError(
            f"{who} needs activation='linear' or activation='positive' (the g of the forms in "
            f"logarithms) for the candidate of a {kind}, whose weights do not tell it"
            + (f", got {activation!r}" if activation else "")
        )
    build = {"min_gru": min_gru, "min_lstm": min_lstm}[kind]
    return build(inputs, hidden, candidate=activation), {"input": U, "bias": b}


def _torch_exactly(who: str, weights: TorchWeights, names: Iterable[str]) -> None:
    """Raise for a name too many or too few, but for those of a readout."""
    _exactly(who, {name: None for name in weights if name not in READOUTS}, names)


def _warn_of_readout(who: str, weights: TorchWeights) -> None:
    behind = [repr(name) for name in weights if name in READOUTS]
    if behind:
        warnings.warn(
            f"{who} leaves {', '.join(behind)} behind: a cell has the recurrence alone, so start "
            "and read its states as the module does",
            stacklevel=3,
        )


def _haiku_vanilla(
    who: str, modules: Mapping[str, Mapping[str, Any]], last: Mapping[str, str]
) -> tuple[Cell, Params]:
    at_i, at_h = (f"{last[name]}/" for name in ("linear", "linear_1"))
    of_x, of_h = modules[last["linear"]], modules[last["linear_1"]]
    _exactly(who, of_x, ["w", "b"], at_i)
    _exactly(who, of_h, ["w", "b"] if "b" in of_h else ["w"], at_h)
    w = to_array(who, f"{at_h}w", of_h["w"])
    _, hidden = _gates(who, f"{at_h}w", w.shape, {1: GATES[1]})
    U = _fits(who, f"{at_i}w", of_x["w"], (None, hidden)).T
    b = _fits(who, f"{at_i}b", of_x["b"], (hidden,))
    b_hh = _fits(who, f"{at_h}b", of_h["b"], (hidden,)) if "b" in of_h else jnp.zeros_like(b)
    return _cell(who, 1, w.T, U, b, b_hh, activation="relu")


def _unstack_layers(
    who: str, layers: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
    """Split nnx's dense_i and dense_h into the layers of each gate; also name those with a bias."""
    _exactly(who, layers, ["dense_i", "dense_h"])
    kernel = to_array(who, "dense_h/kernel", _present(who, "kernel", layers["dense_h"], "dense_h/"))
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
    """The gates, and the layers with a bias, of the flax cell whose layer names fit these best."""
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
        return elman(inputs, hidden, activation=_require_phi(who, GATES[1], activation)), params
    _only_tanh(who, GATES[gates], activation)
    if gates == 4:
        return lstm(inputs, hidden), params
    if before:
        return gru_reset_before(inputs, hidden), params
    n = slice(2 * hidden, None)
    params |= {"bias": params["bias"].at[n].set(b[n]), "recurrent_bias": b_hh[n]}
    return gru(inputs, hidden), params


def _require_phi(who: str, kind: str, activation: str | None) -> str:
    if activation is None:
        raise ValueError(
            f"{who} needs activation='tanh' or activation='relu' for {kind}, "
            "whose weights do not tell it"
        )
    return activation


def _only_tanh(who: str, kind: str, activation: str | None) -> None:
    if activation not in (None, "tanh"):
        raise ValueError(f"{who}: {kind} has tanh here, got activation={activation!r}")


def _reorder(stack: Array, order: Sequence[int]) -> Array:
    """Reorder the gate blocks of a stack.

    >>> _reorder(jnp.arange(6), (1, 0, 2)).tolist()
    [2, 3, 0, 1, 4, 5]
    """
    blocks = jnp.split(stack, len(order))
    return jnp.concatenate([blocks[index] for index in order])


def _shape(who: str, key: str, value: Any, ndim: int) -> tuple[int, ...]:
    shape = to_array(who, key, value).shape
    if len(shape) != ndim or 0 in shape:
        raise ValueError(f"{who} needs {key} with {ndim} axes, got shape {shape}")
    return shape


def _fits(who: str, key: str, value: Any, shape: tuple[int | None, ...]) -> Array:
    """The value as an array, if it has the shape; `None` stands for the width of the input."""
    array = to_array(who, key, value)
    fits = len(array.shape) == len(shape) and all(
        size > 0 if width is None else size == width
        for size, width in zip(array.shape, shape, strict=False)
    )
    if not fits:
        layout = ", ".join("D" if width is None else str(width) for width in shape)
        raise ValueError(
            f"{who} needs {key} of shape ({layout}{',' * (len(shape) == 1)}), got {array.shape}"
        )
    return array


def _take(who: str, key: str, weights: Mapping[str, Any], shape: tuple[int | None, ...]) -> Array:
    return _fits(who, key, _present(who, key, weights), shape)


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


def _present(who: str, key: str, entries: Mapping[str, Any], at: str = "") -> Any:
    if key not in entries:
        raise ValueError(f"{who} needs {at + key!r}, found {_join_names(entries)}")
    return entries[key]


def _exactly(who: str, entries: Mapping[str, Any], keys: Iterable[str], at: str = "") -> None:
    """Raise for a key too many or too few."""
    keys = list(keys)
    for key in keys:
        _present(who, key, entries, at)
    for key in entries:
        choose(f"{who} key", at + key, [at + key for key in keys])


def _join_names(names: Iterable[str], most: int = 8) -> str:
    texts = sorted(map(str, names))
    return ", ".join(texts[:most] + ["..."] * (len(texts) > most)) or "nothing"
