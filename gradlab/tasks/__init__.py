"""Tasks: where sequences come from (input sources) and what loss they pay.

A `Task` is a bundle of pure functions, one file and one registered builder each: `make(name)`.
A `network` is a cell with a linear readout; `batch_loss` and `batch_sampler` bring both together
for training.

An input source is a function (key, length, features, dtype=None) -> (length, features); it works
under jit and vmap over keys, and each feature has mean 0 and variance 1.
"""

from collections.abc import Callable

from jaxtyping import Array

from gradlab import _names
from gradlab.tasks import (
    adding,
    copying,
    digits,
    gaussian,
    imdb,
    parity,
    probe,
    reviews,
    temperature,
    temporal_order,
)
from gradlab.tasks.base import Task, make, names, options, register
from gradlab.tasks.network import Network, batch_loss, batch_sampler, network

__all__ = [
    "INPUTS",
    "Network",
    "Task",
    "adding",
    "batch_loss",
    "batch_sampler",
    "copying",
    "digits",
    "gaussian",
    "imdb",
    "input_names",
    "make",
    "make_input",
    "names",
    "network",
    "options",
    "parity",
    "probe",
    "register",
    "reviews",
    "temperature",
    "temporal_order",
]

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
