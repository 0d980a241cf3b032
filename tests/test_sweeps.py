"""Sweeps: what a run measures, and what becomes of results when things go wrong."""

import functools
import math
import shutil

import filelock
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import gradlab as gl
from gradlab import cells, frames, initializers, meanfield, sweeps, tasks
from gradlab.sweeps import chunks, measure, plan, store
from gradlab.tasks import probe

AXES = {
    "cell": ["elman", "lstm"],
    "init": ["normal", "orthogonal"],
    "gain": [0.5, 2.0],
    "length": [12],
    "seeds": 2,
}


def spec(**axes):
    return sweeps.parse({"axes": {**AXES, **axes}, "fixed": {"hidden": 8, "inputs": 3}})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep") / "out"
    return folder, sweeps.sweep(spec(), folder)


@pytest.fixture
def copied(tiny, tmp_path):
    """The tiny sweep's folder, for a test that will damage it."""
    shutil.copytree(tiny[0], tmp_path / "out")
    return tmp_path / "out"


# What is measured


def test_rate_of_a_straight_line_is_its_slope():
    slope, stderr = measure.rate(-0.25 * np.arange(50)[::-1] + 3)
    assert slope == pytest.approx(-0.25, abs=1e-12) and stderr == pytest.approx(0, abs=1e-12)


def test_rate_is_the_least_squares_slope():
    y = np.random.default_rng(0).normal(size=(3, 101)).cumsum(axis=1)
    lag = np.arange(10, 91)
    expected = [np.polyfit(lag, row[::-1][10:91], 1)[0] for row in y]
    np.testing.assert_allclose(measure.rate(y)[0], expected, rtol=1e-9)


@pytest.mark.parametrize("correlation", [0.0, 0.5, -0.5])
def test_stderr_is_the_spread_over_repetitions(correlation):
    """The error bar from one sequence is the scatter that many sequences show."""
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(2000, 1000))
    for t in range(1, 1000):
        noise[:, t] += correlation * noise[:, t - 1]
    slope, stderr = measure.rate((noise - 0.1).cumsum(axis=1)[:, ::-1])
    assert np.mean(slope) == pytest.approx(-0.1, abs=0.01)
    assert np.sqrt(np.mean(stderr**2)) == pytest.approx(np.std(slope), rel=0.2)


@pytest.mark.parametrize("length", [1, 2, 3, 10])
def test_short_and_broken_sequences_give_nan_not_a_crash(length):
    curve = np.zeros((1, length))
    assert np.isnan(measure.rate(np.full((1, length), np.nan))[0]).all()
    assert np.isnan(measure.horizon(curve)).all()
    assert np.isnan(measure.rate(curve)[0]).all() == (length < 2)


def test_horizon_is_where_float32_loses_the_gradient():
    steep = np.log(2.0) * np.arange(100)[::-1]
    assert measure.horizon(-steep) == 24  # 2^-23 is eps itself, 2^-24 is below
    assert measure.horizon(steep) == 24
    assert np.isnan(measure.horizon(0.01 * steep))


def run(**changes):
    base = dict(
        cell="elman", activation="tanh", init="normal", gain=1.0, forget_bias=None,
        input="gaussian", input_scale=0.3, bias_scale=0.0, length=12, hidden=8, inputs=3, seed=0,
    )  # fmt: skip
    return plan.Run(**{**base, **changes})


def rows(runs):
    measured = measure.curves(runs)
    return measure.records(runs, measured, [{}] * len(runs))


@pytest.mark.parametrize("source", tasks.input_names())
@pytest.mark.parametrize("name", cells.names())
def test_a_run_is_the_gradient_of_the_probe(name, source):
    """Rebuilt by hand in float64: draw, unroll, differentiate."""
    coordinates = run(
        cell=name,
        activation="tanh" if name == "elman" else None,
        forget_bias=2.0 if name == "lstm" else None,
        input=source,
        seed=3,
        gain=1.5,
    )
    (row,) = rows([coordinates])
    key = functools.partial(measure._key, 3)
    options = {"forget_bias": 2.0} if name == "lstm" else {}
    cell = cells.make(
        name,
        inputs=3,
        hidden=8,
        recurrent=initializers.normal(1.5),
        input=initializers.normal(0.3),
        **options,
    )
    params = cell.init(key("params", name, "normal", 8, 3), jnp.float32)
    params = jax.tree.map(lambda p: p.astype(jnp.float64), params)
    xs = tasks.make_input(source)(key("input", source), 12, 3, jnp.float32).astype(jnp.float64)
    direction = probe.direction(key("direction", 8), 8, jnp.float32).astype(jnp.float64)

    def loss(kicks):
        state = cell.start(jnp.float64)
        for t in range(12):
            state = jax.tree.map(lambda h, k, t=t: h + k[t], cell.step(params, state, xs[t]), kicks)
        return direction @ cell.read(state)

    zeros = jax.tree.map(lambda h: jnp.zeros((12, *h.shape)), cell.start(jnp.float64))
    leaves = jax.tree.leaves(jax.jit(jax.grad(loss))(zeros))
    adjoint = np.concatenate([np.asarray(leaf) for leaf in leaves], axis=1)
    expected = np.log(np.linalg.norm(adjoint, axis=1))
    np.testing.assert_allclose(row["log_norms"], expected[::-1], atol=1e-4)
    assert row["lags"].tolist() == list(range(12))
    assert row["log_gain"] == pytest.approx(expected[0] - expected[-1], abs=1e-4)


