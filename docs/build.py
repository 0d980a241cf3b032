"""Build the site into build/docs: write the reference's pages, run Sphinx, check the result."""

import ast
import html
import importlib
import importlib.metadata
import itertools
import os
import re
import shutil
import subprocess
import sys
import types
import typing
import zlib
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
OUT = ROOT / "build" / "docs"
CACHE = ROOT / "build" / "docs-cache"
JUPYTER = ROOT / "build" / "docs-jupyter"

# Every public module, in the order of the reference, with what it is for.
MODULES = {
    "gradlab": "What `import gradlab as gl` gives",
    "gradlab.cells": "Cells",
    "gradlab.initializers": "Initializers",
    "gradlab.tasks": "Tasks and inputs",
    "gradlab.remedies": "Remedies",
    "gradlab.training": "Training",
    "gradlab.training.recorders": "Recorders",
    "gradlab.meanfield": "Mean-field theory",
    "gradlab.spectrum": "Dynamics: exponents, Jacobians, memory, curvature",
    "gradlab.decay": "Statistics of a gradient's decay",
    "gradlab.sweeps": "Sweeps",
    "gradlab.frames": "Frames",
    "gradlab.figures": "Figures",
    "gradlab.applications.sentiment": "Sentiment",
    "gradlab.applications.translation": "Translation",
    "gradlab.applications.weather": "Weather",
    "gradlab.report": "The report",
    "gradlab.tracing": "The transformation",
    "gradlab.checking": "Comparing two forms",
    "gradlab.grid": "The engine of sweeps",
}


def names(module: str) -> list[tuple[str, str, object]]:
    """The public names of a module, the directive that documents each, and what it is."""
    found = importlib.import_module(module)
    result = []
    for name in found.__all__:
        value = getattr(found, name)
        if isinstance(value, types.ModuleType) and value.__name__ in MODULES:
            continue  # it has its own page
        if isinstance(value, types.ModuleType):
            kind = "automodule"
        elif isinstance(value, types.UnionType) or typing.get_origin(value):
            kind = "autodata"  # an alias, for annotations
        elif isinstance(value, type):
            kind = "autoclass"
        elif callable(value):
            kind = "autofunction"
        else:
            kind = "autodata"
        result.append((name, kind, value))
    return result


def describe_data(module: str, name: str, value: object) -> list[str]:
    """The entry of a constant: the text under its assignment, and the columns that it holds."""
    lines = [f".. py:data:: {name}", f"   :module: {module}", ""]
    lines += [f"   {text_under(module, name)}", ""]
    if isinstance(value, dict) and value and all(hasattr(v, "meaning") for v in value.values()):
        lines += ["   .. list-table::", "      :header-rows: 1", ""]
        rows = [("column", "unit", "meaning")]
        rows += [(f"`{key}`", v.unit, escape(v.meaning)) for key, v in value.items()]
        for row in rows:
            lines += [f"      {'* -' if i == 0 else '  -'} {cell}" for i, cell in enumerate(row)]
    elif isinstance(value, (int, float, str)):
        lines += [f"   Its value is `{value!r}`."]
    elif isinstance(value, dict):
        lines += ["   Its keys: " + ", ".join(f"`{key}`" for key in value) + "."]
    elif isinstance(value, tuple) and all(isinstance(v, str) for v in value):
        lines += ["   It holds " + ", ".join(f"`{v}`" for v in value) + "."]
    elif isinstance(value, types.UnionType) or typing.get_origin(value):
        lines += ["   A type, for annotations."]
    return [*lines, ""]


def escape(text: str) -> str:
    """Let stars and bars mean themselves in reStructuredText."""
    return text.replace("*", r"\*").replace("|", r"\|").replace("`", "")


def text_under(module: str, name: str) -> str:
    """The string that stands below the assignment of a name, in the file that has it."""
    package = ROOT / module.replace(".", "/")
    files = sorted(package.glob("*.py")) if package.is_dir() else [package.with_suffix(".py")]
    for path in files:
        body = ast.parse(path.read_text(encoding="utf-8")).body
        for node, after in itertools.pairwise(body):
            targets = node.targets if isinstance(node, ast.Assign) else []
            targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
            if any(isinstance(t, ast.Name) and t.id == name for t in targets):
                value = getattr(after, "value", None)
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    return escape(" ".join(value.value.split()))
    return ""


def write_reference() -> None:
    """Write a page for each public module, with an entry for each public name."""
    folder = HERE / "reference" / "api"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    seen: dict[int, object] = {}
    for module, title in MODULES.items():
        lines = [title, "=" * len(title), "", f".. automodule:: {module}", "   :no-members:", ""]
        for name, kind, value in names(module):
            if kind == "autodata":
                lines += describe_data(module, name, value)
                continue
            lines += [f".. {kind}:: {module}.{name}"]
            if id(value) in seen:
                lines += ["   :no-index:"]  # it has its entry under the first name
            seen[id(value)] = value
            if kind == "autoclass":
                lines += ["   :members:"]
            if kind == "automodule":
                lines += ["   :no-members:"]
            lines += [""]
        (folder / f"{module}.rst").write_text("\n".join(lines), encoding="utf-8")


def documented() -> set[str]:
    """The names in the inventory of the site that was built."""
    content = (OUT / "objects.inv").read_bytes()
    body = content.split(b"\n", 4)[4]
    lines = zlib.decompress(body).decode().splitlines()
    return {line.split(" ", 1)[0] for line in lines if " py:" in line}


