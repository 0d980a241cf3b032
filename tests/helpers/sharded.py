"""Trace models on eight simulated devices, and compare with the same models on one.

Run as a program with JAX_NUM_CPU_DEVICES=8 and JAX_ENABLE_X64=1. It prints a line for each case:
its name and what is wrong, or "equal".
"""

import contextlib
import sys
import traceback
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gradlab as gl

LENGTH, BATCH, WIDTH = 8, 8, 8
KEYS = jax.random.split(jax.random.key(0), 4)
W = np.asarray(jax.random.normal(KEYS[0], (WIDTH, WIDTH)) / 3)
TWO = np.stack([W, W.T])
XS = np.asarray(jax.random.normal(KEYS[1], (LENGTH, BATCH, WIDTH)))
E, A = AxisType.Explicit, AxisType.Auto


def identity(x, *_):
    return x


# A model is a function of (w, xs, put, carry): put(x, *axes) moves a value to axes of the mesh,
# and carry(h) a state to the axes that states lie on. On one device both do nothing.
def rnn(w, xs, put, carry):
    def body(h, x):
        h = carry(jnp.tanh(put(h, "d", None) @ w + put(x, "d", None) + w[0]))
        return h, h

    h, ys = jax.lax.scan(body, carry(jnp.zeros_like(xs[0])), xs)
    return jnp.sum(h**2) + jnp.sum(jnp.sin(ys))


def by_rows(w, xs, put, carry):
    """The product sums over an axis that is split."""

    def body(h, x):
        where = {} if put is identity else {"out_sharding": P("d", None)}
        h = carry(jnp.tanh(jnp.einsum("bh,hk->bk", h, w, **where) + put(x, "d", None)))
        return h, h

    h, ys = jax.lax.scan(body, carry(jnp.zeros_like(xs[0])), xs)
    return jnp.sum(h**2) + jnp.sum(jnp.sin(ys))


def gated(w, xs, put, carry):
    """Two leaves in the state, which shrinks far below a float32's range, and two layers."""

    def layer(xs, w):
        def body(state, x):
            c, h = state
            z = put(h, "d", None) @ w
            c = carry(1e-30 * jax.nn.sigmoid(z[:, ::-1]) * c + put(x, "d", None))
            h = carry(jax.nn.sigmoid(z) * jnp.tanh(c))
            return (c, h), h

        zero = carry(jnp.zeros_like(xs[0]))
        return jax.lax.scan(body, (zero, zero), xs)[1], None

    xs = put(xs, None, "d", None)
    return jnp.sum(jax.lax.scan(layer, xs, jnp.stack([w, w.T]))[0] ** 2)


def normalized(w, xs, put, carry):
    """Means over the samples and over the features."""

    @jax.checkpoint
    def body(h, x):
        z = put(h, "d", None) @ w + put(x, "d", None)
        z = z - z.mean(0)
        h = jax.nn.relu(z / jnp.sqrt(1 + z.var(-1, keepdims=True)))
        return carry(h), jnp.cumsum(h, axis=1)  # which reads the state before it is moved

    _, ys = jax.lax.scan(body, carry(jnp.zeros_like(xs[0])), xs)
    return jnp.sum(ys**2)


def vmapped(w, xs, put, carry):
    def one(xs):
        def body(h, x):
            h = jnp.tanh(w @ h + x)
            return h, h

        return jax.lax.scan(body, jnp.zeros(WIDTH), xs)

    h, ys = jax.vmap(one, in_axes=1)(put(xs, None, "d", None))
    return jnp.sum(h**2) + jnp.sum(ys**3)


def replicas(w, xs, put, carry):
    return jnp.sum(jax.vmap(lambda w: rnn(w, xs, put, carry))(w) ** 2)


def parallel(w, xs, put, carry):
    xs = jnp.tanh(put(xs, None, "d", None) @ w)

    def f(left, right):
        return left[0] * right[0], left[1] * right[0] + right[1]

    _, hs = jax.lax.associative_scan(f, (jax.nn.sigmoid(xs), xs))
    return jnp.sum(jnp.sin(hs))


