import functools
import json
import math
from pathlib import Path

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.stats

from gradlab import initializers

NAMES = initializers.names()
SQUARE = {"chain", "echo_state", "eigenvalue_ring", "rotations", "spectral_radius"}
FIXED = {"chain", "identity"}
KEY = jax.random.key(0)
REFERENCES = json.loads((Path(__file__).parents[1] / "reference" / "references.json").read_text())
CRITICAL = {
    float(case["id"].removeprefix("critical_line_tanh_sb")): case["value"]["sw"]
    for case in REFERENCES
    if case["id"].startswith("critical_line_tanh_sb")
}


def draw(name, shape, dtype=jnp.float64, key=KEY, **options):
    return np.asarray(initializers.make(name, **options)(key, shape, dtype))


# Laws of all


@pytest.mark.parametrize("name", NAMES)
def test_shape_and_dtype(name):
    shapes = [(6, 6), (5, 5), (1, 1)] + [(6, 3), (3, 6)] * (name not in SQUARE)
    for shape in shapes:
        for dtype in (jnp.bfloat16, jnp.float32, jnp.float64):
            if dtype == jnp.bfloat16 and "orthogonal" in name:
                continue  # JAX has no QR in it

            def build(gain, shape=shape, dtype=dtype):
                return initializers.make(name, gain=gain)(KEY, shape, dtype)

            for gain in (2.0, jnp.array(2.0, jnp.float64)):
                W = jax.eval_shape(build, gain)
                assert W.shape == shape
                assert W.dtype == dtype
        default = jax.eval_shape(lambda shape=shape: initializers.make(name)(KEY, shape))
        assert default.dtype == jnp.result_type(float)


@pytest.mark.parametrize("name", NAMES)
def test_keys_and_gains_map_in_one_program(name):
    traces = []

    @jax.jit
    @jax.vmap
    def mapped(seed, gain):
        traces.append(gain)
        return initializers.make(name, gain=gain)(jax.random.key(seed), (5, 5), jnp.float64)

    W = draw(name, (5, 5))
    assert np.isfinite(W).all()
    assert W.any()
    gains = np.array([0.0, 1.0, 1.7, 1.0])
    first = np.asarray(mapped(np.array([0, 0, 0, 1]), gains))
    np.testing.assert_allclose(first[:3], gains[:3, None, None] * W, rtol=1e-12, atol=1e-14)
    again = np.asarray(mapped(np.array([1, 1, 0, 0]), np.array([0.5, 1.0, 3.0, 1.0])))
    np.testing.assert_array_equal(again[1], first[3])
    np.testing.assert_array_equal(again[3], first[1])
    assert len(traces) == 1
    if name not in FIXED:
        # Zeros, and the corner of an odd rotation, are all that another key may leave.
        assert not np.array_equal(first[1], first[3])
        drawn = (first[1] != 0) & (first[3] != 0) & (first[1] != 1)
        assert not np.any(first[1][drawn] == first[3][drawn])


@pytest.mark.parametrize("shape", [(2, 3, 3), (0, 3), (0, 0), ()])
@pytest.mark.parametrize("name", NAMES)
def test_a_shape_that_is_no_matrix_is_refused(name, shape):
    with pytest.raises(ValueError, match=f"{name} needs a shape"):
        initializers.make(name)(KEY, shape)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"eigenvalue_ring", "pytorch"}))
def test_a_vector_is_refused(name):
    with pytest.raises(ValueError, match=rf"{name} needs a shape .* got \(3,\)"):
        initializers.make(name)(KEY, (3,))


@pytest.mark.parametrize("name", sorted(SQUARE))
def test_a_rectangle_is_refused_where_only_a_square_has_a_meaning(name):
    with pytest.raises(ValueError, match=rf"{name} needs a shape \(n, n\) .* got \(3, 4\)"):
        initializers.make(name)(KEY, (3, 4))


