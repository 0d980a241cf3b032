"""Users' own cells, initializers, inputs, tasks, remedies and measurements, as sweeps take them."""

import importlib.metadata
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradlab as gl
from gradlab import figures, frames, sweeps
from gradlab.grid import Plan
from gradlab.sweeps import gradients, measurements

ROOT = Path(__file__).parents[2]
OWN = ROOT / "experiments" / "own"
REGISTRIES = {
    "cell": gl.cells.REGISTRY,
    "initializer": gl.initializers.REGISTRY,
    "task": gl.tasks.REGISTRY,
    "input": gl.tasks.INPUTS,
    "remedy": gl.remedies.REGISTRY,
    "measurement": measurements.REGISTRY,
}
SPEC = {"init": "normal", "length": 8, "hidden": 4, "inputs": 2}
LINEAR = SPEC | {"activation": "linear", "init": "orthogonal", "gain": 1.0}


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """No figures, and registries as they were."""
    monkeypatch.setattr(figures, "draw", lambda *_, **__: [])
    before = {kind: dict(registry._entries) for kind, registry in REGISTRIES.items()}
    yield
    for kind, registry in REGISTRIES.items():
        registry._entries.clear()
        registry._entries.update(before[kind])


def define(scale):
    """What a notebook does whose cell is run again with another number."""

    @gl.cells.register
    def scaled(inputs, hidden, **options):
        cell = gl.cells.make("elman", inputs=inputs, hidden=hidden, **options)

        def advance(params, state, drive):
            return scale * cell.advance(params, state, drive)

        return cell._replace(name="scaled", advance=advance)


def rates(out, axes, **options):
    report = sweeps.sweep(axes, out, **options)
    return report, report.results.runs


def test_a_cell_that_is_defined_again_is_measured_again(tmp_path):
    """Of a linear orthogonal network the rate is ln(scale), whatever else."""
    spec = LINEAR | {"cell": ["scaled", "elman"]}
    define(0.9)
    _, runs = rates(tmp_path / "a", spec)
    expected = {"scaled": np.log(0.9), "elman": 0.0}
    np.testing.assert_allclose(runs["rate"], runs["cell"].map(expected), atol=1e-5)
    define(0.1)
    _, runs = rates(tmp_path / "b", spec)
    np.testing.assert_allclose(runs["rate"], runs["cell"].map(expected | {"scaled": np.log(0.1)}),
                               atol=1e-5)  # fmt: skip
    # In the folder of the first one its runs alone are measured, and the old ones are no seeds.
    report, runs = rates(tmp_path / "a", spec)
    assert report.computed == 1 and len(runs) == 2
    assert sorted(runs["rate"].round(3)) == [-2.303, 0.0]
    assert sweeps.sweep(spec, tmp_path / "a").computed == 0
    # The first one again: what it had measured still stands.
    define(0.9)
    assert sweeps.status(tmp_path / "a").done == 2
    report, runs = rates(tmp_path / "a", spec)
    assert report.computed == 0 and sorted(runs["rate"].round(3)) == [-0.105, 0.0]


def test_options_reach_a_builder_that_takes_any(tmp_path):
    define(1.0)
    spec = SPEC | {"cell": "scaled", "gain": [0.5, 2.0], "input_scale": [0.0, 1.0]}
    report, runs = rates(tmp_path / "out", spec | {"activation": "linear", "init": "orthogonal"})
    assert report.total == 4 and set(runs["init"]) == {"orthogonal"}
    np.testing.assert_allclose(runs["rate"], np.log(runs["gain"]), atol=1e-5)
    assert sorted(runs["input_scale"]) == [0.0, 0.0, 1.0, 1.0]
    # What the spec does not name is the builder's own, and no frame says otherwise.
    assert runs["bias_scale"].isna().all() and runs["forget_bias"].isna().all()


