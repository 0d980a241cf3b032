"""Forms of gradlab's cells that are right, and forms with one fault each, for `gradlab.check`.

A case is (fast, plain, options of the check); a form is (params, xs) -> loss.
"""

# ruff: noqa: E501 (a case is a line)

import functools

import jax
import jax.numpy as jnp
import numpy as np

from gradlab import cells

WIDTH = 4
BIAS = jax.nn.initializers.normal(0.5)
OPTIONS = {
    "lru": {"r_min": 0.5, "r_max": 0.99},
    "indrnn": {"activation": "linear"},
    "min_gru": {"bias": BIAS},
    "min_lstm": {"bias": BIAS},
}


# What the tests leave out, since another case is much the same, and a program takes long to compile.
ALIKE = {"parallel min_lstm", "last step", "unroll=3, jit", "batch last", "h_0 later, last",
         "gates swapped", "float16"}  # fmt: skip


@functools.cache
def build(name):
    return cells.make(name, inputs=WIDTH, hidden=WIDTH, **OPTIONS.get(name, {}))


@functools.cache
def init(name):
    return jax.jit(functools.partial(build(name).init, dtype=jnp.float32))


def sample(name, length, dtype=jnp.float32, seed=0, batch=()):
    """Parameters with a first state that is not zero, and inputs."""
    cell = build(name)
    rng = np.random.default_rng(seed)

    def draw(leaf):
        return jnp.asarray(rng.normal(size=(*batch, *leaf.shape)), leaf.dtype)

    params = jax.tree.map(lambda leaf: leaf.astype(dtype), init(name)(jax.random.key(seed)))
    params["start"] = jax.tree.map(draw, cell.start(dtype))
    return params, jnp.asarray(rng.normal(size=(*batch, length, WIDTH)), dtype)


def every(h):
    """A loss that reads each step's own h."""
    return jnp.mean(jnp.sin(h + 0.3))


def last(h):
    return jnp.sum(jnp.sin(h[-1] + 0.3))


def model(cell, states, read=every):
    """The loss of a form: states(params, start, xs) -> the states of all steps."""

    def loss(params, xs):
        return read(jax.vmap(cell.read)(states(params, params["start"], xs)))

    return loss


def in_turn(cell, **options):
    def states(params, start, xs):
        return jax.lax.scan(lambda s, x: (cell.step(params, s, x),) * 2, start, xs, **options)[1]

    return states


def chunked(inner, size, hand_on=lambda c, state: state, remat=False):
    """Chunks of `size` steps one after the other, the last filled up; `inner` runs one chunk."""

    def states(params, start, xs):
        count = -(-len(xs) // size)
        full = jnp.pad(xs, ((0, count * size - len(xs)), (0, 0))).reshape(count, size, -1)

        def chunk(state, row):
            c, x = row
            rows = inner(params, hand_on(c, state), x)
            return jax.tree.map(lambda leaf: leaf[-1], rows), rows

        chunk = jax.checkpoint(chunk) if remat else chunk
        _, rows = jax.lax.scan(chunk, start, (jnp.arange(count), full))
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[: len(xs)], rows)

    return states


def elements(cell, params, xs):
    """(a, b) of each step of a linear cell."""
    ready = cell.prepare(params)
    drives = jax.vmap(functools.partial(cell.project, ready))(xs)
    a, b = jax.vmap(functools.partial(cell.advance.coefficients, ready))(drives)
    return jnp.broadcast_to(a, b.shape).astype(b.dtype), b


def after(one, other):
    return other[0] * one[0], other[0] * one[1] + other[1]


def linear(cell, change=lambda a, b: (a, b), **options):
    """A parallel scan written out, of elements that `change` may spoil."""

    def states(params, start, xs):
        a, b = change(*elements(cell, params, xs))
        first = -1 if options.get("reverse") else 0
        b = b.at[first].add(a[first] * start)
        return jax.lax.associative_scan(after, (a, b), **options)[1]

    return states


def prepended(cell):
    """The state before step 1 as the first element."""

    def states(params, start, xs):
        a, b = elements(cell, params, xs)
        a, b = jnp.concatenate([jnp.ones_like(a[:1]), a]), jnp.concatenate([start[None], b])
        return jax.lax.associative_scan(after, (a, b))[1][1:]

    return states


def offset(cell):
    """The part of the state before step 1 is added after the scan."""

    def states(params, start, xs):
        a, b = jax.lax.associative_scan(after, elements(cell, params, xs))
        return a * start[None] + b

    return states


