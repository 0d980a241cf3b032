"""The transformation `trace`: the adjoint of every scan in a loss, step by step."""

from gradlab.tracing._cost import Cost as Cost
from gradlab.tracing._cost import StepFlops as StepFlops
from gradlab.tracing._cost import cost as cost
from gradlab.tracing._cost import step_flops as step_flops
from gradlab.tracing._trace import ScanTrace as ScanTrace
from gradlab.tracing._trace import TapTrace as TapTrace
from gradlab.tracing._trace import Trace as Trace
from gradlab.tracing._trace import tap as tap
from gradlab.tracing._trace import trace as trace
