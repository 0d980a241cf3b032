import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradlab import initializers

NAMES = initializers.names()
KEY = jax.random.key(0)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("shape", [(6, 6), (6, 3), (3, 6), (1, 1)])
@pytest.mark.parametrize("name", NAMES)
def test_shape_and_dtype(name, shape, dtype):
    W = initializers.make(name, gain=2.0)(KEY, shape, dtype)
    assert W.shape == shape
    assert W.dtype == dtype


@pytest.mark.parametrize("name", NAMES)
def test_default_dtype_is_jax_s_own(name):
    assert initializers.make(name)(KEY, (3, 3)).dtype == jnp.result_type(float)


@pytest.mark.parametrize("name", NAMES)
def test_the_gain_multiplies(name):
    W = initializers.make(name)(KEY, (5, 4), jnp.float64)
    scaled = initializers.make(name, gain=1.7)(KEY, (5, 4), jnp.float64)
    np.testing.assert_allclose(scaled, 1.7 * W, rtol=1e-15)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("name", NAMES)
def test_the_gain_may_be_traced(name, dtype):
    gains = jnp.array([0.5, 1.0, 2.0], jnp.float64)

    def draw(gain):
        return initializers.make(name, gain=gain)(KEY, (5, 5), dtype)

    mapped = jax.jit(jax.vmap(draw))(gains)
    assert mapped.dtype == dtype
    one_by_one = np.stack([draw(float(gain)) for gain in gains])
    np.testing.assert_allclose(mapped, one_by_one, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "identity"])
def test_keys_matter_and_nothing_else_does(name):
    draw = initializers.make(name)
    first, again, other = (draw(jax.random.key(i), (4, 4)) for i in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.any(first == other)


@pytest.mark.parametrize("name", ["normal", "glorot"])
@pytest.mark.parametrize("shape", [(400, 400), (200, 800), (800, 200)])
def test_mean_and_variance(name, shape):
    W = np.asarray(initializers.make(name, gain=1.5)(KEY, shape, jnp.float64))
    spread = {"normal": shape[1], "glorot": sum(shape) / 2}[name]
    variance = 1.5**2 / spread
    # 160,000 weights: the relative standard error of a variance is at most sqrt(2/160000) = 0.0035.
    assert W.var() == pytest.approx(variance, rel=0.018)
    assert abs(W.mean()) < 5 * np.sqrt(variance / W.size)
    kurtosis = np.mean(W**4) / np.mean(W**2) ** 2
    assert kurtosis == pytest.approx({"normal": 3.0, "glorot": 1.8}[name], abs=0.07)


def test_glorot_fills_its_range_and_stays_in_it():
    W = np.abs(initializers.glorot(gain=0.5)(KEY, (300, 500)))
    limit = 0.5 * np.sqrt(6 / 800)
    assert 0.999 * limit < W.max() <= limit


def test_normal_follows_the_circular_law():
    W = initializers.normal(gain=1.3)(KEY, (400, 400), jnp.float64)
    assert initializers.audit(W)["spectral_radius"] == pytest.approx(1.3, rel=0.08)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-6), (jnp.float64, 1e-13)])
@pytest.mark.parametrize("n", [1, 2, 32, 128])
def test_orthogonal_is_orthogonal(n, dtype, tolerance):
    W = np.asarray(initializers.orthogonal()(KEY, (n, n), dtype), np.float64)
    # The norm of the worst direction grows with n; entry by entry the error is the format's own.
    assert np.abs(W.T @ W - np.eye(n)).max() < tolerance
    assert initializers.audit(W)["orthogonality_error"] < 3 * tolerance


@pytest.mark.parametrize("shape", [(8, 3), (3, 8)])
def test_a_rectangular_orthogonal_has_equal_singular_values(shape):
    W = initializers.orthogonal(gain=1.5)(KEY, shape, jnp.float64)
    np.testing.assert_allclose(np.linalg.svd(W, compute_uv=False), np.full(3, 1.5), rtol=1e-13)


def test_orthogonal_is_haar():
    draw = initializers.orthogonal()
    keys = jax.random.split(KEY, 4000)
    W = np.asarray(jax.vmap(lambda key: draw(key, (3, 3), jnp.float64))(keys))
    # Haar in 3 dimensions: the trace has mean 0 and variance 1, an entry has variance 1/3, and
    # half of the matrices are reflections. QR without the sign fix fails the first.
    trace = np.trace(W, axis1=1, axis2=2)
    assert abs(trace.mean()) < 5 / np.sqrt(4000)
    assert trace.var() == pytest.approx(1, abs=0.12)
    np.testing.assert_allclose(W.var(axis=0), np.full((3, 3), 1 / 3), atol=0.03)
    assert abs(np.mean(np.linalg.det(W) > 0) - 0.5) < 5 * 0.5 / np.sqrt(4000)


def test_identity():
    W = initializers.identity(gain=0.25)(KEY, (3, 3), jnp.float32)
    assert np.array_equal(W, 0.25 * np.eye(3))


@pytest.mark.parametrize("shape", [(3,), (2, 3, 3), (0, 3)])
@pytest.mark.parametrize("name", NAMES)
def test_a_shape_that_is_no_matrix_is_refused(name, shape):
    with pytest.raises(ValueError, match=f"{name} needs a shape"):
        initializers.make(name)(KEY, shape)


def test_unknown_names_and_options_are_refused():
    with pytest.raises(ValueError, match="unknown initializer 'ortogonal'; did you mean 'orth"):
        initializers.make("ortogonal")
    with pytest.raises(ValueError, match="unknown normal option 'gian'; did you mean 'gain'?"):
        initializers.make("normal", gian=1.0)


def test_audit_against_numpy():
    rng = np.random.default_rng(0)
    stack = rng.standard_normal((2, 3, 6, 6))
    measured = initializers.audit(stack)
    for at in np.ndindex(2, 3):
        W = stack[at]
        scale = np.sum(W**2) / 6
        radius = max(abs(np.linalg.eigvals(W)))
        # ‖WᵀW/s² - I‖₂ is the largest distance of a squared singular value of W/s from 1.
        error = max(abs(np.linalg.svd(W, compute_uv=False) ** 2 / scale - 1))
        assert measured["spectral_radius"][at] == pytest.approx(radius, rel=1e-12)
        assert measured["orthogonality_error"][at] == pytest.approx(error, rel=1e-12)


@pytest.mark.parametrize("scale", [1e-200, 1e-3, 1.0, 1e200])
def test_audit_is_up_to_scale(scale):
    W = scale * np.asarray(initializers.orthogonal()(KEY, (7, 7), jnp.float64))
    measured = initializers.audit(W)
    assert measured["spectral_radius"] == pytest.approx(scale, rel=1e-12)
    assert measured["orthogonality_error"] < 1e-12


def test_audit_of_what_has_no_answer():
    stack = np.stack([np.eye(3), np.zeros((3, 3)), np.full((3, 3), np.nan)])
    measured = initializers.audit(stack)
    np.testing.assert_array_equal(measured["spectral_radius"], [1.0, 0.0, np.nan])
    np.testing.assert_array_equal(measured["orthogonality_error"], [0.0, np.nan, np.nan])


@pytest.mark.parametrize("shape", [(3,), (3, 4), (0, 0)])
def test_audit_refuses_what_is_not_square(shape):
    with pytest.raises(ValueError, match="square"):
        initializers.audit(np.zeros(shape))
