"""Stores: what becomes of a sweep's folder when things go wrong. Nothing is measured here."""

import contextlib
import datetime
import errno
import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import gradlab as gl
from gradlab import _files, _manifest, cli, figures, frames, sweeps
from gradlab.grid import Plan, cluster, forecast, locks, sizes, store, work
from gradlab.sweeps import gradients
from gradlab.sweeps.gradients import cost
from gradlab.sweeps.gradients.curves import Curves
from gradlab.sweeps.gradients.rows import rows_of

SPEC = {
    "cell": ["lru", "min_gru"], "init": "normal", "gain": 1.0, "length": [10, 20],
    "bias_scale": [0.0, 0.5], "hidden": 4, "inputs": 2, "seeds": 4,
}  # fmt: skip
RUNS = 24  # lru has no biases


@pytest.fixture(autouse=True)
def made_up(monkeypatch):
    """Log-norms that follow from the coordinates, in no time; chunks of four, no figures.

    Nor is a program compiled for the memory that it would take.
    """
    monkeypatch.setattr(figures, "draw", lambda *_, **__: [])
    monkeypatch.setattr(cost, "COST", cost.COST._replace(peak=lambda *_: 0))
    size_of(monkeypatch, 4)
    measure_by(monkeypatch, rows)


def rows(runs, size, tell):
    slopes = np.array([random.Random(r.run_id).uniform(-1, 1) for r in runs])
    curves = slopes[:, None] * np.arange(runs[0].length)
    return rows_of(runs, Curves(curves, np.isfinite(curves)), [{}] * len(runs))


def measure_by(monkeypatch, function):
    monkeypatch.setattr(gradients.rows, "measure", function)


def size_of(monkeypatch, size):
    monkeypatch.setattr(sizes, "size_of", lambda *_: size)
    monkeypatch.setattr(cost, "COST", cost.COST._replace(per_chunk=lambda *_: size))


