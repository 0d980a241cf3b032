"""Tasks: where sequences come from (input sources) and what loss they pay.

A `Task` is a bundle of pure functions, one file and one registered builder each: `make(name)`.
A `network` is a cell with a linear readout; `batch_loss` and `batch_sampler` join the two for
training.

An input source is a function (key, length, features, dtype=None) -> (length, features); it works
under jit and vmap over keys, and each feature has mean 0 and variance 1.
"""

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
    word_order,
)
from gradlab.tasks.base import (
    INPUTS,
    REGISTRY,
    Task,
    input_names,
    make,
    make_input,
    names,
    options,
    register,
    register_input,
)
from gradlab.tasks.network import Network, batch_loss, batch_sampler, network

__all__ = [
    "INPUTS",
    "Network",
    "REGISTRY",
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
    "register_input",
    "reviews",
    "temperature",
    "temporal_order",
    "word_order",
]


def __dir__() -> list[str]:
    return sorted(__all__)
