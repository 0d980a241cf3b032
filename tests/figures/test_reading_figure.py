"""The figure of one sequence that is read: what is drawn is what was given."""

import itertools

import numpy as np
import pytest
from matplotlib.collections import QuadMesh

from gradlab import figures

RNG = np.random.default_rng(0)
UNITS = 12
WORDS = "This movie was absolutely amazing ! The plot could not have been worse .".split()


def given(steps, gates=("i", "f", "o")):
    return {
        "tokens": [WORDS[t % len(WORDS)] for t in range(steps)],
        "states": np.tanh(RNG.normal(size=(steps, UNITS))),
        "gates": {name: RNG.uniform(size=(steps, UNITS)) for name in gates},
        "log_norm": np.linspace(-30, 0, steps),
        "readout": RNG.uniform(size=steps),
    }


def drawn(parts, **options):
    fig = figures.reading(**parts | options)
    fig.draw_without_rendering()
    return fig


def panels(fig):
    return {ax.get_ylabel().replace("\n", " "): ax for ax in fig.axes}


def texts(fig):
    """Every text with something in it, of the panels and of what stands beside them."""
    found = [*fig.texts, fig._suptitle]
    for ax in [ax for panel in fig.axes for ax in (panel, *panel.child_axes)]:
        found += [*ax.texts, ax.title]
        legend = ax.get_legend()
        found += legend.get_texts() if legend else []
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            found += [axis.label, *(tick.label1 for tick in ticks)]
            found += [tick.label2 for tick in ticks]
    return [text for text in found if text and text.get_visible() and text.get_text().strip()]


@pytest.mark.parametrize("steps", [1, 10, 40, 400])
def test_text_is_legible_and_stands_on_no_other(steps):
    fig = drawn(given(steps), title="What an LSTM reads", readout_label="probability\nof positive")
    boxes = {text: text.get_window_extent() for text in texts(fig)}
    assert min(text.get_fontsize() for text in boxes) >= 7
    assert fig.get_figwidth() == 7
    for box in boxes.values():
        assert fig.bbox.x0 <= box.x0 and box.x1 <= fig.bbox.x1
        assert fig.bbox.y0 <= box.y0 and box.y1 <= fig.bbox.y1
    for one, other in itertools.combinations(boxes, 2):
        assert not boxes[one].overlaps(boxes[other]), (one.get_text(), other.get_text())
    for one, other in itertools.combinations(fig.axes, 2):
        assert not one.get_window_extent().overlaps(other.get_window_extent())
    # One step is above the other in every panel.
    ends = {(round(ax.bbox.x0, 3), round(ax.bbox.x1, 3)) for ax in fig.axes}
    assert len(ends) == 1 and {ax.get_xlim() for ax in fig.axes} == {(0.5, steps + 0.5)}


def test_every_panel_holds_what_was_given():
    parts = given(30)
    ax = panels(drawn(parts, readout_label="probability"))
    assert list(ax)[1:5] == ["gate i", "gate f", "gate o", "probability"]
    heat, *_, adjoint = ax.values()
    (mesh,) = [part for part in heat.collections if isinstance(part, QuadMesh)]
    # The units stand by the step at which |h| is largest.
    peaks = [max(range(30), key=lambda t, u=u: abs(parts["states"][t, u])) for u in range(UNITS)]
    order = sorted(range(UNITS), key=peaks.__getitem__)
    np.testing.assert_array_equal(mesh.get_array(), parts["states"][:, order].T)
    assert heat.get_ylim() == (UNITS + 0.5, 0.5)
    for name, values in parts["gates"].items():
        panel = ax[f"gate {name}"]
        (mean,) = panel.lines
        np.testing.assert_allclose(mean.get_ydata(), values.mean(1))
        band = panel.collections[0].get_paths()[0].vertices
        for t, row in enumerate(values, start=1):
            edge = band[band[:, 0] == t, 1]
            np.testing.assert_allclose([edge.min(), edge.max()], np.percentile(row, (10, 90)))
    np.testing.assert_array_equal(ax["probability"].lines[-1].get_ydata(), parts["readout"])
    np.testing.assert_array_equal(adjoint.lines[0].get_ydata(), parts["log_norm"])
    np.testing.assert_array_equal(adjoint.lines[0].get_xdata(), np.arange(1, 31))
    assert "(nats)" in adjoint.get_ylabel()


