"""
Tallec & Ollivier (2018): copying with chrono initialization
============================================================

An LSTM whose forget gates start with the task's own time scales beats the baseline of a network
without memory, and a plain LSTM does not; at which learning rate that shows is part of the
result.
"""

import pandas as pd
from matplotlib.figure import Figure

# In a clone of the repository; elsewhere put
# https://raw.githubusercontent.com/gradlab/gradlab/main/ before results/.
table = pd.read_csv("../../../results/training/copying/summary.csv")

fig = Figure(figsize=(5, 3), layout="constrained")
ax = fig.subplots()
losses = table.pivot(index="learning_rate", columns="chrono", values="loss_median")
losses = losses.rename(columns={0.0: "plain", 150.0: "chrono"})
losses.plot.bar(ax=ax, rot=0, legend=False)
ax.axhline(table["baseline"].iloc[0], color="k", ls="--", label="without memory")
ax.set(xlabel="learning rate", ylabel="median loss (nats)")
fig.legend(loc="outside right upper")
print(losses)


# %%
# Measured again by::
#
#     gradlab sweep experiments/copying.toml --out results/training/copying

import json

manifest = json.load(open("../../../results/training/copying/manifest.json"))
print(f"{manifest['runs']} runs, {manifest['seconds'] / 60:.0f} minutes on {manifest['device'][0]}")