def test_unknown_names_and_options_are_refused():
    with pytest.raises(ValueError, match="unknown initializer 'ortogonal'; did you mean 'orth"):
        initializers.make("ortogonal")
    with pytest.raises(ValueError, match="unknown normal option 'gian'; did you mean 'gain'?"):
        initializers.make("normal", gian=1.0)
    with pytest.raises(ValueError, match="chrono needs t_max"):
        initializers.make("chrono")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("critical", {"activation": "tan"}, "unknown activation 'tan'"),
        ("critical", {"bias_std": -1.0}, "bias_std must be"),
        ("echo_state", {"density": 0.0}, r"echo_state needs a density in \(0, 1\], got 0"),
        ("spectral_radius", {"density": 1.5}, "spectral_radius needs a density"),
        ("spectral_radius", {"density": math.nan}, "spectral_radius needs a density"),
        ("eigenvalue_ring", {"r_min": 0.9, "r_max": 0.5}, "0 <= r_min <= r_max"),
        ("eigenvalue_ring", {"r_min": -0.1}, "0 <= r_min <= r_max"),
        ("eigenvalue_ring", {"r_max": math.inf}, "0 <= r_min <= r_max"),
        ("eigenvalue_ring", {"phase": math.nan}, "0 <= r_min <= r_max"),
        ("heavy_tailed", {"alpha": 0.0}, r"heavy_tailed needs an alpha in \(0, 2\], got 0"),
        ("heavy_tailed", {"alpha": 2.5}, "heavy_tailed needs an alpha"),
        ("stacked_orthogonal", {"gates": 0}, "stacked_orthogonal needs a whole number gates"),
        ("glorot", {"gates": 1.5}, "glorot needs a whole number gates"),
        ("haiku", {"inputs": -1}, "haiku needs a whole number inputs"),
        ("chrono", {"t_max": 1.0}, "chrono needs a finite t_max of at least 2, got 1"),
        ("chrono", {"t_max": math.inf}, "chrono needs a finite t_max"),
        ("chrono", {"t_max": [3.0, 4.0]}, "chrono needs a finite t_max"),
    ],
)
def test_options_without_meaning_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        initializers.make(name, **options)


# Independent entries

CUT = scipy.stats.truncnorm(-2, 2)
# name: variance over gain² for (out, in), and the law of an entry with deviation 1 unless it says
# otherwise; all from the papers and the libraries' documentation.
MOMENTS = {
    "critical": (lambda m, n: 1 / n, scipy.stats.norm()),
    "glorot": (lambda m, n: 2 / (m + n), scipy.stats.uniform(-1, 2)),
    "haiku": (lambda m, n: CUT.var() / n, CUT),
    "he": (lambda m, n: 2 / n, CUT),
    "lecun": (lambda m, n: 1 / n, CUT),
    "normal": (lambda m, n: 1 / n, scipy.stats.norm()),
    "pytorch": (lambda m, n: 1 / (3 * m), scipy.stats.uniform(-1, 2)),
    "uniform": (lambda m, n: 1 / n, scipy.stats.uniform(-1, 2)),
}


@pytest.mark.parametrize("shape", [(100, 200), (200, 100)])
@pytest.mark.parametrize("name", MOMENTS)
def test_the_law_of_an_entry(name, shape):
    variance, law = MOMENTS[name]
    W = draw(name, shape, gain=1.5).ravel()
    deviation = 1.5 * math.sqrt(variance(*shape))
    # 20,000 weights: the relative standard error of a variance is at most sqrt(2/20000) = 0.01.
    assert W.var() == pytest.approx(deviation**2, rel=0.05)
    assert scipy.stats.kstest(W / deviation * law.std(), law.cdf).pvalue > 0.001
    assert np.abs(W).max() <= deviation / law.std() * law.support()[1]


@functools.cache
def of_haiku(module):
    cell = hk.transform(lambda x: (core := module(256))(x, core.initial_state(None)))
    return jax.jit(cell.init)(jax.random.key(3), jnp.zeros(100))


@functools.cache
def of_equinox(module):
    return module(100, 256, key=jax.random.key(3))


