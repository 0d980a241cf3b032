"""One registry for all that a sweep names: gradlab's own builders and those of its users."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar, overload

import jax.numpy as jnp
import numpy as np
from jax import Array

from gradlab._names import choose

Builder = TypeVar("Builder", bound=Callable[..., Any])

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


class _Entry(NamedTuple):
    function: Callable[..., Any]  # as the user wrote it: its code is the fingerprint
    builder: Callable[..., Any]  # what `make` calls
    version: str | None


# By the function, not by its name: a notebook's user defines a cell again. A large grid asks for
# each of its parts.
@functools.lru_cache(256)
def _parameters(function: Any) -> tuple[inspect.Parameter, ...]:
    return tuple(inspect.signature(function).parameters.values())


class Registry(Generic[Builder]):
    """Functions by their names. The names of gradlab's own cannot be taken by others.

    Args:
        kind: what the functions build, for messages: "cell".
        adapt: a function, as registered -> the builder that `make` calls in its place, which
            checks what the function returns. It raises `ValueError` for a function of the wrong
            form. None: the function itself.
        reserved: gives names that stand for something else, and that nobody can register here.

    >>> cells = Registry("cell")
    >>> @cells.register
    ... def mine(hidden, **options):
    ...     return "a cell"
    >>> cells.names(), cells.options("mine"), cells.takes("mine", "gain")
    (('mine',), ('hidden',), True)
    >>> cells.make("mine", hidden=3)
    'a cell'
    """

    def __init__(
        self,
        kind: str,
        adapt: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None,
        reserved: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self.kind = kind
        self._one = f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
        self._adapt = adapt
        self._reserved = reserved
        self._entries: dict[str, _Entry] = {}

    @overload
    def register(self, function: Builder, /, *, version: str | None = None) -> Builder: ...
    @overload
    def register(
        self, function: None = None, /, *, version: str | None = None
    ) -> Callable[[Builder], Builder]: ...

    def register(self, function: Any = None, /, *, version: str | None = None) -> Any:
        """Enter a function under its own name: `@register` or `@register(version="2")`.

        A name that a user has registered before stands for the new function from now on, as in a
        notebook whose cell is run again. A sweep tells the two apart by their code.

        Args:
            function: the function.
            version: a text that changes whenever something changes that the code does not show,
                such as a data file that it reads.

        Returns:
            The function, unchanged.

        Raises:
            ValueError: where the name is one of gradlab's own, or is no name (a lambda), or the
                function has not the form that its kind asks for.
        """
        if function is None:
            return lambda function: self.register(function, version=version)
        if not callable(function):
            raise ValueError(f"{self._one} is registered as a function; got {function!r}")
        name = getattr(function, "__name__", "")
        if not name.isidentifier():
            raise ValueError(
                f"{self._one} is registered under the name of its function, which "
                f"{function!r} lacks; define it with def"
            )
        taken = name in self._reserved() or (name in self._entries and not self.is_foreign(name))
        if taken and not is_own(function):
            raise ValueError(f"{name} is {self._one} of gradlab's own; give yours another name")
        builder = function if self._adapt is None else self._adapt(function)
        self._entries[name] = _Entry(function, builder, version)
        return function

    def remove(self, name: str) -> None:
        """Forget a function that a user registered.

        Raises:
            ValueError: for an unknown name, or one of gradlab's own.
        """
        if not self.is_foreign(name):
            raise ValueError(f"{name} is {self._one} of gradlab's own and stays")
        del self._entries[name]

    def names(self) -> tuple[str, ...]:
        """The registered names, sorted."""
        return tuple(sorted(self._entries))

    def builder(self, name: str) -> Builder:
        """The builder of that name.

        Raises:
            ValueError: where there is none; the message lists the valid names.
        """
        choose(self.kind, name, self._entries)
        return self._entries[name].builder  # type: ignore[return-value]

    def options(self, name: str) -> tuple[str, ...]:
        """The named arguments of a builder, without `*args` and `**options`."""
        return tuple(
            parameter.name
            for parameter in _parameters(self.builder(name))
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        )

    def takes(self, name: str, option: str) -> bool:
        """Whether a builder has that argument, or takes any as `**options`."""
        return takes(self.builder(name), option)

    def make(self, name: str, **options: Any) -> Any:
        """Call a builder with options.

        Raises:
            ValueError: for an unknown name or option, where an option is missing, or where a
                user's function returns something else than its kind asks for.
        """
        builder = self.builder(name)
        for option in options:
            if not takes(builder, option):
                choose(f"{name} option", option, self.options(name))
        for parameter in inspect.signature(builder).parameters.values():
            needs = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            if needs and parameter.default is parameter.empty and parameter.name not in options:
                raise ValueError(f"{name} needs {parameter.name}")
        return builder(**options)

    def is_foreign(self, name: str) -> bool:
        """Whether a name stands for code from outside of gradlab."""
        choose(self.kind, name, self._entries)
        return not is_own(self._entries[name].function)

    def fingerprint(self, name: str) -> str:
        """A digest of foreign code, and "" for gradlab's own.

        It covers the function, what it reaches in its own module and in its user's other modules,
        and the values that these hold: arrays, constants, defaults, closures. The package that
        holds the function counts by its code, every other installed package by name and version.
        Comments, docstrings and layout change nothing.

        It does not see data files, environment variables, a module that is imported by a computed
        name, or an attribute that is looked up by a computed name: `version` stands for those. A
        global value that changes while code runs, such as a counter or a dict used as a cache,
        counts with what it holds at the moment of the call, so that two moments may differ: keep
        such values out of the function's reach, or name a `version`.

        Raises:
            ValueError: where the code holds something whose content cannot be read, and no version
                was given.
        """
        from gradlab._identity import Unknown, of_function

        if not self.is_foreign(name):
            return ""
        function, _, version = self._entries[name]
        try:
            return of_function(function, version)
        except Unknown as error:
            raise ValueError(
                f"the {self.kind} {name} holds what cannot be compared between processes: {error}; "
                f"name it with register(version=...)"
            ) from None


def is_own(function: Callable[..., Any]) -> bool:
    """Whether a function is written in gradlab's files."""
    # Not by `__module__`, which functools.wraps copies from gradlab's functions to a user's.
    code = getattr(function, "__code__", None)
    return code is not None and os.path.abspath(code.co_filename).startswith(_PACKAGE)


