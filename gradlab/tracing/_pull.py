"""The transposed step of a recurrence, pulled back over rows of residuals and recorded.

`Pull.rows` goes back through the steps, with a unit 2^e that is chosen at each step. Parallel
scans, and long recurrences of light steps, go chunk by chunk, and a chunk runs in one unit first:
then a step is the transposed step alone, and the norms of all rows are taken at once afterwards.
Where the adjoint leaves the window in which one unit is right, the chunk is run again with care.
Both give the same record; the first is only there for speed.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradlab.tracing import _jaxpr, _linear, _norms
from gradlab.tracing._linear import Linearized, Step, Sums, merge
from gradlab.tracing._record import Options, Slots, call_measure

# Steps whose weight gradients are taken in one product: enough for the product to run at its full
# rate, few enough for what is kept meanwhile to be small beside the residuals of the whole scan.
_CHUNK = 32
# From how many steps on chunks in one unit pay: both ways of a chunk are compiled then, which takes
# half as long again.
_LONG = 129


def scan_steps(
    step: Step,
    body: Any,
    init: Any,
    xs: Any,
    length: int,
    backward: bool = False,
) -> Any:
    return jax.lax.scan(
        body,
        init,
        xs,
        length=length,
        reverse=step.reverse != backward,
        unroll=step.unroll,
    )


def in_chunks(
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
    whole = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), early, late)
    return carry, whole, (items, item)


def _chunk_size(length: int) -> int:
    """A divisor of the length near _CHUNK where there is one, else _CHUNK itself."""
    near = range(2 * _CHUNK, _CHUNK // 2 - 1, -1)
    return next((size for size in near if length % size == 0), min(_CHUNK, length))


class Plan(NamedTuple):
    """What the backward pass knows before it runs; no arrays."""

    step: Step
    options: Options
    names: tuple[str, ...]  # of the float leaves of the carry
    linear: Linearized
    consts: tuple[bool, ...]  # which consts and initial states get a cotangent
    init: tuple[bool, ...]
    varies: frozenset[str]  # the mesh axes of shard_map that the slots vary over
    mixes: bool  # whether samples interact in the step, so that all need one unit
    in_one_unit: bool  # whether chunks of a long scan run in one unit first, where they can


class Rows(NamedTuple):
    """What of each step is read in the backward pass, as `_linear.Storage` lists it."""

    x: list[Any]
    y: list[Any]
    own: list[Any]


class Pull:
    """The transposed step, over rows of residuals."""

    def __init__(self, plan: Plan, fixed: Sequence[Any], live: Sequence[bool]) -> None:
        self.plan = plan
        linear, options = plan.linear, plan.options
        self.fixed = dict(zip(linear.storage.fixed, fixed, strict=True))
        self.live = live
        # Outputs that read more of the step than its new state send a cotangent around the
        # boundary. Its leaves have no known sample axis, so where scales are per sample it travels
        # apart, in plain units.
        self.around = bool(linear.extras) and any(live)
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
        dtypes = (_dtypes(part.program, part.linear) for part in (linear.advance, linear.readout))
        self.window = min(int(jnp.finfo(d).maxexp) for d in set().union(*dtypes)) // 3
        inner = (*linear.advance.inner, *linear.readout.inner)
        careful = self.around or self.shared or plan.varies or options.log_param or inner
        self.in_one_unit = plan.in_one_unit and plan.step.linear and not careful
        self.still = [_jaxpr.zeros(k) for k in linear.extras]

    def rows(self, carry: Any, rows: Rows, output_cts: Sequence[Any], length: int) -> Any:
        """Pull the carry (mu, e, lost, late, grads) back through `length` steps."""
        waits = any(any(part.sums.later) for part in self._parts)
        in_one_unit = self.in_one_unit and length >= _LONG

        def chunk(carry: Any, rows: Any, _: Any, length: int) -> Any:
            run = self._fast if in_one_unit else self._careful
            return *run(carry, rows, length), None

        size = _chunk_size(length) if waits or in_one_unit else length
        if size == length:
            return chunk(carry, (rows, output_cts), None, length)[:2]
        return in_chunks(
            chunk, carry, (rows, output_cts), (None, None), length, size, not self.plan.step.reverse
        )[:2]

    @property
    def _parts(self) -> list[_Part]:
        return [self.advance, *([self.readout] if any(self.live) else [])]

    def _careful(self, carry: Any, rows: Any, length: int) -> Any:
        """Run a chunk with a unit chosen at each step."""
        (*others, grads), (records, *sum_rows) = scan_steps(
            self.plan.step, self._body, carry, rows, length, backward=True
        )
        for part, new in zip(self._parts, sum_rows, strict=False):
            grads = part.finish(grads, new, rows[0])
        return (*others, grads), records

    def _fast(self, carry: Any, rows: Any, length: int) -> Any:
        """Run a chunk in one unit, or with care where its adjoint does not stay in the window."""
        mu, e, lost, late, grads = carry
        axis = self.plan.options.axis
        dtype = _norms.real_dtype(mu)
        unit = self._unit_of_chunk(mu, e, dtype)
        mu = [_norms.scale(m, e - unit, axis) for m in mu]
        carry = mu, unit, lost, late, grads
        after, (arriving, direct), results, sums = self._run_in_one_unit(carry, rows, length)
        logs, good = self._record_rows(unit, lost, arriving, direct, length, dtype)
        once, xs_ct, sum_rows = sums
        for part, new in zip(self._parts, sum_rows, strict=True):
            once = part.finish(once, new, rows[0])
        outcome = (*after, lost, late, once), (logs, results, xs_ct, [])
        return jax.lax.cond(
            _norms.everywhere(good), lambda: outcome, lambda: self._careful(carry, rows, length)
        )

    def _unit_of_chunk(self, mu: Sequence[Any], e: Any, dtype: Any) -> Any:
        """The unit in which a chunk begins.

        It stays 1 as long as the adjoint is near 1. From then on an adjoint that has shrunk begins
        at the upper end of the window, and one that has grown at the lower end, so that most chunks
        stay in it.
        """
        window = self.window
        top = _norms.top(mu, self.plan.options.axis, dtype)
        if self.plan.mixes:
            top = jnp.full_like(top, jnp.max(top))
        start = 3 * window // 4
        # Where it goes on as before, a chunk uses what is left of the window.
        reverses = jnp.sign(e) * top < -start
        exceeds = jnp.sign(e) * top > 0
        restart = jnp.where(e == 0, jnp.abs(top) > window // 4, reverses | exceeds)
        down = jnp.where((e == 0) | reverses, top < 0, e < 0)
        place = jnp.where(down, start, -start)
        return jnp.where(restart & (top > _norms.ZERO // 2), e + top - place, e)

    def _run_in_one_unit(self, carry: Any, rows: Any, length: int) -> Any:
        """The plain recursion at a fixed unit 2^e.

        Returns (mu, e), the stacked (mu, direct) that arrive at each step, the results of
        `measure`, and (grads, cotangents of the inputs, rows of the sums that wait).
        """
        mu, e, _, _, grads = carry
        axis = self.plan.options.axis
        apart = axis is not None  # the units of samples do not leave a sum over samples

        def body(carry: Any, row: Any) -> Any:
            mu, units, plain = carry
            env, y_cts = self._open(row)
            total = mu
            if y_cts is not None:
                total = sum_terms([(mu, jnp.zeros_like(e)), (y_cts.state, -e)], axis)
            results = self._measure(env, total)
            back = grad = self.advance.pull(env, (*total, *self.still))
            if apart:
                grad = self.advance.pull(
                    env, (*(_norms.scale(m, e, axis) for m in total), *self.still)
                )
            units = {i: units[i] + ct for i, ct in grad.consts.items()}
            direct, x, readout = [], [], {}
            if y_cts is not None:
                plain = {i: plain[i] + ct for i, ct in y_cts.consts.items()}
                direct, x, readout = y_cts.state, y_cts.x, y_cts.rows
            out = (mu, direct), results, (grad.x, x), (grad.rows, readout)
            return (back.state, units, plain), out

        def zeros(part: _Part) -> dict[int, Any]:
            later = part.sums.later
            return {i: jnp.zeros_like(g) for i, g in enumerate(grads) if not later[i]}

        start = mu, zeros(self.advance), zeros(self.readout)
        (mu, units, plain), (arrivals, results, (x, more), sum_rows) = scan_steps(
            self.plan.step, body, start, rows, length, backward=True
        )
        sums = _Cts(units, [], x, [], [], sum_rows[0])
        if not apart:
            sums = self.advance.scale(sums, e)
        grads = list(grads)
        for part in (sums.consts, plain):
            for i, ct in part.items():
                grads[i] = grads[i] + ct
        xs_ct = _add(sums.x, more) if more else sums.x
        sum_rows = [sums.rows, sum_rows[1]][: len(self._parts)]
        return (mu, e), arrivals, results, (grads, xs_ct, sum_rows)

    def _record_rows(
        self, e: Any, lost: Sequence[Any], mu: list[Any], direct: list[Any], length: int, dtype: Any
    ) -> Any:
        """The logarithms of all rows, and whether one unit was right for them."""
        axis = self.plan.options.axis
        logs: dict[str, Any] = {}
        units = jnp.broadcast_to(e, (length, *e.shape))
        size = jax.vmap(functools.partial(_norms.size_in_range, axis=axis, dtype=dtype))
        sizes, inside = size(mu)
        bad = [~inside]
        top = sizes.top
        if direct:
            self._log(logs, "transported", sizes, units, dtype)
            own, inside = size(direct)
            self._log(logs, "direct", own, jnp.zeros_like(units), dtype)
            bad.append(~inside)
            top = jnp.maximum(top, own.top - units)
            total = jax.vmap(
                lambda mu, direct: sum_terms([(mu, jnp.zeros_like(e)), (direct, -e)], axis)
            )(mu, direct)
            sizes, inside = size(total)
            bad.append(~inside)
        self._log(logs, "total", sizes, units, dtype)
        if self.plan.mixes:
            top = jnp.max(top, axis=-1)
        bad.append((jnp.abs(top) > self.window) & (top > _norms.ZERO // 2))
        low = [
            (log - _norms.nats(units, dtype) < _norms.floor(dtype)) & ~jnp.isneginf(log)
            for name, log in logs.items()
            if self.guards and not name.startswith("direct")
        ]
        good = ~functools.reduce(jnp.logical_or, map(jnp.any, (*bad, *low, *lost)))
        logs["scale"] = _norms.nats(units, dtype)
        return logs, good

    def _log(self, logs: dict[str, Any], part: str, size: _norms.Size, k: Any, dtype: Any) -> None:
        """Write down the ln norms of a vector in units of 2^k, of all leaves and of each."""
        nats = _norms.nats(k, dtype)
        logs[part] = size.total + nats
        for i, leaf in enumerate(size.each if len(self.plan.names) > 1 else ()):
            logs[f"{part}:{i}"] = leaf + nats

    def _open(self, row: Any) -> tuple[dict[int, Any], _Cts | None]:
        """The residuals of a step by their slots, and what its outputs send back."""
        storage = self.plan.linear.storage
        (x, y, own), output_cts = row
        env = dict(self.fixed)
        for places, values in zip((storage.x, storage.y), (x, y), strict=True):
            env.update((slot, value) for (slot, _), value in zip(places, values, strict=True))
        env.update(zip(storage.own, own, strict=True))
        env = _jaxpr.run(storage.rebuild, env)
        if not any(self.live):
            return env, None
        nothing = [_jaxpr.zeros(y) for y in self.plan.linear.outputs]
        return env, self.readout.pull(env, merge(self.live, output_cts, nothing))

    def _measure(self, env: dict[int, Any], mu: Sequence[Any]) -> list[Any]:
        values = [_jaxpr.read(env, ref) for ref in self.state]
        view, count = self.plan.step.view, len(self.plan.names)
        more = () if view is None else (view.restore(values[count:]),)
        results = call_measure(self.plan.options, self.plan.names, values[:count], mu, *more)
        return jax.tree.leaves(results)

    def _body(self, carry: Any, row: Any) -> Any:
        """One step with care: choose the unit, record, and pull back."""
        mu, e, lost, late, grads = carry
        env, y_cts = self._open(row)
        extras = self.still if y_cts is None else y_cts.extras
        logs: dict[str, Any] = {}
        terms, tops = self._arrive(logs, mu, e, late, y_cts)
        mu, e = self._join(logs, terms, tops, e)
        if self.guards:
            lost = _guard(logs, {"transported": carry[1], "total": e}, lost)
        logs["scale"] = _norms.nats(e, _norms.real_dtype(mu))
        results = self._measure(env, mu)
        back, grad, late = self._back(env, mu, e, extras, late)
        inner = grad.inner if self.apart else [_shift(slots, e) for slots in back.inner]
        grads, xs_ct, sums = list(grads), grad.x, [grad.rows]
        for part in (grad,) if y_cts is None else (grad, y_cts):
            for i, ct in part.consts.items():
                grads[i] = grads[i] + ct
        if y_cts is not None:
            xs_ct = _add(xs_ct, y_cts.x)
            inner = _add(inner, y_cts.inner)
            sums.append(y_cts.rows)
        if self.plan.options.log_param:
            logs["param"] = self._log_param(env, mu, e, extras, back, y_cts)
        return (back.state, e, lost, late, grads), ((logs, results, xs_ct, inner), *sums)

    def _arrive(
        self, logs: dict[str, Any], mu: list[Any], e: Any, late: list[Any], y_cts: _Cts | None
    ) -> tuple[list[Any], list[Any]]:
        """Record what comes from the later steps and from the step's own outputs.

        Returns the terms (v, k) whose sum of 2^k v is lambda_t, and the exponents of their sizes.
        """
        axis, dtype = self.plan.options.axis, _norms.real_dtype(mu)
        unit = jnp.zeros_like(e)
        terms = [(mu, e), (late, unit)] if self.apart else [(mu, e)]
        sizes = [_norms.size(v, axis, dtype) for v, _ in terms]
        tops = [size.top + k for size, (_, k) in zip(sizes, terms, strict=True)]
        if y_cts is None:
            self._log(logs, "total", sizes[0], e, dtype)
            return terms, tops
        if self.apart:
            both, k = _common(terms, tops, axis)
            self._log(logs, "transported", _norms.size(both, axis, dtype), k, dtype)
        else:
            self._log(logs, "transported", sizes[0], e, dtype)
        size = _norms.size(y_cts.state, axis, dtype)
        self._log(logs, "direct", size, unit, dtype)
        terms.append((y_cts.state, unit))
        tops.append(size.top)
        if self.around and not self.apart:
            tops.append(_norms.size(y_cts.extras, None, dtype).top)
        return terms, tops

    def _join(
        self, logs: dict[str, Any], terms: list[Any], tops: list[Any], e: Any
    ) -> tuple[list[Any], Any]:
        """Sum the terms in a unit chosen for them; returns (mu, e)."""
        axis = self.plan.options.axis
        top = functools.reduce(jnp.maximum, tops)
        if self.plan.mixes:
            top = jnp.full_like(top, jnp.max(top))
        if self.plan.step.linear:
            top = jax.lax.pmax(top, self.shared) if self.shared else top
            e = _rescale(top, e, self.window)
        mu = sum_terms([(v, k - e) for v, k in terms], axis)
        if "total" not in logs:
            dtype = _norms.real_dtype(mu)
            self._log(logs, "total", _norms.size(mu, axis, dtype), e, dtype)
        return mu, e

    def _back(
        self, env: dict[int, Any], mu: list[Any], e: Any, extras: list[Any], late: list[Any]
    ) -> tuple[_Cts, _Cts, list[Any]]:
        """Pull lambda_t = 2^e mu_t back through the step.

        Returns what goes to the old state in units of 2^e, what goes to the consts and inputs in
        plain units, and what travels apart (see `apart`).
        """
        axis = self.plan.options.axis
        if not self.plan.step.linear:
            back = self.advance.pull(env, (*mu, *extras))
            return back, back, late
        if axis is None:
            in_unit = [_norms.scale(k, -e, None) for k in extras] if self.around else extras
            back = self.advance.pull(env, (*mu, *in_unit))
            return back, self.advance.scale(back, e), late
        back = self.advance.pull(env, (*mu, *self.still))
        grad = self.advance.pull(env, (*(_norms.scale(m, e, axis) for m in mu), *extras))
        if self.apart:
            late = self.advance.pull(env, (*(jnp.zeros_like(m) for m in mu), *extras)).state
        return back, grad, late

    def _log_param(
        self,
        env: dict[int, Any],
        mu: list[Any],
        e: Any,
        extras: list[Any],
        back: _Cts,
        y_cts: _Cts | None,
    ) -> Any:
        """ln of the norm of the step's contribution to the consts."""
        axis, dtype = self.plan.options.axis, _norms.real_dtype(mu)
        if axis is not None:
            top = jnp.max(e)
            mu = [_norms.scale(m, e - top, axis) for m in mu]
            extras = [_norms.scale(k, -top, None) for k in extras]
            back, e = self.advance.pull(env, (*mu, *extras)), top
        return _log_param(back, e, y_cts, dtype)


