"""The commands of `gradlab sentiment`: train, evaluate, predict, explain."""

import math
import textwrap
from json import dumps as json_of
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import rich.console
import rich.table
import typer

from gradlab._files import expand
from gradlab.applications._command import check_out, read_lines

if TYPE_CHECKING:
    from gradlab.applications.sentiment import Classifier, Prediction, Recipe
    from gradlab.tasks.imdb import Reviews

app = typer.Typer(
    no_args_is_help=True,
    help="Positive or negative: train on film reviews, evaluate, predict, explain.",
)

Data = Annotated[
    str | None,
    typer.Option(
        help="a table of reviews (.csv, .tsv, .gz, .xz, .parquet) or Stanford's folder aclImdb; "
        "`snippets` for those of the package; without it $GRADLAB_IMDB, else what `gradlab data "
        "imdb` left, else snippets",
        metavar="PATH",
    ),
]

Encoding = Annotated[
    str, typer.Option(help="of the reviews' texts, if not UTF-8: cp1252, utf-16", metavar="NAME")
]

ModelFile = Annotated[
    Path | None,
    typer.Option(help="a file that `train` wrote; default: gradlab's own model", metavar="FILE"),
]

_SNIPPETS = "the package's snippets"


def _read(data: str | None, encoding: str = "utf-8") -> "Reviews":
    from gradlab.tasks import imdb

    if data == "snippets":
        return imdb.Reviews(*imdb.reviews.snippets(), None, _SNIPPETS)
    return imdb.read(data, encoding)


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="the file for the model", metavar="FILE")],
    data: Data = None,
    encoding: Encoding = "utf-8",
    recipe: Annotated[str, typer.Option(help="a recipe of gradlab.sentiment.RECIPES")] = "gru",
    cell: Annotated[
        str | None, typer.Option(help="any cell of gradlab.cells, instead of the recipe's")
    ] = None,
    unit: Annotated[str, typer.Option(help="words or characters")] = "words",
    epochs: Annotated[int | None, typer.Option(help="instead of the recipe's", min=1)] = None,
    seed: Annotated[int, typer.Option(help="of parameters, batches and dropout")] = 0,
) -> None:
    """Train on the part fit of the reviews, watch on the part held_out, and save the model."""
    from gradlab import cells, sentiment
    from gradlab._names import choose

    # Refuse misspelt names before reading the data.
    choose("unit", unit, sentiment.UNITS)
    plan = sentiment.recipe(recipe)
    if cell is not None:
        choose("cell", cell, cells.names())
        if "cell" not in plan.options:
            raise ValueError(f"recipe {recipe!r} has no cell that {cell!r} could replace")
    out = check_out(out)
    reviews = _read(data, encoding)
    if reviews.source == _SNIPPETS or unit != "words":
        plan = sentiment.quick(recipe, unit)
    if cell is not None:
        plan = plan._replace(options=plan.options | {"cell": cell})
    if epochs is not None:
        plan = plan._replace(epochs=epochs)
    print(reviews.describe())
    sentiment.save(_train(plan, reviews, seed), out)
    print(f"saved as {out}")


def _train(recipe: "Recipe", reviews: "Reviews", seed: int = 0) -> "Classifier":
    from gradlab import sentiment

    fit, held_out = reviews.part("fit"), reviews.part("held_out")

    def watch(epoch: int, classifier: "Classifier", loss: float) -> None:
        if epoch:
            evaluation = sentiment.evaluate(classifier, held_out.texts, held_out.positive)
            text = f"loss {loss:.3f} nats, accuracy {evaluation.accuracy:.4f} on held out reviews"
            print(f"epoch {epoch} of {recipe.epochs}: {text}", flush=True)

    return sentiment.train(recipe, fit.texts, fit.positive, seed=seed, watch=watch)


