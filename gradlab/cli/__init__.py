"""The command line: `gradlab sweep`, `status`, `figures`, `csv`, `reproduce`, `data`, ..."""

from __future__ import annotations

import collections
import contextlib
import importlib.resources
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import rich.console
import rich.table
import typer

import gradlab
from gradlab._files import Folder, upload_dir
from gradlab._names import shorten, show
from gradlab._progress import Bar
from gradlab.applications.sentiment import command as sentiment
from gradlab.applications.translation import command as translation
from gradlab.applications.weather import command as weather
from gradlab.cli import data
from gradlab.cli.report import report

if TYPE_CHECKING:
    import pandas as pd

    from gradlab.frames import Schema
    from gradlab.sweeps import Report

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(flag: bool) -> None:
    if flag:
        print(f"gradlab {gradlab.__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="print the version and stop"
        ),
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="print where in the code an error came from")
    ] = False,
) -> None:
    """Measure how gradients vanish and explode in recurrent networks."""


app.add_typer(data.app, name="data")
app.add_typer(sentiment.app, name="sentiment")
app.add_typer(translation.app, name="translate")
app.add_typer(weather.app, name="weather")
app.command()(report)

SpecPath = Annotated[Path, typer.Argument(help="the sweep's spec, a TOML file", metavar="SPEC")]
Address = Annotated[
    str, typer.Argument(help="a folder that a sweep writes, or an fsspec address", metavar="DIR")
]


# typer turns Ctrl-C into this return value, the shells' own for SIGINT.
EXIT_INTERRUPT = 130
# What ends a program: Ctrl-C, a scheduler of jobs whose time is up, a terminal that goes away.
_SIGNALS = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]
_TRACEBACK = "--traceback"
# The status of a sweep that ended, some of whose runs failed.
SOME_FAILED = 3


def main() -> None:
    """Run the command line; turn whatever goes wrong into one message and a non-zero status."""
    # After any command as well, where somebody adds it who repeats one.
    arguments = [each for each in sys.argv[1:] if each != _TRACEBACK]
    wants_traceback = len(arguments) < len(sys.argv) - 1
    try:
        with warnings.catch_warnings(), _signals(_interrupt):
            warnings.showwarning = _warn
            status = app(arguments, standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        status = EXIT_INTERRUPT
    except Exception as error:
        if wants_traceback:
            traceback.print_exc()
        status = _explain(error)
    if status == EXIT_INTERRUPT:
        _print(
            "error: stopped; what was finished is saved, and the same command goes on from there"
        )
    sys.exit(status)


def _explain(error: Exception) -> int:
    """Print what went wrong in one line, and give the status."""
    # typer's exceptions for wrong arguments have this method.
    explain = getattr(error, "format_message", None)
    if explain is not None:
        _print(f"error: {explain()}")
        return getattr(error, "exit_code", 2)
    if isinstance(error, ValueError | OSError | ImportError):
        _print(f"error: {error}")
    else:
        what = shorten(f"{type(error).__name__}: {error}", 300)
        _print(
            f"error: unexpected {what}; this is a mistake in gradlab, please report it with the "
            f"command and what {_TRACEBACK} prints"
        )
    return 1


def _warn(message: Warning | str, *_: object) -> None:
    _print(f"warning: {message}")


def _print(text: str) -> None:
    """One line on standard error, however long or broken, and if there is somebody to read it."""
    with contextlib.suppress(OSError):
        print(f"gradlab: {shorten(' '.join(text.splitlines()))}", file=sys.stderr, flush=True)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def _signals(handler: Callable[..., None]) -> Iterator[None]:
    """Let a function take the signals that end a program, but for SIGHUP under `nohup`."""
    # A script's background jobs begin with SIGINT ignored, and are stopped by it all the same.
    hangup = getattr(signal, "SIGHUP", None)
    ours = [n for n in _SIGNALS if n != hangup or signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in ours}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


@app.command()
def init(
    spec: Annotated[Path, typer.Argument(help="the file to write", metavar="SPEC")] = Path(
        "sweep.toml"
    ),
) -> None:
    """Write an example spec, which `gradlab sweep` measures in about a minute."""
    text = importlib.resources.files("gradlab.cli").joinpath("example.toml").read_bytes()
    try:
        with spec.open("xb") as file:
            file.write(text)
    except FileExistsError:
        raise ValueError(f"{spec} exists; give another name: gradlab init other.toml") from None
    print(f"wrote {spec}; measure it with: gradlab sweep {spec} --out {spec.stem}-results")


@app.command()
def sweep(
    spec: SpecPath,
    out: Annotated[
        str | None,
        typer.Option(help="the folder for the results, or an fsspec address", metavar="DIR"),
    ] = None,
    set: Annotated[
        list[str] | None,
        typer.Option(help="another value for an axis of SPEC: hidden=256, gain=[0.5, 1.0]"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="say what there is to do, and do nothing")
    ] = False,
    memory: Annotated[
        str | None, typer.Option(help="what a chunk of runs may use; 2GB, 512MiB", metavar="SIZE")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=0, help="processes of this machine that measure side by side")
    ] = 0,
    scheduler: Annotated[
        str | None,
        typer.Option(help="a dask scheduler whose workers measure", metavar="tcp://HOST:PORT"),
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="run again what failed before")] = False,
    imports: Annotated[
        list[str] | None,
        typer.Option(
            "--import", help="a file or module with code that SPEC names", metavar="my_cells.py"
        ),
    ] = None,
) -> int:
    """Measure the grid of SPEC into DIR; runs that DIR holds already are not run again."""
    from gradlab import sweeps

    overrides = _overrides(set or [])
    sweeps.use_cores()
    grid = sweeps.load(spec, overrides, imports=imports or ())
    if dry_run:
        print(sweeps.estimate(grid, out, set=overrides, memory=memory, workers=workers))
        return 0
    if out is None:
        raise ValueError("no folder for the results; give one with --out DIR (or --dry-run)")
    sweeps.keep_memory()
    before = _content(spec)
    with _interruptible_progress() as progress:
        report = sweeps.sweep(
            grid,
            out,
            set=overrides,
            memory=memory,
            workers=workers,
            scheduler=scheduler,
            retry=retry,
            progress=progress,
        )
    _print_report(report)
    if _content(spec) != before:
        print(f"{spec} changed while the sweep ran; {out} answers it as it was", file=sys.stderr)
    return SOME_FAILED if report.failed else 0


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _overrides(assignments: list[str]) -> dict[str, Any]:
    """The axes that --set gives: NAME=VALUE, the value as in TOML, or words with commas."""
    from gradlab.grid.spec import loads

    overrides: dict[str, Any] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise ValueError(f"--set takes NAME=VALUE, got {show(text)}")
        name = name.strip()
        if name in overrides:
            raise ValueError(
                f"--set gives {shorten(name, 80)} twice; several values are a list: {name}=1,2"
            )
        parts = value.split(",") if not value.strip().startswith(("[", "{", '"')) else [value]
        values = [_value(name, part.strip(), loads) for part in parts]
        overrides[name] = values if len(values) > 1 else values[0]
    return overrides


