"""One scan whose backward pass records the adjoint of the state at every step.

The backward recursion of h_t = f(c, h_{t-1}, x_t), with cotangents d_t from the step's own outputs,
is held as lambda_t = 2^e mu_t with the integer e carried beside mu:

    lambda_t = d_t + J_{t+1}^T lambda_{t+1},    mu_t = 2^-e lambda_t,

so that ln|lambda_t| = ln|mu_t| + e ln 2 is right at any size. The cotangents of what the scan
closes over and of its inputs come from 2^e mu_t, so they are the numbers that plain reverse mode
gives: a power of two changes no digit. As long as the adjoint stays well inside the float's range
e is 0. It stays 0 where the step has a backward rule of the user's that is not linear: such a rule
must see lambda itself.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from gradlab.tracing import _jaxpr, _linear, _norms, _samples
from gradlab.tracing._linear import Linearized, Step, merge, pick, split
from gradlab.tracing._pull import Plan, Pull, Rows, in_chunks, scan_steps, sum_terms
from gradlab.tracing._record import PARTS, Options, Slots

# A step is light where its state has so few entries that to look at each row costs as much as the
# step itself; what many light steps leave is looked at at once.
_LIGHT = 512
# How many entries the forward pass may stack to look at them once it has ended.
_STACK_LIMIT = 2**21


def traced_scan(
    step: Step,
    options: Options,
    names: Sequence[str],
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
            new, extras = step.advance(consts, carry, x, inner_t)
            return new, step.readout(consts, x, new, extras, inner_t)

        return scan_steps(step, body, init, (xs, inner), step.length)

    run = jax.custom_vjp(plain)
    run.defvjp(
        functools.partial(_forward, step, options, tuple(names)), _pull_back, symbolic_zeros=True
    )
    return run(list(consts), list(init), list(xs), slots, inner)


def traced_parallel(
    step: Step,
    options: Options,
    names: Sequence[str],
    observed: Sequence[bool],
    consts: Sequence[Any],
    elems: Sequence[Any],
    states: Sequence[Any],
    slots: Slots,
) -> list[Any]:
    """The states of a parallel scan as they are, recording into `slots` in the backward pass.

    `step` makes the `observed` leaves of the state alone: the others have no adjoint.

    The states h_t = f(h_{t-1}, elem_t), stacked over t, are known, so the residuals of all steps
    are computed at once. Their cotangents pass through, so the gradients stay those of the parallel
    program; the recursion for lambda_t, which starts from the same cotangents, only records.
    """
    observe = jax.custom_vjp(lambda states, elems, consts, slots: states)

    def forward(*primals: Any) -> Any:
        states, elems, consts, slots = jax.tree.map(lambda p: p.value, primals, is_leaf=_is_primal)
        wants = tuple(p.perturbed and _linear.is_inexact(p.value) for p in primals[2])
        varies = _jaxpr.varies_over(jax.typeof(slots.visits))
        pull = functools.partial(
            _pull_parallel, step, options, tuple(names), tuple(observed), wants, varies
        )
        return states, _residuals(pull, states, elems, consts)

    observe.defvjp(forward, _pull_back, symbolic_zeros=True)
    return observe(list(states), list(elems), list(consts), slots)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class _Key:
    """A random key as plain numbers: `cond` of JAX 0.10.0 loses keys that are residuals."""

    data: Any
    kind: Any = dataclasses.field(metadata={"static": True})


def _residuals(pull: Callable[..., Any], *values: Any) -> jax.tree_util.Partial:
    """`pull` with its first arguments, for `_pull_back`."""

    def pack(x: Any) -> Any:
        if not jnp.issubdtype(jax.typeof(x).dtype, jax.dtypes.prng_key):
            return x
        return _Key(jax.random.key_data(x), jax.random.key_impl(x))

    return jax.tree_util.Partial(pull, *jax.tree.map(pack, values))


def _pull_back(residuals: jax.tree_util.Partial, cotangents: Any) -> Any:
    def unpack(x: Any) -> Any:
        return jax.random.wrap_key_data(x.data, impl=x.kind) if isinstance(x, _Key) else x

    values = jax.tree.map(unpack, residuals.args, is_leaf=lambda x: isinstance(x, _Key))
    return residuals.func(*values, cotangents)


def _pull_parallel(
    step: Step,
    options: Options,
    names: tuple[str, ...],
    observed: tuple[bool, ...],
    wants: tuple[bool, ...],
    varies: frozenset[str],
    states: list[Any],
    elems: list[Any],
    consts: list[Any],
    cotangents: list[Any],
) -> Any:
    is_float = list(map(_linear.is_inexact, states))
    own_names = pick(pick(is_float, observed), names)
    states = pick(observed, states)
    good = jax.vmap(lambda row: _norms.finite(row, options.axis))(
        [x for x in states if _linear.is_inexact(x)]
    )
    if not options.log_param:
        wants = (False,) * len(consts)
    first = [state[0] for state in states]
    nothing = [(False,) * len(leaves) for leaves in (states, elems)]
    plan = _plan(
        step,
        options,
        own_names,
        (consts, first, elems, []),
        (wants, *nothing),
        varies,
        not _norms.are_split(first),
    )
    linear = plan.linear
    outside = dict(zip(linear.forward.ins, consts, strict=False))
    before = _jaxpr.run(linear.storage.before, dict(outside))
    nodes = _jaxpr.dependencies(linear.forward.nodes, linear.storage.own)

    def residuals(state: Any, x: Any) -> list[Any]:
        ids = linear.forward.ins[len(consts) :]
        env = _jaxpr.run(nodes, {**outside, **dict(zip(ids, (*state, *x), strict=True))})
        return [env[slot] for slot in linear.storage.own]

    # Before the first state there is none: what its step gives goes to nobody.
    before_it = [_later(state, step.reverse) for state in states]
    own = jax.vmap(residuals)(before_it, elems)
    again = jax.vmap(lambda state, x: step.advance(consts, state, x, [])[0])(before_it, elems)
    agree = _agree(states, again, step.reverse)
    tape = _Tape(
        consts=consts,
        fixed=[before[slot] for slot in linear.storage.fixed],
        rows=_read_again(linear, elems, states, own),
        segments=None,
        finite=_leading(good[::-1] if step.reverse else good),
    )
    final = [SymbolicZero(jax.typeof(state)) for state in first]
    *_, slots, _ = _backward(plan, tape, (final, pick(observed, cotangents)))
    logs = dict(slots.logs)
    if options.log_param:
        logs["param"] = logs["param"].at[-1 if step.reverse else 0].set(-jnp.inf)
    logs = {name: jnp.where(agree, log, jnp.nan) for name, log in logs.items()}
    logs = _for_all_leaves(logs, names, own_names)
    return cotangents, None, None, slots._replace(logs=logs)


def _agree(states: Sequence[Any], again: Sequence[Any], reverse: bool) -> jax.Array:
    """Whether each state is what the step makes of the one before it.

    It is not where f is not associative: the parallel program then computes no recurrence. Rounding
    is far below the limit, of the type's epsilon its third root, beside the largest entry of the
    two states, and some epsilons of the largest of all: one large state hides no others.
    """
    good = jnp.asarray(True)
    rows = slice(None, -1) if reverse else slice(1, None)
    for state, other in zip(states, again, strict=True):
        if _linear.is_inexact(state):
            epsilon = float(jnp.finfo(state.dtype).eps)
            size = jnp.max(jnp.abs(state), axis=range(1, state.ndim), keepdims=True)
            both = jnp.maximum(size[1:], size[:-1])
            limit = epsilon ** (1 / 3) * both + 16 * epsilon * jnp.max(size, initial=0)
            # What is not finite is told elsewhere.
            good &= ~jnp.any(jnp.abs(state - other)[rows] > limit)
    return good


def _for_all_leaves(
    logs: dict[str, Any], names: Sequence[str], own: Sequence[str]
) -> dict[str, Any]:
    """The logs of all leaves, where those of their `own` were recorded; the others are zeros."""
    if len(own) == len(names):
        return logs
    out = {name: log for name, log in logs.items() if ":" not in name}
    for part in PARTS:
        for i, name in enumerate(names):
            key = part if len(own) == 1 else f"{part}:{own.index(name) if name in own else 0}"
            out[f"{part}:{i}"] = logs[key] if name in own else jnp.full_like(logs[part], -jnp.inf)
    return out


def _later(rows: jax.Array, reverse: bool) -> jax.Array:
    """Row t of the result is the row before t in the order of the scan."""
    if reverse:
        return jnp.concatenate([rows[1:], rows[-1:]])
    return jnp.concatenate([rows[:1], rows[:-1]])


def _leading(good: jax.Array) -> jax.Array:
    """How many rows come before the first that is not good."""
    return jnp.where(jnp.all(good, axis=0), good.shape[0], jnp.argmin(good, axis=0))


class _Tape(NamedTuple):
    """What the forward pass leaves to the backward pass."""

    consts: list[Any]
    fixed: list[Any]  # residuals that do not change
    rows: Any  # rows over t (x, y, own), or None where segments are run again, ...
    segments: Any  # ... from the inputs and the state at the start of each
    finite: Any


def _forward(step: Step, options: Options, names: tuple[str, ...], *primals: Any) -> Any:
    """Run the scan, keeping what the transposed step needs."""
    consts, init, xs, slots, inner = jax.tree.map(lambda p: p.value, primals, is_leaf=_is_primal)
    wants = [
        tuple(p.perturbed and _linear.is_inexact(p.value) for p in group) for group in primals[:3]
    ]
    varies = _jaxpr.varies_over(jax.typeof(slots.visits))
    light = _is_light(pick(tuple(map(_linear.is_inexact, init)), init))
    plan = _plan(
        step,
        options,
        names,
        (consts, init, xs, inner),
        wants,
        varies,
        light,
    )
    linear = plan.linear
    outside = dict(zip(linear.forward.ins, consts, strict=False))
    before = _jaxpr.run(linear.storage.before, dict(outside))

    count = _counter(pick(linear.state, init)[0], options.axis)
    carry = init, (count, count == 0)
    size = options.segment
    if size is None or size >= step.length:
        (final, finite), ys, own = _run(plan, outside, carry, xs, step.length)
        rows, segments = _read_again(linear, xs, ys, own), None
    else:

        def segment(carry: Any, xs: Any, _: Any, length: int) -> Any:
            out, ys, _ = _run(plan, outside, carry, xs, length, keep=False)
            return out, ys, carry[0]

        (final, finite), ys, starts = in_chunks(
            segment, carry, xs, (None, None), step.length, size, step.reverse
        )
        rows, segments = None, (xs, starts)
    tape = _Tape(
        consts=list(consts),
        fixed=[before[slot] for slot in linear.storage.fixed],
        rows=rows,
        segments=segments,
        finite=finite[0],
    )
    return (final, ys), _residuals(functools.partial(_backward, plan), tape)


def _plan(
    step: Step,
    options: Options,
    names: Sequence[str],
    values: tuple[Any, Any, Any, Any],
    wants: Sequence[tuple[bool, ...]],
    varies: frozenset[str],
    light: bool,
) -> Plan:
    """Linearize a step; `values` are its consts, initial state, inputs and slots inside.

    `wants` says which of the first three get a cotangent, and `light` whether the step takes so
    little time that chunks in one unit pay.
    """
    consts, init, xs, inner = values
    want_consts = wants[0]
    if options.log_param and not any(want_consts):
        want_consts = tuple(map(_linear.is_inexact, consts))
    linear = _linear.linearize(
        step, consts, init, xs, inner, (want_consts, wants[2]), options.measure is not None
    )
    mixes = options.axis is not None and not _stay_apart(linear.advance, options.axis)
    in_one_unit = light and not options.same_bits
    return Plan(step, options, tuple(names), linear, wants[0], wants[1], varies, mixes, in_one_unit)


def _is_light(state: Sequence[Any]) -> bool:
    return sum(jnp.size(x) for x in state) <= _LIGHT and not _norms.are_split(state)


def _stay_apart(advance: _linear.Transposed, axis: int) -> bool:
    """Whether the transposed step takes each sample's adjoint to that sample alone."""
    starts = advance.linear[: len(advance.state)]
    return _samples.stay_apart(advance.program, starts, axis, advance.state)


