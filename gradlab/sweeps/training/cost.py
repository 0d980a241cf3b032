"""What runs cost that are trained."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from gradlab.grid import Cost, Run
from gradlab.sweeps.cost import Call, bytes_of, total, written
from gradlab.sweeps.gradients.curves import pinned
from gradlab.sweeps.training.programs import compiled, kind_of, scalars_of
from gradlab.tracing import Cost as Total


def calls(run: Run, count: int) -> list[Call]:
    """The functions that `count` runs like this one, all on one device, call in their order."""
    programs = compiled(kind_of(run))
    seeds = jax.ShapeDtypeStruct((count,), jnp.uint32)
    scalars = dict.fromkeys(scalars_of(run), jax.ShapeDtypeStruct((count,), jnp.float32))
    goes_on = jax.ShapeDtypeStruct((count,), jnp.bool_)
    states = jax.eval_shape(programs.start, seeds, scalars)
    times = run.updates // run.evaluate_every
    rest = bytes_of(states) - bytes_of(states.params)
    return [
        Call(programs.start, (seeds, scalars)),
        Call(programs.evaluate, (seeds, states.params, scalars), rest, times + 1),
        Call(programs.advance, (goes_on, states, scalars), 0, times),
    ]


@functools.cache
def total_of(run: Run, count: int) -> Total:
    """The arithmetic and the memory of so many runs, which are taken to need all their updates."""
    with pinned():
        return total(calls(run, count))


def _most(run: Run, wanted: int) -> int:
    # On a CPU they would be trained one after the other: each is stored as it ends.
    return 1 if jax.default_backend() == "cpu" else wanted


COST = Cost(
    flops=lambda run: total_of(kind_of(run), 1).flops,
    peak=lambda run, size: total_of(kind_of(run), size).bytes,
    written=lambda run, count: written(run.length, count),
    most=_most,
    per_chunk=lambda run, size: size,
    compiled=kind_of,
)