def test_a_run_does_not_depend_on_its_company():
    alone = rows([run(seed=1)])[0]
    among = rows([run(seed=5, gain=2.0), run(seed=1), run(seed=9)])[1]
    np.testing.assert_allclose(alone["log_norms"], among["log_norms"], atol=1e-5)


def test_linear_orthogonal_runs_have_the_exact_rate():
    """W = g Q: every step scales the adjoint by g, whatever the input."""
    gains = [0.5, 1.0, 2.0]
    for gain, row in zip(
        gains,
        rows([run(activation="linear", init="orthogonal", gain=g, length=200) for g in gains]),
        strict=True,
    ):
        assert row["rate"] == pytest.approx(math.log(gain), abs=1e-5)
        expected = {0.5: "vanishing", 1.0: "stable", 2.0: "nonfinite"}[gain]
        assert (row["verdict"], row["status"] == "ok") == (expected, gain < 2)


def test_wide_tanh_networks_follow_mean_field():
    theory = meanfield.elman("tanh", 1.5, input_variance=0.3**2)
    wide = [run(gain=1.5, hidden=400, length=300, seed=s) for s in range(4)]
    mean = np.mean([row["rate"] for row in rows(wide)])
    assert mean == pytest.approx(theory.rate + theory.finite_width_bias(400), abs=0.02)
    assert measure.predicted_rate(wide[0]) == theory.rate
    assert math.isnan(measure.predicted_rate(run(cell="gru", activation=None)))


def test_overflow_is_a_row_that_says_so():
    (row,) = rows([run(activation="relu", gain=8.0, length=400)])
    assert (row["status"], row["verdict"]) == ("nonfinite", "nonfinite")
    assert 1 < row["first_nonfinite_step"] < 400
    frame = frames.runs_frame([{k: v for k, v in row.items() if k not in ("lags", "log_norms")}])
    assert len(frame) == 1


def test_exact_zero_is_a_row_that_says_so():
    (row,) = rows([run(gain=0.0)])
    assert (row["status"], row["verdict"], row["horizon"]) == ("zero", "vanishing", 1)
    assert row["log_gain"] == -np.inf


# The plan


def test_axes_that_a_cell_lacks_do_not_multiply_its_runs():
    grid = sweeps.parse(
        {
            "axes": {"cell": ["elman", "lstm", "gru"], "forget_bias": [0.0, 1.0, 2.0]},
            "fixed": {"init": "normal", "gain": 1.0, "length": 5},
        }
    )
    counts = pd.Series([r.cell for r in plan.runs(grid)]).value_counts()
    assert counts.to_dict() == {"elman": 1, "lstm": 3, "gru": 1}


def test_run_ids_name_coordinates():
    runs = list(plan.runs(spec()))
    assert len({r.run_id for r in runs}) == len(runs) == 16
    assert runs[0].run_id == runs[0]._replace().run_id != runs[0]._replace(gain=0.51).run_id


# Bad input