@pytest.mark.parametrize("kind", REGISTRIES)
def test_names_of_gradlabs_own_are_refused(kind):
    registry = REGISTRIES[kind]
    for name in registry.names() or ("gradients",):
        namespace = {}
        exec(f"def {name}(*args, **options): pass", {"__name__": "lab"}, namespace)
        register = sweeps.measurement if kind == "measurement" else registry.register
        with pytest.raises(ValueError, match=f"{name} is an? .* of gradlab's own"):
            register(namespace[name])


def test_theory_of_an_own_initializer_is_none(tmp_path):
    @gl.initializers.register
    def signs(key, shape, dtype=jnp.float32):
        return jax.random.rademacher(key, shape, dtype) / shape[1] ** 0.5

    _, runs = rates(tmp_path / "out", SPEC | {"cell": "elman", "init": "signs", "gain": [0.5, 1.0]})
    assert set(runs["status"]) == {"ok"} and set(runs["theory"]) == {"none: no theory of signs"}
    assert runs["largest_singular_value"].iloc[1] == pytest.approx(
        2 * runs["largest_singular_value"].iloc[0]
    )


def test_an_option_of_a_cell_is_an_axis(tmp_path):
    """Gradlab's own leaky network at two steps: no point takes them together."""
    spec = SPEC | {"cell": ["leaky", "elman"], "gain": 0.0, "dt": [0.1, 0.5], "seeds": 2}
    report, runs = rates(tmp_path / "out", spec | {"activation": "linear"})
    assert report.total == 6
    leaky = runs[runs["cell"] == "leaky"]
    # Without weights a step keeps 1 - δ of the state.
    np.testing.assert_allclose(leaky["rate"], np.log1p(-leaky["dt"]), atol=1e-5)
    assert runs.loc[runs["cell"] == "elman", "dt"].isna().all()
    points = frames.summary(runs)
    assert points["runs"].tolist() == [2, 2, 2] and "dt" in points
    written = frames.read_summary(tmp_path / "out")
    assert written["runs"].tolist() == [2, 2, 2] and sorted(written["dt"].dropna()) == [0.1, 0.5]
    assert len(sweeps.status(tmp_path / "out").counts) == 2
    assert gl.read(tmp_path / "out", ["dt"], {"dt": 0.5}).runs["dt"].tolist() == [0.5, 0.5]


def test_own_task_and_remedy_train(tmp_path):
    @gl.remedies.register
    def decay(strength):
        return optax.add_decayed_weights(strength)

    @gl.tasks.register
    def echo(length=4):
        def sample(key, dtype=None):
            xs = jax.random.normal(key, (length, 1), dtype)
            return xs, xs[-1]

        def square(outputs, target):
            return jnp.mean((outputs - target) ** 2)

        return gl.tasks.Task("echo", length, 1, 1, False, sample, square, square, {"mean": 1.0}, 0)

    spec = {
        "task": "echo", "length": 4, "cell": "gru", "hidden": 3, "learning_rate": 0.1, "updates": 2,
        "evaluate_every": 2, "evaluation": 4, "batch": 2, "decay": [0.0, 0.1, 1.0],
    }  # fmt: skip
    report, runs = rates(tmp_path / "out", spec)
    assert report.total == 3 and set(runs["status"]) == {"unsolved"} and runs["loss"].nunique() == 3
    # Three strengths are three points, not three seeds of one.
    assert frames.trained_summary(runs)["runs"].tolist() == [1, 1, 1]
    (off, *on) = Plan(sweeps.parse(spec))
    assert off.code != on[0].code and on[0].code == on[1].code


