"""Sizes that a user writes, and the memory that is left."""

import os

import pytest

from gradlab import _memory


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GB", 2 * 10**9),
        ("1.5 MiB", 3 * 2**19),
        ("64kB", 64_000),
        ("1tb", 10**12),
        ("3 GiB", 3 * 2**30),
        ("4096", 4096),
        (4096, 4096),
        ("10B", 10),
    ],
)
def test_sizes_are_read(text, size):
    assert _memory.parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GB", "two GB", "-1GB", -1, "0", "0.2B", "2GB free", "1e9"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="memory must be a number above 0 and a unit of B, kB"):
        _memory.parse_bytes(text)


def test_available_memory_is_the_smaller_of_the_machine_and_its_group(monkeypatch, tmp_path):
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    monkeypatch.setattr(_memory, "_GROUPS", ())
    assert 1 <= _memory.available_memory() <= installed
    files = [tmp_path / "limit", tmp_path / "used", tmp_path / "unlimited", tmp_path / "missing"]
    for file, text in zip(files, ("20000\n", "8000\n", "max\n"), strict=False):
        file.write_text(text)
    limit, used, unlimited, missing = map(str, files)
    monkeypatch.setattr(_memory, "_GROUPS", ((unlimited, used), (limit, missing), (limit, used)))
    assert _memory.available_memory() == 12_000
    monkeypatch.setattr(_memory, "_GROUPS", ((used, limit),))
    assert _memory.available_memory() == 1
