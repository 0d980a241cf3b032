"""To add something to gradlab takes the places that CONTRIBUTING names, and no other."""

# ruff: noqa: E501  (it quotes lines of the package)

import importlib
import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import gradlab as gl
from gradlab import cells, initializers, remedies, sweeps, tasks
from gradlab.grid import Plan
from gradlab.sweeps.gradients import rows
from gradlab.sweeps.gradients.curves import arguments, curves, draw_of, init_of, shape_of
from gradlab.sweeps.options import OWNERS
from gradlab.sweeps.training import rows as trained

ROOT = Path(__file__).parents[2]
SMALL = {"cell": "lstm", "init": "normal", "gain": 1.0, "length": 6, "hidden": 4, "inputs": 2}
TRAINED = {
    "task": "adding", "length": 4, "cell": "gru", "hidden": 3, "learning_rate": 0.1, "updates": 1,
    "evaluate_every": 1, "evaluation": 2, "batch": 2,
}  # fmt: skip
# Another value for each axis of gradients, for a cell that has it.
OTHER = {
    "cell": "gru",
    "activation": "relu",
    "init": "orthogonal",
    "gain": 0.5,
    "weights": "untied",
    "forget_bias": 0.0,
    "input": "reviews",
    "input_scale": 0.5,
    "bias_scale": 0.5,
    "length": 7,
    "hidden": 5,
    "inputs": 3,
    "batch": 2,
    "seed": 1,
}

# What CONTRIBUTING says, as edits of a copy of the package: the file, a text in it, and what is
# put behind that text.
EDITS = [
    ("cells/lazy.py", None, '''"""A cell that was added."""

from gradlab.cells.base import Cell, register_family
from gradlab.cells.elman import elman


@register_family
def lazy(inputs: int, hidden: int) -> Cell:
    """A network at a tenth of its speed."""
    cell = elman(inputs, hidden)

    def advance(params, state, drive):
        return 0.9 * state + 0.1 * cell.advance(params, state, drive)

    return cell._replace(name="lazy", advance=advance)
'''),
    ("cells/__init__.py", "from gradlab.cells.indrnn import indrnn\n",
     "from gradlab.cells.lazy import lazy as lazy\n"),
    ("initializers/twos.py", None, '''"""An initializer that was added."""

import jax.numpy as jnp

from gradlab.initializers.base import register


@register
def twos(gain=1.0):
    """Nothing but twos."""
    return lambda key, shape, dtype=jnp.float32: jnp.full(shape, 2.0, dtype) * gain / shape[1]
'''),
    ("initializers/__init__.py", "from gradlab.initializers.reservoir import echo_state, spectral_radius\n",
     "from gradlab.initializers.twos import twos as twos\n"),
    ("tasks/first.py", None, '''"""A task that was added."""

import jax
import jax.numpy as jnp

from gradlab.tasks.base import Task, register


@register
def first(length=5):
    """Say the first input."""

    def sample(key, dtype=None):
        xs = jax.random.normal(key, (length, 1), dtype)
        return xs, xs[0]

    def square(outputs, target):
        return jnp.mean((outputs - target) ** 2)

    return Task("first", length, 1, 1, False, sample, square, square, {"mean": 1.0}, 0.0)
'''),
    ("tasks/__init__.py", "from gradlab.tasks.network import ",
     None),
    ("remedies/axes.py", "from gradlab.remedies.orthogonality import orthogonality_penalty\n", '''

@register
def noise(strength: Any) -> Remedy:
    """Add noise to the gradient."""
    import optax

    return Remedy(optimizer=optax.add_noise(strength, 0.5, seed=0))
'''),
    ("frames/training.py", '    _remedy("omega", "weight of Pascanu\'s regularizer; 0 without it"),\n',
     '    _remedy("noise", "variance of noise that is added to the gradient; 0 without it"),\n'),
    ("frames/gradients.py", '    "log_gain": Column("float64", "nats", "log_norm at step 1 minus log_norm at step T"),\n',
     '    "log_top": Column("float64", "nats", "the largest log_norm"),\n'),
    ("sweeps/gradients/rows.py", '                "log_gain": log_gain,\n',
     '                "log_top": curve.max(),\n'),
    ("frames/gradients.py", '    "log_gain_median": _median("log_gain", tolerances.log_gain),\n',
     '    "log_top_median": _median("log_top", tolerances.log_gain),\n'),
    ("figures/__init__.py", '        figures[f"phase-{name}"] = lambda name=name: phase(runs, input=name)\n',
     '        figures[f"again-{name}"] = lambda name=name: phase(runs, input=name)\n'),
]  # fmt: skip

PROGRAM = """
import json, sys
from pathlib import Path
import gradlab as gl
from gradlab import frames
def save(figure, stem, formats):
    path = Path(f"{stem}.png")
    path.touch()
    return [path]
gl.figures.save = save  # only the names are looked at
small = {"length": 6, "hidden": 4, "inputs": 2, "cell": ["lazy", "elman"], "init": "twos", "gain": 0.5}
first = gl.sweep(small, sys.argv[1] + "/gradients")
runs = first.results.runs
task = {"task": "first", "length": 4, "cell": "lazy", "hidden": 3, "learning_rate": 0.1, "updates": 1,
        "evaluate_every": 1, "evaluation": 2, "batch": 2, "noise": [0.0, 1.0]}
gl.figures.draw = lambda *_, **__: []
second = gl.sweep(task, sys.argv[1] + "/training").results.runs
print(json.dumps({
    "package": gl.__file__,
    "cells": sorted(runs["cell"]),
    "theory": sorted(set(runs["theory"])),
    "log_top": bool(runs["log_top"].notna().all()),
    "summary": "log_top_median" in frames.read_summary(sys.argv[1] + "/gradients"),
    "figures": [path.rpartition("/")[2] for path in first.paths if "again" in path],
    "losses": int(second["loss"].nunique()),
    "points": len(frames.trained_summary(second)),
    "options": gl.sweeps.parse(task).noise,
}))
"""


