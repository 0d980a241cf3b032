"""gradlab: how gradients live and die inside recurrent networks.

`gl.trace(loss)` takes the place of `jax.value_and_grad(loss)` and also gives the gradient at every
step of every recurrence inside the loss. `gl.sweep` measures a grid of cells, initializations and
lengths. Import it as `import gradlab as gl`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from gradlab import cells as cells
from gradlab import initializers as initializers
from gradlab import meanfield as meanfield
from gradlab import spectrum as spectrum
from gradlab import tasks as tasks
from gradlab.checking import check as check
from gradlab.tracing import ScanTrace as ScanTrace
from gradlab.tracing import TapTrace as TapTrace
from gradlab.tracing import Trace as Trace
from gradlab.tracing import tap as tap
from gradlab.tracing import trace as trace

if TYPE_CHECKING:
    from gradlab import decay as decay
    from gradlab import figures as figures
    from gradlab import frames as frames
    from gradlab import remedies as remedies
    from gradlab import sweeps as sweeps
    from gradlab import training as training
    from gradlab.applications import sentiment as sentiment
    from gradlab.applications import translation as translation
    from gradlab.applications import weather as weather
    from gradlab.frames import frame as frame
    from gradlab.sweeps import read as read
    from gradlab.sweeps import sweep as sweep
    from gradlab.training import train as train

__all__ = [
    "ScanTrace",
    "TapTrace",
    "Trace",
    "cells",
    "check",
    "decay",
    "figures",
    "frame",
    "frames",
    "initializers",
    "meanfield",
    "read",
    "remedies",
    "sentiment",
    "spectrum",
    "sweep",
    "sweeps",
    "tap",
    "tasks",
    "trace",
    "train",
    "training",
    "translation",
    "weather",
]

# The one place of the version: packaging reads it from here without importing anything.
__version__ = "0.1.0"

# These import pandas, matplotlib or optax, which tracing does not need.
_LAZY = {
    "decay": "gradlab.decay",
    "figures": "gradlab.figures",
    "frame": "gradlab.frames",
    "frames": "gradlab.frames",
    "read": "gradlab.sweeps",
    "remedies": "gradlab.remedies",
    "sentiment": "gradlab.applications.sentiment",
    "sweep": "gradlab.sweeps",
    "sweeps": "gradlab.sweeps",
    "train": "gradlab.training",
    "training": "gradlab.training",
    "translation": "gradlab.applications.translation",
    "weather": "gradlab.applications.weather",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'gradlab' has no attribute {name!r}")
    module = importlib.import_module(_LAZY[name])
    return module if _LAZY[name].endswith(f".{name}") else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
