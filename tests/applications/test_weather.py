"""Weather: series, rules, forecasters, how far the gradient reaches, files, commands."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

from gradlab import _arrays, cells, weather
from gradlab.applications.weather import command, learn, models

START = np.datetime64("2020-01-01T00:00", "s")


def wave(count=400, seed=0):
    """A day's cycle with a slow drift and some chance."""
    t = np.arange(count)
    noise = np.random.RandomState(seed).randn(count)
    values = 50 + 8 * np.sin(2 * np.pi * t / 24) + 3 * np.sin(t / 60) + 0.2 * noise
    return weather.Series(values, weather.HOUR, START, "°F", "a wave")


# Series.


def test_seattle_is_the_task_of_the_registry():
    series = weather.seattle()
    assert (len(series.values), series.step, series.period) == (8760, 3600, 24)
    assert str(series.times()[-1]) == "2010-12-31T23:00:00"
    # The test part begins where the task's held out windows do, on 20 October.
    assert str(series.part("test").start) == "2010-10-20T00:00:00"


def test_parts_are_the_series_one_after_another():
    series = wave(101)
    parts = [series.part(name) for name in weather.PARTS]
    assert [len(part.values) for part in parts] == [70, 10, 21]
    np.testing.assert_array_equal(np.concatenate([p.values for p in parts]), series.values)
    np.testing.assert_array_equal(np.concatenate([p.times() for p in parts]), series.times())
    more = series.part("test", before=5)
    np.testing.assert_array_equal(more.values, series.values[75:])
    assert more.start == series.times()[75]
    np.testing.assert_array_equal(series.part("fit", before=5).values, parts[0].values)


def write(tmp_path, *lines):
    path = tmp_path / "a.csv"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def test_a_file_is_read_and_its_gap_lies_on_a_line(tmp_path):
    hours = [hour for hour in range(40) if hour != 17]
    lines = [f"2020/02/{28 + h // 24:02d} {h % 24:02d}:00,x,{h * h}" for h in hours]
    series = weather.read(write(tmp_path, "date,what,temp", *lines), value="temp")
    expected = np.arange(40.0) ** 2
    expected[17] = (16**2 + 18**2) / 2
    np.testing.assert_allclose(series.values, expected)
    assert (series.step, series.unit, series.name) == (3600, "temp", "a.csv")
    assert str(series.start) == "2020-02-28T00:00:00"


def test_days_have_the_period_of_a_week(tmp_path):
    series = weather.read(
        write(tmp_path, "day,rain", *(f"2020-01-{d:02d},{d}" for d in range(1, 9)))
    )
    assert (series.period, series.step) == (7, weather.DAY)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["date"], "its first line must name a column of times and one of values"),
        (["date,t", "2020-01-01,1"], "1 values are no series"),
        (["date,t", "2020-01-01,1", "2020-01-02"], "line 3: 1 columns instead of 2"),
        (["date,t", "yesterday,1"], "line 2: 'yesterday' is no time"),
        (["date,t", "2020-01-01,warm"], "line 2: 'warm' is no finite number"),
        (["date,t", "2020-01-01,nan"], "line 2: 'nan' is no finite number"),
        (["date,t", "2020-01-02,1", "2020-01-01,1"], "line 3: 2020-01-01T00:00:00 is not after"),
        (
            ["date,t", "2020-01-01,1", "2020-01-02,1", "2020-01-03,1", "2020-01-03T05:00,1"],
            "is no multiple of the step, 86400 s",
        ),
        (
            ["date,t", "2020-01-01,1", "2020-01-02,1", "2020-01-03,1", "2020-01-09,1"],
            "5 of 9 steps of 86400 s have no value",
        ),
    ],
)
def test_a_file_that_is_no_series_is_refused(tmp_path, lines, message):
    with pytest.raises(ValueError, match=message):
        weather.read(write(tmp_path, *lines))


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "b.csv").write_bytes(b"date,t\n2020-01-01,1\n\xff\n")
    with pytest.raises(ValueError, match=r"b.csv, line 3: not UTF-8"):
        weather.read(tmp_path / "b.csv")
    with pytest.raises(OSError, match="none: cannot be read"):
        weather.read(tmp_path / "none")
    with pytest.raises(ValueError, match="unknown column of a.csv 'temp'"):
        weather.read(write(tmp_path, "date,t", "2020-01-01,1"), value="temp")


