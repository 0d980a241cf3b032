"""The figure of translation shows the numbers that it is given."""

import numpy as np
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
