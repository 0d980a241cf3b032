"""Training with optax, traced as it trains: the whole loop under one `lax.scan`.

`train` is the loop with checkpoints, progress and a report of what went wrong; `start` and
`advance` are its pure core, which a sweep maps over seeds and learning rates with `jax.vmap`.
"""

from gradlab.training import recorders as recorders
from gradlab.training._loop import Failure as Failure
from gradlab.training._loop import Loss as Loss
from gradlab.training._loop import Progress as Progress
from gradlab.training._loop import Records as Records
from gradlab.training._loop import Sampler as Sampler
from gradlab.training._loop import State as State
from gradlab.training._loop import Training as Training
from gradlab.training._loop import advance as advance
from gradlab.training._loop import log_norm as log_norm
from gradlab.training._loop import start as start
from gradlab.training._loop import train as train
from gradlab.training._record import Record as Record
from gradlab.training._record import Recorder as Recorder
from gradlab.training._record import Sink as Sink
