"""What runs cost that are trained."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from gradlab.grid import Cost, Run
from gradlab.sweeps import cost
from gradlab.sweeps.cost import Call, bytes_of, written
from gradlab.sweeps.gradients.curves import pinned
from gradlab.sweeps.training.programs import compiled, kind_of, scalars_of


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
def flops(kind: Run) -> int:
    """The arithmetic of a run of a kind, which is taken to need all its updates."""
    with pinned():
        return cost.arithmetic(calls(kind, 1))


def peak(run: Run, count: int) -> int:
    """Bytes that so many runs need side by side, as their compiled programs say."""
    with pinned():
        return cost.peak(calls(run, count))


def _most(run: Run, wanted: int) -> int:
    # On a CPU they would be trained one after the other: each is stored as it ends.
    return 1 if jax.default_backend() == "cpu" else wanted


COST = Cost(
    flops=lambda run: flops(kind_of(run)),
    peak=peak,
    written=lambda run, count: written(run.length, count),
    most=_most,
    per_chunk=lambda run, size: size,
    compiled=kind_of,
)
