"""What a trace is asked to record, and the slots that it is recorded into."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradlab.tracing import _linear, _norms
from gradlab.tracing._view import wants_step


class Options(NamedTuple):
    """What to record beside the norms, and how (see `trace`)."""

    axis: int | None = None
    log_param: bool = False
    measure: Callable[..., Any] | None = None
    segment: int | None = None
    stop: bool = False  # at what has no derivative, where no gradient that is asked for needs one
    # The same bits alone and mapped beside others. So weights are not transposed before the loop,
    # and no chunk runs in one unit: both make the last digit depend on the other runs.
    same_bits: bool = False

    @property
    def shows_steps(self) -> bool:
        """Whether `measure` is given what the step took, gave and named."""
        return wants_step(self.measure)


class Slots(NamedTuple):
    """Zeros that enter the forward pass; their cotangents are the measurements.

    `logs` are ln norms by name, each of shape (*outer, T) or (*outer, T, batch); `measured` are
    the leaves of what `measure` returned, (*outer, T, ...); `finite` is the number of steps before
    the first state that is not finite, (*outer,) or (*outer, batch); `visits`, shape (*outer,), is
    1 where the backward pass ran at all.
    """

    logs: dict[str, Any]
    measured: tuple[Any, ...]
    finite: Any
    visits: Any


def log_names(leaves: Sequence[str], log_param: bool) -> list[str]:
    """The names of `Slots.logs` for a state with these leaves."""
    names = [*PARTS, "scale", *(["param"] if log_param else [])]
    each = leaves if len(leaves) > 1 else ()
    return names + [f"{part}:{i}" for part in PARTS for i in range(len(each))]


PARTS = ("total", "direct", "transported")


def call_measure(
    options: Options,
    names: Sequence[str],
    state: Sequence[Any],
    adjoint: Sequence[Any],
    *values: Any,
) -> Any:
    """Call `measure`, a lone leaf as it is and several by name; what it counts becomes floats.

    `values` is its third argument, the `StepValues`, where it takes one.
    """
    if options.measure is None:
        return ()
    state_tree, adjoint_tree = (
        leaves[0] if len(names) == 1 else dict(zip(names, leaves, strict=True))
        for leaves in (state, adjoint)
    )
    dtype = _norms.real_dtype(adjoint)
    return jax.tree.map(
        lambda x: x if _linear.is_inexact(x) else jnp.asarray(x, dtype),
        options.measure(state_tree, adjoint_tree, *values),
    )
