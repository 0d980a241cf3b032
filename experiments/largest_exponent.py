"""The largest Lyapunov exponent of random tanh networks against g, discrete and leaky.

h' = (1 - δ) h + δ W tanh(h), W_ij ~ N(0, g²/n), for δ = 1 (Molgedey, Schuchhardt & Schuster
1992), ½ and ¼ (towards Sompolinsky, Crisanti & Sommers 1988). Exponents are per unit of time, that
is of 1/δ steps: per step for δ = 1. The theory is ½ ln χ for δ = 1; for δ < 1 it is the numbers
that Clark et al. published (tests/reference/references.json, group lyapunov) where g > 1, and the
edge of the circular law, ln(1 - δ + δ g)/δ, where g < 1 and 0 is stable. g = 1 is left out: the
approach to 0 is algebraic there.

A leaky network is slower to reach its limit than a discrete one: at δ = ¼ and g = 5 the deviations
at widths 500, 1000, 2000 and 4000 were -0.034, -0.017, -0.012 and -0.002, with standard errors of
0.003, 0.002, 0.001 and 0.001. So an effect of the width is suspected: as a/n from n and n/2.
"""

import functools
import json
import time

import deviations
import jax
import jax.numpy as jnp
import numpy as np

import gradlab as gl

TITLE = "Molgedey et al. (1992), Sompolinsky et al. (1988): largest exponent"
WIDTH, SEEDS, HALF_SEEDS = 1000, 5, 12
GAINS = {
    1.0: (0.5, 0.75, 0.9, 1.25, 1.5, 1.75, 2.0, 2.5, 4.0, 5.0),
    0.5: (0.5, 0.75, 0.9, 1.5, 2.0, 5.0),
    0.25: (0.5, 0.75, 0.9, 1.5, 2.0, 3.0, 5.0),
}
TIME, BURN_IN = 300, 100  # units of time


@functools.partial(jax.jit, static_argnames=("delta", "n"))
def exponent(seed: jax.Array, g: jax.Array, delta: float, n: int) -> tuple[jax.Array, jax.Array]:
    """λ_1 per unit of time of one random network, and its standard error along the orbit."""
    cell = gl.cells.make("leaky", inputs=1, hidden=n, dt=delta, recurrent=gl.initializers.normal(g))
    weights, start, tangent = jax.random.split(jax.random.key(seed), 3)
    params = cell.init(weights, jnp.float32)
    drive = jnp.zeros(n)
    spectrum = gl.spectrum.lyapunov(
        lambda h: cell.advance(params, h, drive),
        jax.random.normal(start, (n,)),
        steps=int(TIME / delta),
        burn_in=int(BURN_IN / delta),
        k=1,
        dt=delta,
        key=tangent,
    )
    return spectrum.exponents[0], spectrum.stderr[0]


def predicted(delta: float, g: float) -> float:
    """The exponent of an infinite width."""
    if delta == 1:
        return gl.meanfield.elman("tanh", g).rate
    if g < 1:
        return float(np.log(1 - delta + delta * g) / delta)
    return PUBLISHED[f"lyap_theory_delta{delta:g}_g{g:.1f}"]


def derived_bias(delta: float, g: float, n: int) -> float:
    """What width and time add where the state is 0, and the network linear; NaN elsewhere."""
    if g >= 1:
        return float("nan")
    first, last = int(BURN_IN / delta), int((BURN_IN + TIME) / delta)
    growth = deviations.linear_growth(n, last, 1 - delta, delta * g)
    return float(growth[first:].mean()) / delta - predicted(delta, g)


def suspected_effect(delta: float, g: float, n: int, rates: dict[int, float]) -> tuple[float, str]:
    """What a width of n may add to a chaotic network, and where that comes from."""
    if g < 1:
        return float("nan"), ""
    if delta == 1:
        return gl.meanfield.elman("tanh", g).finite_width_bias(n), deviations.FIT
    return rates[n // 2] - rates[n], "a/n from widths n and n/2"


path = deviations.HERE.parent / "tests" / "reference" / "references.json"
CASES = json.loads(path.read_text(encoding="utf-8"))
PUBLISHED = {case["id"]: case["value"] for case in CASES}

began = time.monotonic()
rows = []
for delta, gains in GAINS.items():
    for g in gains:
        seeds = {WIDTH: SEEDS} | ({WIDTH // 2: HALF_SEEDS} if g > 1 and delta < 1 else {})
        exponents = {n: [exponent(np.uint32(s), g, delta, n) for s in range(m)]
                 for n, m in seeds.items()}  # fmt: skip
        means = {n: float(np.mean([rate for rate, _ in values])) for n, values in exponents.items()}
        bias = derived_bias(delta, g, WIDTH)
        effect, cause = suspected_effect(delta, g, WIDTH, means)
        for seed, (rate, stderr) in enumerate(exponents[WIDTH]):
            rows.append(
                dict(cell=f"leaky, δ = {delta:g}", gain=g, hidden=WIDTH, length=TIME, seed=seed,
                     rate=float(rate), rate_stderr=float(stderr),
                     predicted_rate=predicted(delta, g), predicted_bias=bias,
                     suspected=effect, cause=cause)
            )  # fmt: skip
print(f"largest_exponent: {len(rows)} exponents in {time.monotonic() - began:.0f} s")
deviations.publish("largest_exponent", deviations.as_runs(rows), title=TITLE, quantity="exponent")
