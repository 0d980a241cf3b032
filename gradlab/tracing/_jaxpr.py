"""The one module that knows JAX's internals: a jaxpr as a flat list of nodes.

JAX's program representation moves between versions (a scan's `num_consts` became `ft_in` in 0.12,
a ClosedJaxpr became a Jaxpr that carries its constants). Everything else in gradlab sees `Program`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import re
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.extend import core, source_info_util
from jax.interpreters import ad, batching, mlir

from gradlab import _source
from gradlab.tracing import _cudnn, _parallel

# Calls that only group equations: a state computed inside one must be seen from outside.
_GROUPS = ("jit", "pjit", "closed_call", "core_call")
# What runs one program, `callee`; of those above, a jit that says where values lie is left.
CALLS = frozenset(
    (*_GROUPS, "checkpoint", "custom_jvp_call", "custom_vjp_call", "remat", "remat2", "shard_map")
)


@dataclasses.dataclass(frozen=True, eq=False)
class Lit:
    """An operand whose value is written in the program, known by identity: arrays have no hash."""

    value: Any


class Node(NamedTuple):
    """One equation: operands and results are slots of the environment that `run` fills."""

    eqn: Any
    ins: tuple[int | Lit, ...]
    outs: tuple[int, ...]
    call: Node | None = None  # the call that it was inlined from

    @property
    def kind(self) -> str:
        return self.eqn.primitive.name

    @property
    def params(self) -> dict[str, Any]:
        return self.eqn.params


class Program(NamedTuple):
    """A jaxpr with its calls inlined; `avals[i]` is the type of slot i."""

    ins: tuple[int, ...]
    nodes: tuple[Node, ...]
    outs: tuple[int | Lit, ...]
    avals: tuple[Any, ...]


class ScanParts(NamedTuple):
    """What a scan equation says, in one form for all versions of JAX."""

    body: Program
    num_consts: int
    num_carry: int
    length: int
    reverse: bool
    unroll: int
    leaf_names: tuple[str, ...]


class ParallelParts(NamedTuple):
    """What a parallel scan out_t = f(out_{t-1}, elem_t) says.

    `step` takes what f closes over, the leaves of out_{t-1} and those of elem_t, each with an axis
    of length 1 for the time, to the leaves of out_t. `layouts` say how the axes of all of them are
    arranged.
    """

    step: Program
    num_consts: int
    layouts: tuple[_parallel.Layout, ...]
    length: int
    reverse: bool
    leaves: tuple[Any, ...]  # types of the stacked states
    # Which leaves reach a reader. The others have no adjoint: the decay a_t ... a_1 that a linear
    # recurrence multiplies up beside its state is one.
    live: tuple[bool, ...]


def program(jaxpr: Any, groups: Sequence[str] = _GROUPS) -> Program:
    """Flatten a (closed) jaxpr: calls inlined, constants as literals."""
    builder = _Builder(groups)
    ins = tuple(builder.slot(var.aval) for var in _open(jaxpr)[0].invars)
    outs = tuple(builder.inline(jaxpr, ins))
    operands = {*outs, *(ref for node in builder.nodes for ref in node.ins)}
    for node in builder.nodes:
        if node.kind == PARALLEL and node.eqn.parts is not None:
            node.eqn.parts = _with_live(node.eqn.parts, [slot in operands for slot in node.outs])
    return Program(ins, tuple(builder.nodes), outs, tuple(builder.avals))


def arrange(x: Any, dims: _parallel.Dims, shape: Sequence[int]) -> Any:
    """Put axis dims[i] of x at place i; where that is None, repeat x along a new axis."""
    x = jnp.transpose(x, [i for i in dims if i is not None])
    return jnp.broadcast_to(jnp.expand_dims(x, [i for i, d in enumerate(dims) if d is None]), shape)


def _with_live(parts: ParallelParts, read: Sequence[bool]) -> ParallelParts:
    step, count = parts.step, len(parts.leaves)
    old = step.ins[parts.num_consts : parts.num_consts + count]
    reach = [dependents(step.nodes, [slot]) for slot in old]
    live = list(read)
    for _ in range(count):
        for i, new in enumerate(step.outs):
            if live[i]:
                live = [was or new in slots for was, slots in zip(live, reach, strict=True)]
    return parts._replace(live=tuple(live))


class _Builder:
    """The slots and nodes of a program to be."""

    def __init__(self, groups: Sequence[str]) -> None:
        self.groups = groups
        self.avals: list[Any] = []
        self.nodes: list[Node] = []
        self.call: Node | None = None

    def slot(self, aval: Any) -> int:
        self.avals.append(aval)
        return len(self.avals) - 1

    def inline(self, jaxpr: Any, operands: Sequence[int | Lit]) -> list[int | Lit]:
        jaxpr, consts = _open(jaxpr)
        env: dict[Any, int | Lit] = dict(zip(jaxpr.constvars, map(Lit, consts), strict=True))
        env.update(zip(jaxpr.invars, operands, strict=True))
        groups = {group.end: group for group in _parallel.find(jaxpr.eqns)}
        for i, eqn in enumerate(jaxpr.eqns):
            self._add(eqn, env)
            if i in groups:
                self._mark(jaxpr.eqns, groups[i], env)
        return [_value(atom, env) for atom in jaxpr.outvars]

    def _add(self, eqn: Any, env: dict[Any, int | Lit]) -> None:
        ins = tuple(_value(atom, env) for atom in eqn.invars)
        if _cudnn.is_known(eqn):
            results = self.inline(_cudnn.replace(eqn), ins)
        elif eqn.primitive.name == _cudnn.RULE and _cudnn.holds_known(_callee(eqn.params)):
            # Its rule is a primitive too. JAX differentiates the scans by itself.
            results = self.inline(_cudnn.move(_callee(eqn.params), eqn), ins)
        elif eqn.primitive.name in self.groups and not _is_sharded(eqn.params):
            outer, self.call = self.call, Node(eqn, (), (), self.call)
            results = self.inline(_callee(eqn.params), ins)
            self.call = outer
        else:
            results = [self.slot(var.aval) for var in eqn.outvars]
            self.nodes.append(Node(eqn, ins, tuple(results), self.call))
        env.update(zip(eqn.outvars, results, strict=True))

    def _mark(self, eqns: Sequence[Any], group: _parallel.Group, env: dict[Any, int | Lit]) -> None:
        """Let the states of a parallel scan pass through a node that stands for its recurrence."""
        first = eqns[group.start]
        if group.form is None:
            read = dict.fromkeys(
                atom
                for eqn in eqns[group.start : group.end + 1]
                for atom in eqn.invars
                if not isinstance(atom, core.Literal)
            )
            marker = _Marker(PARALLEL, first, group.call, None, tuple(read))
            self.nodes.append(Node(marker, tuple(_value(atom, env) for atom in read), ()))
            return
        form = group.form
        inner = _Builder(self.groups)
        inputs = (*form.consts, *form.left, *form.right)
        slots = [inner.slot(atom.aval) for atom in inputs]
        own: dict[Any, int | Lit] = dict(zip(inputs, slots, strict=True))
        for eqn in form.eqns:
            inner._add(eqn, own)
        results = tuple(_value(atom, own) for atom in form.new)
        parts = ParallelParts(
            step=Program(tuple(slots), tuple(inner.nodes), results, tuple(inner.avals)),
            num_consts=len(form.consts),
            layouts=form.layouts,
            length=form.length,
            reverse=form.reverse,
            leaves=tuple(atom.aval for atom in form.outs),
            live=(True,) * len(form.outs),
        )
        operands = (*form.consts, *form.elems, *form.outs)
        ins = tuple(_value(atom, env) for atom in operands)
        outs = [self.slot(atom.aval) for atom in form.outs]
        self.nodes.append(Node(_Marker(PARALLEL, first, group.call, parts), ins, tuple(outs)))
        env.update(zip(form.outs, outs, strict=True))


def _value(atom: Any, env: dict[Any, int | Lit]) -> int | Lit:
    return Lit(atom.val) if isinstance(atom, core.Literal) else env[atom]


def _open(jaxpr: Any) -> tuple[Any, Sequence[Any]]:
    if isinstance(jaxpr, core.ClosedJaxpr):
        return jaxpr.jaxpr, jaxpr.consts
    return jaxpr, getattr(jaxpr, "consts", ())


def _callee(params: dict[str, Any]) -> Any:
    return params["jaxpr"] if "jaxpr" in params else params["call_jaxpr"]


def _is_sharded(params: dict[str, Any]) -> bool:
    shardings = (*params.get("in_shardings", ()), *params.get("out_shardings", ()))
    return any(isinstance(s, jax.sharding.Sharding) for s in shardings)


PYTHON = "python"


class _PythonCall:
    """What stands for an equation in a node that calls a Python function."""

    primitive: Any = types.SimpleNamespace(name=PYTHON)
    params: ClassVar[dict[str, Any]] = {}
    effects = frozenset()

    def __init__(self, function: Callable[..., Sequence[Any]]) -> None:
        self.function = function


# A node that stands for the recurrence of a parallel scan, and passes its states on.
PARALLEL = "associative_scan"


class _Marker(_PythonCall):
    """What stands for an equation where several equations are one thing."""

    outvars = ()

    def __init__(
        self,
        kind: str,
        first: Any,
        call: tuple[tuple[str, int, str], ...],
        parts: ParallelParts | None,
        invars: tuple[Any, ...] = (),
    ) -> None:
        states = len(parts.leaves) if parts else 0
        super().__init__(lambda values, _: values[len(values) - states :])
        self.primitive = types.SimpleNamespace(name=kind)
        self.parts = parts
        self.invars = invars
        self.call = call
        self.source_info = first.source_info
        self.ctx = first.ctx


def make_node(
    function: Callable[..., Sequence[Any]], ins: Sequence[int | Lit], outs: Sequence[int]
) -> Node:
    """A node that calls function(values, slots of the sites inside)."""
    return Node(_PythonCall(function), tuple(ins), tuple(outs))


def _holds_all(wide: Any, dtype: Any) -> bool:
    """Whether a type of floats holds every number of another one."""
    if not all(jnp.issubdtype(each, jnp.floating) for each in (wide, dtype)):
        return False
    outer, inner = jnp.finfo(wide), jnp.finfo(dtype)
    return outer.nmant >= inner.nmant and outer.maxexp >= inner.maxexp


@functools.cache
def is_narrow(dtype: Any) -> bool:
    """Whether a type is a float of 16 bits or fewer."""
    return jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32


def deduplicate(flat: Program, leaves: Sequence[int | Lit] = ()) -> Program:
    """The program with equations that compute the same value from the same operands run once.

    `leaves` are the results that are leaves of a state. Two leaves stay two slots even where equal
    equations make them, since each is a coordinate of its own; what else repeats a leaf's
    equation becomes the first such leaf.
    """
    leaf_of: dict[int, int] = {}
    for i, leaf in enumerate(leaves):
        for slot, _ in views(flat, leaf):
            leaf_of.setdefault(slot, i)
    same: dict[int | Lit, int | Lit] = {}
    originals: dict[Any, tuple[int, ...]] = {}
    nodes = []
    for node in flat.nodes:
        node = node._replace(ins=tuple(same.get(ref, ref) for ref in node.ins))
        key = _identity(node)
        twins = originals.get(key, ())
        owners = [(twin, leaf_of.get(slot)) for slot, twin in zip(node.outs, twins, strict=False)]
        claims = {twin: leaf for twin, leaf in owners if leaf is not None}
        if twins and all(leaf_of.get(twin, leaf) == leaf for twin, leaf in claims.items()):
            leaf_of |= claims
            same.update(zip(node.outs, twins, strict=True))
            continue
        if key is not None:
            originals.setdefault(key, node.outs)
        nodes.append(node)
    outs = tuple(same.get(ref, ref) for ref in flat.outs)
    return flat._replace(nodes=tuple(nodes), outs=outs)


def views(flat: Program, ref: int | Lit) -> list[tuple[int, Callable[[Any], Any]]]:
    """The slots that hold the entries of `ref` in another form, and how to make each from it.

    `ref` itself comes first, then what it is a transpose, reshape or wider float of, and so on.
    """
    makers = {slot: node for node in flat.nodes for slot in node.outs}
    pairs: list[tuple[int, Callable[[Any], Any]]] = []

    def identity(x: Any) -> Any:
        return x

    back: Callable[[Any], Any] | None = identity
    while back is not None and not isinstance(ref, Lit):
        pairs.append((ref, back))
        node = makers.get(ref)
        if node is None or len(node.ins) != 1 or isinstance(node.ins[0], Lit):
            break
        ref = node.ins[0]
        back = _compose(_inverse(node, flat.avals[ref]), back)
    return pairs


def forms(flat: Program, ref: int | Lit) -> list[int]:
    """The slots of a value before it was cast, reshaped or transposed, itself included."""
    makers = {slot: node for node in flat.nodes for slot in node.outs}
    slots: list[int] = []
    while not isinstance(ref, Lit):
        slots.append(ref)
        node = makers.get(ref)
        if node is None or node.kind not in _FORMS:
            break
        ref = node.ins[0]
    return slots


_FORMS = frozenset(
    "convert_element_type copy expand_dims reshape reshard sharding_constraint squeeze "
    "transpose".split()
)


def _compose(
    outer: Callable[[Any], Any] | None, inner: Callable[[Any], Any]
) -> Callable[[Any], Any] | None:
    return None if outer is None else lambda x: outer(inner(x))


def _inverse(node: Node, source: Any) -> Callable[[Any], Any] | None:
    """What gives back the operand, of type `source`, of an equation that loses nothing."""
    if node.kind == "transpose":
        axes = node.params["permutation"]
        back = tuple(axes.index(i) for i in range(len(axes)))
        return lambda x: jnp.transpose(x, back)
    if node.kind in ("reshape", "squeeze", "expand_dims"):
        return lambda x: jnp.reshape(x, source.shape)
    if node.kind in ("reshard", "sharding_constraint"):
        return lambda x: reshard(x, source)
    if node.kind == "convert_element_type":
        if _holds_all(node.params["new_dtype"], source.dtype):
            # A narrow value is held as the float32 of the same number (see `_narrow`).
            dtype = np.dtype(np.float32) if is_narrow(source.dtype) else source.dtype
            return lambda x: x.astype(dtype)
    return None


def _identity(node: Node) -> Any:
    """What two equations agree on that compute the same; None where that is not known."""
    params = node.params
    plain = not any(is_jaxpr(x) or callable(x) for x in jax.tree.leaves(list(params.values())))
    if node.eqn.effects or node.kind == TAP or not plain:
        return None
    try:
        key = node.kind, tuple(map(_operand, node.ins)), tuple(sorted(params.items()))
        hash(key)
    except TypeError:
        return None
    return key


def _operand(ref: int | Lit) -> Any:
    if not isinstance(ref, Lit):
        return ref
    if isinstance(ref.value, jax.Array) or np.ndim(ref.value):
        return id(ref.value), "array"
    return type(ref.value).__name__, np.asarray(ref.value).dtype.str, repr(ref.value)


def bind(node: Node, values: Sequence[Any], params: dict[str, Any] | None = None) -> list[Any]:
    """Apply one equation to values, at its own place in the user's source."""
    eqn = node.eqn
    if isinstance(eqn, _PythonCall):
        return list(eqn.function(values, []))
    primitive = eqn.primitive
    if node.kind == "custom_vjp_call":
        # A rule may index what it saved by a traced integer, which NumPy's arrays refuse.
        values = [jnp.asarray(x) if isinstance(x, np.ndarray) else x for x in values]
    with place(node), eqn.ctx.manager:
        out = primitive.bind(*values, **primitive.get_bind_params(params or eqn.params))
    return list(out) if eqn.primitive.multiple_results else [out]


