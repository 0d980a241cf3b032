"""What the six figures of rates and exponents against theory share: their CSV becomes rows."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from published.drawing import Curve, draw
from published.table import RESULTS, ROOT, Row

TOLERANCE = """The tolerance is three standard errors of the same measurement
over its seeds: the rule was stated beforehand, its size comes with the measurement."""

UNITS = {
    "largest_exponent": "exponent (nats per unit of time)",
    "full_spectrum": "exponent (nats/step)",
}


def measure(
    out: Path, name: str, source: str, curves: Sequence[str], script: str, *args: str
) -> list[Row]:
    """Run the script of a figure, which resumes its sweeps, and take the points with a theory.

    Args:
        out: where the picture goes.
        name: of the figure, and of its CSV in results/theory.
        source: of the published values.
        curves: the columns that tell one curve from the other.
        script: in experiments/.
        args: of the script.
    """
    # Idle threads of the linear algebra wait by spinning, and take the cores from JAX.
    threads = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    path = ROOT / "experiments" / script
    subprocess.run([sys.executable, str(path), *args], check=True, env=threads)
    return rows_of(out, name, source, curves)


def minutes(*sweeps: str) -> float:
    """How long the sweeps of a figure ran, which a call that only resumes them does not see."""
    paths = [RESULTS / name / "manifest.json" for name in sweeps]
    return sum(json.loads(path.read_text("utf-8"))["seconds"] for path in paths) / 60


def points_of(name: str) -> pd.DataFrame:
    """The points of results/theory/NAME.csv that have a theory."""
    table = pd.read_csv(RESULTS / "theory" / f"{name}.csv")
    return table[table["predicted_rate"].notna()]


def within_at_width(name: str) -> int:
    """How many rows of a figure would lie within if theory were that of the very width."""
    table = points_of(name)
    at_width = table["predicted_rate"] + table["predicted_bias"].fillna(0)
    return int(((table["rate"] - at_width).abs() <= table["bound"]).sum())


def rows_of(out: Path, name: str, source: str, curves: Sequence[str]) -> list[Row]:
    """A row for each point: theory at infinite width, as cited, against the measurement."""
    table = points_of(name)
    label = table[list(curves)].astype(str).agg(" ".join, axis=1)
    draw(
        out / name,
        {"": [Curve(key, rows["gain"], rows["predicted_rate"], rows["rate"])
              for key, rows in table.groupby(label, sort=False)]},
        xlabel="share of all exponents" if "spectrum" in name else "gain",
        ylabel=UNITS.get(name, "rate (nats/step)"),
    )  # fmt: skip
    what = "share" if "spectrum" in name else "gain"
    return [
        Row(f"{key}, {what} {row.gain:g}", row.predicted_rate, source, row.rate, row.bound)
        for key, row in zip(label, table.itertuples(), strict=True)
    ]
