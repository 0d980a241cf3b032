"""What the scripts of curves against theory share: run a sweep, add the width, publish deviations.

Each script writes results/theory/NAME.png and NAME.csv, a row per point as
`gradlab.figures.deviations` defines it; `python experiments/deviations.py` collects the largest
deviations into results/theory/deviations.md, whose head says what the bound of a point is.
"""

import functools
from pathlib import Path

import numpy as np
import pandas as pd

import gradlab as gl
from gradlab.decay import increment_weights

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
OUT = RESULTS / "theory"
FIGURES = ("full_spectrum", "largest_exponent", "minimal_rnn", "rate_against_gain",
           "tied_untied_driven", "tied_untied_zero")  # fmt: skip


def measure(name: str) -> pd.DataFrame:
    """The runs of experiments/NAME.toml, measured into results/NAME where they are missing."""
    report = gl.sweep(HERE / f"{name}.toml", RESULTS / name)
    print(f"{name}: {report.computed} of {report.total} runs measured in {report.seconds:.0f} s")
    return report.results.runs


@functools.cache
def linear_growth(n: int, steps: int, centre: float = 0.0, radius: float = 1.0) -> np.ndarray:
    """Mean growth per step of ln|(c + r W)^k v| over Gaussian W, 64 draws (24 from n = 1,000).

    What a linear network with one W for all steps has, and any network at a state that stays 0: the
    exact law at this width and number of steps, evaluated by Monte Carlo in NumPy. The outermost
    eigenvalues lie past the edge of their disc, and it takes time until they rule.
    """
    rng = np.random.default_rng(0)
    draws = 64 if n < 1000 else 24
    growth = np.zeros(steps)
    for _ in range(draws):
        W = rng.normal(size=(n, n)).astype(np.float32) / np.float32(n**0.5)
        v = rng.normal(size=n).astype(np.float32)
        v /= np.linalg.norm(v)
        for k in range(steps):
            v = np.float32(centre) * v + np.float32(radius) * (W @ v)
            size = np.linalg.norm(v)
            growth[k] += np.log(size)
            v /= size
    return growth / draws


