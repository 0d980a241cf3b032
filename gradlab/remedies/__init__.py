"""Remedies against vanishing and exploding gradients, each a small piece that composes.

An optimizer: ``clip``. Penalties, functions of (params, batch), which ``penalized`` adds to a loss:
``omega``, ``orthogonality`` and ``flossing``, each with the form for one sequence or cell. Cells
made of cells: ``chrono``, ``forget_bias``, ``leak``. Every strength may be traced, so that a sweep
over it is one compiled program. Two more live where they belong: layer normalization is a family of
cells (``layer_norm_elman`` and so on), and truncated back-propagation is the ``window`` of
``gradlab.tasks.network``. `register` makes a remedy of your own an axis of sweeps of training.
"""

from gradlab.remedies import axes as _axes  # noqa: F401  (which registers gradlab's own)
from gradlab.remedies.base import REGISTRY, Remedy, is_foreign, make, names, register
from gradlab.remedies.clipping import clip
from gradlab.remedies.flossing import flossing, flossing_penalty
from gradlab.remedies.omega import omega, omega_penalty
from gradlab.remedies.orthogonality import orthogonality, orthogonality_penalty
from gradlab.remedies.penalized import penalized
from gradlab.remedies.transforms import chrono, forget_bias, leak, retaining

__all__ = [
    "REGISTRY",
    "Remedy",
    "chrono",
    "clip",
    "flossing",
    "flossing_penalty",
    "forget_bias",
    "is_foreign",
    "leak",
    "make",
    "names",
    "omega",
    "omega_penalty",
    "orthogonality",
    "orthogonality_penalty",
    "penalized",
    "register",
    "retaining",
]


def __dir__() -> list[str]:
    return sorted(__all__)
