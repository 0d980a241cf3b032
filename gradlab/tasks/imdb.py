"""Whole movie reviews with a label: the Large Movie Review Dataset (IMDb), 50,000 of them.

`read` takes the first source that is there: the path it is given; the path in the environment
variable GRADLAB_IMDB; the folder that `download` (`gradlab data imdb`) unpacked, which is
$XDG_CACHE_HOME/gradlab/aclImdb or ~/.cache/gradlab/aclImdb; the snippets that the package ships.

A path is one of two things:

- a table (.csv, .tsv or .txt, plain or as .gz or .xz; .parquet) with the columns review and
  sentiment (or text and label): positive or negative, or 1 or 0; optionally split (train or test),
  and any others, as Kaggle's "IMDB Dataset.csv". Commas, tabs or semicolons part the columns,
  whichever stand between their names. Texts are in UTF-8 unless `encoding` says otherwise;
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
import io
import itertools
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
_LABELS = {"negative": False, "positive": True, "0": False, "1": True}
# The names of the columns, here and in many other data sets.
_OURS, _OTHERS = ("review", "sentiment", "split"), ("text", "label", "split")
_DELIMITERS = ",\t;"
# Characters of a review: a quote that is left open makes one of all that follows.
LONGEST = 10_000_000
_LABEL_FOLDERS = {"neg": False, "pos": True}
_OPEN = {"": open, ".gz": gzip.open, ".xz": lzma.open}
_KINDS = (".csv", ".tsv", ".txt")
_PARQUET = ".parquet"
_VALID = f"a file {', '.join(_KINDS)} (or these with .gz, .xz), .parquet, or Stanford's {_FOLDER}"
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
        masks = {"test": test, "train": ~test, "held_out": held_out, "fit": ~(test | held_out)}
        rows = np.flatnonzero(masks[name])
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
            labels = positive[self.split == name]
            text += f"{mark} {name} {labels.size:,} ({labels.sum():,} positive)"
        return text


def read(path: str | os.PathLike[str] | None = None, encoding: str = "utf-8") -> Reviews:
    """The reviews of a file or a folder; without one, of the first source that is there.

    Args:
        path: a table or a folder aclImdb; None stands for $GRADLAB_IMDB, else for what
            `download()` unpacked, else for the package's snippets (see the module).
        encoding: that of the texts, one that Python knows: "utf-8", "cp1252", "utf-16", ...

    Returns:
        Reviews: texts, a list of n strings, none empty; positive, of shape (n,); split, of shape
        (n,), or None for snippets and files without that column; source, the path or "the
        package's snippets". A folder gives train before test and negative before positive
        reviews, by file name.

    Raises:
        ValueError: with the file and the line (for what a record says, the line at which the
            record starts) if columns are missing, a label, a split or the number of fields is not
            as it must be, a review is empty or longer than `LONGEST`, the table is broken, the text
            is not in the encoding or there is no such encoding, the
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
    path = _files.expand(path)
    _check_encoding(encoding)
    if path.is_dir():
        return _read_folder(path, encoding)
    if not path.exists():
        raise FileNotFoundError(f"{path}{origin}: no such file or folder; valid: {_VALID}")
    return _read_table(path, encoding)


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
    folder = _files.cache() if folder is None else _files.expand(folder)
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
    # Half of a pair of surrogates, which some encodings let through, is no UTF-8.
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).digest()
    first, second = (int.from_bytes(digest[i : i + 8]) / 2**64 for i in (0, 8))
    return first, second


def _plain(text: str) -> str:
    return " ".join(filter(None, map(str.strip, _BREAK.split(text))))


def _gather(rows: Iterable[tuple[str, bool, str | None]], source: Path) -> Reviews:
    texts, positive, split = zip(*rows, strict=True)
    splits = None if None in split else np.array(split)
    return Reviews(list(texts), np.array(positive), splits, str(source))


def _check_encoding(encoding: str) -> None:
    try:
        ok = isinstance(encoding, str) and "é\n".encode(encoding, "replace").decode(encoding)
    except (LookupError, ValueError):
        ok = False
    if not ok:
        raise ValueError(
            f"unknown encoding {_names.show(encoding)}; valid: utf-8, cp1252, latin-1, utf-16 and "
            "all others of Python's"
        )


def _read_table(path: Path, encoding: str) -> Reviews:
    is_parquet = path.name.lower().endswith(_PARQUET)
    rows = list(_parquet_records(path) if is_parquet else _csv_records(path, encoding))
    if not rows:
        raise ValueError(f"{path}: no reviews in it, only the names of the columns")
    return _gather(rows, path)


