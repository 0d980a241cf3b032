"""One set of strict JAX options for every test and doctest."""

import atexit
import os
import shutil
import tempfile
from importlib.metadata import version

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
    flags = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
import jax

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

from gradlab.figures import _style  # noqa: E402  (after JAX has its options)

# Most of a figure's time goes into cutting TrueType fonts to the glyphs in use.
_style.STYLE["pdf.fonttype"] = 3
