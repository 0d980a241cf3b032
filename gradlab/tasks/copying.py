"""The copying problem: ten symbols, a long blank, and the ten symbols again."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gradlab.tasks import _checks
from gradlab.tasks.base import Task, check_minimum, cross_entropy, register, share_wrong

SYMBOLS = 8
COPY_LENGTH = 10
BLANK, DELIMITER = SYMBOLS, SYMBOLS + 1


@register
def copying(delay: int = 100) -> Task:
    """Repeat ten symbols, uniform out of 8, after a delay of `delay` steps.

    With D = `delay`, the sequence has T = D + 20 steps, one-hot over the 8 symbols, the blank
    and the delimiter: the ten symbols, D - 1 blanks, the delimiter, ten blanks. The target, over
    the 8 symbols and the blank, is the blank for the first D + 10 steps, and then the ten symbols
    in their order. Loss: the cross-entropy in nats, averaged over all T steps. Error: the share
    of the ten symbols that come out wrong (at the last ten steps; chance 7/8).

    Baseline, "memoryless": the blank for D + 10 steps and then a guess among the 8 symbols, at the
    cross-entropy 10 ln 8 / (D + 20): 0.173 for D = 100. Solved at an error of 1 %.

    Args:
        delay: D, at least 1; the papers call it T.

    Raises:
        ValueError: for a delay below 1.

    >>> task = copying(delay=3)
    >>> xs, target = task.sample(jax.random.key(0))
    >>> xs.argmax(1).tolist()
    [5, 0, 0, 5, 3, 3, 0, 7, 5, 3, 8, 8, 9, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8]
    >>> target.tolist()
    [8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 5, 0, 0, 5, 3, 3, 0, 7, 5, 3]

    Source: Hochreiter & Schmidhuber, "Long short-term memory" (1997), section 5; in the form of
    Arjovsky, Shah & Bengio, "Unitary evolution recurrent neural networks" (2016), section 5.1.
    """
    check_minimum("copying", 1, delay=delay)
    check_minimum("copying", 1, length=delay + 2 * COPY_LENGTH)

    def sample(
        key: PRNGKeyArray, dtype=None
    ) -> tuple[Float[Array, "length 10"], Int[Array, " length"]]:
        dtype = _checks.floating(dtype)
        symbols = jax.random.randint(key, (COPY_LENGTH,), 0, SYMBOLS, jnp.int32)
        blanks = jnp.full(delay + COPY_LENGTH, BLANK, jnp.int32)
        codes = jnp.concatenate([symbols, blanks.at[delay - 1].set(DELIMITER)])
        return jax.nn.one_hot(codes, SYMBOLS + 2, dtype=dtype), jnp.concatenate([blanks, symbols])

    def error(outputs: Float[Array, "length 9"], target: Int[Array, " length"]) -> Float[Array, ""]:
        return share_wrong(outputs[-COPY_LENGTH:], target[-COPY_LENGTH:])

    return Task(
        name="copying",
        length=delay + 2 * COPY_LENGTH,
        inputs=SYMBOLS + 2,
        outputs=SYMBOLS + 1,
        every_step=True,
        sample=sample,
        loss=cross_entropy,
        error=error,
        baselines={
            "memoryless": COPY_LENGTH * math.log(SYMBOLS) / (delay + 2 * COPY_LENGTH),
        },
        solved=0.01,
    )
