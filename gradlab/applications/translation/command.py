"""The commands of `gradlab translate`: train, evaluate, predict."""

import sys
from json import dumps as json_of
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradlab.applications._command import check_out, read_lines

if TYPE_CHECKING:
    from gradlab.applications.translation import Pairs, Recipe, Scores, Translator

app = typer.Typer(
    no_args_is_help=True,
    help="One language into another: train on pairs of texts, evaluate, predict.",
)

Data = Annotated[
    list[str] | None,
    typer.Option(
        help="tab-separated pairs, with the languages' names in the first line or without "
        "(.tsv, .gz, .xz); or, given twice, two files line by line; without it, numbers in words",
        metavar="PATH",
    ),
]
File = Annotated[Path, typer.Option(help="a file that `train` wrote", metavar="FILE")]
Beam = Annotated[int | None, typer.Option(help="beginnings followed side by side", min=1, max=100)]


def _read(data: list[str] | None, languages: tuple[str, str]) -> "Pairs":
    from gradlab.applications import translation

    return translation.read(data, *languages) if data else translation.numbers(*languages)


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="the file for the model", metavar="FILE")],
    data: Data = None,
    source: Annotated[
        str, typer.Option(help="the language to read: a column, or en, fr, …")
    ] = "en",
    target: Annotated[str, typer.Option(help="the language to write")] = "pt",
    recipe: Annotated[
        str | None,
        typer.Option(
            help="a recipe of gradlab.translation.RECIPES; default: attention for numbers, "
            "sentences for --data"
        ),
    ] = None,
    cell: Annotated[str | None, typer.Option(help="any cell of gradlab.cells")] = None,
    decoder: Annotated[str | None, typer.Option(help="another cell for the decoder")] = None,
    reverse: Annotated[
        bool | None, typer.Option(help="whether the source is read backwards")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="instead of the recipe's", min=1)] = None,
    seed: Annotated[int, typer.Option(help="of parameters, batches and dropout")] = 0,
) -> None:
    """Train on the part train of the pairs, watch on the part validation, and save the model."""
    from gradlab import cells
    from gradlab._names import choose
    from gradlab.applications import translation

    # Refuse misspelt names before reading the data.
    plan = translation.recipe(recipe or ("sentences" if data else "attention"))
    for option, name in (("cell", cell), ("decoder", decoder)):
        if name is not None:
            choose(option, name, cells.names())
            plan = plan._replace(options=plan.options | {option: name})
    if reverse is not None:
        plan = plan._replace(reverse=reverse)
    if epochs is not None:
        plan = plan._replace(epochs=epochs)
    out = check_out(out)
    pairs = _read(data, (source, target))
    print(pairs.describe(), flush=True)
    translation.save(_train(plan, pairs, (source, target), seed), out)
    print(f"saved as {out}")


def _train(
    recipe: "Recipe", pairs: "Pairs", languages: tuple[str, str], seed: int = 0
) -> "Translator":
    from gradlab.applications import translation

    fit, held_out = pairs.part("train"), pairs.part("validation")

    def watch(epoch: int, translator: "Translator", loss: float) -> None:
        if epoch:
            nats = translation.evaluate(translator, held_out)
            text = f"loss {loss:.3f} nats a piece, on validation {nats:.3f}"
            print(f"epoch {epoch} of {recipe.epochs}: {text}", flush=True)

    return translation.train(recipe, fit, languages=languages, seed=seed, watch=watch)


@app.command()
def evaluate(
    model: File,
    data: Data = None,
    part: Annotated[str, typer.Option(help="train, validation or test")] = "test",
    beam: Beam = None,
) -> None:
    """Translate a part of the pairs, and print exact matches, BLEU, chrF and a few examples."""
    from gradlab.applications import translation

    translator = translation.load(model)
    pairs = _read(data, translator.languages).part(part)
    fits = translation.readable(translator, pairs.sources)
    if not fits.any():
        most = translator.recipe.length
        raise ValueError(f"{pairs.name}: no text has as few pieces as the model reads, {most}")
    sources, targets = (
        [text for text, fit in zip(side, fits, strict=True) if fit] for side in pairs[:2]
    )
    translations = translation.translate(translator, sources, beam=beam)
    scores = translation.scores(translations, targets)
    print(f"{len(translations):,} pairs of {pairs.name} ({part})")
    if left := len(fits) - len(translations):
        print(f"{left:,} more were left out: they are longer than what the model reads")
    print(describe(scores))
    for i in range(0, len(translations), max(len(translations) // 5, 1)):
        print(f"{sources[i]}\n  -> {translations[i]}\n  ref {targets[i]}")


def describe(scores: "Scores") -> str:
    """Scores as lines of text, with the signatures that say how they were computed."""
    lines = [f"exact matches {scores.exact:.4f}"]
    if not scores.signatures:
        return f"{lines[0]} (BLEU and chrF need sacrebleu: pip install 'gradlab[translation]')"
    for name, value, signature in zip(
        ("BLEU", "chrF"), (scores.bleu, scores.chrf), scores.signatures, strict=True
    ):
        lines.append(f"{name} {value:.2f}  ({signature})")
    return "\n".join(lines)


@app.command()
def predict(
    model: File,
    text: Annotated[
        str | None, typer.Argument(help="a text, in quotes; without it standard input is read")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="a text on each line; - for standard input")
    ] = None,
    beam: Beam = None,
    json: Annotated[bool, typer.Option("--json", help="a JSON object for each text")] = False,
) -> None:
    """Print the translation of a text, or of each line of a file."""
    from gradlab.applications import translation

    if text is not None and file is not None:
        raise ValueError("give a text or --file, not both")
    if text is not None and not text.strip():
        raise ValueError("there is nothing to translate: the text is empty")
    rows = read_lines(file, "text") if text is None else [(1, text)]
    translator = translation.load(model)
    name = "the text" if text is not None else "line {}"
    names = [name.format(line) for line, _ in rows]
    texts = [each for _, each in rows]
    translations = translation.translate(translator, texts, beam=beam, names=names)
    unknown = translation.count_unknown(translator, texts)
    for (line, each), answer, called, counts in zip(
        rows, translations, names, unknown, strict=True
    ):
        row = {"line": line, "source": each.strip(), "translation": answer}
        row |= dict(zip(("unknown", "pieces"), counts, strict=True))
        if counts[0] and not json:
            note = f"{called}: {counts[0]} of {counts[1]} pieces are unknown to the model"
            print(f"gradlab: note: {note}", file=sys.stderr)
        print(json_of(row, ensure_ascii=False) if json else answer)
