"""The sweep over networks as they learn: its plan, what a run measures, and how it is kept."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pyarrow as pa

from gradlab import cells, frames, initializers, remedies, tasks, tracing, training
from gradlab.sweeps.consolidate import lists
from gradlab.sweeps.measure import PRECISION, _key, pinned, rate
from gradlab.sweeps.plan import OPTIONS, Axes, Plan
from gradlab.sweeps.store import Kind

# Part of every run's name: a change of what a run measures makes new names.
VERSION = 3
# The learning rate of what comes before the training, where its own optimizer is not asked.
FLOSSING_RATE = 1e-3

OPTIMIZERS: dict[str, Callable[[Any], optax.GradientTransformation]] = {
    "adam": optax.adam,
    "rmsprop": lambda learning_rate: optax.rmsprop(learning_rate, decay=0.9),
    "sgd": optax.sgd,
}


class Run(NamedTuple):
    """The coordinates of one run; None where its cell or its task has no such option."""

    task: str
    cell: str
    activation: str | None
    init: str | None
    gain: float | None
    forget_bias: float | None
    hidden: int
    optimizer: str
    learning_rate: float
    clip_norm: float
    clip_value: float
    omega: float
    omega_squared: float
    orthogonality: float
    flossing: float
    preflossing: int
    chrono: float
    window: int
    leak: float
    batch: int
    updates: int
    length: int | None
    symbols: int | None
    size: int | None
    permuted: bool | None
    every_step: bool | None
    seed: int
    evaluate_every: int
    evaluation: int
    flossing_exponents: int

    @property
    def run_id(self) -> str:
        """A name that follows from the coordinates alone."""
        text = repr(("training", VERSION, *self))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def program(self) -> Run:
        """Runs that agree on this differ in the arguments of compiled programs only."""
        off = dict.fromkeys(_SCALARS, 0.0)
        on = {name: 1.0 for name in _SCALARS if getattr(self, name) != _OFF.get(name, 0.0)}
        unswitched = dict.fromkeys(("gain", "forget_bias", "learning_rate"), 0.0)
        return self._replace(**(off | on | unswitched), seed=0)

    @classmethod
    def narrow(cls, axes: Axes) -> list[Axes]:
        """Axes without those that a cell or a task does not have."""
        made = []
        for task, cell in itertools.product(axes["task"], axes["cell"]):
            own: Axes = {"task": (task,), "cell": (cell,)}
            for field in cls._fields:
                if OPTIONS.get(field, "inputs") not in cells.options(cell):
                    own[field] = (None,)
                elif field in _TASK_OPTIONS and _option(task, field) is None:
                    own[field] = (None,)
                elif field == "chrono" and cell not in remedies.retaining():
                    own[field] = (0.0,)
            made.append(axes | own)
        return made

    @classmethod
    def free(cls, axes: Axes) -> tuple[str, ...]:
        """The axes whose values make no other program."""
        return ("gain", "forget_bias", "learning_rate", "seed")


# What a compiled program takes as an argument, and where one that can be left out is not 0 then.
_SCALARS = (
    "gain",
    "forget_bias",
    "learning_rate",
    "clip_norm",
    "clip_value",
    "omega",
    "omega_squared",
    "orthogonality",
    "flossing",
    "chrono",
    "leak",
)
_OFF = {"leak": 1.0}
_TASK_OPTIONS = ("length", "symbols", "size", "permuted", "every_step")


def _option(task: str, axis: str) -> str | None:
    """What a task calls the option that an axis is about, if it has it.

    Its length is the one that its published baseline is a function of.
    """
    names = ("length", "delay") if axis == "length" else (axis,)
    return next((name for name in names if name in tasks.options(task)), None)


def failed(run: Run) -> dict[str, Any]:
    """The row of a run that could not be trained, but for the reason."""
    row = _coordinates(run) | {"run_id": run.run_id}
    return row | {"trained": 0, "loss": np.nan, "error": np.nan}


def label(run: Run) -> str:
    """What a progress bar says of the runs that share this one's program."""
    return f"{run.task} {run.cell}" + (f" T={run.length}" if run.length else "")


def _task(run: Run) -> tasks.Task:
    named = {_option(run.task, axis): getattr(run, axis) for axis in _TASK_OPTIONS}
    return tasks.make(run.task, **{name: value for name, value in named.items() if name})


