"""The full Lyapunov spectrum of h' = W tanh(h), W_ij ~ N(0, g²/n), against theory.

Engelken, Wolf & Abbott, "Lyapunov spectra of chaotic recurrent neural networks" (2023). In the
large-n limit J_t = W diag(φ'_t) is as if free of the steps before: the exponent at a share
x = i/n of all solves E[u d²/(1 + u d²)] = x, λ = ½ ln(g² x/u), with d = φ' at the mean-field
variance (after Newman 1986). Its quantiles are in tests/reference/references.json, the cases
full_spectrum_*.
"""

import functools
import json
import time

import deviations
import jax
import jax.numpy as jnp
import numpy as np

import gradlab as gl

TITLE = "Engelken, Wolf & Abbott (2023): full spectrum"
GAINS = (1.5, 2.0, 2.5)
SEEDS = {500: 3, 1000: 1}
STEPS = 200
BURN_IN = 50


@functools.partial(jax.jit, static_argnames="n")
def spectrum(seed: jax.Array, g: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
    """All n exponents in nats per step, descending, and their standard errors along the orbit."""
    cell = gl.cells.make("leaky", inputs=1, hidden=n, dt=1.0, recurrent=gl.initializers.normal(g))
    weights, start = jax.random.split(jax.random.key(seed))
    params = cell.init(weights, jnp.float32)

    def step(h: jax.Array) -> jax.Array:
        return cell.advance(params, h, jnp.zeros(n))

    state = jax.lax.fori_loop(0, 1000, lambda _, h: step(h), jax.random.normal(start, (n,)))
    estimate = gl.spectrum.lyapunov(step, state, steps=STEPS, burn_in=BURN_IN)
    order = jnp.argsort(estimate.exponents, descending=True)
    return estimate.exponents[order], estimate.stderr[order]


path = deviations.HERE.parent / "tests" / "reference" / "references.json"
CASES = {case["id"]: case["value"] for case in json.loads(path.read_text(encoding="utf-8"))}

began = time.monotonic()
rows = []
for n, seeds in SEEDS.items():
    place = (np.arange(n) + 0.5) / n
    for g in GAINS:
        quantiles = CASES[f"full_spectrum_g{g:.1f}"]["quantiles"]
        effect = gl.meanfield.elman("tanh", g).finite_width_bias(n)
        for seed in range(seeds):
            exponents, stderr = (np.asarray(x, float) for x in spectrum(np.uint32(seed), g, n))
            for share, theory in quantiles.items():
                rate, error = (np.interp(float(share), place, y) for y in (exponents, stderr))
                rows.append(
                    dict(cell=f"g = {g:g}", gain=float(share), hidden=n, length=STEPS,
                         seed=seed, rate=rate, rate_stderr=error, predicted_rate=theory,
                         suspected=effect, cause="that of the largest exponent")
                )  # fmt: skip
    print(f"full_spectrum: width {n} after {time.monotonic() - began:.0f} s")
deviations.publish(
    "full_spectrum", deviations.as_runs(rows), title=TITLE, hue="hidden", quantity="spectrum"
)
