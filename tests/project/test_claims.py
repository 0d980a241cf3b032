"""Every number in the READMEs is that of a committed table, or is listed here as one without.

A claim is a piece of a README with holes, and what the tables say for the holes: the piece filled
so must stand in the README once. What has no table is listed in UNSOURCED with a reason. A number
that stands in neither fails, so that a new one has to be listed. The Markdown tables that lie next
to a csv file must show its numbers, rounded.
"""

import functools
import math
import re
import runpy
import shutil
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gradlab import cells
from gradlab.applications.sentiment.recipes import RECIPES

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
WORDS = {2: "two", 3: "three", 6: "six"}
NUMBER = re.compile(r"(?<![\w.])\d(?:[\d.,]*\d)?")


@functools.cache
def table(path):
    return pd.read_csv(RESULTS / path)


# The README of the repository


def longest():
    """The peak memory in GB of a million steps in segments of 1,000, rounded up."""
    long = table("bench/long.csv")
    rows = long[(long["T"] == 1_000_000) & (long["segment"] == "1000")]
    assert set(rows["cell"]) == {"elman", "lstm", "gru"}
    return math.ceil(rows["peak MB"].max() / 100) / 10


MAIN = [
    ("a million steps in {:.1f} GB", longest()),
    ("one of {}, from elman", len(cells.names())),
]

# results/sentiment

NETWORKS = ("gru", "lstm", "elman", "elman_orthogonal", "elman_clipped", "pooled", "convolution")
BAGS = ("bag_of_words", "bag_of_single_words")


def scores(*models, column="test_accuracy"):
    accuracy = table("sentiment/accuracy.csv")
    return accuracy.loc[accuracy["model"].isin(models), column]


def accuracy(model, part="test"):
    return scores(model, column=f"{part}_accuracy").mean()


def gained(model, over="bag_of_single_words"):
    """Points of accuracy, 100 of them to 1."""
    return 100 * (accuracy(model) - accuracy(over))


def between(values):
    return values.min(), values.max()


def reached(model):
    """The share of the words with a gradient, before training and after it, of seed 0."""
    epochs = table("sentiment/epochs.csv")
    rows = epochs[(epochs["model"] == model) & (epochs["seed"] == 0)].sort_values("epoch")
    assert rows["epoch"].iloc[-1] == 4
    return rows["reached"].iloc[0], rows["reached"].iloc[-1]


BOTH = "pooled + bag_of_words"
POOLED = scores("pooled")


def reach_of(model):
    """The distances at which a model is right, and the least and the most reach beside them."""
    rows = table("order/accuracy.csv").set_index("distance").query("model == @model")
    right = rows["accuracy"] > 0.99
    return list(rows.index[right]), rows["reach"][right].min(), rows["reach"][~right].max()


def in_orders(model):
    """Accuracies of what learnt in one of three orders, and was tested in the same."""
    order = table("sentiment/order.csv").set_index(["model", "learnt", "tested"])["accuracy"]
    return [order[model, each, each] for each in ("in order", "shuffled", "reversed")]


def of_reviews(name):
    (count,) = set(table("sentiment/order.csv")[name])
    return count


