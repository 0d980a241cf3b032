"""The manifest of a folder of results: what was measured, how, by what and with which sums."""

from __future__ import annotations

import datetime
import importlib
import json
import os
import platform
import socket
import subprocess
from pathlib import Path
from typing import Any

import jax

from gradlab import _sums
from gradlab._manifest import FORMAT

_LIBRARIES = ("gradlab", "jax", "jaxlib", "numpy", "optax", "pandas", "pyarrow")


def content_of(about: dict[str, Any]) -> bytes:
    """The text of manifest.json: what it is about, with what it was made, and its own sum."""
    manifest = {
        "format": FORMAT,
        **about,
        "written": now(),
        "host": socket.gethostname(),
        "git": _git(),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.import_module(name).__version__ for name in _LIBRARIES},
        },
        "settings": settings(),
    }
    return (json.dumps(_sums.seal(manifest), indent=2) + "\n").encode()


def now() -> str:
    """The date and time, for people: nothing is decided by a clock that may jump."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def settings() -> dict[str, Any]:
    """What of JAX's settings and of the device a number could depend on."""
    devices = jax.devices()
    return {
        "dtype": "float32",
        "matmul_precision": "highest",
        "jax_enable_x64": jax.dtypes.canonicalize_dtype("float64") == "float64",
        "platform": devices[0].platform,
        "devices": [str(device.device_kind) for device in devices],
        "cores": os.cpu_count(),
    }


def _git() -> dict[str, Any] | None:
    """The commit of gradlab's own source and whether its tree is clean; None without either."""
    where = Path(__file__).parents[2]
    if not (where / ".git").exists():
        return None

    def ask(*words: str) -> str:
        process = subprocess.run(
            ["git", "-C", str(where), *words], capture_output=True, text=True, check=True
        )
        return process.stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "clean": not ask("status", "--porcelain")}
    except (OSError, subprocess.CalledProcessError):
        return None
