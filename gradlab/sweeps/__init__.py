"""Sweeps: spec -> plan -> run -> store."""

from gradlab.sweeps.run import Report, sweep
from gradlab.sweeps.spec import Spec, load, parse
from gradlab.sweeps.status import Status, status

__all__ = ["Report", "Spec", "Status", "load", "parse", "status", "sweep"]
