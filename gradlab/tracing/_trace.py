"""The transformation and what it returns."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import operator
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradlab import _show
from gradlab._names import show
from gradlab.tracing import _jaxpr, _norms
from gradlab.tracing._changes import Changes
from gradlab.tracing._record import Options, Slots
from gradlab.tracing._stacks import partial_taps
from gradlab.tracing._unseen import refusal, unseen
from gradlab.tracing._walk import Site, Walk


@dataclasses.dataclass(frozen=True, repr=False)
class ScanTrace:
    """What one scan's backward pass recorded; natural logarithms, an exact zero is -inf.

    Arrays have shape (*outer, T), or (*outer, T, batch) where `batch_axis` was given; row t-1
    belongs to the state after input t, whichever way the scan runs. Unit: nats.

    Attributes:
        name: where the scan stands in the user's source, "file.py:line (function)"; " #2" and so
            on follow where several scans of the program stand on one line.
        length: T, the number of steps.
        reverse: whether the scan runs from the last row to the first.
        outer: lengths of the scans around this one, outermost first. A shard_map around it counts
            as one more, of as many rows as it has devices: each shard's part of the state.
        batched: whether the last axis of the arrays counts samples.
        log_norm: ln|lambda_t|, the total derivative of the loss by the state h_t.
        log_direct: ln|dL/dh_t|, what the loss reads from step t's own outputs; at the last step
            this includes what reads the final state.
        log_transported: ln|J_{t+1}^T lambda_{t+1}|, what comes back from the later steps.
        leaves: ln|lambda_t| of each float leaf of the state, by its path in the carry, or by its
            place among the elements of a parallel scan.
        leaves_direct: the direct part of each leaf.
        leaves_transported: the transported part of each leaf.
        log_param: with `log_param`, ln|(df/dc)^T lambda_t|, the norm of step t's own contribution
            to the gradient of what the scan closes over, (*outer, T); else None.
        log_scale: s_t of the unit exp(s_t) in which `measure` saw the adjoint; 0 as long as the
            adjoint stays well inside the float's range.
        measured: the results of `measure`, each stacked to (*outer, T, ...); () without it. NaN (or
            0, for whole numbers) where no gradient reaches the scan: its states are not seen then.
        first_nonfinite_state: the first step t whose state has an entry that is not finite, 0 where
            all are, -1 where no gradient reaches the scan; (*outer,) or (*outer, batch).
        first_nonfinite_adjoint: the step of the first such adjoint, counted in the order of the
            backward pass (the largest t, for a scan that runs forwards), or of the first that is
            NaN since it cannot be known; 0 where all are finite.
    """

    name: str
    length: int
    reverse: bool
    outer: tuple[int, ...]
    batched: bool
    log_norm: jax.Array
    log_direct: jax.Array
    log_transported: jax.Array
    leaves: dict[str, jax.Array]
    leaves_direct: dict[str, jax.Array]
    leaves_transported: dict[str, jax.Array]
    log_param: jax.Array | None
    log_scale: jax.Array
    measured: Any
    first_nonfinite_state: jax.Array
    first_nonfinite_adjoint: jax.Array

    def __repr__(self) -> str:
        return _show.text(f"scan {self.name}", self._facts())

    def _repr_html_(self) -> str:
        drawing = _show.sparkline(self.log_norm, self.batched)
        return _show.table(f"scan {self.name}", self._facts(), drawing)

    def _facts(self) -> list[tuple[str, str]]:
        parts = {
            "ln|total| (nats)": self.log_norm,
            "ln|direct|": self.log_direct,
            "ln|transported|": self.log_transported,
        }
        rows = [("steps", _steps(self))]
        rows += [(name, _show.curve(x, self.length, self.batched)) for name, x in parts.items()]
        rows.append(("leaves", ", ".join(self.leaves)))
        for name in ("first_nonfinite_state", "first_nonfinite_adjoint"):
            steps = _show.values(getattr(self, name))
            if steps is not None and (steps > 0).any():
                what = (
                    f"step {steps:.0f}"
                    if not steps.ndim
                    else f"in {np.count_nonzero(steps > 0)} of {steps.size}"
                )
                rows.append((name.replace("_", " "), what))
        return rows


# The rows of each leaf of the state, and those of the state itself.
_OF_LEAVES = {
    "leaves": "log_norm",
    "leaves_direct": "log_direct",
    "leaves_transported": "log_transported",
}
_STATIC = ("name", "length", "reverse", "outer", "batched")
_TRACED = tuple(f.name for f in dataclasses.fields(ScanTrace) if f.name not in _STATIC)


def _flatten(scan: ScanTrace) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
    """The children of a scan as a pytree, and the rest.

    Without those of a lone leaf: its rows are the state's, and a compiled program writes an array
    out as often as it is a child.
    """
    lone = tuple(scan.leaves) if len(scan.leaves) == 1 else ()
    names = [name for name in _TRACED if not (lone and name in _OF_LEAVES)]
    children = [(jax.tree_util.GetAttrKey(name), getattr(scan, name)) for name in names]
    return children, (lone, *(getattr(scan, name) for name in _STATIC))


def _unflatten(rest: tuple[Any, ...], children: Iterable[Any]) -> ScanTrace:
    lone, *static = rest
    names = [name for name in _TRACED if not (lone and name in _OF_LEAVES)]
    fields = dict(zip((*_STATIC, *names), (*static, *children), strict=True))
    for name, whole in _OF_LEAVES.items() if lone else ():
        fields[name] = {lone[0]: fields[whole]}
    return ScanTrace(**fields)


jax.tree_util.register_pytree_with_keys(ScanTrace, _flatten, _unflatten)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["log_norm"],
    meta_fields=["name", "length", "reverse", "outer", "batched"],
)
@dataclasses.dataclass(frozen=True, repr=False)
class TapTrace:
    """What a tap recorded, in the layout of a `ScanTrace`.

    Attributes:
        name: the name given to `tap`.
        length: T, the number of values: along the tap's axis, or of the taps of this name in
            program order, or of the steps of the innermost scan around it.
        reverse: whether that scan runs from the last row to the first.
        outer: lengths of the (other) scans around it, outermost first.
        batched: whether the last axis counts samples.
        log_norm: ln|dL/dh| of each value h, (*outer, T) or (*outer, T, batch). It is what plain
            reverse mode gives: only inside a traced scan is it rescaled.
    """

    name: str
    length: int
    reverse: bool
    outer: tuple[int, ...]
    batched: bool
    log_norm: jax.Array

    def __repr__(self) -> str:
        return _show.text(f"tap {self.name}", self._facts())

    def _repr_html_(self) -> str:
        drawing = _show.sparkline(self.log_norm, self.batched)
        return _show.table(f"tap {self.name}", self._facts(), drawing)

    def _facts(self) -> list[tuple[str, str]]:
        norms = _show.curve(self.log_norm, self.length, self.batched)
        return [("steps", _steps(self)), ("ln|total| (nats)", norms)]


def _steps(record: ScanTrace | TapTrace) -> str:
    text = f"{record.length:,}{', backwards' if record.reverse else ''}"
    if record.outer:
        text += f", in {' x '.join(map(str, record.outer))} scans"
    if record.batched and record.log_norm.ndim:
        text += f", {_show.count(record.log_norm.shape[-1], 'sample')}"
    return text


def tap(h: jax.Array, name: str, axis: int | None = None) -> jax.Array:
    """Mark a value, so that `trace` records ln|dL/dh| where there is no scan.

    The function returns h itself, and costs nothing outside `trace`. The adjoint is that of the
    returned value: use it in place of h. Where the result is dropped and h itself is used, `trace`
    raises a ValueError; where both are used, it warns that what h passes on beside the tap is not
    in the record.

    Of states that are stacked after a loop has made them, as the outputs of `jax.lax.scan` or what
    a kernel or `jnp.cumsum` returns, a tap sees only what reads the stack: the direct part. Tap
    what enters each step in their place: for h_t = a_t h_{t-1} + b_t the total adjoint of h_t is
    that of b_t. The stack that `jax.lax.associative_scan` returns is known to be the states of a
    recurrence, and a tap on it records their total adjoint; also where its rows are sliced, cast
    or arranged in another way before, or come out of `jax.checkpoint`. `trace` warns of every other
    tap on a traced scan's stacked states, or on one of them, that it has the direct part only; but
    for the last one, to which no later step sends anything back.

    Args:
        h: an array of floats; or the states h_1..h_T, stacked along `axis`.
        name: the key in `Trace.taps`. Taps of one name, as in a Python loop, are the steps of one
            record, in program order.
        axis: the axis of h that counts the steps; None for a single value.

    Raises:
        TypeError: where h is not an array of floats.
        ValueError: where h lacks the axis.

    Example:
        >>> import jax, jax.numpy as jnp, gradlab as gl
        >>> def loss(w, xs):
        ...     h = 0.0
        ...     for x in xs:
        ...         h = gl.tap(w * h + x, "h")
        ...     return h
        >>> [round(float(r), 3) for r in gl.trace(loss)(0.5, jnp.ones(3)).taps["h"].log_norm]
        [-1.386, -0.693, 0.0]
    """
    if not isinstance(name, str):
        raise TypeError(f"tap name={name!r}: a string is needed")
    if isinstance(h, tuple | list | dict):
        raise TypeError(f"tap {name!r} marks one array, and got a {type(h).__name__}; tap each")
    h = jnp.asarray(h)
    if not jnp.issubdtype(h.dtype, jnp.inexact):
        raise TypeError(f"tap {name!r} marks a value of {h.dtype}, and only floats have an adjoint")
    if axis is not None:
        if not -h.ndim <= axis < h.ndim:
            raise ValueError(f"tap {name!r}: axis={axis}, and the value has shape {h.shape}")
        axis %= h.ndim
    return _jaxpr.tap(h, name, axis)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["value", "aux", "grads", "scans", "taps"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True, repr=False)
class Trace:
    """The result of a traced loss.

    Attributes:
        value: the loss, as `jax.value_and_grad` gives it.
        aux: the loss's auxiliary output, None without `has_aux`.
        grads: the gradients, as `jax.value_and_grad` gives them; None for `argnums=()`.
        scans: one `ScanTrace` per scan that carries floats, parallel ones too, in program order.
        taps: one `TapTrace` per name given to `tap`.
    """

    value: jax.Array
    aux: Any
    grads: Any
    scans: tuple[ScanTrace, ...]
    taps: dict[str, TapTrace]

    def __repr__(self) -> str:
        return _show.text("Trace", self._facts())

    def _repr_html_(self) -> str:
        return _show.table("Trace", self._facts(html=True))

    def _facts(self, html: bool = False) -> list[tuple[str, str]]:
        rows = [("value", _show.number(self.value)), ("grads", _show.leaves(self.grads))]
        if self.aux is not None:
            rows.append(("aux", _show.leaves(self.aux)))
        records = [(f"scans[{i}]", scan) for i, scan in enumerate(self.scans)]
        records += [(f"taps[{name!r}]", tap) for name, tap in self.taps.items()]
        for name, record in records[:_RECORD_LIMIT]:
            norms = _show.curve(record.log_norm, record.length, record.batched)
            text = f"{record.name}, {_show.count(record.length, 'step')}, ln|total| {norms}"
            if html:
                drawing = _show.sparkline(record.log_norm, record.batched)
                text = _show.Markup(f"{_show.escape(text)}<br />{drawing}")
            rows.append((name, text))
        if len(records) > _RECORD_LIMIT:
            rows.append(("...", f"{len(records) - _RECORD_LIMIT} more"))
        return rows


# How many records of one trace a short form lists.
_RECORD_LIMIT = 8


@jax.tree_util.register_pytree_node_class
class _Static:
    """A leaf that is no array, carried past `jit` as part of the tree."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def tree_flatten(self) -> tuple[tuple[()], Any]:
        return (), self.value

    @classmethod
    def tree_unflatten(cls, aux: Any, _: Any) -> _Static:
        return cls(aux)

    def __hash__(self) -> int:
        return hash(self.value)

    def __eq__(self, other: object) -> bool:
        """Equal values of one type that look alike: True is 1, and another program."""
        if not isinstance(other, _Static):
            return False
        mine, theirs = self.value, other.value
        if mine is theirs:
            return True
        # repr tells apart what is inside: frozenset({True}) from frozenset({1}).
        alike = type(mine) is type(theirs) and bool(mine == theirs)
        return alike and repr(mine) == repr(theirs)


