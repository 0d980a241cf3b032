"""Training a translator, and what it then writes: translations, scores, adjoints."""

import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gradlab import training
from gradlab.applications._training import optimizer, order_by_length
from gradlab.applications.translation import data, models
from gradlab.applications.translation.data import END, OTHER, PADDING, Pairs, Vocabulary
from gradlab.applications.translation.models import Memory, Model, Params
from gradlab.applications.translation.recipes import Recipe, check
from gradlab.tracing import trace

# A batch is cut to the shortest of a few lengths that holds its texts; each is a program more.
LEVELS = 5
_BATCH = 64


class Translator(NamedTuple):
    """A trained model with all that it needs to read and write texts.

    Attributes:
        recipe: how it was made.
        languages: names of the source and the target, as they were given.
        source: the codes of what is read.
        target: the codes of what is written.
        model: the bundle of functions, made from these.
        params: its parameters.
    """

    recipe: Recipe
    languages: tuple[str, str]
    source: Vocabulary
    target: Vocabulary
    model: Model
    params: Params


class Batch(NamedTuple):
    """Some pairs: codes (B, L) of both sides, to which level they are cut, a key."""

    source: Array
    target: Array
    level: Array
    key: Array


def build(recipe: Recipe, source: Vocabulary, target: Vocabulary) -> Model:
    """The model of a recipe, for two vocabularies."""
    return models.make(source.size, target.size, **recipe.options)


def cross_entropy(
    logits: Float[Array, "T V"], target: Int[Array, " T"], smoothing: float = 0.0
) -> Float[Array, " T"]:
    """-Σ_v q_v ln p_v of each step in nats, 0 where the target is padding.

    q is 1 - ε at the target and ε/V everywhere besides, with ε = `smoothing`.

    >>> cross_entropy(jnp.zeros((2, 4)), jnp.array([3, 0])).round(3).tolist()  # ln 4
    [1.386..., 0.0]

    Source: Szegedy et al., "Rethinking the inception architecture for computer vision" (2016),
    section 7.
    """
    total = jax.nn.logsumexp(logits, axis=1)
    at_target = jnp.take_along_axis(logits, target[:, None], axis=1)[:, 0]
    loss = total - (1 - smoothing) * at_target - smoothing * logits.mean(1)
    return jnp.where(target == PADDING, 0, loss)


def batch_loss(
    model: Model, levels: Sequence[int], smoothing: float = 0.0
) -> Callable[[Params, Batch], Float[Array, ""]]:
    """The mean cross-entropy of the pieces of a batch, in nats, the end of each text included."""

    def one(params: Params, source: Array, target: Array, key: Array) -> Array:
        k_read, k_write = jax.random.split(key)
        memory = model.read(params, source, k_read)
        logits = model.write(params, memory, target, k_write)
        return cross_entropy(logits, target, smoothing).sum()

    def loss(params: Params, batch: Batch) -> Array:
        keys = jax.random.split(batch.key, len(batch.source))

        def shorter(length: int) -> Callable[[], Array]:
            sides = batch.source[:, :length], batch.target[:, :length]
            return lambda: jax.vmap(one, (None, 0, 0, 0))(params, *sides, keys).sum()

        total = jax.lax.switch(batch.level, [shorter(length) for length in levels])
        return total / (batch.target != PADDING).sum()

    return loss


def _batch(
    source: Array, target: Array, order: Array, levels: Array, key: Array, step: Array
) -> Batch:
    rows = order[step]
    return Batch(source[rows], target[rows], levels[step], key)


