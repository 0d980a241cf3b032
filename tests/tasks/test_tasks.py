import bz2
import hashlib
import importlib.util
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradlab import cells, tasks
from gradlab.tasks import probe, reviews

KEY = jax.random.key(0)
SHAPE = 50, 7  # of one sequence; each further shape would compile anew

every_input = pytest.mark.parametrize("name", tasks.input_names())


def joined_text():
    """The ring of reviews as a string."""
    return reviews.decode(reviews.corpus().codes)


# Laws of every input source.


@every_input
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_shape_and_dtype(name, dtype):
    xs = tasks.make_input(name)(KEY, *SHAPE, dtype)
    assert xs.shape == SHAPE
    assert xs.dtype == dtype
    assert np.isfinite(xs).all()


@every_input
def test_default_dtype_is_jaxs_float(name):
    assert tasks.make_input(name)(KEY, *SHAPE).dtype == jnp.result_type(float)


@every_input
def test_key_decides(name):
    sample = tasks.make_input(name)
    keys = jax.random.split(KEY, 20)
    drawn = {np.asarray(sample(key, *SHAPE)).tobytes() for key in keys}
    again = {np.asarray(sample(key, *SHAPE)).tobytes() for key in keys}
    assert len(drawn) == len(keys)
    assert again == drawn


@every_input
def test_shorter_is_a_prefix_of_longer(name):
    sample = tasks.make_input(name)
    length, features = SHAPE
    np.testing.assert_array_equal(sample(KEY, *SHAPE), sample(KEY, 101, features)[:length])


@every_input
def test_vmap_under_jit_equals_loop(name):
    sample = tasks.make_input(name)
    keys = jax.random.split(KEY, 5)
    batch = jax.jit(jax.vmap(lambda key: sample(key, *SHAPE)))(keys)
    loop = np.stack([sample(key, *SHAPE) for key in keys])
    np.testing.assert_allclose(batch, loop, rtol=1e-14)


@every_input
def test_features_have_zero_mean_and_unit_variance(name):
    keys = jax.random.split(KEY, 400)
    sample = tasks.make_input(name)
    xs = np.asarray(jax.jit(jax.vmap(lambda key: sample(key, 500, 8)))(keys)).reshape(-1, 8)
    np.testing.assert_allclose(xs.mean(0), 0, atol=0.02)
    np.testing.assert_allclose(xs.var(0), 1, atol=0.03)


@every_input
@pytest.mark.parametrize("size", [0, -1])
def test_empty_sizes_are_refused(name, size):
    sample = tasks.make_input(name)
    with pytest.raises(ValueError, match=f"length must be at least 1, got {size}"):
        sample(KEY, size, 3)
    with pytest.raises(ValueError, match=f"features must be at least 1, got {size}"):
        sample(KEY, 3, size)


@every_input
def test_integer_dtype_is_refused(name):
    with pytest.raises(ValueError, match="dtype must be a floating type, got int32"):
        tasks.make_input(name)(KEY, 3, 3, jnp.int32)


def test_unknown_input_names_the_valid_ones_and_the_nearest():
    with pytest.raises(ValueError) as error:
        tasks.make_input("gausian")
    assert "'gausian'" in str(error.value)
    assert "did you mean 'gaussian'" in str(error.value)
    assert "gaussian, reviews" in str(error.value)


def test_gaussian_is_white_and_normal():
    xs = np.asarray(tasks.gaussian.gaussian(KEY, 200_000, 2))
    across = np.concatenate([xs[1:], xs[:-1]], axis=1)
    np.testing.assert_allclose(np.corrcoef(across.T), np.eye(4), atol=0.01)
    np.testing.assert_allclose((xs**4).mean(0), 3, atol=0.1)


# The corpus.


def test_vendored_file_is_the_one_on_record():
    data = resources.files("gradlab.tasks") / "data"
    packed = (data / reviews.FILE).read_bytes()
    assert hashlib.sha256(packed).hexdigest() == reviews.SHA256
    assert len(packed) < 600_000
    notice = (data / "NOTICE.md").read_text("utf-8")
    assert "Copyright (c) 2016 C.J. Hutto" in notice
    assert "Hutto and E. Gilbert" in notice


def test_snippets_counts():
    texts, positive = reviews.snippets()
    assert len(texts) == 10_568
    assert positive.shape == (10_568,)
    assert positive.dtype == bool
    assert positive.sum() == 5_242
    assert 0.49 < positive.mean() < 0.50
    assert all(text and text == text.strip() and text.isprintable() for text in texts)


def test_snippets_labels_of_known_reviews():
    labels = dict(zip(*reviews.snippets(), strict=True))
    assert labels["Offers that rare combination of entertainment and education."]
    assert not labels["Effective but too tepid biopic"]


