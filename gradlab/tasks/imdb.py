"""Whole movie reviews with a label: the Large Movie Review Dataset (IMDb), 50,000 of them.

`read` takes the first source that is there: the path it is given; the path in the environment
variable GRADLAB_IMDB; the folder that `download` (`gradlab data imdb`) unpacked, which is
$XDG_CACHE_HOME/gradlab/aclImdb or ~/.cache/gradlab/aclImdb; the snippets that the package ships.

A path is one of two things:

- a CSV file in UTF-8 (.csv, .csv.gz or .csv.xz) with the columns review and sentiment (positive or
  negative), optionally split (train or test), and any others, as Kaggle's "IMDB Dataset.csv";
- Stanford's folder aclImdb, of which {train,test}/{pos,neg}/*.txt are read and nothing else.

The markup of line breaks, "<br />", of which the reviews are full, becomes a space: one for a run
of breaks and the white space around them. White space at a review's ends is dropped. All else is
left as it is.

Source: Maas, Daly, Pham, Huang, Ng and Potts, "Learning Word Vectors for Sentiment Analysis",
ACL 2011.
"""

import contextlib
import csv
import gzip
import hashlib
import lzma
import os
import re
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Shaped

from gradlab import _files, _names
from gradlab.tasks import reviews

ENVIRONMENT = "GRADLAB_IMDB"
URL = "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"
# 84,125,825 bytes. Published by tensorflow/datasets (tensorflow_datasets/url_checksums/
# imdb_reviews.txt) and by huggingface/datasets (datasets/imdb/dataset_infos.json), with that size.
SHA256 = "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe"
KAGGLE = "https://www.kaggle.com/datasets/lakshmi25npathi/imdb-dataset-of-50k-movie-reviews"

PARTS = ("train", "fit", "held_out", "test")
TEST_SHARE = 0.2
HELD_OUT_SHARE = 0.1

_FOLDER = "aclImdb"
_SPLITS = ("train", "test")
_LABELS = {"negative": False, "positive": True}
_LABEL_FOLDERS = {"neg": False, "pos": True}
_OPEN = {".csv": open, ".csv.gz": gzip.open, ".csv.xz": lzma.open}
_VALID = f"a file {', '.join(_OPEN)}, or Stanford's folder {_FOLDER}"
_BREAK = re.compile(r"<br\s*/?>")


class Reviews(NamedTuple):
    """Labelled reviews, in the order of their source; `len(reviews.texts)` of them."""

    texts: list[str]
    positive: Bool[np.ndarray, " reviews"]
    split: Shaped[np.ndarray, " reviews"] | None  # "train" or "test"; None where the file has none
    source: str  # where they come from, for people to read

    def part(self, name: str) -> "Reviews":
        """The reviews of one part, in their order.

        ::

            train = fit + held_out,  all = train + test

        test is for the last number, held_out for choosing what is fitted on fit. Train and test
        are the source's own split; where it has none, a review is in test with probability
        TEST_SHARE = 0.2. A review of train is held out with probability HELD_OUT_SHARE = 0.1. Both
        are drawn from a hash of the review's text and nothing else: a review is in the same part
        whatever file it comes in and in whatever order, and copies of it are in that part too.

        Args:
            name: one of PARTS.

        Returns:
            Reviews whose `split` is the one by which they were chosen, never None.

        Raises:
            ValueError: if there is no such part, or it is empty.

        >>> texts, positive = reviews.snippets()
        >>> snippets = Reviews(texts, positive, None, "snippets")
        >>> [len(snippets.part(name).texts) for name in PARTS]
        [8477, 7600, 877, 2091]
        """
        _names.choose("part", name, PARTS)
        draws = np.array([_draws(text) for text in self.texts]).reshape(-1, 2)
        test = draws[:, 0] < TEST_SHARE if self.split is None else self.split == "test"
        held_out = ~test & (draws[:, 1] < HELD_OUT_SHARE)
        chosen = {"test": test, "train": ~test, "held_out": held_out, "fit": ~(test | held_out)}
        rows = np.flatnonzero(chosen[name])
        if not rows.size:
            raise ValueError(
                f"{self.source}: no reviews in the part {name!r} "
                f"({(~test).sum():,} train, {test.sum():,} test)"
            )
        split = np.where(test, "test", "train")
        texts = [self.texts[row] for row in rows]
        return Reviews(texts, self.positive[rows], split[rows], self.source)

    def describe(self) -> str:
        """One line: how many reviews there are, in which split, and from where.

        >>> labels, split = np.array([True, False, True]), np.array(["train", "train", "test"])
        >>> Reviews(["Good.", "Bad.", "Fine."], labels, split, "mine.csv").describe()
        '3 reviews (2 positive) from mine.csv: train 2 (1 positive), test 1 (1 positive)'
        """
        positive = self.positive
        text = f"{positive.size:,} reviews ({positive.sum():,} positive) from {self.source}"
        if self.split is None:
            return f"{text}: no split of its own"
        for mark, name in zip(":,", _SPLITS, strict=True):
            chosen = positive[self.split == name]
            text += f"{mark} {name} {chosen.size:,} ({chosen.sum():,} positive)"
        return text


