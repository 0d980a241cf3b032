"""The engine of a sweep: axes -> plan -> chunks -> store -> frames.

It is given a `Measurement` as a value: the axes of a run, the function that turns runs into rows,
and what runs cost. It knows nothing of cells, tasks or gradients. From a spec (`spec`) follows the
plan (`plan`), the runs of which are measured chunk by chunk (`run`, `work`), in this process or on
the workers of a scheduler (`cluster`), as many at once as `sizes` says. Each chunk is one file,
whole or not there, in a folder (`store`) that one sweep at a time holds (`locks`); `consolidate`
makes frames of them, and `manifest` says what they are. `forecast` says what all that will take,
`progress` how far it is, and `unused` what a spec names in vain.
"""

from gradlab.grid.forecast import Estimate, estimate
from gradlab.grid.measurement import Axes, Cost, Measurement, Run, Tell
from gradlab.grid.plan import Plan
from gradlab.grid.progress import Status, read, status
from gradlab.grid.run import Report, check_workers, sweep
from gradlab.grid.sizes import keep_memory, use_cores
from gradlab.grid.spec import Grid

__all__ = [
    "Axes",
    "Cost",
    "Estimate",
    "Grid",
    "Measurement",
    "Plan",
    "Report",
    "Run",
    "Status",
    "Tell",
    "check_workers",
    "estimate",
    "keep_memory",
    "read",
    "status",
    "sweep",
    "use_cores",
]


def __dir__() -> list[str]:
    return sorted(__all__)