def missing(known: set[str]) -> list[str]:
    """Public names without an entry, neither under this name nor under another of the same."""
    public = {
        f"{module}.{name}": getattr(importlib.import_module(module), name)
        for module in MODULES
        for name in importlib.import_module(module).__all__
    }
    entries = {id(value) for name, value in public.items() if name in known}
    # A module's page stands under its own name: gl.weather is gradlab.applications.weather.
    entries |= {id(importlib.import_module(module)) for module in MODULES if module in known}
    return [name for name, value in public.items() if id(value) not in entries]


def describe_thumbnails() -> None:
    """Give the pictures of the gallery's index the titles below them as alternative texts."""
    picture, title = r'<img alt="" ([^>]*thumb[^>]*)>', r'(thumbnail-title">)([^<]*)<'
    thumbnail = re.compile(f"{picture}(.*?){title}", re.DOTALL)
    for path in (OUT / "gallery" / "auto").rglob("index.html"):
        text = path.read_text(encoding="utf-8")
        path.write_text(thumbnail.sub(r'<img alt="\4" \1>\2\3\4<', text), encoding="utf-8")


def lost_pictures() -> list[str]:
    """Pictures that a page describes, or a script of the gallery draws, and its page lacks."""
    lost = []
    for path in sorted(HERE.rglob("*.md")):
        page = OUT / path.relative_to(HERE).with_suffix(".html")
        content = html.unescape(page.read_text("utf-8")) if page.exists() else ""
        texts = re.findall(r"^    alt: (.+)$", path.read_text("utf-8"), re.MULTILINE)
        alts = [text.strip('"') for text in texts]
        lost += [f"{path.name}: {alt}" for alt in alts if f'alt="{alt}"' not in content]
    drawing = re.compile(r"^\w+ = (?:gl\.figures\.\w+|Figure)\(", re.MULTILINE)
    for path in sorted((HERE / "gallery").glob("*/plot_*.py")):
        page = OUT / "gallery" / "auto" / path.parent.name / f"{path.stem}.html"
        images = re.findall(f"<img [^>]*/sphx_glr_{path.stem}_[0-9]", page.read_text("utf-8"))
        lost += [] if len(images) == len(drawing.findall(path.read_text("utf-8"))) else [path.name]
    return lost


def check_papers() -> list[str]:
    """What the paper map names and what does not exist."""
    text = (HERE / "papers.md").read_text(encoding="utf-8")
    lost = []
    for name in sorted(set(re.findall(r"`([^`]+)`", text))):
        if name.startswith("tests/"):
            found = (ROOT / name).is_file()
        else:
            module, _, attribute = name.rpartition(".")
            found = hasattr(importlib.import_module(module), attribute)
        lost += [] if found else [name]
    return lost


def environment() -> dict[str, str]:
    """The variables of Sphinx, and of all that it starts."""
    usual = {"JAX_PLATFORMS": "cpu", "KERAS_BACKEND": "jax", "OPENBLAS_NUM_THREADS": "1"}
    variables = {**usual, **os.environ, "PYTHONPATH": str(ROOT), "JUPYTER_PATH": str(JUPYTER)}
    # Most of the time goes into compiling programs that run once: this takes a third of it.
    variables["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    # So the times of these sweeps say nothing of the user's: estimates remember them elsewhere.
    variables["XDG_CACHE_HOME"] = str(CACHE)
    # What compiles in a millisecond is kept too: to read it takes a third of that.
    variables["JAX_COMPILATION_CACHE_DIR"] = str(CACHE / "compiled")
    variables["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    variables["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    # A flag that a later XLA does not know would abort it.
    if importlib.metadata.version("jaxlib").startswith("0.10."):
        flags = (
            "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1 "
            "--xla_cpu_enable_concurrency_optimized_scheduler=false"
        )
        variables["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    return variables


def main() -> int:
    """Build the site; a status other than 0 says that something is wrong."""
    import kernels  # beside this file

    if lost := check_papers():
        print("names of the paper map that do not exist:", *lost, sep="\n  ", file=sys.stderr)
        return 1
    write_reference()
    shutil.rmtree(OUT, ignore_errors=True)
    if not sys.argv[1:]:  # arguments are for trials, such as -D nb_execution_mode=cache
        shutil.rmtree(HERE / "gallery" / "auto", ignore_errors=True)
    jobs = str(min(os.cpu_count() or 1, 4))
    command = ["-m", "sphinx", "-W", "--keep-going", "-q", "-j", jobs, "-b", "html"]
    places = ["-d", str(ROOT / "build" / "doctrees"), str(HERE), str(OUT)]
    # Every page runs: nothing may come from an earlier build.
    # Within a build, a program that two pages run is compiled once.
    shutil.rmtree(CACHE, ignore_errors=True)
    kernels.write_spec(JUPYTER)
    with kernels.serving(environment()) as variables:
        status = subprocess.run(
            [sys.executable, *command, "-E", *places, *sys.argv[1:]], env=variables
        ).returncode
    if status:
        return status
    describe_thumbnails()
    if lost := missing(documented()):
        print("public names that the reference lacks:", *lost, sep="\n  ", file=sys.stderr)
        return 1
    if lost := lost_pictures():
        print("pictures that the site lacks:", *lost, sep="\n  ", file=sys.stderr)
        return 1
    print(f"the site is in {OUT.relative_to(ROOT)}: open {OUT / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
