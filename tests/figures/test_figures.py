import itertools
import logging

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from synthetic import CELLS, GAINS, INITS, LENGTHS, only, sweep

from gradlab import figures, frames
from gradlab.figures import _style

FIGURES = {
    "decay": lambda results: figures.decay(results.runs, results.steps),
    "phase": lambda results: figures.phase(results.runs),
    "length": lambda results: figures.length(results.runs),
    "inputs": lambda results: figures.inputs(results.runs),
    "theory": lambda results: figures.theory(results.runs),
}


@pytest.fixture(scope="module")
def results():
    return sweep()


@pytest.fixture(scope="module")
def drawn(results):
    return {name: make(results) for name, make in FIGURES.items()}


@pytest.fixture(scope="module", params=FIGURES)
def figure(request, drawn):
    drawn[request.param].draw_without_rendering()
    return drawn[request.param]


def texts(fig):
    """Every text that is drawn: ticks beyond an axis' limits are not."""
    found = [*fig.texts, fig._supxlabel, fig._supylabel]
    for legend in fig.legends:
        found += [legend.get_title(), *legend.get_texts()]
    for ax in fig.axes:
        found += [*ax.texts, ax.title, ax._left_title, ax._right_title]
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = axis.get_major_ticks()
            found += [axis.label, *(tick.label1 for tick in ticks if low <= tick.get_loc() <= high)]
    return [text for text in found if text and text.get_visible() and text.get_text().strip()]


def long_lines(ax):
    """The curves of a panel, without marks and reference lines."""
    curves = [line for line in ax.lines if line.get_linestyle() != "None"]
    return [line for line in curves if len(line.get_xdata()) > 2]


def drawn_points(ax):
    """The heights of a panel's first points with error bars."""
    return ax.containers[0].lines[0].get_ydata().astype(float)


def unsettled(results, status, share):
    """The results with a share of all the runs made non-finite or exactly zero."""
    value = {"nonfinite": np.nan, "zero": -np.inf, "failed": np.nan}[status]
    runs = results.runs.copy()
    chosen = runs.index[: int(share * len(runs))]
    runs.loc[chosen, "status"] = status
    runs.loc[chosen, "verdict"] = {"zero": "vanishing"}.get(status, status)
    runs.loc[chosen, ["rate", "rate_stderr"]] = np.nan
    runs.loc[chosen, "log_gain"] = value
    steps = results.steps.copy()
    steps.loc[steps["run_id"].isin(runs.loc[chosen, "run_id"]), "log_norm"] = value
    return frames.Results(runs, steps, {})


def test_text_is_legible(figure):
    assert min(text.get_fontsize() for text in texts(figure)) >= 7
    assert figure.get_figwidth() in (3.4, 7.0)


def test_legend_stands_beside_the_panels(figure):
    (legend,) = figure.legends
    box = legend.get_window_extent()
    whole = figure.bbox
    assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1
    for ax in figure.axes:
        assert not box.overlaps(ax.get_tightbbox())


def test_no_text_stands_on_another(figure):
    boxes = {text: text.get_window_extent() for text in texts(figure)}
    for one, other in itertools.combinations(boxes, 2):
        assert not boxes[one].overlaps(boxes[other]), (one.get_text(), other.get_text())


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_stands_on_another_in_a_crowd(name):
    crowd = sweep(inits=("identity",), gains=tuple(np.linspace(0.5, 3, 25)), lengths=(64,), seeds=1)
    more = only(crowd, crowd.runs.query("cell == 'elman'").assign(activation="relu"))
    pairs = zip(crowd[:2], more[:2], strict=True)
    runs, steps = (
        pd.concat([one, two.assign(run_id=two["run_id"] + "-relu")], ignore_index=True)
        for one, two in pairs
    )
    fig = FIGURES[name](frames.Results(runs, steps, {}))
    fig.draw_without_rendering()
    test_no_text_stands_on_another(fig)
    test_legend_stands_beside_the_panels(fig)


