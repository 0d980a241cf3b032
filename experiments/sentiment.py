"""Positive or negative: what recurrent networks learn from film reviews, and how far back.

    python experiments/sentiment.py DATA [--models gru,lstm] [--seeds 0,1,2]
    python experiments/sentiment.py

With DATA, a file or folder of whole reviews that `gradlab.tasks.imdb` reads, every recipe of
`gradlab.sentiment` is trained on the part fit, watched on held_out and, once, tested on test; what
results/sentiment holds already is not run again. Without DATA the same code runs on the package's
snippets, in words and in characters. No model of these is what `gradlab sentiment predict` uses:
experiments/sentiment_model.py makes that one.

Bengio, Simard & Frasconi (1994): an Elman network that keeps information loses the gradient.
Hochreiter & Schmidhuber (1997), Cho et al. (2014): gates keep it. The lines to beat are Wang &
Manning's (2012) bag of words and pairs, and Kim's (2014) convolution.
"""

import argparse
import math
import os
import time
from pathlib import Path

import jax
import numpy as np
import pandas as pd

from gradlab import sentiment
from gradlab.tasks import imdb

ROOT = Path(__file__).parents[1]
OUT = ROOT / "results" / "sentiment"
KEPT = ROOT / "build" / "sentiment"
SEEDS = (0, 1, 2)
# On sentences, which are short, Elman's gradient reaches the beginning however it starts.
QUICK = {
    "words": ("elman", "lstm", "gru", "pooled", "convolution", "bag_of_words"),
    "characters": ("gru", "bag_of_words"),
}
TRACED = ("elman", "elman_orthogonal", "elman_clipped", "lstm", "gru", "pooled")
TRACED_REVIEWS = 250
# Every lag up to the first, then every fifth: a figure needs no more, and the file stays small.
LAGS = [*range(50), *range(50, 10_000, 5)]

# Does order add to what words and pairs say? These two, by the sum of their logits.
TOGETHER = ("pooled", "bag_of_words")


def run(name: str, recipe: sentiment.Recipe, reviews: imdb.Reviews, seed: int, traced: bool):
    """One model: a row of the table, its epochs, its gradient, and the classifier."""
    fit, held_out, test = (reviews.part(part) for part in ("fit", "held_out", "test"))
    key = {"model": name, "unit": recipe.unit, "seed": seed}
    epochs, curves = [], []
    started, cpu = time.monotonic(), time.process_time()
    watching = 0.0

    def watch(epoch: int, classifier: sentiment.Classifier, loss: float) -> None:
        nonlocal watching
        began = time.monotonic()
        accuracy = sentiment.evaluate(classifier, held_out.texts, held_out.positive).accuracy
        row = key | {"epoch": epoch, "loss": loss, "validation_accuracy": accuracy}
        row["reached"] = math.nan
        if traced:
            seen = sentiment.gradient(classifier, held_out.texts[:TRACED_REVIEWS])
            row["reached"] = seen.reached
            curves.append(quartiles(seen.log_relative).assign(**key, epoch=epoch))
        epochs.append(row)
        watching += time.monotonic() - began
        print(
            f"{name:18} {recipe.unit:10} seed {seed}  epoch {epoch}  loss {loss:.3f}  "
            f"held out {accuracy:.4f}  reached {row['reached']:.3f}  "
            f"{time.monotonic() - started:.0f} s",
            flush=True,
        )

    classifier = sentiment.train(recipe, fit.texts, fit.positive, seed=seed, watch=watch)
    seconds = time.monotonic() - started
    cpu = time.process_time() - cpu
    tested = sentiment.evaluate(classifier, test.texts, test.positive)
    row = key | {
        "initialization": recipe.options.get("initialization", "orthogonal")
        if "cell" in recipe.options
        else "",
        "clip": recipe.clip,
        "validation_accuracy": epochs[-1]["validation_accuracy"],
        "test_accuracy": tested.accuracy,
        "seconds": round(seconds, 1),
        "watching_seconds": round(watching, 1),
        "cpu_seconds": round(cpu, 1),
        "epochs": recipe.epochs,
        "parameters": sum(x.size for x in jax.tree.leaves(classifier.params)),
    }
    print(f"{name:18} {recipe.unit:10} seed {seed}  test {tested.accuracy:.4f}", flush=True)
    frames = pd.DataFrame([row]), pd.DataFrame(epochs), pd.concat(curves) if curves else None
    return *frames, classifier


def together(reviews: imdb.Reviews, seed: int, done: Path) -> pd.DataFrame | None:
    """The row of two models whose logits are added, where both were trained and kept."""
    files = [KEPT / f"{name}-{seed}.npz" for name in TOGETHER]
    name = " + ".join(TOGETHER)
    rows = pd.read_csv(done) if done.exists() else None
    if rows is not None and ((rows["model"] == name) & (rows["seed"] == seed)).any():
        return None
    if not all(file.exists() for file in files):
        return None
    both = [sentiment.load(file) for file in files]
    row = {"model": name, "unit": both[0].recipe.unit, "seed": seed}
    units = None  # one model says everything louder than the other: each by its own spread
    for part, column in (("held_out", "validation_accuracy"), ("test", "test_accuracy")):
        chosen = reviews.part(part)
        scores = np.stack([sentiment.scores(model, chosen.texts) for model in both])
        units = scores.std(1, keepdims=True) if units is None else units
        row[column] = float((((scores / units).sum(0) > 0) == chosen.positive).mean())
    print(row, flush=True)
    return pd.DataFrame([row])


