"""The registries, and what the initializers share."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from gradlab._names import choose
from gradlab._registry import Registry, as_builder, check_array, is_own, set_signature, takes

Initializer = Callable[..., Array]
Builder = Callable[..., Initializer]


def _adapt(function: Callable[..., Any]) -> Builder:
    """The builder of a user's initializers, with a gain and with a check of what they draw."""
    if is_own(function):
        return function
    name = function.__name__
    inner = as_builder("initializer", function, ("key", "shape", "dtype"))
    has_gain = takes(inner, "gain")

    def build(**options: Any) -> Initializer:
        gain: Any = 1.0 if has_gain else options.pop("gain", 1.0)
        draw = inner(**options)
        if not callable(draw):
            raise ValueError(
                f"the initializer {name} must return a function (key, shape, dtype) -> array, "
                f"got {type(draw).__name__}"
            )

        def init(key: Array, shape: Sequence[int], dtype: DTypeLike | None = None) -> Array:
            dtype = jnp.dtype(floating(dtype))
            W = check_array(f"the initializer {name}", draw(key, shape, dtype), tuple(shape), dtype)
            return W if has_gain else scalar(gain, dtype) * W

        return init

    parameters = list(inspect.signature(inner).parameters.values())
    if not has_gain:
        parameters = [*inspect.signature(_with_gain).parameters.values(), *parameters]
    set_signature(build, parameters)
    return build


def _with_gain(gain: ArrayLike = 1.0) -> None:
    """The signature of the argument that every initializer of weights takes."""


BIASES: Registry[Builder] = Registry("initializer")
REGISTRY: Registry[Builder] = Registry("initializer", _adapt, BIASES.names)
register_bias = BIASES.register


def register(builder: Any = None, *, version: str | None = None) -> Any:
    """Enter an initializer of weights under its own name, `@register` or `@register(version="2")`.

    It has one of two forms. A function whose first argument is `key` draws the weights itself,
    `(key, shape, dtype) -> array`, as those of `jax.nn.initializers` do; its other arguments become
    options of `make`. Any other function is a builder that returns such a function.

    Every initializer of weights takes a `gain`: where the function has no such argument, what it
    draws is multiplied by it.

    Args:
        builder: the function.
        version: a text that changes whenever something changes that the code does not show, such
            as a data file that it reads.

    Returns:
        The function, unchanged. A name that a user has registered before stands for the new one.

    Raises:
        ValueError: for a name of gradlab's own, or a function with `key` but without `shape` and
            `dtype`. What `make` gives raises it for an array of another shape or dtype.

    >>> import jax
    >>> from gradlab import initializers
    >>> @initializers.register
    ... def signs(key, shape, dtype):
    ...     return jax.random.rademacher(key, shape, dtype)
    >>> abs(initializers.make("signs", gain=0.5)(jax.random.key(0), (2, 2))).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    >>> initializers.REGISTRY.remove("signs")
    """
    return REGISTRY.register(builder, version=version)


def names() -> tuple[str, ...]:
    """The name of every initializer of weights, sorted; each takes a `gain`.

    >>> "orthogonal" in names(), "chrono" in names()
    (True, False)
    """
    return REGISTRY.names()


def bias_names() -> tuple[str, ...]:
    """The name of every initializer that is for biases only, sorted.

    >>> bias_names()
    ('chrono', 'forget_bias')
    """
    return BIASES.names()


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
    choose("initializer", name, (*names(), *bias_names()))
    return (BIASES if name in bias_names() else REGISTRY).make(name, **options)


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
