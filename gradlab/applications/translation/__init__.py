"""One language into another: encoders and decoders, attention, and the gradient between them."""

from gradlab.applications.translation.data import (
    END,
    OTHER,
    PADDING,
    PARTS,
    Encoder,
    Pairs,
    Vocabulary,
    decode,
    encode,
    normalize,
    numbers,
    read,
    vocabulary,
)
from gradlab.applications.translation.learn import (
    Adjoints,
    Batch,
    Scores,
    Translator,
    adjoints,
    batch_loss,
    build,
    count_unknown,
    cross_entropy,
    evaluate,
    readable,
    scores,
    train,
    translate,
)
from gradlab.applications.translation.models import Memory, Model, make, translator
from gradlab.applications.translation.recipes import RECIPES, Recipe, recipe
from gradlab.applications.translation.store import VERSION, load, save

__all__ = [
    "END",
    "OTHER",
    "PADDING",
    "PARTS",
    "RECIPES",
    "VERSION",
    "Adjoints",
    "Batch",
    "Encoder",
    "Memory",
    "Model",
    "Pairs",
    "Recipe",
    "Scores",
    "Translator",
    "Vocabulary",
    "adjoints",
    "batch_loss",
    "build",
    "count_unknown",
    "cross_entropy",
    "decode",
    "encode",
    "evaluate",
    "load",
    "make",
    "normalize",
    "numbers",
    "read",
    "readable",
    "recipe",
    "save",
    "scores",
    "train",
    "translate",
    "translator",
    "vocabulary",
]


def __dir__() -> list[str]:
    return sorted(__all__)