def products(a):
    """a_1, a_1 a_2, ...: jnp.cumprod is a recurrence of its own, which `trace` names."""
    rows = [a[0]]
    for row in a[1:]:
        rows.append(rows[-1] * row)
    return jnp.stack(rows)


def dense(cell, size):
    """Within a chunk by one product with the matrix of decays: only its last state is carried."""

    def run(params, start, xs):
        a, b = elements(cell, params, xs)
        decay = jnp.stack(
            [
                jnp.concatenate([jnp.zeros_like(a[:i]), products(a[i:].at[0].set(1))])
                for i in range(len(xs))
            ]
        )
        return jnp.einsum("sth,sh->th", decay, b) + products(a) * start[None]

    return chunked(run, size)


def reset(before):
    """A new sequence begins at that step, so its decay is 0."""

    def change(a, b):
        return a.at[before - 1].set(0), b

    return change


def segments(cell, change):
    """One step after the other, with changed coefficients."""

    def states(params, start, xs):
        rows = change(*elements(cell, params, xs))
        return jax.lax.scan(lambda s, x: (x[0] * s + x[1],) * 2, start, rows)[1]

    return states


def with_gate(gate):
    """min_gru written out, with the logistic function given; and its plain form."""

    def coefficients(params, xs):
        z, candidate = jnp.split(xs @ params["input"].T + params["bias"][None], 2, axis=-1)
        return gate(-z), gate(z) * candidate

    def states(params, start, xs):
        a, b = coefficients(params, xs)
        return jax.lax.associative_scan(after, (a, b.at[0].add(a[0] * start)))[1]

    return states


@jax.custom_vjp
def right_gate(x):
    return jax.nn.sigmoid(x)


@jax.custom_vjp
def wrong_gate(x):
    return jax.nn.sigmoid(x)


def _save(x):
    y = jax.nn.sigmoid(x)
    return y, y


right_gate.defvjp(_save, lambda y, ct: (ct * y * (1 - y),))
wrong_gate.defvjp(_save, lambda y, ct: (-ct * y * (1 - y),))


def kernel(backward):
    """h_t = a_t h_{t-1} + b_t with its own derivative, as a kernel has it."""

    @jax.custom_vjp
    def run(a, b):
        return jax.lax.associative_scan(after, (a, b))[1]

    def forward(a, b):
        h = run(a, b)
        return h, (a, h)

    run.defvjp(forward, backward)

    def states(params, start, xs):
        a, b = elements(build("min_gru"), params, xs)
        return run(a, b.at[0].add(a[0] * start))

    return states


def right_backward(saved, ct):
    a, h = saved
    later = jnp.concatenate([a[1:], jnp.ones_like(a[:1])])
    adjoint = jax.lax.associative_scan(after, (later, ct), reverse=True)[1]
    before = jnp.concatenate([jnp.zeros_like(h[:1]), h[:-1]])
    return adjoint * before, adjoint