@app.command()
def evaluate(
    model: ModelFile = None,
    data: Data = None,
    encoding: Encoding = "utf-8",
    part: Annotated[
        str | None,
        typer.Option(
            help="train, fit, held_out, test or all; default: test if the data has a split, "
            "otherwise every review the model was not trained on"
        ),
    ] = None,
) -> None:
    """Print the accuracy on reviews with a label, and the confusion matrix."""
    from gradlab import sentiment

    classifier = sentiment.load(model)
    reviews = _read(data, encoding)
    new_only = part is None and reviews.split is None
    part = part or ("all" if reviews.split is None else "test")
    subset = reviews if part == "all" else reviews.part(part)
    texts, positive = subset.texts, subset.positive
    if new_only:
        new = sentiment.unseen(classifier, texts)
        if not new.any():
            raise ValueError(
                f"the model was trained on every review of {reviews.source} ({part}); "
                "--part all evaluates it on them all the same"
            )
        texts, positive = [texts[i] for i in np.flatnonzero(new)], positive[new]
    evaluation = sentiment.evaluate(classifier, texts, positive)
    print(f"{len(texts):,} reviews of {reviews.source} ({part})")
    if left := len(subset.texts) - len(texts):
        print(f"{left:,} more were left out: the model was trained on them")
    print(f"accuracy {evaluation.accuracy:.4f}")
    table = rich.table.Table("label", *(f"says {label}" for label in sentiment.LABELS))
    for label, row in zip(sentiment.LABELS, evaluation.confusion, strict=True):
        table.add_row(label, *(f"{count:,}" for count in row))
    rich.console.Console().print(table)


Text = Annotated[str, typer.Argument(help="a review, in quotes")]


@app.command()
def predict(
    text: Annotated[
        str | None, typer.Argument(help="a review, in quotes; without it standard input is read")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="a review on each line; - for standard input")
    ] = None,
    model: ModelFile = None,
    json: Annotated[bool, typer.Option("--json", help="a JSON object for each review")] = False,
) -> None:
    """Print whether reviews are positive or negative, and the probability of that label."""
    from gradlab import sentiment

    if text is not None and file is not None:
        raise ValueError("give a text or --file, not both")
    if text is not None and not text.strip():
        raise ValueError("there is nothing to judge: the text is empty")
    rows = read_lines(file, "review") if text is None else [(1, text)]
    classifier, texts = sentiment.load(model), [text for _, text in rows]
    predictions = sentiment.predict(classifier, texts)
    unread = sentiment.count_unread(classifier, texts)
    for (line, review), prediction, count in zip(rows, predictions, unread, strict=True):
        if json:
            print(_as_json(line, prediction, count))
        elif text is not None:
            print(_describe(prediction, count))
        else:
            print(f"{line}: {_describe(prediction, count)}: {textwrap.shorten(review, 60)}")


def _describe(prediction: "Prediction", unread: int) -> str:
    words = f"{prediction.known} of {prediction.words} words known"
    if unread:
        words += f", the {unread} words and marks before them are not read"
    if math.isnan(prediction.probability):
        return f"{prediction.label} ({words})"
    return f"{prediction.label} (probability {prediction.probability:.3f}, {words})"


def _as_json(line: int, prediction: "Prediction", unread: int) -> str:
    probability = None if math.isnan(prediction.probability) else round(prediction.probability, 6)
    row = {"line": line, **prediction._asdict(), "probability": probability, "unread": unread}
    return json_of(row)


# What the letters of `gate_values` stand for; z is an update gate in the family of the GRU alone,
# and the f of mgu is the share that is replaced.
_GATES = {"i": "input", "f": "forget", "o": "output", "r": "reset"}


@app.command()
def explain(
    text: Text,
    out: Annotated[Path, typer.Option(help="the figure, .png or .pdf", metavar="FILE")],
    model: ModelFile = None,
) -> None:
    """Draw what the model remembers, forgets and depends on while it reads TEXT, word by word."""
    from gradlab import sentiment

    out = expand(out)
    kind = out.suffix.lstrip(".")
    if kind not in ("png", "pdf"):
        raise ValueError(f"--out needs a name that ends in .png or .pdf, got {out}")
    classifier = sentiment.load(model)
    explanation = sentiment.explain(classifier, text)

    from gradlab import figures

    cell = str(classifier.recipe.options.get("cell", "gru"))
    words = _GATES | ({"z": "update"} if "gru" in cell else {})
    words |= {"f": "update"} if cell == "mgu" else {}
    gates = {
        f"{letter} ({words[letter]})" if letter in words else letter: values
        for letter, values in explanation.gates.items()
    }
    (unread,) = sentiment.count_unread(classifier, [text])
    says = _describe(sentiment.predict(classifier, text), unread)
    figure = figures.reading(
        explanation.tokens,
        explanation.states,
        gates,
        explanation.log_norm,
        explanation.probability,
        f"{cell}: {says}",
        readout_label="probability\nof positive",
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    figures.save(figure, out.with_suffix(""), [kind])
    print(says)
    print(f"saved as {out}")
