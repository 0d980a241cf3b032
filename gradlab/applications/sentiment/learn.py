"""Training a classifier of reviews, and what it then says: accuracy, labels, gradients."""

import bisect
import hashlib
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from gradlab import training
from gradlab.applications._training import optimizer, order_by_length
from gradlab.applications.sentiment import models
from gradlab.applications.sentiment.data import (
    OTHER,
    PADDING,
    UNITS,
    Vocabulary,
    encode,
    vocabulary,
)
from gradlab.applications.sentiment.models import Model, Params
from gradlab.applications.sentiment.recipes import Recipe, check
from gradlab.tracing import trace

LABELS = ("negative", "positive")
UNDECIDED = "undecided"
KNOWN_SHARE = 0.5
"""The share of a text's words that must be known. With the package's model all of 19,906 reviews of
IMDb and 99.9 % of 3,000 English captions of Multi30k reach it, of the same captions in French 6 %
and in German 1 %."""

# A batch of short reviews skips the parts of the length that are padding in all of them. Each part
# is one more program to compile.
PARTS = 5
_SHORTEST = 80
_BATCH = 256


class Classifier(NamedTuple):
    """A trained model with all that it needs to read a text.

    Attributes:
        recipe: how it was made.
        vocabulary: the codes of the tokens.
        model: the bundle of functions, made from both.
        params: its parameters.
        seen: hashes of the reviews that it was trained on; empty if not known. See `unseen`.
    """

    recipe: Recipe
    vocabulary: Vocabulary
    model: Model
    params: Params
    seen: np.ndarray = np.zeros(0, np.uint64)


class Evaluation(NamedTuple):
    """How well a classifier does.

    Attributes:
        accuracy: the share of the reviews whose label it says.
        confusion: counts (2, 2): the rows are the labels, the columns what it says, each in
            the order of `LABELS`.
    """

    accuracy: float
    confusion: Int[np.ndarray, "2 2"]


class Batch(NamedTuple):
    """Some reviews: codes (B, T, grams), labels (B,), how many parts are all padding, a key."""

    codes: Array
    positive: Array
    skip: Array
    key: PRNGKeyArray


def build(recipe: Recipe, vocabulary: Vocabulary) -> Model:
    """The model of a recipe, for a vocabulary."""
    return models.make(recipe.model, vocabulary.size, **recipe.options)


