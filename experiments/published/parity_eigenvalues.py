"""Parity with eigenvalues in [0, 1] and in [-1, 1]."""

from pathlib import Path

import jax
import jax.numpy as jnp
import optax

import gradlab as gl
from published.drawing import Curve, draw
from published.table import Row

PAPER = "Grazzi et al. (2025)"
PLACE = "theorem 1 and section 5.1: parity by diagonal linear recurrences"
MAP = (
    ("h' = a(x) ⊙ h + b(x), a = σ(·) or 2 σ(·) - 1",
     "published.parity_eigenvalues.logits",
     "tests/project/test_published_formulas.py::test_gates_of_parity_reach_their_range"),
    ("parity: Σ_t x_t mod 2", "gradlab.tasks.make",
     "tests/tasks/test_task_registry.py::test_target_recomputed_from_the_sequence"),
)  # fmt: skip
NOTES = """
Sixteen units of a diagonal recurrence whose eigenvalue depends on the input, a learnt first
state and a linear readout, 3,000 updates on parity at every step of 40; then tested on the last
step of longer sequences. Accuracy is scaled: 1 for all right, 0 for chance. What misses is
trained, not what the range allows: the smallest eigenvalue that was learnt is -0.978, so a sign
fades within 256 steps, which one unit with exactly ±1 does not over 10,000.
"""
SOURCE = "theorem 1, and arxiv.org/abs/2411.12537: [0, 1] cannot, [-1, 1] can"
WIDTH, UPDATES, TRAINED, TESTED = 16, 3000, 40, (40, 128, 256)
TOLERANCE = 0.1


def eigenvalue(params: dict, x: jax.Array, signed: bool) -> jax.Array:
    """a(x), (n,)."""
    gate = jax.nn.sigmoid(params["gate"] @ x + params["gate_bias"])
    return 2 * gate - 1 if signed else gate


def logits(params: dict, xs: jax.Array, signed: bool) -> jax.Array:
    """Of every step, (T, 2)."""

    def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = eigenvalue(params, x, signed) * h + params["in"] @ x + params["in_bias"]
        return h, params["out"] @ h + params["out_bias"]

    return jax.lax.scan(step, params["start"], xs)[1]


def train(signed: bool) -> dict:
    """The parameters after training on parity at every step."""
    task = gl.tasks.make("parity", length=TRAINED, every_step=True)
    keys = jax.random.split(jax.random.key(0), 5)
    shapes = {"gate": (WIDTH, 1), "in": (WIDTH, 1), "out": (2, WIDTH), "start": (WIDTH,)}
    params = {
        name: 0.5 * jax.random.normal(key, shape)
        for key, (name, shape) in zip(keys, shapes.items(), strict=False)
    }
    params |= {name: jnp.zeros(WIDTH) for name in ("gate_bias", "in_bias")}
    params["out_bias"] = jnp.zeros(2)

    def loss(params: dict, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        xs, target = batch
        return jax.vmap(lambda x, t: task.loss(logits(params, x, signed), t))(xs, target).mean()

    def sample(key: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.vmap(task.sample)(jax.random.split(key, 64))

    return gl.train(loss, params, sample, optax.adam(1e-2), steps=UPDATES, key=keys[4]).params


def accuracy(params: dict, length: int, signed: bool) -> float:
    """Scaled accuracy at the last step of 1,000 sequences."""
    task = gl.tasks.make("parity", length=length)
    xs, target = jax.vmap(task.sample)(jax.random.split(jax.random.key(7), 1000))
    last = jax.jit(jax.vmap(lambda x: logits(params, x, signed)[-1]))(xs)
    return float(2 * jnp.mean(last.argmax(-1) == target) - 1)


def measure(out: Path) -> list[Row]:
    """Both ranges at three lengths, and the eigenvalues that were learnt."""
    rows, curves = [], []
    for signed, name in ((False, "[0, 1]"), (True, "[-1, 1]")):
        params = train(signed)
        scores = [accuracy(params, length, signed) for length in TESTED]
        law = float(signed)
        curves.append(Curve(name, TESTED, [law] * len(TESTED), scores))
        rows += [
            Row(f"scaled accuracy, eigenvalues in {name}, T = {length}", law, SOURCE, value,
                TOLERANCE)
            for length, value in zip(TESTED, scores, strict=True)
        ]  # fmt: skip
        if signed:
            least = min(float(eigenvalue(params, jnp.array([x]), True).min()) for x in (-1.0, 1.0))
            rows.append(
                Row("smallest eigenvalue learnt in [-1, 1]", -1, "theorem 1: -1 on a one", least,
                    TOLERANCE)
            )  # fmt: skip
    # What exists, trained or not: one unit that turns its sign on a one.
    exact = {
        "gate": jnp.array([[-50.0]]), "gate_bias": jnp.zeros(1), "in": jnp.zeros((1, 1)),
        "in_bias": jnp.zeros(1), "start": jnp.ones(1), "out": jnp.array([[1.0], [-1.0]]),
        "out_bias": jnp.zeros(2),
    }  # fmt: skip
    rows.append(
        Row("scaled accuracy of one unit with eigenvalues ±1, T = 10,000", 1, "section 4", accuracy(
            exact, 10_000, True), 0)
    )  # fmt: skip
    draw(out / "parity_eigenvalues", {"": curves}, xlabel="T", ylabel="scaled accuracy")
    return rows
