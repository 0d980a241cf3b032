"""The one progress bar, with and without a terminal."""

import io
import sys
import types

import pytest

from gradlab import _progress
from gradlab._format import format_duration


class Terminal(io.StringIO):
    def isatty(self):
        return True


def show(monkeypatch, stream, unit, calls):
    clock = iter(range(100))
    monkeypatch.setattr(_progress.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(sys, "stderr", stream)
    with _progress.Bar(unit) as bar:
        for call in calls:
            bar(*call)
    return stream.getvalue()


def test_lines_without_a_terminal_come_every_few_seconds_and_at_the_end(monkeypatch):
    # A call a second: 10 of the 20 runs are there before, and 1 more after each call.
    calls = [(10 + k, 20, "gru") for k in range(11)]
    text = show(monkeypatch, io.StringIO(), "runs", calls).splitlines()
    # Call k comes k + 1 seconds after the start, and k runs are new.
    assert text == [
        "15/20 runs, 0.833/s, time left 6 seconds: gru",
        "20/20 runs, 0.909/s, time left 0 seconds: gru",
    ]


def test_bytes_have_prefixes_and_a_first_call_has_no_speed(monkeypatch):
    calls = [(0, 84_125_825), (84_125_825, 84_125_825)]
    text = show(monkeypatch, io.StringIO(), "B", calls)
    assert text == "84.1 MB of 84.1 MB, 42.1 MB/s, time left 0 seconds\n"
    first = show(monkeypatch, io.StringIO(), "runs", [(5, 5)])
    assert first == "5/5 runs, 0/s, time left unknown\n"


def test_a_terminal_gets_one_bar_and_labels_are_no_markup(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    text = show(monkeypatch, Terminal(), "runs", [(1, 2, "a"), (2, 2, "[bold]b")])
    assert "2/2 runs" in text and "[bold]b" in text


def test_a_notebook_gets_one_display_that_is_updated(monkeypatch):
    shown = []

    class Display:
        def update(self, drawn):
            shown.append(drawn)

    def display(drawn, display_id):
        shown.append(drawn)
        return Display()

    kernel = types.SimpleNamespace(kernel=object())
    notebook = types.SimpleNamespace(
        get_ipython=lambda: kernel, display=types.SimpleNamespace(display=display)
    )
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    text = show(monkeypatch, io.StringIO(), "runs", [(1, 4, "<gru>"), (2, 4), (4, 4)])
    assert text == "" and [each.done for each in shown] == [1, 2, 4]
    assert repr(shown[0]).startswith("1/4 runs, ") and repr(shown[0]).endswith(": <gru>")
    assert 'value="1" max="4"' in shown[0]._repr_html_() and "&lt;gru&gt;" in shown[0]._repr_html_()


def test_ipython_in_a_terminal_is_no_notebook(monkeypatch):
    shell = types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython", shell)
    assert "2/2 runs" in show(monkeypatch, io.StringIO(), "runs", [(2, 2)])


def test_no_call_shows_nothing(monkeypatch):
    assert show(monkeypatch, io.StringIO(), "runs", []) == ""
    assert show(monkeypatch, Terminal(), "runs", []) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 seconds"),
        (59.6, "1 minute"),
        (61, "1 minute and 1 second"),
        (3599.9, "1 hour"),
        (7199, "2 hours"),
        (86399, "1 day"),
        (86400 + 5400, "1 day and 2 hours"),
        (float("inf"), "unknown"),
        (-1, "unknown"),
    ],
)
def test_durations_are_rounded_before_they_are_split(seconds, text):
    assert format_duration(seconds) == text
