"""The table of published figures says of itself what it must, and its page is made from it."""

import importlib
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import gradlab as gl

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

from published import FIGURES, deviations_from_theory, drawing, table  # noqa: E402
from published.drawing import Curve  # noqa: E402
from published.table import Row  # noqa: E402

PATH = ROOT / "results" / "published.csv"


@pytest.fixture(scope="module")
def rows():
    return table.read(PATH)


@pytest.fixture(scope="module")
def figures():
    return table.load(FIGURES)


def test_the_columns_are_those_of_the_table(rows):
    assert tuple(rows.columns) == (
        "figure", "paper", "place", "quantity", "published", "source", "measured", "error",
        "tolerance", "within", "command", "minutes",
    )  # fmt: skip


def test_there_are_twenty_figures_and_a_hundred_rows(rows):
    assert rows["figure"].nunique() >= 20
    assert len(rows) >= 100
    assert set(rows["figure"]) <= set(FIGURES)
    assert not rows.duplicated(["figure", "quantity"]).any()


def test_the_error_and_what_is_within_follow_from_the_numbers(rows):
    error = (rows["measured"] - rows["published"]).abs()
    np.testing.assert_allclose(rows["error"], error, rtol=1e-6, atol=1e-12)
    assert (rows["within"] == (rows["error"] <= rows["tolerance"])).all()
    assert (rows["tolerance"] >= 0).all()


@pytest.mark.parametrize(
    ("name", "rows_at_width"),
    [("rate_against_gain", "56 of the 72"), ("minimal_rnn", "18 of the 24"),
     ("tied_untied_zero", "24 of the 24"), ("largest_exponent", "18 of the 23")],
)  # fmt: skip
def test_theory_is_the_formula_alone_and_the_note_says_what_the_width_adds(
    rows, figures, name, rows_at_width
):
    points = deviations_from_theory.points_of(name)
    published = rows.loc[rows["figure"] == name, "published"]
    np.testing.assert_array_equal(published, points["predicted_rate"])
    number = deviations_from_theory.within_at_width(name)
    assert rows_at_width == f"{number} of the {len(points)}"
    assert f"{rows_at_width} rows would lie within" in " ".join(figures[name].NOTES.split())


def test_the_linear_rows_are_one_measurement(figures):
    points = deviations_from_theory.points_of("rate_against_gain")
    linear = points[points["activation"] == "linear"]
    # The files have six digits.
    np.testing.assert_allclose(linear["rate"] - np.log(linear["gain"]), 0.040712, atol=2e-6)
    assert f"The {len(linear)} linear rows" in figures["rate_against_gain"].NOTES


def test_every_row_has_a_published_value_a_source_and_a_command(rows):
    assert rows["published"].notna().all()
    for column in ("paper", "place", "source"):
        assert rows[column].str.len().gt(3).all()


def test_a_command_measures_before_it_reads(rows, figures):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    experiments = re.search(r"^EXPERIMENTS = (.*)$", makefile, re.M)[1].split()
    readers = {name for name, figure in figures.items() if hasattr(figure, "EXPERIMENT")}
    assert readers == set(experiments)
    for name, command in rows[["figure", "command"]].drop_duplicates().itertuples(index=False):
        first = f"make training EXPERIMENTS={name} && " if name in readers else ""
        assert command == f"{first}make published FIGURE={name}"
    # What make calls for them.
    for name in readers:
        places = [ROOT / "experiments" / f"{name}{end}" for end in (".py", ".toml")]
        assert any(place.exists() for place in places)
    page = " ".join((PATH.parent / "published.md").read_text(encoding="utf-8").split())
    named = re.search("measure nothing themselves: ([^.]*)\\.", page)[1]
    assert set(named.split(", ")) == readers


def test_a_figure_takes_less_than_an_hour_and_all_less_than_eight(rows):
    minutes = rows.groupby("figure")["minutes"].first()
    assert minutes.max() < 60
    assert minutes.sum() < 480


def test_every_figure_has_its_picture_and_no_other_lies_there(rows):
    pictures = {path.stem: path for path in (PATH.parent / "published").glob("*.png")}
    assert set(pictures) == set(rows["figure"])
    assert all(path.stat().st_size < 100_000 for path in pictures.values())


