"""The sweep over conditioning against products of Jacobians in float64, and closed forms."""

import matplotlib.colors
import numpy as np
import pytest

import gradlab as gl
from gradlab.sweeps.conditioning import lags_of
from gradlab.sweeps.gradients import Run, curves

SPEC = {"measurement": "conditioning", "cell": "elman", "hidden": 6, "inputs": 3,
        "length": 12, "init": ["normal", "orthogonal"], "gain": [0.9, 1.1], "input_scale": 0.4,
        "seeds": 2}  # fmt: skip


def product_of(run):
    """ln of the singular values of dh_T/dh_(T-l), l = 1..T, of an Elman network, by a loop."""
    with curves.pin_settings():
        seeds, scalars = curves.arguments([run])
        params = curves.draw_of(curves.init_of(run), curves.shape_of(run))(seeds, scalars)[0]
        xs = np.asarray(curves.inputs_of(run)(seeds)[0], np.float64)
    W, U, b = (np.asarray(params[name][0], np.float64) for name in ("recurrent", "input", "bias"))
    h, jacobians = np.zeros(run.hidden), []
    for x in xs:
        h = np.tanh(W @ h + U @ x + b)
        jacobians.append((1 - h**2)[:, None] * W)
    product, logs = np.eye(run.hidden), {}
    for lag, J in enumerate(reversed(jacobians), start=1):
        product = product @ J
        logs[lag] = np.log(np.linalg.svd(product, compute_uv=False))
    return logs


@pytest.fixture
def no_figures(monkeypatch):
    monkeypatch.setattr(gl.figures, "draw", lambda *_, **__: [])


def test_a_sweep_of_conditioning_has_the_singular_values_of_the_product(tmp_path, monkeypatch):
    draw, pictures = gl.figures.draw, []

    def note(*what, **options):
        pictures.extend(draw(*what, **options))
        return pictures

    monkeypatch.setattr(gl.figures, "draw", note)
    results = gl.sweep(SPEC, tmp_path).results
    assert len(results.runs) == 8
    for row in results.runs.itertuples():
        run = Run("elman", "tanh", row.init, row.gain, "tied", None, "gaussian", 0.4, 0.0,
                  length=12, hidden=6, inputs=3, batch=1, seed=row.seed)  # fmt: skip
        logs = product_of(run)
        steps = results.steps[results.steps["run_id"] == row.run_id].set_index("lag")
        assert steps.index.tolist() == [1, 2, 4, 8, 12]
        for lag, step in steps.iterrows():
            # float32 rounds each of the steps by some eps of its condition number.
            assert step["log_largest"] == pytest.approx(logs[lag][0], abs=1e-4)
            assert step["log_smallest"] == pytest.approx(logs[lag][-1], abs=2e-3)
            assert step["log_condition"] == pytest.approx(logs[lag][0] - logs[lag][-1], abs=2e-3)
        assert row.log_condition == steps.loc[12, "log_condition"]
    assert {"log_condition_median", "log_largest_max"} <= set(gl.frames.read_summary(tmp_path))
    assert [path.stem for path in pictures] == ["log_largest", "log_smallest", "log_condition"]
    assert all((tmp_path / "figures" / path.name).is_file() for path in pictures)


def test_a_long_product_is_conditioned_beyond_what_floats_hold(tmp_path, no_figures):
    spec = SPEC | {"activation": "linear", "init": "identity", "gain": 0.5, "length": 300}
    (run,) = gl.sweep(spec | {"seeds": 1}, tmp_path).results.runs.itertuples()
    assert run.log_largest == pytest.approx(300 * np.log(0.5), rel=1e-5)
    assert run.log_condition == pytest.approx(0, abs=1e-3)


def test_variants_with_and_without_an_axis_are_drawn(tmp_path, no_figures):
    """Elman's network has no forget_bias and an LSTM no activation: they are not in its label."""
    spec = SPEC | {"cell": ["elman", "lstm"], "init": "normal", "length": 3, "seeds": 1}
    results = gl.sweep(spec, tmp_path).results
    schema = gl.frames.KINDS["conditioning"]
    fig = gl.figures.numbers(results.runs, schema, "log_condition", "gain")
    ax = fig.axes[0]
    labels = [text.get_text() for text in fig.legends[0].get_texts()]
    assert labels == ["elman, tanh", "lstm, forget_bias 1.0"]
    colors = {matplotlib.colors.to_hex(line.get_color()) for line in ax.lines}
    assert len(colors) == 2


@pytest.mark.parametrize(("length", "lags"), [(1, (1,)), (2, (1, 2)), (9, (1, 2, 4, 8, 9))])
def test_lags_double_up_to_the_whole_length(length, lags):
    assert lags_of(length) == lags


def test_a_misspelt_cell_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(ValueError, match=r"elmann.*elman"):
        gl.sweep(SPEC | {"cell": "elmann"}, tmp_path / "out")
    assert not (tmp_path / "out").exists()
