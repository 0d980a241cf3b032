"""The loop: updates under one `lax.scan`, and what drives them block by block."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from gradlab import _show
from gradlab._norms import log_norm
from gradlab.tracing import Trace, trace
from gradlab.training import _record
from gradlab.training._checkpoint import Checkpoint
from gradlab.training._record import Record, Recorder, Sink

Loss = Callable[[Any, Any], Any]
Sampler = Callable[[PRNGKeyArray, Int[Array, ""]], Any]
Progress = Callable[[int, int, float], None]

_BLOCK = 100


class State(NamedTuple):
    """What training carries from update to update: a pytree.

    Attributes:
        step: the number of updates made so far.
        params: the parameters after them.
        opt_state: the optimizer's state.
        key: the randomness of the whole run; update n draws from `fold_in(key, n)`.
        first_nonfinite_step: the update, counted from 1, that gave a loss or parameters that are
            not finite; 0 if there was none. From then on nothing changes but `step`.
    """

    step: Int[Array, ""]
    params: PyTree
    opt_state: PyTree
    key: PRNGKeyArray
    first_nonfinite_step: Int[Array, ""]


class Records(NamedTuple):
    """What `advance` recorded.

    Attributes:
        metrics: "loss", "log_grad_norm" (the natural logarithm of the gradient's 2-norm, before the
            optimizer sees it) and what the loss reports besides, each (steps,): the value of update
            n is that of the parameters before it.
        traces: a `Trace` whose arrays have one more leading axis, of ⌈steps / trace_every⌉; `grads`
            and `aux` are left out. None for `trace_every=0`.
        record: a `Record` of ⌈steps / record_every⌉ rows, of which those with step -1 are not used.
            None without functions to record.
    """

    metrics: dict[str, Array]
    traces: Trace | None
    record: Record | None = None


class Failure(NamedTuple):
    """Where training went wrong.

    Attributes:
        step: the update, counted from 1, that gave a loss or parameters that are not finite.
        reason: "loss" where the loss was not finite, "update" where the parameters would not be.
        trace: the trace of that update; the parameters are those of `Training.params`. None for a
            loss that has no scan and no tap.
        before: the trace of the update before it, the last that went well; None for step 1.
    """

    step: int
    reason: str
    trace: Trace | None
    before: Trace | None


class Training(NamedTuple):
    """The result of `train`; `gl.frame(training)` is its tidy dataframe.

    Attributes:
        params: the parameters at the end: the last finite ones where training failed.
        metrics: as in `Records`, NumPy arrays of a row per update; a failed run ends with the row
            of the update that failed.
        traces: the stacked traces, NumPy arrays, or None; row i was taken before update
            `trace_steps[i]` + 1, so row 0 is the network at its initialization.
        trace_steps: the number of updates made before each trace.
        failure: what went wrong, or None.
        state: the `State` at the end, from which `advance` can continue.
        records: for each name of `record=` what its function returned, NumPy arrays with a leading
            axis, one row for each of `record_steps`; {} where nothing was to be recorded.
        record_steps: the number of updates made before each row: 0, k, 2k, … and the last. A failed
            run ends with the row of its last finite parameters.
    """

    params: PyTree
    metrics: dict[str, np.ndarray]
    traces: Trace | None
    trace_steps: Int[np.ndarray, " traces"]
    failure: Failure | None
    state: State
    records: dict[str, PyTree]
    record_steps: Int[Array | np.ndarray, " records"]

    def __repr__(self) -> str:
        return _show.text("Training", self._facts())

    def _repr_html_(self) -> str:
        loss = np.asarray(self.metrics.get("loss", ()))
        return _show.table("Training", self._facts(), _show.sparkline(loss, False, "loss"))

    def _facts(self) -> list[tuple[str, str]]:
        loss = np.asarray(self.metrics.get("loss", ()))
        span = f"{_show.number(loss[0])} to {_show.number(loss[-1])}" if len(loss) else "none"
        rows = [("updates", f"{len(loss):,}"), ("loss", span)]
        rows.append(("params", _show.leaves(self.params)))
        rows.append(("metrics", ", ".join(self.metrics)))
        if self.traces is not None:
            rows.append(("traces", f"{len(self.trace_steps):,} of gl.trace"))
        if self.records:
            each = _show.count(len(self.record_steps), "row")
            rows.append(("records", f"{', '.join(self.records)}: {each}"))
        if self.failure is not None:
            rows.append(("failure", f"the {self.failure.reason} of update {self.failure.step}"))
        return rows


Carry = tuple[State, Record | None]


def start(params: PyTree, optimizer: optax.GradientTransformation, key: PRNGKeyArray) -> State:
    """The state before the first update.

    >>> state = start({"w": jnp.ones(3)}, optax.adam(1e-3), jax.random.key(0))
    >>> int(state.step), int(state.first_nonfinite_step)
    (0, 0)
    """
    zero = jnp.zeros((), jnp.int32)
    params = jax.tree.map(jnp.asarray, params)
    return State(zero, params, optimizer.init(params), key, zero)


def advance(
    loss: Loss,
    sample: Sampler,
    optimizer: optax.GradientTransformation,
    state: State,
    steps: int,
    *,
    has_aux: bool = False,
    trace_every: int = 0,
    batch_axis: int | None = None,
    segment: int | None = None,
    record: Mapping[str, Recorder] | None = None,
    record_every: int = 100,
) -> tuple[State, Records]:
    """Make `steps` updates, a pure function for `jax.jit` and `jax.vmap`.

    Update n = 1, 2, …, with θ the parameters, B_n = sample(fold_in(key, n - 1), n - 1) a batch
    that is drawn inside the compiled step, and g_n the gradient::

        g_n = ∇_θ loss(θ_{n-1}, B_n),    θ_n = θ_{n-1} + optimizer(g_n)

    Args:
        loss: (params, batch) -> a scalar, or a scalar and a dict of scalars with `has_aux`.
        sample: (key, step) -> batch, with step the number of updates made, a traced int32.
        optimizer: any optax optimizer except line searches, which would evaluate the loss again.
        state: from `start`, or from an earlier call.
        steps: the number of updates, at least 1, a Python int.
        has_aux: whether the loss also reports a dict of scalars.
        trace_every: k, take a `gradlab.trace` before the updates 1, k + 1, 2k + 1, … of this call,
            instead of the plain gradient; 0 for never.
        batch_axis: that of `gradlab.trace`.
        segment: that of `gradlab.trace`; see `train`.
        record: functions of the parameters by name; see `train`. Where a `vmap` maps the state,
            they are computed at every update, and chosen from.
        record_every: evaluate them before each update that a multiple of this many precede,
            counted from the start of the training, not of this call.

    Returns:
        The state after the updates, and the `Records`.

    Once a loss, or a parameter after the update, is not finite, the state stays as it was before
    that update.

    >>> loss = lambda w, x: (w - x) ** 2
    >>> state = start(jnp.array(0.0), optax.sgd(0.25), jax.random.key(0))
    >>> state, records = advance(loss, lambda key, step: 1.0, optax.sgd(0.25), state, 3)
    >>> state.params.tolist(), records.metrics["loss"].tolist()
    (0.875, [1.0, 0.25, 0.0625])
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if trace_every < 0:
        raise ValueError(f"trace_every must be at least 0, got {trace_every}")
    functions = _record.check(record, record_every)
    begin = state.step

    # Schedules such as reduce_on_plateau read the loss from extra arguments.
    optimizer = optax.with_extra_args_support(optimizer)

    look = trace(loss, has_aux=has_aux, batch_axis=batch_axis, segment=segment)

    def plain(params: PyTree, batch: Any) -> tuple[Any, Any, Any]:
        if segment is not None:
            # A trace whose record nobody reads: XLA drops it, and the segments stay.
            value, aux, (grads, _) = value_and_trace(params, batch)
            return value, aux, (grads, None)
        value, grads = jax.value_and_grad(loss, has_aux=has_aux)(params, batch)
        value, aux = value if has_aux else (value, {})
        return value, aux, (grads, None)

    def value_and_trace(params: PyTree, batch: Any) -> tuple[Any, Any, Any]:
        out = look(params, batch)
        return out.value, out.aux if has_aux else {}, (out.grads, _without_grads(out))

    def update(gradient: Any, carry: Carry, _: Any = None) -> tuple[Carry, Any]:
        state, notes = carry
        notes = _record.write(functions, record_every, begin, state.step, state.params, notes)
        batch = _batch(sample, state)
        value, aux, (grads, step_trace) = gradient(state.params, batch)
        extras = {"value": value, "grad": grads}
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params, **extras)
        params = optax.apply_updates(state.params, updates)
        finite = jnp.isfinite(value)
        for leaf in jax.tree.leaves(params):
            finite &= jnp.isfinite(leaf).all()
        bad = state.first_nonfinite_step
        is_fine = finite & (bad == 0)
        params, opt_state = jax.tree.map(
            lambda new, old: jnp.where(is_fine, new, old),
            (params, opt_state),
            (state.params, state.opt_state),
        )
        step = state.step + 1
        bad = jnp.where((bad == 0) & ~finite, step, bad)
        metrics = _metrics(value, grads, aux, functions)
        return (State(step, params, opt_state, state.key, bad), notes), (metrics, step_trace)

    def run(carry: Carry, count: int) -> tuple[Carry, Any]:
        carry, (metrics, _) = jax.lax.scan(partial(update, plain), carry, length=count)
        return carry, metrics

    carry = state, _record.blank(functions, state.params, -(-steps // record_every))
    if not trace_every:
        (state, notes), metrics = run(carry, steps)
        return state, Records(metrics, None, notes)

    def group(count: int) -> Any:
        def body(carry: Carry, _: Any = None) -> tuple[Carry, Any]:
            carry, (first, step_trace) = update(value_and_trace, carry)
            metrics = jax.tree.map(lambda x: x[None], first)
            if count > 1:
                carry, rest = run(carry, count - 1)
                metrics = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), metrics, rest)
            return carry, (metrics, step_trace)

        return body

    whole, rest = divmod(steps, trace_every)
    parts = []
    if whole:
        carry, (metrics, step_trace) = jax.lax.scan(group(trace_every), carry, length=whole)
        parts.append((jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), metrics), step_trace))
    if rest:
        carry, (metrics, step_trace) = group(rest)(carry)
        parts.append((metrics, jax.tree.map(lambda x: x[None], step_trace)))
    state, notes = carry
    metrics, traces = jax.tree.map(lambda *x: jnp.concatenate(x), *parts)
    return state, Records(metrics, traces, notes)


