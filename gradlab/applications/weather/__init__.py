"""The next hours of a series: forecasts by recurrent cells, and how far back they look."""

from gradlab.applications.weather.data import (
    BORDERS,
    DAY,
    HOUR,
    PARTS,
    Series,
    read,
    seattle,
    windows,
)
from gradlab.applications.weather.learn import (
    Forecaster,
    build,
    evaluate,
    forecast,
    forecasts,
    reach,
    task,
    train,
)
from gradlab.applications.weather.models import fit_linear, linear, make, persistence, seasonal
from gradlab.applications.weather.recipes import RECIPES, Recipe, recipe
from gradlab.applications.weather.store import VERSION, load, save

__all__ = [
    "BORDERS",
    "DAY",
    "HOUR",
    "PARTS",
    "RECIPES",
    "VERSION",
    "Forecaster",
    "Recipe",
    "Series",
    "build",
    "evaluate",
    "fit_linear",
    "forecast",
    "forecasts",
    "linear",
    "load",
    "make",
    "persistence",
    "reach",
    "read",
    "recipe",
    "save",
    "seasonal",
    "seattle",
    "task",
    "train",
    "windows",
]


def __dir__() -> list[str]:
    return sorted(__all__)