def place(node: Node) -> Any:
    """A context in which new equations stand where this one does in the user's source."""
    info = node.eqn.source_info
    stack = source_info_util.current_name_stack() + info.name_stack
    return source_info_util.user_context(info.traceback, name_stack=stack)


def run(
    nodes: Iterable[Node],
    env: dict[int, Any],
    apply: Callable[[Node, list[Any]], Sequence[Any]] = bind,
) -> dict[int, Any]:
    """Apply the nodes in order, reading operands from `env` and adding results to it."""
    for node in nodes:
        results = apply(node, [read(env, ref) for ref in node.ins])
        env.update(zip(node.outs, results, strict=True))
    return env


def read(env: dict[int, Any], ref: int | Lit) -> Any:
    return ref.value if isinstance(ref, Lit) else env[ref]


def product_over_rows(node: Node, left: Any, right: Any) -> Any:
    """sum_t of a dot_general's result, as one product of its stacked operands (t, ...)."""
    (left_sum, right_sum), (left_batch, right_batch) = node.params["dimension_numbers"]

    def shift(axes: Sequence[int]) -> tuple[int, ...]:
        return tuple(axis + 1 for axis in axes)

    return jax.lax.dot_general(
        left,
        right,
        (((0, *shift(left_sum)), (0, *shift(right_sum))), (shift(left_batch), shift(right_batch))),
        precision=node.params["precision"],
        preferred_element_type=node.params["preferred_element_type"],
        out_sharding=sharding(node.eqn.outvars[0].aval),
    )


