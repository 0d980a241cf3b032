"""What a program is, as a digest that is the same in every process.

A jaxpr's text leaves out the arrays that nested programs hold, rounds its constants and names
Python functions by their address. `Identity` goes through the program itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import dis
import enum
import functools
import hashlib
import importlib.util
import inspect
import os
import re
import sys
import sysconfig
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# These only print. What they are given changes no number of the program.
_PRINT = ("debug_print", "debug_callback")
# Rules that JAX has applied before the program runs, so that no number depends on them.
_RULES = {
    "custom_jvp_call": ("jvp_jaxpr_fun",),
    "custom_vjp_call": ("fwd_jaxpr_thunk", "bwd", "out_trees"),
    "custom_vmap_call": ("rule",),
    "checkpoint": ("policy",),
    "remat": ("policy",),
    "remat2": ("policy",),
}
_CALLBACKS = ("pure_callback", "io_callback")
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{4,}")
_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented))
_BUILT_IN = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
    types.ClassMethodDescriptorType,
    np.ufunc,
)
# Of a class: what says nothing of its content, or differs between processes.
_NO_CONTENT = (
    "__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "_abc_impl",
    "__abstractmethods__",
)  # fmt: skip
_GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_ATTRIBUTE = ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "IMPORT_FROM")
_GRADLAB = str(Path(__file__).resolve().parent) + os.sep
_LIBRARIES = tuple(
    str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "purelib", "platlib")
)


class Unknown(ValueError):
    """Something that a program holds and whose content cannot be read.

    Attributes:
        where: which parameter of which primitive holds it.
    """

    where = ""


class Identity:
    """Digests of values, programs and Python functions by what they hold.

    Args:
        version: the user's name for the Python code that the program calls back. With it none of
            that code is looked at; without it, what cannot be read raises `Unknown`.
        package: an installed package whose code is read all the same. Of the others the name and
            the version say what they are.
        lenient: whether a value whose content cannot be read counts by the name of its type.

    >>> Identity()((1.0, np.arange(3))) == Identity()((1.0, np.arange(3)))
    True
    >>> Identity()(1.0) == Identity()(1)
    False
    """

    def __init__(
        self, version: str | None = None, package: str = "", lenient: bool = False
    ) -> None:
        self.version = version
        self.package = package
        self.lenient = lenient
        # Each keeps its object beside the answer, so that no id() is used twice.
        self._contents: dict[int, tuple[Any, bytes]] = {}
        self._numbers: dict[int, tuple[Any, int]] = {}

    def __call__(self, value: Any) -> bytes:
        """The digest of a value; raises `Unknown` for one whose content cannot be read."""
        if type(value) in _PLAIN:
            return _join(type(value).__name__, repr(value))
        if isinstance(value, np.dtype):
            return _join("dtype", repr(value))
        if type(value) in (tuple, frozenset):
            # By content: whether two equal constants are one object follows from the compiler.
            return self._read(value)
        program = _is_jaxpr(value)
        if program or isinstance(value, jax.Array | np.ndarray | np.generic):
            # By content: whether two equal programs are one object follows from JAX's caches.
            if id(value) not in self._contents:
                digest = self._program(value) if program else self._array(value)
                self._contents[id(value)] = value, digest
            return self._contents[id(value)][1]
        if id(value) in self._numbers:
            # Where it stood before, as in a pickle: functions may go around in circles.
            return _join("again", self._numbers[id(value)][1])
        self._numbers[id(value)] = value, len(self._numbers)
        try:
            return self._read(value)
        except RecursionError:
            raise Unknown(f"{_name(type(value))} is nested too deep") from None
        except Unknown:
            if not self.lenient:
                raise
            return _join("unreadable", _name(type(value)))

    def _alone(self, value: Any) -> bytes:
        """The digest of a value as if none had been read before it."""
        before, self._numbers = self._numbers, {}
        try:
            return self(value)
        finally:
            self._numbers = before

    def _program(self, closed_jaxpr: Any) -> bytes:
        """The digest of a (closed) jaxpr, with every constant and array that it holds."""
        jaxpr = getattr(closed_jaxpr, "jaxpr", closed_jaxpr)
        numbers: dict[Any, int] = {}

        def atom(value: Any) -> bytes:
            if hasattr(value, "val"):  # a literal
                return _join("literal", repr(value.aval), self._alone(value.val))
            number = numbers.setdefault(value, len(numbers))
            return _join("variable", number, repr(value.aval))

        return _join(
            "program",
            *map(self._alone, getattr(closed_jaxpr, "consts", ())),
            "variables",
            *map(atom, (*jaxpr.constvars, *jaxpr.invars)),
            "equations",
            *(
                _join(
                    equation.primitive.name,
                    *map(atom, equation.invars),
                    "params",
                    *self._params(equation.primitive.name, equation.params),
                    "results",
                    *map(atom, equation.outvars),
                )
                for equation in jaxpr.eqns
            ),
            "results",
            *map(atom, jaxpr.outvars),
        )

    def _params(self, primitive: str, params: Mapping[str, Any]) -> Iterable[bytes]:
        if primitive in _PRINT:
            return
        for name, value in sorted(params.items()):
            if name in _RULES.get(primitive, ()):
                continue
            if self.version is not None and primitive in _CALLBACKS and name == "callback":
                continue
            try:
                yield _join(name, self._alone(value))
            except Unknown as error:
                error.where = error.where or f"the {name} of {primitive}"
                if self.version is None:
                    raise

    def _read(self, value: Any) -> bytes:
        for kind, read in _READERS:
            if isinstance(value, kind):
                return read(self, value)
        if callable(inner := getattr(value, "__wrapped__", None)):  # lru_cache, jax.jit
            # The rules of custom_jvp and custom_vjp decide gradients.
            rules = [getattr(value, name, None) for name in ("jvp", "fwd", "bwd")]
            return _join(_name(type(value)), self(inner), *map(self, rules))
        return self._object(value)

    def _is_installed(self, module: str, file: str) -> bool:
        """Whether a name and a version say what the code of a file is."""
        if os.path.abspath(file).startswith(_GRADLAB):
            return True
        return _in_library(file) and module.partition(".")[0] != self.package

    def _is_users(self, value: Any) -> bool:
        """Whether a class or a module is written by the user."""
        module = value if isinstance(value, types.ModuleType) else sys.modules.get(value.__module__)
        name = getattr(module, "__name__", "")
        return name != "builtins" and not self._is_installed(name, _file(module))

    def _kind(self, value: Any) -> bytes:
        """What the type of a value is: its name, and for a user's type its code too."""
        kind = type(value)
        return self(kind) if self._is_users(kind) else _name(kind).encode()

    def _array(self, value: Any) -> bytes:
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            return _join("key", str(value.dtype), self(jax.random.key_data(value)))
        plain = np.asarray(value)
        if plain.dtype.hasobject:
            return _join("objects", repr(plain.shape), self(plain.ravel().tolist()))
        contiguous = np.ascontiguousarray(plain).reshape(-1).view(np.uint8)
        return _join("array", str(plain.dtype), repr(plain.shape), contiguous.data)

    def _mapping(self, value: Mapping[Any, Any]) -> bytes:
        items = (self(each) for item in value.items() for each in item)
        return _join(self._kind(value), *items)

    def _sequence(self, value: Iterable[Any]) -> bytes:
        return _join(self._kind(value), *map(self, value))

    def _set(self, value: Iterable[Any]) -> bytes:
        # A set has another order in each process.
        return _join(self._kind(value), *sorted(map(self._alone, value)))

    def _enum(self, value: enum.Enum) -> bytes:
        return _join("enum", self._kind(value), value.name, self(value.value))

    def _function(self, value: types.FunctionType) -> bytes:
        # Not value.__module__, which functools.wraps copies from another function.
        module = str(value.__globals__.get("__name__", ""))
        cells: dict[str, Any] = {}
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # a cell that holds nothing yet
                cells[name] = cell.cell_contents
        if self._is_installed(module, value.__code__.co_filename):
            code = _join(_name(value), _version(module))
        else:
            code = self._code(value.__code__, value.__globals__, cells)
        rest = value.__defaults__, value.__kwdefaults__, vars(value)
        return _join("function", code, self(cells), self(rest))

    def _code(
        self, code: types.CodeType, names: Mapping[str, Any], cells: Mapping[str, Any]
    ) -> bytes:
        """A function's instructions and constants, and what its names stand for.

        Offsets of constants and names are left out: a docstring moves them.
        """
        body, modules, attributes = [], dict[str, Any](), set[str]()
        for part in _code_objects(code):
            body.append(_join("arguments", *_arguments(part)))
            before: list[Any] = []
            for line in dis.get_instructions(part):
                if line.opname == "EXTENDED_ARG":
                    continue
                body.append(self._instruction(line))
                if line.opname == "IMPORT_NAME":
                    level, names_from = before[-2:]
                    module = self._import(line.argval, level, names)
                    modules[f"import {line.argval}"] = module
                    for submodule in names_from or ():
                        if not hasattr(module, submodule):  # it is imported as the code runs
                            self._import(f"{line.argval}.{submodule}".lstrip("."), level, names)
                elif line.opname in _GLOBAL and line.argval in names:
                    modules[line.argval] = names[line.argval]
                elif line.opname in _ATTRIBUTE:
                    attributes.add(line.argval)
                before.append(line.argval)
        # A module in the closure is read as a global one is.
        modules |= {f"free {n}": v for n, v in cells.items() if isinstance(v, types.ModuleType)}
        digests = (
            _join(name, self._uses(value, attributes, set()))
            for name, value in sorted(modules.items())
        )
        return _join("code", *body, *digests)

    def _instruction(self, line: dis.Instruction) -> bytes:
        if isinstance(line.argval, types.CodeType):
            return _join(line.opname, "code")  # which _code_objects gives on its own
        if line.opcode in dis.hasconst:
            return _join(line.opname, self(line.argval))
        by_name = line.opcode in dis.hasname or line.opcode in dis.hasfree
        return _join(line.opname, line.argval if by_name else line.arg)

    def _uses(self, value: Any, attributes: set[str], outer: set[int]) -> bytes:
        """What code takes from a name: of a user's module the attributes that it mentions."""
        if not isinstance(value, types.ModuleType) or not self._is_users(value):
            return self(value)
        if id(value) in outer:
            return b"again"
        outer = outer | {id(value)}
        names = sorted(attributes & vars(value).keys())
        return _join(
            "module", *(_join(a, self._uses(vars(value)[a], attributes, outer)) for a in names)
        )

    def _import(self, name: str, level: int, names: Mapping[str, Any]) -> Any:
        """The module that `import name` gives inside of a function; its name if installed."""
        try:
            name = importlib.util.resolve_name("." * level + name, names.get("__package__"))
            if name in sys.modules:
                return sys.modules[name]
            spec = importlib.util.find_spec(name)
        except ImportError:
            return None
        # An installed package may be slow to import, and the code may never get there.
        if spec is None or self._is_installed(name, spec.origin or "<frozen>"):
            return name
        return importlib.import_module(name)

    def _class(self, value: type) -> bytes:
        if not self._is_users(value):
            return _join("class", _name(value), _version(value.__module__))
        methods = {
            name: part
            for name, part in vars(value).items()
            if name not in _NO_CONTENT
            and not isinstance(part, types.GetSetDescriptorType | types.MemberDescriptorType)
            and not name.startswith(("__annotate", "__static_attributes__", "__firstlineno__"))
        }
        # Without the module's name: a script is __main__ in one process and not in another.
        return _join("class", value.__qualname__, *map(self, value.__bases__), self(methods))

    def _partial(self, value: Any) -> bytes:
        return _join("partial", self(value.func), self(value.args), self(value.keywords))

    def _method(self, value: types.MethodType) -> bytes:
        return _join("method", self(value.__func__), self(value.__self__))

    def _built_in(self, value: Any) -> bytes:
        owner = getattr(value, "__self__", None)
        bound = owner is not None and not isinstance(owner, types.ModuleType)
        name = getattr(value, "__qualname__", None) or value.__name__
        module = getattr(value, "__module__", None) or ""
        return _join("built-in", name, module, self(owner) if bound else b"")

    def _tree(self, value: Any) -> bytes:
        try:
            return _join("tree", self(jax.tree.unflatten(value, list(range(value.num_leaves)))))
        except (TypeError, ValueError):
            return _join("tree", _repr_of(value))

    def _object(self, value: Any) -> bytes:
        kind = type(value)
        if kind.__module__.partition(".")[0] in ("jax", "jaxlib"):
            # JAX's own objects remember hashes, which differ between processes.
            if dataclasses.is_dataclass(value):
                fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
                return _join(_name(kind), self(fields))
            return _join(_name(kind), _repr_of(value))
        if _name(kind) == "flax.ids.FlaxId":
            return _join("id")  # a counter over the whole process
        try:
            parts = value.__reduce_ex__(4)  # what pickle would write
        except Exception as error:
            raise Unknown(f"{_name(kind)} ({error})") from None
        if isinstance(parts, str):
            return _join("global", parts, self._kind(value))
        # The items of a list or a dict come as iterators.
        tail = [list(part) if part is not None else None for part in parts[3:5]]
        return _join("object", self(kind), *map(self, parts[:3]), self(tail))


