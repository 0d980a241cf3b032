"""Folders as users have them: read-only, half full, with odd manifests, on disks that fill up."""

import errno
import json
import random
import shutil
import warnings
from pathlib import Path

import faulty
import filelock
import fuzzed
import pytest

import gradlab as gl
from gradlab import _files, figures, frames, report, sweeps

SPEC = fuzzed.SWEPT


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr(figures, "draw", fuzzed.draw_a_dot)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "draw", fuzzed.draw_a_dot)
        return Path(gl.sweep(SPEC, tmp_path_factory.mktemp("folders") / "whole").folder)


@pytest.fixture
def copy(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "copy"))


@pytest.mark.parametrize(("kind", "step"), [("write", 6), ("fsync", 12), ("rename", 6)])
def test_a_full_disk_loses_nothing(tmp_path, kind, step):
    found = fuzzed.fail_everywhere(kind, tmp_path, step)
    assert found.pop("cases") >= 2 and set(found.values()) == {0}, found


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks the system for a path")
def test_what_was_synced_is_enough_to_go_on(tmp_path):
    found = fuzzed.lose_power(tmp_path, step=4)
    assert found.pop("cases") >= 4 and set(found.values()) == {0}, found


def test_a_store_that_fails_and_lags_has_the_same_frames_in_the_end(tmp_path):
    found = faulty.sweep_in_spite(1, tmp_path / "whole")
    assert found.pop("refused") >= 2 and found.pop("cases") == 1
    assert set(found.values()) == {0}, found


def test_a_finished_folder_that_cannot_be_written_is_complete(copy, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    monkeypatch.setattr(_files, "write", refuse)
    found = gl.sweep(SPEC, copy)
    assert (found.computed, found.total, found.failed) == (0, 4, {})
    with pytest.raises(ValueError, match="cannot write to .*Read-only"):
        gl.sweep(SPEC | {"gain": [0.5, 2.5]}, copy)


@pytest.fixture
def unfinished(copy):
    """As a first sweep leaves it that was stopped after half of its chunks."""
    manifest = json.loads((copy / "manifest.json").read_text()) | {"status": "running"}
    for name in ("files", "blocks", "sum"):
        manifest.pop(name)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    for name in fuzzed.FRAMES:
        (copy / name).unlink()
    chunks = sorted((copy / "chunks").glob("*.parquet"))
    chunks[0].unlink()
    return copy


def test_a_sweep_that_has_not_ended_gives_what_is_done(whole, unfinished):
    with pytest.warns(UserWarning, match=r"has not ended: these are \d of its 4 runs"):
        found = gl.read(unfinished)
    every = gl.read(whole)
    assert 0 < len(found.runs) < len(every.runs)
    expected = every.runs[every.runs["run_id"].isin(found.runs["run_id"])].reset_index(drop=True)
    assert found.runs.equals(expected)
    assert set(found.steps["run_id"]) == set(found.runs["run_id"])
    assert found.manifest["status"] == "running" and not (unfinished / "runs.parquet").exists()
    with pytest.raises(ValueError, match="its sweep has not ended"):
        frames.read(unfinished)


def test_an_unfinished_measurement_of_the_users_own_gives_what_is_done(tmp_path):
    @gl.sweeps.measurement
    def halves(number):
        return {"value": number / 2, "steps": {"lag": [0, 1], "log_norm": [0.0, number]}}

    def stop(done, total, label):
        if done:
            raise KeyboardInterrupt

    try:
        spec = {"measurement": "halves", "number": [1.0, 2.0, 3.0]}
        with pytest.raises(KeyboardInterrupt):
            gl.sweep(spec, tmp_path, progress=stop)
        with pytest.warns(UserWarning, match="has not ended"):
            found = gl.read(tmp_path)
        assert (found.runs["value"] == found.runs["number"] / 2).all() and len(found.runs) >= 1
        assert len(found.steps) == 2 * len(found.runs)
    finally:
        sweeps.measurements.REGISTRY.remove("halves")


def test_a_misspelt_value_in_where_is_refused(whole):
    for where in ({"cell": "elmann"}, {"cell": ["elmann", "grv"]}, {"status": "okay"}):
        with pytest.raises(ValueError, match="unknown (cell|status) in where '.*'; .*valid: "):
            gl.read(whole, where=where)
    # Names that there are, and that this sweep has not.
    for where in ({"cell": "gru"}, {"status": "failed"}, {"input": ["reviews"]}, {"gain": 7.0}):
        assert gl.read(whole, where=where).runs.empty
    assert len(gl.read(whole, where={"cell": ["elman", "elmann"]}).runs) == 4


@pytest.mark.parametrize(
    "address",
    [
        "reference://x",
        "dir://x",
        "github://x",
        "jupyter://x",
        "://",
        ":://x",
        "~nobody-of-that-name/x",
        "cached://",
    ],
)
def test_an_odd_address_is_one_message(address):
    for look in (sweeps.status, gl.read, lambda folder: gl.sweep(SPEC, folder)):
        with pytest.raises(ValueError) as caught:
            look(address)
        assert address.split(":")[0] in str(caught.value)
        assert "s3://bucket/sweep" in str(caught.value) or "://" not in address


def test_an_error_of_a_backends_own_is_an_error_of_the_folder(monkeypatch):
    class Odd(Exception):
        pass

    def fail(*_, **__):
        raise Odd("no credentials")

    folder = _files.Folder("memory://odd")
    for method in ("isdir", "isfile", "open", "put_file"):
        monkeypatch.setattr(folder._fs, method, fail)
    for call in (folder.names, lambda: folder.read("a"), lambda: folder.put("a", b""),
                 lambda: folder.exists("a")):  # fmt: skip
        with pytest.raises(OSError, match="memory://odd: Odd: no credentials"):
            call()


def test_home_is_meant_by_its_sign(tmp_path, monkeypatch, whole):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    assert gl.sweep(SPEC, "~/runs").computed == 4
    report.write("~/runs", "~/page.html")
    _files.expand("~/spec.toml").write_text('cell = "elman"\ninit = "normal"\ngain = 1\nlength = 5')
    assert sweeps.load("~/spec.toml").length == [5]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]


def test_a_disk_is_not_walked_to_be_refused(tmp_path, monkeypatch):
    (tmp_path / "usr" / "share").mkdir(parents=True)
    (tmp_path / "usr" / "share" / "words").touch()
    looked = []
    plain = _files.Folder._entries
    monkeypatch.setattr(
        _files.Folder, "_entries", lambda self, below: looked.append(below) or plain(self, below)
    )
    with pytest.raises(ValueError, match=r"holds files that no sweep made \(usr, ...\)"):
        gl.sweep(SPEC, tmp_path)
    assert set(looked) == {"", "chunks", "usr"}


@pytest.mark.parametrize("seed", range(40))
def test_an_odd_manifest_is_refused_or_shown(whole, copy, seed):
    content = fuzzed.manifest(random.Random(seed), (whole / "manifest.json").read_bytes())
    (copy / "manifest.json").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for look in (gl.read, sweeps.status, report.write):
            assert fuzzed.outcome(lambda look=look: look(copy)) in ("accepted", "refused"), content


def test_status_counts_the_runs_of_the_spec_alone(copy):
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["spec"]["gain"] = [0.5]
    for name in ("files", "blocks", "sum"):
        manifest.pop(name)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    found = sweeps.status(copy)
    assert (found.planned, found.done, found.missing) == (2, 2, 0)
    assert found.counts["missing"].tolist() == [0]
