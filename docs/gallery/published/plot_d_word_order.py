"""
Word order: why a convolution would not do
==========================================

Two words among fillers, and only their order decides. A bag of words stays at chance, and a
convolution over five words sees the order of what is less than five apart. A recurrent network has
to keep the first word until the second comes: the gru learns that up to a distance of 4, the lstm
up to 8, about as far as a gradient comes back before training (on the right). Elman's network, one
seed for each distance, learns it at 2 alone.
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
