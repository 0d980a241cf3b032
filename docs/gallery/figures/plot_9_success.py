"""
Success: which lengths are solved
=================================

The share of the seeds that solve a task against the length of its sequences, a line per cell
and remedy.
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
fig = gl.figures.success(results.runs)
