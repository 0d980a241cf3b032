"""Models on eight devices: the record is that of the same model on one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "helpers" / "sharded.py"


@pytest.fixture(scope="module")
def results(request):
    """One process has all devices and runs the cases that are to be tested."""
    items = [item for item in request.session.items if item.path == Path(__file__)]
    names = [item.callspec.params["name"] for item in items]
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *names],
        env=os.environ | {"PYTHONPATH": path, "JAX_NUM_CPU_DEVICES": "8", "JAX_ENABLE_X64": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(line.split(": ", 1) for line in done.stdout.splitlines())


NAMES = (
    "batch",
    "batch, all options",
    "batch, no argument",
    "features",
    "batch and features",
    "rows of the weights",
    "sequence",
    "layers",
    "means",
    "vmap",
    "replicas",
    "parallel scan",
    "parallel scan, features",
    "parallel scan, auto",
    "taps",
    "bfloat16",
    "a rule that is not linear",
    "no mesh set",
    "explicit and auto",
    "auto",
    "auto, split in time",
    "shard_map",
    "shard_map, another axis explicit",
    "shard_map, another axis auto",
)


@pytest.mark.parametrize("name", NAMES)
def test_every_sharding_gives_the_same_record(results, name):
    assert results.pop(name) == "equal"
