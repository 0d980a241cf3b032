"""
Inputs: one network, two sources of sequences
=============================================

The rate on one source of inputs against the rate on another: random numbers next to the words
of film reviews. Points off the diagonal are networks for which the data matters.
"""

import tempfile

import gradlab as gl

spec = {
    "cell": ["elman", "lstm"],
    "init": ["normal", "orthogonal"],
    "gain": [0.5, 1.0, 1.5, 2.0],
    "length": 100,
    "input": ["gaussian", "reviews"],
    "hidden": 32,
    "inputs": 8,
    "input_scale": 0.3,
    "seeds": 2,
}
with tempfile.TemporaryDirectory() as folder:
    results = gl.sweep(spec, folder).results
fig = gl.figures.inputs(results.runs)
