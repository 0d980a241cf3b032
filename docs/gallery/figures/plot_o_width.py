"""
Width: a coordinate check
=========================

The sizes of states, of their updates and of adjoints as a network grows, in a sweep over `hidden`.
With Adam at one rate for all widths, the updates of the states grow with the width: what is tuned
on a small network is too fast for a large one. `gl.training.coordinate_check` measures a network of
your own.
"""

import tempfile

import gradlab as gl

spec = {
    "measurement": "coordinates",
    "task": "adding",
    "length": 12,
    "cell": "elman",
    "hidden": [16, 48, 144],
    "learning_rate": 0.02,
    "updates": 4,
    "batch": 16,
}
with tempfile.TemporaryDirectory() as folder:
    results = gl.sweep(spec, folder).results
fig = gl.figures.width(results)