def collective_axes(*programs: Program) -> tuple[str, ...]:
    """The named axes over which equations combine values, at any depth."""
    names: set[str] = set()

    def visit(eqn: Any) -> None:
        if eqn.primitive.name != "pvary":
            for key in ("axes", "axis_name"):
                axes = eqn.params.get(key, ())
                axes = axes if isinstance(axes, tuple | list) else (axes,)
                names.update(axis for axis in axes if isinstance(axis, str))
        for body in jaxprs(eqn.params):
            for inner in body.eqns:
                visit(inner)

    for each in programs:
        for node in each.nodes:
            visit(node.eqn)
    return tuple(sorted(names))


def is_traced(x: Any) -> bool:
    """Whether a value is not known yet, inside a transformation of JAX."""
    return isinstance(x, jax.core.Tracer)


def is_type(x: Any) -> bool:
    """Whether this is the type of an array and not an array."""
    return isinstance(x, jax.core.ShapedArray | jax.ShapeDtypeStruct)


def is_jaxpr(x: Any) -> bool:
    return isinstance(x, core.Jaxpr | core.ClosedJaxpr)


def jaxprs(params: dict[str, Any]) -> Iterator[Any]:
    """The programs that an equation's parameters hold."""
    for param in jax.tree.leaves(list(params.values()), is_leaf=is_jaxpr):
        if is_jaxpr(param):
            yield _open(param)[0]


