import csv
import json
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
from typer.testing import CliRunner

import gradlab as gl
from gradlab import _arrays, _files, sentiment
from gradlab.applications import _networks, _training
from gradlab.applications.sentiment import command as sentiment_cli
from gradlab.applications.sentiment import learn
from gradlab.tasks import imdb

KEY = jax.random.key(0)
CODES = 12
ROOT = Path(__file__).parents[2]

# Every registered model, small, and the plain one with each cell of the experiment.
SMALL = {
    "recurrent-elman": ("recurrent", {"cell": "elman", "hidden": 4, "embedding": 3}),
    "recurrent-lstm": ("recurrent", {"cell": "lstm", "hidden": 4, "embedding": 3}),
    "recurrent-gru": ("recurrent", {"cell": "gru", "hidden": 4, "embedding": 3}),
    "pooled": ("pooled", {"hidden": 4, "embedding": 3, "bidirectional": True}),
    "convolution": ("convolution", {"widths": [2, 3], "filters": 5, "embedding": 3}),
    "bag_of_words": ("bag_of_words", {}),
}

every_model = pytest.mark.parametrize("small", SMALL)
# One of each kind is taught: a cell more is a program more to compile.
TAUGHT = ("recurrent-elman", "pooled", "convolution", "bag_of_words")
every_taught = pytest.mark.parametrize("small", TAUGHT)


def build(small):
    name, options = SMALL[small]
    return sentiment.make(name, CODES, **options)


def drawn(model, seed=1):
    """Parameters none of which is zero, so that every part of a model has its say."""
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, KEY)
    return jax.tree.map(lambda x: jnp.asarray(0.5 * random.standard_normal(x.shape)), shapes)


def some_codes(length=7, grams=2, seed=3):
    return np.random.RandomState(seed).randint(1, CODES, (length, grams)).astype(np.int32)


def padded(codes, more):
    return np.concatenate([np.zeros((more, codes.shape[1]), codes.dtype), codes])


def toy(count=240, seed=0):
    """Reviews in which one word decides, somewhere among others."""
    random = np.random.RandomState(seed)
    positive = random.rand(count) < 0.5
    texts = []
    for label in positive:
        tokens = [f"w{i}" for i in random.randint(0, 12, random.randint(2, 9))]
        tokens.insert(random.randint(len(tokens) + 1), "good" if label else "bad")
        texts.append(" ".join(tokens))
    return texts, positive


@pytest.fixture(scope="module")
def trained():
    """A classifier of each kind, taught on the toy reviews, with what it was watched doing."""
    with pytest.MonkeyPatch.context() as patch:
        # One program for training and one for all that is asked afterwards.
        patch.setattr(learn, "_BATCH", 1)
        made, seen = {}, {}
        for small in TAUGHT:
            name, options = SMALL[small]
            recipe = sentiment.Recipe(
                name, options, grams=2, tokens=40, length=10, batch=12, epochs=5, rate=0.05
            )
            watched = seen.setdefault(small, [])
            made[small] = sentiment.train(
                recipe, *toy(), watch=lambda epoch, _, loss, to=watched: to.append((epoch, loss))
            )
        yield made, seen


# From text to codes.


def test_words_and_characters():
    text = "I didn't like it.<br /><br />NOT at all!"
    assert sentiment.words(text) == ["i", "didn't", "like", "it", ".", "not", "at", "all", "!"]
    assert "".join(sentiment.characters("Né\n à  Paris<BR>!")) == "Né à Paris !"


def test_vocabulary_counts_texts_and_not_occurrences():
    made = sentiment.vocabulary(["b b b b", "a c", "a c"], size=2)
    assert made.tokens == ("a", "c")
    assert made.size == 4


@pytest.mark.parametrize("grams", [1, 2])
def test_encode_against_brute_force(grams):
    texts, _ = toy(20)
    vocabulary = sentiment.vocabulary(texts[:10], size=15, grams=grams)
    length = 6
    codes = sentiment.encode(vocabulary, texts, length)
    assert codes.shape == (20, length, grams)
    places = {token: i + 2 for i, token in enumerate(vocabulary.tokens)}
    for text, rows in zip(texts, codes, strict=True):
        tokens = text.split()
        for lag in range(length):
            row = rows[length - 1 - lag]
            if lag >= len(tokens):
                assert not row.any()
                continue
            place = len(tokens) - 1 - lag
            assert row[0] == places.get(tokens[place], sentiment.OTHER)
            # A pair counts if both its words are among those that are read.
            first = place == 0 or lag == length - 1
            pair = None if first else f"{tokens[place - 1]} {tokens[place]}"
            assert grams == 1 or row[1] == places.get(pair, sentiment.PADDING)


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_empty_review_is_named(text):
    vocabulary = sentiment.vocabulary(["a film"])
    with pytest.raises(ValueError, match="review 2 is empty"):
        sentiment.encode(vocabulary, ["a film", text], 5)


