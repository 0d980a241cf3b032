"""A run's numbers do not depend on its company, the chunk, the devices or JAX's settings."""

import dataclasses
import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradlab import cells, sweeps, tasks
from gradlab.grid import Plan, _compiled, sizes
from gradlab.sweeps.gradients import MEASUREMENT, cost
from gradlab.sweeps.gradients import curves as measure
from gradlab.sweeps.gradients.recent import Recent

# Imports take seconds: a process of each start is forked before JAX has started any device.
SCRIPT = """
import os, traceback
import jax
import numpy as np
from jax._src import xla_bridge as bridge
from gradlab.grid import _compiled
from gradlab.sweeps.gradients import Run
from gradlab.sweeps.gradients import curves as measure

def start(name, devices, count):
    jax.config.update("jax_num_cpu_devices", devices)
    compiled = []
    jax.monitoring.register_event_listener(
        lambda name, **_: compiled.append(name) if name.endswith("cache_misses") else None
    )
    found = []
    with _compiled.use_cache("compiled"):
        for cell, batch in (("elman", 1), ("gru", 3)):
            runs = [
                Run(
                    cell=cell, activation="tanh" if cell == "elman" else None, init="orthogonal",
                    gain=3.0, weights="tied", forget_bias=None, input="gaussian", input_scale=0.3,
                    bias_scale=0.1, length=100, hidden=33, inputs=3, batch=batch, seed=seed,
                )
                for seed in (4, 0, 1)
            ]
            found.append(measure.curves(runs[:count], size=2).log_norm[0])
    np.save(name, np.stack(found))
    print(len(compiled), jax.local_device_count(), jax.config.jax_compilation_cache_dir, flush=True)

for name, devices, count in ("one", 1, 3), ("eight", 8, 1), ("again", 1, 3):
    assert not bridge.backends_are_initialized()
    process = os.fork()
    if process == 0:
        try:
            start(name, devices, count)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    assert os.waitpid(process, 0)[1] == 0, name
"""


@pytest.fixture(autouse=True)
def draw_again(monkeypatch):
    """What another call drew is drawn again, as another process would."""
    monkeypatch.setattr(Recent, "get", lambda self, key: None)


def alone(name, **changes):
    base = dict(
        cell=name, activation="tanh", init="orthogonal", gain=3.0, weights="tied",
        forget_bias=1.0, input="gaussian", input_scale=0.3, bias_scale=0.1,
        length=12, hidden=5, inputs=3, batch=1, seed=0,
    )  # fmt: skip
    (run,) = Plan(sweeps.parse(base))
    return run._replace(**changes)


def same(left, right):
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)


def picked(curves, rows):
    return [None if field is None else field[rows] for field in curves]


# One of each kind of arithmetic; `make test-long` takes all.
SOME = ("elman", "lstm", "lru", "layer_norm_gru", "orthogonal")
NAMES = cells.names() if "GRADLAB_LONG" in os.environ else SOME


@pytest.mark.parametrize("name", NAMES)
def test_a_run_is_the_same_in_every_chunk(name):
    runs = [alone(name, seed=seed) for seed in range(6)]
    order = np.random.default_rng(0).permutation(6)
    whole = measure.curves(runs, size=3)
    same(picked(whole, order), measure.curves([runs[i] for i in order]))
    same(picked(whole, [4]), measure.curves([runs[4]]))


@pytest.mark.parametrize("weights", ["tied", "untied"])
def test_runs_of_several_sequences_are_the_same_in_every_chunk(weights):
    runs = [alone("elman", seed=seed, batch=2, weights=weights, init="normal") for seed in range(5)]
    some = [3, 0, 3]
    for one, other in ((1, 1), (2, 3)):
        whole = measure.curves(runs, size=one)
        same(picked(whole, some), measure.curves([runs[i] for i in some], size=other))


