"""The compiled programs of a training: its start, some updates, an evaluation and a record."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradlab import cells, initializers, remedies, tasks, tracing, training
from gradlab.grid import Run
from gradlab.sweeps.gradients.curves import key_for
from gradlab.sweeps.options import length_option, options_of, to_plain
from gradlab.sweeps.training import recorders

# The learning rate of what comes before the training, where its own optimizer is not asked.
FLOSSING_RATE = 1e-3

OPTIMIZERS: dict[str, Callable[[Any], optax.GradientTransformation]] = {
    "adam": optax.adam,
    "rmsprop": lambda learning_rate: optax.rmsprop(learning_rate, decay=0.9),
    "sgd": optax.sgd,
}
# What a compiled program takes as an argument, beside the strengths of the remedies.
ARGUMENTS = ("gain", "forget_bias", "learning_rate")
TASK_OPTIONS = ("length", "symbols", "size", "permuted", "every_step")


def strengths(run: Run) -> dict[str, float]:
    """The strength of each remedy that a run has."""
    values = {name: getattr(run, name) for name in run.switches}
    return {name: v for name, v in values.items() if v not in (None, run.switches[name])}


def scalars_of(run: Run) -> dict[str, float]:
    """What a compiled program takes as arguments."""
    return {name: getattr(run, name) or 0.0 for name in (*ARGUMENTS, *run.switches)}


def kind_of(run: Run) -> Run:
    """The run with placeholders for its program's arguments: equal for runs that share it."""
    zeros = {name: 0.0 for name in ARGUMENTS if getattr(run, name) is not None}
    return run._replace(**zeros, **dict.fromkeys(strengths(run), 0.5), record=None, seed=0)


def task_of(run: Run) -> tasks.Task:
    """The task of a run. Its length is the one that its published baseline is a function of."""
    registry = tasks.REGISTRY
    options = {name: getattr(run, name) for name in TASK_OPTIONS}
    options[length_option(run.task)] = options.pop("length")
    options = {n: v for n, v in options.items() if v is not None and registry.takes(run.task, n)}
    return tasks.make(run.task, **options, **to_plain(options_of(run, "task").items()))


def build(
    run: Run, task: tasks.Task, scalars: dict[str, Any]
) -> tuple[cells.Cell, tasks.Network, Any, list[tuple[str, remedies.Remedy]]]:
    """The cell, the network, the optimizer and the remedies of a run."""
    draws: dict[str, Any] = {}
    if run.forget_bias is not None:
        draws["forget_bias"] = scalars["forget_bias"]
    if run.init is not None:
        options = to_plain(options_of(run, "init").items())
        if initializers.REGISTRY.takes(run.init, "gain"):
            options["gain"] = scalars["gain"]
        if run.init == "critical" and run.activation is not None:
            options["activation"] = run.activation
        draws["recurrent"] = initializers.make(run.init, **options)
    if run.activation is not None:
        draws["activation"] = run.activation
    draws |= to_plain(options_of(run, "cell").items())
    cell = cells.make(run.cell, inputs=task.inputs, hidden=run.hidden, **draws)
    others = ("seed", "code", "record")
    axes = {name: value for name, value in run._asdict().items() if name not in others}
    pairs = [(name, remedies.make(name, scalars[name], **axes)) for name in strengths(run)]
    for _, remedy in pairs:
        cell = remedy.cell(cell) if remedy.cell else cell
    net = tasks.network(cell, task.outputs, task.every_step, window=run.window or None)
    before = [remedy.optimizer for _, remedy in pairs if remedy.optimizer]
    optimizer = optax.chain(*before, OPTIMIZERS[run.optimizer](scalars["learning_rate"]))
    return cell, net, optimizer, pairs


class Programs(NamedTuple):
    """Compiled functions over replicas: the leading axis of every argument and result."""

    start: Any
    advance: Any
    evaluate: Any


