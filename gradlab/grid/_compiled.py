"""Programs compiled once per machine: JAX's persistent cache, for the time of a sweep."""

from __future__ import annotations

import contextlib
import platform
import zlib
from collections.abc import Iterator
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

from gradlab import _files


@contextlib.contextmanager
def use_cache(folder: str | Path | None = None) -> Iterator[None]:
    """Use JAX's persistent compilation cache inside the block, and restore its settings after.

    A cache that the user has set up already stays as it is. The folder is gradlab's own in the
    user's cache, one for each kind of processor: a program compiled for another one might not run.
    """
    if jax.config.jax_compilation_cache_dir:  # pyright: ignore[reportAttributeAccessIssue]
        yield
        return
    settings = {
        "jax_compilation_cache_dir": str(folder or _files.cache() / "compiled" / processor()),
        # By default JAX skips programs that compile within a second: on some machines all do.
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
        # JAX stores kernels tuned for a GPU itself; their folder would become part of the key.
        "jax_persistent_cache_enable_xla_caches": "none",
    }
    before = {name: getattr(jax.config, name) for name in settings}
    # JAX reads these settings once, at its first program.
    compilation_cache.reset_cache()
    for name, value in settings.items():
        jax.config.update(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


def processor() -> str:
    """A name for what XLA compiles for: a program of another machine's might not run here."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else [platform.processor()]
    kind = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    return f"{platform.machine()}-{zlib.crc32(chr(10).join(kind or lines).encode()):08x}"