def _counter(leaf: Any, axis: int | None, shared_axes: Sequence[str] = ()) -> Any:
    """An integer zero, or one per sample, for a state with this leaf; one for the shared axes."""
    zero = jnp.zeros(() if axis is None else leaf.shape[axis], jnp.int32)
    return _jaxpr.vary(zero, _jaxpr.varies_over(jax.typeof(leaf)).difference(shared_axes))


def _read_again(linear: Linearized, xs: Any, ys: Any, own: Any) -> Rows:
    storage = linear.storage
    return Rows([xs[i] for _, i in storage.x], [ys[i] for _, i in storage.y], own)


def _run(
    plan: Plan, outside: dict[int, Any], carry: Any, xs: Any, length: int, keep: bool = True
) -> Any:
    """Run some steps; returns ((state, finite steps), outputs, residuals to keep)."""
    linear, axis = plan.linear, plan.options.axis
    program = linear.forward
    _, carry_ids, x_ids = split(program.ins, *linear.sizes)
    new_refs, y_refs, _ = split(program.outs, linear.sizes[1], len(linear.ys))
    own = linear.storage.own if keep else ()
    nodes = _jaxpr.dependencies(program.nodes, (*new_refs, *y_refs, *own))
    if not plan.options.same_bits:
        outside, nodes = _transpose_once(nodes, outside)
    floats, olds = pick(linear.state, new_refs), pick(linear.state, carry_ids)
    # Where the new state is stacked anyhow, or what the step reads, which is the state one step
    # late, it need not be stacked once more.
    outs = [*y_refs, *own]
    late = [ref not in outs and old in own for ref, old in zip(floats, olds, strict=True)]
    prompt = [ref for ref, is_late in zip(floats, late, strict=True) if not is_late]
    more = [ref for ref in prompt if ref not in outs]
    entries = sum(jnp.size(x) for x in pick(linear.state, carry[0]))
    at_once = _is_light(pick(linear.state, carry[0]))
    at_once &= not more or length * entries <= _STACK_LIMIT

    def body(carry: Any, x: Any) -> Any:
        state, check = carry
        env = {**outside, **dict(zip((*carry_ids, *x_ids), (*state, *x), strict=True))}
        env = _jaxpr.run(nodes, env)
        new, ys, residuals, states = (
            [_jaxpr.read(env, r) for r in refs] for refs in (new_refs, y_refs, own, more)
        )
        if not at_once:
            count, good = check
            good = good & _norms.finite(pick(linear.state, new), axis)
            check, states = (count + good.astype(count.dtype), good), []
        return (new, check), (ys, residuals, states)

    state, check = carry
    start = state, () if at_once else check
    (state, end), (ys, residuals, states) = scan_steps(plan.step, body, start, xs, length)
    if at_once:
        stacks = dict(zip((*outs, *more), (*ys, *residuals, *states), strict=True))
        rows = _finite_rows(
            [stacks[ref] for ref in prompt],
            [stacks[ref] for ref in pick(late, olds)],
            pick(late, pick(linear.state, state)),
            axis,
            plan.step.reverse,
        )
        count, good = check
        before = _leading(rows[::-1] if plan.step.reverse else rows)
        end = (
            count + jnp.where(good, before, 0).astype(count.dtype),
            good & jnp.all(rows, axis=0),
        )
    return (state, end), ys, residuals