def holds_loop(params: dict[str, Any]) -> bool:
    """Whether the programs that an equation's parameters hold run a scan or a while_loop."""
    return any(
        eqn.primitive.name in ("scan", "while") or holds_loop(eqn.params)
        for body in jaxprs(params)
        for eqn in body.eqns
    )


def rebuild_jaxpr(
    jaxpr: Any,
    evaluate: Callable[[Program, Sequence[Any]], list[Any]],
    type_of: Callable[[Any], Any],
) -> Any:
    """A program of the same form that runs `evaluate` on inputs of other types."""
    types = [type_of(var.aval) for var in _open(jaxpr)[0].invars]
    new = jax.make_jaxpr(lambda *args: evaluate(program(jaxpr), args))(*types)
    return new if isinstance(jaxpr, core.ClosedJaxpr) else _open(new)[0]


def dependencies(
    nodes: Sequence[Node], targets: Iterable[int | Lit], effects: bool = True
) -> tuple[Node, ...]:
    """The nodes that the targets depend on, in program order, and those with `effects`."""
    slots = {ref for ref in targets if not isinstance(ref, Lit)}
    picks = []
    for node in reversed(nodes):
        if (effects and node.eqn.effects) or not slots.isdisjoint(node.outs):
            picks.append(node)
            slots.update(ref for ref in node.ins if not isinstance(ref, Lit))
    return tuple(reversed(picks))


