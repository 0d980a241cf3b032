"""Figures of what `gl.spectrum` measures: what is drawn is what stands in the frames."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import QuadMesh

from gradlab import figures, frames

LAGS = np.arange(4)


def lines(ax):
    """The curves of a panel by their label."""
    return {str(line.get_label()): np.asarray(line.get_ydata(), float) for line in ax.lines}


def texts(ax):
    return " ".join(text.get_text().replace("\n", " ") for text in ax.texts)


def seeds(frame, column, shift):
    """The frame twice, the second seed shifted."""
    other = frame.assign(**{column: frame[column] + shift})
    return pd.concat([frame.assign(seed=0), other.assign(seed=1)])


def sensitivities():
    sides = [(side, name) for side in ("forwards", "backwards") for name in ("W", "b")]
    return pd.concat(
        pd.DataFrame({"step": LAGS + 1, "side": side, "name": name, "log_norm": LAGS - 2.0 * k})
        for k, (side, name) in enumerate(sides)
    )


def test_sensitivity_draws_each_side():
    frame = sensitivities()
    frame.loc[(frame["name"] == "b") & (frame["step"] == 1), "log_norm"] = -np.inf
    left, right = figures.sensitivity(frame).axes
    np.testing.assert_array_equal(lines(left)["W"], LAGS)
    np.testing.assert_array_equal(lines(right)["W"], LAGS - 4.0)
    np.testing.assert_array_equal(lines(left)["b"], [np.nan, -1, 0, 1])
    assert (left.get_title(), right.get_title()) == ("forwards", "backwards")


def test_a_seed_of_nan_ends_its_line_and_is_noted():
    frame = seeds(sensitivities(), "log_norm", 1.0)
    lost = (frame["step"] >= 3) & (frame["seed"] == 1) & (frame["name"] == "W")
    frame = frame.assign(log_norm=frame["log_norm"].mask(lost & (frame["side"] == "forwards")))
    left, _ = figures.sensitivity(frame).axes
    np.testing.assert_array_equal(lines(left)["W"], [0.5, 1.5, np.nan, np.nan])
    assert texts(left) == "W: 1 of 2 values are NaN from step 3 on"


def test_conditioning_is_the_distance_of_the_values():
    index, lag = np.meshgrid([1, 2, 3], [1, 5])
    frame = pd.DataFrame({"lag": lag.ravel(), "index": index.ravel()})
    frame["log_value"] = -1.0 * frame["lag"] * frame["index"]
    left, right = figures.conditioning(frame).axes
    np.testing.assert_array_equal(list(lines(left).values()), [[-1, -5], [-2, -10], [-3, -15]])
    np.testing.assert_array_equal(right.lines[0].get_ydata(), [2, 10])
    # The distance from an exact zero is not known, and no number.
    frame.loc[5, "log_value"] = np.nan
    assert np.isnan(figures.conditioning(frame).axes[1].lines[0].get_ydata()[1])


def test_entries_are_root_mean_squares_and_a_map():
    step, row, column = np.indices((2, 3, 3))
    logs = np.random.default_rng(0).normal(size=(2, 3, 3)) * 3
    logs[1, 0, 1] = -np.inf
    columns = {"step": step.ravel(), "row": row.ravel(), "column": column.ravel()}
    fig = figures.entries(pd.DataFrame(columns | {"log_entry": logs.ravel()}))
    curves, inside = lines(fig.axes[0]), np.eye(3, dtype=bool)
    for name, where in (("diagonal", inside), ("others", ~inside)):
        expected = [0.5 * np.log(np.mean(np.exp(2 * part[where]))) for part in logs]
        np.testing.assert_allclose(curves[name], expected)
    (mesh,) = [c for c in fig.axes[1].collections if isinstance(c, QuadMesh)]
    shown = np.asarray(mesh.get_array())
    np.testing.assert_allclose(shown[np.isfinite(logs[1])], logs[1][np.isfinite(logs[1])])
    assert mesh.cmap(mesh.norm(shown[0, 1])) == (0, 0, 0, 1)  # exactly zero is black


def test_reach_is_a_map_by_step_and_lag():
    frame = pd.DataFrame({"step": [1, 1, 2, 2], "lag": [0, 1, 0, 1]})
    frame["log_norm"] = [0.5, -1.0, 0.25, np.nan]
    (mesh,) = [c for c in figures.reach(frame).axes[0].collections if isinstance(c, QuadMesh)]
    shown = np.ma.filled(mesh.get_array(), np.nan)
    np.testing.assert_array_equal(shown, [[0.5, -1], [0.25, np.nan]])


def test_lags_of_two_networks():
    frame = pd.concat(
        pd.DataFrame(
            {"lag": LAGS, "share": a**LAGS, "cosine": 1 - a**LAGS / 2, "error": a**LAGS / 3}
        ).assign(name=name)
        for name, a in (("short", 0.1), ("long", 0.5))
    )
    fig = figures.lags(frame, tolerance=0.2)
    functions = (lambda s: s, lambda s: 1 - s / 2, lambda s: s / 3)
    for ax, function in zip(fig.axes, functions, strict=True):
        for name, a in (("short", 0.1), ("long", 0.5)):
            np.testing.assert_allclose(lines(ax)[name], function(a**LAGS))
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["short", "long"]
    assert 0.2 in [line.get_ydata()[0] for line in fig.axes[2].lines]


def test_memory_names_what_was_not_measured():
    frame = pd.concat(
        pd.DataFrame(
            {"lag": LAGS, "name": name, "log_fisher": fisher, "capacity": 1.0 / (LAGS + 1)}
        )
        for name, fisher in (("linear", -1.0 * LAGS), ("tanh", np.nan))
    )
    left, right = figures.memory(frame).axes
    np.testing.assert_array_equal(lines(left)["linear"], -LAGS)
    assert "tanh" not in lines(left) and texts(left) == "not measured: tanh"
    np.testing.assert_allclose(lines(right)["tanh"], 1 / (LAGS + 1))


def test_chaos_is_per_unit():
    frame = pd.DataFrame({"gain": [1.0, 2.0] * 2, "hidden": [10, 10, 20, 20]})
    frame = frame.assign(exponent=frame["gain"] - 1.5, dimension=3.0, entropy=frame["gain"])
    fig = figures.chaos(frame)
    expected = [[-0.5, 0.5]] * 2, [[0.3] * 2, [0.15] * 2], [[0.1, 0.2], [0.05, 0.1]]
    for ax, values in zip(fig.axes, expected, strict=True):
        np.testing.assert_allclose([lines(ax)["$n$ = 10"], lines(ax)["$n$ = 20"]], values)


def test_exponents_over_any_axis():
    frame = pd.DataFrame({"step": [1, 2] * 2, "index": [1, 1, 2, 2], "exponent": [0, 1, -1, -2.0]})
    fig = figures.exponents(frame, "step")
    np.testing.assert_array_equal(lines(fig.axes[0])["$i$ = 2"], [-1, -2])
    frame = frame.rename(columns={"step": "leak"})
    assert figures.exponents(frame, "leak").axes[0].get_xlabel() == "leak"


def test_fixed_points_are_told_apart():
    points = pd.DataFrame({"x": [0.0, 1, -1], "y": [0.0, 2, -2], "unstable": [2, 0, 0]})
    values = pd.DataFrame({"real": [2.0, 0.5], "imaginary": [1.0, 0.1], "unstable": [2, 0]})
    fig = figures.fixed_points(points, values, points)
    plane = lines(fig.axes[0])
    np.testing.assert_array_equal(plane["stable"], [2, -2])
    np.testing.assert_array_equal(plane["2 unstable directions"], [0])
    lost = pd.DataFrame({"x": [np.nan], "y": [np.nan], "unstable": [-1]})
    fig = figures.fixed_points(pd.concat([points, lost]), values, points)
    assert len(fig.legends[0].get_texts()) == 2
    assert fig.axes[0].texts[0].get_text() == "1 of 4 searches lost"


def test_newton_marks_what_did_not_end():
    frame = pd.DataFrame({"exponent": [-0.1, 0.1, 0.2], "length": 100, "steps": [3, 50, -1]})
    fig = figures.newton(frame.assign(log_condition=[2.0, 12.0, 20.0]))
    for ax in fig.axes:
        ended, lost, *_ = ax.lines
        np.testing.assert_array_equal(ended.get_ydata(), [0.03, 0.5])
        assert lost.get_marker() == "x" and len(lost.get_xdata()) == 1


@pytest.mark.parametrize(
    "figure",
    ["sensitivity", "conditioning", "entries", "reach", "lags", "memory", "chaos", "exponents",
     "newton", "curvature", "depth", "width", "records"],
)  # fmt: skip
def test_a_frame_of_other_columns_is_refused(figure):
    with pytest.raises(ValueError, match="the frame lacks .*; it has other"):
        getattr(figures, figure)(pd.DataFrame({"other": [1]}))


def test_curvature_of_three_panels():
    eigenvalues = pd.DataFrame({"training_step": [0, 5] * 2, "index": [1, 1, 2, 2]})
    eigenvalues["eigenvalue"] = [4.0, 6.0, 1.0, 2.0]
    rates = pd.DataFrame({"training_step": [0, 0, 5, 5], "leaf": "W", "rate": [1, 3, 2, 4.0]})
    blocks = pd.DataFrame({"row": ["W", "W", "b", "b"], "column": ["W", "b"] * 2})
    fig = figures.curvature(
        eigenvalues, rates=rates, blocks=blocks.assign(log_norm=[1.0, 2, 3, 4]), stable=5.0
    )
    first, second, third = fig.axes[:3]
    np.testing.assert_array_equal(lines(first)["$i$ = 2"], [1, 2])
    np.testing.assert_array_equal(lines(first)["2 / learning rate"], [5, 5])
    np.testing.assert_array_equal(lines(second)["W"], [2, 3])
    (mesh,) = [c for c in third.collections if isinstance(c, QuadMesh)]
    np.testing.assert_array_equal(mesh.get_array(), [[1, 2], [3, 4]])
    assert [t.get_text() for t in third.get_yticklabels()] == ["W", "b"]


def test_depth_with_and_without_a_theory():
    frame = pd.DataFrame({"layer": [1, 2] * 2, "quantity": ["a", "a", "b", "b"], "name": "g"})
    frame = frame.assign(value=[1.0, 2, 3, 4], predicted=[1.5, 2.5, np.nan, np.nan])
    left, right = figures.depth(frame).axes
    drawn = [line.get_ydata().tolist() for line in left.lines]
    assert [1.0, 2.0] in drawn and [1.5, 2.5] in drawn
    assert [line.get_ydata().tolist() for line in right.lines] == [[3.0, 4.0]]


def test_width_has_a_panel_for_each_quantity():
    hidden, step = np.meshgrid([8, 16], [0, 2])
    frame = pd.DataFrame({"hidden": hidden.ravel(), "training_step": step.ravel()})
    frame = pd.concat(
        frame.assign(quantity=name, log_size=-1.0 * k - frame["training_step"])
        for k, name in enumerate(("state", "update"))
    )
    for k, ax in enumerate(figures.width(frame).axes):
        np.testing.assert_array_equal(lines(ax)["after 2 updates"], [-2 - k] * 2)


def recorded(name, values, index="", **columns):
    """Rows of a record at two updates, one after the other for each entry."""
    values, places = np.reshape(values, (-1, 2)), np.atleast_1d(index)
    return pd.concat(
        pd.DataFrame({"training_step": [0, 5], "name": name, "index": place, "value": row})
        for place, row in zip(places, values, strict=True)
    ).assign(**columns)


def test_records_have_a_panel_each_and_a_line_per_leaf_or_entry():
    frame = pd.concat(
        [
            recorded("spectral_radius", [0.9, 1.1]),
            recorded("log_norms.cell.w", [1.0, 2.0]),
            recorded("log_norms.cell.b", [-np.inf, -1.0]),
            recorded("eigenvalues", [3.0, 0.0, 1.0, 0.0], ["0", "1"], imag=[4.0, 2.0, 0.0, 1.0]),
            recorded("time_constants", [1.0, 100.0], "0"),
        ]
    )
    frame = pd.concat([frame.assign(variant=name) for name in ("gru", "lstm")])
    fig = figures.records(seeds(frame, "value", 0.0))
    radius, norms, moduli, times = fig.axes[:4]
    np.testing.assert_array_equal(radius.lines[0].get_ydata(), [0.9, 1.1])
    np.testing.assert_array_equal(radius.lines[1].get_ydata(), [1, 1])  # where nothing grows
    np.testing.assert_array_equal(lines(norms)["cell.w"], [1, 2])
    np.testing.assert_array_equal(lines(norms)["cell.b"], [np.nan, -1])
    assert norms.get_title(loc="right") == "2 of 8 infinite"
    assert [text.get_text() for text in norms.get_legend().get_texts()] == ["cell.w", "cell.b"]
    np.testing.assert_allclose(list(lines(moduli).values())[:2], [[5, 2], [1, 1]])
    assert "λ" in moduli.get_ylabel() or "lambda" in moduli.get_ylabel()
    assert (times.get_yscale(), radius.get_yscale()) == ("log", "linear")
    assert [texts(ax) for ax in fig.axes[3::4]] == ["gru", "lstm"]


def test_records_of_many_entries_have_a_scale_of_colours():
    entries = [str(k) for k in range(12)]
    frame = recorded("singular_values", np.arange(24.0), entries)
    frame = pd.concat([frame, recorded("own", [0.0, np.nan], variant="elman")])
    frame["variant"] = frame["variant"].fillna("gru")
    fig = figures.records(frame)
    panels = {(ax.get_ylabel(), i // 2): ax for i, ax in enumerate(fig.axes)}
    many = next(ax for (label, _), ax in panels.items() if "singular" in label)
    curves = [line for line in many.lines if len(line.get_xdata()) == 2][:12]
    np.testing.assert_array_equal([c.get_ydata() for c in curves], np.arange(24.0).reshape(12, 2))
    assert len({c.get_color() for c in curves}) == 12
    empty = [ax for ax in fig.axes if not ax.lines]
    assert [texts(ax) for ax in empty] in (
        ["not recorded elman", "not recorded"], ["not recorded", "not recorded elman"],
        ["not recorded gru", "not recorded"], ["not recorded", "not recorded gru"],
    )  # fmt: skip
    assert "1 of 1 values are NaN" in " ".join(map(texts, fig.axes))


@pytest.mark.parametrize("axis", ["gain", "length", "hidden", "input_scale", "inputs"])
def test_numbers_of_a_measurement_over_any_axis_that_varies_alone(axis):
    schema = frames.KINDS["conditioning"]
    rows = [{"run_id": k, "log_condition": k, axis: k + 1.0} for k in range(3)]
    runs = pd.DataFrame(rows).reindex(columns=list(schema.runs))
    drawn = figures._of_measurement(figures._Source(schema, runs, None, lambda _: runs))
    ax = drawn["log_condition"]().axes[0]
    assert ax.get_xlabel() == axis
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[1, 0], [2, 1], [3, 2]])


@pytest.mark.parametrize("figure", ["records", "width"])
def test_networks_of_several_tasks_have_rows_of_their_own(figure):
    tasks = ("adding", "copying")
    rows = [
        {"run_id": task, "task": task, "cell": "gru", "hidden": 4, "updates": 0} for task in tasks
    ]
    kind = {"records": frames.TRAINING, "width": frames.COORDINATES}[figure]
    runs = pd.DataFrame(rows).reindex(columns=list(kind.runs))
    at = pd.DataFrame({"run_id": tasks, "training_step": 0})
    curves = at.assign(log_state=[1.0, 2.0], log_update=0.0)
    steps = at.assign(lag=0, log_adjoint=0.0)
    records = at.assign(name="radius", index="", value=[1.0, 2.0])
    fig = getattr(figures, figure)(frames.TrainingResults(runs, curves, steps, {}, records))
    columns = {"records": 1, "width": 3}[figure]
    drawn = [ax.lines[0].get_ydata().tolist() for ax in fig.axes[::columns]]
    assert drawn == [[1.0], [2.0]]