def linear_effect(n: int, length: int, centre: float = 0.0, radius: float = 1.0) -> float:
    """What the width n and the length T of a sweep's run add to ln(c + r), in nats per step."""
    if centre == 0:  # the radius is a factor
        radius = 1.0
    lags, weights = increment_weights(length)
    growth = linear_growth(n, length - 1, centre, radius)[lags.start : lags.stop - 1]
    return float(np.sum(weights * growth) - np.log(centre + radius))


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
    # Another column of a frame of runs would be an axis of its own.
    plain = runs.drop(columns=["suspected", "cause"])
    points = gl.figures.deviations(plain)
    groups = runs.groupby(list(gl.frames.AXES), dropna=False, sort=False, observed=True)
    points["suspected"] = groups["suspected"].mean().to_numpy()
    points["cause"] = groups["cause"].first().to_numpy()
    used = [axis for axis in gl.frames.AXES if points[axis].nunique() > 1 or axis == "cell"]
    numbers = list(points.columns[len(gl.frames.AXES) :])
    table = points[used + numbers].assign(figure=title)
    table.to_csv(OUT / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
    gl.figures.save(gl.figures.theory(plain, **options), OUT / name, formats=["png"])
    for line in _worst(table):
        print(f"{name}: {line}")


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
        off = (rows["deviation"] - rows["predicted_bias"].fillna(0)).abs() / rows["bound"]
        lines.append(
            f"| {label} | {len(rows)} | {worst['deviation']:+.4f} | {worst['gain']:g} "
            f"| {worst['bound']:.4f} | {off.max():.2f} "
            f"| {(~rows['within'].astype(bool)).sum()} |"
        )
    return lines


def zero_disc(run) -> gl.meanfield.Disc:
    """The disc law of a run of a GRU or LSTM with tied weights."""
    biases = {} if run.cell == "gru" else {"forget_bias": run.forget_bias}
    return gl.meanfield.disc(run.cell, run.gain, **biases)


def with_width(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with what their width adds: where it is derived, and where it is only suspected.

    `predicted_bias` is the sweep's own, and the exact linear law for tied weights at the state 0 or
    without a nonlinearity. `suspected` and `cause` are for reading a miss, and widen no bound.
    """
    biases, suspected, causes = [], [], []
    known = runs["predicted_rate"].notna()
    for run, variance in zip(runs.itertuples(), fluctuations(runs), strict=True):
        bias, effect, cause = run.predicted_bias, np.nan, ""
        if run.weights == "untied":
            if run.cell != "elman":
                effect, cause = variance, FLUCTUATION
        elif run.cell in ("gru", "lstm"):
            disc = zero_disc(run) if not run.input_scale else None
            if disc is not None:
                bias = linear_effect(run.hidden, run.length, disc.centre, disc.radius)
        elif run.activation == "linear":
            bias = linear_effect(run.hidden, run.length)
        elif run.cell == "elman":
            effect, cause = _tied(run)
        biases.append(bias)
        suspected.append(effect)
        causes.append(cause)
    return runs.assign(predicted_bias=np.where(known, biases, np.nan),
                       suspected=np.where(known, suspected, np.nan), cause=causes)  # fmt: skip


OWN_MATRIX = "ln ρ(W)/σ_w of the run's own W"
FIT = "the fit -(1 + 3k)/(4n)"
FLUCTUATION = "minus the variance per step of ln norm"


def _tied(run) -> tuple[float, str]:
    theory = gl.meanfield.elman(
        run.activation, run.gain, bias_std=run.bias_scale, input_variance=run.input_scale**2
    )
    if theory.rate > 0 and run.activation in ("tanh", "erf"):
        return theory.finite_width_bias(run.hidden), FIT
    return float(np.log(run.spectral_radius / run.gain)), OWN_MATRIX


def as_runs(rows: list[dict]) -> pd.DataFrame:
    """Exponents as a frame of `runs`: what they lack is filled with what they are."""
    common = dict(init="normal", weights="tied", input="none", inputs=1, status="ok",
                  verdict="stable", precision="float32")  # fmt: skip
    table = pd.DataFrame([common | row | dict(run_id=f"{n}") for n, row in enumerate(rows)])
    extra = ["suspected", "cause"]
    return gl.frames.runs_frame(table.drop(columns=extra)).assign(**{c: table[c] for c in extra})


HEAD = """\
# Measured against theory

{missed} of {points} points miss the bound of 3 standard errors over their seeds; 5 seeds by the law
of theory miss in 4 %. For each curve the largest deviation from theory, measured - predicted, in
nats per step (per unit of time for leaky networks), and the bound of the same point. Where seeds
agree by chance, the runs' own standard errors stand for their standard deviation, and where
there is one seed. The bound is about what the width and the length are derived to add:

- elman, untied Gaussian weights: `gl.meanfield.untied_steps`, to first order in 1/n;
- linear elman with tied weights, gru and lstm with tied weights at the state 0, exponents of leaky
  networks below g = 1: the linear map h' = (c + r W) h at that width and number of steps, by
  Monte Carlo over 64 Gaussian W (24 at n = 1,000).

Everywhere else it is about 0: no effect of the width is derived for saturating networks with tied
weights, for untied gated ones and for full spectra. What is only suspected there widens no bound
and stands in the table of misses.

σ_w = 1 without bias and input is left out of the exponents, since the state falls to 0 as a power
of time there; the sweeps have an input, which makes the approach exponential at every gain.

`closest` is the largest |deviation - derived| / bound over the points of the curve, `missed` how
many of them exceed 1. Every point is a row of the CSV file of the same name. `make theory` makes
all again.

"""


CAUSES = """\
## Why points miss

Every miss lies within its bound once the suspected effect is taken off. What speaks for each:

- Ordered, tied elman under a small drive: the slopes hardly move, so the rate is ln of the spectral
  radius of the very W, known for each run. Five seeds of n = 512 lie 0.041 above the circular law.
- Chaotic, tied elman (and leaky with δ = 1): n × deviation stays about the same from n = 64 to 256.
  At σ_w = 4 and an input of 0.1 the deviations are -0.0576(25), -0.0248(16) and -0.0098(16) for n =
  64, 128 and 256 (60, 40 and 16 other seeds), where the fit says -0.058, -0.029 and -0.015. At
  σ_w = 1.25, near criticality, they are -0.0233(27), -0.0190(42) and -0.0070(16), up to twice the
  fit's -0.018, -0.009 and -0.0045: it is too small there, but the cause is the width all the same.
- Chaotic leaky networks with δ < 1: widths n and n/2 were both measured, and differ by the effect.
- minimal_rnn, untied: the width, and that |x_t|² of 32 features scatters. At σ_w = 3 the deviations
  are -0.0181(14), -0.0114(10) and -0.0076(11) for n = 64, 128 and 256, and for n = 64 under 8, 32
  and 512 features -0.0258(14), -0.0178(15) and -0.0144(13). The variance of ln norm is a part.
"""


def _misses(table: pd.DataFrame) -> list[str]:
    """A row per point that misses: what is suspected, and whether that leaves it in its bound."""
    rows = table[table["within"].eq(False)]
    if not len(rows):
        return []
    lines = ["| missed | deviation - derived | bound | suspected | left | cause |",
             "| --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    numbers = table.columns.get_loc("runs")
    for _, row in rows.iterrows():
        off = row["deviation"] - np.nan_to_num(row["predicted_bias"])
        left = off - np.nan_to_num(row["suspected"])
        label = " ".join(f"{axis} {row[axis]:g}" if isinstance(row[axis], float) else str(row[axis])
                         for axis in table.columns[:numbers] if row[axis] == row[axis])  # fmt: skip
        remains = "" if abs(left) <= row["bound"] else "; not enough"
        lines.append(f"| {label} | {off:+.4f} | {row['bound']:.4f} | {row['suspected']:+.4f} "
                     f"| {left:+.4f} | {row['cause']}{remains} |")  # fmt: skip
    return [*lines, ""]


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


def collect() -> None:
    """Write deviations.md from the tables in results/theory."""
    tables = {name: pd.read_csv(OUT / f"{name}.csv") for name in FIGURES}
    known = pd.concat([table[table["deviation"].notna()] for table in tables.values()])
    parts = [HEAD.format(missed=int(known["within"].eq(False).sum()), points=len(known))]
    for name, table in tables.items():
        parts.append(f"## {name}\n\n{table['figure'].iloc[0]}. ![]({name}.png)\n")
        parts.append("| curve | points | largest | at gain | its bound | closest | missed |")
        parts.append("| --- | --- | --- | --- | --- | --- | --- |")
        parts += [*_worst(table), "", *_misses(table), *_beyond_theory(table)]
    parts.append(CAUSES)
    (OUT / "deviations.md").write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    collect()
