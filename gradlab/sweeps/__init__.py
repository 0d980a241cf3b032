"""Sweeps: spec -> plan -> run -> store."""

from gradlab.sweeps.run import Report, sweep
from gradlab.sweeps.spec import Spec, load, parse

__all__ = ["Report", "Spec", "load", "parse", "sweep"]
