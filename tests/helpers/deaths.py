"""A sweep whose workers die again and again: `deaths.py FOLDER DEATHS SEED`, a script of its own.

A measurement of the user's kills its own process, in each run that is drawn for it once. The
frames are compared with those of a sweep in which nobody died.
"""

import json
import random
import sys
from pathlib import Path

from fuzzed import FRAMES

import gradlab as gl

CODE = """
import os, signal
import gradlab as gl

@gl.sweeps.measurement
def mortal(number, seed=0):
    mark = os.path.join(os.environ["MARKS"], f"{number}-{seed}")
    try:
        os.unlink(mark)
    except FileNotFoundError:
        return {"value": number + 0.5 * seed, "steps": {"lag": [0, 1], "log_norm": [0.0, number]}}
    os.kill(os.getpid(), signal.SIGKILL)
"""


def main(place: Path, deaths: int, seed: int) -> None:
    import os

    rng = random.Random(seed)
    marks = place / "marks"
    marks.mkdir(parents=True)
    os.environ["MARKS"] = str(marks)
    (place / "mortal.py").write_text(CODE)
    seeds = max(2, deaths // 4)
    spec = {"measurement": "mortal", "number": [1.0, 2.0, 3.0, 4.0], "seeds": seeds}
    imports = [str(place / "mortal.py")]
    alone = gl.sweep(spec, place / "alone", imports=imports)
    runs = [(number, each) for number in spec["number"] for each in range(seeds)]
    for number, each in rng.sample(runs, min(deaths, len(runs))):
        (marks / f"{number}-{each}").touch()
    died = len([*marks.iterdir()])
    report = gl.sweep(spec, place / "dying", imports=imports, workers=2)
    left = len([*marks.iterdir()])
    bad = sum(a.read_bytes() != b.read_bytes() for a, b in (
        (place / "alone" / name, place / "dying" / name) for name in FRAMES))  # fmt: skip
    tally = {"lost": alone.total - len(gl.read(place / "dying").runs), "different": bad}
    tally["other"] = len(report.failed)
    print(json.dumps({"what": "worker deaths", "cases": died - left, "tally": tally}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