def takes(function: Callable[..., Any], option: str) -> bool:
    """Whether a function has that argument, or takes any as `**options`.

    >>> takes(lambda a, *rest: a, "rest"), takes(lambda a, **rest: a, "b")
    (False, True)
    """
    return any(
        parameter.kind is parameter.VAR_KEYWORD
        or (parameter.name == option and parameter.kind is not parameter.VAR_POSITIONAL)
        for parameter in _parameters(function)
    )


def as_builder(
    kind: str, function: Callable[..., Any], arguments: Sequence[str]
) -> Callable[..., Any]:
    """A builder of the function: itself, unless it is the very thing that a builder would build.

    It is the thing where its first argument is the first of `arguments`. The other arguments that
    it has then are the builder's options.

    >>> def noise(key, shape, dtype=None, *, scale=1.0):
    ...     return scale
    >>> build = as_builder("initializer", noise, ("key", "shape", "dtype"))
    >>> build(scale=3.0)("key", (2, 2))
    3.0

    Raises:
        ValueError: where only the first argument fits.
    """
    parameters = inspect.signature(function).parameters
    first = list(parameters)[: len(arguments)]
    if first[:1] != list(arguments[:1]):
        return function
    if first != list(arguments):
        raise ValueError(
            f"the {kind} {function.__name__} needs the arguments ({', '.join(arguments)}), "
            f"got ({', '.join(first)})"
        )
    rest = [
        p for p in list(parameters.values())[len(arguments) :] if p.kind is not p.VAR_POSITIONAL
    ]

    @functools.wraps(function)
    def build(**options: Any) -> Callable[..., Any]:
        return functools.partial(function, **options) if options else function

    set_signature(build, rest)
    return build


def set_signature(function: Callable[..., Any], parameters: Iterable[inspect.Parameter]) -> None:
    """Show these parameters, all by keyword, as the arguments of a function of `**options`."""
    by_name = [
        parameter if parameter.kind is parameter.VAR_KEYWORD
        else parameter.replace(kind=parameter.KEYWORD_ONLY)
        for parameter in parameters
    ]  # fmt: skip
    function.__signature__ = inspect.Signature(by_name)  # type: ignore[attr-defined]


def check_array(what: str, array: Any, shape: Sequence[int], dtype: Any) -> Array:
    """What a user's function drew, if it has that shape and dtype.

    >>> check_array("the input mine", jnp.zeros((3, 2), "float32"), (2, 3), jnp.dtype("float32"))
    Traceback (most recent call last):
    ValueError: the input mine must draw float32[2, 3], got float32[3, 2]

    Raises:
        ValueError: for another shape or dtype, or for something that is no array.
    """
    is_array = isinstance(array, Array | np.ndarray | np.generic)
    actual = f"{array.dtype}{list(array.shape)}" if is_array else f"a {type(array).__name__}"
    expected = f"{dtype}{list(shape)}"
    if actual != expected:
        raise ValueError(f"{what} must draw {expected}, got {actual}")
    return jnp.asarray(array)