def test_a_measurement_of_any_function(tmp_path):
    @sweeps.measurement
    def power(base, exponent=2, widths=(1,), seed=0):
        if base < 0:
            raise RuntimeError("below zero")
        value = base**exponent + seed
        extra = {"more": 1.0} if base > 2 else {}
        return {
            "value": value,
            "steps": {"k": range(3), "kth": [value * k for k in range(3)]},
        } | extra

    spec = {"measurement": "power", "base": [1.5, 3.0, -1.0], "seeds": 2, "widths": [[1], [2, 3]]}
    report, runs = rates(tmp_path / "out", spec)
    assert report.total == 12 and len(report.failed) == 4
    (reason,) = set(report.failed.values())
    assert re.fullmatch(r"RuntimeError: below zero \(test_own_code.py:\d+\)", reason)
    good = runs[runs["status"] == "ok"]
    np.testing.assert_array_equal(good["value"], good["base"] ** 2 + good["seed"])
    assert set(good["widths"]) == {"[1]", "[2, 3]"}
    assert (good["more"].notna() == (good["base"] > 2)).all()
    steps = gl.read(tmp_path / "out").steps
    assert len(steps) == 3 * len(good) and steps["kth"].max() == 2 * good["value"].max()
    points = frames.read_summary(tmp_path / "out")
    mean = points.set_index(["base", "widths"])["value_mean"]
    assert mean[3.0, "[1]"] == 9.5 and np.isnan(mean[-1.0, "[1]"])
    assert sweeps.sweep(spec, tmp_path / "out").computed == 0
    assert sweeps.status(tmp_path / "out").failed == 4


@pytest.mark.parametrize("code", ["dice(): return {'value': 3.0}",
                                  "dice(seed): return {'value': 3.0 + seed % 2}"])  # fmt: skip
def test_a_measurement_without_an_axis_is_one_point(tmp_path, code):
    scope = {}
    exec(f"def {code}", scope)
    gl.sweeps.measurement(scope["dice"])
    with_seed = "seed" in code
    spec = {"measurement": "dice"} | ({"seeds": 3} if with_seed else {})
    runs = gl.sweep(spec, tmp_path).results.runs
    assert runs["value"].tolist() == ([3.0, 4.0, 3.0] if with_seed else [3.0])
    (point,) = frames.read_summary(tmp_path).to_dict("records")
    assert point["runs"] == len(runs) and point["value_max"] == runs["value"].max()


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ("3", "ValueError: a measurement returns a dict of numbers"),
        ("{'a': 'text'}", "ValueError: a must be a number, got 'text'"),
        ("{'a': [1, 2]}", "ValueError: a must be a number"),
        ("{'x': 1.0}", "ValueError: a measurement cannot return a number called 'x'"),
        ("{'run_id': 1.0}", "ValueError: a measurement cannot return a number called 'run_id'"),
        (
            "{'steps': {'a': [1], 'b': [1, 2]}}",
            "ValueError: steps must be equally long; a: 1, b: 2",
        ),
        ("{'a': 2**53 + 1}", "ValueError: a is a whole number that no float64 holds"),
    ],
)
def test_what_a_measurement_cannot_return_is_the_reason(tmp_path, result, reason):
    namespace = {}
    exec(f"def odd(x):\n    return {result}", {"__name__": "lab"}, namespace)
    sweeps.measurement(namespace["odd"])
    report = sweeps.sweep({"measurement": "odd", "x": 1}, tmp_path / "out")
    (found,) = report.failed.values()
    assert found.startswith(reason)