def read(path: str | os.PathLike[str] | None = None) -> Reviews:
    """The reviews of a file or a folder; without one, of the first source that is there.

    Args:
        path: a CSV file or a folder aclImdb; None stands for $GRADLAB_IMDB, else for what
            `download()` unpacked, else for the package's snippets (see the module).

    Returns:
        Reviews: texts, a list of n strings, none empty; positive, of shape (n,); split, of shape
        (n,), or None for snippets and files without that column; source, the path or "the
        package's snippets". A folder gives train before test and negative before positive
        reviews, by file name.

    Raises:
        ValueError: with the file and the line (for what a record says, the line at which the
            record starts) if columns are missing, a label, a split or the number of fields is not
            as it must be, a review is empty, the CSV is broken, the text is not UTF-8, the
            compressed file is damaged or cut short, there are no reviews at all, or the folder is
            no aclImdb.
        OSError: if there is no such path, or it cannot be read.

    >>> import pathlib, tempfile
    >>> lines = ["review,sentiment", '"Good.<br /><br />Really.",positive', "Bad.,negative"]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "IMDB Dataset.csv")
    ...     _ = path.write_text("\\n".join(lines))
    ...     found = read(path)
    >>> found.texts, found.positive.tolist(), found.split
    (['Good. Really.', 'Bad.'], [True, False], None)
    """
    origin = ""
    if path is None and os.environ.get(ENVIRONMENT):
        path, origin = os.environ[ENVIRONMENT], f" (from {ENVIRONMENT})"
    if path is None and (_files.cache() / _FOLDER).is_dir():
        path = _files.cache() / _FOLDER
    if path is None:
        return Reviews(*reviews.snippets(), None, "the package's snippets")
    path = Path(path).expanduser()
    if path.is_dir():
        return _read_folder(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}{origin}: no such file or folder; valid: {_VALID}")
    return _read_csv(path)