def dependents(nodes: Iterable[Node], sources: Iterable[int]) -> set[int]:
    """The slots whose value changes with a source, the sources included."""
    reach = set(sources)
    for node in nodes:
        if any(ref in reach for ref in node.ins if not isinstance(ref, Lit)):
            reach.update(node.outs)
    return reach


def scan_counts(node: Node) -> tuple[int, int, int]:
    """How many consts and carries a scan equation has, and its length."""
    params = node.params
    if "ft_in" in params:
        consts, carry, _ = params["ft_in"].unpack()
        return len(consts), len(carry), params["length"]
    return params["num_consts"], params["num_carry"], params["length"]


def scan_parts(node: Node) -> ScanParts:
    """Read a scan equation of JAX 0.10 to 0.12."""
    params = node.params
    num_consts, num_carry, length = scan_counts(node)
    return ScanParts(
        body=program(params["jaxpr"]),
        num_consts=num_consts,
        num_carry=num_carry,
        length=length,
        reverse=params["reverse"],
        unroll=params["unroll"],
        leaf_names=_leaf_names(params["jaxpr"], num_carry),
    )


def tap(x: Any, name: str, axis: int | None) -> Any:
    """The identity, leaving an equation of kind `TAP` in the program."""
    return _tap_p.bind(x, name=name, axis=axis)


