"""The minimalRNN against Elman's network around criticality, tied and untied.

Chen, Pennington & Schoenholz, "Dynamical isometry and a mean field theory of RNNs: gating enables
signal propagation in recurrent neural networks" (2018), figures 1 and 4: Elman's network is
critical at one gain, the minimalRNN stays near criticality over a wide range of gains. The theory
is for untied weights; with tied ones Elman's network follows it, the minimalRNN does not.
"""

import deviations

TITLE = "Chen, Pennington & Schoenholz (2018): minimalRNN and elman"

runs = deviations.with_width(deviations.measure("minimal_rnn"))
deviations.publish("minimal_rnn", runs, title=TITLE, hue="weights")
