"""
Le, Jaitly & Hinton (2015): the adding problem
==============================================

Gated cells solve every length that was tried; tanh networks and relu networks that start at the
identity (IRNN) end earlier, and fail in opposite ways: one vanishes, the other explodes.
"""

import pandas as pd
from matplotlib.figure import Figure

# In a clone of the repository; elsewhere put
# https://raw.githubusercontent.com/gradlab/gradlab/main/ before results/.
table = pd.read_csv("../../../results/training/adding/summary.csv")

fig = Figure(figsize=(8, 3), layout="constrained")
ax = fig.subplots()
by = ["cell", "activation", "learning_rate"]
for shift, (names, rows) in enumerate(table.groupby(by, sort=False, dropna=False)):
    parts = zip(("", "", "rate"), names)
    label = " ".join(f"{name} {value}".strip() for name, value in parts if value == value)
    # A little to the side, so that equal lines can be told apart.
    x = rows["length"] * 1.02**shift
    ax.plot(x, rows["solved"], "o-", ms=4, label=label)
ax.set(xlabel="length of the sequence (steps)", ylabel="share of seeds that solve it", xscale="log")
ax.set_xticks(sorted(table["length"].unique()), sorted(table["length"].unique()))
ax.minorticks_off()
fig.legend(loc="outside right upper", fontsize="small")
columns = [*by, "length", "runs", "solved", "best_loss_median"]
print(table[columns].to_string(index=False))


# %%
# Measured again by::
#
#     gradlab sweep experiments/adding.toml --out results/training/adding

import json

manifest = json.load(open("../../../results/training/adding/manifest.json"))
print(f"{manifest['runs']} runs, {manifest['seconds'] / 60:.0f} minutes on {manifest['device'][0]}")
