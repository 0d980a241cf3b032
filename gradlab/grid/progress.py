"""What of a sweep is done, failed and missing, read from its folder while it runs or after."""

from __future__ import annotations

import collections
import itertools
import json
import math
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from gradlab import frames
from gradlab._files import Folder
from gradlab._manifest import Newer
from gradlab._names import shorten
from gradlab.grid.consolidate import consolidate
from gradlab.grid.locks import is_held
from gradlab.grid.measurement import Measurement, code_in
from gradlab.grid.plan import Plan
from gradlab.grid.store import chunk_names, decode, is_whole, read_facts


def read(
    dir: str | Path | Folder,
    columns: Iterable[str] | None = None,
    where: Mapping[str, Any] | None = None,
    *,
    names_of: Mapping[str, Callable[[], Iterable[str]]] | None = None,
) -> Any:
    """`gradlab.frames.read`, and of a first sweep that has not ended the runs that are done.

    These are read from its chunks, with a warning that says how many they are.

    Args:
        dir: as in `gradlab.frames.read`, as the others.
        columns: likewise.
        where: likewise.
        names_of: likewise.

    Raises:
        ValueError: likewise, and where no run is done yet.
    """
    folder = dir if isinstance(dir, Folder) else Folder(dir)
    manifest = frames.read_manifest(folder)
    if manifest.get("status") != "running" or folder.exists("runs.parquet"):
        return frames.read(folder, columns, where, names_of=names_of)
    names = _chunks_of(folder, manifest)
    if not names:
        return frames.read(folder, columns, where, names_of=names_of)
    schema = frames.schema_of(manifest)
    schema = schema._replace(is_open=schema.kind not in frames.KINDS)
    with tempfile.TemporaryDirectory() as temporary:
        there = Folder(temporary)
        schema, counts = consolidate(folder, names, schema, there)
        plain = {k: v for k, v in manifest.items() if k not in ("sum", "blocks", "files", "status")}
        there.put("manifest.json", json.dumps(plain | frames.describe(schema)).encode())
        count, total = sum(counts["status"].values()), manifest.get("runs", "an unknown number")
        warnings.warn(
            f"the sweep in {str(folder)!r} has not ended: these are {count} of its {total} runs",
            stacklevel=3,
        )
        results = frames.read(there, columns, where, names_of=names_of)
        return results._replace(manifest=manifest)


def _chunks_of(folder: Folder, manifest: Mapping[str, Any]) -> list[str]:
    """The whole chunks of the runs that a manifest is about."""
    code = manifest.get("code")
    codes = {"", *(code.values() if isinstance(code, Mapping) else ())}
    names = []
    for name in chunk_names(folder):
        content = folder.read(name)
        # Of the user's code that has changed since, a manifest does not know.
        if is_whole(name, content):
            ids = decode(pa.BufferReader(content), folder).run_ids
            names += [name] if codes.issuperset(map(code_in, ids)) else []
    return names


class Status(NamedTuple):
    """How far a sweep is.

    Attributes:
        planned: runs of the spec.
        done: runs that are stored with their numbers.
        failed: runs that are stored with a reason alone.
        missing: the others.
        damaged: files of chunks that are not what their names say.
        running: whether a sweep holds the folder now.
        finished: whether the frames and figures are made of all runs.
        counts: a row per cell and initialization (task and cell): planned, done, failed, missing.
        reasons: how many runs failed for each reason.
    """

    planned: int
    done: int
    failed: int
    missing: int
    damaged: int
    running: bool
    finished: bool
    counts: pd.DataFrame
    reasons: dict[str, int]

    @property
    def headline(self) -> str:
        """The same in a sentence."""
        share = self.done / max(self.planned, 1)
        text = f"{self.done} of {self.planned} runs done ({share:.0%})"
        text += f", {self.failed} failed, {self.missing} missing; "
        text += f"{self.damaged} damaged chunks; " if self.damaged else ""
        if self.running:
            return text + "running"
        if self.finished:
            return text + "finished"
        return text + "not running: the same command goes on from here"


