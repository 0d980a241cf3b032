"""The transformation and what it returns."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradlab.tracing import _jaxpr
from gradlab.tracing._scan import Options, Slots
from gradlab.tracing._walk import Site, Walk


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "log_norm",
        "log_direct",
        "log_transported",
        "leaves",
        "leaves_direct",
        "leaves_transported",
        "log_param",
        "log_scale",
        "measured",
        "first_nonfinite_state",
        "first_nonfinite_adjoint",
    ],
    meta_fields=["name", "length", "reverse", "outer", "batched"],
)
@dataclasses.dataclass(frozen=True)
class ScanTrace:
    """What one scan's backward pass recorded; natural logarithms, an exact zero is -inf.

    Arrays have shape (*outer, T), or (*outer, T, batch) where `batch_axis` was given; row t-1
    belongs to the state after input t, whichever way the scan runs. Unit: nats.

    Attributes:
        name: where the scan stands in the user's source, "file.py:line (function)".
        length: T, the number of steps.
        reverse: whether the scan runs from the last row to the first.
        outer: lengths of the scans around this one, outermost first.
        batched: whether the last axis of the arrays counts samples.
        log_norm: ln|lambda_t|, the total derivative of the loss by the state h_t.
        log_direct: ln|dL/dh_t|, what the loss reads from step t's own outputs; at the last step
            this includes what reads the final state.
        log_transported: ln|J_{t+1}^T lambda_{t+1}|, what comes back from the later steps.
        leaves: ln|lambda_t| of each leaf of the state, by its path in the carry.
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


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["value", "aux", "grads", "scans"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Trace:
    """The result of a traced loss.

    Attributes:
        value: the loss, as `jax.value_and_grad` gives it.
        aux: the loss's auxiliary output, None without `has_aux`.
        grads: the gradients, as `jax.value_and_grad` gives them; None for `argnums=()`.
        scans: one `ScanTrace` per scan that carries floats, in program order.
    """

    value: jax.Array
    aux: Any
    grads: Any
    scans: tuple[ScanTrace, ...]


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
        return isinstance(other, _Static) and bool(self.value == other.value)


def trace(
    loss: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    batch_axis: int | None = None,
    *,
    log_param: bool = False,
    measure: Callable[[Any, Any], Any] | None = None,
    segment: int | None = None,
) -> Callable[..., Trace]:
    """Like `jax.value_and_grad`, and the adjoint of every `lax.scan` in the loss, step by step.

    For each scan h_t = f(h_{t-1}, x_t) inside `loss` it records, in one backward pass,

        ln|lambda_t|,  lambda_t = dL/dh_t = d_t + J_{t+1}^T lambda_{t+1},  t = 1..T,

    with d_t = the partial derivative of the loss by h_t through step t's own outputs (direct) and
    J_{t+1} = dh_{t+1}/dh_t (transported). The leaves of a state are independent coordinates: the
    adjoint of an LSTM's c_t leaves out the path through h_t of the same step. The recursion is
    rescaled by powers of two, so the logarithms are right far outside the float's range, while
    value and gradients are the numbers that `jax.value_and_grad` gives.

    Args:
        loss: a function of arrays that returns a real scalar L, or (L, aux) with `has_aux`. It
            needs no change: the scans are found in its program.
        argnums: which positional arguments to differentiate by; () for no gradients, which is
            cheaper.
        has_aux: whether `loss` returns (L, aux).
        batch_axis: the axis of every float leaf of the carry that counts samples; rows are then
            recorded per sample, each in its own scale. Samples must not interact inside a step.

    Returns:
        A function with the arguments of `loss` that returns a `Trace`. Units: nats.

    Raises:
        TypeError: where the loss is not a real scalar or an argument cannot be differentiated.
        ValueError: where `argnums` is out of range, a carry lacks `batch_axis`, or no scan that
            carries floats is found.

    Example:
        >>> import jax, jax.numpy as jnp, gradlab as gl
        >>> def loss(w, xs):
        ...     h, _ = jax.lax.scan(lambda h, x: (w * h + x, None), jnp.zeros(()), xs)
        ...     return h
        >>> out = gl.trace(loss)(0.5, jnp.ones(4))
        >>> [round(float(r), 3) for r in out.scans[0].log_norm]  # (T - t) ln 0.5
        [-2.079, -1.386, -0.693, 0.0]

    References:
        Bengio, Simard and Frasconi (1994), "Learning long-term dependencies with gradient descent
        is difficult", section III; Pascanu, Mikolov and Bengio (2013), "On the difficulty of
        training recurrent neural networks", section 2.
    """
    if segment is not None and segment < 1:
        raise ValueError(f"segment={segment}: a segment is a number of steps, at least 1")
    options = Options(batch_axis, log_param, measure, segment)
    single = isinstance(argnums, int)
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    @functools.partial(jax.jit, static_argnums=0)
    def run(static: Any, dynamic: Any) -> Trace:
        return _run(loss, numbers, single, has_aux, options, static, dynamic)

    @functools.wraps(loss)
    def traced(*args: Any, **kwargs: Any) -> Trace:
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
        out = run((tree, fixed), dynamic)
        aux = jax.tree.map(
            lambda leaf: leaf.value if isinstance(leaf, _Static) else leaf,
            out.aux,
            is_leaf=lambda leaf: isinstance(leaf, _Static),
        )
        return dataclasses.replace(out, aux=aux)

    return traced


def _is_array(leaf: Any, differentiated: bool) -> bool:
    """Whether a leaf may change between calls; a Python int may be a shape, so it may not."""
    if isinstance(leaf, jax.Array | np.ndarray | np.generic | float | complex):
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
    tree, fixed = static
    rest = iter(dynamic)
    leaves = [next(rest) if leaf is None else leaf.value for leaf in fixed]
    args, kwargs = jax.tree.unflatten(tree, leaves)
    targets = [args[number] for number in numbers]
    for number, target in zip(numbers, targets, strict=True):
        _check_differentiable(number, target)

    def flat(targets: list[Any], others: list[Any]) -> tuple[Any, Any]:
        moved = iter(others)
        everything = [next(moved) if leaf is None else leaf.value for leaf in fixed]
        args, kwargs = jax.tree.unflatten(tree, everything)
        args = list(args)
        for number, target in zip(numbers, targets, strict=True):
            args[number] = target
        out = loss(*args, **kwargs)
        if has_aux and not (isinstance(out, tuple) and len(out) == 2):
            raise TypeError("has_aux=True needs a loss that returns a pair (value, aux)")
        value, aux = out if has_aux else (out, None)
        return value, jax.tree.map(lambda x: x if _is_array(x, True) else _Static(x), aux)

    closed, (value_type, aux_type) = jax.make_jaxpr(flat, return_shape=True)(targets, dynamic)
    _check_scalar(value_type)
    program = _jaxpr.program(closed)
    walk = Walk(options)
    sites = walk.sites(program)
    if not sites:
        raise ValueError(
            "trace found no lax.scan that carries floats in this loss, so there is no adjoint to "
            "record; write the recurrence as `h, ys = jax.lax.scan(step, h0, xs)`"
        )

    def evaluate(targets: list[Any], slots: list[Slots]) -> Any:
        value, *aux = walk.evaluate(program, [*jax.tree.leaves(targets), *dynamic], slots)
        return value, aux

    value, pull, aux = jax.vjp(evaluate, targets, [site.slots() for site in sites], has_aux=True)
    grads, measured = pull(jnp.ones_like(value))
    return Trace(
        value=value,
        aux=jax.tree.unflatten(jax.tree.structure(aux_type), aux),
        grads=None if not numbers else grads[0] if single else tuple(grads),
        scans=tuple(map(_result, sites, measured)),
    )


def _result(site: Site, slots: Slots) -> ScanTrace:
    seen = slots.visits > 0

    def reached(log: jax.Array) -> jax.Array:
        # A scan that the backward pass did not reach has adjoints that are exactly zero.
        return jnp.where(seen.reshape(seen.shape + (1,) * (log.ndim - seen.ndim)), log, -jnp.inf)

    logs = {name: reached(log) for name, log in slots.logs.items()}

    def leaves(part: str) -> dict[str, jax.Array]:
        several = len(site.leaf_names) > 1
        return {
            name: logs[f"{part}:{i}" if several else part]
            for i, name in enumerate(site.leaf_names)
        }

    # The state's step counts from the scan's own start, the adjoint's is the first met going back.
    steps = jnp.arange(1, site.length + 1)
    time = len(site.outer)
    bad = jnp.isnan(logs["total"]) | jnp.isposinf(logs["total"])
    rows = steps.reshape((site.length,) + (1,) * len(site.batch))
    if site.reverse:
        backward = site.length + 1 - jnp.max(jnp.where(bad, site.length + 1 - rows, 0), axis=time)
        backward = jnp.where(backward > site.length, 0, backward)
    else:
        backward = jnp.max(jnp.where(bad, rows, 0), axis=time)
    count = slots.finite.astype(int)
    row = site.length - count if site.reverse else count + 1
    visited = seen.reshape(seen.shape + (1,) * len(site.batch))
    forward = jnp.where(visited & (count < site.length), row, 0)
    return ScanTrace(
        name=site.name,
        length=site.length,
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
        measured=jax.tree.unflatten(jax.tree.structure(site.measured), slots.measured),
        first_nonfinite_state=forward,
        first_nonfinite_adjoint=backward,
    )


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
