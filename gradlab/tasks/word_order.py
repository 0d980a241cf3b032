"""Word order: the same words in two orders, with opposite labels."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gradlab.tasks import _checks
from gradlab.tasks.base import Task, check_minimum, cross_entropy, register, share_wrong

FILLERS = 6


@register
def word_order(length: int = 40, distance: int = 10, margin: int = 8) -> Task:
    """Classify a sequence by which of two words came first, `distance` steps before the other.

    "The car stopped before the accident": which came first changes what is said, and no word does.
    Each x_t is one-hot over (A, B, a, b, c, d, e, f). Every step shows one of the fillers a..f,
    uniformly, but for two: step t, counted from 0 and uniform in [margin, T - distance - margin),
    and t + distance show A and B, in an order that is a fair coin. The class, read after the last
    step, is 0 where A came first and 1 where B did. Any count of words is as likely in both
    classes, so that a bag of words stays at chance. Filters over k steps that are pooled see the
    order for distance < k alone, as long as k is at most the margin: nearer to an end of the
    sequence a filter sees that end, and so which word is the first or the last.

    Loss: cross-entropy in nats. Error: 1 where the class is wrong, else 0. Baseline, "chance":
    ln 2 ≈ 0.693 with 50 % errors. Solved at an error of 1 %.

    Args:
        length: T, more than distance + 2 margin.
        distance: from the first of the two words to the second, at least 1.
        margin: how many steps are before the first and after the second word, at the least.

    Raises:
        ValueError: for a length, distance or margin for which there is no place.

    >>> xs, target = word_order(length=10, distance=4, margin=0).sample(jax.random.key(1))
    >>> "".join("ABabcdef"[c] for c in xs.argmax(1)), int(target)
    ('bcdAadeBfb', 0)

    Source: the order of two symbols is task 6a of Hochreiter & Schmidhuber, "Long short-term
    memory" (1997), here with a distance that is set.
    """
    check_minimum("word_order", 1, distance=distance)
    check_minimum("word_order", 0, margin=margin)
    check_minimum("word_order", distance + 2 * margin + 1, length=length)

    def sample(key: PRNGKeyArray, dtype=None) -> tuple[Float[Array, "length 8"], Int[Array, ""]]:
        dtype = _checks.floating(dtype)
        where_key, what_key, rest_key = jax.random.split(key, 3)
        first = jax.random.randint(where_key, (), margin, length - distance - margin, jnp.int32)
        target = jax.random.randint(what_key, (), 0, 2, jnp.int32)
        codes = jax.random.randint(rest_key, (length,), 2, 2 + FILLERS, jnp.int32)
        codes = codes.at[first].set(target).at[first + distance].set(1 - target)
        return jax.nn.one_hot(codes, 2 + FILLERS, dtype=dtype), target

    return Task(
        name="word_order",
        length=length,
        inputs=2 + FILLERS,
        outputs=2,
        every_step=False,
        sample=sample,
        loss=cross_entropy,
        error=share_wrong,
        baselines={"chance": math.log(2)},
        solved=0.01,
    )
