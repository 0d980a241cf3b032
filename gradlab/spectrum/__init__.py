"""Lyapunov exponents, Jacobians, and singular values of their long products, of any step function.

A step maps a state to the next one, ``step(state)`` or ``step(state, x)``. The state is any pytree;
its floating-point leaves, ravelled, are the n coordinates of the Jacobian J_t = ∂h_t/∂h_{t-1}. A
complex leaf counts as two real coordinates per entry; integer leaves go along without a tangent.
"""

from gradlab.spectrum._exponents import LyapunovSpectrum as LyapunovSpectrum
from gradlab.spectrum._exponents import entropy_rate as entropy_rate
from gradlab.spectrum._exponents import kaplan_yorke as kaplan_yorke
from gradlab.spectrum._exponents import lyapunov as lyapunov
from gradlab.spectrum._jacobian import jacobian as jacobian
from gradlab.spectrum._singular import log_singular_values as log_singular_values
