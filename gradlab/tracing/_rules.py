"""Whether a function's own backward rule is linear in its cotangent.

The adjoint of a traced scan is carried in units of 2^e. A pullback that JAX derives is linear and
gives the same in every unit; a rule that a user wrote (custom_vjp) need not be: clipping reads how
large its cotangent is. Such a rule has to see the adjoint itself.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence

import jax.numpy as jnp
import numpy as np

from gradlab.tracing import _jaxpr
from gradlab.tracing._changes import Changes
from gradlab.tracing._jaxpr import Lit, Node, Program


class _Kind(enum.IntEnum):
    """How a value depends on the cotangent, in the order in which a join takes the larger."""

    ZERO = 0  # zero whatever the cotangent is
    LINEAR = 1
    FREE = 2  # does not depend on it
    OTHER = 3


# Linear in all operands at once.
_SUMS = frozenset(
    "add add_any all_gather all_to_all broadcast_in_dim complex concatenate conj "
    "convert_element_type copy cumsum device_put expand_dims fft imag neg optimization_barrier pad "
    "pbroadcast pcast ppermute psum psum_invariant pvary real reduce_precision reduce_scatter "
    "reduce_sum reduce_window_sum reshape reshard rev sharding_constraint slice split squeeze sub "
    "transpose".split()
) | {_jaxpr.TAP}
# Linear in one operand, where the others are free of the cotangent.
_PRODUCTS = frozenset("conv_general_dilated dot_general mul".split())
# Linear in all but these operands, which must be free of the cotangent.
_FREE_OPERANDS = {
    "div": slice(1, 2),
    "dynamic_slice": slice(1, None),
    "dynamic_update_slice": slice(2, None),
    "gather": slice(1, 2),
    "scatter": slice(1, 2),
    "scatter-add": slice(1, 2),
    "select_and_scatter_add": slice(1, 2),
    "select_n": slice(0, 1),
    "triangular_solve": slice(0, 1),
}


def all_linear(nodes: Iterable[Node], changes: Changes) -> bool:
    """Whether every backward rule that a user wrote, at any depth, is linear."""
    return all(_is_linear(node, changes) for node in nodes)


def _is_linear(node: Node, changes: Changes) -> bool:
    if node.kind == "custom_vjp_call" and any(changes.of(node)):
        program, cotangents = _jaxpr.pullback(node, changes.of(node))
        kinds = [_Kind.LINEAR if slot in cotangents else _Kind.FREE for slot in program.ins]
        if any(kind > _Kind.LINEAR for kind in _follow(program, kinds)):
            return False
    if node.kind == "scan":
        return all_linear(_jaxpr.scan_parts(node).body.nodes, changes)
    if node.kind == "cond":
        return all(all_linear(branch.nodes, changes) for branch in _jaxpr.branches(node))
    return node.kind not in _jaxpr.CALLS or all_linear(_jaxpr.callee(node).nodes, changes)


def _follow(program: Program, ins: Sequence[_Kind]) -> list[_Kind]:
    """The kinds of a program's results, from those of its operands."""
    env = dict(zip(program.ins, ins, strict=True))
    for node in program.nodes:
        env.update(zip(node.outs, _apply(node, [_read(env, ref) for ref in node.ins]), strict=True))
    return [_read(env, ref) for ref in program.outs]


def _read(env: dict[int, _Kind], ref: int | Lit) -> _Kind:
    if not isinstance(ref, Lit):
        return env[ref]
    is_known = isinstance(ref.value, int | float | complex | np.ndarray | np.generic)
    return _Kind.ZERO if is_known and not np.any(ref.value) else _Kind.FREE


def _apply(node: Node, ins: list[_Kind]) -> Sequence[_Kind]:
    if node.kind == "scan":
        return _loop(node, ins)
    if node.kind == "cond":
        return _choice(node, ins)
    if node.kind in _jaxpr.CALLS:
        return _follow(_jaxpr.callee(node), ins)
    kind = _one(node.kind, ins)
    exact = any(not jnp.issubdtype(var.aval.dtype, jnp.inexact) for var in node.eqn.outvars)
    return [_Kind.OTHER if exact and kind == _Kind.LINEAR else kind] * len(node.outs)


def _one(kind: str, ins: list[_Kind]) -> _Kind:
    if kind in _SUMS:
        return _join(ins)
    if kind in _PRODUCTS:
        if _Kind.ZERO in ins and _Kind.OTHER not in ins:
            return _Kind.ZERO
        dependent = [k for k in ins if k != _Kind.FREE]
        return dependent[0] if len(dependent) == 1 else _free(ins)
    if kind in _FREE_OPERANDS:
        free = ins[_FREE_OPERANDS[kind]]
        if _free(free) == _Kind.FREE:
            rest = list(ins)
            del rest[_FREE_OPERANDS[kind]]
            return _join(rest)
    return _free(ins)


def _join(kinds: Iterable[_Kind]) -> _Kind:
    """The kind of a sum: a constant beside something linear is not linear."""
    kinds = set(kinds)
    if {_Kind.LINEAR, _Kind.FREE} <= kinds:
        return _Kind.OTHER
    return max(kinds, default=_Kind.FREE)


def _free(kinds: Iterable[_Kind]) -> _Kind:
    """The kind of a function that nothing is known of."""
    return _Kind.FREE if set(kinds) <= {_Kind.ZERO, _Kind.FREE} else _Kind.OTHER


def _loop(node: Node, ins: list[_Kind]) -> list[_Kind]:
    parts = _jaxpr.scan_parts(node)
    consts, carry = ins[: parts.num_consts], ins[parts.num_consts :][: parts.num_carry]
    xs = ins[parts.num_consts + parts.num_carry :]
    while True:
        outs = _follow(parts.body, [*consts, *carry, *xs])
        after = [_join(pair) for pair in zip(carry, outs[: parts.num_carry], strict=True)]
        if after == carry:
            return [*carry, *outs[parts.num_carry :]]
        carry = after


def _choice(node: Node, ins: list[_Kind]) -> list[_Kind]:
    index, *operands = ins
    if _free([index]) != _Kind.FREE:
        return [_Kind.OTHER] * len(node.outs)
    results = [_follow(branch, operands) for branch in _jaxpr.branches(node)]
    return [_join(kinds) for kinds in zip(*results, strict=True)]
