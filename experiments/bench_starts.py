"""What a first and a second start of a sweep compile, and where their time goes.

Each start is a process of its own and measures the same grid into a folder of its own. The two
share what JAX compiled and what sweeps remember of this machine, which the first one finds empty.
With --old FOLDER, the tree of another commit (`git worktree add FOLDER COMMIT`), its starts are
measured in turn with those of this tree.
"""

import argparse
import collections
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import pandas as pd

import gradlab as gl

STARTS = ("first", "second")


def parts() -> dict[str, Any]:
    """What is timed of a sweep: its owner and its name. Trees of before gradlab.grid have none."""
    from gradlab import figures
    from gradlab.grid import run
    from gradlab.grid.store import Store

    return {
        "measured": (run, "compute"),
        "figures": (figures, "draw"),
        "store": (Store, "add"),
        "manifest": (Store, "write_manifest"),
        "frames": (Store, "consolidate"),
    }


def child(spec: Path, out: Path) -> None:
    """Sweep, and print what was compiled and how long each part took."""
    seconds: collections.Counter[str] = collections.Counter()
    try:
        from gradlab.grid import keep_memory, use_cores
    except ImportError:
        from gradlab.sweeps import keep_memory, use_cores  # pyright: ignore[reportAttributeAccessIssue]
    else:
        for name, (owner, function) in parts().items():
            setattr(owner, function, timed(getattr(owner, function), seconds, name))
    use_cores()
    keep_memory()
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
    begun = time.perf_counter()
    report = gl.sweep(spec, out)
    total = time.perf_counter() - begun
    files = sum(path.stat().st_size for path in out.rglob("*.parquet"))
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps({"runs": report.computed, "seconds": total, "bytes": files}
                     | {"cpu": sum(each.ru_utime + each.ru_stime for each in used)}
                     | {"peak": used[0].ru_maxrss / 1e3}
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


def start(spec: Path, folder: Path, which: str, tree: Path) -> dict[str, Any]:
    """One row of the table: a start of the gradlab that stands in a tree."""
    words = [sys.executable, __file__, str(spec.resolve()), "--child", str(folder / which)]
    environment = os.environ | {
        "XDG_CACHE_HOME": str(folder / "cache"),
        "PYTHONPATH": os.pathsep.join([str(tree), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=tree)
    if done.returncode:
        sys.exit(done.stderr)
    report = json.loads(done.stdout.splitlines()[-1])
    timed_parts, total = report["parts"], report["seconds"]
    row = {
        "commit": commit_of(tree),
        "start": which,
        "runs": report["runs"],
        "s in all": total,
        "CPU s": report["cpu"],
        "peak MB": report["peak"],
        "tracing programs compiled": report["compiled"].get("programs", 0),
        "others compiled": report["compiled"].get("others", 0),
        "loaded": report["compiled"].get("loaded", 0),
        "parquet MB": report["bytes"] / 1e6,
    }
    if timed_parts:
        saving = timed_parts["store"] + timed_parts["manifest"] + timed_parts["frames"]
        row |= {
            "s measuring": timed_parts["measured"],
            "s store": timed_parts["store"] + timed_parts["manifest"],
            "s frames": timed_parts["frames"],
            "s figures": timed_parts["figures"],
            "store and frames, %": 100 * saving / total,
            "the same without figures, %": 100 * saving / (total - timed_parts["figures"]),
        }
    return row


def commit_of(tree: Path) -> str:
    """The short hash of the commit that a tree stands at."""
    words = ["git", "-C", str(tree), "rev-parse", "--short", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True).stdout.strip()


def main() -> None:
    """Write starts.csv and starts.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("spec", type=Path, nargs="?", default=Path("experiments/vanishing.toml"))
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    parser.add_argument("--old", type=Path, help="the tree of another commit, measured in turn")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.spec, args.child)
        return
    import bench

    load = os.getloadavg()[0]
    trees = [tree for tree in (args.old, Path(__file__).parents[1]) if tree is not None]
    with tempfile.TemporaryDirectory() as folder:
        places = [(tree, Path(folder) / str(i)) for i, tree in enumerate(trees)]
        rows = [start(args.spec, at, which, tree) for which in STARTS for tree, at in places]
    frame = pd.DataFrame(rows)
    if args.old:
        for name in ("s in all", "CPU s"):
            old = frame["start"].map(
                frame[frame["commit"] == rows[0]["commit"]].set_index("start")[name]
            )
            frame.insert(frame.columns.get_loc(name) + 1, f"{name}, of the old", frame[name] / old)
    note = (
        f"{args.spec.name}. Tracing programs: one for each cell and shape. Others: what draws and "
        "audits. CPU s: of the sweep's process and those that it starts, with their imports. "
        f"peak MB: of the sweep's process. Load before: {load:.2f}."
    )
    args.out.mkdir(parents=True, exist_ok=True)
    frame.to_csv(args.out / "starts.csv", index=False)
    page = f"# starts\n\n{note}\n\n{bench.markdown(frame)}\n\n{bench.machine()}\n"
    (args.out / "starts.md").write_text(page)
    print(page)


if __name__ == "__main__":
    main()
