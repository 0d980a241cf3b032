"""Models that read a review: bundles of pure functions from its codes to one logit."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from gradlab import cells
from gradlab._names import choose
from gradlab.applications._networks import drop, run, table
from gradlab.applications.sentiment.data import PADDING
from gradlab.cells import Cell
from gradlab.initializers import Initializer

Params = dict[str, Any]
Codes = Int[Array, "length grams"]


class Model(NamedTuple):
    """A classifier of reviews, unbatched; the caller applies `jax.vmap`.

    Padding in front of a review changes neither the logit nor any gradient.

    Attributes:
        name: its name in the registry.
        init: `(key, dtype=None) -> params`.
        logit: `(params, codes, key=None) -> ln p/(1-p)`, p the probability that the review is
            positive; codes of shape (T, grams), from `encode`. With a key, units are dropped out.
        read: `(params, codes) -> (states, gates)`, what the cell that reads forwards has in mind:
            h_t, (T, H), and the gates of each step, name -> (T, H). None for a model that reads no
            word after another.
    """

    name: str
    init: Callable[..., Params]
    logit: Callable[..., Float[Array, ""]]
    read: Callable[[Params, Codes], tuple[Array, dict[str, Array]]] | None = None


_BUILDERS: dict[str, Callable[..., Model]] = {}


def register(builder: Callable[..., Model]) -> Callable[..., Model]:
    """Enter a builder into the registry under its own function name (a decorator)."""
    _BUILDERS[builder.__name__] = builder
    return builder


def names() -> tuple[str, ...]:
    """The name of every registered model, sorted.

    >>> names()
    ('bag_of_words', 'convolution', 'pooled', 'recurrent')
    """
    return tuple(sorted(_BUILDERS))


def make(name: str, codes: int, **options: Any) -> Model:
    """Build a model by name.

    Args:
        name: one of `names()`.
        codes: the size of the vocabulary, `Vocabulary.size`.
        options: the builder's own arguments.

    Raises:
        ValueError: for an unknown name or option.

    >>> model = make("recurrent", codes=10, cell="gru", hidden=4, embedding=3)
    >>> params = model.init(jax.random.key(0))
    >>> model.logit(params, jnp.array([[0], [2], [3]])).shape
    ()
    """
    choose("model", name, _BUILDERS)
    valid = list(inspect.signature(_BUILDERS[name]).parameters)[1:]
    for option in options:
        choose(f"{name} option", option, valid)
    return _BUILDERS[name](codes, **options)


def standard(hidden: int) -> Initializer:
    """U(-1/√H, 1/√H), what PyTorch draws every weight and bias of its recurrent layers from.

    For Elman's W the singular values then lie below 2/√3 ≈ 1.15 and the spectral radius is about
    1/√3 ≈ 0.58, so a linear recurrence loses 0.55 nats a step.

    >>> w = standard(4)(jax.random.key(0), (4, 4), "float32")
    >>> bool(jnp.abs(w).max() <= 0.5)
    True
    """
    bound = hidden**-0.5

    def init(key: PRNGKeyArray, shape: Any, dtype: Any = None) -> Array:
        dtype = jnp.result_type(float) if dtype is None else dtype
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


INITIALIZATIONS: dict[str, Callable[[int], dict[str, Any]]] = {
    "orthogonal": lambda hidden: {},
    "standard": lambda hidden: dict.fromkeys(("recurrent", "input", "bias"), standard(hidden)),
}
"""How a cell begins: `orthogonal`, gradlab's own (W orthogonal per gate, U_ij ~ N(0, 1/D),
b = 0), or `standard`, all of them uniform as in PyTorch."""


def _cell(cell: str, embedding: int, hidden: int, initialization: str) -> Cell:
    choose("initialization", initialization, INITIALIZATIONS)
    options = INITIALIZATIONS[initialization](hidden)
    return cells.make(cell, inputs=embedding, hidden=hidden, **options)


def _dense(key: PRNGKeyArray, inputs: int, dtype: DTypeLike | None) -> Params:
    dtype = jnp.result_type(dtype or float)
    weight = jax.random.normal(key, (inputs,), dtype) * inputs**-0.5
    return {"weight": weight, "bias": jnp.zeros((), dtype)}


def _embed(table: Array, codes: Codes) -> tuple[Float[Array, "T D"], Bool[Array, " T"]]:
    """x_t, the sum of the rows of the token and of the pair that ends there, and which are real."""
    x = jnp.where(codes[..., None] == PADDING, 0, table[codes]).sum(1)
    return x, codes[:, 0] != PADDING


def _watch(cell: Cell, params: Params, xs: Float[Array, "T D"]) -> tuple[Array, dict[str, Array]]:
    """All h_t of a cell that reads xs from its start, and the gates of the steps to them."""
    ready = cell.prepare(params)

    def body(state: Any, x: Array) -> tuple[Any, tuple[Array, dict[str, Array]]]:
        new = cell.step(ready, state, x)
        return new, (cell.read(new), cell.gate_values(ready, state, x))

    return jax.lax.scan(body, cell.start(xs.dtype), xs)[1]


@register
def recurrent(
    codes: int,
    *,
    cell: str = "gru",
    hidden: int = 64,
    embedding: int = 64,
    initialization: str = "orthogonal",
    embedding_dropout: float = 0.0,
    dropout: float = 0.0,
) -> Model:
    """Any registered cell, reading left to right; the decision is v·h_T + c, from the last state.

    Args:
        codes: the size of the vocabulary.
        cell: a name of `gradlab.cells`.
        hidden: H, the width of the cell.
        embedding: D, the width of a token's vector.
        initialization: one of `INITIALIZATIONS`.
        embedding_dropout: the share of the D features that a review loses, the same at every step.
        dropout: the share of the units of h_T that the decision loses.

    Source: the one mask per sequence is that of Gal & Ghahramani (2016), "A theoretically grounded
    application of dropout in recurrent neural networks", section 4.2.
    """
    network = _cell(cell, embedding, hidden, initialization)

    def init(key: PRNGKeyArray, dtype: DTypeLike | None = None) -> Params:
        k_embedding, k_cell, k_readout = jax.random.split(key, 3)
        return {
            "embedding": table(k_embedding, codes, embedding, dtype),
            "cell": network.init(k_cell, dtype),
            "readout": _dense(k_readout, hidden, dtype),
        }

    def logit(params: Params, ids: Codes, key: PRNGKeyArray | None = None) -> Array:
        k_x, k_h = (None, None) if key is None else jax.random.split(key)
        xs, live = _embed(params["embedding"], ids)
        xs = xs * drop(k_x, embedding_dropout, embedding, xs.dtype)[None]
        last, _ = run(network, params["cell"], xs, live)
        h = network.read(last) * drop(k_h, dropout, hidden, xs.dtype)
        return h @ params["readout"]["weight"] + params["readout"]["bias"]

    def read(params: Params, ids: Codes) -> tuple[Array, dict[str, Array]]:
        return _watch(network, params["cell"], _embed(params["embedding"], ids)[0])

    return Model("recurrent", init, logit, read)


@register
def pooled(
    codes: int,
    *,
    cell: str = "gru",
    hidden: int = 64,
    embedding: int = 64,
    initialization: str = "orthogonal",
    bidirectional: bool = False,
    scale: float = 0.1,
    embedding_dropout: float = 0.0,
    dropout: float = 0.0,
) -> Model:
    """A cell whose decision reads all states: v·[mean_t h_t, max_t h_t] + c over the real steps.

    Args:
        codes: the size of the vocabulary.
        cell: a name of `gradlab.cells`.
        hidden: H, the width of the cell.
        embedding: D, the width of a token's vector.
        initialization: one of `INITIALIZATIONS`.
        bidirectional: whether a second cell reads from the end to the beginning.
        scale: the standard deviation that the vectors begin with. With a small one, what training
            hardly saw says hardly anything.
        embedding_dropout: the share of the D features that a review loses, the same at every step.
        dropout: the share of the pooled units that the decision loses.

    Source: Howard & Ruder (2018), "Universal language model fine-tuning for text classification",
    section 3.3, concat pooling (without the last state).
    """
    network = _cell(cell, embedding, hidden, initialization)
    directions = (False, True) if bidirectional else (False,)
    width = 2 * hidden * len(directions)

    def init(key: PRNGKeyArray, dtype: DTypeLike | None = None) -> Params:
        k_embedding, k_cell, k_readout = jax.random.split(key, 3)
        keys = jax.random.split(k_cell, len(directions))
        return {
            "embedding": table(k_embedding, codes, embedding, dtype, scale),
            "cells": [network.init(k, dtype) for k in keys],
            "readout": _dense(k_readout, width, dtype),
        }

    def logit(params: Params, ids: Codes, key: PRNGKeyArray | None = None) -> Array:
        k_x, k_h = (None, None) if key is None else jax.random.split(key)
        xs, live = _embed(params["embedding"], ids)
        xs = xs * drop(k_x, embedding_dropout, embedding, xs.dtype)[None]
        both = [
            run(network, weights, xs, live, reverse)[1]
            for weights, reverse in zip(params["cells"], directions, strict=True)
        ]
        hs, real = jnp.concatenate(both, axis=1), live[:, None]
        mean = jnp.where(real, hs, 0).sum(0) / live.sum()
        largest = jnp.where(real, hs, -jnp.inf).max(0)
        h = jnp.concatenate([mean, largest]) * drop(k_h, dropout, width, xs.dtype)
        return h @ params["readout"]["weight"] + params["readout"]["bias"]

    def read(params: Params, ids: Codes) -> tuple[Array, dict[str, Array]]:
        return _watch(network, params["cells"][0], _embed(params["embedding"], ids)[0])

    return Model("pooled", init, logit, read)


@register
def convolution(
    codes: int,
    *,
    widths: Sequence[int] = (3, 4, 5),
    filters: int = 100,
    embedding: int = 64,
    embedding_dropout: float = 0.0,
    dropout: float = 0.5,
) -> Model:
    """Filters over a few neighbouring words, and of each filter the largest value in the review.

    For width w and filter f: a_t = relu(Σ_{k<w} K_k x_{t-k} + b)_f with x = 0 before the review,
    and the decision is v·[max_t a_t] + c over all widths: order counts within w words only.

    Args:
        codes: the size of the vocabulary.
        widths: the numbers of words that filters span.
        filters: the number of filters for each width.
        embedding: D, the width of a token's vector.
        embedding_dropout: the share of the D features that a review loses, the same at every step.
        dropout: the share of the filters that the decision loses.

    Source: Kim (2014), "Convolutional neural networks for sentence classification", section 2.
    """
    width = filters * len(widths)

    def init(key: PRNGKeyArray, dtype: DTypeLike | None = None) -> Params:
        k_embedding, k_filters, k_readout = jax.random.split(key, 3)
        float_ = jnp.result_type(dtype or float)
        keys = jax.random.split(k_filters, len(widths))
        kernels = [
            jax.random.normal(k, (w, embedding, filters), float_) * (w * embedding) ** -0.5
            for k, w in zip(keys, widths, strict=True)
        ]
        return {
            "embedding": table(k_embedding, codes, embedding, dtype),
            "filters": kernels,
            "bias": jnp.zeros(width, float_),
            "readout": _dense(k_readout, width, dtype),
        }

    def logit(params: Params, ids: Codes, key: PRNGKeyArray | None = None) -> Array:
        k_x, k_h = (None, None) if key is None else jax.random.split(key)
        xs, live = _embed(params["embedding"], ids)
        xs = xs * drop(k_x, embedding_dropout, embedding, xs.dtype)[None]

        def responses(kernel: Array) -> Array:
            w = len(kernel)
            windows = jnp.concatenate([jnp.zeros((w - 1, embedding), xs.dtype), xs])
            rows = [windows[w - 1 - k : len(windows) - k] for k in range(w)]
            return jnp.concatenate(rows, axis=1) @ kernel.reshape(-1, filters)

        real = live[:, None]
        largest = [jnp.where(real, responses(k), -jnp.inf).max(0) for k in params["filters"]]
        # relu grows with its argument, so the largest response has the largest value.
        h = jax.nn.relu(jnp.concatenate(largest) + params["bias"])
        h = h * drop(k_h, dropout, width, xs.dtype)
        return h @ params["readout"]["weight"] + params["readout"]["bias"]

    return Model("convolution", init, logit)


@register
def bag_of_words(codes: int) -> Model:
    """Logistic regression on which tokens (and pairs) occur: Σ_{w in review} v_w / √n + c.

    n is the number of different ones in the review, so that the features have norm 1 for short and
    long reviews alike. Without pairs, order does not count at all.

    Args:
        codes: the size of the vocabulary.

    Source: Wang & Manning (2012), "Baselines and bigrams: simple, good sentiment and topic
    classification", section 2: presence, not counts.
    """

    def init(key: PRNGKeyArray, dtype: DTypeLike | None = None) -> Params:
        dtype = jnp.result_type(dtype or float)
        return {"weight": jnp.zeros(codes, dtype), "bias": jnp.zeros((), dtype)}

    def logit(params: Params, ids: Codes, key: PRNGKeyArray | None = None) -> Array:
        present = jnp.sort(ids.ravel())
        first = jnp.concatenate([jnp.ones(1, bool), present[1:] != present[:-1]])
        counts = first & (present != PADDING)
        total = jnp.where(counts, params["weight"][present], 0).sum()
        return total * counts.sum().astype(total.dtype) ** -0.5 + params["bias"]

    return Model("bag_of_words", init, logit)
