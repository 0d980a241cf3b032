"""Initializers with a gain, in the signature of `jax.nn.initializers`, and their audits.

An initializer is a function `(key, shape, dtype) -> array` for a weight of shape
`(out, in)`, used as `weight @ vector`. A gain may be a traced scalar, so a sweep over gains
is one compiled program.
"""

from gradlab.initializers.audits import audit, gate_time_constants, time_constants
from gradlab.initializers.base import (
    BIASES,
    REGISTRY,
    Initializer,
    bias_names,
    make,
    names,
    register,
)
from gradlab.initializers.biases import chrono, forget_bias
from gradlab.initializers.independent import (
    critical,
    glorot,
    haiku,
    he,
    heavy_tailed,
    lecun,
    normal,
    pytorch,
    uniform,
)
from gradlab.initializers.reservoir import echo_state, spectral_radius
from gradlab.initializers.structured import (
    chain,
    eigenvalue_ring,
    identity,
    orthogonal,
    rotations,
    stacked_orthogonal,
)

__all__ = [
    "BIASES",
    "Initializer",
    "REGISTRY",
    "audit",
    "bias_names",
    "chain",
    "chrono",
    "critical",
    "echo_state",
    "eigenvalue_ring",
    "forget_bias",
    "gate_time_constants",
    "glorot",
    "haiku",
    "he",
    "heavy_tailed",
    "identity",
    "lecun",
    "make",
    "names",
    "normal",
    "orthogonal",
    "pytorch",
    "register",
    "rotations",
    "spectral_radius",
    "stacked_orthogonal",
    "time_constants",
    "uniform",
]


def __dir__() -> list[str]:
    return sorted(__all__)
