"""The transformation `trace`: the adjoint of every scan in a loss, step by step.

How a scan becomes a record, with the file that does each part:

1. `trace` has JAX write the loss down as a jaxpr, and `_jaxpr.program` flattens it: a list of nodes
   that read and write slots, with the calls inlined. Only `_jaxpr` and `_parallel` know what a
   jaxpr looks like.
2. A parallel scan is no equation of JAX but a tree of some hundred. `_parallel` finds it by how the
   equations are linked, and puts one node behind them that stands for its recurrence.
3. `_walk` goes through the nodes, into scans, conds, remats and calls, and lists the sites: the
   scans that carry floats, and the taps. Each gets `Slots` (`_record`): zeros that the loss takes
   as one more argument. What the backward pass measures is returned as their cotangent, so a
   record travels through vmap, cond and outer scans as any gradient does.
4. `_walk` then runs the program again, with a traced scan in the place of each. `_cut` cuts the
   step at its new state: what makes the state (advance) and what reads it (readout), so that the
   direct part of an adjoint can be told from what later steps send back.
5. `_linear` linearizes both parts: a forward program that makes the residuals, and two transposed
   programs. It finds the fewest bytes to keep, and which weight gradients can wait.
6. `_scan` is the custom_vjp: it runs the forward program, and backwards hands the residuals to
   `_pull`, which holds the adjoint as lambda_t = 2^e mu_t, records it (`_norms`), and pulls it back
   one step. Where a parallel scan's states are known, all residuals are computed at once.
7. What must be known of a step before that: `_rules`, whether a rule that a user wrote is linear,
   so that units do not matter; `_samples`, whether the samples of a batch stay apart, so that each
   can have its own unit; `_narrow`, how 16-bit floats are run so that their adjoints are not.
8. `_stacks` follows a tap on stacked states back to the scan that records their total adjoint, and
   warns where it cannot.
9. `_view` finds what `measure` reads of a step beside its state, which then is a residual too.

Only for speed: the choice of residuals in `_linear._storage`, the sums that wait (`_linear.Sums`),
the chunks in one unit (`_pull`), that the states of light steps are looked at after the scan and
that weights are transposed before it (`_scan._run`). A trace without them gives the same record.
"""

from gradlab.tracing._flops import flops
from gradlab.tracing._record import Options
from gradlab.tracing._trace import ScanTrace, TapTrace, Trace, tap, trace, trace_with
from gradlab.tracing._view import StepValues

__all__ = [
    "Options",
    "ScanTrace",
    "StepValues",
    "TapTrace",
    "Trace",
    "flops",
    "tap",
    "trace",
    "trace_with",
]


def __dir__() -> list[str]:
    return sorted(__all__)
