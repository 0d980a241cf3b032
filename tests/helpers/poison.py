"""A sweep with a run that kills every worker that measures it: `poison.py FOLDER`."""

import json
import sys
from pathlib import Path

import dask

import gradlab as gl
from gradlab.grid import sizes

CODE = """
import os, signal
import gradlab as gl

@gl.sweeps.measurement
def fatal(seed):
    if seed == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"value": 2 * seed}
"""


def main(place: Path) -> None:
    (place / "fatal.py").write_text(CODE)
    # In one chunk with other seeds.
    sizes.Pace.next = lambda _: 4
    spec = {"measurement": "fatal", "seeds": 8}
    # One death is enough: by default a task is tried four times.
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        report = gl.sweep(spec, place / "out", imports=[str(place / "fatal.py")], workers=2)
    runs = report.results.runs
    values = {seed: value for seed, value in zip(runs["seed"], runs["value"], strict=True)}
    print(json.dumps({"values": values, "reasons": [*report.failed.values()]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
