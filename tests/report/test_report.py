"""The report of a sweep: what it says, and how a real browser takes it."""

import hashlib
import html
import json
import os
import re
import shutil
import tomllib

import numpy as np
import pandas as pd
import pytest
import typer.testing
from synthetic import GAINS, sweep

from gradlab import _files, figures, frames, report
from gradlab.cli.report import report as command
from gradlab.report import _tables
from gradlab.sweeps import Spec, parse

HOSTILE = "<img src=x onerror=\"document.title='owned'\"></script><script>owned = 1</script>"
GIT = {"commit": "52a1161f", "clean": False}
CHUNKS = [
    {"name": f"c{k}", "runs": 6, "seconds": 1.5 * k, "host": f"node{k % 2}",
     "started": f"2026-01-0{k}T10:00:00+00:00"}
    for k in (1, 2, 3)
]  # fmt: skip
MANIFEST = {
    "kind": "gradients",
    "spec": {"blocks": [], "cell": ["elman", HOSTILE], "gain": [GAINS[-1]]},
    "status": "complete",
    "written": "2026-01-04T09:30:00+00:00",
    "seconds": 9000,
    "device": ["gpu: Some Card"],
    "git": GIT,
    "chunks": CHUNKS,
    "files": {"runs.parquet": "427bc5b2be672402"},
    "a key of tomorrow": {HOSTILE: [1, None, {"deep": True}]},
}


@pytest.fixture(scope="module")
def results():
    """Twelve points of one seed each, one of them without a rate, and a run more that failed."""
    found = sweep(("elman", "lstm", "gru"), ("normal", "orthogonal", "identity", "glorot"),
                  GAINS[-1:], (10, 316), 1, ("gaussian",))  # fmt: skip
    failed = found.runs.iloc[[0]].assign(run_id="f", status="failed", verdict=None, rate=np.nan)
    failed = failed.assign(seed=7)
    return found._replace(runs=pd.concat([found.runs, failed], ignore_index=True))


@pytest.fixture(scope="module")
def folder(results, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    measured = results.runs[results.runs["status"] != "failed"]
    (folder / "figures").mkdir()
    few = measured[(measured["cell"] == "gru") & (measured["init"] == "normal")]
    figures.save(figures.phase(few), folder / "figures" / "phase-gaussian", formats=("png",))
    for name in ("decay-gaussian", "my own"):
        shutil.copy(folder / "figures" / "phase-gaussian.png", folder / "figures" / f"{name}.png")
    # An older folder lacks columns, a newer one has more; there are no steps to read.
    runs = results.runs.drop(columns=["batch"])
    runs["reason"] = np.where(runs["status"] == "failed", HOSTILE, None)
    runs.to_parquet(folder / "runs.parquet")
    digest = hashlib.sha256((folder / "runs.parquet").read_bytes()).hexdigest()[:16]
    manifest = MANIFEST | {"files": MANIFEST["files"] | {"runs.parquet": digest}}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def text(folder):
    path = report.write(folder)
    assert path == f"{folder}/report.html"
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        missing = "no chromium and chromedriver: the report was not opened in a browser"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    opened.get("data:,")
    yield opened
    opened.quit()


def visit(browser, path):
    """Open a file: what the console said, and what was asked for beside it and data: URLs."""
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(path.as_uri())
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
        and not event["params"]["documentURL"].startswith("chrome:")  # the browser's own first tab
    ]
    assert path.as_uri() in asked  # so the log is on
    names = browser.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    return browser.get_log("browser"), {
        url for url in (*asked, *names) if url != path.as_uri() and not url.startswith("data:")
    }


def column(browser, table, head):
    """The texts of one column from above, and its head."""
    script = """
        const [table] = [...document.querySelectorAll("table")].filter(
            table => table.caption?.id === arguments[0]);
        const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
        const place = heads.findIndex(head => head.innerText.startsWith(arguments[1]));
        const texts = [...table.tBodies[0].rows].map(row => row.cells[place].innerText);
        return [texts, heads[place]];
    """
    return browser.execute_script(script, table, head)


