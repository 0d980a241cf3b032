"""
Learning: loss against updates, with and without clipping
=========================================================

The loss on fresh sequences, the median over the seeds and their range; the dashed line is what
a predictor reaches that learns nothing. A dot marks the first seed that solved the task.
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
fig = gl.figures.learning(results.runs, results.curves)