# Rules.


def test_rules_against_loops():
    values = wave(80).values
    past, future = weather.windows(values, 30, 26)
    assert len(past) == 80 - 56 + 1
    persistence = models.persistence(past, 26)
    seasonal = models.seasonal(past, 26, 24)
    for i in range(len(past)):
        now = i + 29
        for j in range(1, 27):
            assert future[i, j - 1] == values[now + j]
            assert persistence[i, j - 1] == values[now]
            last_day = now + j - 24 * math.ceil(j / 24)
            assert seasonal[i, j - 1] == values[last_day]


def test_linear_finds_an_autoregression_of_two_steps():
    stretches = np.random.RandomState(0).uniform(-1, 1, (60, 2))
    future = 0.6 * stretches[:, 1] - 0.3 * stretches[:, 0] + 0.5
    weights = models.fit_linear(stretches, future[:, None])
    np.testing.assert_allclose(weights[:, 0], [-0.3, 0.6, 0.5], atol=1e-12)
    np.testing.assert_allclose(models.linear(stretches, weights)[:, 0], future, atol=1e-12)


# Forecasters.

TINY = weather.Recipe("gru", hidden=8, length=30, horizon=6, batch=16, epochs=12, rate=0.02)


@pytest.fixture(scope="module")
def trained():
    seen = []
    watch = lambda epoch, made, loss: seen.append((epoch, loss, made))  # noqa: E731
    return weather.train(TINY, wave().part("fit"), watch=watch), seen


def test_a_cycle_is_learnt(trained):
    made, seen = trained
    errors = weather.evaluate(made, wave().part("test"))
    assert set(errors) == {"persistence", "seasonal", "linear", "gru"}
    assert errors["gru"][-1] < 0.5 * errors["persistence"][-1]
    assert [epoch for epoch, _, _ in seen] == [*range(TINY.epochs + 1)]
    assert math.isnan(seen[0][1]) and seen[-1][1] < 0.5 * seen[1][1]


def test_the_task_draws_stretches_of_the_series():
    values = wave(60).values
    task = learn.task(values, 30, 6)
    xs, target = jax.vmap(task.sample)(jax.random.split(jax.random.key(0), 400))
    places = {value: i for i, value in enumerate(values.tolist())}
    first = [places[x] for x in np.asarray(xs)[:, 0, 0].tolist()]
    assert min(first) == 0 and max(first) == 24
    for place, x, y in zip(first, np.asarray(xs)[..., 0], np.asarray(target), strict=True):
        np.testing.assert_array_equal(x, values[place : place + 30])
        np.testing.assert_allclose(y, values[place + 30 : place + 36] - values[place + 29])


def test_forecast_is_the_network_in_the_series_unit(trained):
    made, _ = trained
    past = wave(40, seed=3).values
    z = (past[-30:] - made.mean) / made.spread
    expected = z[-1] + np.asarray(made.network.apply(made.params, jnp.asarray(z[:, None])))
    found = weather.forecast(made, past)
    np.testing.assert_allclose(found, expected * made.spread + made.mean, rtol=1e-6)
    with pytest.raises(ValueError, match="reads 30 values, and there are 29"):
        weather.forecast(made, past[:29])
    with pytest.raises(ValueError, match="not all of the values .* are finite"):
        weather.forecast(made, np.where(np.arange(40) == 35, np.nan, past))


