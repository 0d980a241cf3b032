"""
Word order: why a convolution would not do
==========================================

Two words among fillers, and only their order decides. A bag of words stays at chance, a
convolution over five words sees the order of what is less than five apart, and gated cells learn it
at every distance here, also where hardly any gradient came back before training (on the right).
Elman's network, one seed for each distance, fails at some and not at others.
"""

import pandas as pd

import gradlab as gl

# In a clone of the repository; elsewhere put
# https://raw.githubusercontent.com/gradlab/gradlab/main/ before results/.
accuracy = pd.read_csv("../../../results/order/accuracy.csv")
fig = gl.figures.word_order(accuracy)


# %%
# Measured again by::
#
#     python experiments/word_order.py
