"""The digest of a user's function: any edit of what it reaches changes it, nothing else does.

Each case is a package `lab` of a few files with the function `lab.cells.mine`, and edits.
"""

import contextlib
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gradlab._identity import Unknown, of_function

# name -> files (the first is lab/cells.py) and edits "old -> new", each once in one of the files.
CASES = {
    "body": (["def mine(x):\n    return 0.9 * x"], ["0.9 -> 0.1", "* x -> + x"]),
    "names of arguments": (["def mine(x, gain=1):\n    return x"], ["gain -> scale"]),
    "kind of arguments": (["def mine(x, gain=1):\n    return x"], ["x, gain -> x, *, gain"]),
    "default": (["def mine(x, y=0.9, *, z=0.8):\n    return x"], ["0.9 -> 0.1", "0.8 -> 0.1"]),
    "helper": (["def f(x):\n    return 0.9 * x\ndef mine(x):\n    return f(x)"], ["0.9 -> 0.1"]),
    "nested function": (
        ["def mine(x):\n    def f(y):\n        return 0.9 * y\n    return f(x)"],
        ["0.9 -> 0.1"],
    ),
    "comprehension": (["A = 0.9\ndef mine(x):\n    return [A * y for y in x]"], ["0.9 -> 0.1"]),
    "lambda": (["f = lambda x: 0.9 * x\ndef mine(x):\n    return f(x)"], ["0.9 -> 0.1"]),
    "default of a nested function": (
        ["A = 0.9\ndef mine(x):\n    def f(y=A):\n        return y\n    return f()"],
        ["0.9 -> 0.1"],
    ),
    "constants": (
        ["A, B = 0.9, (1, [2, {'c': 3}])\ndef mine(x):\n    return A, B"],
        ["0.9 -> 0.1", "'c': 3 -> 'c': 4", "'c' -> 'd'"],
    ),
    "array": (["import numpy as np\nA = np.arange(3)\ndef mine(x):\n    return A"], ["3 -> 4"]),
    "jax array": (
        ["import jax.numpy as jnp\nA = jnp.array([0.9])\ndef mine(x):\n    return A"],
        ["0.9 -> 0.1"],
    ),
    "dict of functions": (
        ["def f(x):\n    return 0.9\nTABLE = {'f': f, 'g': lambda x: 0.8}\n"
         "def mine(x):\n    return TABLE['f'](x)"],
        ["0.9 -> 0.1", "0.8 -> 0.1"],
    ),
    "closure": (
        ["def make(a):\n    def mine(x):\n        return a * x\n    return mine\nmine = make(0.9)"],
        ["0.9 -> 0.1"],
    ),
    "closure over a function": (
        ["def f(x):\n    return 0.9\ndef make(g):\n    def mine(x):\n        return g(x)\n"
         "    return mine\nmine = make(f)"],
        ["0.9 -> 0.1"],
    ),
    "closure over a module": (
        ["from lab import helpers\ndef make(m):\n    def mine(x):\n        return m.f(x)\n"
         "    return mine\nmine = make(helpers)",
         "def f(x):\n    return 0.9"],
        ["0.9 -> 0.1"],
    ),
    "class": (
        ["class Base:\n    B = 0.8\nclass A(Base):\n    C = 0.7\n    def f(self):\n"
         "        return 0.9\n    @property\n    def p(self):\n        return 0.6\n"
         "    @staticmethod\n    def s():\n        return 0.5\n"
         "def mine(x):\n    return A().f()"],
        ["0.9 -> 0.1", "0.8 -> 0.1", "0.7 -> 0.1", "0.6 -> 0.1", "0.5 -> 0.1"],
    ),
    "cached property": (
        ["import functools\nclass A:\n    @functools.cached_property\n    def p(self):\n"
         "        return 0.9\nA0 = A()\ndef mine(x):\n    return A0.p"],
        ["0.9 -> 0.1"],
    ),
    "object with __call__": (
        ["class A:\n    def __init__(self, a):\n        self.a = a\n    def __call__(self, x):\n"
         "        return 0.9 * self.a\nf = A(0.8)\ndef mine(x):\n    return f(x)"],
        ["0.9 -> 0.1", "0.8 -> 0.1"],
    ),
    "bound method": (
        ["class A:\n    a = 0.8\n    def f(self, x):\n        return 0.9\nf = A().f\n"
         "def mine(x):\n    return f(x)"],
        ["0.9 -> 0.1", "0.8 -> 0.1"],
    ),
    "slots": (
        ["class A:\n    __slots__ = ('a',)\na = A()\na.a = 0.9\ndef mine(x):\n    return a.a"],
        ["0.9 -> 0.1"],
    ),
    "dataclass": (
        ["import dataclasses\n@dataclasses.dataclass(frozen=True)\nclass A:\n    a: float = 0.9\n"
         "    def f(self):\n        return 0.8\n"
         "a = A()\nb = A(0.7)\ndef mine(x):\n    return a.a, b, A.f"],
        ["0.9 -> 0.1", "0.8 -> 0.1", "0.7 -> 0.1"],
    ),
    "named tuple": (
        ["from typing import NamedTuple\nclass A(NamedTuple):\n    a: float\n    b: float = 0.8\n"
         "    def f(self):\n        return 0.9\na = A(0.7)\ndef mine(x):\n    return a.f()"],
        ["0.9 -> 0.1", "0.8 -> 0.1", "0.7 -> 0.1"],
    ),
    "subclass of dict": (
        ["class D(dict):\n    def f(self):\n        return 0.9\nd = D(a=0.8)\n"
         "def mine(x):\n    return d.f()"],
        ["0.9 -> 0.1", "0.8 -> 0.1"],
    ),
    "enum": (
        ["import enum\nclass E(enum.Enum):\n    A = 0.9\n    def f(self):\n        return 0.8\n"
         "e = E.A\ndef mine(x):\n    return e.value, e.f()"],
        ["0.9 -> 0.1", "0.8 -> 0.1"],
    ),
    "partial": (
        ["import functools\ndef f(a, x):\n    return 0.8\ng = functools.partial(f, 0.9)\n"
         "def mine(x):\n    return g(x)"],
        ["0.9 -> 0.1", "0.8 -> 0.1"],
    ),
    "lru_cache": (
        ["import functools\n@functools.lru_cache\ndef f(x):\n    return 0.9\n"
         "def mine(x):\n    return f(x)"],
        ["0.9 -> 0.1"],
    ),
    "wraps of gradlab's own": (
        ["import functools\nimport gradlab as gl\n@functools.wraps(gl.cells.lstm)\n"
         "def mine(*args, **kwargs):\n    return 0.9"],
        ["0.9 -> 0.1"],
    ),
    "jitted function": (
        ["import jax\n@jax.jit\ndef f(x):\n    return 0.9 * x\ndef mine(x):\n    return f(x)"],
        ["0.9 -> 0.1"],
    ),
    "jitted itself": (["import jax\n@jax.jit\ndef mine(x):\n    return 0.9 * x"], ["0.9 -> 0.1"]),
    "vmap": (
        ["import jax\nf = jax.vmap(lambda x: 0.9 * x)\ndef mine(x):\n    return f(x)"],
        ["0.9 -> 0.1"],
    ),
    "custom_jvp": (
        ["import jax\n@jax.custom_jvp\ndef f(x):\n    return 0.9 * x\n@f.defjvp\n"
         "def rule(p, t):\n    return f(p[0]), 0.8 * t[0]\ndef mine(x):\n    return f(x)"],
        ["0.9 -> 0.1", "0.8 -> 0.1"],
    ),
    "custom_vjp": (
        ["import jax\n@jax.custom_vjp\ndef f(x):\n    return 0.9 * x\ndef forth(x):\n"
         "    return 0.7, x\ndef back(r, t):\n    return (0.8 * t,)\nf.defvjp(forth, back)\n"
         "def mine(x):\n    return f(x)"],
        ["0.9 -> 0.1", "0.8 -> 0.1", "0.7 -> 0.1"],
    ),
    "module as name": (
        ["import lab.helpers as h\ndef mine(x):\n    return h.f(x)",
         "def f(x):\n    return 0.9\ndef other(x):\n    return 0.8"],
        ["0.9 -> 0.1"],
    ),
    "module of a package": (
        ["import lab.helpers\ndef mine(x):\n    return lab.helpers.f(x) + lab.helpers.A",
         "A = 0.8\ndef f(x):\n    return 0.9"],
        ["0.9 -> 0.1", "0.8 -> 0.1"],
    ),
    "function from a module": (
        ["from lab.helpers import f\ndef mine(x):\n    return f(x)",
         "from lab import more\ndef f(x):\n    return 0.9 + more.A",
         "A = 0.8"],
        ["0.9 -> 0.1", "0.8 -> 0.1"],
    ),
    "relative import": (
        ["from . import helpers as h\ndef mine(x):\n    return h.A",
         "A = 0.9"],
        ["0.9 -> 0.1"],
    ),
    "chain of attributes": (
        ["import lab\ndef mine(x):\n    return lab.helpers.more.A",
         "from lab import more", "A = 0.9"],
        ["0.9 -> 0.1"],
    ),
    "import inside": (
        ["def mine(x):\n    from lab.helpers import f\n    from . import more\n"
         "    return f(x) + more.A",
         "def f(x):\n    return 0.9",
         "A = 0.8"],
        ["0.9 -> 0.1", "0.8 -> 0.1"],
    ),
    "import inside as": (
        ["def mine(x):\n    import lab.helpers as h\n    return h.f(x)",
         "def f(x):\n    return 0.9"],
        ["0.9 -> 0.1"],
    ),
    "module in a local name": (
        ["import lab\ndef mine(x):\n    def f():\n        return m.A\n    m = lab.helpers\n"
         "    return f()",
         "A = 0.9"],
        ["0.9 -> 0.1"],
    ),
    "equinox module": (
        ["import equinox as eqx\nclass M(eqx.Module):\n    a: float\n    def __call__(self, x):\n"
         "        return 0.9 * x\nm = M(0.8)\ndef mine(x):\n    return m(x)"],
        ["0.9 -> 0.1", "0.8 -> 0.1"],
    ),
    "flax module": (
        ["import flax.linen as nn\nclass M(nn.Module):\n    a: float = 0.7\n    @nn.compact\n"
         "    def __call__(self, x):\n        return 0.9 * nn.Dense(3)(x)\nm = M(0.8)\n"
         "def mine(x):\n    return m.apply({}, x)"],
        ["0.9 -> 0.1", "0.8 -> 0.1", "0.7 -> 0.1", "3 -> 4"],
    ),
    "recursion": (
        ["def mine(x):\n    return f(x)\ndef f(x):\n    return mine(0.9)"],
        ["0.9 -> 0.1"],
    ),
}  # fmt: skip
FILES = ("cells.py", "helpers.py", "more.py")


