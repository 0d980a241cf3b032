"""The check and its report."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from gradlab import _show
from gradlab.checking import _pairs, _rounding
from gradlab.checking._forms import Record, norm, runner

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One quantity of the two forms. Arrays are (T, samples) in the order of computation.

    For the value and a gradient they are (1, 1). Norms are 2-norms over the entries.

    Attributes:
        quantity: "value", "gradient", "state" or "adjoint".
        recurrence: the plain form's scan or tap; "" for the value and a gradient.
        partner: the fast form's.
        leaf: of the state, or the path of a gradient in the arguments.
        steps: the number of each row, from 1; 0 for the value and a gradient.
        log_plain: ln of the norm in the plain form, nats.
        log_fast: the same in the fast form.
        difference: norm of the difference over the plain form's norm; NaN where unknown.
        allowed: the largest difference that rounding explains.
        length: the number of all steps of the recurrence.
        place: where a gradient differs most, for the text.
    """

    quantity: str
    recurrence: str
    partner: str
    leaf: str
    steps: np.ndarray
    log_plain: np.ndarray
    log_fast: np.ndarray
    difference: np.ndarray
    allowed: np.ndarray
    length: int = 0
    place: str = ""

    @property
    def parts(self) -> np.ndarray:
        """Where the forms are further apart than rounding explains."""
        return self.difference > self.allowed

    @property
    def first(self) -> int:
        """The row where they part first, in the order in which the quantity is computed."""
        rows = np.flatnonzero(self.parts.any(axis=1))
        return int(rows[-1] if self.quantity == "adjoint" else rows[0])


@dataclasses.dataclass(frozen=True)
class Report:
    """What `check` found.

    Attributes:
        ok: whether nothing parts by more than rounding explains. It is also the report's truth
            value.
        comparisons: the value, each gradient, and each leaf's states and adjoints.
        skipped: what could not be compared, and why, a line each.
        batched: whether the arrays count samples.
    """

    comparisons: tuple[Comparison, ...]
    skipped: tuple[str, ...]
    batched: bool = False

    @property
    def ok(self) -> bool:
        """Whether nothing parts by more than rounding explains."""
        return not any(each.parts.any() for each in self.comparisons)

    def __bool__(self) -> bool:
        return self.ok

    @property
    def frame(self) -> pd.DataFrame:
        """All comparisons as a frame with the columns of `gradlab.frames.CHECK`."""
        from gradlab import frames

        return frames.check_frame(self)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        frame = self.frame
        return f"<pre>{_show.escape(self)}</pre>{frame.head(_ROWS).to_html(index=False, border=0)}"

    def __str__(self) -> str:
        lines = [f"not compared: {line}" for line in self.skipped]
        if self.ok:
            part = ", as far as they are compared" if self.skipped else ""
            return "\n".join([f"the two forms agree to rounding{part}", *lines])
        apart = [each for each in self.comparisons if each.parts.any()]
        cause = _cause(apart)
        others = [_describe(each) for each in apart if each is not cause]
        first = f"the two forms part first in {_describe(cause)}"
        return "\n".join([first, *(f"also: {other}" for other in others), *lines])


# Next to the smallest float, rounding is no longer relative.
_TINY = float(np.finfo(np.float32).tiny / np.finfo(np.float32).eps)
_LOG_TINY = math.log(_TINY)
# Rows of the frame that a notebook shows.
_ROWS = 5


def _cause(apart: Sequence[Comparison]) -> Comparison:
    """The comparison whose parting the others may follow from.

    States come from earlier states, of recurrences that are earlier in the program; adjoints from
    later ones; gradients from both.
    """
    for quantity, order in (("state", 1), ("adjoint", -1), ("gradient", 1), ("value", 1)):
        mine = [each for each in apart if each.quantity == quantity][::order]
        if mine:
            rank = [each for each in mine if each.recurrence == mine[0].recurrence]
            return min(rank, key=lambda each: order * each.first)
    raise AssertionError