class _Cts(NamedTuple):
    """The cotangents that a transposed part gives at one step."""

    consts: dict[int, Any]  # those that are added up step by step
    state: list[Any]  # of the old state for the advance, of the new one for the readout
    x: list[Any]
    extras: list[Any]
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
        self.places = {
            slot: places[ref]
            for slot, ref in zip(part.program.ins, residuals, strict=False)
            if slot in self.sums.rows and ref in places
        }
        now = [ref for ref, later in zip(self.consts, self.sums.later, strict=True) if not later]
        self.row_slots = tuple(slot for slot in self.sums.rows if slot not in self.places)
        others = (*part.state, *part.x, *part.extras, *part.inner)
        self.nodes = _jaxpr.dependencies(part.program.nodes, (*now, *others, *self.row_slots))
        linear = _jaxpr.dependents(part.program.nodes, part.linear)
        self.linear = frozenset(linear.intersection(self.row_slots))

    def pull(self, env: dict[int, Any], cotangents: Sequence[Any]) -> _Cts:
        """Run the part on a step's residuals; `env` has the slots of the forward program."""
        part = self.part
        residuals = [_jaxpr.read(env, ref) for ref in self.residuals]
        inside = dict(zip(part.program.ins, (*residuals, *cotangents), strict=True))
        inside = _jaxpr.run(self.nodes, inside)

        def read(refs: Sequence[Any]) -> list[Any]:
            return [_jaxpr.read(inside, ref) for ref in refs]

        later = self.sums.later
        return _Cts(
            consts={
                i: _jaxpr.read(inside, ref) for i, ref in enumerate(self.consts) if not later[i]
            },
            state=read(part.state),
            x=read(part.x),
            extras=read(part.extras),
            inner=jax.tree.unflatten(part.inner_tree, read(part.inner)),
            rows={slot: inside[slot] for slot in self.row_slots},
        )

    def scale(self, cts: _Cts, e: Any) -> _Cts:
        """2^e times what goes to the consts and the inputs."""

        def grow(x: Any) -> Any:
            return _norms.scale(x, e, None)

        return cts._replace(
            consts={i: grow(ct) for i, ct in cts.consts.items()},
            x=[grow(ct) for ct in cts.x],
            rows={s: grow(row) if s in self.linear else row for s, row in cts.rows.items()},
        )

    def finish(self, grads: list[Any], rows_now: dict[int, Any], residuals: Rows) -> list[Any]:
        """Add the sums over a chunk of steps to the gradients."""
        rows = {slot: residuals[kind][i] for slot, (kind, i) in self.places.items()} | rows_now
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
    flags = []
    for i, was in enumerate(before):
        now = was
        for part, k in units.items():
            name = f"{part}:{i - 1}" if i else part
            if name in logs:
                low = logs[name] - _norms.nats(k, dtype) < floor
                now = low & (was | ~jnp.isneginf(logs[name]))
                logs[name] = jnp.where(now, jnp.nan, logs[name])
        flags.append(_jaxpr.vary(now, _jaxpr.varies_over(jax.typeof(was))))
    return flags


