"""
Engelken (2023): gradient flossing
==================================

Lyapunov exponents before and after they are pulled towards zero. The shaded ones are those that
the penalty acts on.
"""

import pandas as pd

import gradlab as gl

# In a clone of the repository; elsewhere put
# https://raw.githubusercontent.com/gradlab/gradlab/main/ before results/.
exponents = pd.read_csv("../../../results/training/flossing/exponents.csv")
fig = gl.figures.flossing(exponents)


# %%
# Measured again by::
#
#     python experiments/flossing.py
