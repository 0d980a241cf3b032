"""A loss with a penalty added."""

from collections.abc import Callable
from typing import Any

from jax import Array
from jax.typing import ArrayLike

Penalty = Callable[[Any, Any], Array]


def penalized(
    loss: Callable[[Any, Any], Any],
    strength: ArrayLike,
    penalty: Penalty,
    *,
    name: str = "penalty",
    has_aux: bool = False,
) -> Callable[[Any, Any], tuple[Array, dict[str, Array]]]:
    """The loss L + α P, which reports L and P besides.

    Args:
      loss: ``(params, batch) -> L``, or ``(L, dict of scalars)`` with ``has_aux``.
      strength: α, a scalar, possibly traced.
      penalty: ``(params, batch) -> P``, a scalar.
      name: what P is called among the scalars; "unpenalized", the L of the innermost loss, and
        what the loss reports itself stand beside it.
      has_aux: whether the loss reports scalars.

    Returns:
      ``(params, batch) -> (L + α P, dict of scalars)``: train it with ``has_aux=True``. It can be
      penalized again. NaN in L, α or P gives NaN, at α = 0 too. The loss's own scans come first in
      the program, so ``gradlab.trace`` lists them first.

    Raises:
      ValueError: (when called) for a name that the loss already reports.

    >>> import jax.numpy as jnp
    >>> loss = penalized(lambda w, x: w * x, 0.5, lambda w, x: w**2, name="decay")
    >>> value, report = loss(jnp.array(2.0), 3.0)
    >>> float(value), {name: float(v) for name, v in report.items()}
    (8.0, {'unpenalized': 6.0, 'decay': 4.0})
    """

    def sum_of_both(params: Any, batch: Any) -> tuple[Array, dict[str, Array]]:
        value, report = loss(params, batch) if has_aux else (loss(params, batch), {})
        if name in report:
            raise ValueError(f"the loss reports {name!r} already: give this penalty another name")
        extra = penalty(params, batch)
        return value + strength * extra, {"unpenalized": value} | report | {name: extra}

    return sum_of_both
