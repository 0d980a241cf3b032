"""What a sweep of training records of the parameters, against gl.train, NumPy and no record."""

import hashlib
import io
import json
import tomllib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pyarrow.parquet as pq
import pytest

import gradlab as gl
from gradlab import _sums, report, sweeps
from gradlab.frames.training import RECORDERS
from gradlab.grid import Plan
from gradlab.sweeps.gradients.curves import key_for, pin_settings
from gradlab.sweeps.training.recorders import BUILDERS
from gradlab.training import recorders

SPEC = {
    "task": "adding", "length": 5, "cell": "gru", "learning_rate": 0.02, "updates": 4, "batch": 3,
    "hidden": 4, "evaluate_every": 2, "evaluation": 20,
}  # fmt: skip
FRAMES = ("runs.parquet", "curves.parquet", "steps.parquet", "records.parquet")
DRAW = gl.figures.draw


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """One test draws those of a sweep that records."""
    monkeypatch.setattr(gl.figures, "draw", lambda *_, **__: [])


def test_all_ready_recorders_but_the_states_have_a_name():
    assert {*RECORDERS} == {*BUILDERS} == {*recorders.__all__} - {"states"}


OF_ORBITS = ("fixed_point_eigenvalues", "jacobian_eigenvalues", "lyapunov", "participation_ratio")
OTHERS = tuple(name for name in RECORDERS if name not in OF_ORBITS)


def sweep_and_training(names, folder):
    """What a sweep records, and the training of the same run by gl.train."""
    results = gl.sweep(SPEC | {"record": " ".join(names), "seed": 1}, folder).results
    # In float32, as the sweep: the frame that exponents start from is drawn in the default float.
    with pin_settings():
        return results, train(names)


def train(names):
    task = gl.tasks.make("adding", length=5)
    cell = gl.cells.make("gru", inputs=2, hidden=4)
    net = gl.tasks.network(cell, 1)
    loss = gl.tasks.batch_loss(net, task)
    seed = jnp.uint32(1)
    sample = gl.tasks.batch_sampler(task, 3, jnp.float32)
    params, batch = jax.jit(
        lambda: (
            net.init(key_for(seed, "params gru 4"), jnp.float32),
            sample(key_for(seed, "evaluation adding"), 1),
        )
    )()
    xs, _ = batch

    def step(params, state, x):
        return cell.step(params["cell"], state, x)

    def matrix(params):
        return params["cell"]["recurrent"].reshape(3, 4, 4)

    def states(params):
        return jax.vmap(lambda x: recorders.states(step, jnp.zeros(4), x)(params))(xs)

    def fixed_points(params):
        ends = states(params)[:, -1]
        return recorders.fixed_point_eigenvalues(step, ends, jnp.zeros(2))(params)

    orbit = step, jnp.zeros(4), xs[0]
    record = {
        "eigenvalues": recorders.eigenvalues(matrix),
        "fixed_point_eigenvalues": fixed_points,
        "hessian_eigenvalues": recorders.hessian_eigenvalues(loss, batch, has_aux=True),
        "jacobian_eigenvalues": recorders.jacobian_eigenvalues(*orbit),
        "log_gradient_norms": recorders.log_gradient_norms(loss, batch, has_aux=True),
        "log_norms": recorders.log_norms(),
        "lyapunov": recorders.lyapunov(*orbit, k=4),
        "participation_ratio": recorders.participation_ratio(states),
        "singular_values": recorders.singular_values(matrix),
        "spectral_radius": recorders.spectral_radius(matrix),
        "time_constants": recorders.time_constants(cell, lambda params: params["cell"]),
    }
    record = {name: record[name] for name in names}
    return gl.train(
        loss, params, sample, optax.adam(0.02), steps=4, key=key_for(seed, "batches adding"),
        has_aux=True, record=record, record_every=2,
    )  # fmt: skip


@pytest.mark.parametrize("names", [OF_ORBITS, OTHERS], ids=["orbits", "others"])
def test_rows_are_those_of_a_training_that_records(names, tmp_path):
    results, training = sweep_and_training(names, tmp_path)
    found, expected = results.records, gl.frames.records(training)
    assert list(found) == ["run_id", *expected] and set(found.run_id) == {results.runs.run_id[0]}
    keys = ["training_step", "name", "index"]
    found, expected = (table.sort_values(keys, ignore_index=True) for table in (found, expected))
    pd.testing.assert_frame_equal(found[keys], expected[keys])
    assert set(found.training_step) == {0, 2, 4}
    assert {name.partition(".")[0] for name in found.name} == {*names}
    # The search for fixed points ends within 6e-6; of two eigenvalues of equal size either may
    # come first, so those are compared by their size.
    is_search = found.name == "fixed_point_eigenvalues"
    for rows, tolerance in ((~is_search, 1e-5), (is_search, 1e-3)):
        sizes = [np.hypot(t.value, t.imag.fillna(0))[rows] for t in (found, expected)]
        np.testing.assert_allclose(*sizes, rtol=10 * tolerance, atol=tolerance)
    real = found.imag.isna()
    np.testing.assert_allclose(found.value[real], expected.value[real], rtol=1e-4, atol=1e-5)
    assert (expected.imag.isna() == real).all()


