"""The measurement of coordinates: how large states, their updates and adjoints are at a width.

A run draws a network and its batches as one of `training` does and makes some updates, one by one;
`gradlab.training.coordinate_check` measures on a batch that stays. Swept over `hidden`, it says
whether networks of all widths learn alike. The axes and the columns are declared in
`gradlab.frames.coordinates`.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradlab import frames, tasks
from gradlab._memory import device_name
from gradlab.frames import COORDINATES, TRAINING, Axis
from gradlab.grid import Cost, Measurement, Plan, Run, Tell
from gradlab.sweeps import cost, options, training
from gradlab.sweeps.gradients.curves import PRECISION, key_for, pin_settings
from gradlab.sweeps.training import cost as training_cost
from gradlab.sweeps.training import programs, recorders
from gradlab.sweeps.training.rows import place_of_steps
from gradlab.training import Coordinates, coordinate_check

# What a run of `training` has beside: it is evaluated after each update, on its batch.
_OWN = {axis.name for axis in COORDINATES.axes}
_REST = {axis.name: axis.default for axis in TRAINING.axes if axis.name not in _OWN}
_REST |= {"evaluate_every": 1}


def measurement(axes: tuple[Axis, ...] = (), names: frozenset[str] = frozenset()) -> Measurement:
    """The measurement, with more axes than its own, and the axes that a spec names.

    See `options.more_axes` and `options.parts`.

    >>> import tempfile, gradlab as gl
    >>> spec = {"measurement": "coordinates", "task": "adding", "length": 4, "cell": "elman",
    ...         "hidden": [4, 8], "optimizer": "sgd", "learning_rate": 0.1, "updates": 2}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     results = gl.sweep(spec, folder).results
    >>> results.runs["hidden"].tolist(), results.curves["training_step"].tolist()
    ([4, 8], [0, 1, 2, 0, 1, 2])
    >>> results.curves["log_update"].head(1).tolist()
    [-inf]
    """
    schema = COORDINATES.extend(axes)
    networks = training.measurement(axes, names)
    to_training = functools.partial(_training_run, networks.run)
    return dataclasses.replace(
        networks,
        schema=schema,
        measure=functools.partial(_measure, to_training),
        source=(measurement, (axes, names)),
        parts=functools.partial(options.parts, schema, names),
        check=functools.partial(_check, to_training),
        label=lambda run: f"{run.task} {run.cell} n={run.hidden}",
        cost=Cost(
            flops=lambda run: training_cost.flops(to_training(run)),
            work=lambda run: training_cost.work(to_training(run)),
            needed=lambda run: training_cost.min_bytes(to_training(run)),
            peak=lambda run, count: _peak(to_training(run)),
            written=lambda run, count: cost.disk_bytes(run.length, count * (run.updates + 1)),
            compiled=lambda run: programs.kind_of(to_training(run)),
        ),
        code=functools.partial(options.code_of, schema),
    )


def _training_run(own: Any, run: Run) -> Run:
    """The run of `training`, of its type `own`, that makes the same updates."""
    return own(**_REST | {"evaluation": run.batch}, **run._asdict())


def _check(to_training: Any, plan: Plan) -> None:
    """Build each kind of network once.

    Raises:
        ValueError: for what cannot be built or measured, and for a remedy.
    """
    kinds = set()
    for grids in itertools.islice(plan.programs().values(), training.MOST_BUILDS):
        run = to_training(next(plan.runs(grids[0])))
        if strengths := programs.strengths(run):
            raise ValueError(f"coordinates are measured without remedies, got {strengths}")
        programs.build(run, programs.task_of(run), programs.scalars_of(run))
        if (key := (run.task, run.cell)) not in kinds:
            kinds.add(key)
            with pin_settings():
                jax.eval_shape(_program(programs.kind_of(run)), *_abstract(run))


def _abstract(run: Run) -> tuple[Any, Any]:
    scalars = dict.fromkeys(programs.scalars_of(run), jax.ShapeDtypeStruct((), jnp.float32))
    return jax.ShapeDtypeStruct((), jnp.uint32), scalars


def _peak(run: Run) -> int:
    with pin_settings():
        return cost.peak([cost.Call(_program(programs.kind_of(run)), _abstract(run))])


@functools.cache
def _program(run: Run) -> Any:
    """The compiled check of the runs of a kind: (seed, scalars) -> `Coordinates`."""
    task = programs.task_of(run)

    def check(seed: jax.Array, scalars: dict[str, jax.Array]) -> Coordinates:
        cell, net, optimizer, _ = programs.build(run, task, scalars)

        def states(params: Any, batch: Any) -> jax.Array:
            return recorders.states(cell, params["cell"], batch[0]).swapaxes(0, 1)

        return coordinate_check(
            tasks.batch_loss(net, task),
            states,
            net.init(key_for(seed, f"params {run.cell} {run.hidden}"), jnp.float32),
            tasks.batch_sampler(task, run.batch, jnp.float32),
            optimizer,
            updates=run.updates,
            key=key_for(seed, f"batches {run.task}"),
            has_aux=True,
        )

    return jax.jit(check)


def _measure(to_training: Any, runs: Sequence[Run], size: int, tell: Tell) -> list[dict[str, Any]]:
    facts = {"precision": PRECISION, "device": device_name()}
    return [facts | _row(to_training(run)) for run in runs]


def _row(run: Run) -> dict[str, Any]:
    scalars = {name: jnp.float32(value) for name, value in programs.scalars_of(run).items()}
    with pin_settings():
        coordinates = _program(programs.kind_of(run))(jnp.uint32(run.seed), scalars)
    state, update, adjoint = (np.asarray(sizes, np.float64) for sizes in coordinates)
    updates, length = np.arange(run.updates + 1), adjoint.shape[1]
    lags = frames.lags(length)
    bad = any(np.isnan(sizes).any() for sizes in (state, update, adjoint))
    return {
        "status": "nonfinite" if bad else "ok",
        "log_state": state[-1],
        "log_update": update[-1],
        "log_adjoint": adjoint[-1, 0],
        "curves": {"training_step": updates, "log_state": state, "log_update": update},
        "steps": {
            **place_of_steps(updates, length),
            "log_adjoint": adjoint[:, length - 1 - lags].ravel(),
        },
    }
