"""The commands of `gradlab weather`: train, evaluate, predict."""

from json import dumps as json_of
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import rich.console
import rich.table
import typer

from gradlab.applications._command import check_out

if TYPE_CHECKING:
    from gradlab.applications.weather import Forecaster, Series

app = typer.Typer(
    no_args_is_help=True,
    help="The next hours of a series: train a forecaster, evaluate, predict.",
)

Data = Annotated[
    Path | None,
    typer.Option(
        help="a CSV file with a column of times and one of values; without it, the hourly "
        "temperature of Seattle",
        metavar="FILE",
    ),
]
Time = Annotated[str | None, typer.Option(help="the column of the times, if not the first")]
Value = Annotated[str | None, typer.Option(help="the column of the values, if not the second")]
File = Annotated[Path, typer.Option(help="a file that `train` wrote", metavar="FILE")]


def _read(data: Path | None, time: str | None, value: str | None) -> "Series":
    from gradlab.applications import weather

    if data is None and (time or value):
        raise ValueError("--time and --value name columns of --data, which is not given")
    return weather.seattle() if data is None else weather.read(data, time, value)


def _compare(forecaster: "Forecaster", series: "Series") -> None:
    """Refuse a series that is not of the kind that the model learnt."""
    if series.step != forecaster.step:
        raise ValueError(f"the model has steps of {forecaster.step} s, the data of {series.step} s")
    if series.unit != forecaster.unit:
        raise ValueError(
            f"the model learnt the column {forecaster.unit!r}, and the data's is {series.unit!r}: "
            "give the column of the same quantity the same name"
        )


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="the file for the model", metavar="FILE")],
    data: Data = None,
    time: Time = None,
    value: Value = None,
    cell: Annotated[str, typer.Option(help="any cell of gradlab.cells")] = "gru",
    length: Annotated[int | None, typer.Option(help="steps that a forecast reads", min=1)] = None,
    horizon: Annotated[int | None, typer.Option(help="steps that it forecasts", min=1)] = None,
    epochs: Annotated[int | None, typer.Option(help="instead of the recipe's", min=1)] = None,
    seed: Annotated[int, typer.Option(help="of parameters and batches")] = 0,
) -> None:
    """Train on the first 70 % of the series, watch on the next 10 %, and save the forecaster."""
    from gradlab import cells
    from gradlab._names import choose
    from gradlab.applications import weather

    choose("cell", cell, cells.names())
    recipe = weather.recipe("gru", cell=cell)
    changes = {"length": length, "horizon": horizon, "epochs": epochs}
    recipe = recipe._replace(**{name: n for name, n in changes.items() if n is not None})
    out = check_out(out)
    series = _read(data, time, value)
    print(series.describe(), flush=True)
    held_out = series.part("validation", before=recipe.length)

    def watch(epoch: int, forecaster: "Forecaster", loss: float) -> None:
        if epoch and epoch % max(recipe.epochs // 10, 1) == 0:
            error = weather.evaluate(forecaster, held_out)[cell].mean()
            print(
                f"epoch {epoch} of {recipe.epochs}: loss {loss:.2g}, "
                f"error on validation {error:.3g} {series.unit}",
                flush=True,
            )

    weather.save(weather.train(recipe, series.part("fit"), seed=seed, watch=watch), out)
    print(f"saved as {out}")


@app.command()
def evaluate(
    model: File,
    data: Data = None,
    time: Time = None,
    value: Value = None,
    part: Annotated[str, typer.Option(help="fit, validation or test, the last fifth")] = "test",
) -> None:
    """Print the error at some horizons, next to what persistence, season and regression give."""
    from gradlab.applications import weather

    forecaster = weather.load(model)
    series = _read(data, time, value)
    _compare(forecaster, series)
    series = series.part(part, before=forecaster.recipe.length)
    scores = weather.evaluate(forecaster, series)
    horizon = forecaster.recipe.horizon
    horizons = sorted({1, -(-horizon // 4), -(-horizon // 2), horizon})
    table = rich.table.Table(
        title=f"root mean squared error in {series.unit}, {part} part of {series.name}",
        title_justify="left",
    )
    table.add_column("forecast")
    for j in horizons:
        table.add_column(f"{j} steps" if j > 1 else "1 step", justify="right")
    for name, errors in scores.items():
        table.add_row(name, *(f"{errors[j - 1]:.3f}" for j in horizons))
    rich.console.Console().print(table)


@app.command()
def predict(
    model: File,
    data: Data = None,
    time: Time = None,
    value: Value = None,
    json: Annotated[bool, typer.Option("--json", help="a JSON object for each step")] = False,
) -> None:
    """Print the forecast of the steps after the end of a series."""
    from gradlab.applications import weather

    forecaster = weather.load(model)
    series = _read(data, time, value)
    _compare(forecaster, series)
    says = weather.forecast(forecaster, series.values)
    after = series.times()[-1] + np.arange(1, len(says) + 1) * np.timedelta64(series.step, "s")
    for at, number in zip(after, says, strict=True):
        row = {"time": str(at), "forecast": round(float(number), 6)}
        print(json_of(row) if json else f"{at}  {number:.2f} {series.unit}")
