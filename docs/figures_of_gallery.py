"""How the gallery finds figures: those that gradlab draws are in no list of pyplot's."""

import gc
import weakref

import jax
from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst

# The figures that are saved.
_saved = weakref.WeakSet()


def _get_sg_image_scraper():
    return _scrape


def _scrape(block, block_vars, gallery_conf):
    """Save every figure that a block of a script has bound to a name, once."""
    paths = []
    for value in list(block_vars["example_globals"].values()):
        if isinstance(value, Figure) and value not in _saved:
            _saved.add(value)
            path = next(block_vars["image_path_iterator"])
            value.savefig(path, dpi=150, facecolor="white")
            paths.append(path)
    return figure_rst(paths, gallery_conf["src_dir"])


def forget(gallery_conf, script):
    """Free what the script before has compiled and drawn: a process runs a dozen of them."""
    jax.clear_caches()
    gc.collect()