def _each(function: Any) -> Any:
    """The compiled function over replicas."""
    # On a CPU, replicas run as fast one after another, and those that have ended cost nothing.
    if jax.default_backend() != "cpu":
        return jax.jit(jax.vmap(function))
    return jax.jit(lambda *args: jax.lax.map(lambda row: function(*row), args))


@functools.cache
def compile_programs(run: Run) -> Programs:
    """Jit the programs of the runs of a kind; see `kind_of`."""
    task = task_of(run)
    build_run = functools.partial(build, run, task)

    def start(seed: jax.Array, scalars: dict[str, jax.Array]) -> training.State:
        cell, net, optimizer, _ = build_run(scalars)
        params = net.init(key_for(seed, f"params {run.cell} {run.hidden}"), jnp.float32)
        if run.preflossing:
            adam = optax.adam(FLOSSING_RATE)
            state = training.start(params, adam, key_for(seed, f"flossing {run.task}"))
            exponents = min(run.flossing_exponents, cell.hidden)
            floss = remedies.flossing_penalty(cell, exponents)
            sample = tasks.batch_sampler(task, 1, jnp.float32)
            params = training.advance(floss, sample, adam, state, run.preflossing)[0].params
        return training.start(params, optimizer, key_for(seed, f"batches {run.task}"))

    def advance(
        goes_on: jax.Array, state: training.State, scalars: dict[str, jax.Array]
    ) -> training.State:
        cell, net, optimizer, pairs = build_run(scalars)
        loss = plain = tasks.batch_loss(net, task)
        for name, remedy in pairs:
            if remedy.penalty:
                penalty = remedy.penalty(cell, plain)
                loss = remedies.penalized(loss, scalars[name], penalty, name=name, has_aux=True)
        sample = tasks.batch_sampler(task, run.batch, jnp.float32)

        def some(state: training.State) -> training.State:
            every = run.evaluate_every
            return training.advance(loss, sample, optimizer, state, every, has_aux=True)[0]

        return jax.lax.cond(goes_on, some, lambda state: state, state)

    def evaluate(
        seed: jax.Array, params: Any, scalars: dict[str, jax.Array]
    ) -> tuple[jax.Array, ...]:
        _, net, _, _ = build_run(scalars)
        loss = tasks.batch_loss(net, task)
        key = _evaluation_key(run, seed)
        if task.held_out is not None:
            fresh = task.held_out(jnp.float32)
        else:
            fresh = tasks.batch_sampler(task, run.evaluation, jnp.float32)(key, 0)
        value, aux = loss(params, fresh)
        batch = _traced_batch(run, task, key)
        out = tracing.trace(loss, argnums=(), has_aux=True)(params, batch)
        return value, aux["error"], out.scans[0].log_norm

    return Programs(_each(start), _each(advance), _each(evaluate))


@functools.cache
def compile_record(run: Run, names: str) -> Any:
    """Jit what runs of a kind record: (seeds, params, scalars) -> a pytree for each name.

    It is a program of its own, so that it changes no bit of what the others compute.
    """
    task = task_of(run)

    def record(seed: jax.Array, params: Any, scalars: dict[str, jax.Array]) -> dict[str, Any]:
        cell, net, _, _ = build(run, task, scalars)
        whole = tasks.network(cell, task.outputs, task.every_step)
        loss, whole_loss = (tasks.batch_loss(each, task) for each in (net, whole))
        batch = _traced_batch(run, task, _evaluation_key(run, seed))
        functions = recorders.build(names, recorders.Subject(cell, loss, whole_loss, batch))
        return {name: function(params) for name, function in functions.items()}

    return _each(record)


def _evaluation_key(run: Run, seed: jax.Array) -> jax.Array:
    return key_for(seed, f"evaluation {run.task}")


def _traced_batch(run: Run, task: tasks.Task, key: jax.Array) -> Any:
    """The batch that an evaluation traces, the same one every time."""
    return tasks.batch_sampler(task, run.batch, jnp.float32)(key, 1)
