"""
Gradients: training, remedy by remedy
=====================================

As `training`, for a sweep: a panel per cell and remedy, the first seed of each.
"""

import tempfile

import gradlab as gl

spec = {
    "task": "adding",
    "cell": "elman",
    "length": [5, 10],
    "hidden": 16,
    "learning_rate": 0.01,
    "clip_norm": [0.0, 1.0],
    "updates": 400,
    "evaluate_every": 50,
    "evaluation": 64,
    "batch": 32,
    "seeds": 2,
}
with tempfile.TemporaryDirectory() as folder:
    results = gl.sweep(spec, folder).results
fig = gl.figures.gradients(results.runs, results.curves, results.steps)
