"""Pairs of texts, from files or made of numbers, and the codes of their pieces."""

import contextlib
import csv
import gzip
import hashlib
import heapq
import itertools
import lzma
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gradlab._files import expand
from gradlab._names import choose, shorten, show
from gradlab.applications._tables import rows_of

PADDING, OTHER, END = 0, 1, 2
"""The codes of no piece at all, of a character that the vocabulary lacks, and of a text's end."""
_FIRST = 3

PARTS = ("train", "validation", "test")

# A word with the blank before it, or a single mark: joined again, they are the text.
_WORD = re.compile(r" ?[^\W_]+| ?[\W_]")


def normalize(text: str) -> str:
    """A text in lower case, with single blanks and straight quotes: what the models read and write.

    >>> normalize("  It\u2019s  RED. ")
    "it's red."
    """
    return " ".join(text.translate(_SIGNS).lower().split())


_SIGNS = str.maketrans("\u2018\u2019\u201c\u201d\u201e", '\'\'"""')


class Pairs(NamedTuple):
    """Texts and their translations.

    Attributes:
        sources: what is read.
        targets: what is to be written, as many.
        parts: of each pair, one of `PARTS`.
        name: where they come from.
    """

    sources: list[str]
    targets: list[str]
    parts: list[str]
    name: str

    def part(self, name: str) -> "Pairs":
        """The pairs of one part.

        Raises:
            ValueError: for an unknown name, or a part without a pair.
        """
        choose("part", name, PARTS)
        rows = [i for i, part in enumerate(self.parts) if part == name]
        if not rows:
            raise ValueError(f"{self.name}: no pair is in the part {name}")
        sources, targets, parts = ([column[i] for i in rows] for column in self[:3])
        return Pairs(sources, targets, parts, self.name)

    def describe(self) -> str:
        """One line on what there is."""
        counts = Counter(self.parts)
        each = ", ".join(f"{counts[part]:,} {part}" for part in PARTS if counts[part])
        return f"{len(self.sources):,} pairs of {self.name}: {each}"


def part_of(text: str) -> str:
    """The part that a pair belongs to by its source: 1 of 20 is for test, 1 of 20 validation.

    It depends on nothing but the text, as `normalize` leaves it, so that no text is in two parts.

    >>> Counter(part_of(str(n)) for n in range(1000)).most_common()
    [('train', 912), ('validation', 45), ('test', 43)]
    """
    place = hashlib.sha256(normalize(text).encode()).digest()[0] % 20
    return {0: "test", 1: "validation"}.get(place, "train")


def numbers(
    source: str = "en", target: str = "pt", count: int = 10_000, most: int = 999_999, seed: int = 0
) -> Pairs:
    """Numbers in the words of two languages, made by num2words.

    All numbers below 1,000 and others drawn evenly in the logarithm, so that short and long ones
    both occur. None is in two parts.

    Args:
        source: a language of num2words, such as en, pt, pt_BR, fr, de.
        target: another.
        count: how many different numbers.
        most: the largest.
        seed: of the draw.

    Raises:
        ValueError: for an unknown language, or fewer numbers than `count`.
        ImportError: where num2words is not installed.

    >>> pairs = numbers(count=300)
    >>> pairs.sources[204], pairs.targets[204]
    ('two hundred and four', 'duzentos e quatro')
    """
    words = [_numeral(language) for language in (source, target)]
    if not 1 <= count <= most + 1:
        raise ValueError(f"there are {most + 1:,} numbers up to {most:,}, and {count:,} are wanted")
    random = np.random.RandomState(seed)
    choices = dict.fromkeys(range(min(count, most + 1, 1000)))
    while len(choices) < count:
        draws = np.exp(random.uniform(0, np.log(most + 1), count)).astype(int)
        choices |= dict.fromkeys(draws[: 10 * count].tolist())
    values = sorted(list(choices)[:count])
    sources, targets = ([normalize(word(n)) for n in values] for word in words)
    parts = [part_of(text) for text in sources]
    return Pairs(sources, targets, parts, f"numbers in words, {source} to {target}")


def _numeral(language: str) -> Callable[[int], str]:
    """The words of a number in one language."""
    try:
        import num2words
    except ImportError as error:
        raise ImportError("numbers in words need num2words: pip install num2words") from error
    choose("language", language, num2words.CONVERTER_CLASSES)

    def words(number: int) -> str:
        try:
            return num2words.num2words(number, lang=language)
        except Exception as error:  # each of its languages has its own way to give up
            raise ValueError(
                f"num2words has no words for {number:,} in {language} ({shorten(str(error), 80)})"
            ) from None

    return words


_OPENERS: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open}


