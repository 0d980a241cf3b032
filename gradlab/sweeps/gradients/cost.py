"""What runs cost that trace fresh networks, and how many go at once."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradlab import tracing
from gradlab.grid import Cost, Run
from gradlab.sweeps import cost
from gradlab.sweeps.cost import Call, bytes_of, disk_bytes
from gradlab.sweeps.gradients import curves
from gradlab.sweeps.gradients.curves import Shape

# Arithmetic of a chunk's runs, some seconds of it, and the most runs whatever little they take.
WORK, MOST = 2e10, 512
# On a core, runs go faster together until their weights leave its cache, and until a step has so
# many sequences that its overhead is small: measured at widths of 32 to 256.
CORE_CACHE, SEQUENCES = 2**21, 16
_SEED = jax.ShapeDtypeStruct((), jnp.uint32)
# A width so large that the powers of it in a count of operations can be read off like digits.
_BASE = 2**16


def flops(run: Run) -> int:
    """The arithmetic of one run: that of its traced program, without tracing it.

    With F the products of a step that need its input or its state, and B those of the adjoint, a
    sequence of T steps takes T (F + B), or T (2 F + B) where each step draws its own weights:
    segments are run again. The last product of the probe, 2 H, and the drawing are left out.

    >>> from gradlab.sweeps.gradients import Run
    >>> run = Run("elman", "tanh", "normal", 1.0, "tied", None, "gaussian", 1.0, 0.0,
    ...           length=10, hidden=8, inputs=2, batch=1, seed=0)
    >>> flops(run) == 10 * (2 * 8 * 2 + 2 * 8 * 8 + 2 * 8 * 8)
    True
    """
    once, forward, backward = step_of(curves.shape_of(run))
    if run.weights == "tied":
        return once + run.batch * run.length * (forward + backward)
    again = 2 if run.length > curves.SEGMENT else 1
    return run.length * (again * once + run.batch * (again * forward + backward))


class Step(NamedTuple):
    """Operations in the matrix products of one step of a cell.

    `once` are those that need the parameters alone, `forward` those of the step, `backward` those
    that carry the adjoint of the new state to the old one.
    """

    once: int
    forward: int
    backward: int


@functools.cache
def step_of(shape: Shape) -> Step:
    """The arithmetic at a width: polynomials in it, with coefficients from one abstract trace."""
    counts = []
    for value in _trace_step(shape._replace(hidden=_BASE)):
        coefficients = []
        while value:
            value, coefficient = divmod(value, _BASE)
            coefficients.append(coefficient)
        if any(coefficient > _BASE // 4 for coefficient in coefficients):
            # Ambiguous: it may be a negative coefficient, which borrows from the next power.
            return _trace_step(shape)
        counts.append(sum(c * shape.hidden**i for i, c in enumerate(coefficients)))
    return Step(*counts)


@functools.cache
def _trace_step(shape: Shape) -> Step:
    # Only shapes matter, not the numbers that are drawn: zeros trace fastest.
    draws = dict.fromkeys(shape.draws, jax.nn.initializers.zeros)
    cell = curves.cell_of(
        shape, **(draws | ({"forget_bias": 0.0} if "forget_bias" in draws else {}))
    )

    def both(params: Any, state: Any, x: jax.Array) -> Any:
        new, pullback = jax.vjp(lambda state: cell.step(params, state, x), state)
        return new, pullback(jax.tree.map(_cotangent, new))

    key = jax.eval_shape(jax.random.key, 0)
    params, state = jax.eval_shape(
        lambda key: (cell.init(key, jnp.float32), cell.start(jnp.float32)), key
    )
    step_params = jax.eval_shape(cell.prepare, params)
    x = jax.ShapeDtypeStruct((cell.inputs,), jnp.float32)
    forward = tracing.flops(cell.step, step_params, state, x)
    backward = tracing.flops(both, step_params, state, x) - forward
    return Step(tracing.flops(cell.prepare, params), forward, backward)


def _cotangent(x: Any) -> Any:
    floats = jnp.issubdtype(x.dtype, jnp.inexact)
    return x if floats else np.zeros(x.shape, jax.dtypes.float0)


def calls(run: Run, size: int) -> list[Call]:
    """The functions that `size` runs like this one, on every device, call one after the other."""
    shape, init, batch = curves.shape_of(run), curves.init_of(run), run.batch
    count = curves.runs_per_call(run, size)
    seeds = jax.ShapeDtypeStruct((count,), jnp.uint32)
    scalars = dict.fromkeys(curves.SCALARS, jax.ShapeDtypeStruct((count,), jnp.float32))
    draw, inputs = curves.draw_of(init, shape), curves.inputs_of(run)
    params = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((count, *x.shape), x.dtype), params_of(run)
    )
    # Inputs are drawn for one seed after the other.
    input_seeds = jax.ShapeDtypeStruct((1,), jnp.uint32)
    xs = jax.eval_shape(inputs, input_seeds)
    xs = jax.ShapeDtypeStruct((count, *xs.shape[1:]), xs.dtype)
    program = curves.tied_program(shape, batch, curves.init_for(shape, init))
    last = Call(program, (params, xs, seeds, scalars))
    if run.weights == "untied":
        program = curves.untied_program(init, shape, batch)
        last = Call(program, (seeds, scalars, xs), bytes_of(params))
    return [Call(draw, (seeds, scalars)), Call(inputs, (input_seeds,), bytes_of(params)), last]


def work(run: Run) -> tuple[Any, float]:
    """What the arithmetic of a run is about proportional to, and the runs that this is true of."""
    width = float(run.hidden) * (run.hidden + run.inputs)
    return (run.cell, run.weights, run.activation), run.batch * run.length * width


def min_bytes(run: Run) -> int:
    """A lower bound of the bytes that a run needs: those of its parameters and inputs."""
    with curves.pin_settings():
        xs = 4 * run.batch * run.length * run.inputs
        # Estimate huge runs: even the abstract draw of some parameters builds NumPy arrays.
        if xs > 2**48 or run.hidden > 2**24:
            return xs + 4 * run.hidden * max(run.hidden, run.inputs)
        return xs + bytes_of(params_of(run))


def params_of(run: Run) -> Any:
    """The parameters of one run, without numbers."""
    scalars = dict.fromkeys(curves.SCALARS, jax.ShapeDtypeStruct((), jnp.float32))
    draw = functools.partial(curves.draw, curves.init_of(run), curves.shape_of(run))
    return jax.eval_shape(draw, _SEED, scalars)


def peak(run: Run, size: int) -> int:
    """Bytes that `size` runs at once on every device need, as their compiled programs say.

    At the smallest size, 1, runs of one sequence go by two all the same: see `curves.minimum_of`.
    """
    with curves.pin_settings():
        return cost.peak(calls(run, size))


def most(run: Run, number: int) -> int:
    """How many of `number` runs like this one are of use at once on every device.

    A GPU takes as many as its memory holds.
    """
    share = -(-number // jax.local_device_count())
    if curves.is_alone(run):
        return 1
    if jax.default_backend() != "cpu":
        return share
    with curves.pin_settings():
        weights = bytes_of(params_of(run))
    quick = max(1, min(CORE_CACHE // max(weights, 1), SEQUENCES // run.batch))
    # Of seven or ten products at once each takes a fifth longer than of four or eight.
    quick = 2 ** (quick.bit_length() - 1)
    return min(share, max(curves.minimum_of(run), quick))


def per_chunk(run: Run, size: int) -> int:
    """How many runs make one chunk: whole calls, seconds of work, for a file of its own."""
    count = curves.runs_per_call(run, size)
    return count * max(1, min(MOST // count, round(WORK / (count * flops(run)))))


def program_key(run: Run) -> tuple[Any, ...]:
    """Runs that agree on this share the program that traces them, whatever is drawn for them."""
    initializer = (run.init,) if run.weights == "untied" else ()
    return (run.weights, *curves.shape_of(run), run.length, run.batch, *initializer)


def family(run: Run) -> tuple[str, str]:
    """Names for runs of about one speed, and for runs that take the same time."""
    speed = f"{run.cell} {run.batch}"
    return speed, f"{speed} {run.hidden} {run.length}"


COST = Cost(
    flops=flops,
    work=work,
    needed=min_bytes,
    peak=peak,
    written=lambda run, count: disk_bytes(run.length, count),
    most=most,
    per_chunk=per_chunk,
    compiled=program_key,
    family=family,
)
