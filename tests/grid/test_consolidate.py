import io
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure
from synthetic import sweep

import gradlab as gl
from gradlab import figures, frames
from gradlab._files import Folder
from gradlab.frames import GRADIENTS, TRAINING
from gradlab.grid import consolidate as module
from gradlab.grid.consolidate import consolidate

ROOT = Path(__file__).parents[2]
FILES = ("runs.parquet", "steps.parquet", "summary.csv")
TINY = {"WAITING": 2**14, "BLOCK": 2**13, "PIECE": 2**10}


def chunk_table(schema, records):
    """The table of a chunk, as the store keeps it."""
    plain = [{k: v for k, v in row.items() if k not in schema.others} for row in records]
    table = pa.Table.from_pandas(frames.coerce(plain, schema.runs, "runs"), preserve_index=False)
    for frame, fields in schema.others.items():
        for name, column in fields.items():
            kind = pa.list_(pa.int64() if column.dtype == "int64" else pa.float64())
            values = pa.array([row[frame][name] for row in records], kind)
            table = table.append_column(f"{frame}.{name}", values)
    return table


def write(folder, tables, kind="gradients"):
    """Chunks of these tables; their names."""
    (folder / "chunks").mkdir(parents=True)
    names = [f"chunks/{k:02d}.parquet" for k in range(len(tables))]
    for name, table in zip(names, tables, strict=True):
        pq.write_table(table, folder / name, compression="zstd")
    (folder / "manifest.json").write_text(json.dumps({"kind": kind}))
    return names


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def results():
    return sweep(
        cells=("gru", "elman"), inits=("normal", "identity"), gains=(2.0, 0.5), lengths=(316, 32)
    )


@pytest.fixture(scope="module")
def rows(results):
    """All runs with their curves, as records, in no order."""
    curves = {name: part for name, part in results.steps.groupby("run_id")}
    records = [
        row
        | {
            "steps": curves[row["run_id"]].drop(columns="run_id").to_dict("list"),
        }
        for row in results.runs.sample(frac=1, random_state=1).to_dict("records")
    ]
    return chunk_table(GRADIENTS, records)


@pytest.fixture(scope="module")
def folder(rows, tmp_path_factory):
    """A consolidated folder."""
    made = tmp_path_factory.mktemp("made")
    names = write(made, [rows.slice(k, 9) for k in range(0, len(rows), 9)])
    consolidate(Folder(made), names, GRADIENTS)
    return made


def expected(results):
    """The frames in their order, by pandas' own sort."""
    order = [*GRADIENTS.order, "seed"]
    runs = results.runs.sort_values(order, ignore_index=True)
    place = results.steps["run_id"].map({name: k for k, name in enumerate(runs["run_id"])})
    steps = results.steps.assign(place=place).sort_values(["place", "lag"], ignore_index=True)
    return runs, steps.drop(columns="place")


def test_frames_are_those_of_the_chunks(results, folder):
    runs, steps = expected(results)
    found = frames.read(folder)
    pd.testing.assert_frame_equal(found.runs, runs, check_exact=True)
    pd.testing.assert_frame_equal(found.steps, steps, check_exact=True)
    assert np.isneginf(found.steps["log_norm"]).sum() == np.isneginf(steps["log_norm"]).sum()


def test_frames_keep_the_dtypes_without_gradlab(folder):
    runs = pd.read_parquet(folder / "runs.parquet")
    dtypes = {name: column.dtype for name, column in GRADIENTS.runs.items()}
    assert {name: str(dtype) for name, dtype in runs.dtypes.items()} == dtypes


def test_summary_is_that_of_all_runs(results, folder):
    text = frames.summary(results.runs).to_csv(index=False, lineterminator="\n")
    assert (folder / "summary.csv").read_text() == text
    pd.testing.assert_frame_equal(
        frames.read_summary(folder), frames.summary(results.runs), check_exact=True
    )


def sorted_places(rows):
    keys = rows.select(["cell", "init", "input", "length", "gain", "seed"]).to_pandas()
    return keys.sort_values(list(keys)).index.to_numpy()


