"""The command line: commands in this process; a sweep and a mistake in one of their own."""

import signal
import subprocess
import sys
import time

import pytest
from command import gradlab

from gradlab import cli, figures, sweeps

SPEC = """
[axes]
cell = ["elman"]
init = ["normal"]
gain = [0.5, 1.5]
length = [20]
input = ["gaussian", "reviews"]
seeds = 2

[fixed]
hidden = 8
inputs = 3
"""


def process(*arguments, **options):
    command = [sys.executable, "-m", "gradlab.cli", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    (folder / "spec.toml").write_text(SPEC)

    def save(figure, stem, formats):
        """As if it were drawn: that it is, the test of redrawing sees."""
        path = stem.with_suffix(".png")
        path.touch()
        return [path]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "save", save)
        first = gradlab("sweep", folder / "spec.toml", "--out", folder / "out")
    assert first.returncode == 0, first.stderr
    assert "8 of 8 runs measured now" in first.stdout and "elman" in first.stdout
    assert "8/8 runs" in first.stderr and "Traceback" not in first.stderr
    return folder


@pytest.fixture
def no_figures(monkeypatch):
    """What is drawn, other tests see; here it is not looked at."""
    monkeypatch.setattr(figures, "draw", lambda *_, **__: [])


def test_second_sweep_has_nothing_to_do(folder, no_figures):
    again = gradlab("sweep", folder / "spec.toml", "--out", folder / "out")
    assert again.returncode == 0 and "0 of 8 runs measured now" in again.stdout


def test_figures_are_redrawn_from_the_frames_alone(folder):
    drawn = sorted((folder / "out" / "figures").iterdir())
    for path in drawn:
        path.unlink()
    done = gradlab("figures", folder / "out")
    assert done.returncode == 0, done.stderr
    assert sorted((folder / "out" / "figures").iterdir()) == drawn
    assert all(path.stat().st_size > 1000 for path in drawn)
    assert {path.name for path in drawn} > {"decay-gaussian.png", "inputs-reviews.png"}
    assert {path.suffix for path in drawn} == {".png"}


def test_a_pdf_of_each_figure_where_asked(folder, monkeypatch):
    asked = []
    monkeypatch.setattr(figures, "draw", lambda *arguments: asked.append(arguments[2]) or [])
    for option in ([], ["--pdf"]):
        assert gradlab("figures", folder / "out", *option).returncode == 0
    assert asked == [("png",), ("png", "pdf")]


def test_csv_export(folder):
    done = gradlab("csv", folder / "out")
    assert done.returncode == 0, done.stderr
    lines = (folder / "out" / "runs.csv").read_text().splitlines()
    assert len(lines) == 9 and lines[0].startswith("run_id,cell,")


def test_reproduce_compares_with_a_summary(folder, tmp_path, no_figures):
    summary = folder / "out" / "summary.csv"
    agrees = gradlab("reproduce", folder / "spec.toml", summary)
    assert agrees.returncode == 0, agrees.stderr
    assert "rate_median" in agrees.stdout
    other = tmp_path / "summary.csv"
    lines = summary.read_text().splitlines()
    column = lines[0].split(",").index("rate_median")
    cells = lines[1].split(",")
    cells[column] = "9.0"
    other.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n")
    differs = gradlab("reproduce", folder / "spec.toml", other)
    assert differs.returncode == 1 and "differ from the reference" in differs.stderr


@pytest.mark.parametrize(
    "arguments, status, message",
    [
        (["sweep", "{}/none.toml", "--out", "{}/x"], 1, "no such file"),
        (["sweep", "{}/spec.toml", "--out", "{}/spec.toml"], 1, "not a folder"),
        (["sweep", "{}/spec.toml"], 1, "--out"),
        (["swep"], 2, "swep"),
        (["figures", "{}/nothing"], 1, "no results in"),
        (["csv", "{}/nothing"], 1, "no results in"),
        (["reproduce", "{}/spec.toml", "{}/none.csv"], 1, "no summary"),
    ],
)
def test_mistakes_are_one_message_and_a_status(folder, arguments, status, message):
    done = gradlab(*(argument.format(folder) for argument in arguments))
    assert done.returncode == status
    assert message in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_process_ends_with_the_status(folder):
    child = process("csv", folder / "nothing")
    _, errors = child.communicate(timeout=300)
    assert child.returncode == 1 and "no results in" in errors
    assert len(errors.strip().splitlines()) == 1


def test_whatever_goes_wrong_is_one_line(folder, monkeypatch):
    def broken(dir):
        raise KeyError("a mistake\nof ours " + "x" * 2000)

    monkeypatch.setattr(sweeps, "status", broken)
    done = gradlab("status", folder / "out")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1 and len(done.stderr) < 700
    assert "unexpected KeyError" in done.stderr and "please report it" in done.stderr
    for arguments in (("--traceback", "status"), ("status", "--traceback")):
        done = gradlab(*arguments, folder / "out")
        assert done.returncode == 1 and "in broken" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--memory", "1" + "0" * 400], "memory must be a number above 0"),
        (["--set", "gain=" + "[" * 2000], "at most 16 levels"),
        (["--set", "gain=" + "1" * 5000], "integer must be from"),
        (["--set", "gain" * 10_000], "--set takes NAME=VALUE"),
        (["--set", "a" * 10_000 + "=1"], "unknown key to set"),
        (["--workers", str(10**23)], "workers must be a whole number from 0 to 1000"),
        (["--out", "~nobody-of-that-name/x"], "there is no such user"),
        (["--out", "reference://x"], "reference://x: "),
        (["--out", "dir://x"], "dir://x: "),
        (["--out", "/"], "holds files that no sweep made"),
    ],
)
def test_odd_arguments_are_one_short_message(folder, words, message):
    rest = [] if "--out" in words else ["--out", folder / "other"]
    done = gradlab("sweep", folder / "spec.toml", *words, *rest)
    assert done.returncode in (1, 2) and message in done.stderr
    assert len(done.stderr.splitlines()) == 1 and len(done.stderr) < 620


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_keeps_what_is_finished_and_the_same_command_goes_on(tmp_path, no_figures, name):
    # Of three programs: after the first chunk two are still to come.
    text = SPEC.replace("[20]", "[20, 30, 40]").replace(', "reviews"', "")
    (tmp_path / "spec.toml").write_text(text)
    # A child ignores what its parent does: SIGHUP where nohup runs the tests.
    before = signal.signal(getattr(signal, name), signal.SIG_DFL)
    try:
        child = process("sweep", "spec.toml", "--out", "out", cwd=tmp_path)
    finally:
        signal.signal(getattr(signal, name), before)
    for _ in range(3000):
        if list(tmp_path.glob("out/chunks/*.parquet")) or child.poll() is not None:
            break
        time.sleep(0.02)
    child.send_signal(getattr(signal, name))
    _, errors = child.communicate(timeout=120)
    assert child.returncode == 130, errors
    assert "the same command goes on from there" in errors and "Traceback" not in errors
    saved = len(list(tmp_path.glob("out/chunks/*.parquet")))
    again = gradlab("sweep", tmp_path / "spec.toml", "--out", tmp_path / "out")
    assert again.returncode == 0 and saved >= 1
    assert "12 of 12 runs measured now" not in again.stdout


def test_a_signal_that_nohup_ignores_stays_ignored(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with cli._signals(lambda *_: None):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