def content(folder):
    """Every file but the lock and what tells times."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (".lock", "manifest.json")
    }


def frames_of(folder):
    return [
        (folder / name).read_bytes() for name in ("runs.parquet", "steps.parquet", "summary.csv")
    ]


@pytest.fixture
def whole(tmp_path):
    sweeps.sweep(SPEC, tmp_path / "whole")
    return tmp_path / "whole"


# What is written


def test_frames_do_not_depend_on_the_chunks(whole, tmp_path, monkeypatch):
    for size in (7, 100):
        size_of(monkeypatch, size)
        sweeps.sweep(SPEC, tmp_path / str(size))
        assert frames_of(tmp_path / str(size)) == frames_of(whole)


def test_a_chunk_is_named_by_what_it_answers_for(whole, tmp_path):
    sweeps.sweep(SPEC, tmp_path / "again")
    names = [{path.name[:16] for path in (folder / "chunks").iterdir()}
             for folder in (whole, tmp_path / "again")]  # fmt: skip
    assert names[0] == names[1] and len(names[0]) == RUNS // 4


def test_the_manifest_says_where_everything_comes_from(whole):
    manifest = json.loads((whole / "manifest.json").read_text())
    assert manifest["format"] == frames.FORMAT and manifest["status"] == "complete"
    assert {"gradlab", "jax", "numpy", "python"} <= manifest["versions"].keys()
    assert manifest["settings"]["dtype"] == "float32" and manifest["device"]
    commit = subprocess.run(
        ["git", "-C", os.path.dirname(__file__), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
    )
    if commit.returncode == 0:
        assert manifest["git"]["commit"] == commit.stdout.strip()
        assert isinstance(manifest["git"]["clean"], bool)
    chunks = manifest["chunks"]
    assert sum(chunk["runs"] for chunk in chunks) == RUNS
    assert {chunk["host"] for chunk in chunks} == {socket.gethostname()}
    assert all(chunk["seconds"] >= 0 and (whole / chunk["name"]).exists() for chunk in chunks)
    assert all(datetime.datetime.fromisoformat(chunk["started"]).tzinfo for chunk in chunks)


def test_an_axis_that_grows_runs_only_what_is_new(whole, monkeypatch):
    seen = []
    measure_by(monkeypatch, lambda runs, *rest: seen.extend(runs) or rows(runs, *rest))
    report = sweeps.sweep(SPEC | {"seeds": 5}, whole)
    assert report.computed == len(seen) == 6 and {r.seed for r in seen} == {4}
    assert report.total == len(report.results.runs) == 30


# What goes wrong


def test_a_full_disk_keeps_what_was_finished(whole, tmp_path, monkeypatch):
    plain, written = os.fsync, []

    def fsync(number):
        if written.append(1) or len(written) > 11:
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(number)

    with monkeypatch.context() as patch:
        patch.setattr(_files.os, "fsync", fsync)
        with pytest.raises(OSError, match="cannot write to .*No space left.*the same command goes"):
            sweeps.sweep(SPEC, tmp_path / "full")
    assert not list((tmp_path / "full").rglob("*.tmp"))
    kept = sweeps.status(tmp_path / "full").done
    assert 0 < kept < RUNS and sweeps.sweep(SPEC, tmp_path / "full").computed == RUNS - kept
    assert frames_of(tmp_path / "full") == frames_of(whole)


@pytest.mark.parametrize("damage", [{"spec": None}, {"spec": {"axis": 3}}, {"files": "x"}])
def test_a_manifest_that_says_something_else_is_written_again(whole, damage):
    manifest = json.loads((whole / "manifest.json").read_text())
    (whole / "manifest.json").write_text(json.dumps(manifest | damage))
    before = frames_of(whole)
    assert sweeps.sweep(SPEC, whole).computed == 0
    again = json.loads((whole / "manifest.json").read_text())
    assert again["spec"] == manifest["spec"] and again["files"] == manifest["files"]
    assert sweeps.status(whole).finished and frames_of(whole) == before


@pytest.mark.parametrize("where", ["frames", "figures"])
def test_a_disk_that_is_full_in_the_end(whole, tmp_path, monkeypatch, where):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if where == "frames":
            patch.setattr(store.consolidate, "consolidate", full)
        else:
            patch.setattr(figures, "draw", full)
        with pytest.raises(OSError, match="cannot write to .*No space left.*the same command goes"):
            sweeps.sweep(SPEC, tmp_path / "full")
    assert sweeps.sweep(SPEC, tmp_path / "full").computed == 0
    assert frames_of(tmp_path / "full") == frames_of(whole)


def test_a_disk_that_is_really_full(whole, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a disk of a test's own needs the rights to mount one")
    try:
        with pytest.raises(OSError, match="cannot write to .*No space left"):
            sweeps.sweep(SPEC, small / "out")
        assert 0 < sweeps.status(small / "out").done < RUNS
        subprocess.run(["mount", "-o", "remount,size=4m", str(small)], check=True)
        sweeps.sweep(SPEC, small / "out")
        assert frames_of(small / "out") == frames_of(whole)
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.parametrize("damage", ["cut short", "one bit", "emptied", "another's"])
def test_a_damaged_chunk_is_measured_again(whole, damage):
    before = frames_of(whole)
    first, second = sorted((whole / "chunks").iterdir())[:2]
    told = bytearray(first.read_bytes())
    if damage == "cut short":
        del told[len(told) // 2 :]
    elif damage == "one bit":
        told[len(told) // 3] ^= 1
    elif damage == "emptied":
        told.clear()
    else:
        told = second.read_bytes()
    first.write_bytes(told)
    report = sweeps.sweep(SPEC, whole)
    assert report.damaged == (first.name,) and report.computed == 4
    assert frames_of(whole) == before


def test_leftovers_of_a_killed_process_are_removed(whole):
    for place in ("chunks", "figures", "."):
        (whole / place).mkdir(exist_ok=True)
        (whole / place / f".{'0' * 32}.tmp").write_bytes(b"half")
    (whole / "runs.parquet").unlink()
    sweeps.sweep(SPEC, whole)
    assert not list(whole.rglob("*.tmp"))


def test_a_clock_that_jumps_changes_nothing(whole, tmp_path, monkeypatch):
    rng = random.Random(0)
    monkeypatch.setattr(time, "time", lambda: rng.uniform(0, 4e9))
    monkeypatch.setattr(work, "now", lambda: f"{rng.randrange(1970, 2100)}-01-01T00:00:00+00:00")
    with pytest.raises(KeyboardInterrupt):
        sweeps.sweep(SPEC, tmp_path / "out", progress=stop_at(8))
    for path in (tmp_path / "out").rglob("*"):
        os.utime(path, (4e9, 4e9) if rng.random() < 0.5 else (0, 0))
    report = sweeps.sweep(SPEC, tmp_path / "out")
    assert report.computed == RUNS - 8 and frames_of(tmp_path / "out") == frames_of(whole)
    assert sweeps.sweep(SPEC, tmp_path / "out").computed == 0


def stop_at(number):
    def progress(done, total, label):
        if done >= number:
            raise KeyboardInterrupt

    return progress


def test_progress_says_what_comes_after_the_last_run(tmp_path, monkeypatch):
    def draw(folder, out, progress):
        progress(1, 2)
        progress(2, 2)

    monkeypatch.setattr(figures, "draw", draw)
    calls = []
    sweeps.sweep(SPEC, tmp_path / "out", progress=lambda *call: calls.append(call))
    after = ["consolidating", "drawing 1 of 2", "drawing 2 of 2"]
    assert calls[-3:] == [(RUNS, RUNS, label) for label in after]
    with pytest.raises(KeyboardInterrupt):  # there too a user may stop it, and go on later
        sweeps.sweep(SPEC | {"seeds": 8}, tmp_path / "out", progress=stop_at(2 * RUNS))
    assert not sweeps.status(tmp_path / "out").finished
    assert sweeps.sweep(SPEC | {"seeds": 8}, tmp_path / "out").computed == 0


def test_a_second_sweep_of_a_folder_is_refused_while_the_first_runs(tmp_path, monkeypatch):
    told = []

    def meanwhile(runs, *rest):
        if not told:
            told.append(sweeps.status(tmp_path / "out"))
            with pytest.raises(ValueError, match="is in use by another sweep"):
                sweeps.sweep(SPEC, tmp_path / "out")
        return rows(runs, *rest)

    measure_by(monkeypatch, meanwhile)
    sweeps.sweep(SPEC, tmp_path / "out")
    assert told[0].running and (told[0].done, told[0].missing) == (0, RUNS)
    assert not sweeps.status(tmp_path / "out").running


@pytest.mark.parametrize("where", ["manifest", "chunk"])
def test_a_newer_gradlabs_folder_is_left_alone(whole, where, monkeypatch):
    if where == "manifest":
        manifest = json.loads((whole / "manifest.json").read_text())
        (whole / "manifest.json").write_text(json.dumps(manifest | {"format": frames.FORMAT + 1}))
    else:
        monkeypatch.setattr(_manifest, "FORMAT", frames.FORMAT - 1)
    before = content(whole)
    with pytest.raises(ValueError, match="written by a newer gradlab .*; update gradlab"):
        sweeps.sweep(SPEC, whole)
    assert content(whole) == before
    if where == "manifest":
        for read in (sweeps.status, gl.read):
            with pytest.raises(ValueError, match="written by a newer gradlab"):
                read(whole)


def test_a_manifest_that_changes_under_a_sweep_is_told(tmp_path, monkeypatch):
    def other(runs, *rest):
        path = tmp_path / "out" / "manifest.json"
        manifest = json.loads(path.read_text())
        manifest["spec"]["seed"] = [7]
        path.write_text(json.dumps(manifest))
        return rows(runs, *rest)

    measure_by(monkeypatch, other)
    with pytest.raises(ValueError, match="manifest.json changed under a running sweep"):
        sweeps.sweep(SPEC, tmp_path / "out")
    assert len(list((tmp_path / "out" / "chunks").iterdir())) == RUNS // 4


def test_a_spec_that_was_begun_by_mistake_does_not_lock_the_folder(tmp_path):
    """Going back to fewer seeds is refused only where there are results of the others."""
    sweeps.sweep(SPEC | {"seeds": 2}, tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        sweeps.sweep(SPEC | {"seeds": 4}, tmp_path / "out", progress=stop_at(0))
    assert sweeps.sweep(SPEC | {"seeds": 2}, tmp_path / "out").computed == 0


@pytest.mark.parametrize("manifest", ["{}", '{"format": "x"}', '{"spec": {"cel": 1}}', "nonsense"])
def test_status_of_a_manifest_that_says_nothing(tmp_path, manifest):
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(ValueError) as error:
        sweeps.status(tmp_path)
    assert "\n" not in str(error.value)


def test_an_estimate_is_of_what_sweeps_took(tmp_path, monkeypatch):
    """Two seconds to begin a program, one for 1e7 operations, thirty for the figures."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    begun, clock = set(), [0.0]

    def slow(runs, size, tell):
        clock[0] += 1e-7 * sum(map(cost.flops, runs))
        for new in {(cost.program_key(run), run.init) for run in runs} - begun:
            begun.add(new)
            clock[0] += 2.0
        return rows(runs, size, tell)

    def draw(*_, **__):
        clock[0] += 30.0
        return []

    spec = SPEC | {"hidden": 128, "length": [300, 400], "seeds": 12}
    first = sweeps.estimate(spec)
    measure_by(monkeypatch, slow)
    monkeypatch.setattr(figures, "draw", draw)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    assert first.programs == 4 and "matrix products" in first.source
    report = sweeps.sweep(spec, tmp_path / "a")
    assert report.seconds == pytest.approx(2.0 * 4 + 30.0 + 1e-7 * first.flops, rel=1e-6)
    again = sweeps.estimate(spec, set={"bias_scale": [0.0, 0.7]})
    assert again.seconds == pytest.approx(2.0 * 4 + 30.0 + 1e-7 * again.flops, rel=1e-6)
    assert "the same shapes" in again.source
    similar = sweeps.estimate(spec | {"hidden": 64})
    assert similar.seconds == pytest.approx(2.0 * 4 + 30.0 + 1e-7 * similar.flops, rel=1e-6)
    assert "similar" in similar.source
    assert sweeps.estimate(spec, tmp_path / "a").seconds == 0