def trace(
    loss: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    batch_axis: int | None = None,
    *,
    log_param: bool = False,
    measure: Callable[..., Any] | None = None,
    segment: int | None = None,
) -> Callable[..., Trace]:
    """Like `jax.value_and_grad`, and the adjoint of every recurrence in the loss, step by step.

    For each `lax.scan` h_t = f(h_{t-1}, x_t) inside `loss` it records, in one backward pass,

        ln|lambda_t|,  lambda_t = dL/dh_t = d_t + J_{t+1}^T lambda_{t+1},  t = 1..T,

    with d_t = the partial derivative of the loss by h_t through step t's own outputs (direct) and
    J_{t+1} = dh_{t+1}/dh_t (transported). The leaves of a state are independent coordinates: the
    adjoint of an LSTM's c_t leaves out the path through h_t of the same step, and leaves that are
    made by equal expressions have an adjoint each. An output that repeats a leaf's expression, or
    reads the leaf before a cast to a wider float, a reshape or a transpose, reads that leaf: it is
    direct. Where a step returns one value as two leaves, outputs read the first. A leaf that is a
    row of the input, a constant, or a leaf of the old state (passed on, or swapped) is no value of
    this step: outputs that read the same value read the input, the constant or the old state, and
    are not direct; the leaf's adjoint is what later steps read of it. (JAX takes a leaf that no
    step changes out of the carry: it is not in the record.) A buffer in the carry, into which each
    step writes its state (`out.at[t].set(h)`, as in `fori_loop`), is such a leaf: what the loss
    reads of the buffer counts for the buffer, not for h, and the norm of the whole state holds
    both. Give h as an output of `lax.scan` instead, and it is direct.

    A parallel scan, `jax.lax.associative_scan(f, elems)`, is recorded as the recurrence
    h_t = f(h_{t-1}, elem_t) from h_1 = elem_1 that it computes; its value and gradients stay those
    of the parallel program. The leaves of its state are named by their place among the elements,
    "0", "1", ..., since the program does not hold more. What each returned stack is read by is the
    direct part of that step. Where f(h_{t-1}, elem_t) is not the h_t that was returned, since f is
    not associative, there is no recurrence and the record is NaN.

    The recursion is rescaled by powers of two, so the logarithms are right far outside the float's
    range, while value and gradients are the numbers that `jax.value_and_grad` gives. (Where plain
    reverse mode itself leaves the float's range on the way, and gives 0, inf or NaN for it,
    gradients here can be what exact arithmetic gives; and the adjoint 0 of a state that is NaN and
    that L does not depend on is multiplied out here, to NaN, where JAX leaves it away.)

    What the program computes in floats of 16 bits or fewer is computed so, and differentiated in
    float32 at the rounded numbers: the record is the adjoint of the rounded program, and gradients
    are those of `jax.value_and_grad` to within the rounding of their type. A step with such a
    float inside a kernel or callback that takes its derivative in 16 bits is refused.

    A record is NaN where the adjoint is, and where it cannot be known: for a leaf whose adjoint is
    more than about e^-40 below that of the whole state, so that it may leave the float's range, and
    likewise for a sample beside others that share its unit (see `batch_axis`), or below e^-76 where
    a rule allows no unit (see below; e^-697 in float64). From there it is NaN until it is back.
    Between two scans a cotangent travels in plain floats. Where a scan's adjoint falls below e^-38
    (e^-348 in float64), some of it may be lost on its way to the scans that it reads from (the
    layer below, an encoder): what these record below e^-76 (e^-697) is NaN.

    The cost is that of `jax.value_and_grad`: see `results/bench`. Scans are found under jit, vmap,
    remat, cond and shard_map and inside one another; where a function has its own derivative rule
    (custom_jvp, custom_vjp) the rule gives the gradients, and the record is that of the function as
    it is written, pulled back from the same cotangent. A rule inside a step that is not seen to be
    linear in its cotangent, such as clipping, must be given lambda_t itself: that scan is recorded
    without rescaling, within the float's range. Values without a scan are marked by `tap`.

    Args:
        loss: a function of arrays that returns a real scalar L, or (L, aux) with `has_aux`. It
            needs no change: the scans are found in its program. It is compiled on its first call;
            arguments that are not arrays are part of the program.
        argnums: which positional arguments to differentiate by; () for no gradients, which is
            cheaper.
        has_aux: whether `loss` returns (L, aux).
        batch_axis: the axis of every float leaf of the carry that counts samples; rows are then
            recorded per sample, each in its own unit. Where samples interact inside a step (batch
            normalization, a mean or attention over the batch), or where the program does not show
            that they stay apart, all samples share one unit.
        log_param: whether to record the contributions of the steps to the gradient of what the
            scan closes over: the arrays that the differentiated arguments reach, or every float
            one for `argnums=()`. It costs a product of the size of the weights at every step.
        measure: f(state, adjoint), called at each step of the backward pass with h_t and
            exp(-s_t) lambda_t, the state's float leaves as an array where there is one and as a
            dict by the names in `ScanTrace.leaves` where there are several; its results are
            stacked into `ScanTrace.measured` (integers and booleans as floats). With a third
            argument without a default, f(state, adjoint, step), it also sees what the step took,
            gave and named, a `gradlab.tracing.StepValues`; what it does not read costs nothing. A
            parallel scan has no such steps.
        segment: keep only every so many states and run each segment again in the backward pass.
            Memory is that of one segment and of T / segment states, time that of one more forward
            pass; sqrt(T) needs least memory. The record is the same.

    Returns:
        A function with the arguments of `loss` that returns a `Trace`. Units: nats.

    Raises:
        TypeError: where the loss is not a real scalar or an argument cannot be differentiated.
        ValueError: where `argnums` is out of range, a carry lacks `batch_axis`, a `while_loop`
            cannot be reversed, a tap's result is dropped, a derivative can only be had in 16 bits,
            or there is neither a scan that carries floats nor a tap.

    Example:
        >>> import jax, jax.numpy as jnp, gradlab as gl
        >>> def loss(w, xs):
        ...     h, _ = jax.lax.scan(lambda h, x: (w * h + x, None), jnp.zeros(()), xs)
        ...     return h
        >>> out = gl.trace(loss)(0.5, jnp.ones(4))
        >>> [round(float(r), 3) for r in out.scans[0].log_norm]  # (T - t) ln 0.5
        [-2.079, -1.386, -0.693, 0.0]

        Three measurements of a tanh network: the share of saturated units, the norm of each unit's
        adjoint over the batch, and the cosine between successive adjoints (those that have not
        vanished or turned).

        >>> def network(w, xs):
        ...     step = lambda h, x: (jnp.tanh(h @ w + x), None)
        ...     return jnp.sum(jax.lax.scan(step, jnp.zeros_like(xs[0]), xs)[0])
        >>> def f(h, adjoint):
        ...     return {"saturated": jnp.mean(jnp.abs(h) > 0.95),
        ...             "per unit": jnp.linalg.norm(adjoint, axis=0),
        ...             "direction": adjoint / jnp.linalg.norm(adjoint)}
        >>> xs = jax.random.normal(jax.random.key(0), (6, 8, 3))
        >>> seen = gl.trace(network, measure=f)(0.8 * jnp.eye(3), xs).scans[0].measured
        >>> seen["saturated"].shape, seen["per unit"].shape
        ((6,), (6, 3))
        >>> turns = jnp.sum(seen["direction"][1:] * seen["direction"][:-1], axis=(1, 2))
        >>> bool(jnp.all((turns > 0) & (turns <= 1)))
        True

        And what the step names, here how far a gate is open where the adjoint is large.

        >>> def gated(w, xs):
        ...     def step(h, x):
        ...         gate = gl.tap(jax.nn.sigmoid(w * x), "gate")
        ...         return gate * h + (1 - gate) * x, None
        ...     return jax.lax.scan(step, jnp.zeros(()), xs)[0]
        >>> def f(h, adjoint, step):
        ...     return step.names["gate"] * jnp.abs(adjoint)
        >>> out = gl.trace(gated, measure=f)(1.0, jnp.array([0.0, 0.0, 4.0]))
        >>> [round(float(size), 3) for size in out.scans[0].measured]
        [0.246, 0.491, 0.982]

    References:
        Bengio, Simard and Frasconi (1994), "Learning long-term dependencies with gradient descent
        is difficult", section III; Pascanu, Mikolov and Bengio (2013), "On the difficulty of
        training recurrent neural networks", section 2. Segments: Griewank and Walther (2000),
        "Algorithm 799: revolve", section 1.
    """
    batch_axis = None if batch_axis is None else _integer("batch_axis", batch_axis)
    segment = None if segment is None else _integer("segment", segment)
    if segment is not None and segment < 1:
        raise ValueError(f"segment={segment}: a segment is a number of steps, at least 1")
    if measure is not None and not callable(measure):
        raise TypeError(f"measure={measure!r}: a function of (state, adjoint) is needed")
    return trace_with(Options(batch_axis, log_param, measure, segment), loss, argnums, has_aux)


