"""Sweeps that train: their plan, one run against gl.train, and what stands in the store."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradlab as gl
from gradlab import sweeps
from gradlab.grid import Plan
from gradlab.sweeps import training
from gradlab.sweeps.training import programs, rows

FIXED = {
    "task": "adding",
    "length": 4,
    "cell": "gru",
    "learning_rate": 0.02,
    "updates": 6,
    "batch": 5,
    "hidden": 4,
    "evaluate_every": 2,
    "evaluation": 20,
}
REMEDIES = {
    "clip_norm": 0.1,
    "clip_value": 0.01,
    "omega": 1.0,
    "omega_squared": 1.0,
    "orthogonality": 1.0,
    "flossing": 1.0,
    "preflossing": 3,
    "chrono": 50.0,
    "window": 2,
    "leak": 0.5,
}


def spec(axes=None, **fixed):
    axes = axes or {}
    kept = {k: v for k, v in (FIXED | fixed).items() if k not in axes}
    return sweeps.parse({"axes": axes, "fixed": kept})


def planned(grid):
    return Plan(grid)


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """Those of `swept` are drawn, which comes first."""
    monkeypatch.setattr(gl.figures, "draw", lambda *_, **__: [])


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Two learning rates and two seeds, of which the higher rate is far too high."""
    folder = tmp_path_factory.mktemp("sweep") / "out"
    grid = spec({"learning_rate": [0.02, 1e38], "seeds": 2}, optimizer="sgd")
    return folder, sweeps.sweep(grid, folder)


def test_a_run_is_what_gl_train_makes_of_the_same_pieces(swept):
    folder, _ = swept
    results = gl.read(folder)
    run = next(r for r in planned(spec(optimizer="sgd", seed=1)))
    row = results.runs.set_index("run_id").loc[run.run_id]
    task = gl.tasks.make("adding", length=4)
    cell = gl.cells.make("gru", inputs=2, hidden=4, recurrent=gl.initializers.orthogonal(gain=1.0))
    net = gl.tasks.network(cell, 1)
    loss = gl.tasks.batch_loss(net, task)
    seed = jnp.uint32(1)
    start = jax.jit(lambda: net.init(programs.key_for(seed, "params gru 4"), jnp.float32))()
    made = gl.train(
        loss,
        start,
        gl.tasks.batch_sampler(task, 5, jnp.float32),
        optax.sgd(jnp.float32(0.02)),
        steps=6,
        key=programs.key_for(seed, "batches adding"),
        has_aux=True,
    )
    key = programs.key_for(seed, "evaluation adding")
    fresh = gl.tasks.batch_sampler(task, 20, jnp.float32)
    traced = gl.tasks.batch_sampler(task, 5, jnp.float32)
    trace = gl.trace(loss, argnums=(), has_aux=True)

    @jax.jit
    def evaluate(params):
        log_norm = trace(params, traced(key, 1)).scans[0].log_norm
        return loss(params, fresh(key, 0)), log_norm

    (value, aux), expected = evaluate(made.params)
    np.testing.assert_allclose(row["loss"], value, rtol=1e-5)
    np.testing.assert_allclose(row["error"], aux["error"], rtol=1e-5)
    assert (row["status"], row["trained"], row["baseline"]) == ("unsolved", 6, 1 / 6)
    steps = results.steps.query("run_id == @run.run_id and training_step == 6")
    assert steps.lag.tolist() == [0, 1, 2, 3] and steps.step.tolist() == [4, 3, 2, 1]
    np.testing.assert_allclose(steps.log_norm, np.asarray(expected)[::-1], rtol=0, atol=1e-4)
    slope = np.polyfit(steps.lag, steps.log_norm, 1)[0]
    assert abs(row["rate_after"] - slope) < 1e-6


def test_curves_have_a_row_per_evaluation(swept):
    folder, _ = swept
    results = gl.read(folder)
    whole = results.runs[results.runs.status == "unsolved"].run_id
    for name in whole:
        assert results.curves[results.curves.run_id == name].training_step.tolist() == [0, 2, 4, 6]
    last = results.curves[results.curves.training_step == 6].set_index("run_id")
    table = results.runs.set_index("run_id").loc[whole]
    assert last.loss.loc[whole].tolist() == table.loss.tolist()


