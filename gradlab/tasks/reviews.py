"""Real text as input: movie reviews, character by character.

The corpus is 10,568 movie-review snippets with a sentiment rating, shipped with the package
(data/NOTICE.md says where they come from and under which licence). A character that occurs at least
`RARE` times, upper and lower case apart, has its own code; all others share the last code. Reviews
are joined in one fixed shuffled order, each closed by a newline, into one ring of codes; a sequence
starts at the beginning of a random review and runs on through the ring, so any length works. Each
code is embedded by one fixed random vector per number of features.

Nothing is read before the first call; after it the codes (1.2 MB) and the embeddings stay in host
memory as read-only NumPy arrays. A jitted program that calls `reviews(key, ...)` holds the codes
as a constant: its text grows by about 2.4 MB, while compile and run times hardly change. Where
that matters, pass `corpus()` in as an argument of the jitted function, and on to `corpus=`.

Source: C. J. Hutto and E. Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis
of Social Media Text", ICWSM 2014.
"""

import bz2
from functools import lru_cache
from importlib import resources
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gradlab.tasks import _checks
from gradlab.tasks.base import register_input

FILE = "movie_review_snippets.tsv.bz2"
SHA256 = "7f4b94d90bcf71512ad747f8c3c5d10ae6b0263213c711b620aeb723298d6480"
RARE = 10
OTHER = "\N{REPLACEMENT CHARACTER}"

_ORDER_SEED = 2014
_EMBEDDING_SEED = 10568


class Corpus(NamedTuple):
    """The joined reviews: a pytree, so that it can be an argument of a jitted function."""

    codes: Int[Array | np.ndarray, " characters"]
    starts: Int[Array | np.ndarray, " reviews"]


def snippets() -> tuple[list[str], np.ndarray]:
    """The labelled snippets, in the order of the source.

    Returns:
        texts, a list of strings without newlines, and positive, a boolean array of the same
        length: whether the mean rating is above 0. (Ratings of exactly 0 are not in the file.)

    >>> texts, positive = snippets()
    >>> len(texts), int(positive.sum())
    (10568, 5242)
    >>> texts[2], bool(positive[2])
    ('Effective but too tepid biopic', False)
    """
    archive = resources.files("gradlab.tasks").joinpath("data", FILE).read_bytes()
    lines = bz2.decompress(archive).decode("utf-8").removesuffix("\n").split("\n")
    ratings, texts = zip(*(line.split("\t") for line in lines), strict=True)
    return list(texts), np.array(ratings, dtype=np.float64) > 0


class _Encoding(NamedTuple):
    corpus: Corpus
    vocabulary: tuple[str, ...]
    frequencies: np.ndarray


@lru_cache(maxsize=1)
def _encode() -> _Encoding:
    texts, _ = snippets()
    # RandomState: its streams are frozen for good, those of Generator may change with NumPy.
    order = np.random.RandomState(_ORDER_SEED).permutation(len(texts))
    lines = [texts[i] + "\n" for i in order]
    points = np.frombuffer("".join(lines).encode("utf-32-le"), dtype="<u4")

    counts = np.bincount(points)
    frequent = np.flatnonzero(counts >= RARE)
    code_of = np.full(counts.size, frequent.size, dtype=np.uint8)
    code_of[frequent] = np.arange(frequent.size, dtype=np.uint8)
    codes = code_of[points]

    lengths = [len(line) for line in lines]
    starts = np.cumsum([0, *lengths[:-1]]).astype(np.int32)
    vocabulary = (*(chr(point) for point in frequent), OTHER)
    frequencies = np.bincount(codes, minlength=len(vocabulary)) / codes.size
    for array in (codes, starts, frequencies):
        array.flags.writeable = False
    return _Encoding(Corpus(codes, starts), vocabulary, frequencies)


def corpus() -> Corpus:
    """The joined reviews as host arrays: the ring of codes, and where each review starts in it.

    >>> codes, starts = corpus()
    >>> print(decode(codes[starts[2] : starts[3]]), end="")  # one review and its newline
    Don't waste your money.
    """
    return _encode().corpus