def taps(w, xs, put, carry):
    h = jnp.zeros_like(xs[0])
    for x in xs:
        h = gl.tap(jnp.tanh(h @ w + x), "h")
    return jnp.sum(h**2) + jnp.sum(gl.tap(xs @ w, "rows", axis=0) ** 3)


def narrow(w, xs, put, carry):
    w, xs = w.astype(jnp.bfloat16), xs.astype(jnp.bfloat16)
    return rnn(w, xs, put, carry).astype(jnp.float32)


@jax.custom_vjp
def clip(x):
    return x


clip.defvjp(lambda x: (x, None), lambda _, ct: (jnp.clip(ct, -0.5, 0.5),))


def clipped(w, xs, put, carry):
    def body(h, x):
        h = clip(jax.lax.cond(w[0, 0] < 9, lambda h: jnp.tanh(h @ w + x), lambda h: h, h))
        return h, h

    return jnp.sum(jax.lax.scan(body, jnp.zeros_like(xs[0]), xs)[1] ** 2)


def in_shards(axes):
    """shard_map over the axis d, where `axes` are all the axes that it takes over."""

    def model(w, xs, put, carry):
        def states(w, xs):
            def body(h, x):
                h = jnp.tanh(h @ w + x)
                return h, h

            return jax.lax.scan(body, jnp.zeros_like(xs[0]), xs)

        if put is not identity:
            states = jax.shard_map(
                states,
                in_specs=(P(), P(None, "d")),
                out_specs=(P("d"), P(None, "d")),
                axis_names=axes,
            )
        h, ys = states(w, xs)
        return jnp.sum(h**2) + jnp.sum(jnp.sin(ys))

    return model


class Case(NamedTuple):
    model: Any
    axes: dict[str, Any]  # sizes and types of the mesh's axes
    w: Any
    xs: Any
    carry: Any = ("d", None)
    options: dict[str, Any] = {}
    weights: Any = W
    context: bool = True  # whether the mesh is set, or known from the arrays alone


def products(h, adjoint):
    return jax.tree.map(lambda h, a: (h * a, jnp.sum(a)), h, adjoint)


ALL = {"batch_axis": 0, "segment": 2, "log_param": True, "measure": products}
SPLIT = P(None, "d", None)
CASES = {
    "batch": Case(rnn, {"d": (8, E)}, P(), SPLIT),
    "batch, all options": Case(rnn, {"d": (8, E)}, P(), SPLIT, options=ALL),
    "batch, no argument": Case(
        rnn, {"d": (8, E)}, P(), SPLIT, options={"argnums": (), "log_param": True}
    ),
    "features": Case(rnn, {"d": (1, E), "m": (8, E)}, P(None, "m"), P(), ("d", "m")),
    "batch and features": Case(
        rnn, {"d": (4, E), "m": (2, E)}, P(None, "m"), SPLIT, ("d", "m"), ALL
    ),
    "rows of the weights": Case(
        by_rows, {"d": (4, E), "m": (2, E)}, P("m", None), P(None, "d", "m"), ("d", "m"), ALL
    ),
    "sequence": Case(gated, {"d": (2, E), "t": (4, E)}, P(), P(None, ("d", "t"), None)),
    "layers": Case(
        gated, {"d": (8, E)}, P(), SPLIT, options={"batch_axis": -2, "measure": products}
    ),
    "means": Case(normalized, {"d": (8, E)}, P(), SPLIT, options={"log_param": True}),
    "vmap": Case(vmapped, {"d": (8, E)}, P(), SPLIT, options={"measure": products}),
    "replicas": Case(replicas, {"d": (8, E)}, P(), SPLIT, weights=TWO),
    "parallel scan": Case(parallel, {"d": (8, E)}, P(), SPLIT),
    "parallel scan, features": Case(
        parallel,
        {"d": (4, E), "m": (2, E)},
        P(None, "m"),
        SPLIT,
        options={"batch_axis": 0, "log_param": True, "measure": products},
    ),
    "parallel scan, auto": Case(parallel, {"d": (4, A), "m": (2, A)}, P(None, "m"), SPLIT),
    "taps": Case(taps, {"d": (8, E)}, P(), SPLIT, options={"batch_axis": 0}),
    "bfloat16": Case(narrow, {"d": (8, E)}, P(), SPLIT),
    "a rule that is not linear": Case(clipped, {"d": (8, E)}, P(), SPLIT),
    "no mesh set": Case(rnn, {"d": (8, E)}, P(), SPLIT, context=False),
    "explicit and auto": Case(
        rnn, {"d": (4, E), "m": (2, A)}, P(None, "m"), SPLIT, options={"measure": products}
    ),
    "auto": Case(rnn, {"d": (4, A), "m": (2, A)}, P(None, "m"), P(None, "d", "m"), ("d", "m"), ALL),
    "auto, split in time": Case(rnn, {"d": (8, A)}, P(), P("d")),
    "shard_map": Case(in_shards({"d"}), {"d": (8, E)}, P(), SPLIT),
    "shard_map, another axis explicit": Case(
        in_shards({"d"}),
        {"d": (4, E), "m": (2, E)},
        P(),
        SPLIT,
        options={"measure": lambda h, a: jnp.sum(h * a)},
    ),
    "shard_map, another axis auto": Case(
        in_shards({"d"}), {"d": (4, A), "m": (2, A)}, P(None, "m"), SPLIT
    ),
}


