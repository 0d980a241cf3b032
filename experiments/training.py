"""The table of the training experiments, from the summaries that their sweeps left.

Writes results/training/table.md: a row per point of each experiment's grid.
"""

from pathlib import Path

import pandas as pd

OUT = Path(__file__).parent.parent / "results" / "training"
SHOWN = ("runs", "solved", "solved_step_median", "nonfinite", "loss_median", "error_median")


def table(summary: pd.DataFrame) -> str:
    """The points in Markdown, without the columns in which they agree."""
    axes = [name for name in summary if name not in (*SHOWN, "baseline")]
    varying = [name for name in axes if summary[name].nunique(dropna=False) > 1]
    shown = [name for name in (*SHOWN, "baseline") if name in summary]
    points = summary[[*varying, *shown]]
    lines = [points.columns.str.replace("_", " "), ["---"] * points.shape[1]]
    lines += [[f"{v:.4g}" if isinstance(v, float) else v for v in row] for row in points.values]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def main() -> None:
    """Put together every summary that is there."""
    parts = ["# What training was published to do: every point of each grid, over its seeds"]
    for path in sorted(OUT.glob("*/summary.csv")):
        parts += [f"## {path.parent.name}", table(pd.read_csv(path))]
    text = "\n\n".join(parts) + "\n"
    (OUT / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