@pytest.mark.parametrize(
    "text, message",
    [
        ("[axes\n", r"bad.toml: broken TOML: .*line 1"),
        ("# two\ngain = [1.0", r"bad.toml: broken TOML: Unclosed array .at line 2, the end"),
        ("[axis]\n", r"unknown section 'axis'; did you mean 'axes'\? valid: axes, fixed"),
        ("[axes]\ngian = [1.0]", r"unknown key in \[axes\] 'gian'; did you mean 'gain'\? val"),
        ("[axes]\ncell = ['lstn']", "axes.cell.0.: unknown cell 'lstn'; did you mean 'lstm'. val"),
        ("[axes]\ninit = ['orth']", "axes.init.0.: unknown initializer 'orth'.*glorot"),
        ("[axes]\ninput = ['text']", "unknown input 'text'.*gaussian, reviews"),
        ("[axes]\ngain = []", "axes.gain: an axis needs at least one value"),
        ("[axes]\ngain = [1.0, nan]", r"axes.gain\[1\]: must be finite, got nan"),
        ("[axes]\ngain = [inf]", r"axes.gain\[0\]: must be finite, got inf"),
        ("[axes]\ngain = [1e39]", r"axes.gain\[0\]: must be finite in float32, got 1e\+39"),
        ("[axes]\ngain = ['a']", r"axes.gain\[0\]: .*valid number.*'a'"),
        ("[axes]\nlength = [10, 0]", r"axes.length\[1\]: .*greater than or equal to 1, got 0"),
        ("[fixed]\nhidden = 0", r"fixed.hidden\[0\]: .*greater than or equal to 1, got 0"),
        ("[axes]\nlength = [10, 10]", "axes.length: values twice: 10"),
        ("[axes]\ngain = 1.0", r"axes.gain must be a list"),
        ("[fixed]\ngain = [1.0]", r"fixed.gain must be one value"),
        ("[axes]\ngain = [1.0]\n[fixed]\ngain = 1.0", "gain is given twice"),
        ("[axes]\nseeds = 0", "at least 1, got 0"),
        ("axes = 3", "axes must be a table"),
        ("", "cell is missing; give it"),
    ],
)
def test_bad_specs_get_one_clear_message(tmp_path, text, message):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    complete = {"cell": "['gru']", "init": "['normal']", "gain": "[1.0]", "length": "[5]"}
    given = {line.split(" =")[0] for line in text.splitlines()}
    extra = "".join(f"{k} = {v}\n" for k, v in complete.items() if k not in given)
    if text.startswith("[axes]"):
        path.write_text(text.replace("[axes]\n", "[axes]\n" + extra, 1))
    elif text.startswith("[fixed]"):
        path.write_text(text + "\n[axes]\n" + extra)
    with pytest.raises(ValueError, match=message) as error:
        sweeps.load(path)
    assert "\n" not in str(error.value)


def test_missing_spec(tmp_path):
    with pytest.raises(ValueError, match="none.toml: no such file"):
        sweeps.load(tmp_path / "none.toml")


# The store


def test_everything_is_written_and_read_back(tiny):
    folder, report = tiny
    results = gl.read(folder)
    assert report.computed == report.total == len(results.runs) == 16
    assert len(results.steps) == 16 * 12
    assert list(results.runs.columns) == list(frames.RUNS)
    assert results.manifest["status"] == "complete"
    assert all(path.exists() for path in report.paths)
    assert (folder / "figures" / "phase-gaussian.pdf").exists()
    audited = results.runs[results.runs["init"] == "orthogonal"]
    np.testing.assert_allclose(audited["spectral_radius"], audited["gain"], rtol=1e-5)
    assert (audited["orthogonality_error"] < 1e-5).all()


def test_a_second_call_runs_nothing(tiny, monkeypatch):
    folder, first = tiny
    monkeypatch.setattr(measure, "curves", lambda *_, **__: pytest.fail("a run was repeated"))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    again = sweeps.sweep(spec(), folder)
    assert again.computed == 0
    pd.testing.assert_frame_equal(again.results.runs, first.results.runs)
    unchanged = {p: p.stat().st_mtime_ns for p in before if p.name != ".lock"}
    assert unchanged == {p: t for p, t in before.items() if p.name != ".lock"}


def test_a_longer_axis_runs_only_what_is_new(copied):
    report = sweeps.sweep(spec(gain=[0.5, 1.0, 2.0]), copied)
    assert (report.computed, report.total) == (8, 24)


@pytest.mark.parametrize("damage", ["cut short", "one bit"])
def test_a_damaged_chunk_is_found_and_run_again(copied, tiny, damage):
    victim = sorted((copied / "chunks").glob("*.parquet"))[0]
    content = bytearray(victim.read_bytes())
    if damage == "cut short":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    report = sweeps.sweep(spec(), copied)
    assert report.damaged == (victim.name,) and 0 < report.computed < 16
    pd.testing.assert_frame_equal(report.results.runs, tiny[1].results.runs, atol=1e-5)


def test_another_specs_results_are_refused_and_left_alone(copied):
    before = {p: p.read_bytes() for p in copied.rglob("*") if p.is_file()}
    with pytest.raises(ValueError, match="holds results of another spec .16 runs.*--out"):
        sweeps.sweep(spec(length=[13]), copied)
    assert before == {p: p.read_bytes() for p in copied.rglob("*") if p.is_file()}


