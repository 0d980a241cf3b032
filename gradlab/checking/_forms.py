"""Run one form of a model, and bring what it recorded into one layout, in float64 on the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradlab.tracing import ScanTrace, TapTrace, trace


class Leaf(NamedTuple):
    """One leaf of a state at all steps: states and units (T, samples, entries), logs (T, samples).

    A tap has no states, and of its adjoints only the norms.
    """

    shape: tuple[int, ...]  # of the leaf, without the axis of the samples
    logs: np.ndarray  # ln of the norm of the adjoint; NaN where it is not known
    back: np.ndarray  # the same of its transported part
    states: np.ndarray | None = None
    units: np.ndarray | None = None  # the adjoint over its norm; 0 for an adjoint of 0

    def map(self, take: Callable[[np.ndarray], np.ndarray]) -> Leaf:
        """The leaf with `take` of each of its arrays."""
        return self._replace(
            logs=take(self.logs),
            back=take(self.back),
            states=None if self.states is None else take(self.states),
            units=None if self.units is None else take(self.units),
        )


class Recurrence(NamedTuple):
    """The states of one recurrence in the order in which they are computed."""

    name: str
    source: int  # its scan or tap, counted in program order
    merged: bool  # whether the scans around it count into its steps, as chunks do
    steps: np.ndarray  # (T,), the number of each row in the program, from 1
    length: int  # of all steps, of which `steps` may be a part
    chunks: np.ndarray  # (T,), the index of each row in the scans around it; 0 where not merged
    leaves: dict[str, Leaf]

    def take(self, rows: Any) -> Recurrence:
        """The recurrence at some of its steps."""
        leaves = {name: leaf.map(lambda x: x[rows]) for name, leaf in self.leaves.items()}
        return self._replace(steps=self.steps[rows], chunks=self.chunks[rows], leaves=leaves)


class Record(NamedTuple):
    """What one form gave."""

    value: np.ndarray
    grads: dict[str, np.ndarray]
    recurrences: list[Recurrence]
    names: dict[int, str]  # of each scan and tap
    epsilon: float  # of the narrowest float that a recurrence carries
    blind: str  # why no recurrence could be seen, "" where that is not so


def runner(
    what: str,
    form: Callable[..., Any],
    argnums: Any,
    has_aux: bool,
    batch_axis: int | None,
) -> Callable[..., Record]:
    """A function with the arguments of a form that runs it; `what` names the form in messages."""
    trace_form = trace(
        form, argnums, has_aux, batch_axis, measure=lambda state, adjoint: (state, adjoint)
    )

    def run(*args: Any, **kwargs: Any) -> Record:
        try:
            out = trace_form(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"the {what} form of the model: {error}") from error
        except ValueError as error:
            if "argnums=" in str(error) or "batch_axis=" in str(error):
                raise ValueError(f"the {what} form of the model: {error}") from error
            return _without_states(
                str(error).partition(": ")[0], form, argnums, has_aux, args, kwargs
            )
        out = jax.device_get(out)
        recurrences, names = [], {}
        for source, record in enumerate((*out.scans, *out.taps.values())):
            names[source] = record.name
            recurrences += _recurrences(source, record, batch_axis)
        states = [x.dtype for scan in out.scans for x in jax.tree.leaves(scan.measured)]
        return Record(
            np.asarray(out.value, np.float64),
            _by_path(out.grads),
            recurrences,
            names,
            max((float(jnp.finfo(dtype).eps) for dtype in states), default=0.0),
            "",
        )

    return run


def _without_states(
    reason: str, form: Any, argnums: Any, has_aux: bool, args: Any, kwargs: Any
) -> Record:
    if isinstance(argnums, tuple | list) and not argnums:
        out, grads = form(*args, **kwargs), None
    else:
        out, grads = jax.value_and_grad(form, argnums, has_aux)(*args, **kwargs)
    value = out[0] if has_aux else out
    return Record(np.asarray(value, np.float64), _by_path(grads), [], {}, 0.0, reason)


def _by_path(grads: Any) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(grads))
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): _wide(leaf) for path, leaf in leaves
    }


def _wide(x: Any) -> np.ndarray:
    return np.asarray(x, np.complex128 if np.iscomplexobj(x) else np.float64)


def _recurrences(source: int, record: Any, axis: int | None) -> list[Recurrence]:
    """Each scan inside others as one for each of their steps (layers), and as a whole (chunks)."""
    outer = record.outer
    leaves = dict(_leaves(record, axis))
    count = int(np.prod(outer))

    def collect(index: Any, rows: int) -> dict[str, Leaf]:
        def take(x: np.ndarray) -> np.ndarray:
            flat = x.reshape(count, record.length, *x.shape[len(outer) + 1 :])[index]
            flat = flat.reshape(rows, *x.shape[len(outer) + 1 :])
            return flat[::-1] if record.reverse else flat

        return {name: leaf.map(take) for name, leaf in leaves.items()}

    def numbers(rows: int) -> np.ndarray:
        steps = np.arange(1, rows + 1)
        return steps[::-1] if record.reverse else steps

    single = np.zeros(record.length, int)
    recurrences = [
        Recurrence(
            record.name if not outer else f"{record.name} [{','.join(map(str, place))}]",
            source,
            False,
            numbers(record.length),
            record.length,
            single,
            collect(i, record.length),
        )
        for i, place in enumerate(np.ndindex(*outer))
    ]
    if outer:
        rows = count * record.length
        steps = numbers(rows)
        chunks = (steps - 1) // record.length
        recurrences.append(
            Recurrence(record.name, source, True, steps, rows, chunks, collect(slice(None), rows))
        )
    return recurrences


def _leaves(record: Any, axis: int | None) -> Any:
    lead = len(record.outer) + 1
    samples = (1,) if axis is None else ()

    def rows(x: Any) -> np.ndarray:
        return np.asarray(x, np.float64).reshape(*x.shape, *samples)

    if isinstance(record, TapTrace):
        logs = rows(record.log_norm)
        yield record.name, Leaf((), logs, np.full_like(logs, np.nan))
        return
    assert isinstance(record, ScanTrace)
    # A leaf alone comes without its name; one that is not observed has adjoints of 0.
    some = [name for name, log in record.leaves.items() if not np.isneginf(log).all()]
    only = next(iter(some or record.leaves))
    states, adjoints = (
        each if isinstance(each, dict) else {only: each} for each in record.measured
    )
    scale = rows(record.log_scale)
    # Where no gradient comes by, nobody looks at the states.
    is_unseen = (np.asarray(record.first_nonfinite_state) < 0).all()
    for name in states:
        state, adjoint = (_samples(each[name], lead, axis) for each in (states, adjoints))
        norms = norm(adjoint)
        safe = np.where(norms > 0, norms, 1)
        with np.errstate(divide="ignore"):
            logs = np.log(norms) + scale
        log_norms = rows(record.leaves[name])
        shape = states[name].shape[lead:]
        leaf = Leaf(
            shape if axis is None else tuple(np.delete(shape, axis)),
            logs=np.where(np.isnan(log_norms), np.nan, logs),
            back=rows(record.leaves_transported[name]),
            states=None if is_unseen else state,
            units=adjoint / safe[..., None],
        )
        yield name, leaf


def _samples(x: np.ndarray, lead: int, axis: int | None) -> np.ndarray:
    """(outer, T, ...) as (outer, T, samples, entries)."""
    x = _wide(x)
    if axis is None:
        return x.reshape(*x.shape[:lead], 1, -1)
    x = np.moveaxis(x, lead + axis % (x.ndim - lead), lead)
    return x.reshape(*x.shape[: lead + 1], -1)


def norm(x: np.ndarray) -> np.ndarray:
    """The 2-norm along the last axis, also where squares leave the float's range."""
    top = np.max(np.abs(x), axis=-1, initial=0)
    unit = np.where((top > 0) & np.isfinite(top), top, 1)
    with np.errstate(invalid="ignore"):
        return unit * np.sqrt(np.sum(np.abs(x / unit[..., None]) ** 2, axis=-1))