def test_seven_kinds_are_added_by_these_edits_alone(tmp_path):
    package = tmp_path / "gradlab"
    # With what Python has compiled: it does so again for the files that are edited.
    shutil.copytree(ROOT / "gradlab", package)
    for name, before, added in EDITS:
        path = package / name
        if before is None:
            path.write_text(added)
            continue
        text = path.read_text()
        assert text.count(before) == 1, (name, before)
        added = added or "from gradlab.tasks.first import first as first\n"
        behind = text.replace(before, before + added)
        path.write_text(behind if added != "from gradlab.tasks.first import first as first\n"
                        else text.replace(before, added + before))  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("package") == str(package / "__init__.py")
    assert found == {
        "cells": ["elman", "lazy"],
        "theory": ["none: no theory of lazy", "none: no theory of twos"],
        "log_top": True,
        "summary": True,
        "figures": ["again-gaussian.png"],
        "losses": 2,
        "points": 2,
        "options": [0.0, 1.0],
    }


@pytest.mark.parametrize(
    ("package", "shared"),
    [
        (cells, {"base", "convert", "parallel", "_torch_weights"}),
        (initializers, {"base", "audits"}),
        (tasks, {"base", "_checks", "network", "probe", "imdb"}),
    ],
)
def test_every_file_of_a_family_registers_something(package, shared):
    """A family that no line imports would be missing without a word."""
    registries = [getattr(package, name) for name in ("REGISTRY", "BIASES", "INPUTS")
                  if hasattr(package, name)]  # fmt: skip
    homes = {registry.builder(name).__module__ for registry in registries
             for name in registry.names() if not registry.is_foreign(name)}  # fmt: skip
    files = {path.stem for path in Path(package.__path__[0]).glob("*.py")} - {"__init__"} - shared
    assert {f"{package.__name__}.{name}" for name in files} <= homes


def test_every_remedy_is_an_axis_and_the_other_way_round():
    own = {name for name in remedies.names() if not remedies.is_foreign(name)}
    assert own == {axis.name for axis in gl.frames.TRAINING.axes if axis.switch}


@pytest.mark.parametrize(
    ("measure", "spec", "schema"),
    [(rows.measure, SMALL, gl.frames.GRADIENTS), (trained.measure, TRAINED, gl.frames.TRAINING)],
    ids=["gradients", "training"],
)
def test_every_column_is_measured(measure, spec, schema):
    (run,) = Plan(sweeps.parse(spec))
    (row,) = measure([run], 1, lambda _: None)
    assert {*row} - {*schema.others} == {*schema.measured, "device"} - {"reason"}
    for frame, fields in schema.others.items():
        assert {*row[frame]} == {*fields}


@pytest.mark.parametrize("axis", [axis.name for axis in gl.frames.GRADIENTS.axes])
def test_every_axis_changes_a_run(axis):
    """One that is declared and not applied would be a column of wrong values."""
    base = SMALL | ({"cell": "elman"} if axis == "activation" else {})
    (run,), (other,) = (Plan(sweeps.parse(base | more)) for more in ({}, {axis: OTHER[axis]}))
    assert run.run_id != other.run_id and getattr(other, axis) == OTHER[axis]
    found = [curves([each]).log_norm[0] for each in (run, other)]
    assert found[0].shape != found[1].shape or np.abs(found[0] - found[1]).max() > 1e-6


def options_of_gradlabs_own():
    """The options of builders that a spec may name, with another value than their default."""
    axes = {axis.name for axis in gl.frames.GRADIENTS.axes}
    # The candidate of min_gru and min_lstm is added to a state: no adjoint depends on it.
    axes |= {"candidate"}
    # Others that are valid, where half of the default is not.
    values = {"forget": "exp", "gates": 2, "density": 0.5, "bias_std": 0.3,
              "input_variance": 0.3, "r_min": 0.3}  # fmt: skip
    for owner in ("cell", "init"):
        registry = OWNERS[owner]
        for name in registry.names():
            for parameter in inspect.signature(registry.builder(name)).parameters.values():
                option, default = parameter.name, parameter.default
                if option not in axes and isinstance(default, float | int | str):
                    value = values[option] if option in values else default / 2
                    yield pytest.param(owner, name, option, value, id=f"{name} {option}")


@pytest.mark.parametrize(("owner", "name", "option", "value"), [*options_of_gradlabs_own()])
def test_every_option_changes_a_run(owner, name, option, value):
    base = SMALL | {"cell": "elman", owner: name}
    (run,), (other,) = (Plan(sweeps.parse(base | more)) for more in ({}, {option: value}))
    assert run.run_id != other.run_id and getattr(other, option) == value
    # No norm shows the phases of a diagonal cell: its parameters do.
    draws = [draw_of(init_of(each), shape_of(each))(*arguments([each])) for each in (run, other)]
    first, second = (
        np.concatenate([curves([each]).log_norm[0], *map(np.ravel, jax.tree.leaves(draw[0]))])
        for each, draw in zip((run, other), draws, strict=True)
    )
    assert first.shape != second.shape or np.abs(first - second).max() > 1e-6


def test_contributing_names_every_kind():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for kind in ("a cell", "an initializer", "a task", "a remedy axis", "an axis",
                 "a statistic column", "a figure"):  # fmt: skip
        assert f"| {kind} |" in text
    for name, *_ in EDITS:
        folder = name.partition("/")[0]
        assert f"gradlab/{folder}" in text and importlib.import_module(f"gradlab.{folder}")