def _batch(sample: Sampler, state: State) -> Any:
    return sample(jax.random.fold_in(state.key, state.step), state.step)


def _without_grads(out: Trace) -> Trace:
    """The part of a trace that is recorded: the gradients and the aux are left out."""
    return Trace(value=out.value, aux=None, grads=None, scans=out.scans, taps=out.taps)


def _metrics(value: Array, grads: PyTree, aux: Any, functions: Any) -> dict[str, Array]:
    ours = {"loss": value, "log_grad_norm": log_norm(grads)}
    if not isinstance(aux, dict):
        raise TypeError(f"the loss must report a dict of scalars, got a {type(aux).__name__}")
    for name, metric in aux.items():
        if name in ours:
            raise ValueError(f"the loss reports a metric {name!r}, which is gradlab's own name")
        if jnp.ndim(metric):
            raise ValueError(f"metric {name!r} must be a scalar, got shape {jnp.shape(metric)}")
    for name in functions:
        if name in aux:
            raise ValueError(f"record {name!r} has the name of a metric that the loss reports")
    return ours | {name: jnp.asarray(metric) for name, metric in aux.items()}


@partial(
    jax.jit,
    static_argnums=(0, 2, 4),
    static_argnames=("has_aux", "trace_every", "batch_axis", "segment", "record", "record_every"),
)
def _advance(
    loss: Loss, sample: Sampler, optimizer: Any, state: State, steps: int, **options: Any
) -> tuple[State, Records]:
    """`advance`, compiled once for the same functions: `record` comes as pairs, not as a dict."""
    record = dict(options.pop("record", ())) or None
    return advance(loss, sample, optimizer, state, steps, record=record, **options)


