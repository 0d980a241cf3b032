"""Sweeps: spec -> plan -> run -> store."""

from gradlab.sweeps.chunks import keep_memory, use_cores
from gradlab.sweeps.forecast import Estimate, estimate
from gradlab.sweeps.progress import Status, status
from gradlab.sweeps.run import Report, sweep
from gradlab.sweeps.spec import Spec, load, parse

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
