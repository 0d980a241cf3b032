"""Word order: the same words in two orders, with opposite labels."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gradlab.tasks import _checks
from gradlab.tasks.base import Task, check_minimum, cross_entropy, register, share_wrong

WORDS, FILLERS = 3, 6


@register
def word_order(length: int = 40, distance: int = 10, margin: int = 8) -> Task:
    """Classify a sequence by the order of two words that are `distance` steps apart.

    "The car stopped before the accident": which came first changes what is said, and no word does.
    Each x_t is one-hot over (A, B, C, a, b, c, d, e, f). Every step shows one of the fillers a..f,
    uniformly, but for two: step t, counted from 0 and uniform in [margin, T - distance - margin),
    and t + distance show two of A, B and C, uniformly. The class, read after the last step, is 0
    where they are AB, BC or CA and 1 where they are BA, CB or AC.

    Any count of words is as likely in both classes, so that a bag of words stays at chance. So is
    each word at each of the two places: who has forgotten the first word when the second comes is
    at chance too. Filters over k steps that are pooled see the order for distance < k alone, as
    long as k is at most the margin: nearer to an end of the sequence a filter sees that end, and so
    which word is the first or the last.

    Loss: cross-entropy in nats. Error: 1 where the class is wrong, else 0. Baseline, "chance":
    ln 2 ≈ 0.693 with 50 % errors. Solved at an error of 1 %.

    Args:
        length: T, more than distance + 2 margin.
        distance: from the first of the two words to the second, at least 1.
        margin: how many steps are before the first and after the second word, at the least.

    Raises:
        ValueError: for a length, distance or margin for which there is no place.

    >>> xs, target = word_order(length=10, distance=4, margin=0).sample(jax.random.key(1))
    >>> "".join("ABCabcdef"[c] for c in xs.argmax(1)), int(target)
    ('febBcfeCbd', 0)

    Source: this project's; after the temporal order of two symbols, task 6a of Hochreiter &
    Schmidhuber, "Long short-term memory" (1997), with a distance that is set.
    """
    check_minimum("word_order", 1, distance=distance)
    check_minimum("word_order", 0, margin=margin)
    check_minimum("word_order", distance + 2 * margin + 1, length=length)

    def sample(key: PRNGKeyArray, dtype=None) -> tuple[Float[Array, "length 9"], Int[Array, ""]]:
        dtype = _checks.floating(dtype)
        where_key, what_key, word_key, rest_key = jax.random.split(key, 4)
        place = jax.random.randint(where_key, (), margin, length - distance - margin, jnp.int32)
        target = jax.random.randint(what_key, (), 0, 2, jnp.int32)
        first = jax.random.randint(word_key, (), 0, WORDS, jnp.int32)
        second = (first + 1 + target) % WORDS
        codes = jax.random.randint(rest_key, (length,), WORDS, WORDS + FILLERS, jnp.int32)
        codes = codes.at[place].set(first).at[place + distance].set(second)
        return jax.nn.one_hot(codes, WORDS + FILLERS, dtype=dtype), target

    return Task(
        name="word_order",
        length=length,
        inputs=WORDS + FILLERS,
        outputs=2,
        every_step=False,
        sample=sample,
        loss=cross_entropy,
        error=share_wrong,
        baselines={"chance": math.log(2)},
        solved=0.01,
    )