def _value(name: str, text: str, loads: Callable[[str], dict[str, Any]]) -> Any:
    try:
        return loads(f"value = {text}")["value"]
    except ValueError as error:
        if "broken TOML" in str(error):
            return text
        raise ValueError(f"--set {show(name)}: {error}") from None


@app.command()
def status(dir: Address) -> None:
    """Count what is done, failed and missing in DIR, also while a sweep runs."""
    from gradlab import sweeps

    progress = sweeps.status(dir)
    table = rich.table.Table()
    for name in progress.counts.columns:
        text = progress.counts[name].dtype.kind not in "iu"
        table.add_column(name, justify="left" if text else "right")
    for row in progress.counts.itertuples(index=False):
        table.add_row(*map(str, row))
    out = console()
    out.print(progress.headline, soft_wrap=True, highlight=False)
    out.print(table)
    for reason, count in progress.reasons.items():
        out.print(f"{count} failed: {reason}", soft_wrap=True, highlight=False, markup=False)


@app.command()
def figures(
    dir: Address,
    pdf: Annotated[bool, typer.Option("--pdf", help="a PDF of each beside its PNG")] = False,
) -> None:
    """Redraw the figures of DIR from its dataframes, running nothing."""
    from gradlab import figures as drawing
    from gradlab import frames

    folder, formats = Folder(dir), ("png", "pdf") if pdf else ("png",)
    frames.warn_unfinished(folder, frames.read_manifest(folder))
    if folder.local is not None:
        for path in drawing.draw(folder, folder.local / "figures", formats):
            print(path)
        return
    with upload_dir(folder, "figures") as here:
        for path in drawing.draw(folder, here, formats):
            print(f"{folder}/figures/{path.name}")


@app.command()
def csv(dir: Address) -> None:
    """Export the dataframes of DIR as CSV."""
    from gradlab import frames

    for path in frames.to_csv(dir):
        print(path)


@app.command()
def reproduce(
    spec: SpecPath,
    reference: Annotated[
        Path, typer.Argument(help="the summary to agree with, a CSV file", metavar="SUMMARY")
    ],
) -> None:
    """Run SPEC afresh and compare its summary with a committed one, within stated tolerances."""
    import pandas as pd

    from gradlab import frames, sweeps

    grid = sweeps.load(spec)
    if grid.measurement.kind != "gradients":
        raise ValueError(f"{spec}: reproduce compares sweeps of gradients, and this one trains")
    try:
        expected = pd.read_csv(reference)
    except (OSError, ValueError) as error:
        raise ValueError(f"{reference}: no summary to compare with: {error}") from None
    with tempfile.TemporaryDirectory() as folder, _interruptible_progress() as progress:
        report = sweeps.sweep(grid, Path(folder) / "results", progress=progress)
        runs = report.results.runs
    differences = frames.compare(frames.summary(runs), expected)
    print(f"{report.total} runs in {report.seconds:.0f} s, against {reference}")
    print(differences.to_string(index=False))
    if not all(differences["agrees"]):
        raise ValueError("the results differ from the reference by more than the tolerances")


