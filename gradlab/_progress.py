"""The progress bar: one for sweeps, trainings and downloads."""

from __future__ import annotations

import html
import sys
import time
from typing import Any, NamedTuple

import humanize

from gradlab._format import format_duration

# Seconds between two lines where there is no terminal to redraw a bar on, and between two drawings
# of a notebook's.
_PAUSE, _REDRAW = 5.0, 0.1


class Bar:
    """How far some work is: a bar on a terminal or in a notebook, else a line now and then.

    All but a notebook's bar goes to standard error.

    Call it with what is done, the total, and a text for the end of the line. Nothing is shown
    before the first call.

    Args:
        unit: what is counted; "B" is written with prefixes, such as 2.05 MB.

    >>> with Bar("runs") as bar:
    ...     bar(3, 12, "gru")
    """

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._bar: Any = None
        self._display: Any = None
        self._start = self._last = time.monotonic()
        self._first: int | None = None
        self._full = False

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, total: int, label: str = "") -> None:
        """Show that `done` of `total` is done."""
        now = time.monotonic()
        if self._first is None:
            self._first = done
        speed = (done - self._first) / max(now - self._start, 1e-9)
        text = self._describe(done, total, speed)
        if _in_notebook():
            if self._display is None or now - self._last > _REDRAW or done == total:
                self._last = now
                left = format_duration((total - done) / speed if speed else float("nan"))
                self._show(_BarState(done, total, f"{text}, time left {left}", label))
        elif sys.stderr.isatty():
            self._draw(done, total, text, label)
        elif now - self._last > _PAUSE or (done == total and not self._full):
            self._last, self._full = now, done == total
            left = format_duration((total - done) / speed if speed else float("nan"))
            end = f": {label}" if label else ""
            print(f"{text}, time left {left}{end}", file=sys.stderr)

    def _describe(self, done: int, total: int, speed: float) -> str:
        if self._unit == "B":
            count, whole, rate = (humanize.metric(size, "B") for size in (done, total, speed))
            return f"{count} of {whole}, {rate}/s"
        return f"{done}/{total} {self._unit}, {speed:.3g}/s"

    def _show(self, state: _BarState) -> None:
        if self._display is None:
            self._display = sys.modules["IPython"].display.display(state, display_id=True)
        else:
            self._display.update(state)

    def _draw(self, done: int, total: int, text: str, label: str) -> None:
        if self._bar is None:
            import rich.console
            import rich.progress as columns

            self._bar = columns.Progress(
                columns.BarColumn(),
                columns.TextColumn("{task.fields[text]}", markup=False),
                columns.TimeElapsedColumn(),
                columns.TextColumn("left:"),
                columns.TimeRemainingColumn(elapsed_when_finished=False),
                columns.TextColumn("{task.description}", markup=False),
                console=rich.console.Console(stderr=True),
                speed_estimate_period=60,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=total, text="")
        self._bar.update(self._task, completed=done, total=total, description=label, text=text)


class _BarState(NamedTuple):
    """One state of a notebook's bar."""

    done: int
    total: int
    text: str
    label: str

    def __repr__(self) -> str:
        return f"{self.text}{f': {self.label}' if self.label else ''}"

    def _repr_html_(self) -> str:
        words = html.escape(repr(self))
        bar = f'<progress value="{self.done}" max="{max(self.total, 1)}" style="width: 16em">'
        return f"<div>{bar}</progress> <small>{words}</small></div>"


def _in_notebook() -> bool:
    """Whether a Jupyter kernel runs this, which shows what is displayed and no terminal's bar."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None
