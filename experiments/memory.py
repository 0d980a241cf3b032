"""The memory that XLA plans for a program, by which runs are sized, against measured peaks.

Each program runs in a process of its own. Measured is by how much the highest resident memory,
from before its arguments are made to its end, is above what was resident then. Planned is what the
compiler sets aside: arguments, temporaries and results.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd

from gradlab import cells, sweeps
from gradlab.grid import Plan
from gradlab.sweeps.cost import peak
from gradlab.sweeps.gradients import cost as gradients
from gradlab.sweeps.training import cost as training

# Width, length and runs, each with a peak that is large enough to be measured.
SHAPE = (128, 1000, 64)
MORE = ((32, 10_000, 16), (512, 1000, 4), (512, 100, 16), (128, 10_000, 16), (512, 10_000, 1))
LEAST = 64e6
COLUMNS = ["weights", "cell", "hidden", "length", "runs", "batch", "planned MB", "measured MB"]
COLUMNS += ["planned / measured"]


def cases() -> list[dict[str, Any]]:
    """What is measured: gradients tied and untied, and the updates of a training."""
    rows = []
    for cell in cells.names():
        shapes = (SHAPE, *MORE) if cell in ("elman", "lstm") else (SHAPE,)
        rows += [_case("tied", cell, *shape, 1) for shape in shapes]
    rows += [_case("untied", cell, 128, 1000, 16, 1) for cell in ("elman", "lstm", "gru")]
    rows += [_case("untied", "lstm", 512, 1000, 4, 1)]
    for cell in ("elman", "lstm", "gru", "lru"):
        rows += [_case("trained", cell, 128, 1000, 2, 16)]
    return [*rows, _case("trained", "lstm", 128, 10_000, 2, 1)]


def _case(weights: str, cell: str, *numbers: int) -> dict[str, Any]:
    names = ("weights", "cell", "hidden", "length", "runs", "batch")
    return dict(zip(names, (weights, cell, *numbers), strict=True))


def run(case: dict[str, Any]) -> Any:
    """The run of a case."""
    # Drawn at every step, orthogonal matrices would take an hour.
    drawn = "normal" if case["weights"] == "untied" else "orthogonal"
    shared = {name: case[name] for name in ("cell", "hidden", "length", "batch")}
    shared |= {"init": drawn, "gain": 1.0}
    if case["weights"] == "trained":
        shared |= {"task": "adding", "learning_rate": 1e-3, "updates": 1, "evaluate_every": 1}
        shared |= {"evaluation": 16}
    else:
        shared |= {"weights": case["weights"]}
    (run,) = Plan(sweeps.parse(shared))
    return run


def measure(case: dict[str, Any]) -> dict[str, int]:
    """Compile the last call of the case's chunk, run it once, and compare."""
    with jax.default_matmul_precision("highest"):
        calls = (training if case["weights"] == "trained" else gradients).calls
        call = calls(run(case), case["runs"])[-1]
        planned = peak([call._replace(extra_bytes=0)])
        compiled = call.function.lower(*call.args).compile()
    jax.block_until_ready(jax.jit(lambda x: x + 1)(1.0))
    before = _peak(reset=True)
    rng = np.random.default_rng(0)
    args = jax.tree.map(lambda x: _filled(rng, x), call.args)
    jax.block_until_ready(compiled(*args))
    return {"planned": planned, "measured": _peak() - before}


def _filled(rng: np.random.Generator, x: Any) -> jax.Array:
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        data = jax.eval_shape(jax.random.key_data, x)
        return jax.random.wrap_key_data(jax.numpy.ones(data.shape, data.dtype))
    small = 1e-2 * rng.standard_normal(x.shape, np.float32)
    return jax.device_put((small if x.dtype.kind in "fc" else np.ones(x.shape)).astype(x.dtype))


def _peak(reset: bool = False) -> int:
    """The process's highest resident memory, from now on where it is reset."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = status.read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def apart(case: dict[str, Any]) -> dict[str, Any]:
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, "--cases", json.dumps([case])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def row(case: dict[str, Any], bytes_by_name: dict[str, Any]) -> list[Any]:
    """One line of the table; what is too small to be measured is left out of it."""
    large = bytes_by_name["measured"] > LEAST
    sizes = [round(bytes_by_name[name] / 1e6, 1) for name in ("planned", "measured")]
    ratio = round(bytes_by_name["planned"] / bytes_by_name["measured"], 2) if large else None
    return [*case.values(), *sizes, ratio]


def main() -> None:
    """Measure every case and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    parser.add_argument("--cases", type=json.loads, help="JSON; measured here, one line for each")
    options = parser.parse_args()
    if options.cases:
        for each in options.cases:
            print(json.dumps(measure(each)))
        return
    rows = []
    for case in cases():
        rows.append(row(case, apart(case)))
        print(*rows[-1], flush=True)
        table = pd.DataFrame(rows, columns=COLUMNS)
        options.out.mkdir(parents=True, exist_ok=True)
        table.to_csv(options.out / "memory.csv", index=False)
        ratio = table[COLUMNS[-1]].astype(float)
        worst = max(ratio.max(), (1 / ratio).max())
        text = (
            f"# memory\n\n{__doc__.split(chr(10), 2)[2].strip()}\n\n"
            f"The worst ratio either way is {worst:.2f}.\n\n{_markdown(table)}\n\n"
            f"{jax.devices()[0].device_kind}, jax {jax.__version__}\n"
        )
        (options.out / "memory.md").write_text(text)


def _markdown(table: pd.DataFrame) -> str:
    cells = [list(table.columns), ["---"] * len(table.columns)]
    cells += [
        ["" if pd.isna(x) else str(x) for x in line] for line in table.itertuples(index=False)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


if __name__ == "__main__":
    main()
