"""The measurement of networks as they are initialized: one traced gradient per run.

A run draws a cell's weights and an input sequence, and traces the probe loss, which reads the last
state along a random direction (`curves`). Its row (`rows`) says how fast the adjoint vanishes or
explodes, beside what `theory` predicts. `cost` says what that takes. The axes and the columns are
declared in `gradlab.frames.gradients`.
"""

from __future__ import annotations

import functools

from gradlab.frames import GRADIENTS, Axis
from gradlab.grid import Measurement
from gradlab.grid import Run as AnyRun
from gradlab.sweeps import options
from gradlab.sweeps.gradients import cost, rows


def label(run: AnyRun) -> str:
    """What a progress bar says of the runs that share this one's program."""
    return f"{run.cell} {run.init or ''} {run.weights} {run.input} T={run.length}"


def measurement(axes: tuple[Axis, ...] = (), names: frozenset[str] = frozenset()) -> Measurement:
    """The measurement, with more axes than its own, and the axes that a spec names.

    See `options.more_axes` and `options.parts`.
    """
    schema = GRADIENTS.extend(axes)
    return Measurement(
        schema=schema,
        measure=rows.measure,
        source=(measurement, (axes, names)),
        parts=functools.partial(options.parts, schema, names),
        choices=options.CHOICES,
        label=label,
        idle=options.idle,
        # The critical gain is found before a program is compiled, from these two.
        uses={("init", "critical"): ("input_scale", "bias_scale")},
        cost=cost.COST,
        code=functools.partial(options.code_of, schema),
    )


MEASUREMENT = measurement()
Run = MEASUREMENT.run