def read(paths: Sequence[str | Path], source: str = "en", target: str = "fr") -> Pairs:
    """Pairs from one file of tab-separated columns, or from two files line by line.

    A table's first line may name its columns: then `source` and `target` are two of these, and a
    column `split` says train, validation (or val, valid, dev) or test. Without such a line there
    are two columns, source and target. Without a column `split` the parts are those of `part_of`.
    The names may end with .gz or .xz.

    Args:
        paths: one file, or two.
        source: the name of a column, or of the first file's language.
        target: the other.

    Raises:
        ValueError: for a file that is not UTF-8 or a line that lacks a column, with its number;
            for files of unequal length; for an unknown column or part; for no pair at all.
        OSError: for a file that cannot be read.
    """
    if len(paths) == 2:
        return _of_two(*map(expand, paths))
    if len(paths) != 1:
        raise ValueError(f"give one file of tab-separated pairs, or two files; got {len(paths)}")
    path = expand(paths[0])
    rows = rows_of(path, lines(path), delimiter="\t", quoting=csv.QUOTE_NONE)
    first = next(rows, None)
    if first is None:
        raise ValueError(f"{path}: there is no pair in it")
    header = [name.strip().lower() for name in first[1]]
    has_names = source in header and target in header
    if not has_names and (source in header or target in header):
        raise ValueError(
            f"{path}: its first line names {', '.join(map(show, header[:20]))}, and not both "
            f"{show(source)} and {show(target)}; name two of its columns as source and target"
        )
    if not has_names and (len(header) != 2 or "split" in header):
        # A line of names, one of which is misspelt.
        for language in (source, target):
            choose(f"language of {path.name}", language, [n for n in header if n != "split"][:20])
    columns = [header.index(source), header.index(target)] if has_names else [0, 1]
    split = header.index("split") if has_names and "split" in header else None
    pairs: list[tuple[str, str, str]] = []
    for number, row in rows if has_names else itertools.chain([first], rows):
        if not any(cell.strip() for cell in row):
            continue
        where = f"{path}, line {number}"
        if len(row) != len(header):
            raise ValueError(f"{where}: {len(row)} columns instead of {len(header)}")
        pair = [row[column] for column in columns]
        pairs.append((*_pair(pair, where), "" if split is None else _part(row[split], where)))
    return _pairs(pairs, str(path))


def _of_two(source: Path, target: Path) -> Pairs:
    sides = [list(lines(path)) for path in (source, target)]
    if len(sides[0]) != len(sides[1]):
        raise ValueError(
            f"{source} has {len(sides[0]):,} lines and {target} {len(sides[1]):,}: "
            "line i of one must be the translation of line i of the other"
        )
    rows = enumerate(zip(*sides, strict=True), 1)
    pairs = [(*_pair(row, f"line {n} of {source} and {target}"), "") for n, row in rows if any(row)]
    return _pairs(pairs, f"{source} and {target}")


def _pair(texts: Sequence[str], where: str) -> tuple[str, str]:
    if not all(text.strip() for text in texts):
        raise ValueError(f"{where}: one text of the pair is empty")
    return texts[0], texts[1]


_NAMES = {"val": "validation", "valid": "validation", "dev": "validation", "training": "train"}


def _part(name: str, where: str) -> str:
    name = name.strip().lower()
    name = _NAMES.get(name, name)
    if name not in PARTS:
        raise ValueError(f"{where}: split is {show(name)}; valid: {', '.join(PARTS)}")
    return name


def _pairs(pairs: list[tuple[str, str, str]], name: str) -> Pairs:
    if not pairs:
        raise ValueError(f"{name}: there is no pair in it")
    sources, targets, parts = map(list, zip(*pairs, strict=True))
    parts = [part or part_of(source) for part, source in zip(parts, sources, strict=True)]
    return Pairs(sources, targets, parts, name)


