"""The Task bundle, what the tasks share, and the registries of tasks and of input sources."""

import contextlib
import functools
import inspect
import operator
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gradlab._names import show
from gradlab._registry import Registry, as_builder, check_array, is_own, set_signature

# JAX counts the elements of a dimension in int32.
MOST = 2**31 - 1
Builder = Callable[..., "Task"]


class Task(NamedTuple):
    """Where sequences come from and what loss they pay, as a bundle of pure functions.

    Everything is unbatched; the caller applies `jax.vmap`. With T = `length`, D = `inputs`
    and K = `outputs`, a network maps xs (T, D) to outputs (T, K) where `every_step` holds, and
    to outputs (K,), read at the last step, where it does not.

    Attributes:
        name: the task's name in the registry.
        length: T, the number of steps of the input sequence.
        inputs: D, the width of x_t.
        outputs: K, the width of the outputs.
        every_step: whether the loss reads the outputs of all steps, or of the last only.
        sample: `(key, dtype=None) -> (xs, target)`, xs (T, D) in `dtype`, or in JAX's default
            float; it works under jit and vmap. A task that draws from a data set has a
            `jax.tree_util.Partial` here, so that the data can be an argument of a jitted function
            instead of a constant in it.
        loss: `(outputs, target) -> L`, a scalar in the unit of the published baseline: mean
            squared error, or cross-entropy in nats.
        error: `(outputs, target) -> e`, the scalar that "solved" is judged by: the share of wrong
            answers, in [0, 1], or an absolute error; each task says which.
        baselines: the expected loss of predictors that learn nothing, by their names; on what
            `held_out` gives, where a task has that.
        solved: the task counts as solved when the mean error is at most this.
        held_out: `(dtype=None) -> (xs (N, T, D), targets)`, the sequences that `sample` never
            draws; None for a task without a data set.
    """

    name: str
    length: int
    inputs: int
    outputs: int
    every_step: bool
    sample: Callable[..., tuple[Array, Array]]
    loss: Callable[[Array, Array], Array]
    error: Callable[[Array, Array], Array]
    baselines: dict[str, float]
    solved: float
    held_out: Callable[..., tuple[Array, Array]] | None = None


def _adapt(function: Builder) -> Builder:
    """A user's builder that checks the task that it returns."""
    if is_own(function):
        return function
    name = function.__name__

    @functools.wraps(function)
    def build(**options: Any) -> Task:
        task = function(**options)
        if not isinstance(task, Task):
            raise ValueError(
                f"the task {name} must return a gradlab.tasks.Task, got {type(task).__name__}"
            )
        _check_shapes(name, task)
        return task

    return build


def _check_shapes(name: str, task: Task) -> None:
    """Raise `ValueError` where a task's sequences or its loss have another shape than it says."""

    def run(key: Array, outputs: Array) -> tuple[Array, Array, Array]:
        xs, target = task.sample(key, jnp.float32)
        return xs, task.loss(outputs, target), task.error(outputs, target)

    steps = (task.length,) if task.every_step else ()
    outputs = jax.ShapeDtypeStruct((*steps, task.outputs), jnp.float32)
    xs, loss, error = jax.eval_shape(run, jax.random.key(0), outputs)
    expected = {"sample": (task.length, task.inputs), "loss": (), "error": ()}
    for (what, shape), array in zip(expected.items(), (xs, loss, error), strict=True):
        if array.shape != shape:
            raise ValueError(
                f"the {what} of the task {name} must have the shape {shape}, got {array.shape}"
            )


def _adapt_input(function: Callable[..., Any]) -> Callable[..., Any]:
    """The builder of a user's input source, with a check of what it draws."""
    inner = as_builder("input", function, ("key", "length", "features", "dtype"))
    if is_own(function):
        return inner
    name = function.__name__

    def build(**options: Any) -> Callable[..., Array]:
        source = inner(**options)
        if not callable(source):
            raise ValueError(
                f"the input {name} must return a function (key, length, features, dtype) -> "
                f"array, got {type(source).__name__}"
            )

        def draw(key: Array, length: int, features: int, dtype: Any = None) -> Array:
            dtype = jnp.result_type(float if dtype is None else dtype)
            xs = source(key, length, features, dtype)
            return check_array(f"the input {name}", xs, (length, features), dtype)

        return draw

    set_signature(build, inspect.signature(inner).parameters.values())
    return build


REGISTRY: Registry[Builder] = Registry("task", _adapt)
INPUTS: Registry[Callable[..., Any]] = Registry("input", _adapt_input)


def register(builder: Any = None, *, version: str | None = None) -> Any:
    """Enter a builder of tasks under its own name, `@register` or `@register(version="2")`.

    The builder returns a `Task`. An argument `**options` takes every option that a sweep names.

    Args:
        builder: the function.
        version: a text that changes whenever something changes that the code does not show, such
            as a data file that it reads.

    Returns:
        The builder, unchanged. A name that a user has registered before stands for the new one.

    Raises:
        ValueError: for a name of gradlab's own. `make` raises it where the builder returns no
            `Task`, or one whose sequences or loss have another shape than it says.

    The last input as the target:

    >>> from gradlab import tasks
    >>> @tasks.register
    ... def last(length=10):
    ...     def sample(key, dtype=None):
    ...         xs = jax.random.normal(key, (length, 1), dtype or float)
    ...         return xs, xs[-1]
    ...     def loss(outputs, target):
    ...         return jnp.mean((outputs - target) ** 2)
    ...     return tasks.Task("last", length, 1, 1, False, sample, loss, loss, {"zero": 1.0}, 0.01)
    >>> tasks.make("last", length=5).length
    5
    >>> tasks.REGISTRY.remove("last")
    """
    return REGISTRY.register(builder, version=version)