CUTS = {
    "in order": lambda rows: [
        rows.take(pa.array(part)) for part in np.array_split(sorted_places(rows), 6)
    ],
    "two runs each": lambda rows: [rows.slice(k, 2) for k in range(0, len(rows), 2)],
    "backwards": lambda rows: [
        rows.take(pa.array(part[::-1])) for part in np.array_split(sorted_places(rows)[::-1], 5)
    ],
    "one chunk": lambda rows: [rows],
    "some twice": lambda rows: [rows.slice(0, 50), rows.slice(30, 60), rows.slice(20)],
}


@pytest.mark.parametrize("limits", [{}, TINY], ids=["usual", "tiny"])
@pytest.mark.parametrize("cut", CUTS)
def test_files_do_not_depend_on_the_chunks(rows, folder, tmp_path, monkeypatch, cut, limits):
    for name, value in limits.items():
        monkeypatch.setattr(module, name, value)
    names = write(tmp_path, CUTS[cut](rows))
    consolidate(Folder(tmp_path), reversed(names), GRADIENTS)
    assert content(tmp_path) == content(folder)


def test_tiny_limits_put_rows_aside(rows, tmp_path, monkeypatch):
    """What the test above is worth depends on it."""
    for name, value in TINY.items():
        monkeypatch.setattr(module, name, value)
    put, aside = module._put_aside, []
    monkeypatch.setattr(module, "_put_aside", lambda *args: (aside.append(args[0]), put(*args)))
    names = write(tmp_path, [rows.slice(k, 9) for k in range(0, len(rows), 9)])
    consolidate(Folder(tmp_path), names, GRADIENTS)
    assert len(aside) > 3 and not any(path.exists() for path in aside)


@pytest.mark.parametrize("size", [3, 32])
def test_summary_is_made_a_batch_at_a_time(results, rows, tmp_path, monkeypatch, size):
    """There are 5 runs to a point: less than a point at a time, and some of them."""
    monkeypatch.setattr(module, "SUMMARY_BATCH", size)
    rows = rows.filter(pa.compute.equal(rows["cell"], "gru"))
    rows = rows.filter(pa.compute.equal(rows["input"], "gaussian"))
    runs = results.runs.query("cell == 'gru' and input == 'gaussian'")
    made = {}
    for cut, blocks in (("in order", 2**12), ("one chunk", 2**24)):
        monkeypatch.setattr(module, "BLOCK", blocks)
        names = write(tmp_path / cut, CUTS[cut](rows))
        consolidate(Folder(tmp_path / cut), names, GRADIENTS)
        made[cut] = (tmp_path / cut / "summary.csv").read_bytes()
    assert made["in order"] == made["one chunk"]
    # A mean may differ in its last digit with what else is in the frame.
    found, whole = frames.read_summary(tmp_path / "in order"), frames.summary(runs)
    pd.testing.assert_frame_equal(found, whole, rtol=1e-14)


def test_row_groups_have_one_size(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "GROUPS", {"runs": 10})
    monkeypatch.setattr(module, "GROUP", 777)
    made = {}
    for cut in ("in order", "two runs each"):
        names = write(tmp_path / cut, CUTS[cut](rows))
        consolidate(Folder(tmp_path / cut), names, GRADIENTS)
        made[cut] = content(tmp_path / cut)
    assert made["in order"] == made["two runs each"]
    for name, size in (("runs", 10), ("steps", 777)):
        meta = pq.read_metadata(tmp_path / "in order" / f"{name}.parquet")
        sizes = [meta.row_group(k).num_rows for k in range(meta.num_row_groups)]
        assert set(sizes[:-1]) == {size} and 0 < sizes[-1] <= size and len(sizes) > 5