def download(
    folder: str | os.PathLike[str] | None = None,
    url: str = URL,
    sha256: str = SHA256,
    progress: Any = None,
) -> Path:
    """Download Stanford's archive and unpack it, whole or not at all.

    The archive is checked against its checksum and unpacked without train/unsup, the 50,000
    reviews that have no label. Where the folder aclImdb is there already, nothing is done.

    Args:
        folder: where to make the folder aclImdb; None stands for `_files.cache()`.
        url: where the archive is.
        sha256: its SHA-256, in hexadecimal digits.
        progress: what shows the progress of the download, in bytes, as pooch calls it: an
            attribute `total` that is set, and methods `update(bytes)`, `reset()` and `close()`.

    Returns:
        The path of aclImdb, which `read` takes.

    Raises:
        ConnectionError: if the download fails; the message says what to do by hand.
        ValueError: if it has another checksum, is damaged, holds anything but files and folders
            under aclImdb, or not the files that `read` looks for; or if another thing bears the
            folder's name.
        OSError: if the folder cannot be written. After any error no file has changed.
    """
    folder = _files.cache() if folder is None else Path(folder).expanduser()
    target = folder / _FOLDER
    if os.path.lexists(target):
        _text_files(target)
        return target
    new_folders = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".imdb-") as work:
            archive = Path(work, "archive.tar.gz")
            _fetch(url, archive, sha256, progress)
            _unpack(archive, Path(work), url)
            _text_files(Path(work, _FOLDER))
            Path(work, _FOLDER).rename(target)
    except BaseException:
        with contextlib.suppress(OSError):
            for path in new_folders:
                path.rmdir()
        raise
    return target


def _draws(text: str) -> tuple[float, float]:
    """Two numbers of [0, 1), as good as random, that depend on the text alone."""
    digest = hashlib.sha256(text.encode()).digest()
    first, second = (int.from_bytes(digest[i : i + 8]) / 2**64 for i in (0, 8))
    return first, second


def _plain(text: str) -> str:
    return " ".join(filter(None, map(str.strip, _BREAK.split(text))))


def _gathered(rows: Iterable[tuple[str, bool, str | None]], source: Path) -> Reviews:
    texts, positive, split = zip(*rows, strict=True)
    marked = None if None in split else np.array(split)
    return Reviews(list(texts), np.array(positive), marked, str(source))


def _read_csv(path: Path) -> Reviews:
    rows = list(_records(path))
    if not rows:
        raise ValueError(f"{path}: no reviews in it, only the names of the columns")
    return _gathered(rows, path)


def _records(path: Path) -> Iterator[tuple[str, bool, str | None]]:
    """(text, positive, split or None) of each record, or ValueError that says where."""
    reader = csv.reader(_lines(path), strict=True)
    header, columns, start = None, [], 1
    while True:
        where = f"{path}, line {start}"
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise ValueError(f"{where}: broken CSV, is a quote left open? ({error})") from None
        start = reader.line_num + 1
        if header is None:
            header = row or []
            columns = _columns(header, where)
        elif row is None:
            return
        elif row:  # blank lines are none
            if len(row) != len(header):
                raise ValueError(f"{where}: {len(row)} fields, but {len(header)} columns")
            yield _record(*(row[column] for column in columns), where=where)


def _columns(header: list[str], where: str) -> list[int]:
    """Where the review, the sentiment and, if there, the split stand."""
    names = ["review", "sentiment", *(["split"] if "split" in header else [])]
    wrong = [
        f"{name} is {'there more than once' if name in header else 'missing'}"
        for name in names
        if header.count(name) != 1
    ]
    if wrong:
        raise ValueError(
            f"{where}: {' and '.join(wrong)}; valid columns: review, sentiment and, if you like, "
            f"split and any others; found: {', '.join(map(repr, header)) or 'none'}"
        )
    return [header.index(name) for name in names]


def _record(
    review: str, sentiment: str, split: str | None = None, *, where: str
) -> tuple[str, bool, str | None]:
    if sentiment not in _LABELS:
        raise ValueError(f"{where}: sentiment is {sentiment!r}; valid: {', '.join(_LABELS)}")
    if split is not None and split not in _SPLITS:
        raise ValueError(f"{where}: split is {split!r}; valid: {', '.join(_SPLITS)}")
    text = _plain(review)
    if not text:
        raise ValueError(f"{where}: the review is empty")
    return text, _LABELS[sentiment], split


