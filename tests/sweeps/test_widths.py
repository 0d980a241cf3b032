"""The sweep of coordinate checks against a training in NumPy, and its figure."""

import jax
import jax.numpy as jnp
import matplotlib.colors
import numpy as np
import pandas as pd
import pytest

import gradlab as gl
from gradlab.sweeps.gradients.curves import key_for, pin_settings

RATE, UPDATES, LENGTH, BATCH = 0.3, 2, 4, 3
SPEC = {"measurement": "coordinates", "task": "adding", "length": LENGTH, "cell": "elman",
        "hidden": [3, 6], "optimizer": "sgd", "learning_rate": RATE, "updates": UPDATES,
        "batch": BATCH, "gain": 1.5}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coordinates") / "out"
    gl.sweep(SPEC, folder)
    return folder


def network(hidden):
    """The parameters in float64, and the batches: that of the probe, and those of the updates."""
    task = gl.tasks.make("adding", length=LENGTH)
    recurrent = gl.initializers.orthogonal(gain=1.5)
    cell = gl.cells.make("elman", inputs=2, hidden=hidden, recurrent=recurrent)

    @jax.jit
    def draw():
        params = gl.tasks.network(cell, 1).init(
            key_for(jnp.uint32(0), f"params elman {hidden}"), jnp.float32
        )
        probe, key = jax.random.split(key_for(jnp.uint32(0), "batches adding"))
        sample = gl.tasks.batch_sampler(task, BATCH, jnp.float32)
        batches = [sample(probe, 0)]
        batches += [sample(jax.random.fold_in(key, u), u) for u in range(UPDATES)]
        return params, batches

    with pin_settings():
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), draw())


def by_hand(params, batch):
    """h_1..h_T and λ_1..λ_T of the mean squared error, (T, B, n), and the gradient."""
    W, U, b = (params["cell"][name] for name in ("recurrent", "input", "bias"))
    V, c = params["readout"]["weight"], params["readout"]["bias"]
    xs, targets = batch
    h = [np.zeros((BATCH, len(W)))]
    for t in range(LENGTH):
        h.append(np.tanh(h[-1] @ W.T + xs[:, t] @ U.T + b))
    residual = 2 * ((h[-1] @ V.T + c)[:, 0] - targets.reshape(BATCH)) / BATCH
    adjoint, adjoints = residual[:, None] * V, []
    gradient = jax.tree.map(np.zeros_like, params)
    gradient["readout"] = {"weight": residual[None] @ h[-1], "bias": residual.sum()[None]}
    for t in range(LENGTH, 0, -1):
        adjoints.append(adjoint)
        inner = (1 - h[t] ** 2) * adjoint
        gradient["cell"]["recurrent"] += inner.T @ h[t - 1]
        gradient["cell"]["input"] += inner.T @ xs[:, t - 1]
        gradient["cell"]["bias"] += inner.sum(0)
        adjoint = inner @ W
    return np.array(h[1:]), np.array(adjoints[::-1]), gradient


def size(x):
    return np.log(np.sqrt(np.mean(x**2)))


def test_sizes_are_those_of_a_training_by_hand(folder):
    results = gl.read(folder)
    assert results.runs["hidden"].tolist() == [3, 6] and set(results.runs["status"]) == {"ok"}
    for row in results.runs.itertuples():
        params, (probe, *batches) = network(row.hidden)
        curves, steps = (
            table[table["run_id"] == row.run_id].reset_index(drop=True)
            for table in (results.curves, results.steps)
        )
        assert curves["training_step"].tolist() == [0, 1, 2]
        first = by_hand(params, probe)[0]
        for u in range(UPDATES + 1):
            h, adjoints, _ = by_hand(params, probe)
            assert curves["log_state"][u] == pytest.approx(size(h), abs=1e-5)
            if u:
                assert curves["log_update"][u] == pytest.approx(size(h - first), abs=1e-4)
            at = steps[steps["training_step"] == u]
            assert at["step"].tolist() == [4, 3, 2, 1] and at["lag"].tolist() == [0, 1, 2, 3]
            expected = [size(adjoint) for adjoint in adjoints[::-1]]
            np.testing.assert_allclose(at["log_adjoint"], expected, atol=1e-4)
            if u < UPDATES:
                gradient = by_hand(params, batches[u])[2]
                params = jax.tree.map(lambda p, g: p - RATE * g, params, gradient)
        assert np.isneginf(curves["log_update"][0])
        assert row.log_state == curves["log_state"][2]
        assert row.log_update == curves["log_update"][2]
        assert row.log_adjoint == steps["log_adjoint"].iloc[-1]
    assert {"log_update_median", "log_adjoint_max"} <= set(gl.frames.read_summary(folder))


