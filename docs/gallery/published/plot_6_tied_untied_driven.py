"""
Gilboa et al. (2019): GRU and LSTM under input
==============================================

Driven by an input, only the untied networks have a theory; the tied ones lie above it, since
one weight ties each gate to the state that it has shaped.
"""

import pandas as pd
from matplotlib.figure import Figure

# In a clone of the repository; elsewhere put
# https://raw.githubusercontent.com/gradlab/gradlab/main/ before results/.
table = pd.read_csv("../../../results/theory/tied_untied_driven.csv")

fig = Figure(figsize=(7, 3), layout="constrained")
panels = list(table.groupby("cell", sort=False))
for ax, (panel, rows) in zip(fig.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels):
    for value, points in rows.groupby("weights", sort=False):
        (line,) = ax.plot(points["gain"], points["predicted_rate"], "--", lw=1)
        errors = dict(yerr=3 * points["rate_stderr"], fmt="o", ms=3, color=line.get_color())
        ax.errorbar(points["gain"], points["rate"], label=f"{value}", **errors)
    ax.set(title=panel, xlabel="gain")
    ax.axhline(0, color="0.7", lw=0.8, zorder=0)
fig.axes[0].set_ylabel("rate (nats/step)")
fig.axes[-1].legend(fontsize="small")

known = table[table["deviation"].notna()]
within = known["within"].astype(bool).sum()
print(len(known), "points with a theory, of which", within, "lie within three standard errors")
print("of it and of what the width is derived to add")


# %%
# Measured again by::
#
#     python experiments/tied_untied.py