_READERS: tuple[tuple[Any, Callable[[Identity, Any], bytes]], ...] = (
    (enum.Enum, Identity._enum),
    (list | tuple, Identity._sequence),
    (set | frozenset, Identity._set),
    (dict | types.MappingProxyType, Identity._mapping),
    (types.FunctionType, Identity._function),
    (types.MethodType, Identity._method),
    (functools.partial, Identity._partial),
    (_BUILT_IN, Identity._built_in),
    (staticmethod | classmethod, lambda read, value: read(value.__func__)),
    (property, lambda read, value: read((value.fget, value.fset, value.fdel))),
    (functools.cached_property, lambda read, value: read(value.func)),
    (types.ModuleType, lambda _, value: _join("module", value.__name__, _version(value.__name__))),
    (type, Identity._class),
    (types.CodeType, lambda read, value: read._code(value, {}, {})),
    (jax.tree_util.PyTreeDef, Identity._tree),
)


def of_function(function: Callable[..., Any], version: str | None = None) -> str:
    """The digest of a function's code and of what it reaches, 16 hexadecimal digits.

    With a version, a value whose content cannot be read counts by the name of its type; everything
    else is read as without one. Otherwise it raises `Unknown`.

    >>> first, second = (eval(f"lambda x: x + {i}", {"__name__": "lab"}) for i in (1, 2))
    >>> of_function(first) == of_function(second)
    False
    """
    # A plain function's __globals__ say where it is written; functools.wraps copies __module__.
    names = getattr(function, "__globals__", None) or {"__name__": function.__module__}
    package = str(names.get("__name__", "")).partition(".")[0]
    content = Identity(version, package, lenient=version is not None)(function)
    return _join(repr(version), content).hex()[:16]


