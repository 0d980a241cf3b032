"""Remedies against vanishing and exploding gradients, each a small piece that composes.

An optimizer: ``clip``. Penalties, functions of (params, batch), which ``penalized`` adds to a loss:
``omega``, ``orthogonality`` and ``flossing``, each with the form for one sequence or cell. Cells
made of cells: ``chrono``, ``forget_bias``, ``leak``. Every strength may be traced, so that a sweep
over it is one compiled program. Two more live where they belong: layer normalization is a family of
cells (``layer_norm_elman`` and so on), and truncated back-propagation is the ``window`` of
``gradlab.tasks.network``.
"""

from gradlab.remedies.clipping import clip
from gradlab.remedies.flossing import flossing, flossing_penalty
from gradlab.remedies.omega import omega, omega_penalty
from gradlab.remedies.orthogonality import orthogonality, orthogonality_penalty
from gradlab.remedies.penalized import penalized
from gradlab.remedies.transforms import chrono, forget_bias, leak, retaining

__all__ = [
    "chrono",
    "clip",
    "flossing",
    "flossing_penalty",
    "forget_bias",
    "leak",
    "omega",
    "omega_penalty",
    "orthogonality",
    "orthogonality_penalty",
    "penalized",
    "retaining",
]
