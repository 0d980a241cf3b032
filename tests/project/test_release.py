"""What a release is made of agrees: versions, package data, links, workflows, the example spec."""

import re
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet
from setuptools.command.editable_wheel import _simple_layout

import gradlab as gl
from gradlab import cli, sweeps

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT, SETUPTOOLS = PYPROJECT["project"], PYPROJECT["tool"]["setuptools"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def run(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["gradlab", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code or 0


def test_the_version_stands_in_one_place(monkeypatch, capsys):
    assert PROJECT["dynamic"] == ["version"] and "version" not in PROJECT
    assert SETUPTOOLS["dynamic"]["version"] == {"attr": "gradlab.__version__"}
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["version"]
    assert cited == gl.__version__
    assert f"\n## [{gl.__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"gradlab {gl.__version__}\n"


def test_classifiers_are_the_pythons_that_are_supported():
    named = {text.rpartition(" ")[2] for text in PROJECT["classifiers"] if ":: 3." in text}
    supported = SpecifierSet(PROJECT["requires-python"])
    assert named == {f"3.{minor}" for minor in range(30) if f"3.{minor}" in supported}


def test_the_wheel_carries_every_file_that_is_no_module():
    listed = subprocess.run(
        ["git", "ls-files", "gradlab"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    # Where the package is no checkout, all that lies there.
    paths = listed or [str(p.relative_to(ROOT)) for p in (ROOT / "gradlab").rglob("*.*")]
    data = [
        f"{package.replace('.', '/')}/{pattern}"
        for package, patterns in SETUPTOOLS["package-data"].items()
        for pattern in patterns
    ]
    others = [path for path in paths if not path.endswith((".py", ".pyc"))]
    assert others and [p for p in others if not any(fnmatch(p, pattern) for pattern in data)] == []
    assert [p for p in data if not any(fnmatch(path, p) for path in others)] == []


def test_an_editable_install_is_a_plain_path():
    """setuptools writes an import hook, which no type checker follows, unless both hold."""
    assert SETUPTOOLS["package-dir"] == {"": "."}
    packages = [
        path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for path in (ROOT / "gradlab").rglob("__init__.py")
    ]
    assert _simple_layout(packages, SETUPTOOLS["package-dir"], ROOT)


def test_init_writes_a_spec_and_keeps_what_is_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "init") == 0
    said = capsys.readouterr().out
    command = re.search(r"gradlab (sweep .*)$", said, re.MULTILINE)
    assert command and command[1].split()[1] == "sweep.toml"
    grid = sweeps.load("sweep.toml")
    assert grid.cell == ["elman", "lstm", "gru"] and grid.seed == [0, 1]
    assert run(monkeypatch, *command[1].split(), "--dry-run") == 0
    assert re.search(r"runs +96\n", capsys.readouterr().out)
    Path("sweep.toml").write_text("mine")
    assert run(monkeypatch, "init") == 1
    assert "sweep.toml exists" in capsys.readouterr().err
    assert Path("sweep.toml").read_text() == "mine"


def test_what_pypi_shows_of_the_readme_has_absolute_addresses():
    text = (ROOT / "README.md").read_text("utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"""(?:src|href)="([^"]+)""", text)
    assert [t for t in targets if not t.startswith(("https://", "#"))] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_hold_together(path):
    """The parts of a workflow name each other rightly; `make release` checks it by the schema."""
    flow = yaml.safe_load(path.read_text("utf-8"))
    assert flow["name"] == path.stem and True in flow  # YAML's `on`
    assert flow["permissions"] == {"contents": "read"}
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for job in flow["jobs"].values():
        needs = job.get("needs", [])
        assert {needs} if isinstance(needs, str) else {*needs} <= {*flow["jobs"]}
        assert job["timeout-minutes"] <= 90
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            assert re.fullmatch(r"[\w./-]+@\S+", step.get("uses", "a/b@v1"))
            assert {*re.findall(r"\bmake ([a-z-]+)", step.get("run", ""))} <= {*targets}


def test_the_workflow_of_tests_covers_the_matrix():
    flow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text("utf-8"))
    pythons = flow["jobs"]["matrix"]["strategy"]["matrix"]["python"]
    supported = SpecifierSet(PROJECT["requires-python"])
    assert pythons == [f"3.{minor}" for minor in range(30) if f"3.{minor}" in supported]


def test_only_the_job_that_publishes_has_a_token():
    flow = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text("utf-8"))
    assert flow[True] == {"push": {"tags": ["v*"]}}
    jobs = flow["jobs"]
    tokens = [name for name in jobs if "id-token" in jobs[name].get("permissions", {})]
    assert tokens == ["publish"]
    assert "password" not in str(flow)
