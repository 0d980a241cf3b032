"""One registry for all that a sweep names: gradlab's own builders and those of its users."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar, overload

from gradlab._names import choose

Builder = TypeVar("Builder", bound=Callable[..., Any])


class _Entry(NamedTuple):
    builder: Callable[..., Any]
    version: str | None


class Registry(Generic[Builder]):
    """Functions by their names. The names of gradlab's own cannot be taken by others.

    Args:
        kind: what the functions build, for messages: "cell".

    >>> cells = Registry("cell")
    >>> @cells.register
    ... def mine(hidden, **options):
    ...     return "a cell"
    >>> cells.names(), cells.options("mine"), cells.takes("mine", "gain")
    (('mine',), ('hidden',), True)
    >>> cells.make("mine", hidden=3)
    'a cell'
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, _Entry] = {}

    @overload
    def register(self, builder: Builder) -> Builder: ...
    @overload
    def register(self, *, version: str | None = None) -> Callable[[Builder], Builder]: ...

    def register(self, builder: Any = None, *, version: str | None = None) -> Any:
        """Enter a function under its own name: `@register` or `@register(version="2")`.

        A name that a user has registered before stands for the new function from now on, as in a
        notebook whose cell is run again. A sweep tells the two apart by their code.

        Args:
            builder: the function.
            version: a text that changes whenever something changes that the code does not show,
                such as a data file that it reads.

        Raises:
            ValueError: where the name is one of gradlab's own, or is no name (a lambda).
        """
        if builder is None:
            return lambda function: self.register(function, version=version)
        if not callable(builder):
            raise ValueError(f"a {self.kind} is registered as a function; got {builder!r}")
        name = getattr(builder, "__name__", "")
        if not name.isidentifier():
            raise ValueError(
                f"a {self.kind} is registered under the name of its function, which "
                f"{builder!r} lacks; define it with def"
            )
        if name in self._entries and not self.is_foreign(name) and not _is_own(builder):
            raise ValueError(f"{name} is a {self.kind} of gradlab's own; give yours another name")
        self._entries[name] = _Entry(builder, version)
        return builder

    def names(self) -> tuple[str, ...]:
        """The registered names, sorted."""
        return tuple(sorted(self._entries))

    def builder(self, name: str) -> Builder:
        """The function of that name.

        Raises:
            ValueError: where there is none; the message lists the valid names.
        """
        choose(self.kind, name, self._entries)
        return self._entries[name].builder  # type: ignore[return-value]

    def options(self, name: str) -> tuple[str, ...]:
        """The named arguments of a builder, without `*args` and `**options`."""
        return tuple(
            parameter.name
            for parameter in inspect.signature(self.builder(name)).parameters.values()
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        )

    def takes(self, name: str, option: str) -> bool:
        """Whether a builder has that argument, or takes any as `**options`."""
        parameters = inspect.signature(self.builder(name)).parameters.values()
        return option in self.options(name) or any(p.kind is p.VAR_KEYWORD for p in parameters)

    def make(self, name: str, **options: Any) -> Any:
        """Call a builder with options.

        Raises:
            ValueError: for an unknown name or option, or where one is missing.
        """
        builder = self.builder(name)
        for option in options:
            if not self.takes(name, option):
                choose(f"{name} option", option, self.options(name))
        for parameter in inspect.signature(builder).parameters.values():
            needs = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            if needs and parameter.default is parameter.empty and parameter.name not in options:
                raise ValueError(f"{name} needs {parameter.name}")
        return builder(**options)

    def is_foreign(self, name: str) -> bool:
        """Whether a name stands for code from outside of gradlab."""
        return not _is_own(self.builder(name))

    def fingerprint(self, name: str) -> str:
        """A digest of foreign code, and "" for gradlab's own.

        It covers the function, what it reaches in its own and its user's other modules, and the
        values these hold: arrays, constants, defaults, closures. Installed packages count by name
        and version, but for the package that holds the function. Files and what is computed as the
        code runs are not seen: `version` stands for those. Comments and layout change nothing.

        Raises:
            ValueError: where the code holds something whose content cannot be read, and no version
                was given.
        """
        from gradlab._identity import Unknown, of_function

        if not self.is_foreign(name):
            return ""
        builder, version = self._entries[name]
        try:
            return of_function(builder, version)
        except Unknown as error:
            raise ValueError(
                f"the {self.kind} {name} holds what cannot be compared between processes: {error}; "
                f"name it with register(version=...)"
            ) from None


def _is_own(builder: Callable[..., Any]) -> bool:
    return str(getattr(builder, "__module__", "")).partition(".")[0] == "gradlab"