TAP = "gradlab_tap"


def _batch_tap(args: Sequence[Any], dims: Sequence[int], *, name: str, axis: int | None) -> Any:
    x = jnp.moveaxis(args[0], dims[0], 0)
    return _tap_p.bind(x, name=name, axis=None if axis is None else axis + 1), 0


def _tap_jvp(primals: Sequence[Any], tangents: Sequence[Any], **params: Any) -> Any:
    return _tap_p.bind(*primals, **params), tangents[0]


_tap_p = core.Primitive(TAP)
_tap_p.def_impl(lambda x, **_: x)
_tap_p.def_abstract_eval(lambda x, **_: x)
ad.primitive_jvps[_tap_p] = _tap_jvp
batching.primitive_batchers[_tap_p] = _batch_tap
mlir.register_lowering(_tap_p, lambda _, x, **__: [x])


def branches(node: Node) -> tuple[Program, ...]:
    """The branches of a cond equation."""
    return tuple(program(branch) for branch in node.params["branches"])


def pullback(node: Node, flags: Sequence[bool]) -> tuple[Program, tuple[int, ...]]:
    """What reverse mode runs for an equation: operands and cotangents to cotangents.

    Operands come first that are differentiated by (`flags`). The second result says which inputs
    of the program are the cotangents.
    """
    function, floats, others = _as_function(node, flags)
    cotangents = result_types(function, floats, others)
    jaxpr = jax.make_jaxpr(
        lambda floats, others, cts: jax.vjp(lambda x: function(x, others), floats)[1](cts)
    )(floats, others, cotangents)
    flat = program(jaxpr)
    return flat, flat.ins[len(floats) + len(others) :]


def pushforward(node: Node, flags: Sequence[bool]) -> tuple[Program, tuple[int, ...]]:
    """What forward mode runs for an equation: operands and tangents to tangents, as `pullback`."""
    function, floats, others = _as_function(node, flags)
    jaxpr = jax.make_jaxpr(
        lambda floats, others, starts: jax.jvp(lambda x: function(x, others), (floats,), (starts,))[
            1
        ]
    )(floats, others, floats)
    flat = program(jaxpr)
    return flat, flat.ins[len(floats) + len(others) :]


def _as_function(
    node: Node, flags: Sequence[bool]
) -> tuple[Callable[..., list[Any]], list[Any], list[Any]]:
    """An equation as a function of some operands and of the others, and the types of both."""

    def function(floats: list[Any], others: list[Any]) -> list[Any]:
        moving, fixed = iter(floats), iter(others)
        outs = bind(node, [next(moving if flag else fixed) for flag in flags])
        return [out for out in outs if is_float(out)]

    return function, *part([var.aval for var in node.eqn.invars], flags)


def holds_ref(node: Node) -> bool:
    """Whether an equation reads or writes a mutable array, as `jax.new_ref` makes them."""
    return any(type(var.aval).__name__ == "AbstractRef" for var in node.eqn.invars)


def is_float(x: Any) -> bool:
    """Whether a value or type is one of floats."""
    return jnp.issubdtype(jnp.result_type(x), jnp.inexact)


def part(values: Sequence[Any], flags: Sequence[bool]) -> tuple[list[Any], list[Any]]:
    """The values with a flag, and those without."""
    pairs = list(zip(values, flags, strict=True))
    return [x for x, flag in pairs if flag], [x for x, flag in pairs if not flag]


def is_reversible(flat: Program, args: Sequence[Any], count: int) -> bool:
    """Whether JAX itself can differentiate the first result by the first `count` arguments."""
    is_changing = [
        i < count and jnp.issubdtype(jnp.result_type(x), jnp.inexact) for i, x in enumerate(args)
    ]

    def value(targets: list[Any]) -> Any:
        rest = iter(targets)
        values = [next(rest) if flag else x for flag, x in zip(is_changing, args, strict=True)]
        return read(run(flat.nodes, dict(zip(flat.ins, values, strict=True))), flat.outs[0])

    try:
        jax.eval_shape(jax.grad(value), [x for f, x in zip(is_changing, args, strict=True) if f])
    except ValueError:
        return False
    return True


