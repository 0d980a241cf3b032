"""The registry, and what the initializers share."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from gradlab._names import choose

Initializer = Callable[..., Array]
Builder = Callable[..., Initializer]

_WEIGHTS: dict[str, Builder] = {}
_BIASES: dict[str, Builder] = {}


def register(builder: Builder) -> Builder:
    """Enter a builder of weights into the registry under its own function name (a decorator)."""
    _WEIGHTS[builder.__name__] = builder
    return builder


def register_bias(builder: Builder) -> Builder:
    """Enter a builder of biases into the registry under its own function name (a decorator)."""
    _BIASES[builder.__name__] = builder
    return builder


def names() -> tuple[str, ...]:
    """Return the name of every initializer of weights, sorted; each takes a `gain`.

    >>> "orthogonal" in names(), "chrono" in names()
    (True, False)
    """
    return tuple(sorted(_WEIGHTS))


def bias_names() -> tuple[str, ...]:
    """Return the name of every initializer that is for biases only, sorted.

    >>> bias_names()
    ('chrono', 'forget_bias')
    """
    return tuple(sorted(_BIASES))


def make(name: str, **options: Any) -> Initializer:
    """Build an initializer by name.

    Args:
        name: one of `names()` or `bias_names()`.
        options: the builder's own arguments; each of `names()` takes `gain`.

    Raises:
        ValueError: for an unknown name, an unknown option, or one that the builder needs.

    >>> make("identity", gain=3.0)(None, (1, 1)).tolist()
    [[3.0]]
    """
    builders = _WEIGHTS | _BIASES
    choose("initializer", name, builders)
    parameters = inspect.signature(builders[name]).parameters
    for option in options:
        choose(f"{name} option", option, parameters)
    for option, parameter in parameters.items():
        if parameter.default is parameter.empty and option not in options:
            raise ValueError(f"{name} needs {option}")
    return builders[name](**options)


def floating(dtype: DTypeLike | None) -> DTypeLike:
    """Return `dtype`, or JAX's default float for None."""
    return jnp.result_type(float) if dtype is None else dtype


def scalar(gain: ArrayLike, dtype: DTypeLike) -> Array:
    """Return the gain in the dtype of the weights."""
    # A traced float64 gain must not turn float32 weights into float64.
    return jnp.asarray(gain, dtype)


def matrix(name: str, shape: Sequence[int]) -> tuple[int, int]:
    """Return (out, in), or raise `ValueError` for a shape that is not that."""
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"{name} needs a shape (out, in) with both at least 1, got {tuple(shape)}")
    return shape[0], shape[1]


def square(name: str, shape: Sequence[int]) -> int:
    """Return n, or raise `ValueError` for a shape that is not (n, n)."""
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] < 1:
        raise ValueError(f"{name} needs a shape (n, n) with n at least 1, got {tuple(shape)}")
    return shape[0]


def vector(name: str, shape: Sequence[int]) -> int:
    """Return n, or raise `ValueError` for a shape that is not (n,)."""
    if len(shape) != 1 or shape[0] < 1:
        raise ValueError(f"{name} needs a shape (n,) with n at least 1, got {tuple(shape)}")
    return shape[0]


def whole(name: str, option: str, value: int) -> int:
    """Return `value`, or raise `ValueError` where it is not a whole number above 0."""
    if value != int(value) or value < 1:
        raise ValueError(f"{name} needs a whole number {option} of at least 1, got {value}")
    return int(value)
