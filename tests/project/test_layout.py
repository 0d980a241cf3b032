"""Imports point one way (the contracts in pyproject.toml), and one module knows JAX's internals."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INTERNALS = ("jax.extend", "jax._src", "jax.core", "jax.interpreters", "jaxlib")
KNOWS_INTERNALS = "gradlab/tracing/_jaxpr.py"


def modules() -> list[str]:
    return sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "gradlab").rglob("*.py"))


def mentioned(source: str) -> set[str]:
    """Every dotted name that a module imports, or reaches through an attribute of `jax`."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute):
            names.add(ast.unparse(node))
    return names


def internals(source: str) -> set[str]:
    return {n for n in mentioned(source) if any(f"{n}.".startswith(f"{i}.") for i in INTERNALS)}


def test_import_contracts():
    # In a process of its own: in this one the linter's console closes a stream that pytest holds.
    run = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    done = subprocess.run(
        [sys.executable, "-c", run], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", [m for m in modules() if m != KNOWS_INTERNALS])
def test_jax_internals_stay_in_one_module(module):
    assert not internals((ROOT / module).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "source",
    [
        "import jax.extend",
        "import jax.extend.core as core",
        "from jax import extend",
        "from jax.extend.core import Primitive",
        "import jax\njax.extend.core.Primitive",
        "from jax._src import core",
    ],
)
def test_the_check_sees_every_way_in(source):
    assert internals(source)


@pytest.mark.parametrize("source", ["import jax", "from jax import lax", "jax.corels", "x.jax"])
def test_the_check_lets_the_public_names_pass(source):
    assert not internals(source)
