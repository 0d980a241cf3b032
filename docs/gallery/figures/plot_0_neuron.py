"""
Neuron: why gradients vanish
============================

One neuron: its output, its slope, and the product of the slopes over many steps. Where the slope
times the weight is below 1, a hundred steps leave nothing that float32 can hold.
"""

import gradlab as gl

fig = gl.figures.neuron()

# %%
# With a larger weight to itself the same neuron explodes where it is not saturated.

fig = gl.figures.neuron(weight=1.5)
