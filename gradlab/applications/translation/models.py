"""Encoder and decoder of any cell, with and without attention: a bundle of pure functions."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from gradlab import cells
from gradlab._names import choose
from gradlab.applications._networks import drop, run, table
from gradlab.applications.translation.data import END, PADDING
from gradlab.initializers import normal

Params = dict[str, Any]
Codes = Int[Array, " length"]


class Memory(NamedTuple):
    """What the encoder leaves for the decoder; S source pieces.

    Attributes:
        notes: what the decoder can attend to, (S, M): h_s, of both directions if there are two.
        keys: U h_s of the attention, (S, A); no columns without attention.
        live: which of the pieces are real, (S,).
        state: what the decoder starts from.
    """

    notes: Float[Array, "S M"]
    keys: Float[Array, "S A"]
    live: Bool[Array, " S"]
    state: Any


class Model(NamedTuple):
    """A model that writes one sequence of pieces after it has read another, unbatched.

    Padding after either sequence changes no other number.

    Attributes:
        init: `(key, dtype=None) -> params`.
        read: `(params, source (S,), key=None) -> Memory`. With a key, units are dropped out.
        write: `(params, memory, target (T,), key=None) -> logits (T, V)`: row t-1 is about
            target piece t, given the source and the target pieces before it.
        step: `(params, memory, state, code) -> (state, logits (V,))`, one step of `write`: the
            decoder reads the piece that it wrote last, `END` before the first.
    """

    init: Callable[..., Params]
    read: Callable[..., Memory]
    write: Callable[..., Float[Array, "T V"]]
    step: Callable[..., tuple[Any, Float[Array, " V"]]]


def make(sources: int, targets: int, **options: Any) -> Model:
    """Build a model with the arguments of `translator`.

    Raises:
        ValueError: for an unknown option or cell.

    >>> model = make(10, 12, cell="gru", hidden=4, embedding=3)
    >>> params = model.init(jax.random.key(0))
    >>> memory = model.read(params, jnp.array([5, 6, END]))
    >>> model.write(params, memory, jnp.array([7, 8, 9, END])).shape
    (4, 12)
    """
    valid = list(inspect.signature(translator).parameters)[2:]
    for option in options:
        choose("option of the model", option, valid)
    return translator(sources, targets, **options)


def translator(
    sources: int,
    targets: int,
    *,
    cell: str = "gru",
    decoder: str | None = None,
    hidden: int = 128,
    embedding: int = 64,
    attention: bool = True,
    width: int = 64,
    bidirectional: bool = False,
    embedding_dropout: float = 0.0,
    dropout: float = 0.0,
) -> Model:
    """A cell that reads the source, another that writes the target, and attention between them.

    With X_s the vectors of the source and Y_t those of the target, x = √E X, y = √E Y, h_s the
    encoder's states and d_t the decoder's::

        h_s = encoder(h_{s-1}, x_s)
        e_ts = v·tanh(W d_{t-1} + U h_s),    α_t = softmax(e_t),    c_t = Σ_s α_ts h_s
        d_t = decoder(d_{t-1}, [y_{t-1}; c_t])
        p(y_t) = softmax(Y tanh(O [d_t; c_t; y_{t-1}] + o) + b)

    with the rows of Y the vectors of all pieces. The decoder starts from the encoder's last state
    (of the one that reads forwards). Without attention there is no c_t, and this state is all that
    it knows of the source. Where the two cells have states of different form the decoder starts
    from zero, and without attention c_t is the encoder's last h at every step (Cho et al. 2014).

    Args:
        sources: the number of codes of the source.
        targets: V, that of the target.
        cell: the encoder's, a name of `gradlab.cells`.
        decoder: the decoder's; by default the same.
        hidden: H, the width of both.
        embedding: E, the width of a piece's vector.
        attention: whether the decoder sees all of the encoder's states.
        width: A, the width of the attention.
        bidirectional: whether a second encoder reads from the end to the beginning; with attention.
        embedding_dropout: the share of the E features that a text loses, the same at every step.
        dropout: the share of the readout's units that each step loses.

    Source: Sutskever, Vinyals & Le, "Sequence to sequence learning with neural networks" (2014);
    the attention: Bahdanau, Cho & Bengio, "Neural machine translation by jointly learning to align
    and translate" (2015), appendix A, with tanh in place of maxout in the readout.
    """
    if bidirectional and not attention:
        raise ValueError("bidirectional needs attention: without it no state of the second is read")
    unit = embedding**0.5  # what is read has entries of variance 1, and the logits have too
    directions = (False, True) if bidirectional else (False,)
    encoder = cells.make(cell, inputs=embedding, hidden=hidden)
    passes_state = _form(encoder) == _form(cells.make(decoder or cell, inputs=1, hidden=hidden))
    context = hidden * len(directions) if attention else 0 if passes_state else hidden
    writer = cells.make(decoder or cell, inputs=embedding + context, hidden=hidden)

    def init(key: PRNGKeyArray, dtype: DTypeLike | None = None) -> Params:
        dtype = jnp.result_type(dtype or float)
        keys = jax.random.split(key, 8)
        draw = normal()
        inputs = hidden + context + embedding
        params = {
            "source": table(keys[0], sources, embedding, dtype, 1 / unit),
            "target": table(keys[1], targets, embedding, dtype, 1 / unit),
            "encoders": [encoder.init(k, dtype) for k in keys[2:4][: len(directions)]],
            "decoder": writer.init(keys[4], dtype),
            "readout": {
                "weight": draw(keys[5], (embedding, inputs), dtype),
                "bias": jnp.zeros(embedding, dtype),
                "targets": jnp.zeros(targets, dtype),
            },
        }
        if attention:
            params["attention"] = {
                "state": draw(keys[6], (width, hidden), dtype),
                "note": draw(keys[7], (width, context), dtype),
                "score": jnp.full(width, width**-0.5, dtype),
            }
        return params

    def read(params: Params, source: Codes, key: PRNGKeyArray | None = None) -> Memory:
        xs = unit * params["source"][source]
        xs = xs * drop(key, embedding_dropout, embedding, xs.dtype)[None]
        live = source != PADDING
        read_by = [
            run(encoder, weights, xs, live, reverse)
            for weights, reverse in zip(params["encoders"], directions, strict=True)
        ]
        notes = jnp.concatenate([hs for _, hs in read_by], axis=1)
        keys = notes @ params["attention"]["note"].T if attention else notes[:, :0]
        last = read_by[0][0]
        if not attention and not passes_state:
            notes = encoder.read(last)[None]
        state = last if passes_state else writer.start(xs.dtype)
        return Memory(notes, keys, live, state)

    def attend(params: Params, memory: Memory, h: Array) -> Array:
        """c_t."""
        if not context:
            return h[:0]
        if not attention:
            return memory.notes[0]
        weights = params["attention"]
        scores = jnp.tanh(memory.keys + (weights["state"] @ h)[None]) @ weights["score"]
        return jax.nn.softmax(scores, where=memory.live) @ memory.notes

    def advance(params: Params, memory: Memory, state: Any, y: Array) -> tuple[Any, Array]:
        """The next state of the decoder, and [d_t; c_t]."""
        c = attend(params, memory, writer.read(state))
        state = writer.step(params["decoder"], state, jnp.concatenate([y, c]))
        return state, jnp.concatenate([writer.read(state), c])

    def score(params: Params, features: Array, ys: Array, key: PRNGKeyArray | None) -> Array:
        """The logits of all pieces from rows [d_t; c_t] and y_{t-1}."""
        weights = params["readout"]
        o = jnp.tanh(
            jnp.concatenate([features, ys], axis=1) @ weights["weight"].T + weights["bias"][None]
        )
        o = o * drop(key, dropout, o.shape, o.dtype)
        return o @ params["target"].T + weights["targets"][None]

    def write(
        params: Params, memory: Memory, target: Codes, key: PRNGKeyArray | None = None
    ) -> Array:
        k_y, k_o = (None, None) if key is None else jax.random.split(key)
        before = jnp.concatenate([jnp.full(1, END, target.dtype), target[:-1]])
        ys = unit * params["target"][before]
        ys = ys * drop(k_y, embedding_dropout, embedding, ys.dtype)[None]
        ready = params | {"decoder": writer.prepare(params["decoder"])}
        _, features = jax.lax.scan(lambda s, y: advance(ready, memory, s, y), memory.state, ys)
        return score(params, features, ys, k_o)

    def step(params: Params, memory: Memory, state: Any, code: Array) -> tuple[Any, Array]:
        y = unit * params["target"][code]
        state, features = advance(params, memory, state, y)
        return state, score(params, features[None], y[None], None)[0]

    return Model(init, read, write, step)


def _form(cell: cells.Cell) -> Any:
    state = jax.eval_shape(cell.start)
    return jax.tree.structure(state), [(x.shape, x.dtype) for x in jax.tree.leaves(state)]
