"""Translation: pairs, pieces, encoders and decoders, search, adjoints, files, commands."""

import functools
import gzip
import itertools
import json
import lzma
import math
from collections import Counter

import fuzzed
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from typer.testing import CliRunner

import gradlab as gl
from gradlab import _arrays, translation
from gradlab.applications.translation import command, data, learn

KEY = jax.random.key(0)
CODES = 9
# Options of every kind of model: states of one and of two leaves, passed on or not, with attention.
SMALL = {
    "attention": {"cell": "gru"},
    "both ways": {"cell": "gru", "bidirectional": True},
    "plain": {"cell": "lstm", "attention": False},
    "two cells": {"cell": "lstm", "decoder": "gru", "attention": False},
    "two cells, attention": {"cell": "elman", "decoder": "lstm"},
}
every_model = pytest.mark.parametrize("small", SMALL)


def build(small):
    return translation.make(CODES, CODES, hidden=4, embedding=3, width=5, **SMALL[small])


def drawn(model, scale=0.7):
    """Parameters none of which is zero, so that every part of a model has its say."""
    random = np.random.default_rng(1)
    shapes = jax.eval_shape(model.init, KEY)
    return jax.tree.map(lambda x: jnp.asarray(scale * random.standard_normal(x.shape)), shapes)


SOURCE = np.array([3, 5, 4, 8, 2], np.int32)
TARGET = np.array([6, 3, 7, 2], np.int32)


@functools.partial(jax.jit, static_argnums=0)
def write(model, params, source, target):
    return model.write(params, model.read(params, source), target)


def logits(model, params, source=SOURCE, target=TARGET):
    return write(model, params, jnp.asarray(source), jnp.asarray(target))


# Pieces of words.


def merges_by_brute_force(texts, size):
    """Count all pairs anew for each merge."""
    words = Counter(word for text in texts for word in data._WORD.findall(f" {text}"))
    cut = {word: list(word) for word in words}
    pieces, merges = {letter for word in words for letter in word}, []
    while len(pieces) < size:
        counts = Counter()
        for word, parts in cut.items():
            for pair in itertools.pairwise(parts):
                counts[pair] += words[word]
        best = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
        if best is None or counts[best] < 2:
            break
        merges.append(best)
        pieces.add("".join(best))
        for parts in cut.values():
            i = 0
            while i < len(parts) - 1:
                if (parts[i], parts[i + 1]) == best:
                    parts[i : i + 2] = ["".join(best)]
                i += 1
    return merges


def some_texts(seed=0, count=60):
    random = np.random.RandomState(seed)
    letters = np.array(list("aab bc, cd"))
    return [data.normalize("".join(random.choice(letters, 14))) for _ in range(count)]


@pytest.mark.parametrize("seed", range(4))
def test_merges_against_counting_all_pairs_again(seed):
    texts = some_texts(seed)
    learnt = translation.vocabulary(texts, size=40)
    assert [*learnt.merges] == merges_by_brute_force(texts, 40)
    assert len({*learnt.pieces}) == len(learnt.pieces) <= 40


def test_pieces_joined_are_the_text():
    texts = [*some_texts(), "it's 3.5 m (or so), naïve – “yes”!"]
    learnt = translation.vocabulary(map(data.normalize, texts), size=80)
    for text in map(data.normalize, texts):
        assert translation.decode(learnt, translation.encode(learnt, text)) == text


def test_an_unknown_character_is_one_code_and_is_not_written():
    learnt = translation.vocabulary(["ab ab"], size=10)
    codes = translation.encode(learnt, "ab żab")
    assert codes.count(translation.OTHER) == 1
    assert translation.decode(learnt, codes) == "ab ab"
    assert translation.decode(learnt, [*translation.encode(learnt, "ab"), 2, 5]) == "ab"


# Pairs.


