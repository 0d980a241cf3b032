"""The command line's `gradlab data`: get the data that the package does not carry."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gradlab import _files
from gradlab._progress import Bar

app = typer.Typer(no_args_is_help=True, help="Get the data that the package does not carry.")


@app.callback()
def _commands() -> None:
    # Without a callback typer makes the only command the app itself, without a name.
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

    with Bar("B") as bar:
        download = _Download(bar)
        folder = data.download(out, progress=download)
    if download.total is None:
        print("already there, nothing was downloaded")
    print(data.read(folder).describe())
    if folder.parent != _files.cache():
        print(f"to use it, give --data {folder} or set {data.ENVIRONMENT} to that path")


class _Download:
    """A progress bar as pooch calls it."""

    def __init__(self, bar: Bar) -> None:
        self.total: int | None = None  # pooch sets it when the first bytes are there
        self._bar, self._done = bar, 0

    def update(self, size: int) -> None:
        """Count the bytes that came."""
        self._done += size
        self._bar(self._done, self.total or self._done)

    def reset(self) -> None:
        """Go back to no bytes: at the end pooch does that, and then counts them all at once."""
        self._done = 0

    def close(self) -> None:
        """Report that the last bytes are there."""
        print("downloaded; checking and unpacking", file=sys.stderr)
