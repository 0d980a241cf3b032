"""gl.train against a plain optax loop, its traces against gl.trace, and every way to be stopped."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradlab as gl
from gradlab import _arrays, _files, training
from gradlab.training import _loop

CELL = gl.cells.make("gru", inputs=2, hidden=3)
LENGTH, BATCH, STEPS, EVERY = 6, 4, 11, 4
OPTIMIZER = optax.chain(
    optax.clip_by_global_norm(0.5), optax.adam(optax.linear_schedule(0.05, 0.0, STEPS))
)
DATA = jax.random.normal(jax.random.key(7), (32, LENGTH, 2))


def loss(params, batch):
    def one(xs):
        start = CELL.start(xs.dtype)
        return jax.lax.scan(lambda h, x: (CELL.step(params, h, x), None), start, xs)[0].sum()

    xs, shift = batch
    error = jax.vmap(one)(xs) - xs.sum((1, 2))
    return jnp.mean(error**2) + shift, {"largest": jnp.abs(error).max()}


def draw(data, bad_step, key, step):
    rows = jax.random.randint(key, (BATCH,), 0, len(data))
    return data[rows], jnp.where(step == bad_step, jnp.nan, 0.0)


# Where update 9 (of 1, 2, ...) is to go wrong, and where none is.
FINE = jax.tree_util.Partial(draw, DATA, jnp.array(-1))
WRONG = jax.tree_util.Partial(draw, DATA, jnp.array(8))
PARAMS = CELL.init(jax.random.key(0))
KEY = jax.random.key(1)


def train(sample=FINE, steps=STEPS, **options):
    options = {"trace_every": EVERY, "block": EVERY, "batch_axis": 0} | options
    return gl.train(loss, PARAMS, sample, OPTIMIZER, steps=steps, key=KEY, has_aux=True, **options)


@pytest.fixture(scope="module")
def run():
    return train()


@pytest.fixture(scope="module")
def plain():
    """The same updates by a loop in Python: parameters before each, and what it reports."""
    params, state, history, rows = PARAMS, OPTIMIZER.init(PARAMS), [], []
    gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))
    update = jax.jit(OPTIMIZER.update)
    for step in range(STEPS):
        batch = FINE(jax.random.fold_in(KEY, step), step)
        history.append((params, batch))
        (value, aux), grads = gradient(params, batch)
        squares = sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(grads))
        rows.append((float(value), 0.5 * np.log(squares), float(aux["largest"])))
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params, history, np.array(rows)


def same(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: bool(np.array_equal(x, y)), a, b))


# optax computes its schedules in float32: their rounding depends on what they are fused with.
def close(a, b, tolerance=1e-7):
    return jax.tree.all(jax.tree.map(lambda x, y: bool(np.allclose(x, y, 0, tolerance)), a, b))


def test_updates_are_those_of_a_plain_loop(run, plain):
    params, _, rows = plain
    assert close(run.params, params)
    for name, column in zip(("loss", "log_grad_norm", "largest"), rows.T, strict=True):
        np.testing.assert_allclose(run.metrics[name], column, rtol=0, atol=1e-7)
    assert run.failure is None and int(run.state.step) == STEPS


def test_traces_are_those_of_the_parameters_before_the_update(run, plain):
    _, history, _ = plain
    traced = jax.jit(gl.trace(loss, argnums=(), has_aux=True, batch_axis=0))
    assert run.trace_steps.tolist() == [0, 4, 8]
    for i, step in enumerate(run.trace_steps):
        expected = traced(*history[step]).scans[0]
        found = run.traces.scans[0]
        np.testing.assert_allclose(found.log_norm[i], expected.log_norm, rtol=0, atol=1e-6)
        np.testing.assert_allclose(found.log_direct[i], expected.log_direct, rtol=0, atol=1e-6)


@pytest.mark.parametrize("every", [0, EVERY])
def test_segments_change_no_number(plain, every):
    run = train(segment=3, trace_every=every)
    params, _, rows = plain
    assert close(run.params, params)
    assert close(run.metrics["loss"], rows[:, 0])


def test_segments_hold_the_memory_of_a_few_states():
    def bytes_of(segment):
        def update(state, xs):
            state, _ = training.advance(
                lambda params, batch: loss(params, (batch, 0.0)),
                lambda key, step: xs,
                OPTIMIZER,
                state,
                1,
                has_aux=True,
                segment=segment,
            )
            return state

        state = training.start(PARAMS, OPTIMIZER, KEY)
        plan = jax.jit(update).lower(state, jnp.zeros((2, 4096, 2))).compile().memory_analysis()
        return plan.temp_size_in_bytes

    # Whatever is kept of a step, of 64 + 64 steps in place of 4,096; inputs are there either way.
    assert bytes_of(64) < bytes_of(None) / 4


def test_a_loss_without_a_scan_has_no_segments():
    with pytest.raises(ValueError, match="scan"):
        gl.train(
            lambda w, x: w**2,
            1.0,
            lambda key, step: 0.0,
            optax.sgd(0.1),
            steps=1,
            key=KEY,
            segment=4,
        )


def test_frame_has_a_row_per_training_step_and_timestep(run):
    frame = gl.frame(run)
    whole = frame[(frame.leaf == "") & (frame["sample"] == 2)]
    assert whole.training_step.tolist() == np.repeat([0, 4, 8], LENGTH).tolist()
    assert whole.lag.tolist() == [*range(LENGTH - 1, -1, -1)] * 3
    expected = run.traces.scans[0].log_norm[:, :, 2].ravel()
    np.testing.assert_array_equal(whole.log_norm, expected)


def test_metrics_frame(run):
    table = gl.frames.metrics(run)
    assert table.columns.tolist() == ["training_step", "loss", "log_grad_norm", "largest"]
    assert table.training_step.tolist() == [*range(1, STEPS + 1)]
    assert table.loss.tolist() == run.metrics["loss"].tolist()


def test_frame_of_an_untraced_training():
    with pytest.raises(ValueError, match="trace_every"):
        gl.frame(train(steps=EVERY, trace_every=0))


class _Stop(Exception):
    pass


@pytest.mark.parametrize("blocks", [1, 2])
def test_a_stopped_run_goes_on_bit_for_bit(run, tmp_path, blocks):
    told = []

    def stop(done, total, loss):
        told.append((done, total))
        if len(told) == blocks + 1:
            raise _Stop

    with pytest.raises(_Stop):
        train(checkpoint=tmp_path / "run.npz", save_every=0, progress=stop)
    seen = []
    again = train(checkpoint=tmp_path / "run.npz", progress=lambda *args: seen.append(args[0]))
    assert seen[0] == (blocks + 1) * EVERY if blocks < 2 else seen == [STEPS]
    assert same((again.params, again.metrics, again.traces), (run.params, run.metrics, run.traces))


def test_more_steps_go_on_from_a_shorter_run(run, tmp_path):
    short = train(steps=5, checkpoint=tmp_path / "run.npz")
    assert len(short.metrics["loss"]) == 5
    longer = train(checkpoint=tmp_path / "run.npz")
    assert same((longer.params, longer.metrics), (run.params, run.metrics))
    assert longer.trace_steps.tolist() == [0, 4, 8]


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, "tests/training")
import test_training as t
def tell(done, total, loss):
    print(done, flush=True)
    if done == 8:
        import time
        time.sleep(60)
t.train(checkpoint=sys.argv[1], save_every=0, progress=tell)
"""


