"""The arithmetic of a program, read off its jaxpr: nothing is compiled and nothing is run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax

from gradlab.tracing import _jaxpr
from gradlab.tracing._jaxpr import Lit, Node, Program


def flops(function: Callable[..., Any], *args: Any) -> int:
    """Count the multiplications and additions in the matrix products of a function.

    A product of matrices (M, K) and (K, N) is 2 M K N. The body of a scan counts once for each of
    its steps, that of a `while` once, of a `cond` the branch with most, a `shard_map` on all of its
    devices. What no result needs is not counted. XLA's own count (`cost_analysis`) is of no use
    here: it takes the body of every loop once, however often it runs.

    Args:
        function: any function that JAX can trace, jitted or not.
        args: its arguments, or `jax.ShapeDtypeStruct` objects in their places.

    Returns:
        The number of operations.

    Raises:
        What tracing the function raises.

    >>> import jax.numpy as jnp
    >>> x = jax.ShapeDtypeStruct((100, 100), jnp.float32)
    >>> flops(lambda x: jnp.tanh(x @ x) + 1, x)
    2000000
    """
    traceable: Any = function if hasattr(function, "trace") else jax.jit(function)
    program = _jaxpr.program(traceable.trace(*args).jaxpr)
    return _program_flops(program, program.outs)


def _program_flops(program: Program, targets: Sequence[int | Lit]) -> int:
    nodes = _jaxpr.dependencies(program.nodes, targets)
    read = {ref for node in nodes for ref in node.ins if not isinstance(ref, Lit)}
    read.update(ref for ref in targets if not isinstance(ref, Lit))
    return sum(_node_flops(node, read) for node in nodes)


def _node_flops(node: Node, read: set[int]) -> int:
    if node.kind == "dot_general":
        (left, _), _ = node.params["dimension_numbers"]
        shape = node.eqn.invars[0].aval.shape
        return 2 * math.prod(node.eqn.outvars[0].aval.shape) * math.prod(shape[i] for i in left)
    params = jax.tree.leaves(list(node.params.values()), is_leaf=_jaxpr.is_jaxpr)
    programs = [_jaxpr.program(param) for param in params if _jaxpr.is_jaxpr(param)]
    if node.kind == "scan":
        _, carry, length = _jaxpr.scan_counts(node)
        (body,) = programs
        rows = zip(body.outs[carry:], node.outs[carry:], strict=True)
        targets = (*body.outs[:carry], *(ref for ref, out in rows if out in read))
        return length * _program_flops(body, targets)
    each = [_program_flops(program, program.outs) for program in programs]
    if node.kind == "cond":
        return max(each)
    return (_jaxpr.shards(node) if node.kind == "shard_map" else 1) * sum(each)
