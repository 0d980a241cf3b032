"""The measurement of networks as they learn: one training per run.

A run trains a network of the cell on the task, one batch of fresh sequences per update, and ends
where the task is solved. Every `evaluate_every` updates it is evaluated on `evaluation` fresh
sequences (or on all that the task holds out), and traced (`programs`), and what its axis `record`
names is recorded (`recorders`). Its row (`rows`) says whether and when it solved the task, and how
gradients decayed before and after; `cost` says what that takes. The remedies are axes that are off
at their default, see `gradlab.remedies`. The axes and the columns are declared in
`gradlab.frames.training`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator

from gradlab import remedies
from gradlab.frames import TRAINING, Axis, Schema
from gradlab.grid import Axes, Measurement, Plan
from gradlab.grid import Run as AnyRun
from gradlab.sweeps import options
from gradlab.sweeps.training import cost, programs, rows

# Networks that are built before anything is run, in some milliseconds each.
MOST_BUILDS = 500


def _parts(schema: Schema, axis_names: frozenset[str], axes: Axes) -> list[Axes]:
    # A cell without a gate that keeps has no time constants to spread.
    off = {"chrono": (0.0,)}
    parts = options.parts(schema, axis_names, axes)
    return [part if part["cell"][0] in remedies.retaining() else part | off for part in parts]


def check(plan: Plan) -> None:
    """Build each kind of run once, so that what cannot be built is said before anything is run.

    Raises:
        ValueError: with the reason.
    """
    for axes in plan.grids:
        for updates, every in itertools.product(axes["updates"], axes["evaluate_every"]):
            if updates % every:
                raise ValueError(
                    f"updates must be a multiple of evaluate_every, {every}, got {updates}"
                )
    every = plan.programs().values()
    kinds = itertools.chain.from_iterable(_kinds(plan, grids) for grids in every)
    # The rows of what is not built here will say why they failed.
    records = set()
    for run in itertools.islice(kinds, MOST_BUILDS):
        programs.build(run, programs.task_of(run), programs.scalars_of(run))
        # This takes longer, and the same recorders refuse the same cells.
        key = (run.task, run.cell, run.record, *programs.strengths(run))
        if run.record and key not in records:
            records.add(key)
            cost.check_record(run)


def _kinds(plan: Plan, grids: list[Axes]) -> Iterator[AnyRun]:
    """A run of a program, and one for each number of what is switched on: T_max, a leak."""
    first = next(plan.runs(grids[0]))
    yield first
    for axes in grids:
        for name in programs.strengths(next(plan.runs(axes))):
            for value in axes[name]:
                if value != getattr(first, name):
                    yield first._replace(**{name: value})


def measurement(axes: tuple[Axis, ...] = (), names: frozenset[str] = frozenset()) -> Measurement:
    """The measurement, with more axes than its own, and the axes that a spec names.

    See `options.more_axes` and `options.parts`.
    """
    schema = TRAINING.extend(axes)
    return Measurement(
        schema=schema,
        measure=rows.measure,
        source=(measurement, (axes, names)),
        parts=functools.partial(_parts, schema, names),
        choices=options.CHOICES,
        check=check,
        label=rows.label,
        idle=options.idle,
        cost=cost.COST,
        code=functools.partial(options.code_of, schema),
    )


MEASUREMENT = measurement()
Run = MEASUREMENT.run
