"""Ready recorders against NumPy in float64, and what they record as a network learns."""

import csv
import re
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
import tensorboardX
from tensorboardX.proto.event_pb2 import Event

import gradlab as gl
from gradlab.training import recorders

RNG = np.random.default_rng(0)
HIDDEN, INPUTS, LENGTH = 5, 2, 300
CELL = gl.cells.make("elman", inputs=INPUTS, hidden=HIDDEN)
# Moduli that are apart, so that the frame of the exponents turns in within the burn-in.
W = RNG.normal(size=(HIDDEN, HIDDEN)) @ np.diag([0.9, 0.5, 0.3, 0.2, 0.1])
PARAMS = {
    "recurrent": jnp.asarray(W),
    "input": jnp.asarray(RNG.normal(size=(HIDDEN, INPUTS))),
    "bias": jnp.asarray(RNG.normal(size=HIDDEN)),
}
XS = RNG.normal(size=(LENGTH, INPUTS))


def orbit():
    """h_0..h_T in NumPy, and J_1..J_T."""
    U, b = np.asarray(PARAMS["input"]), np.asarray(PARAMS["bias"])
    states = [np.zeros(HIDDEN)]
    for x in XS:
        states.append(np.tanh(W @ states[-1] + U @ x + b))
    return np.array(states), np.array([(1 - h**2)[:, None] * W for h in states[1:]])


def matrix(params):
    return params["recurrent"]


def by_modulus(values):
    return np.array(sorted(values, key=lambda v: (-round(abs(v), 9), -v.imag)))


def test_eigenvalues_and_their_order():
    values = jax.jit(recorders.eigenvalues(matrix))(PARAMS)
    np.testing.assert_allclose(values, by_modulus(np.linalg.eigvals(W)), rtol=1e-9)
    assert (np.diff(np.abs(values)) <= 1e-12).all()
    stack = recorders.eigenvalues(lambda p: jnp.stack([p["recurrent"], 2 * p["recurrent"].T]))
    np.testing.assert_allclose(stack(PARAMS)[1], 2 * values, rtol=1e-9)


def test_spectral_radius():
    radius = jax.jit(recorders.spectral_radius(matrix))
    np.testing.assert_allclose(radius(PARAMS), np.abs(np.linalg.eigvals(W)).max(), rtol=1e-9)
    assert np.isnan(radius(PARAMS | {"recurrent": jnp.full((2, 2), jnp.nan)}))


@pytest.mark.parametrize("shape", [(5, 5), (3, 4), (2, 4, 3)])
def test_singular_values(shape):
    A = RNG.normal(size=shape)
    found = jax.jit(recorders.singular_values(lambda A: A))(jnp.asarray(A))
    squares = np.linalg.eigvalsh(np.swapaxes(A, -1, -2) @ A)[..., ::-1][..., : min(shape[-2:])]
    np.testing.assert_allclose(found, np.sqrt(squares), rtol=1e-7)


def test_matrices_of_16_bits_are_measured_in_float32():
    half = {"recurrent": jnp.asarray(W, jnp.bfloat16)}
    rounded = np.asarray(half["recurrent"], np.float64)
    for build, oracle in [
        (recorders.spectral_radius, np.abs(np.linalg.eigvals(rounded)).max()),
        (recorders.singular_values, np.linalg.svd(rounded, compute_uv=False)),
    ]:
        np.testing.assert_allclose(build(matrix)(half), oracle, rtol=1e-5)


def test_log_norms_of_leaves():
    found = jax.jit(recorders.log_norms())(PARAMS)
    for name, leaf in PARAMS.items():
        expected = np.log(np.linalg.norm(np.asarray(leaf).ravel()))
        np.testing.assert_allclose(found[name], expected, rtol=1e-12)
    tiny = {"w": jnp.full(4, 1e-30, jnp.float32)}
    assert abs(recorders.log_norms()(tiny)["w"] - np.log(2e-30)) < 1e-4
    assert recorders.log_norms(lambda p: p["w"])(tiny).shape == ()


def test_log_gradient_norms_of_least_squares():
    A, y = RNG.normal(size=(7, 3)), RNG.normal(size=7)

    def loss(params, batch):
        A, y = batch
        return ((A @ params["w"] + params["b"] - y) ** 2).sum(), {"a": 0.0}

    params = {"w": jnp.asarray(RNG.normal(size=3)), "b": jnp.asarray(0.5)}
    found = jax.jit(recorders.log_gradient_norms(loss, (A, y), has_aux=True))(params)
    error = A @ np.asarray(params["w"]) + 0.5 - y
    np.testing.assert_allclose(found["w"], np.log(np.linalg.norm(2 * A.T @ error)), rtol=1e-9)
    np.testing.assert_allclose(found["b"], np.log(abs(2 * error.sum())), rtol=1e-9)


