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

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from gradlab.tracing import _jaxpr, _linear, _norms, _samples
from gradlab.tracing._linear import Linearized, Step, Sums, merge, pick, split

# Steps whose weight gradients are taken in one product: enough for the product to run at its full
# rate, few enough for what is kept meanwhile to be small beside the residuals of the whole scan.
_CHUNK = 32


class Options(NamedTuple):
    """What to record beside the norms, and how (see `trace`)."""

    axis: int | None = None
    log_param: bool = False
    measure: Callable[[Any, Any], Any] | None = None
    segment: int | None = None
    stop: bool = False  # at what has no derivative, where no gradient that is asked for needs one


class Slots(NamedTuple):
    """Zeros that enter the forward pass; their cotangents are the measurements.

    `logs` are ln norms by name, each of shape (*outer, T) or (*outer, T, batch); `measured` are
    the leaves of what `measure` returned, (*outer, T, ...); `finite` is the number of steps before
    the first state that is not finite, (*outer,) or (*outer, batch); `visits`, shape (*outer,), is
    1 where the backward pass ran at all.
    """

    logs: dict[str, Any]
    measured: tuple[Any, ...]
    finite: Any
    visits: Any


def log_names(leaves: Sequence[str], log_param: bool) -> list[str]:
    """The names of `Slots.logs` for a state with these leaves."""
    names = [*_PARTS, "scale", *(["param"] if log_param else [])]
    each = leaves if len(leaves) > 1 else ()
    return names + [f"{part}:{i}" for part in _PARTS for i in range(len(each))]


_PARTS = ("total", "direct", "transported")


def measured(
    options: Options, names: Sequence[str], state: Sequence[Any], adjoint: Sequence[Any]
) -> Any:
    """Call `measure`, a lone leaf as it is and several by name; what it counts becomes floats."""
    if options.measure is None:
        return ()
    state_tree, adjoint_tree = (
        leaves[0] if len(names) == 1 else dict(zip(names, leaves, strict=True))
        for leaves in (state, adjoint)
    )
    dtype = _norms.real_dtype(adjoint)
    return jax.tree.map(
        lambda x: x if _linear.is_inexact(x) else jnp.asarray(x, dtype),
        options.measure(state_tree, adjoint_tree),
    )


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
            new, kept = step.advance(consts, carry, x, inner_t)
            return new, step.readout(consts, x, new, kept, inner_t)

        return _scan(step, body, init, (xs, inner), step.length)

    run = jax.custom_vjp(plain)
    run.defvjp(
        functools.partial(_forward, step, options, tuple(names)),
        lambda residuals, cotangents: residuals(cotangents),
        symbolic_zeros=True,
    )
    return run(list(consts), list(init), list(xs), slots, inner)


def _scan(step: Step, body: Any, init: Any, xs: Any, length: int, backward: bool = False) -> Any:
    return jax.lax.scan(
        body, init, xs, length=length, reverse=step.reverse != backward, unroll=step.unroll
    )


def _in_chunks(
    body: Any, carry: Any, rows: Any, each: Any, length: int, size: int, reverse: bool
) -> Any:
    """`lax.scan` over chunks of `size` consecutive rows, the last of which may be shorter.

    body(carry, rows of the chunk, item of the chunk, how many rows) -> carry, rows, item. The
    items come and go as a pair: those of the full chunks stacked, and that of the short one.
    """
    count, rest = divmod(length, size)
    cut = count * size
    full, short = each

    def main(carry: Any) -> Any:
        chunks = jax.tree.map(lambda x: x[:cut].reshape(count, size, *x.shape[1:]), rows)

        def step(carry: Any, chunk: Any) -> Any:
            carry, *ys = body(carry, *chunk, size)
            return carry, ys

        carry, (ys, items) = jax.lax.scan(
            step, carry, (chunks, full), length=count, reverse=reverse
        )
        return carry, jax.tree.map(lambda y: y.reshape(cut, *y.shape[2:]), ys), items

    def tail(carry: Any) -> Any:
        return body(carry, jax.tree.map(lambda x: x[cut:], rows), short, rest)

    if not rest:
        carry, ys, items = main(carry)
        return carry, ys, (items, None)
    if not count:
        carry, ys, item = tail(carry)
        return carry, ys, (None, item)
    if reverse:
        carry, late, item = tail(carry)
        carry, early, items = main(carry)
    else:
        carry, early, items = main(carry)
        carry, late, item = tail(carry)
    joined = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), early, late)
    return carry, joined, (items, item)