def callee(node: Node) -> Program:
    """The program that a call runs: remat, a custom rule, a sharded jit or shard_map."""
    return program(_callee(node.params))


def shardings(node: Node) -> tuple[list[Any], list[Any]]:
    """Where a sharded jit wants its operands and results; None where it does not say."""

    def get(key: str) -> list[Any]:
        return [s if isinstance(s, jax.sharding.Sharding) else None for s in node.params[key]]

    return get("in_shardings"), get("out_shardings")


def shards(node: Node) -> int:
    """How many devices a shard_map equation runs on."""
    return math.prod(node.params["mesh"].shape[axis] for axis in _manual(node))


def _manual(node: Node) -> tuple[str, ...]:
    # JAX 0.10.0 has another name for them.
    axes = node.params.get("newly_manual_axes", node.params.get("manual_axes", ()))
    return tuple(axis for axis in node.params["mesh"].axis_names if axis in axes)


def rebuild_shard_map(node: Node, function: Callable[..., Any]) -> Callable[..., Any]:
    """shard_map of function(operands, more), `more` having one row for each shard."""
    params = node.params
    per_shard = jax.sharding.PartitionSpec(_manual(node))
    mesh = params["mesh"]
    types = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    explicit = tuple(a for a in _manual(node) if types[a] == jax.sharding.AxisType.Explicit)

    def call(operands: list[Any], more: Any) -> Any:
        if explicit:
            # Explicit axes have to be split as `in_specs` says before the call.
            where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(explicit))
            more = jax.tree.map(lambda x: jax.sharding.reshard(x, where), more)
        return run_shards(operands, more)

    run_shards = jax.shard_map(
        function,
        mesh=params["mesh"],
        in_specs=(list(params["in_specs"]), per_shard),
        out_specs=list(params["out_specs"]),
        axis_names=set(_manual(node)),
        check_vma=params["check_vma"],
    )
    return call


def varies_over(aval: Any) -> frozenset[str]:
    """The manual mesh axes, inside shard_map, along which a value may differ."""
    return getattr(getattr(aval, "manual_axis_type", None), "varying", frozenset())


def vary(x: Any, axes: Iterable[str]) -> Any:
    """Let a value that is the same along manual mesh axes count as one that may differ."""
    missing = tuple(sorted(set(axes) - varies_over(jax.typeof(x))))
    return jax.lax.pcast(x, missing, to="varying") if missing else x


def sharding(aval: Any) -> Any:
    """How a value lies on the explicit axes of a mesh; None where there are none."""
    layout = getattr(aval, "sharding", None)
    types = getattr(getattr(layout, "mesh", None), "axis_types", ())
    return layout if jax.sharding.AxisType.Explicit in types else None


def _at(split: Any, axes: Sequence[Any]) -> Any:
    """The sharding with other axes of the mesh for the axes of a value."""
    spec = split.spec
    new = jax.sharding.PartitionSpec(*axes, unreduced=spec.unreduced, reduced=spec.reduced)
    return split.update(spec=new)


def reshard(x: Any, aval: Any) -> Any:
    """A value whose last axes are split over explicit axes of a mesh as those of this type are."""
    split = sharding(aval)
    if split is None:
        return x
    return jax.sharding.reshard(x, _at(split, (*(None,) * (x.ndim - aval.ndim), *split.spec)))


def gather(x: Any) -> Any:
    """A value as a whole on every device of explicit mesh axes.

    Small numbers are held so: values that are split over different axes do not go together.
    """
    split = sharding(jax.typeof(x))
    whole = split and split.update(spec=jax.sharding.PartitionSpec(*(None,) * jnp.ndim(x)))
    return x if whole == split else jax.sharding.reshard(x, whole)


def zeros(aval: Any) -> jax.Array:
    """Zeros of a type."""
    return vary(reshard(jnp.zeros(aval.shape, aval.dtype), aval), varies_over(aval))


def row_type(aval: Any, axis: int) -> Any:
    """The type of one row along an axis."""
    shape = (*aval.shape[:axis], *aval.shape[axis + 1 :])
    split = aval.sharding
    axes = (*split.spec, *(None,) * (aval.ndim - len(split.spec)))
    return aval.update(shape=shape, sharding=_at(split, (*axes[:axis], *axes[axis + 1 :])))


