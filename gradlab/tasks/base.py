"""The Task bundle, what the tasks share, and the registry."""

import contextlib
import inspect
import operator
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gradlab._names import choose

Builder = Callable[..., "Task"]

_BUILDERS: dict[str, Builder] = {}


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
        baselines: the expected loss of predictors that learn nothing, by their names.
        solved: the task counts as solved when the mean error is at most this.
        held_out: `(dtype=None) -> (xs (N, T, D), targets)`, the sequences that `sample` never
            draws; None for a task whose sequences are made up as they are drawn.
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


def register(builder: Builder) -> Builder:
    """Enter a builder into the registry under its own function name (a decorator)."""
    _BUILDERS[builder.__name__] = builder
    return builder


def names() -> tuple[str, ...]:
    """Return the name of every registered task, sorted."""
    return tuple(sorted(_BUILDERS))


def options(name: str) -> tuple[str, ...]:
    """Return the arguments that the builder of a task takes.

    >>> options("copying")
    ('delay',)
    """
    choose("task", name, _BUILDERS)
    return tuple(inspect.signature(_BUILDERS[name]).parameters)


def make(name: str, **options: Any) -> Task:
    """Build a task by name.

    Args:
        name: one of `names()`.
        options: the builder's own arguments; each has a default.

    Raises:
        ValueError: for an unknown name or option, or a length that the task cannot have.
        ImportError: where the data set's package is not installed.

    >>> from gradlab import tasks
    >>> task = tasks.make("adding", length=50)
    >>> xs, target = task.sample(jax.random.key(0))
    >>> xs.shape, target.shape
    ((50, 2), ())
    """
    choose("task", name, _BUILDERS)
    for option in options:
        choose(f"{name} option", option, inspect.signature(_BUILDERS[name]).parameters)
    return _BUILDERS[name](**options)


def check_least(name: str, least: int, **lengths: int) -> None:
    """Raise `ValueError` unless each length, given by name, is an integer of at least `least`.

    >>> check_least("adding", 2, length=1)
    Traceback (most recent call last):
    ValueError: adding needs length of at least 2, got 1
    """
    for what, value in lengths.items():
        try:
            enough = operator.index(value) >= least
        except TypeError:
            raise ValueError(f"{name} needs {what} to be an integer, got {value!r}") from None
        if not enough:
            raise ValueError(f"{name} needs {what} of at least {least}, got {value}")


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
    chosen = jax.nn.one_hot(target, outputs.shape[-1], dtype=outputs.dtype)
    return -jnp.mean(jnp.sum(chosen * jax.nn.log_softmax(outputs), axis=-1))


def share_wrong(outputs: Float[Array, "*steps K"], target: Int[Array, "*steps"]) -> Array:
    """Share of the steps whose largest output is not the target's, in [0, 1].

    >>> float(share_wrong(jnp.eye(4), jnp.array([0, 1, 2, 0])))
    0.25
    """
    wrong = jnp.argmax(outputs, axis=-1) != target
    return jnp.mean(wrong.astype(outputs.dtype))
