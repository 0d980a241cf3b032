"""Many sweeps and traces in one process: no file, no descriptor and no memory is left."""

import gc
import os
import tempfile
from pathlib import Path

import fuzzed
import jax
import jax.numpy as jnp
import psutil
import pytest

import gradlab as gl
from gradlab import figures

# `make test-long` makes 300 sweeps and 2,000 traces.
SWEEPS, TRACES = (300, 2000) if "GRADLAB_LONG" in os.environ else (3, 6)
GROWTH = 0.01  # of the memory, after warm-up, where there are many


def loss(params, xs):
    def step(h, x):
        h = jnp.tanh(params @ h + x)
        return h, h

    return jnp.sum(jax.lax.scan(step, jnp.zeros(4), xs)[0])


def once(folder):
    """A sweep with code that is defined anew, as a notebook does, and some traces."""

    @gl.sweeps.measurement
    def again(number):
        return {"value": 2 * number}

    gl.sweep({"measurement": "again", "number": [1.0, 2.0]}, folder / "own")
    gl.sweep(fuzzed.SWEPT, folder / "swept")
    for _ in range(TRACES // SWEEPS):
        gl.trace(loss)(jnp.eye(4), jnp.ones((5, 4)))


@pytest.mark.filterwarnings("ignore")
def test_nothing_is_left_of_many_sweeps(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "draw", fuzzed.draw_a_dot)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    process = psutil.Process()
    memory = []
    try:
        for number in range(SWEEPS):
            once(tmp_path / str(number))
            if number == SWEEPS // 3:
                gc.collect()
                opened = process.num_fds()
            if number >= SWEEPS // 3:
                memory.append(process.memory_info().rss)
    finally:
        gl.sweeps.measurements.REGISTRY.remove("again")
    gc.collect()
    assert process.num_fds() <= opened
    assert [*(tmp_path / "temporary").iterdir()] == [] == [*Path(tmp_path).rglob("*.tmp")]
    if SWEEPS > 100:
        assert memory[-1] <= (1 + GROWTH) * memory[0]
