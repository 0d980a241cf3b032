"""`gradlab.applications.sentiment` under the name that published code imports it by."""

import importlib
import sys

from gradlab.applications import sentiment
from gradlab.applications.sentiment import *  # noqa: F403  (what type checkers see)

# The same module objects under both names: a class that is loaded twice is two classes.
_MODULES = {
    "learn": "learn",
    "models": "models",
    "phrases": "phrases",
    "recipes": "recipes",
    "store": "store",
    "text": "data",
}
for _old, _new in _MODULES.items():
    _module = importlib.import_module(f"gradlab.applications.sentiment.{_new}")
    sys.modules[f"{__name__}.{_old}"] = _module
    setattr(sentiment, _old, _module)
sys.modules[__name__] = sentiment