# Each library's own weight or bias of one gate, and what we call it.
LIBRARIES = {
    "haiku VanillaRNN": lambda: (
        of_haiku(hk.VanillaRNN)["vanilla_rnn/linear_1"]["w"].T,
        ("haiku", {}),
    ),
    "haiku LSTM": lambda: (
        of_haiku(hk.LSTM)["lstm/linear"]["w"].T[:256, 100:],
        ("haiku", {"inputs": 100}),
    ),
    "haiku GRU": lambda: (of_haiku(hk.GRU)["gru"]["w_h"].T[:256], ("lecun", {})),
    "equinox GRUCell": lambda: (of_equinox(eqx.nn.GRUCell).weight_hh[:256], ("pytorch", {})),
    "equinox LSTMCell input": lambda: (
        of_equinox(eqx.nn.LSTMCell).weight_ih[:256],
        ("pytorch", {}),
    ),
    "equinox LSTMCell bias": lambda: (of_equinox(eqx.nn.LSTMCell).bias[:256], ("pytorch", {})),
}


@pytest.mark.parametrize("cell", LIBRARIES)
def test_the_default_of_the_library(cell):
    theirs, (name, options) = LIBRARIES[cell]()
    ours = draw(name, theirs.shape, **options)
    assert scipy.stats.ks_2samp(ours.ravel(), np.ravel(theirs)).pvalue > 0.001
    # A test of the middle may miss a factor of 0.88 in the width; it moves the bounds.
    assert np.abs(ours).max() == pytest.approx(np.abs(theirs).max(), rel=0.02)


def test_glorot_over_gates():
    W = draw("glorot", (100, 60), gates=4)
    limit = math.sqrt(6 / 460)
    assert 0.99 * limit < np.abs(W).max() <= limit


def test_normal_follows_the_circular_law():
    W = draw("normal", (300, 300), gain=1.3)
    assert initializers.audit(W)["spectral_radius"] == pytest.approx(1.3, rel=0.08)


@pytest.mark.parametrize("bias_std", CRITICAL)
def test_critical_is_on_the_critical_line(bias_std):
    W = draw("critical", (30, 20), bias_std=bias_std)
    unit = draw("critical", (30, 20))  # at no bias the critical gain of tanh is 1
    np.testing.assert_allclose(W / unit, CRITICAL[bias_std], rtol=1e-6)


@pytest.mark.parametrize(
    ("activation", "gain"), [("relu", math.sqrt(2)), ("erf", math.sqrt(math.pi) / 2), ("linear", 1)]
)
def test_critical_of_other_activations(activation, gain):
    ratio = draw("critical", (30, 20), activation=activation) / draw("critical", (30, 20))
    np.testing.assert_allclose(ratio, gain, rtol=1e-9)


@pytest.mark.parametrize("alpha", [0.7, 1.0, 1.5, 2.0])
def test_heavy_tailed_has_the_characteristic_function_of_a_stable_law(alpha):
    W = draw("heavy_tailed", (200, 500), gain=1.4, alpha=alpha)
    scale = 1.4 / 1000 ** (1 / alpha)
    for t in (0.3, 1.0, 2.0):
        wave = np.cos(t * W / scale)
        error = wave.std() / math.sqrt(W.size)
        assert wave.mean() == pytest.approx(math.exp(-(t**alpha)), abs=4 * error)
        assert np.sin(t * W / scale).mean() == pytest.approx(0, abs=4 / math.sqrt(W.size))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("alpha", [0.7, 1.0, 1.5])
def test_heavy_tailed_has_its_tails(alpha, dtype):
    W = draw("heavy_tailed", (500, 400), dtype, alpha=alpha)
    largest = np.sort(np.abs(W).ravel())[-1001:].astype(float)
    # Hill's estimate of the exponent from the 1000 largest has a relative error of 1/√1000.
    hill = 1 / np.mean(np.log(largest[1:] / largest[0]))
    assert hill == pytest.approx(alpha, rel=4 / math.sqrt(1000))
    constant = 2 / math.pi * math.gamma(alpha) * math.sin(math.pi * alpha / 2)
    expected = W.size * constant * (800 ** (-1 / alpha) / largest[0]) ** alpha
    assert expected == pytest.approx(1000, rel=4 / math.sqrt(1000))


