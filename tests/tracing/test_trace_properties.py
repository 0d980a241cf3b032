"""Laws of `trace` over random scan programs: none ends in an error, it changes no value and no
gradient, and its norms are those of brute force.

A program is drawn as a description (`Model`), which hypothesis prints and shrinks, and built once
as a loss over `loops`: `LaxLoops` runs it with `lax.scan` and `lax.associative_scan`,
`PerturbedLoops` as Python loops with a perturbation added to every state.

With GRADLAB_LONG=1 the programs are those of `--hypothesis-seed`, and GRADLAB_DRAWN says how many.
"""

import dataclasses
import functools
import math
import operator
import os

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab as gl

# A cumulative sum is named in a warning: it is no part of the record.
pytestmark = pytest.mark.filterwarnings("ignore:the cumsum at")

N, T, B = 3, 3, 2

# Beside the examples that are written out; `make test-long` draws more.
LONG = "GRADLAB_LONG" in os.environ


def drawn(few, many):
    """How many programs a law is tried on."""
    return int(os.environ.get("GRADLAB_DRAWN", many)) if LONG else few


SETTINGS = hypothesis.settings(
    derandomize=not LONG,
    deadline=None,
    print_blob=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


# What a program is. Operands are numbers of registers, vectors of (N,), counted modulo how many
# there are: the leaves of the state, the input, then the result of each operation.


@dataclasses.dataclass(frozen=True)
class Op:
    kind: str
    a: int = 0
    b: int = 0
    inside: tuple = ()  # operations, or one Scan or Parallel


@dataclasses.dataclass(frozen=True)
class Scan:
    leaves: tuple = ("vector",)
    extras: tuple = ()
    ops: tuple = ()
    ends: tuple = (("tanh", -1),)  # of each leaf: how it is made, from which register
    output: str = "none"
    readout: tuple = ()
    length: int = T
    reverse: bool = False
    unroll: int = 1
    inputs: bool = True
    start: str = "argument"
    layers: int = 0  # of a scan over layers around this one
    wrap: str = "none"  # what the whole body is inside


@dataclasses.dataclass(frozen=True)
class Parallel:
    """h_t = a_t h_{t-1} + b_t by a parallel scan over pairs (a, b)."""

    length: int = 3
    reverse: bool = False
    axis: int = 0
    number: str = "real"
    reads: str = "all"  # what is read of its states


@dataclasses.dataclass(frozen=True)
class Model:
    scans: tuple
    links: tuple  # for each scan: where its inputs come from
    reads: tuple  # for each scan: what the loss reads of it
    argnums: object = 0
    batch: bool = False
    wrapper: str = "none"
    call: str = "plain"
    seed: int = 0
    parallels: tuple = ()  # one, or none, before the scans


LEAVES = ("vector", "scalar", "matrix", "complex", "single")
EXTRAS = ("count", "flag", "key", "none")
ENDS = ("tanh", "scale", "raw", "kept", "swap", "zeros", "same")
OUTPUTS = ("none", "state", "leaf", "readout", "gate", "input", "count", "everything")


@jax.custom_jvp
def wrong_sine(x):
    """Its rule is not its derivative, so that whoever differentiates the inside shows."""
    return jnp.sin(x)


@wrong_sine.defjvp
def _(primals, tangents):
    return jnp.sin(primals[0]), 2 * jnp.cos(primals[0]) * tangents[0]


@jax.custom_vjp
def wrong_product(x, y):
    return x * jnp.tanh(y)


wrong_product.defvjp(
    lambda x, y: (x * jnp.tanh(y), (x, y)),
    lambda saved, ct: (jnp.clip(ct, -0.5, 0.5) * saved[1], ct * jnp.cos(saved[0])),
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def scaled_back(factor, x):
    return x


scaled_back.defvjp(lambda factor, x: (x, None), lambda factor, _, ct: (factor * ct,))


OPS = {
    "tanh": lambda p, a, b: jnp.tanh(a),
    "sigmoid": lambda p, a, b: jax.nn.sigmoid(a),
    "sin": lambda p, a, b: jnp.sin(a),
    "relu": lambda p, a, b: jax.nn.relu(a),
    "leaky": lambda p, a, b: jnp.maximum(a, 0.1 * b),
    "add": lambda p, a, b: a + b,
    "subtract": lambda p, a, b: a - 0.5 * b,
    "multiply": lambda p, a, b: a * b,
    "where": lambda p, a, b: jnp.where(a > b, a, jnp.sin(b)),
    "matmul": lambda p, a, b: p["w"] @ a,
    "transposed": lambda p, a, b: p["w"].T @ a,
    "affine": lambda p, a, b: p["g"] @ a + p["u"],
    "sliced": lambda p, a, b: p["w"][:, : N - 1] @ a[1:],
    "row": lambda p, a, b: p["g"][1] * a,
    "product": lambda p, a, b: (p["w"] @ p["g"]) @ a,
    "scale": lambda p, a, b: p["s"] * a,
    "concatenate": lambda p, a, b: jnp.concatenate([a[1:], b[:1]]),
    "shift": lambda p, a, b: jnp.roll(a, 1),
    "set": lambda p, a, b: a.at[0].set(b[1]),
    "sum": lambda p, a, b: a.sum() * p["u"],
    "normalize": lambda p, a, b: a / jnp.sqrt(1 + a @ a),
    "softmax": lambda p, a, b: jax.nn.softmax(a) * b,
    "cumsum": lambda p, a, b: jnp.cumsum(a),
    "outer": lambda p, a, b: jnp.outer(a, p["u"]) @ b,
    "sort": lambda p, a, b: jnp.sort(a),
    "solve": lambda p, a, b: jnp.linalg.solve(4 * jnp.eye(N) + jnp.tanh(p["w"]), a),
    "stop": lambda p, a, b: jax.lax.stop_gradient(a) * b,
    "while": lambda p, a, b: (
        b
        * jax.lax.while_loop(
            lambda x: x.sum() < 1, lambda x: x + 1, jax.lax.stop_gradient(jnp.cos(a))
        )
    ),
    "custom_jvp": lambda p, a, b: wrong_sine(a),
    "custom_vjp": lambda p, a, b: wrong_product(a, b),
    "custom_vjp of a weight": lambda p, a, b: wrong_product(p["u"], a),
    "nondiff_argnums": lambda p, a, b: scaled_back(0.5, a),
    "gradient": lambda p, a, b: jax.grad(lambda x: jnp.sum(jnp.sin(x) * b))(a),
    "clip": lambda p, a, b: jnp.clip(a, -0.5, 0.5),
    "constant": lambda p, a, b: a + jnp.arange(N) / N,
    "identity": lambda p, a, b: a,
}
# Infinite slopes, and so NaN gradients, where the operand is not positive.
SINGULAR = {
    "root": lambda p, a, b: jnp.sqrt(jax.nn.relu(a)),
    "log": lambda p, a, b: jnp.log(jnp.abs(a) * (a > -0.5)),
    "divide": lambda p, a, b: b / jnp.where(a > 0, a, 0.0),
    "huge": lambda p, a, b: 1e120 * a * b,
}
BLOCKS = ("jit", "checkpoint", "cond", "switch", "vmap", "fori", "map", "scan")
NUMBERS = ("real", "real", "complex", "single")
READ = ("all", "last", "row", "decays")


def registers(state, row):
    """The vectors that a step starts from."""
    found = []
    for name in sorted(state):
        leaf = state[name]
        if name in EXTRAS:
            continue
        if leaf.ndim == 2:
            found += [leaf[0], leaf[1]]
        elif jnp.iscomplexobj(leaf):
            found += [leaf.real, leaf.imag]
        else:
            found.append(leaf.astype(jnp.float64) * jnp.ones(N))
    if row is not None:
        found.append(row)
    if "count" in state:
        found[0] = found[0] * (1 + state["count"] % 2)
    if "flag" in state:
        found[0] = jnp.where(state["flag"], found[0], -found[-1])
    if "key" in state:
        noise = jax.random.normal(jax.random.fold_in(state["key"], 1), (N,))
        found[-1] = found[-1] + 0.1 * noise
    return found


def leaf_of(kind, a, b):
    return {
        "vector": lambda: a,
        "scalar": lambda: a.sum() / N,
        "matrix": lambda: jnp.stack([a, b]),
        "complex": lambda: jax.lax.complex(a, b),
        "single": lambda: a.astype(jnp.float32),
    }[kind]()


def state_of(scan, values):
    """The start of a scan, from registers."""
    state = {
        str(i): leaf_of(kind, values[i % len(values)], values[(i + 1) % len(values)])
        for i, kind in enumerate(scan.leaves)
    }
    others = {"count": jnp.int32(0), "flag": jnp.bool(True), "key": jax.random.key(7), "none": None}
    return state | {name: others[name] for name in scan.extras}


def elements(how, a, b):
    """The decays and inputs of a parallel scan, stacked along its axis."""
    if how.length == 2:
        # Where vmap runs over one of the two alone, the program holds no f(out_1, elem_2).
        a, b = a + 0 * b, b + 0 * a
    decays = [jax.nn.sigmoid(jnp.roll(a, t) + t) for t in range(how.length)]
    inputs = [jnp.sin(b + t) for t in range(how.length)]
    if how.number == "complex":
        decays = [x * jnp.exp(1j * y) for x, y in zip(decays, inputs, strict=True)]
        inputs = [jax.lax.complex(x, jnp.cos(a)) for x in inputs]
    decays, inputs = (jnp.stack(rows, how.axis) for rows in (decays, inputs))
    if how.number == "single":
        return decays.astype(jnp.float32), inputs.astype(jnp.float32)
    return decays, inputs


def run_parallel(loops, how, a, b):
    states = loops.parallel(how, *elements(how, a, b))
    real = {
        name: (x.real + 0.3 * x.imag if jnp.iscomplexobj(x) else x).astype(jnp.float64)
        for name, x in states.items()
    }
    h = jnp.moveaxis(real["h"], how.axis, 0)
    return {
        "all": lambda: h.sum(0),
        "last": lambda: h[0 if how.reverse else -1],
        "row": lambda: h[how.length // 2],
        "decays": lambda: h[0] + real["a"].sum(how.axis),
    }[how.reads]()


def apply(loops, op, p, values):
    a, b = values[op.a % len(values)], values[op.b % len(values)]
    if op.kind in OPS or op.kind in SINGULAR:
        return (OPS | SINGULAR)[op.kind](p, a, b)
    if op.kind == "scan":
        (scan,) = op.inside
        xs = jnp.stack([b, jnp.sin(a)])[: scan.length] if scan.inputs else None
        last, ys = run_scan(loops, scan, p, xs, values)
        return registers(last, None)[0] + rows(ys, scan.length).sum(0)

    if op.kind == "parallel":
        return run_parallel(loops, *op.inside, a, b)

    def inside(p, values):
        values = list(values)
        for each in op.inside:
            values.append(apply(loops, each, p, values))
        return values[-1]

    def other(p, values):
        return jnp.cos(a) * p["s"]

    def one(row):
        return inside(p, [*values, row])

    return {
        "jit": lambda: jax.jit(inside)(p, values),
        "checkpoint": lambda: jax.checkpoint(inside)(p, values),
        "cond": lambda: jax.lax.cond(b.sum() > 0, inside, other, p, values),
        "switch": lambda: jax.lax.switch(
            (b.sum() > 0) * 1 + (b[0] > 0), [other, inside, lambda p, values: b], p, values
        ),
        "vmap": lambda: jax.vmap(one)(jnp.stack([a, b])).sum(0),
        "fori": lambda: loops.fori(2, lambda value: one(value) / 2, a),
        "map": lambda: loops.map(one, jnp.stack([a, b])).sum(0),
    }[op.kind]()


def advance(loops, scan, p, state, row):
    values = registers(state, row)
    for op in scan.ops:
        values.append(apply(loops, op, p, values))
    new = dict(state)
    for i, (kind, (how, source)) in enumerate(zip(scan.leaves, scan.ends, strict=True)):
        old, here = state[str(i)], values[source % len(values)]
        made = leaf_of(kind, here, jnp.sin(here))
        new[str(i)] = {
            "tanh": lambda made=made: jnp.tanh(made),
            "scale": lambda made=made: (0.9 * made).astype(made.dtype),
            "raw": lambda made=made: made,
            "kept": lambda old=old: old,
            "swap": lambda i=i, kind=kind: state[str(scan.leaves.index(kind))],
            "zeros": lambda made=made: jnp.zeros_like(made),
            "same": lambda i=i, kind=kind, made=made: new.get(str(scan.leaves.index(kind)), made),
        }[how]()
    if "count" in new:
        new["count"] = state["count"] + 1
    if "flag" in new:
        new["flag"] = ~state["flag"]
    if "key" in new:
        new["key"] = jax.random.split(state["key"])[0]
    return new, values[-1]


def readout(loops, scan, p, state, gate, row):
    values = registers(state, row)
    if scan.output in ("gate", "everything"):
        values.append(gate)
    if scan.output in ("readout", "gate", "everything"):
        for op in scan.readout:
            values.append(apply(loops, op, p, values))
    return {
        "none": lambda: None,
        "state": lambda: state,
        "leaf": lambda: state["0"],
        "readout": lambda: jnp.sin(values[-1]),
        "gate": lambda: (values[-1] @ p["u"], gate),
        "input": lambda: row,
        "count": lambda: (state.get("count"), gate > 0),
        "everything": lambda: (state, gate, values[-1], row),
    }[scan.output]()


def run_scan(loops, scan, p, xs, values):
    init = state_of(scan, values)
    if scan.start == "zeros":
        init |= jax.tree.map(lambda h: 0 * h, {k: init[k] for k in init if k not in EXTRAS})
    if not scan.layers:
        return loops.scan(
            lambda p, state, row: advance(loops, scan, p, state, row),
            lambda p, state, gate, row: readout(loops, scan, p, state, gate, row),
            p, init, xs, scan,
        )  # fmt: skip
    inner = dataclasses.replace(scan, layers=0)
    sequence = jnp.stack([values[0]] * scan.length) if xs is None else xs

    def layer(p, state, w):
        last, ys = run_scan(loops, inner, p | {"w": w}, state["0"], values)
        end = jnp.stack([registers(last, None)[0]] * scan.length)
        return {"0": 0.9 * rows(ys, scan.length) + end}, last

    around = Scan(length=scan.layers, unroll=scan.unroll)
    stack = jnp.stack([p["w"], p["g"]])
    last, _ = loops.scan(layer, lambda *_: None, p, {"0": sequence}, stack, around)
    return state_of(scan, [last["0"][-1]]), last["0"]


def floats(tree):
    """The leaves that have a value to score, real."""
    for leaf in jax.tree.leaves(tree):
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            yield from (leaf.real, leaf.imag)
        elif jnp.issubdtype(leaf.dtype, jnp.floating):
            yield leaf.astype(jnp.float64)


def score(tree):
    return sum((jnp.sum(jnp.sin(leaf + 0.3)) for leaf in floats(tree)), jnp.float64(0))


def rows(ys, length):
    """Stacked outputs of any form as (length, N)."""
    flat = [leaf.reshape(length, math.prod(leaf.shape[1:])).sum(1) for leaf in floats(ys)]
    return sum(flat, jnp.zeros(length))[:, None] * jnp.ones((1, N))


BODIES = {
    "none": lambda body: body,
    "jit": jax.jit,
    "checkpoint": jax.checkpoint,
    "checkpoint of jit": lambda body: jax.checkpoint(jax.jit(body)),
}


class LaxLoops:
    def scan(self, advance, readout, p, init, xs, how):
        def body(state, row):
            new, gate = advance(p, state, row)
            return new, readout(p, new, gate, row)

        body = BODIES[how.wrap](body)
        return jax.lax.scan(
            body, init, xs, length=how.length, reverse=how.reverse, unroll=how.unroll
        )

    def parallel(self, how, decays, inputs):
        def combine(p, q):
            return {"a": p["a"] * q["a"], "h": q["a"] * p["h"] + q["h"]}

        elems = {"a": decays, "h": inputs}
        return jax.lax.associative_scan(combine, elems, reverse=how.reverse, axis=how.axis)

    def fori(self, n, body, init):
        return jax.lax.fori_loop(0, n, lambda i, value: body(value), init)

    def map(self, body, xs):
        return jax.lax.map(body, xs)


class PerturbedLoops:
    """Python loops that add a perturbation to each state, twice.

    `total` reaches all that comes after the state, `direct` only what step t's own outputs and the
    reader of the final state see. A site's key says where in the program it is called; its
    perturbations have the lengths of the loops around it in front.
    """

    def __init__(self, total=None, direct=None):
        self.total, self.direct = total, direct
        self.zeros, self.lengths = {}, {}
        self.frames = [[(), None, 0]]  # key, step, how many loops it has called

    def enter(self, length):
        frame = self.frames[-1]
        key = (*frame[0], frame[2])
        frame[2] += 1
        steps = tuple(step for _, step, _ in self.frames[1:])
        outer = tuple(self.lengths[above] for above, _, _ in self.frames[1:])
        self.lengths[key] = length
        return key, steps, outer

    def around(self, key):
        """The lengths of the loops around a site, and its own."""
        return tuple(self.lengths[key[:i]] for i in range(1, len(key) + 1))

    def add(self, perturbation, key, at, state):
        if self.total is None:
            return state
        return {
            name: leaf + perturbation[key][name][at] if name in perturbation[key] else leaf
            for name, leaf in state.items()
        }

    def scan(self, advance, readout, p, init, xs, how):
        key, steps, outer = self.enter(how.length)
        self.zeros[key] = {
            name: jax.ShapeDtypeStruct((*outer, how.length, *jnp.shape(leaf)), leaf.dtype)
            for name, leaf in init.items()
            if name not in EXTRAS
        }
        state, seen, ys = init, init, {}
        order = range(how.length)
        for t in reversed(order) if how.reverse else order:
            row = jax.tree.map(lambda x, t=t: x[t], xs)
            self.frames.append([key, t, 0])
            state, gate = advance(p, state, row)
            state = self.add(self.total, key, (*steps, t), state)
            seen = self.add(self.direct, key, (*steps, t), state)
            ys[t] = readout(p, seen, gate, row)
            self.frames.pop()
        return seen, jax.tree.map(lambda *each: jnp.stack(each), *(ys[t] for t in order))

    def parallel(self, how, decays, inputs):
        """The recurrence step by step; the product of the decays is a state where it is read."""

        def advance(p, state, row):
            a, b = row
            new = {"h": a * state["h"] + b}
            return new | {name: a * state[name] for name in state if name == "a"}, None

        rows = tuple(jnp.moveaxis(x, how.axis, 0) for x in (decays, inputs))
        init = {"h": jnp.zeros_like(rows[1][0]), "a": jnp.ones_like(rows[0][0])}
        if how.reads != "decays":
            del init["a"]
        _, states = self.scan(advance, lambda p, state, *_: state, None, init, rows, how)
        return {name: jnp.moveaxis(x, 0, how.axis) for name, x in states.items()}

    def fori(self, n, body, init):
        return self.scan(
            lambda p, state, row: ({"0": body(state["0"])}, None),
            lambda *_: None, None, {"0": init}, None, Scan(length=n),
        )[0]["0"]  # fmt: skip

    def map(self, body, xs):
        key, *_ = self.enter(len(xs))
        ys = []
        for t, row in enumerate(xs):
            self.frames.append([key, t, 0])
            ys.append(body(row))
            self.frames.pop()
        return jnp.stack(ys)


def loss_of(model, loops):
    """The loss (p, xs, h) -> scalar; per sample where the model is batched."""

    def loss(p, xs, h):
        total = score([p["s"], p["u"]]) if model.seed % 2 else jnp.float64(0)
        values, sequence = [h, jnp.cos(h)], xs
        for how in model.parallels:
            values.insert(0, run_parallel(loops, how, *values))
            total += score(values[0])
        for scan, link, reads in zip(model.scans, model.links, model.reads, strict=True):
            source = {"argument": xs, "chained": sequence}[link]
            source = jnp.concatenate([source, source])[: scan.length] if scan.inputs else None
            last, ys = run_scan(loops, scan, p, source, values)
            if link == "chained":
                values = [*registers(last, None), h]
            if scan.length and link == "chained":
                repeats = -(-T // scan.length)
                # The first state keeps the samples' axis in where no output has it.
                sequence = jnp.concatenate([0.5 * rows(ys, scan.length)] * repeats)[:T]
                sequence += jnp.stack([0.1 * h] * T)
            if reads in ("last", "both"):
                total += score(last)
            if reads in ("outputs", "both"):
                total += 0.5 * score(ys)
            if reads == "row" and scan.length:
                total += score(jax.tree.map(operator.itemgetter(scan.length // 2), ys))
            if reads == "first":
                total += registers(last, None)[0][0]
        return total

    return {
        "none": lambda: loss,
        "jit": lambda: jax.jit(loss),
        "checkpoint": lambda: jax.checkpoint(loss),
        "cond": lambda: (
            lambda p, xs, h: jax.lax.cond(p["s"] < 100, loss, lambda p, xs, h: 0.0, p, xs, h)
        ),
    }[model.wrapper]()


def arguments(model):
    seed = model.seed * 10
    p = {"w": draw(seed, N, N), "g": draw(seed + 1, N, N), "u": draw(seed + 2, N),
         "s": draw(seed + 3) / 2}  # fmt: skip
    batch = (B,) if model.batch or model.call == "vmap" else ()
    return p, draw(seed + 4, *batch, T, N), draw(seed + 5, *batch, N)


def batched(model, loss):
    if not model.batch:
        return loss
    return lambda p, xs, h: jax.vmap(loss, (None, 0, 0))(p, xs, h).sum()


@st.composite
def operations(draw, depth, singular, size, mapped=False):
    """`singular` says whether slopes may be infinite and states pass through a step unchanged.

    Brute force has no record of a recurrence that `vmap` runs over rows (`mapped`).
    """
    kinds = [*OPS, *(SINGULAR if singular else ()), *(BLOCKS * 2 if depth else ())]
    kinds += ["parallel"] * (0 if mapped else 3)
    ops = []
    for _ in range(draw(st.integers(0, size))):
        kind = draw(st.sampled_from(kinds))
        a, b = draw(st.integers(-3, 3)), draw(st.integers(-3, 3))
        inside = ()
        if kind == "scan":
            inside = (draw(scans(depth - 1, singular, first=False, outermost=False)),)
        elif kind == "parallel":
            inside = (draw(parallels(singular)),)
        elif kind in BLOCKS:
            inside = draw(operations(depth - 1, singular, 2, kind == "vmap" and not singular))
        ops.append(Op(kind, a, b, inside))
    return tuple(ops)


def parallels(singular):
    numbers = [number for number in NUMBERS if singular or number != "single"]
    return st.builds(
        Parallel,
        length=st.integers(2, 4),
        reverse=st.booleans(),
        axis=st.integers(0, 1),
        number=st.sampled_from(numbers),
        reads=st.sampled_from(READ),
    )


@st.composite
def scans(draw, depth, singular, first, outermost):
    leaves = tuple(draw(st.lists(
        st.sampled_from([kind for kind in LEAVES if singular or kind != "single"]),
        min_size=1, max_size=3 if depth > 1 else 2,
    )))  # fmt: skip
    ends = st.tuples(
        # Of a state that the step passes on as it came, no program says which step reads it.
        st.sampled_from(ENDS if singular else ["tanh", "scale"]),
        st.integers(-4, 3),
    )
    layers = draw(st.sampled_from([0, 0, 0, 2])) if outermost else 0
    made = draw(st.tuples(*[ends] * len(leaves)))
    if first:
        # JAX takes a state that no step changes out of the scan's carry: let one leaf stay.
        made = (("tanh", made[0][1]), *made[1:])
    return Scan(
        leaves=leaves,
        extras=tuple(sorted(draw(st.sets(st.sampled_from(EXTRAS), max_size=2)))),
        ops=draw(operations(depth, singular, 3)),
        ends=made,
        output=draw(st.sampled_from(OUTPUTS)),
        readout=draw(operations(depth, singular, 1)),
        length=draw(
            st.integers(0 if singular and not (first or layers) else 1, T if outermost else 2)
        ),
        reverse=draw(st.booleans()),
        unroll=draw(st.integers(1, 3)),
        inputs=draw(st.booleans()),
        start=draw(st.sampled_from(["argument", "zeros"])),
        layers=layers,
        wrap=draw(st.sampled_from(["none", "none", "none", *BODIES])),
    )


@st.composite
def models(draw, singular=True):
    count = draw(st.sampled_from([1, 1, 1, 2, 2, 3]))
    batch = draw(st.booleans())
    reads = ["last", "outputs", "both", "row", "first", "nothing"]
    return Model(
        scans=tuple(
            draw(scans(2 if count == 1 and singular else 1, singular, i == 0, True))
            for i in range(count)
        ),
        links=tuple(draw(st.sampled_from(["argument", "chained"])) for _ in range(count)),
        reads=tuple(draw(st.sampled_from(reads)) for _ in range(count)),
        argnums=draw(st.sampled_from([0, (0, 1), (0, 1, 2), 1, (2, 0), ()])),
        batch=batch,
        wrapper=draw(st.sampled_from(["none", "none", "jit", "checkpoint", "cond"])),
        call="plain" if batch or not singular else draw(st.sampled_from(["plain", "jit", "vmap"])),
        seed=draw(st.integers(0, 99)),
        parallels=tuple(draw(st.lists(parallels(singular), max_size=1))),
    )


def called(model, function, args):
    if model.call == "vmap":
        function = jax.vmap(function, (None, 0, 0))
    return jax.jit(function)(*args) if model.call != "plain" else function(*args)


# A state, and so an output, that is a literal array of the program.
@hypothesis.example(
    Model(
        (Scan(leaves=("vector", "scalar"), ends=(("tanh", 0), ("zeros", 0)), output="state"),),
        ("argument",),
        ("outputs",),
    )
)
# JAX takes out the state that stays, and leaves a loop in the body without results.
@hypothesis.example(
    Model(
        (Scan(), Scan(ops=(Op("fori"),), ends=(("kept", 0),))),
        ("argument", "argument"),
        ("last", "nothing"),
    )
)
@hypothesis.settings(SETTINGS, max_examples=drawn(3, 100))
@hypothesis.given(models())
def test_trace_changes_neither_the_value_nor_the_grads(model):
    loss, args = batched(model, loss_of(model, LaxLoops())), arguments(model)
    axis = 0 if model.batch else None
    out = called(model, gl.trace(loss, argnums=model.argnums, batch_axis=axis), args)
    if model.argnums == ():
        assert out.grads is None
        value, grads = called(model, jax.jit(loss), args), None
    else:
        plain = jax.jit(jax.value_and_grad(loss, argnums=model.argnums))
        value, grads = called(model, plain, args)
    single = "single" in repr(model.scans)
    close(out.value, value, single)
    assert jax.tree.structure(out.grads) == jax.tree.structure(grads)
    if not np.all(np.isfinite(value)):
        # Of a state that nothing reads, JAX leaves out the zero that trace multiplies with NaN.
        grads = jax.tree.map(lambda mine, g: jnp.where(g == 0, mine, g), out.grads, grads)
    jax.tree.map(functools.partial(close, single=single), out.grads, grads)


def one_scan(reads="outputs", batch=False, call="plain", **scan):
    return Model((Scan(**scan),), ("argument",), (reads,), batch=batch, call=call)


def measured_norm(state, adjoint):
    return sum(jnp.sum(jnp.abs(x)) for x in jax.tree.leaves((state, adjoint)))


def options():
    return st.fixed_dictionaries(
        {},
        optional={
            "segment": st.integers(1, 3),
            "measure": st.sampled_from([measured_norm]),
            "log_param": st.just(True),
        },
    )


# A value without entries, of which no entry could show which sample it is of.
@hypothesis.example(
    one_scan(batch=True, output="leaf", ops=(Op("scan", inside=(Scan(output="leaf", length=0),)),)),
    {},
)
# Of the two leaves of a parallel scan, vmap runs over one.
@hypothesis.example(
    one_scan(
        call="vmap",
        output="leaf",
        ops=(Op("vmap", inside=(Op("parallel", -2, -1, (Parallel(length=3, axis=1),)),)),),
    ),
    {"measure": measured_norm},
)
@hypothesis.settings(SETTINGS, max_examples=drawn(8, 3000))
@hypothesis.given(models(), options())
def test_every_program_can_be_traced(model, options):
    loss, args = batched(model, loss_of(model, LaxLoops())), arguments(model)
    axis = 0 if model.batch and not options.get("log_param") else None
    traced = gl.trace(loss, argnums=model.argnums, batch_axis=axis, **options)
    out = jax.eval_shape(lambda *args: called(model, traced, args), *args)

    def plain(*args):  # of another loss, which is quicker, but with the same arguments
        loss = batched(model, lambda *args: score(args))
        if model.argnums == ():
            return loss(*args)
        return jax.value_and_grad(loss, model.argnums)(*args)

    want = jax.eval_shape(lambda *args: called(model, plain, args), *args)
    got = out.value if model.argnums == () else (out.value, out.grads)
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for mine, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)


def close(mine, theirs, single):
    mine, theirs = np.asarray(mine), np.asarray(theirs)
    assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
    finite = np.abs(theirs[np.isfinite(theirs)])
    precision = 1e-4 if single else 1e-10
    np.testing.assert_allclose(
        mine, theirs, rtol=precision, atol=precision * max(1e-3, finite.max(initial=0))
    )


def brute_force(model, samples):
    """Norms of dL/d(perturbation) by an unrolled loop, for each site in program order.

    Each is (total, direct, transported), arrays of shape (samples, *outer, T).
    """
    shapes = PerturbedLoops()
    jax.eval_shape(loss_of(model, shapes), *jax.tree.map(operator.itemgetter(0), samples))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes.zeros)

    def perturbed(total, direct, sample):
        return loss_of(model, PerturbedLoops(total, direct))(*sample)

    slopes = jax.jit(jax.vmap(jax.grad(perturbed, (0, 1)), (None, None, 0)))
    total, direct = slopes(zeros, zeros, samples)
    both = total, direct, jax.tree.map(jnp.subtract, total, direct)

    def norms(key, tree):
        lead = len(samples[1]), *shapes.around(key)
        rows = [np.asarray(leaf).reshape(*lead, -1) for leaf in tree[key].values()]
        return np.linalg.norm(np.concatenate(rows, -1), axis=-1)

    return [[norms(key, tree) for tree in both] for key in sorted(zeros)]


# vmap leaves the samples of a product last, and brings them to the front of the state alone.
@hypothesis.example(
    one_scan(
        batch=True,
        ops=(Op("tanh"), Op("matmul", -1)),
        ends=(("scale", -1),),
        output="leaf",
    )
)
@hypothesis.settings(SETTINGS, max_examples=drawn(2, 50))
@hypothesis.given(models(singular=False))
def test_norms_are_those_of_an_unrolled_loop(model):
    loss, args = batched(model, loss_of(model, LaxLoops())), arguments(model)
    out = gl.trace(loss, argnums=model.argnums, batch_axis=0 if model.batch else None)(*args)
    samples = (
        (jax.tree.map(lambda x: jnp.stack([x] * B), args[0]), *args[1:])
        if model.batch
        else jax.tree.map(lambda x: x[None], args)
    )
    expected = brute_force(model, samples)
    for scan, norms in zip(out.scans, expected, strict=True):
        largest = max(1e-3, np.max(norms))
        logs = scan.log_norm, scan.log_direct, scan.log_transported
        for log, exact in zip(logs, norms, strict=True):
            exact = np.moveaxis(exact, 0, -1) if model.batch else exact[0]
            np.testing.assert_allclose(np.exp(log), exact, rtol=1e-8, atol=1e-10 * largest)
