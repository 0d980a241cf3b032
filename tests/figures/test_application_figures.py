"""The figures of translation and weather show the numbers that they are given."""

import numpy as np
import pandas as pd
import pytest

import gradlab as gl

SOURCE, TARGET = [" two", " cats", "end"], [" deux", "end"]
MATRIX = np.array([[-3.0, -1.0, -np.inf], [np.nan, -20.0, -2.0]])


def test_a_matrix_is_shown_below_its_largest():
    fig = gl.figures.encoder_decoder(
        {row: {"a": (SOURCE, TARGET, MATRIX), "b": (SOURCE, TARGET, MATRIX + 5)} for row in "xy"}
    )
    panels = fig.axes[:4]
    shown = [panel.get_images()[0].get_array() for panel in panels]
    for image in shown:
        np.testing.assert_array_equal(image.filled(7), [[-2, 0, -10], [7, -19, -1]])
    titles = [panel.get_title(loc="left") for panel in panels]
    assert titles[:2] == ["a: largest -1 nats", "b: largest 4 nats"]
    assert [t.get_text() for t in panels[2].get_xticklabels()] == SOURCE
    assert [t.get_text() for t in panels[2].get_yticklabels()] == TARGET
    limits = {image.get_clim() for panel in panels for image in panel.get_images()}
    assert limits == {(-10.0, 0.0)}


@pytest.mark.parametrize(
    ("panels", "message"),
    [
        ({}, "needs panels"),
        ({"x": {}}, "needs panels"),
        (
            {"x": {"a": (SOURCE, TARGET, MATRIX)}, "y": {"b": (SOURCE, TARGET, MATRIX)}},
            "the same columns in each row",
        ),
        ({"x": {"a": (TARGET, SOURCE, MATRIX)}}, r"a: 3 target and 2 source .* shape \(2, 3\)"),
    ],
)
def test_panels_that_do_not_fit_are_named(panels, message):
    with pytest.raises(ValueError, match=message):
        gl.figures.encoder_decoder(panels)


def frames():
    hours = np.arange(48.0)
    week = pd.concat(
        pd.DataFrame({"model": "gru", "horizon": h, "hour": hours, "truth": np.sin(hours),
                      "forecast": np.sin(hours) + h})
        for h in (1, 24)
    )  # fmt: skip
    errors = pd.concat(
        pd.DataFrame({"model": model, "horizon": [1, 24], "rmse": [k + 1.0, k + 2.0]})
        for k, model in enumerate(("persistence", "linear", "gru", "elman"))
    )
    reach = pd.concat(
        pd.DataFrame({"model": model, "horizon": h, "trained": trained, "lag": np.arange(50),
                      "log_relative": -np.arange(50) * (0.1 if trained else 1.0)})
        for model in ("gru", "elman") for h in (1, 24) for trained in (False, True)
    )  # fmt: skip
    return week, errors, reach


def test_forecasts_errors_and_reach_are_those_of_the_frames():
    week, errors, reach = frames()
    fig = gl.figures.weather(week, errors, reach, "°F")
    by_horizon, one, day, above, below = fig.axes
    truth, *said = (line.get_ydata() for line in above.get_lines())
    np.testing.assert_allclose(truth, np.sin(np.arange(48)))
    for line, horizon in zip(said, (1, 24), strict=True):
        np.testing.assert_allclose(line - truth, horizon)
    np.testing.assert_allclose([line.get_ydata()[0] for line in below.get_lines()[:2]], [1, 24])
    found = {line.get_label(): line.get_ydata().tolist() for line in by_horizon.get_lines()}
    assert found == {m: r["rmse"].tolist() for m, r in errors.groupby("model", sort=False)}
    for panel in (one, day):
        lines = [line.get_ydata() for line in panel.get_lines() if len(line.get_ydata()) > 2]
        np.testing.assert_allclose(sorted(line[-1] for line in lines), [-49, -49, -4.9, -4.9])
        days = [line.get_xdata()[0] for line in panel.get_lines() if len(line.get_xdata()) == 2]
        assert {24, 48} <= {*days}
    assert [day.get_title(loc="left"), one.get_title(loc="left")] == [
        "forecast of 24 steps", "forecast of 1 step",
    ]  # fmt: skip


def test_a_series_of_days_is_marked_by_weeks():
    week, errors, reach = frames()
    fig = gl.figures.weather(week, errors, reach, "°F", period=7)
    _, one, _, above, below = fig.axes
    assert below.get_xlabel() == "steps"
    assert above.get_xticks().tolist() == [0, 7, 14, 21, 28, 35, 42]
    assert one.get_xticks().tolist() == [0, 7, 14, 21, 28, 35, 42, 49]
    marks = {line.get_xdata()[0] for line in one.get_lines() if len(line.get_xdata()) == 2}
    assert {7, 49} <= marks and 24 not in marks
    above = gl.figures.weather(week, errors, reach, "°F", period=1).axes[3]
    assert len(above.get_xticks()) <= 11


def test_a_lag_without_a_gradient_is_a_gap():
    week, errors, reach = frames()
    dead = (reach["lag"] > 30) & (reach["model"] == "elman")
    reach["log_relative"] = reach["log_relative"].mask(dead, -np.inf)
    fig = gl.figures.weather(week, errors, reach, "°F")
    lines = [line.get_ydata() for line in fig.axes[1].get_lines() if len(line.get_ydata()) == 50]
    assert sorted(int(np.isnan(line).sum()) for line in lines) == [0, 0, 19, 19]