def _describe(each: Comparison) -> str:
    if not each.recurrence:
        rows, step = (0, 0), ""
        what = each.quantity + (f" of {each.leaf}" if each.leaf else "") + each.place
    else:
        row = each.first
        rows = row, int(np.argmax(each.parts[row]))
        sample = f", sample {rows[1]}" if each.parts.shape[1] > 1 else ""
        step = f" at step {each.steps[row]} of {each.length}{sample}, of"
        what = f"{each.quantity}{step} leaf {each.leaf!r} of {each.recurrence}"
    norms = f"ln of the norm {each.log_fast[rows]:.6g} for {each.log_plain[rows]:.6g}"
    by = f"{each.difference[rows]:.2g} of its norm, {each.allowed[rows]:.2g} allowed; {norms}"
    partner = f", against {each.partner}" if each.partner else ""
    return f"the {what}{partner}: by {by}"


def check(
    fast: Callable[..., Any],
    plain: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    batch_axis: int | None = None,
    *,
    rtol: float | None = None,
) -> Callable[..., Report]:
    """Hold two forms of one model against each other: value, gradients, each state and adjoint.

    The fast form is a kernel, a parallel or chunked form, or the code of another library; the
    plain one is its yardstick, such as a `lax.scan` over single steps. Both are losses as
    `gradlab.trace` takes them, and are traced on the same arguments.

    A quantity q (the value, the gradient by one leaf, one leaf's state h_t or adjoint dL/dh_t) of
    the two forms parts where, in 2-norms over its entries,

        |q_fast - q|  >  4 (ε + √T ε_h) |q|  +  4 max_k |q(x (1 + ε r_k)) - q|,   q = q_plain(x).

    The first term is the rounding on the way: ε is the machine epsilon of the narrowest float in
    which `plain` computes, ε_h that of the floats that its recurrences carry from step to step, and
    T the number of their steps, whose errors add up as independent ones. The second is how much
    the model magnifies it: four runs of `plain` with its arguments, and the arrays that it closes
    over, disturbed by ε, with independent signs r_k (whole numbers stay, since they may be flags).
    Neither ε is below that of the arguments, or of float32. Where `fast` computes in narrower
    floats than `plain` does, it parts. Adjoints are compared by norm and direction, in the log
    domain: a difference at e^-5000 is seen. Products of matrices run in the precision of their
    operands (no TF32). A gradient of three or more axes is that of a stack, as of layers: the above
    holds for each entry of the first axis, lest a large one hides the others, and the one furthest
    apart is shown.

    Recurrences are paired by length, by the sizes of the leaves of their state, and by how well
    they fit. The fast form may be a parallel scan, with or without the state before the first step
    among its elements; a scan inside one over chunks, or over layers that the plain form has one by
    one; filled up to a whole number of chunks; or only have the states between chunks. A leaf that
    differs from the first step on, while the value and all gradients agree, is taken for another
    quantity (the logarithm of the state, or the state without the part of h_0).

    What has no counterpart, or cannot be seen (a kernel), is named in `report.skipped`. Where
    rounding alone may change a state by as much as itself, as in a chaotic network, nothing that
    follows from it is compared, which is said there too. A record that is NaN since `trace` does
    not know it is not compared; a NaN in a value, gradient or state is a difference unless both
    forms have it.

    Args:
        fast: the form to check, a loss.
        plain: the form that is right, a loss of the same arguments.
        argnums: as in `gradlab.trace`; () compares no gradients.
        has_aux: whether both return (loss, aux); aux is not compared.
        batch_axis: the axis of samples in the states of both, each of which is then compared by
            itself; as in `gradlab.trace`.
        rtol: a relative difference to allow instead of the above.

    Returns:
        A function with the arguments of the losses that returns a `Report`: `report.ok`,
        `report.frame`, and `str(report)`, which names the step and leaf where they part first, and
        by how much. States part forwards, adjoints backwards: there the first is the last step.

    Raises:
        TypeError: where a form does not return a real scalar.
        ValueError: for `argnums` or `batch_axis` that a form has not, or a negative `rtol`.

    Example:
        >>> import jax, jax.numpy as jnp, gradlab as gl
        >>> cell = gl.cells.min_gru(inputs=2, hidden=3)
        >>> def plain(params, xs):
        ...     step = lambda h, x: (cell.step(params, h, x), None)
        ...     return jnp.sum(jax.lax.scan(step, cell.start(), xs)[0] ** 2)
        >>> def fast(params, xs):
        ...     return jnp.sum(gl.cells.parallel(cell)(params, cell.start(), xs)[-1] ** 2)
        >>> def detached(params, xs):
        ...     halves = jnp.split(xs, 2)
        ...     h = gl.cells.parallel(cell)(params, cell.start(), halves[0])[-1]
        ...     h = jax.lax.stop_gradient(h)
        ...     return jnp.sum(gl.cells.parallel(cell)(params, h, halves[1])[-1] ** 2)
        >>> params, xs = cell.init(jax.random.key(0)), jnp.linspace(-1, 1, 16).reshape(8, 2)
        >>> gl.check(fast, plain)(params, xs).ok
        True
        >>> print(gl.check(detached, plain)(params, xs))
        the two forms part first in ...
    """
    if rtol is not None and not rtol >= 0:
        raise ValueError(f"rtol={rtol}: a relative difference of at least 0 is needed")
    run_plain = runner("plain", plain, argnums, has_aux, batch_axis)
    run_fast = runner("fast", fast, argnums, has_aux, batch_axis)

    @functools.wraps(plain)
    def compare(*args: Any, **kwargs: Any) -> Report:
        with jax.default_matmul_precision("highest"):
            right = run_plain(*args, **kwargs)
            other = run_fast(*args, **kwargs)
            noise: list[Record] = []
            epsilon = floor = 0.0
            if rtol is None:
                epsilon, floor = _rounding.epsilons(plain, args, kwargs)
                near, constants = _rounding.open_form(plain, args, kwargs)
                run_near = run_plain
                if constants:
                    run_near = runner("plain", near, argnums, False, batch_axis)
                eta, draws = _rounding.disturb_args(args, {**kwargs, **constants}, epsilon)
                noise = [run_near(*near_args, **near_kwargs) for near_args, near_kwargs in draws]
            else:
                eta = 1.0
        lengths = [len(each.steps) for each in (*right.recurrences, *other.recurrences)]
        rounding = epsilon + max([1, *lengths]) ** 0.5 * max(right.epsilon, floor)
        relative = _rounding.SAFETY * rounding if rtol is None else rtol
        bounds = _Bounds(relative, _rounding.SAFETY * epsilon / eta, noise)
        return _report(other, right, bounds, batch_axis is not None)

    return compare


