"""What gl.train records of the parameters: against a plain loop, stopped, resumed, refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_training import (
    DATA,
    EVERY,
    FINE,
    KEY,
    OPTIMIZER,
    PARAMS,
    STEPS,
    WRONG,
    loss,
    same,
    train,
)  # fmt: skip

import gradlab as gl
from gradlab.training import _loop


def eigenvalues(params):
    return jnp.linalg.eigvals(params["recurrent"].reshape(3, 3, 3))


def sizes(params):
    return {name: jnp.abs(leaf).sum() for name, leaf in params.items()}


RECORD = {
    "radius": lambda params: jnp.abs(eigenvalues(params)).max(),
    "eigenvalues": eigenvalues,
    "sizes": sizes,
    "bias": lambda params: params["bias"],
}
STEPS_AT = [0, 3, 6, 9, 11]


def record(sample=FINE, **options):
    return train(sample, **{"record": RECORD, "record_every": 3} | options)


@pytest.fixture(scope="module")
def run():
    return record()


def rows(run):
    return run.params, run.metrics, run.traces, run.records, run.record_steps


@pytest.fixture(scope="module")
def history():
    """The parameters after each number of updates, by a loop in Python."""
    params, state, history = PARAMS, OPTIMIZER.init(PARAMS), [PARAMS]

    @jax.jit
    def update(params, state, step):
        batch = FINE(jax.random.fold_in(KEY, step), step)
        grads = jax.grad(lambda params: loss(params, batch)[0])(params)
        updates, state = OPTIMIZER.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    for step in range(STEPS):
        params, state = update(params, state, step)
        history.append(params)
    return history


def test_records_are_those_of_the_parameters_after_the_updates(run, history):
    assert run.record_steps.tolist() == STEPS_AT
    assert run.records["eigenvalues"].shape == (5, 3, 3)
    for row, step in enumerate(STEPS_AT):
        params = jax.tree.map(np.asarray, history[step])
        expected = np.linalg.eigvals(params["recurrent"].reshape(3, 3, 3))
        found = run.records["eigenvalues"][row]
        np.testing.assert_allclose(np.sort(found), np.sort(expected), rtol=0, atol=1e-6)
        np.testing.assert_allclose(run.records["radius"][row], np.abs(expected).max(), atol=1e-6)
        np.testing.assert_allclose(run.records["bias"][row], params["bias"], rtol=0, atol=1e-6)
        for name, leaf in params.items():
            total = run.records["sizes"][name][row]
            np.testing.assert_allclose(total, np.abs(leaf).sum(), rtol=1e-6)


def test_metrics_have_a_column_per_entry(run):
    table = gl.frames.metrics(run)
    assert table.training_step.tolist() == [*range(STEPS + 1)]
    assert table.loss[1:].tolist() == run.metrics["loss"].tolist() and np.isnan(table.loss[0])
    rows = table.set_index("training_step").loc[STEPS_AT]
    np.testing.assert_array_equal(rows["radius"], run.records["radius"])
    np.testing.assert_array_equal(rows["sizes.bias"], run.records["sizes"]["bias"])
    np.testing.assert_array_equal(rows["bias[8]"], run.records["bias"][:, 8])
    entry = run.records["eigenvalues"][:, 2, 1]
    np.testing.assert_array_equal(rows["eigenvalues[2,1].real"], entry.real)
    np.testing.assert_array_equal(rows["eigenvalues[2,1].imag"], entry.imag)
    assert table.radius.notna().sum() == len(STEPS_AT)


def test_records_frame_is_long(run):
    frame = gl.frames.records(run)
    assert list(frame) == list(gl.frames.RECORDS)
    assert len(frame) == len(STEPS_AT) * (1 + 9 + 4 + 9)
    assert sorted(set(frame["name"])) == [
        "bias", "eigenvalues", "radius", "sizes.bias", "sizes.input", "sizes.recurrent",
        "sizes.recurrent_bias",
    ]  # fmt: skip
    one = frame[(frame["name"] == "eigenvalues") & (frame["index"] == "2,1")]
    assert one.training_step.tolist() == STEPS_AT
    np.testing.assert_array_equal(one.value + 1j * one.imag, run.records["eigenvalues"][:, 2, 1])
    radius = frame[frame["name"] == "radius"]
    assert set(radius["index"]) == {""} and radius.imag.isna().all()
    assert frame.training_step.is_monotonic_increasing


def test_frames_of_a_training_without_records():
    plain = train(steps=EVERY)
    assert plain.records == {} and plain.record_steps.tolist() == []
    assert gl.frames.records(plain).empty and list(gl.frames.records(plain))[0] == "training_step"
    assert gl.frames.metrics(plain).training_step.tolist() == [1, 2, 3, 4]


def test_columns_that_two_records_share_are_refused():
    same = {"a": lambda p: {"b": {"c": 1.0}, "b.c": 2.0}}
    with pytest.raises(ValueError, match=r"two records have the name 'a\.b\.c'"):
        train(steps=EVERY, record=same)


def test_the_loss_of_a_figure_begins_after_row_0(run):
    figure = gl.figures.training(gl.frame(run), gl.frames.metrics(run))
    loss = figure.axes[0].lines[0].get_xydata()
    assert loss[:, 0].tolist() == [*range(1, STEPS + 1)]
    assert not any("NaN" in text.get_text() for ax in figure.axes for text in ax.texts)


@pytest.mark.parametrize("every", [1, 4, 5, 11, 1000])
def test_every_period_fits_every_block(every):
    found = train(record={"bias": RECORD["bias"]}, record_every=every, trace_every=0, block=4)
    assert found.record_steps.tolist() == sorted({*range(0, STEPS, every), STEPS})
    np.testing.assert_array_equal(found.records["bias"][0], PARAMS["bias"])
    np.testing.assert_array_equal(found.records["bias"][-1], found.params["bias"])


class _Stop(Exception):
    pass


def test_a_stopped_run_has_the_same_records_bit_for_bit(run, tmp_path):
    def stop(done, total, loss):
        if done == 2 * EVERY:
            raise _Stop

    path = tmp_path / "run.npz"
    with pytest.raises(_Stop):
        record(checkpoint=path, save_every=0, progress=stop)
    assert same(rows(record(checkpoint=path)), rows(run))


@pytest.mark.parametrize("steps", [5, 8])
def test_a_longer_run_has_no_row_of_where_the_shorter_one_ended(run, tmp_path, steps):
    path = tmp_path / "run.npz"
    assert record(steps=steps, checkpoint=path).record_steps[-1] == steps
    assert same(rows(record(checkpoint=path)), rows(run))


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"record": {**RECORD, "more": RECORD["bias"]}}, "record="),
        ({"record": {"other": RECORD["radius"]}}, "record="),
        ({"record": RECORD | {"bias": lambda params: 2 * params["bias"]}}, "code or data"),
        ({"record_every": 4}, "record_every="),
        ({"record": None}, "record="),
    ],
)
def test_a_checkpoint_of_other_records_is_refused(tmp_path, options, part):
    path = tmp_path / "run.npz"
    record(steps=EVERY, checkpoint=path)
    with pytest.raises(ValueError, match=f"checkpoint of another program.*{part}"):
        record(checkpoint=path, **options)


def test_a_second_call_compiles_nothing(run):
    before = _loop._advance._cache_size()
    other = jax.tree_util.Partial(FINE.func, DATA + 1, FINE.args[1])
    assert record(other).records["radius"][-1] != run.records["radius"][-1]
    assert _loop._advance._cache_size() == before


def test_a_failed_run_ends_with_its_last_finite_parameters():
    failed = record(WRONG, trace_every=0)
    assert failed.failure is not None and failed.failure.step == 9
    assert failed.record_steps.tolist() == [0, 3, 6, 8]
    np.testing.assert_array_equal(failed.records["bias"][-1], failed.params["bias"])


def test_the_sink_gets_every_row_once(run):
    got = []
    record(on_record=lambda *row: got.append(row))
    assert [step for step, _ in got] == STEPS_AT
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *(values for _, values in got))
    sizes = {f"sizes.{name}": leaf for name, leaf in run.records["sizes"].items()}
    assert same(stacked, {k: v for k, v in run.records.items() if k != "sizes"} | sizes)


def test_a_resumed_run_sends_what_came_after_the_checkpoint(tmp_path):
    path, got = tmp_path / "run.npz", []
    record(steps=2 * EVERY, checkpoint=path)
    record(checkpoint=path, on_record=lambda step, values: got.append(step))
    assert got == [9, 11]


def test_the_core_records_under_vmap():
    def final(key):
        state = gl.training.start(PARAMS, optax.sgd(0.1), key)
        options = {"has_aux": True, "record": {"bias": RECORD["bias"]}, "record_every": 2}
        return gl.training.advance(loss, FINE, optax.sgd(0.1), state, 3, **options)[1].record

    both = jax.jit(jax.vmap(final))(jax.random.split(KEY))
    assert both.step.tolist() == [[0, 2], [0, 2]] and both.values["bias"].shape == (2, 2, 9)
    assert (both.values["bias"][0, 1] != both.values["bias"][1, 1]).any()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"record": {}}, ValueError, "record holds no function; give record={name: function"),
        ({"record": [eigenvalues]}, TypeError, "give record={name: function.*got a list"),
        ({"record": {"a": 1.0}}, TypeError, "record 'a' is a float; give record="),
        ({"record": {"a.b": eigenvalues}}, ValueError, r"record 'a\.b': a name is a text without"),
        ({"record": {3: eigenvalues}}, ValueError, "record 3: a name is a text"),
        ({"record": {"loss": eigenvalues}}, ValueError, "'loss' has a name of gradlab's own: tr"),
        ({"record": {"largest": eigenvalues}}, ValueError, "'largest' has the name of a metric"),
        ({"record_every": 0}, ValueError, "record_every must be an integer of at least 1, got 0"),
        ({"record_every": 2.5}, ValueError, "of at least 1, got 2.5"),
        ({"record": {"a": lambda p: "no"}}, TypeError, "'a' returns a str; it must return a numb"),
        ({"record": {"a": lambda p: KEY}}, TypeError, r"'a' returns key<fry>; it must return"),
        ({"record": {"a": lambda p: None}}, TypeError, "'a' returns nothing; it must return a"),
        ({"record": {"a": lambda p: jnp.log(-1.0)}}, ValueError, "'a' is NaN at update 0"),
    ],
)
def test_what_cannot_be_recorded_is_named(options, error, message):
    with pytest.raises(error, match=message):
        record(steps=EVERY, **options)


def test_an_error_of_a_record_names_it():
    def wrong(params):
        return np.linalg.eigvals(np.asarray(params["recurrent"]))

    with pytest.raises(jax.errors.TracerArrayConversionError) as error:
        record(record={"wrong": wrong})
    assert any("record 'wrong'" in note and "jax.numpy" in note for note in error.value.__notes__)


def test_a_record_that_turns_nan_is_warned_of():
    def sunk(w):
        return jnp.where(w > 0.5, jnp.nan, w)

    with pytest.warns(RuntimeWarning, match="record 'sunk' is NaN at update 2"):
        run = gl.train(
            lambda w, x: (w - x) ** 2, 0.0, lambda key, step: 1.0, optax.sgd(0.25), steps=4,
            key=KEY, record={"sunk": sunk, "low": lambda w: -jnp.inf}, record_every=1,
        )  # fmt: skip
    assert np.isnan(run.records["sunk"]).tolist() == [False, False, True, True, True]


def test_parameters_on_a_mesh_are_recorded_whole():
    # One device: the types of its arrays are those of many.
    mesh = jax.make_mesh((1,), ("rows",))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("rows", None))
    start = jax.device_put(jnp.arange(8.0).reshape(2, 4), place)
    run = gl.train(
        lambda w, x: ((w - x) ** 2).sum(), start, lambda key, step: 1.0, optax.sgd(0.25), steps=3,
        key=KEY, record={"w": lambda w: w, "rows": lambda w: w.sum(1)}, record_every=2,
    )  # fmt: skip
    expected = np.array([1 + (np.asarray(start) - 1) * 0.5**n for n in (0, 2, 3)])
    np.testing.assert_allclose(run.records["w"], expected, rtol=1e-12)
    np.testing.assert_allclose(run.records["rows"], expected.sum(2), rtol=1e-12)
