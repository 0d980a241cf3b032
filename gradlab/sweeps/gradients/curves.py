"""The compiled programs that trace runs: their curves of log-norms, and what was drawn."""

from __future__ import annotations

import contextlib
import functools
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradlab import cells, initializers, tasks, tracing
from gradlab.grid import Run
from gradlab.sweeps.gradients.recent import Recent
from gradlab.sweeps.options import options_of, to_plain
from gradlab.tasks import probe

PRECISION = "float32"
# Cells whose sums XLA orders by how many runs are mapped at once.
ROUNDED_BY_COUNT = "layer_norm"
# Cores are shared out by runs; threads inside a product would decide how it is rounded.
ONE_THREAD = {"xla_cpu_multi_thread_eigen": False}
# To compile at LLVM's first level takes two thirds of the time of its third. A draw runs for
# milliseconds anyway, and a trace gets the same bits and runs as fast.
QUICK = {"xla_backend_optimization_level": 1}

# Steps whose parameters are kept at once where each step has its own.
SEGMENT = 16
# Arguments of the draw.
SCALARS = ("gain", "forget_bias", "input_scale", "bias_scale")

# The options of a cell by which a run draws its parameters, and the axes that say whether it does.
DRAWS = {
    "recurrent": "init",
    "input": "input_scale",
    "bias": "bias_scale",
    "forget_bias": "forget_bias",
}

# Options of a builder, in a form that can be a key of a cache.
Options = tuple[tuple[str, Any], ...]


class Shape(NamedTuple):
    """What of a run decides a cell's program.

    `draws` are the options by which the run draws the cell's parameters; `code` tells two cells of
    one name apart.
    """

    cell: str
    activation: str | None
    hidden: int
    inputs: int
    draws: tuple[str, ...]
    options: Options
    code: str


class Init(NamedTuple):
    """An initializer's name, its options but for the gain, and what tells its code apart."""

    name: str | None
    options: Options
    code: str


class Curves(NamedTuple):
    """One row per run: ln|dL/dh_t| and whether h_t is finite, for t = 1..T."""

    log_norm: np.ndarray
    finite: np.ndarray


class Weights(NamedTuple):
    """One row per run, of what it draws.

    `recurrent` are the matrices that multiply the state, (runs, G, H, H), `log_retention` the
    logarithm of what each unit keeps in a step, (runs, H), None where the cell has none. Where
    weights are untied, they are of one draw.
    """

    recurrent: np.ndarray
    log_retention: np.ndarray | None


def curves(runs: Sequence[Run], *, size: int = 1) -> Curves:
    """Trace the probe loss of runs that share a program, `size` at once on every device.

    The loss of a run is L = sum_b v.h_T^b over the `batch` input sequences that go through its
    weights, and its log_norm at step t is the mean over them of ln|dL/dh_t^b|: -inf where one is
    exactly zero, NaN where one is not finite. `finite` asks for all of them.

    Weights are drawn from the seed, the cell, the initializer and the widths, so runs that differ
    in gain, length or input share the same draw; the first input sequence from the seed and its
    source, each further one from its number as well; v from the seed and the width.

    What is guaranteed: a run's numbers follow from its coordinates alone, bit for bit, whatever
    the other runs, its place among them, their number, the number of devices and of cores, JAX's
    default key type and whether 64-bit numbers are on. One ulp would be enough to part the curves
    of a chaotic network. So runs of one sequence are always mapped at least two at once on each
    device, since XLA makes another program of one alone, whose sums are rounded differently; cells
    that normalize a layer are never mapped; and one thread adds up each product. Where not: how
    many runs a device takes at once (of several sequences above all whether it is one) can move a
    norm's logarithm by an ulp of float32 or some, though no state; another processor, another kind
    of device or another version of JAX rounds differently; on a GPU the guarantee is not tested.
    """
    log_norm, finite = _in_calls(lambda batch: program_of(batch)(), runs, size)
    mean = log_norm.astype(np.float64)
    if runs[0].batch > 1:
        with np.errstate(invalid="ignore"):
            mean = mean.mean(axis=-1)
        mean[np.isposinf(mean)] = np.nan
    return Curves(mean, finite)


