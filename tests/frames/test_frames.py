import json
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import sweep

import gradlab as gl
from gradlab import frames

RECORD = {
    "run_id": "a",
    "cell": "gru",
    "init": "normal",
    "gain": 1,
    "input": "gaussian",
    "length": 10,
    "hidden": 4,
    "inputs": 2,
    "seed": 0,
    "status": "ok",
    "verdict": "stable",
}


def records(**columns):
    size = max(len(values) for values in columns.values())
    return [
        RECORD | {"run_id": str(k), "seed": k} | {name: v[k] for name, v in columns.items()}
        for k in range(size)
    ]


@pytest.fixture(scope="module")
def results():
    return sweep(gains=(0.5, 1.0, 2.0), lengths=(10, 316, 1000), seeds=3)


@pytest.mark.parametrize(
    "schema",
    [
        frames.RUNS,
        frames.STEPS,
        frames.TRACE,
        frames.CHECK,
        frames.TRAINED,
        frames.CURVES,
        frames.TRAINING_STEPS,
        frames.METRICS,
        frames.RECORDS,
    ],
)
def test_schema_documents_every_column(schema):
    # "task": whatever the task measures its loss or error in.
    units = {"", "1", "steps", "nats", "nats/step", "updates", "task", "pixels"}
    for column in schema.values():
        assert column.unit in units
        assert column.meaning
        assert (column.dtype in ("str", "boolean")) == (column.unit == "")


def test_axes_are_columns_of_runs():
    assert set(frames.AXES) < set(frames.RUNS)


def test_runs_frame_coerces_and_fills():
    frame = frames.runs_frame([RECORD | {"horizon": 3}, RECORD | {"horizon": None, "rate": -1}])
    assert list(frame.columns) == list(frames.RUNS)
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == {
        name: column.dtype for name, column in frames.RUNS.items()
    }
    assert frame["horizon"].tolist() == [3, pd.NA]
    assert np.isnan(frame["rate"][0]) and frame["rate"][1] == -1.0
    assert frame["activation"].isna().all() and frame["forget_bias"].isna().all()


def test_coercion_is_idempotent(results):
    pd.testing.assert_frame_equal(frames.runs_frame(results.runs), results.runs)
    pd.testing.assert_frame_equal(frames.steps_frame(results.steps), results.steps)


