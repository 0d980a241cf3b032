"""`gradlab reproduce` notices whatever differs by more than two machines can differ by."""

import numpy as np
import pandas as pd
import pytest

from gradlab import decay, frames

# Rate, its error within a run, length: ordered; ordered and long; amplified but not chaotic;
# chaotic; chaotic at the border of a verdict; a linear network, which rounds and no more.
POINTS = {
    0.5: (-0.7, 0.01, 10),
    0.75: (-0.1, 0.004, 300),
    1.0: (0.05, 0.02, 64),
    1.5: (0.3, 0.008, 100),
    1.75: (0.016, 0.005, 1000),
    2.0: (0.69, 1e-8, 100),
}


def runs():
    rng = np.random.default_rng(0)
    rows = []
    for gain, (rate, stderr, length) in POINTS.items():
        for seed in range(5):
            mine = rate + stderr * rng.normal()
            crossing = 16 / abs(mine)
            crosses = crossing < length - 1
            rows.append(
                {
                    "run_id": f"{gain} {seed}",
                    "cell": "lstm",
                    "init": "normal",
                    "gain": gain,
                    "weights": "tied",
                    "forget_bias": 1.0,
                    "input": "gaussian",
                    "input_scale": 0.3,
                    "bias_scale": 0.0,
                    "length": length,
                    "hidden": 128,
                    "inputs": 32,
                    "batch": 1,
                    "seed": seed,
                    "precision": "float32",
                    "status": "ok",
                    "verdict": ("stable", "exploding" if mine > 0 else "vanishing")[crosses],
                    "rate": mine,
                    "rate_stderr": stderr,
                    "theory": "mean field",
                    "predicted_rate": rate,
                    "predicted_bias": 0.001,
                    "log_gain": mine * length,
                    "horizon": int(crossing) if crosses else None,
                    "spectral_radius": gain * 1.01,
                    "largest_singular_value": 2 * gain,
                    "smallest_singular_value": gain / 1000,
                    "log10_condition": np.log10(2000),
                    "orthogonality_error": 2.8,
                    "non_normality": 0.7,
                    "time_constant_median": 3.2,
                    "time_constant_min": 3.2,
                    "time_constant_max": np.inf if gain == 0.5 else 3.2,
                }
            )
    return frames.runs_frame(rows)


SUMMARY = frames.summary(runs())


def bounds(name):
    return np.broadcast_to(frames.SUMMARY[name].tolerance(SUMMARY), len(SUMMARY))


def differs(expected, summary=SUMMARY):
    """The columns that do not agree."""
    table = frames.compare(summary, expected).set_index("column")
    return set(table.index[~table["agrees"]])


def test_every_column_is_declared_and_compared():
    assert list(SUMMARY.columns) == [*frames.GRADIENTS.point, *frames.SUMMARY]
    table = frames.compare(SUMMARY, SUMMARY)
    assert table["column"].tolist() == list(frames.SUMMARY) and table["agrees"].all()
    assert (table["difference"] == 0).all() and (table["points"] == 0).all()


def moved(name, steps):
    return SUMMARY.assign(**{name: SUMMARY[name] + steps})


@pytest.mark.parametrize("name", frames.SUMMARY)
def test_twice_the_tolerance_is_noticed_and_a_tenth_is_not(name):
    def points(expected):
        return frames.compare(SUMMARY, expected).set_index("column").loc[name, "points"]

    bound = bounds(name)
    if frames.SUMMARY[name].dtype == "str":
        assert points(moved(name, "!")) == len(SUMMARY)
        return
    present = np.isfinite(bound) & np.isfinite(SUMMARY[name].to_numpy(float))
    assert present.sum() >= 2, "the summary has no numbers in this column"
    # Where nothing is too small: one run more, one run of five, a unit in the last place.
    count = frames.SUMMARY[name].dtype == "int64"
    least = 1 if count else 0.2 if SUMMARY[name].isin((0, 1)).all() else 1e-15
    bound = np.where(present, bound, 0)
    steps = np.where(bound > 0, 2 * bound, least * present)
    for sign in (1, -1):
        assert points(moved(name, (sign * steps).astype(int if count else float))) == present.sum()
        if not count:
            assert points(moved(name, sign * bound / 10)) == 0