def test_hessian_eigenvalues_of_least_squares():
    A, y = RNG.normal(size=(7, 4)), RNG.normal(size=7)

    def loss(params, batch):
        A, y = batch
        return ((A @ params["w"] - y) ** 2).sum(), {"a": 0.0}

    f = recorders.hessian_eigenvalues(loss, (A, y), k=2, has_aux=True)
    found = jax.jit(f)({"w": jnp.zeros(4)})
    np.testing.assert_allclose(found, np.linalg.eigvalsh(2 * A.T @ A)[:1:-1], rtol=1e-9)


@pytest.mark.parametrize(("name", "block"), [("lstm", slice(4, 8)), ("elman", None)])
def test_time_constants(name, block):
    cell = gl.cells.make(name, inputs=2, hidden=4)
    if block is None:
        with pytest.raises(ValueError, match="the cell elman has no gate"):
            recorders.time_constants(cell)
        return
    bias = RNG.normal(size=16) * 5
    params = cell.init(jax.random.key(0)) | {"bias": jnp.asarray(bias)}
    found = recorders.time_constants(cell, lambda params: params["cell"])({"cell": params})
    sigma = 1 / (1 + np.exp(-bias[block]))
    np.testing.assert_allclose(found, -1 / np.log(sigma), rtol=1e-9)


def test_states_and_their_participation_ratio():
    f = recorders.states(CELL.step, np.zeros(HIDDEN), XS)
    states = orbit()[0][1:]
    np.testing.assert_allclose(jax.jit(f)(PARAMS), states, atol=1e-9)
    mu = np.linalg.eigvalsh(np.cov(states.T))
    expected = mu.sum() ** 2 / (mu**2).sum()
    np.testing.assert_allclose(recorders.participation_ratio(f)(PARAMS), expected, rtol=1e-8)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_participation_ratio_at_the_ends_of_the_float(scale):
    h = RNG.normal(size=(40, 2, 3)).astype(np.float32)
    ratio = recorders.participation_ratio(lambda h: h)
    mu = np.linalg.eigvalsh(np.cov(h.reshape(-1, 3).T.astype(float)))
    found = ratio(jnp.asarray(h * np.float32(scale)))
    np.testing.assert_allclose(found, mu.sum() ** 2 / (mu**2).sum(), rtol=1e-4)
    assert np.isnan(ratio(jnp.ones((4, 3))))


def test_lyapunov_exponents_along_inputs():
    burn_in, k = 100, 2
    Q = np.linalg.qr(RNG.normal(size=(HIDDEN, k)))[0]
    logs = []
    for J in orbit()[1]:
        Q, R = np.linalg.qr(J @ Q)
        logs.append(np.log(np.abs(np.diag(R))))
    f = recorders.lyapunov(CELL.step, np.zeros(HIDDEN), XS, k=k, burn_in=burn_in)
    np.testing.assert_allclose(f(PARAMS), np.mean(logs[burn_in:], axis=0), rtol=0, atol=1e-8)
    # An orbit that explodes is NaN, compiled or not.
    assert np.isnan(recorders.lyapunov(lambda w, h, x: w * h**2, jnp.full(1, 2.0), XS, k=1)(9.0))


def test_jacobian_eigenvalues_along_inputs():
    f = recorders.jacobian_eigenvalues(CELL.step, np.zeros(HIDDEN), XS, at=(1, 17, LENGTH))
    found, jacobians = jax.jit(f)(PARAMS), orbit()[1]
    for row, t in enumerate((1, 17, LENGTH)):
        expected = by_modulus(np.linalg.eigvals(jacobians[t - 1]))
        np.testing.assert_allclose(found[row], expected, rtol=0, atol=1e-9)
    last = jax.jit(recorders.jacobian_eigenvalues(CELL.step, np.zeros(HIDDEN), XS))(PARAMS)
    np.testing.assert_allclose(last[0], found[2], rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="at must hold steps between 1 and 300, got 0"):
        recorders.jacobian_eigenvalues(CELL.step, np.zeros(HIDDEN), XS, at=(0,))


def test_jacobian_of_a_state_with_two_leaves_and_of_a_complex_one():
    def step(params, state, x):
        return {"a": state["a"] + 2 * state["b"], "b": x * state["b"]}

    state = {"a": np.zeros(()), "b": np.ones(())}
    found = jax.jit(recorders.jacobian_eigenvalues(step, state, np.full(2, 3.0)))(None)
    np.testing.assert_allclose(found[0], [3, 1], atol=1e-12)
    turn = recorders.jacobian_eigenvalues(
        lambda a, z, x: a * z + x, jnp.zeros(1, complex), XS[:2, :1]
    )
    np.testing.assert_allclose(jax.jit(turn)(0.3 - 0.4j)[0], [0.3 + 0.4j, 0.3 - 0.4j], atol=1e-12)


