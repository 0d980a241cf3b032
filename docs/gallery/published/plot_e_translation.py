"""
Translation: the bottleneck, the reversed source, and attention
===============================================================

How much each piece that is written depends on what the encoder had in mind after each piece that it
read, for numbers in words. Without attention all goes through the encoder's last state, so that
every row fades towards the beginning of what was read; reading the source backwards brings its
beginning near; attention opens a direct path from each step of writing to each step of reading.
"""

import pandas as pd

import gradlab as gl

# In a clone of the repository; elsewhere put
# https://raw.githubusercontent.com/gradlab/gradlab/main/ before results/.
adjoints = pd.read_csv("../../../results/translation/adjoints.csv")


def panel(rows):
    matrix = rows.pivot(index="t", columns="s", values="log_norm")
    source, target = (rows.drop_duplicates(k).sort_values(k) for k in "st")
    return source["source"], target["target"], matrix


fig = gl.figures.encoder_decoder(
    {
        when: {name: panel(rows) for name, rows in some.groupby("model", sort=False)}
        for when, some in adjoints.groupby("when", sort=False)
    }
)


# %%
# Measured again by::
#
#     make translation