def test_long_sequences_name_some_tokens_and_the_last():
    parts = given(400)
    parts["tokens"] = [f"w{t}" for t in range(1, 401)]
    ax = drawn(parts).axes[-1]
    names = [label.get_text() for label in ax.get_xticklabels()]
    assert names[-1] == "w400" and len(names) <= 52
    assert [f"w{x:g}" for x in ax.get_xticks()] == names
    assert "1 of 8 is named, 400 in all" in ax.get_xlabel()
    assert drawn(parts, tokens=None).axes[-1].get_xlabel() == "step $t$"


def test_gates_above_one_are_in_their_panel():
    parts = given(5, gates=("e", "f"))
    parts["gates"]["e"] = 1 + parts["gates"]["e"]
    ax = panels(drawn(parts))
    assert ax["gate f"].get_ylim() == (0, 1)
    low, high = ax["gate e"].get_ylim()
    assert low <= parts["gates"]["e"].mean(1).min() and high >= parts["gates"]["e"].mean(1).max()


def test_a_cell_without_gates_and_a_readout_leaves_their_panels_out():
    parts = given(5, gates=()) | {"readout": None}
    assert len(drawn(parts).axes) == 2


@pytest.mark.filterwarnings("error")
def test_tokens_that_a_font_or_mathematics_would_spoil(tmp_path):
    parts = given(5) | {"tokens": ["$5$", "映画", "\N{GRINNING FACE}", "a" * 40, "_^{"]}
    fig = drawn(parts)
    names = [label.get_text() for label in fig.axes[-1].get_xticklabels()]
    assert names == ["$5$", "□□", "\N{GRINNING FACE}", "a" * 15 + "…", "_^{"]
    (path,) = figures.save(fig, tmp_path / "reading")
    first = path.read_bytes()
    figures.save(drawn(parts), tmp_path / "reading")
    assert path.read_bytes() == first


@pytest.mark.filterwarnings("error")
def test_what_is_not_finite_is_shown_as_such():
    parts = given(6)
    parts["states"][2, 3] = np.nan
    parts["states"][:, 4] = np.inf
    parts["gates"]["f"][1, 0] = np.nan
    parts["readout"][5] = np.nan
    parts["log_norm"] = np.array([-np.inf, -np.inf, -3.0, np.nan, -1.0, 0.0])
    ax = panels(drawn(parts))
    heat, *_, adjoint = ax.values()
    (mesh,) = [part for part in heat.collections if isinstance(part, QuadMesh)]
    assert mesh.get_array().mask.sum() == 7 and mesh.get_array().mask[-1].all()
    assert np.isnan(ax["gate f"].lines[0].get_ydata()).tolist() == [False, True] + 4 * [False]
    assert np.isnan(ax["readout"].lines[-1].get_ydata()).tolist() == 5 * [False] + [True]
    line, zeros, missing = adjoint.lines
    assert np.isnan(line.get_ydata()).tolist() == [True, True, False, True, False, False]
    assert list(zeros.get_xdata()) == [1, 2] and list(missing.get_xdata()) == [4]
    labels = [text.get_text() for text in adjoint.get_legend().get_texts()]
    assert labels == ["exactly zero", "not finite"]
    nothing = given(3) | {"log_norm": np.full(3, np.nan), "readout": np.full(3, np.nan)}
    drawn(nothing | {"states": np.full((3, 2), np.nan), "gates": {"f": np.full((3, 2), np.nan)}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": WORDS[:3]}, "reading needs 5 tokens, one a state, got 3"),
        ({"tokens": "words"}, "reading needs a list of tokens, got one text: split it"),
        ({"states": np.zeros((0, 3))}, "reading needs states of shape (T, H), none of them 0, got"),
        ({"states": np.zeros(5)}, "reading needs states of shape (T, H), none of them 0, got (5,)"),
        ({"states": np.ones((5, 2), complex)}, "reading needs real states: give it what cell.read"),
        ({"gates": {"f": np.zeros((4, 3))}}, "reading needs gate 'f' of shape (5, H), as many as"),
        ({"log_norm": np.zeros(6)}, "reading needs log_norm of shape (5,), as many as states; got"),
        ({"readout": np.zeros((5, 1))}, "reading needs readout of shape (5,), as many as states;"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError) as error:
        figures.reading(**given(5) | change)
    assert str(error.value).startswith(message)
