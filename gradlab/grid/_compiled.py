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
def cached(folder: str | Path | None = None) -> Iterator[None]:
    """Keep every program that is compiled inside, and take those that were kept before.

    A cache that the user has set up already is left as it is. Otherwise JAX's settings come back
    at the end. The folder is gradlab's own in the user's cache, one for each kind of processor:
    a program made for another one might not run.
    """
    if jax.config.jax_compilation_cache_dir:  # pyright: ignore[reportAttributeAccessIssue]
        yield
        return
    wanted = {
        "jax_compilation_cache_dir": str(folder or _files.cache() / "compiled" / processor()),
        # JAX leaves out what compiles within a second, and all of these do somewhere.
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
        # Kernels tuned for a GPU are JAX's own to keep; their folder would become part of the key.
        "jax_persistent_cache_enable_xla_caches": "none",
    }
    before = {name: getattr(jax.config, name) for name in wanted}
    # JAX decides once, at its first program, whether and where it keeps them.
    compilation_cache.reset_cache()
    for name, value in wanted.items():
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