def trace_with(
    options: Options,
    loss: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
) -> Callable[..., Trace]:
    """`trace` by its options, those included that only speed depends on."""
    if not callable(loss):
        what = type(loss).__name__
        raise TypeError(f"trace takes the loss, a function, got {what}: trace(loss)(params, xs)")
    several = list(argnums) if isinstance(argnums, tuple | list | range) else None
    single = several is None
    numbers = tuple(_integer("argnums", n) for n in ([argnums] if several is None else several))

    def once(static: Any, dynamic: Any) -> Trace:
        return _run(loss, numbers, single, has_aux, options, static, dynamic)

    run = jax.jit(once, static_argnums=0)

    @functools.wraps(loss)
    def run_trace(*args: Any, **kwargs: Any) -> Trace:
        for number in numbers:
            if not -len(args) <= number < len(args):
                raise ValueError(
                    f"argnums={argnums} is out of range: the loss was called with {len(args)} "
                    f"positional argument{'s' * (len(args) != 1)}"
                )
        where = {number % len(args) for number in numbers}
        leaves, tree = jax.tree.flatten((args, kwargs))
        owners = [i for i, arg in enumerate(args) for _ in jax.tree.leaves(arg)]
        owners += [-1] * (len(leaves) - len(owners))
        moving = [
            _is_array(leaf, owner in where) for leaf, owner in zip(leaves, owners, strict=True)
        ]
        dynamic = [leaf for leaf, moves in zip(leaves, moving, strict=True) if moves]
        fixed = tuple(
            None if moves else _Static(leaf) for leaf, moves in zip(leaves, moving, strict=True)
        )
        # JAX unrolls the scans of the source where it does not compile, and in its debugging modes
        # takes the -inf of an exact zero for a fault.
        with (
            _explain_leaks(),
            jax.disable_jit(False),
            jax.debug_nans(False),
            jax.debug_infs(False),
        ):
            if all(map(_is_constant, fixed)) and _is_hashable(tree):
                out = run((_Static(tree), fixed), dynamic)
            else:
                # What may have changed since the last call cannot be part of a compiled program.
                out = jax.jit(functools.partial(once, (_Static(tree), fixed)))(dynamic)
        if _shows_fault((out.value, out.grads)):
            # Let JAX find the place in the loss itself.
            plain = jax.value_and_grad(loss, argnums, has_aux) if numbers else loss
            plain(*args, **kwargs)
        aux = jax.tree.map(
            lambda leaf: leaf.value if isinstance(leaf, _Static) else leaf,
            out.aux,
            is_leaf=lambda leaf: isinstance(leaf, _Static),
        )
        return dataclasses.replace(out, aux=aux)

    return run_trace