@pytest.mark.parametrize(
    ("alpha", "law"), [(1.0, scipy.stats.cauchy()), (2.0, scipy.stats.norm(scale=math.sqrt(2)))]
)
def test_heavy_tailed_where_the_law_is_known(alpha, law):
    W = draw("heavy_tailed", (200, 500), jnp.float32, alpha=alpha)
    assert scipy.stats.kstest(W.ravel() * 1000 ** (1 / alpha), law.cdf).pvalue > 0.001


@pytest.mark.parametrize("alpha", [0.6, 1.0, 1.5, 2.0])
def test_heavy_tailed_is_finite_at_the_ends_of_the_generator(alpha, monkeypatch):
    ends = jnp.array([[0.0, 1 - 2.0**-23]], jnp.float32)
    monkeypatch.setattr(jax.random, "uniform", lambda *_: ends)
    assert np.isfinite(draw("heavy_tailed", (1, 2), jnp.float32, alpha=alpha)).all()


# Orthogonal, block-diagonal, feed-forward


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-6), (jnp.float64, 1e-13)])
@pytest.mark.parametrize("n", [1, 64])
def test_orthogonal_is_orthogonal(n, dtype, tolerance):
    W = draw("orthogonal", (n, n), dtype).astype(float)
    # The norm of the worst direction grows with n; entry by entry the error is the format's own.
    assert np.abs(W.T @ W - np.eye(n)).max() < tolerance
    assert initializers.audit(W)["orthogonality_error"] < 3 * tolerance


@pytest.mark.parametrize("shape", [(8, 3), (3, 8)])
def test_a_rectangular_orthogonal_has_equal_singular_values(shape):
    W = draw("orthogonal", shape, gain=1.5)
    np.testing.assert_allclose(np.linalg.svd(W, compute_uv=False), np.full(3, 1.5), rtol=1e-13)


def test_orthogonal_is_haar():
    build = initializers.orthogonal()
    keys = jax.random.split(KEY, 4000)
    W = np.asarray(jax.vmap(lambda key: build(key, (3, 3), jnp.float64))(keys))
    # Haar in 3 dimensions: the trace has mean 0 and variance 1, an entry has variance 1/3, and
    # half of the matrices are reflections. QR without the sign fix fails the first.
    trace = np.trace(W, axis1=1, axis2=2)
    assert abs(trace.mean()) < 5 / np.sqrt(4000)
    assert trace.var() == pytest.approx(1, abs=0.12)
    np.testing.assert_allclose(W.var(axis=0), np.full((3, 3), 1 / 3), atol=0.03)
    assert abs(np.mean(np.linalg.det(W) > 0) - 0.5) < 5 * 0.5 / np.sqrt(4000)


@pytest.mark.parametrize("gates", [3, 4])
def test_stacked_orthogonal_is_a_block_of_an_orthogonal_kernel(gates):
    s = np.linalg.svd(draw("stacked_orthogonal", (100, 100), gain=2.0, gates=gates))[1] / 2
    assert np.mean(s**2) == pytest.approx(1 / gates, rel=0.02)
    # Collins (2005): squared singular values of a product of free projections of traces a and b
    # lie below a + b - 2ab + 2 sqrt(ab(1-a)(1-b)); here a = b = 1/G.
    edge = 4 * (1 / gates) * (1 - 1 / gates)
    assert s.max() ** 2 == pytest.approx(edge, rel=0.04)
    assert draw("stacked_orthogonal", (4, 4), gates=1) == pytest.approx(draw("orthogonal", (4, 4)))


def test_identity():
    assert np.array_equal(draw("identity", (3, 3), gain=0.25), 0.25 * np.eye(3))


def test_chain():
    W = draw("chain", (6, 6), gain=1.5)
    for k in range(6):
        power = np.linalg.matrix_power(W, k)
        assert np.linalg.norm(power, 2) == pytest.approx(1.5**k, rel=1e-14)
    assert not np.linalg.matrix_power(W, 6).any()
    h = np.zeros(6)
    h[0] = 1.0
    assert (W @ h)[1] == 1.5  # the pulse moves on to the next unit
    measured = initializers.audit(W)
    assert measured["spectral_radius"] == 0
    assert measured["largest_singular_value"] == pytest.approx(1.5)
    assert measured["smallest_singular_value"] == 0
    assert measured["log10_condition"] == np.inf
    assert measured["non_normality"] == 1


