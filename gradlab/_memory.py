"""Memory, cores and device: sizes that a user writes, and what the machine has to give."""

from __future__ import annotations

import os
import re
from pathlib import Path

import jax
import psutil
import pydantic

from gradlab._names import show

_SIZE = pydantic.TypeAdapter(pydantic.ByteSize)
# The files of a control group with its limit and its use, in either version of the interface.
_GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def parse_bytes(text: str | int) -> int:
    """Bytes, from text such as "2GB": decimal units (kB, MB, ...), binary ones (KiB, ...) or none.

    Args:
        text: the size; a number without a unit counts bytes.

    Raises:
        ValueError: for anything else, and for less than a byte.

    >>> parse_bytes("2GB"), parse_bytes("1.5 MiB"), parse_bytes(4096)
    (2000000000, 1572864, 4096)
    """
    # pydantic ignores what follows the unit: "2GB free".
    is_huge = isinstance(text, int) and text.bit_length() > 63
    whole = not is_huge and re.fullmatch(r"\s*[\d.]+\s*[a-zA-Z]*\s*", str(text))
    try:
        size = int(_SIZE.validate_python(text)) if whole else 0
    except (pydantic.ValidationError, OverflowError):
        size = 0
    if not 1 <= size < 2**63:
        raise ValueError(
            "memory must be a number above 0 and a unit of B, kB, MB, GB, TB, KiB, MiB, GiB, TiB, "
            f"such as 2GB; got {show(text)}"
        )
    return size


def available_memory() -> int:
    """Bytes that the device can still give: a GPU's limit less its use, else the machine's.

    On a CPU it is what the system calls available, or what is left of the limit of the control
    group (a container, a batch job) if that is less; at least 1.
    """
    # Backends without statistics give None.
    stats = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return max(1, min(psutil.virtual_memory().available, *_group_room()))


def total_memory() -> int:
    """Bytes that the device has in all, whoever uses them now."""
    stats = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"]
    return min(psutil.virtual_memory().total, *(limit for limit, _ in _groups()))


def _group_room() -> list[int]:
    return [limit - usage for limit, usage in _groups()]


def _groups() -> list[tuple[int, int]]:
    """Limit and use of the control groups of this process; psutil knows only the whole machine."""
    groups = [(2**63, 0)]
    for files in _GROUPS:
        try:
            limit, usage = (int(Path(file).read_text()) for file in files)
        except (OSError, ValueError):
            # There is no such file, or no limit: "max".
            continue
        groups.append((limit, usage))
    return groups


def device_name() -> str:
    """The platform and the kind of the device that JAX computes on: the column device of runs."""
    device = jax.devices()[0]
    return f"{device.platform}: {device.device_kind}"


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