@pytest.mark.parametrize("name, hidden, batch", [("elman", 128, 16), ("gru", 32, 64)])
def test_a_map_and_a_loop_differ_by_ulps_of_a_norm(name, hidden, batch):
    """In a chaotic network a state that is rounded differently would part the curves."""
    change = dict(gain=8.0 if name == "gru" else 3.0, init="normal", length=300, batch=batch)
    runs = [alone(name, seed=seed, hidden=hidden, **change) for seed in range(4)]
    looped, mapped = (measure.curves(runs, size=size) for size in (1, 2))
    assert (looped.log_norm[:, 0] > 30).any()
    np.testing.assert_allclose(mapped.log_norm, looped.log_norm, rtol=1e-6, atol=1e-6)
    same(looped[1:3], mapped[1:3])


def test_draws_of_earlier_calls_change_no_number(monkeypatch):
    """Runs that differ in length and input alone share a draw, those of other gains the inputs."""
    base = alone("lstm")
    runs = [base._replace(gain=gain, seed=seed) for gain in (0.5, 3.0) for seed in (0, 7)]
    others = [run._replace(length=9, input="reviews") for run in runs[::-1]]
    every = runs, others, others[1:], runs[2:]
    fresh = [measure.curves(each, size=2) for each in every]
    monkeypatch.undo()
    monkeypatch.setattr(measure, "_DRAWS", Recent(2**20))
    monkeypatch.setattr(measure, "_INPUTS", Recent(2**20))
    drawn = []
    draw_of = measure.draw_of
    monkeypatch.setattr(measure, "draw_of", lambda *key: drawn.append(key) or draw_of(*key))
    for each, expected in zip(every, fresh, strict=True):
        same(measure.curves(each, size=2), expected)
    assert len(drawn) == 1


@pytest.mark.parametrize("weights", ["tied", "untied"])
def test_log_norm_is_the_mean_over_sequences(weights, monkeypatch):
    """Each sequence is put in the place of the only one of a run of batch 1."""
    run = alone("lstm", weights=weights, init="normal", gain=1.0)
    several = measure.curves([run._replace(batch=3)])
    (xs,) = measure.inputs_for([run._replace(batch=3)])
    each = []
    for b in range(3):
        row = xs[:, b]
        monkeypatch.setattr(
            measure, "inputs_for", lambda runs, row=row: np.stack([row] * len(runs))
        )
        each.append(measure.curves([run]).log_norm[0])
    np.testing.assert_allclose(several.log_norm[0], np.mean(each, axis=0), atol=1e-5)
    assert np.ptp(each, axis=0).max() > 1e-3


def test_a_sequence_does_not_depend_on_how_many_there_are():
    one, three, five = (
        np.asarray(measure._inputs("gaussian", (), 4, 2, batch, "")(np.array([7], np.uint32)))[0]
        for batch in (1, 3, 5)
    )
    np.testing.assert_array_equal(one, three[:, 0])
    np.testing.assert_array_equal(three, five[:, :3])
    key = jax.random.fold_in(measure.key_for(7, "input", "gaussian"), 2)
    expected = tasks.make_input("gaussian")(key, 4, 2, jnp.float32)
    np.testing.assert_allclose(three[:, 2], expected, rtol=1e-6)


@pytest.mark.parametrize(
    "changes, first",
    [({"gain": 0.0}, -np.inf), ({"init": "normal", "gain": np.inf}, np.nan)],
)
def test_a_mean_says_where_a_sequence_has_no_logarithm(changes, first):
    (found,) = measure.curves([alone("elman", batch=2, **changes)]).log_norm
    assert np.isfinite(found[-1])
    np.testing.assert_array_equal(found[0], first)


def test_settings_of_the_user_move_no_number():
    run = alone("elman")
    before = measure.curves([run])
    with (
        jax.enable_x64(not jax.config.jax_enable_x64),
        jax.default_prng_impl("rbg"),
        jax.threefry_partitionable(False),
        jax.default_matmul_precision("bfloat16"),
    ):
        same(before, measure.curves([run]))


