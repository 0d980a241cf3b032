"""The arrays that a function closes over, as arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from gradlab.tracing import _jaxpr
from gradlab.tracing._jaxpr import Lit


def lift_constants(
    function: Callable[..., Any], *args: Any
) -> tuple[list[Any], Callable[..., Any]]:
    """(arrays, f): the float arrays that function(*args) closes over, with f(arrays, *args) for it.

    `args` are arrays, of which f takes others of the same types. An array inside a program that an
    equation holds, such as a custom derivative, stays there.
    """
    jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    flat = _jaxpr.program(jaxpr)
    arrays = {
        id(ref.value): ref.value
        for node in flat.nodes
        for ref in node.ins
        if isinstance(ref, Lit) and getattr(ref.value, "ndim", 0) and _jaxpr.is_float(ref.value)
    }
    places = {key: i for i, key in enumerate(arrays)}

    def call(new: Sequence[Any], *args: Any) -> Any:
        def replace(ref: int | Lit) -> int | Lit:
            i = places.get(id(ref.value)) if isinstance(ref, Lit) else None
            return ref if i is None else Lit(new[i])

        nodes = [node._replace(ins=tuple(map(replace, node.ins))) for node in flat.nodes]
        env = _jaxpr.run(nodes, dict(zip(flat.ins, args, strict=True)))
        return jax.tree.unflatten(
            jax.tree.structure(shapes), [_jaxpr.read(env, replace(ref)) for ref in flat.outs]
        )

    return list(arrays.values()), call
