"""One language into another, and the gradient between what is read and what is written.

    python experiments/translation.py
    python experiments/translation.py DATA --target fr [--recipes sentences]

Without DATA, numbers in words are learnt, English to Portuguese: with attention, without, and
without but with the source reversed. Prints the share of held out numbers that each writes exactly,
and a few of them, and draws the adjoint of every encoder step from every decoder step, at
initialization and after training. With DATA, a table of tab-separated pairs whose first line names
the languages, the recipes for sentences are trained and scored by BLEU and chrF on its part test.

Sutskever, Vinyals & Le (2014): all that is known of the source goes through one state, and reading
it backwards brings its beginning nearer. Bahdanau, Cho & Bengio (2015): attention reads them all.
"""

import argparse
import math
import time
from pathlib import Path

import jax
import numpy as np
import pandas as pd

from gradlab import figures, translation

ROOT = Path(__file__).parents[1]
OUT = ROOT / "results" / "translation"
KEPT = ROOT / "build" / "translation"
NUMBERS = ("attention", "plain", "reversed")
# Letters at least of the number whose adjoints are drawn, and the numbers that are printed; none
# was learnt from.
LETTERS = 53
PRINTED = 6
SCORED = ("exact", "bleu", "chrf")


def run(name: str, recipe: translation.Recipe, pairs: translation.Pairs, languages, model: Path):
    """Train and score one recipe: a row of the table, and the translators before and after."""
    fit, held_out, test = (pairs.part(part) for part in translation.PARTS)
    began, cpu = time.monotonic(), time.process_time()
    first = None

    def watch(epoch: int, translator: translation.Translator, loss: float) -> None:
        nonlocal first
        first = first or translator
        if epoch:
            nats = translation.evaluate(translator, held_out)
            print(
                f"{name:20} epoch {epoch} of {recipe.epochs}  loss {loss:.3f}  validation "
                f"{nats:.3f} nats a piece  {time.monotonic() - began:.0f} s",
                flush=True,
            )
            translation.save(translator, model)

    last = translation.train(recipe, fit, languages=languages, watch=watch)
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    row = {"model": name, "languages": "-".join(languages), "pairs": len(fit.sources)}
    row |= score(name, last, test)
    row |= {
        "epochs": recipe.epochs,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(last.params)),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
    }
    return row, first, last


def score(name: str, translator: translation.Translator, test: translation.Pairs) -> dict:
    """What the translator writes of the part test, printed and scored."""
    written = translation.translate(translator, test.sources)
    scores = translation.scores(written, test.targets)
    if math.isnan(scores.bleu):
        print("BLEU and chrF need sacrebleu: pip install 'gradlab[translation]'")
    print(f"{name}: {scores.exact:.4f} of {len(written):,} held out exactly right, ", end="")
    print(f"BLEU {scores.bleu:.2f}, chrF {scores.chrf:.2f}")
    for signature in scores.signatures:
        print(f"  {signature}")
    for i in np.linspace(0, len(written) - 1, PRINTED).astype(int):
        mark = "" if written[i] == translation.normalize(test.targets[i]) else "   (wrong)"
        print(f"  {test.sources[i]}\n    {written[i]}{mark}", flush=True)
    row = {"test_pairs": len(written)} | {key: round(getattr(scores, key), 4) for key in SCORED}
    return row | {"signature": " ".join(scores.signatures)}


def numbers() -> None:
    """The three ways on numbers in words, and the figure of their adjoints."""
    languages = "en", "pt"
    pairs = translation.numbers(*languages)
    print(pairs.describe(), flush=True)
    seconds = pd.read_csv(OUT / "numbers.csv")["cpu_seconds"].sum()
    print(f"{len(NUMBERS)} models; the committed run took {seconds / 60:.0f} minutes of one core")
    reference = dict(zip(pairs.sources, pairs.targets, strict=True))
    drawn = next(s for s in pairs.part("test").sources if len(s) >= LETTERS)
    rows, panels = [], {"at initialization": {}, "after training": {}}
    for name in NUMBERS:
        row, *both = run(name, translation.recipe(name), pairs, languages, KEPT / f"{name}.model")
        rows.append(row)
        for panel, translator in zip(panels.values(), both, strict=True):
            panel[name] = translation.adjoints(translator, drawn, reference[drawn])
        print(f"{name}: {row['seconds']:.0f} s, {row['cpu_seconds']:.0f} s of processor time")
    write(rows, "numbers")
    draw(panels)


def draw(panels: dict[str, dict[str, translation.Adjoints]]) -> None:
    """The adjoints as CSV, a row for each panel, t and s, and as a figure."""
    table = []
    for when, columns in panels.items():
        for name, adjoints in columns.items():
            facts = {"when": when, "model": name}
            for (t, s), value in np.ndenumerate(adjoints.log_norm):
                place = {
                    "t": t + 1,
                    "s": s + 1,
                    "target": adjoints.target[t],
                    "source": adjoints.source[s],
                }
                table.append(facts | place | {"log_norm": round(float(value), 4)})
    OUT.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(table).to_csv(OUT / "adjoints.csv", index=False)
    figures.save(figures.encoder_decoder(panels), OUT / "adjoints")


def sentences(args: argparse.Namespace) -> None:
    """The recipes for sentences on a table of pairs."""
    languages = args.source, args.target
    pairs = translation.read([args.data], *languages)
    print(pairs.describe(), flush=True)
    for name in args.recipes.split(","):
        recipe = translation.recipe(name)
        if args.epochs:
            recipe = recipe._replace(epochs=args.epochs)
        model = KEPT / f"{name}-{'-'.join(languages)}.model"
        row, _, _ = run(name, recipe, pairs, languages, model)
        write([row], "sentences")


def write(rows: list[dict], stem: str) -> None:
    """Put rows in the place of earlier ones of their models, as CSV and as Markdown."""
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / f"{stem}.csv"
    frame = pd.DataFrame(rows)
    if path.exists():
        frame = pd.concat([pd.read_csv(path), frame])
    frame = frame.drop_duplicates(["model", "languages"], keep="last")
    frame.to_csv(path, index=False)
    shown = frame.drop(columns=["signature", "test_pairs", "parameters"])
    lines = [" | ".join(map(str, row)) for row in [shown.columns, ["---"] * len(shown.columns)]]
    for row in shown.to_dict("records"):
        cells = [
            f"{value:.4g}" if isinstance(value, float) else f"{value}" for value in row.values()
        ]
        lines.append(" | ".join(cells))
    (OUT / f"{stem}.md").write_text("".join(f"| {line} |\n" for line in lines))


def main() -> None:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--source", default="en")
    parser.add_argument("--target", default="fr")
    parser.add_argument("--recipes", default="sentences")
    parser.add_argument("--epochs", type=int)
    args = parser.parse_args()
    sentences(args) if args.data else numbers()


if __name__ == "__main__":
    main()
