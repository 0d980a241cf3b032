"""Plans: lazy unions of grids, against plain loops over every point."""

import itertools
import random
import re

import numpy as np
import pytest

from gradlab import cells, sweeps
from gradlab.grid import Plan
from gradlab.sweeps.gradients import Run

# The option of a cell that an axis needs, written out again for this test.
OPTIONS = {
    "activation": "activation",
    "init": "recurrent",
    "gain": "recurrent",
    "forget_bias": "forget_bias",
    "bias_scale": "bias",
}

FLAT = {"cell": ["gru", "lstm"], "init": "normal", "gain": 1.0, "length": 5}


def planned(table, overrides=None):
    return Plan(sweeps.parse(table, overrides))


def by_loops(made):
    """Every run of a spec: all products of all grids, conditions and missing options applied."""
    found = set()
    for grid in made.grids():
        for values in itertools.product(*grid.values().values()):
            point = dict(zip(grid.axes(), values, strict=True))
            for axis, condition in grid.when.items():
                if not all(point[name] in wanted for name, wanted in condition.items()):
                    point[axis] = (grid.default(axis) or getattr(grid, axis))[0]
            for name, option in OPTIONS.items():
                if option not in cells.options(point["cell"]):
                    point[name] = None
            found.add(Run(**point))
    return found


@pytest.mark.parametrize("trial", range(20))
def test_a_plan_has_every_run_once(trial):
    rng = random.Random(trial)

    def some(values):
        return rng.sample(values, rng.randint(1, len(values)))

    def block():
        axes = {
            "cell": some(["gru", "lstm", "elman", "lru"]),
            "gain": some([0.0, 1.0, 2.0]),
            "length": some([5, 6]),
            "seed": some([0, 1, 2]),
            "forget_bias": some([0.0, 1.0, 2.0]),
        }
        if rng.random() < 0.4:
            axes["zip"] = [{"hidden": [8, 9, 10], "inputs": [1, 2, 1]}]
        if rng.random() < 0.5:
            axes["when"] = {"forget_bias": {"cell": "lstm"}, "gain": {"seed": [0, 1], "length": 5}}
        return axes

    made = sweeps.parse(FLAT | {"blocks": [block() for _ in range(rng.randint(1, 4))]})
    lazy = Plan(made)
    runs = list(lazy)
    assert len(runs) == len(lazy) == len(set(runs)) and set(runs) == by_loops(made)
    grouped = {name: [run for axes in grids for run in lazy.runs(axes)]
               for name, grids in lazy.programs().items()}  # fmt: skip
    assert all(run.program == name for name, group in grouped.items() for run in group)
    assert sorted(map(str, itertools.chain(*grouped.values()))) == sorted(map(str, runs))
    # What a manifest holds is the same plan.
    again = Plan(type(made)(**made.model_dump(mode="json")))
    assert list(again) == runs and again.covers(lazy) and lazy.covers(again)


def test_a_plan_covers_what_it_extends():
    small, large = planned(FLAT | {"seeds": 2}), planned(FLAT | {"seeds": 3})
    assert large.covers(small) and not small.covers(large)


def test_a_large_plan_is_counted_and_not_made():
    axes = {"gain": {"linspace": [0.0, 3.0, 1001]}, "seeds": 10**5, "length": [10, 100]}
    lazy = planned(FLAT | axes)
    assert len(lazy) == 2 * 1001 * 2 * 10**5 and len(lazy.programs()) == 4


def test_spacings_are_numpys():
    made = sweeps.parse(
        FLAT | {"gain": {"linspace": [0.1, 1, 10]}, "length": {"logspace": [1, 3, 5]}}
    )
    assert made.gain == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert made.length == [10, 32, 100, 316, 1000]
    assert sweeps.parse(FLAT | {"gain": {"logspace": [-1, 1, 3]}}).gain == [0.1, 1.0, 10.0]


def test_zipped_axes_go_together():
    table = FLAT | {
        "zip": [{"hidden": [8, 16], "inputs": [2, 3]}, {"seed": [4, 5], "batch": [1, 2]}]
    }
    found = {(r.hidden, r.inputs, r.seed, r.batch) for r in planned(table)}
    assert found == {(8, 2, 4, 1), (16, 3, 4, 1), (8, 2, 5, 2), (16, 3, 5, 2)}


def test_a_block_keeps_the_zipped_axes_outside_of_it():
    outer, inner = {"hidden": [8, 16], "inputs": [2, 3]}, {"gain": [0.5, 1.0], "length": [10, 20]}
    lazy = planned(FLAT | {"zip": [outer], "blocks": [{"zip": [inner]}, {"cell": "elman"}]})
    found = {(r.hidden, r.inputs, r.gain, r.length) for r in lazy if r.cell == "gru"}
    assert found == {(8, 2, 0.5, 10), (8, 2, 1.0, 20), (16, 3, 0.5, 10), (16, 3, 1.0, 20)}
    assert {(r.hidden, r.inputs) for r in lazy if r.cell == "elman"} == {(8, 2), (16, 3)}
    # A spacing in a block's zip is one there as well.
    spaced = {"gain": {"linspace": [0, 1, 2]}, "length": [10, 20]}
    assert {(r.gain, r.length) for r in planned(FLAT | {"blocks": [{"zip": [spaced]}]})} == {
        (0.0, 10), (1.0, 20)
    }  # fmt: skip


