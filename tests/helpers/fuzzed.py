"""Specs, files and disks that are wrong, drawn from a seed: each must be refused in a message.

`experiments/reliability.py` draws thousands of them, the tests a few of each kind.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import gzip
import io
import json
import lzma
import os
import pathlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

LONGEST = 600  # characters of a message
CLEAN = (ValueError, OSError, ImportError)


def outcome(call: Callable[[], Any]) -> str:
    """ "accepted", "refused", or what is wrong with how it was refused."""
    try:
        call()
    except CLEAN as error:
        text = str(error)
        if len(text) > LONGEST:
            return f"a message of {len(text)} characters: {text[:100]}"
        return "refused" if text.strip() else f"{type(error).__name__} without a message"
    except Exception as error:
        return f"traceback {type(error).__name__}: {str(error)[:200]}"
    return "accepted"


# Specs

NUMBERS = [
    "-1", "0", "1", "2", "0.5", "1.0", "-0.0", "1e-320", "1e39", "1e308", "nan", "inf", "-inf",
    "2147483647", "2147483648", "3000000000", "1000000000", "100000", str(2**63 - 1), str(2**63),
    str(10**30), "1" + "0" * 400, "1" + "0" * 5000, "true", "false", "0xffffffffffff", "1_000",
]  # fmt: skip
TEXTS = [
    '""', '"gru"', '"grv"', '"1"', '"1.0"', '"nan"', '"\\u202e\\u0000"', '"<script>"', '"tied"',
    f'"{"a" * 100_000}"', "1979-05-27", "07:32:00", "1979-05-27T07:32:00Z",
]  # fmt: skip
SPACINGS = [
    "{linspace = [0.5, 2.0, 3]}", "{linspace = [1, 2, 0]}", "{linspace = [1, 2, -5]}",
    "{linspace = [1, 2, 2.5]}", "{linspace = [nan, 1, 3]}", '{linspace = ["a", 1, 3]}',
    "{linspace = 1}", "{linspace = {}}", "{linspace = [[1], 2, 3]}", "{linspace = [1, 2, true]}",
    "{logspace = [0, 400, 5]}", "{logspace = [-400, 0, 3]}", "{geomspace = [1, 2, 3]}",
    "{linspace = [1, 2, 3], logspace = [1, 2, 3]}", "{linspace = [0, 1, 1000000000]}",
    "{linspace = [1e19, 1e20, 3]}", f"{{linspace = [1{'0' * 400}, 1, 3]}}", "{}", "{a = 1}",
]  # fmt: skip
WORDS = {
    "cell": ["elman", "gru", "lstm", "lru", "min_gru"],
    "init": ["normal", "orthogonal", "critical", "chain"],
    "task": ["adding", "temporal_order", "copying", "parity"],
    "activation": ["tanh", "relu", "linear"],
    "weights": ["tied", "untied"],
    "optimizer": ["adam", "sgd"],
    "input": ["gaussian", "reviews"],
}
GRADIENTS = {"cell": '"elman"', "init": '"normal"', "gain": "1.0", "length": "10", "hidden": "4"}
TRAINING = {
    "task": '"adding"', "cell": '"gru"', "length": "10", "updates": "100", "learning_rate": "0.1",
}  # fmt: skip
MORE = ["seeds", "seed", "batch", "inputs", "input_scale", "forget_bias", "evaluation", "window"]
MORE += ["leak", "chrono", "flossing", "preflossing", "omega", "clip_norm", "evaluate_every"]
MORE += ["permuted", "every_step", "symbols", "size", "dt", "nonsense", "measurement", "imports"]


def spec(rng: random.Random) -> bytes:
    """The text of a spec, with mistakes of some kinds in it."""
    axes = dict(rng.choice([GRADIENTS, TRAINING]))
    names = [*axes, *WORDS, *MORE]
    tables: list[str] = []
    for _ in range(rng.choice([1, 1, 1, 2, 3, 6])):
        name = rng.choice(names)
        kind = rng.random()
        if kind < 0.45:
            axes[name] = value(rng, name)
        elif kind < 0.55:
            axes.pop(name, None)
        elif kind < 0.7:
            group = [f"{n} = {value(rng, n)}" for n in rng.sample(names, rng.randint(0, 3))]
            tables.append("\n".join(["[[zip]]", *group]))
            if rng.random() < 0.5:
                axes = {n: v for n, v in axes.items() if not any(g.startswith(n) for g in group)}
        elif kind < 0.8:
            other = rng.choice(names)
            tables.append(f"[when]\n{name} = {{{other} = {value(rng, other)}}}")
        elif kind < 0.92:
            for _ in range(rng.choice([1, 2, 40])):
                some = [f"{n} = {value(rng, n)}" for n in rng.sample(names, rng.randint(0, 3))]
                tables.append("\n".join(["[[blocks]]", *dict.fromkeys(some)]))
        else:
            what = rng.choice(["zip", "when", "blocks", "axes", "fixed", "other", "measurement"])
            axes[what] = value(rng, what)
    if rng.random() < 0.02:
        return rng.choice([_deep, _long, _wide])(rng)
    lines = [f"{name} = {text}" for name, text in axes.items()]
    head = rng.choice(["", "", "[fixed]", "[axes]"])
    content = "\n".join([head, *lines, *tables]).encode()
    return damaged(rng, content) if rng.random() < 0.04 else content


def value(rng: random.Random, name: str) -> str:
    """What stands behind an axis."""
    kind = rng.random()
    if kind < 0.3:
        words = WORDS.get(name)
        good = [f'"{word}"' for word in words] if words else NUMBERS[:6]
        return f"[{', '.join(rng.sample(good, rng.randint(1, min(len(good), 3))))}]"
    if kind < 0.6:
        return rng.choice(NUMBERS + TEXTS)
    if kind < 0.75:
        return rng.choice(SPACINGS)
    if kind < 0.9:
        return f"[{', '.join(rng.choice(NUMBERS + TEXTS) for _ in range(rng.randint(0, 4)))}]"
    if kind < 0.95:
        return f"[{', '.join(str(i) for i in range(rng.choice([50, 3000, 20_000])))}]"
    return rng.choice(["[[]]", "[[1, 2], [3]]", "[{}]", "[1, 1.0, true]", "[0.0, -0.0]", "[]"])


def _deep(rng: random.Random) -> bytes:
    depth = rng.choice([20, 400, 2000, 100_000])
    nested = [b"axes = " + b"[" * depth + b"]" * depth, b"a" + b".a" * depth + b" = 1"]
    return rng.choice([*nested, b"x = " + b"{a = " * depth + b"1" + b"}" * depth])


def _long(rng: random.Random) -> bytes:
    return b"# " + b"a" * rng.choice([10**5, 3 * 10**6, 10**7])


def _wide(rng: random.Random) -> bytes:
    count = rng.choice([100, 3000, 9000])
    return b"\n".join(b"[[blocks]]\ngain = %d.5" % i for i in range(count))


def load_and_estimate(path: Path) -> None:
    """What `gradlab sweep --dry-run` does; a message has to name the file where it can."""
    from gradlab import sweeps

    try:
        grid = sweeps.load(path)
    except ValueError as error:
        if path.name not in str(error):
            raise TypeError(f"the message does not name the file: {error}") from error
        raise
    str(sweeps.estimate(grid))


# Files


def damaged(rng: random.Random, content: bytes) -> bytes:
    """Content with bytes changed, cut off, put in or added."""
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5, 50])):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    kind = rng.random()
    if kind < 0.15:
        return bytes(changed[: rng.randrange(len(changed) + 1)])
    if kind < 0.3:
        place = rng.randrange(len(changed) + 1)
        changed[place:place] = rng.randbytes(rng.choice([1, 100]))
    return bytes(changed)


REVIEWS = [
    "good film", "bad", "", "a,b", "a;b\tc", 'he said "hi"', "line\nbreak", "cr\rx", "<br />",
    "\ufeff", "\x00\u202e", "é💩", "positive", "\\", "'", "=cmd()", "\u2028",
]  # fmt: skip


def reviews(rng: random.Random, folder: Path) -> tuple[Path, str]:
    """A table of reviews, right or wrong, and the encoding to read it in."""
    names = rng.choice([["review", "sentiment"], ["text", "label"], ["text", "sentiment"]])
    names += ["split"] if rng.random() < 0.3 else []
    names += [rng.choice(["id", "review", ""])] if rng.random() < 0.2 else []
    names = rng.sample(names, len(names) - (rng.random() < 0.1))
    delimiter, end = rng.choice(",,\t;"), rng.choice(["\n", "\n", "\r\n", "\r"])

    def quoted(text: str) -> str:
        return '"' + text.replace('"', '""') + '"' if rng.random() < 0.9 else text

    rows = [delimiter.join(names)]
    for _ in range(rng.choice([0, 1, 5, 30])):
        long = "x" * rng.choice([0, 0, 0, 200_000])
        text = quoted(f"{rng.choice(REVIEWS)} {rng.random()}{long}")
        label = rng.choice(["positive", "negative", "0", "1"])
        label = rng.choice(["2", "Neutral", ""]) if rng.random() < 0.02 else label
        cells = {"review": text, "text": text, "sentiment": label, "label": label}
        cells["split"] = rng.choice(["train", "test"]) if rng.random() < 0.98 else "dev"
        rows.append(delimiter.join(cells.get(name, "z") for name in names))
    encoding = rng.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
    content = end.join(rows).encode(encoding, "replace")
    content = damaged(rng, content) if rng.random() < 0.3 else content
    kind = rng.choice([".csv", ".csv", ".tsv", ".csv.gz", ".csv.xz", ".txt", ".parquet", ""])
    content = {".gz": gzip.compress, ".xz": lzma.compress}.get(kind[4:], bytes)(content)
    content = damaged(rng, content) if kind[4:] and rng.random() < 0.3 else content
    path = folder / f"reviews{kind}"
    path.write_bytes(content)
    if kind == ".parquet" and rng.random() < 0.8:
        columns = {name: [rng.choice(REVIEWS), "B"] for name in dict.fromkeys(names)}
        label = rng.choice([[0, 1], [True, False], ["positive", "negative"], [0.5, 1.0], [None, 1]])
        columns |= {name: label for name in ("sentiment", "label") if name in columns}
        pq.write_table(pa.table(columns), path)
        if rng.random() < 0.4:
            path.write_bytes(damaged(rng, path.read_bytes()))
    others = ["utf-8", "ascii", "latin-1", "nonsense", "hex", "utf-32", "utf-7", "", "a" * 10_000]
    return path, encoding if rng.random() < 0.7 else rng.choice(others)


def read_reviews(path: Path, encoding: str) -> None:
    from gradlab.tasks import imdb

    found = imdb.read(path, encoding)
    found.describe()
    for part in imdb.PARTS:
        with contextlib.suppress(ValueError):  # a part may be empty
            found.part(part)


ODD: list[Any] = [
    None, -1, 0, 10**9, 10**12, 1e308, "x", [], {}, [1], True, float("nan"), ["a"] * 3, "9" * 999,
]  # fmt: skip


def model(rng: random.Random, content: bytes, path: Path) -> str:
    """A damaged model file, or one with nonsense in it; returns how."""
    from gradlab import _arrays

    how = rng.choice(["bytes", "about", "about", "array", "archive"])
    if how == "bytes":
        path.write_bytes(damaged(rng, content))
        return how
    path.write_bytes(content)
    about, arrays = _arrays.read(path)
    if how == "about":
        parts = [about, about["recipe"], about["vocabulary"], about["recipe"]["options"]]
        part = rng.choice(parts)
        name = rng.choice([*part, "other"])
        how = f"about {name}"
        if rng.random() < 0.2:
            part.pop(name, None)
        else:
            part[name] = rng.choice(ODD)
    elif how == "array":
        name = rng.choice([*arrays])
        array = arrays[name]
        spoilt = [array.ravel()[:0], array[None], array.T[..., None], np.zeros(0, np.float32)]
        if array.dtype.kind == "f":
            spoilt += [array * np.nan, array + np.inf, array.astype(np.float64) * 1e300]
        arrays[name] = rng.choice(spoilt)
        if rng.random() < 0.1:
            del arrays[name]
    if how == "archive":
        text = np.frombuffer(json.dumps(about).encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, about=text, **arrays)  # type: ignore[arg-type]
        path.write_bytes(damaged(rng, buffer.getvalue()))
        return how
    _arrays.write(path, about, arrays)
    return how


def manifest(rng: random.Random, content: bytes) -> bytes:
    """A manifest with an odd value, and without the sums that would give it away."""
    table = json.loads(content)
    for name in ("sum", "blocks", "files"):
        table.pop(name, None)
    part = table
    for _ in range(rng.randint(0, 2)):
        inner = [v for v in part.values() if isinstance(v, dict) and v]
        part = rng.choice(inner) if inner else part
    part[rng.choice([*part, "axes", "columns", "other"])] = rng.choice(ODD)
    return json.dumps(table).encode()


# Disks


class _Counted(io.FileIO):
    """A file whose writes go through a counter."""

    def __init__(self, path: Any, count: Callable[[], None]) -> None:
        super().__init__(path, "wb")
        self._count = count

    def write(self, content: Any) -> int | None:
        self._count()
        return super().write(content)


@contextlib.contextmanager
def failing(kind: str, number: int) -> Iterator[list[int]]:
    """Let the n-th "write", "fsync" or "rename" fail, as on a full disk; gives the calls so far."""
    calls: list[int] = []

    def count() -> None:
        calls.append(len(calls) + 1)
        if len(calls) == number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    plain_open, plain_sync, plain_replace = pathlib.Path.open, os.fsync, pathlib.Path.replace

    def counted_open(self: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if mode != "wb":
            return plain_open(self, mode, *rest, **options)
        return io.BufferedWriter(_Counted(self, count))

    def counted_sync(place: Any) -> None:
        count()
        plain_sync(place)

    def counted_replace(self: Path, target: Any) -> Any:
        count()
        return plain_replace(self, target)

    try:
        if kind == "write":
            pathlib.Path.open = counted_open  # type: ignore[method-assign,assignment]
        elif kind == "fsync":
            os.fsync = counted_sync
        else:
            pathlib.Path.replace = counted_replace  # type: ignore[method-assign]
        yield calls
    finally:
        pathlib.Path.open = plain_open  # type: ignore[method-assign]
        os.fsync = plain_sync
        pathlib.Path.replace = plain_replace  # type: ignore[method-assign]


FRAMES = ("runs.parquet", "steps.parquet", "summary.csv")
SWEPT = {
    "cell": "elman", "init": "normal", "gain": [0.5, 1.5], "length": [20, 30], "hidden": 4,
    "inputs": 2,
}  # fmt: skip


def draw_a_dot(folder: Any, out: Path, **_: Any) -> list[Path]:
    """A figure that takes no time, for `figures.draw`."""
    (out / "dot.png").write_bytes(_DOT)
    return [out / "dot.png"]


# A PNG of one pixel.
_DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)


def fail_everywhere(kind: str, place: Path, step: int = 1) -> dict[str, int]:
    """Let each call of a kind fail in turn in a sweep, then end it; counts what was wrong.

    With a `step` only each of so many calls.
    """
    import gradlab as gl

    gl.sweep(SWEPT, place / "whole")
    wanted = [(place / "whole" / name).read_bytes() for name in FRAMES]
    found = {"cases": 0, "different": 0, "unclear": 0, "left": 0}
    for number in range(1, 10_000, step):
        folder = place / f"{kind}-{number}"
        with failing(kind, number) as calls:
            try:
                gl.sweep(SWEPT, folder)
            except CLEAN as error:
                found["unclear"] += "cannot write to" not in str(error)
            except Exception:
                found["unclear"] += 1
        if len(calls) < number:
            break
        gl.sweep(SWEPT, folder)
        found["cases"] += 1
        found["different"] += wanted != [(folder / name).read_bytes() for name in FRAMES]
        found["left"] += len([*folder.rglob("*.tmp")])
    return found


class PowerLoss(BaseException):
    """The end of a process whose machine has no power any more."""


class Disk:
    """What is left of a folder when the power goes: what was synced, and no more.

    A file has the content that it had when it was synced last, or none; a folder the names that it
    had when it was synced last.
    """

    def __init__(self, root: Path, last: int) -> None:
        self.root, self.left = root, last
        self.files: dict[int, bytes] = {}
        self.folders: dict[int, dict[str, int]] = {}
        self.open: list[int] = []  # a number of a file that is open is not given to another

    def number(self, path: Path) -> int:
        self.open.append(os.open(path, os.O_RDONLY))
        return os.fstat(self.open[-1]).st_ino

    def sync(self, descriptor: int) -> None:
        """In place of os.fsync; the last one still succeeds."""
        if not self.left:
            raise PowerLoss
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if not path.is_relative_to(self.root):
            return
        self.left -= 1
        if path.is_dir():
            entries = {entry: self.number(entry) for entry in path.iterdir()}
            self.folders[self.number(path)] = {each.name: n for each, n in entries.items()}
            for entry, number in entries.items():
                if entry.is_dir():
                    self.folders.setdefault(number, {})
        else:
            self.files[self.number(path)] = path.read_bytes()
        if not self.left:
            raise PowerLoss

    def restore(self, place: Path) -> None:
        """Write down what is left."""
        self._restore(self.number(self.root), place)
        for descriptor in self.open:
            os.close(descriptor)

    def _restore(self, number: int, place: Path) -> None:
        place.mkdir()
        for name, child in self.folders.get(number, {}).items():
            if child in self.files:
                (place / name).write_bytes(self.files[child])
            elif child in self.folders:
                self._restore(child, place / name)
            else:
                (place / name).touch()


def lose_power(place: Path, step: int = 1) -> dict[str, int]:
    """Take the power away after each fsync of a sweep in turn, then end it on what is left.

    Counts frames that differ, and chunks that were finished and are lost: but for one, in which the
    power went.
    """
    import gradlab as gl

    gl.sweep(SWEPT, place / "whole")
    wanted = [(place / "whole" / name).read_bytes() for name in FRAMES]
    found = {"cases": 0, "different": 0, "lost": 0}
    plain = os.fsync
    for number in range(1, 10_000, step):
        live, after = place / f"live-{number}", place / f"after-{number}"
        live.mkdir()
        disk = Disk(live, number)
        os.fsync = disk.sync
        try:
            gl.sweep(SWEPT, live)
            break
        except PowerLoss:
            pass
        finally:
            os.fsync = plain
        disk.restore(after)
        chunks = [{path.name for path in each.glob("chunks/*.parquet")} for each in (live, after)]
        found["lost"] += max(0, len(chunks[0] - chunks[1]) - 1)
        gl.sweep(SWEPT, after)
        found["cases"] += 1
        found["different"] += wanted != [(after / name).read_bytes() for name in FRAMES]
    return found