def vocabulary() -> tuple[str, ...]:
    """The characters, by code: in order of code points, and last the one for all rare ones.

    >>> len(vocabulary()), vocabulary()[:3]
    (81, ('\\n', ' ', '!'))
    """
    return _encode().vocabulary


def decode(codes: Int[Array | np.ndarray, " length"]) -> str:
    """The text of a sequence of codes, a replacement character for each rare one."""
    return "".join(np.asarray(vocabulary())[np.asarray(codes)])


@lru_cache(maxsize=32)
def embedding(features: int) -> Float[np.ndarray, "codes features"]:
    """The fixed random projection E, one row per code, in float64.

    E_ci = (w_ci − m_i) / s_i, with w_ci ~ N(0, 1) fixed and m_i, s_i the mean and the standard
    deviation of w_ci over the corpus's distribution of characters p: for each feature i,
    Σ_c p_c E_ci = 0 and Σ_c p_c E_ci² = 1. Features are linear in at most len(vocabulary()) − 1
    directions, so with more features than that they are linearly dependent.

    Args:
        features: the number of features, at least 1.

    Raises:
        ValueError: if features is below 1.

    >>> embedding(32).shape == (len(vocabulary()), 32)
    True
    """
    _checks.positive(features=features)
    p = _encode().frequencies
    w = np.random.RandomState(_EMBEDDING_SEED).standard_normal((p.size, features))
    w -= p @ w
    w /= np.sqrt(p @ w**2)
    w.flags.writeable = False
    return w


def characters(
    key: PRNGKeyArray, length: int, *, corpus: Corpus | None = None
) -> Int[Array, " length"]:
    """The codes of a random stretch of the joined reviews, from the beginning of a review on.

    Args:
        key: picks the review, uniformly; the same key gives the same stretch, and a shorter one
            is the beginning of a longer one.
        length: the number of characters, at least 1; after the last review comes the first.
        corpus: what `corpus()` returns, where it should be an argument of a jitted function.

    Raises:
        ValueError: if length is below 1.

    >>> import jax
    >>> print(decode(characters(jax.random.key(0), length=53)))
    A sermonizing and lifeless paean to teenage dullards.
    """
    _checks.positive(length=length)
    corpus = _encode().corpus if corpus is None else corpus
    codes, starts = jnp.asarray(corpus.codes), jnp.asarray(corpus.starts)
    # int32 whatever jax_enable_x64 says, so that both settings draw the same review.
    start = starts[jax.random.randint(key, (), 0, starts.size, dtype=jnp.int32)]
    return codes[(start + jnp.arange(length, dtype=starts.dtype)) % codes.size]


@register_input
def reviews(
    key: PRNGKeyArray,
    length: int,
    features: int,
    dtype=None,
    *,
    corpus: Corpus | None = None,
) -> Float[Array, "length features"]:
    """A sequence of embedded characters, x_t = E[c_t], from a random review on.

    Every feature has mean 0 and variance 1 under the corpus's distribution of characters. Unlike
    Gaussian input, steps are correlated in time, as text is, and features with one another.

    Args:
        key: picks the review to start at; see `characters`, which gives the codes c_t.
        length: the number of steps T, at least 1.
        features: the size of each x_t, at least 1; see `embedding`, which gives the matrix E.
        dtype: a floating type; JAX's default float if None.
        corpus: what `corpus()` returns, where it should be an argument of a jitted function.

    Returns:
        xs of shape (length, features), no unit. A shorter sequence from the same key is the
        beginning of the longer one.

    Raises:
        ValueError: if length or features is below 1, or dtype is not floating.

    >>> import jax
    >>> keys = jax.random.split(jax.random.key(0), 4)
    >>> jax.jit(jax.vmap(lambda key: reviews(key, length=100, features=32)))(keys).shape
    (4, 100, 32)
    >>> batch = jax.jit(
    ...     lambda corpus, keys: jax.vmap(lambda key: reviews(key, 100, 32, corpus=corpus))(keys)
    ... )
    >>> batch(corpus(), keys).shape
    (4, 100, 32)
    """
    _checks.positive(length=length, features=features)
    table = jnp.asarray(embedding(features), dtype=_checks.floating(dtype))
    return table[characters(key, length, corpus=corpus)]
