"""The command line's `gradlab report`: one page of a sweep's results, to be mailed."""

from __future__ import annotations

from typing import Annotated

import typer


def report(
    dir: Annotated[str, typer.Argument(help="a folder that a sweep wrote", metavar="DIR")],
    out: Annotated[
        str | None, typer.Option(help="the file to write, if not DIR/report.html", metavar="FILE")
    ] = None,
) -> None:
    """Write the report of DIR, one HTML page that carries its figures and needs no network."""
    from gradlab import report as reports

    print(reports.write(dir, out))