def test_what_a_training_records_is_the_frame_of_a_measurement(tmp_path):
    """The example of docs/own-code.md, word for word."""
    text = (ROOT / "docs" / "own-code.md").read_text(encoding="utf-8")
    code = text.partition("## Records in a sweep")[2].split("```python\n")[1].split("```")[0]
    exec(code, {"__name__": "lab"})
    report, runs = rates(tmp_path / "out", {"measurement": "radius", "gain": [0.5, 1.5]})
    assert not report.failed
    steps = gl.read(tmp_path / "out").steps
    assert steps["update"].tolist() == [0, 4, 8, 10] * 2
    # Before the first update it is that of the initializer's own draw.
    found = dict(zip(runs["run_id"], runs["gain"], strict=True))
    for run_id, radius in steps[steps["update"] == 0][["run_id", "radius"]].to_numpy():
        init = gl.initializers.normal(gain=found[run_id])
        net = gl.tasks.network(
            gl.cells.make("elman", inputs=2, hidden=8, recurrent=init),
            gl.tasks.make("adding", length=10).outputs,
        )
        W = np.asarray(net.init(jax.random.key(0))["cell"]["recurrent"], np.float64)
        assert radius == pytest.approx(np.abs(np.linalg.eigvals(W)).max(), rel=1e-5)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def bad(*args): pass", "cannot be an axis"),
        ("def bad(reason): pass", "an axis cannot be called reason"),
        ("def training(x): pass", "of gradlab's own"),
    ],
)
def test_functions_that_are_no_measurement(code, message):
    namespace = {}
    exec(code, {"__name__": "lab"}, namespace)
    with pytest.raises(ValueError, match=message):
        sweeps.measurement(next(iter(namespace.values())))


def test_another_column_is_another_run(tmp_path, monkeypatch):
    """A folder from before a statistic was added is not taken for complete."""
    spec = LINEAR | {"cell": "elman"}
    sweeps.sweep(spec, tmp_path / "out")
    more = frames.GRADIENTS._replace(
        measured=frames.GRADIENTS.measured | {"mood": frames.Column("float64", "1", "its mood")}
    )
    monkeypatch.setattr(gradients, "GRADIENTS", more)
    with pytest.raises(ValueError, match="holds results of another"):
        sweeps.sweep(spec, tmp_path / "out")


def test_imports_stand_beside_the_spec(tmp_path, monkeypatch):
    (tmp_path / "lab_one.py").write_text(
        "import gradlab as gl\n@gl.sweeps.measurement\ndef one(x):\n    return {'y': x + 1}\n"
    )
    spec = tmp_path / "spec.toml"
    spec.write_text('measurement = "one"\nimports = ["lab_one.py"]\n[axes]\nx = [1, 2]\n')
    monkeypatch.chdir(tmp_path.parent)
    report = sweeps.sweep(spec, tmp_path / "out")
    assert report.results.runs["y"].tolist() == [2.0, 3.0]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["imports"] == [str(tmp_path / "lab_one.py")]
    assert manifest["code"].keys() == {"measurement one"}
    # Edited and run again in the same process, as in a notebook.
    (tmp_path / "lab_one.py").write_text(
        (tmp_path / "lab_one.py").read_text().replace("+ 1", "+ 2")
    )
    report = sweeps.sweep(spec, tmp_path / "out")
    assert report.computed == 2 and report.results.runs["y"].tolist() == [3.0, 4.0]


@pytest.mark.parametrize(
    ("imports", "message"),
    [
        ("lab.py", "imports is a list of files and modules"),
        (["none.py"], "none.py is not there; a file is relative to the spec"),
        (["no_such_module"], "there is no module no_such_module"),
        ([3], "imports names files and modules, got 3"),
        (["broken.py"], "broken.py: NameError: name 'nothing' is not defined"),
        (["json.py"], "another module is named json already"),
    ],
)
def test_imports_that_fail_are_one_message(tmp_path, imports, message):
    (tmp_path / "broken.py").write_text("nothing\n")
    (tmp_path / "json.py").write_text("")
    with pytest.raises(ValueError, match=message) as caught:
        sweeps.parse(LINEAR | {"cell": "elman", "imports": imports}, folder=tmp_path)
    assert "\n" not in str(caught.value)


def test_plugins_of_installed_packages_are_imported(monkeypatch):
    entry = importlib.metadata.EntryPoint("lab", "no_such_package.cells", "gradlab.plugins")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry])
    sweeps.plugins.load_installed.cache_clear()
    try:
        with pytest.raises(ValueError, match=r"the plugin lab .* cannot be imported: .*no_such"):
            sweeps.parse(LINEAR | {"cell": "elman"})
    finally:
        sweeps.plugins.load_installed.cache_clear()