def _of_lab():
    return [name for name in sys.modules if name.partition(".")[0] == "lab"]


@contextlib.contextmanager
def package(folder, sources):
    """The package lab from these sources, imported afresh."""
    (folder / "lab").mkdir(parents=True)
    for name, source in zip(FILES, [*sources, "", ""], strict=False):
        (folder / "lab" / name).write_text(source + "\n")
    (folder / "lab" / "__init__.py").write_text("")
    # Another test may have left a module of that name.
    before = {name: sys.modules.pop(name) for name in _of_lab()}
    sys.path.insert(0, str(folder))
    try:
        importlib.invalidate_caches()
        importlib.import_module("lab.helpers")
        yield importlib.import_module("lab.cells")
    finally:
        sys.path.remove(str(folder))
        for name in _of_lab():
            del sys.modules[name]
        sys.modules.update(before)


def digest(folder, sources, version=None):
    with package(folder, sources) as cells:
        return of_function(cells.mine, version)


def edited(sources, edit):
    old, _, new = edit.partition(" -> ")
    assert sum(source.count(old) for source in sources) >= 1, edit
    return [source.replace(old, new) for source in sources]


def noisy(source):
    """The same program with comments, blank lines and another docstring."""
    source = re.sub(r"^( *)(def .*:)$", r"\1# Why.\n\n\1\2\n\1    # How.\n", source, flags=re.M)
    return f'"""Another text."""\n\n\n{source}  # The end.\n'


