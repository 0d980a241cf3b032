import contextlib
import csv
import functools
import gzip
import hashlib
import http.server
import io
import lzma
import random
import tarfile
import tempfile
import threading
from pathlib import Path

import fuzzed
import numpy as np
import pytest
from typer.testing import CliRunner

from gradlab import _files
from gradlab.cli import data as data_cli
from gradlab.tasks import imdb, reviews

# What the reader must make of what a source holds.
MARKUP = {
    "Good.": "Good.",
    "One.<br /><br />Two.": "One. Two.",
    "<br />First <br/> second\n<br>third<br />": "First second third",
    'She said "no", twice.': 'She said "no", twice.',
    " Zoë,\n\nnaïve\tand\u0085odd ": "Zoë,\n\nnaïve\tand\u0085odd",
    "a < b, <i>c</i> & d": "a < b, <i>c</i> & d",
}
PLAIN = "review,sentiment\n"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty cache, and no environment that names a source."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(imdb.ENVIRONMENT, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path


def table(header, *rows):
    buffer = io.StringIO()
    csv.writer(buffer).writerows([header, *rows])
    return buffer.getvalue()


def write(path, content):
    """Write text or bytes, compressed as the name says."""
    content = content.encode() if isinstance(content, str) else content
    pack = {".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pack(content))
    return path


def stanford(folder, **texts):
    """The folder aclImdb with two reviews each; `train_pos=[...]` replaces those of that part."""
    for split in ("train", "test"):
        for label in ("pos", "neg"):
            default = [f"A {label} review of {split}.", f"Another {label} one of {split}."]
            for i, text in enumerate(texts.get(f"{split}_{label}", default)):
                write(folder / split / label / f"{i}_7.txt", text)
    write(folder / "train" / "unsup" / "0_0.txt", "Nobody rated this.")
    write(folder / "train" / "labeledBow.feat", "9 0:1")
    write(folder / "README", "Large Movie Review Dataset v1.0")
    return folder


def contents(folder):
    """All that is in a folder: names, and what is in the files."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


# Reading.


@pytest.mark.parametrize("name", ["a.csv", "IMDB Dataset.CSV", "a.csv.gz", "a.csv.xz"])
@pytest.mark.parametrize("with_split", [False, True])
def test_csv(home, name, with_split):
    header = ["id", "sentiment", "review", "rating"] + ["split"] * with_split
    marks = ["test", "train", "train", "test", "train", "test"]
    rows = [
        [i, ["negative", "positive"][i % 2], text, 7] + [marks[i]] * with_split
        for i, text in enumerate(MARKUP)
    ]
    path = home / name
    path = write(home / name, table(header, *rows))
    found = imdb.read(path)
    assert found.texts == list(MARKUP.values())
    assert found.positive.dtype == bool
    assert found.positive.tolist() == [i % 2 == 1 for i in range(len(rows))]
    assert found.split.tolist() == marks if with_split else found.split is None
    assert found.source == str(path)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_byte_order_mark_blank_lines_and_no_last_newline(home, newline):
    lines = ["\ufeffreview,sentiment", "", "Good.,positive", "", "Bad.,negative"]
    found = imdb.read(write(home / "a.csv", newline.join(lines)))
    assert found.texts == ["Good.", "Bad."]


def test_folder(home):
    folder = stanford(home / "anywhere", test_pos=list(MARKUP))
    found = imdb.read(folder)
    splits = ["train"] * 4 + ["test"] * 8
    assert found.texts[4 + 2 :] == list(MARKUP.values())
    assert found.positive.tolist() == [False] * 2 + [True] * 2 + [False] * 2 + [True] * 6
    assert found.split.tolist() == splits
    assert found.source == str(folder)
    assert not any("rated" in text for text in found.texts)


def test_the_first_source_that_is_there_is_taken(home, monkeypatch):
    texts, positive = reviews.snippets()
    found = imdb.read()
    assert found.texts == texts
    np.testing.assert_array_equal(found.positive, positive)
    assert found.split is None and found.source == "the package's snippets"

    folder = stanford(home / "cache" / "gradlab" / "aclImdb")
    assert imdb.read().source == str(folder)

    monkeypatch.setenv(imdb.ENVIRONMENT, str(write(home / "b.csv", PLAIN + "B,positive\n")))
    assert imdb.read().texts == ["B"]
    assert imdb.read(write(home / "c.csv", PLAIN + "C,positive\n")).texts == ["C"]

    monkeypatch.setenv(imdb.ENVIRONMENT, str(home / "none.csv"))
    with pytest.raises(OSError, match=r"none\.csv \(from GRADLAB_IMDB\): no such file or folder"):
        imdb.read()


def test_cache_is_the_users(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert _files.cache() == Path.home() / ".cache" / "gradlab"
    # The standard has a relative path ignored.
    monkeypatch.setenv("XDG_CACHE_HOME", "elsewhere")
    assert _files.cache() == Path.home() / ".cache" / "gradlab"


def test_a_tilde_in_a_folder_is_the_users_home(home, monkeypatch):
    monkeypatch.setenv("HOME", str(home))
    _files.Folder("~/results").put("a.txt", b"a")
    assert (home / "results" / "a.txt").read_bytes() == b"a"


# Refusals: the message names the file, the line, what was found and what is valid.

LONG = '"Line two,\nline three\n\nand line five.",positive\n'
CASES = {
    "no column": ("text,sentiment\nA,positive\n", 1, ["review is missing", "'text', 'sentiment'"]),
    "no columns": ("a,b\n1,2\n", 1, ["review is missing and sentiment is missing", "'a', 'b'"]),
    "no header": ("", 1, ["review is missing", "found: none"]),
    "twice": ("review,review,sentiment\n", 1, ["review is there more than once"]),
    "label": (PLAIN + LONG + "A,neutral\n", 6, ["'neutral'", "valid: negative, positive"]),
    "no label": (PLAIN + LONG + "A,\n", 6, ["sentiment is ''"]),
    "label at a record's end": (PLAIN + "A,positive\n" + LONG.replace("pos", "?"), 3, ["'?itive'"]),
    "empty": (PLAIN + LONG + LONG + '"",positive\n', 10, ["the review is empty"]),
    "only markup": (PLAIN + "\n\n<br /> <br />,positive\n", 4, ["the review is empty"]),
    "split": (
        "review,sentiment,split\nA,positive,train\nB,positive,valid\n",
        3,
        ["'valid'", "valid: train, test"],
    ),
    "no split": ("review,sentiment,split\nA,positive,\n", 2, ["split is ''"]),
    "too few fields": (PLAIN + LONG + "A\n", 6, ["1 fields", "2 columns"]),
    "too many fields": (PLAIN + "Well, well,positive\n", 2, ["3 fields", "2 columns"]),
    "open quote": (PLAIN + LONG + '"A,positive\nB,negative\n', 6, ["broken CSV", "quote"]),
    "open quote, more below": (
        PLAIN + LONG + '"A,positive\n"B",negative\n',
        6,
        ["broken CSV", "quote"],
    ),
    "not UTF-8": (
        (PLAIN + LONG).encode() + b'"One\ntwo\nthr\xe9e",positive\n',
        8,
        ["not UTF-8", "0xe9"],
    ),
    "not UTF-8, header": (b"review,sentiment,\xff\n", 1, ["not UTF-8", "0xff"]),
}


@pytest.mark.parametrize("kind", [".csv", ".csv.gz", ".csv.xz"])
@pytest.mark.parametrize("case", CASES)
def test_refusals(home, case, kind):
    content, line, words = CASES[case]
    path = write(home / f"a{kind}", content)
    with pytest.raises(ValueError) as error:
        imdb.read(path)
    message = str(error.value)
    assert message.startswith(f"{path}, line {line}: ")
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_header_alone_is_refused(home):
    with pytest.raises(ValueError, match=r"a\.csv: no reviews in it"):
        imdb.read(write(home / "a.csv", PLAIN))


@pytest.mark.parametrize("kind", [".csv.gz", ".csv.xz"])
@pytest.mark.parametrize("damage", ["cut", "changed", "not compressed"])
def test_damaged_compressed_files(home, kind, damage):
    rng = np.random.default_rng(0)
    words = ["".join(map(chr, rng.integers(97, 123, 60))) for _ in range(2000)]
    path = write(home / f"a{kind}", PLAIN + "".join(f"{word},positive\n" for word in words))
    packed = bytearray(path.read_bytes())
    if damage == "cut":
        packed = packed[: len(packed) // 2]
    elif damage == "changed":
        packed[len(packed) // 2] ^= 0xFF
    else:
        packed = PLAIN.encode()
    path.write_bytes(packed)
    # A changed byte of a .gz may show as nonsense in the text before its checksum is reached.
    with pytest.raises(ValueError, match=r"a\.csv\.(gz|xz)(: damaged or cut short|, line \d+: )"):
        imdb.read(path)
    if damage != "changed":
        with pytest.raises(ValueError, match="damaged or cut short, after line"):
            imdb.read(path)


def test_other_kinds_of_file_are_refused(home):
    path = write(home / "archive.zip", b"PK")
    with pytest.raises(ValueError, match=r"archive\.zip: not a kind .* \.csv, .*\.gz, .*\.xz"):
        imdb.read(path)
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such file or folder; valid: a file"):
        imdb.read(home / "nowhere")


def test_other_folders_are_refused(home):
    folder = stanford(home / "data" / "aclImdb", test_neg=[])
    with pytest.raises(ValueError, match=r"aclImdb: not Stanford's .* no text files in test/neg"):
        imdb.read(folder)
    with pytest.raises(ValueError, match=rf"did you mean {folder}\?.*valid: {{train,test}}"):
        imdb.read(folder.parent)


@pytest.mark.parametrize(
    "text, message",
    [(b"One\ntwo\n\xa0\n", "line 3: not UTF-8"), (" <br />\n", "line 1: the review is empty")],
)
def test_bad_files_of_a_folder(home, text, message):
    folder = stanford(home / "aclImdb", test_pos=["Good.", text])
    with pytest.raises(ValueError) as error:
        imdb.read(folder)
    assert str(error.value).startswith(f"{folder / 'test' / 'pos' / '1_7.txt'}, {message}")


# Parts.


def numbered(count, split=None):
    texts = [f"review {i}" for i in range(count)]
    return imdb.Reviews(texts, np.arange(count) % 3 == 0, split, "numbers")


@pytest.mark.parametrize("marked", [False, True])
def test_parts_are_disjoint_and_whole(marked):
    split = np.where(np.arange(5000) % 2, "train", "test") if marked else None
    whole = numbered(5000, split)
    parts = {name: whole.part(name) for name in imdb.PARTS}
    rows = {name: [int(text.split()[1]) for text in part.texts] for name, part in parts.items()}
    for name, part in parts.items():
        assert rows[name] == sorted(rows[name])
        np.testing.assert_array_equal(part.positive, whole.positive[rows[name]])
        assert set(part.split) == {"test" if name == "test" else "train"}
        assert part.source == whole.source
    assert sorted(rows["fit"] + rows["held_out"]) == rows["train"]
    assert sorted(rows["train"] + rows["test"]) == list(range(5000))
    # Three standard deviations of the binomial's share.
    train = len(rows["train"])
    np.testing.assert_allclose(len(rows["held_out"]) / train, 0.1, atol=0.9 / train**0.5)
    if marked:
        assert rows["test"] == list(range(0, 5000, 2))
    else:
        np.testing.assert_allclose(len(rows["test"]) / 5000, 0.2, atol=1.2 / 5000**0.5)


def test_part_of_a_review_depends_on_its_text_alone():
    whole = numbered(300)
    order = np.random.default_rng(0).permutation(300)
    shuffled = imdb.Reviews(
        [whole.texts[i] for i in order] * 2, np.tile(whole.positive[order], 2), None, "shuffled"
    )
    for name in imdb.PARTS:
        part = whole.part(name)
        assert sorted(part.texts * 2) == sorted(shuffled.part(name).texts)
        assert part.part(name).texts == part.texts
    marked = numbered(300, np.full(300, "train"))
    assert set(whole.part("held_out").texts) <= set(marked.part("held_out").texts)


def test_parts_do_not_change_with_versions():
    hashes = [int(hashlib.sha256(f"review {i}".encode()).hexdigest()[:16], 16) for i in range(40)]
    expected = [f"review {i}" for i, value in enumerate(hashes) if value < 0.2 * 16**16]
    assert numbered(40).part("test").texts == expected


def test_unknown_and_empty_parts_are_refused():
    with pytest.raises(ValueError, match=r"unknown part 'tests'; did you mean 'test'\?"):
        numbered(3).part("tests")
    whole = numbered(3, np.full(3, "train"))
    with pytest.raises(ValueError, match=r"numbers: no reviews in the part 'test' \(3 train, 0 te"):
        whole.part("test")


# Downloading, from a server on this machine.


def packed(folder, *more):
    """The bytes of an archive of a folder aclImdb, and of members (name, kind, content)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(folder, "aclImdb")
        for name, kind, content in more:
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind == tarfile.REGTYPE:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            else:
                member.linkname = content
                tar.addfile(member)
    return buffer.getvalue()


@contextlib.contextmanager
def served(content, claimed=None, status=200):
    """The URL at which a server gives the content, of which it claims another length."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(claimed or len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/aclImdb_v1.tar.gz", asked
        finally:
            server.shutdown()
            thread.join()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def archive(home):
    return packed(stanford(home / "source"))


class Bar:
    total = done = closed = 0

    def update(self, size):
        self.done += size

    def reset(self):
        self.done = 0

    def close(self):
        self.closed += 1


def test_download(home, archive):
    bar = Bar()
    with served(archive) as (url, asked):
        folder = imdb.download(home / "new" / "data", url, sha256(archive), bar)
        assert folder == home / "new" / "data" / "aclImdb"
        expected = contents(home / "source")
        del expected["train/unsup"], expected["train/unsup/0_0.txt"]
        assert contents(folder) == expected
        assert list(folder.parent.iterdir()) == [folder]
        assert (bar.total, bar.done, bar.closed) == (len(archive), len(archive), 1)

        assert imdb.download(home / "new" / "data", url, sha256(archive)) == folder
        assert len(asked) == 1
        assert imdb.download(url=url, sha256=sha256(archive)) == _files.cache() / "aclImdb"
    found = imdb.read()
    assert found.source == str(_files.cache() / "aclImdb")
    assert found.texts == imdb.read(home / "source").texts
    assert found.split.tolist() == ["train"] * 4 + ["test"] * 4


# Outside of every folder that a test unpacks into.
ABSOLUTE = Path(tempfile.gettempdir()) / "gradlab-evil"

FAILURES = {
    "cut by the server": dict(cut=True, error="cannot download .*IncompleteRead.*--data PATH"),
    "no such page": dict(status=404, error="cannot download .*404.*by hand from https.*kaggle"),
    "tampered": dict(tampered=True, error="not the archive on record, its SHA-256 is"),
    "no archive": dict(content=b"<html>Maintenance</html>", error="the archive is damaged"),
    "cut before": dict(short=True, error="the archive is damaged"),
    "another archive": dict(only="other", error="'other' in the archive is not a file or folder"),
    "half of it": dict(only="aclImdb", error="no text files in train/neg"),
    **{
        f"{name} {kind}": dict(more=(name, kind, content), error="in the archive is not a file or")
        for name, kind, content in [
            ("../evil", tarfile.REGTYPE, b"evil"),
            ("aclImdb/../../evil", tarfile.REGTYPE, b"evil"),
            (f"{ABSOLUTE}/evil", tarfile.REGTYPE, b"evil"),
            ("evil", tarfile.REGTYPE, b"evil"),
            ("aclImdb/train/unsup/../../../../evil", tarfile.REGTYPE, b"evil"),
            ("aclImdb/link", tarfile.SYMTYPE, "../../.."),
            ("aclImdb/link", tarfile.SYMTYPE, "README"),
            ("aclImdb/link", tarfile.LNKTYPE, "aclImdb/README"),
            ("aclImdb/pipe", tarfile.FIFOTYPE, ""),
            ("aclImdb/device", tarfile.CHRTYPE, ""),
        ]
    },
}


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("case", FAILURES)
def test_failed_downloads_leave_all_as_it_was(home, archive, case, there):
    how = FAILURES[case]
    good = content = how.get("content", archive)
    claimed = None
    if "more" in how:
        good = content = packed(home / "source", how["more"])
    if "only" in how:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            tar.add(home / "source" / "README", how["only"])
        good = content = buffer.getvalue()
    if how.get("short"):
        good = content = archive[: len(archive) // 2]
    if how.get("cut"):
        claimed, content = len(archive), archive[:-100]
    if how.get("tampered"):
        content = packed(home / "source", ("aclImdb/more", tarfile.REGTYPE, b"more"))
    target = home / "deep" / "data"
    if there:
        write(target / "mine.txt", "mine")
    before = contents(home)
    with served(content, claimed, how.get("status", 200)) as (url, _):
        with pytest.raises((ValueError, ConnectionError), match=how["error"]) as error:
            imdb.download(target, url, sha256(good))
    assert "\n" not in str(error.value)
    assert url in str(error.value) or "half" in case
    assert contents(home) == before
    assert not ABSOLUTE.exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_download_that_is_broken_off_leaves_all_as_it_was(home, archive, error):
    class Breaks(Bar):
        def update(self, size):
            raise error

    before = contents(home)
    with served(archive) as (url, _), pytest.raises(error):
        imdb.download(home / "data", url, sha256(archive), Breaks())
    assert contents(home) == before


def test_without_a_server_the_message_says_what_to_do(home):
    with served(b"") as (url, _):
        pass
    before = contents(home)
    with pytest.raises(ConnectionError) as error:
        imdb.download(home / "data", url)
    for words in ["refused", url, imdb.URL, imdb.KAGGLE, "--data PATH", imdb.ENVIRONMENT]:
        assert words in str(error.value)
    assert contents(home) == before


def test_other_things_of_the_folders_name_are_left_alone(home):
    write(home / "aclImdb" / "mine.txt", "mine")
    before = contents(home)
    with pytest.raises(ValueError, match="not Stanford's folder"):
        imdb.download(home, "http://127.0.0.1:1/")
    assert contents(home) == before


# The command.


def test_command(home, archive, monkeypatch):
    runner = CliRunner()
    with served(archive) as (url, _):
        local = functools.partial(imdb.download, url=url, sha256=sha256(archive))
        monkeypatch.setattr(imdb, "download", local)
        first = runner.invoke(data_cli.app, ["imdb"], catch_exceptions=False)
        again = runner.invoke(data_cli.app, ["imdb"], catch_exceptions=False)
        out = home / "here"
        other = runner.invoke(data_cli.app, ["imdb", "--out", str(out)], catch_exceptions=False)
    line = f"8 reviews (4 positive) from {home}/cache/gradlab/aclImdb: "
    line += "train 4 (2 positive), test 4 (2 positive)\n"
    assert first.stdout == line
    assert "downloaded; checking and unpacking" in first.stderr
    assert again.stdout == "already there, nothing was downloaded\n" + line
    assert other.stdout.splitlines()[1].startswith(f"to use it, give --data {out / 'aclImdb'} or ")


TABLES = {
    "0 and 1": ("a.csv", "review,sentiment\nA,1\nB,0\n"),
    "other names": ("a.csv", "text,label\nA,1\nB,0\n"),
    "tabs": ("a.tsv", "sentiment\treview\n1\tA\n0\tB\n"),
    "tabs in .csv": ("a.csv", "sentiment\treview\tsplit, of mine\n1\tA\tx\n0\tB\tx\n"),
    "semicolons": ("a.txt", '"review";"sentiment"\r\n"A";positive\r\nB;negative\r\n'),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_other_forms(tmp_path, name):
    path, text = tmp_path / TABLES[name][0], TABLES[name][1]
    path.write_text(text)
    found = imdb.read(path)
    assert found.texts == ["A", "B"] and found.positive.tolist() == [True, False]


@pytest.mark.parametrize("labels", [[1, 0], [True, False], ["positive", "negative"], ["1", "0"]])
def test_a_parquet_file(tmp_path, labels):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["A", "B"], "label": labels, "id": [7, 8]}), path)
    found = imdb.read(path)
    assert found.texts == ["A", "B"] and found.positive.tolist() == [True, False]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"a.parquet: damaged or no parquet file"):
        imdb.read(path)
    pq.write_table(pa.table({"review": ["A", None], "sentiment": [1, 1]}), path)
    with pytest.raises(ValueError, match=r"a.parquet, row 2: the review is empty"):
        imdb.read(path)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le", "utf-32"]
)
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_texts_in_other_encodings(tmp_path, encoding, ending):
    path = tmp_path / "a.csv"
    # ਊ and ĊĀ hold the byte of a line's end in UTF-16.
    text = "Café" if encoding == "cp1252" else "Café ਊ Ċ"
    lines = ["review,sentiment", f'"{text}",1', "B,0"]
    path.write_bytes(ending.join(lines).encode(encoding))
    assert imdb.read(path, encoding).texts == [text, "B"]


def test_an_encoding_that_does_not_fit_is_named(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("review,sentiment\nA,1\nCafé,0\n".encode("cp1252"))
    with pytest.raises(ValueError, match="line 3: not UTF-8 .*give its encoding with --encoding"):
        imdb.read(path)
    with pytest.raises(ValueError, match="not utf-16"):
        imdb.read(path, "utf-16")
    for name in ("nonsense", "hex", "", "a" * 10_000, None):
        with pytest.raises(ValueError, match="unknown encoding .*valid: utf-8") as caught:
            imdb.read(path, name)
        assert len(str(caught.value)) < 300


def test_a_review_may_be_long_but_a_quote_is_closed(tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    path.write_text(f'review,sentiment\n"{"x" * 300_000}",1\n')
    before = csv.field_size_limit()
    assert len(imdb.read(path).texts[0]) == 300_000
    monkeypatch.setattr(imdb, "LONGEST", 1000)
    for text in (f'"{"x" * 5000}",1\n', '"' + "xxx\n" * 2000):
        path.write_text(f"review,sentiment\n{text}")
        with pytest.raises(ValueError, match="line 2: .*is a quote left open"):
            imdb.read(path)
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("seed", range(2))
def test_random_tables_are_read_or_refused(tmp_path, seed):
    rng, read = random.Random(seed), 0
    for _ in range(60):
        case = fuzzed.reviews(rng, tmp_path)
        found = fuzzed.outcome(lambda case=case: fuzzed.read_reviews(*case))
        assert found in ("accepted", "refused"), case[0].read_bytes()[:500]
        read += found == "accepted"
    assert read > 3