SENTIMENT = [
    ("learnt from {:,}", of_reviews("fit")),
    ("tested on {:,} with", of_reviews("test")),
    ("words {:.3f}, {:.3f} and {:.3f}, a conv", *in_orders("bag_of_single_words")),
    ("convolution {:.3f}, {:.3f} and {:.3f}, the", *in_orders("convolution")),
    ("the gru {:.3f}, {:.3f} and {:.3f}.", *in_orders("gru")),
    ("order gives the gru {:.1f} points.", 100 * (in_orders("gru")[0] - in_orders("gru")[1])),
    ("a network took {:.0f} to {:.0f} s,", *between(scores(*NETWORKS, column="cpu_seconds"))),
    ("a bag {:.0f} to {:.0f} s.", *between(scores(*BAGS, column="cpu_seconds"))),
    ("test part, mean of {} seeds:", WORDS[len(scores("gru"))]),
    ("elman {:.3f} with PyTorch's initialization", accuracy("elman")),
    (
        "orthogonal {:.3f} ({:.3f} to {:.3f}, the",
        accuracy("elman_orthogonal"),
        *between(scores("elman_orthogonal")),
    ),
    (
        "clipped at norm {:g} on top {:.3f}.",
        scores("elman_clipped", column="clip").iloc[0],
        accuracy("elman_clipped"),
    ),
    (
        "lstm {:.3f}, gru {:.3f}: all {} at or above {:.3f}.",
        accuracy("lstm"),
        accuracy("gru"),
        WORDS[len(scores("lstm", "gru"))],
        math.floor(1000 * scores("lstm", "gru").min()) / 1000,
    ),
    (
        "pairs of words as input) {:.3f}; {} seeds above 0.90, one at {:.3f}.",
        accuracy("pooled"),
        WORDS[int((POOLED > 0.9).sum())],
        POOLED.min(),
    ),
    ("logistic regression: {:.3f}.", accuracy("bag_of_words")),
    (
        "give {:.3f}, but on the held out part {:.3f} against {:.3f}:",
        accuracy(BOTH),
        accuracy(BOTH, "validation"),
        accuracy("bag_of_words", "validation"),
    ),
    (
        "the same {} single words ({:.3f})",
        RECIPES["bag_of_single_words"].length,
        accuracy("bag_of_single_words"),
    ),
    (
        "the gru gains {:.1f} points of accuracy, the lstm loses {:.1f}, a convolution over five "
        "words loses {:.1f}.",
        gained("gru"),
        -gained("lstm"),
        -gained("convolution"),
    ),
    (
        "pairs in a bag of {:,} words add {:.1f}.",
        RECIPES["bag_of_words"].length,
        gained("bag_of_words"),
    ),
    ("the last {} of a review", RECIPES["gru"].length),
    (
        "elman {:.2f} and {:.2f}, gru {:.2f} and {:.2f}, lstm {:.2f} and {:.2f}.",
        *reached("elman"),
        *reached("gru"),
        *reached("lstm"),
    ),
]

# results/translation


def number_words(model):
    """The row of a network that learnt numbers in words."""
    rows = table("translation/numbers.csv")
    (row,) = rows[rows["model"] == model].to_dict("records")
    return row


SENTENCES = table("translation/sentences.csv")


def bleu(column, model="", languages="en-de"):
    """A number of a network that learnt sentences."""
    rows = SENTENCES[SENTENCES["languages"] == languages].set_index("model")
    return rows.loc[f"sentences{model}", column]


WAYS = [number_words(model) for model in ("attention", "plain", "reversed")]
TRANSLATION = [
    ("from {:,} numbers below a million", WAYS[0]["pairs"]),
    ("writes {} others", WAYS[0]["test_pairs"]),
    (
        "with attention {:.3f}, without {:.3f}, without but with the source reversed {:.3f}.",
        *(way["exact"] for way in WAYS),
    ),
    ("took {:.0f}, {:.0f} and {:.0f} s of processor time", *(way["cpu_seconds"] for way in WAYS)),
    ("sentences of Multi30k, {:,} pairs", bleu("pairs")),
    (
        "to German: with attention {:.1f}, without {:.1f}, reversed {:.1f};",
        *(bleu("bleu", model) for model in ("", "_plain", "_reversed")),
    ),
    (
        "to French without {:.1f}, reversed {:.1f}.",
        *(bleu("bleu", model, "en-fr") for model in ("_plain", "_reversed")),
    ),
    (
        "Each takes {:.0f} to {:.0f} minutes of processor time",
        math.ceil(SENTENCES["cpu_seconds"].min() / 60),
        math.ceil(SENTENCES["cpu_seconds"].max() / 60),
    ),
]

# results/weather


def errors(model):
    """The error of the next hour's forecast and of that of 24 hours ahead."""
    rows = table("weather/errors.csv")
    means = rows[rows["model"] == model].groupby("horizon")["rmse"].mean()
    return means[1], means[24]