def weights(runs: Sequence[Run], *, size: int = 1) -> Weights:
    """What runs that share a program draw; `size` as in `curves`, whose programs this shares."""

    recurrent, retention = _in_calls(lambda batch: draws(batch)[1], runs, size)
    return Weights(recurrent, None if retention is None else retention.astype(np.float64))


def _in_calls(call: Callable[[Sequence[Run]], Any], runs: Sequence[Run], size: int) -> Any:
    """Two arrays with a row per run, or None, from calls of as many runs as a program takes."""
    count = runs_per_call(runs[0], size)
    all_runs = [*runs, *[runs[-1]] * (-len(runs) % count)]
    with pin_settings():
        # Dispatch all calls before waiting for the first.
        parts = [call(all_runs[place : place + count]) for place in range(0, len(all_runs), count)]
        return [
            None if some[0] is None else np.concatenate([np.asarray(x) for x in some])[: len(runs)]
            for some in zip(*parts, strict=True)
        ]


def minimum_of(run: Run) -> int:
    """The fewest runs of the kind that a device may take at once: see `curves`."""
    return 1 if run.batch > 1 or is_alone(run) else 2


def is_alone(run: Run) -> bool:
    """Whether a device must take one run of the kind after the other."""
    return run.cell.startswith(ROUNDED_BY_COUNT)


def runs_per_call(run: Run, size: int) -> int:
    """How many runs like this one a call of the program takes, `size` at once on every device.

    >>> from gradlab.sweeps.gradients import Run
    >>> run = Run("elman", "tanh", "normal", 1.0, "tied", None, "gaussian", 1.0, 0.0, length=9,
    ...           hidden=8, inputs=2, batch=1, seed=0)
    >>> runs_per_call(run, 1) == 2 * jax.local_device_count()
    True
    """
    return jax.local_device_count() * (1 if is_alone(run) else max(minimum_of(run), size))


@contextlib.contextmanager
def pin_settings() -> Iterator[None]:
    """Set the options of JAX that decide numbers as a sweep needs them, and restore them after."""
    with (
        jax.enable_x64(False),
        jax.threefry_partitionable(True),
        # By default recent GPUs multiply float32 matrices in TF32.
        jax.default_matmul_precision("highest"),
    ):
        yield


def program_of(runs: Sequence[Run]) -> Callable[[], Any]:
    """The program for one call of these runs: a function of their curves, dispatched async."""
    first = runs[0]
    shape, init = shape_of(first), init_of(first)
    seeds, scalars = arguments(runs)
    # NumPy arrays go to all devices without a program.
    xs = inputs_for(runs)
    if first.weights == "tied":
        program = tied_program(shape, first.batch, init_for(shape, init))
        return functools.partial(program, draws(runs)[0], xs, seeds, scalars)
    return functools.partial(untied_program(init, shape, first.batch), seeds, scalars, xs)


# Runs of a grid that differ in length or input have one draw, and those of other gains or cells the
# same inputs. To draw takes up to half as long as to trace: QR factorizations the longest.
_DRAWS, _INPUTS = Recent(most_bytes=2**26), Recent(most_bytes=2**26)


def draws(runs: Sequence[Run]) -> Any:
    """What `draw_of` gives for these runs, in NumPy arrays."""
    keys = [draw_key(run) for run in runs]
    rows = [_DRAWS.get(key) for key in keys]
    if any(row is None for row in rows):
        # All of the call, so that one program serves every call.
        every = draw_of(init_of(runs[0]), shape_of(runs[0]))(*arguments(runs))
        every = jax.tree.map(np.asarray, every)
        rows = [jax.tree.map(lambda x, i=i: x[i], every) for i in range(len(runs))]
        for key, row in zip(keys, rows, strict=True):
            _DRAWS.put(key, row)
    return jax.tree.map(lambda *parts: np.stack(parts), *rows)


def draw_key(run: Run) -> Run:
    """A run without what its parameters do not depend on."""
    return run._replace(weights="", length=0, input="", batch=1)