def test_panels_do_not_overlap(figure):
    for one, other in itertools.combinations(figure.axes, 2):
        assert not one.get_window_extent().overlaps(other.get_window_extent())


@pytest.mark.parametrize(
    ("name", "units"),
    [
        ("decay", ("(steps)", "(decades)")),
        ("phase", ("(dimensionless)", "(nats/step)")),
        ("length", ("(steps)", "(decades)")),
        ("inputs", ("(dimensionless)", "(nats/step)")),
        ("theory", ("(dimensionless)", "(nats/step)")),
    ],
)
def test_labels_have_units(drawn, name, units):
    fig = drawn[name]
    labels = [fig.get_supxlabel(), fig.get_supylabel()]
    labels += [label for ax in fig.axes for label in (ax.get_xlabel(), ax.get_ylabel())]
    labels = [label for label in labels if label]
    assert all(any(unit in label for unit in units) for label in labels)
    assert all(any(unit in label for label in labels) for unit in units)


def test_decay_has_a_line_per_gain(results, drawn):
    axes = drawn["decay"].axes
    assert len(axes) == len(CELLS) * len(INITS)
    lost = 1  # elman, identity, the largest gain: not one finite norm
    assert sum(len(long_lines(ax)) for ax in axes) == len(axes) * len(GAINS) - lost
    assert len({line.get_color() for line in long_lines(axes[1])}) == len(GAINS)
    assert all(len(ax.collections) == len(long_lines(ax)) for ax in axes)


def test_decay_draws_the_median_over_seeds(results, drawn):
    ax = drawn["decay"].axes[0]
    runs = results.runs.query(
        "cell == 'elman' and init == 'normal' and input == 'gaussian' and length == 1000"
    )
    runs = runs[runs["gain"] == 1.0]
    table = results.steps[results.steps["run_id"].isin(runs["run_id"])]
    wide = table.pivot(index="lag", columns="run_id", values="log_norm")
    expected = ((wide - wide.loc[0]) / np.log(10)).median(axis=1)
    (line,) = [
        line for line in long_lines(ax) if np.allclose(line.get_ydata()[-1], expected.iloc[-1])
    ]
    np.testing.assert_array_equal(line.get_xdata(), expected.index)
    np.testing.assert_allclose(line.get_ydata(), expected)


def test_reference_lines_are_those_of_float32():
    info = np.finfo(np.float32)
    drawn = [value for _, values in figures.FLOAT32.values() for value in values]
    exact = np.log10(np.array([info.eps, 1 / info.eps, info.tiny, info.max], dtype=float))
    np.testing.assert_allclose(drawn, exact, atol=0.005)


def test_decay_keeps_to_its_limits_at_any_norm(results):
    steps = results.steps.assign(log_norm=results.steps["log_norm"] * 1000)
    fig = figures.decay(results.runs, steps)
    low, high = fig.axes[0].get_ylim()
    assert (low, high) == (-figures.DECADES, figures.DECADES)


def test_phase_shows_the_median_rate_and_its_sign_change(results, drawn):
    ax = drawn["phase"].axes[0]
    assert ax.get_title(loc="left") == "normal"
    runs = results.runs.query("init == 'normal' and input == 'gaussian' and length == 1000")
    rates = runs.pivot_table(index="cell", columns="gain", values="rate", aggfunc="median")
    shown = ax.collections[0].get_array().reshape(len(CELLS), len(GAINS))
    np.testing.assert_allclose(shown, rates.loc[list(CELLS)])
    measured, predicted = ax.collections[1:]
    crossing = {int(line[0, 1]): line[0, 0] for line in measured.get_segments()}
    assert set(crossing) == {CELLS.index("elman"), CELLS.index("gru")}
    for row, x in crossing.items():
        signs = np.sign(rates.loc[CELLS[row]].to_numpy())
        assert signs[int(np.floor(x - 0.5))] < 0 < signs[int(np.ceil(x - 0.5))]
    assert [int(line[0, 1]) for line in predicted.get_segments()] == [CELLS.index("elman")]