def _finite_rows(
    new: list[Any], old: list[Any], last: list[Any], axis: int | None, reverse: bool
) -> jax.Array:
    """Whether each row of a state is finite.

    Its leaves are the stacks `new`, and those whose rows are one step late, `old`, with the rows
    `last` of the last step.
    """
    look = functools.partial(_norms.finite, axis=axis)
    parts = [jax.vmap(look)(new)] if new else []
    if old:
        rows, end = jax.vmap(look)(old), look(last)[None]
        parts.append(jnp.concatenate([end, rows[:-1]] if reverse else [rows[1:], end]))
    return functools.reduce(jnp.logical_and, parts)


def _transpose_once(
    nodes: Sequence[Any], outside: dict[int, Any]
) -> tuple[dict[int, Any], list[Any]]:
    """Transpose the consts before the loop; returns the values outside and the other nodes.

    XLA on a CPU copies the W.T of `h @ W.T + b` at every step: it fuses the product with the sum,
    and moves no part of a fusion out of the loop. For a small W that takes longer than the product.
    """
    outside, others = dict(outside), []
    for node in nodes:
        if node.kind == "transpose" and node.ins[0] in outside:
            _jaxpr.run([node], outside)
        else:
            others.append(node)
    return outside, others


def _backward(plan: Plan, tape: _Tape, cotangents: Any) -> Any:
    """Run the adjoint recursion of the module's docstring, recording at each step."""
    step, linear, axis = plan.step, plan.linear, plan.options.axis
    final, outputs = (list(group) for group in cotangents)
    mu = [_dense(ct) for ct in pick(linear.state, final)]
    outputs = pick(linear.ys, outputs)
    live = tuple(not isinstance(ct, SymbolicZero) for ct in outputs)
    pull = Pull(plan, tape.fixed, live)

    # Values summed across shards must share one unit.
    unit = _counter(mu[0], axis, pull.shared)
    late = [jnp.zeros_like(m) for m in mu] if pull.apart else []
    grads = [jnp.zeros_like(c) for c in pick(linear.consts, tape.consts)]
    lost = [_counter(mu[0], axis) > 0] * pull.guards
    carry = mu, unit, lost, late, grads
    output_cts = pick(live, outputs)
    if tape.segments is None:
        carry, records = pull.rows(carry, tape.rows, output_cts, step.length)
    else:
        xs, starts = tape.segments
        outside = dict(zip(linear.forward.ins, tape.consts, strict=False))

        def segment(carry: Any, rows: Any, start: Any, length: int) -> Any:
            xs, output_cts = rows
            nothing = tape.finite, tape.finite < 0
            _, ys, own = _run(plan, outside, (start, nothing), xs, length)
            again = _read_again(linear, xs, ys, own)
            return *pull.rows(carry, again, output_cts, length), None

        carry, records, _ = in_chunks(
            segment,
            carry,
            (xs, output_cts),
            starts,
            step.length,
            plan.options.segment or step.length,
            not step.reverse,
        )
    mu, e, _, late, grads = carry
    logs, measured_rows, xs_ct, inner = records
    first = sum_terms([(mu, e), (late, unit)] if pull.apart else [(mu, e)], axis)
    init_ct = pick(pick(linear.state, plan.init), first)
    slots = Slots(
        logs=_with_last(logs, 0 if step.reverse else -1),
        measured=tuple(measured_rows),
        finite=tape.finite.astype(logs["total"].dtype),
        visits=jnp.ones_like(logs["total"], shape=()),
    )
    return (
        _spread(plan.consts, pick(pick(linear.consts, plan.consts), grads)),
        _spread(plan.init, init_ct),
        _spread(linear.xs, xs_ct),
        jax.tree.map(lambda slot: _jaxpr.vary(slot, plan.varies), slots),
        inner,
    )


def _with_last(logs: dict[str, Any], last: int) -> dict[str, Any]:
    """What reads the final carry stands outside the scan: at step T it is the loss's own."""
    logs = dict(logs)
    for total in [name for name in logs if name.startswith("total")]:
        direct, transported = (total.replace("total", part) for part in PARTS[1:])
        if direct not in logs:
            logs[transported] = logs[total]
            logs[direct] = jnp.full_like(logs[total], -jnp.inf)
        logs[transported] = logs[transported].at[last].set(-jnp.inf)
        logs[direct] = logs[direct].at[last].set(logs[total][last])
    return logs


def _is_primal(x: Any) -> bool:
    return hasattr(x, "perturbed")


def _spread(flags: Sequence[bool], items: Sequence[Any]) -> list[Any]:
    return merge(flags, items, [None] * len(flags))


def _dense(ct: Any) -> Any:
    return _jaxpr.zeros(ct.aval) if isinstance(ct, SymbolicZero) else ct
