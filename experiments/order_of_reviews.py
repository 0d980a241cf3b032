"""What order adds on film reviews: accuracy with the words in order, shuffled, and reversed.

    python experiments/order_of_reviews.py DATA [--models gru] [--fit 5000] [--test 2000]

Each of a bag of words, a convolution and a GRU learns the part fit of whole reviews as they are,
with the words of each review shuffled, and from the end to the beginning, and is tested on the part
test in the same order; what learnt them as they are is tested in the other two orders as well. A
bag cannot tell: its three rows differ by the chance of training alone.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

from gradlab import sentiment
from gradlab.tasks import imdb

OUT = Path(__file__).parents[1] / "results" / "sentiment"
MODELS = ("bag_of_single_words", "convolution", "gru")
ORDERS = ("in order", "shuffled", "reversed")


def some(part: imdb.Reviews, count: int | None) -> tuple[list[str], np.ndarray]:
    """So many reviews at equal distances in a part, the last 400 words of each, and their labels.

    Longer ones are cut before their words are moved, or a model would read other words of them.
    """
    chosen = np.linspace(0, len(part.texts) - 1, count or len(part.texts)).astype(int)
    texts = (part.texts[i] for i in chosen)
    return [" ".join(sentiment.words(text)[-400:]) or text for text in texts], part.positive[chosen]


def arrange(texts: list[str], order: str, seed: int) -> list[str]:
    """The texts with their words in another order."""
    random = np.random.RandomState(seed)
    arranged = []
    for text in texts:
        words = sentiment.words(text)
        if order == "shuffled":
            random.shuffle(words)
        arranged.append(" ".join(words[::-1] if order == "reversed" else words) or text)
    return arranged


def main() -> None:
    """Train and test every model in every order."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--fit", type=int, help="of the reviews of the part fit, so many")
    parser.add_argument("--test", type=int, help="of the reviews of the part test, so many")
    args = parser.parse_args()
    reviews = imdb.read(str(args.data))
    fit_texts, fit_labels = some(reviews.part("fit"), args.fit)
    test_texts, test_labels = some(reviews.part("test"), args.test)
    learnt = {order: arrange(fit_texts, order, 0) for order in ORDERS}
    judged = {order: arrange(test_texts, order, 1) for order in ORDERS}
    rows = []
    for model in args.models.split(","):
        for order in ORDERS:
            began = time.process_time()
            classifier = sentiment.train(sentiment.recipe(model), learnt[order], fit_labels)
            seconds = round(time.process_time() - began, 1)
            for other in ORDERS if order == "in order" else (order,):
                accuracy = sentiment.evaluate(classifier, judged[other], test_labels).accuracy
                row = {"model": model, "learnt": order, "tested": other}
                rows.append(row | {"accuracy": round(accuracy, 4), "cpu_seconds": seconds})
                print(rows[-1], flush=True)
    frame = pd.DataFrame(rows).assign(fit=len(fit_texts), test=len(test_texts))
    frame.to_csv(OUT / "order.csv", index=False)
    table = frame.pivot(index="model", columns=["learnt", "tested"], values="accuracy")
    lines = [" | ".join(["model", *(f"learnt {a}, tested {b}" for a, b in table.columns)])]
    lines.append(" | ".join(["---"] * (1 + len(table.columns))))
    lines += [
        " | ".join([str(name), *(f"{value:.4f}" for value in row)])
        for name, row in zip(table.index, table.to_numpy(), strict=True)
    ]
    (OUT / "order.md").write_text("".join(f"| {line} |\n" for line in lines))


if __name__ == "__main__":
    main()
