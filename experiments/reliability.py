"""What survives: kills, odd specs, damaged files, flipped bits, full disks and dying workers.

Every case is drawn from a seed. A case fails where a row is lost or differs, where a mistake ends
in anything but one message of at most 600 characters, or where a spec takes more than 10 s or 1 GB
to be refused or estimated.
"""

import argparse
import collections
import json
import logging
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
HELPERS = ROOT / "tests" / "helpers"
sys.path.insert(0, str(HELPERS))

import faulty  # noqa: E402
import fuzzed  # noqa: E402  (beside the tests, which draw a few of the same cases)

OUT = ROOT / "results" / "bench"
SECONDS, BYTES = 10.0, 10**9  # that a spec may take
CASES = {"specs": 10_000, "files": 5000, "bits": 2000, "disks": 1, "kills": 1000, "workers": 100}
COLUMNS = ["what", "cases", "refused", "rows lost", "rows different", "tracebacks", "other"]
COLUMNS += ["seconds", "seed"]
Row = dict[str, Any]
# Sweeps on a store that fails.
STORES = 50
# Specs that one process is asked about: what it has compiled is its memory too.
TOGETHER = 40


def specs(count: int, seed: int, place: Path) -> list[Row]:
    """Ask for an estimate of random specs, in processes that are watched."""
    rng = random.Random(seed)
    texts = [fuzzed.spec(rng) for _ in range(count)]
    tally: collections.Counter[str] = collections.Counter()
    done = 0
    while done < count:
        results = _ask(texts[done : done + TOGETHER], place)
        for text, result in zip(texts[done:], results, strict=False):
            tally[_kind(result)] += 1
            if _kind(result) not in ("accepted", "refused"):
                print(result, text[:500], flush=True)
        done += len(results)
    return [_row("specs", count, tally)]


