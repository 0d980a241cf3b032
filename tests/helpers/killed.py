"""A sweep that is killed again and again: `killed.py FOLDER KILLS SEED`, a script of its own.

A child process runs the sweep and is killed (SIGKILL) at a random moment; the next one goes on,
until KILLS have died and one has ended. The frames are compared with those of a sweep that was left
alone, and the log of the chunks begun with what the kills can account for.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import gradlab as gl
from gradlab import figures
from gradlab.grid import run, sizes
from gradlab.grid.store import decode
from gradlab.sweeps.gradients import cost

SPEC = {
    "axes": {"gain": [0.5, 1.0, 2.5], "seeds": 8},
    "zip": [{"init": ["normal", "orthogonal"], "length": [30, 200]}],
    "fixed": {"cell": "elman", "hidden": 8, "inputs": 3},
}
CHUNK = 4
ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT


def sweep(folder: Path, log: Path) -> None:
    """Run the sweep in chunks of CHUNK runs, and log each as it begins."""
    figures.draw = lambda *_, **__: []
    plain = run.compute

    def logged(chunk, tell):
        with log.open("a") as file:
            file.write(json.dumps([r.run_id for r in chunk.runs]) + "\n")
        return plain(chunk, tell)

    run.compute = logged
    sizes.size_of = lambda *_: CHUNK
    cost.COST = cost.COST._replace(per_chunk=lambda *_: CHUNK)
    gl.sweep(SPEC, folder)


def child(folder: Path, log: Path) -> int:
    """Run the sweep in a process of its own; returns its id."""
    pid = os.fork()
    if pid == 0:
        try:
            sweep(folder, log)
            os._exit(0)
        except BaseException as error:
            print(type(error).__name__, error, file=sys.stderr)
            os._exit(1)
    return pid


def begun(log: Path) -> list[list[str]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def main(place: Path, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    start = time.monotonic()
    assert os.waitpid(child(place / "alone", place / "alone.log"), 0)[1] == 0
    # Without what took to compile, which the others read back.
    usual = 0.7 * (time.monotonic() - start)
    killed, repeats_allowed, log = 0, [], place / "killed.log"
    while True:
        before = len(begun(log))
        start = time.monotonic()
        pid = child(place / "killed", log)
        if killed < kills:
            end = start + usual * rng.uniform(0.1, 1.0)
            while time.monotonic() < end and not os.waitid(os.P_PID, pid, ENDED):
                time.sleep(0.01)
            os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        chunks = begun(log)[before:]
        if os.WIFSIGNALED(status):
            killed += 1
            repeats_allowed += chunks[-1:]  # what was in flight
        else:
            assert status == 0, f"the sweep failed after {killed} kills"
            if killed >= kills:
                break
            # It had ended before the blow, as programs are compiled already: half of it again.
            usual = time.monotonic() - start
            for path in sorted((place / "killed" / "chunks").glob("*"))[::2]:
                for name in decode(path).run_ids:
                    repeats_allowed.append([name])
                path.unlink()
    counts: dict[str, int] = {}
    for name in (name for chunk in begun(log) for name in chunk):
        counts[name] = counts.get(name, 0) + 1
    allowed: dict[str, int] = {}
    for name in (name for chunk in repeats_allowed for name in chunk):
        allowed[name] = allowed.get(name, 0) + 1
    alone, after = gl.read(place / "alone"), gl.read(place / "killed")
    print(
        json.dumps(
            {
                "kills": killed,
                "runs": len(alone.runs),
                "begun": sum(counts.values()),
                "unaccounted": sum(n > 1 + allowed.get(name, 0) for name, n in counts.items()),
                "equal": [
                    bool(left.equals(right))
                    for left, right in zip(alone[:2], after[:2], strict=True)
                ],
                "bytes": [
                    (place / "alone" / name).read_bytes() == (place / "killed" / name).read_bytes()
                    for name in ("runs.parquet", "steps.parquet", "summary.csv")
                ],
                "left": sorted(p.name for p in (place / "killed").rglob("*.tmp")),
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
