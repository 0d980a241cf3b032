"""SGD, clipping and Ω on temporal order against the length; experiments/temporal_order.toml."""

from pathlib import Path

from published import training
from published.table import Row

PAPER = "Pascanu, Mikolov & Bengio (2013)"
PLACE = "section 4.1, figure 7: success against the length of the sequence"
EXPERIMENT = "temporal_order"
MAP = (
    ("Ω = Σ_t (‖J_t^T λ_t‖ / ‖λ_t‖ - 1)²", "gradlab.remedies.omega_penalty",
     "tests/remedies/test_remedies.py::test_both_forms_of_omega_are_the_references"),
    ("g ← g θ/‖g‖ where ‖g‖ > θ", "gradlab.remedies.clip",
     "tests/remedies/test_remedies.py::test_clipping_is_optax_s_where_no_square_overflows"),
)  # fmt: skip
NOTES = f"""
50 tanh units, three seeds, at most 12,000 updates where the authors made up to five million; a
verdict is 1 or 0. The order of the methods comes out, their lengths are shorter: at T = 100
nothing has left ln 4 after 12,000 updates, and the two rows "at least as often" compare 0 with 0
there. {training.NOTE}
"""
SOURCE = "text of section 4.1: SGD-CR solves lengths up to 200 in every run"
METHODS = {
    "SGD": {"clip_norm": 0.0, "omega_squared": 0.0},
    "SGD-C": {"clip_norm": 1.0, "omega_squared": 0.0},
    "SGD-CR": {"clip_norm": 1.0, "omega_squared": 2.0},
}


def minutes() -> float:
    """Those of the sweep."""
    return training.minutes(EXPERIMENT)


def measure(out: Path) -> list[Row]:
    """Success of each method."""
    table = training.summary(EXPERIMENT)
    training.picture(out / "temporal_order", table, METHODS, "length", "solved")
    rows = []
    for length in (10, 20, 50, 100):
        solved = {
            name: training.point(table, length=length, **where)["solved"]
            for name, where in METHODS.items()
        }
        rows += [
            Row(f"share solved by SGD-CR, T = {length}", 1, SOURCE, solved["SGD-CR"], 0),
            Row(f"SGD-CR solves at least as often as SGD-C, T = {length}", 1, "figure 7",
                solved["SGD-CR"] >= solved["SGD-C"], 0),
            Row(f"SGD-C solves at least as often as SGD, T = {length}", 1, "figure 7",
                solved["SGD-C"] >= solved["SGD"], 0),
        ]  # fmt: skip
    chance = training.point(table, length=10, **METHODS["SGD"])["baseline"]
    log = "github.com/pascanur/trainingRNNs, test_output.txt: the first loss"
    return [*rows, Row("loss of chance (nats)", 1.387, log, chance, 0.001)]
