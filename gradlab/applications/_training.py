"""Batches and the optimizer that the applications train with, by `gradlab.training`'s loop."""

from typing import Protocol

import numpy as np
import optax

from gradlab import remedies

POOL = 50
"""Batches per pool that is sorted by length: enough to be alike, few enough to stay mixed."""


class Schedule(Protocol):
    """What the optimizer reads of a recipe."""

    @property
    def epochs(self) -> int: ...
    @property
    def rate(self) -> float: ...
    @property
    def clip(self) -> float: ...
    @property
    def decay(self) -> float: ...


def order_by_length(lengths: np.ndarray, batch: int, random: np.random.RandomState) -> np.ndarray:
    """One epoch: batches (n, batch) of indices, each of reviews of similar length, in any order."""
    order = random.permutation(len(lengths))
    pools = [order[i : i + batch * POOL] for i in range(0, len(order), batch * POOL)]
    pools = [pool[np.argsort(lengths[pool], kind="stable")] for pool in pools]
    # What does not fill a batch is left out, other reviews in every epoch.
    rows = [pool[: len(pool) // batch * batch].reshape(-1, batch) for pool in pools]
    return random.permutation(np.concatenate(rows))


def optimizer(recipe: Schedule, per_epoch: int) -> optax.GradientTransformation:
    """AdamW with a warm-up, a cosine decay and, unless `clip` is 0, clipping by global norm."""
    steps = max(recipe.epochs * per_epoch, 1)
    rate = optax.warmup_cosine_decay_schedule(
        recipe.rate / 10, recipe.rate, min(per_epoch // 4, steps - 1), steps, recipe.rate / 50
    )
    clip = remedies.clip(norm=recipe.clip) if recipe.clip else optax.identity()
    return optax.chain(clip, optax.adamw(rate, weight_decay=recipe.decay))