def test_a_text_without_a_word_is_one_unknown_word():
    codes = sentiment.encode(sentiment.vocabulary(["a film"]), ["*** ***"], 3)
    assert codes[0, :, 0].tolist() == [sentiment.PADDING, sentiment.PADDING, sentiment.OTHER]


def test_bad_choices_are_named():
    with pytest.raises(ValueError, match="unknown unit 'word'; did you mean 'words'"):
        sentiment.vocabulary(["a"], unit="word")
    with pytest.raises(ValueError, match="grams must be 1 or 2, got 3"):
        sentiment.vocabulary(["a"], grams=3)
    with pytest.raises(ValueError, match="unknown recipe 'gur'; did you mean 'gru'"):
        sentiment.recipe("gur")
    with pytest.raises(ValueError, match="unknown recipe field 'epoch'"):
        sentiment.recipe("gru", epoch=3)
    with pytest.raises(ValueError, match="unknown model 'gru'"):
        sentiment.make("gru", CODES)
    with pytest.raises(ValueError, match="unknown recurrent option 'width'"):
        sentiment.make("recurrent", CODES, width=3)
    with pytest.raises(ValueError, match="unknown initialization 'xavier'"):
        sentiment.make("recurrent", CODES, initialization="xavier")


# Laws of every model.


@every_model
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_dtype_is_that_of_the_parameters(small, dtype):
    model = build(small)
    params = jax.eval_shape(lambda key: model.init(key, dtype), KEY)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
    z = jax.eval_shape(model.logit, params, some_codes(), KEY)
    assert (z.shape, z.dtype) == ((), jnp.dtype(dtype))


@every_model
def test_padding_changes_neither_logit_nor_gradient(small):
    model = build(small)
    params, codes = drawn(model), some_codes()
    function = jax.jit(jax.value_and_grad(model.logit))
    value, grads = function(params, codes)
    more_value, more_grads = function(params, padded(codes, 5))
    if small.startswith("recurrent"):  # not by one bit
        assert value == more_value
        jax.tree.map(np.testing.assert_array_equal, grads, more_grads)
    else:  # sums of more terms are added in another order
        np.testing.assert_allclose(value, more_value, rtol=1e-14)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15), grads, more_grads
        )
    assert any(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("cell", ["elman", "lstm", "gru"])
def test_padding_changes_neither_states_nor_adjoints(cell):
    model = build(f"recurrent-{cell}")
    params, codes = drawn(model), some_codes()

    def seen(codes):
        traced = gl.trace(model.logit, measure=lambda state, adjoint: (state, adjoint))
        scan = traced(params, codes).scans[0]
        return scan.log_norm, scan.measured

    alone, more = seen(codes), seen(padded(codes, 5))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[5:]), alone, more)
    # Before the review the state is held at zero, and the adjoint arrives there unchanged.
    states, adjoints = more[1]
    for leaf in jax.tree.leaves(states):
        assert not np.asarray(leaf)[:5].any()
    for leaf in jax.tree.leaves(adjoints):
        assert (np.asarray(leaf)[:5] == np.asarray(leaf)[:1]).all()


@every_model
def test_parts_that_are_skipped_change_nothing(small, monkeypatch):
    monkeypatch.setattr(learn, "_SHORTEST", 1)
    model = build(small)
    params = drawn(model)
    codes = np.stack([padded(some_codes(n, seed=n), 12 - n) for n in (3, 4)])
    skips = [learn._skip(12, longest) for longest in range(1, 13)]
    assert skips == sorted(skips, reverse=True)
    assert skips[-1] == 0
    function = jax.jit(lambda skip: learn.logits(model, params, codes, skip))
    np.testing.assert_allclose(function(skips[3]), function(0), rtol=1e-12)
    assert skips[3] > 0


def test_dropout_keeps_the_mean():
    factors = jax.vmap(lambda key: _networks.drop(key, 0.3, 5, jnp.float64))(
        jax.random.split(KEY, 20_000)
    )
    np.testing.assert_allclose(factors.mean(0), 1, atol=0.03)
    np.testing.assert_allclose(np.unique(factors), [0, 1 / 0.7])


# Each model against NumPy.


def embedded(params, codes):
    table = np.asarray(params["embedding"])
    return sum(np.where(codes[:, g, None] == 0, 0, table[codes[:, g]]) for g in (0, 1))


def elman_states(params, xs):
    w, u, b = (np.asarray(params[name]) for name in ("recurrent", "input", "bias"))
    hs = [np.zeros(len(w))]
    for x in xs:
        hs.append(np.tanh(w @ hs[-1] + u @ x + b))
    return np.array(hs[1:])