@dataclasses.dataclass(frozen=True)
class _Bounds:
    """The allowance: a part of the norm, and a multiple of what disturbed arguments change."""

    relative: float
    factor: float
    noise: list[Record]

    def __call__(self, size: Any, change: Callable[[Record], Any]) -> np.ndarray:
        changes = [np.nan_to_num(change(each), nan=0, posinf=np.inf) for each in self.noise]
        largest = functools.reduce(np.maximum, changes) if changes else np.zeros_like(size)
        return self.relative * np.asarray(size) + self.factor * largest


def _report(fast: Record, plain: Record, bounds: _Bounds, batched: bool) -> Report:
    numbers = [_number("value", "", fast, plain, bounds, lambda record: record.value)]
    for name in plain.grads:
        read = functools.partial(lambda record, name: record.grads[name], name=name)
        numbers.append(_number("gradient", name, fast, plain, bounds, read))
    pairs = _pairs.pair(fast, plain)
    # The error of a gradient that is not there is no rounding, however much rounding may do.
    numbers = [
        dataclasses.replace(each, allowed=np.zeros_like(each.allowed))
        if _is_detached(each)
        else each
        for each in numbers
    ]
    leaves = [
        (pair, name, *_leaf(index, pair, name, bounds))
        for index, pair in pairs.items()
        for name in pair.leaves
    ]
    skipped = list(_name_unpaired(fast, plain, pairs))
    chaotic = [_is_chaotic(state) for *_, state, _ in leaves]
    if any(chaotic):
        state = leaves[chaotic.index(True)][2]
        skipped.append(
            f"value, gradients, adjoints and later states, since rounding alone may change leaf "
            f"{state.leaf!r} of {state.recurrence} by as much as itself from step "
            f"{state.steps[_chaotic_rows(state)[0]]} on"
        )
        hidden = [not _is_detached(each) for each in numbers]
    else:
        hidden = [_is_unknown(each) for each in numbers]
        skipped += [
            f"the {each.quantity}{f' of {each.leaf}' if each.leaf else ''}, since rounding alone "
            "may change it by as much as itself"
            for each in itertools.compress(numbers, hidden)
        ]
    numbers = [
        _forget(each, 0) if hides else each for each, hides in zip(numbers, hidden, strict=True)
    ]
    agree = not any(hidden) and not any(each.parts.any() for each in numbers)
    steps = []
    for pair, name, state, adjoint in leaves:
        if any(chaotic):
            rows = _chaotic_rows(state)
            state = _forget(state, rows[0] if len(rows) else len(state.steps))
            adjoint = _forget(adjoint, 0)
        elif agree and _is_other(pair, name, state):
            skipped.append(
                f"leaf {name!r} of {pair.plain.name} and leaf {pair.leaves[name][0]!r} of "
                f"{pair.fast.name}, which differ from the first step on, while the value and "
                "the gradients agree: they are not the same quantity"
            )
            continue
        steps += [each for each in (state, adjoint) if not np.isnan(each.allowed).all()]
    return Report((*numbers, *steps), tuple(skipped), batched)