def test_a_run_that_is_not_finite_ends_and_says_where(swept):
    runs = gl.read(swept[0]).runs
    bad = runs[runs.learning_rate > 1]
    assert bad.status.tolist() == ["nonfinite"] * 2
    assert (bad.first_nonfinite_step >= 1).all()
    assert (bad.trained == bad.first_nonfinite_step - 1).all()
    assert runs.first_nonfinite_step.isna().sum() == 2


def test_every_curve_ends_after_the_updates_that_were_made(swept):
    results = gl.read(swept[0])
    made = results.runs.set_index("run_id").trained
    for frame in (results.curves, results.steps):
        assert frame.groupby("run_id").training_step.max().to_dict() == made.to_dict()
    # An evaluation stands once, with every lag.
    assert not results.curves.duplicated(["run_id", "training_step"]).any()
    assert not results.steps.duplicated(["run_id", "training_step", "lag"]).any()


@pytest.mark.parametrize("failing", [1, 2, 3, 4])
def test_the_last_point_of_a_failed_run_is_that_of_its_last_update(monkeypatch, failing):
    """Updates 1 to 4 in turn give a loss that is not finite, with an evaluation after every 2."""
    (run,) = planned(spec(optimizer="sgd", updates=4))

    def fail(kind):
        def advance(loss, sample, optimizer, state, steps, **options):
            def failed(params, batch):
                value, aux = loss(params, batch[0])
                return jnp.where(batch[1] == failing - 1, jnp.nan, value), aux

            both = lambda key, step: (sample(key, step), step)  # noqa: E731
            return kind(failed, both, optimizer, state, steps, **options)

        return advance

    monkeypatch.setattr(programs.training, "advance", fail(programs.training.advance))
    programs.compile_programs.cache_clear()
    try:
        (row,) = rows.train([run], lambda _: None)
    finally:
        programs.compile_programs.cache_clear()
    assert (row["first_nonfinite_step"], row["trained"]) == (failing, failing - 1)
    made = failing - 1
    times = [step for step in (0, 2) if step < made] + [made]
    assert row["curves"]["training_step"].tolist() == times
    curves, steps = row["curves"], row["steps"]
    assert {len(column) for column in steps.values()} == {len(curves["loss"]) * run.length}
    assert curves["loss"][-1] == row["loss"] and np.isfinite(row["loss"])


def test_summary_and_manifest(swept):
    folder, report = swept
    assert (report.computed, report.total) == (4, 4)
    summary = gl.frames.trained_summary(gl.read(folder).runs)
    assert summary.nonfinite.tolist() == [0.0, 1.0] and summary.runs.tolist() == [2, 2]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["kind"], manifest["status"], manifest["runs"]) == ("training", "complete", 4)
    names = {p.name for p in (folder / "figures").glob("*.png")}
    assert names == {"learning-adding.png", "success-adding.png", "gradients-adding.png"}


def test_the_same_spec_again_runs_nothing_and_more_seeds_only_the_new(swept):
    folder, _ = swept
    before = gl.read(folder).runs
    axes = {"learning_rate": [0.02, 1e38], "seeds": 2}
    assert sweeps.sweep(spec(axes, optimizer="sgd"), folder).computed == 0
    report = sweeps.sweep(spec(axes | {"seeds": 3}, optimizer="sgd"), folder)
    assert (report.computed, report.total) == (2, 6)
    after = report.results.runs
    again = after[after.run_id.isin(before.run_id)].reset_index(drop=True)
    assert again.equals(before)


def test_a_run_does_not_depend_on_what_else_is_trained(swept, tmp_path):
    alone = sweeps.sweep(spec(optimizer="sgd", seed=1), tmp_path / "out").results.runs
    runs = gl.read(swept[0]).runs.set_index("run_id")
    assert runs.loc[alone.run_id[0], "loss"] == alone.loss[0]


def test_a_run_ends_where_it_is_solved(tmp_path):
    grid = spec(length=2, updates=1500, evaluate_every=100, hidden=8, learning_rate=0.03)
    results = sweeps.sweep(grid, tmp_path / "out").results
    row = results.runs.iloc[0]
    assert row.status == "solved" and 0 < row.trained == row.solved_step < 1500
    assert results.curves.training_step.max() == row.trained
    assert row.error <= gl.tasks.make("adding", length=2).solved


def test_sweeps_of_two_kinds_do_not_share_a_folder(swept):
    gradients = sweeps.parse(
        {"axes": {"gain": [1.0]}, "fixed": {"cell": "gru", "init": "normal", "length": 5}}
    )
    with pytest.raises(ValueError, match="another kind of sweep .training, this one is gradients"):
        sweeps.sweep(gradients, swept[0])


