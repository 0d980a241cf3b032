"""Which operands of each equation change with what a loss is differentiated by.

A rule that a user wrote with `symbolic_zeros=True` sees which of its operands are perturbed, and
may refuse some. So it must be asked with what the program perturbs, and with nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from gradlab.tracing import _jaxpr
from gradlab.tracing._jaxpr import Lit, Node, Program


class Changes:
    """The operands of equations that are perturbed, for every equation that was marked."""

    def __init__(self, flat: Callable[[Node], Any]) -> None:
        self._flat = flat  # gives the programs inside an equation
        self._found: dict[int, tuple[Any, list[bool]]] = {}

    def of(self, node: Node) -> list[bool]:
        """Which operands of an equation are perturbed; every float where nothing is known."""
        if id(node.eqn) in self._found:
            return self._found[id(node.eqn)][1]
        return [jnp.issubdtype(var.aval.dtype, jnp.inexact) for var in node.eqn.invars]

    def mark(self, program: Program, ins: Sequence[bool]) -> list[bool]:
        """Note what is perturbed where these inputs are; returns which results are."""
        changing = {slot for slot, flag in zip(program.ins, ins, strict=True) if flag}

        def is_changing(ref: int | Lit) -> bool:
            return not isinstance(ref, Lit) and ref in changing

        for node in program.nodes:
            flags = list(map(is_changing, node.ins))
            if len(node.ins) == len(node.eqn.invars):
                _, before = self._found.get(id(node.eqn), (None, flags))
                both = [a or b for a, b in zip(flags, before, strict=True)]
                # Hold a reference to the equation so that its id is not reused.
                self._found[id(node.eqn)] = node.eqn, both
            results = self._results(node, flags)
            types = [program.avals[slot].dtype for slot in node.outs]
            changing.update(
                slot
                for slot, flag, dtype in zip(node.outs, results, types, strict=True)
                if flag and jnp.issubdtype(dtype, jnp.inexact)
            )
        return list(map(is_changing, program.outs))

    def _results(self, node: Node, flags: list[bool]) -> Sequence[bool]:
        if node.kind == "scan":
            return self._loop(node, flags)
        if node.kind == "cond":
            results = [self.mark(branch, flags[1:]) for branch in self._flat(node)]
            return [any(each) for each in zip(*results, strict=True)]
        if node.kind == _jaxpr.PARALLEL and node.eqn.parts is not None:
            parts = node.eqn.parts
            state = [_jaxpr.is_float(aval) for aval in parts.leaves]
            self.mark(parts.step, [*flags[: parts.num_consts], *state, *state])
            return flags[-len(state) :]
        if node.kind in _jaxpr.CALLS:
            return self.mark(self._flat(node), flags)
        return [any(flags)] * len(node.outs)

    def _loop(self, node: Node, flags: list[bool]) -> Sequence[bool]:
        parts = self._flat(node)
        first = parts.num_consts + parts.num_carry
        # A record needs the derivative by every float leaf of the state.
        state = parts.body.ins[parts.num_consts : first]
        carry = [_jaxpr.is_float(parts.body.avals[slot]) for slot in state]
        outs = self.mark(parts.body, [*flags[: parts.num_consts], *carry, *flags[first:]])
        return [*carry, *outs[parts.num_carry :]]