def test_matrices_of_the_last_parameters_in_numpy(tmp_path):
    results, training = sweep_and_training(
        ("log_norms", "singular_values", "spectral_radius"), tmp_path
    )
    last = results.records[results.records.training_step == 4].set_index("name")
    stack = np.asarray(training.params["cell"]["recurrent"], np.float64).reshape(3, 4, 4)
    np.testing.assert_allclose(
        last.value["singular_values"], np.linalg.svd(stack, compute_uv=False).ravel(), rtol=1e-4
    )
    radii = np.abs(np.linalg.eigvals(stack)).max(1)
    np.testing.assert_allclose(last.value["spectral_radius"], radii, rtol=1e-4)
    weight = np.asarray(training.params["readout"]["weight"], np.float64)
    norm = np.log(np.linalg.norm(weight))
    assert last.value["log_norms.readout.weight"] == pytest.approx(norm, abs=1e-5)
    names = [path.stem for path in DRAW(tmp_path, tmp_path / "figures")]
    assert names[-1] == "records-adding" and len(names) == 4
    # Drawn from the results as from the folder.
    panels = gl.figures.records(results).axes
    radius = next(ax for ax in panels if "radius" in ax.get_ylabel())
    np.testing.assert_allclose([line.get_ydata()[-1] for line in radius.lines[:3]], radii, 1e-4)


def test_a_record_changes_no_other_number(tmp_path):
    spec = SPEC | {"learning_rate": [0.02, 1e38], "optimizer": "sgd", "seeds": 2}
    plain = gl.sweep(spec, tmp_path / "plain").results
    recorded = gl.sweep(
        spec | {"record": "spectral_radius log_norms"}, tmp_path / "recorded"
    ).results
    assert set(plain.runs.status) == {"unsolved", "nonfinite"} and plain.records.empty
    for frame in ("runs", "curves", "steps"):
        both = (getattr(each, frame) for each in (plain, recorded))
        left, right = (t.drop(columns=["run_id", "record"], errors="ignore") for t in both)
        pd.testing.assert_frame_equal(left, right, check_exact=True)
    # The records stand where the curves do, also of a run that ends early.
    points = (table[["run_id", "training_step"]].drop_duplicates().reset_index(drop=True)
              for table in (recorded.records, recorded.curves))  # fmt: skip
    pd.testing.assert_frame_equal(*points)


def test_a_window_cuts_the_gradient_and_not_the_curvature(tmp_path):
    spec = SPEC | {"window": [0, 2], "updates": 1, "evaluate_every": 1, "cell": "elman"}
    spec |= {"record": "hessian_eigenvalues log_gradient_norms"}
    results = gl.sweep(spec, tmp_path / "out").results
    table = results.records.merge(results.runs[["run_id", "window"]], on="run_id")
    table = table[table.training_step == 0]
    table = table.pivot(index="name", columns="window", values="value")
    assert table.loc["hessian_eigenvalues", 0] == pytest.approx(
        table.loc["hessian_eigenvalues", 2], rel=1e-4
    )
    apart = table[0] - table[2]
    assert abs(apart["log_gradient_norms.cell.recurrent"]) > 1e-3
    assert abs(apart["log_gradient_norms.readout.weight"]) < 1e-5


def test_names_are_a_set():
    one, same, none, off = (
        sweeps.parse(SPEC | record)
        for record in (
            {"record": "lyapunov spectral_radius"},
            {"record": " spectral_radius  lyapunov lyapunov"},
            {},
            {"record": ""},
        )
    )
    ids = [[run.run_id for run in Plan(spec)] for spec in (one, same, none, off)]
    assert ids[0] == ids[1] != ids[2] == ids[3]
    assert one.record == ["lyapunov spectral_radius"] and off.record == [None]
    # What a manifest keeps gives the same runs.
    again = type(none)(**json.loads(json.dumps(none.model_dump())))
    assert [run.run_id for run in Plan(again)] == ids[2]


