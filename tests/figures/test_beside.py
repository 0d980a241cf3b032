"""Figures that other processes draw are those that this one draws, and errors are this one's."""

import subprocess
import time

import matplotlib as mpl
import pytest

import gradlab as gl
from gradlab import figures
from gradlab.figures import _beside

SPEC = {
    "axes": {"gain": [0.5, 2.0], "seeds": 2},
    "fixed": {"cell": "elman", "init": "normal", "length": 8, "hidden": 4, "inputs": 2},
}
RUNS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A sweep's, with a setting of the user's that no figure overrides."""
    out = tmp_path_factory.mktemp("swept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "draw", lambda *_, **__: [])
        gl.sweep(SPEC, out)
    with mpl.rc_context({"axes.facecolor": "lightyellow"}):
        yield out


@pytest.fixture(scope="module")
def usual(folder, tmp_path_factory):
    """What is drawn of few runs, which start no process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_beside.subprocess, "Popen", None)
        patch.setattr(figures, "cores", lambda: 2)
        return content(figures.draw(folder, tmp_path_factory.mktemp("usual")))


def content(paths):
    return {path.name: path.read_bytes() for path in paths}


@pytest.fixture
def started(monkeypatch):
    """The processes that a test starts."""
    helpers, plain = [], subprocess.Popen

    def popen(*args, **options):
        helpers.append(plain(*args, **options))
        return helpers[-1]

    monkeypatch.setattr(_beside.subprocess, "Popen", popen)
    return helpers


@pytest.fixture
def saved(monkeypatch):
    """The names of the figures that this process makes, which it does not write."""
    names = []

    def save(fig, stem, formats):
        names.append(f"{stem.name}.png")
        return [stem.with_suffix(".png")]

    monkeypatch.setattr(figures, "save", save)
    return names


def test_another_process_draws_the_same_bytes(folder, usual, tmp_path, monkeypatch, started):
    plain, here = figures.save, []

    def save(fig, stem, formats):
        # This process draws its first figure once the other one has drawn all that are left.
        end = time.monotonic() + 120
        while len(list(tmp_path.glob("*.png"))) < len(usual) - 1:
            assert time.monotonic() < end, "the other process drew nothing"
            time.sleep(0.05)
        here.append(stem.name)
        return plain(fig, stem, formats)

    monkeypatch.setattr(figures, "save", save)
    both = figures.draw(folder, tmp_path, processes=2)
    assert len(here) == 1 and [helper.poll() is not None for helper in started] == [True]
    assert [path.name for path in both] == [*usual]
    assert content(both) == usual


@pytest.mark.parametrize(
    "program", ["raise SystemExit(1)", "import sys; sys.stdin.readline(); print('no', flush=True)"]
)
def test_what_another_process_cannot_draw_is_drawn_here(
    folder, usual, tmp_path, monkeypatch, program, started, saved
):
    monkeypatch.setattr(_beside, "PROGRAM", program)
    paths = figures.draw(folder, tmp_path, processes=3)
    assert len(started) == 2 and [path.name for path in paths] == [*usual]
    assert sorted(saved) == sorted(usual)


def test_a_stop_ends_the_other_processes(folder, tmp_path, started):
    def stop(i, count):
        assert count == 4
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        figures.draw(folder, tmp_path, progress=stop, processes=3)
    assert len(started) == 2 and all(helper.poll() is not None for helper in started)


def test_few_runs_start_no_process_and_many_do(
    folder, usual, tmp_path, monkeypatch, started, saved
):
    """That few start none, `usual` sees."""
    monkeypatch.setattr(figures, "cores", lambda: 2)
    monkeypatch.setattr(_beside, "PROGRAM", "raise SystemExit(1)")
    for most, processes, count in ((RUNS + 1, None, 0), (RUNS, 1, 0), (RUNS, None, 1)):
        monkeypatch.setattr(figures, "PAYS", most)
        started.clear(), saved.clear()
        figures.draw(folder, tmp_path, processes=processes)
        assert len(started) == count and sorted(saved) == sorted(usual)