def test_small_runs_say_little_of_large_ones(monkeypatch):
    """What a run of 1e4 operations takes is all overhead; a large one is not as slow for it."""
    monkeypatch.setattr(forecast, "_products", lambda: 1e11)
    large = next(iter(Plan(sweeps.parse(SPEC | {"hidden": 256, "length": 999}))))
    flops = cost.flops(large)
    seconds, _ = forecast._seconds(gradients.MEASUREMENT, large, flops, {"lru 1 8 10": (0.2, 1e4)})
    assert seconds == pytest.approx(0.2 + flops / (forecast.SHARE * 1e11), rel=1e-3)


def test_a_second_initializer_s_beginning_is_no_speed():
    watch = forecast.Watch()
    runs = list(Plan(sweeps.parse(SPEC | {"cell": "gru", "bias_scale": 0.0})))[:4]
    other = [run._replace(init="orthogonal") for run in runs]
    for batch, took in ((runs, 5.0), (other, 3.0), (runs, 0.4)):
        watch.note(work.Chunk(gradients.MEASUREMENT, tuple(map(tuple, batch)), 1), took)
    known = watch.times(forecast.Times())
    assert known.runs == {"gru 1 4 10": (pytest.approx(0.1), cost.flops(runs[0]))}
    assert known.start == pytest.approx((4.6 + 2.6) / 2)