def _print_report(report: Report) -> None:
    from gradlab import frames

    out, folder = console(), Folder(report.folder)
    for name in report.damaged:
        out.print(f"damaged chunk {name}: its runs were run again")
    points = frames.read_summary(folder)
    schema = frames.schema_of(frames.read_manifest(folder))
    if schema.kind == "gradients":
        out.print(_verdicts(frames.verdicts(points)))
    elif schema.kind == "training":
        out.print(_points(points, schema, _TRAINED, "trained networks, by point of the sweep"))
    else:
        medians = {name: ".4g" for name in map(str, points) if name.endswith("_median")}
        out.print(_points(points, schema, {"runs": "d", **medians}, f"{schema.kind}, by point"))
    out.print(
        f"{report.computed} of {report.total} runs measured now"
        f"{', the others before,' if report.computed < report.total else ''} "
        f"in {report.seconds:.1f} s"
    )
    for path in report.paths:
        out.print(path, soft_wrap=True, highlight=False)
    for reason, count in collections.Counter(report.failed.values()).items():
        out.print(f"{count} runs failed: {reason}", soft_wrap=True, highlight=False, markup=False)
    if report.failed:
        out.print("their rows say so; --retry runs them again")


def console() -> rich.console.Console:
    """Where tables go; rows are not cut where the output is no terminal."""
    return rich.console.Console(width=None if sys.stdout.isatty() else 160)


def _verdicts(frame: pd.DataFrame) -> rich.table.Table:
    names = [name for name in map(str, frame) if name.startswith("vanishing_")]
    lengths = [int(name.rpartition("_")[2]) for name in names]
    table = rich.table.Table(
        title="share of runs that vanish / explode, by length; rate at the longest length",
        title_justify="left",
    )
    for name in ("cell", "init", "rate (nats/step)"):
        table.add_column(name)
    for length in lengths:
        table.add_column(f"T={length}", justify="right")
    for row in frame.to_dict("records"):
        shares = [_shares(row, length) for length in lengths]
        span = f"{row['rate_min']:+.3f} to {row['rate_max']:+.3f}"
        span = "–" if row["rate_min"] != row["rate_min"] else span
        table.add_row(row["cell"], row["init"], span, *shares)
    return table


_TRAINED = {
    "runs": "d",
    "solved": ".0%",
    "solved_step_median": ".0f",
    "nonfinite": ".0%",
    **dict.fromkeys(("loss_median", "error_median", "baseline"), ".4g"),
}


def _points(
    points: pd.DataFrame, schema: Schema, columns: dict[str, str], title: str
) -> rich.table.Table:
    """A row per point, without the axes that all of them share."""
    table = rich.table.Table(title=title, title_justify="left")
    varying = [name for name in schema.point if len(set(points[name].astype(str))) > 1]
    always = [axis.name for axis in schema.axes if axis.by]
    axes = dict.fromkeys((*always, *varying))
    for name in (*axes, *columns):
        table.add_column(name.replace("_", " "), justify="left" if name in axes else "right")
    for row in points.to_dict("records"):
        cells = [_text(row[name], "") for name in axes]
        table.add_row(*cells, *(_text(row[name], form) for name, form in columns.items()))
    return table


def _text(value: Any, form: str) -> str:
    return "–" if value is None or value != value else format(value, form)


def _shares(row: Mapping[Any, Any], length: int) -> str:
    if row[f"vanishing_{length}"] != row[f"vanishing_{length}"]:
        return "–"
    text = f"{row[f'vanishing_{length}']:.0%} / {row[f'exploding_{length}']:.0%}"
    bad = row[f"nonfinite_{length}"]
    return f"{text} ({bad:.0%} nonfinite)" if bad > 0 else text


@contextlib.contextmanager
def _interruptible_progress() -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar of runs, in which Ctrl-C, SIGTERM and SIGHUP end the sweep after a chunk.

    A second signal ends it at once. A scheduler of jobs sends SIGTERM when the time is up, and a
    terminal SIGHUP when it is closed.
    """
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        if stopping:
            raise KeyboardInterrupt
        stopping = True
        _print("stopping after this chunk; once more to stop at once")

    with _signals(stop), Bar("runs") as bar:

        def report(done: int, total: int, label: str) -> None:
            if stopping:
                raise KeyboardInterrupt
            # A terminal that was closed takes no more lines; the sweep goes on to its last one.
            with contextlib.suppress(OSError):
                bar(done, total, label)

        yield report
