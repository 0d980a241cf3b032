"""Figures of one folder, shared among processes: matplotlib draws on one core."""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl

# A separate program: multiprocessing's spawn would run the user's script again, and a fork would
# copy the locks of JAX's threads without the threads.
PROGRAM = "from gradlab.figures import _beside; _beside.main()"
ANSWER = b"drawn"

One = Callable[[str], list[Path]]


class Order(NamedTuple):
    """What another process needs to draw the same."""

    folder: str
    out_dir: str
    formats: tuple[str, ...]


def draw_each(
    names: Sequence[str],
    one: One,
    progress: Callable[[int, int], object],
    order: Order,
    helpers: int,
) -> list[Path]:
    """Draw all figures, here and in so many other processes; returns what they wrote, in order.

    What another process cannot draw, for whatever reason, is drawn here, so that errors are those
    of this process.
    """
    waiting, paths, lock = deque(names), dict[str, list[Path]](), threading.Lock()
    count = 0

    def next_one() -> str | None:
        nonlocal count
        with lock:
            count += bool(waiting)
            return waiting.popleft() if waiting else None

    def share(helper: subprocess.Popen[bytes]) -> None:
        while (name := next_one()) is not None:
            if not _ask(helper, name):
                waiting.append(name)
                return
            paths[name] = [Path(order.out_dir) / f"{name}.{kind}" for kind in order.formats]

    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(_start_helper(order)) for _ in range(max(0, helpers))]
        threads = [threading.Thread(target=share, args=[each], daemon=True) for each in processes]
        for thread in threads:
            thread.start()
        while len(paths) < len(names):
            name = next_one()
            if name is None:
                # The others draw the last ones, or give them back.
                for thread in threads:
                    thread.join(0.05)
                continue
            progress(min(count, len(names)), len(names))
            paths[name] = one(name)
    return [path for name in names for path in paths[name]]


def _ask(helper: subprocess.Popen[bytes], name: str) -> bool:
    """Whether another process drew the figure of that name."""
    assert helper.stdin is not None and helper.stdout is not None
    try:
        helper.stdin.write(f"{name}\n".encode())
        helper.stdin.flush()
        return helper.stdout.readline().strip() == ANSWER
    except (OSError, ValueError):  # it has ended, or is ended by `_start_helper`
        return False


@contextlib.contextmanager
def _start_helper(order: Order) -> Any:
    """Start another process that draws figures by name, until the end of the block."""
    # The same package, wherever this one was imported from.
    places = str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")
    helper = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, places))},
        start_new_session=True,  # Ctrl-C is for this process to handle
    )
    try:
        assert helper.stdin is not None
        with contextlib.suppress(OSError):
            # The backend does not change how a figure looks.
            style = {name: value for name, value in mpl.rcParams.items() if "backend" not in name}
            helper.stdin.write(pickle.dumps((order, style)))
        yield helper
    finally:
        helper.kill()
        helper.wait()
        for pipe in (helper.stdin, helper.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def main() -> None:
    """Draw figures by the names that come, a line each, and answer each."""
    from gradlab import figures

    order, style = pickle.load(sys.stdin.buffer)
    mpl.rcParams.update(style)
    one = figures.serve(order)
    if one is None:
        return
    for line in iter(sys.stdin.buffer.readline, b""):
        one(line.decode().strip())
        sys.stdout.buffer.write(ANSWER + b"\n")
        sys.stdout.buffer.flush()