def test_a_killed_run_goes_on_bit_for_bit(run, tmp_path):
    path = tmp_path / "run.npz"
    environ = {**os.environ, "JAX_ENABLE_X64": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    command = [sys.executable, "-c", KILLED, str(path)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, env=environ, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        while child.stdout.readline().strip() != b"8":
            assert child.poll() is None
        child.send_signal(signal.SIGKILL)
    assert [p.name for p in tmp_path.iterdir()] == ["run.npz"]
    again = train(checkpoint=path)
    assert same((again.params, again.metrics, again.traces), (run.params, run.metrics, run.traces))


@pytest.mark.parametrize("spoil", ["cut", "flip", "text"])
def test_a_damaged_checkpoint_is_named(tmp_path, spoil):
    path = tmp_path / "run.npz"
    train(steps=EVERY, checkpoint=path)
    content = bytearray(path.read_bytes())
    if spoil == "cut":
        content = content[: len(content) // 2]
    elif spoil == "flip":
        content[len(content) // 3] ^= 255
    else:
        content = bytearray(b"not a checkpoint")
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"run\.npz: damaged or no checkpoint; delete it"):
        train(checkpoint=path)
    assert path.read_bytes() == content


def test_a_checkpoint_that_is_further_is_refused(tmp_path):
    train(steps=2 * EVERY, checkpoint=tmp_path / "run.npz")
    with pytest.raises(ValueError, match="a checkpoint after 8 steps, and 4 were asked for"):
        train(steps=EVERY, checkpoint=tmp_path / "run.npz")


def test_a_short_run_leaves_a_checkpoint_and_any_key_and_type_comes_back(tmp_path):
    def go(steps, **options):
        return gl.train(
            lambda w, x: ((w - x) ** 2).sum(),
            jnp.ones(3, jnp.bfloat16),
            lambda key, step: jax.random.normal(key, (3,), jnp.bfloat16),
            optax.sgd(0.1),
            steps=steps,
            key=jax.random.key(0, impl="rbg"),
            block=2,
            **options,
        )

    go(4, checkpoint=tmp_path / "run.npz")
    again, whole = go(6, checkpoint=tmp_path / "run.npz"), go(6)
    assert again.params.dtype == jnp.bfloat16 and same(again.params, whole.params)
    assert same(again.metrics, whole.metrics)


def test_a_checkpoint_in_the_older_format_is_resumed(run, tmp_path):
    path = tmp_path / "run.npz"
    train(steps=2 * EVERY, checkpoint=path)
    about, arrays = _arrays.read(path)
    with path.open("wb") as file:
        np.savez(file, about=np.array(json.dumps(about)), **arrays)
    seen = []
    again = train(checkpoint=path, progress=lambda *args: seen.append(args[0]))
    assert seen == [STEPS]
    assert same((again.params, again.metrics, again.traces), (run.params, run.metrics, run.traces))


def test_optimizers_that_ask_for_the_loss():
    optimizer = optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau(patience=1))
    made = gl.train(
        lambda w, x: (w - 3.0) ** 2, 0.0, lambda key, step: 0.0, optimizer, steps=5, key=KEY
    )
    assert made.metrics["loss"][-1] < made.metrics["loss"][0]


def test_nothing_is_left_of_a_checkpoint_that_cannot_be_written(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    train(steps=EVERY, checkpoint=path)
    before = path.read_bytes()

    def full(_):
        raise OSError("no space left on device")

    monkeypatch.setattr(_files.os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        train(checkpoint=path, save_every=0)
    assert [p.name for p in tmp_path.iterdir()] == ["run.npz"] and path.read_bytes() == before


def test_a_loss_that_is_not_finite_ends_the_run(plain):
    _, history, rows = plain
    failed = train(WRONG)
    assert failed.failure is not None
    assert (failed.failure.step, failed.failure.reason) == (9, "loss")
    assert close(failed.params, history[8][0])
    np.testing.assert_allclose(failed.metrics["loss"][:8], rows[:8, 0], rtol=0, atol=1e-7)
    assert len(failed.metrics["loss"]) == 9 and np.isnan(failed.metrics["loss"][8])
    assert failed.trace_steps.tolist() == [0, 4, 8]
    before = jax.jit(gl.trace(loss, argnums=(), has_aux=True, batch_axis=0))(*history[7])
    np.testing.assert_allclose(
        failed.failure.before.scans[0].log_norm, before.scans[0].log_norm, rtol=0, atol=1e-6
    )
    assert np.isnan(failed.failure.trace.value) and np.isfinite(failed.failure.before.value)


def test_a_failed_run_is_resumed_as_failed(tmp_path):
    first = train(WRONG, checkpoint=tmp_path / "run.npz", save_every=0)
    again = train(WRONG, checkpoint=tmp_path / "run.npz")
    assert again.failure is not None and again.failure.step == first.failure.step
    assert same(again.params, first.params)


def test_an_update_that_is_not_finite_ends_the_run():
    # The loss is finite at 0, its derivative is not.
    failed = gl.train(
        lambda w, x: jnp.sqrt(w),
        0.0,
        lambda key, step: 0.0,
        optax.sgd(0.1),
        steps=3,
        key=jax.random.key(0),
    )
    assert failed.failure is not None
    assert (failed.failure.step, failed.failure.reason) == (1, "update")
    assert failed.failure.before is None and failed.failure.trace is None
    assert float(failed.params) == 0.0
    assert failed.metrics["loss"].tolist() == [0.0]
    assert failed.metrics["log_grad_norm"].tolist() == [np.inf]


def test_the_core_maps_over_seeds_and_learning_rates(plain):
    def final(key, rate):
        optimizer = optax.sgd(rate)
        state = training.start(PARAMS, optimizer, key)
        return training.advance(loss, FINE, optimizer, state, 3, has_aux=True)

    keys, rates = jax.random.split(KEY), jnp.array([0.1, 0.01])
    both = jax.jit(jax.vmap(final))(keys, rates)
    one = jax.jit(final)
    for i in range(2):
        alone = one(keys[i], rates[i])
        mapped = jax.tree.map(lambda x, i=i: x[i], both)
        assert close(alone[0].params, mapped[0].params, 1e-13)
        assert close(alone[1].metrics, mapped[1].metrics, 1e-13)


def test_a_second_call_compiles_nothing(run):
    before = _loop._advance._cache_size()
    other = jax.tree_util.Partial(draw, DATA + 1, jnp.array(-1))
    moved = train(other)
    assert _loop._advance._cache_size() == before
    assert moved.metrics["loss"][0] != run.metrics["loss"][0]


def test_progress(capfd):
    told = []
    train(progress=lambda *args: told.append(args))
    assert [args[:2] for args in told] == [(4, 11), (8, 11), (11, 11)]
    assert all(np.isfinite(args[2]) for args in told)
    train(progress=True)
    shown = capfd.readouterr()
    assert "11/11" in shown.err and "loss" in shown.err and shown.out == ""


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_log_grad_norm_where_squares_leave_the_float(scale):
    tree = {"a": jnp.full(3, scale, jnp.float32), "b": jnp.zeros(2, jnp.float32)}
    expected = np.log(np.float32(scale).astype(float)) + 0.5 * np.log(3)
    assert abs(float(training.log_norm(tree)) - expected) < 1e-5
    assert float(training.log_norm({"a": jnp.zeros(3)})) == -np.inf


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float8_e4m3fn])
@pytest.mark.parametrize("value", [0.0078125, 8.0])
def test_log_grad_norm_of_narrow_floats_is_taken_in_float32(value, dtype):
    tree = {"a": jnp.full(100_000, value, dtype), "b": jnp.full(4, value, jnp.float32)}
    expected = math.log(value) + 0.5 * math.log(100_004)
    assert abs(float(training.log_norm(tree)) - expected) < 1e-5


def test_log_grad_norm_of_nan_and_of_nothing():
    assert np.isnan(training.log_norm(jnp.array([1.0, jnp.nan, jnp.inf])))
    assert training.log_norm(jnp.array([1.0, -jnp.inf])) == jnp.inf
    assert training.log_norm({}) == training.log_norm(jnp.zeros(0)) == -jnp.inf


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps and block must be at least 1, got 0"),
        ({"block": 0}, "got 11 and 0"),
        ({"trace_every": -1}, "trace_every must be at least 0, got -1"),
        ({"segment": 0}, "segment=0: a segment is a number of steps, at least 1"),
    ],
)
def test_counts_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        train(**options)


@pytest.mark.parametrize(
    ("aux", "error", "message"),
    [
        (lambda w: {"loss": w}, ValueError, "'loss', which is gradlab's own"),
        (lambda w: {"two": jnp.stack([w, w])}, ValueError, r"'two' must be a scalar, got shape"),
        (lambda w: w, TypeError, "must report a dict of scalars"),
    ],
)
def test_metrics_that_cannot_be(aux, error, message):
    with pytest.raises(error, match=message):
        gl.train(
            lambda w, x: (w**2, aux(w)),
            1.0,
            lambda key, step: 0.0,
            optax.sgd(0.1),
            steps=1,
            key=KEY,
            has_aux=True,
        )
