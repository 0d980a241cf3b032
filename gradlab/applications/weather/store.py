"""A forecaster as one file, without pickle."""

from pathlib import Path
from typing import Any

import numpy as np

from gradlab.applications import _store
from gradlab.applications.weather.learn import Forecaster, build
from gradlab.applications.weather.recipes import Recipe, check

VERSION = 1
"""Of the file's format: a change of what a file holds, or of what its numbers mean, raises it."""

_KIND = "weather"


def save(forecaster: Forecaster, path: str | Path) -> None:
    """Write a forecaster to one safetensors file; it is complete or it is not there."""
    about = {
        "recipe": forecaster.recipe._asdict(),
        **{name: getattr(forecaster, name) for name in _FACTS},
    }
    arrays = {"linear": forecaster.linear, **_store.leaves(forecaster.params)}
    _store.write(path, _KIND, VERSION, about, arrays)


def load(path: str | Path) -> Forecaster:
    """Read what `save` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file that is damaged, of another version, or no forecaster; for weights
            that are not finite, and a recipe that nobody could have trained by.
    """
    return _store.read(path, _KIND, VERSION, _rebuild)


_FACTS: dict[str, tuple[type, float, float]] = {
    "step": (int, 1, 10**10),
    "period": (int, 1, 10**6),
    "mean": (float, -1e30, 1e30),
    "spread": (float, 1e-30, 1e30),
    "unit": (str, 0, 0),
}


def _rebuild(about: dict[str, Any], arrays: dict[str, np.ndarray]) -> Forecaster:
    recipe = Recipe(**about["recipe"])
    check(recipe)
    facts = {name: about[name] for name in _FACTS}
    for name, (kind, low, high) in _FACTS.items():
        if kind is not str:
            _store.check_number(name, facts[name], kind, low, high)
    if not isinstance(facts["unit"], str):
        raise ValueError("the unit is no text")
    if facts["period"] > recipe.length:
        raise ValueError("the period is longer than what a forecast reads")
    linear = arrays.pop("linear")
    if linear.shape != (recipe.length + 1, recipe.horizon) or not np.isfinite(linear).all():
        raise ValueError("the weights of the linear autoregression do not fit or are not finite")
    network = build(recipe)
    params = _store.restore(network.init, arrays)
    return Forecaster(recipe=recipe, network=network, params=params, linear=linear, **facts)
