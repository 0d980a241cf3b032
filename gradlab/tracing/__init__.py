"""The transformation `trace`: the adjoint of every scan in a loss, step by step."""

from gradlab.tracing._flops import flops as flops
from gradlab.tracing._trace import ScanTrace as ScanTrace
from gradlab.tracing._trace import TapTrace as TapTrace
from gradlab.tracing._trace import Trace as Trace
from gradlab.tracing._trace import tap as tap
from gradlab.tracing._trace import trace as trace