def read_out(params, h):
    return h @ np.asarray(params["readout"]["weight"]) + np.asarray(params["readout"]["bias"])


def test_recurrent_decides_from_the_last_state():
    model = build("recurrent-elman")
    params, codes = drawn(model), some_codes()
    hs = elman_states(params["cell"], embedded(params, codes))
    np.testing.assert_allclose(
        model.logit(params, padded(codes, 2)), read_out(params, hs[-1]), rtol=1e-12
    )


@pytest.mark.parametrize("bidirectional", [False, True])
def test_pooled_reads_mean_and_largest_of_all_states(bidirectional):
    options = {"cell": "elman", "hidden": 4, "embedding": 3, "bidirectional": bidirectional}
    model = sentiment.make("pooled", CODES, **options)
    params, codes = drawn(model), some_codes()
    xs = embedded(params, codes)
    hs = elman_states(params["cells"][0], xs)
    if bidirectional:
        hs = np.concatenate([hs, elman_states(params["cells"][1], xs[::-1])[::-1]], axis=1)
    wanted = read_out(params, np.concatenate([hs.mean(0), hs.max(0)]))
    np.testing.assert_allclose(model.logit(params, padded(codes, 2)), wanted, rtol=1e-12)


def test_convolution_against_loops():
    model = build("convolution")
    params, codes = drawn(model), some_codes()
    xs = embedded(params, codes)
    largest = []
    for kernel in map(np.asarray, params["filters"]):
        responses = [
            sum(xs[t - k] @ kernel[k] for k in range(len(kernel)) if t >= k) for t in range(len(xs))
        ]
        largest.append(np.max(responses, axis=0))
    h = np.maximum(np.concatenate(largest) + np.asarray(params["bias"]), 0)
    found = jax.jit(model.logit)(params, codes)
    np.testing.assert_allclose(found, read_out(params, h), rtol=1e-12)


def test_bag_of_words_is_a_set():
    model = build("bag_of_words")
    params, codes = drawn(model), some_codes()
    present = sorted(set(codes.ravel().tolist()) - {sentiment.PADDING})
    weights = np.asarray(params["weight"])[present]
    wanted = weights.sum() / math.sqrt(len(present)) + params["bias"]
    np.testing.assert_allclose(model.logit(params, padded(codes, 3)), wanted, rtol=1e-12)
    shuffled = np.random.RandomState(0).permutation(codes)
    np.testing.assert_allclose(model.logit(params, shuffled), wanted, rtol=1e-12)


def test_standard_initialization_is_that_of_pytorch():
    hidden = 400
    options = {"cell": "elman", "hidden": hidden, "initialization": "standard"}
    model = sentiment.make("recurrent", CODES, **options)
    cell = model.init(KEY)["cell"]
    for name in ("recurrent", "input", "bias"):
        values = np.asarray(cell[name]).ravel()
        assert np.abs(values).max() <= 1 / math.sqrt(hidden)
        np.testing.assert_allclose(values.var(), 1 / (3 * hidden), rtol=0.2)
    spectral_radius = np.abs(np.linalg.eigvals(np.asarray(cell["recurrent"]))).max()
    np.testing.assert_allclose(spectral_radius, 1 / math.sqrt(3), rtol=0.1)


# Training, and what is said afterwards.


@every_taught
def test_toy_reviews_are_learnt(small, trained):
    made, seen = trained
    assert [epoch for epoch, _ in seen[small]] == [0, 1, 2, 3, 4, 5]
    losses = [loss for _, loss in seen[small]]
    assert math.isnan(losses[0])
    assert losses[-1] < losses[1]
    assert sentiment.evaluate(made[small], *toy(100, seed=1)).accuracy >= 0.97


def test_same_seed_same_parameters_and_another_seed_others(trained):
    made = trained[0]["bag_of_words"]
    again = sentiment.train(made.recipe, *toy())
    other = sentiment.train(made.recipe, *toy(), seed=1)
    np.testing.assert_array_equal(made.params["weight"], again.params["weight"])
    assert (made.params["weight"] != other.params["weight"]).any()


def test_loss_is_the_mean_cross_entropy(trained):
    made = trained[0]["bag_of_words"]
    texts, positive = toy(6, seed=2)
    codes = jnp.asarray(sentiment.encode(made.vocabulary, texts, 10))
    batch = sentiment.Batch(codes, jnp.asarray(positive), jnp.array(0), KEY)
    p = 1 / (1 + np.exp(-sentiment.scores(made, texts)))
    wanted = -np.log(np.where(positive, p, 1 - p)).mean()
    loss = jax.jit(sentiment.batch_loss(made.model))(made.params, batch)
    np.testing.assert_allclose(loss, wanted, rtol=1e-10)