def _chaotic_rows(state: Comparison) -> np.ndarray:
    """Where rounding alone could change a state by as much as itself."""
    return np.flatnonzero(((state.allowed >= 1) & np.isfinite(state.log_plain)).any(axis=1))


def _is_chaotic(state: Comparison) -> bool:
    # A state may pass close to 0 at a few steps.
    return 10 * len(_chaotic_rows(state)) >= max(10, len(state.steps))


def _is_unknown(number: Comparison) -> bool:
    """Whether rounding alone could change a value or a gradient by as much as itself."""
    return bool(((number.allowed >= 1) & np.isfinite(number.log_plain)).any())


def _is_detached(number: Comparison) -> bool:
    """Whether the fast form's gradient is exactly zero: no rounding makes all of its entries so."""
    is_zero = np.isneginf(number.log_fast) & (number.log_plain > _LOG_TINY)
    return number.quantity == "gradient" and bool(is_zero.all())


def _forget(each: Comparison, row: int) -> Comparison:
    """The comparison without a difference from that row on."""
    earlier = np.arange(len(each.steps))[:, None] < row
    return dataclasses.replace(each, difference=np.where(earlier, each.difference, np.nan))


def _number(
    quantity: str,
    leaf: str,
    fast: Record,
    plain: Record,
    bounds: _Bounds,
    read: Callable[[Record], np.ndarray],
) -> Comparison:
    shape: tuple[int, ...] = read(plain).shape
    is_stack = quantity == "gradient" and len(shape) > 2 and 0 not in shape
    rows = len(read(plain)) if is_stack else 1

    def split(record: Record) -> np.ndarray:
        return read(record).reshape(rows, -1)

    one, other = split(plain), split(fast)
    size = norm(np.where(np.isfinite(one), one, 0))
    allowed = _over(bounds(size, lambda record: _pairs.distance(split(record), one)), size)
    difference = _over(_pairs.distance(other, one), size)
    # A row that parts says more than one that rounding hides, and this more than one that agrees.
    row = max(range(rows), key=lambda i: (
        difference[i] > allowed[i], allowed[i] >= 1, _over(difference[i], allowed[i])
    ))  # fmt: skip
    place = ""
    if one.size > 1:
        apart = _pairs.distance(other[row, :, None], one[row, :, None])
        index = np.unravel_index(row * one.shape[1] + int(np.argmax(apart)), shape)
        place = f" (most at [{', '.join(map(str, index))}])"
    at = (slice(row, row + 1), None)
    return Comparison(
        quantity=quantity,
        recurrence="",
        partner="",
        leaf=f"{leaf}[{row}]" if is_stack else leaf,
        steps=np.zeros(1, int),
        log_plain=_log(norm(one))[at],
        log_fast=_log(norm(other))[at],
        difference=difference[at],
        allowed=allowed[at],
        place=place,
    )


