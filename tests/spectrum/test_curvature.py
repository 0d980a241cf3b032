"""Eigenvalues of Hessians against dense float64 matrices, finite differences and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from gradlab import spectrum

RNG = np.random.default_rng(0)
XS, YS = RNG.normal(size=(12, 3)), RNG.normal(size=12)
PARAMS = {
    "in": {"w": jnp.asarray(RNG.normal(size=(4, 3)))},
    "out": jnp.asarray(RNG.normal(size=4)),
}


def loss(params):
    h = jnp.tanh(XS @ params["in"]["w"].T)
    return jnp.mean((h @ params["out"] - YS) ** 2)


def by_differences():
    """The Hessian from differences of a gradient that is written out in NumPy."""

    def gradient(flat):
        w, v = flat[:12].reshape(4, 3), flat[12:]
        h = np.tanh(XS @ w.T)
        off = 2 * (h @ v - YS) / len(YS)
        return np.concatenate([((off[:, None] * v * (1 - h**2)).T @ XS).ravel(), h.T @ off])

    flat = np.concatenate([np.ravel(PARAMS["in"]["w"]), PARAMS["out"]])
    step = 1e-5
    units = np.eye(16) * step
    return np.array([(gradient(flat + u) - gradient(flat - u)) / (2 * step) for u in units])


def test_hessian_is_that_of_finite_differences():
    found = spectrum.hessian(loss, PARAMS)
    np.testing.assert_allclose(found.matrix, by_differences(), atol=1e-8)
    assert found.names == ("in.w", "out") and found.ends == (0, 12, 16)
    blocks = by_differences()
    expected = [
        [np.linalg.norm(blocks[a, b]) for b in (slice(0, 12), slice(12, 16))]
        for a in (slice(0, 12), slice(12, 16))
    ]
    np.testing.assert_allclose(np.exp(log_norms(found)), expected, rtol=1e-6)


def test_largest_and_smallest_eigenvalues_of_a_network():
    dense = np.linalg.eigvalsh(by_differences())

    @jax.jit
    @jax.vmap
    def find(sign):
        return spectrum.hessian_eigenvalues(lambda params: sign * loss(params), PARAMS, k=3).values

    largest, smallest = find(jnp.array([1.0, -1.0]))
    np.testing.assert_allclose(largest, dense[::-1][:3], atol=1e-7)
    np.testing.assert_allclose(-smallest, dense[:3], atol=1e-7)


def log_norms(found):
    """Those of the blocks, by one program."""
    return jax.jit(lambda matrix: found._replace(matrix=matrix).log_norms)(found.matrix)


def quadratic(H):
    return lambda w: w @ H @ w / 2


def test_the_error_holds_before_it_has_converged():
    # A spectrum with a gap as a Hessian has: some large values above a bulk.
    n = 120
    Q = scipy.linalg.qr(RNG.normal(size=(n, n)))[0]
    exact = np.sort(np.concatenate([[50.0, 20.0, 12.0], RNG.uniform(-1, 1, size=n - 3)]))[::-1]
    H = jnp.asarray(Q @ np.diag(exact) @ Q.T)
    found = spectrum.hessian_eigenvalues(quadratic(H), jnp.zeros(n), k=3)
    np.testing.assert_allclose(found.values, exact[:3], atol=1e-9)
    for m in (5, 9):
        early = spectrum.hessian_eigenvalues(quadratic(H), jnp.zeros(n), k=3, iterations=m)
        nearest = np.abs(exact[None] - np.asarray(early.values)[:, None]).min(1)
        assert (nearest <= np.asarray(early.error)).all()
        # Ritz values come from inside.
        assert (np.asarray(early.values) <= exact[:3] + 1e-9).all()


def test_multiple_eigenvalues_are_found_as_often_as_they_are():
    H = jnp.diag(jnp.array([3.0, 3.0, 3.0, 1.0, 0.0, -2.0]))
    found = spectrum.hessian_eigenvalues(quadratic(H), jnp.zeros(6), k=6)
    np.testing.assert_allclose(found.values, [3, 3, 3, 1, 0, -2], atol=1e-9)
    none = spectrum.hessian_eigenvalues(lambda w: jnp.sum(w), jnp.zeros(3), k=2)
    np.testing.assert_array_equal(none.values, 0)


def test_a_multiple_eigenvalue_of_many_parameters():
    """Least squares with four outputs: every eigenvalue of the inputs' covariance four times."""
    xs, ys = RNG.normal(size=(50, 20)), RNG.normal(size=(50, 4))
    exact = np.linalg.eigvalsh(xs.T @ xs / 50)[::-1].repeat(4)

    def loss(w):
        return jnp.sum((xs @ w - ys) ** 2) / 100

    found = spectrum.hessian_eigenvalues(loss, jnp.zeros((20, 4)), k=6)
    np.testing.assert_allclose(found.values, exact[:6], rtol=1e-4)
    assert (np.abs(np.asarray(found.values) - exact[:6]) <= np.asarray(found.error)).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("power", [-60, -20, 0, 20, 35])
def test_eigenvalues_and_blocks_far_from_one(dtype, power):
    scale = 10.0 ** (power if dtype == "float64" else power / 2)
    H = RNG.normal(size=(9, 9))
    H = scale * (H + H.T)
    exact = np.linalg.eigvalsh(H)[::-1]
    w = {"a": jnp.zeros(4, dtype), "b": jnp.zeros(5, dtype)}
    G = jnp.asarray(H, dtype)

    def loss(params):
        flat = jnp.concatenate([params["a"], params["b"]])
        return flat @ (G @ flat) / 2

    tolerance = 1e-5 if dtype == "float32" else 1e-12
    found = spectrum.hessian_eigenvalues(loss, w, k=3)
    np.testing.assert_allclose(found.values, exact[:3], rtol=tolerance)
    assert (np.abs(np.asarray(found.values) - exact[:3]) <= np.asarray(found.error)).all()
    ends = [slice(0, 4), slice(4, 9)]
    blocks = [[np.log(np.linalg.norm(H[a, b])) for b in ends] for a in ends]
    np.testing.assert_allclose(log_norms(spectrum.hessian(loss, w)), blocks, atol=tolerance)


def test_what_is_not_finite_is_nan_and_16_bits_are_widened():
    lost = spectrum.hessian_eigenvalues(lambda w: jnp.sum(jnp.sqrt(w)), jnp.zeros(2))
    assert np.isnan(lost.values).all() and np.isnan(lost.error).all()
    half = spectrum.hessian_eigenvalues(lambda w: 2 * w @ w, jnp.ones(2, jnp.bfloat16))
    assert half.values.dtype == jnp.float32 and half.values[0] == pytest.approx(4)


def test_eigenvalues_under_vmap_and_jit():
    scales = jnp.array([1.0, 2.0])
    find = lambda s: spectrum.hessian_eigenvalues(lambda w: s * w @ w, jnp.ones(3)).values  # noqa: E731
    np.testing.assert_allclose(jax.jit(jax.vmap(find))(scales)[:, 0], [2, 4])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must be between 1 and 16"),
        ({"k": 17}, "k must be between 1 and 16, the entries of params, got 17"),
        ({"k": 3, "iterations": 2}, "iterations must be between 3 and 16, got 2"),
        ({"params": {"n": 1}}, "params must be real floats, got a leaf of int"),
        ({"params": {"n": 1j}}, "params must be real floats, got a leaf of complex"),
        ({"params": {}}, "params have no entries"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    arguments = {"params": PARAMS} | options
    with pytest.raises(ValueError, match=message):
        spectrum.hessian_eigenvalues(loss, **arguments)
