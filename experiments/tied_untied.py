"""GRU and LSTM with one W for all steps against a fresh one for each step.

Untied: Gilboa et al., "Dynamical isometry and a mean field theory of LSTMs and GRUs" (2019). Tied,
without input: the disc law after Can, Krishnamurthy & Schwab, "Gating creates slow modes and
controls phase-space complexity in GRUs and LSTMs" (2020). Tied with an input there is no theory:
how far those points lie from the untied line is what the figure is for.

Without input a run stays at exactly 0, so that its gradient follows the law of that fixed point
above the critical gain as well, where a network that was disturbed would leave it.
"""

import sys

import deviations

DRIVEN = "Gilboa et al. (2019): gru and lstm under input"
ZERO = "Can, Krishnamurthy & Schwab (2020): gru and lstm at zero"

names = sys.argv[1:] or ("driven", "zero")
if "driven" in names:
    driven = deviations.with_width(deviations.measure("tied_untied_driven"))
    deviations.publish("tied_untied_driven", driven, title=DRIVEN, hue="weights")

if "zero" in names:
    zero = deviations.measure("tied_untied_zero")
    zero["predicted_rate"] = [
        deviations.zero_disc(run).rate if run.weights == "tied" else run.predicted_rate
        for run in zero.itertuples()
    ]
    deviations.publish("tied_untied_zero", deviations.with_width(zero), title=ZERO, hue="weights")