def _text(**changes):
    """The programs that start a run and advance it, as JAX prints them."""
    (run,) = planned(spec(cell="gru", **changes))
    compiled = programs.compile_programs(programs.kind_of(run))
    scalars = {name: jnp.ones(1, jnp.float32) for name in programs.scalars_of(run)}
    start = jax.make_jaxpr(compiled.start, return_shape=True)
    first, state = start(jnp.zeros(1, jnp.uint32), scalars)
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state._replace(key=None))
    state = state._replace(key=jax.random.split(jax.random.key(0), 1))
    return str(first), str(jax.make_jaxpr(compiled.advance)(jnp.ones(1, bool), state, scalars))


@pytest.fixture(scope="module")
def untreated():
    return _text()


@pytest.mark.parametrize("remedy", REMEDIES)
def test_every_remedy_changes_the_programs_and_is_off_at_its_default(untreated, remedy):
    treated = _text(**{remedy: REMEDIES[remedy]})
    # What a cell starts from is the start's, all else the update's.
    changed = [new != old for new, old in zip(treated, untreated, strict=True)]
    assert changed == [remedy in ("chrono", "preflossing"), remedy not in ("chrono", "preflossing")]
    # At its default the run is the very same: its name says so.
    off = 1.0 if remedy == "leak" else type(REMEDIES[remedy])(0)
    (named,), (default,) = planned(spec(**{remedy: off})), planned(spec())
    assert named.run_id == default.run_id


def test_all_remedies_together_train(swept):
    (run,) = planned(spec(optimizer="sgd", **REMEDIES))
    (row,) = rows.train([run], lambda _: None)
    assert np.isfinite(row["curves"]["loss"]).all() and row["status"] == "unsolved"
    (without,) = planned(spec(optimizer="sgd"))
    plain = gl.read(swept[0]).curves.query("run_id == @without.run_id")
    assert len(plain) == len(row["curves"]["loss"]) and row["curves"]["loss"] != plain.loss.tolist()


@pytest.mark.parametrize("remedy", REMEDIES)
def test_strengths_share_a_program_and_off_has_its_own(remedy):
    value = REMEDIES[remedy]
    runs = [
        next(iter(planned(spec(**change))))
        for change in ({}, {remedy: value}, {remedy: value + 1 if remedy != "leak" else 0.25})
    ]
    programs = [run.program for run in runs]
    assert programs[0] != programs[1]
    assert (programs[1] == programs[2]) == (remedy not in ("window", "preflossing"))


def test_an_axis_that_a_cell_or_a_task_lacks_multiplies_nothing():
    grid = spec({"cell": ["elman", "lstm"], "chrono": [0.0, 9.0], "forget_bias": [0.0, 1.0]})
    count = {name: sum(r.cell == name for r in planned(grid)) for name in ("elman", "lstm")}
    assert count == {"elman": 1, "lstm": 4}
    digits = spec({"length": [4, 8]}, task="digits")
    assert [run.length for run in planned(digits)] == [None]
    axes = {"task": ["digits", "temporal_order"], "permuted": [False, True], "symbols": [2, 3]}
    tasks = [programs.task_of(run) for run in planned(spec(axes, length=20))]
    assert [(task.name, task.length, task.outputs) for task in tasks] == [
        ("digits", 64, 10),
        ("digits", 64, 10),
        ("temporal_order", 20, 4),
        ("temporal_order", 20, 8),
    ]


def test_ids_are_the_runs_own():
    grid = spec({"gain": [0.5, 1.0], "omega": [0.0, 1.0], "seeds": 3, "learning_rate": [0.1, 0.2]})
    ids = [run.run_id for run in planned(grid)]
    assert len(set(ids)) == len(ids) == 24


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "adding up"}, "fixed.task: unknown task 'adding up'; did you mean 'adding'"),
        ({"optimizer": "adamm"}, "did you mean 'adam'"),
        ({"leak": 0.0}, r"fixed.leak: Input should be greater than 0"),
        ({"omega": -1.0}, "fixed.omega: Input should be greater than or equal to 0"),
        ({"window": 1.5}, "fixed.window: Input should be a valid integer"),
        ({"clip": 1.0}, "unknown key in .fixed. 'clip'; did you mean"),
        ({"evaluate_every": 0}, "fixed.evaluate_every: Input should be greater than or equal to 1"),
    ],
)
def test_a_wrong_spec_is_one_message(change, message):
    with pytest.raises(ValueError, match=message):
        spec(**change)