def test_phase_colours_are_centred_on_zero(drawn):
    norm = drawn["phase"].axes[0].collections[0].norm
    assert norm.vmin == -norm.vmax


def test_length_has_a_line_per_init_for_each_gain(drawn):
    axes = drawn["length"].axes
    assert len(axes) == 3 * len(CELLS)
    for ax in axes[3:6]:
        assert len(long_lines(ax)) == len(INITS)
        assert all(len(line.get_xdata()) == len(LENGTHS) for line in long_lines(ax))


def test_inputs_are_paired_by_seed(results, drawn):
    below = drawn["inputs"].axes[len(CELLS)]
    runs = results.runs.query("cell == 'elman' and init == 'normal' and length == 1000")
    wide = runs.pivot(index=["gain", "seed"], columns="input", values="rate")
    expected = (wide["reviews"] - wide["gaussian"]).groupby("gain").mean()
    drawn_points = below.containers[0].lines[0]
    np.testing.assert_allclose(drawn_points.get_ydata().astype(float), expected, atol=1e-12)


@pytest.mark.parametrize("bias", [-0.03, 0.0, 0.01, np.nan])
def test_deviations_are_bounded_by_three_errors_about_the_bias(bias):
    small = sweep(cells=("elman",), inits=("normal",), gains=(0.5, 2.0), lengths=(100,), seeds=4)
    runs = small.runs[small.runs["input"] == "gaussian"].assign(predicted_bias=bias)
    points = figures.deviations(runs).set_index("gain")
    for gain in (0.5, 2.0):
        rates = runs.loc[runs["gain"] == gain, "rate"].to_numpy()
        deviation = rates.mean() - runs.loc[runs["gain"] == gain, "predicted_rate"].iloc[0]
        sd = np.sqrt(((rates - rates.mean()) ** 2).sum() / 3)
        np.testing.assert_allclose(points.loc[gain, "deviation"], deviation)
        np.testing.assert_allclose(points.loc[gain, "bound"], 3 * sd / 2)
        assert points.loc[gain, "within"] == (abs(deviation - np.nan_to_num(bias)) <= 1.5 * sd)


def test_theory_draws_its_line_and_rings_what_misses_it(results):
    runs = results.runs.query("cell == 'elman' and init == 'normal' and length == 1000")
    runs = runs[runs["input"] == "gaussian"].assign(predicted_bias=0.0)
    runs.loc[runs["gain"] == GAINS[3], "predicted_rate"] += 0.5
    above, below = figures.theory(runs).axes
    means = runs.groupby("gain")["rate"].mean()
    predicted = runs.groupby("gain")["predicted_rate"].first()
    (line,) = [line for line in long_lines(above) if line.get_linestyle() == "--"]
    np.testing.assert_allclose(line.get_ydata(), predicted)
    np.testing.assert_allclose(drawn_points(above), means)
    np.testing.assert_allclose(drawn_points(below), means - predicted)
    rings = [line for line in below.lines if line.get_markersize() == 7]
    assert GAINS[3] in rings[0].get_xdata()
    worst = (means - predicted)[GAINS[3]]
    said = f"largest difference −{-worst:.3f},\nat $g$ = {GAINS[3]:g}"
    assert below.get_title(loc="left") == said


def test_a_panel_without_a_theory_says_so():
    small = sweep(cells=("elman",), inits=("normal",), gains=(0.5, 1.0, 2.0), seeds=2)
    runs = small.runs[small.runs["input"] == "gaussian"].assign(predicted_rate=np.nan)
    _, below = figures.theory(runs).axes
    assert not below.axison and "no theory of\nelman" in [text.get_text() for text in below.texts]


