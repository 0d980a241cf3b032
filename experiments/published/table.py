"""The table of published figures: run a figure's module, put its rows into the CSV, write the page.

A figure is a module of this package with

- PAPER, PLACE: whose figure it is, and where in the paper;
- MAP: (equation, function, test) for each equation that its rows rest on;
- NOTES: what a reader must know, above all where rows are not within their tolerance;
- measure(out): what makes out/NAME.png and returns the rows. Tolerances are in the module, so they
  are stated before anything runs. A module that takes the data of a longer run also has minutes(),
  which says how long that run took, and EXPERIMENT, where `make training` makes that run.
"""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from filelock import FileLock

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
COLUMNS = ("figure", "paper", "place", "quantity", "published", "source", "measured", "error",
           "tolerance", "within", "command", "minutes")  # fmt: skip


class Row(NamedTuple):
    """One quantity of a figure.

    Attributes:
        quantity: what it is, unique in the figure, with its unit where it has one.
        published: the paper's number, or that of the paper's formula.
        source: where that was read: an address, an equation; "formula" where it is computed.
        measured: what came out here. A verdict is 1 or 0.
        tolerance: the largest |measured - published| that counts as the same.
    """

    quantity: str
    published: float
    source: str
    measured: float
    tolerance: float


def load(names: Iterable[str]) -> dict[str, Any]:
    """The modules of the figures, by name."""
    return {name: importlib.import_module(f"published.{name}") for name in names}


def command_of(name: str, module: Any) -> str:
    """What measures a figure from the start."""
    command = f"make published FIGURE={name}"
    if hasattr(module, "EXPERIMENT"):
        return f"make training EXPERIMENTS={module.EXPERIMENT} && {command}"
    return command


def read(path: Path) -> pd.DataFrame:
    """The table as it stands; empty where there is none."""
    return pd.read_csv(path) if path.exists() else pd.DataFrame(columns=list(COLUMNS))


def frame(name: str, module: Any, rows: Iterable[Row], minutes: float) -> pd.DataFrame:
    """The rows of a figure in the columns of the table.

    Numbers are rounded to ten digits first, so that the file says of itself what is within.
    """
    records = []
    for row in rows:
        published, measured, tolerance = (
            _round(x) for x in (row.published, row.measured, row.tolerance)
        )
        if math.isnan(published) or not tolerance >= 0:
            raise ValueError(f"{name}, {row.quantity}: no published value, or no tolerance")
        error = _round(abs(measured - published))
        # A comparison with NaN is False: what was not measured is not within.
        values = (name, module.PAPER, module.PLACE, row.quantity, published, row.source, measured,
                  error, tolerance, error <= tolerance, command_of(name, module),
                  round(minutes, 2))  # fmt: skip
        records.append(dict(zip(COLUMNS, values, strict=True)))
    table = pd.DataFrame(records, columns=list(COLUMNS))
    if table["quantity"].duplicated().any():
        raise ValueError(f"{name}: two rows of one quantity")
    return table


def _round(value: float) -> float:
    return float(f"{float(value):.10g}")


def run(
    figures: Mapping[str, Any],
    results: Path,
    names: Iterable[str] = (),
    say: Callable[[str], object] = print,
) -> pd.DataFrame:
    """Measure figures into results/published.csv, and write results/published.md.

    Args:
        figures: the modules, by name, in the order of the table.
        results: the folder of the table; pictures go into its folder `published`.
        names: the figures to measure, also where their rows stand. Without names: every figure
            whose rows are missing, so that a second call resumes the first.
        say: takes a line of progress.

    Returns:
        The whole table.

    Raises:
        ValueError: for an unknown figure, or rows that say nothing.
    """
    unknown = [name for name in names if name not in figures]
    if unknown:
        raise ValueError(f"no figure {', '.join(unknown)}; there are {', '.join(figures)}")
    path = results / "published.csv"
    out = results / "published"
    out.mkdir(parents=True, exist_ok=True)
    stands = set(read(path)["figure"])
    for name in names or [name for name in figures if name not in stands]:
        module = figures[name]
        began = time.monotonic()
        rows = list(module.measure(out))
        took = (time.monotonic() - began) / 60
        minutes = max(took, module.minutes()) if hasattr(module, "minutes") else took
        new = frame(name, module, rows, minutes)
        # Another process may have measured another figure meanwhile.
        with FileLock(path.with_suffix(".lock")):
            table = _replace(read(path), name, new, list(figures))
            _write(path, table)
            write_page(table, figures, results)
        say(f"{name}: {new['within'].sum()} of {len(new)} rows within, {minutes:.1f} minutes")
    table = read(path)
    write_page(table, figures, results)
    return table


