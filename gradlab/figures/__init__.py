"""Figures from the frames alone: DataFrame -> Figure. Palette, sizes and labels live here only.

Every figure fits a paper's double column (7 in) or single column (3.4 in) with text of 7 pt or
more. Runs without a finite gradient are marked × and runs whose gradient is exactly zero ▽, each
with their number: no figure drops a run silently.
"""

# pandas' own annotations say Series | DataFrame for nearly every selection.
# pyright: reportArgumentType=false

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from gradlab import frames
from gradlab.figures._sentiment import sentiment as sentiment
from gradlab.figures._style import DECADES as DECADES
from gradlab.figures._style import FLOAT32 as FLOAT32
from gradlab.figures._style import LABELS as LABELS
from gradlab.figures._style import MARKS as MARKS
from gradlab.figures._style import STYLE as STYLE
from gradlab.figures._style import order
from gradlab.figures._style import save as save
from gradlab.figures._sweep import decay as decay
from gradlab.figures._sweep import inputs as inputs
from gradlab.figures._sweep import length as length
from gradlab.figures._sweep import phase as phase
from gradlab.figures._theory import QUANTITIES as QUANTITIES
from gradlab.figures._theory import deviations as deviations
from gradlab.figures._theory import theory as theory
from gradlab.figures._training import flossing as flossing
from gradlab.figures._training import gradients as gradients
from gradlab.figures._training import learning as learning
from gradlab.figures._training import success as success
from gradlab.figures._training import training as training

_log = logging.getLogger(__name__)


def draw(
    results: str | Path | frames.Results | frames.TrainingResults, out_dir: str | Path
) -> list[Path]:
    """Draws every figure of `results` (frames, or a sweep's folder) into `out_dir`.

    For each input decay, phase, length and, where there is a theory, theory, and a comparison of
    each other input with gaussian; for each task of a training sweep learning, success and
    gradients. A PNG (200 dots per inch) and a PDF of each. The same frames give the same bytes. A
    figure that the runs cannot fill is skipped and the log says why. Returns the paths written.
    """
    found: Any = frames.read(results) if isinstance(results, str | Path) else results
    if found.runs.empty:
        raise ValueError("no runs to draw")
    trained = isinstance(found, frames.TrainingResults)
    made = _of_training(found) if trained else _of_gradients(found)
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, make in made.items():
        paths += save(make(), out_dir / name)
    return paths


def _of_gradients(results: frames.Results) -> dict[str, Callable[[], Figure]]:
    runs, steps, _ = results
    figures: dict[str, Callable[[], Figure]] = {}
    names = order(runs["input"])
    for name in names:
        figures[f"decay-{name}"] = lambda name=name: decay(runs, steps, input=name)
        figures[f"phase-{name}"] = lambda name=name: phase(runs, input=name)
        figures[f"length-{name}"] = lambda name=name: length(runs, input=name)
        if runs.loc[runs["input"] == name, "predicted_rate"].notna().any():
            figures[f"theory-{name}"] = lambda name=name: theory(runs, input=name)
    others = [name for name in names if name != "gaussian"]
    for name in others:
        if "gaussian" in names:
            figures[f"inputs-{name}"] = lambda name=name: inputs(runs, input=name)
    if not others or "gaussian" not in names:
        _log.warning("inputs: skipped, the runs have no input beside %s", ", ".join(names))
    return figures


def _of_training(results: frames.TrainingResults) -> dict[str, Callable[[], Figure]]:
    runs, curves, steps, _ = results
    figures: dict[str, Callable[[], Figure]] = {}
    for task in order(runs["task"]):
        figures[f"learning-{task}"] = lambda task=task: learning(runs, curves, task=task)
        figures[f"success-{task}"] = lambda task=task: success(runs, task=task)
        figures[f"gradients-{task}"] = lambda task=task: gradients(runs, curves, steps, task=task)
    return figures
