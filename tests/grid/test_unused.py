"""Whatever a spec or --set names changes runs, or the call says that it does not."""

from pathlib import Path

import pytest

from gradlab import sweeps
from gradlab.grid import Plan, unused

FLAT = {"cell": "lstm", "init": ["normal", "orthogonal"], "gain": 1.0, "length": 9}
TRAIN = {"task": "adding", "cell": "gru", "length": 9, "learning_rate": 0.1, "updates": 100}
SPECS = sorted((Path(__file__).parents[2] / "experiments").glob("*.toml"))


def said(table, overrides=None):
    made = sweeps.parse(table, overrides)
    return unused.messages(made, Plan(made), overrides or {})


def runs(table, overrides=None):
    made = sweeps.parse(table, overrides)
    return list(Plan(made))


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_committed_specs_are_no_false_alarm(path):
    made = sweeps.load(path)
    plan = Plan(made)
    assert unused.messages(made, plan, {}) == []
    # Nor is what a manifest keeps of them, with every default written out.
    again = type(made)(**made.model_dump(mode="json"))
    assert unused.messages(again, plan, {}) == []


NORMAL = {"when": {"forget_bias": {"init": "normal"}}, "forget_bias": [0.0, 1.0]}


@pytest.mark.parametrize(
    ("table", "overrides"),
    [
        (FLAT, {"gain": 1.0}),  # the value that it has
        (FLAT, {"gain": 2.0}),
        (FLAT | NORMAL, {}),
        (FLAT | NORMAL, {"forget_bias": 1.0}),  # which is what the others have
        (FLAT | NORMAL, {"forget_bias": 7.0, "init": "normal"}),
        (FLAT | {"cell": ["elman", "lstm"], "forget_bias": [0.0, 2.0]}, {}),
        (FLAT | {"cell": ["elman", "lstm"]}, {"forget_bias": 3.0}),
        (FLAT, {"hidden": 8}),
        (FLAT | {"blocks": [{"gain": 2.0}, {"hidden": 8}]}, {}),
        (FLAT | {"when": {"gain": {"init": ["normal", "glorot"]}}, "gain": [1.0, 2.0]}, {}),
        (FLAT | {"when": {"forget_bias": {"cell": "lstm"}},
                 "blocks": [{"forget_bias": [0.0, 1.0]}, {"cell": "gru"}]}, {}),
        (FLAT | {"input": ["gaussian", "reviews"]}, {}),
        (FLAT | {"cell": "min_gru", "init": "normal"}, {}),  # which a spec has to name
        (TRAIN | {"task": "digits"}, {}),
        (TRAIN | {"flossing": 1.0, "flossing_exponents": 4}, {}),
        (TRAIN | {"chrono": [0.0, 9.0], "cell": ["elman", "lstm"]}, {}),
    ],
)  # fmt: skip
def test_what_changes_runs_is_no_false_alarm(table, overrides):
    assert said(table, overrides) == []