@pytest.mark.parametrize("first", ["failed", "ok"])
def test_a_failed_run_gives_way(rows, folder, tmp_path, first):
    one = rows.slice(0, 1)
    lists = pa.array([[]], pa.list_(pa.int64()))
    failed = one.set_column(rows.column_names.index("status"), "status", [["failed"]])
    for name in ("steps.step", "steps.lag", "steps.log_norm"):
        place = rows.column_names.index(name)
        failed = failed.set_column(place, name, [lists.cast(rows.schema.field(name).type)])
    tables = [failed, rows] if first == "failed" else [rows, failed]
    _, counts = consolidate(Folder(tmp_path), write(tmp_path, tables), GRADIENTS)
    assert content(tmp_path) == content(folder)
    assert sum(counts["status"].values()) == len(rows) and "failed" not in counts["status"]
    _, alone = consolidate(
        Folder(tmp_path / "alone"),
        write(tmp_path / "alone", [failed, rows.slice(1)]),
        GRADIENTS,
    )
    assert alone["status"]["failed"] == 1
    found = frames.read(tmp_path / "alone")
    assert len(found.runs) == len(rows)
    assert one["run_id"][0].as_py() not in set(found.steps["run_id"])
    assert frames.read_summary(tmp_path / "alone")["failed"].sum() == 0.2


def test_columns_that_an_older_chunk_lacks_are_filled(rows, tmp_path):
    old = rows.slice(0, 20).drop_columns(["batch", "theory", "weights"])
    names = write(tmp_path, [old, rows.slice(20)])
    consolidate(Folder(tmp_path), names, GRADIENTS)
    runs = frames.read(tmp_path).runs
    assert len(runs) == len(rows) and runs["theory"].isna().all()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "00.parquet is damaged: "),
        (lambda path: path.unlink(), "00.parquet is missing"),
        (
            lambda path: pq.write_table(
                pq.read_table(path).append_column("mood", [["good"] * 50]), path
            ),
            "00.parquet has a column that is not known: 'mood'",
        ),
    ],
)
def test_a_chunk_that_cannot_be_read_changes_nothing(rows, tmp_path, spoil, message):
    names = write(tmp_path, [rows.slice(0, 50), rows.slice(50)])
    consolidate(Folder(tmp_path), names, GRADIENTS)
    before = content(tmp_path)
    spoil(tmp_path / names[0])
    with pytest.raises(ValueError, match=re.escape(message)):
        consolidate(Folder(tmp_path), names, GRADIENTS)
    assert content(tmp_path) == before


def test_no_chunks_at_all(tmp_path):
    with pytest.raises(ValueError, match="holds no chunks to make frames of"):
        consolidate(Folder(tmp_path), [], GRADIENTS)


def test_a_folder_behind_an_address(rows, folder):
    there = Folder("memory://consolidated")
    table = rows.slice(0, len(rows))
    there.write("chunks/a.parquet", lambda file: pq.write_table(table, file))
    there.write("manifest.json", lambda file: file.write(b"{}"))
    consolidate(there, ["chunks/a.parquet"], GRADIENTS)
    assert {name: there.read(name) for name in FILES} == {
        name: (folder / name).read_bytes() for name in FILES
    }
    where = {"cell": "gru", "lag": 0}
    found, same = (gl.read(place, where=where) for place in ("memory://consolidated", folder))
    pd.testing.assert_frame_equal(found.steps, same.steps)
    assert frames.to_csv("memory://consolidated")[0] == "memory://consolidated/runs.csv"


TRAINED = {
    "task": "adding",
    "length": 6,
    "cell": "gru",
    "init": "normal",
    "gain": 1.0,
    "hidden": 4,
    "optimizer": "adam",
    "batch": 2,
    "updates": 90,
    "trained": 10,
    "loss": 0.2,
    "error": 0.3,
}


@pytest.fixture(scope="module")
def trained():
    """Records of a training sweep; one run failed and left nothing but its row."""
    rng = np.random.default_rng(0)
    records = []
    for number, (rate, seed) in enumerate(itertools.product((0.1, 0.01), range(4))):
        failed = number == 5
        times = [] if failed else list(range(0, 10 * (number + 1), 10))
        lags = [] if failed else [0, 1, 2, 5]
        norms = rng.standard_normal(len(times) * len(lags))
        norms[:1] = np.nan
        records.append(
            TRAINED
            | {
                "run_id": f"run {number}",
                "learning_rate": rate,
                "seed": seed,
                "status": "failed" if failed else "unsolved",
                "curves": {
                    "training_step": times,
                    "loss": rng.random(len(times)),
                    "error": rng.random(len(times)),
                },
                "steps": {
                    "training_step": np.repeat(np.array(times, int), len(lags)),
                    "step": np.tile(6 - np.array(lags, int), len(times)),
                    "lag": np.tile(np.array(lags, int), len(times)),
                    "log_norm": norms,
                },
            }
        )
    return records