def test_blocks_do_not_lend_each_other_what_only_one_of_them_says():
    relu = {"cell": "elman", "activation": "relu", "init": "identity"}
    for blocks in ([relu, {"cell": "elman"}], [{"cell": "elman"}, relu]):
        grid = sweeps.parse({"fixed": FIXED, "blocks": blocks})
        found = {(run.activation, run.init) for run in planned(grid)}
        assert found == {("relu", "identity"), ("tanh", "orthogonal")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "temporal_order", "length": 20, "symbols": 5}, "symbols to be 2 or 3"),
        ({"length": 1}, "adding needs length of at least 2"),
        ({"task": "digits", "size": 9}, "size"),
    ],
)
def test_what_cannot_be_built_is_told_before_the_folder_is_made(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        sweeps.sweep(spec(**change), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_cell_that_refuses_a_remedy_trains_without_it(tmp_path):
    training.check(planned(spec(cell="slstm")))
    with pytest.raises(ValueError, match="slstm"):
        sweeps.sweep(spec(cell="slstm", leak=0.5), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"updates": 7}, "updates must be a multiple of evaluate_every, 2, got 7"),
        ({"chrono": 1.5}, "fixed.chrono: T_max must be at least 2, or 0 for none"),
    ],
)
def test_values_that_do_not_go_together(change, message):
    with pytest.raises(ValueError, match=message):
        training.check(planned(spec(**change)))


def test_held_out_sequences_are_what_a_data_set_is_judged_by():
    (run,) = planned(spec(task="digits", updates=1, evaluate_every=1, hidden=2))
    (row,) = rows.train([run], lambda _: None)
    task = gl.tasks.make("digits")
    assert task.held_out is not None
    count = len(task.held_out(jnp.float32)[0])
    assert abs(row["error"] * count - round(row["error"] * count)) < 1e-3
    assert row["steps"]["lag"][-1] == task.length - 1


def test_blocks_are_grids_beside_each_other():
    grid = sweeps.parse(
        {
            "fixed": {k: v for k, v in FIXED.items() if k != "cell"},
            "axes": {"seeds": 2},
            "blocks": [
                {"cell": ["gru", "lstm"]},
                {"cell": "elman", "activation": "relu", "init": "identity", "gain": [0.5, 1.0]},
            ],
        }
    )
    found = [(run.cell, run.activation, run.init, run.gain) for run in planned(grid)]
    assert found == [
        *[("gru", None, "orthogonal", 1.0)] * 2,
        *[("lstm", None, "orthogonal", 1.0)] * 2,
        *[("elman", "relu", "identity", 0.5)] * 2,
        *[("elman", "relu", "identity", 1.0)] * 2,
    ]
    # What the manifest keeps gives the same runs.
    ids = [run.run_id for run in planned(grid)]
    again = type(grid)(**json.loads(json.dumps(grid.model_dump())))
    assert [run.run_id for run in planned(again)] == ids


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([{"cell": "gruu"}], r"blocks.0..cell.0.: unknown cell 'gruu'; did you mean 'gru'"),
        ([{"gain": [-1.0]}], r"blocks.0..gain.0.: Input should be greater than or equal to 0"),
        ([{"cel": "gru"}], r"unknown key in blocks.0. 'cel'; did you mean 'cell'"),
        ({"cell": "gru"}, "blocks must be tables: ..blocks.."),
    ],
)
def test_a_wrong_block_is_one_message(blocks, message):
    with pytest.raises(ValueError, match=message):
        sweeps.parse({"fixed": FIXED, "blocks": blocks})


@pytest.mark.parametrize(("activation", "spread"), [("tanh", 1.0), ("relu", math.sqrt(2))])
def test_critical_weights_are_those_of_the_cells_activation(activation, spread):
    fixed = FIXED | {"cell": "elman", "activation": activation, "init": "critical", "gain": 1.0}
    (run,) = Plan(sweeps.parse(fixed | {"hidden": 200}))
    cell = programs.build(run, programs.task_of(run), {"learning_rate": 0.1, "gain": 1.0})[0]
    recurrent = cell.init(jax.random.key(0))["recurrent"]
    np.testing.assert_allclose(recurrent.std() * math.sqrt(200), spread, rtol=0.02)


def test_the_delay_of_copying_stands_on_length():
    with pytest.raises(ValueError, match="unknown key 'delay'.* valid: .*length"):
        sweeps.parse(FIXED | {"task": "copying", "delay": 5})