@pytest.mark.parametrize(
    ("table", "overrides", "words"),
    [
        # --set against [when], all of the runs and a part of them
        (FLAT | NORMAL, {"forget_bias": 7.0, "init": "orthogonal"},
         ["set forget_bias = 7.0 is in no run: when.forget_bias asks for init = normal", "1.0"]),
        (FLAT | NORMAL, {"forget_bias": 7.0},
         ["set forget_bias = 7.0 holds in a part of the runs: 1 of 2 have 1.0"]),
        (FLAT | {"blocks": [NORMAL]}, {"forget_bias": 7.0, "init": "orthogonal"},
         ["set forget_bias = 7.0 is in no run: blocks[0].when.forget_bias asks for init = normal"]),
        # a condition that no run meets, of an axis with and without a default
        (FLAT | NORMAL | {"when": {"forget_bias": {"init": "glorot"}}}, {},
         ["forget_bias = 0.0 is in no run: when.forget_bias asks for init = glorot"]),
        (FLAT | {"gain": [1.0, 2.0], "when": {"gain": {"length": 10}}}, {},
         ["gain = 2.0 is in no run: when.gain asks for length = 10"]),
        (FLAT | {"when": {"forget_bias": {"init": "glorot"}}}, {},
         ["when.forget_bias asks for init = glorot, which no run meets"]),
        (FLAT | {"zip": [{"hidden": [8, 16], "inputs": [2, 3]}],
                 "when": {"hidden": {"init": "glorot"}}}, {},
         ["hidden = 8, 16 is in no run: when.hidden asks for init = glorot"]),
        # a chain of conditions, of which the last is not met
        (FLAT | {"hidden": [8, 16], "forget_bias": [0.0, 1.0],
                 "when": {"forget_bias": {"hidden": 16}, "hidden": {"init": "glorot"}}}, {},
         ["hidden = 8, 16 is in no run: when.hidden asks for init = glorot",
          "forget_bias = 0.0 is in no run: when.forget_bias asks for hidden = 16"]),
        # what the cell, the task, the input or another option has no use for
        (FLAT | {"cell": ["gru", "elman"], "forget_bias": [0.0, 1.0]}, {},
         ["forget_bias = 0.0, 1.0 is in no run: elman, gru has no such option"]),
        (FLAT | {"cell": "gru"}, {"activation": "relu"}, ["set activation = relu is in no run"]),
        (FLAT | {"cell": "min_gru", "gain": [1.0, 2.0]}, {},
         ["init = normal, orthogonal is in no run: min_gru", "gain = 1.0, 2.0 is in no run"]),
        (FLAT | {"cell": "min_gru", "init": "normal"}, {"gain": 1.0},
         ["set gain = 1.0 is in no run: min_gru has no such option"]),
        (TRAIN | {"symbols": 3}, {}, ["symbols = 3 is in no run: adding, gru has no such option"]),
        (TRAIN | {"task": "digits", "length": [9, 10]}, {}, ["length = 9, 10 is in no run"]),
        (TRAIN | {"cell": "elman", "chrono": [0.0, 9.0]}, {}, ["chrono = 9.0 is in no run"]),
        (TRAIN | {"flossing_exponents": 4}, {}, ["flossing_exponents changes no run: flossing"]),
        (TRAIN, {"flossing_exponents": 4}, ["flossing_exponents changes no run"]),
        (TRAIN | {"task": "digits", "evaluation": 7}, {}, ["evaluation changes no run"]),
        (FLAT | {"input": ["gaussian", "reviews"], "input_scale": 0.0}, {},
         ["input changes no run: input_scale is 0"]),
        # blocks that give their own, or nothing
        (FLAT | {"gain": [3.0], "blocks": [{"gain": 1.0}, {"gain": 2.0}]}, {},
         ["gain = 3.0 is in no run: every block gives its own"]),
        (FLAT | {"blocks": [{}, {"init": "normal"}]}, {}, ["blocks[1] adds no run"]),
        (FLAT | {"blocks": [{"hidden": 8}, {"hidden": 8}]}, {}, ["blocks[1] adds no run"]),
        (FLAT | {"blocks": [{"cell": "gru", "forget_bias": 0.0}, {}]}, {},
         ["blocks[0].forget_bias = 0.0 is in no run: gru"]),
    ],
)  # fmt: skip
def test_what_changes_no_run_is_said(table, overrides, words):
    found = said(table, overrides)
    for word in words:
        assert any(word in message for message in found), found
    assert all("\n" not in message and ";" in message for message in found)


def test_a_condition_of_a_zipped_axis_without_a_default_takes_effect():
    zipped = FLAT | {"zip": [{"gain": [3.0, 4.0], "length": [10, 20]}]}
    del zipped["gain"], zipped["length"]
    found = runs(zipped | {"when": {"gain": {"init": "normal"}}})
    assert {(r.init, r.gain, r.length) for r in found} == {
        ("normal", 3.0, 10),
        ("normal", 4.0, 20),
        ("orthogonal", 3.0, 10),
        ("orthogonal", 3.0, 20),
    }
    block = {"zip": zipped.pop("zip"), "when": {"gain": {"init": "normal"}}}
    assert runs(zipped | {"blocks": [block]}) == found


def test_rows_that_are_zipped_twice():
    with pytest.raises(ValueError, match=r"zip\[0\] has values twice: \(8, 2\)"):
        sweeps.parse(FLAT | {"zip": [{"hidden": [8, 16, 8], "inputs": [2, 2, 2]}]})
    with pytest.raises(ValueError, match="values twice: 1.0"):
        sweeps.parse(FLAT, {"gain": [1.0, 1]})


def test_a_sweep_and_its_estimate_warn(tmp_path):
    overrides = {"forget_bias": 7.0, "init": "orthogonal", "hidden": 2}
    with pytest.warns(UserWarning, match="set forget_bias = 7.0 is in no run"):
        sweeps.estimate(FLAT | NORMAL, set=overrides)
    with pytest.warns(UserWarning, match="set forget_bias = 7.0 is in no run") as seen:
        report = sweeps.sweep(FLAT | NORMAL, tmp_path / "out", set=overrides)
    assert seen[0].filename == __file__ and set(report.results.runs["forget_bias"]) == {1.0}
