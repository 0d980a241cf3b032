"""The scans that cuDNN's LSTM stands for.

`jax.experimental.rnn.lstm`, which keras uses on a GPU, is one primitive for all layers, directions
and steps. Nobody can see into it, but what it computes is known, and so is how its weights lie in
one vector: W_ih and W_hh of each layer and direction, then b_ih and b_hh of each.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

FORWARD = "rnn_fwd"
RULE = "custom_vjp_call"


def is_known(eqn: Any) -> bool:
    """Whether an equation is an LSTM of cuDNN's that can be replaced: dropout's mask is unknown."""
    return eqn.primitive.name == FORWARD and eqn.params["dropout"] == 0


def holds_known(jaxpr: Any) -> bool:
    """Whether a program is the call of such an LSTM."""
    return any(map(is_known, getattr(jaxpr, "jaxpr", jaxpr).eqns))


def replace(eqn: Any) -> Any:
    """A program with the operands and results of the equation, made of one scan per direction."""
    params = eqn.params
    *_, reserve = (var.aval for var in eqn.outvars)

    def function(x: Any, h: Any, c: Any, weights: Any, lengths: Any) -> Any:
        blocks = _unpack(weights, params)
        ys, last_h, last_c = jnp.swapaxes(x, 0, 1), [], []
        directions = 2 if params["bidirectional"] else 1
        for layer in range(params["num_layers"]):
            outs = []
            for direction in range(directions):
                i = layer * directions + direction
                state, y = _scan(blocks[i], h[i], c[i], ys, lengths, reverse=direction == 1)
                outs.append(y)
                last_h.append(state["h"])
                last_c.append(state["c"])
            ys = jnp.concatenate(outs, axis=-1)
        rest = jnp.zeros(reserve.shape, reserve.dtype)
        return jnp.swapaxes(ys, 0, 1), jnp.stack(last_h), jnp.stack(last_c), rest

    return move(jax.make_jaxpr(function)(*(var.aval for var in eqn.invars)), eqn)


def move(jaxpr: Any, eqn: Any) -> Any:
    """The program, as if its equations stood where this one does in the user's source."""
    # A closed jaxpr holds the open one, or is it, by the version of JAX.
    inner = getattr(jaxpr, "jaxpr", jaxpr)
    eqns = [new.replace(source_info=eqn.source_info, ctx=eqn.ctx) for new in inner.eqns]
    copy = inner.replace(eqns=eqns)
    return copy if inner is jaxpr else jaxpr.replace(jaxpr=copy)


def _unpack(weights: Any, params: dict[str, Any]) -> list[list[Any]]:
    """W_ih (4H, inputs), W_hh (4H, H), b_ih (4H,) and b_hh (4H,) of each layer and direction."""
    width = params["hidden_size"]
    directions = 2 if params["bidirectional"] else 1
    count = params["num_layers"] * directions
    inputs = [params["input_size"] if i < directions else directions * width for i in range(count)]
    matrices = [shape for n in inputs for shape in ((4 * width, n), (4 * width, width))]
    blocks, start = [], 0
    for shape in (*matrices, *[(4 * width,)] * (2 * count)):
        size = math.prod(shape)
        blocks.append(weights[start : start + size].reshape(shape))
        start += size
    wide, flat = blocks[: 2 * count], blocks[2 * count :]
    return [[*wide[2 * i : 2 * i + 2], *flat[2 * i : 2 * i + 2]] for i in range(count)]


def _scan(block: list[Any], h: Any, c: Any, xs: Any, lengths: Any, reverse: bool) -> Any:
    """One layer in one direction; xs has shape (T, batch, inputs).

    A sample's state stays as it is behind the end of its sequence, where its outputs are 0.
    """
    w_ih, w_hh, b_ih, b_hh = block

    def step(state: Any, row: Any) -> Any:
        x, t = row
        z = x @ w_ih.T + b_ih[None] + state["h"] @ w_hh.T + b_hh[None]
        i, f, g, o = jnp.split(z, 4, axis=-1)
        c = jax.nn.sigmoid(f) * state["c"] + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        inside = (t < lengths)[:, None]
        new = {"c": jnp.where(inside, c, state["c"]), "h": jnp.where(inside, h, state["h"])}
        return new, jnp.where(inside, new["h"], 0)

    steps = jnp.arange(xs.shape[0], dtype=lengths.dtype)
    return jax.lax.scan(step, {"h": h, "c": c}, (xs, steps), reverse=reverse)