def _leaf(
    index: int, pair: _pairs.Pair, name: str, bounds: _Bounds
) -> tuple[Comparison, Comparison]:
    _, fast, plain, gap = pair.leaves[name]
    rows = pair.rows

    def change(record: Record) -> _pairs.Gap:
        return _pairs.compare(record.recurrences[index].take(rows.plain).leaves[name], plain)

    labels = pair.plain.name, pair.fast.name, name
    if plain.states is None or fast.states is None:
        size = np.full_like(gap.adjoint, np.nan)
        logs = size, size
    else:
        size = norm(np.where(np.isfinite(plain.states), plain.states, 0))
        logs = _log(norm(plain.states)), _log(norm(fast.states))
    allowance = bounds(size, lambda record: change(record).state) + _TINY
    state = Comparison(
        "state",
        *labels,
        pair.plain.steps,
        *logs,
        _over(gap.state, size),
        _over(allowance, size),
        pair.plain.length,
    )
    adjoint = Comparison(
        "adjoint", *labels, pair.plain.steps, plain.logs, fast.logs, gap.adjoint,
        bounds(np.ones_like(gap.adjoint), lambda record: change(record).adjoint), pair.plain.length,
    )  # fmt: skip
    return state, adjoint


def _over(x: np.ndarray, size: np.ndarray) -> np.ndarray:
    """x / size, and for a size of 0 that is infinite, or 0 for 0."""
    safe = np.where(size == 0, 1, size)
    return np.where((size == 0) & (x > 0), np.inf, x / safe)


def _log(size: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(size)


def _is_other(pair: _pairs.Pair, name: str, state: Comparison) -> bool:
    """Whether the fast leaf stands for something else than the state: see `check`."""
    parts = state.parts
    if not parts[0].any():
        return False
    if parts.any(axis=1).all():
        return True
    size = np.exp(np.where(np.isfinite(state.log_plain), state.log_plain, 0))
    allowance = np.where(np.isfinite(state.allowed), state.allowed * size, 0)
    return _pairs.is_offset(pair, name, allowance)


def _name_unpaired(fast: Record, plain: Record, pairs: dict[int, _pairs.Pair]) -> Iterator[str]:
    """Name what has no counterpart."""
    for what, record in (("fast", fast), ("plain", plain)):
        if record.blind:
            yield f"states and adjoints, since the {what} form shows none ({record.blind})"
            return
    sources = {
        "fast": {pair.fast.source for pair in pairs.values()},
        "plain": {pair.plain.source for pair in pairs.values()},
    }
    for what, record in (("fast", fast), ("plain", plain)):
        for source, name in record.names.items():
            if source not in sources[what]:
                yield f"{name} of the {what} form, which has no counterpart in the other"
    for pair in pairs.values():
        partners = {match[0] for match in pair.leaves.values()}
        for what, recurrence, leaves in (
            ("fast", pair.fast, partners), ("plain", pair.plain, set(pair.leaves))
        ):  # fmt: skip
            for name in recurrence.leaves:
                if name not in leaves:
                    yield (
                        f"leaf {name!r} of {recurrence.name} of the {what} form, which has no "
                        "counterpart in the other"
                    )