def test_the_browser_reports_what_it_should(browser, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text('<link rel="icon" href="data:,"><img src="no.png"><script>no()</script>')
    said, asked = visit(browser, page)
    assert any("no is not defined" in entry["message"] for entry in said)
    assert asked == {(tmp_path / "no.png").as_uri()}


def test_a_browser_shows_the_page_and_asks_for_nothing(browser, folder, text):
    said, asked = visit(browser, folder / "report.html")
    assert said == [] and asked == set()
    widths = browser.execute_script("return [...document.images].map(image => image.naturalWidth)")
    assert len(widths) == 3 and all(width > 0 for width in widths)


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_runs_over_the_edge(browser, folder, text, width):
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get((folder / "report.html").as_uri())
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert wide <= width


def test_what_others_wrote_is_text_and_runs_not(browser, folder, text):
    visit(browser, folder / "report.html")
    shown = browser.execute_script("return document.body.textContent")
    # In the spec (a TOML string), as a failure's reason, and as a key of the manifest.
    assert shown.count(HOSTILE) == 2 and json.dumps(HOSTILE) in shown
    assert browser.execute_script("return document.querySelectorAll('img[src=x]').length") == 0
    assert browser.execute_script("return typeof owned") == "undefined"
    assert browser.title == "Gradients of elman, lstm and gru"


def test_a_head_sorts_by_number_and_back_with_what_is_missing_last(browser, folder, results, text):
    from selenium.webdriver.common.keys import Keys

    visit(browser, folder / "report.html")
    measured = results.runs[results.runs["status"] != "failed"]
    rates = frames.verdict_table(measured)["rate_max"]
    up = [f"{rate:+.3f}".replace("-", "−") for rate in sorted(rates.dropna())]
    assert rates.isna().sum() == 1 and up != sorted(up)  # words would sort otherwise
    _, head = column(browser, "verdicts", "highest")
    assert head.get_attribute("aria-sort") is None
    head.find_element("tag name", "button").click()
    assert column(browser, "verdicts", "highest")[0] == [*up, "–"]
    assert head.get_attribute("aria-sort") == "ascending"
    head.find_element("tag name", "button").send_keys(Keys.ENTER)
    assert column(browser, "verdicts", "highest")[0] == [*up[::-1], "–"]
    assert head.get_attribute("aria-sort") == "descending"
    _, other = column(browser, "verdicts", "init")
    other.find_element("tag name", "button").click()
    inits = column(browser, "verdicts", "init")[0]
    assert inits == sorted(inits) and len(inits) == 12
    assert head.get_attribute("aria-sort") is None


def test_infinite_losses_are_sorted_as_the_largest(browser, tmp_path):
    record = dict(task="adding", length=10, cell="gru", init="normal", gain=1.0, hidden=4, seed=0,
                  optimizer="adam", batch=2, updates=9, trained=9, status="unsolved")  # fmt: skip
    losses = [0.5, np.inf, 2e30, np.inf, 0.1, np.nan, 3.0]
    rows = [
        record | dict(run_id=str(n), learning_rate=0.1 * n, loss=loss, error=loss)
        for n, loss in enumerate(losses, start=1)
    ]
    frames.trained_frame(rows).to_parquet(tmp_path / "runs.parquet")
    (tmp_path / "manifest.json").write_text(json.dumps({"kind": "training"}))
    report.write(tmp_path)
    visit(browser, tmp_path / "report.html")
    up = ["0.1", "0.5", "3", "2e+30", "inf", "inf"]
    for expected in (up, up[::-1], up):
        _, head = column(browser, "trained", "loss")
        head.find_element("tag name", "button").click()
        assert column(browser, "trained", "loss")[0] == [*expected, "–"]


def test_every_address_in_the_page_is_its_own(text):
    addresses = re.findall(r'(?:src|href|srcset|action)="([^"]*)"', text)
    assert len(addresses) > 5 and all(a.startswith(("data:", "#")) for a in addresses)
    assert "url(" not in text and "@import" not in text
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text).group(1)
    assert policy.startswith("default-src 'none'; img-src data:; ")
    here = {address[1:] for address in addresses if address[0] == "#"}
    assert here and here <= set(re.findall(r'id="(.*?)"', text))


