"""Files that are written whole or not at all, on this machine or behind an fsspec address."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO


def write(path: str | Path, fill: Callable[[BinaryIO], object]) -> None:
    """Give `path` the content that `fill` writes, once all of it is on the disk.

    The content goes into a temporary file of the same folder, which takes the name at the end. If
    anything fails, the old file stays and nothing is left behind.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(Path(folder) / "a.txt", lambda file: file.write(b"whole"))
    ...     [path.read_text() for path in Path(folder).iterdir()]
    ['whole']
    """
    path = Path(path)
    temporary = path.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        with temporary.open("wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, so that they outlast a loss of power."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for each in reversed(missing):
        _sync(each.parent)


def _sync(folder: Path) -> None:
    """Bring the names of a folder to the disk: without it a crash may lose a new one."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def expand(path: str | os.PathLike[str]) -> Path:
    """The path with the user's home for ~.

    Raises:
        ValueError: where there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ValueError(f"{path}: there is no such user whose home ~ could be") from None


class ReadError(OSError):
    """What is behind an address gave no answer: its files may be as they were."""


class Folder:
    """A folder of files, on this machine or behind an fsspec address such as s3://bucket/sweep.

    Names are relative and use slashes; ~ is the user's home. The first `write` makes the folder.

    >>> with tempfile.TemporaryDirectory() as here:
    ...     folder = Folder(here)
    ...     folder.write("a/b.txt", lambda file: file.write(b"whole"))
    ...     folder.names("a"), folder.read("a/b.txt")
    (['a/b.txt'], b'whole')
    """

    def __init__(self, address: str | Path) -> None:
        self.address = str(address)
        self.local: Path | None = None
        if "://" not in self.address:
            self.local = expand(address)
            return
        import fsspec

        try:
            if self.address.startswith(":"):
                raise ValueError("it names no protocol before the colon, such as s3://")
            self._fs, self._root = fsspec.core.url_to_fs(self.address)
        except ImportError as error:
            raise ValueError(f"{self.address}: {error}") from None
        except Exception as error:  # each protocol has errors of its own
            raise ValueError(
                f"{self.address}: {error}: not an address that fsspec can open as it is; give a "
                "folder of this machine, or an address such as s3://bucket/sweep, gs://, abfs://, "
                "sftp:// or memory://"
            ) from None
        protocols = self._fs.protocol
        if "file" in ((protocols,) if isinstance(protocols, str) else protocols):
            self.local = Path(self._root)

    def __str__(self) -> str:
        return self.address

    def names(self, below: str | None = None) -> list[str]:
        """Every file in the folder and below, sorted; none where there is no folder.

        With `below`, the files right in the folder of that name, or with "" in this one: what is
        further below may be somebody's whole disk.
        """
        if below is None:
            inner = (name for name, is_file in self._entries("") if not is_file)
            return sorted([*self.names(""), *(n for each in inner for n in self._walk(each))])
        start = f"{below}/" if below else ""
        return [f"{start}{name}" for name, is_file in self._entries(below) if is_file]

    def _walk(self, below: str) -> Iterator[str]:
        for name, is_file in self._entries(below):
            yield from [f"{below}/{name}"] if is_file else self._walk(f"{below}/{name}")

    def content(self) -> list[str]:
        """The names of what is right in the folder, files and folders that are not empty."""
        return [name for name, is_file in self._entries("") if is_file or self._entries(name)]

    def _entries(self, below: str) -> list[tuple[str, bool]]:
        """The names right in the folder or in one below it, sorted, and whether each is a file."""
        if self.local is not None:
            try:
                with os.scandir(self.local / below) as entries:
                    return sorted((entry.name, entry.is_file()) for entry in entries)
            except (FileNotFoundError, NotADirectoryError):
                return []
        place = self._path(below) if below else self._root
        with self._errors(ReadError):
            self._fs.invalidate_cache()
            if not self._fs.isdir(place):
                return []
            listing = self._fs.ls(place, detail=True)
        pairs = ((str(each["name"]).rstrip("/"), each.get("type") == "file") for each in listing)
        pairs = ((name.rpartition("/")[2], is_file) for name, is_file in pairs)
        # Some stores list the folder itself.
        own = place.rstrip("/").rpartition("/")[2]
        return sorted(pair for pair in pairs if pair[0] and (pair[1] or pair[0] != own))

    @contextlib.contextmanager
    def _errors(self, kind: type[OSError] = OSError) -> Iterator[None]:
        """Make an error of the kind of whatever a library behind an address raises."""
        try:
            yield
        except (FileNotFoundError, ReadError, ValueError, ImportError):
            raise
        except OSError as error:
            if kind is OSError:
                raise
            raise kind(f"cannot read {self.address}: {error.strerror or error}") from error
        except Exception as error:
            raise kind(f"{self.address}: {type(error).__name__}: {error}") from error

    def exists(self, name: str) -> bool:
        """Whether there is a file of that name."""
        if self.local is not None:
            return (self.local / name).is_file()
        with self._errors(ReadError):
            self._fs.invalidate_cache()
            return self._fs.isfile(self._path(name))

    def open(self, name: str) -> Any:
        """The file, opened for reading: a seekable binary file.

        Raises:
            FileNotFoundError: where there is none.
        """
        if self.local is not None:
            return (self.local / name).open("rb")
        with self._errors(ReadError):
            return self._fs.open(self._path(name), "rb")

    def read(self, name: str) -> bytes:
        """The file's content."""
        if self.local is not None:
            return (self.local / name).read_bytes()
        with self._errors(ReadError), self.open(name) as file:
            return file.read()

    def write(self, name: str, fill: Callable[[BinaryIO], object]) -> None:
        """Give the file the content that `fill` writes, whole or not at all."""
        if self.local is not None:
            path = self.local / name
            make_folder(path.parent)
            write(path, fill)
            return
        with tempfile.NamedTemporaryFile() as file:
            fill(file.file)  # type: ignore[arg-type]
            file.flush()
            target = self._path(name)
            with self._errors():
                self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
                self._fs.put_file(file.name, target)

    def put(self, name: str, content: bytes) -> None:
        """Give the file this content, whole or not at all."""
        self.write(name, lambda file: file.write(content))

    def remove(self, name: str) -> None:
        """Remove the file, if there is one."""
        if self.local is not None:
            (self.local / name).unlink(missing_ok=True)
            return
        try:
            with contextlib.suppress(FileNotFoundError), self._errors():
                self._fs.rm_file(self._path(name))
        except OSError as error:
            reason = error.strerror or error
            raise OSError(f"cannot remove {self.address}/{name}: {reason}") from error

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"


@contextlib.contextmanager
def upload_dir(folder: Folder, below: str) -> Iterator[Path]:
    """A temporary folder on this machine; at the end its files are copied to `folder`/`below`."""
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)
        for path in sorted(Path(temporary).rglob("*")):
            if path.is_file():
                name = f"{below}/{path.relative_to(temporary).as_posix()}"
                folder.put(name, path.read_bytes())


def cache() -> Path:
    """The user's folder for what can be recomputed: in $XDG_CACHE_HOME, or the system's own."""
    import platformdirs

    return platformdirs.user_cache_path("gradlab", appauthor=False)


def recall(name: str) -> dict[str, Any]:
    """The table that the user's cache holds under a name; {} if it is missing or damaged."""
    try:
        content = json.loads((cache() / name).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def remember(name: str, content: dict[str, Any]) -> None:
    """Add to the table in the cache; do nothing where the home cannot be written."""
    with contextlib.suppress(OSError):
        cache().mkdir(parents=True, exist_ok=True)
        text = json.dumps(recall(name) | content, indent=2)
        write(cache() / name, lambda file: file.write(text.encode()))
