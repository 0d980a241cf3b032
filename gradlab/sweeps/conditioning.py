"""The measurement of conditioning: the singular values of ∂h_T/∂h_{T-l} of fresh networks.

A run draws a cell and an input sequence as one of `gradients` does, with the same numbers, and
walks its Jacobians back from the last state. The gradient of one loss tells the norm of one vector
on its way back; the condition number of the product tells how far vectors of other directions part.
The axes and the columns are declared in `gradlab.frames.conditioning`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from gradlab import spectrum
from gradlab._memory import device_name
from gradlab.frames import CONDITIONING, Axis
from gradlab.grid import Cost, Measurement, Run, Tell
from gradlab.sweeps import gradients, options
from gradlab.sweeps.gradients import cost, curves


def measurement(axes: tuple[Axis, ...] = (), names: frozenset[str] = frozenset()) -> Measurement:
    """The measurement, with more axes than its own, and the axes that a spec names.

    See `options.more_axes` and `options.parts`.

    >>> import tempfile, gradlab as gl
    >>> spec = {"measurement": "conditioning", "cell": "elman", "init": "orthogonal",
    ...         "activation": "linear", "gain": 0.5, "length": 30, "hidden": 4, "inputs": 2}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     runs = gl.sweep(spec, folder).results.runs
    >>> bool(abs(runs["log_largest"][0] - 30 * np.log(0.5)) < 1e-4)  # W = 0.5 Q: all are equal
    True
    >>> bool(runs["log_condition"][0] < 1e-4)
    True
    """
    schema = CONDITIONING.extend(axes)
    networks = gradients.measurement(axes, names)
    own = networks.run
    return dataclasses.replace(
        networks,
        schema=schema,
        measure=functools.partial(_measure, own),
        source=(measurement, (axes, names)),
        parts=functools.partial(options.parts, schema, names),
        label=lambda run: f"{run.cell} {run.init or ''} {run.input} T={run.length}",
        cost=Cost(
            flops=functools.partial(_flops, own),
            work=_work,
            needed=functools.partial(_min_bytes, own),
            family=_family,
        ),
        code=functools.partial(options.code_of, schema),
    )


def lags_of(length: int) -> tuple[int, ...]:
    """The lags of steps: powers of two, and the whole length.

    >>> lags_of(10)
    (1, 2, 4, 8, 10)
    """
    powers = (2**i for i in range(length.bit_length()))
    return tuple(sorted({*(lag for lag in powers if lag < length), length}))


def _measure(own: Any, runs: Sequence[Run], size: int, tell: Tell) -> list[dict[str, Any]]:
    facts = {"precision": curves.PRECISION, "device": device_name()}
    return [facts | _row(_network(own, run)) for run in runs]


def _network(own: Any, run: Run) -> Run:
    """The run of `gradients`, of its type `own`, with the same network and the same input."""
    return own(weights="tied", batch=1, **run._asdict())


def _row(run: Run) -> dict[str, Any]:
    lags = lags_of(run.length)
    with curves.pin_settings():
        _, scalars = curves.arguments([run])
        init, shape = curves.init_of(run), curves.shape_of(run)
        network = curves.draws([run])[0], curves.inputs_for([run]), scalars
        params, xs, scalars = jax.tree.map(lambda x: x[0], network)
        logs = _program(shape, lags, curves.init_for(shape, init))(params, xs, scalars)
    logs = np.asarray(logs, np.float64)
    with np.errstate(invalid="ignore"):
        # Of a product that is exactly 0 nothing is known: -inf less -inf.
        numbers = {
            "log_largest": logs[:, 0],
            "log_smallest": logs[:, -1],
            "log_condition": logs[:, 0] - logs[:, -1],
        }
    whole = {name: values[-1] for name, values in numbers.items()}
    status = "nonfinite" if np.isnan(logs).any() else "ok"
    return {"status": status, **whole, "steps": {"lag": np.array(lags), **numbers}}


@functools.cache
def _program(shape: curves.Shape, lags: tuple[int, ...], init: curves.Init | None) -> Any:
    """The compiled product: (params, xs, scalars) -> its log singular values, (lags, n)."""

    def values(params: Any, xs: jax.Array, scalars: dict[str, jax.Array]) -> jax.Array:
        cell = curves.cell_for(shape, init, scalars)
        ready = cell.prepare(params)
        drives = jax.vmap(lambda x: cell.project(ready, x))(xs)
        step = functools.partial(cell.advance, ready)
        start = cell.start(curves.PRECISION)
        return spectrum.log_singular_values_by_lag(step, start, drives, lags=lags)

    return jax.jit(values)


def _flops(own: Any, run: Run) -> float:
    """The Jacobian of each step, its product with a matrix, and the QR factors of that."""
    _, forward, backward = cost.step_of(curves.shape_of(_network(own, run)))
    return run.length * (forward + run.hidden * backward + 20 / 3 * run.hidden**3)


def _work(run: Run) -> tuple[Any, float]:
    return (run.cell, run.activation), float(run.length) * run.hidden**3


def _family(run: Run) -> tuple[str, str]:
    return run.cell, f"{run.cell} {run.hidden} {run.length}"


def _min_bytes(own: Any, run: Run) -> int:
    """Bytes at the least: those of the network, and a triangular factor for each step."""
    return cost.min_bytes(_network(own, run)) + 4 * run.length * run.hidden**2
