"""What runs cost against hand counts, measured peaks of memory and files on a disk."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradlab import figures, sweeps, tracing
from gradlab.grid import Plan, sizes
from gradlab.sweeps import parse, sweep
from gradlab.sweeps.cost import Call, arithmetic, disk_bytes, peak
from gradlab.sweeps.gradients import cost, curves
from gradlab.sweeps.gradients.curves import pin_settings
from gradlab.sweeps.training import cost as training_cost
from gradlab.sweeps.training.programs import kind_of

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
FACTOR = 1.5
LEAST = 10e6  # bytes; less is lost among what else a process does


def case(weights, cell, hidden, length, runs, batch):
    return dict(
        weights=weights, cell=cell, hidden=hidden, length=length, runs=runs, batch=batch
    )  # fmt: skip


def run(cell="elman", **changes):
    axes = dict(cell=cell, init="normal", gain=1.0, length=40, hidden=12, inputs=3)
    (one,) = Plan(sweeps.parse(axes))
    return one._replace(activation=None, **changes)


# Products with and without the state, at each step and once, and a rotation that is prepared.
@pytest.mark.parametrize("cell", ["gru_reset_before", "lru", "minimal_rnn", "orthogonal"])
def test_flops_of_a_run_are_those_of_its_traced_program(cell):
    point = run(cell)
    probe = 2 * point.hidden
    runs = 4 * jax.local_device_count()
    draw, *traced = cost.calls(point, 4)
    assert arithmetic(traced) == runs * (cost.flops(point) + probe)
    # A draw has the products of the matrices that are audited, and the estimate leaves it out.
    matrices = curves.cell_of(curves.shape_of(point)).matrices
    assert arithmetic([draw]) == runs * tracing.flops(matrices, cost.params_of(point))


def test_flops_of_untied_weights_are_those_of_its_traced_program():
    point = run("lstm", weights="untied", length=48)
    runs = 4 * jax.local_device_count()
    # Beside the probe's product: whether both leaves of a state are finite is one with ones.
    more = 2 * point.hidden + point.length * 2 * 2 * point.hidden
    assert arithmetic(cost.calls(point, 4)) == runs * (cost.flops(point) + more)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_bytes_are_within_the_factor_of_measured_peaks():
    """Those of every cell are in results/bench/memory.csv, see tests/project/test_claims.py."""
    cases = [case("tied", "lru", 128, 1000, 16, 1), case("trained", "elman", 128, 500, 2, 16)]
    command = [sys.executable, EXPERIMENTS / "memory.py", "--cases", json.dumps(cases)]
    environment = {**os.environ, "PYTHONPATH": str(EXPERIMENTS.parent), "JAX_PLATFORMS": "cpu"}
    # As users have it, and with the programs compiled in the process that is measured.
    environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "0"
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    # Let the C library give back what one case has freed before the next is measured.
    environment["MALLOC_MMAP_THRESHOLD_"] = "65536"
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for one, each in zip(cases, found, strict=True):
        assert each["measured"] > LEAST, one
        assert each["measured"] / FACTOR < each["planned"] < each["measured"] * FACTOR, one


def test_bytes_are_those_of_the_dearest_call():
    array = jax.ShapeDtypeStruct((1000,), jnp.float32)
    # An argument and a result; what is between is one loop.
    small = Call(jax.jit(lambda x: jnp.exp(x * 2 + 1) - 3), (array,), extra_bytes=100)
    # Two devices, a half on each.
    spread = jax.sharding.NamedSharding(jax.make_mesh((2,), ("runs",)), jax.P("runs"))
    halves = jax.jit(lambda x: x + 1, in_shardings=spread, out_shardings=spread)
    # The result lies in the place of the argument.
    given = jax.jit(lambda x: x + 1, donate_argnums=0)
    assert peak([small]) == 8100
    assert peak([Call(halves, (array,))]) == 8000
    assert peak([Call(given, (array,)), small]) == 8100
    assert peak([Call(given, (array,))]) == 4000


def test_to_ask_for_memory_compiles_nothing_more_than_the_call_that_follows():
    compiled = []

    def listen(name, _, **__):
        if name.endswith("backend_compile_duration"):
            compiled.append(name)

    def batch(length):
        return [run("elman", length=length, seed=seed) for seed in range(6)]

    # What is compiled once for all lengths.
    curves.curves(batch(7), size=3)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        curves.curves(batch(8), size=3)
        usual = len(compiled)
        assert cost.peak(batch(9)[0], 3) > 0
        curves.curves(batch(9), size=3)
        assert len(compiled) == 2 * usual > 0
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("limit", [0, 20, 107 * 3, 10**6])
def test_the_largest_count_that_fits(limit):
    asked = []

    def use(count):
        asked.append(count)
        return 10 + 7 * count + count % 3

    expected = max([1, *(n for n in range(1, 65) if use(n) <= limit)])
    asked.clear()
    # A bend in the line may cost a run, never the limit.
    assert expected - 1 <= sizes.fits(use, 64, limit) <= expected
    assert len(asked) <= 4


@pytest.mark.parametrize("length, seeds", [(20, 2), (700, 6)])
def test_bytes_written_are_within_the_factor_of_a_sweeps_files(
    tmp_path, monkeypatch, length, seeds
):
    table = {
        "axes": {"cell": ["elman"], "init": ["normal"], "gain": [1.0], "length": [length]},
        "fixed": {"hidden": 8, "inputs": 4},
    }
    table["axes"]["seeds"] = seeds
    monkeypatch.setattr(figures, "draw", lambda *_, **__: [])
    sweep(parse(table), tmp_path)
    size = sum(path.stat().st_size for path in tmp_path.rglob("*.parquet"))
    chunks = len(list((tmp_path / "chunks").glob("*.parquet")))
    assert size / FACTOR < disk_bytes(length, seeds, -(-seeds // chunks)) < size * FACTOR


def test_the_arithmetic_of_many_programs_takes_no_trace_of_each():
    cost._trace_step.cache_clear()
    point = run("gru")
    for hidden in range(8, 400):
        for length in (10, 1000):
            assert cost.flops(point._replace(hidden=hidden, length=length)) > 0
    assert cost._trace_step.cache_info().misses == 1


def test_a_width_is_read_off_like_digits():
    for cell in ("lstm", "orthogonal", "fastgrnn"):
        shape = curves.shape_of(run(cell, hidden=24, inputs=5))
        once, forward, backward = cost.step_of(shape)
        assert (once, forward, backward) == tuple(cost._trace_step(shape))
    shape = curves.shape_of(run("indrnn", hidden=24, inputs=5))
    assert np.all(np.array(cost.step_of(shape)) >= 0)


@pytest.mark.parametrize("remedy", [{}, {"omega": 1.0}, {"flossing": 0.1, "preflossing": 20}])
def test_flops_of_a_training_are_near_to_those_of_its_programs(remedy):
    table = {"task": "copying", "cell": "lstm", "length": 10, "hidden": 16, "batch": 8}
    table |= {"updates": 100, "evaluate_every": 50, "evaluation": 20, "learning_rate": 0.1}
    (run,) = Plan(parse(table | remedy))
    with pin_settings():
        counted = arithmetic(training_cost.calls(kind_of(run), 1))
    assert training_cost.flops(run) == pytest.approx(counted, rel=0.3 if remedy else 0.05)
