"""Model files with nonsense in them: refused, whatever it is."""

import random

import fuzzed
import jax
import numpy as np
import pytest

from gradlab import _arrays, sentiment
from gradlab.applications.sentiment import data, learn


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    recipe = sentiment.quick("gru")._replace(tokens=5, length=8)
    vocabulary = data.vocabulary(["good fine film", "bad poor film"], size=5)
    model = learn.build(recipe, vocabulary)
    path = tmp_path_factory.mktemp("store") / "model"
    params = model.init(jax.random.key(0), "float32")
    sentiment.save(learn.Classifier(recipe, vocabulary, model, params), path)
    return path


def changed(path, tmp_path, change):
    about, arrays = _arrays.read(path)
    change(about, arrays)
    _arrays.write(tmp_path / "other", about, arrays)
    return tmp_path / "other"


@pytest.mark.parametrize(("field", "value"), [
    ("grams", True), ("grams", 1.0), ("grams", 3), ("unit", None), ("tokens", [1, 2, 3]),
])  # fmt: skip
def test_a_vocabulary_with_nonsense_is_refused(path, tmp_path, field, value):
    other = changed(path, tmp_path, lambda about, _: about["vocabulary"].update({field: value}))
    with pytest.raises(ValueError, match="its parts do not fit together"):
        sentiment.load(other)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("length", 0), ("length", 10**12), ("length", True), ("length", "8"), ("batch", -1),
        ("epochs", 1.5), ("rate", float("nan")), ("rate", float("inf")), ("clip", -1.0),
        ("word_dropout", 1.5), ("grams", 3), ("tokens", None), ("unit", "sounds"),
        ("options", []), ("options", {"hidden": 10**9}), ("options", {"cell": "grv"}),
        ("options", {"dropout": -0.5}), ("options", {"hidden": float("nan")}), ("model", "x"),
        ("grams", 2), ("unit", "characters"),
    ],
)  # fmt: skip
def test_a_recipe_with_nonsense_is_refused(path, tmp_path, field, value):
    other = changed(path, tmp_path, lambda about, _: about["recipe"].update({field: value}))
    with pytest.raises(ValueError, match="damaged: its parts do not fit together") as caught:
        sentiment.load(other)
    assert len(str(caught.value)) <= 600


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_weights_that_are_not_finite_are_refused(path, tmp_path, value):
    def spoil(_, arrays):
        name = next(name for name in arrays if name != "seen" and arrays[name].ndim)
        arrays[name] = arrays[name].astype(np.float64)
        arrays[name].flat[0] = value

    with pytest.raises(ValueError, match="not all of its weights are finite"):
        sentiment.load(changed(path, tmp_path, spoil))


def test_what_is_whole_is_read(path, tmp_path):
    other = changed(path, tmp_path, lambda about, _: about["recipe"].update(epochs=0, clip=0))
    assert sentiment.load(other).recipe.epochs == 0
    assert 0 <= sentiment.predict(sentiment.load(path), "a good film")[1] <= 1


@pytest.mark.parametrize("seed", range(3))
def test_a_damaged_model_is_refused_or_gives_a_probability(path, tmp_path, seed):
    rng, content = random.Random(seed), path.read_bytes()
    for _ in range(20):
        how = fuzzed.model(rng, content, tmp_path / "other")
        found = fuzzed.outcome(lambda: sentiment.load(tmp_path / "other"))
        assert found in ("accepted", "refused"), how