def result_types(function: Callable[..., Any], *args: Any) -> Any:
    """The types of what a function returns for arguments of these types.

    `jax.eval_shape` does not say how a value lies on the explicit axes of a mesh that has others.
    """
    jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    return jax.tree.unflatten(jax.tree.structure(shapes), jaxpr.out_avals)


def arguments_read(function: Callable[..., Any], *args: Any) -> list[bool]:
    """Which leaves of the arguments, given by type, the program of a function reads or returns."""
    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    read = {id(var) for eqn in jaxpr.eqns for var in eqn.invars} | {id(v) for v in jaxpr.outvars}
    return [id(var) in read for var in jaxpr.invars]


_KEY = re.compile(r"\.(\w+)|\['([^']*)'\]|\[(\d+)\]|\[<flat index (\d+)>\]")


def _leaf_names(jaxpr: Any, num_carry: int) -> tuple[str, ...]:
    """Carry leaves by their path in the user's pytree: result[0].c is 'c', [0][1]['k'] is '1/k'.

    They are read from the results, not from the arguments: JAX makes a constant of a leaf that the
    body passes through, and leaves the arguments' names as they were.
    """
    info = getattr(_open(jaxpr)[0], "debug_info", None)
    names = [str(name) for name in getattr(info, "result_paths", None) or ()][:num_carry]
    # The first key of a body's result says that it is the carry.
    paths = ["/".join("".join(key) for key in _KEY.findall(name)[1:]) for name in names]
    paths = [path or "0" for path in paths]
    if len(set(paths)) < num_carry:
        return tuple(str(i) for i in range(num_carry))
    return tuple(paths)


def where(node: Node) -> str:
    """The line of the user's source that made the equation: 'model.py:12 (loss)'.

    It is the innermost one outside gradlab, JAX, the standard library and installed packages, since
    a library's line says neither which model it is nor stays the same. A notebook names its cells
    anew at every run: 'notebook (loss)' stays. Without a line of the user's it is the innermost of
    gradlab's own models; or JAX's function, where nothing but JAX made the equation:
    'jax.scipy.linalg (_squaring)'; "" without that.
    """
    if not hasattr(node.eqn, "source_info"):
        return ""
    is_marker = isinstance(node.eqn, _Marker)
    frames = list(node.eqn.call if is_marker else _parallel.frames(node.eqn))
    own = [frame for frame in frames if _source.is_users(frame[0], frame[2])]
    own += [frame for frame in frames if frame[0].startswith(_MODELS)]
    if not own:
        # What a library compiles keeps no line of the user's: then the line of the call serves.
        call, name = where(node.call) if node.call else "", _jax_function(frames)
        return f"{call} in {name}" if call and name else call or name
    path, line, function = own[0]
    function = function.rsplit("<locals>.", 1)[-1]
    for place, pattern in _UNSTABLE.items():
        if pattern.search(path):
            return f"{place} ({function})"
    return f"{Path(path).name}:{line} ({function})"


_MODELS = str(Path(__file__).parents[1] / "tasks") + os.sep
# Code of the user's under a name that changes whenever it is run again.
_UNSTABLE = {
    "notebook": re.compile(r"[/\\](ipykernel|xpython)_\d+[/\\]\d+\.py$|^<ipython-input-\d+"),
    "prompt": re.compile(r"^<python-input-\d+>$"),
}
# JAX's files that make equations for its other functions: control flow, tracing, calls.
_MACHINERY = re.compile(r"_src[/\\](\w+\.py$|interpreters[/\\]|lax[/\\]control_flow[/\\])")


def _jax_function(frames: Sequence[tuple[str, int, str]]) -> str:
    """JAX's function that made an equation; "" where other libraries took part."""
    if any(not path.startswith(_source.NOT_USERS) for path, _, _ in frames):
        return ""
    for path, _, function in frames:
        path = path.removeprefix(_source.JAX)
        if not os.path.isabs(path) and not _MACHINERY.match(path):
            module = ".".join(Path(path).with_suffix("").parts).removeprefix("_src.")
            return f"jax.{module} ({function.rsplit('<locals>.', 1)[-1]})"
    return ""


def rows(xs: Sequence[Any]) -> list[Any]:
    """The types of one row of each stacked input, as `make_jaxpr` takes them."""
    return [row_type(jax.typeof(x), 0) for x in xs]