def inputs_for(runs: Sequence[Run]) -> np.ndarray:
    """The inputs of runs that share a program, which are as many as they have seeds."""
    first = runs[0]
    draw, options = inputs_of(first), tuple(options_of(first, "input").items())
    shape = first.input, options, first.length, first.inputs, first.batch, first.code
    rows = {}
    for seed in dict.fromkeys(run.seed for run in runs):
        rows[seed] = _INPUTS.get((*shape, seed))
        if rows[seed] is None:
            rows[seed] = np.asarray(draw(np.array([seed], np.uint32)))[0]
            _INPUTS.put((*shape, seed), rows[seed])
    return np.stack([rows[run.seed] for run in runs])


def arguments(runs: Sequence[Run]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The seeds and `SCALARS` of runs."""
    seeds = np.array([run.seed for run in runs], np.uint32)
    return seeds, {
        name: np.array([getattr(run, name) or 0.0 for run in runs], np.float32) for name in SCALARS
    }


def shape_of(run: Run) -> Shape:
    """What of a run decides its cell's program."""
    draws = tuple(name for name, axis in DRAWS.items() if getattr(run, axis) is not None)
    options = tuple(options_of(run, "cell").items())
    return Shape(run.cell, run.activation, run.hidden, run.inputs, draws, options, run.code)


def init_of(run: Run) -> Init:
    """What of a run decides how its recurrent weights are drawn."""
    options = critical_options(run) if run.init == "critical" else options_of(run, "init")
    return Init(run.init, tuple(options.items()), run.code)


def critical_options(run: Run) -> dict[str, Any]:
    """What the initializer `critical` gets: the run's network where the spec names none."""
    network = {
        "activation": run.activation or "tanh",
        "bias_std": run.bias_scale or 0.0,
        "input_variance": (run.input_scale or 0.0) ** 2,
    }
    return network | options_of(run, "init")


def inputs_of(run: Run) -> Any:
    """The compiled draw of a run's input sequences: seeds -> xs, (seeds, ...)."""
    options = tuple(options_of(run, "input").items())
    return _inputs(run.input, options, run.length, run.inputs, run.batch, run.code)


def cell_of(shape: Shape, **options: Any) -> Any:
    """The cell of a shape; `options` are what it draws its parameters by."""
    if shape.activation is not None:
        options["activation"] = shape.activation
    options |= to_plain(shape.options)
    return cells.make(shape.cell, inputs=shape.inputs, hidden=shape.hidden, **options)


def init_for(shape: Shape, init: Init) -> Init | None:
    """The initializer that a cell's program has to know: that of a cell of the user's.

    The step of gradlab's own cells is a function of their parameters. A user's may hold what its
    builder got: an initializer, a forget bias.
    """
    return init if cells.REGISTRY.is_foreign(shape.cell) else None


def cell_for(shape: Shape, init: Init | None, scalars: dict[str, jax.Array]) -> Any:
    """The cell of a program; see `init_for`."""
    return cell_of(shape) if init is None else _cell_with_init(init, shape, scalars)


def _cell_with_init(init: Init, shape: Shape, scalars: dict[str, jax.Array]) -> Any:
    """The cell whose `init` draws its parameters as the run says."""
    draws: dict[str, Any] = {
        "input": initializers.normal(scalars["input_scale"]),
        "bias": lambda key, shape, dtype: (
            scalars["bias_scale"] * jax.random.normal(key, shape, dtype)
        ),
        "forget_bias": scalars["forget_bias"],
    }
    if init.name is not None:
        options = to_plain(init.options)
        if initializers.REGISTRY.takes(init.name, "gain"):
            options["gain"] = scalars["gain"]
        draws["recurrent"] = initializers.make(init.name, **options)
    return cell_of(shape, **{name: draws[name] for name in shape.draws})


def key_for(seed: jax.Array, *stream: Any) -> jax.Array:
    """A key for one purpose: the seed, folded with a name for what is drawn."""
    name = zlib.crc32("/".join(map(str, stream)).encode())
    return jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), name)


@functools.cache
def draw_of(init: Init, shape: Shape) -> Any:
    """The compiled draw: (seeds, scalars) -> (params, (matrices, log_retention)).

    Both in one program, since to compile another takes longer than to run them a thousand times. On
    one device: QR factorizations of several at once share XLA's threads, and may wait for each
    other without end.
    """

    def draw_all(seed: jax.Array, scalars: dict[str, jax.Array]) -> Any:
        cell = cell_for(shape, init_for(shape, init), scalars)
        params = draw(init, shape, seed, scalars)
        retention = None if cell.log_retention is None else cell.log_retention(params)
        return params, (cell.matrices(params), retention)

    return jax.jit(jax.vmap(draw_all), compiler_options=QUICK)