def _parquet_records(path: Path) -> Iterator[tuple[str, bool, str | None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            header = file.schema_arrow.names
            columns = _columns(header, str(path))
            row = 0
            names = [header[column] for column in columns]
            for batch in file.iter_batches(1000, columns=names):
                values = [batch.column(name).to_pylist() for name in names]
                for each in zip(*values, strict=True):
                    row += 1
                    texts = ["" if value is None else str(value) for value in each]
                    texts[1] = {"True": "1", "False": "0"}.get(texts[1], texts[1])
                    yield _record(*texts, where=f"{path}, row {row}")
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        what = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path}: damaged or no parquet file ({what})") from None


def _csv_records(path: Path, encoding: str) -> Iterator[tuple[str, bool, str | None]]:
    """(text, positive, split or None) of each record, or ValueError that says where."""
    lines = _lines(path, encoding)
    first = next(lines, "")
    # The module's limit, 131,072 characters, holds for all of Python; ours is that of `_lines`.
    before = csv.field_size_limit(LONGEST)
    try:
        reader = csv.reader(
            itertools.chain([first], lines), strict=True, delimiter=_delimiter(first)
        )
        yield from _rows(reader, path)
    finally:
        csv.field_size_limit(before)


def _delimiter(line: str) -> str:
    """What parts the names of the columns: a comma, unless another one finds more of them."""

    def count_names(delimiter: str) -> int:
        names = [name.strip(' "\r\n') for name in line.split(delimiter)]
        return max(sum(name in names for name in each) for each in (_OURS, _OTHERS))

    return max(_DELIMITERS, key=count_names)


def _rows(reader: Any, path: Path) -> Iterator[tuple[str, bool, str | None]]:
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
    names = _OURS if {*_OURS[:2]} & {*header} or not {*_OTHERS[:2]} <= {*header} else _OTHERS
    wrong = [
        f"{name} is {'there more than once' if name in header else 'missing'}"
        for name in names
        if header.count(name) != 1 and (name in header or name != "split")
    ]
    if wrong:
        listing = _names.shorten(", ".join(map(_names.show, header)) or "none", 200)
        raise ValueError(
            f"{where}: {' and '.join(wrong)}; valid columns: review and sentiment (or text "
            f"and label) and, if you like, split and any others; found: {listing}"
        )
    return [header.index(name) for name in names if name in header]


def _record(
    review: str, sentiment: str, split: str | None = None, *, where: str
) -> tuple[str, bool, str | None]:
    for name, value, valid in (("sentiment", sentiment, _LABELS), ("split", split, _SPLITS)):
        if value is not None and value not in valid:
            quote = _names.show(value)
            raise ValueError(f"{where}: {name} is {quote}; valid: {', '.join(valid)}")
    if len(review) > LONGEST:
        raise ValueError(f"{where}: the review is longer than {LONGEST:,} characters")
    text = _plain(review)
    if not text:
        raise ValueError(f"{where}: the review is empty")
    return text, _LABELS[sentiment], split


def _lines(path: Path, encoding: str) -> Iterator[str]:
    """The lines of a file, plain or compressed; they are decoded singly to know which is wrong."""
    name = path.name.lower()
    kinds = [suffix for kind in _KINDS for suffix in _OPEN if name.endswith(kind + suffix)]
    if not kinds:
        raise ValueError(f"{path}: not a kind of file that is known here; valid: {_VALID}")
    number = 0
    with _OPEN[kinds[0]](path, "rb") as file:
        try:
            for number, line in enumerate(_byte_lines(file, encoding, path), 1):
                text = _decode(line, path, number, encoding)
                yield text.removeprefix("\ufeff") if number == 1 else text
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise ValueError(
                f"{path}: damaged or cut short, after line {number} ({error})"
            ) from None


def _byte_lines(file: Any, encoding: str, path: Path) -> Iterator[bytes]:
    """The lines of a file, each of which can be decoded alone."""
    number, size = 0, 4 * LONGEST
    if "\n".encode(encoding) == b"\n":
        while line := file.readline(size):
            number += 1
            if len(line) == size:
                raise ValueError(
                    f"{path}, line {number}: longer than {LONGEST:,} characters, is a quote left "
                    "open?"
                )
            yield line
        return
    # Elsewhere, as in UTF-16, the byte of a line's end may be half of another character.
    with io.TextIOWrapper(file, encoding, newline="") as text:
        try:
            while line := text.readline(LONGEST):
                number += 1
                yield line.encode(encoding)
        except UnicodeError as error:
            raise ValueError(f"{path}, after line {number}: not {encoding} ({error})") from None


def _decode(content: bytes, path: Path, line: int, encoding: str) -> str:
    """The text of content, which starts at that line of the file."""
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line += content.count(b"\n", 0, error.start)
        name = "UTF-8" if encoding == "utf-8" else encoding
        raise ValueError(
            f"{path}, line {line}: not {name} (byte 0x{content[error.start]:02x}); give its "
            "encoding with --encoding, such as cp1252 or utf-16"
        ) from None


def _read_folder(folder: Path, encoding: str) -> Reviews:
    return _gather(_folder_records(folder, encoding), folder)


def _folder_records(folder: Path, encoding: str) -> Iterator[tuple[str, bool, str | None]]:
    for (split, label), paths in _text_files(folder).items():
        for path in paths:
            text = _plain(_decode(path.read_bytes(), path, 1, encoding))
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
    digest = pooch.file_hash(str(archive), alg="sha256")
    if digest != sha256:
        raise ValueError(
            f"{url}: not the archive on record, its SHA-256 is {digest} instead of {sha256}, and "
            f"it was thrown away; {by_hand}"
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
