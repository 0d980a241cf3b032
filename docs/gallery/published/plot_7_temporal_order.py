"""
Pascanu, Mikolov & Bengio (2013): temporal order
================================================

With growing length plain descent fails first, then descent with clipping; clipping together
with the regularizer Ω goes furthest. Our runs have fewer updates than the authors', so that the
lengths are shorter; the order of the methods is theirs.
"""

import pandas as pd
from matplotlib.figure import Figure

# In a clone of the repository; elsewhere put
# https://raw.githubusercontent.com/gradlab/gradlab/main/ before results/.
table = pd.read_csv("../../../results/training/temporal_order/summary.csv")

fig = Figure(figsize=(7, 3), layout="constrained")
ax = fig.subplots()
by = ["clip_norm", "omega_squared"]
for shift, (names, rows) in enumerate(table.groupby(by, sort=False, dropna=False)):
    parts = zip(("clip", "Ω"), names)
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
#     gradlab sweep experiments/temporal_order.toml --out results/training/temporal_order

import json

manifest = json.load(open("../../../results/training/temporal_order/manifest.json"))
print(f"{manifest['runs']} runs, {manifest['seconds'] / 60:.0f} minutes on {manifest['device'][0]}")