def _dtypes(program: _jaxpr.Program, linear: Sequence[int]) -> set[Any]:
    """The types of the floats that depend on the inputs `linear`."""
    slots = _jaxpr.dependents(program.nodes, linear)
    dtypes = {program.avals[slot].dtype for slot in slots}
    return {dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.inexact)}


def _log_param(advance: _Cts, e: Any, readout: _Cts | None, dtype: Any) -> Any:
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
    outside = (jnp.abs(top - e) > window) & (top > _norms.ZERO // 2)
    return jnp.where(outside, top, e)


def sum_terms(terms: Sequence[Any], axis: int | None) -> list[Any]:
    """The sum of 2^k v over the terms (v, k)."""
    plain = [[_norms.scale(x, k, axis) for x in v] for v, k in terms]
    return [functools.reduce(jnp.add, parts) for parts in zip(*plain, strict=True)]


def _common(terms: Sequence[Any], tops: Sequence[Any], axis: int | None) -> Any:
    """(v, k) with 2^k v the sum of the terms, in a unit in which it cannot overflow."""
    top = functools.reduce(jnp.maximum, tops)
    top = jnp.where(top > _norms.ZERO // 2, top, 0)
    return sum_terms([(v, k - top) for v, k in terms], axis), top


def _shift(slots: Slots, e: jax.Array) -> Slots:
    """Bring what inner scans measured in units of 2^e to plain units."""

    def move(log: jax.Array) -> jax.Array:
        more = _norms.nats(e, log.dtype).reshape((1,) * (log.ndim - e.ndim) + e.shape)
        visits = slots.visits.reshape(slots.visits.shape + (1,) * (log.ndim - slots.visits.ndim))
        return jnp.where(visits > 0, log + more, log)

    return slots._replace(logs=jax.tree.map(move, slots.logs))


def _add(left: list[Any], right: list[Any]) -> list[Any]:
    return jax.tree.map(jnp.add, left, right) if left else right