def test_one_outlier_does_not_squeeze_the_others():
    """A point far beyond the quartiles lies outside of the axes, and a note counts it."""
    gains = tuple(np.linspace(0.5, 2.0, 12))
    small = sweep(cells=("elman",), inits=("normal",), gains=gains, seeds=2)
    runs = small.runs.copy()
    far = (runs["gain"] == gains[4]) & (runs["input"] == "reviews")
    runs.loc[far, "rate"] = -1000.0
    above, below = figures.inputs(runs).axes
    others = runs.loc[~far, "rate"]
    for low, high in (above.get_xlim(), above.get_ylim()):
        assert low < others.min() and others.max() < high and low > -20
    assert below.get_ylim()[0] > -20
    for ax in (above, below):
        assert any("1 points beyond" in text.get_text() for text in ax.texts)


def test_theory_has_a_colour_per_value_of_hue_and_hollow_points_without_a_theory():
    small = sweep(cells=("elman",), inits=("normal",), gains=(0.5, 1.0, 2.0), seeds=2)
    runs = small.runs[small.runs["input"] == "gaussian"]
    untied = runs.assign(weights="untied", run_id=runs["run_id"] + "-untied")
    both = pd.concat([runs.assign(weights="tied", predicted_rate=np.nan), untied])
    fig = figures.theory(frames.runs_frame(both), hue="weights")
    assert [text.get_text() for text in fig.legends[0].get_texts()][:2] == ["tied", "untied"]
    shown = {}
    for points in fig.axes[0].containers:
        if len(points.lines[0].get_xdata()):
            shown[points.lines[0].get_markerfacecolor()] = points
    assert len(shown) == 2 and "white" in shown


@pytest.mark.parametrize(("status", "sign"), [("nonfinite", "×"), ("zero", "▽"), ("failed", "◇")])
@pytest.mark.parametrize("name", FIGURES)
def test_runs_without_a_gradient_are_counted(results, name, status, sign):
    few = only(results, results.runs.query("gain in [0.5, 1, 2] and length in [10, 1000]"))
    few = frames.Results(frames.runs_frame(few.runs.assign(status="ok")), few.steps, {})
    fig = FIGURES[name](unsettled(few, status, 0.5))
    shown = [text.get_text() for text in texts(fig)]
    counts = [int(text[1:]) for text in shown if text[0] == sign and text[1:].isdigit()]
    used = unsettled(few, status, 0.5).runs
    if name != "inputs":
        used = used[used["input"] == "gaussian"]
    if name != "length":
        used = used[used["length"] == 1000]
    assert sum(counts) == (used["status"] == status).sum() > 0
    assert any(text.startswith(figures.MARKS[status][2]) for text in shown)


# What is drawn where runs are not finite, exactly zero, failed or absent. Five seeds of one point
# have the slopes 1, 2, 3, 4, 5 times -0.01 in nats per step, so that each statistic is known.

SLOPES = -0.01 * np.arange(1, 6)
SHORT, LONG = 100, 200
LAGS = frames.lags(LONG)


def point(cell="elman", gain=1.0, lengths=(SHORT, LONG), **changes):
    """Runs and steps of five seeds; `changes` are (seed, length) -> what happens to that run."""
    runs, steps = [], []
    for length in lengths:
        for seed, slope in enumerate(SLOPES):
            lags = frames.lags(length)
            curve = slope * lags
            what, lag = changes.get(f"s{seed}", (None, 0)) if length == LONG else (None, 0)
            value = {"zero": -np.inf, "nonfinite": np.nan, "failed": np.nan}.get(what, 0.0)
            curve = np.where((lags >= lag) & (what is not None), value, curve)
            name = f"{cell}-{gain}-{length}-{seed}"
            runs.append(
                dict(run_id=name, cell=cell, init="normal", gain=gain, input="gaussian",
                     length=length, hidden=4, inputs=2, seed=seed, status=what or "ok",
                     verdict="stable", rate=slope if what is None else np.nan,
                     log_gain=curve[-1] - curve[0])
            )  # fmt: skip
            if what != "failed":
                steps.append(dict(run_id=name, step=length - lags, lag=lags, log_norm=curve))
    table = pd.concat([pd.DataFrame(part) for part in steps], ignore_index=True)
    return frames.Results(frames.runs_frame(runs), frames.steps_frame(table), {})