@contextlib.contextmanager
def _explain_leaks() -> Iterator[None]:
    try:
        yield
    except jax.errors.UnexpectedTracerError as error:
        raise ValueError(
            "the loss uses an array of one call in another: a rule of jax.custom_vjp that closes "
            "over an argument of the loss, or a side effect that keeps it; pass the array to the "
            "rule as an argument"
        ) from error


def _shows_fault(results: Any) -> bool:
    """Whether JAX's debugging modes, where they are on, would stop at one of these arrays."""
    faults = [
        test
        for flag, test in (("jax_debug_nans", jnp.isnan), ("jax_debug_infs", jnp.isinf))
        if getattr(jax.config, flag)
    ]
    arrays = [x for x in jax.tree.leaves(results) if not _jaxpr.is_traced(x)]
    return any(bool(jnp.any(test(x))) for test in faults for x in arrays)


def _integer(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        hint = "; trace(loss) gives the function to call" if name == "argnums" else ""
        raise TypeError(f"{name}={show(value)}: an integer is needed{hint}") from None


_CONSTANT = (
    type(None), bool, int, str, bytes, type, types.FunctionType, types.BuiltinFunctionType,
    types.ModuleType, np.dtype, np.ufunc, jax.custom_jvp, jax.custom_vjp, type(jax.jit(abs)),
)  # fmt: skip


def _is_constant(leaf: _Static | None) -> bool:
    """Whether a leaf is known by its hash: most objects compare by identity and may change."""
    if leaf is None or isinstance(leaf.value, _CONSTANT):
        return True
    if isinstance(leaf.value, functools.partial):
        parts = leaf.value.func, *leaf.value.args, *leaf.value.keywords.values()
        return all(_is_constant(_Static(part)) for part in parts)
    by_value = type(leaf.value).__eq__ is not object.__eq__
    return by_value and _is_hashable(leaf.value)


def _is_hashable(x: Any) -> bool:
    try:
        hash(x)
    except TypeError:
        return False
    return True


def _is_held(x: Any) -> bool:
    """Whether a value is an array or a scalar of one that JAX can hold: no strings, no objects."""
    if isinstance(x, np.ndarray | np.generic):
        return x.dtype.kind not in "OSUMm"
    return isinstance(x, jax.Array)


def _is_array(leaf: Any, differentiated: bool) -> bool:
    """Whether a leaf may change between calls; a Python int may be a shape, so it may not."""
    if _is_held(leaf) or isinstance(leaf, float | complex):
        return True
    return differentiated and isinstance(leaf, int)


def _run(
    loss: Callable[..., Any],
    numbers: tuple[int, ...],
    single: bool,
    has_aux: bool,
    options: Options,
    static: Any,
    dynamic: list[Any],
) -> Trace:
    tree, fixed = static[0].value, static[1]

    def arguments(dynamic: list[Any]) -> tuple[Any, Any]:
        rest = iter(dynamic)
        leaves = [next(rest) if leaf is None else leaf.value for leaf in fixed]
        return jax.tree.unflatten(tree, leaves)

    args, _ = arguments(dynamic)
    targets = [args[number] for number in numbers]
    for number, target in zip(numbers, targets, strict=True):
        _check_differentiable(number, target)

    def flat(targets: list[Any], others: list[Any]) -> tuple[Any, Any]:
        args, kwargs = arguments(others)
        args = list(args)
        for number, target in zip(numbers, targets, strict=True):
            args[number] = target
        out = loss(*args, **kwargs)
        if has_aux and not (isinstance(out, tuple | list) and len(out) == 2):
            raise TypeError("has_aux=True needs a loss that returns a pair (value, aux)")
        value, aux = out if has_aux else (out, None)
        if not (_is_held(value) or isinstance(value, int | float | complex)):
            _check_scalar(value)
        return value, jax.tree.map(lambda x: x if _is_held(x) else _Static(x), aux)

    jaxpr, (value_type, aux_type) = jax.make_jaxpr(flat, return_shape=True)(targets, dynamic)
    _check_scalar(value_type)
    program = _jaxpr.program(jaxpr)
    moves = [i < len(jax.tree.leaves(targets)) for i in range(len(program.ins))]
    walk = Walk(options)
    walk.changes.mark(program, moves)
    walk.check_taps(program)
    sites = walk.sites(program)
    messages = _find_unrecorded(walk, program, moves)
    if not sites:
        raise ValueError(refusal(messages) if messages else _nothing_to_trace(walk, program))
    for what in (*messages, *partial_taps(walk, program)):
        warnings.warn(what, stacklevel=2)

    def differentiate(walk: Walk) -> Any:
        def evaluate(targets: list[Any], slots: list[Slots]) -> Any:
            outs = walk.evaluate(program, [*jax.tree.leaves(targets), *dynamic], slots)
            # What the program holds as float32 leaves it in its own type.
            value, *aux = (
                out.astype(aval.dtype) if _jaxpr.is_narrow(aval.dtype) else out
                for out, aval in zip(outs, jaxpr.out_avals, strict=True)
            )
            return value, aux

        slots = [site.slots() for site in sites]
        value, pull, aux = jax.vjp(evaluate, targets, slots, has_aux=True)
        return value, aux, *pull(jnp.ones_like(value))

    try:
        value, aux, grads, records = differentiate(walk)
    except ValueError as error:
        if not any(what in str(error) for what in ("lax.while_loop", "allback")):
            raise
        args = [*jax.tree.leaves(targets), *dynamic]
        count = len(args) - len(dynamic) if numbers else len(args)
        if not _jaxpr.is_reversible(program, args, count):
            raise ValueError(
                f"argnums={numbers[0] if single else numbers}: reverse mode cannot go back through "
                f"the {_obstacles(walk, program)}, to the loss's arguments or to the scan at "
                f"{' or '.join(site.name for site in sites)}; use lax.scan, or fori_loop with "
                "bounds that are Python integers"
            ) from error
        # No requested gradient crosses the loop: stop gradients there and retry.
        walk = Walk(options._replace(stop=True))
        walk.changes.mark(program, moves)
        value, aux, grads, records = differentiate(walk)
    records = _hide_lost(walk, program, sites, records)
    records = [
        slots if site.total is None else _total_of(site, *site.total, records[:i])
        for i, (site, slots) in enumerate(zip(sites, records, strict=True))
    ]
    results = list(zip(_number_sites(sites), records, strict=True))
    return Trace(
        value=value,
        aux=jax.tree.unflatten(jax.tree.structure(aux_type), aux),
        grads=None if not numbers else grads[0] if single else tuple(grads),
        scans=tuple(_result(site, slots) for site, slots in results if site.leaf_names),
        taps=_taps([(site, slots) for site, slots in results if not site.leaf_names]),
    )


def _total_of(tap: Site, back: int, name: str, rows: range, before: Sequence[Slots]) -> Slots:
    """What a tap on the states of a parallel scan records: their total adjoint."""
    scan, time = before[-back], len(tap.outer)
    log = scan.logs[name]
    if rows != range(log.shape[time]):
        log = jnp.take(log, jnp.arange(rows.start, rows.stop, rows.step), axis=time)
    return scan._replace(logs={"total": log})


def _find_unrecorded(walk: Walk, program: Any, moves: Sequence[bool]) -> list[str]:
    """The recurrences without a record that change with the arguments, any float one if none is."""
    if any(moves):
        return unseen(walk, program, walk.changes)
    changes = Changes(walk.flat)
    changes.mark(program, [_jaxpr.is_float(program.avals[slot]) for slot in program.ins])
    return unseen(walk, program, changes)


def _hide_lost(
    walk: Walk, program: Any, sites: Sequence[Site], records: Sequence[Slots]
) -> list[Slots]:
    """Let NaN stand for what may have been lost between scans, in plain floats.

    A scan whose adjoint nearly leaves the range hands a cotangent on that may have left it. Small
    records of the scans that it reads from are then not known.
    """
    numbers = iter(range(len(sites)))
    owners = [(node, [next(numbers) for _ in walk.sites_of(node)]) for node in program.nodes]
    owners = [(node, mine) for node, mine in owners if mine]
    out = list(records)
    for i, (node, mine) in enumerate(owners):
        later = _jaxpr.dependents(program.nodes, node.outs)
        readers = [k for other, its in owners[i + 1 :] if later.intersection(other.outs)
                   for k in its if sites[k].leaf_names]  # fmt: skip
        if not readers:
            continue
        floor = max(_norms.floor(sites[k].dtype) for k in (*mine, *readers))
        faint = jnp.any(jnp.stack([_is_faint(records[k], floor / 2) for k in readers]))
        for k in mine:
            logs = {
                name: jnp.where(faint & (log < floor) & (name != "scale"), jnp.nan, log)
                for name, log in records[k].logs.items()
            }
            out[k] = records[k]._replace(logs=logs)
    return out


def _is_faint(slots: Slots, floor: float) -> jax.Array:
    """Whether some adjoint of a scan is small, but not an exact zero; or not known."""
    total = _zero_unless_run(slots.visits, slots.logs["total"])
    return jnp.any(((total < floor) & ~jnp.isneginf(total)) | jnp.isnan(total))


def _nothing_to_trace(walk: Walk, program: Any) -> str:
    hint = (
        'mark the states where they are made, step by step: `h = gl.tap(h, "h")`. Of a stack that '
        "a kernel or a cumulative sum returns, a tap sees only what reads the stack; for "
        "h_t = a_t h_{t-1} + b_t the total adjoint of h_t is that of b_t: "
        '`b = gl.tap(b, "b", axis=0)`, or run it by jax.lax.associative_scan, which is recorded'
    )
    loops = list(walk.loops(program))
    if loops:
        return (
            f"trace cannot go back through the {_obstacles(walk, program)}: give fori_loop bounds "
            "that are Python integers, or write the recurrence as "
            f"`h, ys = jax.lax.scan(step, h0, xs)`; or {hint}"
        )
    return (
        "trace found no lax.scan of at least one step that carries floats in this loss, no "
        "lax.associative_scan of at least two and no tap: write the recurrence as "
        f"`h, ys = jax.lax.scan(step, h0, xs)`, or {hint}"
    )


def _obstacles(walk: Walk, program: Any) -> str:
    """What reverse mode cannot go through, and where it stands."""
    loops = list(walk.loops(program))
    if not loops:
        return "callback"
    return f"while_loop at {' or '.join(loops)}, whose number of steps is not known beforehand"


def _number_sites(sites: Sequence[Site]) -> list[Site]:
    """The sites, with a number where scans stand on one line: 'model.py:12 (loss) #2'."""
    counts: dict[str, int] = {}
    out = []
    for site in sites:
        name = site.name or "unknown"
        if site.leaf_names:
            counts[name] = counts.get(name, 0) + 1
            name = name if counts[name] == 1 else f"{name} #{counts[name]}"
        out.append(site._replace(name=name))
    return out


def _taps(pairs: Sequence[tuple[Site, Slots]]) -> dict[str, TapTrace]:
    taps = {}
    for name in dict.fromkeys(site.name for site, _ in pairs):
        sites, slots = zip(*((s, r) for s, r in pairs if s.name == name), strict=True)
        first, alone = sites[0], len(sites) == 1
        if len({(site.outer, site.batch) for site in sites}) > 1:
            raise ValueError(
                f"the taps named {name!r} stand in different scans or have different numbers of "
                "samples, and cannot be the steps of one record; give them different names"
            )
        logs = [_zero_unless_run(r.visits, r.logs["total"]) for r in slots]
        outer, reverse = first.outer, first.reverse
        if alone and first.length is None and outer:
            log_norm, outer = logs[0], outer[:-1]
        else:
            time = len(outer)
            log_norm = jnp.concatenate(
                [
                    jnp.expand_dims(log, time) if site.length is None else log
                    for site, log in zip(sites, logs, strict=True)
                ],
                axis=time,
            )
            reverse = False
        taps[name] = TapTrace(
            name=name,
            length=log_norm.shape[len(outer)],
            reverse=reverse,
            outer=outer,
            batched=bool(first.batch),
            log_norm=log_norm,
        )
    return taps


def _zero_unless_run(visits: jax.Array, log: jax.Array) -> jax.Array:
    """What the backward pass did not reach has adjoints that are exactly zero."""
    return _where_run(visits, log, -jnp.inf)


def _nan_unless_run(visits: jax.Array, x: jax.Array) -> jax.Array:
    """What `measure` gave, where the backward pass came by and called it."""
    return _where_run(visits, x, jnp.nan) if jnp.issubdtype(x.dtype, jnp.inexact) else x


def _where_run(visits: jax.Array, x: jax.Array, other: float) -> jax.Array:
    has_run = visits.reshape(visits.shape + (1,) * (x.ndim - visits.ndim)) > 0
    return jnp.where(has_run, x, other)


def _result(site: Site, slots: Slots) -> ScanTrace:
    logs = {name: _zero_unless_run(slots.visits, log) for name, log in slots.logs.items()}

    def leaves(part: str) -> dict[str, jax.Array]:
        several = len(site.leaf_names) > 1
        return {
            name: logs[f"{part}:{i}" if several else part] for i, name in enumerate(site.leaf_names)
        }

    time, length = len(site.outer), site.length or 0
    bad = jnp.isnan(logs["total"]) | jnp.isposinf(logs["total"])
    # How many rows the backward pass goes through before the first bad one.
    before = jnp.argmax(bad if site.reverse else jnp.flip(bad, time), axis=time)
    backward = jnp.where(jnp.any(bad, axis=time), length - before, 0)
    forward = slots.finite.astype(int) + 1
    forward = _where_run(slots.visits, jnp.where(forward <= length, forward, 0), -1)
    return ScanTrace(
        name=site.name,
        length=length,
        reverse=site.reverse,
        outer=site.outer,
        batched=bool(site.batch),
        log_norm=logs["total"],
        log_direct=logs["direct"],
        log_transported=logs["transported"],
        leaves=leaves("total"),
        leaves_direct=leaves("direct"),
        leaves_transported=leaves("transported"),
        log_param=logs.get("param"),
        log_scale=jnp.where(jnp.isneginf(logs["scale"]), 0, logs["scale"]),
        measured=jax.tree.unflatten(
            jax.tree.structure(site.measured),
            [_nan_unless_run(slots.visits, x) for x in slots.measured],
        ),
        first_nonfinite_state=_row(forward, site),
        first_nonfinite_adjoint=_row(backward, site),
    )


def _row(order: jax.Array, site: Site) -> jax.Array:
    """The step whose row came `order`-th in the forward pass; 0 stays 0."""
    return jnp.where(site.reverse & (order > 0), (site.length or 0) + 1 - order, order)


def _check_differentiable(number: int, target: Any) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(target):
        dtype = jnp.result_type(leaf) if _is_array(leaf, True) else type(leaf).__name__
        if not (_is_array(leaf, True) and jnp.issubdtype(dtype, jnp.inexact)):
            place = jax.tree_util.keystr(path)
            raise TypeError(
                f"argnums={number}: the leaf {place or 'itself'} is {dtype}, and only floats can "
                "be differentiated"
            )


def _check_scalar(value: Any) -> None:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape != () or dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        what = type(value).__name__ if shape is None else f"{dtype}{list(shape)}"
        raise TypeError(f"trace needs a loss that returns one real scalar, and got {what}")