def _join(*parts: Any) -> bytes:
    """One digest of texts, numbers and digests, each with its length in front."""
    digest = hashlib.sha256()
    for part in parts:
        content = part if isinstance(part, bytes | memoryview) else str(part).encode()
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.digest()


def _is_jaxpr(value: Any) -> bool:
    ours = type(value).__module__.startswith("jax")
    return ours and hasattr(getattr(value, "jaxpr", value), "eqns")


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"


def _code_objects(code: types.CodeType) -> Iterator[types.CodeType]:
    """A function's code and that of every function inside of it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _code_objects(constant)


def _arguments(code: types.CodeType) -> tuple[Any, ...]:
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
    return *counts, *code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def _repr_of(value: Any) -> str:
    text = repr(value)
    if _ADDRESS.search(text):
        raise Unknown(f"{_name(type(value))}, {text[:80]}")
    return text


def _file(module: Any) -> str:
    try:
        return inspect.getfile(module)
    except TypeError:  # compiled into the interpreter, or a notebook's __main__
        return "" if getattr(module, "__name__", "__main__") == "__main__" else "<frozen>"


@functools.cache
def _in_library(file: str) -> bool:
    """Whether code is installed, so that a name and a version say what it is."""
    return file.startswith("<frozen") or str(Path(file).resolve()).startswith(_LIBRARIES)


def _version(module: str | None) -> str:
    name = (module or "").partition(".")[0]
    top = sys.modules.get(name)
    version = getattr(top, "__version__", "")
    return version if isinstance(version, str) else ""