def blocks(W):
    """W without its 2×2 diagonal blocks."""
    n = len(W)
    return np.where(np.kron(np.eye((n + 1) // 2), np.ones((2, 2)))[:n, :n] > 0, 0.0, W)


@pytest.mark.parametrize("n", [1, 7, 200])
def test_rotations(n):
    W = draw("rotations", (n, n), gain=0.8) / 0.8
    assert not blocks(W).any()
    np.testing.assert_allclose(W.T @ W, np.eye(n), atol=1e-15)
    assert np.linalg.det(W) == pytest.approx(1)
    if n == 200:
        angles = np.arctan2(W[1::2, 0::2].diagonal(), W[0::2, 0::2].diagonal())
        uniform = scipy.stats.uniform(0, 2 * np.pi).cdf
        assert scipy.stats.kstest(angles % (2 * np.pi), uniform).pvalue > 0.01
    else:
        assert W[-1, -1] == 1.0


@pytest.mark.parametrize("phase", [2 * math.pi, 0.3])
def test_eigenvalue_ring_of_a_diagonal(phase):
    options = {"r_min": 0.5, "r_max": 0.9, "phase": phase}
    eigenvalues = draw("eigenvalue_ring", (2000,), gain=2.0, **options) / 2
    square = scipy.stats.uniform(0.25, 0.81 - 0.25).cdf
    assert scipy.stats.kstest(np.abs(eigenvalues) ** 2, square).pvalue > 0.01
    angle = np.angle(eigenvalues) % (2 * np.pi)
    assert scipy.stats.kstest(angle, scipy.stats.uniform(0, phase).cdf).pvalue > 0.01


@pytest.mark.parametrize("n", [1, 6, 101])
def test_eigenvalue_ring_of_a_matrix(n):
    W = draw("eigenvalue_ring", (n, n), gain=1.5, r_min=0.6, r_max=0.9)
    assert not blocks(W).any()
    eigenvalues = np.linalg.eigvals(W) / 1.5
    assert np.all((np.abs(eigenvalues) > 0.6) & (np.abs(eigenvalues) < 0.9))
    assert np.sum(np.abs(eigenvalues.imag) > 1e-12) == n - n % 2
    assert initializers.audit(W)["non_normality"] < 1e-7
    if n == 101:
        upper = eigenvalues[eigenvalues.imag > 0]
        square = scipy.stats.uniform(0.36, 0.81 - 0.36).cdf
        assert scipy.stats.kstest(np.abs(upper) ** 2, square).pvalue > 0.01
        assert scipy.stats.kstest(np.angle(upper), scipy.stats.uniform(0, np.pi).cdf).pvalue > 0.01


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (jnp.float32, jnp.complex64),
        (jnp.complex64, jnp.complex64),
        (jnp.float64, jnp.complex128),
        (None, jnp.complex128),
    ],
)
def test_eigenvalue_ring_is_complex_for_a_diagonal(asked, given):
    ring = initializers.eigenvalue_ring()
    assert jax.eval_shape(lambda: ring(KEY, (4,), asked)).dtype == given


# Spectral radius


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 3e-6), (jnp.float64, 1e-13)])
@pytest.mark.parametrize(("n", "density", "count"), [(1, 0.5, 9), (10, 0.1, 300), (60, 0.2, 20)])
def test_the_spectral_radius_is_what_was_asked_for(n, density, count, dtype, tolerance):
    build = initializers.spectral_radius(gain=0.9, density=density)
    keys = jax.random.split(KEY, count)
    W = np.asarray(jax.jit(jax.vmap(lambda key: build(key, (n, n), dtype)))(keys), float)
    links = max(1, round(density * n))
    assert np.all(np.sum(W != 0, axis=-1) == links)
    eigenvalues = np.linalg.eigvals(W)
    np.testing.assert_allclose(np.abs(eigenvalues).max(axis=-1), 0.9, rtol=n * tolerance)
    if n == 60:
        # Both kinds of leading eigenvalue are here: a real one and a complex pair.
        leading = np.take_along_axis(eigenvalues, np.abs(eigenvalues).argmax(-1)[:, None], 1)
        assert 0 < np.sum(leading.imag == 0) < count
    if n == 10:
        # Every place is as likely: 300 rows of one link in ten places.
        hits = np.sum(W != 0, axis=(0, 1))
        assert scipy.stats.chisquare(hits).pvalue > 0.001


