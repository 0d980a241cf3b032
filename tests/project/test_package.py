"""Importing gradlab is light and changes nothing; the packaging files agree with each other."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import gradlab as gl

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
# What `make docs` and `make release` install besides.
MORE_PINS = (ROOT / "docs/requirements.txt").read_text(encoding="utf-8").splitlines()
PIN = re.compile(r"[A-Za-z0-9_.-]+==[0-9][0-9A-Za-z.]*")


def run(code: str, **environ: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environ},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_leaves_out_what_tracing_does_not_need():
    loaded = run("import sys, gradlab; print(*{m.partition('.')[0] for m in sys.modules})").split()
    heavy = "pandas pyarrow matplotlib seaborn optax pooch pydantic rich"
    light = "humanize platformdirs psutil safetensors tomli_w"
    assert not {*heavy.split(), *light.split()} & {*loaded}


def test_import_starts_no_device():
    # JAX raises on this platform name as soon as it looks for a device.
    run("import gradlab", JAX_PLATFORMS="no_such_platform")


def test_import_leaves_jax_config_alone():
    run(
        "import jax; before = dict(jax.config.values)\n"
        "import gradlab; assert dict(jax.config.values) == before"
    )


@pytest.mark.parametrize("name", ["trace", "cells", "initializers", "frame", "read"])
def test_contract_names(name):
    assert name in gl.__all__
    assert name in dir(gl)
    assert getattr(gl, name) is not None


def test_every_public_name_exists():
    assert all(hasattr(gl, name) for name in gl.__all__)


@pytest.mark.parametrize("pins", [PINS, MORE_PINS], ids=["pinned", "docs"])
def test_pins_are_bare_and_sorted(pins):
    assert [line for line in pins if not PIN.fullmatch(line)] == []
    assert sorted(pins, key=str.lower) == pins


def test_pins_cover_what_the_project_declares():
    extras = PROJECT["optional-dependencies"]
    documents = extras["docs"] + extras["release"]
    others = [line for name in extras for line in extras[name] if line not in documents]
    check_pins(PINS, [*PROJECT["dependencies"], *others])
    check_pins([*PINS, *MORE_PINS], documents)


def test_a_package_is_pinned_once():
    names = [canonicalize_name(line.partition("==")[0]) for line in (*PINS, *MORE_PINS)]
    assert len(names) == len({*names})


def check_pins(lines, declared):
    pins = {canonicalize_name(n): v for n, _, v in (line.partition("==") for line in lines)}
    for requirement in map(Requirement, declared):
        if requirement.name == "gradlab":  # an extra that takes in another one
            continue
        version = pins.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} has no pin"
        assert requirement.specifier.contains(version), f"{requirement} excludes {version}"
