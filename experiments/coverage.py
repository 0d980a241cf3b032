"""How often two errors cover the truth: rate_stderr of a run, disagreement of a run and of seeds.

Elman's network with untied weights, for which theory knows what the width and the length add, and
linear orthogonal networks, where it is exact. Each row of results/theory/coverage.csv is a network
of one length: the claim is 95.45 % in every column.

- rate_stderr: |rate - mean rate over the seeds| < 2 rate_stderr.
- disagreement: |disagreement| < 2, of a run.
- seeds_2, seeds_3, seeds_5: |disagreement| < 2 in the summary over as many seeds.
"""

import math
import time

import deviations
import numpy as np
import pandas as pd

import gradlab as gl
from gradlab.sweeps.gradients import Run
from gradlab.sweeps.gradients import curves as measure
from gradlab.sweeps.gradients.rows import rows_of

LENGTHS = (10, 20, 50, 200)
# Activation, initializer, gain, width, seeds.
NETWORKS = (
    ("linear", "normal", 0.9, 16, 500),
    ("tanh", "normal", 0.9, 16, 500),
    ("tanh", "normal", 2.0, 16, 500),
    ("relu", "normal", 1.2, 16, 500),
    ("linear", "normal", 0.9, 64, 200),
    ("tanh", "normal", 2.0, 64, 200),
    ("relu", "normal", 1.2, 64, 200),
    ("linear", "orthogonal", 0.9, 16, 200),
)
RUN = Run(
    cell="elman", activation="linear", init="normal", gain=1.0, weights="untied", forget_bias=None,
    input="gaussian", input_scale=0.3, bias_scale=0.0, length=10, hidden=16, inputs=32, batch=1,
    seed=0,
)  # fmt: skip
SIZE = 100  # runs mapped at once


def cover(activation: str, init: str, gain: float, hidden: int, seeds: int, length: int) -> dict:
    """One row of the table."""
    shape = {"activation": activation, "init": init, "gain": gain, "hidden": hidden}
    runs = [RUN._replace(seed=seed, length=length, **shape) for seed in range(seeds)]
    # A QR inside a large batch waits for threads that the batch holds.
    curves = measure.curves(runs, recurrent=False, size=SIZE if init == "normal" else 2)
    table = gl.frames.runs_frame(
        [
            run._asdict() | {"run_id": run.run_id} | {n: v for n, v in row.items() if n != "steps"}
            for run, row in zip(runs, rows_of(runs, curves, [{}] * seeds), strict=True)
        ]
    )
    table = table[np.isfinite(table["rate"])]
    z = (table["rate"] - table["rate"].mean()) / table["rate_stderr"]
    row = {
        **shape, "length": length, "seeds": len(table), "claimed": math.erf(2**0.5),
        "rate_stderr": covered(z), "disagreement": covered(table["disagreement"]),
    }  # fmt: skip
    for count in (2, 3, 5):
        # Groups of seeds as points of a sweep: an axis that does not matter tells them apart.
        points = table.iloc[: len(table) // count * count]
        points = points.assign(bias_scale=np.arange(len(points)) // count * 1.0)
        row[f"seeds_{count}"] = covered(gl.frames.summary(points)["disagreement"])
    return row


def covered(z: pd.Series) -> float:
    """The share of |z| < 2."""
    return float((z.abs() < 2).mean())


HEAD = """\
# How often two errors cover the truth

Share of the runs, or of the points of a sweep, whose error is below two of what gradlab says, in
percent; the claim is 95.4 in every column. Untied elman, T steps, inputs of 32 features and an
input_scale of 0.3, and so many seeds that the standard error of a share is 0.9 % (500 runs),
1.5 % (200 runs) and up to {largest:.1f} % (points of 5 seeds).

- `rate_stderr`: the mean rate of all seeds lies within 2 `rate_stderr` of a run's rate.
- `run`: |`disagreement`| of a run is below 2. `2`, `3`, `5`: that of the summary over 2, 3, 5
  seeds is. Where theory is exact (linear orthogonal networks) only float32's rounding is left, of
  which the error is a bound: all lie below 2.

`make coverage` makes this table and coverage.csv.

| network | n | T | seeds | rate_stderr | run | 2 | 3 | 5 |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def main() -> None:
    """Write coverage.csv and coverage.md."""
    began = time.monotonic()
    rows = []
    for network in NETWORKS:
        rows += [cover(*network, length) for length in LENGTHS]
        print(f"coverage: {network} after {time.monotonic() - began:.0f} s", flush=True)
    table = pd.DataFrame(rows)
    path = deviations.OUT / "coverage.csv"
    table.to_csv(path, index=False, float_format="%.4g", lineterminator="\n")
    claimed = math.erf(2**0.5)
    largest = 100 * math.sqrt(claimed * (1 - claimed) / (table["seeds"].min() // 5))
    lines = [
        f"| {r.activation} {'' if r.init == 'normal' else r.init + ' '}{r.gain:g} | {r.hidden} "
        f"| {r.length} | {r.seeds} | "
        + " | ".join(
            f"{100 * share:.1f}"
            for share in (r.rate_stderr, r.disagreement, r.seeds_2, r.seeds_3, r.seeds_5)
        )
        + " |"
        for r in table.itertuples()
    ]
    text = HEAD.format(largest=largest) + "\n".join(lines) + "\n"
    path.with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