def test_numbers_are_those_of_two_languages_and_no_number_is_in_two_parts():
    pairs = translation.numbers(count=1500)
    both = dict(zip(pairs.sources, pairs.targets, strict=True))
    assert both["two hundred and four"] == "duzentos e quatro"
    assert len(both) == 1500 and pairs.parts == translation.numbers(count=1500).parts
    shares = Counter(pairs.parts)
    # Five standard errors of a share of 1/20.
    assert all(abs(shares[part] - 75) < 5 * math.sqrt(75) for part in ("validation", "test"))
    brazilian = translation.numbers("en", "pt_BR", count=20)
    assert brazilian.targets[16] == "dezesseis" and pairs.targets[16] == "dezasseis"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "xx"}, "unknown language 'xx'"),
        ({"source": "English"}, "unknown language 'English'"),
        ({"count": 12, "most": 10}, "there are 11 numbers up to 10, and 12 are wanted"),
        ({"target": "am", "count": 2000}, "num2words has no words for"),
    ],
)
def test_numbers_that_there_are_not(options, message):
    with pytest.raises(ValueError, match=message):
        translation.numbers(**options)


TABLE = "split\ten\tfr\ntrain\ta dog\tun chien\nval\ta cat\tun chat\ntest\ttwo\tdeux\n"


def test_a_table_with_names_is_read_in_every_packing(tmp_path):
    for name, pack in (("a.tsv", bytes), ("a.tsv.gz", gzip.compress), ("a.xz", lzma.compress)):
        (tmp_path / name).write_bytes(pack(TABLE.encode()))
        pairs = translation.read([tmp_path / name], "en", "fr")
        assert pairs[:3] == (
            ["a dog", "a cat", "two"],
            ["un chien", "un chat", "deux"],
            ["train", "validation", "test"],
        )
        other = translation.read([tmp_path / name], "fr", "en")
        assert other.part("test")[:2] == (["deux"], ["two"])


