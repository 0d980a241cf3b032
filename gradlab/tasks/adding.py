"""The adding problem: one real number to hold, and then one to add to it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from gradlab.tasks import _checks
from gradlab.tasks.base import Task, check_minimum, register


@register
def adding(length: int = 100) -> Task:
    """The sum of the two marked numbers of a sequence, read after its last step.

    Each x_t is (u_t, m_t): u_t ~ U[0, 1], and the marker m_t is 1 at two steps and 0 elsewhere.
    One marked step is uniform in the first half of the sequence, steps 1..⌊T/2⌋, the other in the
    second half. With y the one output after the last step::

        target = Σ_t m_t u_t,   loss = (y - target)²,   error = |y - target|

    Baseline, "predict 1": the mean of the target whatever the sequence, with the mean squared
    error Var(u + u') = 1/6 ≈ 0.167. The task counts as solved at a mean absolute error of 0.08:
    Hochreiter & Schmidhuber call a sequence processed correctly below 0.04, of a target that is
    half of this one, (u + u')/2 up to a constant. A normal error is as large at variance 0.01.

    Args:
        length: T, at least 2.

    Raises:
        ValueError: for a length below 2.

    >>> xs, target = adding(length=6).sample(jax.random.key(0))
    >>> xs[:, 1].tolist(), bool(jnp.isclose(target, xs[:, 0] @ xs[:, 1]))
    ([0.0, 0.0, 1.0, 1.0, 0.0, 0.0], True)

    Source: Hochreiter & Schmidhuber, "Long short-term memory" (1997), section 5.4; in the form of
    Arjovsky, Shah & Bengio, "Unitary evolution recurrent neural networks" (2016), section 5.2,
    with a marker in each half.
    """
    check_minimum("adding", 2, length=length)

    def sample(key: PRNGKeyArray, dtype=None) -> tuple[Float[Array, "length 2"], Float[Array, ""]]:
        values_key, first_key, second_key = jax.random.split(key, 3)
        u = jax.random.uniform(values_key, (length,), _checks.floating(dtype))
        # int32 whatever jax_enable_x64 says, so that both settings mark the same steps.
        first = jax.random.randint(first_key, (), 0, length // 2, jnp.int32)
        second = jax.random.randint(second_key, (), length // 2, length, jnp.int32)
        step = jnp.arange(length)
        marks = ((step == first) | (step == second)).astype(u.dtype)
        return jnp.stack([u, marks], axis=1), u[first] + u[second]

    def loss(outputs: Float[Array, " 1"], target: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.square(outputs[0] - target)

    def error(outputs: Float[Array, " 1"], target: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.abs(outputs[0] - target)

    return Task(
        name="adding",
        length=length,
        inputs=2,
        outputs=1,
        every_step=False,
        sample=sample,
        loss=loss,
        error=error,
        baselines={"predict 1": 1 / 6},
        solved=0.08,
    )