def cut_backward(saved, ct):
    """The gradient stops at the border of two halves."""
    a, h = saved
    return right_backward((a.at[len(a) // 2].set(0), h), ct)


def in_narrow(dtype):
    """The accumulation in a narrow float."""

    def spoil(cell):
        def states(params, start, xs):
            def step(s, x):
                s = (x[0].astype(dtype) * s + x[1].astype(dtype)).astype(dtype)
                return s, s

            rows = elements(cell, params, xs)
            return jax.lax.scan(step, start.astype(dtype), rows)[1].astype(start.dtype)

        return states

    return spoil


def mixed(cell, scan):
    """Inputs and products in bfloat16, states in float32."""

    def states(params, start, xs):
        def narrow(leaf):
            return leaf.astype(jnp.bfloat16)

        z = narrow(xs) @ narrow(params["input"]).T
        z, candidate = jnp.split(z.astype(jnp.float32) + params["bias"][None], 2, axis=-1)
        a, b = jax.nn.sigmoid(-z), jax.nn.sigmoid(z) * candidate
        return scan(a, b, start)

    return states


def step_by_step(a, b, start):
    return jax.lax.scan(lambda s, x: (x[0] * s + x[1],) * 2, start, (a, b))[1]


def at_once(a, b, start):
    return jax.lax.associative_scan(after, (a, b.at[0].add(a[0] * start)))[1]


def unrolled(cell):
    def states(params, start, xs):
        rows = []
        for x in xs:
            start = cell.step(params, start, x)
            rows.append(start)
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)

    return states


def layers(count, stacked):
    """Layers one over the other; their weights are multiples of one another."""
    cell = build("gru")

    def layer(params, scale, xs):
        own = {name: leaf * scale for name, leaf in params.items() if name != "start"}
        return in_turn(cell)(own, params["start"], xs)

    def loss(params, xs):
        scales = jnp.linspace(0.8, 1.2, count, dtype=xs.dtype)
        if stacked:
            xs = jax.lax.scan(lambda x, scale: (layer(params, scale, x), None), xs, scales)[0]
        else:
            for scale in scales:
                xs = layer(params, scale, xs)
        return every(xs)

    return loss


def batched(states):
    def loss(params, xs):
        shared = {name: leaf for name, leaf in params.items() if name != "start"}
        return every(jax.vmap(states, (None, 0, 0))(shared, params["start"], xs))

    return loss


def batch_last(cell):
    """States as (width, samples), where the plain form has (samples, width)."""

    def loss(params, xs):
        step = jax.vmap(cell.step, (None, 1, 1), 1)
        rows = jax.lax.scan(
            lambda s, x: (step(params, s, x),) * 2, params["start"].T, jnp.transpose(xs, (1, 2, 0))
        )[1]
        return every(rows)

    return loss


def batch_first(cell):
    def loss(params, xs):
        step = jax.vmap(cell.step, (None, 0, 0))
        rows = jax.lax.scan(
            lambda s, x: (step(params, s, x),) * 2, params["start"], jnp.moveaxis(xs, 1, 0)
        )[1]
        return every(rows)

    return loss


def logarithms(parallel):
    """States that are positive, as such or as their logarithms."""

    def positive(params, xs):
        z, candidate = jnp.split(xs @ params["input"].T + params["bias"][None], 2, axis=-1)
        return jax.nn.log_sigmoid(-z), jax.nn.log_sigmoid(z) + candidate

    def loss(params, xs):
        log_a, log_b = positive(params, xs)
        if not parallel:
            rows = step_by_step(jnp.exp(log_a), jnp.exp(log_b), jnp.zeros_like(log_b[0]))
            return every(rows)

        def combine(one, other):
            return one[0] + other[0], jnp.logaddexp(other[0] + one[1], other[1])

        return every(jnp.exp(jax.lax.associative_scan(combine, (log_a, log_b))[1]))

    return loss


def shared(params, start, xs, turned):
    """GRU steps whose matrix of the gate z is turned where `turned`."""
    cell = build("gru")
    W = params["recurrent"].reshape(-1, WIDTH, WIDTH)
    W = W.at[0].set(W[0].T) if turned else W
    return in_turn(cell)(params | {"recurrent": W.reshape(-1, WIDTH)}, start, xs)


def cut_at(border):
    """Detach the state that is handed on to one chunk."""

    def hand_on(c, state):
        cut = jax.lax.stop_gradient(state)
        return jax.tree.map(lambda x, y: jnp.where(c == border, x, y), cut, state)

    return hand_on


@functools.cache
def plain(name, read=every):
    return model(build(name), in_turn(build(name)), read)


def rights(size, length):
    """Right forms: name -> (cell, fast, plain, what the check and sample need)."""
    linears = {
        f"parallel {name}": (name, model(build(name), cells.parallel(build(name))), plain(name), {})
        for name in OPTIONS
    }
    gru, lru, mine = (build(n) for n in ("gru", "lru", "min_gru"))
    resets = reset(length // 2 + 1)
    double = {"dtype": jnp.float64}
    return linears | {
        "double": ("lru", model(lru, cells.parallel(lru)), plain("lru"), double),
        "last step": ("min_gru", model(mine, cells.parallel(mine), last), plain("min_gru", last), {}),
        "chunks": ("gru", model(gru, chunked(in_turn(gru), size)), plain("gru"), {}),
        "chunks, filled up": ("gru", model(gru, chunked(in_turn(gru), size + 1)), plain("gru"), {}),
        "chunks, remat": ("gru", model(gru, chunked(in_turn(gru), size, remat=True)), plain("gru"), {}),
        "parallel in chunks": ("lru", model(lru, chunked(cells.parallel(lru), size)), plain("lru"), {}),
        "chunks from zero": ("min_gru", model(mine, chunked(offset(mine), size)), plain("min_gru"), {}),
        "dense chunks": ("min_gru", model(mine, dense(mine, size)), plain("min_gru"), {}),
        "h_0 first": ("min_gru", model(mine, prepended(mine)), plain("min_gru"), {}),
        "h_0 later": ("min_gru", model(mine, offset(mine)), plain("min_gru"), {}),
        "h_0 later, last": ("min_gru", model(mine, offset(mine), last), plain("min_gru", last), {}),
        "reverse": ("min_gru", model(mine, linear(mine, reverse=True)), model(mine, in_turn(mine, reverse=True)), {}),
        "resets": ("min_gru", model(mine, linear(mine, resets)), model(mine, segments(mine, resets)), {}),
        "rule of a gate": ("min_gru", model(mine, with_gate(right_gate)), plain("min_gru"), {}),
        "kernel": ("min_gru", model(mine, kernel(right_backward)), plain("min_gru"), {}),
        "mixed": ("min_gru", model(mine, mixed(mine, at_once)), model(mine, mixed(mine, step_by_step)), {}),
        "unrolled": ("gru", model(gru, unrolled(gru)), plain("gru"), {}),
        "unroll=3, jit": ("gru", jax.jit(model(gru, in_turn(gru, unroll=3))), plain("gru"), {}),
        "layers": ("gru", layers(2, True), layers(2, False), {}),
        "logarithms": ("min_gru", logarithms(True), logarithms(False), {}),
        "vmap": ("min_gru", batched(cells.parallel(mine)), batch_first(mine), {"batch": (3,), "batch_axis": 0}),
        "batch last": ("gru", batch_last(gru), batch_first(gru), {"batch": (3,)}),
    }  # fmt: skip


def faults(size, length):
    """Faulty forms: name -> (cell, fast, plain, needs, the texts that name the place)."""
    gru, lstm, lru, mine = (build(n) for n in ("gru", "lstm", "lru", "min_gru"))
    resets = reset(length // 2 + 1)
    border = size * (length // size // 2)

    def short(params, start, xs):
        rows = chunked(in_turn(gru), size)(params, start, xs[: -(size - 1)])
        return jnp.concatenate([rows, jnp.zeros((size - 1, WIDTH), rows.dtype)])

    def one_segment(a, b):
        return a, b

    def detached(a, b):
        return jax.lax.stop_gradient(a), b

    def no_start(cell):
        states = cells.parallel(cell)
        return lambda params, start, xs: states(params, jax.lax.stop_gradient(start), xs)

    def swapped(params, start, xs):
        names = {k: jnp.roll(v, WIDTH, 0) for k, v in params.items() if k != "start"}
        return in_turn(lstm)(names, start, xs)

    plain_segments = model(mine, segments(mine, resets))
    late = reset(length // 2 + 2)
    return {
        "no last chunk": ("gru", model(gru, short), plain("gru"), {}, (f"state at step {length - size + 2} ",)),
        "decay squared": ("min_gru", model(mine, linear(mine, lambda a, b: (a * a, b))), plain("min_gru"), {}, ("state at step 1 ",)),
        "gate transposed": ("gru", model(gru, chunked(functools.partial(shared, turned=True), size)), plain("gru"), {}, ("state at step 1 ",)),
        "branch detached": ("min_gru", model(mine, linear(mine, detached)), plain("min_gru"), {}, ("gradient of bias", "gradient of input")),
        "float16": ("min_lstm", model(build("min_lstm"), in_narrow(jnp.float16)(build("min_lstm"))), plain("min_lstm"), {}, ("state at step 1 ",)),
        "bfloat16": ("min_gru", model(mine, in_narrow(jnp.bfloat16)(mine)), plain("min_gru"), {}, ("state at step 1 ",)),
        "no reset": ("min_gru", model(mine, linear(mine, one_segment)), plain_segments, {}, (f"state at step {length // 2 + 1} ",)),
        "reset late": ("min_gru", model(mine, linear(mine, late)), plain_segments, {}, (f"state at step {length // 2 + 1} ",)),
        "sign of a gate": ("min_gru", model(mine, with_gate(wrong_gate)), plain("min_gru"), {}, ("gradient of bias",)),
        "h_0 without gradient": ("lru", model(lru, no_start(lru)), plain("lru"), {}, ("gradient of start",)),
        "border without gradient": ("lstm", model(lstm, chunked(in_turn(lstm), size, cut_at(border // size)), last), plain("lstm", last), {}, (f"adjoint at step {border} ",)),
        "kernel without border": ("min_gru", model(mine, kernel(cut_backward)), plain("min_gru"), {}, ("gradient of ",)),
        "gates swapped": ("lstm", model(lstm, swapped), plain("lstm"), {}, ("state at step 1 ",)),
    }  # fmt: skip
