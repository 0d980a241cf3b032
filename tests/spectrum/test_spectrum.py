import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_checks_dynamics as references
import scipy.signal

import gradlab as gl
from gradlab import decay, spectrum
from gradlab.spectrum._error import error_of_mean

# torch's float64 Jacobians of every step, multiplied and decomposed: ln of the singular values of
# the product over T = 7 steps, divided by T (cell_oracle.json, "finite_time_lyapunov").
FINITE_TIME = {
    "rnn": [-0.39590613944081904, -0.8059741061455219, -2.847805681915101, -3.460985255474044],
    "lstm": [
        -0.2967719074632286,
        -0.41303311931101805,
        -0.6657908467730628,
        -0.8168871033404569,
        -3.025807270874793,
        -3.240958273784962,
        -3.5008928032818902,
        -3.795587553955237,
    ],
}


@pytest.mark.parametrize("name", FINITE_TIME)
def test_oracle_exponents_of_the_full_state(name):
    step, state, xs = references.oracle(name)
    logs = jax.jit(functools.partial(spectrum.log_singular_values, step))(state, xs)
    # The oracle decomposed the product, so it knows every value to eps of the largest.
    expected = np.exp(7 * np.array(FINITE_TIME[name]))
    assert np.exp(logs) == pytest.approx(expected, rel=1e-12, abs=1e-15 * expected[0])


def matrix_step(h, A):
    return A @ h


@pytest.mark.parametrize("n", [1, 5, 6])
def test_singular_values_against_a_dense_svd(n):
    # Factors near the identity: values close together, which is where rotations have work to do.
    rng = np.random.default_rng(n)
    A = np.eye(n) + 0.1 * rng.standard_normal((5, n, n))
    expected = np.log(np.linalg.svd(np.linalg.multi_dot(A[::-1]), compute_uv=False))

    @jax.jit
    def run(A):
        whole = spectrum.log_singular_values(matrix_step, jnp.zeros(n), A)
        return whole, spectrum.log_singular_values(matrix_step, jnp.zeros(n), A, k=1)

    logs, one = run(A)
    assert logs == pytest.approx(expected, abs=1e-13)
    assert one.shape == (1,)


def exact_logs(A, bits):
    """ln of the singular values of A_T..A_1 in integers: σ_1² .. σ_k² = Σ (k × k minors)²."""
    n = A.shape[1]
    product = np.eye(n, dtype=object).astype(int).astype(object)
    for factor in A:
        integers = np.array([[int(value * 2**bits) for value in row] for row in factor], object)
        product = integers @ product

    def determinant(m):
        if len(m) == 0:
            return 1
        minors = (np.delete(m[1:], j, axis=1) for j in range(len(m)))
        return sum((-1) ** j * m[0, j] * determinant(minor) for j, minor in enumerate(minors))

    def log(value):
        shift = max(value.bit_length() - 60, 0)
        return math.log(value >> shift) + shift * math.log(2)

    sums = []
    for k in range(n + 1):
        subsets = list(itertools.combinations(range(n), k))
        pairs = itertools.product(subsets, subsets)
        sums.append(log(sum(determinant(product[np.ix_(r, c)]) ** 2 for r, c in pairs)))
    return np.diff(sums) / 2 - len(A) * bits * math.log(2)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 1e-2)])
