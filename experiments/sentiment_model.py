"""Train the sentiment model that the package ships, and say what it gets right.

    python experiments/sentiment_model.py DATA --choose --out A   # from scratch, on the part fit
    python experiments/sentiment_model.py DATA --choose --first A --out B
    python experiments/sentiment_model.py DATA --first B          # the one of the package, on train

Each judges, for the next one, which sentences of a review say what the review says.

DATA are the 50,000 reviews of Maas et al. (2011), a file or folder that `gradlab.tasks.imdb` reads.
The model learns from those of the part train, sentences cut from them, the package's snippets and
phrases made from templates. experiments/sentences.csv has 120 short sentences that it must
judge and is not trained on; the second 60 were written by somebody who had seen neither the
templates nor any model.
"""

import argparse
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from gradlab import sentiment
from gradlab.tasks import imdb

ROOT = Path(__file__).parents[1]
SNIPPETS, CUTS, PHRASES = 2, (2, 8), 12_000


def main() -> None:
    """Reads the arguments, trains and writes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="the reviews")
    parser.add_argument("--choose", action="store_true", help="train on fit, judge held_out")
    parser.add_argument("--first", help="the file of a model that judges the sentences")
    parser.add_argument("--out", type=Path, default=ROOT / sentiment.SHIPPED)
    args = parser.parse_args()
    reviews = imdb.read(args.data)
    print(reviews.describe())
    part, other = ("fit", "held_out") if args.choose else ("train", "test")
    learnt, held_out = reviews.part(part), reviews.part(other)
    sentences = pd.read_csv(ROOT / "experiments" / "sentences.csv")
    is_positive = (sentences["sentiment"] == "positive").to_numpy()
    snippets = imdb.reviews.snippets()
    chosen = sentiment.recipe("everyday")
    began = time.monotonic()

    def watch(epoch: int, classifier: sentiment.Classifier, loss: float) -> None:
        if epoch:
            right = (sentiment.scores(classifier, sentences["review"]) > 0) == is_positive
            print(
                f"epoch {epoch}  loss {loss:.3f}  sentences {right.sum()} of {len(right)}  "
                f"{time.monotonic() - began:.0f} s",
                flush=True,
            )

    def train(cuts: tuple[list[str], np.ndarray]) -> sentiment.Classifier:
        whole = (learnt.texts, learnt.positive)
        groups = [whole, *[snippets] * SNIPPETS, cuts, sentiment.phrases(PHRASES)]
        texts = [text for group, _ in groups for text in group]
        labels = np.concatenate([labels for _, labels in groups])
        return sentiment.train(chosen, texts, labels, watch=watch)

    if args.first:
        scores = partial(sentiment.scores, sentiment.load(args.first))
        cuts = sentiment.cuts(learnt.texts, learnt.positive, CUTS[1], scores=scores)
    else:
        cuts = sentiment.cuts(learnt.texts, learnt.positive, CUTS[0])
    print(f"{len(cuts[0]):,} sentences to learn from", flush=True)
    classifier = train(cuts)
    seconds = time.monotonic() - began
    classifier = classifier._replace(seen=sentiment.hashes([*learnt.texts, *snippets[0]]))
    path = args.out
    path.parent.mkdir(parents=True, exist_ok=True)
    sentiment.save(classifier, path, small=True)
    # What is measured is what is shipped: the file, with its rounded embedding.
    classifier = sentiment.load(path)
    accuracy = sentiment.evaluate(classifier, held_out.texts, held_out.positive).accuracy
    scores = sentiment.scores(classifier, sentences["review"])
    right = (scores > 0) == is_positive
    groupings = [sentences["list"], sentences["kind"]]
    table = pd.Series(right).groupby(groupings).agg(["sum", "size"])
    count = classifier.vocabulary.size
    lines = [
        "# The sentiment model of this package",
        "",
        f"`{path.name}` ({path.stat().st_size:,} bytes) is the recipe `everyday` of",
        f"`gradlab.sentiment.RECIPES`: a {chosen.options['cell']} that reads {count:,} words and",
        f"pairs, as vectors of {chosen.options['embedding']} numbers of 8 bits.",
        "",
        "The three commands at the top of `experiments/sentiment_model.py` made it, the last",
        f"of them in {seconds / 60:.0f} minutes of two busy cores. It learnt from",
        "",
        f"- {len(learnt.texts):,} reviews, the part {part} of Maas et al. (2011), "
        "which are not in the project,",
        f"- {len(cuts[0]):,} sentences out of them that the model before judged as their review,",
        f"- {len(snippets[0]):,} snippets of the package, {SNIPPETS} times,",
        f"- {PHRASES:,} phrases made from templates (`gradlab/applications/sentiment/phrases.py`).",
        "",
        "| judged | right | of |",
        "| --- | --- | --- |",
        f"| reviews of the part {other} | {accuracy:.4f} | {len(held_out.texts):,} |",
    ]
    lines += [
        f"| {name} list of sentences, {kind} | {row['sum']} | {row['size']} |"
        for (name, kind), row in table.iterrows()
    ]
    lines += [
        "",
        "Sentences of `experiments/sentences.csv` that it gets wrong, with ln p/(1-p):",
        "",
    ]
    lines += [
        f"- {text} ({score:+.1f})"
        for text, score in zip(sentences["review"][~right], scores[~right], strict=True)
    ]
    print("\n".join(lines))
    if path == ROOT / sentiment.SHIPPED:
        path.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
