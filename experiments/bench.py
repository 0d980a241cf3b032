"""What `trace`, `spectrum` and `train` cost, in seven tables.

cost: time and memory of `jax.jit(gl.trace(loss))` against `jax.jit(jax.value_and_grad(loss))`.
parallel: the same for parallel scans, and the time to trace their programs.
torch: PyTorch's ways to the same norms, and how near the hardware's limit gradlab's cells are.
long: memory and time of sequences of up to 1,000,000 steps, with `segment=`.
compile: compilations in a second call, and the time to trace a large program.
spectrum: Lyapunov exponents of a wide network and of a long sequence.
training: updates per second against PyTorch, and what tracing every tenth update adds.

Calls that are compared run in turn in one process, and every ratio is a median over the rounds.
"""

import argparse
import functools
import gc
import importlib
import importlib.metadata
import itertools
import multiprocessing
import os
import platform
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

import gradlab as gl

BATCH, WIDTH, INPUTS, LENGTH, ROUNDS, CORES = 32, 128, 32, 512, 15, 2
CELLS = ("elman", "lstm", "gru")
LENGTHS, SEGMENT, FITS = (10_000, 100_000, 1_000_000), 1000, 100_000
LONGEST = {"elman": (10_000_000,)}  # its inputs alone take 1.28 GB
EQUATIONS = 500
PARALLEL = 10_000
LIGHT = (("elman", 16), ("elman", 64), ("gru", 32), ("lru", 128), ("min_gru", 128),
         ("indrnn", 128), ("diagonal", 128))  # fmt: skip
LIGHT_LENGTHS = 200, 2000, 10_000
SQUARE = 2048
TRAINED, UPDATES = 200, 10
WAYS = {
    "value_and_grad": jax.value_and_grad,
    "with grads": gl.trace,
    "argnums=()": functools.partial(gl.trace, argnums=()),
    "argnums=(), per sample": functools.partial(gl.trace, argnums=(), batch_axis=0),
}
PLAIN = "value_and_grad"
OF_ONE = {way: make for way, make in WAYS.items() if "per sample" not in way}


class Table(NamedTuple):
    """Rows to print and to write, and a note that says what they are."""

    name: str
    note: str
    rows: list[dict[str, Any]]


# Models: each gives a loss and its two arguments, parameters and inputs (time, batch, INPUTS).


def cell_model(name: str):
    """A cell of gradlab; all inputs are projected in one product before the scan."""
    cell = gl.cells.make(name, inputs=INPUTS, hidden=WIDTH)
    return batch_loss(cell), cell.init(jax.random.key(0)), inputs(LENGTH, BATCH)


def batch_loss(cell: gl.cells.Cell) -> Callable[[Any, jax.Array], jax.Array]:
    """The sum of the last states of a batch, inputs (time, batch, features)."""

    def loss(params, xs):
        drives = jax.vmap(jax.vmap(lambda x: cell.project(params, x)))(xs)
        step = jax.vmap(functools.partial(cell.advance, params))
        batch = xs.shape[1]
        start = jax.tree.map(lambda h: jnp.broadcast_to(h, (batch, *h.shape)), cell.start())
        last, _ = jax.lax.scan(lambda state, drive: (step(state, drive), None), start, drives)
        return jax.vmap(cell.read)(last).sum()

    return loss


def flax_model():
    """An LSTM of flax linen."""
    linen = importlib.import_module("flax.linen")
    rnn = linen.RNN(linen.LSTMCell(WIDTH), time_major=True)
    xs = inputs(LENGTH, BATCH)
    return lambda params, xs: rnn.apply(params, xs)[-1].sum(), rnn.init(jax.random.key(0), xs), xs


def equinox_model():
    """A GRU of equinox, written for one sequence and mapped over the batch."""
    equinox = importlib.import_module("equinox")

    def loss(cell, xs):
        def last(xs):
            return jax.lax.scan(lambda h, x: (cell(x, h), None), jnp.zeros(WIDTH), xs)[0]

        return jax.vmap(last, in_axes=1)(xs).sum()

    return loss, equinox.nn.GRUCell(INPUTS, WIDTH, key=jax.random.key(0)), inputs(LENGTH, BATCH)


