"""Sweeps: spec -> plan -> run -> store."""

from gradlab.sweeps.chunks import keep_memory, use_cores
from gradlab.sweeps.estimate import Estimate, estimate
from gradlab.sweeps.run import Report, sweep
from gradlab.sweeps.spec import Spec, load, parse
from gradlab.sweeps.status import Status, status

__all__ = [
    "Estimate",
    "Report",
    "Spec",
    "Status",
    "estimate",
    "keep_memory",
    "load",
    "parse",
    "status",
    "sweep",
    "use_cores",
]
