"""Tasks: where sequences come from (input sources) and what loss they pay.

An input source is a function (key, length, features, dtype=None) -> (length, features); it works
under jit and vmap over keys, and each feature has mean 0 and variance 1.
"""

from collections.abc import Callable

from jaxtyping import Array

from gradlab import _names
from gradlab.tasks import gaussian, probe, reviews

__all__ = ["INPUTS", "gaussian", "input_names", "make_input", "probe", "reviews"]

INPUTS: dict[str, Callable[..., Array]] = {
    "gaussian": gaussian.gaussian,
    "reviews": reviews.reviews,
}


def input_names() -> tuple[str, ...]:
    """The names of the input sources, sorted.

    >>> input_names()
    ('gaussian', 'reviews')
    """
    return tuple(sorted(INPUTS))


def make_input(name: str) -> Callable[..., Array]:
    """The input source of that name, a function (key, length, features, dtype=None) -> array.

    Raises:
        ValueError: if there is none; the message lists the valid names and the nearest.

    >>> import jax
    >>> make_input("gaussian")(jax.random.key(0), 10, 3).shape
    (10, 3)
    """
    _names.choose("input", name, input_names())
    return INPUTS[name]