def train(
    recipe: Recipe,
    pairs: Pairs,
    *,
    languages: tuple[str, str] = ("source", "target"),
    seed: int = 0,
    watch: Callable[[int, Translator, float], None] | None = None,
) -> Translator:
    """Train a translator by `gradlab.train`.

    Args:
        recipe: what to train and how.
        pairs: all are learnt from: give one part of them.
        languages: names of the source and the target, for those who use the model.
        seed: of the parameters, the batches and the dropout.
        watch: called before the first epoch and after each, with the epochs made, the translator
            so far and the mean loss of that epoch in nats (NaN at first).

    Raises:
        ValueError: for a recipe that nobody could train by, sources and targets of unequal number;
            where no pair is as short as the recipe wants; and where a loss or a parameter is not
            finite, with the first update that gave it.

    >>> tiny = Recipe({"hidden": 16, "embedding": 8}, pieces=30, length=12, epochs=100, rate=0.02)
    >>> pairs = Pairs(["one", "two", "three", "four"], ["um", "dois", "tres", "quatro"], [], "four")
    >>> translate(train(tiny, pairs), ["two", "four"])
    ['dois', 'quatro']
    """
    check(recipe)
    sides = [list(map(data.normalize, texts)) for texts in pairs[:2]]
    if len(sides[0]) != len(sides[1]):
        raise ValueError(f"{len(sides[0])} sources and {len(sides[1])} targets are no pairs")
    vocabularies = [data.vocabulary(texts, recipe.pieces) for texts in sides]
    rows = [
        list(map(data.Encoder(words), texts))
        for words, texts in zip(vocabularies, sides, strict=True)
    ]
    indices = _short(rows, recipe.length, pairs.name)
    if left := len(pairs.sources) - len(indices):
        warnings.warn(
            f"{pairs.name}: {left:,} of {len(pairs.sources):,} pairs have more than "
            f"{recipe.length} pieces on a side and are left out of the training",
            stacklevel=2,
        )
    codes = [
        data.array([side[i] for i in indices], recipe.length + 1, reverse=first and recipe.reverse)
        for first, side in zip((True, False), rows, strict=True)
    ]
    lengths = np.maximum(*((side != PADDING).sum(1) for side in codes))
    order, cuts, per_epoch = _schedule(lengths, recipe, np.random.RandomState(seed))
    levels = _levels(cuts)
    arrays = (*codes, order.astype(np.int32), np.searchsorted(levels, cuts).astype(np.int32))
    sample = jax.tree_util.Partial(_batch, *map(jnp.asarray, arrays))

    source, target = vocabularies
    model = build(recipe, source, target)
    k_params, k_run = jax.random.split(jax.random.key(seed))
    params = model.init(k_params)
    translator = Translator(recipe, languages, source, target, model, params)
    if watch is not None:
        watch(0, translator, math.nan)
    adam = optimizer(recipe, per_epoch)
    loss = batch_loss(model, levels.tolist(), recipe.smoothing)
    state = training.start(params, adam, k_run)
    advance = jax.jit(lambda sample, state: training.advance(loss, sample, adam, state, per_epoch))
    for epoch in range(1, recipe.epochs + 1):
        state, records = advance(sample, state)
        if bad := int(state.first_nonfinite_step):
            raise ValueError(f"update {bad} gave a loss or weights without a value")
        translator = translator._replace(params=state.params)
        if watch is not None:
            watch(epoch, translator, float(records.metrics["loss"].mean()))
    return translator


def _short(rows: list[list[list[int]]], most: int, name: str) -> list[int]:
    """Which pairs have at most so many pieces on both sides."""
    indices = [i for i, pair in enumerate(zip(*rows, strict=True)) if max(map(len, pair)) <= most]
    if not indices:
        raise ValueError(f"{name}: no pair is as short as {most} pieces a side: nothing to learn")
    return indices


def _schedule(
    lengths: np.ndarray, recipe: Recipe, random: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray, int]:
    """The pairs of each update, the longest of them, and the updates per epoch."""
    batch = min(recipe.batch, len(lengths))
    epochs = [order_by_length(lengths, batch, random) for _ in range(max(recipe.epochs, 1))]
    order = np.concatenate(epochs)
    return order, lengths[order].max(1), len(epochs[0])