@pytest.mark.parametrize("name", frames.SUMMARY)
def test_a_number_against_nan_is_noticed(name):
    if frames.SUMMARY[name].dtype == "int64":
        with pytest.raises(ValueError, match="something else than numbers"):
            frames.compare(SUMMARY, SUMMARY.assign(**{name: np.nan}))
        return
    other = SUMMARY.astype({name: object})
    other[name] = [None if there else 1.0 for there in SUMMARY[name].notna()]
    (row,) = frames.compare(SUMMARY, other).set_index("column").loc[[name]].to_dict("records")
    # Where a run may pass the border and another may not, there may be no horizon at all.
    border = name == "horizon_median"
    assert row["points"] == len(SUMMARY) - border and row["difference"] == np.inf


def test_nonsense_gives_itself_no_room():
    """With all that derives a bound replaced by nonsense, on either side, nothing agrees."""
    wild = SUMMARY.copy()
    for name, statistic in frames.SUMMARY.items():
        wild[name] = "nonsense" if statistic.dtype == "str" else 1000
    constant = {n for n in frames.SUMMARY if n in ("horizon_median", "disagreement")}
    assert differs(wild) >= set(frames.SUMMARY) - constant
    assert differs(SUMMARY, wild) >= set(frames.SUMMARY) - constant
    assert differs(SUMMARY.assign(disagreement=1000.0)) == {"disagreement"}
    assert differs(SUMMARY.assign(horizon_median=1000.0)) == {"horizon_median"}
    assert differs(SUMMARY.assign(log_gain_median=2 * SUMMARY["log_gain_median"])) == {
        "log_gain_median"
    }


def test_missing_and_further_points_and_columns_are_noticed():
    for a, b in ((SUMMARY, SUMMARY[1:]), (SUMMARY[1:], SUMMARY)):
        with pytest.raises(ValueError, match="different points of a sweep"):
            frames.compare(a, b)
    with pytest.raises(ValueError, match="different points"):
        frames.compare(SUMMARY, pd.concat([SUMMARY, SUMMARY[:1]]))
    with pytest.raises(ValueError, match="different points"):
        frames.compare(SUMMARY, SUMMARY.assign(gain=SUMMARY["gain"] + 1e-12))
    with pytest.raises(ValueError, match="the reference lacks columns: rate_sd, zero"):
        frames.compare(SUMMARY, SUMMARY.drop(columns=["rate_sd", "zero"]))
    with pytest.raises(ValueError, match="the summary has unknown columns: extra"):
        frames.compare(SUMMARY.assign(extra=1), SUMMARY)


def test_only_the_point_at_the_border_may_change_its_verdict():
    loose = {gain for gain, bound in zip(SUMMARY["gain"], bounds("stable"), strict=True) if bound}
    assert loose == {1.75}
    row = SUMMARY.index[SUMMARY["gain"] == 1.75][0]
    assert differs(SUMMARY.assign(horizon_median=SUMMARY["horizon_median"].drop(row))) == set()


def test_two_stretches_of_one_chaotic_process_agree():
    """Rates drawn anew, with the errors that `decay.rate` gives them, stay within the bounds."""
    rng, length, points, seeds = np.random.default_rng(1), 200, 300, 5

    def stretch():
        noise = rng.normal(size=(points, seeds, length))
        steps = 0.2 + 0.1 * (noise + np.roll(noise, 1, axis=-1))
        curves = np.cumsum(steps, axis=-1)[..., ::-1]
        rate, stderr = decay.rate(curves)
        chaotic = runs().iloc[15:20]
        assert set(chaotic["gain"]) == {1.5}
        several = pd.concat([chaotic] * points, ignore_index=True)
        several["gain"] = np.repeat(1 + np.arange(points), seeds)
        several["length"] = length
        several = several.assign(rate=rate.ravel(), rate_stderr=stderr.ravel())
        gain = curves[..., 0] - curves[..., -1]
        return frames.summary(several.assign(log_gain=gain.ravel(), horizon=80))

    a, b = stretch(), stretch()
    assert frames.compare(a, b)["agrees"].all()
    # And the bounds are no wider than they have to be: ten errors of a rate.
    assert (frames.SUMMARY["rate_median"].tolerance(a) < 10 * a["rate_stderr_max"]).all()
    assert np.abs(a["rate_median"] - b["rate_median"]).max() > a["rate_stderr_max"].median()
