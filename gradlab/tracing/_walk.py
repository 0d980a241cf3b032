"""Walk a program and put a traced scan in the place of each scan that carries floats."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradlab.tracing import _jaxpr, _norms
from gradlab.tracing._linear import Step
from gradlab.tracing._scan import Options, Slots, log_names, measured, traced_scan


class Site(NamedTuple):
    """A scan that carries floats: where it stands and what shape its record has."""

    name: str
    length: int
    reverse: bool
    outer: tuple[int, ...]  # lengths of the scans around it
    leaf_names: tuple[str, ...]  # of the float leaves of its carry
    batch: tuple[int, ...]  # (samples,) where batch_axis is given, else ()
    dtype: Any
    logs: tuple[str, ...]  # the names of what is recorded
    measured: Any  # types of what `measure` returns

    def slots(self) -> Slots:
        """Zeros for the backward pass to write into."""
        rows = (*self.outer, self.length)

        def log(name: str) -> jax.Array:
            batch = () if name == "param" else self.batch
            return jnp.zeros((*rows, *batch), self.dtype)

        return Slots(
            logs={name: log(name) for name in self.logs},
            measured=tuple(
                jnp.zeros((*rows, *leaf.shape), leaf.dtype)
                for leaf in jax.tree.leaves(self.measured)
            ),
            finite=jnp.zeros((*self.outer, *self.batch), self.dtype),
            visits=jnp.zeros(self.outer, self.dtype),
        )


class Walk:
    """The rewriting of one program, for one choice of options."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._found: dict[int, tuple[Any, list[Site]]] = {}

    def sites(self, program: _jaxpr.Program) -> list[Site]:
        """Every traced scan of the program, in program order, outer before inner."""
        return [site for node in program.nodes for site in self.sites_of(node)]

    def sites_of(self, node: _jaxpr.Node) -> list[Site]:
        """The traced scans of one equation: its own first, then those inside it."""
        key = id(node.eqn)
        if key not in self._found:
            # The equation is kept beside its answer so that its id stays its own.
            self._found[key] = (node.eqn, self._look(node))
        return self._found[key][1]

    def _look(self, node: _jaxpr.Node) -> list[Site]:
        if node.kind == "scan":
            return self._look_at_scan(node)
        if node.kind == "cond":
            return [site for branch in _jaxpr.branches(node) for site in self.sites(branch)]
        if node.kind in _REMAT:
            return self.sites(_jaxpr.callee(node))
        return []

    def _look_at_scan(self, node: _jaxpr.Node) -> list[Site]:
        parts = _jaxpr.scan_parts(node)
        body_ins = parts.body.ins
        carry = [
            (name, parts.body.avals[slot])
            for name, slot in zip(parts.leaf_names, body_ins[parts.num_consts :], strict=False)
        ]
        floats = [(name, aval) for name, aval in carry if jnp.issubdtype(aval.dtype, jnp.inexact)]
        inner = [s._replace(outer=(parts.length, *s.outer)) for s in self.sites(parts.body)]
        if not floats or parts.length == 0:
            return inner
        name = _jaxpr.where(node)
        names = tuple(name for name, _ in floats)
        types = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for _, aval in floats]
        site = Site(
            name=name,
            length=parts.length,
            reverse=parts.reverse,
            outer=(),
            leaf_names=names,
            batch=self._batch(name, floats, inner),
            dtype=_norms.real_dtype([aval for _, aval in floats]),
            logs=tuple(log_names(names, self.options.log_param)),
            measured=jax.eval_shape(functools.partial(measured, self.options, names), types, types),
        )
        return [site, *inner]

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
            mine = slots.get(node.outs[0], ()) if node.outs else ()
            if not mine:
                return _jaxpr.bind(node, values)
            return self._rebuild(node, values, list(mine))

        return _jaxpr.run(nodes, env, apply)

    def evaluate(self, program: _jaxpr.Program, args: Sequence[Any], slots: Sequence[Slots]) -> Any:
        """The whole program on flat arguments, with one `Slots` for each of its sites."""
        env = dict(zip(program.ins, args, strict=True))
        nodes = _jaxpr.needed(program.nodes, program.outs)
        env = self.run(nodes, env, self.share(program, iter(slots)))
        return [_jaxpr.read(env, ref) for ref in program.outs]

    def share(
        self, program: _jaxpr.Program, slots: Iterator[Slots]
    ) -> dict[int, Sequence[Slots]]:
        """Deal slots out to the nodes they belong to, by the node's first result."""
        shares = {}
        for node in program.nodes:
            count = len(self.sites_of(node))
            if count:
                shares[node.outs[0]] = list(itertools.islice(slots, count))
        return shares

    def _rebuild(self, node: _jaxpr.Node, values: list[Any], slots: list[Slots]) -> Sequence[Any]:
        if node.kind == "scan":
            return self._rebuild_scan(node, values, slots)
        if node.kind == "cond":
            return self._rebuild_cond(node, values, slots)
        return self._rebuild_remat(node, values, slots)

    def _rebuild_cond(self, node: _jaxpr.Node, values: list[Any], slots: list[Slots]) -> Any:
        programs = _jaxpr.branches(node)
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
        function = functools.partial(self.evaluate, _jaxpr.callee(node))
        wrap = jax.checkpoint(
            function, policy=node.params["policy"], prevent_cse=node.params["prevent_cse"]
        )
        return wrap(values, slots)

    def _rebuild_scan(self, node: _jaxpr.Node, values: list[Any], slots: list[Slots]) -> Any:
        parts = _jaxpr.scan_parts(node)
        split = parts.num_consts, parts.num_consts + parts.num_carry
        consts, init, xs = values[: split[0]], values[split[0] : split[1]], values[split[1] :]
        if len(slots) == len(self.sites(parts.body)):
            return self._map(parts, consts, init, xs, slots)
        own, *inner = slots
        (site, *_) = self.sites_of(node)
        step = self._step(parts)
        final, ys = traced_scan(
            step, self.options, site.leaf_names, consts, init, xs, own, inner
        )
        return [*final, *ys]

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

    def _step(self, parts: _jaxpr.ScanParts) -> Step:
        """Cut the body at its new state: what makes the state, and what reads it."""
        body = parts.body
        ends = parts.num_consts, parts.num_consts + parts.num_carry
        outer_ids = (*body.ins[: ends[0]], *body.ins[ends[1] :])
        new, ys = body.outs[: parts.num_carry], body.outs[parts.num_carry :]
        made = {slot for node in body.nodes for slot in node.outs}
        state = {
            ref
            for ref in new
            if not isinstance(ref, _jaxpr.Lit)
            and ref in made
            and jnp.issubdtype(body.avals[ref].dtype, jnp.inexact)
        }
        after = _jaxpr.dependents(body.nodes, state)
        # A node that makes the state and holds a traced scan runs once, on the state's side.
        busy = {node.outs for node in _jaxpr.needed(body.nodes, new) if self.sites_of(node)}

        # Walk back from the outputs to the new state, where the readout begins.
        wanted = {ref for ref in ys if not isinstance(ref, _jaxpr.Lit)} - state
        readout = []
        for node in reversed(body.nodes):
            operands = {ref for ref in node.ins if not isinstance(ref, _jaxpr.Lit)}
            if wanted.isdisjoint(node.outs) or operands.isdisjoint(after) or node.outs in busy:
                continue
            readout.append(node)
            wanted = (wanted | operands) - state - set(node.outs)
        readout.reverse()
        kept = sorted(wanted.difference(outer_ids))
        advancing = _jaxpr.needed(body.nodes, (*new, *kept))

        def advance(consts: Any, carry: Any, x: Any, inner: Any) -> Any:
            env = dict(zip(body.ins, (*consts, *carry, *x), strict=True))
            env = self.run(advancing, env, self.share(body, iter(inner)))
            return [_jaxpr.read(env, ref) for ref in new], [env[ref] for ref in kept]

        def read(consts: Any, x: Any, carry: Any, others: Any, inner: Any) -> Any:
            env = dict(zip((*outer_ids, *kept), (*consts, *x, *others), strict=True))
            # Where a step returns one value twice as its state, outputs read the first.
            for ref, value in reversed(list(zip(new, carry, strict=True))):
                if not isinstance(ref, _jaxpr.Lit) and ref in state:
                    env[ref] = value
            env = self.run(readout, env, self.share(body, iter(inner)))
            return [_jaxpr.read(env, ref) for ref in ys]

        return Step(advance, read, parts.length, parts.reverse, parts.unroll)


_REMAT = ("checkpoint", "remat", "remat2")
