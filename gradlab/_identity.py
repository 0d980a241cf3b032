"""What a program is, as a digest that is the same in every process.

A jaxpr's text leaves out the arrays that nested programs hold, rounds its constants and names
Python functions by their address. `Identity` goes through the program itself.
"""

from __future__ import annotations

import dataclasses
import dis
import enum
import functools
import hashlib
import importlib.metadata
import inspect
import re
import sys
import sysconfig
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# These only print. What they are given changes no number of the program.
_PRINT = ("debug_print", "debug_callback")
# Rules for transformations that have been made by now: a program that runs calls none of them.
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

    >>> Identity()((1.0, np.arange(3))) == Identity()((1.0, np.arange(3)))
    True
    >>> Identity()(1.0) == Identity()(1)
    False
    """

    def __init__(self, version: str | None = None, package: str = "") -> None:
        self.version = version
        self.package = package
        # Each keeps its object beside the answer, so that no id() is used twice.
        self._contents: dict[int, tuple[Any, bytes]] = {}
        self._numbers: dict[int, tuple[Any, int]] = {}

    def __call__(self, value: Any) -> bytes:
        """The digest of a value; raises `Unknown` for one whose content cannot be read."""
        if isinstance(value, enum.Enum):
            return _join("enum", _name(type(value)), value.name)
        if type(value) in _PLAIN:
            return _join(type(value).__name__, repr(value))
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

    def _alone(self, value: Any) -> bytes:
        """The digest of a value as if none had been read before it."""
        before, self._numbers = self._numbers, {}
        try:
            return self(value)
        finally:
            self._numbers = before

    def _program(self, closed: Any) -> bytes:
        """The digest of a (closed) jaxpr, with every constant and array that it holds."""
        jaxpr = getattr(closed, "jaxpr", closed)
        numbers: dict[Any, int] = {}

        def atom(value: Any) -> bytes:
            if hasattr(value, "val"):  # a literal
                return _join("literal", repr(value.aval), self._alone(value.val))
            number = numbers.setdefault(value, len(numbers))
            return _join("variable", number, repr(value.aval))

        return _join(
            "program",
            *map(self._alone, getattr(closed, "consts", ())),
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

    def _is_installed(self, module: Any, file: str) -> bool:
        name = module if isinstance(module, str) else getattr(module, "__name__", "")
        top = name.partition(".")[0]
        return top == "gradlab" or (_in_library(file) and top != self.package)

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
        return _join(_name(type(value)), *items)

    def _sequence(self, value: Iterable[Any]) -> bytes:
        return _join(_name(type(value)), *map(self, value))

    def _set(self, value: Iterable[Any]) -> bytes:
        # A set has another order in each process.
        return _join(_name(type(value)), *sorted(map(self._alone, value)))

    def _function(self, value: types.FunctionType) -> bytes:
        if self._is_installed(value.__module__, value.__code__.co_filename):
            code = _join(_name(value), _version(value.__module__))
        else:
            code = self._code(value.__code__, value.__globals__)
        cells = []
        for cell in value.__closure__ or ():
            try:
                cells.append(self(cell.cell_contents))
            except ValueError as error:
                if isinstance(error, Unknown):
                    raise
                cells.append(b"empty")
        rest = value.__defaults__, value.__kwdefaults__, vars(value)
        return _join("function", code, *cells, self(rest))

    def _code(self, code: types.CodeType, names: Mapping[str, Any]) -> bytes:
        """A function's instructions and constants, and what its global names stand for."""
        found = []
        for constant in code.co_consts:
            nested = isinstance(constant, types.CodeType)
            found.append(self._code(constant, names) if nested else self(constant))
        attributes, loaded = set(), set()
        for line in dis.get_instructions(code):
            if line.opname in ("LOAD_GLOBAL", "LOAD_NAME") and line.argval in names:
                loaded.add(line.argval)
            elif line.opname in ("LOAD_ATTR", "LOAD_METHOD"):
                attributes.add(line.argval)
        for name in sorted(loaded):
            value = names[name]
            if isinstance(value, types.ModuleType) and not self._is_installed(value, _file(value)):
                # The user's own module may hold data: read what the code takes from it.
                taken = sorted(a for a in attributes if a in vars(value))
                found += [_join(name, a, self(vars(value)[a])) for a in taken]
            found.append(_join(name, self(value)))
        return _join("code", code.co_code, repr(code.co_names), *found)

    def _class(self, value: type) -> bytes:
        module = sys.modules.get(value.__module__)
        if value.__module__ == "builtins" or self._is_installed(module, _file(module)):
            return _join("class", _name(value), _version(value.__module__))
        methods = {
            name: part
            for name, part in vars(value).items()
            if name not in ("__dict__", "__weakref__", "__doc__", "__module__", "__annotations__")
            and not isinstance(part, types.GetSetDescriptorType | types.MemberDescriptorType)
            and not name.startswith(("__annotate", "__static_attributes__", "__firstlineno__"))
            # Counters of abc and its like, no content of the class.
            and name not in ("_abc_impl",)
        }
        return _join("class", _name(value), *map(self, value.__bases__), self(methods))

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
            return _join("tree", _printed(value))

    def _object(self, value: Any) -> bytes:
        kind = type(value)
        if kind.__module__.partition(".")[0] in ("jax", "jaxlib"):
            # JAX's own objects remember hashes, which differ between processes.
            if dataclasses.is_dataclass(value):
                fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
                return _join(_name(kind), self(fields))
            return _join(_name(kind), _printed(value))
        try:
            parts = value.__reduce_ex__(4)  # what pickle would write
        except Exception as error:
            raise Unknown(f"{_name(kind)} ({error})") from None
        if isinstance(parts, str):
            return _join("global", parts, _name(kind))
        # The items of a list or a dict come as iterators.
        tail = [list(part) if part is not None else None for part in parts[3:5]]
        return _join("object", self(kind), *map(self, parts[:3]), self(tail))


_READERS: tuple[tuple[Any, Callable[[Identity, Any], bytes]], ...] = (
    (np.dtype, lambda _, value: _join("dtype", repr(value))),
    (list | tuple, Identity._sequence),
    (set | frozenset, Identity._set),
    (dict | types.MappingProxyType, Identity._mapping),
    (types.FunctionType, Identity._function),
    (types.MethodType, Identity._method),
    (functools.partial, Identity._partial),
    (_BUILT_IN, Identity._built_in),
    (staticmethod | classmethod, lambda read, value: read(value.__func__)),
    (property, lambda read, value: read((value.fget, value.fset, value.fdel))),
    (types.ModuleType, lambda _, value: _join("module", value.__name__, _version(value.__name__))),
    (type, Identity._class),
    (types.CodeType, lambda read, value: read._code(value, {})),
    (jax.tree_util.PyTreeDef, Identity._tree),
)


def of_function(function: Callable[..., Any], version: str | None = None) -> str:
    """The digest of a function's code and of what it reaches, 16 hexadecimal digits.

    With a version, what cannot be read is left out.

    >>> first, second = (eval(f"lambda x: x + {i}", {"__name__": "lab"}) for i in (1, 2))
    >>> of_function(first) == of_function(second)
    False
    """
    package = str(getattr(function, "__module__", "")).partition(".")[0]
    try:
        content = Identity(version, package)(function)
    except Unknown:
        if version is None:
            raise
        content = _name(function).encode()
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


def _printed(value: Any) -> str:
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
    if name == "gradlab":
        return importlib.metadata.version(name)
    top = sys.modules.get(name)
    version = getattr(top, "__version__", "")
    return version if isinstance(version, str) else ""