def train(
    loss: Loss,
    params: PyTree,
    sample: Sampler,
    optimizer: optax.GradientTransformation,
    *,
    steps: int,
    key: PRNGKeyArray,
    has_aux: bool = False,
    trace_every: int = 0,
    batch_axis: int | None = None,
    segment: int | None = None,
    block: int | None = None,
    checkpoint: str | Path | None = None,
    save_every: float = 10.0,
    progress: bool | Progress = False,
    version: str | int | None = None,
    record: Mapping[str, Recorder] | None = None,
    record_every: int = 100,
    on_record: Sink | None = None,
) -> Training:
    """Train with optax, with a trace of the gradient's way back every `trace_every` updates.

    The updates are those of `advance`, run in compiled blocks.

    Args:
        loss: (params, batch) -> a scalar, or a scalar and a dict of scalars with `has_aux`.
        params: where training starts, a pytree.
        sample: (key, step) -> batch, called inside the compiled step; see `advance`. A
            `jax.tree_util.Partial` may hold a data set, whose arrays are then arguments of the
            compiled program, not constants in it.
        optimizer: any optax optimizer except line searches.
        steps: the number of updates, at least 1.
        key: the randomness of the batches. The same arguments give the same numbers.
        has_aux: whether the loss also reports a dict of scalars; they become metrics.
        trace_every: k, trace before the updates 1, k + 1, 2k + 1, …; 0 for never. A traced update
            costs about what a plain one does.
        batch_axis: that of `gradlab.trace`: which axis of the carries counts samples.
        segment: that of `gradlab.trace`, for long sequences: the states of each `segment` steps are
            computed a second time on the way back, so that a sequence of T steps needs the memory
            of T / segment + segment of them. None keeps them all.
        block: updates per compiled call, rounded up to a multiple of `trace_every`: how often
            progress is reported, a failure noticed and a checkpoint written. By default that of
            the checkpoint, else a tenth of the steps and at most 100.
        checkpoint: a file that the run is saved to, and resumed from if it exists; the result is
            bit for bit that of a run that was not stopped. With more `steps` than before, the run
            continues. The file stays when the run ends. It belongs to one program: its code, every
            array that stands anywhere in it, the Python functions that it calls back (their code
            and what they close over), what training starts from, the options, and the settings
            and version of JAX. What a callback reads from files, clocks or a network is not seen.
        save_every: the minimum of seconds between two writes of the checkpoint.
        progress: True for a bar with the loss on standard error, or a function called after every
            block with the updates made, those wanted and the last loss.
        version: your name for what a checkpoint cannot know: the Python code that the program calls
            back (`jax.pure_callback`, `jax.experimental.io_callback`) with its data. With it that
            code is not looked at: give another version whenever it changes.
        record: {name: f}, what to record of the parameters θ as they are learnt. f(θ) is a pure
            function in `jax.numpy` that returns a number, an array, or a pytree of them, real or
            complex; `gradlab.training.recorders` builds some. It is compiled into the loop, and a
            checkpoint holds its rows and belongs to its code. Give the same function objects to a
            second call, or it compiles again.
        record_every: k, evaluate them at the updates 0 (before the first), k, 2k, … and the last.
        on_record: a sink, called with (update, {name: array}) for each row, after the block that
            it came in; a leaf of a pytree is named "name.path". `gradlab.training.recorders` has
            examples for Weights & Biases, TensorBoard and files. A run that is resumed sends its
            rows since the checkpoint again.

    Returns:
        A `Training`. A loss or an update that is not finite ends the run there; `failure` says at
        which step and holds the traces of that step and of the one before it. A record that turns
        NaN is warned of, with the update, and does not end the run.

    Raises:
        ValueError: for steps, trace_every or block out of range; for a checkpoint that is damaged,
            was written by another program (the message says what differs), or is further than
            `steps`; for a checkpoint of a program that calls back Python whose content cannot be
            read, or that changes as it runs, where no `version` is given; for a record_every below
            1, a `record` without functions, with a name of a metric or with '.', '[' or ']' in its
            name, or that is NaN at update 0.
        TypeError: for a record that is no function or does not return numbers.

    >>> import gradlab as gl
    >>> cell = gl.cells.make("elman", inputs=2, hidden=4)
    >>> task = gl.tasks.make("adding", length=10)
    >>> net = gl.tasks.network(cell, task.outputs)
    >>> run = train(gl.tasks.batch_loss(net, task), net.init(jax.random.key(0)),
    ...             gl.tasks.batch_sampler(task, 8), optax.adam(1e-2), steps=20,
    ...             key=jax.random.key(1), has_aux=True, trace_every=10)
    >>> run.metrics["loss"].shape, run.trace_steps.tolist(), run.traces.scans[0].log_norm.shape
    ((20,), [0, 10], (2, 10))

    The largest entry of a parameter as it is learnt:

    >>> loss = lambda w, x: ((w - x) ** 2).sum()
    >>> run = train(loss, jnp.zeros(2), lambda key, step: jnp.ones(2), optax.sgd(0.25), steps=3,
    ...             key=jax.random.key(0), record={"largest": jnp.max}, record_every=2)
    >>> run.record_steps.tolist(), run.records["largest"].tolist()
    ([0, 2, 3], [0.0, 0.75, 0.875])
    """
    functions = _record.check(record, record_every)
    store = Checkpoint(checkpoint, save_every)
    if block is None:
        block = store.block() or min(_BLOCK, -(-steps // 10))
    if steps < 1 or block < 1:
        raise ValueError(f"steps and block must be at least 1, got {steps} and {block}")
    if trace_every:
        block = -(-block // trace_every) * trace_every
    if not isinstance(sample, jax.tree_util.Partial):
        sample = jax.tree_util.Partial(sample)
    options = {"has_aux": has_aux, "trace_every": trace_every, "batch_axis": batch_axis}
    if segment is not None:
        options["segment"] = segment
    if functions:
        options |= {"record": tuple(functions.items()), "record_every": record_every}
    call = partial(_advance, loss, **options)

    state = first = start(params, optimizer, key)
    blocks: list[Records] = []
    if checkpoint is not None:
        update = partial(advance, loss, **options | ({"record": functions} if functions else {}))
        program, shapes = jax.make_jaxpr(
            lambda sample, state: update(sample, optimizer, state, block), return_shape=True
        )(sample, state)
        if functions:  # the program holds their code
            options["record"] = sorted(functions)
        about = {"sample": sample, "state": state, "options": options, "block": block}
        store.identify(program, about, version)
        state, blocks = store.read(state, shapes[1])
        if int(state.step) > steps:
            raise ValueError(
                f"{checkpoint}: a checkpoint after {int(state.step)} steps, and {steps} were asked "
                "for; ask for more, or give another file"
            )

    recent: list[State] = []
    with _reporter(progress) as report:
        updates = int(state.step)
        while updates < steps and not int(state.first_nonfinite_step):
            recent = [*recent[-1:], state]
            state, records = call(sample, optimizer, state, min(block, steps - updates))
            bad = int(state.first_nonfinite_step) or None
            records = records._replace(record=_record.rows_in_use(records.record, bad))
            _record.refuse_nan(records.record)
            _record.send(records.record, on_record)
            blocks.append(jax.tree.map(np.asarray, records))
            updates = int(state.step)
            report(updates, steps, float(blocks[-1].metrics["loss"][-1]))
            # Skip a last, shorter block: a longer run has no state there.
            if updates % block == 0:
                store.write(state, blocks, last=updates == steps)
    store.flush()

    metrics, traces, rows = jax.tree.map(lambda *x: np.concatenate(x), *blocks)
    trace_steps = np.arange(0, len(metrics["loss"]), trace_every) if trace_every else np.arange(0)
    failure = None
    if bad := int(state.first_nonfinite_step):
        metrics = {name: values[:bad] for name, values in metrics.items()}
        reason = "update" if np.isfinite(metrics["loss"][-1]) else "loss"

        def look(step: int) -> Trace | None:
            earlier = [state for state in (first, *recent) if int(state.step) < step]
            trace_loss = trace(loss, has_aux=has_aux, batch_axis=batch_axis, segment=segment)
            return _look(call, sample, optimizer, earlier[-1], step, trace_loss)

        failure = Failure(bad, reason, look(bad), look(bad - 1) if bad > 1 else None)
        keep = trace_steps < bad
        trace_steps = trace_steps[keep]
        traces = jax.tree.map(lambda x: x[keep], traces)
    rows = _finish(functions, state, rows, on_record)
    return Training(
        state.params, metrics, traces, trace_steps, failure, state, rows.values, rows.step
    )


def _finish(
    functions: Mapping[str, Recorder], state: State, record: Record | None, sink: Sink | None
) -> Record:
    """The record of a run with the row of its last parameters, which no later block begins with."""
    if record is None:
        return Record(np.zeros(0, np.int32), {})
    bad = int(state.first_nonfinite_step)
    last = bad - 1 if bad else int(state.step)
    if last not in record.step:
        values = _record.evaluate_once(tuple(functions.items()), state.params)
        row = _record.row_of(last, values)
        _record.send(row, sink)
        record = _record.add(record, row)
    _record.warn_nan(record)
    return record


def _look(
    call: Any,
    sample: Any,
    optimizer: Any,
    state: State,
    step: int,
    look: Callable[..., Trace],
) -> Trace | None:
    """The trace of an update, recomputed from an earlier state; None without a scan or tap."""
    if ahead := step - 1 - int(state.step):
        state, _ = call(sample, optimizer, state, ahead)
    try:
        out = jax.jit(look)(state.params, _batch(sample, state))
    except ValueError:  # a loss without a scan
        return None
    return jax.tree.map(np.asarray, _without_grads(out))


@contextlib.contextmanager
def _reporter(progress: bool | Progress) -> Iterator[Progress]:
    """The function to report progress to: the user's, a bar's, or one that does nothing."""
    if callable(progress) or not progress:
        yield progress or (lambda *_: None)
        return
    from gradlab._progress import Bar

    with Bar("updates") as bar:
        yield lambda done, total, loss: bar(done, total, f"loss {loss:.4g}")
