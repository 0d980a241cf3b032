"""The adding problem against the length; experiments/adding.toml."""

from pathlib import Path

from published import training
from published.table import Row

PAPER = "Arjovsky, Shah & Bengio (2016); Le, Jaitly & Hinton (2015)"
PLACE = "Arjovsky section 5.2, Le section 4.1: who beats the baseline of the adding problem"
EXPERIMENT = "adding"
MAP = (
    ("the baseline Var(U₁ + U₂) = 1/6", "gradlab.tasks.adding.adding",
     "tests/tasks/test_task_registry.py::test_published_baseline"),
)  # fmt: skip
NOTES = f"""
Width 64, Adam, at most 6,000 updates, two seeds; beaten means a loss below 0.15 at the better
learning rate. Arjovsky's tanh network and IRNN beat the baseline at no length; ours do at 100
and 200, given a learning rate that suits them, as in Le's account. {training.NOTE}
"""
SOURCE = "github.com/amarshah/complex_RNN, paper/uRNN/uRNN.tex, the adding problem"
CELLS = {
    "lstm": {"cell": "lstm"},
    "elman": {"cell": "elman", "activation": "tanh"},
    "IRNN": {"cell": "elman", "activation": "relu"},
}
BEATEN = 0.15


def minutes() -> float:
    """Those of the sweep."""
    return training.minutes(EXPERIMENT)


def measure(out: Path) -> list[Row]:
    """Whether each cell beats the baseline at each length."""
    table = training.summary(EXPERIMENT)
    best = table.groupby(["cell", "activation", "length"], dropna=False)["best_loss_median"].min()
    best = best.reset_index()
    training.picture(
        out / "adding", best, CELLS, "length", "best_loss_median", yscale="log", xscale="log"
    )
    baseline = table["baseline"].iloc[0]
    rows = [Row("mean squared error of the baseline", 0.167, SOURCE, baseline, 5e-4)]
    for length in (100, 200, 400):
        for name, where in CELLS.items():
            loss = training.point(best, length=length, **where)["best_loss_median"]
            published = name == "lstm"
            rows.append(
                Row(f"{name} beats the baseline, T = {length}", published, SOURCE, loss < BEATEN, 0)
            )
    irnn = table[(table["activation"] == "relu") & (table["length"] == 200)]
    le = "Le et al., figure 1: IRNN and lstm solve T = 200"
    rows.append(Row("share of IRNNs that solve T = 200", 1, le, irnn["solved"].max(), 0))
    lstm = training.point(table, cell="lstm", length=200)["solved"]
    rows.append(Row("share of lstms that solve T = 200", 1, le, lstm, 0))
    return rows
