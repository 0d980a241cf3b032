"""Every code block of the README runs, and the README stays short.

Python blocks run each in a fresh interpreter. Commands run in order in one folder, those of
`gradlab` in this process, as imports take seconds (tests/cli starts one of their own), except that
`make` is only asked what it would run, and a sweep other than the quick one is checked against
the command line's own help. Commands that fetch from the network are not run.
"""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import command
import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN = ("git clone ", "cd ", "pip install ", "python -m pip install ")
REPOSITORY = r"https://(?:raw\.githubusercontent|github)\.com/gradlab/gradlab/(?:blob/)?main/(.+)"
LIGHT = ("--help", "--version", "quick")


class Block(NamedTuple):
    line: int
    language: str
    text: str


BLOCKS = [Block(README.count("\n", 0, m.start()) + 1, m[1], m[2]) for m in FENCE.finditer(README)]


def run(*command: str, cwd: Path) -> str:
    # A make that runs these tests must not pass its own flags on.
    clean = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    done = subprocess.run(
        command, cwd=cwd, env=clean, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def gradlab(*arguments: str, cwd: Path) -> str:
    with contextlib.chdir(cwd):
        done = command.gradlab(*arguments)
    assert done.returncode == 0, f"{shlex.join(arguments)}\n{done.stdout}{done.stderr}"
    return done.stdout


def run_gradlab(arguments: list[str], cwd: Path) -> None:
    if not arguments or any(word in a for a in arguments for word in LIGHT):
        gradlab(*(arguments or ["--help"]), cwd=cwd)
        return
    known = gradlab(arguments[0], "--help", cwd=cwd)
    for option in (a.partition("=")[0] for a in arguments if a.startswith("--")):
        assert option in known, f"gradlab {arguments[0]} has no option {option}"
    for spec in (a for a in arguments if a.endswith(".toml")):
        assert (cwd / spec).is_file(), f"no such spec: {spec}"


def run_make(arguments: list[str], cwd: Path) -> None:
    variables = {a.partition("=")[0] for a in arguments if "=" in a}
    assigned = set(re.findall(r"^(\w+) \??=", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert variables <= assigned, f"the Makefile has no {variables - assigned}"
    for line in run("make", "--dry-run", *arguments, cwd=ROOT).splitlines():
        if line.startswith(".venv/bin/gradlab "):
            run_gradlab(shlex.split(line)[1:], cwd)


def run_command(line: str, cwd: Path) -> None:
    if line.startswith(NOT_RUN):
        return
    program, *arguments = shlex.split(line, comments=True)
    if arguments[:1] == ["init"]:
        gradlab(*arguments, cwd=cwd)
        return
    program = program.removeprefix(".venv/bin/")  # where make puts it
    assert program in ("make", "gradlab"), f"the README runs an unknown program: {program}"
    {"make": run_make, "gradlab": run_gradlab}[program](arguments, cwd)


def run_block(block: Block, cwd: Path) -> None:
    match block.language:
        case "python":
            script = cwd / f"readme_line_{block.line}.py"
            script.write_text(block.text, encoding="utf-8")
            run(sys.executable, str(script), cwd=cwd)
        case "toml":
            tomllib.loads(block.text)
        case "bash" | "sh":
            for line in block.text.replace("\\\n", " ").splitlines():
                if line.strip() and not line.lstrip().startswith("#"):
                    run_command(line.strip(), cwd)
        case other:
            pytest.fail(f"no test runs a {other or 'nameless'} block")


def test_every_code_block_runs(tmp_path):
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    assert README.count("\n```") + README.startswith("```") == 2 * len(BLOCKS)
    for block in BLOCKS:
        try:
            run_block(block, tmp_path)
        except Exception as error:
            error.add_note(f"in the block at README.md:{block.line}")
            raise


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 80


def test_trace_comes_first():
    first = next(b for b in BLOCKS if b.language == "python")
    assert re.search(r"\b(gl|gradlab)\.trace\(", first.text)
    assert first.line < 40


def test_named_targets_exist():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert set(re.findall(r"`make ([a-z-]+)", README)) <= set(targets)


def test_links_to_files_exist():
    """Links are absolute, so that they work on PyPI too; those into the repository name a file."""
    addresses = re.findall(r"\]\(([^)#\s]+)", README) + re.findall(r'src="([^"]+)"', README)
    places = [re.match(REPOSITORY, address) for address in addresses]
    files = [place[1] for place in places if place]
    pages = re.findall(r"https://gradlab\.github\.io/gradlab/(.+?)\.html", " ".join(addresses))
    assert pages and [p for p in pages if not (ROOT / "docs" / f"{p}.md").exists()] == []
    assert files and [name for name in files if not (ROOT / name).exists()] == []
