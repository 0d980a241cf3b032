"""Training a forecaster, and what it then says: forecasts, errors, how far the gradient reaches."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from gradlab import training
from gradlab.applications._training import optimizer
from gradlab.applications.weather import models
from gradlab.applications.weather.data import Series, windows
from gradlab.applications.weather.recipes import Recipe, check
from gradlab.tasks import Network, Task, batch_loss, batch_sampler
from gradlab.tracing import trace


class Forecaster(NamedTuple):
    """A trained network with all that it needs to forecast a series.

    Attributes:
        recipe: how it was made.
        step: the seconds from one value to the next.
        period: the steps of a day, of a week, or 1; see `Series.period`.
        unit: what the values are.
        mean: of the values that it learnt from.
        spread: their standard deviation.
        network: the pure functions, made from the recipe.
        params: their parameters.
        linear: the weights of the linear autoregression on the same windows, (T + 1, K).
    """

    recipe: Recipe
    step: int
    period: int
    unit: str
    mean: float
    spread: float
    network: Network
    params: PyTree
    linear: Float[np.ndarray, "length+1 horizon"]

    def standardize(self, values: np.ndarray) -> np.ndarray:
        """The values in units of their spread, around their mean."""
        return (values - self.mean) / self.spread


def build(recipe: Recipe) -> Network:
    """The network of a recipe."""
    return models.make(recipe.cell, recipe.hidden, recipe.horizon)


def task(values: Float[np.ndarray, " n"], length: int, horizon: int) -> Task:
    """The forecast of K differences from T values, as a task of `gradlab.tasks`.

    With z the `values`: x_t = z_{k+t} for t = 1..T and the target z_{k+T+j} - z_{k+T} for
    j = 1..K, for a random k; loss the mean squared error, error the mean absolute error.

    >>> found = task(np.arange(10.0), length=4, horizon=2)
    >>> xs, target = found.sample(jax.random.key(0))
    >>> xs.shape, target.tolist(), found.baselines
    ((4, 1), [1.0, 2.0], {'persistence': 2.5})
    """

    def draw(values: Array, key: Array, dtype: object = None) -> tuple[Array, Array]:
        first = jax.random.randint(key, (), 0, len(values) - length - horizon + 1)
        both = jax.lax.dynamic_slice(values, (first,), (length + horizon,))
        both = both.astype(jnp.result_type(dtype or float))
        return both[:length, None], both[length:] - both[length - 1]

    def loss(outputs: Float[Array, " K"], target: Float[Array, " K"]) -> Float[Array, ""]:
        return jnp.square(outputs - target).mean()

    def error(outputs: Float[Array, " K"], target: Float[Array, " K"]) -> Float[Array, ""]:
        return jnp.abs(outputs - target).mean()

    past, future = windows(values, length, horizon)
    nothing = float(np.mean((models.persistence(past, horizon) - future) ** 2))
    sample = jax.tree_util.Partial(draw, jnp.asarray(values))
    return Task("forecast", length, 1, horizon, False, sample, loss, error,
                {"persistence": nothing}, 0.0)  # fmt: skip


def train(
    recipe: Recipe,
    series: Series,
    *,
    seed: int = 0,
    watch: Callable[[int, Forecaster, float], None] | None = None,
) -> Forecaster:
    """Train a forecaster by `gradlab.training`'s loop.

    Args:
        recipe: what to train and how.
        series: all of it is learnt from: give one part of it.
        seed: of the parameters and the batches.
        watch: called before the first epoch and after each, with the epochs made, the forecaster so
            far and the mean loss of that epoch, in units of the variance (NaN at first).

    Raises:
        ValueError: for a recipe that nobody could train by, a series that is too short, is not
            finite or does not vary, a period that is longer than what a forecast reads; and where a
            loss or a parameter is not finite.

    >>> wave = Series(np.sin(np.arange(200) / 3), 3600, np.datetime64("2020-01-01", "s"), "m", "w")
    >>> tiny = Recipe("elman", hidden=4, length=30, horizon=2, batch=8, epochs=1)
    >>> forecast(train(tiny, wave), wave.values[:30]).shape
    (2,)
    """
    check(recipe)
    if series.period > recipe.length:
        raise ValueError(
            f"a forecast from {recipe.length} steps does not see a whole period of {series.period}"
        )
    mean, spread = float(series.values.mean()), float(series.values.std())
    if not np.isfinite(series.values).all():
        raise ValueError(f"{series.name}: a value is not finite")
    # Of equal values the mean is off by its rounding.
    if not spread > 1e-12 * abs(mean):
        raise ValueError(f"{series.name}: all {len(series.values):,} values are the same")
    z = (series.values - mean) / spread
    past, future = windows(z, recipe.length, recipe.horizon)
    here = task(z, recipe.length, recipe.horizon)
    net = build(recipe)
    k_params, k_run = jax.random.split(jax.random.key(seed))
    params = net.init(k_params)
    linear = models.fit_linear(past, future)
    forecaster = Forecaster(
        recipe, series.step, series.period, series.unit, mean, spread, net, params, linear
    )
    if watch is not None:
        watch(0, forecaster, math.nan)
    per_epoch = max(len(past) // recipe.batch, 1)
    adam = optimizer(recipe, per_epoch)
    loss, sample = batch_loss(net, here), batch_sampler(here, recipe.batch)
    state = training.start(params, adam, k_run)
    advance = jax.jit(
        lambda sample, state: training.advance(loss, sample, adam, state, per_epoch, has_aux=True)
    )
    for epoch in range(1, recipe.epochs + 1):
        state, records = advance(sample, state)
        if bad := int(state.first_nonfinite_step):
            raise ValueError(f"{recipe.cell}: update {bad} gave a loss or weights without a value")
        forecaster = forecaster._replace(params=state.params)
        if watch is not None:
            watch(epoch, forecaster, float(records.metrics["loss"].mean()))
    return forecaster


@partial(jax.jit, static_argnums=0)
def _apply(network: Network, params: PyTree, past: Array) -> Array:
    return past[:, -1:] + jax.vmap(network.apply, (None, 0))(params, past[..., None])


def forecast(
    forecaster: Forecaster, past: Float[np.ndarray, "*m length"]
) -> Float[np.ndarray, "*m horizon"]:
    """The next K values after some T, in their unit.

    Raises:
        ValueError: for fewer than T values, of which the last T are read, or one not finite.
    """
    past, length = np.asarray(past, float), forecaster.recipe.length
    if past.shape[-1] < length:
        raise ValueError(f"a forecast reads {length} values, and there are {past.shape[-1]}")
    past = past[..., -length:]
    if not np.isfinite(past).all():
        raise ValueError("not all of the values that the forecast reads are finite")
    z = forecaster.standardize(past)
    values = _apply(forecaster.network, forecaster.params, np.atleast_2d(z))
    values = np.asarray(values, float).reshape(*past.shape[:-1], forecaster.recipe.horizon)
    return values * forecaster.spread + forecaster.mean


def forecasts(forecaster: Forecaster, series: Series) -> dict[str, Float[np.ndarray, "m horizon"]]:
    """What each way forecasts from every window of a series, in its unit, and the truth.

    Returns:
        Under `truth`, `persistence`, `seasonal`, `linear` and the cell's name, arrays (m, K).
    """
    recipe = forecaster.recipe
    past, future = windows(series.values, recipe.length, recipe.horizon)
    linear = models.linear(forecaster.standardize(past), forecaster.linear)
    return {
        "truth": future,
        "persistence": models.persistence(past, recipe.horizon),
        "seasonal": models.seasonal(past, recipe.horizon, forecaster.period),
        "linear": linear * forecaster.spread + forecaster.mean,
        recipe.cell: forecast(forecaster, past),
    }


def evaluate(forecaster: Forecaster, series: Series) -> dict[str, Float[np.ndarray, " horizon"]]:
    """The root mean squared error of each way at each horizon, in the unit of the series.

    Raises:
        ValueError: for a series that is too short, or whose step is another.
    """
    if series.step != forecaster.step:
        raise ValueError(
            f"the forecaster learnt steps of {forecaster.step} s, and {series.name} has "
            f"{series.step} s"
        )
    ways = forecasts(forecaster, series)
    truth = ways.pop("truth")
    return {name: np.sqrt(np.mean((says - truth) ** 2, axis=0)) for name, says in ways.items()}


def reach(
    forecaster: Forecaster, series: Series, horizon: int, count: int = 200
) -> Float[np.ndarray, "count lags"]:
    """ln(‖λ_t‖ / ‖λ_T‖) of the forecast of one horizon, by lag T - t, in nats.

    λ_t is the total derivative of the forecast by the state after step t, traced by
    `gradlab.trace`; -inf for an exact zero, NaN where λ_T is zero as well.

    Args:
        forecaster: of which the network is traced.
        series: whose windows are read.
        horizon: j, from 1 to K.
        count: how many windows, at equal distances.
    """
    past, _ = windows(series.values, forecaster.recipe.length, forecaster.recipe.horizon)
    if not 1 <= horizon <= forecaster.recipe.horizon:
        raise ValueError(f"the horizon is 1 to {forecaster.recipe.horizon}, got {horizon}")
    sample = past[np.linspace(0, len(past) - 1, min(count, len(past))).astype(int)]
    z = forecaster.standardize(sample)
    log_norm = _adjoints(forecaster.network, forecaster.params, z, horizon - 1)
    log_norm = np.asarray(log_norm, float).T[:, ::-1]
    with np.errstate(invalid="ignore"):
        return log_norm - log_norm[:, :1]


@partial(jax.jit, static_argnums=0)
def _adjoints(network: Network, params: PyTree, past: Array, place: Array) -> Array:
    def one(params: PyTree, past: Array) -> Array:
        return jax.vmap(network.apply, (None, 0))(params, past[..., None])[:, place].sum()

    return trace(one, argnums=(), batch_axis=0)(params, past).scans[0].log_norm
