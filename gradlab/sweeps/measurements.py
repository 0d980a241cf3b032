"""Measurements: gradlab's own, and any function of the user's as one."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gradlab import _source, remedies
from gradlab._names import choose
from gradlab._registry import Registry
from gradlab.frames import KINDS, Axis, open_schema
from gradlab.frames.axes import REQUIRED, Seed, plain
from gradlab.grid import Axes, Cost, Measurement, Run, Tell
from gradlab.sweeps import conditioning, coordinates, gradients, options, plugins, training

REGISTRY: Registry[Callable[..., Any]] = Registry("measurement")
OWN = {
    "gradients": gradients.measurement,
    "training": training.measurement,
    "conditioning": conditioning.measurement,
    "coordinates": coordinates.measurement,
}
_SEED = "seed"


def measurement(function: Any = None, *, version: str | None = None) -> Any:
    """Make a function something that sweeps can measure, under its own name (a decorator).

    Args:
        function: its arguments are axes: any values of JSON, numbers and texts above all; an
            argument with a default need not be in the spec, and `seed` is one seed. It returns a
            mapping of names to numbers, and, if it likes, under "steps" a mapping of names to
            equally long sequences of numbers.
        version: a text that changes whenever something changes that the code does not show, such
            as a data file that it reads.

    Returns:
        The function, as it is.

    Raises:
        ValueError: for a name of gradlab's own, or arguments that cannot be axes.

    A run is one row of `runs`, its steps are rows of `steps`. A number that is missing in some runs
    is NaN there. A run that raises an error is a failed one, with the error as its reason.

    >>> import tempfile, gradlab as gl
    >>> @gl.sweeps.measurement
    ... def power(base, exponent=2):
    ...     return {"value": base**exponent}
    >>> spec = {"measurement": "power", "base": [2.0, 3.0]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     gl.sweep(spec, folder).results.runs[["base", "exponent", "value"]].values.tolist()
    [[2.0, 2, 4.0], [3.0, 2, 9.0]]
    >>> REGISTRY.remove("power")
    """
    if function is None:
        return lambda each: measurement(each, version=version)
    name = getattr(function, "__name__", "")
    if name in OWN:
        raise ValueError(f"{name} is a measurement of gradlab's own; give yours another name")
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ValueError(f"{name}: the argument {parameter} cannot be an axis; name each one")
        if parameter.name in _RESERVED:
            raise ValueError(f"{name}: an axis cannot be called {parameter.name}")
    return REGISTRY.register(function, version=version)


_RESERVED = {"run_id", "status", "reason", "code", "halved", "device", "steps", "blocks", "zip"}
_RESERVED |= {"when", "seeds", "measurement", "imports"}


def measurement_of(
    name: str | None,
    content: Iterable[tuple[str, Any]],
    imports: tuple[str, ...] = (),
    axis_names: Iterable[str] | None = None,
) -> Measurement:
    """The measurement that a spec asks for.

    Args:
        name: what it calls it; None for training where it names a task, for gradients elsewhere.
        content: every key of the spec that may name an axis, with its value.
        imports: files and modules that another process has to import first.
        axis_names: the axes that the spec names; the keys of the content by default.
    """
    content = list(content)
    names = frozenset(axis_names if axis_names is not None else (key for key, _ in content))
    if name is None:
        name = "training" if any(key == "task" for key, _ in content) else "gradients"
    if not isinstance(name, str) or name not in OWN and name not in REGISTRY.names():
        choose("measurement", name, (*OWN, *REGISTRY.names()))
    if name in OWN:
        axes = options.more_axes(KINDS[name], content)
        base = OWN[name](axes, names)
    else:
        axes = _axes(REGISTRY.builder(name), content)
        base = of_function(name, axes)
    foreign = [*options.foreign_names(base.schema, content), *([] if name in OWN else [name])]
    source = (remake, (imports, _Foreign(foreign), name, axes, names))
    return dataclasses.replace(
        base,
        imports=imports,
        source=source,
        named=tuple(sorted(names)),
        options=options.valid_options(base.schema, content) if name in OWN else (),
    )


class _Foreign:
    """The user's code that a sweep uses, to be sent to another process.

    Functions of modules go by their names, those of a notebook or a script by value.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def __reduce__(self) -> Any:
        from distributed.protocol.pickle import dumps

        builders = []
        for kind, registry in _REGISTRIES.items():
            for name in self.names:
                if name in registry.names() and registry.is_foreign(name):
                    try:
                        builder = dumps(registry.builder(name))
                    except Exception as error:
                        raise ValueError(
                            f"the {registry.kind} {name} cannot be sent to workers: {error}; put "
                            'it into a file: imports = ["my_cells.py"] in the spec, or --import'
                        ) from None
                    builders.append((kind, name, builder, registry.fingerprint(name)))
        return list, (builders,)


_REGISTRIES: dict[str, Registry[Any]] = {
    **options.OWNERS,
    "remedy": remedies.REGISTRY,
    "measurement": REGISTRY,
}


def remake(
    imports: tuple[str, ...],
    foreign: Iterable[tuple[str, str, bytes, str]],
    name: str,
    axes: tuple[Axis, ...],
    axis_names: frozenset[str],
) -> Measurement:
    """A measurement in another process, with the user's code that it uses.

    Raises:
        ValueError: where this process has other code under the same names.
    """
    from distributed.protocol.pickle import loads

    plugins.load(imports)
    for kind, builder_name, content, fingerprint in foreign:
        registry = _REGISTRIES[kind]
        if _DIGESTS.get((kind, builder_name)) == fingerprint:
            continue
        if builder_name not in registry.names() or (kind, builder_name) in _DIGESTS:
            registry.register(loads(content))
            _DIGESTS[kind, builder_name] = fingerprint
        elif registry.fingerprint(builder_name) != fingerprint:
            raise ValueError(f"a worker has other code for the {registry.kind} {builder_name}")
    base = OWN[name](axes, axis_names) if name in OWN else of_function(name, axes)
    return dataclasses.replace(base, imports=imports)


# The digests of the code that another process sent to this one, by kind and name.
_DIGESTS: dict[tuple[str, str], str] = {}


def of_function(name: str, axes: tuple[Axis, ...]) -> Measurement:
    """The measurement that calls the registered function of that name, one run after the other."""
    function = REGISTRY.builder(name)
    schema = open_schema(name, axes)
    takes_seed = _SEED in inspect.signature(function).parameters

    def parts(values: Axes) -> list[Axes]:
        seeds = values[_SEED] if takes_seed else (0,)
        return options.with_code(schema, values | {_SEED: seeds}, [REGISTRY.fingerprint(name)])

    return Measurement(
        schema=schema,
        measure=functools.partial(_measure, function, takes_seed),
        source=(of_function, (name, axes)),
        code=lambda values: {
            f"measurement {name}": REGISTRY.fingerprint(name),
            **options.code_of(schema, values),
        },
        parts=parts,
        label=lambda run: name,
        cost=Cost(family=lambda run: (name, f"{name} run")),
    )


def _axes(function: Callable[..., Any], content: Iterable[tuple[str, Any]]) -> tuple[Axis, ...]:
    """An axis for each argument. Its type follows from the values that a spec gives it."""
    entries: dict[str, list[Any]] = {}
    for key, value in content:
        entries.setdefault(key, []).extend(options.to_list(value))
    axes = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name == _SEED:
            continue
        default = REQUIRED if parameter.default is parameter.empty else parameter.default
        # None as a default is a missing value, whatever the others are.
        known = [] if default is REQUIRED or default is None else [default]
        dtype, kind = options.type_of([*entries.get(parameter.name, []), *known])
        meaning = f"argument of {getattr(function, '__name__', 'the measurement')}"
        axes.append(Axis(parameter.name, dtype, "", meaning, kind, default, optional=True))
    return (*axes, Axis(_SEED, "int64", "1", "the seed", Seed, 0, program=False))


def _measure(
    function: Callable[..., Any], takes_seed: bool, runs: Sequence[Run], size: int, tell: Tell
) -> list[dict[str, Any]]:
    rows = []
    for run in runs:
        arguments = {k: plain(v) for k, v in run._asdict().items() if k != "code"}
        if not takes_seed:
            del arguments[_SEED]
        try:
            row = _row(function(**arguments), arguments)
        except MemoryError:
            raise
        except Exception as error:
            row = {"status": "failed", "reason": _source.describe(error)}
        rows.append(row)
    return rows


def _row(result: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What a function returned, as a row.

    Raises:
        ValueError: where it is something else than the numbers of `measurement`.
    """
    if not isinstance(result, Mapping):
        raise ValueError(f"a measurement returns a dict of numbers, this one {type(result)}")
    row: dict[str, Any] = {"status": "ok"}
    for name, value in result.items():
        if name == "steps":
            row["steps"] = _steps(value)
        elif not isinstance(name, str) or name in _RESERVED or name in arguments or "." in name:
            raise ValueError(f"a measurement cannot return a number called {name!r}")
        else:
            row[name] = _number(name, value)
    return row


def _number(name: str, value: Any) -> float:
    array = np.asarray(value)
    if array.ndim or array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be a number, got {value!r}")
    number = float(array)
    if isinstance(value, numbers.Integral) and int(number) != int(value):
        raise ValueError(f"{name} is a whole number that no float64 holds: {value}")
    return number


def _steps(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"steps must be a dict of equally long sequences, got {type(value)}")
    columns = {}
    for name, items in value.items():
        array = np.asarray(items)
        if not isinstance(name, str) or name == "run_id":
            raise ValueError(f"steps cannot have a column called {name!r}")
        if array.ndim != 1 or array.dtype.kind not in "biuf":
            raise ValueError(f"steps: {name} must be a sequence of numbers")
        columns[name] = array.astype(np.float64)
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        text = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise ValueError(f"steps must be equally long; {text}")
    return columns