def _chunk_size(length: int) -> int:
    """A divisor of the length near _CHUNK where there is one, else _CHUNK itself."""
    near = range(2 * _CHUNK, _CHUNK // 2 - 1, -1)
    return next((size for size in near if length % size == 0), min(_CHUNK, length))


class _Plan(NamedTuple):
    """What the backward pass knows before it runs; no arrays."""

    step: Step
    options: Options
    names: tuple[str, ...]  # of the float leaves of the carry
    linear: Linearized
    consts: tuple[bool, ...]  # which consts and initial states get a cotangent
    init: tuple[bool, ...]
    varies: frozenset[str]  # the mesh axes of shard_map that the slots vary over
    mixes: bool  # whether samples interact in the step, so that all need one unit


class _Saved(NamedTuple):
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
    shown = wants[0]
    if options.log_param and not any(shown):
        shown = tuple(map(_linear.is_inexact, consts))
    linear = _linear.linearize(
        step, consts, init, xs, inner, (shown, wants[2]), options.measure is not None
    )
    varies = _jaxpr.varies_over(jax.typeof(slots.visits))
    mixes = options.axis is not None and not _stay_apart(linear.advance, options.axis)
    plan = _Plan(step, options, names, linear, wants[0], wants[1], varies, mixes)
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

        (final, finite), ys, starts = _in_chunks(
            segment, carry, xs, (None, None), step.length, size, step.reverse
        )
        rows, segments = None, (xs, starts)
    saved = _Saved(
        consts=list(consts),
        fixed=[before[slot] for slot in linear.storage.fixed],
        rows=rows,
        segments=segments,
        finite=finite[0],
    )
    return (final, ys), jax.tree_util.Partial(functools.partial(_backward, plan), saved)


def _stay_apart(advance: _linear.Transposed, axis: int) -> bool:
    """Whether the transposed step takes each sample's adjoint to that sample alone."""
    starts = advance.linear[: len(advance.state)]
    return _samples.stay_apart(advance.program, starts, axis, advance.state)


def _counter(leaf: Any, axis: int | None, shared: Sequence[str] = ()) -> Any:
    """An integer zero, or one per sample, for a state with this leaf; one for the shared axes."""
    zero = jnp.zeros(() if axis is None else leaf.shape[axis], jnp.int32)
    return _jaxpr.vary(zero, _jaxpr.varies_over(jax.typeof(leaf)).difference(shared))


class _Rows(NamedTuple):
    """What of each step is read in the backward pass, as `_linear.Storage` lists it."""

    x: list[Any]
    y: list[Any]
    own: list[Any]


def _read_again(linear: Linearized, xs: Any, ys: Any, own: Any) -> _Rows:
    storage = linear.storage
    return _Rows([xs[i] for _, i in storage.x], [ys[i] for _, i in storage.y], own)


def _run(
    plan: _Plan, outside: dict[int, Any], carry: Any, xs: Any, length: int, keep: bool = True
) -> Any:
    """Run some steps; returns ((state, finite steps), outputs, residuals to keep)."""
    linear, axis = plan.linear, plan.options.axis
    program = linear.forward
    _, carry_ids, x_ids = split(program.ins, *linear.sizes)
    new_refs, y_refs, _ = split(program.outs, linear.sizes[1], len(linear.ys))
    own = linear.storage.own if keep else ()
    nodes = _jaxpr.needed(program.nodes, (*new_refs, *y_refs, *own))

    def body(carry: Any, x: Any) -> Any:
        state, (count, good) = carry
        env = {**outside, **dict(zip((*carry_ids, *x_ids), (*state, *x), strict=True))}
        env = _jaxpr.run(nodes, env)
        new, ys, kept = ([_jaxpr.read(env, r) for r in refs] for refs in (new_refs, y_refs, own))
        good = good & _norms.finite(pick(linear.state, new), axis)
        return (new, (count + good.astype(count.dtype), good)), (ys, kept)

    carry, (ys, kept) = _scan(plan.step, body, carry, xs, length)
    return carry, ys, kept


def _backward(plan: _Plan, saved: _Saved, cotangents: Any) -> Any:
    """Run the adjoint recursion of the module's docstring, recording at each step."""
    step, linear, axis = plan.step, plan.linear, plan.options.axis
    final, outputs = (list(group) for group in cotangents)
    mu = [_dense(ct) for ct in pick(linear.state, final)]
    outputs = pick(linear.ys, outputs)
    live = tuple(not isinstance(ct, SymbolicZero) for ct in outputs)
    pull = _Pull(plan, saved.fixed, live)

    # What shards add up among each other has to be in one unit.
    unit = _counter(mu[0], axis, pull.shared)
    late = [jnp.zeros_like(m) for m in mu] if pull.apart else []
    grads = [jnp.zeros_like(c) for c in pick(linear.consts, saved.consts)]
    lost = [_counter(mu[0], axis) > 0] * pull.guards
    carry = mu, unit, lost, late, grads
    arrived = pick(live, outputs)
    if saved.segments is None:
        carry, recorded = pull.rows(carry, saved.rows, arrived, step.length)
    else:
        xs, starts = saved.segments
        outside = dict(zip(linear.forward.ins, saved.consts, strict=False))

        def segment(carry: Any, rows: Any, start: Any, length: int) -> Any:
            xs, arrived = rows
            nothing = saved.finite, saved.finite < 0
            _, ys, own = _run(plan, outside, (start, nothing), xs, length)
            again = _read_again(linear, xs, ys, own)
            return *pull.rows(carry, again, arrived, length), None

        carry, recorded, _ = _in_chunks(
            segment,
            carry,
            (xs, arrived),
            starts,
            step.length,
            plan.options.segment or step.length,
            not step.reverse,
        )
    mu, e, _, late, grads = carry
    logs, measured_rows, xs_ct, inner = recorded
    first = _sum([(mu, e), (late, unit)] if pull.apart else [(mu, e)], axis)
    init_ct = pick(pick(linear.state, plan.init), first)
    slots = Slots(
        logs=_with_last(logs, 0 if step.reverse else -1),
        measured=tuple(measured_rows),
        finite=saved.finite.astype(logs["total"].dtype),
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
        direct, transported = (total.replace("total", part) for part in _PARTS[1:])
        if direct not in logs:
            logs[transported] = logs[total]
            logs[direct] = jnp.full_like(logs[total], -jnp.inf)
        logs[transported] = logs[transported].at[last].set(-jnp.inf)
        logs[direct] = logs[direct].at[last].set(logs[total][last])
    return logs


class _Pull:
    """The transposed step, over rows of residuals."""

    def __init__(self, plan: _Plan, fixed: Sequence[Any], live: Sequence[bool]) -> None:
        self.plan = plan
        linear, options = plan.linear, plan.options
        self.fixed = dict(zip(linear.storage.fixed, fixed, strict=True))
        self.live = live
        # Outputs that read more of the step than its new state send a cotangent around the
        # boundary. Its leaves have no known sample axis, so where scales are per sample it travels
        # apart, in plain units.
        self.around = bool(linear.kept) and any(live)
        self.apart = self.around and options.axis is not None and plan.step.linear
        count = len(linear.advance.program.ins) - len(linear.advance.linear)
        leaves = linear.storage.leaves
        self.advance = _Part(linear.advance, leaves[:count], linear.storage, not options.log_param)
        self.readout = _Part(
            linear.readout, leaves[count : linear.residuals], linear.storage, not options.log_param
        )
        self.state = leaves[linear.residuals :]
        self.shared = _jaxpr.collective_axes(linear.advance.program, linear.readout.program)
        # One unit serves all leaves, and all samples that mix; a rule that is not linear allows no
        # unit but 1. What is far below the unit is then lost to the float.
        several = len(plan.names) > 1
        guarded = plan.mixes or several or not plan.step.linear
        self.guards = guarded + several * len(plan.names)
        # The range that matters is that of the narrowest float which an adjoint passes through.
        passed = (_dtypes(part.program, part.linear) for part in (linear.advance, linear.readout))
        self.window = min(int(jnp.finfo(d).maxexp) for d in set().union(*passed)) // 3

    def rows(self, carry: Any, rows: _Rows, arrived: Sequence[Any], length: int) -> Any:
        """Pull the carry (mu, e, lost, late, grads) back through `length` steps."""
        parts = [self.advance, *([self.readout] if any(self.live) else [])]

        def chunk(carry: Any, rows: Any, _: Any, length: int) -> Any:
            carry, (recorded, *kept) = _scan(
                self.plan.step, self._body, carry, rows, length, backward=True
            )
            *others, grads = carry
            for part, new in zip(parts, kept, strict=False):
                grads = part.finish(grads, new, rows[0])
            return (*others, grads), recorded, None

        waits = any(any(part.sums.later) for part in parts)
        size = _chunk_size(length) if waits else length
        if size == length:
            return chunk(carry, (rows, arrived), None, length)[:2]
        return _in_chunks(
            chunk, carry, (rows, arrived), (None, None), length, size, not self.plan.step.reverse
        )[:2]

    def _body(self, carry: Any, row: Any) -> Any:
        options, linear = self.plan.options, self.plan.linear
        axis, names = options.axis, self.plan.names
        mu, e, lost, late, grads = carry
        (x, y, own), arrived = row
        dtype = _norms.real_dtype(mu)
        window = self.window
        unit = jnp.zeros_like(e)

        env = dict(self.fixed)
        for stored, values in zip((linear.storage.x, linear.storage.y), (x, y), strict=True):
            env.update((slot, value) for (slot, _), value in zip(stored, values, strict=True))
        env.update(zip(linear.storage.own, own, strict=True))
        env = _jaxpr.run(linear.storage.rebuild, env)

        logs: dict[str, Any] = {}

        def record(part: str, size: _norms.Size, k: Any) -> None:
            nats = _norms.nats(k, dtype)
            logs[part] = size.total + nats
            for i, leaf in enumerate(size.each if len(names) > 1 else ()):
                logs[f"{part}:{i}"] = leaf + nats

        terms = [(mu, e), (late, unit)] if self.apart else [(mu, e)]
        sizes = [_norms.size(v, axis, dtype) for v, _ in terms]
        tops = [size.top + k for size, (_, k) in zip(sizes, terms, strict=True)]
        still = [_jaxpr.zeros(k) for k in linear.kept]
        kept, pulled = still, None
        if any(self.live):
            dense = merge(self.live, arrived, [_jaxpr.zeros(y) for y in linear.outputs])
            pulled = self.readout.pull(env, dense)
            direct, kept = pulled.state, pulled.kept
            if self.apart:
                both, k = _common(terms, tops, axis)
                record("transported", _norms.size(both, axis, dtype), k)
            else:
                record("transported", sizes[0], e)
            size = _norms.size(direct, axis, dtype)
            record("direct", size, unit)
            terms.append((direct, unit))
            tops.append(size.top)
        if self.around and not self.apart:
            tops.append(_norms.size(kept, None, dtype).top)
        top = functools.reduce(jnp.maximum, tops)
        if self.plan.mixes:
            top = jnp.full_like(top, jnp.max(top))
        now = e
        if self.plan.step.linear:
            now = _rescale(jax.lax.pmax(top, self.shared) if self.shared else top, e, window)
        mu = _sum([(v, k - now) for v, k in terms], axis)
        if len(terms) == 1:
            record("total", sizes[0], e)
        else:
            record("total", _norms.size(mu, axis, dtype), now)
        if self.guards:
            lost = _guard(logs, {"transported": e, "total": now}, lost)
        e = now
        logs["scale"] = _norms.nats(e, dtype)
        state = [_jaxpr.read(env, ref) for ref in self.state]
        results = jax.tree.leaves(measured(options, names, state, mu))

        if not self.plan.step.linear:
            back = grad = self.advance.pull(env, (*mu, *kept))
        elif axis is None:
            scaled_kept = [_norms.scale(k, -e, None) for k in kept] if self.around else kept
            back = self.advance.pull(env, (*mu, *scaled_kept))
            grad = self.advance.scaled(back, e)
        else:
            back = self.advance.pull(env, (*mu, *still))
            grad = self.advance.pull(env, (*(_norms.scale(m, e, axis) for m in mu), *kept))
        inner = grad.inner if self.apart else [_shift(slots, e) for slots in back.inner]
        if self.apart:
            late = self.advance.pull(env, (*(jnp.zeros_like(m) for m in mu), *kept)).state
        grads, xs_ct, sums = list(grads), grad.x, [grad.rows]
        for part in (grad,) if pulled is None else (grad, pulled):
            for i, ct in part.consts.items():
                grads[i] = grads[i] + ct
        if pulled is not None:
            xs_ct = _add(xs_ct, pulled.x)
            inner = _add(inner, pulled.inner)
            sums.append(pulled.rows)
        if options.log_param:
            top, one_unit = e, back
            if axis is not None:
                top = jnp.max(e)
                mu = [_norms.scale(m, e - top, axis) for m in mu]
                kept = [_norms.scale(k, -top, None) for k in kept]
                one_unit = self.advance.pull(env, (*mu, *kept))
            logs["param"] = _log_param(one_unit, top, pulled, dtype)
        return (back.state, e, lost, late, grads), ((logs, results, xs_ct, inner), *sums)


class _Pulled(NamedTuple):
    """What a transposed part gives at one step."""

    consts: dict[int, Any]  # those that are added up step by step
    state: list[Any]  # of the old state for the advance, of the new one for the readout
    x: list[Any]
    kept: list[Any]
    inner: list[Any]
    rows: dict[int, Any]  # what the sums that wait are made of


class _Part:
    """One part of the transposed step, and which of its sums over the steps wait."""

    def __init__(
        self, part: _linear.Transposed, residuals: Any, storage: _linear.Storage, defer: bool
    ) -> None:
        self.part = part
        self.residuals = residuals
        self.consts = part.consts
        fixed = {
            slot
            for slot, ref in zip(part.program.ins, residuals, strict=False)
            if isinstance(ref, _jaxpr.Lit) or ref in storage.fixed
        }
        none = Sums((False,) * len(self.consts), (), (), (), ())
        self.sums = _linear.find_sums(part, self.consts, fixed) if defer else none
        places = {slot: (0, i) for i, (slot, _) in enumerate(storage.x)}
        places |= {slot: (1, i) for i, (slot, _) in enumerate(storage.y)}
        places |= {slot: (2, i) for i, slot in enumerate(storage.own)}
        self.stored = {
            slot: places[ref]
            for slot, ref in zip(part.program.ins, residuals, strict=False)
            if slot in self.sums.rows and ref in places
        }
        now = [ref for ref, later in zip(self.consts, self.sums.later, strict=True) if not later]
        self.kept = tuple(slot for slot in self.sums.rows if slot not in self.stored)
        others = (*part.state, *part.x, *part.kept, *part.inner)
        self.nodes = _jaxpr.needed(part.program.nodes, (*now, *others, *self.kept))
        linear = _jaxpr.dependents(part.program.nodes, part.linear)
        self.linear = frozenset(linear.intersection(self.kept))

    def pull(self, env: dict[int, Any], cotangents: Sequence[Any]) -> _Pulled:
        """Run the part on a step's residuals; `env` has the slots of the forward program."""
        part = self.part
        residuals = [_jaxpr.read(env, ref) for ref in self.residuals]
        inside = dict(zip(part.program.ins, (*residuals, *cotangents), strict=True))
        inside = _jaxpr.run(self.nodes, inside)

        def read(refs: Sequence[Any]) -> list[Any]:
            return [_jaxpr.read(inside, ref) for ref in refs]

        later = self.sums.later
        return _Pulled(
            consts={
                i: _jaxpr.read(inside, ref) for i, ref in enumerate(self.consts) if not later[i]
            },
            state=read(part.state),
            x=read(part.x),
            kept=read(part.kept),
            inner=jax.tree.unflatten(part.inner_tree, read(part.inner)),
            rows={slot: inside[slot] for slot in self.kept},
        )

    def scaled(self, pulled: _Pulled, e: Any) -> _Pulled:
        """2^e times what goes to the consts and the inputs."""

        def grow(x: Any) -> Any:
            return _norms.scale(x, e, None)

        return pulled._replace(
            consts={i: grow(ct) for i, ct in pulled.consts.items()},
            x=[grow(ct) for ct in pulled.x],
            rows={s: grow(row) if s in self.linear else row for s, row in pulled.rows.items()},
        )

    def finish(self, grads: list[Any], kept: dict[int, Any], stored: _Rows) -> list[Any]:
        """Add the sums over a chunk of steps to the gradients."""
        rows = {slot: stored[kind][i] for slot, (kind, i) in self.stored.items()} | kept
        sums = iter(self.sums.finish(rows, self.consts))
        return [
            grad + next(sums) if later else grad
            for grad, later in zip(grads, self.sums.later, strict=True)
        ]


def _guard(logs: dict[str, Any], units: dict[str, Any], before: Sequence[Any]) -> list[Any]:
    """Let NaN stand for what has fallen out of the float's range below its unit, 2^units[part].

    `before` says of the total and of each leaf whether it was lost at the step after this one. It
    is lost from the step at which it nearly leaves the range, zero or not, until it is back.
    """
    dtype = logs["total"].dtype
    floor = _norms.floor(dtype)
    lost = []
    for i, was in enumerate(before):
        now = was
        for part, k in units.items():
            name = f"{part}:{i - 1}" if i else part
            if name in logs:
                low = logs[name] - _norms.nats(k, dtype) < floor
                now = low & (was | ~jnp.isneginf(logs[name]))
                logs[name] = jnp.where(now, jnp.nan, logs[name])
        lost.append(_jaxpr.vary(now, _jaxpr.varies_over(jax.typeof(was))))
    return lost


def _dtypes(program: _jaxpr.Program, linear: Sequence[int]) -> set[Any]:
    """The types of the floats that depend on the inputs `linear`."""
    reached = _jaxpr.dependents(program.nodes, linear)
    dtypes = {program.avals[slot].dtype for slot in reached}
    return {dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.inexact)}


def _log_param(advance: _Pulled, e: Any, readout: _Pulled | None, dtype: Any) -> Any:
    """ln of the norm of a step's contribution to the consts; the advance's is in units of 2^e."""
    terms = [(list(advance.consts.values()), e)]
    if readout is not None:
        terms.append((list(readout.consts.values()), jnp.zeros_like(e)))
    if not terms[0][0]:
        return jnp.full_like(e, -jnp.inf, dtype)
    tops = [_norms.size(v, None, dtype).top + k for v, k in terms]
    both, k = _common(terms, tops, None)
    return _norms.size(both, None, dtype).total + _norms.nats(k, dtype)


def _rescale(top: jax.Array, e: jax.Array, window: int) -> jax.Array:
    """Keep the exponent while the adjoint stays well inside the float's range."""
    moved = (jnp.abs(top - e) > window) & (top > _norms.ZERO // 2)
    return jnp.where(moved, top, e)


def _sum(terms: Sequence[Any], axis: int | None) -> list[Any]:
    """The sum of 2^k v over the terms (v, k)."""
    scaled = [[_norms.scale(x, k, axis) for x in v] for v, k in terms]
    return [functools.reduce(jnp.add, parts) for parts in zip(*scaled, strict=True)]


def _common(terms: Sequence[Any], tops: Sequence[Any], axis: int | None) -> Any:
    """(v, k) with 2^k v the sum of the terms, in a unit in which it cannot overflow."""
    top = functools.reduce(jnp.maximum, tops)
    top = jnp.where(top > _norms.ZERO // 2, top, 0)
    return _sum([(v, k - top) for v, k in terms], axis), top


def _shift(slots: Slots, e: jax.Array) -> Slots:
    """Bring what inner scans measured in units of 2^e to plain units."""

    def move(log: jax.Array) -> jax.Array:
        more = _norms.nats(e, log.dtype).reshape((1,) * (log.ndim - e.ndim) + e.shape)
        seen = slots.visits.reshape(slots.visits.shape + (1,) * (log.ndim - slots.visits.ndim))
        return jnp.where(seen > 0, log + more, log)

    return slots._replace(logs=jax.tree.map(move, slots.logs))


def _is_primal(x: Any) -> bool:
    return hasattr(x, "perturbed")


def _spread(flags: Sequence[bool], picked: Sequence[Any]) -> list[Any]:
    return merge(flags, picked, [None] * len(flags))


def _add(left: list[Any], right: list[Any]) -> list[Any]:
    return jax.tree.map(jnp.add, left, right) if left else right


def _dense(ct: Any) -> Any:
    return _jaxpr.zeros(ct.aval) if isinstance(ct, SymbolicZero) else ct
