"""What the scripts of the published figures share: run a sweep, add the width's effect, publish.

Each script writes results/theory/NAME.png and NAME.csv, a row per point as
`gradlab.figures.deviations` defines it; `python experiments/published.py` collects the largest
deviations into results/theory/deviations.md, whose head says what the bound of a point is.
"""

import functools
from pathlib import Path

import numpy as np
import pandas as pd

import gradlab as gl

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
OUT = RESULTS / "theory"


def measure(name: str) -> pd.DataFrame:
    """The runs of experiments/NAME.toml, measured into results/NAME where they are missing."""
    report = gl.sweeps.sweep(gl.sweeps.load(HERE / f"{name}.toml"), RESULTS / name)
    print(f"{name}: {report.computed} of {report.total} runs measured in {report.seconds:.0f} s")
    return report.results.runs


@functools.cache
def _ginibre(n: int, draws: int = 32) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.array([np.linalg.eigvals(rng.normal(size=(n, n)) / n**0.5) for _ in range(draws)])


def edge_shift(n: int, centre: float = 0.0, radius: float = 1.0) -> float:
    """What a width of n adds to ln(centre + radius), in nats: the mean over 32 Ginibre matrices.

    At a finite n the outermost eigenvalues lie past the edge of the disc that they fill for n -> ∞.
    """
    outermost = np.abs(centre + radius * _ginibre(n)).max(axis=1)
    return float(np.log(outermost).mean() - np.log(centre + radius))


def fluctuations(runs: pd.DataFrame) -> pd.Series:
    """-D for each run, D the long-run variance of its log-norm per step, from its rate_stderr.

    Theory has ½ ln of the mean squared norm, a run the mean of ln norm. For a log-norm that
    diffuses with variance D per step they differ by D: 1/(2n) for Gaussian matrices, by Newman
    (1986). `sweeps` fits a line to m = 0.8 T lags, whose slope has the variance 6 D / (5 m).
    """
    variance = runs["rate_stderr"] ** 2 * (0.8 * runs["length"]) / 1.2
    axes = [runs[axis] for axis in gl.frames.AXES]
    return -variance.groupby(axes, dropna=False).transform("mean")