@pytest.mark.skipif(sys.platform != "linux", reason="the script kills a process group")
def test_the_walk_of_the_readme(tmp_path):
    """Every kind of own code, with two workers, killed, resumed and edited."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        [shutil.which("bash") or "bash", str(OWN / "walk.sh"), str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    resumed, edited = done.stdout.split("== killed")[1].split("== one line")
    # What the killed one had written is not measured again.
    (measured,) = re.findall(r"(\d+) of 24 runs measured now, the others before", resumed)
    assert int(measured) < 24 and "24/24 runs" in done.stderr
    # Of 24 runs those of the edited cell alone.
    assert "12 of 24 runs measured now, the others before" in edited
    status = sweeps.status(tmp_path / "gradients")
    assert (status.done, status.failed, status.missing) == (24, 0, 0)
    found = gl.read(tmp_path / "gradients").runs
    rates = found.groupby("cell")["rate"].median()
    assert set(found["status"]) == {"ok"} and rates["faded"] < rates["elman"] - 0.2
    assert set(gl.read(tmp_path / "training").runs["decay"]) == {0.0, 1e-3}
    assert len(gl.read(tmp_path / "states").steps) == 4 * 50


def define_with_option(owner, option):
    """A cell, an initializer or an input whose numbers depend on an option of that name."""
    scope = {"gl": gl, "jax": jax, "jnp": jnp}
    exec(
        {
            "cell": f"""
def own(inputs, hidden, {option}=0.3, **options):
    cell = gl.cells.make("elman", inputs=inputs, hidden=hidden, **options)
    return cell._replace(
        advance=lambda params, h, drive: {option} * cell.advance(params, h, drive))
""",
            "init": f"""
def own(key, shape, dtype=None, *, {option}=0.3):
    return {option} * jax.random.normal(key, shape, dtype)
""",
            "input": f"""
def own(key, length, features, dtype=None, *, {option}=0.3):
    return {option} * jax.random.normal(key, (length, features), dtype)
""",
        }[owner],
        scope,
    )
    registers = {"cell": gl.cells.register, "init": gl.initializers.register,
                 "input": gl.tasks.register_input}  # fmt: skip
    registers[owner](scope["own"])


@pytest.mark.parametrize("option", ["leak", "period"])  # leak is an axis of training sweeps
@pytest.mark.parametrize("owner", ["cell", "init", "input"])
@pytest.mark.parametrize("kind", ["gradients", "conditioning"])
def test_an_option_of_the_users_code_takes_effect(tmp_path, kind, owner, option):
    define_with_option(owner, option)
    value = {"gradients": "log_gain", "conditioning": "log_largest"}[kind]
    spec = {"cell": "elman", **SPEC, "gain": 1.0, "measurement": kind, owner: "own"}
    both = gl.sweep(spec | {option: [0.3, 0.9]}, tmp_path / "both").results.runs
    alone = gl.sweep(spec, tmp_path / "alone").results.runs
    assert both[option].tolist() == [0.3, 0.9]
    # The first value is the builder's default.
    assert both[value][0] == alone[value][0] != both[value][1]


@pytest.mark.parametrize(("option", "spec"), [
    ("leak", {"task": "adding", "length": 8}), ("batch", {}), ("gain", {}),
])  # fmt: skip
def test_an_option_with_the_name_of_another_axis_is_refused(option, spec):
    define_with_option("cell", option)
    with pytest.raises(ValueError, match=rf"{option} is an axis .* give the option another name"):
        sweeps.parse({"cell": "own", **SPEC, **spec, option: [0.5, 0.9]})


def test_a_misspelt_option_of_an_own_cell_is_named_with_the_valid_ones():
    define_with_option("cell", "period")
    define_with_option("input", "tempo")
    spec = {"cell": "elman", **SPEC, "gain": 1.0, "input": "own"}
    with pytest.raises(ValueError, match=r"unknown key 'tenpo'; did you mean 'tempo'\? valid: .*"):
        sweeps.parse(spec | {"tenpo": 0.5})
    # A cell of any options hands on what it does not know.
    wrong = sweeps.parse(spec | {"cell": "own", "input": "gaussian", "perod": 0.5})
    with pytest.raises(ValueError, match="unknown elman option 'perod'"):
        sweeps.estimate(wrong)


def test_a_builder_of_any_options_takes_one_that_no_other_names(tmp_path):
    @gl.cells.register
    def scaled(inputs, hidden, **options):
        scale = options.pop("scale")
        cell = gl.cells.make("elman", inputs=inputs, hidden=hidden, **options)
        return cell._replace(
            advance=lambda params, state, drive: scale * cell.advance(params, state, drive)
        )

    runs = gl.sweep(LINEAR | {"cell": "scaled", "scale": [0.5, 0.9]}, tmp_path).results.runs
    np.testing.assert_allclose(runs["rate"], np.log(runs["scale"]), atol=1e-5)


def test_an_option_of_two_kinds_reaches_both(tmp_path):
    """r_min is an option of the cell lru and of the initializer of elman's weights."""
    spec = SPEC | {"init": "eigenvalue_ring", "gain": 1.0, "cell": ["elman", "lru"]}
    runs = gl.sweep(spec | {"r_min": [0.1, 0.6]}, tmp_path / "both").results.runs
    assert runs["r_min"].tolist() == [0.1, 0.6] * 2
    for cell, rows in runs.groupby("cell"):
        assert rows["log_gain"].nunique() == 2, cell
        alone = gl.sweep(spec | {"cell": cell, "r_min": 0.6}, tmp_path / cell).results.runs
        assert alone["log_gain"][0] == rows["log_gain"].iloc[1]
    low, high = runs["spectral_radius"].iloc[:2]  # of the matrices that elman drew
    assert low < 1 and high <= 1 + 1e-6


