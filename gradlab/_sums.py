"""Sums that find a damaged file: of a whole file, of each block of it, and of a manifest.

A whole file has the first 16 hex digits of its SHA-256. A file of which only a part may be read
has a CRC-32 for each block of `BLOCK` bytes as well, so that reading a part verifies that part.
"""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections.abc import Mapping
from typing import Any, BinaryIO

# A read is rounded up to whole blocks; smaller blocks mean a longer manifest (8 digits each).
BLOCK = 2**18


class DamageError(ValueError):
    """Content that is not what its sum says."""


def of_bytes(content: bytes) -> str:
    """The sum of a whole content.

    >>> of_bytes(b"whole")
    '5d5766cf2d787016'
    """
    return hashlib.sha256(content).hexdigest()[:16]


def of_file(file: Any) -> str:
    """`of_bytes` of a file, without holding it in memory."""
    return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def of_blocks(file: BinaryIO) -> dict[str, Any]:
    """The size of a file, the size of its blocks, and their sums in one text of hex digits.

    >>> of_blocks(io.BytesIO(b"whole"))
    {'bytes': 5, 'block': 262144, 'crc32': 'c459294f'}
    """
    size, sums = 0, []
    while block := file.read(BLOCK):
        size += len(block)
        sums.append(f"{zlib.crc32(block):08x}")
    return {"bytes": size, "block": BLOCK, "crc32": "".join(sums)}


class VerifiedFile(io.RawIOBase):
    """A file for reading that verifies every block before it gives out a byte of it.

    Args:
        file: the file, seekable.
        sums: what `of_blocks` gave when the file was written.

    Raises:
        DamageError: at once where the size differs, and by `read` where a block does.

    >>> sums = of_blocks(io.BytesIO(b"whole"))
    >>> VerifiedFile(io.BytesIO(b"whole"), sums).read()
    b'whole'
    >>> VerifiedFile(io.BytesIO(b"whose"), sums).read()
    Traceback (most recent call last):
    gradlab._sums.DamageError: bytes 0 to 5 are not those that were written
    """

    def __init__(self, file: Any, sums: Mapping[str, Any]) -> None:
        self._file = file
        self._size, self._block, self._sums = sums["bytes"], sums["block"], sums["crc32"]
        self._place = 0
        # Small neighbours, such as the columns of a row group, share a block.
        self._last: tuple[int, bytes] = (0, b"")
        size = file.seek(0, io.SEEK_END)
        if size != self._size:
            raise DamageError(f"it has {size} bytes, and {self._size} were written")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(start + offset, 0)
        return self._place

    def readinto(self, buffer: Any) -> int:
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def readall(self) -> bytes:
        return self.read()

    def read(self, size: int | None = -1, /) -> bytes:
        rest = max(self._size - self._place, 0)
        size = rest if size is None or size < 0 else min(size, rest)
        if not size:
            return b""
        first, content = self._last
        if not first <= self._place <= self._place + size <= first + len(content):
            first, content = self._blocks(self._place, self._place + size)
        start = self._place - first
        self._place += size
        return content[start : start + size]

    def _blocks(self, low: int, high: int) -> tuple[int, bytes]:
        """Where the block that holds `low` begins, and all from there to that before `high`."""
        first = low - low % self._block
        last = min(high + -high % self._block, self._size)
        self._file.seek(first)
        content = self._file.read(last - first)
        view = memoryview(content)
        for start in range(first, last, self._block):
            block = view[start - first : start - first + self._block]
            place = 8 * (start // self._block)
            if f"{zlib.crc32(block):08x}" != self._sums[place : place + 8]:
                end = min(start + self._block, self._size)
                raise DamageError(f"bytes {start} to {end} are not those that were written")
        end = max((len(content) - 1) // self._block * self._block, 0)
        self._last = (first + end, content[end:])
        return first, content


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a manifest with its sum, under the key "sum".

    >>> seal({"runs": 3})
    {'runs': 3, 'sum': '0c7f3d48bdb7bfe6'}
    """
    plain: dict[str, Any] = json.loads(json.dumps(content))
    return {**plain, "sum": _of_table(plain)}


def verify(manifest: Mapping[str, Any]) -> None:
    """Refuse a manifest that does not have the sum it was sealed with.

    Older manifests have neither a sum nor the sums of blocks, and pass.

    Raises:
        DamageError: where the sum differs, or is missing beside sums of blocks.
    """
    if "sum" not in manifest and "blocks" not in manifest:
        return
    rest = {name: value for name, value in manifest.items() if name != "sum"}
    if manifest.get("sum") != _of_table(rest):
        raise DamageError("its content does not have the sum that it was written with")


def _of_table(content: Mapping[str, Any]) -> str:
    return of_bytes(json.dumps(content, sort_keys=True).encode())
