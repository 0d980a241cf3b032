"""One sweep at a time holds a folder of results."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock

from gradlab._files import Folder, make_folder

# Seconds between two signs of life of a sweep that holds a remote folder.
BEAT = 5.0


class Unwritable(ValueError):
    """A folder that cannot be held, as nothing can be written into it."""


# Raises ValueError where another sweep has taken the folder meanwhile.
Check = Callable[[], None]


@contextlib.contextmanager
def hold(folder: Folder) -> Iterator[Check]:
    """Hold the folder alone; what it gives is to be called before each write."""
    with _hold_local(folder, folder.local) if folder.local else _hold_remote(folder) as check:
        yield check


@contextlib.contextmanager
def _hold_local(folder: Folder, path: Path) -> Iterator[Check]:
    lock = filelock.FileLock(path / ".lock")
    try:
        make_folder(path)
        # `is_held` takes the lock for a moment.
        lock.acquire(timeout=0.5, poll_interval=0.05)
    except filelock.Timeout:
        raise ValueError(f"{folder} is in use by another sweep") from None
    except OSError as error:
        raise Unwritable(f"cannot write to {folder}: {error.strerror or error}") from None
    try:
        yield lambda: None  # the system keeps the lock while its process stands still
    finally:
        lock.release()


@contextlib.contextmanager
def _hold_remote(folder: Folder) -> Iterator[Check]:
    """Hold a folder that has no locks by a file that changes as long as its holder lives."""
    holder, lock = uuid.uuid4().hex, ".lock"

    def renew(count: int) -> None:
        folder.put(lock, json.dumps([holder, count]).encode())

    def is_mine() -> bool:
        try:
            return holder.encode() in folder.read(lock)
        except FileNotFoundError:
            return False

    try:
        busy = is_held(folder)
        if not busy:
            renew(0)
            # Of two that begin at once, the one that wrote last has it.
            time.sleep(BEAT / 2)
            busy = not is_mine()
    except OSError as error:
        raise Unwritable(f"cannot write to {folder}: {error.strerror or error}") from None
    if busy:
        raise ValueError(f"{folder} is in use by another sweep")
    stop = threading.Event()

    def beat() -> None:
        count = 1
        while not stop.wait(BEAT):
            # A backend that is away for a moment, with whatever error of its own, may come back.
            with contextlib.suppress(Exception):
                if is_mine():
                    renew(count)
            count += 1

    def check() -> None:
        if is_mine():
            return
        time.sleep(BEAT / 2)  # some stores show for a moment what was there before
        if not is_mine():
            raise ValueError(
                f"another sweep took {folder} while this one stood still; what was finished is "
                "kept, and the same command goes on once the other has ended"
            )

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield check
    finally:
        stop.set()
        thread.join()
        if is_mine():
            folder.remove(lock)


def is_held(folder: Folder) -> bool:
    """Whether a sweep holds the folder now. Two looks at a remote folder take seconds."""
    if folder.local is not None:
        lock = filelock.FileLock(folder.local / ".lock")
        if not folder.exists(".lock"):
            return False
        try:
            with lock.acquire(timeout=0):
                return False
        except filelock.Timeout:
            return True
        except OSError:  # a folder of somebody else's, that cannot be written
            return False
    try:
        before = folder.read(".lock")
        time.sleep(2.5 * BEAT)
        return folder.read(".lock") != before
    except FileNotFoundError:
        return False