@pytest.mark.parametrize("name", CASES)
def test_every_edit_is_seen_and_no_comment(name, tmp_path):
    sources, edits = CASES[name]
    found = digest(tmp_path / "before", sources)
    assert re.fullmatch("[0-9a-f]{16}", found)
    assert digest(tmp_path / "moved", list(map(noisy, sources))) == found
    others = [digest(tmp_path / str(i), edited(sources, edit)) for i, edit in enumerate(edits)]
    assert len({found, *others}) == 1 + len(edits)


def test_what_a_function_does_not_reach_is_not_seen(tmp_path):
    sources = ["import lab.helpers as h\ndef mine(x):\n    return h.f(x)",
               "def f(x):\n    return 0.9\ndef other(x):\n    return 0.8"]  # fmt: skip
    assert digest(tmp_path / "a", sources) == digest(tmp_path / "b", edited(sources, "0.8 -> 0.1"))


def test_an_edit_of_a_docstring_is_not_seen(tmp_path):
    source = 'def mine(x):\n    """One text."""\n    return 0.9 * x'
    assert digest(tmp_path / "a", [source]) == digest(
        tmp_path / "b", [source.replace("One", "Another")]
    )
    plain = source.replace('    """One text."""\n', "")
    assert digest(tmp_path / "c", [plain]) == digest(tmp_path / "d", [source])


