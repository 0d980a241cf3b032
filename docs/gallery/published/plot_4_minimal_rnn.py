"""
Chen, Pennington & Schoenholz (2018): minimalRNN
================================================

A gated network next to an Elman network, with weights that are drawn afresh at each step
(untied), as theory has it, and with one weight for all steps (tied), as networks have it.
"""

import pandas as pd
from matplotlib.figure import Figure

# In a clone of the repository; elsewhere put
# https://raw.githubusercontent.com/gradlab/gradlab/main/ before results/.
table = pd.read_csv("../../../results/theory/minimal_rnn.csv")

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
#     python experiments/minimal_rnn.py