def test_a_dense_matrix_of_given_radius_is_gaussian():
    W = draw("spectral_radius", (60, 60), gain=1.5).ravel()
    assert scipy.stats.kstest(W / W.std(), scipy.stats.norm.cdf).pvalue > 0.01
    assert initializers.audit(W.reshape(60, 60))["spectral_radius"] == pytest.approx(1.5, rel=1e-12)


def test_echo_state_is_sparse():
    W = draw("echo_state", (50, 50), gain=0.95)
    assert np.all(np.sum(W != 0, axis=1) == 5)
    assert initializers.audit(W)["spectral_radius"] == pytest.approx(0.95, rel=1e-12)


# Biases


@pytest.mark.parametrize("t_max", [10.0, 1000.0])
def test_chrono_spreads_time_constants_evenly(t_max):
    b = draw("chrono", (2000,), t_max=t_max)
    even = scipy.stats.uniform(1, t_max - 2).cdf
    assert scipy.stats.kstest(np.exp(b), even).pvalue > 0.01
    measured = initializers.gate_time_constants(b)
    # τ lies between u and u + 1/2, u even on [1, t_max - 1].
    spread = t_max / np.sqrt(2000)
    assert measured["time_constant_median"] == pytest.approx(t_max / 2, abs=0.25 + 2 * spread)
    assert 1.0 < measured["time_constant_min"] < 1.5 + spread
    assert t_max - 1 - spread < measured["time_constant_max"] < t_max - 0.5


def test_chrono_maps_over_t_max():
    horizons = np.array([2.0, 5.0, 50.0])

    @jax.jit
    @jax.vmap
    def mapped(t_max):
        return initializers.chrono(t_max)(KEY, (7,), jnp.float32)

    b = np.asarray(mapped(horizons))
    assert b.dtype == np.float32
    np.testing.assert_array_equal(b[0], 0.0)
    np.testing.assert_allclose(b[1:], [draw("chrono", (7,), jnp.float32, t_max=t) for t in (5, 50)])


@pytest.mark.parametrize("shape", [(), (0,), (3, 3)])
@pytest.mark.parametrize(("name", "options"), [("chrono", {"t_max": 5}), ("forget_bias", {})])
def test_a_bias_is_a_vector(name, options, shape):
    with pytest.raises(ValueError, match=f"{name} needs a shape"):
        initializers.make(name, **options)(KEY, shape)


def test_forget_bias():
    b = jax.jit(jax.vmap(lambda v: initializers.forget_bias(v)(KEY, (2,), jnp.float32)))
    assert np.array_equal(b(np.array([1.0, 2.5])), [[1.0, 1.0], [2.5, 2.5]])
    assert b(np.array([1.0, 2.5])).dtype == jnp.float32


@pytest.mark.parametrize(
    ("t_max", "bias", "decay"),
    [
        (10, 2.1972245773362196, 0.3486784401000001),
        (100, 4.59511985013459, 0.3660323412732292),
        (1000, 6.906754778648554, 0.36769542477096373),
    ],
)
def test_gate_time_constants_against_the_published_decay(t_max, bias, decay):
    # Tallec & Ollivier (2018): at u = T - 1 a unit keeps (1 - 1/T)^T over T steps.
    measured = initializers.gate_time_constants([bias])
    for value in measured.values():
        assert math.exp(-t_max / value) == pytest.approx(decay, rel=1e-12)


