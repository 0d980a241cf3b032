"""Walk a program and put a traced scan in the place of each scan that carries floats."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradlab.tracing import _jaxpr, _narrow, _norms, _rules, _stacks, _unseen
from gradlab.tracing._changes import Changes
from gradlab.tracing._cut import cut_step
from gradlab.tracing._linear import Step, pick, split
from gradlab.tracing._record import Options, Slots, call_measure, log_names
from gradlab.tracing._scan import traced_parallel, traced_scan
from gradlab.tracing._view import View, show


class Site(NamedTuple):
    """A scan that carries floats, or a tap: where it stands and what shape its record has."""

    name: str
    length: int | None  # None for a tap on a single value
    reverse: bool
    outer: tuple[int, ...]  # lengths of the scans around it, and the shards of a shard_map
    leaf_names: tuple[str, ...]  # of the float leaves of its carry; none for a tap
    batch: tuple[int, ...]  # (samples,) where batch_axis is given, else ()
    dtype: Any
    varies: frozenset[str]  # the mesh axes of a shard_map around the trace that it varies over
    logs: tuple[str, ...]  # the names of what is recorded
    measured: Any  # types of what `measure` returns
    # Of a tap on the stacked states of a parallel scan: how many sites before it that scan's is,
    # under which name it has the total adjoint, and in which rows.
    total: tuple[int, str, range] | None = None

    @property
    def is_tap(self) -> bool:
        return not self.leaf_names

    def slots(self) -> Slots:
        """Zeros for the backward pass to write into."""
        rows = self.outer if self.length is None else (*self.outer, self.length)

        def zeros(shape: tuple[int, ...], dtype: Any) -> jax.Array:
            return _jaxpr.vary(jnp.zeros(shape, dtype), self.varies)

        return Slots(
            logs={
                name: zeros((*rows, *(() if name == "param" else self.batch)), self.dtype)
                for name in self.logs
            },
            measured=tuple(
                _jaxpr.reshard(zeros((*rows, *leaf.shape), leaf.dtype), leaf)
                for leaf in jax.tree.leaves(self.measured)
            ),
            finite=zeros((*self.outer, *self.batch), self.dtype),
            visits=zeros(self.outer, self.dtype),
        )

    def inside(self, count: int, reverse: bool) -> Site:
        """The same site as seen from outside a scan of `count` steps."""
        reverse = reverse if self.length is None and not self.outer else self.reverse
        return self._replace(outer=(count, *self.outer), reverse=reverse)

    def in_shards(self, count: int) -> Site:
        """The same site as seen from outside a shard_map, whose mesh says nothing there."""
        types = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), self.measured)
        return self._replace(outer=(count, *self.outer), varies=frozenset(), measured=types)


_UNDIFFERENTIABLE = ("while", "pure_callback", "io_callback")


class Walk:
    """The rewriting of one program, for one choice of options."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._found: dict[int, tuple[Any, list[Site]]] = {}
        self._flat: dict[int, tuple[Any, Any]] = {}
        self._narrow: dict[int, tuple[Any, bool]] = {}
        self._closed: dict[int, tuple[Any, bool]] = {}
        self._views: dict[int, tuple[Any, View]] = {}
        self.changes = Changes(self.flat)

    def sites(self, program: _jaxpr.Program) -> list[Site]:
        """Every traced scan and tap of the program, in program order, outer before inner."""
        sites: list[Site] = []
        for node in program.nodes:
            own = self.sites_of(node)
            link = _stacks.link(self, program, node) if node.kind == _jaxpr.TAP else None
            if link is not None:
                total = len(sites) - link.site, link.log, link.rows
                own = [own[0]._replace(total=total)]
            sites += own
        return sites

    def sites_of(self, node: _jaxpr.Node) -> list[Site]:
        """The sites of one equation: its own first, then those inside it."""
        key = id(node.eqn)
        if key not in self._found:
            with node.eqn.ctx.manager:  # which knows the mesh, also inside shard_map
                sites = self._look(node)
            if any(not site.name for site in sites):
                # A library may leave no line of the user's on what it wraps: the call's serves.
                name = _jaxpr.where(node)
                sites = [site if site.name else site._replace(name=name) for site in sites]
            # Hold a reference to the equation so that its id is not reused.
            self._found[key] = (node.eqn, sites)
        return self._found[key][1]

    def adopt(self, node: _jaxpr.Node, sites: list[Site]) -> None:
        """Say what the sites of a node are that stands in the place of another."""
        self._found[id(node.eqn)] = (node.eqn, sites)

    def flat(self, node: _jaxpr.Node) -> Any:
        """What an equation holds: the parts of a scan, the branches of a cond, or a callee."""
        key = id(node.eqn)
        if key not in self._flat:
            read = {"scan": _jaxpr.scan_parts, "cond": _jaxpr.branches}.get(
                node.kind, _jaxpr.callee
            )
            self._flat[key] = (node.eqn, read(node))
        return self._flat[key][1]

    def inside(self, node: _jaxpr.Node) -> Sequence[_jaxpr.Program]:
        """The programs that an equation runs and that scans are looked for in."""
        if node.kind == "scan":
            return [self.flat(node).body]
        if node.kind == "cond":
            return self.flat(node)
        is_open = node.kind in _jaxpr.CALLS and not self.is_closed(node)
        return [self.flat(node)] if is_open else []

    def is_closed(self, node: _jaxpr.Node) -> bool:
        """Whether only its own backward rule can go back through a function: it holds a loop."""
        if node.kind not in ("custom_jvp_call", "custom_vjp_call"):
            return False
        key = id(node.eqn)
        if key not in self._closed:
            self._closed[key] = (node.eqn, self._holds_loop(self.flat(node)))
        return self._closed[key][1]

    def _holds_loop(self, program: _jaxpr.Program) -> bool:
        """Whether a while_loop takes perturbed floats to floats, at any depth."""
        for node in program.nodes:
            if node.kind == "while" and any(self.changes.of(node)):
                if any(_jaxpr.is_float(program.avals[slot]) for slot in node.outs):
                    return True
            if self.is_closed(node) or any(map(self._holds_loop, self.inside(node))):
                return True
        return False

    def loops(self, program: _jaxpr.Program) -> Iterator[str]:
        """Where the loops over floats stand that reverse mode cannot go through."""
        for node in program.nodes:
            if node.kind == "while":
                types = [program.avals[slot].dtype for slot in node.outs]
                if any(jnp.issubdtype(dtype, jnp.inexact) for dtype in types):
                    yield _jaxpr.where(node)
            for inner in self.inside(node):
                yield from self.loops(inner)

    def check_taps(self, program: _jaxpr.Program) -> None:
        """Refuse a tap whose result is dropped, and warn of one whose value is also used as it is.

        A tap records the adjoint of its result: what goes past it is not in the record.
        """
        live = _jaxpr.dependencies(program.nodes, program.outs)
        readers: dict[int | _jaxpr.Lit, list[tuple[int, ...]]] = {ref: [()] for ref in program.outs}
        for node in live:
            if node.kind != _jaxpr.TAP:
                for ref in node.ins:
                    readers.setdefault(ref, []).append(node.outs)
        alive = {node.outs for node in live}
        for node in program.nodes:
            if node.kind == _jaxpr.TAP:
                forms = _jaxpr.forms(program, node.ins[0])
                # The cast or reshape that makes the value of the tap is no use beside it.
                passed = any(
                    set(outs).isdisjoint(forms) for ref in forms for outs in readers.get(ref, ())
                )
                is_alive = node.outs in alive
                # A tap with the total adjoint of a scan's states has what goes past it, too.
                if not (is_alive and passed and _stacks.link(self, program, node)):
                    self._check_tap(node, is_alive, passed)
            for inner in self.inside(node):
                self.check_taps(inner)

    def _check_tap(self, node: _jaxpr.Node, alive: bool, passed: bool) -> None:
        name = node.params["name"]
        place = f"the tap {name!r} at {_jaxpr.where(node)}"
        advice = f"write `h = gl.tap(h, {name!r})`, and use this h from there on"
        if passed and not alive:
            raise ValueError(
                f"{place} has no effect, since its result is not used: gl.tap marks the value that "
                f"it returns; {advice}"
            )
        if passed:
            message = (
                f"{place} records the adjoint of its result alone, and the value that it was given "
                f"is used beside it; to record all of it, {advice}"
            )
            warnings.warn(message, stacklevel=2)

    def _look(self, node: _jaxpr.Node) -> list[Site]:
        if node.kind == "scan":
            return self._look_at_scan(node)
        if node.kind == _jaxpr.PARALLEL:
            return self._look_at_parallel(node)
        if node.kind == _jaxpr.TAP:
            return [self._look_at_tap(node)]
        sites = [site for inner in self.inside(node) for site in self.sites(inner)]
        if node.kind == "shard_map":
            shards = _jaxpr.shards(node)
            sites = [site.in_shards(shards) for site in sites]
        return sites

    def _look_at_tap(self, node: _jaxpr.Node) -> Site:
        name, axis, aval = node.params["name"], node.params["axis"], node.eqn.invars[0].aval
        shape = list(aval.shape)
        length = None if axis is None else shape.pop(axis)
        batch = self.options.axis
        if batch is not None and not -len(shape) <= batch < len(shape):
            raise ValueError(
                f"batch_axis={batch}: the tap {name!r} marks values of shape {tuple(shape)}, which "
                "lack that axis"
            )
        return Site(
            name=name,
            length=length,
            reverse=False,
            outer=(),
            leaf_names=(),
            batch=() if batch is None else (shape[batch],),
            dtype=_norms.real_dtype([aval]),
            varies=_jaxpr.varies_over(aval),
            logs=("total",),
            measured=(),
        )

    def _look_at_scan(self, node: _jaxpr.Node) -> list[Site]:
        parts = self.flat(node)
        body_ins = parts.body.ins
        carry = [
            (name, parts.body.avals[slot])
            for name, slot in zip(parts.leaf_names, body_ins[parts.num_consts :], strict=False)
        ]
        floats = [(name, aval) for name, aval in carry if jnp.issubdtype(aval.dtype, jnp.inexact)]
        if parts.length == 0:
            return []
        if _jaxpr.holds_ref(node):
            if floats:
                raise ValueError(_unseen.ref_message(_jaxpr.where(node)))
            return []
        inner = [site.inside(parts.length, parts.reverse) for site in self.sites(parts.body)]
        if not floats:
            return inner
        name = _jaxpr.where(node)
        if self.options.log_param and self.options.axis is not None and inner:
            raise ValueError(
                f"log_param=True with batch_axis: the scans inside the scan at {name} hold each "
                "sample in its own unit, so their contributions cannot be summed; leave one of the "
                "two out"
            )
        view = self._view_of(node, floats)
        return [self._site(name, floats, parts.length, parts.reverse, inner, view), *inner]

    def _look_at_parallel(self, node: _jaxpr.Node) -> list[Site]:
        parts = node.eqn.parts
        if parts is None:
            return []
        # The program does not hold the names of the elements, only their order.
        floats = {
            i: (str(i), _jaxpr.row_type(aval, layout.axis))
            for i, (aval, layout) in enumerate(zip(parts.leaves, parts.layouts, strict=True))
            if jnp.issubdtype(aval.dtype, jnp.inexact)
        }
        leaves = [leaf for i, leaf in floats.items() if self._is_observed(parts, i)]
        if not leaves:
            return []
        if self.options.shows_steps:
            raise ValueError(
                f"measure with a third argument, at {_jaxpr.where(node)}: a parallel scan has no "
                "steps whose inputs and outputs could be seen; take (state, adjoint)"
            )
        site = self._site(_jaxpr.where(node), leaves, parts.length, parts.reverse, [], None)
        names = tuple(name for name, _ in floats.values())
        logs = tuple(log_names(names, self.options.log_param))
        return [site._replace(leaf_names=names, logs=logs)]

    def _is_observed(self, parts: _jaxpr.ParallelParts, i: int) -> bool:
        """Whether a leaf of a parallel scan takes part in the record.

        `measure` is given all, but for those without the samples of the others, such as a decay
        that all samples share.
        """
        if parts.live[i] or self.options.measure is None:
            return parts.live[i]
        counts = [self._samples_of(parts, j) for j, is_live in enumerate(parts.live) if is_live]
        return self._samples_of(parts, i) in counts or not counts

    def _samples_of(self, parts: _jaxpr.ParallelParts, i: int) -> int | None:
        """The samples of a leaf's rows; None where there is no axis of samples."""
        axis = self.options.axis
        shape = _jaxpr.row_type(parts.leaves[i], parts.layouts[i].axis).shape
        has_axis = axis is not None and -len(shape) <= axis < len(shape)
        return shape[axis] if has_axis else None

    def _site(
        self,
        name: str,
        floats: Sequence[tuple[str, Any]],
        length: int,
        reverse: bool,
        inner: Sequence[Site],
        view: View | None,
    ) -> Site:
        """The site of a recurrence whose state has these float leaves."""
        names = tuple(leaf for leaf, _ in floats)
        types = [_narrow.widen(aval) for _, aval in floats]
        return Site(
            name=name,
            length=length,
            reverse=reverse,
            outer=(),
            leaf_names=names,
            batch=self._batch(name, floats, inner),
            dtype=_norms.real_dtype([aval for _, aval in floats]),
            varies=frozenset().union(*(_jaxpr.varies_over(aval) for _, aval in floats)),
            logs=tuple(log_names(names, self.options.log_param)),
            measured=self._measure_types(name, names, types, view),
        )

    def _view_of(self, node: _jaxpr.Node, floats: Sequence[tuple[str, Any]]) -> View | None:
        """What the step of a scan or a parallel scan shows to `measure` beside its state."""
        if not self.options.shows_steps:
            return None
        key = id(node.eqn)
        if key not in self._views:
            names = tuple(leaf for leaf, _ in floats)
            types = [_narrow.widen(aval) for _, aval in floats]
            call = functools.partial(call_measure, self.options, names)
            # Hold a reference to the equation so that its id is not reused.
            self._views[key] = node.eqn, show(self, call, types, self.flat(node))
        return self._views[key][1]

    def _measure_types(
        self, name: str, leaves: tuple[str, ...], types: list[Any], view: View | None
    ) -> Any:
        try:
            call = functools.partial(call_measure, self.options, leaves)
            more = () if view is None else (view.types,)
            return _jaxpr.result_types(call, types, types, *more)
        except TypeError as error:
            raise TypeError(
                f"measure at the scan at {name}: {str(error).splitlines()[0]}"
            ) from error

    def _batch(self, name: str, floats: Sequence[Any], inner: Sequence[Site]) -> tuple[int, ...]:
        axis = self.options.axis
        if axis is None:
            return ()
        sizes = set()
        for leaf, aval in floats:
            if not -aval.ndim <= axis < aval.ndim:
                raise ValueError(
                    f"batch_axis={axis}: the carry leaf {leaf!r} of the scan at {name} has "
                    f"shape {aval.shape}, which lacks that axis"
                )
            sizes.add(aval.shape[axis])
        sizes.update(size for site in inner for size in site.batch)
        if len(sizes) > 1:
            raise ValueError(
                f"batch_axis={axis}: the carry of the scan at {name} and of the scans inside "
                f"it has {' and '.join(map(str, sorted(sizes)))} samples along that axis"
            )
        return tuple(sizes)

    def run(
        self,
        nodes: Sequence[_jaxpr.Node],
        env: dict[int, Any],
        slots: dict[int, Sequence[Slots]],
    ) -> dict[int, Any]:
        """Run nodes, each with the slots of its own sites (see `share`)."""

        def apply(node: _jaxpr.Node, values: list[Any]) -> Sequence[Any]:
            if self.options.stop and node.kind in _UNDIFFERENTIABLE:
                values = [jax.lax.stop_gradient(value) for value in values]
            mine = slots.get(node.outs[0], ()) if node.outs else ()
            if node.kind == _jaxpr.PYTHON:
                return node.eqn.function(values, list(mine))
            is_open = self._holds_narrow(node) and node.kind in self._OPEN_IF_NARROW
            if not mine and not is_open:
                return self._bind(node, values)
            with _jaxpr.place(node):
                values = list(map(_narrow.widen, values))
                return self._REBUILD[node.kind](self, node, values, list(mine))

        return _jaxpr.run(nodes, env, apply)

    def _bind(self, node: _jaxpr.Node, values: Sequence[Any]) -> list[Any]:
        """Apply an equation without sites; narrow values are held as float32 (see `_narrow`)."""
        values = list(map(_narrow.widen, values))
        if self._holds_narrow(node):
            return _narrow.bind(node, values, self.changes.of(node))
        return _jaxpr.bind(node, values)

    def _holds_narrow(self, node: _jaxpr.Node) -> bool:
        key = id(node.eqn)
        if key not in self._narrow:
            # Hold a reference to the equation so that its id is not reused.
            self._narrow[key] = (node.eqn, _narrow.holds_narrow(node.eqn, self.changes))
        return self._narrow[key][1]

    def read(self, env: dict[int, Any], ref: int | _jaxpr.Lit) -> Any:
        """The value of a slot or literal, in which no float is narrow."""
        return _narrow.widen(_jaxpr.read(env, ref))

    def evaluate(self, program: _jaxpr.Program, args: Sequence[Any], slots: Sequence[Slots]) -> Any:
        """The whole program on flat arguments, with one `Slots` for each of its sites."""
        env = dict(zip(program.ins, map(_narrow.widen, args), strict=True))
        nodes = _jaxpr.dependencies(program.nodes, program.outs)
        env = self.run(nodes, env, self.share(program, iter(slots)))
        return [self.read(env, ref) for ref in program.outs]

    def share(self, program: _jaxpr.Program, slots: Iterator[Slots]) -> dict[int, Sequence[Slots]]:
        """Deal slots out to the nodes they belong to, by the node's first result."""
        shares = {}
        for node in program.nodes:
            mine = list(itertools.islice(slots, len(self.sites_of(node))))
            # What has no results is not run, and its slots stay as they are.
            if mine and node.outs:
                shares[node.outs[0]] = mine
        return shares

    def _rebuild_cond(self, node: _jaxpr.Node, values: list[Any], slots: list[Slots]) -> Any:
        programs = self.flat(node)
        counts = [len(self.sites(program)) for program in programs]
        ends = list(itertools.accumulate(counts))

        def branch(program: _jaxpr.Program, start: int, end: int, args: Any, slots: Any) -> Any:
            return self.evaluate(program, args, slots[start:end])

        functions = [
            functools.partial(branch, program, end - count, end)
            for program, count, end in zip(programs, counts, ends, strict=True)
        ]
        index, *args = values
        return jax.lax.switch(index, functions, args, slots)

    def _rebuild_remat(self, node: _jaxpr.Node, values: list[Any], slots: list[Slots]) -> Any:
        function = functools.partial(self.evaluate, self.flat(node))
        wrap = jax.checkpoint(
            function, policy=node.params["policy"], prevent_cse=node.params["prevent_cse"]
        )
        return wrap(values, slots)

    def _rebuild_jit(self, node: _jaxpr.Node, values: list[Any], slots: list[Slots]) -> Any:
        function = functools.partial(self.evaluate, self.flat(node))
        operands, results = _jaxpr.shardings(node)
        return jax.jit(function, in_shardings=(operands, None), out_shardings=results)(
            values, slots
        )

    def _rebuild_shard_map(self, node: _jaxpr.Node, values: list[Any], slots: list[Slots]) -> Any:
        """Each shard records what it holds of the state, in a row of its own."""
        program = self.flat(node)

        def function(values: list[Any], slots: list[Slots]) -> Any:
            own = jax.tree.map(lambda slot: slot[0], slots)
            own = [
                slot._replace(
                    measured=tuple(
                        map(_jaxpr.reshard, slot.measured, jax.tree.leaves(site.measured))
                    )
                )
                for site, slot in zip(self.sites(program), own, strict=True)
            ]
            return self.evaluate(program, values, own)

        return _jaxpr.rebuild_shard_map(node, function)(values, slots)

    def _rebuild_custom(self, node: _jaxpr.Node, values: list[Any], slots: list[Slots]) -> Any:
        """A function with its own derivative rule, which gives the gradients.

        The rule goes around the scans inside, so their adjoints are those of the function as it
        is written, pulled back from the same cotangent.
        """
        program = self.flat(node)

        @jax.custom_vjp
        def observe(outs: Any, values: Any, slots: Any) -> Any:
            return outs

        def forward(outs: Any, values: Any, slots: Any) -> Any:
            return outs, (values, slots)

        def backward(residuals: Any, cotangents: Any) -> Any:
            values, slots = residuals
            is_float = [jnp.issubdtype(ct.dtype, jnp.inexact) for ct in cotangents]

            def again(slots: Any) -> Any:
                return pick(is_float, self.evaluate(program, values, slots))

            _, pull = jax.vjp(again, slots)
            return cotangents, None, pull(pick(is_float, cotangents))[0]

        observe.defvjp(forward, backward)
        return observe(self._bind(node, values), values, slots)

    def _rebuild_tap(self, node: _jaxpr.Node, values: list[Any], slots: list[Slots]) -> Any:
        axis, batch = node.params["axis"], self.options.axis

        @jax.custom_vjp
        def record(x: Any, slots: Slots) -> Any:
            return x

        def backward(slots: Slots, ct: Any) -> Any:
            varies = _jaxpr.varies_over(jax.typeof(slots.visits))

            def norm(row: Any) -> Any:
                return _norms.size([row], batch, slots.visits.dtype).total

            total = norm(ct) if axis is None else jax.vmap(norm, in_axes=axis)(ct)
            return ct, slots._replace(
                logs={"total": _jaxpr.vary(total, varies)}, visits=jnp.ones_like(slots.visits)
            )

        record.defvjp(lambda x, slots: (x, slots), backward)
        return [record(values[0], slots[0])]

    def _rebuild_scan(self, node: _jaxpr.Node, values: list[Any], slots: list[Slots]) -> Any:
        parts = self.flat(node)
        consts, init, xs = split(values, parts.num_consts, parts.num_carry)
        if len(slots) == len(self.sites(parts.body)):
            return self._map(parts, consts, init, xs, slots)
        own, *inner = slots
        (site, *_) = self.sites_of(node)
        step = cut_step(self, parts)
        # Deduplicate constants passed twice.
        refs = node.ins[: parts.num_consts]
        once = list(dict.fromkeys(refs))
        places = [once.index(ref) for ref in refs]
        advance, readout = step.advance, step.readout
        view = self._views[id(node.eqn)][1] if self.options.shows_steps else None
        if view is not None:
            make = view.make
            view = view._replace(
                make=lambda consts, *rest: make([consts[i] for i in places], *rest)
            )
        step = step._replace(
            advance=lambda consts, *rest: advance([consts[i] for i in places], *rest),
            readout=lambda consts, *rest: readout([consts[i] for i in places], *rest),
            view=view,
        )
        consts = [consts[refs.index(ref)] for ref in once]
        final, ys = traced_scan(step, self.options, site.leaf_names, consts, init, xs, own, inner)
        return [*final, *ys]

    def _rebuild_parallel(self, node: _jaxpr.Node, values: list[Any], slots: list[Slots]) -> Any:
        parts = node.eqn.parts
        consts, elems, states = split(values, parts.num_consts, len(parts.leaves))
        (site,) = self.sites_of(node)

        layouts = parts.layouts
        elems = [
            _jaxpr.arrange(x, layout.elem, aval.shape)
            for x, layout, aval in zip(elems, layouts, parts.leaves, strict=True)
        ]

        def rows(leaves: Sequence[Any]) -> list[Any]:
            return [jnp.moveaxis(x, each.axis, 0) for x, each in zip(leaves, layouts, strict=True)]

        def single(x: Any, layout: Any, dims: Any) -> Any:
            """One row, arranged as an operand of the step."""
            x = jnp.expand_dims(x, layout.axis)
            if None in dims:  # along which all entries are the same
                x = x[*(0 if i is None else slice(None) for i in dims)]
            return jnp.transpose(x, np.argsort([i for i in dims if i is not None]).tolist())

        observed = [self._is_observed(parts, i) for i in range(len(parts.leaves))]
        # An effect, such as a callback, is the parallel program's own, and happens there.
        targets = pick(observed, parts.step.outs)
        nodes = _jaxpr.dependencies(parts.step.nodes, targets, effects=False)
        const_ids, carry_ids, x_ids = split(parts.step.ins, parts.num_consts, len(parts.leaves))

        def advance(consts: Any, carry: Any, x: Any, inner: Any) -> Any:
            own = pick(observed, layouts)
            env = dict(zip(const_ids, consts, strict=True))
            carry = [single(h, layout, layout.left) for h, layout in zip(carry, own, strict=True)]
            x = [single(row, layout, layout.right) for row, layout in zip(x, layouts, strict=True)]
            env |= dict(zip(pick(observed, carry_ids), carry, strict=True))
            env |= dict(zip(x_ids, x, strict=True))
            env = self.run(nodes, env, {})
            new = [self.read(env, ref) for ref in pick(observed, parts.step.outs)]
            return [
                jnp.transpose(x, layout.new).squeeze(layout.axis)
                for x, layout in zip(new, own, strict=True)
            ], []

        step = Step(
            advance=advance,
            readout=lambda consts, x, carry, extras, inner: list(carry),
            length=parts.length,
            reverse=parts.reverse,
            unroll=1,
            linear=_rules.all_linear(parts.step.nodes, self.changes),
        )
        (own,) = slots
        outs = traced_parallel(
            step, self.options, site.leaf_names, observed, consts, rows(elems), rows(states), own
        )
        return [jnp.moveaxis(x, 0, each.axis) for x, each in zip(outs, layouts, strict=True)]

    def _map(self, parts: Any, consts: Any, init: Any, xs: Any, inner: list[Slots]) -> Any:
        """A scan that carries no floats: only the scans inside it are traced."""

        def body(carry: Any, row: Any) -> Any:
            x, inner_t = row
            outs = self.evaluate(parts.body, [*consts, *carry, *x], inner_t)
            return outs[: parts.num_carry], outs[parts.num_carry :]

        carry, ys = jax.lax.scan(
            body,
            init,
            (xs, inner),
            length=parts.length,
            reverse=parts.reverse,
            unroll=parts.unroll,
        )
        return [*carry, *ys]

    # What is opened wherever it holds narrow floats, also without a site inside.
    _OPEN_IF_NARROW: ClassVar[frozenset[str]] = frozenset(
        "scan cond jit pjit shard_map checkpoint remat remat2".split()
    )
    _REBUILD: ClassVar[dict[str, Any]] = {
        "scan": _rebuild_scan,
        "cond": _rebuild_cond,
        "jit": _rebuild_jit,
        "pjit": _rebuild_jit,
        "shard_map": _rebuild_shard_map,
        "checkpoint": _rebuild_remat,
        "remat": _rebuild_remat,
        "remat2": _rebuild_remat,
        "custom_jvp_call": _rebuild_custom,
        "custom_vjp_call": _rebuild_custom,
        _jaxpr.TAP: _rebuild_tap,
        _jaxpr.PARALLEL: _rebuild_parallel,
    }