def test_an_epoch_has_batches_of_similar_length_and_no_review_twice():
    lengths = np.random.RandomState(0).randint(1, 400, 1000)
    order = _training.order_by_length(lengths, 16, np.random.RandomState(1))
    assert order.shape == (62, 16)
    assert len(np.unique(order)) == order.size
    assert np.ptp(lengths[order], axis=1).mean() < 20


@every_taught
def test_predict_agrees_with_evaluate(small, trained):
    made = trained[0][small]
    texts, positive = toy(12, seed=5)
    found = sentiment.evaluate(made, texts, positive)
    confusion = np.zeros((2, 2), int)
    for text, label in zip(texts, positive, strict=True):
        said, probability, known, count = sentiment.predict(made, text)
        assert known == count == len(text.split())
        assert 0.5 <= probability <= 1
        confusion[int(label), sentiment.LABELS.index(said)] += 1
    np.testing.assert_array_equal(found.confusion, confusion)
    assert found.accuracy == np.trace(confusion) / 12


def test_scores_do_not_depend_on_their_batch(trained, monkeypatch):
    made = trained[0]["bag_of_words"]
    texts, _ = toy(12, seed=5)
    alone = sentiment.scores(made, texts)
    monkeypatch.setattr(learn, "_BATCH", 5)  # the last batch is not full
    np.testing.assert_allclose(sentiment.scores(made, texts), alone, rtol=1e-12)
    assert len(np.unique(alone)) > 6


def test_what_cannot_be_learnt_or_judged_is_told(trained):
    made = trained[0]["bag_of_words"]
    texts, positive = toy(6)
    with pytest.raises(ValueError, match="there is no review in this part of the data"):
        sentiment.train(made.recipe, [], np.zeros(0, bool))
    with pytest.raises(ValueError, match="there is no review in this part of the data"):
        sentiment.evaluate(made, [], np.zeros(0, bool))
    with pytest.raises(ValueError, match="6 reviews need as many labels, True or False; got int64"):
        sentiment.evaluate(made, texts, positive.astype(int))
    with pytest.raises(ValueError, match=r"got bool of shape \(5,\)"):
        sentiment.train(made.recipe, texts, positive[:5])
    with pytest.raises(ValueError, match="all 6 reviews are positive: nothing to learn"):
        sentiment.train(made.recipe, texts, np.ones(6, bool))
    with pytest.raises(ValueError, match="review 3 is empty"):
        sentiment.train(made.recipe, [*texts[:2], "", *texts[3:]], positive)
    with pytest.raises(ValueError, match="review 1 is empty"):
        sentiment.predict(made, "...".replace(".", " "))


def test_a_loss_without_a_value_is_told():
    recipe = sentiment.Recipe(
        "bag_of_words", {}, tokens=40, length=10, batch=12, rate=1e38, decay=1e6
    )
    with pytest.raises(ValueError, match=r"bag_of_words: update \d+ gave a loss or weights"):
        sentiment.train(recipe, *toy())


# How far back the gradient reaches.


def test_gradient_against_the_chain_rule(trained):
    made = trained[0]["recurrent-elman"]
    texts, _ = toy(9, seed=7)
    found = sentiment.gradient(made, texts)
    codes = sentiment.encode(made.vocabulary, texts, 10)
    w = np.asarray(made.params["cell"]["recurrent"])
    above = total = 0
    for row, text, line in zip(codes, texts, found.log_relative, strict=True):
        count = len(text.split())
        hs = elman_states(made.params["cell"], embedded(made.params, row[-count:]))
        adjoint = np.asarray(made.params["readout"]["weight"])
        norms = [np.linalg.norm(adjoint)]
        for h in hs[:0:-1]:
            adjoint = w.T @ ((1 - h**2) * adjoint)
            norms.append(np.linalg.norm(adjoint))
        relative = np.array(norms) / norms[0]
        np.testing.assert_allclose(line[:count], np.log(relative), rtol=1e-9, atol=1e-10)
        assert np.isnan(line[count:]).all()
        above += (relative > np.finfo(np.float32).eps).sum()
        total += count
    assert found.reached == above / total


def test_reached_counts_the_words_above_epsilon(trained):
    made = trained[0]["recurrent-elman"]
    # A linear recurrence of one factor: ‖λ_t‖ / ‖λ_T‖ is at most 0.01^lag, so 4 words are left.
    cell = made.params["cell"] | {"recurrent": 0.01 * jnp.eye(4), "bias": jnp.zeros(4)}
    tiny = made.params | {"cell": cell, "embedding": 1e-3 * made.params["embedding"]}
    found = sentiment.gradient(made._replace(params=tiny), [" ".join(["w1"] * 10)])
    assert found.reached == 0.4