@pytest.mark.parametrize(("axes", "options"), [
    ({"cell": "elman", "init": "eigenvalue_ring"}, ("r_min", "r_max")),
    ({"cell": "antisymmetric"}, ("epsilon", "gamma")),
    ({"cell": "antisymmetric", "task": "adding", "learning_rate": 0.01, "updates": 2,
      "evaluate_every": 1, "evaluation": 4, "batch": 2}, ("epsilon", "gamma")),
])  # fmt: skip
def test_equal_values_of_two_options_are_two_runs(tmp_path, axes, options):
    spec = {"init": "normal", "gain": 1.0, "length": 8, "hidden": 4} | axes
    columns = ["rate_before"] if "task" in axes else ["log_gain", "spectral_radius"]
    found = {}
    for name in options:
        runs = gl.sweep(spec | {name: 0.5}, tmp_path / name).results.runs
        found[name] = runs["run_id"][0], *(runs[column][0] for column in columns)
    first, second = found.values()
    assert all(one != other for one, other in zip(first, second, strict=True))
    with pytest.raises(ValueError, match="holds results of another spec"):
        gl.sweep(spec | {options[1]: 0.5}, tmp_path / options[0])


@pytest.mark.parametrize("kind", ["gradients", "conditioning"])
def test_the_step_of_an_own_cell_may_hold_what_its_builder_got(tmp_path, kind):
    @gl.cells.register
    def faded(inputs, hidden, *, forget_bias=1.0, recurrent=None):
        cell = gl.cells.make("elman", inputs=inputs, hidden=hidden, recurrent=recurrent,
                             activation="linear")  # fmt: skip
        factor = jax.nn.sigmoid(forget_bias)
        return cell._replace(
            advance=lambda params, state, drive: factor * cell.advance(params, state, drive)
        )

    spec = {"init": "orthogonal", "gain": 1.0, "length": 20, "hidden": 4, "inputs": 2}
    spec |= {"cell": "faded", "forget_bias": [0.0, 5.0], "measurement": kind}
    runs = gl.sweep(spec, tmp_path).results.runs
    rates = runs["rate"] if kind == "gradients" else runs["log_largest"] / 20
    np.testing.assert_allclose(rates, -np.log1p(np.exp(-runs["forget_bias"])), rtol=1e-3)


