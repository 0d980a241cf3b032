"""A file of results that is damaged is an error, whatever reads it: never other numbers."""

import json
import random
import shutil
import warnings

import fsspec
import numpy as np
import pandas as pd
import pytest
from synthetic import sweep

import gradlab as gl
from gradlab import _files, _sums, figures, frames, report, sweeps
from gradlab.grid import Plan, store

SPEC = {"cell": "gru", "init": "normal", "gain": [0.5, 2.0], "length": 100, "seeds": 2}


PLAN = Plan(sweeps.parse(SPEC))


def make(folder, drift=0.0):
    """A finished folder, as a sweep leaves it, of made-up numbers."""
    made = sweep(cells=("gru",), inits=("normal",), gains=(0.5, 2.0), lengths=(100,), seeds=2)
    curves = dict(list(made.steps.groupby("run_id")))
    rows = [
        row
        | {
            "horizon": None,
            "first_nonfinite_step": None,
            "rate": row.get("rate", np.nan) + drift,
            "steps": {
                "step": curves[row["run_id"]]["step"].to_numpy(),
                "lag": curves[row["run_id"]]["lag"].to_numpy(),
                "log_norm": curves[row["run_id"]]["log_norm"].to_numpy() + drift,
            },
        }
        for row in made.runs.dropna(axis=1, how="all").to_dict("records")
    ]
    place = store.Store(_files.Folder(folder), PLAN)
    for part in (rows[:4], rows[4:]):
        content = store.encode(frames.GRADIENTS, part, {"seconds": 0.5})
        place.add([row["run_id"] for row in part], content)
    place.consolidate()
    spec = sweeps.parse(SPEC).model_dump()
    place.write_manifest(spec, status="running", runs=len(rows))
    (folder / "figures").mkdir()
    figures.save(figures.phase(made.runs), folder / "figures" / "phase-gaussian", ("png",))
    place.write_manifest(spec, status="complete", runs=len(rows), files=place.checksums())
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make(tmp_path_factory.mktemp("whole") / "sweep")


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copy")


def flipped(content, place, bit):
    changed = bytearray(content)
    changed[place] ^= 1 << bit
    return bytes(changed)


def draw(folder):
    return figures.draw(folder, folder / "again")