def test_all_of_them_are_recorded_and_sent_to_a_file(tmp_path):
    task = gl.tasks.make("adding", length=8)
    net = gl.tasks.network(gl.cells.make("gru", inputs=2, hidden=3), task.outputs)
    cell = gl.cells.make("gru", inputs=2, hidden=3)
    xs, start = XS[:20], cell.start()

    def step(params, state, x):
        return cell.step(params["cell"], state, x)

    def matrices(params):
        return cell.matrices(params["cell"])

    draw = gl.tasks.batch_sampler(task, 4)
    loss = gl.tasks.batch_loss(net, task)
    params, batch = jax.jit(lambda: (net.init(jax.random.key(0)), draw(jax.random.key(3), 0)))()
    record = {
        "eigenvalues": recorders.eigenvalues(matrices),
        "radius": recorders.spectral_radius(matrices),
        "singular": recorders.singular_values(matrices),
        "norms": recorders.log_norms(),
        "gradient": recorders.log_gradient_norms(loss, batch, has_aux=True),
        "tau": recorders.time_constants(cell, lambda params: params["cell"]),
        "participation": recorders.participation_ratio(recorders.states(step, start, xs)),
        "lyapunov": recorders.lyapunov(step, start, xs, k=2),
        "jacobian": recorders.jacobian_eigenvalues(step, start, xs, at=(5, 20)),
    }
    path = tmp_path / "radius.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        run = gl.train(
            loss, params, draw, optax.adam(1e-2), steps=5,
            key=jax.random.key(1), has_aux=True, record=record, record_every=2,
            on_record=lambda step, values: rows.writerow([step, values["participation"]]),
        )  # fmt: skip
    with path.open(newline="") as file:
        written = [(int(step), float(value)) for step, value in csv.reader(file)]
    assert written == list(zip([0, 2, 4, 5], run.records["participation"], strict=True))
    # Inside the loop they are what they are outside of it.
    final = jax.jit(lambda params: {name: f(params) for name, f in record.items()})(run.params)
    for name, value in final.items():
        for found, expected in zip(
            jax.tree.leaves(run.records[name]), jax.tree.leaves(value), strict=True
        ):
            np.testing.assert_allclose(found[-1], expected, rtol=1e-9, atol=1e-9)
    first = gl.frames.metrics(run).loc[0]
    assert set(first.index[first.isna()]) == {"loss", "error", "log_grad_norm"}
    frame = gl.frames.records(run)
    assert {"gradient.cell.bias", "norms.readout.weight"} < set(frame["name"])


@pytest.mark.parametrize("value", [0.1, 1e-20, 3e20])
def test_states_that_are_all_equal_have_no_participation_ratio(value):
    equal = jnp.full((300, 4), value, "float32")
    assert np.isnan(recorders.participation_ratio(lambda h: h)(equal))
    near = equal * (1 + jnp.asarray(1e-4 * RNG.normal(size=(300, 4)), "float32"))
    assert recorders.participation_ratio(lambda h: h)(near) == pytest.approx(4, abs=0.2)


def test_eigenvalues_at_fixed_points_follow_the_parameters():
    f = recorders.fixed_point_eigenvalues(
        lambda w, h, x: jnp.tanh(w * h + x), jnp.array([[0.9], [0.0]]), 0.0, steps=200
    )
    for w in (1.5, 2.625, 2.906):
        h = scipy.optimize.brentq(lambda h, w: np.tanh(w * h) - h, 0.1, 1, w)
        found = jax.jit(f)(w)
        np.testing.assert_allclose(found[:, 0], [w * (1 - h**2), w], rtol=1e-6)
    far = recorders.fixed_point_eigenvalues(lambda w, h, x: h + w, jnp.zeros((1, 1)), 0.0, steps=1)
    assert np.isnan(far(1.0)).all()


def test_what_is_recorded_goes_to_tensorboard(tmp_path):
    # The recipe is the documentation's own.
    recipe = re.search(r"( +def sink.*?add_histogram.*?\n)\n", recorders.__doc__[
        recorders.__doc__.index("TensorBoard, with") :], re.DOTALL)[1]  # fmt: skip
    with tensorboardX.SummaryWriter(str(tmp_path)) as writer:
        scope = {"writer": writer, "np": np}
        exec(textwrap.dedent(recipe), scope)
        run = gl.train(
            lambda params, x: ((params["w"] - x) ** 2).sum(), {"w": jnp.eye(2)},
            lambda key, step: jnp.ones((2, 2)), optax.sgd(0.1), steps=3, key=jax.random.key(0),
            record={
                "sizes": recorders.log_norms(), "all": recorders.eigenvalues(lambda p: p["w"]),
                "lost": lambda p: jnp.full(3, -jnp.inf), "part": lambda p: jnp.log(jnp.arange(3.0)),
            },
            record_every=2, on_record=scope["sink"],
        )  # fmt: skip
    (path,) = tmp_path.iterdir()
    content, found = path.read_bytes(), []
    while content:  # each event has its length and a checksum before it, a checksum after it
        size = int.from_bytes(content[:8], "little")
        event = Event.FromString(content[12 : 12 + size])
        found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
        content = content[16 + size :]
    for name, steps in {"all": {0, 2, 3}, "part": {0, 2, 3}, "lost": set()}.items():
        assert {step for step, tag, _ in found if tag == name} == steps
    norms = [value for _, tag, value in found if tag == "sizes.w"]
    np.testing.assert_allclose(norms, run.records["sizes"]["w"], rtol=1e-6)