def joined(*parts):
    runs, steps = (
        pd.concat(each, ignore_index=True) for each in list(zip(*parts, strict=True))[:2]
    )
    return frames.Results(runs, steps, {})


def said(fig):
    return " | ".join(text.get_text().replace("\n", " ") for text in texts(fig))


def median_line(ax):
    (line,) = long_lines(ax)
    return line.get_xdata(), np.asarray(line.get_ydata(), float)


ZEROS = {f"s{seed}": ("zero", 40) for seed in range(1, 5)}


def test_decay_has_the_median_of_all_seeds_where_most_are_exactly_zero():
    small = point(**ZEROS)
    lags, drawn = median_line(figures.decay(*small[:2]).axes[0])
    np.testing.assert_array_equal(lags, LAGS)
    expected = np.where(LAGS < 40, -0.03 * LAGS / np.log(10), np.nan)  # of five seeds; then -inf
    np.testing.assert_allclose(drawn, expected)


def test_decay_ends_where_a_seed_is_nan_and_says_how_many():
    small = point(s0=("nonfinite", 40), s1=("nonfinite", 60))
    fig = figures.decay(*small[:2])
    _, drawn = median_line(fig.axes[0])
    np.testing.assert_allclose(drawn, np.where(LAGS < 40, -0.03 * LAGS / np.log(10), np.nan))
    assert "2 of 5 seeds are NaN from lag 40 on" in said(fig) and "×2" in said(fig)
    (band,) = fig.axes[0].collections
    assert band.get_paths()[0].vertices[:, 0].max() < 40


def test_decay_names_the_line_whose_seeds_are_nan():
    fig = figures.decay(*joined(point(), point(gain=2.0, s4=("nonfinite", 0)))[:2])
    assert "gain 2: 1 of 5 seeds are NaN from lag 0 on" in said(fig)
    both = joined(point(s1=("nonfinite", 9)), point(gain=2.0, s4=("nonfinite", 3)))
    assert "2 lines: 2 of 10 seeds are NaN from lag 3 on" in said(figures.decay(*both[:2]))


def test_a_seed_without_a_row_is_no_survivors_median():
    small = point()
    absent = (small.steps["run_id"] == f"elman-1.0-{LONG}-4") & (small.steps["lag"] >= 50)
    fig = figures.decay(small.runs, small.steps[~absent])
    _, drawn = median_line(fig.axes[0])
    np.testing.assert_array_equal(np.isnan(drawn), LAGS >= 50)
    assert "1 of 5 seeds are NaN from lag 50 on" in said(fig)


def test_failed_runs_are_counted_and_left_out_of_every_statistic():
    small = point(s0=("failed", 0), s4=("failed", 0))
    fig = figures.decay(*small[:2])
    np.testing.assert_allclose(median_line(fig.axes[0])[1], -0.03 * LAGS / np.log(10))
    assert "◇2" in said(fig) and "NaN" not in said(fig)
    small = point(**{f"s{k}": ("failed", 0) for k in range(5)})
    fig = figures.decay(*small[:2])
    assert f"every run of T = {LONG} failed" in said(fig)
    assert median_line(fig.axes[0])[0][-1] == SHORT - 1


@pytest.mark.parametrize(
    ("changes", "middle", "low"),
    [
        (ZEROS, np.nan, -np.inf),
        ({"s4": ("zero", 40)}, -0.03, -np.inf),
        ({"s4": ("nonfinite", 40)}, np.nan, np.nan),
        ({"s4": ("failed", 40)}, -0.025, -0.04),
        ({}, -0.03, -0.05),
    ],
)
def test_length_has_the_median_of_all_seeds(changes, middle, low):
    small = point(**changes)
    fig = figures.length(small.runs)
    ax = fig.axes[0]
    (line,) = [line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_marker() == "o"]
    whole = np.array([-0.03 * (SHORT - 1), middle * (LONG - 1)]) / np.log(10)
    np.testing.assert_allclose(np.asarray(line.get_ydata(), float), whole)
    to_the_edge = [text for text in ax.texts if text.get_text() == ""]
    assert len(to_the_edge) == (low == -np.inf)
    if np.isfinite(low):
        ends = np.array([path.vertices[:, 1] for path in ax.collections[0].get_paths()])
        np.testing.assert_allclose(ends[-1].min(), low * (LONG - 1) / np.log(10))
    assert ("1 of 5 seeds are NaN" in said(fig)) == (changes == {"s4": ("nonfinite", 40)})


