"""What `measure` sees of a step: inputs, outputs and named values, against the program itself."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

import gradlab as gl

T, N = 6, 3
RNG = np.random.default_rng(0)
W, U = jnp.asarray(RNG.normal(size=(2, N, N)) * 0.5)
XS = jnp.asarray(RNG.normal(size=(T, N)))


def step(W, h, x, tap=True):
    gate = jax.nn.sigmoid(W @ h + x)
    gate = gl.tap(gate, "gate") if tap else gate
    candidate = checkpoint_name(jnp.tanh(U @ h), "candidate")
    new = gate * h + (1 - gate) * candidate
    return new, {"a": new.sum(), "b": checkpoint_name(2 * new, "twice")}


def loss(W, xs, body=step):
    h, ys = jax.lax.scan(functools.partial(body, W), jnp.ones(N), xs)
    return h.sum() + (ys["a"] ** 2).mean()


def by_hand(body=step):
    h, rows = jnp.ones(N), []
    for x in XS:
        gate, candidate = jax.nn.sigmoid(W @ h + x), jnp.tanh(U @ h)
        h = gate * h + (1 - gate) * candidate
        rows.append({"gate": gate, "candidate": candidate, "h": h})
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def everything(state, adjoint, step):
    return {"state": state, "adjoint": adjoint} | step._asdict()


@pytest.fixture(scope="module")
def traced():
    return gl.trace(loss, measure=everything)(W, XS).scans[0]


def test_inputs_outputs_and_names_are_those_of_the_step(traced):
    seen, rows = traced.measured, by_hand()
    np.testing.assert_allclose(seen["inputs"], XS)
    np.testing.assert_allclose(seen["state"], rows["h"])
    np.testing.assert_allclose(seen["outputs"][0], rows["h"].sum(1))
    np.testing.assert_allclose(seen["outputs"][1], 2 * rows["h"])
    assert set(seen["names"]) == {"gate", "candidate", "twice"}
    np.testing.assert_allclose(seen["names"]["gate"], rows["gate"])
    np.testing.assert_allclose(seen["names"]["candidate"], rows["candidate"])
    np.testing.assert_allclose(seen["names"]["twice"], 2 * rows["h"])


def test_the_record_is_the_same_with_and_without(traced):
    plain = gl.trace(loss, measure=lambda h, adjoint: adjoint)(W, XS)
    np.testing.assert_allclose(traced.log_norm, plain.scans[0].log_norm, atol=1e-12)
    np.testing.assert_allclose(traced.measured["adjoint"], plain.scans[0].measured, atol=1e-12)
    both = gl.trace(loss, measure=everything)(W, XS)
    np.testing.assert_allclose(both.grads, jax.grad(loss)(W, XS), atol=1e-12)


@pytest.mark.parametrize(
    "form",
    ["segment", "reverse", "jit", "remat", "samples", "half", "twice"],
)
def test_forms_of_the_program(form):
    rows, options = by_hand(), {}
    measure = lambda h, adjoint, step: step.names["gate"]  # noqa: E731
    function, xs, body = loss, XS, step
    if form == "segment":
        options = {"segment": 4}
    elif form == "jit":
        function = jax.jit(loss)
    elif form == "remat":
        policy = jax.checkpoint_policies.save_only_these_names("candidate")
        function = functools.partial(loss, body=jax.checkpoint(step, policy=policy))
    elif form == "reverse":

        def function(W, xs):
            body = functools.partial(step, W)
            return jax.lax.scan(body, jnp.ones(N), xs[::-1], reverse=True)[0].sum()

        rows = {"gate": rows["gate"][::-1]}
    elif form == "samples":
        xs, options = jnp.stack([XS, XS]), {"batch_axis": 0}
        function = lambda W, xs: jnp.sum(jax.vmap(loss, (None, 0))(W, xs))  # noqa: E731
        rows = {"gate": np.repeat(rows["gate"][:, None], 2, 1)}
    elif form == "half":

        def body(W, h, x):
            new, ys = step(W, h.astype(jnp.float32), x.astype(jnp.float32))
            return new.astype(jnp.bfloat16).astype(h.dtype), ys

        function = functools.partial(loss, body=body)
    elif form == "twice":

        def body(W, h, x):
            new, _ = step(W, h, x)
            again = gl.tap(0.5 * x, "gate")
            return new, {"a": new.sum() + 0 * again.sum(), "b": 0.0}

        function = functools.partial(loss, body=body)
    (scan, *_) = gl.trace(function, measure=measure, **options)(W, xs).scans
    seen = scan.measured
    if form == "twice":
        np.testing.assert_allclose(seen[1], 0.5 * XS)
        seen = seen[0]
    np.testing.assert_allclose(seen, rows["gate"], rtol=0.05 if form == "half" else 1e-7)


def test_what_is_not_read_is_not_stacked():
    def stacked(measure):
        traced = jax.make_jaxpr(lambda W: gl.trace(loss, measure=measure)(W, XS).scans[0])(W)
        text = str(traced)
        return text.count(f"f64[{T},{N}]")

    nothing = stacked(lambda h, adjoint: 0.0)
    assert stacked(lambda h, adjoint, step: 0.0) == nothing
    assert stacked(lambda h, adjoint, step: step.names["candidate"]) > nothing


def test_a_default_is_no_third_argument():
    def measure(h, adjoint, power=2):
        return jnp.sum(h**power)

    (scan,) = gl.trace(loss, measure=measure)(W, XS).scans
    np.testing.assert_allclose(scan.measured, np.sum(by_hand()["h"] ** 2, 1))


def test_what_cannot_be_seen_is_refused():
    xs = jnp.ones((4, 1))

    def parallel(w, xs):
        combine = lambda a, b: (a[0] * b[0], b[0] * a[1] + b[1])  # noqa: E731
        return jax.lax.associative_scan(combine, (w * xs, xs))[1].sum()

    with pytest.raises(ValueError, match="a parallel scan has no steps"):
        gl.trace(parallel, measure=everything)(0.5, xs)

    def called(w, xs):
        def body(h, x):
            shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
            noise = jax.pure_callback(lambda x: np.asarray(x), shape, x)
            jax.debug.callback(lambda x: None, x)
            return w * h + gl.tap(noise * h, "noise"), None

        return jax.lax.scan(body, jnp.ones(1), xs)[0].sum()

    # A pure callback may run twice, and one with effects does not.
    seen = gl.trace(called, measure=lambda h, a, s: s.names["noise"], argnums=())(0.5, xs)
    assert seen.scans[0].measured.shape == (4, 1)


def test_keys_among_the_inputs():
    keys = jax.random.split(jax.random.key(0), T)

    def noisy(W, xs):
        def body(h, row):
            x, key = row
            return jnp.tanh(W @ h + x + 0.1 * jax.random.normal(key, (N,))), None

        return jax.lax.scan(body, jnp.ones(N), (xs, keys))[0].sum()

    (scan,) = gl.trace(noisy, measure=lambda h, a, s: s.inputs[0])(W, XS).scans
    np.testing.assert_allclose(scan.measured, XS)