def _starts(length: int) -> list[int]:
    return list(range(0, length, max(-(-length // PARTS), _SHORTEST)))


def logits(
    model: Model, params: Params, codes: Array, skip: Array, key: PRNGKeyArray | None = None
) -> Float[Array, " batch"]:
    """The logits of a batch whose first `skip` parts (of `PARTS`) are padding in every review.

    The parts are cut off before the model sees them, which changes nothing but the time.
    """
    keys = None if key is None else jax.random.split(key, len(codes))

    def shorter(start: int) -> Callable[[], Array]:
        return lambda: jax.vmap(model.logit, in_axes=(None, 0, None if keys is None else 0))(
            params, codes[:, start:], keys
        )

    return jax.lax.switch(skip, [shorter(start) for start in _starts(codes.shape[1])])


def _skip(length: int, longest: int) -> int:
    """How many parts are padding in every review, where the longest has so many tokens."""
    return bisect.bisect_right(_starts(length), length - longest) - 1


def batch_loss(
    model: Model, word_dropout: float = 0.0, pair_dropout: float = 0.0
) -> Callable[[Params, Batch], Float[Array, ""]]:
    """The mean cross-entropy of a batch, in nats: -ln p of each review's own label.

    The shares of tokens and of pairs that are dropped are those of `Recipe`.
    """

    def loss(params: Params, batch: Batch) -> Array:
        k_words, k_pairs, k_units = jax.random.split(batch.key, 3)
        words, pairs = batch.codes[..., 0], batch.codes[..., 1:]
        drops = jax.random.bernoulli(k_words, word_dropout, words.shape)
        without = drops | jax.random.bernoulli(k_pairs, pair_dropout, words.shape)
        words = jnp.where(drops & (words != PADDING), OTHER, words)
        pairs = jnp.where(without[..., None], PADDING, pairs)
        codes = jnp.concatenate([words[..., None], pairs], axis=-1)
        z = logits(model, params, codes, batch.skip, k_units)
        return optax.sigmoid_binary_cross_entropy(z, batch.positive.astype(z.dtype)).mean()

    return loss


def _batch(
    codes: Array, positive: Array, order: Array, skips: Array, key: PRNGKeyArray, step: Array
) -> Batch:
    rows = order[step]
    return Batch(codes[rows], positive[rows], skips[step], key)


def train(
    recipe: Recipe,
    texts: Sequence[str],
    positive: Bool[np.ndarray, " reviews"],
    *,
    seed: int = 0,
    watch: Callable[[int, Classifier, float], None] | None = None,
) -> Classifier:
    """Train a classifier of reviews by `gradlab.training`'s loop.

    Args:
        recipe: what to train and how.
        texts: the reviews.
        positive: which of them are positive, (n,).
        seed: of the parameters, the batches and the dropout.
        watch: called before the first epoch and after each, with the epochs made, the classifier so
            far and the mean loss of that epoch in nats (NaN at first).

    Raises:
        ValueError: for a recipe that nobody could train by; where there is no review, one is
            empty, or all have the same label; and where a loss or a parameter is not finite, with
            the first update that gave it.

    >>> tiny = Recipe("bag_of_words", {}, tokens=10, length=5, batch=2, epochs=20, rate=0.1)
    >>> classifier = train(tiny, ["good film", "bad film"] * 4, np.array([True, False] * 4))
    >>> predict(classifier, "a good film")[0]
    'positive'
    """
    check(recipe)
    positive = _check(texts, positive)
    if positive.all() or not positive.any():
        label = LABELS[int(positive[0])]
        raise ValueError(f"all {len(texts)} reviews are {label}: nothing to learn")
    words = vocabulary(texts, recipe.unit, recipe.tokens, recipe.grams)
    model = build(recipe, words)
    codes = encode(words, texts, recipe.length)
    lengths = (codes[..., 0] != PADDING).sum(1)

    random = np.random.RandomState(seed)
    batch = min(recipe.batch, len(texts))
    orders = [order_by_length(lengths, batch, random) for _ in range(max(recipe.epochs, 1))]
    per_epoch = len(orders[0])
    order = np.concatenate(orders)
    longest = lengths[order].max(1)
    skips = np.array([_skip(recipe.length, n) for n in longest], np.int32)
    arrays = (jnp.asarray(x) for x in (codes, positive, order.astype(np.int32), skips))
    sample = jax.tree_util.Partial(_batch, *arrays)

    k_params, k_run = jax.random.split(jax.random.key(seed))
    adam = optimizer(recipe, per_epoch)
    loss = batch_loss(model, recipe.word_dropout, recipe.pair_dropout)
    state = training.start(model.init(k_params), adam, k_run)
    advance = jax.jit(lambda sample, state: training.advance(loss, sample, adam, state, per_epoch))
    classifier = Classifier(recipe, words, model, state.params, hashes(texts))
    if watch is not None:
        watch(0, classifier, math.nan)
    for epoch in range(1, recipe.epochs + 1):
        state, records = advance(sample, state)
        if bad := int(state.first_nonfinite_step):
            raise ValueError(f"{recipe.model}: update {bad} gave a loss or weights without a value")
        classifier = classifier._replace(params=state.params)
        if watch is not None:
            watch(epoch, classifier, float(records.metrics["loss"].mean()))
    return classifier


def _check(texts: Sequence[str], positive: Bool[np.ndarray, " reviews"]) -> np.ndarray:
    positive = np.asarray(positive)
    if not len(texts):
        raise ValueError("there is no review in this part of the data")
    if positive.dtype != bool or positive.shape != (len(texts),):
        raise ValueError(
            f"{len(texts)} reviews need as many labels, True or False; "
            f"got {positive.dtype} of shape {positive.shape}"
        )
    return positive


_logits = jax.jit(logits, static_argnums=0)


def scores(classifier: Classifier, texts: Sequence[str]) -> Float[np.ndarray, " reviews"]:
    """The logits ln p/(1-p) of some texts, p the probability that a text is positive.

    Raises:
        ValueError: for a text without a token.
    """
    out = np.empty(len(texts))
    if not len(texts):
        return out
    codes = encode(classifier.vocabulary, texts, classifier.recipe.length)
    lengths = (codes[..., 0] != PADDING).sum(1)
    longest_last = np.argsort(lengths, kind="stable")
    size = min(_BATCH, len(texts))
    for i in range(0, len(texts), size):
        indices = longest_last[i : i + size]
        # The last rows are repeated, so that every batch has one shape and is compiled once.
        rows = codes[np.resize(indices, size)]
        skip = _skip(codes.shape[1], lengths[indices].max())
        z = _logits(classifier.model, classifier.params, rows, skip)
        out[indices] = np.asarray(z)[: len(indices)]
    return out


def evaluate(
    classifier: Classifier, texts: Sequence[str], positive: Bool[np.ndarray, " reviews"]
) -> Evaluation:
    """The accuracy on labelled reviews, and the confusion matrix. A logit above 0 says positive.

    Raises:
        ValueError: where there is no review, or one is empty.
    """
    positive = _check(texts, positive)
    says = scores(classifier, texts) > 0
    confusion = np.zeros((2, 2), int)
    np.add.at(confusion, (positive.astype(int), says.astype(int)), 1)
    return Evaluation(float(np.trace(confusion) / len(texts)), confusion)


def hashes(texts: Sequence[str]) -> np.ndarray:
    """64 bits of each text's SHA-256: what `Classifier.seen` holds of the reviews learnt."""
    digests = [hashlib.sha256(text.encode()).digest()[:8] for text in texts]
    return np.frombuffer(b"".join(digests), np.uint64)


def unseen(classifier: Classifier, texts: Sequence[str]) -> Bool[np.ndarray, " reviews"]:
    """Which of the reviews the classifier was not trained on, by hashes of 64 bits.

    >>> tiny = Recipe("bag_of_words", {}, tokens=10, length=5, batch=2, epochs=1)
    >>> classifier = train(tiny, ["good film", "bad film"], np.array([True, False]))
    >>> unseen(classifier, ["bad film", "a new film"]).tolist()
    [False, True]
    """
    return ~np.isin(hashes(texts), classifier.seen)


class Prediction(NamedTuple):
    """What a classifier says of one text.

    Attributes:
        label: positive or negative, or undecided where too few words are known.
        probability: that the model gives to the label; NaN where it is undecided.
        known: how many of the words (or characters) that it reads are in the vocabulary.
        words: how many words it reads, faces counted and marks of punctuation apart.
    """

    label: str
    probability: float
    known: int
    words: int


def judge(logit: float, known: int, count: int) -> Prediction:
    """The label that a logit ln p/(1-p) stands for, where enough of the words are known.

    It is undecided where less than `KNOWN_SHARE` of the words are: a text in another language is
    full of unknown words.

    >>> judge(2.0, 3, 4)
    Prediction(label='positive', probability=0.880797..., known=3, words=4)
    >>> judge(2.0, 1, 4).label
    'undecided'
    """
    if known < KNOWN_SHARE * count or not count:
        return Prediction(UNDECIDED, math.nan, known, count)
    return Prediction(LABELS[logit > 0], float(jax.nn.sigmoid(abs(logit))), known, count)


def predict(classifier: Classifier, texts: str | Sequence[str]) -> Any:
    """What the classifier says of a text, a `Prediction`; or of several, a list of them.

    Raises:
        ValueError: for an empty text.
    """
    if isinstance(texts, str):
        return predict(classifier, [texts])[0]
    logits = scores(classifier, texts)
    counts = _count_known(classifier, texts)
    return [judge(float(z), *row) for z, row in zip(logits, counts, strict=True)]


def _count_known(classifier: Classifier, texts: Sequence[str]) -> list[tuple[int, int]]:
    """Of each text, how many words of what is read are known, and how many there are."""
    vocabulary = frozenset(classifier.vocabulary.tokens)
    recipe = classifier.recipe
    rows = []
    for text in texts:
        read = UNITS[recipe.unit](text)[-recipe.length :]
        # A face has two signs, a mark of punctuation one.
        tokens = [token for token in read if len(token) > 1 or token.isalnum()]
        known = sum(token in vocabulary for token in tokens)
        rows.append((known, len(tokens)))
    return rows


def count_unread(classifier: Classifier, texts: Sequence[str]) -> list[int]:
    """How many tokens at the beginning of each text are not read: all but the last `recipe.length`.

    >>> tiny = Recipe("bag_of_words", {}, tokens=10, length=2, batch=2, epochs=1)
    >>> classifier = train(tiny, ["good film", "bad film"], np.array([True, False]))
    >>> count_unread(classifier, ["a good film", "good"])
    [1, 0]
    """
    recipe = classifier.recipe
    return [max(len(UNITS[recipe.unit](text)) - recipe.length, 0) for text in texts]


class Gradient(NamedTuple):
    """How far back the gradient of the decision reaches, review by review.

    Attributes:
        log_relative: ln(‖λ_t‖ / ‖λ_T‖) in nats, (reviews, T), by lag T - t = 0, 1, …: λ_t is the
            total derivative of the loss by the state after word t. NaN beyond a review's beginning.
        reached: the share of the words read, over all the reviews, where ‖λ_t‖ / ‖λ_T‖ is above
            float32's epsilon, 2^-23.
    """

    log_relative: Float[np.ndarray, "reviews lags"]
    reached: float


EPSILON = math.log(2.0**-23)


@partial(jax.jit, static_argnums=0)
def _adjoints(model: Model, params: Params, codes: Array) -> Array:
    def decision(params: Params, codes: Array) -> Array:
        return jax.vmap(model.logit, in_axes=(None, 0))(params, codes).sum()

    return trace(decision, argnums=(), batch_axis=0)(params, codes).scans[0].log_norm


def gradient(classifier: Classifier, texts: Sequence[str]) -> Gradient:
    """Trace the way of the gradient back through each review, in the cell that reads forwards.

    What is traced is the logit; the loss of a review has the same λ_t but for one factor, which the
    relative norm does not see. For an LSTM the state is (c, h).

    Raises:
        ValueError: for a model without a scan, or a text without a token.
    """
    codes = encode(classifier.vocabulary, texts, classifier.recipe.length)
    log_norm = np.asarray(_adjoints(classifier.model, classifier.params, codes), float).T
    relative = (log_norm - log_norm[:, -1:])[:, ::-1]
    real = (codes[..., 0] != PADDING)[:, ::-1]
    reached = float((relative[real] > EPSILON).mean())
    return Gradient(np.where(real, relative, np.nan), reached)


class Explanation(NamedTuple):
    """What a classifier has in mind while it reads one text; T words (or characters) of it.

    The fields are, in their order, the first arguments of `gradlab.figures.reading`.

    Attributes:
        tokens: the last `recipe.length` tokens of the text, as they are read.
        states: h_t, the state after each word, (T, H); of a model with two directions, of the cell
            that reads forwards.
        gates: name -> (T, H), of the same cell: its `gate_values`.
        log_norm: ln‖λ_t‖ in nats, (T,), with λ_t the total derivative of the logit by the whole
            state after word t: -inf for an exact zero.
        probability: that the text is positive, (T,), if it ended after each word; the last one is
            what `predict` says.
        known: how many of the tokens are in the vocabulary.
    """

    tokens: list[str]
    states: Float[np.ndarray, "T H"]
    gates: dict[str, Float[np.ndarray, "T H"]]
    log_norm: Float[np.ndarray, " T"]
    probability: Float[np.ndarray, " T"]
    known: int


def explain(classifier: Classifier, text: str) -> Explanation:
    """What the classifier remembers, forgets and depends on, word by word.

    Raises:
        ValueError: for a text that is empty, or without a word that the classifier knows, and for a
            model that reads no word after another.

    >>> tiny = Recipe("recurrent", {"hidden": 4}, tokens=10, length=5, batch=2, epochs=1)
    >>> classifier = train(tiny, ["good film", "bad film"], np.array([True, False]))
    >>> found = explain(classifier, "A good film!")
    >>> found.tokens, found.states.shape, sorted(found.gates), found.known
    (['a', 'good', 'film', '!'], (4, 4), ['r', 'z'], 2)
    """
    model, recipe = classifier.model, classifier.recipe
    if model.read is None:
        raise ValueError(f"a {model.name} model has no state to explain: it reads no word in order")
    if not text.strip():
        raise ValueError("there is nothing to explain: the text is empty")
    tokens = UNITS[recipe.unit](text)[-recipe.length :] or [text]
    codes = encode(classifier.vocabulary, [text], len(tokens))[0]
    known = int((codes[:, 0] != OTHER).sum())
    if not known:
        raise ValueError(
            f"none of the {len(tokens)} {recipe.unit} of the text is known to this classifier"
        )
    arrays = jax.device_get(_explain(model, classifier.params, codes))
    states, gates, log_norm, probability = arrays
    return Explanation(tokens, states, gates, log_norm, probability, known)


@partial(jax.jit, static_argnums=0)
def _explain(model: Model, params: Params, codes: Array) -> tuple[Any, ...]:
    assert model.read is not None
    states, gates = model.read(params, codes)
    out = trace(model.logit, argnums=())(params, codes)

    def after(count: Array) -> Array:
        """The logit of the first `count` words, behind as much padding as the others take."""
        row = jnp.arange(len(codes))[:, None]
        left = len(codes) - count
        start = jnp.where(row < left, PADDING, jnp.roll(codes, left, axis=0))
        return model.logit(params, start)

    logits = jax.vmap(after)(jnp.arange(1, len(codes) + 1))
    return states, gates, out.scans[0].log_norm, jax.nn.sigmoid(logits)