def inputs(length: int, batch: int) -> jax.Array:
    """Standard normal float32."""
    return jnp.asarray(normals(length, batch, INPUTS))


MODELS: dict[str, Callable[[], Any]] = {
    **{f"gradlab {name}": functools.partial(cell_model, name) for name in CELLS},
    "flax LSTMCell": flax_model,
    "equinox GRUCell": equinox_model,
}


# Measuring.


def seconds(call: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    """The time of one call, results waited for."""
    start = clock()
    jax.block_until_ready(call())
    return clock() - start


def in_turn(
    calls: dict[str, Callable[[], Any]], clock: Callable[[], float] = time.perf_counter
) -> pd.DataFrame:
    """Times in ms, a column per call and a row per round, after one round that is not counted."""
    rounds = []
    for number in range(ROUNDS + 1):
        order = reversed(calls) if number % 2 else calls
        rounds.append({name: 1e3 * seconds(calls[name], clock) for name in order})
    return pd.DataFrame(rounds[1:])


def ratio(above: pd.Series, below: pd.Series, name: str = "ratio") -> dict[str, float]:
    """The median over rounds of above / below, and its quartiles."""
    low, middle, high = (above / below).quantile([0.25, 0.5, 0.75])
    return {name: middle, "q1": low, "q3": high}


def compiled(function: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    """The executable, and the time to trace and compile it."""
    start = time.perf_counter()
    return jax.jit(function).lower(*args).compile(), time.perf_counter() - start


def fresh(function: Callable[..., Any], *args: Any) -> Any:
    """The result of a call in a new process, whose memory starts clean."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def peak_mb() -> float:
    """The largest resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():
        # Linux hands ru_maxrss down from the process that started this one.
        return int(re.findall(r"VmHWM:\s*(\d+) kB", status.read_text())[0]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def reset_peak() -> None:
    """Let `peak_mb` begin again from what is resident now, where the system can (Linux)."""
    if (file := Path("/proc/self/clear_refs")).exists():
        file.write_text("5")


# Each table.


def cost_tables() -> Iterator[Table]:
    """Time and memory against value_and_grad, of heavy steps and of light ones."""
    rows = []
    for model, build in MODELS.items():
        try:
            loss, params, xs = build()
        except ImportError as error:
            package = str(error.name).partition(".")[0]
            print(f"{model} left out: pip install {package}", flush=True)
            continue
        programs = {way: compiled(make(loss), params, xs) for way, make in WAYS.items()}
        runs = {way: functools.partial(run, params, xs) for way, (run, _) in programs.items()}
        times = in_turn(runs)
        planned = {way: planned_mb(run) for way, (run, _) in programs.items()}
        grown = {way: fresh(growth_mb, model, way) for way in WAYS}
        for way in WAYS:
            rows.append(
                {"model": model, "way": way, "ms": times[way].median()}
                | ratio(times[way], times[PLAIN])
                | {"compile s": programs[way][1], "planned MB": planned[way]}
                | {"planned ratio": planned[way] / planned[PLAIN], "resident MB": grown[way]}
                | {"resident ratio": grown[way] / grown[PLAIN]}
            )
    note = (
        f"Batch {BATCH}, width {WIDTH}, inputs {INPUTS}, T = {LENGTH}, float32. Ratios are to "
        f"value_and_grad: medians of {ROUNDS} rounds with quartiles q1 and q3. Planned MB is "
        "what XLA sets aside for temporaries and outputs; resident MB is by how much the first "
        "call raises the peak of a process of its own."
    )
    yield Table("cost", note, rows)
    yield from light_tables()


def diagonal_model(width: int, length: int):
    """h_t = a h_{t-1} + x_t, the lightest step there is."""

    def loss(params, xs):
        a = jax.nn.sigmoid(params)
        last, _ = jax.lax.scan(lambda h, x: (a * h + x, None), jnp.zeros(width), xs)
        return jnp.sum(last**2)

    return loss, jnp.ones(width), jnp.asarray(normals(length, width))


def lone_model(name: str, width: int, length: int, features: int):
    """A cell that reads one sequence, whose inputs are projected step by step."""
    cell = gl.cells.make(name, inputs=features, hidden=width)

    def loss(params, xs):
        last, _ = jax.lax.scan(lambda h, x: (cell.step(params, h, x), None), cell.start(), xs)
        return jnp.sum(cell.read(last) ** 2)

    return loss, cell.init(jax.random.key(0)), jnp.asarray(normals(length, features))


def normals(*shape: int) -> np.ndarray:
    """Standard normal float32."""
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def light_tables() -> Iterator[Table]:
    """Steps that cost as little as their bookkeeping, one sequence, against value_and_grad."""
    rows = []
    for (name, width), length in itertools.product(LIGHT, LIGHT_LENGTHS):
        if name == "diagonal":
            loss, *args = diagonal_model(width, length)
        else:
            loss, *args = lone_model(name, width, length, features=width)
        programs = {way: compiled(make(loss), *args) for way, make in OF_ONE.items()}
        runs = {way: functools.partial(run, *args) for way, (run, _) in programs.items()}
        times, used = in_turn(runs), in_turn(runs, time.process_time)
        for way in OF_ONE:
            rows.append(
                {"cell": name, "width": width, "T": length, "way": way}
                | {"us per step": 1e3 * times[way].median() / length}
                | ratio(times[way], times[PLAIN])
                | {"by CPU": (used[way] / used[PLAIN]).median(), "compile s": programs[way][1]}
            )
    note = (
        "One sequence, inputs as wide as the state, float32; the loss reads the last state. Ratios "
        f"are to value_and_grad: medians of {ROUNDS} rounds with quartiles q1 and q3. by CPU: the "
        "same of processor time."
    )
    yield Table("light", note, rows)


def parallel_tables() -> Iterator[Table]:
    """Parallel scans of T = PARALLEL steps against value_and_grad."""
    keys = jax.random.split(jax.random.key(0), 2)
    b = jax.random.normal(keys[1], (PARALLEL, WIDTH))
    decay = jax.random.uniform(keys[0], b.shape, minval=0.8)
    elements = {
        "real": (decay, b),
        "complex": (decay * jnp.exp(1j * decay), b + 1j * decay),
        "real, 8 samples": (
            jnp.broadcast_to(decay[:, None], (PARALLEL, 8, WIDTH)),
            jax.random.normal(keys[1], (PARALLEL, 8, WIDTH)),
        ),
    }

    def combine(p, q):
        return p[0] * q[0], q[0] * p[1] + q[1]

    def new_loss():  # a new function each time, which JAX has not traced yet
        return lambda a, b: jnp.tanh(jax.lax.associative_scan(combine, (a, b))[1].real).sum()

    rows = []
    for form, args in elements.items():
        programs = {way: compiled(make(new_loss()), *args) for way, make in WAYS.items()}
        times = in_turn({way: functools.partial(run, *args) for way, (run, _) in programs.items()})
        traced = in_turn(
            {
                way: lambda make=make, args=args: jax.make_jaxpr(make(new_loss()))(*args)
                for way, make in WAYS.items()
            }
        )
        for way in WAYS:
            rows.append(
                {"form": form, "way": way, "ms": times[way].median()}
                | ratio(times[way], times[PLAIN])
                | {"make_jaxpr s": traced[way].median() / 1e3}
                | {"make_jaxpr ratio": (traced[way] / traced[PLAIN]).median()}
                | {"compile s": programs[way][1]}
            )
    note = (
        f"h_t = a_t h_(t-1) + b_t by associative_scan: batch 1, width {WIDTH}, T = {PARALLEL}. "
        f"Ratios are to value_and_grad: medians of {ROUNDS} rounds with quartiles q1 and q3. "
        "make_jaxpr traces a new function in each round, without XLA."
    )
    yield Table("parallel", note, rows)


def planned_mb(program: Any) -> float:
    """The temporaries and outputs of an executable."""
    stats = program.memory_analysis()
    return (stats.temp_size_in_bytes + stats.output_size_in_bytes) / 1e6


def growth_mb(model: str, way: str) -> float:
    """By how much the first call raises this process's peak memory."""
    loss, params, xs = MODELS[model]()
    run, _ = compiled(WAYS[way](loss), params, xs)
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")  # or compiling, which takes more, would hide the run
    before = peak_mb()
    jax.block_until_ready(run(params, xs))
    return peak_mb() - before


def torch_tables() -> Iterator[Table]:
    """PyTorch's peers, then the limit."""
    programs, first = {}, {}
    for name in CELLS:
        for way in ("argnums=()", "with grads"):
            loss, params, xs = cell_model(name)
            run, first[name, way] = compiled(WAYS[way](loss), params, xs)
            programs[name, way] = functools.partial(run, params, xs)
    try:
        import bench_torch
    except ImportError:
        print("the table of PyTorch left out: pip install torch==2.13.0", flush=True)
    else:
        rows = []
        for name in CELLS:
            peers = bench_torch.peers(name, LENGTH, BATCH, INPUTS, WIDTH, CORES)
            mine = {way: programs[name, way] for way in ("argnums=()", "with grads")}
            times = in_turn(peers | mine)
            for peer in peers:
                rows.append(
                    {"cell": name, "PyTorch": peer, "PyTorch ms": times[peer].median()}
                    | {"argnums=() ms": times["argnums=()"].median()}
                    | ratio(times[peer], times["argnums=()"], "times faster")
                    | {"compile s": first[name, "argnums=()"]}
                    | {"with grads ms": times["with grads"].median()}
                    | {"times faster with grads": (times[peer] / times["with grads"]).median()}
                )
        note = (
            f"Batch {BATCH}, width {WIDTH}, inputs {INPUTS}, T = {LENGTH}, float32, {CORES} "
            "threads. The loops call retain_grad() on every state and read a norm at each step; "
            "frozen: no weight requires a gradient, the nearest to argnums=(). fused: forward and "
            "backward of the whole-sequence module, which measures nothing. Compilation is apart."
        )
        yield Table("torch", note, rows)
    yield limit_table(programs)


def limit_table(programs: dict[tuple[str, str], Callable[[], Any]]) -> Table:
    """How much of the time the recurrent matrix products alone would take."""
    square = jnp.ones((SQUARE, SQUARE))
    matmul = jax.jit(jnp.matmul)
    rows = []
    for name in CELLS:
        gates = len(gl.cells.make(name, inputs=INPUTS, hidden=WIDTH).gates)
        # Orthonormal columns: what goes through both products neither grows nor dies.
        W, _ = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (gates * WIDTH, WIDTH)))

        @jax.jit
        def products(h, W):
            return jax.lax.scan(lambda h, _: ((h @ W.T) @ W, None), h, length=LENGTH)[0]

        times = in_turn(
            {
                "gradlab": programs[name, "argnums=()"],
                "products": functools.partial(products, jnp.ones((BATCH, WIDTH)), W),
                "square": lambda: matmul(square, square),
            }
        )
        work = 2 * 2 * BATCH * WIDTH * gates * WIDTH * LENGTH
        rate = 2 * SQUARE**3 / times["square"]
        rows.append(
            {"cell": name, "argnums=() ms": times["gradlab"].median()}
            | {"products ms": times["products"].median()}
            | {"products GFLOP/s": (work / times["products"]).median() / 1e6}
            | ratio(times["products"], times["gradlab"], "fraction")
            | {"sgemm GFLOP/s": rate.median() / 1e6, "products at sgemm ms": (work / rate).median()}
            | {"fraction at sgemm": (work / rate / times["gradlab"]).median()}
        )
    note = (
        "The limit: both recurrent products of every step, h Wᵀ forward and dz W backward, all "
        "gates at once. products: these shapes alone, in a scan of the same length. sgemm: the "
        f"rate of one product of {SQUARE} by {SQUARE}. A fraction of 1 is all one could hope for."
    )
    return Table("limit", note, rows)


def long_tables() -> Iterator[Table]:
    """Memory and time against the length, with and without segments."""
    rows = []
    for name in CELLS:
        for length in (*LENGTHS, *LONGEST.get(name, ())):
            norms = {}
            for segment in (SEGMENT, None) if length <= FITS else (SEGMENT,):
                norms[segment], row = fresh(long_run, name, length, segment)
                rows.append({"cell": name, "T": length, "segment": segment or "none"} | row)
            if None in norms:
                differences = np.abs(norms[SEGMENT] - norms[None])
                rows[-2]["difference"] = differences.max()
                rows[-2]["relative"] = (differences / np.maximum(1, np.abs(norms[None]))).max()
    note = (
        f"One sequence, width {WIDTH}, inputs {INPUTS}, float32, argnums=(), each run in a process "
        "of its own. Peak MB is all resident memory from when the inputs are there, Python, JAX "
        "and the inputs included; data MB is what is resident before compiling. Time is of the "
        "second call. difference: the largest between log_norm with and without segments, and "
        "relative to max(1, |log_norm|)."
    )
    yield Table("long", note, rows)


def long_run(name: str, length: int, segment: int | None) -> tuple[np.ndarray, dict[str, Any]]:
    """The log-norms of a long sequence, and what they cost."""
    # The drives of all steps together would not fit.
    loss, params, xs = lone_model(name, WIDTH, length, features=INPUTS)
    # JAX copies the inputs while NumPy's are still there: no memory that the trace needs.
    jax.block_until_ready(xs)
    gc.collect()
    reset_peak()
    data = peak_mb()
    run, first = compiled(gl.trace(loss, argnums=(), segment=segment), params, xs)
    jax.block_until_ready(run(params, xs))
    start = time.perf_counter()
    out = jax.block_until_ready(run(params, xs))
    taken = time.perf_counter() - start
    row = {"peak MB": peak_mb(), "data MB": data, "compile s": first, "s": taken}
    log_norm = np.asarray(out.scans[0].log_norm)
    return log_norm, row | {"µs per step": 1e6 * taken / length, "lowest log_norm": log_norm.min()}


def compile_tables() -> Iterator[Table]:
    """Compilations per call, and the time to trace a program of many equations."""
    rows = []
    for name in CELLS:
        loss, params, xs = cell_model(name)
        for way in ("with grads", "argnums=()"):
            for jitted in (False, True):
                run = jax.jit(WAYS[way](loss)) if jitted else WAYS[way](loss)
                first, second = (compilations(run, params, x) for x in (xs, xs + 1))
                called = f"jit(trace), {way}" if jitted else f"trace, {way}"
                rows.append({"cell": name, "called": called, "first": first, "second": second})
    yield Table("compilations", "Compilations by XLA in the first call and in the second.", rows)

    def step(h, x, w):
        for _ in range(EQUATIONS // 4):
            h = jax.lax.sub(jax.lax.tanh(jax.lax.add(jax.lax.mul(h, w), x)), h)
        return h

    def new_loss():  # a new function each time, which JAX has not traced yet
        return lambda w, xs: jax.lax.scan(lambda h, x: (step(h, x, w), None), w, xs)[0].sum()

    w, xs = jnp.ones(8), jnp.ones((16, 8))
    calls = {}
    for way, make in WAYS.items():
        calls[way, "make_jaxpr"] = lambda make=make: jax.make_jaxpr(make(new_loss()))(w, xs)
        calls[way, "lower"] = lambda make=make: jax.jit(make(new_loss())).lower(w, xs)
    times = in_turn(calls) / 1e3
    count = len(jax.make_jaxpr(step)(w, w, w).eqns)
    rows = [
        {"way": way, "equations": count}
        | {f"{how} s": times[way, how].median() for how in ("make_jaxpr", "lower")}
        | ratio(times[way, "make_jaxpr"], times[PLAIN, "make_jaxpr"], "make_jaxpr ratio")
        for way in WAYS
    ]
    note = (
        "Time to trace a scan whose body has this many equations: jax.make_jaxpr(f), and "
        f"jax.jit(f).lower, both without XLA; medians of {ROUNDS} rounds, each of a new function."
    )
    yield Table("tracing", note, rows)


def spectrum_tables() -> Iterator[Table]:
    """All exponents of a wide network, and the first ones over a long sequence."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read by the processes that are started below
    rows = []
    for width, k, steps, every in ((1000, None, 2000, 2), (128, 8, 100_000, 1)):
        shape = {"width": width, "exponents": k or width, "steps": steps, "qr_every": every}
        many = fresh(spectrum_spread, width, 20_000) if k else {}
        rows.append(shape | fresh(spectrum_run, width, k, steps, every) | many)
    note = (
        "h' = tanh(W h), W_ij ~ N(0, 4/n), float32, each in a process of its own with "
        "OPENBLAS_NUM_THREADS=1: the threads of several small factorizations wait for each other. "
        "s: the second call. largest: of one matrix, and stderr its error along the orbit, without "
        "the spread of matrices: how far they lie apart shows in the last columns, the mean and "
        "the standard deviation of the largest exponent over several matrices, 20000 steps each. "
        "theory, the mean over matrices: mean field with its finite-width bias."
    )
    yield Table("spectrum", note, rows)


def spectrum_network(width: int, seed: int) -> tuple[jax.Array, jax.Array]:
    """A chaotic network's W and the state it starts from."""
    draw = np.random.default_rng(seed).standard_normal
    W = jnp.asarray(2 * draw((width, width)) / width**0.5, jnp.float32)
    return W, jnp.asarray(draw(width), jnp.float32)


def spectrum_spread(width: int, steps: int, matrices: int = 32) -> dict[str, Any]:
    """Mean and standard deviation of the largest exponent over matrices."""

    @jax.jit
    def largest(W, h):
        step = lambda h: jnp.tanh(W @ h)  # noqa: E731
        return gl.spectrum.lyapunov(step, h, steps=steps, k=1, burn_in=100).exponents[0]

    rates = [float(largest(*spectrum_network(width, seed))) for seed in range(matrices)]
    return {"matrices": matrices, "their mean": np.mean(rates), "spread": np.std(rates, ddof=1)}


def spectrum_run(width: int, k: int | None, steps: int, every: int) -> dict[str, Any]:
    """Time, and the largest exponent beside theory's."""
    W, h = spectrum_network(width, 0)

    def exponents(W, h):
        step = lambda h: jnp.tanh(W @ h)  # noqa: E731
        return gl.spectrum.lyapunov(step, h, steps=steps, k=k, burn_in=100, qr_every=every)

    run, first = compiled(exponents, W, h)
    jax.block_until_ready(run(W, h)) if k else None
    start = time.perf_counter()
    spectrum = jax.block_until_ready(run(W, h))
    taken = time.perf_counter() - start
    theory = gl.meanfield.elman("tanh", 2.0)
    expected = theory.rate + theory.finite_width_bias(width)
    largest = {"largest": float(spectrum.exponents[0]), "stderr": float(spectrum.stderr[0])}
    return {"compile s": first, "s": taken} | largest | {"theory": expected}


def training_tables() -> Iterator[Table]:
    """The adding problem with Adam, batches drawn as they are needed."""
    peer: Any = None
    try:
        import bench_torch as peer
    except ImportError:
        print("PyTorch left out: pip install torch==2.13.0", flush=True)
    task = gl.tasks.make("adding", length=TRAINED)
    optimizer = optax.adam(1e-3)
    sample = gl.tasks.batch_sampler(task, BATCH)
    rows = []
    for name in CELLS:
        net = gl.tasks.network(gl.cells.make(name, inputs=2, hidden=WIDTH), 1)
        loss = gl.tasks.batch_loss(net, task)
        state = gl.training.start(net.init(jax.random.key(0)), optimizer, jax.random.key(1))
        calls = {}
        for way, every in (("plain", 0), ("traced", UPDATES)):
            run, _ = compiled(
                functools.partial(
                    gl.training.advance,
                    loss,
                    sample,
                    optimizer,
                    steps=UPDATES,
                    has_aux=True,
                    trace_every=every,
                ),
                state,
            )
            calls[way] = functools.partial(run, state)
        if peer is not None:
            calls["PyTorch"] = peer.training(name, TRAINED, BATCH, WIDTH, UPDATES, CORES)
        times = in_turn(calls)
        row = {"cell": name}
        row |= {f"{way} updates/s": 1e3 * UPDATES / times[way].median() for way in calls}
        if peer is not None:
            row |= ratio(times["PyTorch"], times["plain"], "times faster")
        rows.append(row | {"traced / plain": (times["traced"] / times["plain"]).median()})
    note = (
        f"Adam on the adding problem, batch {BATCH}, width {WIDTH}, T = {TRAINED}, float32, "
        f"{CORES} threads, {UPDATES} updates a call, one batch drawn for each. PyTorch: the "
        "whole-sequence module with torch.optim.Adam. traced: gradlab.trace in place of every "
        f"{UPDATES}th gradient. Medians of {ROUNDS} rounds in turn."
    )
    yield Table("training", note, rows)


def compilations(call: Callable[..., Any], *args: Any) -> int:
    """How many programs XLA compiles during a call."""
    names = []

    def listen(name: str, seconds: float, **_: Any) -> None:
        names.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        jax.block_until_ready(call(*args))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    return names.count("/jax/core/compile/backend_compile_duration")


# Printing.


def machine() -> str:
    """The processor and the versions."""
    info = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*: (.+)", info.read_text()) if info.exists() else []
    parts = [models[0] if models else platform.processor(), f"{CORES} of {os.cpu_count()} cores"]
    parts += [f"JAX on {jax.devices()[0].device_kind}", f"Python {platform.python_version()}"]
    for package in ("jax", "jaxlib", "torch", "flax", "equinox"):
        try:
            parts.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            parts.append(f"no {package}")
    return ", ".join(parts)


def markdown(frame: pd.DataFrame) -> str:
    """A table with columns in line."""

    def text(value: Any) -> str:
        if pd.isna(value):
            return ""
        if not isinstance(value, float):
            return str(value)
        return f"{value:.0f}" if 1e3 <= abs(value) < 1e9 else f"{value:.4g}"

    lines = [list(frame.columns), *([text(v) for v in row] for row in frame.to_numpy(object))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    padded = ([v.ljust(n) for v, n in zip(line, widths, strict=True)] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def write(table: Table, out: Path) -> None:
    """Print a table, and write it as NAME.csv and NAME.md."""
    frame = pd.DataFrame(table.rows)
    page = f"# {table.name}\n\n{table.note}\n\n{markdown(frame)}\n\n{machine()}\n"
    print(page, flush=True)
    frame.to_csv(out / f"{table.name}.csv", index=False)
    (out / f"{table.name}.md").write_text(page)


def main() -> None:
    """Print the tables asked for and write each as NAME.csv and NAME.md."""
    tables = {
        "cost": cost_tables,
        "parallel": parallel_tables,
        "torch": torch_tables,
        "long": long_tables,
        "compile": compile_tables,
        "spectrum": spectrum_tables,
        "training": training_tables,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", metavar="|".join(tables), help="default: all")
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    args = parser.parse_args()
    for name in args.tables:
        if name not in tables:
            parser.error(f"{name} is none of {', '.join(tables)}")
    if hasattr(os, "sched_setaffinity"):  # the same cores for JAX as for PyTorch's threads
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    args.out.mkdir(parents=True, exist_ok=True)
    print(f"{machine()}\nload before: {os.getloadavg()[0]:.2f}\n", flush=True)
    for name in args.tables or tables:
        for table in tables[name]():
            write(table, args.out)


if __name__ == "__main__":
    main()
