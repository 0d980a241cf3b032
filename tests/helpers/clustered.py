"""A sweep on a real scheduler and workers, one of which is killed: `clustered.py FOLDER`."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import gradlab as gl
from gradlab.grid import cluster, sizes
from gradlab.sweeps.gradients import cost

SPEC = {
    "axes": {"gain": [0.5, 1.0, 2.5], "length": [30, 200], "seeds": 8},
    "fixed": {"cell": "elman", "init": "normal", "hidden": 8, "inputs": 3},
}


def dask(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "dask", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def small_chunks() -> None:
    """Many chunks and no figures: what is tested is what happens between them."""
    from gradlab import figures

    figures.draw = lambda *_, **__: []

    sizes.size_of = lambda *_: 4
    cost.COST = cost.COST._replace(per_chunk=lambda *_: 4)
    plain = cluster.fit_remotely
    cluster.fit_remotely = lambda *what: plain(*what)._replace(size=4, per_chunk=4)


def swept_while(folder: Path, address: str, blow, after: int) -> str:
    """Sweep on the workers, call `blow` when `after` runs are done; returns an error's message."""
    struck = []

    def progress(done: int, total: int, label: str) -> None:
        if done >= after and not struck:
            struck.append(done)
            blow()

    try:
        gl.sweep(SPEC, folder, scheduler=address, progress=progress)
    except OSError as error:
        return str(error)
    return ""


def main(place: Path) -> None:
    cluster.PATIENCE = 1  # for nobody
    small_chunks()
    alone = gl.sweep(SPEC, place / "alone")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    try:
        gl.sweep(SPEC, place / "nobody", scheduler=address)
        nobody = ""
    except ValueError as error:
        nobody = str(error)
    cluster.PATIENCE = 3
    processes = [dask("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")]
    try:
        wait_for(lambda: answers(port))
        for _ in range(2):
            processes.append(
                dask("worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard")
            )
        killed = lambda: os.kill(processes[-1].pid, signal.SIGKILL)  # noqa: E731
        message = swept_while(place / "worker", address, killed, 8)
        assert message == "", message
        without = swept_while(place / "scheduler", address, processes[0].kill, 8)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    kept = gl.sweeps.status(place / "scheduler").done
    later = gl.sweep(SPEC, place / "scheduler")
    frames = ("runs.parquet", "steps.parquet", "summary.csv")
    first, second, third = (gl.read(place / name) for name in ("alone", "worker", "scheduler"))
    print(
        json.dumps(
            {
                "planned": alone.total,
                "runs": len(second.runs),
                "killed_after": 8,
                "equal": [a.equals(b) for a, b in zip(first[:2], second[:2], strict=True)],
                "bytes": [
                    (place / "alone" / name).read_bytes() == (place / "worker" / name).read_bytes()
                    for name in frames
                ],
                "nobody": nobody,
                "without_scheduler": without,
                "kept": kept,
                "computed_after": later.computed,
                "equal_after": [a.equals(b) for a, b in zip(first[:2], third[:2], strict=True)],
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