def test_two_columns_and_two_files_are_the_same_pairs(tmp_path):
    sides = [f"text {i}" for i in range(200)], [f"texte “{i}”" for i in range(200)]
    rows = [f"{a}\t{b}\n" for a, b in zip(*sides, strict=True)]
    (tmp_path / "both.tsv").write_text("\ufeff" + "".join(rows), "utf-8")
    for name, side in zip("ab", sides, strict=True):
        (tmp_path / name).write_text("\n".join(side) + "\n", "utf-8")
    one = translation.read([tmp_path / "both.tsv"])
    two = translation.read([tmp_path / "a", tmp_path / "b"])
    assert one[:3] == two[:3] and [*one[0], *one[1]] == [*sides[0], *sides[1]]
    assert {*one.parts} == {"train", "validation", "test"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\tb\nc\n", "line 2: 1 columns instead of 2"),
        (b"a\tb\nc\t\n", "line 2: one text of the pair is empty"),
        (b"a\tb\nc\t\xff\n", "line 2: not UTF-8"),
        (b"en\tde\nc\td\n".replace(b"de", b"de\tx"), "first line names 'en', 'de', 'x', and not"),
        (b"split\ten\tfr\nfirst\ta\tb\n", "line 2: split is 'first'; valid: train, validation"),
        (b"", "there is no pair in it"),
        (b"split\ten\tfr\n", "there is no pair in it"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path, content, message):
    (tmp_path / "a.tsv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        translation.read([tmp_path / "a.tsv"])


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    for name, content in (("a", b"1\n2\n3\n"), ("b", b"1\n2\n"), ("c", b"1\n\n3\n")):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="a has 3 lines and .*b 2"):
        translation.read([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(ValueError, match="line 2 of .*: one text of the pair is empty"):
        translation.read([tmp_path / "a", tmp_path / "c"])
    with pytest.raises(ValueError, match="give one file .* got 3"):
        translation.read([tmp_path / "a"] * 3)
    with pytest.raises(OSError, match="none: cannot be read"):
        translation.read([tmp_path / "none"])
    (tmp_path / "d.xz").write_bytes(lzma.compress(b"a\tb\n" * 999)[:-20])
    with pytest.raises(ValueError, match="d.xz: damaged after line"):
        translation.read([tmp_path / "d.xz"])


# Models.


@every_model
def test_padding_changes_nothing(small):
    model = build(small)
    params = drawn(model)
    more = [np.concatenate([codes, np.zeros(3, np.int32)]) for codes in (SOURCE, TARGET)]
    np.testing.assert_allclose(
        logits(model, params, *more)[: len(TARGET)], logits(model, params), rtol=1e-10
    )


@every_model
def test_a_step_is_a_row_of_write(small):
    model = build(small)
    params = drawn(model)
    memory = jax.jit(model.read)(params, jnp.asarray(SOURCE))
    state, rows, step = memory.state, [], jax.jit(model.step)
    for code in (translation.END, *TARGET[:-1]):
        state, row = step(params, memory, state, jnp.asarray(code))
        rows.append(row)
    np.testing.assert_allclose(rows, logits(model, params), rtol=1e-10)


@pytest.mark.parametrize("attention", [True, False])
def test_write_against_the_equations_of_elman(attention):
    model = translation.make(
        CODES, CODES, cell="elman", hidden=4, embedding=3, width=5, attention=attention
    )
    params = drawn(model)
    p = jax.tree.map(np.asarray, params)

    def step(weights, h, x):
        drive = weights["input"] @ x + weights["bias"]
        return np.tanh(weights["recurrent"] @ h + drive)

    h, hs = np.zeros(4), []
    for code in SOURCE:
        h = step(p["encoders"][0], h, 3**0.5 * p["source"][code])
        hs.append(h)
    d, y, out = h, 3**0.5 * p["target"][translation.END], []
    for code in TARGET:
        c = np.zeros(0)
        if attention:
            a = p["attention"]
            e = [a["score"] @ np.tanh(a["state"] @ d + a["note"] @ each) for each in hs]
            alpha = np.exp(e) / np.exp(e).sum()
            c = alpha @ np.array(hs)
        d = step(p["decoder"], d, np.concatenate([y, c]))
        o = np.tanh(p["readout"]["weight"] @ np.concatenate([d, c, y]) + p["readout"]["bias"])
        out.append(p["target"] @ o + p["readout"]["targets"])
        y = 3**0.5 * p["target"][code]
    np.testing.assert_allclose(logits(model, params), out, rtol=1e-9)


def test_dropout_keeps_the_mean():
    # Near zero Elman's step is linear, so the state is linear in the mask of what is read.
    linear = translation.make(
        CODES, CODES, cell="elman", hidden=4, embedding=3, embedding_dropout=0.4
    )
    source = jnp.asarray(SOURCE[:1])
    weights = drawn(linear)["encoders"][0]
    small = jax.tree.map(lambda x: 1e-4 * x, weights) | {"bias": jnp.zeros(4)}
    params = drawn(linear) | {"encoders": [small]}
    keys = jax.random.split(KEY, 4000)
    notes = np.asarray(jax.jit(jax.vmap(lambda key: linear.read(params, source, key).notes))(keys))
    error = notes.std(0) / math.sqrt(len(keys))
    assert (abs(notes.mean(0) - linear.read(params, source).notes) < 4.5 * error + 1e-9).all()
    assert notes.std() > 0


def test_models_that_there_are_not():
    with pytest.raises(ValueError, match="unknown option of the model 'hiden'; did you mean"):
        translation.make(CODES, CODES, hiden=4)
    with pytest.raises(ValueError, match="unknown cell 'grv'"):
        translation.make(CODES, CODES, cell="grv")
    with pytest.raises(ValueError, match="bidirectional needs attention"):
        translation.make(CODES, CODES, attention=False, bidirectional=True)


# Loss and search.


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_cross_entropy_against_its_definition(smoothing):
    scores = np.random.RandomState(0).randn(4, CODES)
    target = np.array([3, 5, 2, 0])
    log_p = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    q = np.full((4, CODES), smoothing / CODES)
    q[np.arange(4), target] += 1 - smoothing
    expected = -(q * log_p).sum(1) * (target != 0)
    found = learn.cross_entropy(jnp.asarray(scores), jnp.asarray(target), smoothing)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def every_translation(most):
    """All sequences of codes that end with END, or are cut, without PADDING and OTHER."""
    letters = [code for code in range(CODES) if code not in (0, 1, 2)]
    for length in range(most):
        yield from ((*codes, 2) for codes in itertools.product(letters, repeat=length))


def test_a_wide_beam_finds_the_best_of_all_and_a_narrow_one_the_greedy_one():
    most, model = 3, build("attention")
    params = drawn(model, scale=1.0)
    source = jnp.asarray(SOURCE)
    # The search forbids PADDING and OTHER: their probability goes to the others.
    allowed = jnp.array([0, 0] + [1] * (CODES - 2), bool)

    @jax.jit
    def log_p(target):
        out = jnp.where(allowed[None], logits(model, params, source, target), -jnp.inf)
        return jax.nn.log_softmax(out, axis=1)

    def total(codes):
        rows = log_p(jnp.array([*codes, *[2] * (most - len(codes))]))
        return float(sum(rows[i, code] for i, code in enumerate(codes)))

    ends = {codes: total(codes) for codes in every_translation(most)}
    codes, scores = learn._search(model, params, source, 300, most)
    found = {}
    for row, score in zip(np.asarray(codes).tolist(), np.asarray(scores), strict=True):
        if 2 in row:
            cut = (*row[: row.index(2)], 2)
            if len(cut) < most or row[-1] == 2:
                found.setdefault(cut, score)
    for cut in ends:
        np.testing.assert_allclose(found[cut], ends[cut] / len(cut), rtol=1e-9)

    greedy, _ = learn._search(model, params, source, 1, most)
    expected = []
    for place in range(most):
        rows = log_p(jnp.array([*expected, *[2] * (most - len(expected))]))
        expected.append(int(rows[place].argmax()))
        if expected[-1] == 2:
            break
    assert np.asarray(greedy)[0].tolist()[: len(expected)] == expected


# Training.

WORDS = "red blue green big small cat dog house tree car".split()


def toy(count=300, seed=0):
    """Phrases of two to four words, whose translation names each word backwards, in order."""
    random = np.random.RandomState(seed)
    phrases = [" ".join(random.choice(WORDS, random.randint(2, 5))) for _ in range(count)]
    targets = [" ".join(word[::-1] for word in phrase.split()) for phrase in phrases]
    return translation.Pairs(phrases, targets, list(map(data.part_of, phrases)), "toy")


OPTIONS = {"hidden": 24, "embedding": 16, "width": 16}
TINY = translation.Recipe(OPTIONS, pieces=60, length=12, batch=16, epochs=50, rate=0.01)
# A level more is a program more in the one that trains.
FEW_LEVELS = 2


@pytest.fixture(scope="module")
def trained():
    """A translator of the toy pairs, and what it was watched doing."""
    seen = []
    pairs = toy()
    watch = lambda epoch, made, loss: seen.append((epoch, loss, made))  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learn, "LEVELS", FEW_LEVELS)
        made = translation.train(TINY, pairs.part("train"), languages=("en", "ne"), watch=watch)
    return made, seen


@pytest.mark.parametrize("seed", range(4))
def test_levels_leave_less_padding_than_any_others_of_their_number(seed):
    cuts = np.random.RandomState(seed).choice(
        [3, 4, 6, 7, 9, 12], 40, p=[0.1, 0.2, 0.3, 0.2, 0.1, 0.1]
    )
    lengths = np.unique(cuts).tolist()

    def steps(levels):
        return sum(min(level for level in levels if level >= cut) for cut in cuts)

    found = learn._levels(cuts).tolist()
    assert found == sorted(found) and 1 < len(found) <= learn.LEVELS and found[-1] == lengths[-1]
    some = itertools.combinations(lengths, len(found))
    assert steps(found) == min(steps(levels) for levels in some if levels[-1] == lengths[-1])


def test_toy_phrases_are_learnt(trained):
    made, seen = trained
    held_out = toy(60, seed=1)
    written = translation.translate(made, held_out.sources)
    assert translation.scores(written, held_out.targets).exact > 0.9
    assert [epoch for epoch, _, _ in seen] == [*range(TINY.epochs + 1)]
    losses = [loss for _, loss, _ in seen]
    assert math.isnan(losses[0]) and losses[-1] < 0.2 * losses[1]


def test_evaluate_is_the_mean_over_pieces(trained):
    made, _ = trained
    pairs = toy(7, seed=2)
    total = pieces = 0
    for source, target in zip(*pairs[:2], strict=True):
        codes = [
            translation.encode(v, t) for v, t in ((made.source, source), (made.target, target))
        ]
        rows = logits(made.model, made.params, *(np.array([*row, 2]) for row in codes))
        log_p = scipy.special.log_softmax(np.asarray(rows, np.float64), axis=1)
        total -= log_p[np.arange(len(rows)), [*codes[1], 2]].sum()
        pieces += len(codes[1]) + 1
    assert translation.evaluate(made, pairs) == pytest.approx(total / pieces, rel=1e-6)


def test_a_translation_does_not_depend_on_its_neighbours(trained, monkeypatch):
    texts = toy(5, seed=3).sources
    together = translation.translate(trained[0], texts, beam=2)
    monkeypatch.setattr(learn, "_BATCH", 1)
    assert [translation.translate(trained[0], [text], beam=2)[0] for text in texts] == together


def test_a_loss_that_is_not_finite_ends_the_training():
    pairs = toy(40)
    short = [i for i, text in enumerate(pairs.sources) if text.count(" ") == 1]
    some = pairs._replace(
        **{side: [getattr(pairs, side)[i] for i in short] for side in pairs._fields[:3]}
    )
    options = {"cell": "elman", "hidden": 3, "embedding": 2, "width": 2, "attention": False}
    recipe = TINY._replace(options=options, pieces=90, rate=1e38, decay=1e6, epochs=20)
    with pytest.raises(ValueError, match=r"update \d+ gave a loss or weights without a value"):
        translation.train(recipe, some)


def test_pairs_that_are_too_long_are_left_out():
    pairs = toy(40)
    with pytest.raises(ValueError, match="toy: no pair is as short as 1 pieces a side"):
        translation.train(TINY._replace(length=1), pairs)
    long = pairs._replace(sources=[*pairs.sources[:-1], "red " * 13])
    with pytest.warns(UserWarning, match="toy: 1 of 40 pairs have more than 12 pieces"):
        made = translation.train(TINY._replace(epochs=0), long)
    fits = translation.readable(made, ["red dog", "red " * 13, " "])
    assert fits.tolist() == [True, False, False]


# The adjoint.


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("attention", [False, True])
def test_adjoints_against_derivatives_of_the_equations(reverse, attention):
    source = translation.vocabulary(["a b c d e"], size=20)
    target = translation.vocabulary(["f g h"], size=20)
    options = {"cell": "elman", "hidden": 4, "embedding": 3, "width": 5, "attention": attention}
    recipe = translation.Recipe(options, reverse=reverse)
    model = learn.build(recipe, source, target)
    params = drawn(model)
    made = translation.Translator(recipe, ("a", "b"), source, target, model, params)
    found = translation.adjoints(made, "a c b e", "g f h")
    assert (found.source[-1], found.target[-1]) == ("end", "end")
    assert "".join(found.source[:-1]) == " a c b e" and "".join(found.target[:-1]) == " g f h"

    codes = translation.encode(source, "a c b e")
    codes = jnp.array([*(codes[::-1] if reverse else codes), 2])
    wanted = jnp.array([*translation.encode(target, "g f h"), 2])

    def odds(shifts):
        """ln p/(1-p) of each target piece, with each h_s moved a little."""
        weights, h, hs = params["encoders"][0], jnp.zeros(4), []
        for code, shift in zip(codes, shifts, strict=True):
            drive = weights["input"] @ (3**0.5 * params["source"][code]) + weights["bias"]
            h = jnp.tanh(weights["recurrent"] @ h + drive) + shift
            hs.append(h)
        notes = jnp.stack(hs)
        keys = notes @ params["attention"]["note"].T if attention else notes[:, :0]
        memory = translation.Memory(notes, keys, jnp.ones(len(codes), bool), h)
        p = jax.nn.softmax(model.write(params, memory, wanted), axis=1)
        p = p[jnp.arange(len(wanted)), wanted]
        return jnp.log(p / (1 - p))

    jacobian = jax.jit(jax.jacobian(odds))(jnp.zeros((len(codes), 4)))
    expected = np.log(np.linalg.norm(jacobian, axis=2))
    if reverse:  # back to the order of the text, with the end mark where it was
        expected = np.concatenate([expected[:, -2::-1], expected[:, -1:]], axis=1)
    np.testing.assert_allclose(found.log_norm, expected, rtol=1e-7)


# Files.


@pytest.fixture(scope="module")
def path(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "model"
    translation.save(trained[0], path)
    return path


def changed(path, tmp_path, change):
    about, arrays = _arrays.read(path)
    change(about, arrays)
    _arrays.write(tmp_path / "other", about, arrays)
    return tmp_path / "other"


def test_saved_and_loaded_writes_the_same(trained, path):
    again = translation.load(path)
    texts = toy(9, seed=4).sources
    assert translation.translate(again, texts) == translation.translate(trained[0], texts)
    assert again[:4] == trained[0][:4]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("length", 0), ("length", True), ("batch", -1), ("epochs", 1.5), ("rate", math.nan),
        ("smoothing", 2), ("beam", 10**9), ("reverse", 1), ("options", []),
        ("options", {"cell": "grv"}), ("options", {"hidden": 10**9}), ("pieces", None),
        ("options", {"dropout": -1}), ("options", {"attention": False, "bidirectional": True}),
    ],
)  # fmt: skip
def test_a_recipe_with_nonsense_is_refused(path, tmp_path, field, value):
    other = changed(path, tmp_path, lambda about, _: about["recipe"].update({field: value}))
    with pytest.raises(ValueError, match="damaged: its parts do not fit together") as caught:
        translation.load(other)
    assert len(str(caught.value)) <= 600


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about, _: about.update(version=0), "of version 0, and this gradlab reads"),
        (lambda about, _: about.update(format="x"), "not a gradlab translation model"),
        (lambda about, _: about["source"]["pieces"].append("q"), "do not fit together"),
        (lambda about, _: about["target"]["merges"].append(["q", "q"]), "joins pieces to one"),
        (lambda about, _: about.update(languages=["en"]), "do not fit together"),
        (lambda _, arrays: arrays["params/source"].fill(np.nan), "not all of its weights are"),
    ],
)  # fmt: skip
def test_a_file_of_another_kind_is_refused(path, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        translation.load(changed(path, tmp_path, change))


def test_a_sentiment_model_is_no_translator():
    shipped = gl.sentiment.store.Path(gl.sentiment.store.__file__).parent / "weights"
    with pytest.raises(ValueError, match="not a gradlab translation model"):
        translation.load(shipped / "everyday.safetensors")


@pytest.mark.parametrize("seed", range(2))
def test_a_damaged_file_is_refused_or_loads_whole(path, tmp_path, seed):
    rng, content = np.random.RandomState(seed), path.read_bytes()
    for _ in range(20):
        place = rng.randint(len(content))
        bad = bytearray(content)
        bad[place] ^= 1 << rng.randint(8)
        (tmp_path / "other").write_bytes(bytes(bad))
        outcome = fuzzed.outcome(lambda: translation.load(tmp_path / "other"))
        assert outcome in ("accepted", "refused"), place


# The command line.


def run(*arguments, **options):
    return CliRunner().invoke(command.app, list(map(str, arguments)), **options)


def test_train_evaluate_predict(tmp_path, path, monkeypatch):
    monkeypatch.setattr(learn, "LEVELS", FEW_LEVELS)
    rows = "".join(f"{a}\t{b}\n" for a, b in zip(*toy(200)[:2], strict=True))
    (tmp_path / "toy.tsv").write_text(rows)
    model = tmp_path / "deep" / "toy.model"
    options = ("--data", tmp_path / "toy.tsv", "--epochs", 1, "--cell", "elman", "--decoder", "gru")
    done = run("train", "--out", model, "--recipe", "plain", "--reverse", *options)
    assert done.exit_code == 0, done.output
    assert "200 pairs of" in done.output and "epoch 1 of 1: loss " in done.output
    made = translation.load(model)
    assert made.recipe.reverse and made.recipe.options["decoder"] == "gru"

    done = run("evaluate", "--model", path, "--data", tmp_path / "toy.tsv", "--part", "train")
    assert done.exit_code == 0, done.output
    share = float(done.output.partition("exact matches ")[2].split()[0])
    assert share > 0.9 and "BLEU" in done.output and "version:" in done.output

    done = run("predict", "--model", path, "red dog")
    assert done.output == "der god\n"
    done = run("predict", "--model", path, "--json", input="red dog\n\nbig car\n")
    rows = [json.loads(line) for line in done.output.splitlines()]
    assert [(row["line"], row["translation"]) for row in rows] == [(1, "der god"), (3, "gib rac")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "--model", "MODEL", " "], "the text is empty"),
        (["predict", "--model", "MODEL", "red " * 30], "the text has 30 pieces, .* at most 12"),
        (["predict", "--model", "MODEL", "--file", "BAD"], "bad, line 2: not UTF-8"),
        (["predict", "--model", "none", "red"], "none: there is no such file"),
        (["train", "--out", "x", "--recipe", "no"], "unknown recipe 'no'"),
        (["train", "--out", "x", "--cell", "no"], "unknown cell 'no'"),
        (["train", "--out", "x", "--target", "xx"], "unknown language 'xx'"),
        (["train", "--out", ".", "--data", "BAD"], "is a folder"),
        (["train", "--out", "x", "--data", "BAD"], "bad, line 2: not UTF-8"),
        (["evaluate", "--model", "MODEL", "--part", "no"], "unknown language 'ne'"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path, path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad").write_bytes(b"a\tb\nc\t\xff\n")
    names = {"MODEL": str(path), "BAD": str(tmp_path / "bad")}
    done = run(*(names.get(each, each) for each in arguments))
    assert isinstance(done.exception, ValueError | OSError)
    with pytest.raises(type(done.exception), match=message):
        raise done.exception


def test_scores_are_those_of_sacrebleu():
    perfect = translation.scores(["Two cats."] * 3, ["two cats."] * 3)
    assert perfect.exact == 1 and perfect.chrf == pytest.approx(100)
    assert [signature.partition("|")[0] for signature in perfect.signatures] == ["nrefs:1"] * 2
    # BLEU of 4 words, 3 of them right in order: (3/4 · 2/3 · 1/2 · 1/2)^(1/4) with the exponential
    # smoothing of the missing four-gram, 1/2 of one.
    found = translation.scores(["a b c x"], ["a b c d"])
    assert found.bleu == pytest.approx(100 * (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** 0.25)
    with pytest.raises(ValueError, match="1 translations and 2 references"):
        translation.scores(["a"], ["a", "b"])


@pytest.mark.parametrize(("changes", "message"), [
    ({"smoothing": 2.0}, "smoothing: 2.0 is not a number from 0 to 1"),
    ({"pieces": -1}, "pieces: -1 is not a whole number"),
    ({"options": {"dropout": 2.0}}, "dropout: 2.0 is not a number"),
])  # fmt: skip
def test_a_recipe_that_nobody_could_train_by_is_refused_before_training(changes, message):
    with pytest.raises(ValueError, match=message):
        translation.train(TINY._replace(**changes), toy(10))


def test_a_header_that_names_one_language_alone_is_refused(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("en\tde\nthe dog\tder hund\n")
    with pytest.raises(ValueError, match="first line names 'en', 'de', and not both 'de' and 'fr'"):
        translation.read([path], "de", "fr")
    path.write_text("a b\rc\td\n")
    with pytest.raises(ValueError, match="line 1: new-line character"):
        translation.read([path])


def test_texts_that_are_one_text_once_normalized_are_in_one_part(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{word}\tx\n{word.upper()}\tx\n" for word in map(chr, range(97, 123))))
    parts = translation.read([path]).parts
    assert parts[::2] == parts[1::2] and len(set(parts)) > 1


def test_lower_case_is_in_the_signature_of_scores():
    found = translation.scores(["the dog runs fast today"], ["The Dog Runs Fast Today"])
    assert found.bleu == pytest.approx(100) and found.exact == 1
    assert all("case:lc" in signature for signature in found.signatures)