REACH = table("weather/reach.csv")
BEFORE = REACH[(REACH["model"] == "elman") & ~REACH["trained"]]
LOST = BEFORE.groupby("lag")["log_relative"].max() < math.log(2.0**-23)
HELD = {name: reach_of(name) for name in ("convolution", "elman", "lstm", "gru")}
# Powers of two up to the last distance at which a model is right, and the one after it.
LAST = {name: max(distances) for name, (distances, *_) in HELD.items()}
assert all(
    HELD[name][0] == [2**k for k in range(8) if 2**k <= LAST[name]]
    for name in LAST
    if name != "elman"
)
ORDER = [
    (
        "right up to a distance of {} and at chance from {} on",
        LAST["convolution"],
        2 * LAST["convolution"],
    ),
    ("right up to a distance of {}, the gru up to {},", LAST["lstm"], LAST["gru"]),
    ("elman is right at {} alone", *HELD["elman"][0]),
    ("is at least {:.2f}", min(HELD[name][1] for name in ("lstm", "gru"))),
    ("at most {:.2f}.", max(HELD[name][2] for name in ("lstm", "gru"))),
]
WEATHER = [
    ("persistence {:.3f} and {:.3f},", *errors("persistence")),
    ("the same hour of the day before {:.3f} and {:.3f},", *errors("seasonal")),
    ("on the same 72 hours {:.3f} and {:.3f};", *errors("linear")),
    ("gru {:.3f} and {:.3f},", *errors("gru")),
    ("lstm {:.3f} and {:.3f},", *errors("lstm")),
    ("elman {:.3f} and {:.3f}.", *errors("elman")),
    ("epsilon from a lag of {} hours on", LOST.idxmax()),
]

# results/training


def points(experiment, **where):
    """The rows of a summary at some values of its columns."""
    rows = table(f"training/{experiment}/summary.csv")
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return rows


def point(experiment, **where):
    rows = points(experiment, **where)
    assert len(rows) == 1
    return rows.iloc[0]


def fixed(experiment, *columns):
    """What a column says, the same in all rows of a summary."""
    values = [table(f"training/{experiment}/summary.csv")[column].unique() for column in columns]
    assert all(len(value) == 1 for value in values)
    return [value[0] for value in values]


def log_decay(row):
    """ln of how much the adjoint falls over the whole sequence, at the rate after training."""
    return row["rate_after_median"] * (row["length"] - 1)


def line(*values):
    return f"| {' | '.join(f'{v:.2g}' if isinstance(v, float) else str(v) for v in values)} |"


def lines_of_temporal_order():
    ways = [(clip, omega) for clip in (0.0, 1.0) for omega in (0.0, 2.0)]
    for length in (10, 20, 50, 100):
        at = {"length": length}
        yield line(
            length,
            *(
                point("temporal_order", clip_norm=c, omega_squared=o, **at)["solved"]
                for c, o in ways
            ),
        )


ADDING = {
    "elman, 3e-4": {"cell": "elman", "activation": "tanh", "learning_rate": 3e-4},
    "elman, 1e-3": {"cell": "elman", "activation": "tanh", "learning_rate": 1e-3},
    "IRNN, 1e-4": {"cell": "elman", "activation": "relu", "learning_rate": 1e-4},
    "IRNN, 1e-3": {"cell": "elman", "activation": "relu", "learning_rate": 1e-3},
    "lstm, 1e-2": {"cell": "lstm", "learning_rate": 1e-2},
    "gru, 1e-2": {"cell": "gru", "learning_rate": 1e-2},
}


def outcome(row):
    """Updates until solved, with the share where it is not 1, or the least loss."""
    if row["solved"]:
        text = f"{row['solved_step_median']:,.0f}"
        text += f" ({row['solved']:g})" if row["solved"] < 1 else ""
        return text + (", else infinite" if row["nonfinite"] else "")
    if row["nonfinite"] == 1:
        return "infinite"
    return f"{row['best_loss_median']:.3f}" + (", one infinite" if row["nonfinite"] else "")


def lines_of_adding():
    yield line("T", *ADDING)
    for length in (50, 100, 200, 400):
        rows = [point("adding", length=length, **where) for where in ADDING.values()]
        yield line(length, *map(outcome, rows))


