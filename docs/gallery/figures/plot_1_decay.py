"""
Decay: the gradient's norm against lag
======================================

How many decades a gradient loses or gains on its way back, relative to the last step. A panel
per initialization and cell, a line per gain; the band is the range of the seeds. The horizontal
lines are what float32 can tell from zero: below them a plain gradient is lost.
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
fig = gl.figures.decay(results.runs, results.steps)
