"""The documentation site; `make docs` builds it through build.py."""

import itertools
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import joblib  # noqa: E402
import kernels  # noqa: E402
from joblib.parallel import BACKENDS  # noqa: E402
from sphinx.util.parallel import make_chunks  # noqa: E402

import gradlab  # noqa: E402

project = "gradlab"
author = "The gradlab authors"
copyright = "The gradlab authors"
release = version = gradlab.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = [
    "requirements.txt",
    "jupyter_execute",
    "gallery/figures",
    "gallery/published",
    # Of what the gallery writes, the pages are rst; the rest is for downloads.
    *(f"gallery/auto/**.{kind}" for kind in ("ipynb", "py", "md5", "zip", "json")),
]

# Pages are notebooks in Markdown: all their code runs at every build, and an error stops it.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
nb_execution_show_tb = True
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# Docstrings write code in single backticks.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

# Small inventories of what the pages link to, kept as files: the build needs no network.
intersphinx_mapping = {
    name: (base, str(HERE / "inventories" / f"{name}.inv"))
    for name, base in {
        "python": "https://docs.python.org/3/",
        "jax": "https://docs.jax.dev/en/latest/",
        "numpy": "https://numpy.org/doc/stable/",
        "pandas": "https://pandas.pydata.org/docs/",
        "matplotlib": "https://matplotlib.org/stable/",
        "optax": "https://optax.readthedocs.io/en/latest/",
    }.items()
}

# The gallery's scripts run in forks of this process. The workers that joblib would start otherwise
# import all anew, and again whenever a script has left them 300 MB larger.
if sys.platform == "linux":
    kernels.load(kernels.SHARED)
    joblib.register_parallel_backend("loky", BACKENDS["multiprocessing"])

sphinx_gallery_conf = {
    "examples_dirs": ["gallery/figures", "gallery/published"],
    "gallery_dirs": ["gallery/auto/figures", "gallery/auto/published"],
    "filename_pattern": r"\.py$",
    "image_scrapers": ("figures_of_gallery",),
    "reset_modules": ("figures_of_gallery.forget",),
    "parallel": True,  # as many as sphinx-build's -j says
    "capture_repr": (),
    "abort_on_example_error": True,
    "min_reported_time": 1e9,
    "remove_config_comments": True,
    "show_memory": False,
    "write_computation_times": False,
    "download_all_examples": False,
    "show_signature": False,
    "notebook_images": False,
}

html_theme = "sphinx_book_theme"
html_title = "gradlab"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_context = {"default_mode": "auto"}
html_show_sourcelink = False
html_copy_source = True
html_theme_options = {
    "repository_url": "https://github.com/gradlab/gradlab",
    "use_repository_button": True,
    "use_issues_button": True,
    "use_download_button": True,
    "path_to_docs": "docs",
    "show_navbar_depth": 1,
    "home_page_in_toc": True,
}
html_baseurl = "https://gradlab.github.io/gradlab/"


_CODE = re.compile(r"``.*?``|`.*?`")


def _escape(line):
    """A line of a docstring in which a star or a bar, outside of code, means itself."""
    end, parts = 0, []
    for code in _CODE.finditer(line):
        parts += [re.sub(r"(?<!\\)([*|])", r"\\\1", line[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, re.sub(r"(?<!\\)([*|])", r"\\\1", line[end:])])


def _escape_docstring(app, what, name, obj, options, lines):
    literal = None  # the indentation of the paragraph that announced a literal block by ::
    doctest = False
    open_code = False  # within code in backticks that goes on in the next line
    for i, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        doctest = line.strip() != "" and (doctest or line.lstrip().startswith(">>>"))
        if literal is not None and line.strip() and indent <= literal:
            literal = None
        if doctest or literal is not None:
            continue
        if line.rstrip().endswith("::"):
            literal = indent
        if not open_code and line.count("`") % 2 == 0:
            lines[i] = _escape(line)
        open_code ^= line.count("`") % 2 == 1


def _deal(app, env, names):
    """Share the pages with code out among the batches that Sphinx reads side by side.

    By their names all of `howto` would come into one, for which one process works alone at the end.
    """
    cells = {
        name: Path(env.doc2path(name)).read_text("utf-8").count("{code-cell}") for name in names
    }
    sizes = [len(batch) for batch in make_chunks(names, app.parallel)]
    even = len(sizes) // app.parallel * app.parallel  # as many for each process
    batches = [[] for _ in sizes]
    for name in sorted(names, key=cells.get, reverse=True):
        room = [i for i, size in enumerate(sizes) if len(batches[i]) < size]
        room = [i for i in room if i < even and cells[name]] or room
        batches[min(room, key=lambda i: sum(map(cells.get, batches[i])))].append(name)
    names[:] = itertools.chain(*batches)


def setup(app):
    """Sphinx calls this."""
    app.connect("env-before-read-docs", _deal)
    # Before napoleon, whose priority is 500.
    app.connect("autodoc-process-docstring", _escape_docstring, priority=400)
