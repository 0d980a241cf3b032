"""Figures that other processes draw are those that this one draws, and errors are this one's."""

import subprocess
import time

import matplotlib as mpl
import pytest

import gradlab as gl
from gradlab import figures
from gradlab.figures import _beside

SPEC = {"axes": {"init": ["normal", "orthogonal"], "gain": [0.5, 2.0], "seeds": 2},
        "fixed": {"cell": "elman", "length": 8, "hidden": 4, "inputs": 2}}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("swept")
    gl.sweep(SPEC, out)
    return out


@pytest.fixture(scope="module")
def usual(folder, tmp_path_factory):
    paths = figures.draw(folder, tmp_path_factory.mktemp("usual"), processes=1)
    return {path.name: path.read_bytes() for path in paths}


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


def test_another_process_draws_the_same_bytes(folder, tmp_path, monkeypatch, started):
    """With a setting of the user's that no figure overrides."""
    monkeypatch.setitem(mpl.rcParams, "axes.facecolor", "lightyellow")
    alone = figures.draw(folder, tmp_path / "alone", processes=1)
    assert not started
    plain, here = figures.save, []

    def save(fig, stem, formats):
        # This process draws its first figure once the other one has drawn all that are left.
        end = time.monotonic() + 120
        while len(list((tmp_path / "both").glob("*.png"))) < len(alone) - 1:
            assert time.monotonic() < end, "the other process drew nothing"
            time.sleep(0.05)
        here.append(stem.name)
        return plain(fig, stem, formats)

    monkeypatch.setattr(figures, "save", save)
    both = figures.draw(folder, tmp_path / "both", processes=2)
    assert len(here) == 1 and [helper.poll() is not None for helper in started] == [True]
    assert [path.name for path in both] == [path.name for path in alone]
    assert content(both) == content(alone)


@pytest.mark.parametrize(
    "program", ["raise SystemExit(1)", "import sys; sys.stdin.readline(); print('no', flush=True)"]
)
def test_what_another_process_cannot_draw_is_drawn_here(
    folder, usual, tmp_path, monkeypatch, program
):
    monkeypatch.setattr(_beside, "PROGRAM", program)
    assert content(figures.draw(folder, tmp_path, processes=3)) == usual


def test_a_stop_ends_the_other_processes(folder, tmp_path, started):
    def stop(i, count):
        assert count == 4
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        figures.draw(folder, tmp_path, progress=stop, processes=3)
    assert len(started) == 2 and all(helper.poll() is not None for helper in started)


def test_few_runs_start_no_process_and_many_do(folder, tmp_path, monkeypatch, started, usual):
    monkeypatch.setattr(figures, "cores", lambda: 2)
    assert content(figures.draw(folder, tmp_path / "few")) == usual
    assert not started
    monkeypatch.setattr(figures, "PAYS", 8)
    assert content(figures.draw(folder, tmp_path / "many")) == usual
    assert len(started) == 1