def test_variant_is_traced_too(trained):
    texts, _ = toy(5, seed=7)
    found = sentiment.gradient(trained[0]["pooled"], texts)
    for text, line in zip(texts, found.log_relative, strict=True):
        assert np.isfinite(line[: len(text.split())]).all()
    made = trained[0]["pooled"]
    codes = sentiment.encode(made.vocabulary, texts[:1], 10)[0]
    scans = gl.trace(made.model.logit, argnums=())(made.params, codes).scans
    assert [scan.reverse for scan in scans] == [False, True]
    # Pooling reads every state itself, which is what shortens the gradient's way.
    assert np.isfinite(scans[0].log_direct[-len(texts[0].split()) :]).all()


def test_a_model_without_a_scan_has_no_gradient_to_show(trained):
    with pytest.raises(ValueError, match="scan"):
        sentiment.gradient(trained[0]["bag_of_words"], ["a film"])


# What a classifier has in mind.


def test_explain_against_the_equations_of_elman(trained):
    made = trained[0]["recurrent-elman"]
    text = "w1 GOOD strange w2"
    found = sentiment.explain(made, text)
    assert (found.tokens, found.known, found.gates) == (["w1", "good", "strange", "w2"], 3, {})
    codes = sentiment.encode(made.vocabulary, [text], 4)[0]
    hs = elman_states(made.params["cell"], embedded(made.params, codes))
    np.testing.assert_allclose(found.states, hs, rtol=1e-9)
    logits = [read_out(made.params, h) for h in hs]
    np.testing.assert_allclose(found.probability, 1 / (1 + np.exp(-np.array(logits))), rtol=1e-9)
    adjoint, norms = np.asarray(made.params["readout"]["weight"]), []
    for h in hs[::-1]:
        norms.append(np.log(np.linalg.norm(adjoint)))
        adjoint = np.asarray(made.params["cell"]["recurrent"]).T @ ((1 - h**2) * adjoint)
    np.testing.assert_allclose(found.log_norm, norms[::-1], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("small", ["recurrent-elman", "pooled"])
def test_explain_says_what_predict_says_of_every_beginning(small, trained):
    made = trained[0][small]
    tokens = "w3 bad w1 good w2".split()
    found = sentiment.explain(made, " ".join(tokens))
    says = [sentiment.scores(made, [" ".join(tokens[:n])])[0] for n in range(1, 6)]
    np.testing.assert_allclose(found.probability, 1 / (1 + np.exp(-np.array(says))), rtol=1e-6)
    assert {name: gate.shape for name, gate in found.gates.items()} == (
        {} if small == "recurrent-elman" else {"r": (5, 4), "z": (5, 4)}
    )
    for gate in found.gates.values():
        assert 0 < gate.min() and gate.max() < 1
    assert found.states.shape == (5, 4) and np.isfinite(found.log_norm).all()
    # Of a longer text the last tokens are read, as predict does.
    longer = sentiment.explain(made, " ".join(["w0"] * 9 + tokens))
    assert longer.tokens == ["w0"] * 5 + tokens
    says = sentiment.scores(made, [" ".join(["w0"] * 9 + tokens)])[0]
    assert float(longer.probability[-1]) == pytest.approx(1 / (1 + np.exp(-says)), rel=1e-6)


@pytest.mark.parametrize(
    ("small", "text", "message"),
    [
        ("pooled", " \n", "there is nothing to explain: the text is empty"),
        ("pooled", "um filme bom", "none of the 3 words of the text is known to this classifier"),
        ("pooled", "\N{GRINNING FACE}", "none of the 1 words of the text is known to this"),
        ("bag_of_words", "good", "a bag_of_words model has no state to explain: it reads no word"),
        ("convolution", "good", "a convolution model has no state to explain: it reads no word"),
    ],
)
def test_what_cannot_be_explained_is_told(small, text, message, trained):
    with pytest.raises(ValueError, match=message):
        sentiment.explain(trained[0][small], text)


# Files.


@pytest.fixture
def model_file(trained, tmp_path):
    path = tmp_path / "model.npz"
    sentiment.save(trained[0]["recurrent-elman"], path)
    return path


@every_taught
def test_saved_and_loaded_says_the_same(small, trained, tmp_path):
    made = trained[0][small]
    path = tmp_path / "folder" / "model.npz"
    sentiment.save(made, path)
    again = sentiment.load(path)
    assert (again.recipe, again.vocabulary) == (made.recipe, made.vocabulary)
    assert jax.tree.structure(again.params) == jax.tree.structure(made.params)
    jax.tree.map(np.testing.assert_array_equal, again.params, made.params)
    assert sentiment.predict(again, "w1 good w2") == sentiment.predict(made, "w1 good w2")
    assert list(path.parent.iterdir()) == [path]


def rewritten(path, change):
    """The file with something else in what it says about itself."""
    about, arrays = _arrays.read(path)
    change(about, arrays)
    _arrays.write(path, about, arrays)


def test_parameters_have_the_names_of_their_places(model_file):
    with safetensors.safe_open(model_file, framework="numpy") as file:
        names = set(file.keys())
    assert {"seen", "params/embedding", "params/readout/weight"} < names


def test_another_version_is_told(model_file):
    rewritten(model_file, lambda about, _: about.update(version=99))
    with pytest.raises(ValueError, match=r"model.npz: a model file of version 99, .* version 3"):
        sentiment.load(model_file)


EMBEDDING = "params/embedding"


@pytest.mark.parametrize(
    "change",
    [
        lambda about, arrays: about["recipe"].update(model="transformer"),
        lambda about, arrays: about["recipe"]["options"].update(hidden=5),
        lambda about, arrays: about.pop("vocabulary"),
        lambda about, arrays: arrays.pop("params/readout/bias"),
        lambda about, arrays: arrays.update(
            {"params/embedding": arrays["params/embedding"].astype(int)}
        ),
    ],
    ids=["model", "shape", "vocabulary", "leaf", "integers"],
)
def test_parts_that_do_not_fit_are_told(model_file, change):
    rewritten(model_file, change)
    with pytest.raises(ValueError, match="model.npz: damaged: its parts do not fit together"):
        sentiment.load(model_file)


def test_every_damage_is_seen(model_file):
    whole = model_file.read_bytes()
    made = sentiment.load(model_file)
    for place in np.random.RandomState(0).randint(0, len(whole), 60):
        damaged = bytearray(whole)
        damaged[place] ^= 0x55
        model_file.write_bytes(bytes(damaged))
        try:
            again = sentiment.load(model_file)
        except ValueError as error:
            assert "model.npz" in str(error)
        else:  # nothing that is read
            jax.tree.map(np.testing.assert_array_equal, again.params, made.params)
            assert again.vocabulary == made.vocabulary
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        model_file.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="damaged, or not a gradlab sentiment model"):
            sentiment.load(model_file)