def lines(path: Path) -> Iterator[str]:
    """The lines of a text file in UTF-8, also one that is packed by gzip or xz.

    Raises:
        ValueError: for a line that is not UTF-8, or a damaged archive.
        OSError: for a file that cannot be read.
    """
    opener = _OPENERS.get(path.suffix.lower(), open)
    number = 0
    try:
        with contextlib.closing(opener(path, "rb")) as file:
            for number, line in enumerate(file, 1):
                yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}, line {number}: not UTF-8 ({error.reason})") from None
    except (lzma.LZMAError, EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: damaged after line {number} ({error})") from None
    except OSError as error:
        raise OSError(f"{path}: cannot be read ({error.strerror or error})") from None


class Vocabulary(NamedTuple):
    """Pieces of words that have a code: that of `pieces[i]` is i + 3.

    Attributes:
        pieces: the characters, and what `merges` make of them.
        merges: pairs of pieces that are joined, those first that were learnt first.
    """

    pieces: tuple[str, ...]
    merges: tuple[tuple[str, str], ...]

    @property
    def size(self) -> int:
        """The number of codes, those for padding, unknown characters and the end included."""
        return len(self.pieces) + _FIRST


def vocabulary(texts: Iterable[str], size: int = 4000, least: int = 2) -> Vocabulary:
    """Learn pieces by joining, again and again, the two neighbours that stand together most often.

    A word takes its blank along, so that pieces joined are the text again. Of several pairs that
    occur as often, the first in alphabetical order is joined.

    Args:
        texts: what to learn from, as `normalize` leaves them.
        size: the most pieces.
        least: a pair that occurs less often than this is not joined.

    >>> learnt = vocabulary(["the red hat", "the red cat"], size=20)
    >>> encode(learnt, "the red bat")
    [16, 14, 3, 1, 17]
    >>> decode(learnt, [16, 14])
    'the red'

    Source: Sennrich, Haddow & Birch, "Neural machine translation of rare words with subword units"
    (2016), section 3.2.
    """
    counts = Counter(word for text in texts for word in _WORD.findall(f" {text}"))
    words = [list(word) for word in counts]
    often = list(counts.values())
    pieces = dict.fromkeys(sorted({letter for word in words for letter in word}))
    pairs: Counter[tuple[str, str]] = Counter()
    places: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for i, word in enumerate(words):
        for pair in zip(word, word[1:], strict=False):
            pairs[pair] += often[i]
            places[pair].add(i)
    # The counts in the heap may be out of date: what is taken out is compared with `pairs`.
    heap = [(-count, pair) for pair, count in pairs.items()]
    heapq.heapify(heap)
    merges = []
    while heap and len(pieces) < size:
        count, best = heapq.heappop(heap)
        if -count != pairs[best]:
            if pairs[best] > 0:
                heapq.heappush(heap, (-pairs[best], best))
            continue
        if -count < least:
            break
        merges.append(best)
        pieces["".join(best)] = None
        changes: Counter[tuple[str, str]] = Counter()
        for i in places.pop(best):
            before, words[i] = words[i], _join(words[i], best)
            for pair in zip(before, before[1:], strict=False):
                changes[pair] -= often[i]
            for pair in zip(words[i], words[i][1:], strict=False):
                changes[pair] += often[i]
                places[pair].add(i)
        for pair, change in changes.items():
            pairs[pair] += change
            if change > 0:
                heapq.heappush(heap, (-pairs[pair], pair))
        del pairs[best]
    return Vocabulary(tuple(pieces), tuple(merges))


def _join(word: list[str], pair: tuple[str, str]) -> list[str]:
    """The word with each occurrence of the pair as one piece, from the left."""
    out, i = [], 0
    while i < len(word):
        if tuple(word[i : i + 2]) == pair:
            out.append(word[i] + word[i + 1])
            i += 2
        else:
            out.append(word[i])
            i += 1
    return out


class Encoder:
    """Cuts texts into the pieces of a vocabulary; a word is cut once and remembered."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._codes = {piece: code for code, piece in enumerate(vocabulary.pieces, _FIRST)}
        self._ranks = {pair: rank for rank, pair in enumerate(vocabulary.merges)}
        self._known: dict[str, list[int]] = {}

    def __call__(self, text: str) -> list[int]:
        """The codes of a text, without the one for its end; none for an empty text."""
        if not text:
            return []
        return [code for word in _WORD.findall(f" {text}") for code in self._word(word)]

    def _word(self, word: str) -> list[int]:
        if word not in self._known:
            pieces = list(word)
            while len(pieces) > 1:
                pairs = zip(pieces, pieces[1:], strict=False)
                best = min(pairs, key=lambda pair: self._ranks.get(pair, len(self._ranks)))
                if best not in self._ranks:
                    break
                pieces = _join(pieces, best)
            self._known[word] = [self._codes.get(piece, OTHER) for piece in pieces]
        return self._known[word]


def encode(vocabulary: Vocabulary, text: str) -> list[int]:
    """The codes of the pieces of one text, without the one for its end."""
    return Encoder(vocabulary)(text)


def decode(vocabulary: Vocabulary, codes: Iterable[int]) -> str:
    """The text of some codes up to the first `END`; characters without a code are left out."""
    pieces = []
    for code in codes:
        if code == END:
            break
        if code >= _FIRST:
            pieces.append(vocabulary.pieces[code - _FIRST])
    return "".join(pieces).strip()


def array(rows: Sequence[Sequence[int]], length: int, reverse: bool = False) -> np.ndarray:
    """Rows of codes, each with `END` after it and padding up to `length`.

    With `reverse` the last code stands first, and `END` stays at the end.

    >>> array([[5, 6], [7]], 4).tolist()
    [[5, 6, 2, 0], [7, 2, 0, 0]]
    """
    out = np.full((len(rows), length), PADDING, np.int32)
    for row, codes in zip(out, rows, strict=True):
        row[: len(codes) + 1] = [*(codes[::-1] if reverse else codes), END]
    return out