READERS = {
    "read": gl.read,
    "columns": lambda folder: gl.read(folder, ["log_norm", "rate"]),
    "where": lambda folder: gl.read(folder, None, {"gain": 2.0, "lag": slice(None, 9)}),
    "csv": frames.to_csv,
    "figures": draw,
    "report": report.write,
    "summary": frames.read_summary,
    "status": sweeps.status,
}
READ_BY = {
    "runs.parquet": ("read", "columns", "where", "csv", "figures", "report"),
    "steps.parquet": ("read", "columns", "where", "csv", "figures"),
    "summary.csv": ("summary",),
    "manifest.json": tuple(READERS),
}
DAMAGE = {
    "a bit of the data": lambda content, other: flipped(content, len(content) // 3, 4),
    "a bit of the end": lambda content, other: flipped(content, len(content) - 40, 0),
    "cut short": lambda content, other: content[: len(content) // 2],
    "emptied": lambda content, other: b"",
    "longer": lambda content, other: content + b"\0" * 8,
    "another sweep's": lambda content, other: other,
}


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return make(tmp_path_factory.mktemp("other") / "sweep", drift=1.0)


@pytest.mark.parametrize(
    ("name", "damage"),
    # A manifest of another sweep is whole: it is the frames beside it that are refused.
    [(n, d) for n in READ_BY for d in DAMAGE if (n, d) != ("manifest.json", "another sweep's")],
)
def test_whatever_reads_refuses_a_damaged_file(copy, other, name, damage):
    path = copy / name
    path.write_bytes(DAMAGE[damage](path.read_bytes(), (other / name).read_bytes()))
    for reader in READ_BY[name]:
        with pytest.raises(ValueError, match=rf"{name}' is damaged: [^\n]*gradlab sweep[^\n]*\Z"):
            READERS[reader](copy)


def test_frames_of_another_sweep_are_refused(copy, other):
    shutil.copy(other / "manifest.json", copy / "manifest.json")
    with pytest.raises(ValueError, match=r"runs.parquet' is damaged"):
        gl.read(copy)


@pytest.mark.parametrize("name", ["runs.parquet", "steps.parquet", "summary.csv", "manifest.json"])
def test_no_flipped_bit_changes_a_number_in_silence(whole, copy, name):
    read = frames.read_summary if name == "summary.csv" else READERS["columns"]
    truth, content = read(whole), (whole / name).read_bytes()
    draws = random.Random(0)
    places = [*range(8), *range(len(content) - 20, len(content))]
    places += [draws.randrange(len(content)) for _ in range(40)]
    refused = 0
    for place in places:
        (copy / name).write_bytes(flipped(content, place, draws.randrange(8)))
        try:
            found = read(copy)
        except ValueError as error:
            refused += 1
            assert "\n" not in str(error) and name in str(error) or "newer" in str(error)
        else:
            assert name == "manifest.json" and found.manifest == truth.manifest
            pd.testing.assert_frame_equal(found.runs, truth.runs, check_exact=True)
    assert refused > 0.9 * len(places)


def test_a_flipped_bit_behind_an_address(whole):
    there = _files.Folder("memory://damage/sweep")
    for name in ("runs.parquet", "steps.parquet", "manifest.json"):
        there.put(name, (whole / name).read_bytes())
    pd.testing.assert_frame_equal(gl.read(there).steps, gl.read(whole).steps, check_exact=True)
    there.put("steps.parquet", flipped((whole / "steps.parquet").read_bytes(), 2000, 3))
    with pytest.raises(ValueError, match=r"damage/sweep/steps.parquet' is damaged"):
        gl.read("memory://damage/sweep", ["log_norm"])
    fsspec.filesystem("memory").rm("/damage", recursive=True)


def test_status_counts_a_damaged_chunk_and_consolidation_refuses_it(copy):
    path = next((copy / "chunks").iterdir())
    path.write_bytes(flipped(path.read_bytes(), 900, 2))
    assert sweeps.status(copy).damaged == 1
    place = store.Store(_files.Folder(copy), PLAN)
    assert place.damaged == [f"chunks/{path.name}"]
    place.chunks[f"chunks/{path.name}"] = {}
    with pytest.raises(ValueError, match=r"damaged: it does not have the sum in its name"):
        place.consolidate()


def test_a_damaged_picture_is_not_put_into_the_report(copy):
    path = copy / "figures" / "phase-gaussian.png"
    content = path.read_bytes()
    for place in (20, len(content) // 2, len(content) - 10):
        path.write_bytes(flipped(content, place, 1))
        with pytest.raises(ValueError, match=r"phase-gaussian.png' is damaged; `gradlab figures"):
            report.write(copy)


def older(folder, *lost):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(
        json.dumps({name: value for name, value in manifest.items() if name not in lost})
    )


def test_an_older_folder_has_sums_of_whole_files(whole, copy):
    older(copy, "sum", "blocks")
    pd.testing.assert_frame_equal(gl.read(copy).steps, gl.read(whole).steps)
    content = (copy / "steps.parquet").read_bytes()
    (copy / "steps.parquet").write_bytes(flipped(content, len(content) // 2, 6))
    with pytest.raises(ValueError, match="steps.parquet' is damaged: it does not have the sum"):
        gl.read(copy, ["log_norm"])


def test_a_folder_without_sums_is_read(whole, copy):
    older(copy, "sum", "blocks", "files")
    pd.testing.assert_frame_equal(gl.read(copy).steps, gl.read(whole).steps)


def test_frames_stay_guarded_while_a_sweep_runs(whole, copy):
    """The frames are those of before the sweep that runs, and so are their sums."""
    place = store.Store(_files.Folder(copy), PLAN)
    place.write_manifest(sweeps.parse(SPEC).model_dump(), status="running", runs=9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pd.testing.assert_frame_equal(gl.read(copy).steps, gl.read(whole).steps)
        content = (copy / "steps.parquet").read_bytes()
        (copy / "steps.parquet").write_bytes(flipped(content, len(content) // 2, 6))
        with pytest.raises(ValueError, match=r"steps.parquet' is damaged"):
            gl.read(copy)


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 750])
def test_a_checked_file_gives_what_a_plain_one_does(tmp_path, monkeypatch, size):
    monkeypatch.setattr(_sums, "BLOCK", 100)
    content = np.random.default_rng(size).bytes(size)
    path = tmp_path / "file"
    path.write_bytes(content)
    draws = random.Random(size)
    with path.open("rb") as file, path.open("rb") as plain:
        checked = _sums.VerifiedFile(file, _sums.of_blocks(plain))
        assert checked.read() == content and checked.read() == b"" == checked.read(5)
        for _ in range(60):
            place, count = draws.randrange(size + 20), draws.choice([0, 1, 7, 100, 333, -1])
            assert checked.seek(place) == plain.seek(place)
            assert checked.read(count) == plain.read(count)
        assert checked.seek(-min(3, size), 2) == plain.seek(-min(3, size), 2)
        assert checked.read() == plain.read() and checked.tell() == plain.tell()


def test_a_checked_file_reads_the_blocks_that_hold_the_part(tmp_path, monkeypatch):
    monkeypatch.setattr(_sums, "BLOCK", 100)
    path = tmp_path / "file"
    path.write_bytes(bytes(1000))
    with path.open("rb") as file:
        sums = _sums.of_blocks(file)
    path.write_bytes(flipped(bytes(1000), 555, 0))
    with path.open("rb") as file:
        checked = _sums.VerifiedFile(file, sums)
        checked.seek(600)
        assert checked.read(400) == bytes(400) and file.tell() == 1000
        checked.seek(350)
        assert checked.read(150) == bytes(150)
        for place in (500, 450, 599):
            checked.seek(place)
            with pytest.raises(_sums.DamageError, match="bytes 500 to 600"):
                checked.read(60)
