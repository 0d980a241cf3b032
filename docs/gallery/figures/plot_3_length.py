"""
Length: what remains of the gradient at step 1
==============================================

The first step's gradient relative to the last's, against the length of the sequence: straight
lines are exponential decay, and their slope is the rate.
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
fig = gl.figures.length(results.runs)