def _replace(table: pd.DataFrame, name: str, rows: pd.DataFrame, order: list[str]) -> pd.DataFrame:
    """The table with a figure's rows in place of those it had, in the order of the figures."""
    others = table[table["figure"] != name]
    merged = pd.concat([part for part in (others, rows) if len(part)], ignore_index=True)
    rank = merged["figure"].map({figure: i for i, figure in enumerate(order)}).fillna(len(order))
    return merged.iloc[rank.argsort(kind="stable")].reset_index(drop=True)


def _write(path: Path, table: pd.DataFrame) -> None:
    """Write and rename, so that a kill leaves the old table or the new one."""
    part = path.with_suffix(".part")
    table.to_csv(part, index=False, lineterminator="\n")
    part.replace(path)


HEAD = """\
# Published figures, measured again

{figures} figures, {rows} rows, of which {within} lie within a tolerance whose rule was
stated before they were measured; {minutes:.0f} minutes in all, on two cores that other work shared.
[published.csv](published.csv) has every row: the published value and where it was read, what was
measured, the error. `make published` measures the figures whose rows are missing, `make published
FIGURE=NAME` one of them again. {readers}This page is made from the table.

| figure | paper | rows | within | minutes |
| --- | --- | --- | --- | --- |
"""

READERS = """\
These read what `make training` measured, and measure nothing
themselves: {names}. Their command measures first.
"""

LEFT_OUT = """
## Left out

- Arjovsky, Shah & Bengio (2016): learning curves of the unitary network. Its product of
  reflections and Fourier transforms is none of gradlab's cells.
- Le, Jaitly & Hinton (2015): permuted MNIST, 784 steps for an image. gradlab has no MNIST (its
  task `digits` has 1,797 small images), and a curve would take more than an hour on two cores.
- Engelken (2023): delayed XOR. [flossed_order](#flossed_order) has temporal order in its place,
  where two inputs far apart decide as well.
- Kerg et al. (2019): Fisher memory of their non-normal networks.
  [fisher_memory](#fisher_memory) has the delay lines of Ganguli et al. alone.
- Tallec & Ollivier (2018): copying over longer delays, for more than an hour each.
"""


def write_page(table: pd.DataFrame, figures: Mapping[str, Any], results: Path) -> None:
    """Write results/published.md from the table and what the modules say of themselves."""
    stand = {name: module for name, module in figures.items() if name in set(table["figure"])}
    minutes = table.groupby("figure")["minutes"].first()
    readers = [name for name, module in stand.items() if hasattr(module, "EXPERIMENT")]
    text = HEAD.format(
        figures=len(stand), rows=len(table), within=int(table["within"].sum()),
        minutes=minutes.sum(),
        readers=READERS.format(names=", ".join(readers)) if readers else "",
    )  # fmt: skip
    for name, module in stand.items():
        rows = table[table["figure"] == name]
        text += (
            f"| [{name}](#{name}) | {module.PAPER} | {len(rows)} | {int(rows['within'].sum())} "
            f"| {minutes[name]:.1f} |\n"
        )
    text += "\n## Equations, functions and tests\n\n| figure | equation | function | test |\n"
    text += "| --- | --- | --- | --- |\n"
    for name, module in stand.items():
        for equation, function, test in module.MAP:
            text += f"| {name} | {_cell(equation)} | `{function}` | `{test}` |\n"
    for name, module in stand.items():
        text += f"\n{_section(name, module, table[table['figure'] == name])}"
    (results / "published.md").write_text(text + LEFT_OUT, encoding="utf-8")


def _section(name: str, module: Any, rows: pd.DataFrame) -> str:
    text = f"## {name}\n\n{module.PAPER}: {module.PLACE}.\n\n{module.NOTES.strip()}\n\n"
    text += f"![{name}](published/{name}.png)\n"
    missed = rows[~rows["within"].astype(bool)]
    if len(missed):
        text += "\n| not within | published | measured | error | tolerance |\n"
        text += "| --- | --- | --- | --- | --- |\n"
        for row in missed.itertuples():
            numbers = (row.published, row.measured, row.error, row.tolerance)
            text += f"| {_cell(row.quantity)} | {' | '.join(f'{x:.4g}' for x in numbers)} |\n"
    return text


def _cell(text: str) -> str:
    """Text for a cell of a Markdown table, in which a bar would start the next one."""
    return text.replace("|", "\\|")
