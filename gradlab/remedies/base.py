"""What a remedy is to a training, and the registry of remedies."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from gradlab._registry import Registry
from gradlab.cells import Cell
from gradlab.remedies.penalized import Penalty

if TYPE_CHECKING:
    import optax


class Remedy(NamedTuple):
    """What a remedy changes of a training; each part may be left out.

    Attributes:
        cell: the cell -> the cell in its place.
        penalty: (cell, loss) -> P, a function of (params, batch); the training's loss becomes
            L + strength · P. `loss` is L, (params, batch) -> (L, report).
        optimizer: optax's transformation of the gradient, before the optimizer.
    """

    cell: Callable[[Cell], Cell] | None = None
    penalty: Callable[[Cell, Callable[[Any, Any], Any]], Penalty] | None = None
    optimizer: optax.GradientTransformation | None = None


REGISTRY: Registry[Callable[..., Any]] = Registry("remedy")


def register(builder: Any = None, *, version: str | None = None) -> Any:
    """Enter a remedy under the function's name: an axis of that name in sweeps of training.

    Args:
        builder: (strength, …) -> `Remedy`, or optax's transformation. The strength is the axis'
            value; 0, its default, leaves the remedy out. It is a traced scalar. Other arguments
            are values of the axes of their names, such as `length`.
        version: as in `gradlab.cells.register`.

    Raises:
        ValueError: where the name is one of gradlab's own.

    >>> import optax
    >>> from gradlab import remedies
    >>> @remedies.register
    ... def decay(strength):
    ...     return optax.add_decayed_weights(strength)
    >>> remedies.make("decay", strength=0.1).optimizer is not None
    True
    >>> remedies.REGISTRY.remove("decay")
    """
    return REGISTRY.register(builder, version=version)


def names() -> tuple[str, ...]:
    """The names of the registered remedies, sorted."""
    return REGISTRY.names()


def is_foreign(name: str) -> bool:
    """Whether there is a remedy of that name which is not gradlab's own."""
    return name in REGISTRY.names() and REGISTRY.is_foreign(name)


def make(name: str, strength: Any, **options: Any) -> Remedy:
    """The remedy of that name, given those of the options that its builder takes.

    Raises:
        ValueError: for an unknown name, or where the builder returns something else.
    """
    own = {option: value for option, value in options.items() if REGISTRY.takes(name, option)}
    remedy = REGISTRY.make(name, strength=strength, **own)
    if hasattr(remedy, "init") and hasattr(remedy, "update"):
        remedy = Remedy(optimizer=remedy)
    if not isinstance(remedy, Remedy):
        raise ValueError(
            f"the remedy {name} returned {remedy!r}; a remedy is a gradlab.remedies.Remedy or a "
            "transformation of optax"
        )
    return remedy