def test_what_cannot_be_sized_has_failed_with_the_reason(tmp_path, monkeypatch):
    def size(measurement, run, wanted, limit):
        if run.length == 20:
            raise OverflowError("too long")
        return 4

    monkeypatch.setattr(sizes, "size_of", size)
    report = sweeps.sweep(SPEC, tmp_path / "out")
    runs = report.results.runs.set_index("length")
    assert runs.loc[20, "reason"].str.startswith("OverflowError: too long (test_store.py:").all()
    assert set(runs.loc[10, "status"]) == {"ok"} and len(report.failed) == RUNS // 2


@pytest.mark.parametrize("what", ["a chunk", "the manifest"])
def test_nobody_counts_what_a_newer_gradlab_wrote(whole, what):
    if what == "the manifest":
        manifest = json.loads((whole / "manifest.json").read_text())
        (whole / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    else:
        path = next((whole / "chunks").iterdir())
        table = pq.read_table(path)
        facts = json.dumps({"format": 99}).encode()
        pq.write_table(table.replace_schema_metadata({b"gradlab": facts}), path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        path.rename(path.with_name(f"{path.name[:16]}-{digest}.parquet"))
    for asked in (sweeps.status, lambda folder: sweeps.estimate(SPEC, folder)):
        with pytest.raises(ValueError, match="newer gradlab"):
            asked(whole)


@pytest.mark.parametrize("given", [None, [1], 3])
def test_what_is_no_spec(given, tmp_path):
    for ask in (sweeps.estimate, lambda spec: sweeps.sweep(spec, tmp_path)):
        with pytest.raises(ValueError, match="a spec is a TOML file or its content"):
            ask(given)


def test_an_estimate_knows_what_is_stored(whole, tmp_path):
    assert sweeps.estimate(SPEC, whole).stored == RUNS
    found = sweeps.estimate(SPEC | {"seeds": 5}, whole)
    assert (found.runs, found.stored) == (30, RUNS)
    assert sweeps.estimate(SPEC, tmp_path / "none").stored == 0
    with pytest.raises(ValueError, match="holds results of another spec"):
        sweeps.estimate(SPEC | {"length": [11]}, whole)


# Runs that fail


def refuse(runs, size, tell):
    if runs[0].length == 20 and runs[0].cell == "lru":
        raise ArithmeticError("no such\n number")
    return rows(runs, size, tell)


def test_a_failed_run_is_a_row_with_its_reason(tmp_path, monkeypatch):
    measure_by(monkeypatch, refuse)
    report = sweeps.sweep(SPEC, tmp_path / "out")
    assert {text.partition(" (")[0] for text in report.failed.values()} == {
        "ArithmeticError: no such number"
    }
    runs, steps, manifest = report.results
    bad = runs[runs["status"] == "failed"]
    assert len(bad) == manifest["failed"] == len(report.failed) == 4 and len(runs) == RUNS
    assert bad["reason"].str.startswith("ArithmeticError: no such number (test_store.py:").all()
    assert bad["rate"].isna().all() and not steps["run_id"].isin(bad["run_id"]).any()
    found = sweeps.status(tmp_path / "out")
    assert (found.done, found.failed, found.missing) == (RUNS - 4, 4, 0)
    assert found.reasons == {bad["reason"].iloc[0]: 4}
    counts = found.counts.set_index("cell")
    assert counts.loc["lru", ["planned", "done", "failed"]].tolist() == [8, 4, 4]
    # They are not run again without being asked for; then they alone are.
    assert sweeps.sweep(SPEC, tmp_path / "out").computed == 0
    measure_by(monkeypatch, rows)
    again = sweeps.sweep(SPEC, tmp_path / "out", retry=True)
    assert again.computed == 4 and again.failed == {}
    assert (again.results.runs["status"] == "ok").all()


def test_figures_and_tables_of_a_sweep_with_failed_runs(tmp_path, monkeypatch):
    monkeypatch.undo()
    measure_by(monkeypatch, refuse)
    size_of(monkeypatch, 4)
    results = sweeps.sweep(SPEC, tmp_path / "out").results
    assert list((tmp_path / "out" / "figures").glob("*.png"))
    table = frames.verdict_table(results.runs)
    assert set(table["cell"]) == {"lru", "min_gru"}


@pytest.mark.parametrize("most, halved", [(2, 1), (1, 2)])
def test_a_chunk_that_does_not_fit_is_halved(whole, tmp_path, monkeypatch, most, halved):
    def small(runs, size, tell):
        if size > most:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.")
        return rows(runs, size, tell)

    measure_by(monkeypatch, small)
    runs = sweeps.sweep(SPEC, tmp_path / "out").results.runs
    assert runs["halved"].max() == halved and (runs["status"] == "ok").all()
    expected = gl.read(whole).runs
    pd.testing.assert_frame_equal(runs.drop(columns="halved"), expected.drop(columns="halved"))


def test_a_single_run_that_does_not_fit_has_failed(tmp_path, monkeypatch):
    def small(runs, size, tell):
        if runs[0].length == 20:
            raise MemoryError("99 bytes")
        return rows(runs, size, tell)

    measure_by(monkeypatch, small)
    runs = sweeps.sweep(SPEC, tmp_path / "out").results.runs.set_index("length")
    assert (runs.loc[20, "status"] == "failed").all() and (runs.loc[10, "status"] == "ok").all()
    assert runs.loc[20, "reason"].str.startswith("MemoryError: 99 bytes").all()
    assert runs.loc[20, "halved"].max() == 2


def test_an_estimate_asks_few_programs_for_their_memory(monkeypatch):
    asked = []

    def peak(run, size):
        asked.append((run.length, run.init, size))
        return 100 * run.length

    monkeypatch.setattr(cost, "COST", cost.COST._replace(peak=peak))
    axes = {"cell": "elman", "init": ["normal", "orthogonal"], "length": [10, 40, 20], "gain": 1.0}
    spec = axes | {"hidden": 4, "inputs": 2, "seeds": 3}
    # Runs of 40 steps are too large; those of 20 fit, so those of 10 do.
    assert sweeps.estimate(spec, memory=2000).too_large == 2 * 3
    expected = [(n, name, 1) for n in (40, 20) for name in ("normal", "orthogonal")]
    assert sorted(asked, reverse=True) == sorted(expected, reverse=True)
    # With plenty, one program tells of all initializers.
    asked.clear()
    assert sweeps.estimate(spec, memory=16_000).too_large == 0
    assert len(asked) == 1 and asked[0][0] == 40
    assert sweeps.estimate(spec).too_large == 0 and len(asked) == 1


def test_a_run_above_the_memory_that_is_given_has_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(sizes, "size_of", lambda *_: 1)
    monkeypatch.setattr(cost, "COST", cost.COST._replace(peak=cost.peak))
    spec, ours = SPEC | {"cell": "min_gru"}, tmp_path / "out"
    longest = list(Plan(sweeps.parse(spec)))[-1]
    need = cost.peak(longest, 1)
    assert sweeps.estimate(spec, memory=need - 1).too_large == 8
    report = sweeps.sweep(spec, ours, memory=need - 1)
    runs = report.results.runs.set_index("length")
    assert len(report.failed) == 8 and longest.run_id in report.failed
    assert (runs.loc[20, "status"] == "failed").all() and (runs.loc[10, "status"] == "ok").all()
    reason = r"MemoryError: needs about .*B on 2 devices, and --memory leaves .*B; fewer .*"
    assert runs.loc[20, "reason"].str.fullmatch(reason).all()

    # With more, those alone are measured, to the same numbers.
    assert sweeps.estimate(spec, memory=need).too_large == 0
    report = sweeps.sweep(spec, ours, memory=f"{need} B", retry=True)
    assert report.computed == 8 and not report.failed
    expected = sweeps.sweep(spec, tmp_path / "whole").results.runs
    pd.testing.assert_frame_equal(report.results.runs, expected)


# The command line


def command(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["gradlab", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    return ended.value.code, out, err


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "spec.toml"
    path.write_text("\n".join(f"{name} = {json.dumps(value)}" for name, value in SPEC.items()))
    return path


def test_the_exit_status_says_that_runs_failed(file, tmp_path, monkeypatch, capsys):
    measure_by(monkeypatch, refuse)
    out = tmp_path / "out"
    status, text, _ = command(monkeypatch, capsys, "sweep", file, "--out", out)
    assert status == cli.SOME_FAILED and "4 runs failed: ArithmeticError: no such number" in text
    status, text, _ = command(monkeypatch, capsys, "status", out)
    assert not status
    assert "20 of 24 runs done (83%), 4 failed, 0 missing; finished" in text
    measure_by(monkeypatch, rows)
    status, text, _ = command(monkeypatch, capsys, "sweep", file, "--out", out, "--retry")
    assert not status and "4 of 24 runs measured now" in text


def test_values_set_on_the_command_line(file, tmp_path, monkeypatch, capsys):
    words = ("--set", "hidden=8", "--set", "cell=lru,min_gru", "--set", "seeds=2")
    more = ("--set", "bias_scale={linspace = [0, 1, 3]}")
    status, _, _ = command(
        monkeypatch, capsys, "sweep", file, "--out", tmp_path / "out", *words, *more
    )
    runs = gl.read(tmp_path / "out").runs
    assert not status and set(runs["hidden"]) == {8} and len(runs) == 2 * 2 + 2 * 2 * 3


@pytest.mark.parametrize(
    "words, message",
    [
        (["--set", "hidden"], "--set takes NAME=VALUE, got 'hidden'"),
        (["--set", "hiden=8"], "unknown key to set 'hiden'; did you mean 'hidden'"),
        (["--set", "hidden=8", "--set", "hidden=9"], "--set gives hidden twice"),
        (["--memory", "2XB"], "2XB"),
        (["--scheduler", "tcp://127.0.0.1:1"], "no scheduler at tcp://127.0.0.1:1"),
        (["--workers", "-1"], "workers"),
    ],
)
def test_mistakes_on_the_command_line(file, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.setattr(cluster, "PATIENCE", 0.5)
    status, _, err = command(monkeypatch, capsys, "sweep", file, "--out", tmp_path / "out", *words)
    assert status in (1, 2) and message in err and "Traceback" not in err


def test_a_spec_file_that_changes_under_a_running_sweep(file, tmp_path, monkeypatch, capsys):
    def edited(runs, *rest):
        file.write_text(file.read_text().replace('"seeds" = 4', "") + "\n# more")
        return rows(runs, *rest)

    measure_by(monkeypatch, edited)
    status, _, err = command(monkeypatch, capsys, "sweep", file, "--out", tmp_path / "out")
    assert not status and "spec.toml changed while the sweep ran" in err


def test_status_of_what_is_no_sweep(tmp_path, monkeypatch, capsys):
    status, _, err = command(monkeypatch, capsys, "status", tmp_path / "none")
    assert status == 1 and "no results in" in err and "gradlab sweep SPEC.toml --out DIR" in err


# Addresses


@pytest.fixture
def remote():
    import fsspec

    yield "memory://sweeps/out"
    with contextlib.suppress(FileNotFoundError):
        fsspec.filesystem("memory").rm("/sweeps", recursive=True)


def test_a_folder_behind_an_address_is_like_one_of_this_machine(remote, whole):
    with pytest.raises(KeyboardInterrupt):
        sweeps.sweep(SPEC, remote, progress=stop_at(8))
    assert sweeps.status(remote).done == 8
    report = sweeps.sweep(SPEC, remote)
    assert report.computed == RUNS - 8 and sweeps.sweep(SPEC, remote).computed == 0
    folder = _files.Folder(remote)
    made = [folder.read(name) for name in ("runs.parquet", "steps.parquet", "summary.csv")]
    assert made == frames_of(whole)
    pd.testing.assert_frame_equal(gl.read(remote).runs, gl.read(whole).runs)
    assert ".lock" not in folder.names()


def test_a_second_sweep_of_an_address_is_refused_and_a_dead_one_is_not(remote, monkeypatch):
    monkeypatch.setattr(locks, "BEAT", 0.1)
    refused = []

    def meanwhile(runs, *rest):
        if not refused:
            refused.append(1)
            with pytest.raises(ValueError, match="is in use by another sweep"):
                sweeps.sweep(SPEC, remote)
        return rows(runs, *rest)

    measure_by(monkeypatch, meanwhile)
    sweeps.sweep(SPEC, remote)
    assert refused
    # Left behind by one that was killed: nobody renews it.
    _files.Folder(remote).write(".lock", lambda file: file.write(b"[]"))
    assert sweeps.sweep(SPEC | {"seeds": 5}, remote).computed == 6
    assert threading.active_count() < 20


def test_a_sweep_that_stood_still_does_not_write_over_another(remote, monkeypatch, whole):
    monkeypatch.setattr(locks, "BEAT", 0.05)
    main, still, plain = threading.main_thread(), set(), _files.Folder.put

    def put(folder, name, content):
        if name != ".lock" or threading.current_thread() not in still:
            plain(folder, name, content)

    monkeypatch.setattr(_files.Folder, "put", put)

    def stand_still(runs, *rest):
        # The first sweep's sign of life stops, as all of it would; the second runs here meanwhile.
        still.update(set(threading.enumerate()) - {main})
        measure_by(monkeypatch, rows)
        assert sweeps.sweep(SPEC, remote).computed == RUNS
        return rows(runs, *rest)

    measure_by(monkeypatch, stand_still)
    with pytest.raises(ValueError, match="another sweep took memory://sweeps/out while this one"):
        sweeps.sweep(SPEC, remote)
    folder = _files.Folder(remote)
    assert sweeps.sweep(SPEC, remote).computed == 0
    frames = [folder.read(name) for name in ("runs.parquet", "steps.parquet", "summary.csv")]
    assert frames == frames_of(whole)


def test_of_two_sweeps_that_begin_together_one_holds_an_address(remote, monkeypatch):
    monkeypatch.setattr(locks, "BEAT", 0.4)
    held, refused, gate = [], [], threading.Barrier(2)

    def enter():
        gate.wait()
        try:
            with locks.hold(_files.Folder(remote)):
                held.append(1)
                time.sleep(1.0)
        except ValueError:
            refused.append(1)

    threads = [threading.Thread(target=enter) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 1)


def test_an_address_that_nobody_answers_is_one_message(tmp_path):
    with pytest.raises(ValueError, match="nosuch://bucket/x: Protocol not known: nosuch"):
        sweeps.sweep(SPEC, "nosuch://bucket/x")


def test_chunks_hold_one_row_per_run(whole):
    tables = [pq.read_table(path) for path in (whole / "chunks").iterdir()]
    assert sum(table.num_rows for table in tables) == RUNS