def _build(
    run: Run, task: tasks.Task, scalars: dict[str, Any]
) -> tuple[cells.Cell, tasks.Network, Any]:
    """The cell, the network and the optimizer of a run."""
    options: dict[str, Any] = {"forget_bias": scalars["forget_bias"]}
    if run.init is not None:
        options["recurrent"] = initializers.make(run.init, gain=scalars["gain"])
    if run.activation is not None:
        options["activation"] = run.activation
    taken = cells.options(run.cell)
    options = {name: value for name, value in options.items() if name in taken}
    cell = cells.make(run.cell, inputs=task.inputs, hidden=run.hidden, **options)
    if run.chrono:
        cell = remedies.chrono(cell, scalars["chrono"])
    if run.leak:
        cell = remedies.leak(cell, scalars["leak"])
    net = tasks.network(cell, task.outputs, task.every_step, window=run.window or None)
    kinds = ("norm", "value")
    clip = remedies.clip(
        **{kind: scalars[f"clip_{kind}"] for kind in kinds if getattr(run, f"clip_{kind}")}
    )
    optimizer = optax.chain(clip, OPTIMIZERS[run.optimizer](scalars["learning_rate"]))
    return cell, net, optimizer


def check(plan: Plan) -> None:
    """Build each kind of run once, so that what cannot be built is told before anything is run."""
    seen = set()
    for grids in plan.programs().values():
        # The numbers of what is switched on can be wrong as well: T_max, a leak.
        for run in (run for axes in grids for run in plan.runs(axes | {"seed": (0,)})):
            kind = run.program, run.chrono, run.leak
            if kind not in seen:
                seen.add(kind)
                numbers = {name: getattr(run, name) or 0.0 for name in _SCALARS}
                # Its program says what is switched on: a leak of 1 is none, some cells refuse one.
                _build(run.program, _task(run), numbers)


class _Programs(NamedTuple):
    """Compiled functions over replicas: the leading axis of every argument and result."""

    start: Any
    advance: Any
    evaluate: Any


@functools.cache
def _programs(run: Run) -> _Programs:
    task = _task(run)
    # On a CPU the replicas one after another are as fast as side by side, and a run that has
    # ended costs nothing any more.
    side_by_side = jax.default_backend() != "cpu"

    def each(function: Any) -> Any:
        if side_by_side:
            return jax.jit(jax.vmap(function))
        return jax.jit(lambda *args: jax.lax.map(lambda row: function(*row), args))

    build = functools.partial(_build, run, task)

    def start(seed: jax.Array, scalars: dict[str, jax.Array]) -> training.State:
        cell, net, optimizer = build(scalars)
        params = net.init(_key(seed, f"params {run.cell} {run.hidden}"), jnp.float32)
        if run.preflossing:
            adam = optax.adam(FLOSSING_RATE)
            state = training.start(params, adam, _key(seed, f"flossing {run.task}"))
            floss, sample = _floss(run, cell), tasks.batch_sampler(task, 1, jnp.float32)
            params = training.advance(floss, sample, adam, state, run.preflossing)[0].params
        return training.start(params, optimizer, _key(seed, f"batches {run.task}"))

    def advance(
        goes_on: jax.Array, state: training.State, scalars: dict[str, jax.Array]
    ) -> training.State:
        cell, net, optimizer = build(scalars)
        loss = plain = tasks.batch_loss(net, task)
        omega = functools.partial(remedies.omega_penalty, plain, cell, mean=True, has_aux=True)
        for name, penalty in (
            ("omega", lambda: omega(squared=False)),
            ("omega_squared", lambda: omega(squared=True)),
            ("orthogonality", lambda: remedies.orthogonality_penalty(cell)),
            ("flossing", lambda: _floss(run, cell)),
        ):
            if getattr(run, name):
                strength = scalars[name]
                loss = remedies.penalized(loss, strength, penalty(), name=name, has_aux=True)
        sample = tasks.batch_sampler(task, run.batch, jnp.float32)

        def some(state: training.State) -> training.State:
            every = run.evaluate_every
            return training.advance(loss, sample, optimizer, state, every, has_aux=True)[0]

        return jax.lax.cond(goes_on, some, lambda state: state, state)

    def evaluate(
        seed: jax.Array, params: Any, scalars: dict[str, jax.Array]
    ) -> tuple[jax.Array, ...]:
        _, net, _ = build(scalars)
        loss = tasks.batch_loss(net, task)
        key = _key(seed, f"evaluation {run.task}")
        if task.held_out is not None:
            fresh = task.held_out(jnp.float32)
        else:
            fresh = tasks.batch_sampler(task, run.evaluation, jnp.float32)(key, 0)
        value, aux = loss(params, fresh)
        traced = tasks.batch_sampler(task, run.batch, jnp.float32)(key, 1)
        out = tracing.trace(loss, argnums=(), has_aux=True)(params, traced)
        return value, aux["error"], out.scans[0].log_norm

    return _Programs(each(start), each(advance), each(evaluate))


def _floss(run: Run, cell: cells.Cell) -> Callable[[Any, Any], jax.Array]:
    return remedies.flossing_penalty(cell, min(run.flossing_exponents, cell.hidden))