def test_gate_time_constants_of_a_stack():
    b = np.array([[0.0, -1.0, 3.0, 5.0], [-800.0, 0.0, 0.0, 800.0], [np.nan, 0.0, 0.0, 0.0]])
    measured = initializers.gate_time_constants(b)
    tau = [-1 / math.log(1 / (1 + math.exp(-value))) for value in (0.0, -1.0, 3.0, 5.0)]
    half = 1 / math.log(2)
    expected = {
        "time_constant_median": [(tau[0] + tau[2]) / 2, half, np.nan],
        "time_constant_min": [tau[1], 1 / 800, np.nan],
        "time_constant_max": [tau[3], np.inf, np.nan],
    }
    assert measured.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(measured[name], values, rtol=1e-12)
    for shape in ((), (0,), (3, 0)):
        with pytest.raises(ValueError, match="needs a bias"):
            initializers.gate_time_constants(np.zeros(shape))


# Audits

KEYS = {
    "spectral_radius",
    "largest_singular_value",
    "smallest_singular_value",
    "log10_condition",
    "orthogonality_error",
    "non_normality",
}


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_audit_against_other_routes(kind):
    rng = np.random.default_rng(0)
    stack = rng.standard_normal((2, 3, 6, 6))
    if kind == "complex":
        stack = stack + 1j * rng.standard_normal(stack.shape)
    measured = initializers.audit(stack)
    assert measured.keys() == KEYS
    for at in np.ndindex(2, 3):
        W = stack[at]
        size = np.linalg.norm(W)
        # Schur: W = Q(D + N)Qᴴ, and ‖N‖_F is Henrici's departure, whatever the order of D.
        T = scipy.linalg.schur(W, output="complex")[0]
        gram = W.conj().T @ W
        expected = {
            "spectral_radius": max(abs(T.diagonal())),
            "largest_singular_value": np.linalg.norm(W, 2),
            "smallest_singular_value": 1 / np.linalg.norm(np.linalg.inv(W), 2),
            "log10_condition": math.log10(np.linalg.cond(W)),
            "orthogonality_error": np.linalg.norm(gram / (size**2 / 6) - np.eye(6), 2),
            "non_normality": np.linalg.norm(np.triu(T, 1)) / size,
        }
        for name, value in expected.items():
            assert measured[name][at] == pytest.approx(value, rel=1e-10), name


def test_audit_of_a_complex_diagonal():
    eigenvalues = draw("eigenvalue_ring", (8,), r_min=0.5, r_max=0.9)
    measured = initializers.audit(np.diag(eigenvalues))
    modulus = np.abs(eigenvalues)
    assert measured["spectral_radius"] == pytest.approx(modulus.max())
    assert measured["largest_singular_value"] == pytest.approx(modulus.max())
    assert measured["smallest_singular_value"] == pytest.approx(modulus.min())
    assert measured["non_normality"] < 1e-7


@pytest.mark.parametrize("scale", [1e-200, 1e-3, 1.0, 1e200])
def test_audit_is_up_to_scale(scale):
    measured = initializers.audit(scale * draw("orthogonal", (7, 7)))
    for name in ("spectral_radius", "largest_singular_value", "smallest_singular_value"):
        assert measured[name] == pytest.approx(scale, rel=1e-12)
    assert abs(measured["log10_condition"]) < 1e-12
    assert measured["orthogonality_error"] < 1e-12
    assert measured["non_normality"] < 1e-7


def test_audit_of_what_has_no_answer():
    stack = np.stack([np.eye(3), np.zeros((3, 3)), np.full((3, 3), np.nan)])
    stack[2, 0, 0] = np.inf
    measured = initializers.audit(stack)
    for name in ("spectral_radius", "largest_singular_value", "smallest_singular_value"):
        np.testing.assert_array_equal(measured[name], [1.0, 0.0, np.nan])
    for name in ("log10_condition", "orthogonality_error", "non_normality"):
        np.testing.assert_array_equal(measured[name], [0.0, np.nan, np.nan])


@pytest.mark.parametrize("shape", [(3,), (3, 4), (0, 0)])
def test_audit_refuses_what_is_not_square(shape):
    with pytest.raises(ValueError, match="square"):
        initializers.audit(np.zeros(shape))