def _levels(cuts: np.ndarray) -> np.ndarray:
    """The lengths that batches are cut to: of all choices, the one with the least padding.

    A level more must save a twentieth of the steps, or it is not worth the time of compiling it.

    >>> _levels(np.array([3, 3, 3, 3, 9])).tolist()
    [3, 9]
    """
    lengths, counts = np.unique(cuts, return_counts=True)
    longest = int(lengths[-1])
    best, levels = int((counts * longest).sum()), (longest,)
    for more in range(1, LEVELS):
        for shorter in itertools.combinations(lengths[:-1].tolist(), more):
            some = (*shorter, longest)
            steps = int((counts * np.array(some)[np.searchsorted(some, lengths)]).sum())
            if steps < best * (0.95 if len(some) > len(levels) else 1):
                best, levels = steps, some
    return np.array(levels)


def _search(
    model: Model, params: Params, source: Array, beam: int, most: int
) -> tuple[Int[Array, "beam most"], Float[Array, " beam"]]:
    """The `beam` most probable translations that a beam search finds, and their scores.

    The score is ln p divided by the number of pieces, so that short ones have no advantage.
    """
    memory = model.read(params, source)
    ready = params
    size = params["target"].shape[0]
    never = jnp.isin(jnp.arange(size), jnp.array([PADDING, OTHER]))
    only_end = jnp.where(jnp.arange(size) == END, 0.0, -jnp.inf)

    def extend(carry: Any) -> Any:
        t, states, codes, total, done = carry
        before = jnp.where(t > 0, codes[:, jnp.maximum(t - 1, 0)], END)
        states, logits = jax.vmap(lambda s, code: model.step(ready, memory, s, code))(
            states, before
        )
        log_p = jax.nn.log_softmax(jnp.where(never[None], -jnp.inf, logits), axis=1)
        log_p = jnp.where(done[:, None], only_end[None], log_p)
        total, place = jax.lax.top_k((total[:, None] + log_p).ravel(), beam)
        parent, code = place // size, (place % size).astype(codes.dtype)
        states = jax.tree.map(lambda x: x[parent], states)
        codes = codes[parent].at[:, t].set(code)
        return t + 1, states, codes, total, done[parent] | (code == END)

    def continues(carry: Any) -> Array:
        t, _, _, _, done = carry
        return (t < most) & ~done.all()

    states = jax.tree.map(lambda x: jnp.broadcast_to(x, (beam, *x.shape)), memory.state)
    total = jnp.where(jnp.arange(beam) == 0, 0.0, -jnp.inf)
    codes = jnp.full((beam, most), END, jnp.int32)
    start = jnp.int32(0), states, codes, total, jnp.zeros(beam, bool)
    _, _, codes, total, _ = jax.lax.while_loop(continues, extend, start)
    pieces = (codes != END).sum(1) + 1
    return codes, total / pieces


@partial(jax.jit, static_argnums=(0, 3, 4))
def _best(model: Model, params: Params, sources: Array, beam: int, most: int) -> Array:
    def one(source: Array) -> Array:
        codes, scores = _search(model, params, source, beam, most)
        return codes[jnp.argmax(scores)]

    return jax.vmap(one)(sources)


def translate(
    translator: Translator,
    texts: str | Sequence[str],
    *,
    beam: int | None = None,
    names: Sequence[str] | None = None,
) -> Any:
    """The most probable translation of a text that a beam search finds; or of several, a list.

    A letter that the model does not know is left out of what it reads: see `count_unknown`.

    Args:
        translator: what `train` or `load` gives.
        texts: what to translate.
        beam: how many beginnings are followed side by side; by default the recipe's.
        names: what messages call the texts; by default by their places, counted from 1.

    Raises:
        ValueError: for a text that is empty or has more pieces than the recipe allows, and a beam
            below 1.
    """
    if isinstance(texts, str):
        return translate(translator, [texts], beam=beam, names=names)[0]
    recipe = translator.recipe
    beam = recipe.beam if beam is None else beam
    if beam < 1:
        raise ValueError(f"beam must be at least 1, got {beam}")
    if not len(texts):
        return []
    rows = _rows(translator, texts, names)
    lengths = np.array([len(row) + 1 for row in rows])
    translations = [""] * len(texts)
    longest_last = np.argsort(lengths, kind="stable")
    for some, length in _groups(longest_last, lengths[longest_last], recipe.length + 1):
        sources = data.array([rows[k] for k in some], length, recipe.reverse)
        most = 2 * length + 10
        codes = _best(translator.model, translator.params, sources, beam, most)
        for k, row in zip(some, np.asarray(codes), strict=True):
            translations[k] = data.decode(translator.target, row.tolist())
    return translations


