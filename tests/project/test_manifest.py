"""The one reader of manifest.json: strict, lenient, and of a manifest that somebody edited."""

import json

import pytest

from gradlab import _manifest, _sums
from gradlab._files import Folder

SEALED = _sums.seal({"format": _manifest.FORMAT, "status": "complete", "spec": {"cell": "gru"}})
EDITED = SEALED | {"spec": {"cell": "lstm"}}


def folder_with(tmp_path, content):
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    (tmp_path / _manifest.NAME).write_bytes(text)
    return Folder(tmp_path)


def test_a_whole_manifest_is_read(tmp_path):
    folder = folder_with(tmp_path, SEALED)
    assert _manifest.read(folder) == _manifest.find(folder) == SEALED


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", json.dumps(EDITED).encode()])
def test_a_damaged_manifest_is_an_error_or_none(tmp_path, content):
    folder = folder_with(tmp_path, content)
    with pytest.raises(ValueError, match=r"manifest.json' is damaged: [^\n]*\Z"):
        _manifest.read(folder)
    assert _manifest.find(folder) == {}


def test_an_edited_manifest_is_read_where_the_sum_does_not_count(tmp_path):
    folder = folder_with(tmp_path, EDITED)
    assert _manifest.read(folder, verify=False) == EDITED
    assert _manifest.find(folder, verify=False) == EDITED


def test_a_missing_manifest_is_an_error_or_none(tmp_path):
    for folder in (Folder(tmp_path), Folder(tmp_path / "none"), Folder("memory://none")):
        with pytest.raises(_manifest.Missing, match="no results in .*manifest.json missing"):
            _manifest.read(folder)
        assert _manifest.find(folder) == {}


@pytest.mark.parametrize("form", [_manifest.FORMAT + 1, "2", 1.5])
def test_a_newer_format_is_refused_before_the_sum_is_looked_at(tmp_path, form):
    folder = folder_with(tmp_path, EDITED | {"format": form})
    for read in (_manifest.read, _manifest.find):
        with pytest.raises(_manifest.Newer, match=f"newer gradlab .format {form}, this one reads"):
            read(folder)


def test_a_missing_frame_of_a_running_sweep_is_not_there_yet(tmp_path):
    running = folder_with(tmp_path, {"status": "running"})
    assert "has not ended" in str(_manifest.missing(running, "runs.parquet"))
    ended = folder_with(tmp_path, {"status": "complete"})
    assert "runs.parquet missing" in str(_manifest.missing(ended, "runs.parquet"))
