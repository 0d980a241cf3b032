"""From a review to codes: tokens, the vocabulary, and arrays that end where the reviews end."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from gradlab._names import choose

PADDING, OTHER = 0, 1
"""The codes that stand for no word at all, and for every word that the vocabulary lacks."""
_FIRST = 2

_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?|[:;=]-?[()]|[!?.,;:()\"]")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
# Phones write other apostrophes and quotes than keyboards do, and faces as single signs.
_GOOD = "😀😃😄😁😆😊🙂😉😍🥰😘😎🤩😂🤣👍👏🙌💯🎉❤💕💖♥⭐☺"
_BAD = "😞😢😭😡😠🤬😤😒🙁☹😣😖😩😫🥱😴🤮🤢👎💩💔"
_SIGNS = str.maketrans(
    dict.fromkeys("\u2018\u2019\u02bc\u00b4\uff07`", "'")
    | dict.fromkeys("\u201c\u201d\u201e", '"')
    | {"\u2026": "..."}
    | dict.fromkeys(_GOOD, " :) ")
    | dict.fromkeys(_BAD, " :( ")
)


def words(text: str) -> list[str]:
    """The words in lower case, marks of punctuation and faces, each a token of its own.

    Curly apostrophes and quotes are straight ones; emoji of mood are `:)` or `:(`.

    >>> words("It wasn\u2019t bad...<BR />GREAT! \U0001f60d")
    ['it', "wasn't", 'bad', '.', '.', '.', 'great', '!', ':)']
    """
    return _WORD.findall(_BREAK.sub(" ", text).translate(_SIGNS).lower())


def sentences(text: str) -> list[str]:
    """The sentences of a text: parts that end with `.`, `!` or `?` before white space.

    >>> sentences("Good. Very good!<br />Or not?")
    ['Good.', 'Very good!', 'Or not?']
    """
    return [part for part in _SENTENCE.split(_BREAK.sub(" ", text).strip()) if part]


def characters(text: str) -> list[str]:
    """The characters, each a token, case kept and white space as single blanks.

    >>> characters("So  bad<br />")
    ['S', 'o', ' ', 'b', 'a', 'd']
    """
    return list(" ".join(_BREAK.sub(" ", text).split()))


UNITS: dict[str, Callable[[str], list[str]]] = {"words": words, "characters": characters}


class Vocabulary(NamedTuple):
    """The tokens that have a code of their own: the code of `tokens[i]` is i + 2.

    Attributes:
        unit: what a text is cut into, one of `UNITS`.
        grams: 1 for single tokens; 2 for pairs of neighbours as well, joined by a blank.
        tokens: the tokens, and pairs, that occurred most often.
    """

    unit: str
    grams: int
    tokens: tuple[str, ...]

    @property
    def size(self) -> int:
        """The number of codes, those for padding and for other tokens included."""
        return len(self.tokens) + _FIRST


def vocabulary(
    texts: Iterable[str], unit: str = "words", size: int = 15_000, grams: int = 1
) -> Vocabulary:
    """The vocabulary of the `size` tokens (and pairs, with `grams=2`) that are in most texts.

    Tokens that are in as many texts as each other stand in alphabetical order.

    Raises:
        ValueError: for an unknown unit, or `grams` other than 1 and 2.

    >>> vocabulary(["a good film", "a bad film", "a film"], size=3, grams=2).tokens
    ('a', 'film', 'a bad')
    """
    choose("unit", unit, UNITS)
    if grams not in (1, 2):
        raise ValueError(f"grams must be 1 or 2, got {grams}")
    counts: Counter[str] = Counter()
    for text in texts:
        tokens = UNITS[unit](text)
        counts.update(set(tokens))
        if grams == 2:
            counts.update(set(_pairs(tokens)))
    ranking = sorted(counts, key=lambda token: (-counts[token], token))
    return Vocabulary(unit, grams, tuple(ranking[:size]))


def _pairs(tokens: Sequence[str]) -> list[str]:
    return [f"{a} {b}" for a, b in zip(tokens, tokens[1:], strict=False)]


def encode(
    vocabulary: Vocabulary, texts: Sequence[str], length: int
) -> Int[np.ndarray, "reviews length grams"]:
    """The codes of the last `length` tokens of each text, with the padding in front.

    Row t-1 belongs to step t: [..., 0] is the code of the token, and [..., 1], with
    `vocabulary.grams == 2`, that of the pair which ends there, or `PADDING` where it has none.
    The last token stands in the last row, so the lag T - t is the distance from the text's end.

    Raises:
        ValueError: for an empty text, which it names by its place, counted from 1.

    >>> v = vocabulary(["a good film"], size=3)
    >>> encode(v, ["a bad film"], length=5)[0, :, 0].tolist()  # PADDING, a, OTHER, film
    [0, 0, 2, 1, 3]
    """
    code_of = {token: code for code, token in enumerate(vocabulary.tokens, _FIRST)}
    codes = np.full((len(texts), length, vocabulary.grams), PADDING, np.int32)
    for i, text in enumerate(texts):
        if not text.strip():
            raise ValueError(f"review {i + 1} is empty: {text[:40]!r}")
        # A text of signs that no token is made of is one unknown token.
        tokens = UNITS[vocabulary.unit](text) or [text]
        row = codes[i, -len(tokens) :]
        row[:, 0] = [code_of.get(token, OTHER) for token in tokens[-length:]]
        if vocabulary.grams == 2 and len(row) > 1:
            row[1:, 1] = [code_of.get(pair, PADDING) for pair in _pairs(tokens[-length:])]
    return codes
