"""One step of a scan, linearized: what the forward pass keeps and what the backward pass runs.

`linearize` turns a step into three flat programs. `forward` makes the new state, the outputs and
the residuals, of which `Storage` says the fewest bytes that need to be kept. `advance` and
`readout` are the transposed derivatives of the step's two parts. `Sums` finds the part of a
transposed program that can wait: a weight's cotangent, sum_t b_t^T a_t, is one product over many
steps instead of many products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradlab.tracing import _jaxpr
from gradlab.tracing._jaxpr import Lit, Node, Program
from gradlab.tracing._view import View

# Cheaper to do again from what is in the cache than to read from memory.
_CHEAP = frozenset(
    "abs add add_any and broadcast_in_dim convert_element_type copy eq ge gt imag integer_pow "
    "le lt max min mul ne neg not or real reshape select_n sign slice square squeeze sub "
    "transpose expand_dims".split()
)
# Linear, and what they give of a sum is the sum of what they give.
_LINEAR = frozenset(
    "add_any broadcast_in_dim concatenate expand_dims neg pad psum psum_invariant reduce_sum "
    "reshape reshard sharding_constraint slice squeeze transpose".split()
)


class Step(NamedTuple):
    """One step of a scan in two parts, cut at the new state.

    `advance(consts, carry, x, inner) -> (carry, extras)` makes the new state; `readout(consts, x,
    carry, extras, inner) -> ys` makes the outputs from it. `extras` is what else the outputs need.
    `inner` holds the slots of the scans inside, each used by one of the two parts. `linear` says
    whether the pullback of the step is known to be linear, so that units do not matter to it.
    """

    advance: Callable[..., tuple[list[Any], list[Any]]]
    readout: Callable[..., list[Any]]
    length: int
    reverse: bool
    unroll: int
    linear: bool
    view: View | None = None  # what `measure` reads of it beside its state


class Storage(NamedTuple):
    """Where the residuals of a step come from in the backward pass.

    `rebuild` computes `leaves` again from values that do not change (`fixed`), rows of the inputs
    and outputs of the scan, and what the forward pass stacks on its own account (`own`).
    """

    leaves: tuple[int | Lit, ...]
    rebuild: tuple[Node, ...]
    before: tuple[Node, ...]  # what makes `fixed` of the consts, once
    fixed: tuple[int, ...]
    x: tuple[tuple[int, int], ...]  # (slot, index) of inputs and outputs that are read again
    y: tuple[tuple[int, int], ...]
    own: tuple[int, ...]


class Transposed(NamedTuple):
    """A transposed part of the step: residuals, then cotangents, to lists of cotangents.

    The outputs are the cotangents of the consts, of a state, of the inputs, of what the readout
    takes from the step besides its state, and of the slots of the scans inside.
    """

    program: Program
    linear: tuple[int, ...]  # its inputs that are cotangents
    consts: tuple[int | Lit, ...]
    state: tuple[int | Lit, ...]
    x: tuple[int | Lit, ...]
    extras: tuple[int | Lit, ...]
    inner: tuple[int | Lit, ...]
    inner_tree: Any


class Linearized(NamedTuple):
    """A step as programs, and the flags that say which leaves have cotangents."""

    consts: tuple[bool, ...]  # which consts and inputs get a cotangent
    xs: tuple[bool, ...]
    state: tuple[bool, ...]  # which carry leaves have an adjoint
    ys: tuple[bool, ...]  # which outputs can have a cotangent
    outputs: list[Any]  # types of those outputs, ...
    extras: list[Any]  # ... and of what else of the step they read
    forward: Program  # consts, carry, x -> carry, ys, residuals
    sizes: tuple[int, int]  # of consts and carry
    residuals: int  # how many residuals come before the new state and what `view` makes
    storage: Storage
    advance: Transposed  # takes the cotangents of the new state and of `extras`
    readout: Transposed  # takes those of the outputs


_ADVANCE = "consts state x inner"
_READOUT = "consts x state extras inner"


def is_inexact(x: Any) -> bool:
    return jnp.issubdtype(jax.typeof(x).dtype, jnp.inexact)


def pick(flags: Sequence[bool], leaves: Sequence[Any]) -> list[Any]:
    return [leaf for flag, leaf in zip(flags, leaves, strict=True) if flag]


def merge(flags: Sequence[bool], items: Sequence[Any], others: Sequence[Any]) -> list[Any]:
    rest = iter(items)
    return [next(rest) if flag else other for flag, other in zip(flags, others, strict=True)]


def split(items: Sequence[Any], *sizes: int) -> list[list[Any]]:
    parts, rest = [], list(items)
    for size in sizes:
        parts.append(rest[:size])
        rest = rest[size:]
    return [*parts, rest]


def linearize(
    step: Step,
    consts: Sequence[Any],
    init: Sequence[Any],
    xs: Sequence[Any],
    inner: Any,
    wants: tuple[tuple[bool, ...], tuple[bool, ...]],
    keep_state: bool,
) -> Linearized:
    """Linearize a step; `wants` says which consts and inputs get a cotangent.

    With `keep_state` the float leaves of the new state are the last residuals, and after them what
    else the step shows.
    """
    want_consts, want_xs = wants
    state = tuple(map(is_inexact, init))
    facts: dict[str, Any] = {}

    def forward(consts: Any, carry: Any, x: Any) -> Any:
        rows = jax.tree.map(lambda slot: _jaxpr.row_type(jax.typeof(slot), 0), inner)
        inner_t = jax.tree.map(_jaxpr.zeros, rows)

        def advance(c: Any, h: Any, x_: Any, inner_t: Any) -> Any:
            new, extras = step.advance(
                merge(want_consts, c, consts),
                merge(state, h, carry),
                merge(want_xs, x_, x),
                inner_t,
            )
            facts["smooth"] = tuple(map(is_inexact, extras))
            return (pick(state, new), pick(facts["smooth"], extras)), (new, extras)

        c, x_ = pick(want_consts, consts), pick(want_xs, x)
        (h, k), pull_advance, (new, extras) = jax.vjp(
            advance, c, pick(state, carry), x_, inner_t, has_aux=True
        )

        def readout(c: Any, x_: Any, h: Any, k: Any, inner_t: Any) -> Any:
            ys = step.readout(
                merge(want_consts, c, consts),
                merge(want_xs, x_, x),
                merge(state, h, new),
                merge(facts["smooth"], k, extras),
                inner_t,
            )
            facts["ys"] = tuple(map(is_inexact, ys))
            return pick(facts["ys"], ys), ys

        outputs, pull_readout, ys = jax.vjp(readout, c, x_, h, k, inner_t, has_aux=True)
        advance_leaves, facts["advance"] = jax.tree.flatten(pull_advance)
        readout_leaves, facts["readout"] = jax.tree.flatten(pull_readout)
        types = [list(map(jax.typeof, v)) for v in (h, k, outputs, advance_leaves, readout_leaves)]
        facts["h"], facts["extras"], facts["outputs"], *facts["leaves"] = types
        view = [] if step.view is None else step.view.make(consts, carry, x, ys)
        return new, ys, advance_leaves, readout_leaves, [*(h if keep_state else []), *view]

    program = _jaxpr.program(jax.make_jaxpr(forward)(consts, init, _jaxpr.rows(xs)))
    counts = [len(leaves) for leaves in facts["leaves"]]
    sizes = len(consts), len(init)
    return Linearized(
        consts=want_consts,
        xs=want_xs,
        state=state,
        ys=facts["ys"],
        outputs=facts["outputs"],
        extras=facts["extras"],
        forward=program,
        sizes=sizes,
        residuals=sum(counts),
        storage=_storage(program, sizes, len(facts["ys"])),
        advance=_transpose(
            facts["advance"], facts["leaves"][0], (facts["h"], facts["extras"]), _ADVANCE
        ),
        readout=_transpose(facts["readout"], facts["leaves"][1], facts["outputs"], _READOUT),
    )


def _transpose(
    pull: Any, residuals: Sequence[Any], cotangents: Sequence[Any], order: str
) -> Transposed:
    names: list[str] = []
    trees: dict[str, Any] = {}

    def function(residuals: Any, cotangents: Any) -> list[Any]:
        back = jax.tree.unflatten(pull, residuals)(cotangents)
        parts = dict(zip(order.split(), back, strict=True))
        for name, part in parts.items():
            leaves, trees[name] = jax.tree.flatten(part)
            names.extend([name] * len(leaves))
        return jax.tree.leaves(back)

    program = _jaxpr.program(jax.make_jaxpr(function)(list(residuals), cotangents))
    outs = {
        field: tuple(ref for name, ref in zip(names, program.outs, strict=True) if name == field)
        for field in ("consts", "state", "x", "extras", "inner")
    }
    return Transposed(program, program.ins[len(residuals) :], **outs, inner_tree=trees["inner"])


def _storage(program: Program, sizes: tuple[int, int], num_ys: int) -> Storage:
    """Find a cheap way to recompute the residuals, counted in bytes that are stacked."""
    const_ids, carry_ids, x_ids = split(program.ins, *sizes)
    new_refs, y_refs, leaves = split(program.outs, sizes[1], num_ys)
    varying = _jaxpr.dependents(program.nodes, (*carry_ids, *x_ids))
    makers = {slot: node for node in program.nodes for slot in node.outs}
    free = {*x_ids, *(ref for ref in y_refs if not isinstance(ref, Lit))}

    def operands(node: Node) -> list[int]:
        return [ref for ref in node.ins if not isinstance(ref, Lit) and ref in varying]

    roots: dict[int, frozenset[int]] = {}

    def base(slot: int) -> frozenset[int]:
        """What has to be stored to have this slot again by cheap operations alone."""
        if slot not in roots:
            node = makers.get(slot)
            if slot in free:
                roots[slot] = frozenset()
            elif node is None or node.kind not in _CHEAP:
                roots[slot] = frozenset((slot,))
            else:
                parts = [base(ref) for ref in operands(node)]
                roots[slot] = frozenset().union(*parts)
        return roots[slot]

    def cost(slots: Iterable[int]) -> int:
        return sum(_bytes(program.avals[slot]) for slot in slots)

    for slot in sorted(varying):  # in program order, so that `base` never recurses deeply
        base(slot)
    needs = {ref for ref in leaves if not isinstance(ref, Lit) and ref in varying} - free
    stack = set().union(*(base(slot) for slot in needs)) if needs else set()
    if cost(stack) > cost(needs):
        stack = set(needs)
    for slot in sorted(stack, key=lambda s: -cost((s,))):
        other = (stack - {slot}) | base(slot)
        if cost(other) <= cost(stack):
            stack = other

    rebuild: list[Node] = []
    have = stack | free
    missing = needs - have
    reads: set[int] = {ref for ref in leaves if not isinstance(ref, Lit)}
    for node in reversed(program.nodes):
        if missing.isdisjoint(node.outs):
            continue
        rebuild.append(node)
        reads.update(ref for ref in node.ins if not isinstance(ref, Lit))
        missing = (missing | set(operands(node))) - set(node.outs) - have
    rebuild.reverse()

    # An effect has no results to be found by, and must happen at every step, not once outside.
    unchanging = [n for n in program.nodes if varying.isdisjoint(n.outs) and not n.eqn.effects]
    fixed = tuple(sorted(ref for ref in reads if ref not in varying))
    return Storage(
        leaves=tuple(leaves),
        rebuild=tuple(rebuild),
        before=_jaxpr.dependencies(unchanging, fixed),
        fixed=fixed,
        x=tuple((slot, i) for i, slot in enumerate(x_ids) if slot in reads),
        y=tuple(
            (ref, i)
            for i, ref in enumerate(y_refs)
            if ref in reads and ref not in x_ids and y_refs.index(ref) == i and ref in varying
        ),
        own=tuple(sorted(stack)),
    )


def _bytes(aval: Any) -> int:
    size = math.prod(getattr(aval, "shape", ()))
    return size * getattr(getattr(aval, "dtype", None), "itemsize", 16)


class Sums(NamedTuple):
    """The outputs of a transposed program that can be summed over many steps at once.

    `rows` are the slots to keep for each step of a chunk. Products of them and their plain sums
    over the chunk are what `tail` turns into the sums of the outputs.
    """

    later: tuple[bool, ...]  # which outputs are had so; the others are added up step by step
    rows: tuple[int, ...]
    products: tuple[Node, ...]
    plain: tuple[int, ...]
    tail: tuple[Node, ...]

    def finish(self, rows: dict[int, jax.Array], outs: Sequence[int | Lit]) -> list[jax.Array]:
        """The sums over the chunk of the `later` outputs, from the stacked rows."""
        env = {slot: rows[slot].sum(0) for slot in self.plain}
        for node in self.products:
            left, right = (rows[ref] for ref in node.ins if not isinstance(ref, Lit))
            env[node.outs[0]] = _jaxpr.product_over_rows(node, left, right)
        _jaxpr.run(self.tail, env)
        return [_jaxpr.read(env, ref) for ref in pick(self.later, outs)]


def find_sums(part: Transposed, targets: Sequence[int | Lit], fixed: set[int]) -> Sums:
    """Find which of the summed outputs `targets` come from matrix products that can wait.

    `fixed` are the inputs of the program that are the same at every step.
    """
    program = part.program
    linear = _jaxpr.dependents(program.nodes, part.linear)
    varying = _jaxpr.dependents(program.nodes, set(program.ins) - fixed)
    makers = {slot: node for node in program.nodes for slot in node.outs}

    def expand(slot: int | Lit, rows: set[int]) -> dict[int, Node | None] | None:
        """What this output is a linear function of: products, and rows; None where it is not."""
        if isinstance(slot, Lit) or slot not in linear:
            return None
        if slot in rows:
            return {slot: None}
        node = makers.get(slot)
        if node is None:
            return None
        if node.kind == "dot_general":
            operands = {ref for ref in node.ins if not isinstance(ref, Lit)}
            good = len(operands) == 2 and len(operands & linear) == 1 and operands <= varying
            return {slot: node} if good else None
        if node.kind not in _LINEAR:
            return None
        chain: dict[int, Node | None] = {}
        for ref in node.ins[:1] if node.kind == "pad" else node.ins:
            part = expand(ref, rows)
            if part is None:
                return None
            chain |= part
        return chain | {slot: node}

    first = [expand(ref, set()) or {} for ref in targets]
    waiting = [n for chain in first for n in chain.values() if n and n.kind == "dot_general"]
    rows = {ref for node in waiting for ref in node.ins if not isinstance(ref, Lit)}
    # Where rows are kept for a product, a bias's plain sum over them comes along.
    chains = [expand(ref, rows) for ref in targets]
    parts = {slot: node for chain in chains if chain for slot, node in chain.items()}
    products = [
        n
        for n in program.nodes
        if n.outs and n is parts.get(n.outs[0], 0) and n.kind == "dot_general"
    ]
    tail = [
        n
        for n in program.nodes
        if n.outs and n is parts.get(n.outs[0], 0) and n.kind != "dot_general"
    ]
    plain = tuple(sorted(slot for slot, node in parts.items() if node is None))
    rows = {ref for n in products for ref in n.ins if not isinstance(ref, Lit)} | set(plain)
    return Sums(
        later=tuple(chain is not None for chain in chains),
        rows=tuple(sorted(rows)),
        products=tuple(products),
        plain=plain,
        tail=tuple(tail),
    )