def phase_of(*parts):
    fig = figures.phase(joined(*parts).runs)
    ax = fig.axes[0]
    segments = [s for c in ax.collections[1:] for s in c.get_segments()]
    return fig, np.ma.filled(ax.collections[0].get_array().ravel(), np.nan), segments


def test_phase_has_the_median_of_all_seeds():
    _, shown, _ = phase_of(point(), point(gain=2.0, **ZEROS), point(gain=3.0, s2=("zero", 9)))
    assert shown[0] == -0.03 and shown[2] == -0.04  # of five, and of four and -inf
    assert shown[1] < -0.2  # -inf has the colour of the lowest rate
    fig, shown, _ = phase_of(point(), point(gain=2.0, s0=("nonfinite", 9)))
    np.testing.assert_array_equal(np.isnan(shown), [False, True])
    assert "no median: a seed has no rate" in said(fig) and "×1" in said(fig)
    fig, shown, _ = phase_of(point(), point(gain=2.0, s0=("failed", 9)))
    np.testing.assert_allclose(shown, [-0.03, -0.035])
    assert "◇1" in said(fig)


def test_phase_draws_no_boundary_through_what_was_not_measured():
    up = point(gain=3.0)
    up = up._replace(runs=up.runs.assign(rate=-up.runs["rate"]))
    bad = point(gain=2.0, **{f"s{k}": ("nonfinite", 9) for k in range(5)})
    assert len(phase_of(point(), up)[2]) == 1
    assert phase_of(point(), bad, up)[2] == []
    assert len(phase_of(point(gain=2.0, **ZEROS), up)[2]) == 1  # from -inf to +0.03


def test_what_has_no_runs_of_the_length_is_named():
    small = joined(point(), point(cell="gru", lengths=(SHORT,)))
    assert said(figures.decay(*small[:2])).count("no runs of T = 200: gru (longest 100)") == 1
    part = point(gain=2.0, lengths=(SHORT,))
    for make in (figures.phase, figures.theory):
        assert "no runs of T = 200: elman normal (5 of 10 runs)" in said(
            make(joined(point(), part).runs)
        )
    assert "no runs" not in said(figures.phase(point().runs))


def test_inputs_draw_the_mean_of_all_seeds_or_nothing():
    def other(results):
        runs = results.runs.assign(input="reviews", rate=results.runs["rate"] * 2)
        return results._replace(runs=runs.assign(run_id=runs["run_id"] + "-r"))

    small = joined(point(), other(point()), point(gain=2.0, s0=("nonfinite", 9)),
                   other(point(gain=2.0)))  # fmt: skip
    fig = figures.inputs(small.runs)
    above, below = fig.axes
    np.testing.assert_allclose(drawn_points(above), [-0.06])
    np.testing.assert_allclose(drawn_points(below), [-0.03])
    assert "1 of 2 points not drawn" in said(fig)
    alone = small.runs[small.runs["run_id"] != f"elman-1.0-{LONG}-4"]
    fig = figures.inputs(alone)
    np.testing.assert_allclose(drawn_points(fig.axes[1]), [-0.025])
    assert "1 runs without a partner" in said(fig)


