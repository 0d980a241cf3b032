"""What a prompt and a notebook show of results: short, true, and never an error."""

import re
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest

import gradlab as gl
from gradlab import _show


def loss(w, xs):
    """h_t = w h_{t-1} + x_t from h_0 = 0, and L = h_T: ln|dL/dh_t| = (T - t) ln w."""
    return jax.lax.scan(lambda h, x: (w * h + x, None), jnp.zeros(()), xs)[0]


def texts(result):
    """Both forms; the HTML as the text that a page shows, from a strict parser."""
    markup = result._repr_html_()
    assert len(repr(result)) < 2000 and len(markup) < 20_000
    root = ElementTree.fromstring(f"<div>{markup}</div>")
    return repr(result), re.sub(r"\s+", " ", " ".join(root.itertext()))


def test_a_trace_says_value_and_both_ends_of_each_record():
    out = gl.trace(loss)(0.5, jnp.ones(101))
    for text in (*texts(out), *texts(out.scans[0])):
        assert "-69.31 at step 1" in text and "0 at step 101" in text  # 100 ln 0.5
    assert "value     2\n" in repr(out)  # 1 + 1/2 + 1/4 + ...
    assert "101" in repr(out.scans[0]) and out.scans[0].name in repr(out.scans[0])


def test_a_trace_of_a_batch_says_the_range():
    def network(w, xs):
        step = lambda h, x: (jnp.tanh(h @ w + x), None)  # noqa: E731
        return jnp.sum(jax.lax.scan(step, jnp.zeros((16, 8)), xs)[0])

    xs = jax.random.normal(jax.random.key(0), (12, 16, 8))
    out = gl.trace(network, batch_axis=0)(jnp.eye(8) / 2, xs)
    low, high = float(out.scans[0].log_norm.min()), float(out.scans[0].log_norm.max())
    for text in (*texts(out), *texts(out.scans[0])):
        assert f"{low:.4g} to {high:.4g}" in text and "(12, 16)" in text


def test_a_trace_inside_jit_has_shapes_and_no_numbers():
    seen = []

    @jax.jit
    def program(w, xs):
        out = gl.trace(loss)(w, xs)
        seen.extend([*texts(out), *texts(out.scans[0])])
        return out.value

    program(0.5, jnp.ones(3))
    assert all(re.search(r"float\d\d\[3\]", text) for text in seen) and len(seen) == 4


def test_what_is_not_finite_is_said():
    out = gl.trace(loss)(jnp.nan, jnp.ones(3))
    text = " ".join(texts(out.scans[0]))
    assert "NaN" in text and "first nonfinite state" in text


def test_taps_and_many_records():
    def tapped(w):
        return sum(gl.tap(w * k, f"<tap {k}>") for k in range(20))

    out = gl.trace(tapped)(jnp.float32(2.0))
    text, page = texts(out)
    assert "12 more" in text and "<tap 0>" in page
    assert "tap <tap 3>" in texts(out.taps["<tap 3>"])[1]


def test_a_cell_names_its_parameters():
    text, page = texts(gl.cells.make("lstm", inputs=2, hidden=3))
    assert text == "Cell('lstm', inputs=2, hidden=3, gates=('i', 'f', 'g', 'o'))"
    assert "recurrent" in page and "[12,3]" in page


def test_a_cell_that_cannot_be_drawn_shows_its_widths():
    def broken(key, dtype=None):
        raise RuntimeError("no parameters today")

    cell = gl.cells.Cell(2, 3, broken, lambda params, h, drive: h)
    assert "hidden 3" in texts(cell)[1]


def test_a_training_and_a_failed_one():
    train = lambda rate: gl.train(  # noqa: E731
        lambda w, x: jnp.sum((w - x) ** 2), jnp.ones(2), lambda key, step: jnp.zeros(2),
        optax.sgd(rate), steps=3, key=jax.random.key(0), record={"w": lambda w: w},
    )  # fmt: skip
    for text in texts(train(0.25)):
        # The distance halves at each update: losses 2, 1/2, 1/8.
        assert "2 to 0.125" in text and "1 array of 2 numbers" in text and "w: 2 rows" in text
    for text in texts(train(1e200)):
        assert "failure" in text


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    axes = {"cell": "elman", "init": "orthogonal", "gain": [0.5, 2.0], "length": 20, "hidden": 4}
    axes |= {"activation": "linear"}
    with pytest.MonkeyPatch.context() as patch:
        # Nobody looks at the files.
        patch.setattr(gl.figures, "save", lambda figure, stem, formats: [])
        yield gl.sweep(axes, tmp_path_factory.mktemp("show"))


def test_results_say_how_much_there_is_and_show_the_first_runs(report):
    results = report.results
    text, page = texts(results)
    assert f"2 rows, {len(results.runs.columns)} columns" in text and "40 rows" in text
    assert "gain" in page and "0.5" in page
    assert results == results[:] and isinstance(results.runs, pd.DataFrame)
    assert "2 of 2 measured now" in texts(report)[0]


def test_a_sweep_shows_a_bar_where_asked(report, capsys):
    axes = {"cell": "elman", "init": "orthogonal", "gain": [0.5, 2.0], "length": 20, "hidden": 4}
    gl.sweep(axes | {"activation": "linear"}, report.folder, progress=True)
    gl.sweep(axes | {"activation": "linear"}, report.folder, progress=False)
    assert len(capsys.readouterr().err.splitlines()) <= 1


def test_a_figure_shows_itself_without_pyplot(report):
    content, about = gl.figures.decay(*report.results[:2])._repr_png_()
    assert content.startswith(b"\x89PNG")
    # Half as wide on the page as in dots.
    assert int.from_bytes(content[16:20], "big") == pytest.approx(2 * about["width"], abs=2)


def test_a_check_shows_what_str_says():
    result = gl.check(loss, lambda w, xs: loss(w, xs) * 1.01)(0.5, jnp.ones(5))
    assert repr(result) == str(result) and "part" in texts(result)[1]


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 3), (2, 3, 4)])
@pytest.mark.parametrize("fill", [0.0, -np.inf, np.nan])
def test_any_array_of_norms_has_a_form(shape, fill):
    for batched in (False, bool(shape)):
        assert _show.curve(np.full(shape, fill), shape[-1] if shape else 1, batched)
        drawing = _show.sparkline(np.full(shape, fill), batched)
        assert drawing == "" or ElementTree.fromstring(drawing) is not None