def plain(text):
    """The page's words, one space between them."""
    body = re.sub(r"<(style|script)>.*?</\1>", " ", text, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def test_the_page_says_what_the_results_are(text, results):
    words = plain(text)
    for name in ("status", "verdict"):
        for value, count in results.runs[name].value_counts().items():
            assert f"{value} {count}" in words
    assert "25 runs with 2 seeds, on Some Card, finished 4 January 2026, 09:30 UTC." in words
    assert "10, 316 steps" in words and "took 2 hours and 30 minutes" in words
    assert "52a1161f, with changes that are not committed" in words
    assert re.search(r"git checkout 52a1161f *, *pip install -e \.", words)
    assert "gradlab sweep spec.toml --out results" in words
    assert "3, 9 seconds in all, the longest 4.5 seconds" in words
    assert "first started 1 January 2026, 10:00 UTC, last 3 January 2026, 10:00 UTC" in words
    assert "on node1: 2 on node0: 1" in words
    assert "a key of tomorrow" in words and "deep: yes" in words
    assert "decay-gaussian" not in words and "my own" in words
    for head in ("Failed runs", "Provenance", "Figure 3"):
        assert head in words


def test_the_spec_in_the_page_is_one_that_a_sweep_reads():
    grids = [
        Spec(cell=["elman"], init=["normal"], gain=[1e-7, 1.5], length=[10], seed=[0, 1, 2]),
        parse(
            {
                "axes": {"task": ["adding"], "length": [10], "permuted": [False, True]},
                "fixed": {"learning_rate": 0.1, "updates": 50, "evaluate_every": 25},
                "blocks": [{"cell": "gru", "gain": [1.0, 2.0]}, {"cell": ["lstm", "elman"]}],
            }
        ),
        parse(
            {
                "axes": {"length": [10, 20], "forget_bias": [0.0, 2.0]},
                "fixed": {"init": "normal", "gain": 1.0},
                "zip": [{"hidden": [8, 16], "inputs": [2, 3]}],
                "when": {"forget_bias": {"cell": "lstm", "length": [10]}},
                "blocks": [
                    {"cell": "gru", "zip": [{"gain": [1.0, 2.0], "seed": [3, 4]}]},
                    {"cell": ["lstm", "elman"], "when": {"gain": {"seed": [0]}}},
                ],
            }
        ),
    ]
    run = dict(run_id="a", cell="gru", init="normal", gain=1, input="gaussian", length=10, seed=0,
               hidden=4, inputs=2, status="ok", verdict="stable")  # fmt: skip
    runs = frames.runs_frame([run])
    for grid in grids:
        text = report.page(runs, {"spec": grid.model_dump()})
        shown = re.search(r"<code>(\[axes\].*?)</code>", text, re.DOTALL).group(1)
        again = parse(tomllib.loads(html.unescape(shown)))
        assert again == grid


def test_a_training_sweep_has_its_own_table():
    record = dict(task="adding", length=10, cell="gru", init="normal", gain=1, hidden=4, batch=2,
                  optimizer="adam", updates=9, trained=9, loss=0.25, error=0.3)  # fmt: skip
    runs = frames.trained_frame(
        record | dict(run_id=f"{rate}-{seed}", seed=seed, learning_rate=rate, status=status)
        for rate in (0.1, 0.01)
        for seed, status in enumerate(("solved", "unsolved", "unsolved", "nonfinite"))
    )
    words = plain(report.page(runs, {"kind": "training", "spec": {"task": ["adding"]}}))
    assert words.startswith("Training gru on adding") and "solved 2" in words
    # cell, learning rate, runs, solved, nonfinite, solved at, loss
    assert "gru 0.01 4 25% 25% – 0.25" in words
    assert "verdict" not in words and "no figures" in words


def test_where_every_run_failed_the_page_still_stands(results):
    runs = results.runs[results.runs["status"] == "failed"]
    words = plain(report.page(runs, {}))
    assert "No run was measured" in words and "not recorded" in words


def test_every_figure_that_is_drawn_has_a_caption(results):
    drawn = [*figures._of_gradients(sweep(seeds=1, lengths=(10,)))]
    run = {"run_id": "a", "task": "adding", "cell": "gru", "hidden": 4, "updates": 0}
    runs = pd.DataFrame([run]).reindex(columns=list(frames.TRAINING.runs))
    records = pd.DataFrame([{"run_id": "a", "training_step": 0, "name": "radius", "value": 1.0}])
    source = figures._Source(frames.TRAINING, runs, runs, lambda _: runs, records)
    drawn += figures._of_training(source)
    of_width = pd.DataFrame([run]).reindex(columns=list(frames.COORDINATES.runs))
    curves, steps = (
        pd.DataFrame([{"run_id": "a", "training_step": 0, **rest}])
        for rest in ({"log_state": 0.0, "log_update": 0.0}, {"lag": 0, "log_adjoint": 0.0})
    )
    source = figures._Source(frames.COORDINATES, of_width, curves, lambda _: steps)
    drawn += figures._of_coordinates(source)
    kinds = {name.partition("-")[0] for name in drawn}
    assert kinds == set(report.CAPTIONS) and len(kinds) == 10


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("manifest.json", None, "no results in .*: manifest.json missing"),
        ("manifest.json", b"{", "manifest.json' is damaged"),
        ("manifest.json", b"[]", "manifest.json' is damaged"),
        ("manifest.json", b'{"kind": "x"}', "unknown kind of results .*gradients, training"),
        ("manifest.json", b'{"status": "running"}', "has not finished"),
        ("runs.parquet", None, "runs.parquet missing"),
        ("runs.parquet", b"PAR1", "runs.parquet' is damaged"),
        ("figures/my own.png", b"", "my own.png' is damaged"),
    ],
)
def test_what_cannot_be_reported_is_one_message(folder, tmp_path, name, content, message):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / name).unlink()
    if content is not None:
        (copy / name).write_bytes(content)
    (copy / "report.html").unlink(missing_ok=True)
    with pytest.raises(ValueError, match=message) as error:
        report.write(copy)
    assert len(str(error.value).splitlines()) == 1
    assert not (copy / "report.html").exists()


