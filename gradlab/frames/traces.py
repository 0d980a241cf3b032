"""What `gradlab.trace` and `gradlab.train` return, as frames."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from gradlab import _names
from gradlab.frames.schema import METRICS, RECORDS, TRACE, coerce


def frame(trace: Any) -> pd.DataFrame:
    """The trace of `gradlab.trace`, or those of `gradlab.train`, as one tidy frame.

    For each scan of `trace.scans`: a row per step for the whole state (leaf ""), and then, for a
    state of several leaves, for each leaf. A state of one leaf is that leaf, so its rows are those
    of leaf "", once. Then the rows of each tap, with leaf "". The columns are those of `TRACE`.
    `lag` is T - step, or step - 1 for a reversed scan. A scan inside others adds `outer`, its index
    in them ("0,3"); a batched trace adds `sample`; a training adds `training_step`, the updates
    made before the trace. -inf is an exact zero and NaN a norm that is not finite, as in the trace.

    Raises:
        TypeError: for anything else, such as one scan of a trace.
        ValueError: where the trace has axes of a `vmap`, where a training took no traces, and where
            rows could not be told apart: a tap has a scan's name, or a leaf's name is "".

    >>> import jax, gradlab as gl
    >>> def loss(w, xs):
    ...     return jax.lax.scan(lambda h, x: (w * h + x, None), 0.0, xs)[0]
    >>> rows = frame(gl.trace(loss)(0.5, np.ones(3)))
    >>> rows.log_norm.round(3).tolist(), rows.lag.tolist(), set(rows.leaf)
    ([-1.386, -0.693, 0.0], [2, 1, 0], {''})
    """
    if not hasattr(trace, "scans") and not hasattr(trace, "traces"):
        raise TypeError(
            "frame takes what gl.trace(loss)(...) or gl.train returned, with all of its scans; got "
            f"{type(trace).__name__}"
        )
    _check_names(trace if hasattr(trace, "scans") else trace.traces)
    if hasattr(trace, "trace_steps"):
        parts = _training_parts(trace)
    else:
        parts = [_scan_frame(record) for record in (*trace.scans, *trace.taps.values())]
    present = {name for part in parts for name in part.columns}
    optional = {"training_step", "outer", "sample", "log_param"} - present
    whole = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    return coerce(whole, TRACE, "a trace").drop(columns=sorted(optional))


def _check_names(trace: Any) -> None:
    """Refuse names that would give two rows of one meaning."""
    if trace is None:
        return
    names = {scan.name for scan in trace.scans}
    for name in trace.taps:
        if name in names:
            raise ValueError(f"a tap and a scan are both named {name!r}; give the tap another name")
    for scan in trace.scans:
        if len(scan.leaves) > 1 and "" in scan.leaves:
            raise ValueError(
                f"a leaf of the state of {scan.name} is named '', which stands for the whole "
                "state; give it another name"
            )


def _training_parts(training: Any) -> list[pd.DataFrame]:
    if training.traces is None:
        raise ValueError("this training took no traces; give train a trace_every above 0")
    parts = []
    for i, updates in enumerate(training.trace_steps):
        for record in (*training.traces.scans, *training.traces.taps.values()):
            arrays = {
                name: _row(value, i) for name, value in vars(record).items() if name != "outer"
            }
            part = _scan_frame(type(record)(**arrays, outer=record.outer))
            parts.append(part.assign(training_step=updates))
    return parts


def _row(value: Any, i: int) -> Any:
    if isinstance(value, dict):
        return {name: leaf[i] for name, leaf in value.items()}
    return value[i] if isinstance(value, np.ndarray) else value


def metrics(training: Any) -> pd.DataFrame:
    """The metrics of a `gradlab.train`: a row per update, with the columns of `METRICS` and more.

    A loss's own metrics have a column each. So has every entry of what `record=` recorded: `radius`
    for a scalar, `norms.bias` for a leaf of a pytree, `values[0,3]` for an entry of an array, and
    `values[0,3].real` and `.imag` for one of a complex array. They stand in the row of the updates
    made before, so a training with records begins with a row 0 that has no loss; NaN where nothing
    was recorded. `records` has the same in long form.

    Raises:
        ValueError: where two columns would have one name.

    >>> import jax, optax, gradlab as gl
    >>> loss = lambda w, x: (w - x) ** 2
    >>> run = gl.train(loss, 0.0, lambda key, step: 1.0, optax.sgd(0.25), steps=2,
    ...                key=jax.random.key(0))
    >>> metrics(run)[["training_step", "loss"]].values.tolist()
    [[1.0, 1.0], [2.0, 0.25]]
    """
    table = pd.DataFrame({name: np.asarray(v, np.float64) for name, v in training.metrics.items()})
    table.insert(0, "training_step", np.arange(1, len(table) + 1))
    record_columns = _record_columns(training)
    if len(record_columns):
        table = table.merge(record_columns, "outer", "training_step").sort_values("training_step")
        table = table.reset_index(drop=True)
    others = [str(name) for name in table.columns if name not in METRICS]
    table = table.reindex(columns=[*METRICS, *others])
    return table.astype({name: column.dtype for name, column in METRICS.items()})


def records(training: Any) -> pd.DataFrame:
    """What `record=` recorded in a `gradlab.train`, a row per update, name and entry.

    The columns are those of `RECORDS`, `value` and `imag` being the two parts of a complex number.
    Empty for a training without records. NaN and inf stand as they were returned.

    >>> import jax, jax.numpy as jnp, optax, gradlab as gl
    >>> loss = lambda w, x: ((w - x) ** 2).sum()
    >>> run = gl.train(loss, jnp.zeros(2), lambda key, step: jnp.arange(2), optax.sgd(0.25),
    ...                steps=2, key=jax.random.key(0), record={"w": lambda w: w})
    >>> records(run)[["training_step", "name", "index", "value"]].values.tolist()[1:]
    [[0, 'w', '1', 0.0], [2, 'w', '0', 0.0], [2, 'w', '1', 0.75]]
    """
    steps = np.asarray(training.record_steps)
    parts = [
        pd.DataFrame(
            {
                "training_step": np.repeat(steps, len(places)),
                "name": name,
                "index": np.tile(np.array(places, dtype=object), len(steps)),
                "value": np.real(values).reshape(-1),
                "imag": np.imag(values).reshape(-1) if np.iscomplexobj(values) else np.nan,
            }
        )
        for name, places, values in _entries(training.records)
    ]
    whole = pd.concat(parts, ignore_index=True) if parts else []
    frame = coerce(whole, RECORDS, "records")
    return frame.sort_values("training_step", kind="stable", ignore_index=True)


def _record_columns(training: Any) -> pd.DataFrame:
    """A row per update that was recorded, a column per entry; no row without records."""
    columns: dict[str, np.ndarray] = {"training_step": np.asarray(training.record_steps)}
    for name, places, values in _entries(training.records):
        is_complex = np.iscomplexobj(values)
        both = {".real": np.real(values), ".imag": np.imag(values)}
        parts = both if is_complex else {"": values}
        for column, place in enumerate(places):
            for end, part in parts.items():
                label = (f"{name}[{place}]" if place else name) + end
                if label in columns or label in training.metrics:
                    raise ValueError(f"two columns are named {label!r}; give its record another")
                columns[label] = part[:, column]
    return pd.DataFrame(columns)


def _entries(records: Mapping[str, Any]) -> Iterator[tuple[str, list[str], np.ndarray]]:
    """Each leaf of the records: its name, where its entries stand, and a row of them per update."""
    for name, leaf in _names.flatten(records).items():
        values = np.asarray(leaf)
        kind = np.complex128 if np.iscomplexobj(values) else np.float64
        places = [",".join(map(str, place)) for place in np.ndindex(*values.shape[1:])]
        yield name, places, values.astype(kind).reshape(len(values), -1)


def _scan_frame(scan: Any) -> pd.DataFrame:
    total = np.asarray(scan.log_norm, dtype=np.float64)
    outer = tuple(scan.outer)
    batched = bool(scan.batched)
    if total.ndim != len(outer) + 1 + batched:
        raise ValueError(
            f"frame takes one trace, and this one has more axes, {total.shape}, than a scan of "
            f"{scan.length} steps; take one out first: jax.tree.map(lambda x: x[0], out)"
        )
    index = np.indices(total.shape).reshape(total.ndim, -1)
    step = index[len(outer)] + 1
    common: dict[str, Any] = {"scan": scan.name}
    if outer:
        places = [",".join(map(str, place)) for place in np.ndindex(*outer)]
        common["outer"] = np.repeat(np.array(places, dtype=object), total.size // len(places))
    if batched:
        common["sample"] = index[-1]
    common["step"] = step
    common["lag"] = step - 1 if scan.reverse else scan.length - step
    # Taps have no leaves, and a single leaf is the whole state: no rows besides the total.
    leaves = getattr(scan, "leaves", {})
    rows = {
        name: {
            "log_norm": norms,
            "log_direct": scan.leaves_direct[name],
            "log_transported": scan.leaves_transported[name],
        }
        for name, norms in leaves.items()
        if len(leaves) > 1
    }
    whole: dict[str, Any] = {"log_norm": total}
    if hasattr(scan, "log_direct"):
        whole |= {"log_direct": scan.log_direct, "log_transported": scan.log_transported}
    contribution = getattr(scan, "log_param", None)
    if contribution is not None:
        per_step = np.asarray(contribution, dtype=np.float64)
        whole["log_param"] = per_step[..., None] + np.zeros(total.shape) if batched else per_step
    parts = [
        pd.DataFrame(
            common
            | {"leaf": leaf}
            | {name: np.asarray(v, dtype=np.float64).reshape(-1) for name, v in columns.items()}
        )
        for leaf, columns in ({"": whole} | rows).items()
    ]
    return pd.concat(parts, ignore_index=True)