def everything(folder):
    return {name: digest(Path(folder) / str(i), sources)
            for i, (name, (sources, _)) in enumerate(CASES.items())}  # fmt: skip


def test_processes_agree(tmp_path):
    code = "import json, sys, test_fingerprint as t; print(json.dumps(t.everything(sys.argv[1])))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "there")],
        cwd=Path(__file__).parent, capture_output=True, text=True,
        env={**os.environ, "JAX_ENABLE_X64": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == everything(tmp_path / "here")


SCRIPT = """
A = (0.9, 1)
class State(tuple):
    def f(self):
        return 0.8
def mine(x):
    return State(A).f(), A
"""


@pytest.mark.parametrize("name", ["__main__", "my_cells", "lab.cells"])
def test_a_notebook_and_a_module_agree(name):
    def run(source, filename, name):
        names = {"__name__": name}
        exec(compile(source, filename, "exec"), names)
        return of_function(names["mine"])

    notebook = run(SCRIPT, "<ipython-input-1-abc>", "__main__")
    assert run(SCRIPT, "/home/me/my_cells.py", name) == notebook
    for edit in ("0.9 -> 0.1", "0.8 -> 0.1"):
        assert run(*edited([SCRIPT], edit), "/home/me/my_cells.py", name) != notebook


def test_code_in_an_installed_package_is_read_and_its_neighbours_by_version(tmp_path, monkeypatch):
    from gradlab import _identity

    sources = ["from lab import helpers as h\nimport other\n"
               "def mine(x):\n    return 0.9 + h.A + other.f(x)", "A = 0.8"]  # fmt: skip
    monkeypatch.setattr(_identity, "_LIBRARIES", (str(tmp_path.resolve()),))
    _identity._in_library.cache_clear()
    found = []
    try:
        for i, (edit, body, version) in enumerate([
            ("0.9 -> 0.9", 1, "1"), ("0.9 -> 0.1", 1, "1"), ("0.8 -> 0.1", 1, "1"),
            ("0.9 -> 0.9", 2, "1"), ("0.9 -> 0.9", 2, "2"),
        ]):  # fmt: skip
            folder = tmp_path / str(i)
            folder.mkdir()
            (folder / "other.py").write_text(
                f"__version__ = '{version}'\ndef f(x):\n    return {body}\n"
            )
            found.append(digest(folder, edited(sources, edit)))
            del sys.modules["other"]
    finally:
        _identity._in_library.cache_clear()
    assert found[3] == found[0]  # another body under the same version
    assert len(set(found)) == 4


def test_what_cannot_be_read_needs_a_version(tmp_path):
    source = "import threading\nLOCK = threading.Lock()\ndef mine(x):\n    return LOCK"
    with pytest.raises(Unknown):
        digest(tmp_path / "a", [source])
    found = {digest(tmp_path / version, [source], version) for version in "12"}
    assert len(found) == 2
    assert digest(tmp_path / "again", [source], "1") in found
    # A version stands for what cannot be read alone: an edit of the code is seen all the same.
    assert digest(tmp_path / "edited", [source + ", x"], "1") not in found


def test_a_class_is_read_as_a_function_is(tmp_path):
    source = "class mine:\n    def __init__(self, x):\n        self.x = 0.9 * x"
    assert digest(tmp_path / "a", [source]) != digest(
        tmp_path / "b", edited([source], "0.9 -> 0.1")
    )
