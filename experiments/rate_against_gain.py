"""Elman's rate against σ_w with ½ ln χ through it, for tanh, erf, relu and linear.

Chen, Pennington & Schoenholz, "Dynamical isometry and a mean field theory of RNNs: gating enables
signal propagation in recurrent neural networks" (2018), section 3, with χ of Poole et al. (2016)
and Schoenholz et al. (2017), on networks of width 512 with one W for all 500 steps.
"""

import deviations
import pandas as pd

TITLE = "Chen, Pennington & Schoenholz (2018): rate of elman, ½ ln χ"

runs = pd.concat(
    [deviations.measure(name) for name in ("rate_saturating", "rate_relu", "rate_linear")],
    ignore_index=True,
)
runs = deviations.with_width(runs)
deviations.publish("rate_against_gain", runs, title=TITLE, hue="input_scale")
