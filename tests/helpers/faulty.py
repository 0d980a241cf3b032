"""A store behind an address that fails, answers late, repeats what it does and lists what was."""

import collections
import random
from pathlib import Path

import fsspec
from fsspec.implementations.memory import MemoryFileSystem
from fuzzed import CLEAN, FRAMES, SWEPT

import gradlab as gl
from gradlab._files import Folder
from gradlab.grid import locks

ADDRESS = "faulty://bucket/out"
ATTEMPTS = 60


class Faulty(MemoryFileSystem):
    """Faults are drawn from `rng`; without one there are none."""

    protocol = "faulty"
    store: dict = {}
    pseudo_dirs = [""]
    rng: random.Random | None = None

    def happens(self, share):
        return Faulty.rng is not None and Faulty.rng.random() < share

    def fail(self, share):
        if self.happens(share):
            raise OSError("503 slow down")

    def put_file(self, lpath, rpath, **options):
        self.fail(0.04)
        for _ in range(1 + self.happens(0.04)):
            super().put_file(lpath, rpath, **options)
        if self.happens(0.04):
            raise TimeoutError("no answer")  # though it is written

    def rm_file(self, path):
        self.fail(0.1)
        super().rm_file(path)

    def ls(self, path, detail=True, **options):
        self.fail(0.03)
        names = super().ls(path, detail=detail, **options)
        return names[:-1] if self.happens(0.2) else names

    def _open(self, path, mode="rb", **options):
        if "r" in mode:
            self.fail(0.03)
        return super()._open(path, mode=mode, **options)


def sweep_in_spite(seed: int, place: Path) -> collections.Counter[str]:
    """Begin a sweep on such a store again and again until it is complete; counts what was wrong."""
    fsspec.register_implementation("faulty", Faulty, clobber=True)
    gl.sweep(SWEPT, place)
    wanted = [(place / name).read_bytes() for name in FRAMES]
    Faulty.store.clear()
    Faulty.pseudo_dirs[:] = [""]
    found = collections.Counter(cases=1, different=0, unclear=0, left=0, lost=0)
    beat, locks.BEAT = locks.BEAT, 0.02
    Faulty.rng = random.Random(seed)
    try:
        for _ in range(ATTEMPTS):
            try:
                gl.sweep(SWEPT, ADDRESS)
                break
            except CLEAN as error:
                found["refused"] += 1
                found["unclear"] += "faulty://bucket/out" not in str(error)
        Faulty.rng = None
        folder = Folder(ADDRESS)
        found["different"] += wanted != [folder.read(name) for name in FRAMES]
        found["lost"] += gl.sweep(SWEPT, ADDRESS).computed
        found["left"] += sum(name.endswith((".tmp", ".lock")) for name in folder.names())
    finally:
        Faulty.rng, locks.BEAT = None, beat
    return found
