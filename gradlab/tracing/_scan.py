"""One scan whose backward pass records the adjoint of the state at every step.

The backward recursion of h_t = f(c, h_{t-1}, x_t), with cotangents d_t from the step's own outputs,
is held as lambda_t = 2^e mu_t with the integer e carried beside mu:

    lambda_t = d_t + J_{t+1}^T lambda_{t+1},    mu_t = 2^-e lambda_t,

so that ln|lambda_t| = ln|mu_t| + e ln 2 is right at any size. The cotangents of what the scan
closes over and of its inputs come from 2^e mu_t, so they are the numbers that plain reverse mode
gives: a power of two changes no digit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from gradlab.tracing import _jaxpr, _norms


class Slots(NamedTuple):
    """Zeros that enter the forward pass; their cotangents are the measurements.

    `total`, `direct`, `transported` and each of `leaves` are ln norms of shape (*outer, T) or
    (*outer, T, batch); `visits`, shape (*outer,), is 1 where the backward pass ran at all.
    """

    total: Any
    direct: Any
    transported: Any
    leaves: tuple[Any, ...]
    visits: Any


class Step(NamedTuple):
    """One step of a scan in two parts, cut at the new state.

    `advance(consts, carry, x, inner) -> (carry, kept)` makes the new state; `readout(consts, x,
    carry, kept, inner) -> ys` makes the outputs from it. `kept` is what else the outputs need.
    `inner` holds the slots of the scans inside, each used by one of the two parts.
    """

    advance: Callable[..., tuple[list[Any], list[Any]]]
    readout: Callable[..., list[Any]]
    length: int
    reverse: bool
    unroll: int


def is_inexact(x: Any) -> bool:
    return jnp.issubdtype(jax.typeof(x).dtype, jnp.inexact)


def traced_scan(
    step: Step,
    axis: int | None,
    consts: Sequence[Any],
    init: Sequence[Any],
    xs: Sequence[Any],
    slots: Slots,
    inner: Any,
) -> tuple[list[Any], list[Any]]:
    """`lax.scan` of `step`, recording into `slots`; returns (final carry, stacked outputs)."""

    def plain(consts: Any, init: Any, xs: Any, slots: Slots, inner: Any) -> Any:
        def body(carry: Any, row: Any) -> Any:
            x, inner_t = row
            new, kept = step.advance(consts, carry, x, inner_t)
            return new, step.readout(consts, x, new, kept, inner_t)

        return _scan(step, body, init, (xs, inner))

    run = jax.custom_vjp(plain)
    run.defvjp(
        functools.partial(_forward, step, axis),
        lambda residuals, cotangents: residuals(cotangents),
        symbolic_zeros=True,
    )
    return run(list(consts), list(init), list(xs), slots, inner)


def _scan(step: Step, body: Any, init: Any, xs: Any, backward: bool = False) -> Any:
    return jax.lax.scan(
        body, init, xs, length=step.length, reverse=step.reverse != backward, unroll=step.unroll
    )


class _Plan(NamedTuple):
    """What the backward pass knows before it runs; no arrays."""

    step: Step
    axis: int | None
    consts: tuple[bool, ...]  # which consts, initial states and inputs get a cotangent
    init: tuple[bool, ...]
    xs: tuple[bool, ...]
    state: tuple[bool, ...]  # which carry leaves have an adjoint
    ys: tuple[bool, ...]  # which outputs have a cotangent
    kept: tuple[Any, ...]  # types of what else of the step the outputs read
    pulls: Any  # the tree of the two pullbacks of a step, ...
    sources: tuple[tuple[str, int], ...]  # ... and where each of its leaves is stored


class _Store(NamedTuple):
    """The leaves of the pullbacks: one copy of what does not change, the rest stacked over t."""

    fixed: list[Any]
    x: list[Any]
    y: list[Any]
    own: list[Any]


def _forward(step: Step, axis: int | None, *primals: Any) -> Any:
    """Run the scan, keeping what the two pullbacks of each step need."""
    consts, init, xs, _, inner = jax.tree.map(lambda p: p.value, primals, is_leaf=_is_primal)
    wants = [tuple(p.perturbed and is_inexact(p.value) for p in group) for group in primals[:3]]
    state = tuple(map(is_inexact, init))
    found: dict[str, Any] = {}

    def linearized(consts: Any, carry: Any, x: Any) -> Any:
        inner_t = jax.tree.map(lambda slot: jnp.zeros(slot.shape[1:], slot.dtype), inner)

        def advance(c: Any, h: Any, x_: Any, inner_t: Any) -> Any:
            new, kept = step.advance(
                _merge(wants[0], c, consts),
                _merge(state, h, carry),
                _merge(wants[2], x_, x),
                inner_t,
            )
            found["smooth"] = tuple(map(is_inexact, kept))
            return (_pick(state, new), _pick(found["smooth"], kept)), (new, kept)

        c, x_ = _pick(wants[0], consts), _pick(wants[2], x)
        (h, k), pull_advance, (new, kept) = jax.vjp(
            advance, c, _pick(state, carry), x_, inner_t, has_aux=True
        )
        found["kept"] = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in k)

        def readout(c: Any, x_: Any, h: Any, k: Any, inner_t: Any) -> Any:
            ys = step.readout(
                _merge(wants[0], c, consts),
                _merge(wants[2], x_, x),
                _merge(state, h, new),
                _merge(found["smooth"], k, kept),
                inner_t,
            )
            found["ys"] = tuple(map(is_inexact, ys))
            return _pick(found["ys"], ys), ys

        _, pull_readout, ys = jax.vjp(readout, c, x_, h, k, inner_t, has_aux=True)
        residuals, found["pulls"] = jax.tree.flatten((pull_advance, pull_readout))
        return new, ys, residuals

    program = _jaxpr.program(jax.make_jaxpr(linearized)(consts, init, _jaxpr.rows(xs)))
    const_ids, carry_ids, x_ids = _split(program.ins, len(consts), len(init))
    new_refs, y_refs, leaves = _split(program.outs, len(init), len(found["ys"]))

    # A leaf that follows from the consts alone is stored once, and one that is an input or an
    # output of the step is stacked already.
    varying = _jaxpr.dependents(program.nodes, (*carry_ids, *x_ids))
    fixed: list[Any] = []
    own: list[Any] = []
    sources = []
    for ref in leaves:
        if isinstance(ref, _jaxpr.Lit) or ref not in varying:
            sources.append(("fixed", len(fixed)))
            fixed.append(ref)
        elif ref in x_ids:
            sources.append(("x", x_ids.index(ref)))
        elif ref in y_refs:
            sources.append(("y", y_refs.index(ref)))
        else:
            if ref not in own:
                own.append(ref)
            sources.append(("own", own.index(ref)))

    outside = dict(zip(const_ids, consts, strict=True))
    # An effect has no results to be found by, and must happen at every step, not once outside.
    unchanging = [
        node for node in program.nodes if varying.isdisjoint(node.outs) and not node.eqn.effects
    ]
    before = _jaxpr.run(_jaxpr.needed(unchanging, fixed), dict(outside))
    nodes = _jaxpr.needed(program.nodes, (*new_refs, *y_refs, *own))

    def body(carry: Any, x: Any) -> Any:
        env = {**outside, **dict(zip((*carry_ids, *x_ids), (*carry, *x), strict=True))}
        env = _jaxpr.run(nodes, env)
        new, ys, stacked = ([_jaxpr.read(env, r) for r in refs] for refs in (new_refs, y_refs, own))
        return new, (ys, stacked)

    final, (ys, stacked) = _scan(step, body, init, xs)
    store = _Store(
        fixed=[_jaxpr.read(before, ref) for ref in fixed],
        x=[x if ("x", i) in sources else None for i, x in enumerate(xs)],
        y=[y if ("y", i) in sources else None for i, y in enumerate(ys)],
        own=stacked,
    )
    plan = _Plan(
        step=step,
        axis=axis,
        consts=wants[0],
        init=wants[1],
        xs=wants[2],
        state=state,
        ys=found["ys"],
        kept=found["kept"],
        pulls=found["pulls"],
        sources=tuple(sources),
    )
    backward = functools.partial(_backward, plan)
    return (final, ys), jax.tree_util.Partial(backward, store, _pick(wants[0], consts))


def _backward(plan: _Plan, store: _Store, consts: list[Any], cotangents: Any) -> Any:
    """Run the adjoint recursion of the module's docstring, recording at each step."""
    step, axis = plan.step, plan.axis
    final, outputs = (list(group) for group in cotangents)
    mu = [_dense(ct) for ct in _pick(plan.state, final)]
    outputs = _pick(plan.ys, outputs)
    live = tuple(not isinstance(ct, SymbolicZero) for ct in outputs)
    dtype = _norms.real_dtype(mu)
    window = min(int(jnp.finfo(m.dtype).maxexp) for m in mu) // 3
    unit = jnp.zeros(() if axis is None else mu[0].shape[axis], jnp.int32)
    # Outputs that read more of the step than its new state send a cotangent around the boundary.
    # Its leaves have no known sample axis, so where scales are per sample it travels apart, in
    # plain units.
    around = bool(plan.kept) and any(live)
    apart = around and axis is not None
    wants_grads = any(plan.consts) or any(plan.xs)

    def body(carry: Any, row: Any) -> Any:
        mu, e, late, grads = carry
        (x, y, own), arrived = row
        now = _Store(store.fixed, x, y, own)
        pull_advance, pull_readout = jax.tree.unflatten(
            plan.pulls, [getattr(now, kind)[i] for kind, i in plan.sources]
        )
        record: dict[str, Any] = {}
        still = [_zeros(k.shape, k) for k in plan.kept]
        kept, from_outputs = still, None
        terms = [(mu, e), (late, unit)] if apart else [(mu, e)]
        tops = [_norms.exponent(v, axis, dtype) + k for v, k in terms]
        if any(live):
            dense = _merge(live, arrived, [_zeros(ct.shape[1:], ct) for ct in outputs])
            c_out, x_out, direct, kept, inner_out = pull_readout(dense)
            from_outputs = (c_out, x_out, inner_out)
            record["transported"] = _log_norm_of_sum(terms, tops, axis, dtype)
            record["direct"] = _norms.log_norms(direct, axis, dtype)[0]
            terms.append((direct, unit))
            tops.append(_norms.exponent(direct, axis, dtype))
        if around and not apart:
            tops.append(_norms.exponent(kept, axis, dtype))
        e = _rescale(functools.reduce(jnp.maximum, tops), e, window)
        mu = _sum(terms, e, axis)
        total, leaves = _norms.log_norms(mu, axis, dtype)
        record["total"] = total + _nats(e, dtype)
        record["leaves"] = [leaf + _nats(e, dtype) for leaf in leaves] if len(leaves) > 1 else []

        scaled_kept = _norms.scale(kept, -e, None) if around and not apart else still
        _, back, _, inner = pull_advance((mu, scaled_kept))
        inner = [_shift(slots, e) for slots in inner]
        xs_ct: list[Any] = []
        if wants_grads or apart:
            c_ct, _, xs_ct, inner_plain = pull_advance((_norms.scale(mu, e, axis), kept))
            inner = inner_plain if apart else inner
            grads = _add(grads, c_ct)
        if apart:
            nothing = [jnp.zeros_like(m) for m in mu]
            late = pull_advance((nothing, kept))[1]
        if from_outputs is not None:
            grads = _add(grads, from_outputs[0])
            xs_ct = _add(xs_ct, from_outputs[1])
            inner = _add(inner, from_outputs[2])
        return (back, e, late, grads), (record, xs_ct, inner)

    late = [jnp.zeros_like(m) for m in mu] if apart else []
    grads = [jnp.zeros_like(c) for c in consts]
    arrived = _pick(live, outputs)
    carry, (record, xs_ct, inner) = _scan(
        step, body, (mu, unit, late, grads), (store[1:], arrived), backward=True
    )
    mu, e, late, grads = carry
    first = _sum([(mu, e), (late, unit)] if apart else [(mu, e)], unit, axis)

    # What reads the final carry stands outside the scan: at the last step it is the loss's own.
    last = 0 if step.reverse else -1
    total = record["total"]
    transported = record.get("transported", total).at[last].set(-jnp.inf)
    direct = record.get("direct", jnp.full_like(total, -jnp.inf)).at[last].set(total[last])
    visits = jnp.ones((), total.dtype)
    init_ct = _spread(plan.init, _pick(_pick(plan.state, plan.init), first))
    return (
        _spread(plan.consts, grads),
        init_ct,
        _spread(plan.xs, xs_ct),
        Slots(total, direct, transported, tuple(record["leaves"]), visits),
        inner,
    )