def irnn(**where):
    return points("adding", cell="elman", activation="relu", **where)


def lines_of_copying():
    for rate, text in ((0.001, "0.001, as published"), (0.01, "0.01")):
        losses = [
            f"{point('copying', learning_rate=rate, chrono=c)['loss_median']:.4f}" for c in (0, 150)
        ]
        yield line(text, *losses)


def root_mean_square(gain, steps, stage):
    """Of the pulled exponents over all seeds."""
    rows = table("training/flossing/exponents.csv")
    rows = rows[(rows["gain"] == gain) & (rows["steps"] == steps) & (rows["stage"] == stage)]
    return np.sqrt(np.mean(rows.loc[rows["index"] <= rows["flossed"], "exponent"] ** 2))


def lines_of_flossing():
    for gain, steps in ((0.5, 40), (1.0, 40), (1.5, 40), (2.0, 40), (1.5, 10), (2.0, 10)):
        stages = [f"{root_mean_square(gain, steps, stage):.3f}" for stage in ("before", "after")]
        yield line(f"{gain:.1f}", steps, *stages)


def lines_of_flossed_order():
    ways = ({"preflossing": 0}, {"preflossing": 500, "flossing": 0}, {"flossing": 1})
    for length in (50, 100):
        yield line(length, *(point("flossed_order", length=length, **w)["solved"] for w in ways))


SATURATED = point("temporal_order", clip_norm=0, omega_squared=2, length=100)
CHRONO = point("copying", learning_rate=0.01, chrono=150)
LOSING, HELD = (
    point("flossed_order", length=100, preflossing=500, flossing=strength) for strength in (0, 1)
)
EXPONENTS = table("training/flossing/exponents.csv")
TRAINING = [
    (
        "Here, {} tanh units, batch {}, learning rate {:g}, at most {:,} updates, share",
        *fixed("temporal_order", "hidden", "batch", "learning_rate", "updates"),
    ),
    ("of {} seeds that reach", WORDS[fixed("temporal_order", "runs")[0]]),
    *((text,) for text in lines_of_temporal_order()),
    (
        "at T = {} none of ours had left ln 4 after {:,}.",
        min(
            length
            for length in (10, 20, 50, 100)
            if points("temporal_order", length=length)["best_loss_median"].min() > np.log(4) - 0.01
        ),
        *fixed("temporal_order", "updates"),
    ),
    (
        "λ falls by {:.2f} nats per step (median of the seeds), about e^{:.0f} over the sequence",
        -SATURATED["rate_after_median"],
        round(log_decay(SATURATED), -1),
    ),
    ("dense N(0, {:g}²/n) weights", *fixed("temporal_order", "gain")),
    (
        "does not bear at T = {},",
        points("temporal_order", clip_norm=0, omega_squared=0, solved=0)["length"].min(),
    ),
    (
        "Here, width {}, Adam, clipped at norm {:g}, batch {}, at most {:,} updates, {} seeds:",
        *fixed("adding", "hidden", "clip_norm", "batch", "updates"),
        WORDS[fixed("adding", "runs")[0]],
    ),
    *((text,) for text in lines_of_adding()),
    ("do beat 1/6 = {:.3f} at T = 100 and 200,", *fixed("adding", "baseline")),
    (
        "at 400 elman's best loss is {:.3f}, and IRNN's {:.3f} at the lower rate,",
        points("adding", cell="elman", activation="tanh", length=400)["best_loss_median"].min(),
        irnn(length=400, learning_rate=1e-4)["best_loss_median"].item(),
    ),
    (
        "λ falls by e^{:.0f} over 400 steps at the lower rate and by e^{:.0f} at the higher,",
        *(
            log_decay(point("adding", length=400, **ADDING[f"elman, {rate}"]))
            for rate in ("3e-4", "1e-3")
        ),
    ),
    (
        "is within {:.3f} of 0 at every point whose runs all stay finite",
        math.ceil(1000 * irnn(nonfinite=0)["rate_after_median"].abs().max()) / 1000,
    ),
    (
        "delay {}, width {}, RMSprop, clipped at norm {:g}, {:,} updates, baseline {:.4f} nats, "
        "median of {} seeds:",
        *fixed("copying", "length", "hidden", "clip_norm", "updates", "baseline"),
        WORDS[fixed("copying", "runs")[0]],
    ),
    ("| learning rate | plain | chrono, T_max = {:g} |", CHRONO["chrono"]),
    *((text,) for text in lines_of_copying()),
    ("At {:g} it comes out:", CHRONO["learning_rate"]),
    ("(error {:.2f} of 7/8)", CHRONO["error_median"]),
    # ln u with u uniform between 1 and T_max - 1: σ(-ln u) = 1 / (1 + u).
    ("σ(-b_f), 1/{:.0f} at the median", 1 + (1 + CHRONO["chrono"] - 1) / 2),
    ("within {:,} updates, it does not", *fixed("copying", "updates")),
    (
        "survives {} steps at forget bias {:g} (its rate at the start is {:+.3f} nats per step)",
        *fixed("copying", "length", "forget_bias"),
        point("copying", learning_rate=0.001, chrono=0)["rate_before_median"],
    ),
    (
        "Exponents, {} leaky units at dt = 1, the first {} pulled",
        EXPONENTS["index"].max(),
        EXPONENTS["flossed"].unique().item(),
    ),
    ("over {} seeds: | gain | T |", WORDS[EXPONENTS["seed"].nunique()]),
    *((text,) for text in lines_of_flossing()),
    ("Over {0} steps in place of {1} a little", *sorted(EXPONENTS["steps"].unique())),
    (
        "(elman, gain {:g}, Adam at 1e{:.0f}, clipped, {:,} updates, {} seeds)",
        *fixed("flossed_order", "gain"),
        np.log10(fixed("flossed_order", "learning_rate")[0]),
        *fixed("flossed_order", "updates"),
        WORDS[fixed("flossed_order", "runs")[0]],
    ),
    ("plain | {} updates of flossing before |", points("flossed_order")["preflossing"].max()),
    *((text,) for text in lines_of_flossed_order()),
    (
        "goes from {:+.3f} back to {:.2f} nats per step at T = 100), with it the rate stays at "
        "{:.2f}.",
        LOSING["rate_before_median"],
        LOSING["rate_after_median"],
        HELD["rate_after_median"],
    ),
]

