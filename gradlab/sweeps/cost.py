"""What a sweep costs before it is run: arithmetic, memory, and bytes to be written."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradlab import cells, frames
from gradlab.sweeps import measure, plan, training
from gradlab.tracing import Cost, cost, step_flops

# Bytes on the disk, as parquet with zstd, measured on sweeps of 2 to 128 runs of 20 to 2000 steps:
# a row of steps, in its chunk and in the frame; a run's columns, in its chunk and in the frames;
# the schema and the columns' facts, in each chunk and in the frames.
_ROW, _RUN, _CHUNK, _FRAMES = 12.4, 180, 22_700, 24_500
# The share of the device's memory that a chunk takes unless it is told otherwise.
SHARE = 4

_UNITS = {
    **{unit: 1000**i for i, unit in enumerate(("B", "kB", "MB", "GB", "TB"))},
    **{unit: 1024**i for i, unit in enumerate(("KiB", "MiB", "GiB", "TiB"), start=1)},
}


def flops(run: plan.Run) -> int:
    """The arithmetic of one run: that of its traced program, without tracing it.

    With F the products of a step that need its input or its state, and B those of the adjoint, a
    sequence of T steps takes T (F + B), or T (2 F + B) where each step draws its own weights:
    segments are run again. The last product of the probe, 2 H, and the drawing are left out.

    >>> run = plan.Run("elman", "tanh", "normal", 1.0, "tied", None, "gaussian", 1.0, 0.0,
    ...                length=10, hidden=8, inputs=2, batch=1, seed=0)
    >>> flops(run) == 10 * (2 * 8 * 2 + 2 * 8 * 8 + 2 * 8 * 8)
    True
    """
    once, forward, backward = _step(run.cell, run.activation, run.hidden, run.inputs)
    if run.weights == "tied":
        return once + run.batch * run.length * (forward + backward)
    again = 2 if run.length > measure.SEGMENT else 1
    return run.length * (again * once + run.batch * (again * forward + backward))


# A width so large that the powers of it in a count of operations can be read off like digits.
_BASE = 2**16


@functools.cache
def _step(cell: str, activation: str | None, hidden: int, inputs: int) -> list[int]:
    """`step_flops` at a width: polynomials in it, whose coefficients one trace of types tells."""
    found = []
    for value in _traced(cell, activation, _BASE, inputs):
        coefficients = []
        while value:
            value, coefficient = divmod(value, _BASE)
            coefficients.append(coefficient)
        if any(coefficient > _BASE // 4 for coefficient in coefficients):
            # Too large to be told from a borrow of the next power.
            return list(_traced(cell, activation, hidden, inputs))
        found.append(sum(c * hidden**i for i, c in enumerate(coefficients)))
    return found


@functools.cache
def _traced(*shape: Any) -> Any:
    # What is drawn does not matter, only its shape: zeros are traced the fastest.
    taken = {"recurrent", "input", "bias"}.intersection(cells.options(shape[0]))
    cell = measure._cell(*shape, **dict.fromkeys(taken, jax.nn.initializers.zeros))
    key = jax.eval_shape(jax.random.key, 0)
    params, state = jax.eval_shape(
        lambda key: (cell.init(key, jnp.float32), cell.start(jnp.float32)), key
    )
    x = jax.ShapeDtypeStruct((cell.inputs,), jnp.float32)
    return step_flops(
        lambda params, state, x: cell.step(cell.prepare(params), state, x), params, state, x
    )


class Call(NamedTuple):
    """A compiled function that a sweep calls: its abstract arguments, and what else is held."""

    function: Any
    args: tuple[Any, ...]
    held: int = 0
    times: int = 1


def calls(run: plan.Run | training.Run, size: int) -> list[Call]:
    """The functions that `size` runs like this one at once, on every device, need in their order.

    Runs that are trained are all on one device.
    """
    return _trained(run, size) if isinstance(run, training.Run) else _measured(run, size)


def _measured(run: plan.Run, size: int) -> list[Call]:
    shape, batch = measure._shape(run), run.batch
    init = measure._init(run)
    count = measure.together(run, size)
    seeds = jax.ShapeDtypeStruct((count,), jnp.uint32)
    names = ("gain", "forget_bias", "input_scale", "bias_scale")
    scalars = dict.fromkeys(names, jax.ShapeDtypeStruct((count,), jnp.float32))
    draw = measure._draw(init, shape)
    inputs = measure._inputs(run.input, run.length, run.inputs, batch)
    params, xs = jax.eval_shape(draw, seeds, scalars), jax.eval_shape(inputs, seeds)
    last = Call(measure._tied(shape, batch), (params, xs, seeds))
    if run.weights == "untied":
        last = Call(measure._untied(init, shape, batch), (seeds, scalars, xs), _bytes(params))
    return [Call(draw, (seeds, scalars)), Call(inputs, (seeds,), _bytes(params)), last]


def _trained(run: training.Run, count: int) -> list[Call]:
    programs = training._programs(run.program)
    seeds = jax.ShapeDtypeStruct((count,), jnp.uint32)
    scalars = dict.fromkeys(training._SCALARS, jax.ShapeDtypeStruct((count,), jnp.float32))
    goes_on = jax.ShapeDtypeStruct((count,), jnp.bool_)
    states = jax.eval_shape(programs.start, seeds, scalars)
    times = run.updates // run.evaluate_every
    rest = _bytes(states) - _bytes(states.params)
    return [
        Call(programs.start, (seeds, scalars)),
        Call(programs.evaluate, (seeds, states.params, scalars), rest, times + 1),
        Call(programs.advance, (goes_on, states, scalars), 0, times),
    ]


def chunk(run: plan.Run | training.Run, size: int) -> Cost:
    """What it costs to take `size` runs like this one at once, in either kind of sweep.

    The programs are traced as they will be run, which JAX remembers: the call that follows does
    not trace them again. A training is taken to need all its updates.

    Args:
        run: one of the runs; what is not in its `program` does not matter.
        size: how many of them are taken at once: gradients on every device, trainings on one.

    Returns:
        The arithmetic of all these runs and the peak of their memory.
    """
    arithmetic = peak = 0
    with measure.pinned():
        for call in calls(run, size):
            each = cost(call.function, *call.args)
            arithmetic += call.times * each.flops
            peak = max(peak, call.held + each.bytes)
    return Cost(arithmetic, peak)


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def fits(use: Callable[[int], int], wanted: int, budget: int) -> int:
    """The largest count of runs, from 1 to `wanted`, whose use stays within a budget.

    Args:
        use: the bytes that a count needs, such as `lambda n: peak(run, n)`; growing, and nearly
            affine, so that a few calls find the answer.
        wanted: the most runs that are of use.
        budget: bytes.

    Returns:
        A count that fits, or 1 where none does.

    >>> fits(lambda count: 100 + 7 * count, wanted=64, budget=300)
    28
    """
    if wanted <= 1 or use(wanted) <= budget:
        return max(1, wanted)
    low, high = 1, wanted
    least, most = use(low), use(high)
    while high - low > 1 and least < budget:
        # Where a line through both ends meets the budget; it ends on either side of the answer.
        guess = low + int((high - low) * (budget - least) / (most - least))
        guess = min(max(guess, low + 1), high - 1)
        size = use(guess)
        if size > budget:
            high, most = guess, size
        else:
            low, least = guess, size
            if size + (most - size) / (high - low) > budget:
                break
    return low


def written(length: int, count: int, chunks: int = 1) -> int:
    """Bytes that runs of T steps leave on the disk: their chunks and the frames made of them.

    Args:
        length: T; `frames.lags` says how many of its steps are kept.
        count: runs of this length.
        chunks: files that hold them.

    Returns:
        An estimate, within a factor of 1.5 of what a sweep of gradients writes as parquet.

    >>> written(1000, count=100, chunks=2)
    247860
    """
    rows = len(frames.lags(length))
    return int(_FRAMES + chunks * _CHUNK + count * (_RUN + _ROW * rows))


def parse_memory(text: str | int) -> int:
    """Bytes, from text such as "2GB": decimal units to TB, binary ones to TiB, or none for bytes.

    Raises:
        ValueError: for anything else.

    >>> parse_memory("2GB"), parse_memory("1.5 MiB"), parse_memory(4096)
    (2000000000, 1572864, 4096)
    """
    units = {unit.lower(): factor for unit, factor in _UNITS.items()} | {"": 1}
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(text), re.IGNORECASE)
    factor = units.get(found[2].lower()) if found else None
    size = int(float(found[1]) * factor) if found and factor else 0
    if size < 1:
        raise ValueError(
            f"memory must be a number above 0 and a unit of {', '.join(_UNITS)}, such as 2GB; "
            f"got {text!r}"
        )
    return size


def peak(run: plan.Run | training.Run, size: int) -> int:
    """The bytes of `chunk`, which are remembered for all runs whose numbers alone differ.

    At the smallest size, 1, runs of one sequence go by two all the same: see `measure.least`.
    """
    if isinstance(run, plan.Run):
        run = run._replace(**_ALIKE, init=run.init and "normal", gain=run.gain and 1.0)
    return _peak(run, size)


# What is drawn does not change the memory that runs take, but for what has no option for it.
_ALIKE = {"input": "gaussian", "input_scale": 1.0, "seed": 0}


@functools.cache
def _peak(run: plan.Run | training.Run, size: int) -> int:
    return chunk(run, size).bytes


def scaled(number: float) -> str:
    """A number in words, for a unit to follow.

    >>> scaled(2_048_000), scaled(12)
    ('2.05 M', '12 ')
    """
    for unit in ("", "k", "M", "G", "T", "P", "E"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} Z"


def available() -> int:
    """Bytes that the device has to give: a GPU's limit less what is in use, else the machine's.

    On a CPU it is what the system calls available, or what is left of the limit of the control
    group (of a container or a batch job) where that is less.
    """
    # Backends without statistics give None.
    stats = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    found = [_system(), *_groups()]
    return max(1, min(size for size in found if size is not None))


def budget() -> int:
    """The memory that a chunk may take unless it is told otherwise: a quarter of `available`."""
    return available() // SHARE


def _system() -> int:
    try:
        facts = Path("/proc/meminfo").read_text()
    except OSError:
        # Without /proc, what there is stands in for what is free.
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return next(
        int(line.split()[1]) * 1024 for line in facts.splitlines() if line.startswith("MemAvail")
    )


def _groups() -> list[int]:
    """What control groups, of either version, leave to this process."""
    left = []
    for limit, used in (("memory.max", "memory.current"), _FIRST_VERSION):
        for folder in ("/sys/fs/cgroup", "/sys/fs/cgroup/memory"):
            try:
                pair = [int(Path(folder, name).read_text()) for name in (limit, used)]
            except (OSError, ValueError):
                # There is no such file, or no limit: "max".
                continue
            left.append(pair[0] - pair[1])
    return left


_FIRST_VERSION = "memory.limit_in_bytes", "memory.usage_in_bytes"