def test_the_page_is_made_from_the_table(rows, figures, tmp_path):
    table.write_page(rows, figures, tmp_path)
    made = (tmp_path / "published.md").read_text(encoding="utf-8")
    assert made == (PATH.parent / "published.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FIGURES)
def test_the_functions_and_tests_of_the_map_exist(figures, name):
    assert figures[name].MAP
    for _, function, test in figures[name].MAP:
        place, _, attribute = function.rpartition(".")
        assert callable(getattr(importlib.import_module(place), attribute)), function
        path, _, case = test.partition("::")
        assert re.search(rf"^def {case}\(", (ROOT / path).read_text("utf-8"), re.M), test


# Pictures


def axes_of(monkeypatch, curves, **options):
    """The axes of a picture and the line above them."""
    figures = []
    monkeypatch.setattr(gl.figures, "save", lambda fig, *rest: figures.append(fig))
    drawing.draw(Path("one"), {"": curves}, **options)
    (fig,) = figures
    return fig.axes[0], fig.get_suptitle()


def test_only_a_picture_with_published_values_says_how_to_tell_them(monkeypatch):
    alone = Curve("a", [1, 2], measured=[1, 2])
    assert axes_of(monkeypatch, [alone])[1] == ""
    both = Curve("b", [1, 2], [1, 2], [1, 2])
    assert axes_of(monkeypatch, [alone, both])[1] == "dashed: published, points: measured"
    names = Curve("c", ["x", "y"], [1, 2], [1, 2])
    assert axes_of(monkeypatch, [names])[1] == "bars: published, points: measured"


def test_names_are_not_joined_by_lines(monkeypatch):
    ax, _ = axes_of(monkeypatch, [Curve("c", ["x", "y"], [1, 2], [1, 2])])
    assert {line.get_linestyle() for line in ax.lines} == {"None"}


def test_curves_that_coincide_differ_in_line_and_marker(monkeypatch):
    curves = [Curve(name, [1, 2], measured=[1, 2]) for name in "abc"]
    ax, _ = axes_of(monkeypatch, curves)
    for style in ("marker", "linewidth", "markersize", "color"):
        assert len({str(getattr(line, f"get_{style}")()) for line in ax.lines}) == 3
    assert all(line.get_markerfacecolor() == "none" for line in ax.lines)
    assert len({str(line._unscaled_dash_pattern) for line in ax.lines}) == 3


def test_a_logarithmic_axis_of_few_values_names_each(monkeypatch):
    curve = Curve("a", [50, 100, 200, 400], measured=[1, 2, 3, 4])
    ax, _ = axes_of(monkeypatch, [curve], xscale="log")
    assert [text.get_text() for text in ax.get_xticklabels()] == ["50", "100", "200", "400"]
    assert len(ax.get_xticks(minor=True)) == 0


# A small figure through the whole harness


def figure(calls, value=1.0, **more):
    def measure(out):
        calls.append(out)
        (out / "one.png").touch()
        return [
            Row("near | far", 1.0, "formula", value, 0.1),
            Row("not measured", 1.0, "formula", np.nan, 0.1),
        ]

    return SimpleNamespace(
        PAPER="Nobody (2026)", PLACE="figure 1", NOTES="A note.", measure=measure,
        MAP=(("|x| = x", "gradlab.trace", "tests/a.py::test_a"),), **more,
    )  # fmt: skip


def run(figures, tmp_path, names=()):
    return table.run(figures, tmp_path, names, say=lambda line: None)


def test_a_figure_becomes_rows_and_a_page(tmp_path):
    found = run({"one": figure([])}, tmp_path)
    assert found["within"].tolist() == [True, False]
    assert table.read(tmp_path / "published.csv").equals(found)
    page = (tmp_path / "published.md").read_text("utf-8")
    assert "| one | \\|x\\| = x | `gradlab.trace` | `tests/a.py::test_a` |" in page
    assert "| not measured | 1 | nan | nan | 0.1 |" in page and "near" not in page


def test_a_second_call_measures_what_is_missing_and_what_is_named(tmp_path):
    first, second = [], []
    run({"one": figure(first)}, tmp_path)
    both = {"two": figure(second), "one": figure(first, 2.0)}
    found = run(both, tmp_path)
    assert (len(first), len(second)) == (1, 1)
    # In the order of the figures, and with the old rows of `one`.
    assert found["figure"].tolist() == ["two", "two", "one", "one"]
    assert found["measured"].tolist()[2] == 1.0
    found = run(both, tmp_path, ["one"])
    assert (len(first), len(second)) == (2, 1)
    assert found["measured"].tolist()[2] == 2.0 and not found["within"].tolist()[2]


def test_a_figure_that_fails_leaves_the_table_as_it_was(tmp_path):
    run({"one": figure([])}, tmp_path)
    before = (tmp_path / "published.csv").read_bytes()
    broken = figure([])
    broken.measure = lambda out: [Row("a", np.nan, "formula", 1.0, 0.1)]
    with pytest.raises(ValueError, match="no published value"):
        run({"one": figure([]), "two": broken}, tmp_path)
    assert (tmp_path / "published.csv").read_bytes() == before


def test_minutes_of_a_longer_run_stand_in_the_table(tmp_path):
    found = run({"one": figure([], minutes=lambda: 12.5)}, tmp_path)
    assert set(found["minutes"]) == {12.5}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([Row("a", 1.0, "f", 1.0, -1.0)], "no tolerance"),
        ([Row("a", 1.0, "f", 1.0, 1.0)] * 2, "two rows of one quantity"),
    ],
)
def test_rows_that_say_nothing_are_refused(tmp_path, rows, message):
    broken = figure([])
    broken.measure = lambda out: rows
    with pytest.raises(ValueError, match=message):
        run({"one": broken}, tmp_path)


def test_an_unknown_figure_is_named(tmp_path):
    with pytest.raises(ValueError, match="no figure three; there are one"):
        run({"one": figure([])}, tmp_path, ["three"])


def test_a_missing_table_is_an_empty_one(tmp_path):
    assert len(table.read(tmp_path / "none.csv")) == 0
    assert isinstance(table.read(tmp_path / "none.csv"), pd.DataFrame)
