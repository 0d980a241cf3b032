"""Functions of the parameters, evaluated inside the compiled loop as a network learns."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from gradlab import _names

Recorder = Callable[[Any], Any]
Sink = Callable[[int, dict[str, np.ndarray]], None]

# The columns of `gradlab.frames.metrics` that every training has.
_OWN = ("training_step", "loss", "log_grad_norm")


class Record(NamedTuple):
    """What was recorded: a row per update at which it was.

    Attributes:
        step: the updates made before each row; -1 for a row that is not used.
        values: for each name what its function returned, each leaf with a leading axis of rows.
    """

    step: Int[Array | np.ndarray, " rows"]
    values: dict[str, PyTree]


def check(record: Mapping[str, Recorder] | None, every: int) -> dict[str, Recorder]:
    """The functions of `record`, none for None; raises for what cannot be recorded."""
    if record is None:
        return {}
    form = "give record={name: function of the params}"
    if not isinstance(record, Mapping):
        raise TypeError(f"{form}, got a {type(record).__name__}")
    if not record:
        raise ValueError(f"record holds no function; {form}, or leave it out")
    for name, function in record.items():
        if not isinstance(name, str) or not name or set(name) & set(".[]"):
            raise ValueError(f"record {name!r}: a name is a text without '.', '[' and ']'")
        if name in _OWN:
            raise ValueError(f"record {name!r} has a name of gradlab's own: {', '.join(_OWN)}")
        if not callable(function):
            raise TypeError(f"record {name!r} is a {type(function).__name__}; {form}")
        try:
            hash(function)
        except TypeError:
            raise TypeError(
                f"record {name!r} is a {type(function).__name__} without a hash, so its program "
                "cannot be found again; give a function that calls it"
            ) from None
    if isinstance(every, bool) or not isinstance(every, int | np.integer) or every < 1:
        raise ValueError(f"record_every must be an integer of at least 1, got {every!r}")
    return dict(record)


def evaluate(functions: Mapping[str, Recorder], params: PyTree) -> dict[str, PyTree]:
    """What each function returns, as arrays."""
    values = {}
    for name, function in functions.items():
        try:
            value = function(params)
        except Exception as error:
            error.add_note(
                f"raised by record {name!r}, a function of the params alone, which is compiled: "
                "it is to use jax.numpy, not numpy"
            )
            raise
        values[name] = jax.tree.map(partial(_number, name), value)
        if not jax.tree.leaves(value):
            raise TypeError(f"record {name!r} returns nothing; {_VALID}")
    return values


_VALID = "it must return a number, an array of numbers, or a pytree of them"


def _number(name: str, leaf: Any) -> Array:
    kind = type(leaf).__name__
    try:
        array = jnp.asarray(leaf)
    except (TypeError, ValueError):
        raise TypeError(f"record {name!r} returns a {kind}; {_VALID}") from None
    if not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool):
        raise TypeError(f"record {name!r} returns {array.dtype}; {_VALID}")
    # A row of a record has one type, on every device of a mesh with explicit axes.
    sharding = jax.typeof(array).sharding
    if any(part is not None for part in sharding.spec):
        array = jax.sharding.reshard(array, sharding.update(spec=jax.sharding.PartitionSpec()))
    return array


# The functions as pairs, since a dict is no static argument.
@partial(jax.jit, static_argnums=0)
def evaluate_once(functions: tuple[tuple[str, Recorder], ...], params: PyTree) -> dict[str, PyTree]:
    """`evaluate`, compiled once for the same functions."""
    return evaluate(dict(functions), params)


def blank(functions: Mapping[str, Recorder], params: PyTree, rows: int) -> Record | None:
    """A record with no row in use; None without functions."""
    if not functions:
        return None
    shapes = jax.eval_shape(partial(evaluate, functions), params)
    _names.flatten(shapes)  # refuses two leaves of one name
    values = jax.tree.map(lambda leaf: jnp.zeros((rows, *leaf.shape), leaf.dtype), shapes)
    return Record(jnp.full(rows, -1, jnp.int32), values)


def write(
    functions: Mapping[str, Recorder],
    every: int,
    begin: Array,
    step: Array,
    params: PyTree,
    record: Record | None,
) -> Record | None:
    """The record with a row for these parameters, if `step` is a multiple of `every`.

    `begin` is the step at which the record was blank: its multiple gets row 0.
    """
    if record is None:
        return None

    def put(record: Record) -> Record:
        row = step // every - -(-begin // every)
        now = Record(step, evaluate(functions, params))
        return jax.tree.map(lambda rows, value: rows.at[row].set(value), record, now)

    return jax.lax.cond(step % every == 0, put, lambda record: record, record)


def rows_in_use(record: Record | None, below: int | None = None) -> Record | None:
    """The rows that are used, and of updates before `below`, as NumPy arrays."""
    if record is None:
        return None
    step = np.asarray(record.step)
    mask = step >= 0 if below is None else (step >= 0) & (step < below)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[mask], record)


def add(record: Record, row: Record) -> Record:
    """The record with the rows of another after its own."""
    return jax.tree.map(lambda a, b: np.concatenate([a, b]), record, row)


def row_of(step: int, values: dict[str, PyTree]) -> Record:
    """A record of one row."""
    row = Record(np.asarray(step, np.int32), values)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[None], row)


def send(record: Record | None, sink: Sink | None) -> None:
    """Give each row to the sink, in their order."""
    if record is None or sink is None:
        return
    leaves = _names.flatten(record.values)
    for row, step in enumerate(record.step):
        sink(int(step), {name: np.asarray(leaf[row]) for name, leaf in leaves.items()})


def refuse_nan(record: Record | None) -> None:
    """Refuse a function that gives NaN before the first update: it would for ever."""
    if record is None:
        return
    for name, step in _first_nan(record):
        if step == 0:
            raise ValueError(
                f"record {name!r} is NaN at update 0, for the params that training starts from; "
                "it must return numbers there (inf and -inf are)"
            )


def warn_nan(record: Record) -> None:
    """Say of each function that turned NaN from which update on."""
    for name, step in _first_nan(record):
        warnings.warn(f"record {name!r} is NaN at update {step}", RuntimeWarning, stacklevel=3)


def _first_nan(record: Record) -> list[tuple[str, int]]:
    places = []
    for name, tree in record.values.items():
        bad = np.zeros(len(record.step), bool)
        for leaf in jax.tree.leaves(tree):
            if jnp.issubdtype(leaf.dtype, jnp.inexact):
                bad |= np.isnan(leaf).any(axis=tuple(range(1, leaf.ndim)))
        if bad.any():
            places.append((name, int(record.step[bad.argmax()])))
    return places
