"""gradlab's own remedies by the names of their axes in a sweep."""

from __future__ import annotations

from typing import Any

from gradlab.remedies import transforms
from gradlab.remedies.base import Remedy, register
from gradlab.remedies.clipping import clip
from gradlab.remedies.flossing import flossing_penalty
from gradlab.remedies.omega import omega_penalty
from gradlab.remedies.orthogonality import orthogonality_penalty


@register
def clip_value(strength: Any) -> Remedy:
    """Clip the gradient's entries."""
    return Remedy(optimizer=clip(value=strength))


@register
def clip_norm(strength: Any) -> Remedy:
    """Clip the gradient's norm."""
    return Remedy(optimizer=clip(norm=strength))


@register
def omega(strength: Any) -> Remedy:
    """Penalize what a step makes of the adjoint's norm: the mean over steps."""
    return Remedy(
        penalty=lambda cell, loss: omega_penalty(loss, cell, mean=True, has_aux=True, squared=False)
    )


@register
def omega_squared(strength: Any) -> Remedy:
    """The same of squared norms."""
    return Remedy(
        penalty=lambda cell, loss: omega_penalty(loss, cell, mean=True, has_aux=True, squared=True)
    )


@register
def orthogonality(strength: Any) -> Remedy:
    """Penalize recurrent weights for their distance from an orthogonal matrix."""
    return Remedy(penalty=lambda cell, _: orthogonality_penalty(cell))


@register
def flossing(strength: Any, flossing_exponents: int = 8) -> Remedy:
    """Penalize the largest Lyapunov exponents for their squares."""
    return Remedy(
        penalty=lambda cell, _: flossing_penalty(cell, min(flossing_exponents, cell.hidden))
    )


@register
def chrono(strength: Any) -> Remedy:
    """Spread the time constants up to `strength` steps."""
    return Remedy(cell=lambda cell: transforms.chrono(cell, strength))


@register
def leak(strength: Any) -> Remedy:
    """Let a share `strength` of the state be replaced at each step."""
    return Remedy(cell=lambda cell: transforms.leak(cell, strength))