def test_vendor_script_drops_zeros_and_keeps_the_rest():
    path = Path(__file__).parents[2] / "experiments" / "vendor_snippets.py"
    spec = importlib.util.spec_from_file_location("vendor_snippets", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    source = "1\t2.5\tGood.\r\n2\t0.0\tSo so.\r\n3\t-1.25\tCliché.".encode()
    assert bz2.decompress(script.compact(source)).decode() == "2.5\tGood.\n-1.25\tCliché.\n"


def test_every_review_is_in_the_ring_once():
    codes, starts = reviews.corpus()
    ends = [*starts[1:], codes.size]
    found = Counter(
        reviews.decode(codes[start:end]) for start, end in zip(starts, ends, strict=True)
    )
    texts, _ = reviews.snippets()
    known = set(reviews.vocabulary()[:-1])
    expected = Counter(
        "".join(char if char in known else reviews.OTHER for char in text) + "\n" for text in texts
    )
    assert found == expected


def test_vocabulary_keeps_what_is_common():
    texts, _ = reviews.snippets()
    counts = Counter("\n".join(texts) + "\n")
    common = sorted(char for char, count in counts.items() if count >= reviews.RARE)
    assert reviews.vocabulary() == (*common, reviews.OTHER)
    rare = sum(count for count in counts.values() if count < reviews.RARE)
    assert joined_text().count(reviews.OTHER) == rare == 50


def test_corpus_and_embedding_cannot_be_changed_by_accident():
    for array in (*reviews.corpus(), reviews.embedding(3)):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


# Reviews as input.


@pytest.mark.parametrize("features", [1, 32, 300])
def test_embedding_is_standardised_under_the_characters_of_the_corpus(features):
    counts = Counter(joined_text())
    weights = np.array([counts[char] for char in reviews.vocabulary()]) / counts.total()
    table = reviews.embedding(features)
    assert table.shape == (len(reviews.vocabulary()), features)
    np.testing.assert_allclose(weights @ table, 0, atol=1e-12)
    np.testing.assert_allclose(weights @ table**2, 1, rtol=1e-12)


def test_one_turn_of_the_ring_is_standardised_and_then_repeats():
    size = reviews.corpus().codes.size
    xs = np.asarray(reviews.reviews(KEY, size + 100, 2))
    np.testing.assert_allclose(xs[:size].mean(0), 0, atol=1e-10)
    np.testing.assert_allclose(xs[:size].var(0), 1, rtol=1e-10)
    np.testing.assert_array_equal(xs[size:], xs[:100])


def test_embedding_tells_all_characters_apart():
    table = reviews.embedding(1)
    assert len(np.unique(table)) == len(table)


def test_text_round_trip():
    table = reviews.embedding(16)
    ring = joined_text()
    starts = set(reviews.corpus().starts.tolist())
    for key in jax.random.split(KEY, 5):
        xs = np.asarray(reviews.reviews(key, 400, 16))
        nearest = np.square(xs[:, None] - table[None]).sum(-1).argmin(-1)
        text = reviews.decode(nearest)
        assert text == reviews.decode(reviews.characters(key, 400))
        assert (ring + ring[:400]).find(text) in starts


def test_every_review_can_be_the_first():
    codes, starts = np.arange(10, dtype=np.uint8), np.array([0, 3, 7], np.int32)
    small = reviews.Corpus(codes, starts)
    draw = jax.vmap(lambda key: reviews.characters(key, 12, corpus=small))
    drawn = np.unique(np.asarray(draw(jax.random.split(KEY, 50))), axis=0)
    ring = np.concatenate([codes, codes, codes])
    np.testing.assert_array_equal(drawn, [ring[start : start + 12] for start in starts])


def test_corpus_as_an_argument_stays_out_of_the_program():
    as_argument = jax.jit(lambda corpus, key: reviews.reviews(key, 60, 3, corpus=corpus))
    np.testing.assert_array_equal(
        as_argument(reviews.corpus(), KEY), jax.jit(lambda key: reviews.reviews(key, 60, 3))(KEY)
    )
    assert len(as_argument.lower(reviews.corpus(), KEY).as_text()) < 100_000


def test_precision_does_not_change_the_text():
    with jax.enable_x64(False):
        single = np.asarray(reviews.characters(KEY, 50))
    np.testing.assert_array_equal(single, reviews.characters(KEY, 50))


# The probe.


class Linear(NamedTuple):
    """h_t = W h_{t-1} + U x_t, without the package's cells."""

    hidden: int = 4

    def start(self, dtype=None):
        return jnp.zeros(self.hidden, dtype)

    def prepare(self, params):
        return params

    def project(self, params, x):
        return params["U"] @ x

    def advance(self, params, state, drive):
        return params["W"] @ state + drive

    def read(self, state):
        return state


def test_direction_has_unit_norm_on_average():
    draws = jax.vmap(lambda key: probe.direction(key, 50))(jax.random.split(KEY, 4000))
    assert draws.shape == (4000, 50)
    np.testing.assert_allclose((draws**2).sum(-1).mean(), 1, atol=0.02)
    np.testing.assert_allclose((draws**2).sum(-1).var(), 2 / 50, rtol=0.15)
    np.testing.assert_allclose(draws.mean(), 0, atol=0.002)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_direction_dtype(dtype):
    assert probe.direction(KEY, 3, dtype).dtype == dtype


def test_direction_refuses_an_empty_state():
    with pytest.raises(ValueError, match="hidden must be at least 1, got 0"):
        probe.direction(KEY, 0)


def test_direction_of_another_width_is_refused():
    with pytest.raises(ValueError, match=r"direction must have shape \(4,\), got \(3,\)"):
        probe.loss(Linear(), jnp.ones(3))


def test_probe_of_a_linear_cell_in_closed_form():
    rng = np.random.default_rng(0)
    w, u, v = rng.normal(size=(4, 4)) / 2, rng.normal(size=(4, 3)), rng.normal(size=4)
    xs = rng.normal(size=(9, 3))
    params = {"W": jnp.asarray(w), "U": jnp.asarray(u)}
    value, grad = jax.value_and_grad(probe.loss(Linear(), jnp.asarray(v)), 1)(params, xs)
    adjoints = [v @ np.linalg.matrix_power(w, 8 - t) for t in range(9)]
    expected = sum(adjoint @ u @ x for adjoint, x in zip(adjoints, xs, strict=True))
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    np.testing.assert_allclose(grad, np.stack(adjoints) @ u, rtol=1e-12)


@pytest.mark.parametrize(
    "name, dtype",
    [(name, jnp.float64) for name in cells.names()]
    + [(name, jnp.float32) for name in ("elman", "lstm", "lru", "orthogonal")],
)
def test_probe_equals_a_loop_over_steps(name, dtype):
    cell = cells.make(name, inputs=3, hidden=5)

    @jax.jit
    def drawn():
        inputs = tasks.make_input("gaussian")(jax.random.key(2), 7, 3, dtype)
        return cell.init(KEY, dtype), probe.direction(jax.random.key(1), 5, dtype), inputs

    params, direction, xs = drawn()
    state, step = cell.start(dtype), jax.jit(cell.step)
    for x in np.asarray(xs):
        state = step(params, state, x)
    value = jax.jit(probe.loss(cell, direction))(params, xs)
    assert value.dtype == dtype
    assert value.shape == ()
    rtol = 1e-12 if dtype == jnp.float64 else 2e-5
    np.testing.assert_allclose(value, np.sum(direction * cell.read(state)), rtol=rtol)


def test_what_needs_the_parameters_alone_is_computed_once_before_the_scan():
    cell = cells.make("orthogonal", inputs=3, hidden=5)
    value = probe.loss(cell, probe.direction(KEY, 5))
    program = jax.make_jaxpr(value)(cell.init(KEY), jnp.ones((7, 3)))
    (scan,) = [e for e in program.eqns if e.primitive.name == "scan"]
    assert "triangular_solve" in str(program) and "triangular_solve" not in str(scan)


def test_untied_probe_equals_a_loop_over_steps():
    cell = cells.make("lstm", inputs=3, hidden=5)
    direction = probe.direction(jax.random.key(1), 5)
    xs = tasks.make_input("gaussian")(jax.random.key(2), 7, 3)
    state = cell.start()
    for key, x in zip(jax.random.split(KEY, 7), xs, strict=True):
        state = cell.step(cell.init(key), state, x)
    value, finite = probe.untied_loss(cell, direction)(KEY, xs)
    np.testing.assert_allclose(value, np.sum(direction * cell.read(state)), rtol=1e-12)
    assert finite.tolist() == [True] * 7
    with pytest.raises(ValueError, match="direction must have shape"):
        probe.untied_loss(cell, jnp.ones(3))


def test_probe_holds_one_scan_over_the_steps():
    cell = cells.make("gru", inputs=3, hidden=5)
    value = probe.loss(cell, probe.direction(KEY, 5))
    program = jax.make_jaxpr(value)(cell.init(KEY), jnp.ones((7, 3)))
    scans = [equation for equation in program.eqns if equation.primitive.name == "scan"]
    assert [equation.params["length"] for equation in scans] == [7]
