"""Memory and time of a folder of 10^8 step rows: consolidated, read in part, exported and drawn.

The chunks are made up: a drift per cell, initialization and gain plus noise, in float32 as measured
norms are, over cells x initializations x gains x inputs x lengths with as many seeds as it takes.
Each task runs in a process of its own, whose peak is its VmHWM, imports and all. Writes store.csv
and store.md.
"""

import argparse
import hashlib
import io
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from gradlab import frames
from gradlab._files import Folder

CELLS = ("elman", "gru", "lstm")
INITS = ("glorot", "identity", "normal", "orthogonal")
INPUTS = ("gaussian", "reviews")
LENGTHS = (316, 1000)
GAINS = tuple(np.linspace(0.5, 2.0, 13).tolist())
SHIFT = dict(zip(INITS, (-0.08, 0.04, -0.05, 0.0), strict=True))
KEPT = {n: (frames.lags(n), 0.1 * np.sqrt(np.diff(frames.lags(n), prepend=0))) for n in LENGTHS}
NOISE = np.random.default_rng(0).standard_normal(2**20)
SCHEMA = frames.arrow_schema(frames.RUNS)
BOUND = 1000  # MB


def make(folder: Path, rows: int, size: int, shuffled: bool) -> int:
    """Write chunks of `size` runs with about `rows` rows of steps, and a manifest; runs made.

    The runs of a chunk share a program, or are any where the chunks are shuffled.
    """
    groups = list(itertools.product(CELLS, INITS, INPUTS, LENGTHS))
    per_run = sum(len(frames.lags(length)) for length in LENGTHS) / len(LENGTHS)
    seeds = max(1, round(rows / (len(groups) * len(GAINS) * per_run)))
    each = len(GAINS) * seeds
    (folder / "chunks").mkdir(parents=True)
    order = np.arange(each * len(groups))
    if shuffled:
        np.random.default_rng(0).shuffle(order)
        cuts = [order[k : k + size] for k in range(0, len(order), size)]
    else:
        starts = range(0, len(order), each)
        cuts = [
            order[k : min(k + size, s + each)] for s in starts for k in range(s, s + each, size)
        ]
    for number, cut in enumerate(cuts):
        sink = io.BytesIO()
        pq.write_table(chunk(cut, groups, seeds), sink, compression="zstd")
        digest = hashlib.sha256(sink.getvalue()).hexdigest()[:16]
        name = f"chunks/{number * 0x9E3779B97F4A7C15 % 2**64:016x}-{digest}.parquet"
        (folder / name).write_bytes(sink.getvalue())
    (folder / "manifest.json").write_text('{"kind": "gradients"}')
    return len(order)


def chunk(places: np.ndarray, groups: list[Any], seeds: int) -> pa.Table:
    """The rows of some runs, which follow from their places in the grid alone."""
    rest, seed = np.divmod(places, seeds)
    group, gain = np.divmod(rest, len(GAINS))
    gain = np.array(GAINS)[gain]
    cell, init, source = (np.array([names[k] for names in groups])[group] for k in range(3))
    length = np.array([names[3] for names in groups])[group]
    name = places.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    # Each run reads the noise from a place of its own.
    offset = (name % np.uint64(len(NOISE) - 1000)).astype(np.int64)
    slope = 0.3 + 0.1 * (cell == "gru") + 0.2 * (cell == "lstm")
    predicted = slope * np.log(gain) + np.array([SHIFT[one] for one in init.tolist()])
    rate = predicted + 0.006 * NOISE[offset]
    lags, norms = [], []
    for one, start, per_lag in zip(length.tolist(), offset.tolist(), rate.tolist(), strict=True):
        lag, root = KEPT[one]
        noise = np.cumsum(root * NOISE[start : start + len(lag)])
        norms.append((per_lag * lag + noise).astype(np.float32).astype(np.float64))
        lags.append(lag)
    gained = np.array([norm[-1] - norm[0] for norm in norms])
    columns: dict[str, Any] = {
        "run_id": [f"{one:016x}" for one in name.tolist()],
        "cell": cell,
        "activation": pa.array(np.where(cell == "elman", "tanh", ""), mask=cell != "elman"),
        "init": init,
        "gain": gain,
        "weights": ["tied"] * len(places),
        "forget_bias": pa.array(np.ones(len(places)), mask=cell != "lstm"),
        "input": source,
        "input_scale": np.full(len(places), 0.3),
        "bias_scale": np.zeros(len(places)),
        "length": length,
        "hidden": np.full(len(places), 128),
        "inputs": np.full(len(places), 32),
        "batch": np.ones(len(places), int),
        "seed": seed,
        "precision": ["float32"] * len(places),
        "status": ["ok"] * len(places),
        "verdict": np.where(gained < -16, "vanishing", "stable"),
        "rate": rate,
        "rate_stderr": np.full(len(places), 0.003),
        "theory": np.where(source == "gaussian", "mean field", "none: the input is text"),
        "predicted_rate": pa.array(predicted, mask=source != "gaussian"),
        "log_gain": gained,
        "spectral_radius": gain * (1 + 0.01 * NOISE[offset + 1]),
        "device": ["cpu: cpu"] * len(places),
    }
    table = frames.fit(pa.table(columns), SCHEMA, "runs")
    steps = [t - lag for t, lag in zip(length, lags, strict=True)]
    for column, values in (("step", steps), ("lag", lags), ("log_norm", norms)):
        ends = np.cumsum([0, *map(len, values)]).astype(np.int32)
        flat = pa.array(np.concatenate(values))
        table = table.append_column(
            f"steps.{column}", pa.ListArray.from_arrays(pa.array(ends), flat)
        )
    return table


