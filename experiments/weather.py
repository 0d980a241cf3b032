"""The next hour and the next day of a series: three cells against three rules, and their gradient.

    python experiments/weather.py [DATA]

Without DATA, a CSV file with a column of times and one of values, it is the temperature of every
hour of a year in Seattle, climate normals from vega_datasets. Elman's network, the LSTM and the GRU
learn the first 70 % of the series; what is measured is its last fifth, against persistence, the
same hour of the day before, and a linear autoregression on the same windows.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

from gradlab import figures, weather

ROOT = Path(__file__).parents[1]
OUT = ROOT / "results" / "weather"
SEEDS = (0,)


def run(name: str, series: weather.Series, seed: int) -> tuple[weather.Forecaster, ...]:
    """The forecaster before and after training."""
    recipe = weather.recipe(name)
    held_out = series.part("validation", before=recipe.length)
    both = {}

    def watch(epoch: int, forecaster: weather.Forecaster, loss: float) -> None:
        both[epoch] = forecaster
        if epoch and epoch % 20 == 0:
            errors = weather.evaluate(forecaster, held_out)[name]
            print(
                f"{name:8} seed {seed}  epoch {epoch}  loss {loss:.2g}  validation, next hour "
                f"{errors[0]:.3f}, next day {errors[-1]:.3f} {series.unit}",
                flush=True,
            )

    last = weather.train(recipe, series.part("fit"), seed=seed, watch=watch)
    return both[0], last


def main() -> None:
    """Measure all cells and rules on the series that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path)
    args = parser.parse_args()
    series = weather.read(args.data) if args.data else weather.seattle()
    out = OUT if args.data is None else ROOT / "build" / "weather"
    print(series.describe())
    about = "about 3 minutes of one core for a year of hours"
    print(f"{len(weather.RECIPES)} models, {about}", flush=True)
    # Each value of the part is forecast, the first from what was before it.
    test = series.part("test", before=weather.RECIPES["gru"].length)
    began = time.monotonic()
    week, errors, reach = [], [], []
    for name in weather.RECIPES:
        for seed in SEEDS:
            before, after = run(name, series, seed)
            scores = weather.evaluate(after, test)
            for model, values in scores.items():
                # The rules have no seed: one row says it.
                if model == name or (seed == SEEDS[0] and name == "elman"):
                    rows = {"model": model, "seed": seed, "horizon": 1 + np.arange(len(values))}
                    errors.append(pd.DataFrame(rows | {"rmse": values}))
            if seed == SEEDS[0]:
                reach += [reaches(each, test, each is after) for each in (before, after)]
                week.append(one_week(after, test))
    frame, far, days = pd.concat(errors), pd.concat(reach), pd.concat(week)
    write(frame, far, days, out, series)
    print(f"{time.monotonic() - began:.0f} s")


def reaches(forecaster: weather.Forecaster, test: weather.Series, trained: bool) -> pd.DataFrame:
    """The median over windows of the adjoint by lag, for the next hour and the next day."""
    parts = []
    for horizon in (1, forecaster.recipe.horizon):
        median = np.median(weather.reach(forecaster, test, horizon), axis=0)
        rows = {"lag": np.arange(len(median)), "log_relative": median.round(4)}
        facts = {"model": forecaster.recipe.cell, "horizon": horizon, "trained": trained}
        parts.append(pd.DataFrame(facts | rows))
    return pd.concat(parts)


def one_week(forecaster: weather.Forecaster, test: weather.Series) -> pd.DataFrame:
    """Seven periods of the test part, the first that both horizons reach."""
    forecasts, (first, last) = weather.forecasts(forecaster, test), (1, forecaster.recipe.horizon)
    count = min(7 * test.period, len(forecasts["truth"]) - last + 1)
    parts = []
    for horizon in (first, last):
        # Row i forecasts step length + i + horizon - 1: the same hours for both horizons.
        rows = slice(last - horizon, last - horizon + count)
        column = {"truth": forecasts["truth"][rows, horizon - 1].round(3)}
        column["forecast"] = forecasts[forecaster.recipe.cell][rows, horizon - 1].round(3)
        facts = {"model": forecaster.recipe.cell, "horizon": horizon, "hour": np.arange(count)}
        parts.append(pd.DataFrame(facts | column))
    return pd.concat(parts)


def write(
    errors: pd.DataFrame, reach: pd.DataFrame, week: pd.DataFrame, out: Path, series: weather.Series
) -> None:
    """The frames as CSV, the errors of three horizons as Markdown, and the figure."""
    out.mkdir(parents=True, exist_ok=True)
    errors = errors.assign(rmse=errors["rmse"].round(5))
    errors.to_csv(out / "errors.csv", index=False)
    reach.to_csv(out / "reach.csv", index=False)
    most = int(errors["horizon"].max())
    shown = [1, most // 4, most]
    lines = [
        f"| error in {series.unit}, mean of seeds | {' | '.join(f'{h} ahead' for h in shown)} |"
    ]
    lines.append("| --- " * (1 + len(shown)) + "|")
    for model, rows in errors.groupby("model", sort=False):
        means = rows.groupby("horizon")["rmse"].mean()
        lines.append(f"| {model} | {' | '.join(f'{means[h]:.3f}' for h in shown)} |")
    (out / "errors.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    # The week that is drawn is that of the first model.
    order = ["gru", "lstm", "elman"]
    week = week.sort_values("model", key=lambda column: column.map(order.index), kind="stable")
    week.to_csv(out / "week.csv", index=False)
    fig = figures.weather(week, errors, reach, series.unit, period=series.period)
    figures.save(fig, out / "weather")


if __name__ == "__main__":
    main()