def count_unknown(translator: Translator, texts: Sequence[str]) -> list[tuple[int, int]]:
    """Of each text, how many of its pieces the model does not know, and how many there are."""
    encode = data.Encoder(translator.source)
    rows = [encode(data.normalize(text)) for text in texts]
    return [(row.count(OTHER), len(row)) for row in rows]


def readable(translator: Translator, texts: Sequence[str]) -> Bool[np.ndarray, " texts"]:
    """Which texts have as few pieces as the translator reads, and at least one."""
    encode = data.Encoder(translator.source)
    counts = np.array([len(encode(data.normalize(text))) for text in texts])
    return (counts > 0) & (counts <= translator.recipe.length)


def _rows(
    translator: Translator, texts: Sequence[str], names: Sequence[str] | None = None
) -> list[list[int]]:
    encode, rows = data.Encoder(translator.source), []
    most = translator.recipe.length
    names = [f"text {i}" for i in range(1, len(texts) + 1)] if names is None else names
    for name, text in zip(names, texts, strict=True):
        row = encode(data.normalize(text))
        if not row:
            raise ValueError(f"{name} is empty: there is nothing to translate")
        if len(row) > most:
            raise ValueError(
                f"{name} has {len(row)} pieces, and this model reads at most {most}: "
                "cut it into sentences"
            )
        rows.append(row)
    return rows


@partial(jax.jit, static_argnums=0)
def _nats(model: Model, params: Params, sources: Array, targets: Array) -> Array:
    def one(source: Array, target: Array) -> Array:
        return cross_entropy(model.write(params, model.read(params, source), target), target).sum()

    return jax.vmap(one)(sources, targets)


def evaluate(translator: Translator, pairs: Pairs) -> float:
    """The mean cross-entropy of the references' pieces, in nats, each after the true ones before.

    Pairs that are longer than the recipe allows are left out.

    Raises:
        ValueError: where all are.
    """
    rows = [
        [encode(data.normalize(text)) for text in texts]
        for encode, texts in (
            (data.Encoder(translator.source), pairs.sources),
            (data.Encoder(translator.target), pairs.targets),
        )
    ]
    recipe = translator.recipe
    indices = np.array(_short(rows, recipe.length, pairs.name))
    lengths = np.array([max(len(rows[0][i]), len(rows[1][i])) + 1 for i in indices])
    order = indices[np.argsort(lengths, kind="stable")]
    total = pieces = 0.0
    for some, length in _groups(order, np.sort(lengths), recipe.length + 1):
        codes = [
            data.array([side[i] for i in some], length, reverse=first and recipe.reverse)
            for first, side in zip((True, False), rows, strict=True)
        ]
        # The last rows of a short group are there twice.
        fresh = slice(len({*some.tolist()}))
        nats = _nats(translator.model, translator.params, *codes)
        total += float(nats[fresh].sum())
        pieces += float((codes[1][fresh] != PADDING).sum())
    return total / pieces


