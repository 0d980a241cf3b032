"""The command line's `gradlab data`: get the data that the package does not carry."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import rich.console
import rich.progress
import typer

from gradlab import _files

app = typer.Typer(no_args_is_help=True, help="Get the data that the package does not carry.")


@app.callback()
def _commands() -> None:
    # A callback keeps `imdb` the name of a command while it is the only one.
    pass


@app.command()
def imdb(
    out: Annotated[
        Path | None,
        typer.Option(help="where to make the folder aclImdb, if not in the cache", metavar="DIR"),
    ] = None,
) -> None:
    """Download Stanford's 50,000 labelled movie reviews (84 MB) and unpack them."""
    from gradlab.tasks import imdb as data

    with _Bar() as bar:
        folder = data.download(out, progress=bar)
    if bar.total is None:
        print("already there, nothing was downloaded")
    print(data.read(folder).describe())
    if folder.parent != _files.cache():
        print(f"to use it, give --data {folder} or set {data.ENVIRONMENT} to that path")


class _Bar:
    """A progress bar as pooch calls it; a line where the output is no terminal."""

    def __init__(self) -> None:
        self.total: int | None = None  # which pooch sets when the first bytes are there
        self._console = rich.console.Console(stderr=True)
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.DownloadColumn(),
            rich.progress.TransferSpeedColumn(),
            rich.progress.TimeRemainingColumn(),
            console=self._console,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task("downloading", total=None)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, size: int) -> None:
        """Count bytes that have come."""
        self._bar.update(self._task, total=self.total, advance=size)
        self._bar.start()

    def reset(self) -> None:
        """Back to no bytes: pooch does that at the end, and then counts them all at once."""
        self._bar.update(self._task, completed=0)

    def close(self) -> None:
        """The last of the bytes is there."""
        self._bar.stop()
        self._console.print("downloaded; checking and unpacking", highlight=False)