def records(out, has_shards):
    """The numbers of a trace, over all shards."""
    found = {"value": out.value, "grads": out.grads}
    for i, scan in enumerate(out.scans):
        for part in ("log_norm", "log_direct", "log_transported"):
            found[f"{part} {i}"] = getattr(scan, part)
        found |= {f"{name} {i}": log for name, log in scan.leaves.items()}
        if not has_shards:
            found |= {f"log_param {i}": scan.log_param, f"measured {i}": scan.measured}
    if has_shards:
        logs = [name for name in found if name not in ("value", "grads")]
        found |= {name: jax.nn.logsumexp(2 * found[name], axis=0) / 2 for name in logs}
    return found | {name: tap.log_norm for name, tap in out.taps.items()}


def compare(case):
    plain = gl.trace(lambda w, xs: case.model(w, xs, identity, identity), **case.options)
    shape = tuple(size for size, _ in case.axes.values())
    types = tuple(kind for _, kind in case.axes.values())
    mesh = jax.make_mesh(shape, tuple(case.axes), axis_types=types)

    def put(x, *axes):
        spec = P(*(axis if axis in case.axes else None for axis in axes))
        if E in types:
            return jax.sharding.reshard(x, spec)
        return jax.lax.with_sharding_constraint(x, spec)

    if not case.context:
        put = identity

    def loss(w, xs):
        if case.xs == P(None, ("d", "t"), None):  # what is parallel over the sequence comes first
            xs = put(put(xs, "t", None, None) * 1.0, None, "d", None)
        return case.model(w, xs, put, lambda h: put(h, *case.carry))

    w = jax.device_put(case.weights, NamedSharding(mesh, case.w))
    xs = jax.device_put(XS, NamedSharding(mesh, case.xs))
    with jax.set_mesh(mesh) if case.context else contextlib.nullcontext():
        out = gl.trace(loss, **case.options)(w, xs)
    wide = jnp.float32 if case.model is narrow else jnp.float64
    tolerance = 1e-2 if case.model is narrow else 1e-9
    shards = case.model.__qualname__.startswith("in_shards")
    found = jax.tree.map(lambda x: np.asarray(x, wide), records(out, shards))
    known = jax.tree.map(lambda x: np.asarray(x, wide), records(plain(case.weights, XS), False))
    for name in found:
        for a, b in zip(jax.tree.leaves(found[name]), jax.tree.leaves(known[name]), strict=True):
            size = np.max(np.abs(b), where=np.isfinite(b), initial=0)
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * size, err_msg=name)


if __name__ == "__main__":
    for name, case in CASES.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        try:
            compare(case)
            print(f"{name}: equal", flush=True)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            text = " ".join(str(error).split())
            print(f"{name}: {type(error).__name__} {text} ({place.name})", flush=True)