def test_other_runs_of_a_shape_compile_nothing():
    names = []
    first = alone("elman", hidden=6)
    measure.curves([first])

    def listen(name, seconds, **_):
        names.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        measure.curves([first._replace(gain=0.7, seed=3, input_scale=0.1, bias_scale=0.2)])
        assert names.count("/jax/core/compile/backend_compile_duration") == 0
        misses = measure.tied_program.cache_info().misses
        measure.curves([first._replace(init="normal")])
        assert measure.tied_program.cache_info().misses == misses
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_eight_devices_give_the_bits_of_one_and_a_second_start_compiles_nothing(tmp_path):
    """With XLA's optimizations on, as in a sweep; three runs together, and the first one alone."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu", "OPENBLAS_NUM_THREADS": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "0",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip
    for name in ("JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, env=environment, capture_output=True,
        text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (first, *one_device), eight_devices, (second, *same_again) = (
        line.split() for line in done.stdout.splitlines()
    )
    assert one_device == same_again == ["1", "None"] and eight_devices[1:] == ["8", "None"]
    one, eight, again = (np.load(tmp_path / f"{name}.npy") for name in ("one", "eight", "again"))
    np.testing.assert_array_equal(one, eight)
    np.testing.assert_array_equal(one, again)
    assert int(first) > 0 and int(second) == 0


ORTHOGONAL = """
from gradlab.sweeps.gradients import Run, curves
runs = [
    Run("gru", None, "orthogonal", 1.0, "tied", None, "gaussian", 0.3, 0.0,
        length=3, hidden=128, inputs=2, batch=1, seed=seed)
    for seed in range(32)
]
print(curves.curves(runs, size=4).log_norm.shape)
"""


def test_orthogonal_weights_are_drawn_to_the_end_with_a_thread_for_each_device():
    """QR factorizations that run side by side take all of XLA's threads, and wait for more."""
    done = subprocess.run(
        [sys.executable, "-c", ORTHOGONAL], env=os.environ | {"JAX_NUM_CPU_DEVICES": "2"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.stdout.strip() == "(32, 3)", done.stderr


@pytest.mark.usefixtures("no_cache")
def test_the_users_own_cache_is_left_alone(tmp_path):
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
        "jax_persistent_cache_enable_xla_caches",
    )
    before = {name: getattr(jax.config, name) for name in names}
    with pytest.raises(KeyError), _compiled.use_cache(tmp_path / "a"):
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "a")
        raise KeyError
    assert {name: getattr(jax.config, name) for name in names} == before
    try:
        jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
        with _compiled.use_cache(tmp_path / "a"):
            assert jax.config.jax_compilation_cache_dir == str(tmp_path / "own")
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "own")
    finally:
        jax.config.update("jax_compilation_cache_dir", before["jax_compilation_cache_dir"])


@pytest.mark.parametrize(
    "changes, size",
    [
        # Weights of H² + 2H numbers: 16 runs fill the steps, or 2 MiB hold fewer.
        ({"hidden": 32}, 16),
        ({"hidden": 256}, 7),
        ({"hidden": 1024}, 2),
        ({"hidden": 32, "batch": 4}, 4),
        ({"hidden": 32, "batch": 128}, 1),
    ],
)
def test_runs_go_together_as_far_as_the_cache_of_a_core_holds_them(changes, size):
    run = alone("elman", **changes)
    assert cost.most(run, 5000) == size
    assert cost.most(run, jax.local_device_count()) == 1


def test_memory_bounds_a_chunk():
    asked = []

    def peak(run, size):
        asked.append(size)
        return 100 * size * run.length

    bounded = cost.COST._replace(peak=peak, most=lambda run, wanted: min(wanted, 1000))
    bounded = dataclasses.replace(MEASUREMENT, cost=bounded)
    size_of = functools.partial(sizes.size_of, bounded, alone("elman", length=300), 5000)
    assert size_of(10**12) == 1000
    # Of the programs for a run, that which runs is the only one to be compiled, where it fits.
    assert asked == [1000]
    assert size_of(400 * 30_000) == 400
    assert size_of(400 * 30_000 - 1) == 399
    assert size_of(1) == 1