DEGENERATE = {
    "one gain": {"gains": (1.0,)},
    "one cell and init": {"cells": ("lstm",), "inits": ("identity",)},
    "one length": {"lengths": (32,)},
    "one step": {"lengths": (1,)},
    "one seed": {"seeds": 1},
    "one run": {"cells": ("gru",), "gains": (1.0,), "lengths": (10,), "seeds": 1},
    "one input": {"inputs": ("reviews",)},
}
SMALL = {"cells": ("elman", "gru"), "inits": ("normal",), "gains": (0.5, 2.0), "lengths": (10, 100)}


@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_sweeps_are_drawn(case, tmp_path):
    small = sweep(**(SMALL | {"cells": ("gru",), "seeds": 2} | DEGENERATE[case]))
    paths = figures.draw(small, tmp_path)
    assert {path.suffix for path in paths} == {".png"}
    assert all(path.stat().st_size > 1000 for path in paths)


@pytest.mark.parametrize("status", ["nonfinite", "zero"])
def test_a_sweep_without_one_finite_gradient_is_drawn(status, tmp_path):
    small = unsettled(sweep(**(SMALL | {"cells": ("elman",)}), seeds=2), status, 1.0)
    assert len(figures.draw(small, tmp_path)) == 8


def test_a_sweep_without_steps_is_drawn():
    small = sweep(**SMALL, seeds=1)
    fig = figures.decay(small.runs, small.steps.iloc[:0])
    assert sum(len(long_lines(ax)) for ax in fig.axes) == 0


def test_axes_that_vary_name_the_cell():
    small = sweep(**SMALL, seeds=1)
    relu = small.runs[small.runs["cell"] == "elman"].assign(activation="relu")
    wide = small.runs[small.runs["cell"] == "gru"].assign(hidden=128)
    runs = frames.runs_frame(pd.concat([small.runs, relu, wide]))
    fig = figures.length(runs)
    titles = {ax.get_title(loc="left") for ax in fig.axes} - {""}
    assert titles == {"elman tanh", "elman relu", "gru hidden 64", "gru hidden 128"}


def test_a_figure_that_cannot_be_filled_is_skipped_with_its_reason(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        small = sweep(**(SMALL | {"cells": ("elman",)}), seeds=1, inputs=("gaussian",))
        paths = figures.draw(small, tmp_path)
    names = {f"{name}-gaussian" for name in ("decay", "phase", "length", "theory")}
    assert {path.stem for path in paths} == names
    assert "no figure inputs-*" in caplog.text


def test_the_same_frames_give_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setitem(_style.STYLE, "pdf.fonttype", 42)  # as users have it
    small = sweep(**(SMALL | {"cells": ("elman",)}), seeds=2)
    both = ("png", "pdf")
    for name, make in FIGURES.items():
        first, second = (
            figures.save(make(small), tmp_path / f"{name}-{which}", both) for which in (1, 2)
        )
        assert [path.suffix for path in first] == [".png", ".pdf"]
        for one, two in zip(first, second, strict=True):
            assert one.read_bytes() == two.read_bytes(), one.name


def test_no_state_is_left_in_pyplot(drawn):
    assert plt.get_fignums() == []


def test_wrong_choices_name_the_valid_ones():
    small = sweep(**SMALL, seeds=1)
    with pytest.raises(ValueError, match="unknown input 'gausian'; did you mean 'gaussian'"):
        figures.phase(small.runs, input="gausian")
    with pytest.raises(ValueError, match="no runs of length 11; valid: 10, 100"):
        figures.phase(small.runs, length=11)
    with pytest.raises(ValueError, match="unknown input 'reviews'"):
        figures.inputs(small.runs[small.runs["input"] == "gaussian"])
    with pytest.raises(ValueError, match="unknown hue 'wieghts'; did you mean 'weights'"):
        figures.theory(small.runs, hue="wieghts")
    with pytest.raises(ValueError, match="unknown quantity 'rates'; did you mean 'rate'"):
        figures.theory(small.runs, quantity="rates")
    with pytest.raises(ValueError, match="no runs to draw"):
        figures.draw(small._replace(runs=small.runs.iloc[:0]), "nowhere")