def _lines(path: Path) -> Iterator[str]:
    """The lines of a file, plain or compressed; they are decoded singly to know which is wrong."""
    kind = next((ending for ending in _OPEN if path.name.lower().endswith(ending)), None)
    if kind is None:
        raise ValueError(f"{path}: not a kind of file that is known here; valid: {_VALID}")
    number = 0
    with _OPEN[kind](path, "rb") as file:
        try:
            for number, line in enumerate(file, 1):
                text = _decoded(line, path, number)
                yield text.removeprefix("\ufeff") if number == 1 else text
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise ValueError(
                f"{path}: damaged or cut short, after line {number} ({error})"
            ) from None


def _decoded(content: bytes, path: Path, line: int) -> str:
    """The text of content, which starts at that line of the file."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line += content.count(b"\n", 0, error.start)
        raise ValueError(
            f"{path}, line {line}: not UTF-8 (byte 0x{content[error.start]:02x})"
        ) from None


def _read_folder(folder: Path) -> Reviews:
    return _gathered(_folder_records(folder), folder)


def _folder_records(folder: Path) -> Iterator[tuple[str, bool, str | None]]:
    for (split, label), paths in _text_files(folder).items():
        for path in paths:
            text = _plain(_decoded(path.read_bytes(), path, 1))
            if not text:
                raise ValueError(f"{path}, line 1: the review is empty")
            yield text, _LABEL_FOLDERS[label], split


def _text_files(folder: Path) -> dict[tuple[str, str], list[Path]]:
    """The files of each split and label, or ValueError if any of them has none."""
    groups = [(split, label) for split in _SPLITS for label in _LABEL_FOLDERS]
    files = {group: sorted(folder.joinpath(*group).glob("*.txt")) for group in groups}
    empty = ["/".join(group) for group in groups if not files[group]]
    if empty:
        inner = folder / _FOLDER
        hint = f" did you mean {inner}?" if inner.is_dir() else ""
        raise ValueError(
            f"{folder}: not Stanford's folder {_FOLDER}, no text files in {', '.join(empty)};"
            f"{hint} valid: {{train,test}}/{{pos,neg}}/*.txt"
        )
    return files


def _fetch(url: str, archive: Path, sha256: str, progress: Any) -> None:
    import pooch
    import requests  # with which pooch downloads

    by_hand = (
        f"download it by hand from {URL} and unpack it, or from {KAGGLE}, and give the path with "
        f"--data PATH or in {ENVIRONMENT}"
    )
    try:
        with contextlib.ExitStack() as stack:

            def close(response: Any, **_: Any) -> None:
                stack.callback(response.close)  # pooch leaves it open where anything goes wrong

            get = pooch.HTTPDownloader(
                progressbar=progress or False,
                chunk_size=2**18,  # how often the bar moves and the file is flushed
                hooks={"response": close},
            )
            get(url, str(archive), None)
    except requests.RequestException as error:
        reason: BaseException = error
        while reason.__context__ is not None:  # down to the one without the libraries' wrapping
            reason = reason.__context__
        raise ConnectionError(f"cannot download {url} ({reason}); {by_hand}") from None
    found = pooch.file_hash(str(archive), alg="sha256")
    if found != sha256:
        raise ValueError(
            f"{url}: not the archive on record, its SHA-256 is {found} instead of {sha256}, and it "
            f"was thrown away; {by_hand}"
        )


def _unpack(archive: Path, into: Path, url: str) -> None:
    """Unpack what lies under aclImdb; ValueError if anything else is in the archive."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                parts = PurePosixPath(member.name).parts
                inside = parts[:1] == (_FOLDER,) and ".." not in parts
                if not inside or not (member.isreg() or member.isdir()):
                    raise ValueError(
                        f"{url}: {member.name!r} in the archive is not a file or folder under "
                        f"{_FOLDER}; nothing of it was kept"
                    )
                if parts[1:3] != ("train", "unsup"):
                    tar.extract(member, into, filter="data")
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{url}: the archive is damaged ({error}); nothing was kept") from None