def _ask(texts: list[bytes], place: Path) -> list[str]:
    """The outcomes of specs in one forked process, up to the first that it does not survive."""
    reading, writing = os.pipe()
    path = place / "spec.toml"
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 2)
        start = _memory(os.getpid())
        for text in texts:
            path.write_bytes(text)
            begun = time.monotonic()
            outcome = fuzzed.outcome(lambda: fuzzed.load_and_estimate(path))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - start
            seconds = time.monotonic() - begun
            outcome = f"memory: {peak / 1e6:.0f} MB" if peak > BYTES else outcome
            outcome = f"time: {seconds:.1f} s" if seconds > SECONDS else outcome
            os.write(writing, (json.dumps(outcome) + "\n").encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as lines:
        # The watch of a process that does not come back.
        watch = subprocess.Popen(
            [sys.executable, "-c", _WATCH, str(pid), str(TOGETHER * SECONDS), str(6 * BYTES)]
        )
        outcomes = [json.loads(line) for line in lines]
    status = os.waitpid(pid, 0)[1]
    watch.kill()
    watch.wait()
    return outcomes if len(outcomes) == len(texts) else [*outcomes, f"abort: status {status}"]


_WATCH = """
import os, signal, sys, time
pid, end, most = int(sys.argv[1]), time.monotonic() + float(sys.argv[2]), float(sys.argv[3])
while time.monotonic() < end:
    try:
        pages = int(open(f"/proc/{pid}/statm").read().split()[1])
    except (OSError, IndexError):
        sys.exit()
    if pages * 4096 > most:
        break
    time.sleep(0.05)
os.kill(pid, signal.SIGKILL)
"""


def _memory(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def files(count: int, seed: int, place: Path) -> list[Row]:
    """Read tables of reviews, models, checkpoints and manifests that are damaged."""
    kinds = {"reviews": _reviews, "models": _models, "checkpoints": _checkpoints}
    kinds["manifests"] = _manifests
    rows = []
    for name, prepare in kinds.items():
        rng = random.Random(f"{seed} {name}")
        case = prepare(place)
        tally: collections.Counter[str] = collections.Counter()
        for _ in range(count // len(kinds)):
            call, what = case(rng)
            result = fuzzed.outcome(call)
            tally[_kind(result)] += 1
            if _kind(result) not in ("accepted", "refused"):
                print(name, what, result, flush=True)
        rows.append(_row(f"files: {name}", count // len(kinds), tally))
    return rows


Case = Callable[[random.Random], tuple[Callable[[], Any], Any]]


class Different(Exception):
    """Other numbers than those that were written."""


def _reviews(place: Path) -> Case:
    def case(rng: random.Random) -> tuple[Callable[[], Any], Any]:
        path, encoding = fuzzed.reviews(rng, place)
        return lambda: fuzzed.read_reviews(path, encoding), (path.name, encoding[:20])

    return case


def _models(place: Path) -> Case:
    import numpy as np

    from gradlab import sentiment

    recipe = sentiment.quick("gru")._replace(epochs=1)
    texts, labels = ["good fine great", "bad awful poor"] * 6, np.array([True, False] * 6)
    whole = sentiment.train(recipe, texts, labels)
    sentiment.save(whole, place / "model")
    content, prediction = (place / "model").read_bytes(), sentiment.predict(whole, "good film")

    def case(rng: random.Random) -> tuple[Callable[[], Any], Any]:
        how = fuzzed.model(rng, content, place / "other")

        def load() -> None:
            other = sentiment.predict(sentiment.load(place / "other"), "good film")
            if how == "bytes" and other != prediction:
                raise Different(f"{other} instead of {prediction}")
            if not 0 <= other[1] <= 1:
                raise Different(f"a probability of {other[1]}")

        return load, how

    return case


def _checkpoints(place: Path) -> Case:
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    import gradlab as gl

    def loss(params: Any, batch: Any) -> Any:
        return jnp.sum((params["w"] - batch) ** 2)

    def sample(key: Any, *_: Any) -> Any:
        return jax.random.normal(key, (3,))

    def train(path: Path) -> Any:
        start, key = {"w": jnp.ones(3)}, jax.random.key(0)
        run = gl.train(loss, start, sample, optax.adam(0.1), steps=6, key=key, checkpoint=path)
        return np.asarray(run.params["w"])

    weights = train(place / "checkpoint")
    content = (place / "checkpoint").read_bytes()

    def case(rng: random.Random) -> tuple[Callable[[], Any], Any]:
        (place / "copy").write_bytes(fuzzed.damaged(rng, content))

        def resume() -> None:
            if not np.array_equal(train(place / "copy"), weights):
                raise Different("other parameters")

        return resume, "bytes"

    return case


def _swept(place: Path) -> Path:
    import gradlab as gl

    if not (place / "swept").exists():
        gl.sweep(fuzzed.SWEPT, place / "swept")
    return place / "swept"


def _manifests(place: Path) -> Case:
    import gradlab as gl
    from gradlab import report, sweeps

    whole = _swept(place)
    content = (whole / "manifest.json").read_bytes()
    folder = Path(shutil.copytree(whole, place / "copied"))

    def case(rng: random.Random) -> tuple[Callable[[], Any], Any]:
        text = fuzzed.manifest(rng, content)
        (folder / "manifest.json").write_bytes(text)
        read = rng.choice([gl.read, sweeps.status, report.write, lambda it: sweeps.estimate(
            fuzzed.SWEPT, it)])  # fmt: skip

        def look() -> None:
            answer = read(folder)
            if isinstance(answer, sweeps.Status) and min(answer.done, answer.missing) < 0:
                raise Different(answer.headline)

        return look, (read, text[:200])

    return case


def bits(count: int, seed: int, place: Path) -> list[Row]:
    """Flip one bit of a file of results and read it: an error, or the same numbers."""
    import gradlab as gl
    from gradlab import frames

    rng = random.Random(seed)
    whole = _swept(place)
    folder = Path(shutil.copytree(whole, place / "flipped"))
    readers: dict[str, Callable[[], Any]] = {
        "runs.parquet": lambda: gl.read(folder).runs,
        "steps.parquet": lambda: gl.read(folder).steps,
        "summary.csv": lambda: frames.read_summary(folder),
        "manifest.json": lambda: gl.read(folder).runs,
    }
    originals = {name: read() for name, read in readers.items()}
    tally: collections.Counter[str] = collections.Counter()
    for _ in range(count):
        name = rng.choice([*readers])
        content = bytearray((whole / name).read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        (folder / name).write_bytes(content)

        def read(name: str = name) -> None:
            pd.testing.assert_frame_equal(readers[name](), originals[name], check_exact=True)

        result = fuzzed.outcome(read)
        tally["different" if "AssertionError" in result else _kind(result)] += 1
        shutil.copy(whole / name, folder / name)
    return [_row("bit flips", count, tally)]


def disks(count: int, seed: int, place: Path) -> list[Row]:
    """Let every write, fsync and rename of a sweep fail, and the power go; it goes on after."""
    from gradlab import figures

    figures.draw, plain = fuzzed.draw_a_dot, figures.draw
    rows = []
    for kind in ("write", "fsync", "rename"):
        counts = fuzzed.fail_everywhere(kind, Path(tempfile.mkdtemp(dir=place)))
        tally = collections.Counter(
            {"different": counts["different"], "other": counts["unclear"] + counts["left"]}
        )
        tally["refused"] = counts["cases"] - counts["unclear"]
        rows.append(_row(f"each {kind} fails", counts["cases"], tally))
    counts = fuzzed.lose_power(Path(tempfile.mkdtemp(dir=place)))
    rows.append(_row("power lost at each fsync", counts["cases"], collections.Counter(counts)))
    faults = sum(
        (faulty.sweep_in_spite(seed + i, place / f"faulty-{i}") for i in range(STORES)),
        collections.Counter(),
    )
    faults["other"] = faults["unclear"] + faults["left"]
    rows.append(_row("stores that fail and lag", faults["cases"], faults))
    figures.draw = plain
    return rows


def kills(count: int, seed: int, place: Path) -> list[Row]:
    """Kill a sweep in each of its phases, and compare with one that was left alone."""
    return _script("phases.py", place / "phases", count, seed)


def workers(count: int, seed: int, place: Path) -> list[Row]:
    """Kill the workers of a sweep, one after the other."""
    return _script("deaths.py", place / "deaths", count, seed)


def _script(name: str, *arguments: Any) -> list[Row]:
    """What a script of the helpers counts, one row for each line of JSON that it prints."""
    done = subprocess.run(
        [sys.executable, str(HELPERS / name), *map(str, arguments)], stdout=subprocess.PIPE,
        stderr=sys.stderr, text=True, check=True,
    )  # fmt: skip
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return [_row(row["what"], row["cases"], collections.Counter(row["tally"])) for row in rows]


def _kind(result: str) -> str:
    """The column that an outcome counts in."""
    if result in ("accepted", "refused"):
        return result
    if result.startswith("traceback Different"):
        return "different"
    return "tracebacks" if result.startswith("traceback") else "other"


def _row(what: str, cases: int, tally: collections.Counter[str]) -> Row:
    names = {"rows lost": "lost", "rows different": "different"}
    counted = {column: tally[names.get(column, column)] for column in COLUMNS[2:7]}
    return {"what": what, "cases": cases, **counted}


def write(rows: list[Row]) -> None:
    """Add the rows to results/bench/reliability.csv, and make the page of it."""
    path = OUT / "reliability.csv"
    table = pd.DataFrame(rows, columns=COLUMNS)
    if path.exists():
        before = pd.read_csv(path)
        table = pd.concat([before[~before["what"].isin(table["what"])], table])
    table = table.sort_values("what", ignore_index=True)
    table.to_csv(path, index=False, lineterminator="\n")
    assert __doc__ is not None
    lines = ["# reliability", "", *__doc__.strip().splitlines()[2:], ""]
    lines += [
        '`make test-long` draws them again. "Other" are messages that are too long or say too '
        "little, files left behind, and limits of time and memory.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "| " + " | ".join(["---"] * len(COLUMNS)) + " |",
        *("| " + " | ".join(map(str, row)) + " |" for row in table.itertuples(index=False)),
    ]
    (OUT / "reliability.md").write_text("\n".join(lines) + "\n")


PARTS = {"specs": specs, "files": files, "bits": bits, "disks": disks, "kills": kills}
PARTS["workers"] = workers


def main() -> None:
    """Run some parts, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=[*PARTS], help=f"of {', '.join(PARTS)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of the usual number of cases")
    options = parser.parse_args()
    # Before anything of JAX: a child of this process may ask for an estimate first.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    import gradlab.sweeps  # noqa: F401  (once for all children)

    bad = 0
    for name in options.parts:
        count = max(1, round(CASES[name] * options.share))
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as place:
            try:
                rows = PARTS[name](count, options.seed, Path(place))
            except Exception:
                traceback.print_exc()
                bad += 1
                continue
        seconds = round(time.monotonic() - start)
        rows = [row | {"seconds": seconds, "seed": options.seed} for row in rows]
        for row in rows:
            print(row, flush=True)
            bad += sum(row[column] for column in COLUMNS[3:7])
        write(rows)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
