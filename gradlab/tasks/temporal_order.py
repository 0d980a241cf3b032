"""Temporal order: which of two symbols came first, second (and third), among distractors."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gradlab._names import show
from gradlab.tasks import _checks
from gradlab.tasks.base import Task, check_minimum, cross_entropy, register, share_wrong

DISTRACTORS = 4

# Where each of 2 or 3 symbols may stand, in hundredths of the length: from, and up to before.
WINDOWS = {2: ((10, 20), (40, 50)), 3: ((10, 20), (33, 43), (66, 76))}


@register
def temporal_order(length: int = 100, symbols: int = 2) -> Task:
    """Classify a sequence by the order of its 2 or 3 relevant symbols, each X or Y.

    Each x_t is one-hot over (X, Y, a, b, c, d). Every step shows one of the distractors a..d,
    uniformly, but for one step in each window, uniform in it, which shows X or Y, equally likely.
    With t counted from 0, the windows are [T/10, 2T/10) and [4T/10, 5T/10) for two symbols, and
    [T/10, 2T/10), [33T/100, 43T/100), [66T/100, 76T/100) for three, rounded down. The class,
    read after the last step, takes X as 0 and Y as 1, the first symbol as the highest bit: XX,
    XY, YX, YY are 0..3.

    Loss: cross-entropy in nats. Error: 1 where the class is wrong, else 0. Baseline, "chance":
    ln 4 ≈ 1.386 with 75 % errors for two symbols, ln 8 ≈ 2.079 with 87.5 % for three. Solved at an
    error of 1 %, as Pascanu et al. count a run as successful.

    Args:
        length: T, at least 10.
        symbols: 2 or 3.

    Raises:
        ValueError: for a length below 10, or another number of symbols.

    >>> xs, target = temporal_order(length=10).sample(jax.random.key(0))
    >>> "".join("XYabcd"[c] for c in xs.argmax(1)), int(target)
    ('dXddXcbcdd', 0)

    Source: Hochreiter & Schmidhuber, "Long short-term memory" (1997), tasks 6a and 6b; in the form
    of Pascanu, Mikolov & Bengio, "On the difficulty of training recurrent neural networks" (2013),
    section 4.1, without start and end symbols. There the second of two symbols stands in
    [4T/10, 5T/10]; in Hochreiter & Schmidhuber, and in the code of Pascanu et al., in
    [5T/10, 6T/10]. The windows for three symbols are those of task 6b.
    """
    if symbols not in WINDOWS:
        raise ValueError(f"temporal_order needs symbols to be 2 or 3, got {show(symbols)}")
    check_minimum("temporal_order", 10, length=length)
    # In int64: in int32 the product is too large from 2e7 steps on.
    starts, ends = (np.array(WINDOWS[symbols], np.int64).T * length // 100).astype(np.int32)

    def sample(key: PRNGKeyArray, dtype=None) -> tuple[Float[Array, "length 6"], Int[Array, ""]]:
        dtype = _checks.floating(dtype)
        where_key, what_key, rest_key = jax.random.split(key, 3)
        where = jax.random.randint(where_key, (symbols,), starts, ends, jnp.int32)
        what = jax.random.randint(what_key, (symbols,), 0, 2, jnp.int32)
        codes = jax.random.randint(rest_key, (length,), 2, 2 + DISTRACTORS, jnp.int32)
        weights = 2 ** jnp.arange(symbols - 1, -1, -1, dtype=jnp.int32)
        one_hot = jax.nn.one_hot(codes.at[where].set(what), 2 + DISTRACTORS, dtype=dtype)
        return one_hot, jnp.sum(what * weights, dtype=jnp.int32)

    return Task(
        name="temporal_order",
        length=length,
        inputs=2 + DISTRACTORS,
        outputs=2**symbols,
        every_step=False,
        sample=sample,
        loss=cross_entropy,
        error=share_wrong,
        baselines={"chance": symbols * math.log(2)},
        solved=0.01,
    )