def status(dir: str | Path, measurement_of: Callable[[Mapping[str, Any]], Measurement]) -> Status:
    """What of the sweep in a folder is done, failed and missing.

    Args:
        dir: a folder that a sweep writes, or wrote; a path or an fsspec address.
        measurement_of: what is measured, from the manifest.

    Returns:
        A `Status`. Every chunk is read and verified, as a sweep does when it opens the folder.

    Raises:
        ValueError: where there is no sweep, or a newer gradlab's.
    """
    folder = Folder(dir)
    manifest = frames.read_manifest(folder)
    try:
        measurement = measurement_of(manifest)
        plan = Plan(measurement.model(**manifest["spec"]))
    except ImportError:
        raise
    except Exception as error:  # a manifest may be of another version, or somebody's own
        raise ValueError(
            f"the manifest of {folder} has no spec that this version of gradlab reads: "
            f"{shorten(' '.join(str(error).split()), 300)}"
        ) from None
    by = [axis.name for axis in measurement.schema.axes if axis.by]
    totals: collections.Counter[Any] = collections.Counter()
    for axes in plan.grids:
        each = math.prod(len(v) for k, v in axes.items() if k not in by)
        for point in itertools.product(*(axes[name] for name in by)):
            totals[point] += each
    runs, bad_chunks = stored_runs(folder, by, plan)
    # A folder may hold runs of another spec, where somebody changed its manifest.
    ids = set(runs["run_id"])
    ours = {run.run_id for run in plan if run.run_id in ids} if ids else ids
    runs = runs[runs["run_id"].isin(ours)]
    bad = runs["status"] == "failed"
    counts = pd.DataFrame([dict(zip(by, point, strict=True)) for point in totals]).fillna("none")
    counts["planned"] = list(totals.values())
    for name, rows in (("done", runs[~bad]), ("failed", runs[bad])):
        numbers = collections.Counter(map(tuple, rows[by].to_numpy().tolist()))
        counts[name] = [numbers[tuple(point)] for point in counts[by].to_numpy().tolist()]
    counts["missing"] = counts["planned"] - counts["done"] - counts["failed"]
    reasons = runs.loc[bad, "reason"].value_counts()
    return Status(
        planned=len(plan),
        done=int((~bad).sum()),
        failed=int(bad.sum()),
        missing=len(plan) - len(runs),
        damaged=bad_chunks,
        running=is_held(folder),
        finished=manifest.get("status") == "complete" and len(runs) == len(plan),
        counts=counts.sort_values(by, ignore_index=True) if by else counts,
        reasons={str(reason): int(n) for reason, n in reasons.items()},
    )


def stored_runs(folder: Folder, by: list[str], plan: Plan) -> tuple[pd.DataFrame, int]:
    """A row per stored run, and how many files cannot be read.

    Runs that were measured with code of the user's that has changed since are left out.

    Raises:
        ValueError: where a newer gradlab wrote one.
    """
    columns = ["run_id", "status", "reason", *by]
    parts, bad_chunks = [], 0
    for name in chunk_names(folder):
        try:
            content = folder.read(name)
            if not is_whole(name, content):
                bad_chunks += 1
                continue
            file = pq.ParquetFile(pa.BufferReader(content))
            read_facts(file, folder)
            present = [column for column in columns if column in file.schema_arrow.names]
            parts.append(file.read(columns=present).to_pandas())
        except Newer:
            raise
        except (pa.ArrowException, OSError, ValueError):
            bad_chunks += 1
    runs = pd.concat(parts) if parts else pd.DataFrame(columns=columns)
    runs = runs.reindex(columns=columns)
    # Of a run that was tried again, the numbers count.
    runs = runs.sort_values("status", key=lambda s: s == "failed", kind="stable")
    runs = runs.drop_duplicates("run_id")
    code = runs["run_id"].map(code_in)
    codes = {"", *(code for axes in plan.grids for code in axes["code"])}
    runs = runs.loc[code.isin(codes)]
    return runs.fillna({name: "none" for name in by}), bad_chunks