def consolidated(folder: Path) -> str:
    """Make the frames of the folder."""
    from gradlab.grid.consolidate import consolidate

    names = [f"chunks/{path.name}" for path in (folder / "chunks").iterdir()]
    _, counts = consolidate(Folder(folder), names, frames.GRADIENTS)
    runs = sum(counts["status"].values())
    rows = pq.read_metadata(folder / "steps.parquet").num_rows
    return f"{runs:,} runs, {rows:,} step rows"


def part(folder: Path) -> str:
    """Read the norms of one initialization of one cell at one gain."""
    where = {"cell": "gru", "init": "orthogonal", "gain": 1.0, "length": 1000, "input": "gaussian"}
    results = frames.read(folder, ["seed", "lag", "log_norm"], where)
    return f"{len(results.runs):,} runs, {len(results.steps):,} step rows"


def end(folder: Path) -> str:
    """Read the first and the last lag of the runs of two cells."""
    where = {"cell": ["gru", "lstm"], "lag": [0, 999]}
    results = frames.read(folder, ["cell", "gain", "lag", "log_norm"], where)
    return f"{len(results.runs):,} runs, {len(results.steps):,} step rows"


def exported(folder: Path) -> str:
    """Write the frames as CSV."""
    size = sum(Path(path).stat().st_size for path in frames.to_csv(folder))
    return f"{size / 1e9:.1f} GB"


def drawn(folder: Path) -> str:
    """Draw every figure."""
    from gradlab import figures

    return f"{len(figures.draw(folder, folder / 'figures'))} files"


TASKS = {
    "consolidate": consolidated,
    "read one point": part,
    "read two lags of two cells": end,
    "csv": exported,
    "figures": drawn,
}


def peak() -> float:
    """The most memory that this process has held, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def measure(task: str, folder: Path) -> dict[str, Any]:
    """Run a task in a process of its own."""
    command = [sys.executable, __file__, "--task", task, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return {"task": task, **json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    """Measure, or do one task and print what it took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=10**8)
    parser.add_argument("--chunk", type=int, default=256, help="runs in a chunk")
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=list(TASKS))
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    parser.add_argument("--task", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.task:
        start = time.perf_counter()
        what = TASKS[args.task](args.folder)
        seconds = time.perf_counter() - start
        took = {"seconds": round(seconds, 1), "cpu_seconds": round(time.process_time(), 1)}
        print(json.dumps({"what": what, **took, "peak_mb": round(peak())}))
        return
    records = []
    for order in ("in order", "shuffled"):
        with tempfile.TemporaryDirectory() as folder:
            results = Path(folder) / "results"
            make(results, args.rows, args.chunk, order == "shuffled")
            # The frames are the same for both, so one of them is read.
            for task in args.tasks if order == "in order" else args.tasks[:1]:
                records.append({"chunks": order, **measure(task, results)})
                print(records[-1], flush=True)
    write(args, records)


def write(args: argparse.Namespace, records: list[dict[str, Any]]) -> None:
    """store.csv and store.md."""
    table = pd.DataFrame(records).assign(bound_mb=BOUND)
    table.to_csv(args.out / "store.csv", index=False, lineterminator="\n")
    lines = [
        f"A folder of {args.rows:,} step rows in chunks of {args.chunk} runs, in order as a "
        "sweep leaves them, and shuffled, so that each holds runs from all over the grid. Peak is "
        "the most memory that the process held, its imports included; the seconds of the processor "
        "do not count what else the machine did.",
        "",
        "| chunks | task | what | seconds | of the processor | peak (MB) |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| {row['chunks']} | {row['task']} | {row['what']} | {row['seconds']:.0f} "
            f"| {row['cpu_seconds']:.0f} | {row['peak_mb']} |"
            for row in records
        ),
    ]
    (args.out / "store.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
