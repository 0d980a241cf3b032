"""The next hour's temperature in Seattle, from the hours before."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from gradlab.tasks import _checks
from gradlab.tasks.base import Task, check_minimum, extra, register

DAY = 24
# The first 80 % of the year, up to the end of 19 October, are for training.
TRAIN_SHARE = 0.8


@lru_cache(maxsize=1)
def series() -> np.ndarray:
    """The temperature of every hour of a year, in °F, (8760,), read-only.

    These are vega_datasets' "seattle_temps", dated 2010: the climate normals, an average over many
    years, so that the weather's chance is smoothed away. The one hour that the file lacks, where
    daylight saving time begins, is put in between its neighbours.

    >>> temperatures = series()
    >>> temperatures.shape, float(temperatures.min()), float(temperatures.max())
    ((8760,), 37.5, 75.9)
    """
    with extra("temperature", "vega_datasets"):
        from vega_datasets import local_data
    hours, degrees = np.loadtxt(
        local_data.seattle_temps.filepath,
        delimiter=",",
        skiprows=1,
        converters={0: _hour},
        unpack=True,
    )
    hourly = np.interp(np.arange(hours[-1] + 1), hours, degrees)
    hourly.flags.writeable = False
    return hourly


def _hour(stamp: str) -> float:
    """Hours since the beginning of 2010, from a stamp such as 2010/01/31 23:00."""
    time = np.datetime64(stamp.replace("/", "-").replace(" ", "T"))
    return (time - np.datetime64("2010-01-01T00:00")) / np.timedelta64(1, "h")


def baselines(degrees: np.ndarray, length: int) -> dict[str, float]:
    """Mean squared errors of two forecasts of z_{t+1}, over all windows of `length` hours.

    "persistence" says that nothing changes, z_t; "seasonal" says what it was at the same hour the
    day before, z_{t-23}.

    >>> wave = np.sin(2 * np.pi * np.arange(480) / 24)
    >>> {name: round(mse, 4) for name, mse in baselines(wave, length=24).items()}
    {'persistence': 0.0341, 'seasonal': 0.0}
    """
    target = degrees[length:]
    guesses = {"persistence": degrees[length - 1 : -1], "seasonal": degrees[length - DAY : -DAY]}
    return {name: float(np.mean((guess - target) ** 2)) for name, guess in guesses.items()}


@register
def temperature(length: int = 48) -> Task:
    """The next hour's temperature, forecast from the last T hours' after the last of them.

    With z the temperatures standardised by the mean and the standard deviation s of the train part
    (s = 9.57 °F), x_t = z_{k+t} for t = 1..T, and the target is z_{k+T+1}, for a random k. With y
    the one output after the last step: loss (y - target)², no unit; error s·|y - target|, in °F.

    `sample` draws from the first 80 % of the year; `held_out` are the windows that lie in the
    rest of it, from 20 October on.

    Baselines, over the windows of `held_out`: "persistence", the last hour again, 0.0044, and
    "seasonal", the same hour of the day before, 0.00049 (root mean square 0.64 and 0.21 °F; in the
    train part 1.25 and 0.19 °F). Neither learns anything. The task counts as solved when the mean
    error is no more than the seasonal forecast's there, 0.178 °F. Normals are so smooth that there
    is room below it: linear regression on 48 hours comes to 0.00003.

    Args:
        length: T, in hours, from 24 to 1,000.

    Raises:
        ValueError: for a length out of range.
        ImportError: where vega_datasets is not installed.

    >>> task = temperature(length=24)
    >>> xs, target = task.sample(jax.random.key(0))
    >>> xs.shape, target.shape
    ((24, 1), ())
    >>> {name: round(mse, 4) for name, mse in task.baselines.items()}
    {'persistence': 0.0045, 'seasonal': 0.0005}

    Source: the data, vega_datasets' seattle_temps (NOAA's hourly normals); the two forecasts:
    Hyndman & Athanasopoulos, "Forecasting: principles and practice" (2021), section 5.2.
    """
    check_minimum("temperature", DAY, length=length)
    if length > 1000:
        raise ValueError(f"temperature needs length of at most 1000, got {length}")
    degrees = series()
    border = int(TRAIN_SHARE * len(degrees))
    mean, spread = degrees[:border].mean(), degrees[:border].std()
    z = (degrees - mean) / spread
    train, test = z[:border], z[border:]

    def draw(
        train: Array, key: PRNGKeyArray, dtype=None
    ) -> tuple[Float[Array, "length 1"], Float[Array, ""]]:
        first = jax.random.randint(key, (), 0, len(train) - length, jnp.int32)
        hours = jax.lax.dynamic_slice(jnp.asarray(train), (first,), (length + 1,))
        hours = hours.astype(_checks.floating(dtype))
        return hours[:-1, None], hours[-1]

    def held_out(dtype=None) -> tuple[Float[Array, "n length 1"], Float[Array, " n"]]:
        windows = np.lib.stride_tricks.sliding_window_view(test, length + 1)
        hours = jnp.asarray(windows, _checks.floating(dtype))
        return hours[:, :-1, None], hours[:, -1]

    def loss(outputs: Float[Array, " 1"], target: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.square(outputs[0] - target)

    def error(outputs: Float[Array, " 1"], target: Float[Array, ""]) -> Float[Array, ""]:
        return spread.item() * jnp.abs(outputs[0] - target)

    return Task(
        name="temperature",
        length=length,
        inputs=1,
        outputs=1,
        every_step=False,
        sample=jax.tree_util.Partial(draw, train),
        loss=loss,
        error=error,
        baselines=baselines(test, length),
        solved=float(spread * np.mean(np.abs(test[length:] - test[length - DAY : -DAY]))),
        held_out=held_out,
    )