def test_a_report_shows_the_spec_as_a_file_that_gives_the_same_runs():
    for record in ({}, {"record": ["", "lyapunov"]}):
        spec = sweeps.parse(SPEC | record)
        shown = tomllib.loads(report._spec(json.loads(json.dumps(spec.model_dump()))))
        assert [run.run_id for run in Plan(sweeps.parse(shown))] == [r.run_id for r in Plan(spec)]


def test_what_cannot_be_recorded_is_one_message(tmp_path):
    with pytest.raises(ValueError, match="unknown recorder 'radius'.*valid: eigenvalues, fixed_"):
        sweeps.parse(SPEC | {"record": "lyapunov radius"})
    # A leak gives a cell without gates time constants.
    for cells, leaks in ((["gru", "elman"], [1.0]), ("elman", [0.5, 1.0])):
        spec = SPEC | {"cell": cells, "leak": leaks, "record": "time_constants"}
        with pytest.raises(ValueError, match="record time_constants: the cell elman has no gate"):
            gl.sweep(spec, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_a_sweep_that_is_stopped_and_resumed_has_the_same_records(tmp_path):
    spec = SPEC | {"record": "spectral_radius", "seeds": 3}
    gl.sweep(spec, tmp_path / "whole")

    def stop(done, total, label):
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gl.sweep(spec, tmp_path / "part", progress=stop)
    with pytest.warns(UserWarning, match="1 of its 3 runs"):
        part = gl.read(tmp_path / "part")
    assert len(part.runs) == 1 and len(part.records) == 3 * 3
    assert gl.sweep(spec, tmp_path / "part").computed == 2
    for name in FRAMES:
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def strip(folder):
    """Make a folder of what it was before there were records."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for path in [*(folder / "chunks").iterdir(), folder / "runs.parquet"]:
        table = pq.read_table(path)
        old = [name for name in table.column_names if name.partition(".")[0] not in
               ("record", "records")]  # fmt: skip
        assert len(old) < len(table.column_names)
        sink = io.BytesIO()
        pq.write_table(table.select(old), sink)
        if path.name != "runs.parquet":
            path.unlink()
            key = path.name.partition("-")[0]
            path = path.with_name(f"{key}-{_sums.of_bytes(sink.getvalue())}.parquet")
        path.write_bytes(sink.getvalue())
    (folder / "records.parquet").unlink()
    summary = pd.read_csv(folder / "summary.csv")
    summary.drop(columns="record").to_csv(folder / "summary.csv", index=False)
    del manifest["spec"]["record"], manifest["sum"]
    for sums in (manifest["blocks"], manifest["files"]):
        del sums["records.parquet"]
    for name in ("runs.parquet", "summary.csv"):
        with (folder / name).open("rb") as file:
            manifest["blocks"][name] = _sums.of_blocks(file)
            manifest["files"][name] = _sums.of_file(file)
    (folder / "manifest.json").write_text(json.dumps(_sums.seal(manifest)))


def test_a_folder_from_before_the_axis_is_read_and_extended(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    whole = gl.sweep(SPEC | {"seeds": 2}, new).results
    gl.sweep(SPEC, old)
    strip(old)
    found = gl.read(old)
    assert found.runs.record.isna().all() and found.records.empty
    assert list(found.records) == list(whole.records)
    assert gl.read(old, where={"training_step": 2}).records.empty
    assert len(gl.frames.to_csv(old)) == 4
    assert sweeps.status(old).finished
    for path in old.glob("*.csv"):
        path.unlink()
    report = gl.sweep(SPEC | {"seeds": 2}, old)
    assert (report.computed, report.total) == (1, 2)
    for name in FRAMES:
        assert (old / name).read_bytes() == (new / name).read_bytes()
    # Its points are those of now: a run without a record is the same run.
    assert gl.frames.read_summary(old).runs.tolist() == [2]


def test_a_folder_that_lost_its_records_is_damaged(tmp_path):
    gl.sweep(SPEC, tmp_path)
    (tmp_path / "records.parquet").unlink()
    with pytest.raises(ValueError, match=r"records.parquet missing"):
        gl.read(tmp_path)


def test_the_name_of_a_run_without_a_record_is_that_of_before():
    """By the rule of then: the version of the columns, and the values of all other axes."""
    schema = gl.frames.TRAINING
    (run,) = Plan(sweeps.parse(SPEC))
    columns = [*schema.measured, *schema.others["curves"], *schema.others["steps"]]
    assert list(schema.others) == ["curves", "steps"]
    version = hashlib.sha256(repr(("training", 4, *columns)).encode()).hexdigest()[:8]
    values = tuple(v for n, v in run._asdict().items() if n not in ("record", "code"))
    assert run.run_id == hashlib.sha256(repr((version, values)).encode()).hexdigest()[:16]
