"""Sweeps: what gradlab measures, on the engine of `gradlab.grid`.

Four measurements are gradlab's own: `gradients`, networks as they are initialized, `conditioning`
of them, `training`, networks as they learn, and `coordinates`, their sizes over width.
`measurement` makes any function one; `options` says which axes a run has,
and `plugins` imports the code that a spec names.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gradlab import grid
from gradlab._files import Folder, expand
from gradlab._names import short_errors, shorten, show
from gradlab._progress import Bar
from gradlab.grid import Estimate, Grid, Measurement, Report, Status, keep_memory, use_cores
from gradlab.grid import spec as specs
from gradlab.sweeps import gradients, plugins, training
from gradlab.sweeps.measurements import measurement, measurement_of
from gradlab.sweeps.options import CHOICES

__all__ = [
    "Estimate",
    "Report",
    "Spec",
    "Status",
    "TrainingSpec",
    "estimate",
    "keep_memory",
    "load",
    "measurement",
    "parse",
    "read",
    "status",
    "sweep",
    "use_cores",
]


def __dir__() -> list[str]:
    return sorted(__all__)


Spec = gradients.MEASUREMENT.model
TrainingSpec = training.MEASUREMENT.model

_ABOUT = ("measurement", "imports")


def parse(
    table: Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    *,
    imports: Any = (),
    folder: str | Path = ".",
) -> Grid:
    """Check the content of a spec file: tables `axes`, `fixed` and `when`, lists `zip`, `blocks`.

    Args:
        table: the content. `measurement` names what is measured: "gradients", "training" or a
            function that `gradlab.sweeps.measurement` knows; without it, a spec that names a task
            is one of training and any other one of gradients. `imports` lists files and modules
            with code that the spec names. Under `axes` an axis is a list or a spacing
            (`{linspace = [0.5, 3.0, 26]}`), under `fixed` one value; what stands outside of the
            tables is either. A block `[[blocks]]` holds either as well, in place of what stands
            outside of it.
        overrides: values in place of what stands anywhere.
        imports: more files and modules, relative to where the process runs.
        folder: what the files of `imports` in the table are relative to.

    >>> parse({"axes": {"gain": [1.0], "length": [10]}, "fixed": {"cell": "gru", "init": "normal"}})
    Spec(blocks=[], zip=[], when={}, cell=['gru'], ..., init=['normal'], gain=[1.0], ...)
    >>> flat = {"cell": "gru", "init": "normal", "gain": {"linspace": [0, 1, 3]}, "length": 10}
    >>> spec = parse(flat, overrides={"length": 20, "seeds": 2})
    >>> spec.gain, spec.length, spec.seed
    ([0.0, 0.5, 1.0], [20], [0, 1])

    Raises:
        ValueError: with one message that names the key and what is valid.
    """
    with short_errors():
        table = dict(table)
        specs.check_content(table)
        specs.check_content(overrides or {})
        name, own = table.pop("measurement", None), table.pop("imports", ())
        modules = (*plugins.load(own, folder), *plugins.load(imports))
        content = [*specs.tables(table), *(overrides or {}).items()]
        return specs.parse(measurement_of(name, content, modules), table, overrides)


def load(
    path: str | Path, overrides: Mapping[str, Any] | None = None, *, imports: Any = ()
) -> Grid:
    """Read a spec from a TOML file; see `parse`.

    Raises:
        ValueError: with one message that names the file, the key and what is valid.
    """
    path = expand(path)
    with short_errors():
        table = specs.read(path)
        try:
            return parse(table, overrides, imports=imports, folder=path.parent)
        except ValueError as error:
            raise ValueError(f"{shorten(str(path), 150)}: {error}") from None


def _spec_of(source: Any, overrides: Mapping[str, Any] | None, imports: Any) -> Grid:
    """A spec from a TOML file, from its content or its axes as a mapping, or from a spec."""
    if isinstance(source, str | Path):
        return load(source, overrides, imports=imports)
    if isinstance(source, Mapping):
        return parse(source, overrides, imports=imports)
    if not isinstance(source, Grid):
        raise ValueError(f"a spec is a TOML file or its content as a mapping; got {show(source)}")
    modules = plugins.load(imports)
    if not overrides and not modules:
        return source
    kind, before = source.measurement.kind, source.measurement.imports
    content = source.model_dump(exclude_unset=True)
    about = {"measurement": kind, "imports": [*before, *modules]}
    return parse(content | about, overrides)


def sweep(
    spec: Grid | Mapping[str, Any] | str | Path,
    out: str | Path,
    *,
    set: Mapping[str, Any] | None = None,
    memory: int | str | None = None,
    workers: int = 0,
    scheduler: str | None = None,
    retry: bool = False,
    imports: Any = (),
    progress: Any = None,
) -> Report:
    """Measure every run of a spec that the folder does not hold yet.

    Args:
        spec: the grid: a TOML file, the same content as a mapping (or its axes alone), or what
            `gradlab.sweeps.load` made of it.
        out: the folder to write, a path or an fsspec address: runs.parquet, steps.parquet,
            manifest.json, summary.csv, figures/.
        set: values of axes in place of those of the spec. An axis that the spec or `set` names and
            that changes no run is warned of, with the condition that turns it off.
        memory: what a chunk may use: bytes, or text such as "2GB". A run that needs more has
            failed, with that as its reason. If None, a quarter of what the device has to give,
            and a single run may take more.
        workers: processes of this machine that measure side by side; 0 for this one alone.
        scheduler: the address of a dask scheduler whose workers measure, tcp://HOST:PORT.
        retry: whether runs that failed before are tried again.
        imports: files and modules with code that the spec names, beside those in the spec.
        progress: True for a bar, on a terminal or in a notebook; or a function that is called with
            (runs done, runs in all, what runs now).

    Returns:
        A `Report`.

    Raises:
        ValueError: where the spec or an argument has a mistake, or the folder cannot be written, is
            in use, was written by a newer gradlab or holds another spec's results.
        OSError: where writing fails on the way; what was finished is kept.

    A sweep that is stopped keeps every chunk that was finished; the same call goes on from there.
    On a CPU the runs are shared among its cores where `gradlab.sweeps.use_cores()` is called before
    anything of JAX runs, as the command line does.

    >>> import tempfile, gradlab as gl
    >>> axes = {"cell": "elman", "init": "orthogonal", "gain": [0.5, 2.0], "length": 20}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = gl.sweep(axes, folder, set={"hidden": 8, "activation": "linear"})
    ...     report.results.runs[["gain", "rate"]].round(3).values.tolist()
    [[0.5, -0.693], [2.0, 0.693]]
    """
    grid_spec = _spec_of(spec, set, imports)
    with contextlib.ExitStack() as stack:
        if isinstance(progress, bool):
            progress = stack.enter_context(Bar("runs")) if progress else None
        return grid.sweep(
            grid_spec,
            out,
            set,
            memory=memory,
            workers=workers,
            scheduler=scheduler,
            retry=retry,
            progress=progress,
        )


def estimate(
    spec: Grid | Mapping[str, Any] | str | Path,
    out: str | Path | None = None,
    *,
    set: Mapping[str, Any] | None = None,
    memory: int | str | None = None,
    workers: int = 0,
    imports: Any = (),
) -> Estimate:
    """What a sweep of a spec will take, without running any of it.

    Args:
        spec: as in `sweep`, as all the others.
        out: the folder, where one may hold a part of the runs already.
        set: values of axes in place of those of the spec.
        memory: what runs need is what their compiled programs say, so the longest of each kind is
            compiled, in some seconds each, and kept for the sweep.
        workers: they share the memory.
        imports: files and modules with code that the spec names.

    Returns:
        An `Estimate`. The time rests on sweeps that this device ran before, of the same cell where
        there was one; else on a matrix product that is timed now.

    Raises:
        ValueError: as in `sweep`.
    """
    grid.check_workers(workers)
    grid_spec = _spec_of(spec, set, imports)
    return grid.estimate(grid_spec, out, set, memory=memory, workers=workers)


def read(
    dir: str | Path | Folder,
    columns: Iterable[str] | None = None,
    where: Mapping[str, Any] | None = None,
) -> Any:
    """The frames and the manifest that a sweep wrote into the folder `dir`, or a part of them.

    `gradlab.frames.read`, which says what the arguments mean, with two more services: of a first
    sweep that has not ended it gives the runs that are done, with a warning that says how many; and
    a name in `where` that no cell, initializer, input or task has is refused.

    Args:
        dir: as in `gradlab.frames.read`, as the others.
        columns: likewise.
        where: likewise.

    Returns:
        `gradlab.frames.Results`, or `TrainingResults` where the sweep trained networks.

    Raises:
        ValueError: likewise.
    """
    return grid.read(dir, columns, where, names_of=CHOICES)


def status(dir: str | Path) -> Status:
    """What of the sweep in a folder is done, failed and missing.

    Args:
        dir: a folder that a sweep writes, or wrote; a path or an fsspec address.

    Returns:
        A `Status`. Every chunk is read and verified, as a sweep does when it opens the folder.

    Raises:
        ValueError: where there is no sweep, or a newer gradlab's, or the user's code that it names
            cannot be imported.
    """
    return grid.status(dir, _measurement_in)


def _measurement_in(manifest: Mapping[str, Any]) -> Measurement:
    """What a folder's sweep measures."""
    imports = plugins.load(manifest.get("imports", ()))
    kind = manifest.get("kind", "gradients")
    content = specs.tables(manifest.get("spec", {}))
    return measurement_of(kind, content, imports, manifest.get("named"))