def test_somebodys_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="holds files that no sweep made .thesis.tex"):
        sweeps.sweep(spec(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_somebodys_parquet_file_is_never_taken_for_a_damaged_chunk(tmp_path, copied):
    mine = tmp_path / "mine" / "chunks"
    mine.mkdir(parents=True)
    for folder in (mine, copied / "chunks"):
        (folder / "data.parquet").write_bytes(b"years of work")
        with pytest.raises(ValueError, match="no sweep made .chunks/data.parquet"):
            sweeps.sweep(spec(), folder.parent)
        assert (folder / "data.parquet").read_bytes() == b"years of work"


@pytest.mark.parametrize("left", ["no chunks", "only runs.parquet", "damaged chunks"])
def test_another_specs_frames_are_refused_without_its_chunks(copied, left):
    if left == "damaged chunks":
        for path in (copied / "chunks").iterdir():
            path.write_bytes(b"")
    else:
        shutil.rmtree(copied / "chunks")
    if left == "only runs.parquet":
        (copied / "manifest.json").unlink()
    before = {p: p.read_bytes() for p in copied.rglob("*.*") if p.is_file() and p.name != ".lock"}
    with pytest.raises(ValueError, match="holds results of another spec"):
        sweeps.sweep(spec(length=[13]), copied)
    assert all(path.read_bytes() == content for path, content in before.items())


@pytest.mark.parametrize(
    "name", ["runs.parquet", "steps.parquet", "summary.csv", "manifest.json", "figures"]
)
@pytest.mark.parametrize("damage", ["removed", "cut short"])
def test_what_follows_from_the_chunks_is_made_again(copied, tiny, monkeypatch, name, damage):
    monkeypatch.setattr(measure, "curves", lambda *_, **__: pytest.fail("a run was repeated"))
    victim = copied / name
    victim = sorted(victim.glob("*.png"))[0] if victim.is_dir() else victim
    content = victim.read_bytes()
    victim.unlink() if damage == "removed" else victim.write_bytes(content[: len(content) // 2])
    report = sweeps.sweep(spec(), copied)
    assert report.computed == 0
    pd.testing.assert_frame_equal(report.results.runs, tiny[1].results.runs)
    if name != "manifest.json":
        assert victim.read_bytes() == content


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="cannot write to"):
        sweeps.sweep(spec(), tmp_path / "file")
    with pytest.raises(ValueError, match="cannot write to"):
        sweeps.sweep(spec(), tmp_path / "file" / "below")


def test_a_folder_in_use_is_refused(copied):
    with filelock.FileLock(copied / ".lock"), pytest.raises(ValueError, match="is in use"):
        sweeps.sweep(spec(), copied)


def test_a_stopped_sweep_goes_on_where_it_was(tmp_path, tiny, monkeypatch):
    calls = []

    def stop(done, total, label):
        calls.append(done)
        if done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweeps.sweep(spec(), tmp_path / "out", stop)
    report = sweeps.sweep(spec(), tmp_path / "out")
    assert report.computed == 16 - calls[-1]
    pd.testing.assert_frame_equal(report.results.runs, tiny[1].results.runs, atol=1e-5)


def test_chunk_files_appear_whole_or_not_at_all(tmp_path, monkeypatch):
    with store.open_store(tmp_path / "out", set()) as opened:
        monkeypatch.setattr(store.os, "fsync", lambda _: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            opened.add(rows([run()]))
        assert list((tmp_path / "out" / "chunks").iterdir()) == []


def test_chunk_size_is_measured_once_and_bounded_by_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    measured = []
    monkeypatch.setattr(measure, "curves", lambda batch, **_: measured.append(len(batch)))
    assert chunks.size(run(), 15) == 15 and not measured
    assert chunks.size(run(), 20) in (4, 16) and set(measured) == {4, 16}
    chunks._remember(run(), 64)
    measured.clear()
    assert chunks.size(run(), 1000) == 64 and not measured
    long = run(length=1_000_000, hidden=8)
    assert chunks.size(long, 1000) == 2**30 // (4 * 16 * 8 * 1_000_000)


def test_compare_finds_a_difference_and_accepts_none(tiny):
    summary = frames.summary(tiny[1].results.runs)
    assert frames.compare(summary, summary)["agrees"].all()
    moved = summary.assign(rate_median=summary["rate_median"] + 0.02)
    compared = frames.compare(moved, summary).set_index("column")
    assert not compared.loc["rate_median", "agrees"]
    assert compared.loc["rate_median", "difference"] == pytest.approx(0.02)
    with pytest.raises(ValueError, match="different points"):
        frames.compare(summary.iloc[1:], summary)
