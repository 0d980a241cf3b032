"""How near the sweep's program comes to this machine's matrix products, and to PyTorch's loop.

Every core is a device here, as in `gradlab sweep`, so this runs in a process of its own. Calls that
are compared run in turn, and every ratio is a median over the rounds. Time is wall time; "by CPU"
is the same ratio of processor time, which other programs on the machine hardly disturb.
"""

import argparse
import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bench
import jax
import numpy as np
import pandas as pd

from gradlab import cells, sweeps
from gradlab.grid import Plan, keep_memory, sizes, use_cores
from gradlab.sweeps.gradients import MEASUREMENT, curves

INPUTS, LENGTH, ROUNDS, SQUARE = 3, 100, 5, 1024
WIDTHS, BATCH, REPLICAS = (64, 128, 256), 128, 128
PEER_WIDTH, PEER_LENGTHS, PEER_RUNS = 128, (100, 1000), 32
HEAD = ("what", "cell", "width", "T", "batch", "runs")


def runs(name: str, hidden: int, length: int, batch: int, count: int) -> list[Any]:
    """Runs that differ in their seed."""
    base = dict(
        cell=name, init="normal", gain=1.0, input_scale=0.3, length=length, hidden=hidden,
        inputs=INPUTS, batch=batch, seeds=count,
    )  # fmt: skip
    return list(Plan(sweeps.parse(base)))


def in_turn(calls: dict[str, Callable[[], Any]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Wall and processor time in s, a column per call and a row per round, the first left out."""
    walls, cpus = [], []
    for number in range(ROUNDS + 1):
        wall, cpu = {}, {}
        for name in reversed(calls) if number % 2 else calls:
            start = time.perf_counter(), time.process_time()
            jax.block_until_ready(calls[name]())
            wall[name] = time.perf_counter() - start[0]
            cpu[name] = time.process_time() - start[1]
        walls.append(wall)
        cpus.append(cpu)
    return pd.DataFrame(walls[1:]), pd.DataFrame(cpus[1:])


def products() -> tuple[Callable[[], Any], float]:
    """A square product on every device at once, and its arithmetic in all."""
    count = jax.local_device_count()
    mesh = jax.make_mesh((count,), ("runs",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("runs")
    place = jax.sharding.NamedSharding(mesh, spec)
    squares = jax.device_put(np.ones((count, SQUARE, SQUARE), np.float32), place)
    multiply = jax.jit(
        jax.shard_map(lambda a: (a[0] @ a[0])[None], mesh=mesh, in_specs=spec, out_specs=spec)
    )
    return lambda: multiply(squares), count * 2.0 * SQUARE**3


def arithmetic(row: Any) -> float:
    """What the forward products and the recurrent one backward need."""
    gates = len(cells.make(row.cell, inputs=INPUTS, hidden=row.hidden).gates)
    per_step = 2 * row.hidden + INPUTS
    return 2.0 * row.length * row.batch * row.hidden * gates * per_step


def chunked(group: list[Any]) -> Callable[[], Any]:
    """What a sweep does with a group, store and frames apart."""
    size = sizes.size_of(MEASUREMENT, group[0], len(group), sizes.budget())
    return lambda: curves.curves(group, size=size)


def fractions(names: list[str], widths: list[int]) -> Iterator[dict[str, Any]]:
    """Useful arithmetic per second over sgemm's."""
    square, square_work = products()
    for batch, count in ((BATCH, jax.local_device_count()), (1, REPLICAS)):
        for width in widths:
            for name in names:
                group = runs(name, width, LENGTH, batch, count)
                work = count * arithmetic(group[0])
                wall, cpu = in_turn({"sgemm": square, "sweep": chunked(group)})
                ratio = bench.ratio(wall["sgemm"] / square_work, wall["sweep"] / work, "fraction")
                used = (cpu["sgemm"] / square_work) / (cpu["sweep"] / work)
                yield (
                    dict(zip(HEAD, ("sgemm", name, width, LENGTH, batch, count), strict=True))
                    | {"ms per run": 1e3 * wall["sweep"].median() / count}
                    | {"sgemm GFLOP/s": square_work / wall["sgemm"].median() / 1e9}
                    | ratio
                    | {"by CPU": used.median()}
                )


def peers(names: list[str]) -> Iterator[dict[str, Any]]:
    """How many times PyTorch's loop takes per run."""
    import bench_torch

    for length in PEER_LENGTHS:
        for name in names:
            group = runs(name, PEER_WIDTH, length, 1, PEER_RUNS)
            cores = jax.local_device_count()
            loop = bench_torch.peers(name, length, 1, INPUTS, PEER_WIDTH, cores)["loop"]
            wall, cpu = in_turn({"PyTorch": loop, "sweep": chunked(group)})
            yield (
                dict(zip(HEAD, ("PyTorch", name, PEER_WIDTH, length, 1, PEER_RUNS), strict=True))
                | {"ms per run": 1e3 * wall["sweep"].median() / PEER_RUNS}
                | {"PyTorch ms": 1e3 * wall["PyTorch"].median()}
                | bench.ratio(wall["PyTorch"], wall["sweep"] / PEER_RUNS, "times faster")
                | {"by CPU": (cpu["PyTorch"] / cpu["sweep"] * PEER_RUNS).median()}
            )


def main() -> None:
    """Write sweep.csv and sweep.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    parser.add_argument("--cells", nargs="*", default=list(bench.CELLS))
    parser.add_argument("--widths", nargs="*", type=int, default=list(WIDTHS))
    parser.add_argument("--old", type=Path, help="sweep.csv of another commit, of this machine")
    args = parser.parse_args()
    old = {}
    if args.old:
        table = pd.read_csv(args.old).set_index(list(HEAD))["ms per run"]
        old = table.to_dict()
    use_cores()
    keep_memory()
    load = os.getloadavg()[0]
    note = (
        f"float32, {INPUTS} inputs, {jax.local_device_count()} devices, one for each core. "
        "fraction: arithmetic of the matrix products that the gradient needs, 2 B H (H + I) G "
        "forward and 2 B H H G backward a step, per second, over that of a product of "
        f"{SQUARE} by {SQUARE} on every device at once. times faster: the loop of one run in "
        f"PyTorch with retain_grad() over the time per run here. Medians of {ROUNDS} rounds in "
        f"turn. by CPU: the same of processor time. Load before: {load:.2f}."
    )
    args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    try:
        for row in itertools.chain(fractions(args.cells, args.widths), peers(args.cells)):
            if args.old:
                row["old ms per run"] = old.get(tuple(row[name] for name in HEAD), np.nan)
                row["times the old"] = row["old ms per run"] / row["ms per run"]
            rows.append(row)
            print({name: x for name, x in row.items() if name not in ("q1", "q3")}, flush=True)
            frame = pd.DataFrame(rows)
            page = f"# sweep\n\n{note}\n\n{bench.markdown(frame)}\n\n{bench.machine()}\n"
            frame.to_csv(args.out / "sweep.csv", index=False)
            (args.out / "sweep.md").write_text(page)
    except ImportError:
        print("PyTorch left out: pip install torch==2.13.0", flush=True)


if __name__ == "__main__":
    main()
