"""One set of strict JAX options for every test and doctest."""

import atexit
import gc
import os
import shutil
import sys
import tempfile
import zlib
from collections import defaultdict
from importlib.metadata import version

import hypothesis
import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
# Tests run side by side: threads of one small factorization would wait for those of another.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# What sweeps remember of this machine is the user's; the processes of one session share a folder.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="gradlab-tests-")
    atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)
os.environ["KERAS_BACKEND"] = "jax"  # which Keras reads once, at its first import
# Most of the time goes into compiling programs that run once: XLA's older emitters take half as
# long. A flag that a later XLA does not know would abort it.
if version("jaxlib").startswith("0.10."):
    flags = (
        "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1 "
        "--xla_cpu_enable_concurrency_optimized_scheduler=false"
    )
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
# For this process and those that tests start. Of programs kept, what compiles in a millisecond too:
# to read one takes a third of what XLA takes to make it.
os.environ |= {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
import jax

# JAX makes hundreds of thousands of objects for a program: to look for cycles after each 700 of
# them, as Python does, takes 6 % of the time.
gc.set_threshold(50_000, 20, 50)
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

from jax.experimental.compilation_cache import compilation_cache  # noqa: E402

from gradlab.grid._compiled import processor  # noqa: E402  (after JAX has its options)

# Python knows bytecode by the second and the size of its source, and tests write one again within
# the second. What all tests import is there by now.
sys.dont_write_bytecode = True

# No test is timed: what a busy machine takes longer for is not wrong.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# Files of many processes or many programs: they start first, so that none is left at the end for
# one worker alone.
LONG = ("chunking", "kill", "own_code", "readme", "extending", "spectrum", "cost", "sweeps", "cli",
        "cut", "libraries", "figures")  # fmt: skip
# Files of which no case is left out: the numbers of the documents, which take milliseconds.
WHOLE = ("test_claims.py",)
COMPILED = "compiled", 400_000_000  # the folder in .pytest_cache, and the bytes it may grow to


def pytest_addoption(parser):
    parser.addoption(
        "--cases", type=int, metavar="N", help="run at most N cases of a law with many parameters"
    )


def pytest_configure(config):
    """Keep compiled programs from run to run: a program that has not changed is read back.

    JAX's key is a hash of the program itself, of the options and of XLA's version.
    """
    cache = getattr(config, "cache", None)  # None with -p no:cacheprovider
    if cache is None:
        return
    name, most = COMPILED
    folder = cache.mkdir(name)
    first = "PYTEST_XDIST_WORKER" not in os.environ
    if first and sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) > most:
        shutil.rmtree(folder)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder / processor())
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])


def pytest_collection_modifyitems(config, items):
    places = {f"test_{name}.py": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONG)))
    if most := config.getoption("cases"):
        chosen = choose_cases(items, most)
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = [item for item in items if item in chosen]


def choose_cases(items, most):
    """At most so many cases of each test function, at equal distances in its list of cases.

    The first of them depends on the function's name, so that laws over one registry do not all
    leave out the same entries.
    """
    laws = defaultdict(list)
    for item in items:
        laws[item.nodeid.split("[")[0]].append(item)
    chosen = set()
    for name, cases in laws.items():
        count = len(cases) if cases[0].path.name in WHOLE else min(most, len(cases))
        start = zlib.crc32(name.encode()) % len(cases)
        places = ((start + i * len(cases) // count) % len(cases) for i in range(count))
        chosen.update(cases[place] for place in places)
    return chosen


@pytest.fixture
def no_cache():
    """Neither a cache nor settings of one, as users have it who set up none."""
    names = ("compilation_cache_dir", "persistent_cache_min_compile_time_secs",
             "persistent_cache_min_entry_size_bytes")  # fmt: skip
    before = {f"jax_{name}": getattr(jax.config, f"jax_{name}") for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
