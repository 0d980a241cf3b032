"""Parity: whether the number of ones so far is odd."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gradlab.tasks import _checks
from gradlab.tasks.base import Task, check_minimum, cross_entropy, register, share_wrong


@register
def parity(length: int = 50, every_step: bool = False) -> Task:
    """Whether the sequence has an odd number of ones, which hangs on every single step.

    Each x_t is +1 (a one) or -1, equally likely. The target is the number of ones modulo 2, after
    the last step, or of the ones so far after every step. Loss: cross-entropy in nats (over the
    steps, its mean). Error: the share of wrong answers. Baseline, "chance": ln 2 ≈ 0.693 with 50 %
    errors, which is also the best that a predictor can do that misses a single one of the steps.
    Solved at an error of 1 %.

    Args:
        length: T, at least 1.
        every_step: whether to ask after every step instead of after the last. This is much easier:
            the answer at each step differs from the one before by one bit.

    Raises:
        ValueError: for a length below 1.

    >>> xs, target = parity(length=6, every_step=True).sample(jax.random.key(0))
    >>> xs[:, 0].tolist(), target.tolist()
    ([1.0, -1.0, -1.0, 1.0, 1.0, 1.0], [1, 1, 1, 0, 1, 0])

    Source: Hochreiter & Schmidhuber, "LSTM can solve hard long time lag problems" (1997), section
    2, with sequences of ±1 as there.
    """
    check_minimum("parity", 1, length=length)

    def sample(
        key: PRNGKeyArray, dtype=None
    ) -> tuple[Float[Array, "length 1"], Int[Array, "*steps"]]:
        dtype = _checks.floating(dtype)
        bits = jax.random.randint(key, (length,), 0, 2, jnp.int32)
        odd = jnp.cumsum(bits, dtype=jnp.int32) % 2
        return (2 * bits - 1).astype(dtype)[:, None], odd if every_step else odd[-1]

    return Task(
        name="parity",
        length=length,
        inputs=1,
        outputs=2,
        every_step=every_step,
        sample=sample,
        loss=cross_entropy,
        error=share_wrong,
        baselines={"chance": math.log(2)},
        solved=0.01,
    )