def test_singular_values_far_past_the_range_against_integers(dtype, tolerance):
    # In float64 the product itself overflows, and its smallest values are lost after 50 steps.
    rng = np.random.default_rng(0)
    A = np.round(rng.standard_normal((1200, 3, 3)) * 4 * 2**16) / 2**16
    expected = exact_logs(A, 16)
    assert expected[0] > 1500 and expected[0] - expected[2] > 700
    run = jax.jit(functools.partial(spectrum.log_singular_values, matrix_step))
    logs = run(np.zeros(3, dtype), A.astype(dtype))
    assert logs.dtype == dtype
    assert logs == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("outside", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dead_units_give_zeros_and_not_rounding(dtype, outside):
    """relu: as many values are 0 as the rank of the product says, whatever rounding makes of it."""
    rng = np.random.default_rng(3)
    W, xs = rng.normal(size=(12, 12)) / 12**0.5, 3 * rng.normal(size=(15, 12)) + 2

    def step(h, x):
        W_, relu = jnp.asarray(W, dtype), jax.nn.relu
        return relu(W_ @ h + x) if outside else W_ @ relu(h) + x

    state, product, jacobians = np.ones(12), np.eye(12), []
    for x in xs:
        drive = W @ state + x
        jacobians.append((drive > 0)[:, None] * W if outside else W * (state > 0))
        state = np.maximum(drive, 0) if outside else W @ np.maximum(state, 0) + x
        product = jacobians[-1] @ product
    exact = np.linalg.svd(product, compute_uv=False)
    rank = int((exact > 1e-12 * exact[0]).sum())
    start, inputs = jnp.ones(12, dtype), jnp.asarray(xs, dtype)
    logs = spectrum.log_singular_values(step, start, inputs)
    (by_lag,) = spectrum.log_singular_values_by_lag(step, start, inputs, lags=(15,))
    assert 0 < rank < 12
    for found in (logs, by_lag):
        assert np.isneginf(found).sum() == 12 - rank
        np.testing.assert_allclose(
            found[:rank], np.log(exact[:rank]), atol=2e-2 if dtype == "float32" else 1e-9
        )


def test_singular_values_sum_to_the_determinants():
    W, h = references.gaussian(1, 20)
    logs = jax.jit(
        lambda h: spectrum.log_singular_values(lambda h: jnp.tanh(2 * W @ h), h, steps=50)
    )(h)
    total = 50 * np.linalg.slogdet(2 * W)[1]
    for _ in range(50):
        h = np.tanh(2 * W @ h)
        total += np.log1p(-(h**2)).sum()
    assert logs.sum() == pytest.approx(total, abs=1e-8)


@pytest.mark.parametrize("gain", [0.8, 2.5])
def test_rate_exponent_and_singular_value_agree(gain):
    n, steps = 24, 800
    W, _ = references.gaussian(2, n)
    cell = gl.cells.elman(1, n)
    key = jax.random.key(1)
    xs = 0.5 * jax.random.normal(key, (steps, 1))
    U = jax.random.normal(key, (n, 1))
    params = {"recurrent": gain * W, "input": U, "bias": jnp.zeros(n)}

    @jax.jit
    def run(params, xs):
        step, start = functools.partial(cell.step, params), cell.start()

        def loss(params, xs):
            h, _ = jax.lax.scan(lambda h, x: (cell.step(params, h, x), None), start, xs)
            return h.sum()

        log_norm = gl.trace(loss, argnums=())(params, xs).scans[0].log_norm
        exponent = spectrum.lyapunov(step, start, xs, k=1, burn_in=steps // 10)
        early = spectrum.log_singular_values(step, start, xs, steps=steps // 10, k=1)
        late = spectrum.log_singular_values(step, start, xs, k=1)
        return log_norm, exponent, (late - early) / (steps - steps // 10)

    log_norm, exponent, slope = run(params, xs)
    rate, rate_stderr = decay.rate(np.asarray(log_norm))
    error = math.hypot(rate_stderr, exponent.stderr[0])
    assert np.sign(rate) == np.sign(gain - 1.5)
    assert error < 0.03
    assert rate == pytest.approx(float(exponent.exponents[0]), abs=3 * error)
    assert float(slope[0]) == pytest.approx(float(exponent.exponents[0]), abs=3 * error)


# What the spectrum is made of.


def correlated(a, e):
    """The exponent of steps whose ln|J_t| is an AR(1) of coefficient a, and its error."""

    def step(state, e):
        h, y = state
        y = a * jax.lax.stop_gradient(y) + e
        return jnp.exp(y) * h, y

    return spectrum.lyapunov(step, (jnp.zeros(()), jnp.zeros(())), e, k=1)


def test_stderr_pays_for_correlations():
    # The variance of the mean of an AR(1) over T is σ² / (1 - a)² / T.
    a, steps, replicas = 0.9, 4000, 200
    noise = np.random.default_rng(0).standard_normal((replicas, steps))
    result = jax.jit(jax.vmap(functools.partial(correlated, a)))(noise)
    expected = 1 / (1 - a) / math.sqrt(steps)
    assert np.std(result.exponents) == pytest.approx(expected, rel=0.2)
    assert np.sqrt(np.mean(result.stderr**2)) == pytest.approx(expected, rel=0.2)
    assert np.sqrt(np.mean(result.convergence**2)) == pytest.approx(2 * expected, rel=0.2)


error_of = jax.jit(error_of_mean, static_argnums=1)

# From 600 of them a coverage is known to 0.9 %.
SERIES = 600


@pytest.mark.parametrize("steps", [400, 1000])
def test_two_errors_cover_the_exponent_of_correlated_steps(steps):
    a = np.array([0.0, 0.5, 0.9, 0.95])
    noise = np.random.default_rng(1).standard_normal((SERIES, steps))
    run = jax.vmap(jax.vmap(correlated, (None, 0)), (0, None))
    result = jax.jit(run)(a, noise)
    z = np.asarray(result.exponents / result.stderr)[..., 0]
    assert (np.isfinite(z).mean(1) > 0.9).all()
    covered = [np.mean(np.abs(row[np.isfinite(row)]) < 2) for row in z]
    assert 0.92 <= min(covered) and max(covered) <= 0.97


def autoregressive(steps, *weights):
    """Series of an autoregression that has forgotten its start."""
    noise = np.random.default_rng(steps).standard_normal((SERIES, steps + 500))
    series = scipy.signal.lfilter([1.0], [1.0, *(-w for w in weights)], noise, axis=1)
    return np.asarray(series)[:, 500:].T


def coverage(series):
    """The share of series that have an error, and how many of these lie within two of 0."""
    error = error_of(jnp.asarray(series), len(series), jnp.zeros(series.shape[1]))
    known = np.isfinite(error)
    return known.mean(), np.mean(np.abs(series.mean(0))[known] < 2 * error[known])


@pytest.mark.parametrize("steps", [50, 100, 200])
def test_the_error_of_a_mean_covers_or_is_nan(steps):
    # Where most series are given an error it is right; the others are too short to say.
    for a in (-0.5, 0.0, 0.5, 0.8):
        known, covered = coverage(autoregressive(steps, a))
        assert known > 0.9 or a == 0.8
        assert 0.92 <= covered <= 0.97 or known < 0.7
    known, _ = coverage(autoregressive(steps, 0.99))
    assert known < 0.15
    oscillating, covered = coverage(autoregressive(steps, 1.0, -0.5))
    assert oscillating > 0.98 and 0.92 <= covered <= 0.97


def test_too_few_steps_have_no_error():
    noise = np.random.default_rng(0).standard_normal(49)
    assert np.isnan(correlated(0.0, noise).stderr).all()


def test_errors_of_repeating_series():
    # A constant has the error of rounding alone; a cycle's mean is known far better than a step.
    series = np.stack([np.full(100, 0.7), np.tile([1.0, -1.0], 50), np.full(100, np.nan)], axis=1)
    error = np.asarray(error_of(jnp.asarray(series), 100, jnp.full(3, 1e-7)))
    assert error[0] == pytest.approx(1e-7)
    assert error[1] < 0.01
    assert np.isnan(error[2])


# Sums of many steps in float32.


def test_singular_values_of_a_hundred_thousand_steps_in_float32():
    # Summed in float32, the logs are 62 nats off; here they are within the float's own spacing.
    steps, scales = 100_000, np.array([2.0, 0.5, 1.1], np.float32)
    logs = spectrum.log_singular_values(lambda h: scales * h, jnp.zeros(3, np.float32), steps=steps)
    expected = np.sort(steps * np.log(scales.astype(np.float64)))[::-1]
    assert np.asarray(logs, np.float64) == pytest.approx(expected, rel=2.0**-23)


def test_the_exponent_of_the_doubling_map_in_float32():
    start = jnp.array([0.1234567], jnp.float32)
    result = spectrum.lyapunov(lambda x: (2 * x) % 1.0, start, steps=30_000, k=1)
    off = abs(float(result.exponents[0]) - math.log(2))
    assert off < 2 * result.stderr[0] < 1e-6


def test_the_error_counts_rounding():
    # All batches of a constant step round alike: their spread says nothing of it.
    W = np.random.default_rng(0).standard_normal((40, 4, 4))
    W = (W @ W.swapaxes(1, 2)).astype(np.float32)
    true = np.log(np.linalg.eigvalsh(W.astype(np.float64)))[:, ::-1]
    start = jnp.zeros(4, jnp.float32)

    @jax.jit
    @jax.vmap
    def run(W):
        return spectrum.lyapunov(lambda h: W @ h, start, steps=1000, burn_in=1000, k=1)

    result = run(W)
    distinct = true[:, 0] - true[:, 1] > 0.05
    z = np.abs(result.exponents[:, 0] - true[:, 0])[distinct] / result.stderr[distinct, 0]
    assert z.max() < 3
    assert np.asarray(result.stderr).max() < 1e-5


# What NaN gives.


@pytest.mark.parametrize("name", ["lyapunov", "log_singular_values"])
def test_an_orbit_that_is_not_finite_gives_nan_under_jit(name):
    # relu of NaN is NaN in one unit, and the tangent of the other one stays finite.
    step = lambda h, x: jnp.array([0.5 * h[0] + x, 0.25 * h[1]])  # noqa: E731
    instrument = getattr(spectrum, name)
    xs = np.zeros((3, 5))
    xs[1, 2], xs[2, 4] = np.nan, np.inf
    found = jax.jit(jax.vmap(lambda xs: instrument(step, jnp.zeros(2), xs)))(xs)
    if name == "lyapunov":
        assert np.asarray(found.first_nonfinite_step).tolist() == [0, 3, 5]
        assert np.isnan(found.convergence[1:]).all() and np.isnan(found.stderr).all()
        found = found.exponents
    assert np.isfinite(found[0]).all() and np.isnan(found[1:]).all()


def test_dimension_and_entropy_of_nan_are_nan():
    exponents = jnp.array([[math.nan, -1.0], [0.5, math.nan], [math.inf, -1.0], [0.5, -1.0]])
    assert np.isnan(spectrum.kaplan_yorke(exponents)).tolist() == [True, True, True, False]
    assert np.isnan(spectrum.entropy_rate(exponents)).tolist() == [True, True, False, False]
    for empty in (jnp.zeros(0), jnp.zeros((3, 0)), jnp.zeros(())):
        for of in (spectrum.kaplan_yorke, spectrum.entropy_rate):
            with pytest.raises(ValueError, match="needs at least one exponent"):
                of(empty)


def test_dimension_and_entropy_of_16_bits_are_summed_in_float32():
    exponents = jnp.full(3000, 0.25, jnp.float16).at[-1].set(-1000.0)
    assert spectrum.entropy_rate(exponents) == pytest.approx(2999 / 4)
    assert spectrum.kaplan_yorke(exponents) == pytest.approx(2999 + 2999 / 4 / 1000)


def test_qr_every_gives_the_same_exponents():
    W, h = references.gaussian(0, 8)

    def run(**options):
        return spectrum.lyapunov(
            lambda h: jnp.tanh(2 * W @ h), h, steps=60, burn_in=12, **options
        ).exponents

    @jax.jit
    def run_all():
        return run(qr_every=3, k=2), run(k=2), run(qr_every=6, dt=0.5), run()

    two_by_three, two, whole_by_six, whole = map(np.asarray, run_all())
    assert two_by_three == pytest.approx(two, abs=1e-9)
    # Six steps of exponents 6.5 apart grow a rounding of 1e-16 to 1e-9 and more.
    assert whole_by_six == pytest.approx(whole / 0.5, abs=1e-7)


def test_jit_and_vmap_give_the_same():
    W, _ = references.gaussian(0, 6)
    starts = np.random.default_rng(1).standard_normal((2, 6))

    def one(h):
        step = functools.partial(lambda W, h: jnp.tanh(2 * W @ h), W)
        return (
            spectrum.lyapunov(step, h, steps=20, qr_every=2),
            spectrum.log_singular_values(step, h, steps=20),
        )

    together = jax.jit(jax.vmap(one))(starts)
    alone = one(starts[1])
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
        np.testing.assert_allclose(a, b[1], atol=1e-11)


def test_any_pytree_is_a_state():
    # z -> 2i z turns and doubles a complex coordinate; w shrinks; the counter has no tangent.
    def step(state, x):
        return {"z": 2j * state["z"], "w": 0.25 * state["w"] + x["u"], "n": state["n"] + 1}

    state = {"z": jnp.ones(2, jnp.complex128), "w": jnp.ones((1, 1), jnp.float32), "n": 0}
    xs = {"u": jnp.ones((30, 1, 1), jnp.float32)}
    expected = np.log([2, 2, 2, 2, 0.25])
    result = spectrum.lyapunov(step, state, xs, burn_in=10)
    assert np.asarray(result.exponents) == pytest.approx(expected, abs=1e-5)
    assert (result.steps, int(result.first_nonfinite_step)) == (20, 0)
    logs = spectrum.log_singular_values(step, state, xs)
    assert logs == pytest.approx(30 * expected, abs=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64])
def test_the_precision_follows_the_state(dtype):
    result = spectrum.lyapunov(lambda h: h / 2, jnp.ones(3, dtype), steps=4)
    assert result.exponents.dtype == jnp.promote_types(dtype, jnp.float32)
    assert np.asarray(result.exponents) == pytest.approx(
        np.full(3, -math.log(2)), abs=float(jnp.finfo(dtype).eps) + 1e-7
    )


def test_a_lost_tangent_has_exponent_minus_infinity():
    @jax.jit
    def run(h):
        result = spectrum.lyapunov(lambda h: 0 * h, h, steps=4)
        logs = spectrum.log_singular_values(lambda h: 0 * h, h, steps=4)
        return result.exponents, logs, result.kaplan_yorke, result.entropy_rate

    exponents, logs, dimension, entropy = run(np.ones(2))
    assert np.isneginf(exponents).all() and exponents.shape == (2,)
    assert np.isneginf(logs).all() and logs.shape == (2,)
    assert dimension == entropy == 0


@pytest.mark.parametrize(
    ("exponents", "dimension", "entropy"),
    [
        ([0.5, 0.0, -2.0], 2.25, 0.5),
        ([-2.0, 0.5, 0.0], 2.25, 0.5),
        ([-0.1, -0.2], 0, 0),
        ([0.3, 0.1], 2, 0.4),
        ([1.0, -math.inf], 1, 1.0),
        ([[0.5, -1.0], [0.0, -1.0]], [1.5, 1], [0.5, 0]),
    ],
)
def test_dimension_and_entropy(exponents, dimension, entropy):
    exponents = jnp.array(exponents)
    assert spectrum.kaplan_yorke(exponents) == pytest.approx(np.array(dimension))
    assert spectrum.entropy_rate(exponents) == pytest.approx(np.array(entropy))


def blow_up(h):
    return h**2


def test_a_divergent_orbit_names_its_step():
    # 10^(2^t) is past 1e308 at t = 9.
    for instrument in (spectrum.lyapunov, spectrum.log_singular_values):
        with pytest.raises(ValueError, match="not finite after step 9 of 12"):
            instrument(blow_up, 10.0, steps=12)
    inside = jax.jit(lambda h: spectrum.lyapunov(blow_up, h, steps=20, burn_in=4, qr_every=4))
    assert int(inside(10.0).first_nonfinite_step) == 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 4}, "k must be between 1 and 3, the size of the state, got 4"),
        ({"k": 0}, "k must be between 1 and 3"),
        ({"steps": None}, "give steps or xs"),
        ({"steps": 0}, "steps must be at least 1 past the burn-in, got 0"),
        ({"qr_every": 3}, "qr_every must divide steps and burn_in, got 3, 10 and 0"),
        ({"qr_every": 0}, "burn_in must be at least 0 and qr_every at least 1, got 0 and 0"),
        ({"burn_in": -1}, "burn_in must be at least 0 and qr_every at least 1, got -1 and 1"),
        ({"xs": np.ones((4, 2))}, "xs holds 4 steps, fewer than burn_in + steps = 10"),
        ({"xs": (np.ones(4), np.ones(5))}, "every leaf of xs needs a leading axis of time"),
        ({"xs": 1.0}, "every leaf of xs needs a leading axis of time"),
        ({"step": lambda h: (h, h)}, "step must return a state like the one it takes: it takes"),
        ({"step": lambda h: h[:2]}, "returns PyTreeDef(*) of float64[2]"),
        ({"dt": 0.0}, "dt must be above 0 and finite, got 0.0"),
        ({"dt": math.nan}, "dt must be above 0 and finite, got nan"),
        ({"state": np.arange(3)}, "the state has no floating-point entries"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    arguments = {"step": lambda h: h, "state": np.ones(3), "steps": 10} | options
    with pytest.raises(ValueError) as error:
        spectrum.lyapunov(**arguments)
    assert message in str(error.value)
