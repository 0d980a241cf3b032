"""
Sentiment: how far back a review is remembered
==============================================

The gradient in classifiers of film reviews before training and after each epoch. Below, how
much of the review still has a gradient, next to the accuracy on held out reviews.
"""

import pandas as pd

import gradlab as gl

# In a clone of the repository; elsewhere put
# https://raw.githubusercontent.com/gradlab/gradlab/main/ before results/.
curves = pd.read_csv("../../../results/sentiment/gradient.csv")
epochs = pd.read_csv("../../../results/sentiment/epochs.csv")
fig = gl.figures.sentiment(curves, epochs)


# %%
# Measured again by::
#
#     make sentiment DATA=PATH
