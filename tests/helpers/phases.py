"""A sweep that is killed in each of its phases: `phases.py FOLDER KILLS SEED`, a script of its own.

A child compiles, measures, consolidates and draws, and says which of these it is at. It is killed
(SIGKILL) a moment after it has come to a phase that was drawn. Before each child some chunks are
taken away, so that all phases come again; now and then a child is left alone, and the bytes of its
frames are compared with those of a sweep that was never killed.
"""

import collections
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from fuzzed import FRAMES

import gradlab as gl
from gradlab import figures
from gradlab.grid import run, sizes, store
from gradlab.sweeps.gradients import cost

PHASES = ("compile", "measure", "consolidate", "draw")
# One program: a child spends its time on the phases, not on tracing.
SPEC = {"cell": "elman", "init": "normal", "gain": [0.5, 1.5], "seeds": 9, "length": 20}
SPEC |= {"hidden": 4, "inputs": 2}
# Runs of the sweep; those of a chunk; kills between two comparisons.
RUNS, CHUNK, CHECKED = 18, 3, 20


def sweep(folder: Path, tell: int) -> None:
    """Run the sweep, and write the number of each phase to a pipe."""

    def at(phase: str, function):
        def told(*args, **options):
            os.write(tell, bytes([PHASES.index(phase)]))
            return function(*args, **options)

        return told

    run.try_fit = at("compile", run.try_fit)
    run.compute = at("measure", run.compute)
    store.consolidate.consolidate = at("consolidate", store.consolidate.consolidate)
    figures.draw = at("draw", figures.draw)
    sizes.size_of = lambda *_: CHUNK
    cost.COST = cost.COST._replace(per_chunk=lambda *_: CHUNK)
    gl.sweep(SPEC, folder)


def child(folder: Path) -> tuple[int, int]:
    """The sweep in a process of its own: its id, and where to read its phases."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            sweep(folder, writing)
            os._exit(0)
        except BaseException as error:
            print(type(error).__name__, error, file=sys.stderr)
            os._exit(1)
    os.close(writing)
    return pid, reading


def kill_at(folder: Path, phase: str, delay: float) -> str:
    """Kill a sweep a moment after it has come to a phase; returns the phase it died in, or ""."""
    pid, reading = child(folder)
    last = ""
    while last != phase and (told := os.read(reading, 1)):
        last = PHASES[told[0]]
    time.sleep(delay)
    os.kill(pid, signal.SIGKILL)
    died = os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    while told := os.read(reading, 1):
        last = PHASES[told[0]]
    os.close(reading)
    return last if died else ""


def end(folder: Path) -> bool:
    """Let a sweep end; whether it did."""
    pid, reading = child(folder)
    while os.read(reading, 100):
        pass
    os.close(reading)
    return os.waitpid(pid, 0)[1] == 0


def main(place: Path, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    assert end(place / "alone")
    wanted = [(place / "alone" / name).read_bytes() for name in FRAMES]
    folder, done = place / "killed", collections.Counter()
    tally: collections.Counter[str] = collections.Counter()
    while sum(done.values()) < kills:
        chunks = sorted((folder / "chunks").glob("*.parquet"))
        for path in rng.sample(chunks, len(chunks) // 2):
            path.unlink()
        phase = rng.choice(PHASES)
        # To measure takes milliseconds here.
        longest = 0.01 if phase == "measure" else rng.choice([0.01, 0.1, 0.5])
        phase = kill_at(folder, phase, longest * rng.random())
        done[phase] += bool(phase)
        if sum(done.values()) % CHECKED and sum(done.values()) < kills:
            continue
        tally["tracebacks"] += not end(folder)
        tally["lost"] += RUNS - len(gl.read(folder).runs)
        tally["different"] += wanted != [(folder / name).read_bytes() for name in FRAMES]
        tally["other"] += len([*folder.rglob("*.tmp")])
    print("killed while", dict(done), file=sys.stderr)
    print(json.dumps({"what": "kills", "cases": kills, "tally": tally}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
