"""Figures of training: what is drawn is what stands in the frames."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import QuadMesh

from gradlab import figures, frames

LAGS = np.array([0, 1, 2, 4])
TIMES = np.array([0, 10, 20])


def runs(**changes):
    base = {
        "task": "adding",
        "cell": "gru",
        "init": "normal",
        "gain": 1.0,
        "hidden": 4,
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "batch": 2,
        "updates": 20,
        "trained": 20,
        "clip_norm": 0.0,
        "omega": 0.0,
        "leak": 1.0,
        "baseline": 1 / 6,
        "loss": 0.1,
        "error": 0.1,
    }
    rows = []
    for length in (5, 10):
        for clip, shares in ((0.0, "uu"), (1.0, "su")):
            for seed, letter in enumerate(shares):
                status = {"u": "unsolved", "s": "solved"}[letter]
                row = base | {"length": length, "clip_norm": clip, "seed": seed, "status": status}
                row["solved_step"] = 20 if letter == "s" else None
                rows.append(row | {"run_id": f"{length}-{clip:g}-{seed}"} | changes)
    return frames.trained_frame(rows)


def curves(table):
    rows = [
        {"run_id": name, "training_step": t, "loss": (i + 1) / (t + 1), "error": 0.5}
        for i, name in enumerate(table.run_id)
        for t in TIMES
    ]
    return frames.curves_frame(rows)


def steps(table, norm=lambda t, lag: -lag - t / 10):
    rows = [
        {"run_id": name, "training_step": t, "step": 5 - lag, "lag": lag, "log_norm": norm(t, lag)}
        for name in table.run_id
        for t in TIMES
        for lag in LAGS
    ]
    return frames.training_steps_frame(rows)


def meshes(ax):
    return [part for part in ax.collections if isinstance(part, QuadMesh)]


def one(table):
    return table[table.run_id == "5-0-0"]


def heat(norm=lambda t, lag: -lag - t / 10, **options):
    table = one(runs())
    fig = figures.training(steps(table, norm), curves(table), **options)
    fig.draw_without_rendering()
    return fig


def test_heatmap_holds_the_log_norms_at_their_lags():
    below = heat().axes[1]
    drawn = meshes(below)[0]
    expected = -LAGS[:, None] - TIMES / 10
    np.testing.assert_allclose(drawn.get_array().filled(np.nan), expected)
    edges = drawn.get_coordinates()
    assert edges[0, :, 0].tolist() == [-5, 5, 15, 25]
    assert edges[:, 0, 1].tolist() == [-0.5, 0.5, 1.5, 3, 5]
    assert "lag" in below.get_ylabel()


def test_zeros_and_norms_that_are_not_finite_are_told_apart():
    def norm(t, lag):
        return -np.inf if (t, lag) == (10, 4) else np.nan if (t, lag) == (20, 2) else -lag

    fig = heat(norm)
    shown, zeros = meshes(fig.axes[1])
    assert np.argwhere(shown.get_array().mask).tolist() == [[2, 2], [3, 1]]
    assert np.argwhere(~zeros.get_array().mask).tolist() == [[3, 1]]
    texts = [text.get_text() for legend in fig.legends for text in legend.get_texts()]
    assert texts == ["exactly zero", "not finite"]


@pytest.mark.parametrize("dead", [0, 1, 2])
def test_samples_have_a_median_in_the_extended_reals(dead):
    table = one(runs())
    rows = steps(table).drop(columns="run_id").assign(scan="a", leaf="")
    norms = [-np.inf] * dead + [-3.0, -2.0, -1.0][dead:]
    mixed = pd.concat(
        [rows.assign(sample=k, log_norm=norm) for k, norm in enumerate(norms)], ignore_index=True
    )
    shown, zeros = meshes(figures.training(mixed, curves(table)).axes[1])
    if dead < 2:
        np.testing.assert_allclose(shown.get_array(), -2.0)
        assert zeros.get_array().mask.all()
    else:
        assert shown.get_array().mask.all() and not zeros.get_array().mask.any()


def test_loss_and_baseline_stand_above():
    above = heat(baselines={"chance": 0.25}).axes[0]
    loss, chance = above.get_lines()
    assert loss.get_xdata().tolist() == TIMES.tolist()
    np.testing.assert_allclose(loss.get_ydata(), 1 / (TIMES + 1))
    assert set(chance.get_ydata()) == {0.25} and above.get_yscale() == "log"


def test_heatmap_of_a_training_of_one_scan():
    table = one(runs())
    whole = steps(table).drop(columns="run_id").assign(scan="a", leaf="")
    other = pd.concat([whole, whole.assign(leaf="c", log_norm=9.0), whole.assign(scan="b")])
    fig = figures.training(other, curves(table))
    np.testing.assert_allclose(meshes(fig.axes[1])[0].get_array(), -LAGS[:, None] - TIMES / 10)


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="no traces"):
        figures.training(steps(runs())[:0], curves(runs()))
    with pytest.raises(ValueError, match="no runs"):
        figures.learning(runs()[:0], curves(runs()))


def labels(fig):
    return [text.get_text() for text in fig.legends[0].get_texts()]


def test_learning_draws_medians_the_baseline_and_where_the_first_seed_is_solved():
    table = runs()
    fig = figures.learning(table, curves(table))
    assert labels(fig)[:2] == ["gru", "gru clip norm 1.0"]
    ax = fig.axes[0]
    assert ax.get_title(loc="left") == "$T$ = 5"
    lines = {tuple(np.round(line.get_ydata(), 6)): line for line in ax.get_lines()}
    for start in (1.5, 3.5):  # medians of the runs 1 and 2, 3 and 4
        assert tuple(np.round(start / (TIMES + 1), 6)) in lines
    (dot,) = [line for line in ax.get_lines() if line.get_marker() == "o"]
    assert dot.get_xdata()[0] == 20
    assert any(set(line.get_ydata()) == {1 / 6} for line in ax.get_lines())


def test_a_run_that_has_ended_keeps_its_last_loss():
    table = runs()
    short = curves(table)
    short = short[(short.run_id != "5-0-0") | (short.training_step == 0)]
    ax = figures.learning(table, short).axes[0]
    expected = (1 + 2 / (TIMES + 1)) / 2
    assert any(np.allclose(line.get_ydata(), expected) for line in ax.get_lines()[:2])


def three(*changes):
    """Three seeds of one point whose losses are 1, 2 and 3 over (t + 1)."""
    first = runs().iloc[[0] * 3].assign(run_id=list("abc"), seed=range(3))
    table = first.assign(**{k: [c.get(k) for c in changes] for k in ("first_nonfinite_step",)})
    table["status"] = [change.get("status", "unsolved") for change in changes]
    return frames.trained_frame(table)


def said(fig):
    found = [*fig.texts, *(text for ax in fig.axes for text in (*ax.texts, ax._right_title))]
    found += [fig._suptitle] if fig._suptitle else []
    return " | ".join(text.get_text().replace("\n", " ") for text in found)


def test_a_run_that_is_not_finite_has_no_loss_from_there_on():
    table = three({}, {}, {"status": "nonfinite", "first_nonfinite_step": 15})
    losses = curves(table)
    losses = losses[(losses.run_id != "c") | (losses.training_step < 20)]
    fig = figures.learning(table, losses)
    line = fig.axes[0].get_lines()[0]
    np.testing.assert_allclose(line.get_ydata(), [2, 2 / 11, np.nan])
    assert "1 of 3 seeds are NaN from update 20 on" in said(fig)
    (cross,) = [line for line in fig.axes[0].get_lines() if line.get_marker() == "x"]
    assert (cross.get_xdata()[0], cross.get_ydata()[0]) == (10, 2 / 11)


def test_an_infinite_loss_is_the_largest():
    table = three({}, {}, {})
    losses = curves(table)
    losses.loc[(losses.run_id == "a") & (losses.training_step == 20), "loss"] = np.inf
    line = figures.learning(table, losses).axes[0].get_lines()[0]
    np.testing.assert_allclose(line.get_ydata(), [2, 2 / 11, 3 / 21])  # of 2, 3 and inf


def test_failed_trainings_are_counted_and_left_out():
    table = three({}, {}, {"status": "failed"}).assign(solved_step=20)
    table["status"] = ["solved", "unsolved", "failed"]
    table.loc[2, ["baseline", "loss"]] = np.nan
    losses = curves(table)
    fig = figures.learning(table, losses[losses.run_id != "c"])
    np.testing.assert_allclose(fig.axes[0].get_lines()[0].get_ydata(), 1.5 / (TIMES + 1))
    assert "◇1" in said(fig)
    fig = figures.success(table)
    # Of one length there is a bar for each variant.
    assert [bar.get_width() for bar in fig.axes[0].patches] == [0.5] and "◇1" in said(fig)


def test_gradients_takes_the_first_seed_that_did_not_fail():
    table = runs()
    table.loc[(table.length == 10) & (table.clip_norm == 1) & (table.seed == 0), "status"] = (
        "failed"
    )
    fig = figures.gradients(table, curves(table), steps(table))
    titles = [ax.get_title(loc="left").replace("\n", " ") for ax in fig.axes]
    assert titles[:2] == ["gru", "gru clip norm 1.0 seed 1"]
    table.loc[(table.length == 10) & (table.clip_norm == 1), "status"] = "failed"
    fig = figures.gradients(table, curves(table), steps(table))
    assert "no runs of this length that did not fail: gru clip norm 1.0" in said(fig)


def test_flossing_says_which_seeds_are_nan():
    rows = [
        dict(gain=1.0, steps=5, flossed=1, stage=stage, index=i, exponent=-float(i * (seed + 1)),
             seed=seed)
        for stage in ("before", "after") for i in (1, 2, 3) for seed in range(3)
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    bad = (table["stage"] == "after") & (table["index"] >= 2) & (table["seed"] == 2)
    fig = figures.flossing(table.assign(exponent=table["exponent"].mask(bad)))
    zero, before, after = (line.get_ydata() for line in fig.axes[0].get_lines())
    np.testing.assert_allclose(before, [-2, -4, -6])
    np.testing.assert_allclose(after, [-2, np.nan, np.nan])
    assert "after: 1 of 3 seeds are NaN from exponent 2 on" in said(fig)


def test_success_is_the_share_of_solved_runs():
    fig = figures.success(runs())
    plain, clipped = fig.axes[0].get_lines()
    assert plain.get_ydata().tolist() == [0.0, 0.0]
    assert clipped.get_ydata().tolist() == [0.5, 0.5]
    assert labels(fig) == ["gru", "gru clip norm 1.0"]


def test_gradients_has_a_panel_per_variant_of_the_longest_length():
    table = runs()
    fig = figures.gradients(table, curves(table), steps(table))
    titles = [ax.get_title(loc="left").replace("\n", " ") for ax in fig.axes]
    assert titles[:2] == ["gru", "gru clip norm 1.0, solved at 20"]
    with pytest.raises(ValueError, match="unknown length '7'; valid: 10, 5"):
        figures.gradients(table, curves(table), steps(table), length=7)


def test_an_unknown_task_is_named():
    with pytest.raises(ValueError, match="unknown task 'copying'; valid: adding"):
        figures.success(runs(), task="copying")


def test_a_task_without_a_length_is_drawn():
    table = runs(length=None)
    table = table.drop_duplicates(["seed", "clip_norm"])
    for fig in (figures.learning(table, curves(table)), figures.success(table)):
        fig.draw_without_rendering()


def test_draw_writes_the_same_bytes_again(tmp_path):
    table = runs()
    table = table[table.length == 5].reset_index(drop=True)
    results = frames.TrainingResults(table, curves(table), steps(table), {})
    first = {p.name: p.read_bytes() for p in figures.draw(results, tmp_path / "a")}
    again = {p.name: p.read_bytes() for p in figures.draw(results, tmp_path / "b")}
    assert first == again and len(first) == 3