CLAIMS = {
    "README.md": MAIN,
    "results/sentiment/README.md": SENTIMENT,
    "results/training/README.md": TRAINING,
    "results/neuron/README.md": [],
    "results/order/README.md": ORDER,
    "results/translation/README.md": TRANSLATION,
    "results/weather/README.md": WEATHER,
}

# Numbers that no table here has, each with the reason.
PUBLISHED = "what the literature says"
UNSOURCED = {
    "README.md": {
        "right even at e^-5000.": "the contract of gl.trace, held by test_long.py",
        "Python 3.11 to 3.13": "what the Makefile and pyproject.toml ask for",
        "499 steps back": "of 500 in the code above it",
        "Hutto and Gilbert (2014)": PUBLISHED,
    },
    "results/sentiment/README.md": {
        "25,000 reviews for training": "the data set",
        "19,906 for the test": "the data set, without texts that stand in its training part",
        "U(-1/√n, 1/√n)": "a formula",
        "gradient.png], seed 0:": "which seed is drawn",
    },
    "results/training/README.md": {
        "Mikolov & Bengio 2013, section 4.1, figure 7)": PUBLISHED,
        "solves lengths up to 200.": PUBLISHED,
        "an error of 1 %": "what the task calls solved",
        "and not 15 entries a row": PUBLISHED,
        "Jaitly & Hinton 2015; Arjovsky, Shah & Bengio 2016, section 5.2)": PUBLISHED,
        "solves it up to T = 400;": PUBLISHED,
        "about 150 and 300 in Le's hands": PUBLISHED,
        "beat 1/6 at no length from 100 on": PUBLISHED,
        "where it is not 1)": "a share",
        "Tallec & Ollivier 2018, section 4)": PUBLISHED,
        "(forget bias 1) does not": PUBLISHED,
        "(Engelken 2023)": PUBLISHED,
        "At gain 2, at the edge": "a row of the table above it",
        "pulled towards zero, 500 updates,": "UPDATES of experiments/flossing.py",
    },
    "results/translation/README.md": {
        "BLEU 47.88, chrF 65.60": "of a run whose model is not in the table",
    },
    "results/neuron/README.md": {
        "over 1, 10 and 100 steps": "the default of gl.figures.neuron",
        "with weight 1": "likewise",
        "z = 0": "where the slope of tanh is largest",
    },
    "results/order/README.md": {
        "width 32, 1,000 updates": "constants of experiments/word_order.py",
        "convolution over 5 words": "the width of its window",
    },
    "results/weather/README.md": {
        "from the 72 hours before": "the recipe's length",
        "the first 70 % of the year": "gradlab.weather.BORDERS",
        "from 20 October on": "the data set",
        "and 24 hours ahead: persistence": "the horizons of the numbers after it",
        "24 hours ahead the gru is better": "a horizon",
    },
}