def test_false_reaches_a_task_whose_default_is_true(tmp_path):
    calls = []

    @gl.tasks.register
    def mine(length=10, every_step=True, permuted=True):
        calls.append((every_step, permuted))
        return gl.tasks.make("adding", length=length)

    spec = {"task": "mine", "cell": "elman", "length": 5, "hidden": 3, "learning_rate": 0.01,
            "updates": 1, "evaluate_every": 1, "evaluation": 4, "batch": 2}  # fmt: skip
    runs = gl.sweep(spec | {"permuted": [False, True]}, tmp_path).results.runs
    recorded = set(zip(runs["every_step"], runs["permuted"], strict=True))
    # Where it is registered, it is called without any.
    assert recorded == {(False, False), (False, True)} and recorded <= set(calls)


def test_theory_does_not_know_the_variance_of_an_own_input(tmp_path):
    @gl.tasks.register_input
    def loud(key, length, features, dtype=None, *, scale=1.0):
        return scale * jax.random.normal(key, (length, features), dtype)

    spec = SPEC | {"cell": "elman", "gain": 1.5, "weights": "untied", "input": "loud", "scale": 4.0}
    runs = gl.sweep(spec | {"input_scale": [0.0, 1.0]}, tmp_path).results.runs
    silent, driven = runs["theory"]
    assert driven == "none: the variance of the input loud is not known"
    assert not silent.startswith("none: the variance")
    assert math.isnan(runs["predicted_rate"][1])


def test_one_run_that_needs_too_much_memory_fails_alone(tmp_path):
    @gl.sweeps.measurement
    def hungry(x, seed):
        if seed == 7:
            raise MemoryError("too much")
        return {"value": x + seed}

    runs = gl.sweep({"measurement": "hungry", "x": 1.0, "seeds": 20}, tmp_path).results.runs
    failed = runs[runs["status"] == "failed"]
    assert failed["seed"].tolist() == [7] and failed["reason"].tolist()[0].startswith(
        "MemoryError: too much"
    )


@pytest.mark.parametrize(("values", "texts"), [
    ([0.5, 1.0], [0.5, 1.0]), ([True, 2], ["2", "true"]), ([[1, 2], [3]], ["[1, 2]", "[3]"]),
    ([{"p": 1}, {"p": [2]}], ['{"p": 1}', '{"p": [2]}']), (["x", 2], ["2", "x"]),
    (["nan", "None", "NA"], ["NA", "None", "nan"]),
])  # fmt: skip
def test_a_value_of_json_is_passed_and_stored_as_it_was_written(tmp_path, values, texts):
    calls = []

    @gl.sweeps.measurement
    def mixed(option=None):
        calls.append(option)
        return {"value": 1.0}

    spec = {"measurement": "mixed", "axes": {"option": values}}
    runs = gl.sweep(spec, tmp_path / "out").results.runs
    assert sorted(runs["option"]) == texts
    assert sorted(map(repr, calls)) == sorted(map(repr, values))
    points = frames.read_summary(tmp_path / "out")
    assert sorted(points["option"]) == texts


def test_a_list_reaches_an_own_cell_as_a_list(tmp_path):
    calls = []

    @gl.cells.register
    def sized(inputs, hidden, sizes=(), **options):
        calls.append(sizes)
        return gl.cells.make("elman", inputs=inputs, hidden=hidden, **options)

    spec = {"axes": {"sizes": [[1, 2], [3]]}, "fixed": SPEC | {"cell": "sized", "gain": 1.0}}
    runs = gl.sweep(spec, tmp_path).results.runs
    assert sorted(runs["sizes"]) == ["[1, 2]", "[3]"] and set(runs["status"]) == {"ok"}
    assert [1, 2] in calls and [3] in calls