def publish(name: str, runs: pd.DataFrame, *, title: str, **options: str) -> None:
    """Draw the runs against theory, write figure and table, and print the largest deviation."""
    OUT.mkdir(parents=True, exist_ok=True)
    points = gl.figures.deviations(runs)
    points["own_matrix"] = gl.figures.deviations(_on_own_matrix(runs))["deviation"]
    used = [axis for axis in gl.frames.AXES if points[axis].nunique() > 1 or axis == "cell"]
    numbers = list(points.columns[len(gl.frames.AXES) :])
    table = points[used + numbers].assign(figure=title)
    table.to_csv(OUT / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
    gl.figures.save(gl.figures.theory(runs, **options), OUT / name, formats=["png"])
    for line in _worst(table):
        print(f"{name}: {line}")


def _on_own_matrix(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs against what theory gives the spectral radius that their W has, not the mean one."""
    own = np.log(runs["spectral_radius"] / runs["gain"])
    return runs.assign(predicted_rate=runs["predicted_rate"] + own.where(runs["cell"] == "elman"))


def _worst(table: pd.DataFrame) -> list[str]:
    """For each curve its largest deviation, its bound there, and how many points miss theirs."""
    numbers = table.columns.get_loc("runs")
    curves = [c for c in table.columns[:numbers] if c != "gain" and table[c].nunique() > 1]
    known = table[table["deviation"].notna()]
    lines = []
    for name, rows in known.groupby(curves, dropna=False) if curves else [("", known)]:
        names = name if isinstance(name, tuple) else (name,)
        label = " ".join(f"{c} {v}" if isinstance(v, float) else str(v) for c, v in
                         zip(curves, names, strict=False) if v == v)  # fmt: skip
        worst = rows.loc[rows["deviation"].abs().idxmax()]
        tight = rows.loc[(rows["deviation"].abs() / rows["bound"]).idxmax()]
        lines.append(
            f"| {label} | {len(rows)} | {worst['deviation']:+.4f} | {worst['gain']:g} "
            f"| {worst['bound']:.4f} | {abs(tight['deviation']) / tight['bound']:.2f} "
            f"| {(~rows['within'].astype(bool)).sum()} |"
        )
    return lines


def zero_disc(run) -> gl.meanfield.Disc:
    """The disc law of a run of a GRU or LSTM with tied weights."""
    biases = {} if run.cell == "gru" else {"forget_bias": run.forget_bias}
    return gl.meanfield.disc(run.cell, run.gain, **biases)


def with_width(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with predicted_bias filled in where the sweep does not know it."""
    biases = runs["predicted_bias"].where(runs["predicted_bias"].notna(), fluctuations(runs))
    effect = [
        bias if np.isnan(run.predicted_rate) or run.weights == "untied" else _edge(run, bias)
        for run, bias in zip(runs.itertuples(), biases, strict=True)
    ]
    return runs.assign(predicted_bias=np.where(runs["predicted_rate"].notna(), effect, np.nan))


def _edge(run, bias: float) -> float:
    """The edge's effect for an ordered run with tied weights, the known bias for a chaotic one."""
    if run.cell in ("gru", "lstm"):
        disc = zero_disc(run)
        return edge_shift(run.hidden, disc.centre, disc.radius)
    theory = gl.meanfield.elman(
        run.activation, run.gain, bias_std=run.bias_scale, input_variance=run.input_scale**2
    )
    # relu's growing state settles on one direction, as a linear one does: its slopes freeze.
    if theory.rate > 0 and run.activation in ("tanh", "erf"):
        return bias
    # W diag(φ') has n/k columns' worth of slopes, and the shift goes with 1/√ of that.
    return edge_shift(run.hidden) * theory.k**0.5


def as_runs(rows: list[dict]) -> pd.DataFrame:
    """Exponents as a frame of `runs`: what they lack is filled with what they are."""
    common = dict(init="normal", weights="tied", input="none", inputs=1, status="ok",
                  verdict="stable", precision="float32")  # fmt: skip
    named = [common | row | dict(run_id=f"{place}") for place, row in enumerate(rows)]
    return gl.frames.runs_frame(named)


HEAD = """\
# Measured against theory

The largest deviation of each curve from theory, measured - predicted, in nats per step (per unit
of time for leaky networks), with the bound of the same point. The bound is 3 standard errors over
seeds and one standard deviation of theirs, and more by the effect of the width where the deviation
has its sign; where few seeds agree by chance, the runs' own standard errors stand for their
standard deviation. The effect of the width is

- chaotic, tied weights: -(1 + 3k)/(4n), k = E φ'⁴ / (E φ'²)²; leaky: from widths n and n/2;
- ordered, tied weights, where the rate is that of the leading eigenvalue of the very matrix: the
  mean over 32 Ginibre matrices of ln max|c + r z| - ln(c + r), times √k for elman;
- untied weights: -(3k - 1)/(4n) for elman, minus the variance per step of ln norm for gated cells;
- full spectra, and every exponent of them: that of the largest exponent.

σ_w = 1 without bias and input is left out of the exponents, since the state falls to 0 as a power
of time there; the sweeps have an input, which makes the approach exponential at every gain.

`closest` is the largest |deviation| / bound over the points of the curve, `missed` how many of them
exceed 1. Every point is a row of the CSV file of the same name. `make theory` makes all again.

"""


def _beyond_theory(table: pd.DataFrame) -> list[str]:
    """How far tied points that no theory describes lie from the theory of untied weights."""
    if "weights" not in table:
        return []
    keys = ["cell", "gain"]
    tied = table[(table["weights"] == "tied") & table["predicted_rate"].isna()]
    untied = table[table["weights"] == "untied"].set_index(keys)["predicted_rate"]
    apart = tied.set_index(keys)["rate"] - untied
    lines = []
    for cell, rows in apart.dropna().groupby("cell"):
        (_, gain), value = rows.abs().idxmax(), rows[rows.abs().idxmax()]
        lines.append(
            f"No theory: {cell} with tied weights, up to {value:+.3f} from the untied theory (at "
            f"{gain:g}). One W for all steps ties each gate to the state that it has shaped."
        )
    return [*lines, ""] if lines else []


def _own_matrix(table: pd.DataFrame) -> list[str]:
    """What is left of the deviation of ordered networks under their own spectral radius."""
    if "activation" not in table:
        return []
    ordered = (table["gain"] <= 0.75) & (table["input_scale"] == 0.1)
    lines = []
    for activation in ("tanh", "erf", "linear"):
        rows = table[(table["activation"] == activation) & (ordered | (activation == "linear"))]
        worst = rows.loc[rows["own_matrix"].abs().idxmax()]
        lines.append(
            f"With ln ρ(W)/σ_w of each run's own W added to the theory, the largest deviation of "
            f"{activation} at gains up to {rows['gain'].max():g} is {worst['own_matrix']:+.4f}."
        )
    return [
        *lines,
        "The drive is small there. Nearer to criticality it moves the slopes of tanh and erf, and "
        "those of relu (0 or 1) at every gain, so that no one matrix rules and the effect of the "
        "edge fades; above criticality relu's state grows along one direction and its slopes "
        "freeze.",
        "",
    ]


def collect() -> None:
    """Write deviations.md from the tables in results/theory."""
    parts = [HEAD]
    for path in sorted(OUT.glob("*.csv")):
        table = pd.read_csv(path)
        parts.append(f"## {path.stem}\n\n{table['figure'].iloc[0]}. ![]({path.stem}.png)\n")
        parts.append("| curve | points | largest | at gain | its bound | closest | missed |")
        parts.append("| --- | --- | --- | --- | --- | --- | --- |")
        parts += [*_worst(table), "", *_beyond_theory(table), *_own_matrix(table)]
    (OUT / "deviations.md").write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    collect()
