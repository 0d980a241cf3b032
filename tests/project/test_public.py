"""Tab completion shows public names only: `dir()` of every public module is its `__all__`."""

import importlib
import types

import pytest

import gradlab as gl

VALUES = [getattr(gl, name) for name in gl.__all__]
MODULES = [value.__name__ for value in VALUES if isinstance(value, types.ModuleType)]
MODULES += [f"gradlab.{name}" for name in ("tracing", "checking", "report", "grid")]
MODULES += ["gradlab.training.recorders"]


def test_the_modules_are_found():
    assert {"gradlab.figures", "gradlab.frames", "gradlab.cells"} <= {*MODULES}


@pytest.mark.parametrize("name", MODULES)
def test_dir_lists_the_public_names_and_they_exist(name):
    module = importlib.import_module(name)
    assert dir(module) == sorted(module.__all__) and len({*dir(module)}) == len(dir(module))
    assert [public for public in dir(module) if not hasattr(module, public)] == []
    assert [public for public in dir(module) if public.startswith("_")] == []


def test_public_names_of_the_package():
    assert dir(gl) == sorted(gl.__all__)
