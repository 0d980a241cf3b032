"""How often two standard errors of `gl.spectrum.lyapunov` cover the exponent.

The logarithm of each step's growth is a Gaussian autoregression of coefficient rho, whose mean, the
exponent, is 0. A row per rho and length T: the share of orbits that are given an error at all, and
of these the share with |exponent| < 2 stderr, where 95 % is meant.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import scipy.signal

import gradlab as gl

RHOS = (-0.5, 0.0, 0.5, 0.8, 0.9, 0.95, 0.98)
LENGTHS = (50, 100, 200, 400, 1000, 4000)
ORBITS = 1000
PATH = Path(__file__).parent.parent / "results" / "theory" / "exponent_coverage.csv"


@jax.jit
@functools.partial(jax.vmap, in_axes=0)
def exponent(growth: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The exponent of one orbit and its error, from ln|J_t|, (T,)."""
    spectrum = gl.spectrum.lyapunov(lambda h, g: jnp.exp(g) * h, jnp.zeros(()), growth, k=1)
    return spectrum.exponents[0], spectrum.stderr[0]


rows = []
for length in LENGTHS:
    for rho in RHOS:
        noise = np.random.default_rng(length).standard_normal((ORBITS, length + 1000))
        growth = np.asarray(scipy.signal.lfilter([1.0], [1.0, -rho], noise, axis=1))[:, 1000:]
        # Small against the float's range: the scale does not matter to a share.
        exponents, stderr = (np.asarray(x) for x in exponent(growth.astype(np.float32) / 10))
        known = np.isfinite(stderr)
        covered = np.mean(np.abs(exponents[known]) < 2 * stderr[known]) if known.any() else np.nan
        rows.append({"rho": rho, "length": length, "orbits": ORBITS, "meant": 0.95})
        rows[-1] |= {"with_error": known.mean(), "covered": covered}
table = pd.DataFrame(rows).sort_values(["rho", "length"])
table.to_csv(PATH, index=False, float_format="%.3f", lineterminator="\n")
print(table.to_string(index=False, float_format="%.3f"))