def draw(init: Init, shape: Shape, seed: jax.Array, scalars: dict[str, jax.Array]) -> Any:
    """The parameters of one run."""
    key = key_for(seed, "params", shape.cell, init.name, shape.hidden, shape.inputs)
    return _cell_with_init(init, shape, scalars).init(key, jnp.float32)


@functools.cache
def _inputs(
    source: str, options: Options, length: int, features: int, batch: int, code: str
) -> Any:
    sample = tasks.make_input(source, **to_plain(options))

    def draw(seed: jax.Array) -> jax.Array:
        key = key_for(seed, "input", source)
        if batch == 1:
            return sample(key, length, features, jnp.float32)
        # The first sequence is that of a run with no other.
        others = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(1, batch))
        keys = jnp.concatenate([key[None], others])
        return jax.vmap(lambda each: sample(each, length, features, jnp.float32), out_axes=1)(keys)

    return jax.jit(jax.vmap(draw), compiler_options=QUICK)


@functools.cache
def tied_program(shape: Shape, batch: int, init: Init | None = None) -> Any:
    """The compiled trace with one draw of the weights: (params, xs, seeds, scalars) -> curves."""

    def one(
        params: Any, xs: jax.Array, seed: jax.Array, scalars: dict[str, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        cell = cell_for(shape, init, scalars)
        loss = probe.checked_loss(cell, _direction(seed, cell.hidden), batched=batch > 1)
        options = tracing.Options(axis=_axis(batch), same_bits=True)
        out = tracing.trace_with(options, loss, argnums=(), has_aux=True)(params, xs)
        return out.scans[0].log_norm, out.aux

    return _spread(one)


@functools.cache
def untied_program(init: Init, shape: Shape, batch: int) -> Any:
    """The compiled trace with a draw for each step: (seeds, scalars, xs) -> curves."""

    def one(
        seed: jax.Array, scalars: dict[str, jax.Array], xs: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        cell = _cell_with_init(init, shape, scalars)
        loss = probe.untied_loss(cell, _direction(seed, cell.hidden), batched=batch > 1)
        key = key_for(seed, "untied", cell.name, init.name, cell.hidden, cell.inputs)
        # Segments redraw each step's parameters, so they are no residuals of the whole run.
        options = tracing.Options(axis=_axis(batch), segment=SEGMENT, same_bits=True)
        out = tracing.trace_with(options, loss, argnums=(), has_aux=True)(key, xs)
        return out.scans[0].log_norm, out.aux

    return _spread(one)


def _axis(batch: int) -> int | None:
    return 0 if batch > 1 else None


def _spread(function: Any) -> Any:
    """`function` over a leading axis of runs, an equal share of them on each device.

    A share of one is not mapped: XLA multiplies a batch of one matrix more slowly than a matrix.
    """

    def local(*args: Any) -> Any:
        if jax.tree.leaves(args)[0].shape[0] > 1:
            return jax.vmap(function)(*args)
        result = function(*jax.tree.map(lambda x: x[0], args))
        return jax.tree.map(lambda x: x[None], result)

    devices = jax.local_devices()
    runs = jax.sharding.PartitionSpec("runs")
    mesh = jax.sharding.Mesh(np.array(devices), ("runs",))
    spread = jax.shard_map(local, mesh=mesh, in_specs=runs, out_specs=runs, check_vma=False)
    options: dict[str, Any] = {}
    if devices[0].platform == "cpu":
        # Respect a user's jax_disable_most_optimizations.
        options = ONE_THREAD | ({} if _is_unoptimized() else QUICK)
    return jax.jit(spread, compiler_options=options)


def _is_unoptimized() -> bool:
    # JAX has no attribute for this one.
    return bool(jax.config.values.get("jax_disable_most_optimizations"))


def _direction(seed: jax.Array, hidden: int) -> jax.Array:
    return probe.direction(key_for(seed, "direction", hidden), hidden, jnp.float32)
