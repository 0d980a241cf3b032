"""
Phase: where gradients vanish and explode
=========================================

The rate over gain and sequence length: blue vanishes, red explodes, and the line is the edge
between them. The number to look for is where that edge lies, and whether your gain stands near
it.
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
fig = gl.figures.phase(results.runs)
