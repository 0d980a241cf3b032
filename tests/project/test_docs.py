"""The site's sources agree with the package; `make docs` runs them, these checks do not."""

import ast
import os
import re
import runpy
import subprocess
import sys
import types
from pathlib import Path

import pytest

import gradlab as gl

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(p for p in DOCS.rglob("*.md") if not {"auto", "jupyter_execute"} & {*p.parts})
SCRIPTS = sorted((DOCS / "gallery").glob("*/plot_*.py"))
CELL = re.compile(r"^```\{code-cell\} python\n(?:---\n.*?\n---\n|:.*\n)?(.*?)^```$", re.M | re.S)


@pytest.fixture(scope="module")
def build():
    sys.modules.pop("build", None)
    return runpy.run_path(str(DOCS / "build.py"), run_name="docs_build")


@pytest.mark.parametrize(
    ("shown", "lost"),
    [
        ('<img alt="One &amp; two"/><img src="x/sphx_glr_plot_a_001.png"/>', []),
        ('<img src="x/sphx_glr_plot_a_001.png"/>', ["page.md: One & two"]),
        ('<img alt="One &amp; two"/>', ["plot_a.py"]),
    ],
)
def test_the_build_misses_a_picture_that_was_not_drawn(build, tmp_path, shown, lost):
    scripts, site = tmp_path / "gallery" / "figures", tmp_path / "site" / "gallery" / "auto"
    for folder in (scripts, site / "figures"):
        folder.mkdir(parents=True)
    (tmp_path / "page.md").write_text('    alt: "One & two"\n', "utf-8")
    (scripts / "plot_a.py").write_text("fig = gl.figures.neuron()\n", "utf-8")
    for page in (tmp_path / "site" / "page.html", site / "figures" / "plot_a.html"):
        page.write_text(shown, "utf-8")
    places = build["lost_pictures"].__globals__
    before = {name: places[name] for name in ("HERE", "OUT")}
    places.update(HERE=tmp_path, OUT=tmp_path / "site")
    try:
        assert build["lost_pictures"]() == lost
    finally:
        places.update(before)