def test_a_folder_without_results_and_one_without_runs(folder, results, tmp_path):
    for nothing in (tmp_path, tmp_path / "none", folder / "runs.parquet"):
        with pytest.raises(ValueError, match="no results in"):
            report.write(nothing)
    (tmp_path / "manifest.json").write_text("{}")
    results.runs.head(0).to_parquet(tmp_path / "runs.parquet")
    with pytest.raises(ValueError, match="no runs to report"):
        report.write(tmp_path)


def test_the_command_and_its_places(folder, text, tmp_path):
    app = typer.Typer()
    app.command()(command)
    called = typer.testing.CliRunner().invoke(app, [str(folder), "--out", f"{tmp_path}/a/b.html"])
    assert called.exit_code == 0 and called.stdout.strip() == f"{tmp_path}/a/b.html"
    assert (tmp_path / "a" / "b.html").read_text(encoding="utf-8") == text
    with pytest.raises(ValueError, match="is a folder"):
        report.write(folder, tmp_path)
    assert report.write(folder, "memory://mail/page.html") == "memory://mail/page.html"
    assert _files.Folder("memory://mail").read("page.html").decode() == text


def test_results_behind_an_address(folder, text):
    there = _files.Folder("memory://report")
    here = _files.Folder(folder)
    for name in here.names():
        there.write(name, lambda file, name=name: file.write(here.read(name)))
    there.remove("report.html")
    assert report.write("memory://report") == "memory://report/report.html"
    assert there.read("report.html").decode() == text


def test_shares_are_those_of_the_frames_whatever_columns_were_read():
    record = dict(cell="gru", init="normal", gain=1, input="gaussian", length=10, hidden=4,
                  inputs=2, status="ok", rate=-0.5)  # fmt: skip
    verdicts = ("vanishing", "vanishing", "exploding", "stable")
    runs = frames.runs_frame(
        record | dict(run_id=str(i), seed=i, verdict=each) for i, each in enumerate(verdicts)
    )
    table = _tables.verdicts(runs[list(report.COLUMNS["gradients"])], frames.GRADIENTS)
    assert table is not None
    assert [cell.share for cell in table.rows[0]][-2:] == [0.5, 0.25]
