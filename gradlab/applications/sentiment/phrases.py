"""Sentences to learn from beside whole reviews: cut from reviews, and made from templates.

A review of 230 words says what it means many times, so a model that reads whole reviews can do well
without the word "not". Short sentences with a negation or a turn are what it then gets wrong.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool

from gradlab.applications.sentiment.data import sentences

Sentences = tuple[list[str], Bool[np.ndarray, " sentences"]]

_GOOD = """good great excellent wonderful amazing brilliant fantastic superb beautiful funny
entertaining interesting exciting enjoyable clever touching charming perfect memorable impressive
delightful gripping convincing outstanding""".split()
_BAD = """bad terrible awful boring horrible poor stupid dull annoying predictable disappointing
weak ridiculous silly tedious pathetic lame painful unfunny unwatchable forgettable slow clumsy
mediocre""".split()
_THINGS = """movie film story plot acting script ending cast music dialogue direction picture comedy
drama thriller sequel performance soundtrack""".split()
_LIKE = "love like enjoy admire recommend".split()
_VERY = """very really so absolutely totally utterly completely incredibly unbelievably extremely
surprisingly simply truly quite""".split()
_STARTS = ("honestly, ", "well, ", "in short: ", "i think ")

# {p} and {q} are words of praise, {n} and {m} of blame, {s} and {t} what they are said of, {a} and
# {b} how much.
_POSITIVE = """
the {s} is not {n} | not {n} at all | it isn't {n} at all | the {s} was never {n}
nothing {n} about this {s} | there is nothing {n} in it | it is anything but {n} | far from {n}
the {s} could not have been {better} | i can't think of a better {s} | it was hardly {n}
i expected a {n} {s}, but it was {p} | they said it was {n}, but i found it {p}
although the {s} is {n}, the rest is {p} | a little {n}, but {p} overall | {n} at first, then {p}
i didn't expect to {v} it, but i did | you will not regret this {s} | do not miss this {s}
don't miss it | i couldn't stop laughing | i could not find a single fault
not one {n} moment | without a {n} moment | never {n} for a minute | it never gets {n}
much better than i expected | better than the {n} reviews say | i have no complaints
i have never seen a better {s} | i have never seen such a {p} {s} | {a} {p} | {a}, {b} {p}
the {s} is {a} {p} | {a} {p} and {q} | {p} from start to finish | nobody was bored
who says this is {n}? it is {p}
it's not {p}, it's perfect | it isn't perfect, but i {v} it | despite the {n} {s}, it is {p}
you can't go wrong with this {s} | i can't recommend it enough | there was not a dull minute
{p} {s} :) | i {v} this {s} :) | we {v} it | the {t} is {n}, but the {s} is {p}
critics call it {n}, i call it {p} | despite the {n} {t}, the {s} is {p}
{p}, even if the {t} is {n}
better than the first one | the best {s} in years | one of the {b} best | i was never bored"""
_NEGATIVE = """
the {s} is not {p} | not {p} at all | it isn't {p} at all | the {s} was never {p}
nothing {p} about this {s} | there is nothing {p} in it | it is anything but {p} | far from {p}
the {s} could not have been {worse} | i can't think of a worse {s} | it was hardly {p}
i expected a {p} {s}, but it was {n} | they said it was {p}, but i found it {n}
although the {s} is {p}, the rest is {n} | a little {p}, but {n} overall | {p} at first, then {n}
i wanted to {v} it, but it was {n} | i wanted to {v} this {s}, but i couldn't | i didn't {v} it
i do not {v} this {s} | i don't {v} it | i would not recommend it | i will never watch it again
not one {p} moment | without a {p} moment | it never gets {p} | not worth it | not worth your time
much worse than i expected | not as {p} as they say | it fails to be {p} | it tries to be {p}
i have never seen a worse {s} | i have never seen such a {n} {s} | {a} {n} | {a}, {b} {n}
the {s} is {a} {n} | {a} {n} and {m} | {n} from start to finish | nobody was impressed
who says this is {p}? it is {n}
the {s} is {p}, but it can't save the film | {p} actors, {n} {s} | don't waste your money
too {n} to be {p} | save your time | i can't recommend it | i couldn't wait for it to end
the trailer looks {p}, the {s} is {n} | it isn't even {p} | it should have been {p} | don't bother
{n} {s} :( | i don't {v} this {s} :( | the {t} is {p}, but the {s} is {n}
critics call it {p}, i call it {n} | despite the {p} {t}, the {s} is {n}
{n}, even if the {t} is {p}
worse than the first one | the worst {s} in years | one of the {b} worst | i was never moved"""


def _split(templates: str) -> list[str]:
    return [part.strip() for part in templates.replace("\n", "|").split("|") if part.strip()]


def phrases(count: int, seed: int = 0) -> Sentences:
    """Short sentences with negations, intensifiers and turns, each second one positive.

    Args:
        count: how many.
        seed: of the templates and words drawn.

    Returns:
        texts and labels, as `train` takes them.

    >>> phrases(2)[1].tolist()
    [False, True]
    """
    random = np.random.RandomState(seed)
    kinds = _split(_NEGATIVE), _split(_POSITIVE)
    texts = []
    for i in range(count):
        templates = kinds[i % 2]
        p, q = random.choice(_GOOD, 2, replace=False)
        n, m = random.choice(_BAD, 2, replace=False)
        s, t = random.choice(_THINGS, 2, replace=False)
        a, b = random.choice(_VERY, 2, replace=False)
        text = templates[random.randint(len(templates))].format(
            p=p,
            q=q,
            n=n,
            m=m,
            s=s,
            t=t,
            a=a,
            b=b,
            v=random.choice(_LIKE),
            better=random.choice(("better", "funnier", f"more {p}")),
            worse=random.choice(("worse", "duller", f"more {n}")),
        )
        if random.rand() < 0.3:
            text = random.choice(_STARTS) + text
        texts.append(text + random.choice((".", ".", "!", "")))
    return texts, np.arange(count) % 2 == 1


def cuts(
    texts: Sequence[str],
    positive: Bool[np.ndarray, " reviews"],
    each: int,
    seed: int = 0,
    scores: Callable[[Sequence[str]], np.ndarray] | None = None,
) -> Sentences:
    """One or two sentences on end of each review, `each` times, with the review's label.

    Half of them end with the last sentence, where a review often gives its verdict. A review of
    fewer than three sentences of 3 to 40 words gives none.

    Args:
        texts: the reviews.
        positive: their labels.
        each: how often a review is cut.
        seed: of the places.
        scores: the logits that a model gives to texts. Not every sentence of a good review is
            praise: with it, what stays is what the model is sure of, |logit| above 1, and judges as
            the review.

    >>> cuts(["It is dull. It is long. It is bad."], np.array([False]), 1)[1].tolist()
    [False]
    """
    random = np.random.RandomState(seed)
    phrases, labels = [], []
    for text, label in zip(texts, positive, strict=True):
        parts = [part for part in sentences(text) if 3 <= len(part.split()) <= 40]
        if len(parts) < 3:
            continue
        for _ in range(each):
            end = len(parts) if random.rand() < 0.5 else random.randint(1, len(parts) + 1)
            start = max(0, end - random.randint(1, 3))
            phrases.append(" ".join(parts[start:end]))
            labels.append(label)
    labels = np.array(labels, bool)
    if scores is None:
        return phrases, labels
    stay = np.where(labels, 1, -1) * scores(phrases) > 1
    return [text for text, stays in zip(phrases, stay, strict=True) if stays], labels[stay]
