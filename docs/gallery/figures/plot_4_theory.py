"""
Theory: measured rates next to mean-field predictions
=====================================================

Points are measured, lines are predicted by `gl.meanfield`. Below, the difference: a bar that
does not reach the band is a miss, and ringed. A hollow point has no theory.
"""

import tempfile

import gradlab as gl

spec = {
    "cell": ["elman", "lstm"],
    "init": ["normal", "orthogonal"],
    "gain": [0.5, 1.0, 1.5, 2.0],
    "length": [10, 100],
    "hidden": 32,
    "inputs": 8,
    "input_scale": 0.3,
    "seeds": 2,
}
with tempfile.TemporaryDirectory() as folder:
    results = gl.sweep(spec, folder).results
fig = gl.figures.theory(results.runs)