def test_empty_records_keep_the_schema():
    frame = frames.runs_frame([])
    assert len(frame) == 0
    assert [str(dtype) for dtype in frame.dtypes] == [c.dtype for c in frames.RUNS.values()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ratte": 1.0}, "unknown column of runs 'ratte'; did you mean 'rate'?"),
        ({"length": 10.5}, "column 'length' of runs is not int64"),
        ({"seed": None}, "column 'seed' of runs is not int64"),
        ({"gain": "large"}, "column 'gain' of runs is not float64"),
    ],
)
def test_a_record_outside_the_schema_is_refused(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        frames.runs_frame([RECORD | change])


def test_a_missing_required_column_is_refused():
    record = {name: value for name, value in RECORD.items() if name != "gain"}
    with pytest.raises(ValueError, match="column 'gain' of runs is missing"):
        frames.runs_frame([record])


@given(st.integers(1, 200_000))
def test_lags_start_dense_and_reach_the_end(length):
    lags = frames.lags(length)
    assert lags[0] == 0 and lags[-1] == length - 1
    assert (np.diff(lags) > 0).all()
    dense = min(length, 65)
    assert lags[:dense].tolist() == list(range(dense))
    assert lags.size <= 67 + 16 * max(np.log2(length / 64), 0)
    beyond = lags[64:-1]
    # 16 to the octave: neighbours differ by a factor 2^(1/16), up to rounding by one half each.
    assert (np.abs(np.diff(beyond) - beyond[:-1] * (2 ** (1 / 16) - 1)) <= 1.05).all()


def test_lags_of_a_longer_sequence_contain_those_of_a_shorter():
    assert set(frames.lags(500)[:-1]) < set(frames.lags(5000))


@pytest.mark.parametrize("length", [0, -3])
def test_lags_of_no_steps_are_refused(length):
    with pytest.raises(ValueError, match=f"length must be at least 1, got {length}"):
        frames.lags(length)


def traced(*scans):
    return SimpleNamespace(scans=scans, taps={})


def scan(shape, *, outer=(), reverse=False, name="model.py:7", leaves=("c", "h")):
    values = np.arange(np.prod(shape), dtype=float).reshape(shape)
    each = {leaf: values + 10_000 * (k + 1) for k, leaf in enumerate(leaves)}
    return SimpleNamespace(
        name=name,
        length=shape[len(outer)],
        reverse=reverse,
        outer=outer,
        batched=len(shape) > len(outer) + 1,
        log_norm=values,
        log_direct=values - 1000,
        log_transported=values - 2000,
        leaves=each,
        leaves_direct={leaf: v - 1000 for leaf, v in each.items()},
        leaves_transported={leaf: v - 2000 for leaf, v in each.items()},
        log_param=None,
    )


def test_frame_of_a_plain_scan():
    rows = frames.frame(traced(scan((4,))))
    optional = ("training_step", "outer", "sample", "log_param")
    assert list(rows.columns) == [name for name in frames.TRACE if name not in optional]
    assert rows["leaf"].tolist() == [""] * 4 + ["c"] * 4 + ["h"] * 4
    assert rows["step"].tolist() == [1, 2, 3, 4] * 3
    assert rows["lag"].tolist() == [3, 2, 1, 0] * 3
    assert rows["log_norm"].tolist() == [0, 1, 2, 3, 10000, 10001, 10002, 10003] + [
        20000,
        20001,
        20002,
        20003,
    ]
    whole = rows[rows["leaf"] == ""]
    assert whole["log_direct"].tolist() == [-1000, -999, -998, -997]
    assert (rows["log_norm"] - rows["log_direct"] == 1000).all()
    assert (rows["log_norm"] - rows["log_transported"] == 2000).all()


def test_frame_has_the_contributions_that_were_asked_for():
    one = scan((3, 2), leaves=("c", "h"))
    one.log_param = np.array([7.0, 8.0, 9.0])
    rows = frames.frame(traced(one))
    assert rows.loc[rows["leaf"] == "", "log_param"].tolist() == [7, 7, 8, 8, 9, 9]
    assert rows.loc[rows["leaf"] == "h", "log_param"].isna().all()


def test_frame_of_a_reversed_scan_counts_lag_from_the_first_step():
    rows = frames.frame(traced(scan((3,), reverse=True, leaves=())))
    assert rows["lag"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize("outer", [(), (3,), (2, 3)])
def test_frame_finds_every_entry_of_nested_and_batched_scans(outer, batch):
    shape = (*outer, 4) + (() if batch is None else (batch,))
    one = scan(shape, outer=outer)
    rows = frames.frame(traced(one))
    assert ("outer" in rows) == bool(outer) and ("sample" in rows) == (batch is not None)
    assert len(rows) == 3 * one.log_norm.size
    for row in (
        rows[rows["leaf"] == "h"].sample(10, random_state=0, replace=True).to_dict("records")
    ):
        index = tuple(map(int, row["outer"].split(","))) if outer else ()
        index += (row["step"] - 1,) + (() if batch is None else (row["sample"],))
        assert row["log_norm"] == one.leaves["h"][index]
        assert row["lag"] == 4 - row["step"]


def test_frame_joins_scans_of_different_shapes():
    rows = frames.frame(traced(scan((3,)), scan((3, 2), name="model.py:9")))
    assert rows.loc[rows["scan"] == "model.py:7", "sample"].isna().all()
    assert rows.loc[rows["scan"] == "model.py:9", "sample"].notna().all()


KEYS = ["scan", "leaf", "outer", "sample", "step"]


@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize("outer", [(), (3,)])
@pytest.mark.parametrize("leaves", [(), ("0",), ("h",), ("c", "h")])
def test_frame_has_each_row_once(leaves, outer, batch):
    shape = (*outer, 4) + (() if batch is None else (batch,))
    one = scan(shape, outer=outer, leaves=leaves)
    tap = SimpleNamespace(**{name: vars(one)[name] for name in TAP})
    tap.name = "tap"
    rows = frames.frame(SimpleNamespace(scans=[one], taps={"tap": tap}))
    keys = [name for name in KEYS if name in rows]
    assert not rows.duplicated(keys).any()
    several = leaves if len(leaves) > 1 else ()
    assert len(rows) == one.log_norm.size * (2 + len(several))
    assert set(rows["leaf"]) == {"", *several}
    whole = rows[(rows["leaf"] == "") & (rows["scan"] == one.name)]
    assert whole["log_norm"].tolist() == one.log_norm.ravel().tolist()


TAP = ("name", "length", "reverse", "outer", "batched", "log_norm")


@pytest.mark.parametrize("carry", ["array", "dict", "tuple"])
def test_frame_of_a_traced_state_of_one_leaf(carry):
    pack = {"array": lambda h: h, "dict": lambda h: {"h": h}, "tuple": lambda h: (h,)}[carry]

    def loss(w, xs):
        def step(h, x):
            return jax.tree.map(lambda h: jnp.tanh(w * h + x), h), None

        twice = (jax.lax.scan(step, pack(jnp.zeros(2)), xs)[0] for _ in range(2))
        return sum(jnp.sum(leaf) for end in twice for leaf in jax.tree.leaves(end))

    rows = frames.frame(gl.trace(loss)(0.5, jnp.ones((3, 2))))
    assert not rows.duplicated(["scan", "leaf", "step"]).any()
    assert set(rows["leaf"]) == {""} and set(rows["step"]) == {1, 2, 3}


def test_frame_refuses_names_that_mean_two_rows():
    tap = SimpleNamespace(**{name: vars(scan((3,)))[name] for name in TAP})
    with pytest.raises(ValueError, match="a tap and a scan are both named 'model.py:7'"):
        frames.frame(SimpleNamespace(scans=[scan((3,))], taps={"model.py:7": tap}))
    with pytest.raises(ValueError, match="named '', which stands for the whole"):
        frames.frame(traced(scan((3,), leaves=("", "h"))))


def test_frame_of_no_scans_is_empty():
    assert len(frames.frame(traced())) == 0


def write(results, folder):
    results.runs.to_parquet(folder / "runs.parquet")
    results.steps.to_parquet(folder / "steps.parquet")
    (folder / "manifest.json").write_text(json.dumps(results.manifest))


def test_read_gives_back_what_was_written(results, tmp_path):
    write(results, tmp_path)
    again = frames.read(tmp_path)
    pd.testing.assert_frame_equal(again.runs, results.runs)
    pd.testing.assert_frame_equal(again.steps, results.steps)
    assert again.manifest == results.manifest


@pytest.mark.parametrize("name", ["runs.parquet", "steps.parquet", "manifest.json"])
def test_read_names_what_is_missing_or_damaged(results, tmp_path, name):
    write(results, tmp_path)
    (tmp_path / name).write_bytes(b"PAR1 broken")
    with pytest.raises(ValueError, match=rf"{re.escape(name)}' is damaged: [^\n]*\Z"):
        frames.read(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=rf"no results in .*: {re.escape(name)} missing"):
        frames.read(tmp_path)


def test_csv_holds_the_same_values(results, tmp_path):
    write(results, tmp_path)
    runs, steps = frames.to_csv(tmp_path)
    assert (runs.name, steps.name) == ("runs.csv", "steps.csv")
    dtypes = {name: column.dtype for name, column in frames.RUNS.items()}
    again = pd.read_csv(runs, dtype=dtypes)
    pd.testing.assert_frame_equal(again, results.runs, check_exact=True)
    log_norm = pd.read_csv(steps)["log_norm"]
    np.testing.assert_array_equal(log_norm, results.steps["log_norm"])
    assert np.isneginf(log_norm).any() and log_norm.isna().any()


def test_summary_by_hand():
    runs = frames.runs_frame(
        records(
            rate=[-0.2, -0.1, 0.3],
            log_gain=[-2.0, -1.0, 3.0],
            horizon=[8, None, 4],
            verdict=["vanishing", "stable", "exploding"],
        )
        + [RECORD | {"run_id": "other", "gain": 2.0, "rate": 1.0}]
    )
    table = frames.summary(runs)
    assert table["gain"].tolist() == [1.0, 2.0]
    row = table.iloc[0]
    assert (row["runs"], row["rate_runs"]) == (3, 3)
    assert row["rate_median"] == -0.1
    np.testing.assert_allclose(row["rate_mean"], 0.0, atol=1e-15)
    np.testing.assert_allclose(row["rate_sd"], np.sqrt((0.04 + 0.01 + 0.09) / 2))
    assert (row["rate_min"], row["rate_max"]) == (-0.2, 0.3)
    assert row["log_gain_median"] == -1.0
    assert row["horizon_median"] == 8.0  # of 4, 8 and never
    assert [row[name] for name in frames.VERDICTS] == [1 / 3, 1 / 3, 1 / 3, 0]
    assert row["zero"] == 0
    assert table["rate_sd"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("status", "rate", "gain", "expected"),
    [
        # More than half are exactly zero: so is the median, whatever the others are.
        (["ok", *["zero"] * 4], [0.3, *[np.nan] * 4], [3.0, *[-np.inf] * 4], (-np.inf, -np.inf)),
        (["ok"] * 3 + ["zero"] * 2, [1, 2, 3, np.nan, np.nan], [1, 2, 3, -np.inf, -np.inf], (1, 1)),
        # A NaN could be anything: no median of the others.
        (["ok", "ok", "nonfinite"], [1.0, 2.0, np.nan], [1.0, 2.0, np.nan], (np.nan, np.nan)),
        # A run that failed was not measured.
        (["ok", "ok", "failed"], [1.0, 2.0, np.nan], [1.0, 3.0, np.nan], (1.5, 2.0)),
        (["failed"] * 2, [np.nan] * 2, [np.nan] * 2, (np.nan, np.nan)),
    ],
)
def test_summary_is_of_all_seeds_in_the_extended_reals(status, rate, gain, expected):
    (row,) = frames.summary(
        frames.runs_frame(records(status=status, rate=rate, log_gain=gain))
    ).to_dict("records")
    np.testing.assert_equal((row["rate_median"], row["log_gain_median"]), expected)
    assert row["runs"] == len(status) and row["failed"] == status.count("failed") / len(status)
    lowest = np.nan if np.isnan(expected[0]) else -np.inf if "zero" in status else 1.0
    np.testing.assert_equal(row["rate_min"], lowest)


def test_a_norm_that_never_leaves_has_an_infinite_horizon():
    def median(horizon, verdict):
        runs = frames.runs_frame(records(horizon=horizon, verdict=verdict))
        return frames.summary(runs)["horizon_median"].item()

    assert median([40, None, None], ["vanishing", "stable", "stable"]) == np.inf
    assert median([40, 50, None], ["vanishing", "vanishing", "stable"]) == 50
    assert np.isnan(median([40, 50, None], ["vanishing", "vanishing", "nonfinite"]))


def test_trained_summary_is_of_all_seeds_in_the_extended_reals():
    record = dict(task="adding", length=10, cell="gru", init="normal", gain=1, hidden=4,
                  optimizer="adam", learning_rate=0.1, batch=2, updates=9, trained=9)  # fmt: skip

    def row(status, loss, step):
        each = zip(status, loss, step, strict=True)
        runs = [
            record | dict(run_id=str(k), seed=k, status=s, loss=x, error=x, solved_step=t)
            for k, (s, x, t) in enumerate(each)
        ]
        return frames.trained_summary(frames.trained_frame(runs)).iloc[0]

    few = row(["solved", "unsolved", "unsolved"], [0.1, 0.5, np.inf], [5, None, None])
    assert (few["loss_median"], few["solved_step_median"]) == (0.5, np.inf)
    most = row(["solved", "solved", "unsolved"], [0.1, 0.2, 0.5], [5, 7, None])
    assert (most["loss_median"], most["solved_step_median"]) == (0.2, 7)
    bad = row(["solved", "solved", "nonfinite"], [0.1, 0.2, np.nan], [5, 7, None])
    assert np.isnan(bad["loss_median"]) and bad["solved_step_median"] == 7
    failed = row(["solved", "solved", "failed"], [0.1, 0.3, np.nan], [5, 7, None])
    assert (failed["loss_median"], failed["solved_step_median"]) == (0.2, 6)
    assert failed["solved"] == failed["failed"] * 2 == 2 / 3


VALUES = st.lists(
    st.sampled_from([-np.inf, np.inf, np.nan, -1.0, 0.0, 2.5]), min_size=1, max_size=7
)


@given(st.lists(VALUES, min_size=1, max_size=4))
def test_spread_is_that_of_each_group_alone(groups):
    """The oracle sorts and adds up, one group at a time."""
    values = pd.Series([value for group in groups for value in group])
    by = pd.Series([k for k, group in enumerate(groups) for _ in group])
    table = frames.spread(values, [by])
    for k, group in enumerate(groups):
        row, bad = table.loc[k], sum(map(np.isnan, group))
        assert (row["count"], row["missing"]) == (len(group), bad)
        if bad:
            assert row[["median", "mean", "low", "high"]].isna().all()
            continue
        ordered, half = sorted(group), len(group) // 2
        # Not halved before it is added: two of one infinity are that one, both kinds are NaN.
        pair = ordered[half] + ordered[-half - 1]
        np.testing.assert_equal(row["median"], pair / 2)
        total = sum(group)
        np.testing.assert_allclose(row["mean"], total / len(group))
        assert (row["low"], row["high"]) == (ordered[0], ordered[-1])


def test_disagreement_of_the_mean_by_hand():
    """Rates 0.1, 0.2, 0.3: mean 0.2, standard error 0.1/√3; t of 2 at 97.725 % is 4.5266."""
    rate = [0.1, 0.2, 0.3, np.nan]
    theory = {"predicted_rate": [0.15] * 4, "theory": ["mean field"] * 4}
    without = frames.summary(frames.runs_frame(records(rate=rate, **theory))).iloc[0]
    assert without["theory"] == "mean field" and np.isnan(without["predicted_bias"])
    assert np.isnan(without["disagreement"])
    known = records(rate=rate, predicted_bias=[-0.05] * 4, **theory)
    row = frames.summary(frames.runs_frame(known)).iloc[0]
    np.testing.assert_allclose(row["disagreement"], 0.1 / (2.2633 * 0.1 / 3**0.5), rtol=1e-4)
    one = frames.summary(frames.runs_frame(known[:1])).iloc[0]
    nothing = frames.summary(frames.runs_frame(records(rate=rate))).iloc[0]
    assert np.isnan(one["disagreement"]) and np.isnan(nothing["disagreement"])


@pytest.mark.parametrize("seeds", [2, 3, 5, 40])
def test_disagreement_is_below_2_in_95_percent_of_points_however_few_the_seeds(seeds):
    rng = np.random.default_rng(seeds)
    gains = np.repeat(np.arange(1.0, 1501), seeds)
    columns = {name: [value] * len(gains) for name, value in RECORD.items()} | {
        "run_id": np.arange(len(gains)).astype(str), "gain": gains,
        "seed": np.tile(np.arange(seeds), 1500), "rate": -0.1 + 0.01 * rng.normal(size=len(gains)),
        "predicted_rate": [-0.08] * len(gains), "predicted_bias": [-0.02] * len(gains),
    }  # fmt: skip
    found = frames.summary(frames.runs_frame(columns))["disagreement"]
    assert len(found) == 1500 and np.mean(np.abs(found) < 2) == pytest.approx(0.9545, abs=0.016)


def test_seeds_that_agree_to_rounding_disagree_with_theory_by_rounding():
    eps = 2.0**-23
    exact = {"predicted_rate": [-0.5] * 4, "predicted_bias": [0.0] * 4}
    found = frames.summary(frames.runs_frame(records(rate=[-0.5 + eps] * 4, **exact)))
    np.testing.assert_allclose(found["disagreement"], 1.0, rtol=1e-6)


def test_no_frame_has_a_negative_zero():
    frame = frames.runs_frame(records(rate=[-0.0] * 4, predicted_bias=[-0.0] * 4))
    table = frames.summary(frame.assign(predicted_rate=0.0))
    for name in ("rate_median", "rate_mean", "predicted_bias", "disagreement"):
        assert not np.signbit(table[name]).any()
    assert not np.signbit(frames.steps_frame({"run_id": ["a"], "step": [1], "lag": [9],
                                              "log_norm": [-0.0]})["log_norm"]).any()  # fmt: skip


def test_runs_without_init_and_gain_are_kept():
    runs = frames.runs_frame(
        records(cell=["lru", "lru"], init=[None] * 2, gain=[None] * 2, rate=[-0.1, -0.3])
        + [RECORD | {"run_id": "gru"}]
    )
    assert runs["init"].isna().tolist() == runs["gain"].isna().tolist() == [True, True, False]
    assert frames.summary(runs)["runs"].tolist() == [1, 2]
    table = frames.verdict_table(runs).set_index("cell")
    assert table.loc["lru", "init"] == "none" and table.loc["lru", "rate_max"] == -0.2


def test_summary_keeps_every_run_and_every_axis(results):
    table = frames.summary(results.runs)
    assert table["runs"].sum() == len(results.runs)
    assert not table.duplicated(list(frames.AXES)).any()
    np.testing.assert_allclose(table[list(frames.VERDICTS)].sum(axis=1), 1.0)
    shuffled = results.runs.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(frames.summary(shuffled), table)


def test_verdict_table_by_hand():
    runs = frames.runs_frame(
        records(
            gain=[0.5, 0.5, 2.0, 2.0, 0.5, 2.0],
            length=[100, 100, 100, 100, 10, 10],
            rate=[-0.4, -0.2, 0.1, np.nan, 9.0, -9.0],
            verdict=["vanishing", "vanishing", "exploding", "nonfinite", "stable", "vanishing"],
        )
    )
    table = frames.verdict_table(runs)
    assert len(table) == 1
    row = table.iloc[0].to_dict()
    # Of the gains 0.5 and 2 the second has a run that is not finite.
    assert np.isnan(row.pop("rate_min")) and np.isnan(row.pop("rate_max"))
    known = runs.assign(rate=runs["rate"].fillna(0.3))
    found = frames.verdict_table(known).iloc[0]
    np.testing.assert_allclose((found["rate_min"], found["rate_max"]), (-0.3, 0.2))
    assert row == {
        "cell": "gru",
        "init": "normal",
        "vanishing_10": 0.5,
        "exploding_10": 0.0,
        "nonfinite_10": 0.0,
        "vanishing_100": 0.5,
        "exploding_100": 0.25,
        "nonfinite_100": 0.25,
    }


def test_one_scan_of_a_trace_is_refused_by_name():
    def loss(w):
        return jax.lax.scan(lambda h, _: (w * h, None), 1.0, None, length=3)[0]

    with pytest.raises(TypeError, match="frame takes what .* returned.*got ScanTrace"):
        gl.frame(gl.trace(loss)(0.5).scans[0])