def train(batch: Sequence[Run], tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """Train runs that share a program, and give one mapping per run: `frames.TRAINED` and lists.

    A run ends where it is solved at an evaluation, where its loss or parameters are not finite, or
    after its updates; how long the others take changes none of its numbers.
    """
    first = batch[0]
    task = _task(first)
    seeds = jnp.asarray([run.seed for run in batch], jnp.uint32)
    scalars = {
        name: jnp.asarray([getattr(run, name) or 0.0 for run in batch], jnp.float32)
        for name in _SCALARS
    }
    points: list[list[tuple[int, float, float, np.ndarray]]] = [[] for _ in batch]
    ended = np.zeros(len(batch), bool)
    with pinned():
        programs = _programs(first.program)
        states = programs.start(seeds, scalars)
        for made in range(0, first.updates + 1, first.evaluate_every):
            measured = programs.evaluate(seeds, states.params, scalars)
            losses, errors, curves = (np.asarray(x, np.float64) for x in measured)
            bad = np.asarray(states.first_nonfinite_step)
            for i in np.flatnonzero(~ended):
                # The update that failed was not made, and nothing was after it. Where none was made
                # since the last evaluation, this one is of the same parameters.
                updates = bad[i] - 1 if bad[i] else made
                if not points[i] or updates > points[i][-1][0]:
                    points[i].append((int(updates), losses[i], errors[i], curves[i]))
                ended[i] = errors[i] <= task.solved or bad[i] > 0
            if ended.all() or made + first.evaluate_every > first.updates:
                break
            tell(f"{label(first)} update {made} loss {losses.min():.3g}")
            states = programs.advance(jnp.asarray(~ended), states, scalars)
    rows = zip(batch, points, bad.tolist(), strict=True)
    return [_record(run, task, line, step) for run, line, step in rows]


def _record(
    run: Run, task: tasks.Task, points: list[tuple[int, float, float, np.ndarray]], bad: int
) -> dict[str, Any]:
    device = jax.devices()[0]
    updates, loss, error, _ = points[-1]
    solved = error <= task.solved
    kept = frames.lags(task.length)
    rates = rate(np.stack([points[0][3], points[-1][3]]))[0]
    return {
        **_coordinates(run),
        "run_id": run.run_id,
        "precision": PRECISION,
        "status": "nonfinite" if bad else "solved" if solved else "unsolved",
        "solved_step": updates if solved and not bad else None,
        "first_nonfinite_step": bad or None,
        "trained": updates,
        "loss": loss,
        "error": error,
        "best_loss": min(point[1] for point in points),
        "baseline": min(task.baselines.values()),
        "rate_before": rates[0],
        "rate_after": rates[1],
        "device": f"{device.platform}: {device.device_kind}",
        "training_steps": [point[0] for point in points],
        "losses": [point[1] for point in points],
        "errors": [point[2] for point in points],
        "lags": kept,
        # Row by row: every lag of the first evaluation, then of the second.
        "log_norms": np.concatenate(
            [_finite(point[3])[task.length - 1 - kept] for point in points]
        ),
    }


def _coordinates(run: Run) -> dict[str, Any]:
    numbers = ("evaluate_every", "evaluation", "flossing_exponents")
    return {name: value for name, value in run._asdict().items() if name not in numbers}


def _finite(log_norm: np.ndarray) -> np.ndarray:
    return np.where(np.isposinf(log_norm), np.nan, log_norm)


def _split(rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    ids = rows["run_id"].combine_chunks()
    flat, counts = {}, {}
    for name in KIND.lists:
        flat[name], counts[name] = lists(rows, name)
    # An evaluation is a row of curves, and every lag of its run a row of steps.
    run = np.repeat(np.arange(len(rows)), counts["training_steps"])
    curves = {
        "run_id": ids.take(pa.array(run)),
        "training_step": flat["training_steps"],
        "loss": pa.array(flat["losses"], from_pandas=True),
        "error": pa.array(flat["errors"], from_pandas=True),
    }
    ends = np.cumsum(counts["lags"])[run]
    kept = counts["lags"][run]
    evaluation = np.repeat(np.arange(len(run)), kept)
    within = np.arange(len(evaluation)) - (np.cumsum(kept) - kept)[evaluation]
    lag = flat["lags"][(ends - kept)[evaluation] + within]
    # The last lag of a sequence is its length less one.
    length = flat["lags"][ends - 1][evaluation] + 1
    steps = {
        "run_id": ids.take(pa.array(run[evaluation])),
        "training_step": flat["training_steps"][evaluation],
        "step": length - lag,
        "lag": lag,
        "log_norm": pa.array(flat["log_norms"], from_pandas=True),
    }
    return pa.table(curves), pa.table(steps)


KIND = Kind(
    name="training",
    lists={
        "training_steps": pa.int64(),
        "losses": pa.float64(),
        "errors": pa.float64(),
        "lags": pa.int64(),
        "log_norms": pa.float64(),
    },
    split=_split,
)
