"""The dynamics of any step function, and the curvature of a loss.

Exponents, Jacobians and their long products, what a state remembers of parameters and inputs,
gradients by lag, fixed points, Newton's iteration over time; and the Hessian.

A step maps a state to the next one, ``step(state)`` or ``step(state, x)``. The state is any pytree;
its floating-point leaves, ravelled, are the n coordinates of the Jacobian J_t = ∂h_t/∂h_{t-1}. A
complex leaf counts as two real coordinates per entry; integer leaves go along without a tangent.
"""

from gradlab.spectrum._curvature import (
    Hessian,
    HessianEigenvalues,
    hessian,
    hessian_eigenvalues,
)
from gradlab.spectrum._exponents import (
    LyapunovSpectrum,
    entropy_rate,
    finite_time_exponents,
    kaplan_yorke,
    lyapunov,
)
from gradlab.spectrum._fixed_points import FixedPoints, fixed_points
from gradlab.spectrum._jacobian import jacobian
from gradlab.spectrum._lags import LagGradient, gradient_by_lag
from gradlab.spectrum._memory import log_fisher_memory, memory_capacity
from gradlab.spectrum._newton import NewtonSolution, log_newton_condition, newton
from gradlab.spectrum._sensitivity import log_jacobian, log_sensitivity
from gradlab.spectrum._singular import log_singular_values, log_singular_values_by_lag

__all__ = [
    "FixedPoints",
    "Hessian",
    "HessianEigenvalues",
    "LagGradient",
    "LyapunovSpectrum",
    "NewtonSolution",
    "entropy_rate",
    "finite_time_exponents",
    "fixed_points",
    "gradient_by_lag",
    "hessian",
    "hessian_eigenvalues",
    "jacobian",
    "kaplan_yorke",
    "log_fisher_memory",
    "log_jacobian",
    "log_newton_condition",
    "log_sensitivity",
    "log_singular_values",
    "log_singular_values_by_lag",
    "lyapunov",
    "memory_capacity",
    "newton",
]


def __dir__() -> list[str]:
    return sorted(__all__)