KERNEL = """
import os, sys

def launch_new_instance():
    shared = "gradlab_shared" in sys.modules
    print(os.getcwd(), os.environ["PAGE"], shared, *sys.argv[1:])
    print("of the page", file=sys.stderr)
    if "fail" in sys.argv:
        raise ValueError("this kernel fails")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere kernels are not forked")
def test_a_kernel_is_forked_as_jupyter_asks_for_it(tmp_path):
    (tmp_path / "ipykernel").mkdir()
    (tmp_path / "ipykernel" / "__init__.py").touch()
    (tmp_path / "ipykernel" / "kernelapp.py").write_text(KERNEL)
    (tmp_path / "gradlab_shared.py").touch()
    (tmp_path / "page").mkdir()
    program = str(DOCS / "kernels.py")
    kernels = runpy.run_path(program, run_name="docs_kernels")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    with kernels["serving"](environment, ["gradlab_shared"]) as found:
        good, bad = (
            subprocess.run(
                [sys.executable, program, *arguments],
                env=found | {"PAGE": "mine"},
                cwd=tmp_path / "page",
                capture_output=True,
                text=True,
                timeout=60,
            )
            for arguments in (["-f", "file"], ["fail"])
        )
    folder, page, shared, *arguments = good.stdout.split()
    assert Path(folder).samefile(tmp_path / "page")
    assert (page, shared, arguments[:2]) == ("mine", "True", ["-f", "file"])
    assert arguments[2].startswith("--IPKernelApp.parent_handle=")
    assert (good.returncode, good.stderr) == (0, "of the page\n")
    assert bad.returncode == 1
    assert "this kernel fails" in bad.stderr


def cells(path):
    return CELL.findall(path.read_text("utf-8"))


def test_every_public_module_has_a_page_of_the_reference(build):
    values = [getattr(gl, name) for name in gl.__all__]
    public = {value.__name__ for value in values if isinstance(value, types.ModuleType)}
    assert public | {"gradlab"} <= {*build["MODULES"]}


def test_the_build_misses_no_name_that_has_its_entry(build):
    pages = {*build["MODULES"]}
    entries = {f"{page}.{name}" for page in pages for name, *_ in build["names"](page)} | pages
    assert build["missing"](entries) == []
    assert build["missing"](entries - {"gradlab.decay.rate"}) == ["gradlab.decay.rate"]


def test_every_public_name_stands_on_its_page(build):
    for module in build["MODULES"]:
        shown = {name for name, *_ in build["names"](module)}
        own = {name for name in sys.modules[module].__all__}
        values = {name: getattr(sys.modules[module], name) for name in own}
        pages = {n for n, v in values.items() if getattr(v, "__name__", None) in build["MODULES"]}
        assert shown | pages == own


def test_the_paper_map_names_what_exists(build):
    assert build["check_papers"]() == []


def test_the_paper_map_finds_what_is_lost(build, tmp_path):
    text = (DOCS / "papers.md").read_text("utf-8") + "\n`gradlab.cells.no_such` `tests/none.py`\n"
    (tmp_path / "papers.md").write_text(text)
    globals_of = build["check_papers"].__globals__
    before, globals_of["HERE"] = globals_of["HERE"], tmp_path
    try:
        assert build["check_papers"]() == ["gradlab.cells.no_such", "tests/none.py"]
    finally:
        globals_of["HERE"] = before


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_the_code_of_a_page_is_python_and_its_pictures_have_texts(path):
    text = path.read_text("utf-8")
    assert len(cells(path)) == text.count("```{code-cell}")
    for code in cells(path):
        ast.parse(code)
    if cells(path):
        assert "{nb-download}`" + path.stem + ".ipynb`" in text
    for block in re.findall(r"^```\{code-cell\}.*?^```$", text, re.M | re.S):
        shown = re.search(r"^gl\.figures\.(?!save)\w+\(.*\)$", block, re.M)
        draws = "plt.subplots" in block or shown
        assert not draws or "alt:" in block, block


def test_links_between_pages_lead_somewhere():
    lost = [
        f"{path.name}: {link}"
        for path in PAGES
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text("utf-8"))
        if not (path.parent / link).exists()
    ]
    assert lost == []


def test_both_guides_run_the_same_code():
    english, portuguese = (cells(DOCS / "guide" / f"{n}.md") for n in ("neuron", "neuronio"))
    labels = re.compile(r'"[^"]*"')
    assert [labels.sub("", code) for code in english] == [
        labels.sub("", code) for code in portuguese
    ]


def test_every_figure_is_in_the_gallery():
    text = "".join(path.read_text("utf-8") for path in SCRIPTS)
    figures = {
        name
        for name in dir(gl.figures)
        if isinstance(getattr(gl.figures, name), types.FunctionType)
    } - {"draw", "save", "deviations"}
    assert figures <= {*re.findall(r"gl\.figures\.(\w+)\(", text)}


def test_every_published_result_is_in_the_gallery():
    text = "".join(path.read_text("utf-8") for path in SCRIPTS)
    theory = {p.stem for p in (ROOT / "results" / "theory").glob("*.png")}
    trained = {p.parent.name for p in (ROOT / "results" / "training").glob("*/summary.csv")}
    assert [name for name in theory | trained if name not in text] == []


def test_the_paper_is_short_and_its_references_exist():
    text = (ROOT / "paper" / "paper.md").read_text("utf-8")
    assert len(text.split("---", 2)[2].split()) < 1000
    cited = set(re.findall(r"@(\w+)", text.split("---", 2)[2]))
    entries = re.findall(r"^@\w+\{(\w+),", (ROOT / "paper" / "paper.bib").read_text("utf-8"), re.M)
    assert cited == {*entries}
    picture = re.search(r"\]\((\.\./[^)]+)\)", text)
    assert picture and (ROOT / "paper" / picture[1]).is_file()


def test_titles_of_the_gallery_are_underlined_to_their_end():
    """Sphinx warns of shorter lines, and warnings are errors."""
    lines = {path: path.read_text(encoding="utf-8").splitlines()[1:3] for path in SCRIPTS}
    assert not [path.name for path, (title, line) in lines.items()
                if len(line) < len(title) or {*line} != {"="}]  # fmt: skip