@pytest.fixture(scope="module")
def trained_folder(trained, tmp_path_factory):
    made = tmp_path_factory.mktemp("trained")
    tables = [chunk_table(TRAINING, trained[k::3]) for k in range(3)]
    consolidate(Folder(made), write(made, tables, "training"), TRAINING)
    return made


def test_frames_of_a_training_sweep(trained, trained_folder):
    """Row by row from the records, the slower learning rate first."""
    curves, steps = [], []
    for row in sorted(trained, key=lambda row: (row["learning_rate"], row["seed"])):
        columns = row["curves"].values(), row["steps"].values()
        for rows, into in zip(columns, (curves, steps), strict=True):
            into += [(row["run_id"], *values) for values in zip(*rows, strict=True)]
    found = frames.read(trained_folder)
    for table, listed in ((found.curves, curves), (found.steps, steps)):
        whole = pd.DataFrame(listed, columns=list(table))
        pd.testing.assert_frame_equal(table, whole, check_exact=True)
    assert found.runs["run_id"].tolist() == [f"run {k}" for k in (4, 5, 6, 7, 0, 1, 2, 3)]
    assert frames.read_summary(trained_folder)["failed"].tolist() == [0.25, 0.0]


def test_missing_coordinates_come_last(trained, tmp_path):
    some = {"permuted": [None, True, False, None], "forget_bias": [None, 1.0, 0.0, 0.0]}
    records = [
        trained[k] | {"learning_rate": 0.1, "seed": 0} | {name: v[k] for name, v in some.items()}
        for k in range(4)
    ]
    names = write(tmp_path, [chunk_table(TRAINING, [row]) for row in records], "training")
    consolidate(Folder(tmp_path), names, TRAINING)
    assert frames.read(tmp_path).runs["run_id"].tolist() == [f"run {k}" for k in (2, 1, 3, 0)]


def test_memory_does_not_grow_with_the_rows(tmp_path):
    """Four times the rows, shuffled, in the same process; reading them all shows what growth is."""
    program = f"""
import sys
sys.path.insert(0, {str(ROOT / "experiments")!r})
from pathlib import Path
import memory_store
from gradlab import frames
from gradlab.grid import consolidate
for name, value in dict(WAITING=2**21, BLOCK=2**20, PIECE=2**15, GROUP=2**15).items():
    setattr(consolidate, name, value)
peaks = []
for rows in (150_000, 600_000):
    folder = Path({str(tmp_path)!r}) / str(rows)
    memory_store.make(folder, rows, 64, True)
    memory_store.consolidated(folder)
    peaks.append(memory_store.peak())
frames.read(folder)
print(*peaks, memory_store.peak())
"""
    # What allocators keep for each thread depends on what else the machine does.
    plain = {"MALLOC_ARENA_MAX": "1", "ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=os.environ | plain
    )
    assert done.returncode == 0, done.stderr
    small, large, whole = map(float, done.stdout.split())
    assert large < 1.2 * small
    assert whole - large > 3 * (large - small), "a growth that this test would not see"


CONDITIONS = [
    {"cell": "gru"},
    {"cell": ["gru", "lstm"], "gain": 2},
    {"gain": slice(0.5, 1.5), "length": slice(None, 32)},
    {"seed": slice(3, None)},
    {"forget_bias": None, "activation": [None, "relu"]},
    {"horizon": None},
    {"horizon": [None, 30]},
    {"run_id": "gru-normal-2.0000-gaussian-316-0"},
    {"lag": [0, 31]},
    {"log_norm": None, "status": "nonfinite"},
    {"log_norm": slice(-1.0, 0.0), "input": "gaussian"},
    {"cell": "lstm"},
    {"cell": []},
    {"length": slice(31.5, np.inf)},
    {"lag": slice(-np.inf, 2.5)},
]


