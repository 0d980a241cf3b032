"""Programs that compute in narrow floats (16 bits or fewer), with their derivatives in float32.

A cotangent in float16 leaves the float's range at e^-17, and in bfloat16 each step rounds it by
half a percent. So a traced program holds every narrow value as the float32 of the same number:
`bind` computes it in the program's own type, so that value and state are the program's, and
differentiates it at that number in float32. What goes backwards is then the adjoint of the rounded
program in float32 arithmetic, whatever types meet in a step. `lax.reduce_precision`, by which a
program rounds without a narrow type, is the identity to a derivative.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradlab.tracing import _jaxpr
from gradlab.tracing._changes import Changes
from gradlab.tracing._jaxpr import Node, Program, is_narrow

# What runs code that is compiled for its own types. Nothing can be run there in a wider one.
_FOREIGN = frozenset(
    "pure_callback io_callback ffi_call custom_call pallas_call tpu_custom_call".split()
)
# A wider operand has other bits.
_BITS = "bitcast_convert_type"


def widen(x: Any) -> Any:
    """The same number as a float32, where its float is narrower; also for types of arrays."""
    if _jaxpr.is_type(x):
        return x.update(dtype=np.dtype(np.float32)) if is_narrow(x.dtype) else x
    dtype = getattr(x, "dtype", None)
    if dtype is None or not is_narrow(dtype):
        return x
    # A scalar of NumPy stays one, so that it stays a literal of the program.
    return x.astype(np.float32)


def holds_narrow(eqn: Any, changes: Changes) -> bool:
    """Whether an equation or its derivative computes in a narrow float, at any depth."""
    if _computes_narrow(eqn):
        return True
    # A rule that the user wrote may cast though the function itself does not.
    if any(_computes_narrow(node.eqn) for node in _rule(Node(eqn, (), ()), changes)):
        return True
    inside = (inner for body in _jaxpr.jaxprs(eqn.params) for inner in body.eqns)
    return any(holds_narrow(inner, changes) for inner in inside)


def _computes_narrow(eqn: Any) -> bool:
    if eqn.primitive.name == "reduce_precision":
        return True
    if any(is_narrow(_dtype(var.aval)) for var in (*eqn.invars, *eqn.outvars)):
        return True
    return any(_computes_narrow(inner) for body in _jaxpr.jaxprs(eqn.params) for inner in body.eqns)


def _rule(node: Node, changes: Changes) -> Sequence[Node]:
    """What runs to differentiate a function with a rule of the user's."""
    ask = {"custom_jvp_call": _jaxpr.pushforward, "custom_vjp_call": _jaxpr.pullback}
    if node.kind not in ask or not any(changes.of(node)):
        return ()
    # A rule may refuse a change of what the program does not change.
    return ask[node.kind](node, changes.of(node))[0].nodes


def _dtype(aval: Any) -> Any:
    return getattr(aval, "dtype", np.dtype(bool))


def bind(node: Node, values: Sequence[Any], flags: Sequence[bool]) -> list[Any]:
    """Apply an equation in its own types to wide values, differentiated in float32.

    `flags` says by which operands.
    """
    original = functools.partial(_bind_narrow, node)
    is_float = [jnp.issubdtype(_dtype(var.aval), jnp.inexact) for var in node.eqn.outvars]
    # A loop without a fixed number of steps has no derivative that goes backwards.
    if not any(is_float) or node.kind == "while" or node.eqn.effects:
        return original(*values)
    if node.kind == "custom_vjp_call":
        return _with_pullback(node, original, flags)(*values)
    return _with_pushforward(node, original)(*values)


def _bind_narrow(node: Node, *values: Any) -> list[Any]:
    """Apply an equation in its own types to wide values."""
    types = [var.aval for var in node.eqn.invars]
    outs = _jaxpr.bind(node, [_cast(x, t) for x, t in zip(values, types, strict=True)])
    return [widen(out) for out in outs]


def _cast(x: Any, aval: Any) -> Any:
    return jax.lax.convert_element_type(x, aval.dtype) if is_narrow(_dtype(aval)) else x