def names() -> tuple[str, ...]:
    """The name of every registered task, sorted."""
    return REGISTRY.names()


def options(name: str) -> tuple[str, ...]:
    """The named arguments that the builder of a task takes.

    >>> options("copying")
    ('delay',)
    """
    return REGISTRY.options(name)


def make(name: str, **options: Any) -> Task:
    """Build a task by name.

    Args:
        name: one of `names()`.
        options: the builder's own arguments; each has a default.

    Raises:
        ValueError: for an unknown name or option, a length that the task cannot have, or a user's
            builder that returns no `Task`.
        ImportError: where the data set's package is not installed.

    >>> from gradlab import tasks
    >>> task = tasks.make("adding", length=50)
    >>> xs, target = task.sample(jax.random.key(0))
    >>> xs.shape, target.shape
    ((50, 2), ())
    """
    return REGISTRY.make(name, **options)


def register_input(source: Any = None, *, version: str | None = None) -> Any:
    """Enter an input source under its own name, `@register_input` or with `(version="2")`.

    A source is a function `(key, length, features, dtype=None) -> xs (length, features)` that works
    under jit and vmap over keys; for results that can be compared with theory, each feature has
    mean 0 and variance 1. Its other arguments become options of `make_input`. A function whose
    first argument is not `key` is a builder that returns such a function.

    Args:
        source: the function.
        version: a text that changes whenever something changes that the code does not show, such
            as a data file that it reads.

    Returns:
        The function, unchanged. A name that a user has registered before stands for the new one.

    Raises:
        ValueError: for a name of gradlab's own, or a function with `key` but without the other
            three arguments. What `make_input` gives raises it for another shape or dtype.

    >>> from gradlab import tasks
    >>> @tasks.register_input
    ... def signs(key, length, features, dtype=None):
    ...     return jax.random.rademacher(key, (length, features), dtype)
    >>> tasks.make_input("signs")(jax.random.key(0), 10, 3).shape
    (10, 3)
    >>> tasks.INPUTS.remove("signs")
    """
    return INPUTS.register(source, version=version)


def input_names() -> tuple[str, ...]:
    """The names of the input sources, sorted.

    >>> input_names()
    ('gaussian', 'reviews')
    """
    return INPUTS.names()


def make_input(name: str, **options: Any) -> Callable[..., Array]:
    """The input source of that name, a function (key, length, features, dtype=None) -> array.

    Args:
        name: one of `input_names()`.
        options: the source's own arguments.

    Raises:
        ValueError: if there is none of that name, or for an unknown option; the message lists the
            valid names and the nearest.

    >>> make_input("gaussian")(jax.random.key(0), 10, 3).shape
    (10, 3)
    """
    return INPUTS.make(name, **options)


def check_minimum(name: str, minimum: int, **lengths: int) -> None:
    """Raise `ValueError` unless each length, given by name, is an integer from `minimum` to `MOST`.

    >>> check_minimum("adding", 2, length=1)
    Traceback (most recent call last):
    ValueError: adding needs length of at least 2, got 1
    """
    for what, value in lengths.items():
        try:
            number = operator.index(value)
        except TypeError:
            raise ValueError(f"{name} needs {what} to be an integer, got {show(value)}") from None
        if number < minimum:
            raise ValueError(f"{name} needs {what} of at least {minimum}, got {show(number)}")
        if number > MOST:
            raise ValueError(f"{name} needs {what} of at most {MOST}, got {show(number)}")


@contextlib.contextmanager
def extra(name: str, package: str) -> Iterator[None]:
    """Say in an `ImportError` how to get what is imported inside this block.

    >>> with extra("digits", "scikit-learn"):
    ...     import no_such_package
    Traceback (most recent call last):
    ImportError: digits needs scikit-learn: pip install 'gradlab[data]'
    """
    try:
        yield
    except ImportError as error:
        raise ImportError(f"{name} needs {package}: pip install 'gradlab[data]'") from error


def cross_entropy(outputs: Float[Array, "*steps K"], target: Int[Array, "*steps"]) -> Array:
    """Mean of -ln softmax(outputs)[target] over the steps, in nats.

    >>> round(float(cross_entropy(jnp.zeros((5, 4)), jnp.arange(5) % 4)), 4)  # ln 4
    1.3863
    """
    mask = jax.nn.one_hot(target, outputs.shape[-1], dtype=outputs.dtype)
    return -jnp.mean(jnp.sum(mask * jax.nn.log_softmax(outputs), axis=-1))


def share_wrong(outputs: Float[Array, "*steps K"], target: Int[Array, "*steps"]) -> Array:
    """Share of the steps whose largest output is not the target's, in [0, 1].

    >>> float(share_wrong(jnp.eye(4), jnp.array([0, 1, 2, 0])))
    0.25
    """
    wrong = jnp.argmax(outputs, axis=-1) != target
    return jnp.mean(wrong.astype(outputs.dtype))
