"""What recording costs on a GPU: against value_and_grad, PyTorch's cuDNN, and the CPU's float64.

cells: one model of a batch, and replicas of single sequences under vmap. ms is of one call; `us per
step` what recording adds to each step, `kernels` how many instructions XLA's loops over the steps
have, and `planned MB` what XLA sets aside. PyTorch runs its whole-sequence module forwards and
backwards, and replicas one after another.
accuracy: the largest difference of a float32 log_norm on the device from float64 on the CPU.
sweep: the default sweep into an empty folder, as a process of its own.

On a machine without a GPU the same runs at sizes of `--small`, to try the script.
"""

import argparse
import functools
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pandas as pd
from bench import (
    CELLS,
    OF_ONE,
    PLAIN,
    Table,
    batch_loss,
    compiled,
    in_turn,
    normals,
    planned_mb,
    ratio,
    write,
)

import gradlab as gl

ROOT = Path(__file__).resolve().parents[1]
WIDTH, LENGTH, BATCH, REPLICAS = 128, 512, 32, 256
SMALL = {"WIDTH": 16, "LENGTH": 64, "BATCH": 4, "REPLICAS": 8}


def loss_of(cell: gl.cells.Cell) -> Any:
    """The loss of one sequence, (params, xs) -> the sum of the last state."""

    def loss(params: Any, xs: jax.Array) -> jax.Array:
        drives = jax.vmap(lambda x: cell.project(params, x))(xs)
        start = cell.start(xs.dtype)
        last, _ = jax.lax.scan(lambda h, d: (cell.advance(params, h, d), None), start, drives)
        return cell.read(last).sum()

    return loss


def kernels(program: Any) -> int:
    """How many instructions that start a kernel stand in the loops of an executable."""
    text = program.as_text()
    bodies = set(re.findall(r"body=%?([\w.-]+)", text))
    blocks = re.findall(r"^%?([\w.-]+) [^\n]*\{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL)
    starts = re.compile(r"= [^=]*? (fusion|custom-call|dot|copy|reduce|convolution|sort)\(")
    return sum(len(starts.findall(block)) for name, block in blocks if name in bodies)


def cell_tables(rounds_of_torch: Any) -> Iterator[Table]:
    """Each cell as one model and as replicas."""
    rows = []
    for name in CELLS:
        cell = gl.cells.make(name, inputs=WIDTH, hidden=WIDTH)
        one = cell.init(jax.random.key(0))
        many = jax.vmap(cell.init)(jax.random.split(jax.random.key(0), REPLICAS))
        sequences = jnp.asarray(normals(REPLICAS, LENGTH, WIDTH))
        forms = {
            f"one model, batch {BATCH}": (
                batch_loss(cell),
                (one, jnp.swapaxes(sequences[:BATCH], 0, 1)),
                False,
            ),
            f"{REPLICAS} replicas": (loss_of(cell), (many, sequences), True),
        }
        for form, (loss, args, mapped) in forms.items():
            programs = {}
            for way, make in OF_ONE.items():
                call = jax.vmap(make(loss)) if mapped else make(loss)
                programs[way] = compiled(call, *args)
            calls = {way: functools.partial(run, *args) for way, (run, _) in programs.items()}
            if rounds_of_torch is not None:
                models, batch = (REPLICAS, 1) if mapped else (1, BATCH)
                calls["PyTorch"] = rounds_of_torch(name, models, LENGTH, batch, WIDTH)
            times = in_turn(calls)
            for way in calls:
                row = {"cell": name, "form": form, "way": way, "ms": times[way].median()}
                row |= ratio(times[way], times[PLAIN])
                if way in programs:
                    extra = (times[way] - times[PLAIN]).median()
                    row |= {"us per step": 1e3 * extra / LENGTH}
                    row |= {"kernels": kernels(programs[way][0])}
                    row |= {"planned MB": planned_mb(programs[way][0])}
                    row |= {"compile s": programs[way][1]}
                rows.append(row)
    note = (
        f"Width and inputs {WIDTH}, T = {LENGTH}, float32. Ratios are to value_and_grad, medians "
        "with quartiles q1 and q3 of rounds in turn."
    )
    yield Table("gpu", note, rows)


def accuracy_tables() -> Iterator[Table]:
    """log_norm of every cell of gradlab on the device against float64 on the CPU."""
    rows = []
    for name in CELLS:
        for gain in (0.5, 1.0, 2.0):
            cell = gl.cells.make(name, inputs=4, hidden=WIDTH)
            params = cell.init(jax.random.key(0))
            params |= {"recurrent": gain * params["recurrent"]}
            xs = jnp.asarray(normals(LENGTH, 4))
            device = jax.jit(gl.trace(loss_of(cell), argnums=()))(params, xs).scans[0].log_norm
            with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
                wide = jax.tree.map(
                    lambda x: jax.device_put(jax.device_get(x).astype("float64")), (params, xs)
                )
                exact = jax.jit(gl.trace(loss_of(cell), argnums=()))(*wide).scans[0].log_norm
                exact = jax.device_get(exact)
            error = abs(jax.device_get(device) - exact)
            rows.append(
                {"cell": name, "gain": gain, "ln first adjoint": exact[0]}
                | {"largest error": error.max(), "median error": float(pd.Series(error).median())}
            )
    note = (
        f"Nats, one sequence, width {WIDTH}, T = {LENGTH}. At a gain of 2 an Elman network is "
        "chaotic: its float32 orbit is another one, and so are its adjoints."
    )
    yield Table("gpu_accuracy", note, rows)


def sweep_tables(small: bool) -> Iterator[Table]:
    """The default sweep, in a process of its own."""
    spec = ROOT / "experiments" / ("quick.toml" if small else "vanishing.toml")
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for start in ("first", "second"):
            command = [Path(sys.executable).with_name("gradlab"), "sweep", str(spec), "--out"]
            began = time.perf_counter()
            environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": f"{folder}/programs"}
            environment |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
            subprocess.run(
                [*command, f"{folder}/{start}"], check=True, env=environment, capture_output=True
            )
            rows.append({"start": start, "s": time.perf_counter() - began})
    yield Table(
        "gpu_sweep", f"{spec.name} into an empty folder; the second start has programs.", rows
    )


def torch_peer() -> Any:
    """A function that gives a call of PyTorch's module on this device; None without PyTorch."""
    try:
        import torch
        from bench_torch import MODULES
    except ImportError:
        print("PyTorch left out: pip install torch", flush=True)
        return None
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def peer(name: str, models: int, length: int, batch: int, width: int) -> Any:
        modules = [MODULES[name][1](width, width).to(device) for _ in range(models)]
        xs = torch.randn(length, batch, width, device=device)

        def run() -> None:
            for module in modules:
                module.zero_grad()
                module(xs)[0][-1].sum().backward()
            if device == "cuda":
                torch.cuda.synchronize()

        return run

    return peer


def main() -> None:
    """Print the tables and write each as NAME.csv and NAME.md."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="sizes to try the script with")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "bench")
    options = parser.parse_args()
    if jax.default_backend() == "cpu" and not options.small:
        parser.error("there is no GPU here; --small tries the script without one")
    if options.small:
        globals().update(SMALL)
    options.out.mkdir(parents=True, exist_ok=True)
    for tables in (cell_tables(torch_peer()), accuracy_tables(), sweep_tables(options.small)):
        for table in tables:
            write(table, options.out)


if __name__ == "__main__":
    main()
