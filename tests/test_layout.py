"""Imports point one way (the contracts in pyproject.toml), and one module knows JAX's internals."""

import ast
from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

ROOT = Path(__file__).parent.parent
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


def test_import_contracts(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    status = lint_imports(no_cache=True)
    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out


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