def quartiles(log_relative: np.ndarray) -> pd.DataFrame:
    """Median and quartiles over the reviews that are longer than the lag, in nats."""
    lags = [lag for lag in LAGS if lag < log_relative.shape[1]]
    # The longest lags are those of few reviews.
    lags = [lag for lag in lags if np.isfinite(log_relative[:, lag]).sum() >= 10]
    low, middle, high = np.nanquantile(log_relative[:, lags], (0.25, 0.5, 0.75), axis=0)
    return pd.DataFrame({"lag": lags, "median": middle, "q25": low, "q75": high})


def add(path: Path, rows: pd.DataFrame | None) -> None:
    """Appends rows to a csv file, which is whole at any moment."""
    if rows is None:
        return
    if path.exists():
        rows = pd.concat([pd.read_csv(path, keep_default_na=True), rows])
    part = path.with_suffix(".part")
    rows.to_csv(part, index=False, float_format="%.7g")
    os.replace(part, path)


def table(accuracy: pd.DataFrame) -> str:
    """The means over seeds, best first, as a table in Markdown."""
    lines = [
        "| model | unit | seeds | held out | test | lowest to highest | seconds | parameters |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    groups = accuracy.groupby(["model", "unit"])
    means = groups.mean(numeric_only=True).sort_values("test_accuracy", ascending=False)
    for (model, unit), row in means.iterrows():
        seeds = groups.get_group((model, unit))
        low, high = seeds["test_accuracy"].min(), seeds["test_accuracy"].max()
        lines.append(
            f"| {model} | {unit} | {len(seeds)} | {row['validation_accuracy']:.4f} "
            f"| {row['test_accuracy']:.4f} | {low:.4f} to {high:.4f} "
            f"| {count(row['seconds'])} | {count(row['parameters'])} |"
        )
    return "\n".join(lines) + "\n"


def count(number: float) -> str:
    """A whole number, or nothing where there is none."""
    return "" if math.isnan(number) else f"{number:.0f}"


def publish(stem: str) -> None:
    """The table and the figure of what is in the csv files."""
    from gradlab import figures

    text = table(pd.read_csv(OUT / f"{stem}accuracy.csv"))
    (OUT / f"{stem}accuracy.md").write_text(text)
    print(text)
    if (path := OUT / f"{stem}gradient.csv").exists():
        both = (pd.read_csv(path), pd.read_csv(OUT / f"{stem}epochs.csv"))
        figure = figures.sentiment(*(rows[rows["unit"] == "words"] for rows in both))
        figures.save(figure, OUT / f"{stem}gradient", ("png",))


def main() -> None:
    """Reads the arguments and runs what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", nargs="?", help="whole reviews; the package's snippets without it")
    parser.add_argument("--models", default="", help="recipes, with commas; all without it")
    parser.add_argument("--seeds", default="", help="seeds, with commas")
    args = parser.parse_args()
    names = args.models.split(",") if args.models else []
    OUT.mkdir(parents=True, exist_ok=True)
    if args.data is None:
        snippets(names)
        return

    reviews = imdb.read(args.data)
    print(reviews.describe())
    seeds = [int(seed) for seed in args.seeds.split(",")] if args.seeds else SEEDS
    for seed in seeds:
        for name in names or sentiment.RECIPES:
            done = OUT / "accuracy.csv"
            if done.exists():
                rows = pd.read_csv(done)
                if ((rows["model"] == name) & (rows["seed"] == seed)).any():
                    continue
            # The curves of one seed are enough, those of the others cost time.
            traced = name in TRACED and seed == 0
            row, epochs, curves, model = run(name, sentiment.recipe(name), reviews, seed, traced)
            sentiment.save(model, KEPT / f"{name}-{seed}.npz")
            add(OUT / "gradient.csv", curves)
            add(OUT / "epochs.csv", epochs)
            add(done, row)
        add(done, together(reviews, seed, done))
    publish("")


def snippets(names: list[str]) -> None:
    """The quick run: the package's snippets, in words and in characters."""
    reviews = imdb.Reviews(*imdb.reviews.snippets(), None, "the package's snippets")
    print(reviews.describe())
    before = pd.read_csv(OUT / "snippets_accuracy.csv")
    seconds = float(before["cpu_seconds"].sum())
    print(f"{len(before)} models; the committed run took {seconds / 60:.0f} minutes of one core")
    for kind in ("accuracy", "epochs", "gradient"):
        (OUT / f"snippets_{kind}.csv").unlink(missing_ok=True)
    for unit in QUICK:
        for name in names or QUICK[unit]:
            recipe = sentiment.quick(name, unit)
            row, epochs, curves, _ = run(name, recipe, reviews, 0, name in TRACED)
            for kind, rows in (("accuracy", row), ("epochs", epochs), ("gradient", curves)):
                add(OUT / f"snippets_{kind}.csv", rows)
    publish("snippets_")


if __name__ == "__main__":
    main()