def test_errors_are_root_mean_squares_over_windows(trained):
    made, _ = trained
    series = wave(90, seed=2)
    errors = weather.evaluate(made, series)
    squares = []
    for i in range(90 - 36 + 1):
        says = weather.forecast(made, series.values[i : i + 30])
        squares.append((says - series.values[i + 30 : i + 36]) ** 2)
    np.testing.assert_allclose(errors["gru"], np.sqrt(np.mean(squares, axis=0)), rtol=1e-6)
    last_day = [series.values[i + 6 : i + 12] - series.values[i + 30 : i + 36] for i in range(55)]
    seasonal = np.sqrt(np.mean(np.square(last_day), axis=0))
    np.testing.assert_allclose(errors["seasonal"], seasonal, rtol=1e-10)


def test_reach_against_derivatives_by_hand(trained):
    """The adjoint of step t is that of a network that goes on from h_t."""
    made, _ = trained
    series = wave(36, seed=5)
    found = weather.reach(made, series, horizon=4)
    assert found.shape == (1, 30)
    cell = cells.make("gru", inputs=1, hidden=8)
    z = made.standardize(series.values[:30])[:, None]
    weights, readout = made.params["cell"], made.params["readout"]

    def after(h, first):
        for x in z[first:]:
            h = cell.step(weights, h, jnp.asarray(x))
        return readout["weight"][3] @ h + readout["bias"][3]

    states = [cell.start()]
    for x in z:
        states.append(cell.step(weights, states[-1], jnp.asarray(x)))
    for lag in (0, 1, 7, 20):
        steps = 30 - lag
        norms = [jnp.linalg.norm(jax.grad(after)(states[n], n)) for n in (steps, 30)]
        expected = float(jnp.log(norms[0] / norms[1]))
        assert found[0, lag] == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match="the horizon is 1 to 6, got 7"):
        weather.reach(made, series, horizon=7)


@pytest.mark.parametrize(
    ("recipe", "series", "message"),
    [
        (TINY._replace(length=23), wave(), "23 steps does not see a whole period of 24"),
        (TINY, wave(35), "35 values are fewer than the 30 .* and the 6"),
        (TINY, wave()._replace(values=np.ones(99)), "all 99 values are the same"),
        (
            TINY._replace(rate=1e38, decay=1e6, epochs=1),
            wave(),
            "gru: update \\d gave a loss or weights",
        ),
    ],
)
def test_what_cannot_be_learnt_is_said(recipe, series, message):
    with pytest.raises(ValueError, match=message):
        weather.train(recipe, series)


# Files.