def _groups(order: np.ndarray, lengths: np.ndarray, most: int) -> Iterator[tuple[np.ndarray, int]]:
    """Groups of one size, and the length that each is padded to: few shapes, so few programs.

    Args:
        order: indices of texts, the longest last.
        lengths: of these texts, in the same order.
        most: the largest length.
    """
    size = min(_BATCH, len(order))
    for i in range(0, len(order), size):
        some = order[i : i + size]
        length = min(-(-int(lengths[i : i + size].max()) // 20) * 20, most)
        yield np.resize(some, size), length


class Scores(NamedTuple):
    """How well translations agree with references.

    Attributes:
        exact: the share that are the reference, letter by letter, once both are normalized.
        bleu: sacrebleu's BLEU, from 0 to 100; NaN without sacrebleu.
        chrf: sacrebleu's chrF2, from 0 to 100; NaN without sacrebleu.
        signatures: of both, which say how they were computed; empty without sacrebleu.
    """

    exact: float
    bleu: float
    chrf: float
    signatures: tuple[str, ...]


def scores(written: Sequence[str], references: Sequence[str]) -> Scores:
    """Exact matches, BLEU and chrF of translations, both sides as `normalize` leaves them.

    Raises:
        ValueError: for no text, or unequal numbers of them.

    >>> scores(["dois"], ["Dois"]).exact
    1.0
    """
    if len(written) != len(references) or not len(written):
        raise ValueError(f"{len(written)} translations and {len(references)} references")
    ours, theirs = (list(map(data.normalize, texts)) for texts in (written, references))
    exact = float(np.mean([a == b for a, b in zip(ours, theirs, strict=True)]))
    try:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF
    except ImportError:
        return Scores(exact, math.nan, math.nan, ())
    # Both sides are in lower case already: that changes the signature, not the score.
    metrics = BLEU(lowercase=True), CHRF(lowercase=True)
    bleu, chrf = (float(metric.corpus_score(ours, [theirs]).score) for metric in metrics)
    return Scores(exact, bleu, chrf, tuple(str(metric.get_signature()) for metric in metrics))


class Adjoints(NamedTuple):
    """How far what is written depends on each step of reading; S source and T target pieces.

    Attributes:
        source: the pieces of the source, its end mark included, in the order of the text.
        target: the pieces of the target, its end mark included.
        log_norm: ln‖∂z_t/∂h_s‖ in nats, (T, S): z_t = ln p/(1-p) of target piece t, given the
            pieces before it, and h_s the encoder's whole state after source piece s; of two
            encoders, the one that reads forwards. -inf for an exact zero.
    """

    source: list[str]
    target: list[str]
    log_norm: Float[np.ndarray, "T S"]


def adjoints(translator: Translator, source: str, target: str) -> Adjoints:
    """The adjoint of every encoder step from every decoder step, by `gradlab.trace`.

    Raises:
        ValueError: for a text that is empty or too long.
    """
    recipe = translator.recipe
    row = _rows(translator, [source])[0]
    reader = translator._replace(source=translator.target)
    pieces = _rows(reader, [target])[0]
    codes = data.array([row], len(row) + 1, recipe.reverse)[0]
    target_codes = data.array([pieces], len(pieces) + 1)[0]
    log_norm = np.asarray(_adjoints(translator.model, translator.params, codes, target_codes))
    if recipe.reverse:
        log_norm = np.concatenate([log_norm[:, -2::-1], log_norm[:, -1:]], axis=1)
    names = [
        [words.pieces[code - 3] if code >= 3 else "?" for code in side]
        for words, side in ((translator.source, row), (translator.target, pieces))
    ]
    return Adjoints([*names[0], "end"], [*names[1], "end"], log_norm)


@partial(jax.jit, static_argnums=0)
def _adjoints(model: Model, params: Params, source: Array, target: Array) -> Array:
    def odds(params: Params, weight: Array) -> Array:
        memory: Memory = model.read(params, source)
        logits = model.write(params, memory, target)
        is_target = jax.nn.one_hot(target, logits.shape[1], dtype=bool)
        at_target = jnp.where(is_target, logits, 0).sum(1)
        others = jax.nn.logsumexp(logits, axis=1, where=~is_target)
        return (weight * (at_target - others)).sum()

    def row(weight: Array) -> Array:
        # The encoder that reads forwards is the first scan of the program.
        return trace(odds, argnums=())(params, weight).scans[0].log_norm

    dtype = params["source"].dtype
    return jax.vmap(row)(jnp.eye(len(target), dtype=dtype))
