"""Sweeps that are killed, on one machine and on several processes: no run is lost or changed."""

import json
import math
import os
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path

import distributed
import pytest

import gradlab as gl
from gradlab.grid import Plan, cluster
from gradlab.grid.work import Chunk
from gradlab.sweeps import measurements

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
    assert found["kills"] == KILLS and found["runs"] == 48
    assert all(found["equal"]) and all(found["bytes"])
    assert found["unaccounted"] == 0 and found["left"] == []


def test_a_worker_that_is_killed_loses_nothing(tmp_path):
    found = script("clustered.py", tmp_path)
    assert found["killed_after"] >= 1 and found["runs"] == found["planned"] == 48
    assert all(found["equal"]) and all(found["bytes"])
    assert "the scheduler went away" in found["without_scheduler"]
    assert 0 < found["kept"] < found["planned"] and all(found["equal_after"])
    assert found["nobody"].startswith("no scheduler at tcp://127.0.0.1:")


class Mortal:
    """A client whose workers die of seed 3."""

    def nthreads(self):
        return {"tcp://one": 1, "tcp://other": 1}

    def cancel(self, futures, force):
        pass

    def submit(self, function, call, versions, pure):
        compute, (chunk,) = call
        future = Future()
        if any(run.seed == 3 for run in chunk.runs):
            future.set_exception(distributed.KilledWorker("task", None, 3))
        else:
            future.set_result(compute(chunk))
        return future


class Silent:
    """A client with two workers, of which one gave its last sign of life long ago."""

    beats = 0

    def nthreads(self):
        return {"tcp://one": 1, "tcp://other": 1}

    def scheduler_info(self):
        self.beats += 1
        return {
            "workers": {"tcp://one": {"last_seen": self.beats}, "tcp://other": {"last_seen": 7}}
        }


def test_a_worker_that_is_silent_is_named_once(monkeypatch, capsys):
    monkeypatch.setattr(cluster, "SILENCE", 0.0)
    workers = cluster._Workers(Silent())
    for _ in range(9):
        assert workers.count() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("the worker tcp://other has given no sign of life for 0 s")


def test_a_run_that_kills_its_workers_fails_alone(monkeypatch):
    monkeypatch.setattr(cluster, "_pack", lambda *call: (call[0], call[1:]))
    monkeypatch.setattr(distributed, "wait", lambda *_, **__: None)

    @gl.sweeps.measurement
    def fatal(seed):
        return {"value": 2 * seed}

    plan = Plan(gl.sweeps.parse({"measurement": "fatal", "seeds": 8}))
    runs = [*plan]
    measurements.REGISTRY.remove("fatal")
    chunk = Chunk(plan.measurement, tuple(map(tuple, runs)), size=1)
    found = cluster.measure(Mortal(), lambda: False, iter([chunk]))
    parts = [part for _, some in found for part in some]
    assert [part.run_ids for part in parts if part.failed] == [[runs[3].run_id]]
    ids = sorted(name for part in parts for name in part.run_ids)
    assert ids == sorted(run.run_id for run in runs)


@pytest.mark.skipif("GRADLAB_LONG" not in os.environ, reason="starts four workers")
def test_a_run_that_kills_real_workers_fails_alone(tmp_path):
    found = script("poison.py", tmp_path)
    (reason,) = found["reasons"]
    assert reason.startswith("KilledWorker: each worker that measured it died")
    values = {int(seed): value for seed, value in found["values"].items()}
    assert math.isnan(values.pop(3))
    assert values == {seed: 2 * seed for seed in values} and len(values) == 7
