"""Training with optax, traced as it trains: the whole loop under one `lax.scan`.

`train` is the loop with checkpoints, progress and a report of what went wrong; `start` and
`advance` are its pure core, which a sweep maps over seeds and learning rates with `jax.vmap`.
"""

from gradlab._norms import log_norm
from gradlab.training import recorders
from gradlab.training._coordinates import Coordinates, coordinate_check
from gradlab.training._loop import (
    Failure,
    Loss,
    Progress,
    Records,
    Sampler,
    State,
    Training,
    advance,
    start,
    train,
)
from gradlab.training._rates import effective_rates
from gradlab.training._record import Record, Recorder, Sink

__all__ = [
    "Coordinates",
    "Failure",
    "Loss",
    "Progress",
    "Record",
    "Recorder",
    "Records",
    "Sampler",
    "Sink",
    "State",
    "Training",
    "advance",
    "coordinate_check",
    "effective_rates",
    "log_norm",
    "recorders",
    "start",
    "train",
]


def __dir__() -> list[str]:
    return sorted(__all__)
