"""
Engelken (2023): does flossing help to learn?
=============================================

Temporal order with an elman network: as it is, after flossing, and with flossing all along.
"""

import pandas as pd
from matplotlib.figure import Figure

# In a clone of the repository; elsewhere put
# https://raw.githubusercontent.com/gradlab/gradlab/main/ before results/.
table = pd.read_csv("../../../results/training/flossed_order/summary.csv")
table["way"] = "plain"
table.loc[table["preflossing"] > 0, "way"] = "flossed before"
table.loc[table["flossing"] > 0, "way"] = "flossed before and while learning"

fig = Figure(figsize=(5, 3), layout="constrained")
ax = fig.subplots()
solved = table.pivot(index="length", columns="way", values="solved")
solved.plot.bar(ax=ax, rot=0, legend=False)
ax.set(xlabel="length of the sequence (steps)", ylabel="share of seeds that solve it", ylim=(0, 1))
fig.legend(loc="outside upper center", fontsize="small")
print(solved)


# %%
# Measured again by::
#
#     gradlab sweep experiments/flossed_order.toml --out results/training/flossed_order

import json

manifest = json.load(open("../../../results/training/flossed_order/manifest.json"))
print(f"{manifest['runs']} runs, {manifest['seconds'] / 60:.0f} minutes on {manifest['device'][0]}")
