"""Sweeps that are killed, on one machine and on several processes: no run is lost or changed."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

HELPERS = Path(__file__).parents[1] / "helpers"
# `make test-long` kills thirty times.
KILLS = 30 if "GRADLAB_LONG" in os.environ else 2


def script(name, *arguments):
    """Run a script of the helpers, and give what it printed last."""
    done = subprocess.run(
        [sys.executable, str(HELPERS / name), *map(str, arguments)],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_sweep_that_is_killed_again_and_again_ends_with_the_same_bytes(tmp_path):
    found = script("killed.py", tmp_path, KILLS, 0)
    assert found["kills"] == KILLS and found["runs"] == 96
    assert all(found["equal"]) and all(found["bytes"])
    assert found["unaccounted"] == 0 and found["left"] == []


def test_a_worker_that_is_killed_loses_nothing(tmp_path):
    found = script("clustered.py", tmp_path)
    assert found["killed_after"] >= 1 and found["runs"] == found["planned"] == 48
    assert all(found["equal"]) and all(found["bytes"])
    assert "the scheduler went away" in found["without_scheduler"]
    assert 0 < found["kept"] < found["planned"] and all(found["equal_after"])
    assert found["nobody"].startswith("no scheduler at tcp://127.0.0.1:")


def test_a_run_that_kills_its_workers_fails_alone(tmp_path):
    found = script("poison.py", tmp_path)
    (reason,) = found["reasons"]
    assert reason.startswith("KilledWorker: each worker that measured it died")
    values = {int(seed): value for seed, value in found["values"].items()}
    assert math.isnan(values.pop(3))
    assert values == {seed: 2 * seed for seed in values} and len(values) == 7
