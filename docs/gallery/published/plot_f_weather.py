"""
Weather: the next hour, the next day, and how far a forecast looks back
=======================================================================

The hourly temperature of Seattle, climate normals: three cells against persistence, the same hour
of the day before, and a linear autoregression on the same 72 hours. Below on the right, how much a
forecast depends on the state some hours before; the lines mark whole days.
"""

import pandas as pd

import gradlab as gl

# In a clone of the repository; elsewhere put
# https://raw.githubusercontent.com/gradlab/gradlab/main/ before results/.
week, errors, reach = (
    pd.read_csv(f"../../../results/weather/{name}.csv") for name in ("week", "errors", "reach")
)
fig = gl.figures.weather(week, errors, reach, "°F")


# %%
# Measured again by::
#
#     make weather
