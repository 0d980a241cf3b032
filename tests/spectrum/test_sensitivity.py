"""What states tell of parameters and of earlier states, against NumPy and plain JAX."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_network
from small_network import HIDDEN, LENGTH, step

import gradlab as gl
from gradlab import spectrum

RNG, PARAMS, XS, START = small_network.draw()


def states(params, start=START, xs=XS, step=step):
    return jax.lax.scan(lambda h, x: (step(params, h, x),) * 2, start, xs)[1]


def ln(x):
    with np.errstate(divide="ignore"):
        return np.log(np.asarray(x, np.float64))


# Sensitivity to the parameters.


@jax.jit
def total_derivative(params):
    """dh_t/dθ by reverse mode through the whole sequence."""
    return jax.jacrev(states)(params)


def derivatives():
    whole = total_derivative(PARAMS)
    return {name: np.reshape(np.asarray(each), (LENGTH, -1)) for name, each in whole.items()}


def test_sensitivity_is_the_norm_of_the_total_derivative():
    found = jax.jit(functools.partial(spectrum.log_sensitivity, step))(PARAMS, START, XS)
    for name, derivative in derivatives().items():
        expected = ln(np.linalg.norm(derivative, axis=1))
        np.testing.assert_allclose(found[name], expected, atol=1e-10)


def test_probes_estimate_the_squared_norm_without_bias():
    def one(key):
        return spectrum.log_sensitivity(step, PARAMS, START, XS, probes=4, key=key)

    found = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 400))
    found = jax.tree.map(np.asarray, found)
    for name, derivative in derivatives().items():
        expected = np.sum(derivative**2, axis=1)
        ratios = np.exp(2 * found[name]) / expected
        # 400 means of 4: a relative error of √(2/1600) = 0.035 at most.
        np.testing.assert_allclose(ratios.mean(0), 1, atol=4 * 0.036)
        assert (ratios.std(0) < (2 / 4) ** 0.5 * 1.2).all()


def test_sensitivity_far_past_the_range():
    # h_t = a h + x: dh_t/da = Σ_k k a^{k-1}, in closed form, to e^{1386} and e^{-1384}.
    for a in (2.0, 0.5):
        xs = jnp.zeros(2000, jnp.float32)
        found = spectrum.log_sensitivity(
            lambda a, h, x: a * h + x, jnp.float32(a), jnp.float32(1.0), xs
        )
        t = np.arange(1, 2001)
        # h_t = a^t, dh_t/da = t a^{t-1}. The state itself leaves the range for a = 2.
        expected = np.log(t) + (t - 1) * np.log(a)
        inside = (t < 127) if a == 2.0 else (t < 125)
        np.testing.assert_allclose(found[inside], expected[inside], atol=1e-3)
        if a == 2.0:
            assert np.isnan(found[t > 128]).all()
    # The state stays at 0 while what it would be with another drive explodes.
    found = spectrum.log_sensitivity(
        lambda b, h, x: 2 * h + b * x, jnp.float32(0), jnp.float32(0), jnp.ones(2000, jnp.float32)
    )
    t = np.arange(1, 2001)
    expected = t * np.log(2) + np.log1p(-(0.5**t))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_sensitivity_of_zero_and_nan():
    found = spectrum.log_sensitivity(
        lambda p, h, x: p[0] * h + 0 * p[1] + x, (1.0, 1.0), 0.0, jnp.array([1.0, 2.0, jnp.nan, 1])
    )
    np.testing.assert_allclose(found[0], [-np.inf, 0, np.nan, np.nan])
    np.testing.assert_allclose(found[1], [-np.inf, -np.inf, np.nan, np.nan])


def test_sensitivity_of_complex_numbers_counts_real_coordinates():
    # h_t = Σ_k a^k x: by the real and the imaginary part of a, |dh/da| twice.
    a, xs = 0.6 + 0.5j, jnp.ones(9, jnp.complex128)
    found = spectrum.log_sensitivity(lambda a, h, x: a * h + x, a, jnp.zeros((), complex), xs)
    k = np.arange(9)
    expected = [abs(np.sum(k[:t] * a ** np.maximum(k[:t] - 1, 0))) for t in range(1, 10)]
    np.testing.assert_allclose(found, ln(np.sqrt(2) * np.array(expected)), atol=1e-12)


# Entries, and singular values by lag.


def jacobians():
    W, U, b = (np.asarray(PARAMS[name]) for name in ("recurrent", "input", "bias"))
    h, found = np.asarray(START), []
    for x in np.asarray(XS):
        h = np.tanh(W @ h + U @ x + b)
        found.append((1 - h**2)[:, None] * W)
    return np.array(found)


def test_entries_are_those_of_the_product():
    product, expected = np.eye(HIDDEN), []
    for J in jacobians():
        product = J @ product
        expected.append(product)
    move = functools.partial(step, PARAMS)
    found = spectrum.log_jacobian(move, START, XS)
    np.testing.assert_allclose(found, ln(np.abs(expected)), atol=1e-9)
    at = spectrum.log_jacobian(move, START, XS, at=(3, 1))
    np.testing.assert_allclose(at, ln(np.abs(expected))[[2, 0]], atol=1e-9)
    with pytest.raises(ValueError, match="between 1 and 12, got 13"):
        spectrum.log_jacobian(move, START, XS, at=(13,))


def test_entries_past_the_range_and_of_what_is_not_finite():
    W = jnp.array([[3.0, 1.0], [0.0, 0.1]], jnp.float32)
    found = spectrum.log_jacobian(lambda h: W @ h, jnp.zeros(2, jnp.float32), steps=1000)
    t = np.arange(1, 1001)
    np.testing.assert_allclose(found[:, 0, 0], t * np.log(3), rtol=1e-5)
    # Σ 3^i 0.1^(t-1-i) = (3^t - 0.1^t)/2.9
    expected = t * np.log(3) + np.log1p(-((1 / 30) ** t)) - np.log(2.9)
    np.testing.assert_allclose(found[:, 0, 1], expected, rtol=1e-5, atol=1e-6)
    assert np.isneginf(found[:, 1, 0]).all()
    # 87 nats below the largest of its column, e^{3.4 t}, an entry is lost.
    np.testing.assert_allclose(found[:20, 1, 1], t[:20] * np.log(0.1), rtol=1e-5)
    assert np.isnan(found[40:, 1, 1]).all()
    lost = spectrum.log_jacobian(lambda h, x: x * h, jnp.ones(2), jnp.array([1.0, jnp.nan, 1.0]))
    assert np.isfinite(lost[0, 0, 0]) and np.isnan(lost[1:]).all()


def test_singular_values_by_lag_against_dense_products():
    J, lags = jacobians(), (5, LENGTH, 1)
    expected = [
        np.linalg.svd(np.linalg.multi_dot([np.eye(HIDDEN), *J[::-1][:lag]]), compute_uv=False)
        for lag in lags
    ]
    move = functools.partial(step, PARAMS)
    run = jax.jit(lambda xs: spectrum.log_singular_values_by_lag(move, START, xs, lags=lags))
    # A dense product knows every value to eps of its largest.
    np.testing.assert_allclose(np.exp(run(XS)), expected, atol=1e-14)
    whole = jax.jit(functools.partial(spectrum.log_singular_values, move))(START, XS)
    np.testing.assert_allclose(run(XS)[1], whole, atol=1e-6)
    assert np.isnan(run(XS.at[2].set(jnp.nan))).all()


def test_singular_values_by_lag_past_the_range():
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    # A normal matrix: the singular values of its powers are powers of its own.
    W = jnp.asarray(Q @ np.diag([2.0, 1.0, 0.5]) @ Q.T)
    lags = (10, 1000, 5000)
    found = spectrum.log_singular_values_by_lag(
        lambda h: W @ h, jnp.zeros(3), steps=6000, lags=lags, k=2
    )
    np.testing.assert_allclose(found, np.outer(lags, np.log([2.0, 1.0])), atol=1e-9)
    with pytest.raises(ValueError, match="lags must be between 1 and 6, got 7"):
        spectrum.log_singular_values_by_lag(lambda h: h, jnp.zeros(1), steps=6, lags=(7,))


# Gradients by lag.


def readout(params, h, x):
    return jnp.sum(jnp.sin(h * (1 + params["bias"]))) + x[0] * h[0]


def truncated(params, window):
    """The gradient in which each loss sees the states of the last `window` + 1 steps alone."""

    def loss(params):
        before = jnp.concatenate([START[None], states(params)])
        total = 0.0
        for s in range(LENGTH):
            first = max(s - window, 0)
            state = jax.lax.stop_gradient(before[first])
            for t in range(first, s + 1):
                state = step(params, state, XS[t])
            total = total + readout(params, state, XS[s])
        return total

    return jax.jit(jax.grad(loss))(params)


def flatten(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def rows_of(tree):
    """A row per step of derivatives of every entry of the parameters."""
    parts = [np.reshape(leaf, (*leaf.shape[: leaf.ndim - n], -1)) for leaf, n in tree]
    return np.concatenate(parts, axis=-1)


def parts_by_lag():
    """C_k of every lag and ∂ℓ_{t+k}/∂h_t, from dense Jacobians of every step."""

    @jax.jit
    def differentiate(params):
        h = jnp.concatenate([START[None], states(params)])
        slopes = jax.vmap(jax.jacobian(step, (0, 1)), (None, 0, 0))(params, h[:-1], XS)
        return slopes, jax.vmap(jax.grad(readout, (0, 1)), (None, 0, 0))(params, h[1:], XS)

    (by_params, J), (own, direct) = jax.tree.map(np.asarray, differentiate(PARAMS))
    counts = [leaf.ndim for leaf in jax.tree.leaves(PARAMS)]
    B = rows_of(zip(jax.tree.leaves(by_params), counts, strict=True))
    own = rows_of(zip(jax.tree.leaves(own), counts, strict=True))
    parts, adjoints = [own.sum(0)], np.full((LENGTH, LENGTH, HIDDEN), np.nan)
    for k in range(LENGTH):
        part = np.zeros(own.shape[1])
        for t in range(LENGTH - k):
            adjoint = direct[t + k]
            for s in range(t + k, t, -1):
                adjoint = J[s].T @ adjoint
            adjoints[t, k] = adjoint
            part += B[t].T @ adjoint
        parts.append(part)
    return np.array([parts[0] + parts[1], *parts[2:]]), adjoints


@pytest.fixture(scope="module")
def by_lag():
    run = jax.jit(functools.partial(spectrum.gradient_by_lag, step, readout))
    return run(PARAMS, START, XS)


def test_gradient_by_lag_against_dense_jacobians(by_lag):
    parts, adjoints = parts_by_lag()
    sums, whole = np.cumsum(parts, axis=0), parts.sum(0)
    size = np.linalg.norm(whole)
    np.testing.assert_allclose(by_lag.log_norm, ln(np.linalg.norm(parts, axis=1)), atol=1e-8)
    np.testing.assert_allclose(by_lag.reach, ln(np.linalg.norm(adjoints, axis=2)), atol=1e-8)
    np.testing.assert_allclose(by_lag.log_full, np.log(size), atol=1e-9)
    np.testing.assert_allclose(by_lag.share, parts @ whole / size**2, atol=1e-9)
    cosine = sums @ whole / size / np.linalg.norm(sums, axis=1)
    np.testing.assert_allclose(by_lag.cosine, cosine, atol=1e-9)
    error = np.linalg.norm(sums - whole, axis=1) / size
    np.testing.assert_allclose(by_lag.error, error, atol=1e-9)
    # The whole gradient is that of all lags, however few are asked for.
    run = jax.jit(functools.partial(spectrum.gradient_by_lag, step, readout, lags=3))
    few = run(PARAMS, START, XS)
    for one, all in zip(few, by_lag, strict=True):
        np.testing.assert_allclose(one, all[..., :3] if all.ndim else all, atol=1e-10)


def test_gradient_by_lag_is_that_of_truncated_backpropagation(by_lag):
    short = flatten(truncated(PARAMS, 1))
    every = lambda p: jnp.sum(jax.vmap(readout, (None, 0, 0))(p, states(p), XS))  # noqa: E731
    whole = flatten(jax.jit(jax.grad(every))(PARAMS))
    np.testing.assert_allclose(by_lag.log_full, np.log(np.linalg.norm(whole)), atol=1e-9)
    error = np.linalg.norm(short - whole) / np.linalg.norm(whole)
    np.testing.assert_allclose(by_lag.error[1], error, atol=1e-9)


def test_reach_is_the_adjoint_of_each_loss_alone(by_lag):
    def loss(weights):
        def body(h, inputs):
            x, w = inputs
            h = step(PARAMS, h, x)
            return h, w * readout(PARAMS, h, x)

        return jnp.sum(jax.lax.scan(body, START, (XS, weights))[1])

    trace = gl.trace(loss, argnums=())
    logs = jax.vmap(lambda w: trace(w).scans[0].log_norm)(jnp.eye(LENGTH))  # (loss, state)
    late, early = np.tril_indices(LENGTH)
    reach = np.asarray(by_lag.reach)
    np.testing.assert_allclose(reach[early, late - early], logs[late, early], atol=1e-9)
    assert np.isnan(reach).sum() == LENGTH * (LENGTH - 1) / 2


def test_gradient_by_lag_past_the_range():
    # λ_{t,k} = 2^k: the longest lags carry all, and their squares leave float32.
    found = spectrum.gradient_by_lag(
        lambda b, h, x: 2 * h + b * x, lambda b, h, x: h, jnp.float32(1e-3), jnp.float32(0),
        jnp.full(120, 1e-30, jnp.float32),
    )  # fmt: skip
    k = np.arange(120)
    expected = np.log(1e-30) + k * np.log(2) + np.log(120 - k)
    np.testing.assert_allclose(found.log_norm, expected, atol=1e-4)
    share = 2.0**k * (120 - k)
    np.testing.assert_allclose(found.share, share / share.sum(), atol=1e-5)


def test_horizon_of_a_geometric_memory():
    # Shares (1 - a) a^k of a long sequence: the error after k lags is a^{k+1}.
    @jax.jit
    def find(a):
        return spectrum.gradient_by_lag(
            lambda b, h, x: a * h + b * x, lambda b, h, x: h, 1.0, 0.0, jnp.ones(3000), lags=60
        )

    assert find(0.5).horizon(0.1) == 3  # 0.5^4 < 0.1 < 0.5^3
    assert np.isnan(find(0.999).horizon(0.1))


def test_a_gradient_of_zero_has_no_shares():
    found = spectrum.gradient_by_lag(
        lambda b, h, x: 0.5 * h + b * x, lambda b, h, x: 0 * h, 1.0, 0.0, jnp.ones(5)
    )
    assert np.isneginf(found.log_norm).all() and np.isneginf(found.log_full)
    assert np.isnan(found.share).all() and np.isnan(found.cosine).all()
    assert np.isnan(found.horizon())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lags": 13}, "lags must be between 1 and 12, got 13"),
        ({"lags": 0}, "lags must be between 1 and 12, got 0"),
        ({"params": {"n": 1}}, "has no derivative"),
    ],
)
def test_bad_arguments_of_gradient_by_lag(options, message):
    arguments = {"params": PARAMS, "lags": None} | options
    with pytest.raises(ValueError, match=message):
        spectrum.gradient_by_lag(
            step, readout, arguments["params"], START, XS, lags=arguments["lags"]
        )


def test_an_entry_that_is_lost_is_not_a_zero():
    """h_0 keeps 2^-t of itself, and gives h_1 what grows as 2^t."""
    A = jnp.array([[0.5, 0.0], [1.0, 2.0]], "float32")
    logs = spectrum.log_jacobian(lambda h: A @ h, jnp.zeros(2, "float32"), steps=80)
    exact = np.linalg.matrix_power(np.asarray(A, np.float64), 80)
    assert np.isneginf(logs[:, 0, 1]).all() and np.isnan(logs[-1, 0, 0])
    known = np.isfinite(logs[:, 0, 0])
    np.testing.assert_allclose(logs[known, 0, 0], np.log(0.5) * np.arange(1, 81)[known], rtol=1e-5)
    np.testing.assert_allclose(logs[-1, 1], np.log(exact[1]), rtol=1e-6)


@pytest.mark.parametrize(("call", "message"), [
    (lambda step: spectrum.log_sensitivity(step, {}, jnp.zeros(1), jnp.ones((3, 1))),
     "params has no leaves"),
    (lambda step: spectrum.gradient_by_lag(
        step, lambda p, h, x: h.sum(), {}, jnp.zeros(1), jnp.ones((3, 1))), "params has no leaves"),
    (lambda step: spectrum.log_jacobian(lambda h: h / 2, jnp.zeros(1), steps=3, at=()), "got none"),
    (lambda step: spectrum.log_singular_values_by_lag(
        lambda h: h / 2, jnp.zeros(1), steps=3, lags=()), "got none"),
    (lambda step: spectrum.log_fisher_memory(
        lambda h, x: h / 2 + x, jnp.zeros(1), jnp.ones((3, 1), int)), "xs must be one array of fl"),
    (lambda step: spectrum.log_fisher_memory(
        lambda h, x: h / 2, jnp.zeros(1), {"x": jnp.ones((3, 1))}), "xs must be one array of fl"),
    (lambda step: gl.training.recorders.jacobian_eigenvalues(step, jnp.zeros(1), None),
     "xs has no leaves"),
])  # fmt: skip
def test_empty_and_odd_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(lambda p, h, x: h / 2 + x)


def test_parameters_may_be_wider_than_the_state():
    def step(w, h, x):
        return jnp.tanh(w * h + x).astype(h.dtype)

    w, xs = jnp.asarray(0.5, "float64"), jnp.ones((6, 1))
    narrow, wide = jnp.zeros(1, "float32"), jnp.zeros(1)
    for call in (
        lambda h: spectrum.log_sensitivity(step, w, h, xs),
        lambda h: spectrum.gradient_by_lag(step, lambda w, h, x: h.sum(), w, h, xs).log_norm[:5],
    ):
        np.testing.assert_allclose(call(narrow), call(wide), rtol=1e-5)