def chosen(table, where):
    """The rows by plain Python, value by value."""
    kept = np.ones(len(table), bool)
    for name, wanted in where.items():
        if name not in table:
            continue
        values = [None if pd.isna(value) else value for value in table[name].tolist()]
        if isinstance(wanted, slice):
            low = -np.inf if wanted.start is None else wanted.start
            high = np.inf if wanted.stop is None else wanted.stop
            kept &= [value is not None and low <= value <= high for value in values]
        else:
            wanted = wanted if isinstance(wanted, list) else [wanted]
            kept &= [value in wanted for value in values]
    return table[kept]


@pytest.mark.parametrize("where", CONDITIONS, ids=str)
def test_read_a_part_by_conditions(folder, where):
    whole = frames.read(folder)
    runs = chosen(whole.runs, {name: v for name, v in where.items() if name in GRADIENTS.runs})
    steps = chosen(whole.steps, {name: v for name, v in where.items() if name != "run_id"})
    steps = steps[steps["run_id"].isin(runs["run_id"])]
    found = gl.read(folder, where=where)
    pd.testing.assert_frame_equal(found.runs, runs.reset_index(drop=True))
    pd.testing.assert_frame_equal(found.steps, steps.reset_index(drop=True))


@pytest.mark.parametrize(
    ("wanted", "same"),
    [
        (np.array(2.0), 2.0),
        (pd.Index([0.5, 2.0]), [0.5, 2.0]),
        (iter([0.5, 2.0]), [0.5, 2.0]),
        (pd.array([2.0, None], dtype="Float64"), [2.0, None]),
    ],
)
def test_values_come_in_any_collection(folder, wanted, same):
    found, expected = (gl.read(folder, where={"gain": value}).runs for value in (wanted, same))
    assert len(found) > 0
    pd.testing.assert_frame_equal(found, expected)


def test_read_a_part_of_the_columns(folder):
    whole = frames.read(folder)
    found = gl.read(folder, ["log_norm", "gain", "horizon"])
    pd.testing.assert_frame_equal(found.runs, whole.runs[["run_id", "gain", "horizon"]])
    pd.testing.assert_frame_equal(found.steps, whole.steps[["run_id", "log_norm"]])
    found = gl.read(folder, ["gain"], {"cell": "gru", "lag": 3})
    assert found.runs["gain"].tolist() == whole.runs.query("cell == 'gru'")["gain"].tolist()
    assert list(found.steps) == ["run_id"] and found.steps.empty


def test_conditions_on_a_column_of_two_frames_are_about_runs(trained_folder):
    found = gl.read(trained_folder, where={"loss": 0.2, "training_step": 10, "seed": [0, 1]})
    assert len(found.runs) == 4 and set(found.curves["training_step"]) == {10}
    assert set(found.steps["training_step"]) == {10}
    assert set(found.steps["run_id"]) == set(found.curves["run_id"]) == {"run 1", "run 4"}


