"""What a linear network's state tells of past inputs: normal matrices against delay lines."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import gradlab as gl
from published.drawing import Curve, draw
from published.table import Row

PAPER = "Ganguli, Huh & Sompolinsky (2008); Jaeger (2001)"
PLACE = "Ganguli figures 2 and 3: Fisher memory curves; Jaeger: memory capacity"
MAP = (
    ("J(k) = (1 - α) α^k for a normal W of eigenvalues √α", "gradlab.spectrum.log_fisher_memory",
     "tests/spectrum/test_memory_curves.py::test_fisher_memory_of_linear_networks"),
    ("J(k) = α^k (α - 1)/(α^(k+1) - 1) for a delay line of gain √α",
     "gradlab.spectrum.log_fisher_memory",
     "tests/spectrum/test_memory_curves.py::test_fisher_memory_of_a_delay_line_reaches_its_bound"),
    ("MC = Σ_k R²(k) <= n", "gradlab.spectrum.memory_capacity",
     "tests/spectrum/test_memory_curves.py::test_memory_capacity_of_linear_networks"),
)  # fmt: skip
NOTES = """
40 units, noise of variance 1, 300 steps. All memory of a normal network sums to 1, that of a
delay line to the harmonic number at α = 1 and to more beyond. Memory capacity is that of 20
linear units on 20,000 steps, over 160 lags. It was measured again on more steps and lags until it
agreed: 4,000 steps gave 19.5 against 20, and 40 lags 19.4, past which a ring of 0.95 still
remembers; the tolerance is 0.2.
"""
SOURCE = "formula: Ganguli et al. (2008), equations 7 and 10"
WIDTH, STEPS, RELATIVE = 40, 300, 1e-3
ORTHOGONAL, LINE = (0.5, 0.9), (0.9, 1.0, 1.2)
LAGS = (0, 5, 20)


def line(alpha: float, k: np.ndarray) -> np.ndarray:
    """J(k) of a delay line: what arrives of the pulse over the noise that came along."""
    noise = np.array([sum(alpha**j for j in range(int(each) + 1)) for each in np.atleast_1d(k)])
    return alpha ** np.atleast_1d(k) / noise


def curve(W: jax.Array) -> np.ndarray:
    """J(k) for an input on the first unit."""
    first = jnp.zeros(WIDTH).at[0].set(1)
    logs = gl.spectrum.log_fisher_memory(
        lambda h, x: W @ h + first * x[0], jnp.zeros(WIDTH), jnp.zeros((STEPS, 1)), lags=WIDTH
    )
    return np.exp(np.asarray(logs, float))


def capacity(W: jax.Array, activation: object) -> float:
    """Σ_k m(k) of a network driven by white noise, over eight times as many lags as units."""
    n = len(W)
    xs = jax.random.normal(jax.random.key(1), (20_200,))
    way = jax.random.normal(jax.random.key(2), (n,)) / n**0.5

    def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = activation(W @ h + way * x)
        return h, h

    states = jax.lax.scan(step, jnp.zeros(n), xs)[1]
    return float(gl.spectrum.memory_capacity(states[200:], xs[200:], lags=8 * n).sum())


def measure(out: Path) -> list[Row]:
    """Curves of both kinds, then capacities."""
    rows, curves = [], []
    k = np.arange(WIDTH)
    kinds = [("orthogonal", a, (1 - a) * a**k) for a in ORTHOGONAL]
    kinds += [("delay line", a, line(a, k)) for a in LINE]
    for kind, alpha, law in kinds:
        if kind == "orthogonal":
            make = gl.initializers.make("orthogonal")
            W = make(jax.random.key(0), (WIDTH, WIDTH), jnp.float32)
        else:
            W = jnp.eye(WIDTH, k=-1)
        values = curve(math.sqrt(alpha) * W)
        curves.append(Curve(f"{kind}, α = {alpha:g}", k, law, values))
        rows += [
            Row(f"J({lag}), {kind}, α = {alpha:g}", law[lag], SOURCE, values[lag],
                RELATIVE * law[lag])
            for lag in LAGS
        ]  # fmt: skip
        # A normal network remembers beyond the lags that are summed.
        total = law.sum()
        rows.append(
            Row(f"Σ of J(k) over {WIDTH} lags, {kind}, α = {alpha:g}", total, SOURCE, values.sum(),
                RELATIVE * total)
        )  # fmt: skip
    n = 20
    ring = 0.95 * jnp.roll(jnp.eye(n), 1, 0)
    rows.append(
        Row("memory capacity, linear ring of 20 units", n, "Jaeger (2001), proposition 2",
            capacity(ring, lambda h: h), 0.2)
    )  # fmt: skip
    saturated = capacity(ring, jnp.tanh)
    rows.append(
        Row("memory capacity of tanh units is below that of linear ones", 1,
            "Jaeger (2001), section 3", saturated < n - 1, 0)
    )  # fmt: skip
    draw(out / "fisher_memory", {"": curves}, xlabel="lag k", ylabel="J(k)", yscale="log",
         ylim=(1e-5, 2))  # fmt: skip
    return rows