def test_axes_may_be_arrays_tuples_and_ranges():
    axes = {"gain": np.linspace(0, 1, 3), "length": (5, 6), "seed": range(2), "hidden": np.int64(8)}
    assert len(planned(FLAT | axes)) == 2 * 3 * 2 * 2


def test_a_condition_varies_an_axis_where_it_holds():
    table = FLAT | {"cell": ["lstm", "lstm_peephole"], "forget_bias": [0.0, 1.0, 2.0]}
    found = [
        (r.cell, r.forget_bias)
        for r in planned(table | {"when": {"forget_bias": {"cell": "lstm"}}})
    ]
    assert sorted(found) == [("lstm", 0.0), ("lstm", 1.0), ("lstm", 2.0), ("lstm_peephole", 1.0)]
    # An axis without a default keeps the first of its values.
    table = FLAT | {"gain": [3.0, 1.0], "seeds": 2, "when": {"gain": {"seed": 0}}}
    assert {(r.seed, r.gain) for r in planned(table)} == {(0, 3.0), (0, 1.0), (1, 3.0)}


def test_overrides_stand_in_place_of_what_stands_anywhere():
    blocks = [{"cell": "lstm", "gain": [1.0, 2.0]}, {"cell": "gru", "hidden": 8}]
    lazy = planned(FLAT | {"blocks": blocks}, {"gain": 3.0, "hidden": [4, 5], "seeds": 2})
    assert {(r.cell, r.gain, r.hidden, r.seed) for r in lazy} == {
        (cell, 3.0, hidden, seed)
        for cell in ("lstm", "gru")
        for hidden in (4, 5)
        for seed in (0, 1)
    }


@pytest.mark.parametrize(
    "table, overrides, message",
    [
        ({"gain": {"linspace": [0, 1]}}, {}, r"gain: linspace takes \[start, stop, num\], .* got"),
        ({"gain": {"linspace": [0, 1, 2.5]}}, {}, "gain: linspace takes"),
        ({"gain": {"linspac": [0, 1, 2]}}, {}, "gain: unknown spacing 'linspac'; did you mean 'li"),
        ({"gain": {"logspace": [0, 400, 3]}}, {}, "gain: logspace of .* is not finite"),
        ({"zip": [{"hidden": [8, 9], "inputs": [1]}]}, {}, "one length; hidden: 2, inputs: 1"),
        ({"zip": [{"hiden": [8]}]}, {}, r"unknown axis in zip\[0\] 'hiden'; did you mean 'hidden'"),
        ({"hidden": [4], "zip": [{"hidden": [8]}]}, {}, "hidden is an axis of its own and zipped"),
        ({"zip": [{"hidden": [8]}, {"hidden": [9]}]}, {}, "hidden is zipped twice"),
        ({"zip": [{"hidden": [8, -1]}]}, {}, "hidden.1.: .*greater than or equal to 1, got -1"),
        ({"when": {"forget_bia": {"cell": "gru"}}}, {}, "unknown axis in when 'forget_bia'"),
        ({"when": {"gain": {"cel": "gru"}}}, {}, "unknown axis in when.gain 'cel'"),
        ({"when": {"gain": {"cell": "lstn"}}}, {}, "when.gain.cell.0.: unknown cell 'lstn'"),
        ({"when": {"gain": "lstm"}}, {}, "when.gain maps other axes to values, got 'lstm'"),
        ({"zip": [{}]}, {}, r"zip must be tables: \[\[zip\]\]"),
        ({"zip": 5}, {}, r"zip must be tables: \[\[zip\]\]"),
        ({"blocks": [{"zip": "x"}]}, {}, r"blocks\[0\].zip must be tables: \[\[zip\]\]"),
        ({"zip": [{"hidden": [8], "inputs": [3]}], "blocks": [{"hidden": 4}]}, {},
         "a block gives hidden, which is zipped with inputs outside of it"),
        ({}, {"hiden": 8}, "unknown key to set 'hiden'; did you mean 'hidden'"),
        ({}, {"hidden": 0}, "hidden.0.: .*greater than or equal to 1, got 0"),
        ({"zip": [{"hidden": [8], "inputs": [3]}]}, {"hidden": 8},
         "hidden is zipped with inputs; set all"),
    ],
)  # fmt: skip
def test_mistakes_are_one_clear_line(table, overrides, message):
    with pytest.raises(ValueError) as caught:
        sweeps.parse(FLAT | table, overrides)
    assert re.search(message, str(caught.value)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("turn", [1, -1])
def test_conditions_hold_in_any_order(turn):
    when = {"forget_bias": {"hidden": 16}, "hidden": {"init": "normal"}}
    axes = {"cell": ["lstm"], "init": ["normal", "orthogonal"], "gain": [1.0], "length": [10]}
    axes |= {"hidden": [8, 16], "forget_bias": [0.0, 2.0]}
    made = planned({"axes": axes, "when": dict(list(when.items())[::turn])})
    points = sorted((run.init, run.hidden, run.forget_bias) for run in made)
    wide = [("normal", 16, 0.0), ("normal", 16, 2.0), ("orthogonal", 128, 1.0)]
    assert points == [("normal", 8, 1.0), *wide]


def test_conditions_in_a_circle():
    axes = {"cell": ["lstm"], "init": ["normal"], "gain": [1.0, 2.0], "length": [10, 20]}
    when = {"gain": {"length": 10}, "length": {"gain": 1.0}}
    with pytest.raises(ValueError, match="when: conditions go around in a circle: "):
        planned({"axes": axes, "when": when})