@pytest.fixture(scope="module")
def path(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "model"
    weather.save(trained[0], path)
    return path


def test_saved_and_loaded_forecasts_the_same(trained, path):
    again = weather.load(path)
    past = wave(30, seed=9).values
    np.testing.assert_array_equal(weather.forecast(again, past), weather.forecast(trained[0], past))
    np.testing.assert_array_equal(again.linear, trained[0].linear)
    assert again[:6] == trained[0][:6]


@pytest.mark.parametrize(
    "change",
    [
        lambda about, _: about.update(version=0),
        lambda about, _: about.update(format="gradlab sentiment model"),
        lambda about, _: about.update(spread=0),
        lambda about, _: about.update(mean=math.nan),
        lambda about, _: about.update(period=31),
        lambda about, _: about.update(step="hour"),
        lambda about, _: about["recipe"].update(cell="grv"),
        lambda about, _: about["recipe"].update(length=10**9),
        lambda about, _: about["recipe"].update(rate=-1),
        lambda about, _: about["recipe"].update(colour="red"),
        lambda _, arrays: arrays["linear"].fill(np.inf),
        lambda _, arrays: arrays["params/readout/bias"].fill(np.nan),
        lambda _, arrays: arrays.pop("params/readout/bias"),
    ],
)
def test_a_file_with_nonsense_in_it_is_refused(path, tmp_path, change):
    about, arrays = _arrays.read(path)
    change(about, arrays)
    _arrays.write(tmp_path / "other", about, arrays)
    with pytest.raises(ValueError) as caught:
        weather.load(tmp_path / "other")
    assert len(str(caught.value)) <= 600


# The command line.


def run(*arguments):
    return CliRunner().invoke(command.app, list(map(str, arguments)))


def test_train_evaluate_predict(tmp_path, path):
    series = wave(200)
    lines = [f"{t},{v}" for t, v in zip(series.times(), series.values, strict=True)]
    data = write(tmp_path, "time,°F", *lines)
    model = tmp_path / "deep" / "model"
    options = ("--cell", "elman", "--length", 24, "--horizon", 2, "--epochs", 1)
    done = run("train", "--out", model, "--data", data, *options)
    assert done.exit_code == 0, done.output
    assert "200 values of a.csv (°F), one every hour" in done.output
    assert weather.load(model).recipe[:4] == ("elman", 32, 24, 2)

    done = run("evaluate", "--model", path, "--data", data)
    assert done.exit_code == 0, done.output
    rows = {line.split()[1]: line for line in done.output.splitlines() if "│" in line}
    expected = weather.evaluate(weather.load(path), series.part("test", before=30))
    assert all(f"{values[0]:.3f}" in rows[name] for name, values in expected.items())

    done = run("predict", "--model", path, "--data", data, "--json")
    found = [json.loads(line) for line in done.output.splitlines()]
    says = weather.forecast(weather.load(path), series.values)
    assert [row["forecast"] for row in found] == [round(float(x), 6) for x in says]
    assert found[0]["time"] == "2020-01-09T08:00:00"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--out", "x", "--cell", "no"], "unknown cell 'no'"),
        (["train", "--out", "."], "is a folder"),
        (["train", "--out", "x", "--value", "temp"], "name columns of --data"),
        (["evaluate", "--model", "none"], "none: there is no such file"),
        (["evaluate", "--model", "MODEL", "--part", "no"], "unknown part 'no'"),
        (["predict", "--model", "MODEL", "--data", "DAYS"], "steps of 3600 s, the data of 86400 s"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path, path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    days = write(tmp_path, "day,t", *(f"2020-01-{d:02d},{d}" for d in range(1, 31)))
    names = {"MODEL": str(path), "DAYS": str(days)}
    done = run(*(names.get(each, each) for each in arguments))
    assert isinstance(done.exception, ValueError | OSError)
    with pytest.raises(type(done.exception), match=message):
        raise done.exception


@pytest.mark.parametrize(("text", "message"), [
    ("time,x\n1577836800,1\n1577840400,2\n", "line 2: '1577836800' is no time such as"),
    ("time,x\ntoday,1\n", "line 2: 'today' is no time"),
    ("time,x\n2020-01-01 00:00+02:00,1\n", "is no time such as .* without an offset"),
    ("time,x\n2020-01-01 00:00,1_5\n", "line 2: '1_5' is no finite number"),
    ("2020-01-01 00:00,1\n2020-01-01 01:00,2\n", "its first line must name a column"),
    ("time,x\n2020-01-01 00:00,1\n2020-01-01 07:00,2\n", "a day is no whole number of steps of 25"),
    ("time,x\n2020-01-01 00:00,a\rb\n", "line 2: new-line character|is no finite number"),
])  # fmt: skip
def test_what_is_no_series_is_refused(tmp_path, text, message):
    path = tmp_path / "series.csv"
    path.write_bytes(text.encode())
    with pytest.raises(ValueError, match=message):
        weather.read(path)


def test_steps_longer_than_a_day_have_no_period(tmp_path):
    path = tmp_path / "weeks.csv"
    path.write_text("time,x\n2020-01-01,1\n2020-01-08,2\n2020-01-15,3\n")
    assert weather.read(path).period == 1


@pytest.mark.parametrize(("values", "message"), [
    (np.full(300, 0.1), "all 300 values are the same"),
    (np.where(np.arange(300) == 7, np.nan, 1.0), "a value is not finite"),
])  # fmt: skip
def test_a_series_without_a_spread_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        weather.train(TINY, wave()._replace(values=values))
