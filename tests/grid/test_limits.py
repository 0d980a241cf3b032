"""Specs that nobody means: each is refused in one short message, or estimated, at once."""

import random

import fuzzed
import pytest

from gradlab import sweeps
from gradlab._names import LONGEST
from gradlab.grid import Plan, sizes, spec
from gradlab.sweeps import gradients, training

FLAT = {"cell": "elman", "init": "normal", "gain": 1.0, "length": 10}
TRAINED = {"task": "adding", "cell": "elman", "length": 10, "updates": 100, "learning_rate": 0.1}


@pytest.mark.parametrize("seed", range(3))
def test_a_random_spec_is_refused_in_a_message_or_estimated(tmp_path, seed):
    rng = random.Random(seed)
    path = tmp_path / "spec.toml"
    for _ in range(30):
        path.write_bytes(fuzzed.spec(rng))
        found = fuzzed.outcome(lambda: fuzzed.load_and_estimate(path))
        assert found in ("accepted", "refused"), path.read_bytes()[:1000]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"init": "normal", "zip": [{"init": 1}]}, "init: no list"),
        ({"zip": [{"hidden": []}]}, "hidden: an empty list"),
        ({"gain": {"linspace": [10**400, 1, 3]}}, "integer must be from -2.63 to 2.63"),
        ({"gain": {"linspace": [0, 1, 10**9]}}, "num from 1 to 100,000"),
        ({"seeds": 2**63 - 1}, "seeds must be 1 to 100,000"),
        ({"seeds": 10**9}, "seeds must be 1 to 100,000"),
        ({"seeds": range(10**15)}, "at most 100,000 values"),
        ({"gain": True}, "must be a number, got True"),
        ({"gain": "1.0"}, "must be a number, got '1.0'"),
        ({"length": 3_000_000_000}, "less than or equal to 2147483647"),
        ({"length": 2**63}, "integer must be from"),
        ({"hidden": {"linspace": [1, 1e6, 10**5]}}, "at most 20,000 programs"),
        ({"zip": [{"hidden": list(range(1, 99_999))}]}, "at most 5,000 grids of zipped rows"),
        ({"blocks": [{}] * 501}, "at most 500 blocks"),
        ({"gain": "a" * 100_000}, "must be a number"),
        ({"cell": "a" * 100_000}, "unknown cell 'aaa"),
        ({"a" * 100_000: 1}, "unknown key 'aaa"),
        ({"measurement": []}, "unknown measurement"),
        ({"imports": ["a" * 5000 + ".py"]}, "is not there"),
        ({"imports": ["\0.py"]}, "is not there"),
        ({"gain": {"a" * 5000: 1}}, "unknown spacing 'aaa"),
    ],
)
def test_what_does_not_fit_is_named(table, message):
    with pytest.raises(ValueError, match=message) as caught:
        Plan(sweeps.parse(FLAT | table))
    assert len(str(caught.value)) <= LONGEST


def nest(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gain = " + "[" * 2000 + "]" * 2000, "at most 16 levels"),
        ("a" + ".a" * 100_000 + " = 1", "at most 16 levels"),
        ("gain = " + "1" * 5000, "integer must be from"),
        ("#" * 10**7, "at most 1,000,000 characters"),
        ("gain =", "broken TOML"),
        ("\ud800", "cannot be read"),
    ],
)
def test_a_file_is_bounded_before_it_is_read(tmp_path, text, message):
    path = tmp_path / "spec.toml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(ValueError, match=rf"spec.toml: .*{message}"):
        sweeps.load(path)


@pytest.mark.parametrize("value", [nest(40), nest(100_000), 10**30])
def test_what_python_passes_is_bounded_as_well(value):
    with pytest.raises(ValueError, match="levels|integer"):
        sweeps.parse(FLAT | {"gain": value})
    with pytest.raises(ValueError, match="levels|integer"):
        sweeps.parse(FLAT, {"gain": value})


def test_a_zip_of_thousands_of_rows_and_a_switch_of_thousands_of_values():
    rows = {"gain": [i // 40 for i in range(2000)], "length": [1 + i % 40 for i in range(2000)]}
    plan = Plan(sweeps.parse({"cell": "elman", "init": "normal", "zip": [rows]}))
    assert len(plan) == 2000 and len(plan.programs()) == 40
    strengths = {"linspace": [0, 1, 10_000]}
    plan = Plan(sweeps.parse(TRAINED | {"omega": strengths, "clip_norm": strengths}))
    assert len(plan) == 10**8 and len(plan.programs()) == 4


def test_set_replaces_a_zip_if_it_gives_all_of_it():
    table = {"init": "normal", "gain": 1.0, "zip": [{"cell": ["gru", "lstm"], "length": [5, 9]}]}
    found = sweeps.parse(table, {"cell": "elman", "length": [3, 4]})
    assert found.zip == [] and (found.cell, found.length) == (["elman"], [3, 4])
    blocks = {"init": "normal", "gain": 1.0, "cell": "elman", "blocks": [{"zip": table["zip"]}]}
    found = sweeps.parse(blocks, {"cell": "elman", "length": 3})
    assert [run.length for run in Plan(found)] == [3]
    with pytest.raises(ValueError, match="length is zipped with cell; set all of them, or none"):
        sweeps.parse(table, {"length": 3})


def test_an_estimate_asks_few_of_many_programs(monkeypatch):
    asked = []

    def flops(run):
        asked.append(run)
        return 2.0 * gradients.cost.work(run)[1]

    cost = gradients.cost.COST._replace(flops=flops)
    # Every spec makes its measurement anew.
    monkeypatch.setattr(gradients.cost, "COST", cost)
    many = FLAT | {"length": {"linspace": [1, 1e6, 10_000]}}
    monkeypatch.setattr("gradlab.grid.forecast.PATIENCE", -1.0)
    found = sweeps.estimate(many)
    assert (asked, found.guessed, found.flops) == ([], 10_000, 0.0)
    monkeypatch.setattr("gradlab.grid.forecast.PATIENCE", 60.0)
    found = sweeps.estimate(FLAT)
    assert len(asked) == 1 and found.guessed == 0
    assert "by their sizes" not in str(found)


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        (gradients, {"hidden": 10**9}),
        (gradients, {"length": 2**31 - 1, "inputs": 2**31 - 1}),
        (gradients, {"hidden": 200_000}),
        (training, {"hidden": 10**9}),
        (training, {"evaluation": 2**31 - 1, "length": 10**6}),
    ],
)
def test_a_run_that_no_machine_holds_is_refused_before_a_compiler_sees_it(monkeypatch, kind, size):
    monkeypatch.setattr(sizes, "total_memory", lambda: 10**11)
    monkeypatch.setattr(sizes, "size_of", lambda *_: pytest.fail("asked the compiler"))
    (run,) = Plan(sweeps.parse((FLAT if kind is gradients else TRAINED) | size))
    found = sizes.fit(kind.MEASUREMENT, run, 1, None, 1)
    assert "MemoryError: needs about" in found.refusal and "this machine has" in found.refusal


def test_such_a_run_is_a_failed_row(tmp_path):
    report = sweeps.sweep(FLAT | {"hidden": 10**9}, tmp_path)
    (reason,) = report.failed.values()
    assert "MemoryError: needs about" in reason and len(report.results.runs) == 1


def test_the_reader_of_specs_takes_what_toml_has():
    assert spec.loads('a = [1, 2.5]\r\n[b]\nc = "x"') == {"a": [1, 2.5], "b": {"c": "x"}}
