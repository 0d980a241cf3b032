"""What a first and a second start of a sweep compile, and where their time goes.

Each start is a process of its own and measures the same grid into a folder of its own. The two
share what JAX compiled and what sweeps remember of this machine, which the first one finds empty.
"""

import argparse
import collections
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import bench
import jax
import pandas as pd

import gradlab as gl
from gradlab import figures
from gradlab.grid import keep_memory, run, use_cores
from gradlab.grid.store import Store

STARTS = ("first", "second")
PARTS = {"measured": (run, "compute"), "figures": (figures, "draw")}
PARTS |= {"store": (Store, "add"), "manifest": (Store, "write_manifest")}
PARTS |= {"frames": (Store, "consolidate")}


def child(spec: Path, out: Path) -> None:
    """Sweep, and print what was compiled and how long each part took."""
    use_cores()
    keep_memory()
    seconds: collections.Counter[str] = collections.Counter()
    for name, (owner, function) in PARTS.items():
        setattr(owner, function, timed(getattr(owner, function), seconds, name))
    names, missed = [""], collections.Counter()

    class Names(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("Compiling "):
                names.append(record.getMessage().split()[1])

    def event(name: str, **_: Any) -> None:
        if name.endswith("/cache_misses"):
            missed["programs" if "local" in names[-1] else "others"] += 1
        elif name.endswith("/cache_hits"):
            missed["loaded"] += 1

    logger = logging.getLogger("jax._src.interpreters.pxla")
    logger.addHandler(Names())
    logger.propagate = False
    jax.config.update("jax_log_compiles", True)
    jax.monitoring.register_event_listener(event)
    report = gl.sweep(spec, out)
    files = sum(path.stat().st_size for path in out.rglob("*.parquet"))
    print(json.dumps({"runs": report.computed, "seconds": report.seconds, "bytes": files}
                     | {"parts": seconds, "compiled": missed}))  # fmt: skip


def timed(function: Any, seconds: collections.Counter[str], name: str) -> Any:
    """The same function, its time added up under a name."""

    def wrapped(*args: Any, **options: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **options)
        finally:
            seconds[name] += time.perf_counter() - start

    return wrapped


def start(spec: Path, folder: Path, which: str) -> dict[str, Any]:
    """One row of the table."""
    words = [sys.executable, __file__, str(spec), "--child", str(folder / which)]
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stderr)
    found = json.loads(done.stdout.splitlines()[-1])
    parts, total = found["parts"], found["seconds"]
    kept = parts["store"] + parts["manifest"] + parts["frames"]
    return {
        "start": which,
        "runs": found["runs"],
        "tracing programs compiled": found["compiled"].get("programs", 0),
        "others compiled": found["compiled"].get("others", 0),
        "loaded": found["compiled"].get("loaded", 0),
        "s in all": total,
        "s measuring": parts["measured"],
        "s store": parts["store"] + parts["manifest"],
        "s frames": parts["frames"],
        "s figures": parts["figures"],
        "store and frames, %": 100 * kept / total,
        "the same without figures, %": 100 * kept / (total - parts["figures"]),
        "parquet MB": found["bytes"] / 1e6,
    }


def main() -> None:
    """Write starts.csv and starts.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("spec", type=Path, nargs="?", default=Path("experiments/vanishing.toml"))
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(asked.spec, asked.child)
        return
    planned = gl.sweeps.estimate(asked.spec).programs
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        frame = pd.DataFrame([start(asked.spec, Path(folder), which) for which in STARTS])
    note = (
        f"{asked.spec.name}: {planned} programs, one for each cell and shape. Others compiled: "
        f"what draws and audits. Load before: {load:.2f}."
    )
    asked.out.mkdir(parents=True, exist_ok=True)
    frame.to_csv(asked.out / "starts.csv", index=False)
    page = f"# starts\n\n{note}\n\n{bench.markdown(frame)}\n\n{bench.machine()}\n"
    (asked.out / "starts.md").write_text(page)
    print(page)


if __name__ == "__main__":
    main()