def test_the_figure_is_drawn_from_a_folder_and_from_its_frames(folder, tmp_path):
    results = gl.read(folder)
    assert [path.name for path in (folder / "figures").iterdir()] == ["width-adding.png"]
    (path,) = gl.figures.draw(results, tmp_path)
    assert path.read_bytes() == (folder / "figures" / "width-adding.png").read_bytes()
    state, update, adjoint = gl.figures.width(results).axes
    for u, line in enumerate(state.lines):
        at = results.curves[results.curves["training_step"] == u]
        assert line.get_xdata().tolist() == [3, 6]
        assert line.get_ydata().tolist() == at["log_state"].tolist()
    assert np.isnan(update.lines[0].get_ydata()).all()  # exactly zero before training
    at = results.steps[(results.steps["training_step"] == 2) & (results.steps["step"] == 1)]
    assert adjoint.lines[2].get_ydata().tolist() == at["log_adjoint"].tolist()


def frames_of(runs, updates):
    """The frames of runs whose sizes are their numbers."""
    runs = gl.frames.KINDS["coordinates"].runs.keys(), runs
    table = pd.DataFrame(runs[1]).reindex(columns=list(runs[0])).assign(updates=updates)
    table["run_id"] = [f"run {k}" for k in range(len(table))]
    steps = range(updates + 1)
    done = table[table["status"] != "failed"]
    curves = [{"run_id": name, "training_step": u, "log_state": -1.0 * u, "log_update": u}
              for name in done["run_id"] for u in steps]  # fmt: skip
    adjoints = [{"run_id": name, "training_step": u, "step": 9 - lag, "lag": lag,
                 "log_adjoint": -10.0 * lag} for name in done["run_id"] for u in steps
                for lag in (0, 8)]  # fmt: skip
    manifest = {"kind": "coordinates"}
    return gl.frames.TrainingResults(table, pd.DataFrame(curves), pd.DataFrame(adjoints), manifest)


def test_every_network_has_its_panels_and_a_failed_run_is_noted(tmp_path, monkeypatch):
    run = {"task": "adding", "hidden": 8, "seed": 0, "status": "ok"}
    cells = [f"cell {k}" for k in range(3)]
    runs = [run | {"cell": cell, "hidden": hidden} for cell in cells for hidden in (8, 16)]
    runs.append(run | {"cell": "cell 0", "seed": 1, "status": "failed"})
    results = frames_of(runs, updates=9)
    fig = gl.figures.width(results)
    assert [ax.get_title(loc="left") for ax in fig.axes[::3]] == cells
    first = fig.axes[0]
    labels = [text.get_text() for text in fig.legends[0].get_texts()]
    assert labels == [f"after {u} updates" for u in (0, 1, 2, 4, 8, 9)]
    assert len({matplotlib.colors.to_hex(line.get_color()) for line in first.lines}) == 6
    assert any("1 of 2 values are NaN" in text.get_text().replace("\n", " ")
               for text in first.texts)  # fmt: skip
    assert fig.axes[2].lines[0].get_ydata().tolist()[1] == -80.0
    monkeypatch.setattr(gl.figures, "NETWORKS", 2)
    monkeypatch.setattr(gl.figures, "save", lambda fig, stem, formats: [stem.with_suffix(".png")])
    names = [path.name for path in gl.figures.draw(results, tmp_path)]
    assert names == ["width-adding.png", "width-adding-2.png"]


def test_a_training_that_is_not_finite_has_no_sizes_from_there(tmp_path, monkeypatch):
    monkeypatch.setattr(gl.figures, "draw", lambda *_, **__: [])
    spec = SPEC | {"hidden": 3, "learning_rate": 1e38, "updates": 3}
    results = gl.sweep(spec, tmp_path).results
    assert results.runs["status"].tolist() == ["nonfinite"]
    assert results.runs[["log_state", "log_update", "log_adjoint"]].isna().all(axis=None)
    assert results.curves["log_state"].notna().tolist()[0]
    bad = results.curves["log_state"].isna()
    assert bad.is_monotonic_increasing and bad.iloc[-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cell": "elmann"}, r"elmann.*elman"),
        ({"clip_norm": 1.0}, "unknown key 'clip_norm'"),
        ({"updates": 0}, "updates"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_runs(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        gl.sweep(SPEC | change, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_remedy_of_the_users_is_refused(tmp_path):
    @gl.remedies.register
    def shrink(strength):
        return gl.remedies.Remedy()

    try:
        with pytest.raises(ValueError, match="without remedies.*shrink"):
            gl.sweep(SPEC | {"shrink": 0.5}, tmp_path / "out")
    finally:
        gl.remedies.REGISTRY.remove("shrink")