def test_what_is_no_model_is_told(tmp_path):
    path = tmp_path / "model.npz"
    path.write_text("a film")
    with pytest.raises(ValueError, match="damaged, or not a gradlab sentiment model"):
        sentiment.load(path)
    np.savez(path, weights=np.ones(3))
    with pytest.raises(ValueError, match="damaged, or not a gradlab sentiment model"):
        sentiment.load(path)
    np.savez(path, about=np.array([{}], dtype=object))  # which only pickle could read
    with pytest.raises(ValueError, match="damaged, or not a gradlab sentiment model"):
        sentiment.load(path)
    with pytest.raises(FileNotFoundError, match="nowhere.npz: there is no such file"):
        sentiment.load(tmp_path / "nowhere.npz")


def test_a_write_that_fails_leaves_the_old_file(trained, model_file, monkeypatch):
    before = model_file.read_bytes()

    def full(_):
        raise OSError("no space left")

    monkeypatch.setattr(_files.os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        sentiment.save(trained[0]["pooled"], model_file)
    assert model_file.read_bytes() == before
    assert list(model_file.parent.iterdir()) == [model_file]


# The recipes and the commands.


@pytest.mark.parametrize("name", sentiment.RECIPES)
@pytest.mark.parametrize("make", [sentiment.recipe, sentiment.quick])
def test_recipes_can_be_built_and_saved(name, make):
    recipe = make(name)
    assert json.loads(json.dumps(recipe._asdict())) == recipe._asdict()
    tokens = tuple(map(str, range(recipe.tokens)))
    model = sentiment.build(recipe, sentiment.Vocabulary(recipe.unit, recipe.grams, tokens))
    params = jax.eval_shape(model.init, KEY)
    codes = jax.ShapeDtypeStruct((recipe.length, recipe.grams), jnp.int32)
    assert jax.eval_shape(model.logit, params, codes, KEY).shape == ()


@pytest.fixture
def reviews_file(tmp_path):
    """Reviews as a csv file, with both splits."""
    texts, positive = toy(200, seed=9)
    labels = np.where(positive, "positive", "negative")
    splits = ["train"] * 150 + ["test"] * 50
    rows = [",".join(row) for row in zip(texts, labels, splits, strict=True)]
    path = tmp_path / "reviews.csv"
    path.write_text("\n".join(["review,sentiment,split", *rows]))
    return path


def command(*arguments):
    return CliRunner().invoke(sentiment_cli.app, list(map(str, arguments)), catch_exceptions=False)


def test_train_evaluate_predict(reviews_file, tmp_path):
    out = tmp_path / "model.npz"
    said = command(
        "train", "--data", reviews_file, "--recipe", "bag_of_words", "--epochs", 30, "--out", out
    ).output
    assert "200 reviews" in said
    assert f"saved as {out}" in said
    said = command("evaluate", "--model", out, "--data", reviews_file).output
    made = sentiment.load(out)
    texts, positive = toy(200, seed=9)
    found = sentiment.evaluate(made, texts[150:], positive[150:])
    assert f"accuracy {found.accuracy:.4f}" in said
    assert "says positive" in said
    for count in found.confusion.ravel():
        assert f" {count} " in said
    found = sentiment.predict(made, "w1 good w2")
    said = command("predict", "--model", out, "w1 good w2").output
    assert said == f"{found.label} (probability {found.probability:.3f}, 3 of 3 words known)\n"


def test_explain_draws_what_the_model_reads(trained, tmp_path):
    made, model, out = trained[0]["pooled"], tmp_path / "model.npz", tmp_path / "new" / "a.b.png"
    sentiment.save(made, model)
    found = sentiment.predict(made, "w1 good rare w2")
    said = command("explain", "--model", model, "--out", out, "w1 good rare w2").output
    label = f"{found.label} (probability {found.probability:.3f}, 3 of 4 words known)"
    assert said == f"{label}\nsaved as {out}\n"
    assert out.read_bytes().startswith(b"\x89PNG")
    for arguments, message in (
        (("--model", model, "--out", tmp_path / "a.jpg"), "needs a name that ends in .png or .pdf"),
        (("--model", model, "--out", out), "the text is empty"),
        (("--model", tmp_path / "none", "--out", out), "there is no such file"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            command("explain", *arguments, " ")


def test_evaluate_leaves_out_what_the_model_was_trained_on(tmp_path):
    texts, positive = toy(120, seed=10)
    labels = np.where(positive, "positive", "negative")
    lines = ["review,sentiment", *(",".join(row) for row in zip(texts, labels, strict=True))]
    files = {"same": lines, "other": lines[:1] + lines[3:]}
    for name, content in files.items():
        (tmp_path / f"{name}.csv").write_text("\n".join(content))
    out = tmp_path / "model.npz"
    same = tmp_path / "same.csv"
    command("train", "--data", same, "--recipe", "bag_of_words", "--epochs", 1, "--out", out)
    said = {
        name: command("evaluate", "--model", out, "--data", tmp_path / f"{name}.csv").output
        for name in files
    }
    for name, count in (("same", 120), ("other", 118)):
        texts = imdb.read(tmp_path / f"{name}.csv").texts
        fitted = set(imdb.read(same).part("fit").texts) & set(texts)
        left = sum(text in fitted for text in texts)
        assert said[name].startswith(f"{count - left} reviews of ") and left
        assert f"{left} more were left out" in said[name]


def test_train_refuses_before_it_reads(tmp_path):
    missing = tmp_path / "missing.csv"
    for wrong, message in (
        (["--recipe", "gur"], "unknown recipe"),
        (["--cell", "lstn"], "unknown cell"),
        (["--unit", "word"], "unknown unit"),
    ):
        with pytest.raises(ValueError, match=message):
            command("train", "--data", missing, "--out", tmp_path / "m.npz", *wrong)
    with pytest.raises(FileNotFoundError, match="missing.csv"):
        command("train", "--data", missing, "--out", tmp_path / "m.npz")
    assert not list(tmp_path.iterdir())


# What is shipped, and what people write.


@pytest.fixture(scope="module")
def shipped():
    return sentiment.load()


def test_the_shipped_model_judges_the_lectures_sentence(shipped):
    text = "This movie was absolutely amazing! The acting was superb and the plot was captivating."
    for review in (text, "This movie was amazing!"):
        found = sentiment.predict(shipped, review)
        assert found.label == "positive" and found.probability > 0.9
    assert command("predict", text).output.startswith("positive (probability ")


def test_the_shipped_model_is_right_on_short_sentences(shipped):
    with (ROOT / "experiments" / "sentences.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 120
    found = sentiment.predict(shipped, [row["review"] for row in rows])
    for name in ("first", "second"):
        right = [
            said.label == row["sentiment"]
            for row, said in zip(rows, found, strict=True)
            if row["list"] == name
        ]
        assert len(right) == 60 and sum(right) >= 52


def test_the_shipped_model_is_small_and_says_what_it_is():
    path = ROOT / sentiment.SHIPPED
    assert path.stat().st_size < 2_000_000
    card = path.with_suffix(".md").read_text()
    assert f"{path.stat().st_size:,} bytes" in card
    accuracy = float(re.search(r"reviews of the part test \| ([0-9.]+)", card)[1])
    assert 0.9 <= accuracy < 1


@pytest.mark.parametrize(
    "text",
    [
        "O filme é maravilhoso, adorei cada minuto e recomendo a todos.",
        "Ce film est un chef-d'œuvre, les acteurs sont magnifiques du début à la fin.",
        "Der Film war leider sehr langweilig und viel zu lang, ich bin eingeschlafen.",
        "zxqv wkjh plmo qqqz",
        "映画はとても面白かったです",
        "👽 123",
    ],
)
def test_a_text_of_unknown_words_is_undecided(shipped, text):
    found = sentiment.predict(shipped, text)
    assert found.label == "undecided" and math.isnan(found.probability)
    assert found.known < found.words or not found.words
    said = command("predict", text).output
    assert said == f"undecided ({found.known} of {found.words} words known)\n"


def test_phones_and_markup_write_the_same_words(shipped):
    plain = "I don't like it. It isn't good."
    for other in (plain.replace("'", "\u2019"), plain.replace(". ", ".<BR />"), f" {plain}\n"):
        assert sentiment.predict(shipped, other) == sentiment.predict(shipped, plain)
    glad, sad = sentiment.scores(shipped, ["The film \U0001f60d", "The film \U0001f44e"])
    assert glad > sad
    assert sentiment.words("\U0001f44d\U0001f3fd\u2764\ufe0f :-(") == [":)", ":)", ":-("]


def test_predict_reads_lines_of_a_file_and_of_standard_input(shipped, tmp_path):
    path = tmp_path / "reviews.txt"
    texts = ["A great film.", "", "An awful film.", "Ein Film ohne Worte"]
    path.write_text("\n".join(texts))
    labels = ["1: positive", "3: negative", "4: undecided"]
    lines = command("predict", "--file", path).output.splitlines()
    assert [line.split(" (")[0] for line in lines] == labels
    runner = CliRunner()
    for arguments in (["predict"], ["predict", "--file", "-"]):
        again = runner.invoke(sentiment_cli.app, arguments, input=path.read_bytes())
        assert again.output.splitlines() == lines
    rows = [
        json.loads(line)
        for line in command("predict", "--json", "--file", path).output.splitlines()
    ]
    assert [f"{row['line']}: {row['label']}" for row in rows] == labels
    assert rows[2]["probability"] is None and rows[0]["probability"] > 0.9
    assert rows[0]["known"] == rows[0]["words"] == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"good\nbad\xff\n", "line 2: not UTF-8"),
        (b" \n\n", "there is no review in it"),
    ],
)
def test_a_file_that_cannot_be_judged_is_named(tmp_path, content, message):
    path = tmp_path / "reviews.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"reviews.txt.*{message}"):
        command("predict", "--file", path)
    with pytest.raises(ValueError, match="give a text or --file, not both"):
        command("predict", "good", "--file", path)
    with pytest.raises(ValueError, match="the text is empty"):
        command("predict", " ")


def test_a_small_file_says_nearly_the_same(trained, tmp_path):
    made, path = trained[0]["pooled"], tmp_path / "small.safetensors"
    sentiment.save(made, path, small=True)
    again = sentiment.load(path)
    table, rounded = (np.asarray(c.params["embedding"]) for c in (made, again))
    step = np.abs(table).max(1, keepdims=True) / 127
    assert (np.abs(rounded - table) <= 0.5001 * step).all()
    assert (rounded != table).any()


def test_phrases_and_cuts_have_the_labels_of_what_they_come_from():
    texts, positive = sentiment.phrases(400)
    assert len(texts) == len(positive) == 400 and positive.sum() == 200
    assert not any("{" in text for text in texts)
    assert len(set(texts)) > 300
    reviews = ["One is good here. Two is good here. Three is good here. Four.", "Short."]
    found, labels = sentiment.cuts(reviews, np.array([True, False]), 5)
    assert labels.tolist() == [True] * 5
    assert all(text in reviews[0] and "Four" not in text for text in found)
    assert any(text.endswith("Three is good here.") for text in found)


def test_the_name_that_published_code_imports_is_the_same_module():
    from gradlab.sentiment.recipes import Recipe

    import gradlab.sentiment
    from gradlab.applications.sentiment import data, recipes
    from gradlab.sentiment import load, text

    assert gradlab.sentiment is gl.sentiment and load is gl.sentiment.load
    assert text is data and Recipe is recipes.Recipe


def test_what_is_not_read_is_counted():
    texts = ["terrible " * 600 + "loved it . " * 150, "loved it \U0001f60d", "\U0001f60d"]
    classifier = sentiment.load()
    assert sentiment.count_unread(classifier, texts) == [650, 0, 0]
    says = sentiment.predict(classifier, texts)
    assert [(row.known, row.words) for row in says] == [(266, 266), (3, 3), (1, 1)]
    assert says[2].label == "positive" and sentiment.predict(classifier, []) == []


def test_a_recipe_that_nobody_could_train_by_is_refused_before_training():
    recipe = sentiment.Recipe("recurrent", {"hidden": 10**9}, tokens=10, length=5, batch=2)
    with pytest.raises(ValueError, match="hidden: 1000000000 is not a whole number from"):
        sentiment.train(recipe, ["a", "b"], np.array([True, False]))