def test_only_row_groups_with_chosen_runs_are_read(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "GROUP", 500)
    consolidate(Folder(tmp_path), write(tmp_path, [rows]), GRADIENTS)
    places = []

    class Recorded(io.FileIO):
        def read(self, size=-1):
            start = self.tell()
            content = super().read(size)
            if str(self.name).endswith("steps.parquet"):
                places.append((start, start + len(content)))
            return content

    monkeypatch.setattr(Folder, "open", lambda self, name: Recorded(tmp_path / name))
    found = gl.read(tmp_path, where={"run_id": rows["run_id"][3].as_py()})
    file = pq.read_metadata(tmp_path / "steps.parquet")
    size = (tmp_path / "steps.parquet").stat().st_size
    column = file.schema.names.index("log_norm")

    def is_read(group):
        chunk = file.row_group(group).column(column)
        start, end = chunk.data_page_offset, chunk.data_page_offset + chunk.total_compressed_size
        # The end of the file is read for its footer, whatever else stands there.
        return any(low < end - 8 and start + 8 < high < size for low, high in places)

    norms = [group for group in range(file.num_row_groups) if is_read(group)]
    assert len(found.steps) > 30 and 1 <= len(norms) <= 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"columns": ["gian"]}, "unknown column 'gian'; did you mean 'gain'?"),
        ({"columns": "gain"}, "columns is a list of names, got 'gain'"),
        ({"columns": 5}, "columns is a list of names, got 5"),
        ({"where": [("cell", "==", "gru")]}, "where is a mapping of columns to what is wanted"),
        ({"where": "cell == 'gru'"}, "where is a mapping of columns to what is wanted"),
        ({"where": {"cell": {"a": 1}}}, "where: column 'cell' is str, got {'a': 1}"),
        ({"where": {"celll": "gru"}}, "unknown column in where 'celll'; did you mean 'cell'?"),
        ({"where": {"length": "long"}}, "where: column 'length' is int64, got 'long'"),
        ({"where": {"length": [10, 1.5]}}, "where: column 'length' is int64, got 10, 1.5"),
        ({"where": {"lag": slice("a", 2)}}, "where: column 'lag' is int64, got 'a'"),
        ({"where": {"cell": 3}}, "where: column 'cell' is str, got 3"),
        ({"where": {"lag": slice(0, 9, 3)}}, "where: a range of 'lag' has two ends and no step"),
    ],
)
def test_read_refuses_what_it_does_not_know(folder, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        gl.read(folder, **arguments)


@pytest.mark.parametrize("kind", ["gradients", "something new"])
def test_a_folder_by_a_newer_gradlab(tmp_path, kind):
    (tmp_path / "manifest.json").write_text(json.dumps({"format": 99, "kind": kind}))
    with pytest.raises(ValueError, match=r"was written by a newer gradlab \(format 99, this one"):
        gl.read(tmp_path)


def test_csv_streams_the_same_text(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "GROUP", 500)
    monkeypatch.setattr(frames.reading, "_BATCH", 333)
    consolidate(Folder(tmp_path), write(tmp_path, [rows]), GRADIENTS)
    whole = frames.read(tmp_path)
    for path, table in zip(frames.to_csv(tmp_path), whole[:2], strict=True):
        assert path.read_text() == table.to_csv(index=False, lineterminator="\n")


def test_figures_of_a_folder_are_those_of_its_frames(rows, tmp_path, monkeypatch):
    save = figures.save
    monkeypatch.setattr(figures, "save", lambda fig, stem, _: save(fig, stem, ["png"]))
    for name, value in (("cell", "gru"), ("init", "normal"), ("input", "gaussian")):
        rows = rows.filter(pa.compute.equal(rows[name], value))
    consolidate(Folder(tmp_path), write(tmp_path, [rows]), GRADIENTS)
    drawn = figures.draw(tmp_path, tmp_path / "a")
    again = figures.draw(frames.read(tmp_path), tmp_path / "b")
    assert [path.name for path in drawn] == [path.name for path in again] and len(drawn) == 3
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(drawn, again, strict=True))


def test_figures_of_a_large_folder_say_what_they_leave_out(folder, tmp_path, monkeypatch):
    made = {}
    monkeypatch.setattr(figures, "save", lambda fig, at, _: made.setdefault(at.name, fig) and [])
    shown = []
    for name in ("decay", "phase", "length", "theory", "inputs"):
        monkeypatch.setattr(figures, name, lambda *args, **_: shown.append(args) or Figure())
    monkeypatch.setattr(figures, "RUNS", 70)
    figures.draw(folder, tmp_path)
    notes = {fig.get_suptitle() for fig in made.values()}
    assert notes == {"the first 2 of 5 seeds: 64 of 160 runs"}
    runs, steps = shown[0]
    assert all(args[0] is runs for args in shown)
    assert set(runs["seed"]) == {0, 1} and len(runs) == 64
    longest = runs.query("length == 316 and input == 'gaussian'")
    assert set(steps["run_id"]) == set(longest["run_id"])


def test_figures_of_too_many_points_are_left_out(folder, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(figures, "RUNS", 31)
    assert figures.draw(folder, tmp_path) == []
    assert "one seed has 32 runs, more than 31" in caplog.text
