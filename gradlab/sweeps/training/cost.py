"""What runs cost that are trained."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradlab.grid import Cost, Run
from gradlab.sweeps import cost
from gradlab.sweeps.cost import Call, bytes_of, disk_bytes
from gradlab.sweeps.gradients.cost import step_of
from gradlab.sweeps.gradients.curves import Shape, pin_settings
from gradlab.sweeps.options import options_of
from gradlab.sweeps.training.programs import (
    build,
    compile_programs,
    compile_record,
    kind_of,
    scalars_of,
    strengths,
    task_of,
)

# Bytes on the disk of an entry that was recorded, in its chunk and in the frame, measured.
RECORD_BYTES = 14.0


def calls(run: Run, count: int) -> list[Call]:
    """The functions that `count` runs like this one, all on one device, call in their order."""
    programs = compile_programs(kind_of(run))
    seeds = jax.ShapeDtypeStruct((count,), jnp.uint32)
    scalars = dict.fromkeys(scalars_of(run), jax.ShapeDtypeStruct((count,), jnp.float32))
    goes_on = jax.ShapeDtypeStruct((count,), jnp.bool_)
    states = jax.eval_shape(programs.start, seeds, scalars)
    times = run.updates // run.evaluate_every
    rest = bytes_of(states) - bytes_of(states.params)
    all_calls = [
        Call(programs.start, (seeds, scalars)),
        Call(programs.evaluate, (seeds, states.params, scalars), rest, times + 1),
        Call(programs.advance, (goes_on, states, scalars), 0, times),
    ]
    if run.record:
        record = compile_record(kind_of(run), run.record)
        all_calls.append(Call(record, (seeds, states.params, scalars), rest, times + 1))
    return all_calls


def record_call(run: Run) -> Call:
    """What evaluates the recorders of a run that has some."""
    with pin_settings():
        return calls(run, 1)[-1]


def check_record(run: Run) -> None:
    """Evaluate the recorders of a run without numbers.

    Raises:
        ValueError: where one of them is not for a network like this one.
    """
    call = record_call(run)
    with pin_settings():
        jax.eval_shape(call.function, *call.args)


def flops(run: Run) -> float:
    """The arithmetic of a run that needs all its updates, from that of one step of its cell.

    With F the products of a step and B those of its adjoint, an update takes T (2 F + B) for each
    sequence, F once more for the gradient of the parameters; an evaluation T F for each of its own,
    and T (F + B) for each that is traced. The readout is left out where it reads one step of T.
    A remedy's share is near to what its traced program takes: within a factor of 1.3 for gradlab's
    own. What a remedy of the user's own adds is not known, and of a record the matrix products are
    counted, not the factorizations.

    >>> from gradlab.sweeps import parse
    >>> from gradlab.grid import Plan
    >>> spec = {"task": "adding", "cell": "elman", "hidden": 8, "length": 10, "batch": 4,
    ...         "updates": 100, "evaluation": 50, "learning_rate": 0.1}
    >>> (run,) = Plan(parse(spec))
    >>> forward, backward = 2 * 8 * (8 + 2), 2 * 8 * 8
    >>> flops(run) == 10 * (
    ...     100 * 4 * (2 * forward + backward) + 2 * (50 * forward + 4 * (forward + backward)))
    True
    """
    task = task_of(run)
    options = tuple(options_of(run, "cell").items())
    once, forward, backward = step_of(
        Shape(run.cell, run.activation, run.hidden, task.inputs, (), options, run.code)
    )
    if task.every_step:
        forward, backward = (part + 2 * run.hidden * task.outputs for part in (forward, backward))
    update = run.batch * task.length * (2 * forward + backward) + 3 * once
    remedies = strengths(run)
    # Ω is a function of the adjoints, and has a gradient itself.
    update *= 1 + 2.2 * sum(name.startswith("omega") for name in remedies)
    count = min(run.flossing_exponents, run.hidden)
    # Each exponent is a tangent that goes along and back, and a QR of all of them at every step.
    floss = count * task.length * (3 * backward + 12 * run.hidden * count)
    updates = run.updates * (update + (floss if "flossing" in remedies else 0))
    times = 1 + run.updates // run.evaluate_every
    evaluation = run.evaluation * forward + run.batch * (forward + backward)
    record = cost.arithmetic([record_call(run)]) if run.record else 0
    return updates + run.preflossing * floss + times * task.length * evaluation + record


def work(run: Run) -> tuple[Any, float]:
    """What the arithmetic of a run is about proportional to, and the runs that this is true of."""
    steps = float(run.updates) * run.batch * (run.length or 1)
    names = run.task, run.cell, run.record, *strengths(run)
    return names, steps * run.hidden * run.hidden


def min_bytes(run: Run) -> int:
    """A lower bound of the bytes that a run needs: its parameters and one batch of sequences."""
    task = task_of(run)
    sequences = max(run.batch, 0 if task.held_out else run.evaluation)
    xs = 4 * sequences * task.length * task.inputs
    # Estimate huge runs: even the abstract draw of some parameters builds NumPy arrays.
    if xs > 2**48 or run.hidden > 2**24:
        return xs + 4 * run.hidden * max(run.hidden, task.inputs)
    with pin_settings():
        _, net, _, _ = build(run, task, scalars_of(run))
        return xs + bytes_of(jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.float32)))


def peak(run: Run, count: int) -> int:
    """Bytes that so many runs need side by side, as their compiled programs say."""
    with pin_settings():
        return cost.peak(calls(run, count))


def _most(run: Run, number: int) -> int:
    # A CPU trains runs one after the other anyway: store each as it ends.
    return 1 if jax.default_backend() == "cpu" else number


def bytes_on_disk(run: Run, count: int) -> int:
    """Bytes that so many runs like this one leave on the disk."""
    size = disk_bytes(run.length, count)
    if not run.record:
        return size
    call = record_call(run)
    with pin_settings():
        values = jax.tree.leaves(jax.eval_shape(call.function, *call.args))
    return size + int(RECORD_BYTES * count * call.times * sum(leaf.size for leaf in values))


COST = Cost(
    flops=flops,
    work=work,
    needed=min_bytes,
    peak=peak,
    written=bytes_on_disk,
    most=_most,
    per_chunk=lambda run, size: size,
    compiled=lambda run: (kind_of(run), run.record),
)