def prose(document):
    """The text of a README without code, addresses of links and line breaks."""
    text = (ROOT / document).read_text(encoding="utf-8")
    # Of a block of code the comments are prose.
    text = re.sub(
        r"^```.*?^```$",
        lambda block: " ".join(re.findall(r"#(?!!)(.*)", block[0])),
        text,
        flags=re.MULTILINE | re.DOTALL,
    )
    text = re.sub(r"`[^`]*`|\]\([^)]*\)", lambda m: "]" if m[0].startswith("]") else "", text)
    return re.sub(r"\s+", " ", text)


def places(piece, text):
    """Where a piece stands in the text, not as the part of a longer number."""
    pattern = rf"(?<![\d.,]){re.escape(piece)}(?!\d|[.,]\d)"
    return [match.span() for match in re.finditer(pattern, text)]


def unlisted(text, pieces):
    """The numbers of a text that lie in no piece, with what is around them."""
    covered = {at for piece in pieces for span in places(piece, text) for at in range(*span)}
    numbers = [match.span() for match in NUMBER.finditer(text)]
    return [
        text[max(0, start - 30) : end + 20]
        for start, end in numbers
        if not covered.issuperset(range(start, end))
    ]


@pytest.mark.parametrize(
    ("document", "claim"),
    [(document, claim) for document, claims in CLAIMS.items() for claim in claims],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_the_tables_say_so(document, claim):
    template, *values = claim
    expected = template.format(*values) if values else template
    assert len(places(expected, prose(document))) == 1, f"{document} should say: {expected}"


def test_every_readme_of_results_is_read_here():
    found = {str(path.relative_to(ROOT)) for path in RESULTS.rglob("README.md")}
    assert found | {"README.md"} == set(CLAIMS) == set(UNSOURCED)


@pytest.mark.parametrize("document", CLAIMS)
def test_every_number_is_listed(document):
    text = prose(document)
    for piece in UNSOURCED[document]:
        assert len(places(piece, text)) == 1, f"{document} no longer says: {piece}"
    claims = [t.format(*values) if values else t for t, *values in CLAIMS[document]]
    assert unlisted(text, [*claims, *UNSOURCED[document]]) == []


def test_a_number_that_is_new_or_has_drifted_is_found():
    text = "lstm 0.885, gru 0.896: at T = 200 it is 7 % slower."
    assert places("gru 0.89", text) == places("4, gru", text) == []
    assert len(places("gru 0.896", text)) == 1
    left = unlisted(text, ["lstm 0.885, gru 0.896", "at T = 200"])
    assert len(left) == 1 and "it is 7 % slower" in left[0]


# Tables in Markdown next to a csv file


def markdown(text):
    """The first table of a page: names of columns and rows of texts."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    head, _, *body = ([cell.strip() for cell in row.strip("|").split("|")] for row in rows)
    return head, body


def rounded(text, value):
    """Whether a text is a number to the last digit that it shows, or the very words."""
    if isinstance(value, str) or pd.isna(value):
        return text == ("" if pd.isna(value) else value) or (pd.isna(value) and text == "nan")
    if not math.isfinite(value):
        return float(text) == value
    unit = float(Decimal(10) ** Decimal(text.replace(",", "")).as_tuple().exponent)
    return abs(float(text.replace(",", "")) - value) <= unit * (0.5 + 1e-6)


def check(shown, columns, frame):
    """Rows of texts against the columns of a frame."""
    assert len(shown) == len(frame)
    for row, texts in zip(frame[columns].itertuples(index=False), shown, strict=True):
        for column, value, text in zip(columns, row, texts, strict=True):
            assert rounded(text, value), f"{column}: {text} where the table has {value}"


@pytest.mark.parametrize("path", sorted((RESULTS / "bench").glob("*.md")), ids=lambda p: p.stem)
def test_a_table_of_costs_shows_the_file_next_to_it(path):
    frame = pd.read_csv(path.with_suffix(".csv"))
    head, body = markdown(path.read_text(encoding="utf-8"))
    names = {"of the processor": "cpu_seconds", "peak (MB)": "peak_mb"}
    columns = [names.get(name, name) for name in head]
    check(body, columns, frame)
    # store.csv has one column more: the bound that its test keeps.
    assert list(frame.columns) == columns or path.stem == "store"


def test_planned_memory_is_within_half_of_what_was_measured_of_every_cell():
    frame = table("bench/memory.csv")
    ratio = frame["planned / measured"]
    assert set(frame["cell"][frame["weights"] == "tied"]) == set(cells.names())
    # Those that are too small for the table's ratio as well.
    assert (frame["planned MB"] / frame["measured MB"]).between(1 / 1.5, 1.5).all()
    text = (RESULTS / "bench" / "memory.md").read_text(encoding="utf-8")
    assert f"The worst ratio either way is {max(ratio.max(), (1 / ratio).max()):.2f}." in text


@pytest.mark.parametrize("stem", ["", "snippets_"])
def test_the_table_of_accuracies_shows_the_means_of_its_file(stem):
    runs = table(f"sentiment/{stem}accuracy.csv")
    head, body = markdown((RESULTS / "sentiment" / f"{stem}accuracy.md").read_text("utf-8"))
    assert len(body) == len(runs.groupby(["model", "unit"]))
    for model, unit, seeds, held_out, test, spread, seconds, parameters in body:
        rows = runs[(runs["model"] == model) & (runs["unit"] == unit)]
        assert int(seeds) == len(rows)
        assert rounded(held_out, rows["validation_accuracy"].mean())
        assert rounded(test, rows["test_accuracy"].mean())
        for text, value in zip(spread.split(" to "), between(rows["test_accuracy"]), strict=True):
            assert rounded(text, value)
        assert rounded(seconds, rows["seconds"].mean())
        assert rounded(parameters, rows["parameters"].mean())
    assert head[3:5] == ["held out", "test"]


def test_the_table_of_training_shows_every_summary():
    text = (RESULTS / "training" / "table.md").read_text(encoding="utf-8")
    sections = dict(part.split("\n", 1) for part in text.split("\n## ")[1:])
    files = {path.parent.name: path for path in (RESULTS / "training").glob("*/summary.csv")}
    assert set(sections) == set(files)
    for name, section in sections.items():
        frame = pd.read_csv(files[name])
        head, body = markdown(section)
        columns = [column.replace(" ", "_") for column in head]
        check(body, columns, frame)
        # A column that is left out says the same everywhere.
        left = frame[[column for column in frame if column not in columns]]
        assert (left.nunique(dropna=False) == 1).all()


def test_the_largest_deviations_are_those_of_the_files(tmp_path):
    theory = RESULTS / "theory"
    for path in theory.glob("*.csv"):
        shutil.copy(path, tmp_path)
    collect = runpy.run_path(str(ROOT / "experiments" / "deviations.py"))["collect"]
    collect.__globals__["OUT"] = tmp_path
    collect()
    collected = (tmp_path / "deviations.md").read_text(encoding="utf-8")
    assert collected == (theory / "deviations.md").read_text(encoding="utf-8")