def _with_pushforward(node: Node, original: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    @jax.custom_jvp
    def compute(*values: Any) -> list[Any]:
        return original(*values)

    @compute.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        if node.kind == "custom_jvp_call":
            slopes = _push(node, primals, tangents)
        else:
            wide = functools.partial(_bind_wide, node, blocked=True)
            _, slopes = jax.jvp(lambda *x: wide(x), primals, tangents)
        return compute(*primals), slopes

    return compute


def _push(node: Node, primals: Sequence[Any], tangents: Sequence[Any]) -> list[Any]:
    """The tangents of a function with its own rule, by that rule."""
    program, starts = _jaxpr.pushforward(
        node, [_jaxpr.is_float(var.aval) for var in node.eqn.invars]
    )
    moving = [t for t in tangents if t.dtype != jax.dtypes.float0]
    floats, others = _jaxpr.part(primals, list(map(_jaxpr.is_float, primals)))
    slopes = iter(evaluate(program, [*floats, *others, *moving], starts))
    return [
        next(slopes)
        if jnp.issubdtype(var.aval.dtype, jnp.inexact)
        else np.zeros(var.aval.shape, jax.dtypes.float0)
        for var in node.eqn.outvars
    ]


def _with_pullback(
    node: Node, original: Callable[..., list[Any]], flags: Sequence[bool]
) -> Callable[..., list[Any]]:
    @jax.custom_vjp
    def compute(*values: Any) -> list[Any]:
        return original(*values)

    def backward(values: Any, cotangents: Any) -> Any:
        program, starts = _jaxpr.pullback(node, flags)
        moving = [ct for ct in cotangents if ct.dtype != jax.dtypes.float0]
        floats, others = _jaxpr.part(values, flags)
        back = iter(evaluate(program, [*floats, *others, *moving], starts))
        return tuple(next(back) if flag else None for flag in flags)

    compute.defvjp(lambda *values: (original(*values), values), backward)
    return compute


def evaluate(program: Program, args: Sequence[Any], starts: Sequence[int] = ()) -> list[Any]:
    """Run a program with float32 in the place of every narrower float.

    `starts` are the inputs, tangents or cotangents, that must not be narrowed on the way.
    """
    env = dict(zip(program.ins, map(widen, args), strict=True))
    moving = _jaxpr.dependents(program.nodes, starts)

    def apply(node: Node, values: list[Any]) -> Sequence[Any]:
        blocked = not moving.isdisjoint(ref for ref in node.ins if isinstance(ref, int))
        return _bind_wide(node, values, blocked)

    _jaxpr.run(program.nodes, env, apply)
    return [widen(_jaxpr.read(env, ref)) for ref in program.outs]


def _bind_wide(node: Node, values: Sequence[Any], blocked: bool) -> list[Any]:
    """Apply an equation with float32 in the place of every narrower float.

    `blocked` says that an operand is part of a derivative, which nothing may cast to fewer bits.
    """
    eqn = node.eqn
    values = [widen(x) for x in values]
    if not holds_narrow(eqn, Changes(_jaxpr.callee)):
        return _jaxpr.bind(node, values)
    if node.kind == "reduce_precision":
        return list(values)
    if node.kind in _FOREIGN or node.kind == _BITS:
        if blocked and node.kind in _FOREIGN:
            raise ValueError(_no_derivative(node))
        return _bind_narrow(node, *values)
    if node.kind in ("custom_jvp_call", "custom_vjp_call"):
        return evaluate(_jaxpr.callee(node), values)
    return _jaxpr.bind(node, values, {k: _wide_param(p) for k, p in node.params.items()})


def _no_derivative(node: Node) -> str:
    narrow = {str(v.aval.dtype) for v in (*node.eqn.invars, *node.eqn.outvars)
              if is_narrow(_dtype(v.aval))}  # fmt: skip
    return (
        f"trace cannot go back through the {node.kind} at {_jaxpr.where(node)}: it takes its "
        f"derivative in {' and '.join(sorted(narrow))}, whose range an adjoint leaves within a few "
        "steps; let it take and return float32"
    )


def _wide_param(param: Any) -> Any:
    """A parameter of an equation, with float32 in the place of every narrower float."""
    if _jaxpr.is_jaxpr(param):
        return _jaxpr.rebuild_jaxpr(param, evaluate, widen)
    if isinstance(param, np.dtype | type) and _is_dtype(param):
        return np.dtype(np.float32)
    if isinstance(param, jax.lax.DotAlgorithmPreset):
        return jax.lax.Precision.HIGHEST
    if type(param) is tuple:
        return tuple(map(_wide_param, param))
    return param


def _is_dtype(param: Any) -> bool:
    try:
        return is_narrow(param)
    except TypeError:
        return False