def _rescale(top: jax.Array, e: jax.Array, window: int) -> jax.Array:
    """Keep the exponent while the adjoint stays well inside the float's range."""
    moved = (jnp.abs(top - e) > window) & (top > _norms.ZERO // 2)
    return jnp.where(moved, top, e)


def _sum(terms: Sequence[Any], e: jax.Array, axis: int | None) -> list[Any]:
    """2^-e times the sum of 2^k v over the terms (v, k)."""
    scaled = [_norms.scale(v, k - e, axis) for v, k in terms]
    return [functools.reduce(jnp.add, parts) for parts in zip(*scaled, strict=True)]


def _log_norm_of_sum(
    terms: Sequence[Any], tops: Sequence[jax.Array], axis: int | None, dtype: Any
) -> jax.Array:
    top = functools.reduce(jnp.maximum, tops)
    top = jnp.where(top > _norms.ZERO // 2, top, 0)
    return _norms.log_norms(_sum(terms, top, axis), axis, dtype)[0] + _nats(top, dtype)


def _nats(e: jax.Array, dtype: Any) -> jax.Array:
    return e.astype(dtype) * _norms.LN2


def _shift(slots: Slots, e: jax.Array) -> Slots:
    """Bring what inner scans measured in units of 2^e to plain units."""

    def move(log: jax.Array) -> jax.Array:
        nats = _nats(e, log.dtype).reshape((1,) * (log.ndim - e.ndim) + e.shape)
        seen = slots.visits.reshape(slots.visits.shape + (1,) * (log.ndim - slots.visits.ndim))
        return jnp.where(seen > 0, log + nats, log)

    logs = {name: log for name, log in slots._asdict().items() if name != "visits"}
    return slots._replace(**jax.tree.map(move, logs))


def _is_primal(x: Any) -> bool:
    return hasattr(x, "perturbed")


def _pick(flags: Sequence[bool], leaves: Sequence[Any]) -> list[Any]:
    return [leaf for flag, leaf in zip(flags, leaves, strict=True) if flag]


def _merge(flags: Sequence[bool], picked: Sequence[Any], others: Sequence[Any]) -> list[Any]:
    rest = iter(picked)
    return [next(rest) if flag else other for flag, other in zip(flags, others, strict=True)]


def _spread(flags: Sequence[bool], picked: Sequence[Any]) -> list[Any]:
    return _merge(flags, picked, [None] * len(flags))


def _split(items: Sequence[Any], *sizes: int) -> list[list[Any]]:
    parts, rest = [], list(items)
    for size in sizes:
        parts.append(rest[:size])
        rest = rest[size:]
    return [*parts, rest]


def _add(left: list[Any], right: list[Any]) -> list[Any]:
    return jax.tree.map(jnp.add, left, right) if left else right


def _dense(ct: Any) -> Any:
    return _zeros(ct.shape, ct) if isinstance(ct, SymbolicZero) else ct


def _zeros(shape: Any, like: Any) -> jax.Array:
    return jnp.zeros(shape, like.dtype)
