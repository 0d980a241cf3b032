"""One set of strict JAX options for every test and doctest."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
# Tests run side by side: threads of one small factorization would wait for those of another.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ["KERAS_BACKEND"] = "jax"  # which Keras reads once, at its first import
import jax

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_enable_x64", True)
# Most of the time goes into compiling programs that run once.
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
